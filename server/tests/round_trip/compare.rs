//! What is equal after a round trip: packets or their units, times up to one constant, decoded pictures and sound.

use serde_json::Value;

use crate::common::{Packet, Vidar, assert_lists, ffmpeg, packets, run};

/// How a path may change a clip.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carriage {
    /// Packets are framed anew: NAL units without parameter sets and delimiters, AAC without ADTS.
    pub(crate) reframed: bool,
    /// Frames of sound at the end that need not have come; those before it share the times of RTP packets.
    pub(crate) gathered: usize,
    /// Packets at the end that are broken.
    pub(crate) cut: usize,
    pub(crate) tolerance_us: i64,
}

/// Kind and codec of each track.
pub(crate) fn tracks(input: &str) -> Vec<(String, String)> {
    // `streams`, not those of `programs`: MPEG-TS has both.
    let args = ["-v", "error", "-show_entries", "stream=codec_type,codec_name", "-of", "json", input];
    let answer: Value = serde_json::from_slice(&run("ffprobe", &args)).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let streams = answer["streams"].as_array().expect("streams").iter();
    streams.map(|stream| (text(&stream["codec_type"]), text(&stream["codec_name"]))).collect()
}

/// Each track of a clip, as far as the path keeps it.
fn units(input: &str, kinds: &[(String, String)], carriage: Carriage) -> Vec<Vec<Packet>> {
    if !carriage.reframed {
        return packets(input);
    }
    let each = kinds.iter().enumerate().map(|(track, (_, codec))| {
        let filter = match &codec[..] {
            "h264" => "h264_mp4toannexb,filter_units=remove_types=7|8|9",
            // x265's SEI stands in hvcC, and ffmpeg copies it from there. ingest/tests/rtsp_peers.rs compares SEI.
            "hevc" => "hevc_mp4toannexb,filter_units=remove_types=32|33|34|35|39",
            "aac" => "aac_adtstoasc",
            _ => "null",
        };
        let map = format!("0:{track}");
        let args = ["-copyts", "-i", input, "-map", &map, "-c", "copy", "-bsf", filter, "-f", "framemd5", "-"];
        rows(&ffmpeg(&args))
    });
    each.collect()
}

/// Rows of framemd5 of one track: stream, dts, pts, duration, size, hash; then side data.
fn rows(output: &[u8]) -> Vec<Packet> {
    let text = String::from_utf8_lossy(output);
    let base = text.lines().find_map(|line| line.strip_prefix("#tb 0: ")?.split_once('/')).expect("a time base");
    let (num, den): (f64, f64) = (base.0.parse().expect("a number"), base.1.parse().expect("a number"));
    let row = |line: &str| {
        let columns: Vec<&str> = line.split(',').map(str::trim).collect();
        let ticks: f64 = columns[2].parse().expect("a time");
        Packet {
            pts_us: (ticks * num / den * 1e6).round() as i64,
            size: columns[4].parse().expect("a size"),
            hash: columns[5].to_owned(),
            key: false,
        }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(row).collect()
}

/// Tracks have equal packets or units; times are equal up to one constant common to all tracks.
pub(crate) fn assert_same(name: &str, pushed: &str, stored: &str, carriage: Carriage) {
    let (kinds, found) = (tracks(pushed), tracks(stored));
    let mut stored = units(stored, &found, carriage);
    let mut pushed = units(pushed, &kinds, carriage);
    if name.contains("bbb_cmaf") {
        // ffprobe 5.1 moves a track without an edit list by its most negative composition offset.
        pushed[0].iter_mut().for_each(|packet| packet.pts_us -= 40_000);
    }
    assert_eq!(pushed.len(), stored.len(), "{name}: tracks {found:?}");
    let mut constant = None;
    for (pushed, kind) in pushed.iter().zip(&kinds) {
        // GStreamer's order is that of its threads.
        let at = found.iter().position(|t| t == kind).unwrap_or_else(|| panic!("{name}: {kind:?} of {found:?}"));
        let stored = std::mem::take(&mut stored[at]);
        let what = format!("{name}: {}", kind.1);
        let gathered = if kind.0 == "audio" { carriage.gathered } else { 0 };
        let missing = pushed.len().saturating_sub(stored.len()).min(gathered + carriage.cut);
        let pushed = &pushed[..pushed.len() - missing];
        let bytes = |list: &[Packet]| list.iter().map(|p| (p.size, p.hash.clone())).collect::<Vec<_>>();
        assert_lists(&what, &bytes(pushed), &bytes(&stored));
        let constant = *constant.get_or_insert(stored[0].pts_us - pushed[0].pts_us);
        let holes = holes(pushed);
        for (index, (a, b)) in pushed.iter().zip(&stored).enumerate() {
            // A gap of the clip between frames that were gathered in one packet is not sent.
            if holes[index.saturating_sub(gathered)..index].contains(&true) && gathered > 0 {
                continue;
            }
            let off = b.pts_us - a.pts_us - constant;
            assert!(off.abs() <= carriage.tolerance_us, "{what}: packet {index} is {off} µs off");
        }
    }
}

/// Where packets do not follow each other evenly.
fn holes(packets: &[Packet]) -> Vec<bool> {
    let steps: Vec<i64> = packets.windows(2).map(|pair| pair[1].pts_us - pair[0].pts_us).collect();
    let mut sorted = steps.clone();
    sorted.sort_unstable();
    let usual = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    steps.iter().map(|step| (step - usual).abs() > 3000).collect()
}

/// The decoded pictures of the first such track, or its sound: nothing trimmed at its ends.
pub(crate) fn decoded(input: &str, kind: &str, more: &[&str]) -> Vec<String> {
    let map = format!("0:{}:0", &kind[..1]);
    let input = ["-flags2", "+skip_manual", "-i", input, "-map", &map, "-vsync", "passthrough"];
    rows(&ffmpeg(&[&input, more, &["-f", "framemd5", "-"]].concat())).into_iter().map(|row| row.hash).collect()
}

/// Sound that is trimmed at its beginning as its container says. The end is not compared: DiscardPadding is not kept.
pub(crate) fn heard(input: &str) -> Vec<String> {
    let mut frames = rows(&ffmpeg(&["-i", input, "-map", "0:a:0", "-f", "framemd5", "-"]));
    frames.pop();
    frames.into_iter().map(|row| row.hash).collect()
}

/// Fragments by their numbers have the bytes of the pushed clip's GOPs.
pub(crate) fn assert_same_fragments(vidar: &Vidar, stream: &str, pushed: &str) {
    let bytes = ffmpeg(&["-i", pushed, "-map", "0:v", "-c", "copy", "-f", "rawvideo", "-"]);
    let mut gops: Vec<usize> = Vec::new();
    for packet in &packets(pushed)[0] {
        if packet.key {
            gops.push(0);
        }
        *gops.last_mut().expect("it starts with a keyframe") += packet.size as usize;
    }
    let mut rest = &bytes[..];
    let mut digest = |len: usize| {
        let (gop, after) = rest.split_at(len);
        rest = after;
        let digest = ring::digest::digest(&ring::digest::SHA256, gop);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let expected: Vec<String> = gops.into_iter().map(&mut digest).collect();
    let manifest = vidar.json(&format!("/v1/streams/{stream}/manifest?limit=100"));
    let mut fragments = manifest["fragments"].as_array().expect("fragments").clone();
    fragments.sort_by_key(|fragment| fragment["fragment_number"].as_str().expect("a number").to_owned());
    let text = |fragment: &Value| fragment["sha256"].as_str().expect("a digest").to_owned();
    assert_lists(&format!("{stream}: fragments"), &expected, &fragments.iter().map(text).collect::<Vec<_>>());
}

/// The samples of G.711 and PCM, however they are divided, and each packet where the ones before it end.
pub(crate) fn assert_same_pcm(name: &str, pushed: &str, stored: &str, tolerance_us: i64) {
    let raw = |input: &str| ffmpeg(&["-i", input, "-map", "0:a:0", "-f", "s16le", "-"]);
    assert_lists(name, &raw(pushed), &raw(stored));
    let args = ["-v", "error", "-show_entries", "stream=sample_rate,bits_per_sample", "-of", "json", stored];
    let answer: Value = serde_json::from_slice(&run("ffprobe", &args)).expect("JSON");
    let stream = &answer["streams"][0];
    let rate: i64 = stream["sample_rate"].as_str().expect("a rate").parse().expect("a number");
    let sample_len = stream["bits_per_sample"].as_i64().expect("bits") / 8;
    let packets = packets(stored).swap_remove(0);
    let mut len = 0;
    for (index, packet) in packets.iter().enumerate() {
        let off = packet.pts_us - packets[0].pts_us - len * 1_000_000 / (rate * sample_len);
        assert!(off.abs() <= tolerance_us, "{name}: packet {index} is {off} µs off");
        len += packet.size as i64;
    }
}
