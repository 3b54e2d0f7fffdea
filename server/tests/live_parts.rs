//! HLS of low latency against a camera that goes on: parts as they come, and the same once all is stored.

mod common;

use std::collections::BTreeMap;

use common::{Pusher, Vidar, start_in};

const TARGET: &str = "target=2&part=209";

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = &line[line.find(&format!("{name}="))? + name.len() + 1..];
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(',').next(),
    }
}

/// The playlist of a rendition.
struct Playlist {
    text: String,
    sequence: u64,
    segments: Vec<String>,
    /// Of all segments, and of the open one.
    parts: Vec<String>,
    open_count: usize,
}

impl Playlist {
    fn get(vidar: &Vidar, id: &str, query: &str) -> Option<Self> {
        let (status, body) = vidar.request(&[], &format!("/v1/streams/cam/hls/{id}/live.m3u8?{TARGET}{query}"));
        let text = String::from_utf8(body).expect("UTF-8");
        if status != 200 {
            assert_eq!(status, 404, "{text}");
            return None;
        }
        let mut playlist = Self { text, sequence: 0, segments: Vec::new(), parts: Vec::new(), open_count: 0 };
        for line in playlist.text.lines() {
            if let Some(sequence) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                playlist.sequence = sequence.parse().expect("a number");
            } else if line.starts_with("#EXT-X-PART:") {
                playlist.parts.push(attribute(line, "URI").expect("its URI").to_owned());
                playlist.open_count += 1;
            } else if !line.starts_with('#') {
                playlist.segments.push(line.to_owned());
                playlist.open_count = 0;
            }
        }
        Some(playlist)
    }

    /// What is to come next: a part of the segment that is recorded, or of the one after.
    fn next(&self) -> String {
        format!("&_HLS_msn={}&_HLS_part={}", self.sequence + self.segments.len() as u64, self.open_count)
    }
}

fn fetch(vidar: &Vidar, id: &str, uri: &str) -> Vec<u8> {
    let (status, body) = vidar.request(&[], &format!("/v1/streams/cam/hls/{id}/{uri}"));
    assert_eq!(status, 200, "{id}/{uri}: {}", String::from_utf8_lossy(&body));
    body
}

#[test]
fn parts_of_a_camera_are_those_of_the_archive() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let mut vidar = start_in(&dir, &[]);
    let url = vidar.rtsp_url("cam");
    let pictures = ["-re", "-f", "lavfi", "-i", "testsrc2=s=160x90:r=25", "-re", "-f", "lavfi", "-i", "sine=r=48000"];
    let codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25", "-c:a", "aac"];
    let out = ["-f", "rtsp", "-rtsp_transport", "tcp", &url];
    let pusher = Pusher::ffmpeg(&[&pictures[..], &codecs, &out].concat());
    vidar.until("the first fragments", |vidar| Playlist::get(vidar, "v1", "").filter(|list| list.segments.len() > 1));

    let mut seen = BTreeMap::new();
    let mut lists =
        [Playlist::get(&vidar, "v1", ""), Playlist::get(&vidar, "a1", "")].map(|list| list.expect("a list"));
    let mut live_parts = 0;
    while live_parts < 40 {
        for (id, list) in ["v1", "a1"].iter().zip(&mut lists) {
            // Waits for the next part.
            let next = Playlist::get(&vidar, id, &list.next()).expect("it goes on");
            assert!(next.next() != list.next(), "{}\n{}", list.text, next.text);
            *list = next;
            for uri in list.parts.iter().chain(&list.segments[list.segments.len() - 1..]) {
                let body = || fetch(&vidar, id, uri);
                seen.entry((id.to_string(), uri.clone())).or_insert_with(body);
            }
            live_parts += list.open_count.min(1);
        }
    }
    // Whole segments are the parts that were had of them.
    let (list, of) = (&lists[0], |uri: &String| seen.get(&("v1".to_owned(), uri.clone())));
    let last = list.segments.last().expect("a segment");
    let stem = last.strip_suffix(".m4s").expect("a segment");
    let parts: Vec<u8> = list
        .parts
        .iter()
        .filter(|part| part.starts_with(&format!("{stem}-")))
        .flat_map(|part| of(part).expect("it was had").clone())
        .collect();
    assert_eq!(of(last), Some(&parts));
    // A player that knows nothing of parts.
    let live = vidar.url("/v1/streams/cam/hls/live.m3u8?part=200");
    let frames = common::ffmpeg(&["-i", &live, "-map", "0:v", "-frames:v", "50", "-f", "framemd5", "-"]);
    let frames = String::from_utf8(frames).expect("UTF-8");
    let count = frames.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(count, 50, "{frames}");
    drop(pusher);
    assert_eq!(vidar.terminate(), Some(0));

    let vidar = start_in(&dir, &[]);
    for ((id, uri), body) in &seen {
        assert!(fetch(&vidar, id, uri) == *body, "{id}/{uri} is another from the archive");
    }
    assert!(seen.len() > 60, "{}", seen.len());
}
