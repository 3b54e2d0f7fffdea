//! kill -9 at random moments while three clients push: what was acknowledged is there and plays.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use common::{ID, PATIENCE, Pusher, Random, SECRET, Vidar, ffmpeg, start_in};
use serde_json::Value;

/// `VIDAR_CRASH_KILLS` asks for another number; `scripts/crash kill` does.
const KILLS: u32 = 30;

/// A curl that pushes from ffmpeg's live output, and hands on the acknowledgements as they come.
struct LivePush {
    ffmpeg: Child,
    curl: Child,
    acks: mpsc::Receiver<String>,
}

impl LivePush {
    fn new(vidar: &Vidar, stream: &str) -> Self {
        let clip = vidar_fixtures::path("h264_short_gop.mkv");
        let mut ffmpeg = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "quiet", "-nostdin", "-re", "-stream_loop", "-1", "-i"])
            .arg(clip)
            .args(["-c", "copy", "-f", "matroska", "-flush_packets", "1", "-"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("ffmpeg starts");
        let mut curl = Command::new("curl")
            .args(["-sSN", "-u", &format!("{ID}:{SECRET}"), "-X", "PUT", "-T", "-"])
            .arg(format!("http://{}/v1/streams/{stream}/media?ack=stream", vidar.http))
            .stdin(ffmpeg.stdout.take().expect("stdout is piped"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("curl starts");
        let lines = BufReader::new(curl.stdout.take().expect("stdout is piped")).lines();
        let (sender, acks) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { ffmpeg, curl, acks }
    }

    /// Numbers acknowledged until the connection ended.
    fn end(mut self) -> Vec<String> {
        let _ = self.ffmpeg.kill();
        let _ = self.ffmpeg.wait();
        let _ = self.curl.wait();
        let lines = self.acks.iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines
            .filter(|line| line["event"] == "durable")
            .map(|line| line["fragment_number"].as_str().expect("a number").to_owned())
            .collect()
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let kills = std::env::var("VIDAR_CRASH_KILLS").map_or(KILLS, |count| count.parse().expect("a number of kills"));
    let mut random = Random(1);
    let mut acknowledged: [BTreeSet<String>; 2] = Default::default();
    for round in 0..kills {
        let mut vidar = start_in(&dir, &[]);
        for (stream, acknowledged) in acknowledged.iter().enumerate() {
            let listed: BTreeSet<String> = if round == 0 {
                BTreeSet::new()
            } else {
                let numbers = vidar.fragments(&format!("cam-{stream}"));
                numbers.iter().map(|f| f["fragment_number"].as_str().expect("a number").to_owned()).collect()
            };
            let lost: Vec<&String> = acknowledged.difference(&listed).collect();
            assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
        }
        let pushes = [LivePush::new(&vidar, "cam-0"), LivePush::new(&vidar, "cam-1")];
        let rtsp = vidar.rtsp_url("cam-rtsp");
        let clip = vidar_fixtures::path("bbb.mkv");
        let clip = clip.to_str().expect("a UTF-8 path");
        let _rtsp = Pusher::ffmpeg(&[
            "-re",
            "-stream_loop",
            "-1",
            "-i",
            clip,
            "-c",
            "copy",
            "-f",
            "rtsp",
            "-rtsp_transport",
            "tcp",
            &rtsp,
        ]);
        // At least one acknowledgement, then up to half a second of anything.
        let first = pushes[0].acks.recv_timeout(PATIENCE).expect("an acknowledgement");
        let number = |line: &str| {
            serde_json::from_str::<Value>(line).expect("JSON")["fragment_number"].as_str().expect("a number").to_owned()
        };
        acknowledged[0].insert(number(&first));
        let moment = Duration::from_micros(random.below(500_000));
        // A random moment is the point here; nothing is waited for.
        std::thread::park_timeout(moment);
        vidar.kill();
        for (push, acknowledged) in pushes.into_iter().zip(&mut acknowledged) {
            acknowledged.extend(push.end());
        }
    }
    let mut vidar = start_in(&dir, &[]);
    assert!(acknowledged.iter().all(|set| set.len() >= kills as usize), "{:?}", acknowledged.map(|set| set.len()));
    for stream in ["cam-0", "cam-1", "cam-rtsp"] {
        let fragments = vidar.fragments(stream);
        // RTSP acknowledges nothing: what there is of it has to play, that is all.
        assert!(!fragments.is_empty() || stream == "cam-rtsp");
        if !fragments.is_empty() {
            let clip = vidar
                .url(&format!("/v1/streams/{stream}/clip.mkv?start=2000-01-01T00:00:00Z&end=2100-01-01T00:00:00Z"));
            ffmpeg(&["-xerror", "-i", &clip, "-f", "null", "-"]);
        }
        let numbers: Vec<&str> = fragments.iter().map(|f| f["fragment_number"].as_str().expect("a number")).collect();
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "a number was given twice");
    }
    assert_eq!(vidar.terminate(), Some(0));
    let verify = Command::new(env!("CARGO_BIN_EXE_vidar"))
        .args(["verify", "--depth", "decrypt", "--json", "--data-dir"])
        .arg(&dir)
        .output()
        .expect("vidar verify runs");
    let text = String::from_utf8(verify.stdout).expect("UTF-8");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0), "{text}");
}
