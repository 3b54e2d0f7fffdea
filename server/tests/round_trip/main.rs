//! Every valid cell of protocols × containers × codecs: pushed by a real client, read back, compared packet by packet
//! with the bytes as pushed, and picture by picture after decoding, whole and in random ranges. `cells.rs` lists them.

// Says what is left out.
#![allow(clippy::print_stderr)]

mod cells;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod players;
mod push;
mod ranges;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cells::{CELLS, Client, tolerance_ms};
use common::{Vidar, assert_lists, start};
use compare::{Carriage, assert_same, assert_same_fragments, assert_same_pcm, decoded, heard, tracks};
use push::{clip_path, is_cut, push, text};
use ranges::Whole;

/// Cells at a time: each is a client, then one process of ffmpeg after another.
const AT_ONCE: usize = 4;

fn is_matroska(clip: &str) -> bool {
    clip.ends_with("mkv") || clip.ends_with("webm")
}

#[test]
fn matroska_by_curl_comes_back() {
    check_cells(|clip, client| client == Client::Curl && is_matroska(clip));
}

#[test]
fn mp4_and_mpeg_ts_by_curl_come_back() {
    check_cells(|clip, client| client == Client::Curl && !is_matroska(clip));
}

#[test]
fn matroska_by_ffmpeg_comes_back() {
    check_cells(|clip, client| client == Client::Ffmpeg && is_matroska(clip));
}

#[test]
fn mp4_and_mpeg_ts_by_ffmpeg_come_back() {
    check_cells(|clip, client| client == Client::Ffmpeg && !is_matroska(clip));
}

#[test]
fn rtsp_by_ffmpeg_over_tcp_comes_back() {
    check_cells(|_, client| client == Client::FfmpegTcp);
}

#[test]
fn rtsp_by_ffmpeg_over_udp_comes_back() {
    check_cells(|_, client| client == Client::FfmpegUdp);
}

#[test]
fn rtsp_by_gstreamer_comes_back() {
    check_cells(|_, client| matches!(client, Client::GstTcp | Client::GstUdp));
}

/// Every file of `VIDAR_CORPUS`; a plain MP4 of our own where that is not set.
#[test]
fn every_clip_of_the_corpus_comes_back() {
    if std::env::var_os("VIDAR_CORPUS").is_none_or(|folder| folder.is_empty()) {
        eprintln!("VIDAR_CORPUS is not set: fixtures only");
    }
    let own = tempfile::tempdir().expect("a temporary directory");
    let clips = vidar_fixtures::pushable_corpus(own.path());
    check_all(clips.into_iter().map(|clip| (clip, Client::Curl)).collect(), own.path());
}

#[test]
fn the_note_lists_the_cells() {
    let note = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/design/matrix.md");
    let note = std::fs::read_to_string(note).expect("docs/design/matrix.md");
    let table: String = note
        .lines()
        .skip_while(|line| !line.starts_with("| Clip"))
        .take_while(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(table == cells::table(), "docs/design/matrix.md should have:\n{}", cells::table());
}

fn check_cells(wanted: impl Fn(&str, Client) -> bool) {
    let own = tempfile::tempdir().expect("a temporary directory");
    let mut all = Vec::new();
    for cell in CELLS {
        let clients: Vec<Client> = cell.clients.iter().copied().filter(|client| wanted(cell.clip, *client)).collect();
        if !clients.is_empty() {
            let clip = clip_path(cell.clip, own.path());
            all.extend(clients.into_iter().map(|client| (clip.clone(), client)));
        }
    }
    check_all(all, own.path());
}

fn check_all(cells: Vec<(PathBuf, Client)>, folder: &Path) {
    let vidar = start();
    let left = Mutex::new(cells);
    let next = || left.lock().expect("no lock is held while checking").pop();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((clip, client)) = next() {
                    check(&vidar, &clip, client, folder);
                }
            });
        }
    });
}

fn check(vidar: &Vidar, clip: &Path, client: Client, folder: &Path) {
    let name = clip.file_name().and_then(|name| name.to_str()).expect("a name");
    let stream = format!("{client:?}-{}", name.replace('.', "-"));
    let pushed = push(vidar, client, clip, &stream, folder);
    let pushed = text(&pushed);
    let fragments = vidar.fragments(&stream);
    assert!(fragments.iter().all(|fragment| fragment["lost_count"] == 0), "{stream}: a loss");
    if name == "kvs_getmedia_cranes.mkv" {
        // A document for each fragment, so a run for each: they overlap in producer time, and are reached by number.
        return assert_same_fragments(vidar, &stream, pushed);
    }
    let cell = Pushed {
        kinds: tracks(pushed),
        carriage: Carriage {
            reframed: client.is_rtsp() || name.ends_with(".ts"),
            gathered: if client.gathers_sound() { 16 } else { 0 },
            cut: usize::from(is_cut(clip)),
            tolerance_us: 1000 * tolerance_ms(client, name),
        },
        mkv: everything(vidar, &stream, "mkv"),
        mp4: everything(vidar, &stream, "mp4"),
        name: &stream,
        file: pushed,
        client,
    };
    cell.check_packets();
    cell.check_sound();
    let shown = cell.check_pictures();
    if cell.carriage.cut == 0 {
        ranges::check(&Whole { vidar, stream: &stream, mkv: &cell.mkv, shown: &shown });
    }
}

/// The whole stream.
fn everything(vidar: &Vidar, stream: &str, container: &str) -> String {
    vidar.url(&format!("/v1/streams/{stream}/clip.{container}?start=2000-01-01T00:00:00Z&end=2100-01-01T00:00:00Z"))
}

/// A clip that was pushed, and the clips of the whole stream.
struct Pushed<'a> {
    name: &'a str,
    client: Client,
    /// The bytes as pushed.
    file: &'a str,
    kinds: Vec<(String, String)>,
    carriage: Carriage,
    mkv: String,
    mp4: String,
}

impl Pushed<'_> {
    fn has(&self, kind: &str) -> bool {
        self.kinds.iter().any(|(of, _)| of == kind)
    }

    fn has_codec(&self, codec: &str) -> bool {
        self.kinds.iter().any(|(_, of)| of.starts_with(codec))
    }

    /// In Matroska, whose times are whole milliseconds, and in MP4, whose times are the source's.
    fn check_packets(&self) {
        let Self { name, file, mkv, mp4, carriage, .. } = self;
        if self.client.is_rtsp() {
            if self.has_codec("pcm") {
                return assert_same_pcm(name, file, mkv, carriage.tolerance_us);
            }
            return assert_same(name, file, mkv, *carriage);
        }
        let exact_us = carriage.tolerance_us;
        let rounded_us = if is_matroska(file) { exact_us } else { exact_us.max(1000) };
        assert_same(name, file, mkv, Carriage { tolerance_us: rounded_us, ..*carriage });
        if !self.has_codec("vp8") {
            // An MP4 clip has the parameter sets of this one in its header only.
            let reframed = carriage.reframed || name.contains("kvs_sample_h265");
            // ffprobe says whole microseconds.
            let tolerance_us = exact_us.max(1);
            assert_same(&format!("{name}: MP4"), file, mp4, Carriage { reframed, tolerance_us, ..*carriage });
        }
    }

    fn check_sound(&self) {
        if !self.has("audio") || self.client.is_rtsp() && self.has_codec("pcm") {
            return;
        }
        let Self { name, file, mkv, carriage, .. } = self;
        // RTP's Opus is always announced as stereo (RFC 7587 section 7): one of two equal channels is compared.
        let announced = self.client.is_rtsp() && self.has_codec("opus");
        let left: &[&str] = if announced { &["-af", "pan=mono|c0=c0"] } else { &[] };
        let (mut pushed, stored) = (decoded(file, "audio", left), decoded(mkv, "audio", left));
        pushed.truncate(stored.len().max(pushed.len().saturating_sub(carriage.gathered)));
        assert_lists(&format!("{name}: sound"), &pushed, &stored);
        // ffmpeg 5.1 does not read what MPEG-TS says of Opus's beginning.
        let trims_unread = self.has_codec("opus") && file.ends_with(".ts");
        if !self.client.is_rtsp() && !trims_unread {
            assert_lists(&format!("{name}: sound as heard"), &heard(file), &heard(mkv));
        }
    }

    /// The pictures that are shown.
    fn check_pictures(&self) -> Vec<String> {
        if !self.has("video") {
            return Vec::new();
        }
        let Self { name, file, mkv, mp4, carriage, .. } = self;
        let (mut pushed, shown) = (decoded(file, "video", &[]), decoded(mkv, "video", &[]));
        pushed.truncate(shown.len().max(pushed.len() - carriage.cut));
        assert_lists(&format!("{name}: pictures"), &pushed, &shown);
        if !self.has_codec("vp8") {
            assert_lists(&format!("{name}: pictures from MP4"), &shown, &decoded(mp4, "video", &[]));
        }
        shown
    }
}
