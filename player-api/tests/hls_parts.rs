//! HLS of low latency: parts of what is recorded, and the same from the archive.

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use support::{Answer, Archive, Push, START, fragments};
use vidar_core::hub::{LiveEvent, LiveSink as _};
use vidar_core::ids::{FragmentNumber, RunId, StreamId, StreamName};
use vidar_core::record::TableEnvelope;
use vidar_core::registry::StreamRegistry as _;
use vidar_core::sample::Sample;
use vidar_core::sink::{Durable, OpenFragment};
use vidar_core::time::UnixMs;
use vidar_media::container::fmp4;
use vidar_media::demux::{Demux as _, Event};
use vidar_media::fragmenter::{Cut, Options, Output};

const FOLDER: &str = "/v1/streams/cam/hls";

/// A fragment that is complete and not yet durable.
struct Closed {
    place: OpenFragment,
    cut: Cut,
    parts: Vec<(TableEnvelope, Bytes)>,
}

/// Pushes a clip by steps, as a second run after the same clip.
struct Recorder<'a> {
    archive: &'a Archive,
    stream: StreamId,
    run: RunId,
    start: UnixMs,
    /// Media time of the run's beginning.
    first_ms: i64,
    outputs: VecDeque<Output>,
    next: OpenFragment,
    is_first: bool,
    open: Option<OpenFragment>,
    parts: Vec<(TableEnvelope, Bytes)>,
    closed: VecDeque<Closed>,
}

impl<'a> Recorder<'a> {
    async fn new(archive: &'a Archive, clip: &str, options: Options) -> Self {
        let last = archive.push(Push::new("cam", clip, START)).await.pop().expect("a fragment");
        let stream = archive.registry.get(&StreamName::new("cam").unwrap()).expect("it is there").stream;
        let outputs: VecDeque<Output> = fragments(clip, options).into();
        let first = outputs.iter().find_map(|output| if let Output::Cut(cut) = output { Some(cut) } else { None });
        let (number, ordinal) = (FragmentNumber::MIN, last.meta.ordinal + 1);
        Self {
            archive,
            stream,
            run: RunId::new(),
            start: START.plus_ms(60_000),
            first_ms: first.expect("a fragment").start_ms,
            outputs,
            next: OpenFragment { number, ordinal, discontinuity: last.meta.discontinuity + 1 },
            is_first: true,
            open: None,
            parts: Vec::new(),
            closed: VecDeque::new(),
        }
    }

    fn publish(&self, event: LiveEvent) {
        self.archive.api.hub.publish(self.stream, event);
    }

    /// One output of the fragmenter; false: there is none any more.
    fn step(&mut self) -> bool {
        let Some(output) = self.outputs.pop_front() else { return false };
        match output {
            Output::Open { config, start_ms, starts_with_sync } => {
                let producer_start = self.start.plus_ms(start_ms - self.first_ms);
                let fragment = OpenFragment { number: self.archive.number(producer_start), ..self.next };
                self.next.ordinal += 1;
                self.open = Some(fragment);
                let (run, is_anchored) = (self.run, true);
                self.publish(LiveEvent::Opened {
                    fragment,
                    run,
                    config,
                    producer_start,
                    is_anchored,
                    starts_with_sync,
                });
            }
            Output::Sample(sample) => {
                let number = self.open.expect("it is open").number;
                self.publish(LiveEvent::Sample { number, sample });
            }
            Output::Tags(_) | Output::RunBreak => {}
            Output::Cut(cut) if cut.part.is_some() => self.parts.push((cut.table, cut.media.concat().into())),
            Output::Cut(cut) => {
                let place = self.open.take().expect("it is open");
                let Cut { duration_ms, next_decode_ticks, .. } = cut;
                self.closed.push_back(Closed { place, cut, parts: std::mem::take(&mut self.parts) });
                self.publish(LiveEvent::Closed { fragment: place, duration_ms, next_decode_ticks });
            }
        }
        true
    }

    /// Goes on until a fragment is complete; false: there is none any more.
    fn close_one(&mut self) -> bool {
        let before = self.closed.len();
        while self.closed.len() == before {
            if !self.step() {
                return false;
            }
        }
        true
    }

    /// All that is complete becomes durable.
    fn store(&mut self) {
        while let Some(Closed { place, cut, parts }) = self.closed.pop_front() {
            let producer_start = self.start.plus_ms(cut.start_ms - self.first_ms);
            let duration_ms = cut.duration_ms;
            let is_first = std::mem::take(&mut self.is_first);
            let entry = self.archive.store(self.stream, self.run, place.number, producer_start, is_first, cut, parts);
            assert_eq!((entry.meta.ordinal, entry.meta.discontinuity), (place.ordinal, place.discontinuity));
            let number = place.number;
            self.publish(LiveEvent::Durable(Durable { number, producer_start, duration_ms, size_bytes: 1 }));
        }
    }

    /// Goes on until so many parts of the open fragment are listed.
    async fn record_parts(&mut self, id: &str, count: usize) -> Playlist {
        loop {
            let playlist = Playlist::get(self.archive, id, "").await;
            if playlist.open.len() >= count {
                return playlist;
            }
            assert!(self.step(), "the clip is over");
        }
    }
}

/// What the text of a playlist says.
#[derive(Debug, Default)]
struct Playlist {
    text: String,
    sequence: u64,
    /// URI and parts of each.
    segments: Vec<(String, Vec<String>)>,
    /// Parts of the one that is recorded.
    open: Vec<String>,
    hint: Option<String>,
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = &line[line.find(&format!("{name}="))? + name.len() + 1..];
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(',').next(),
    }
}

impl Playlist {
    async fn get(archive: &Archive, id: &str, query: &str) -> Self {
        // What follows the hub sees what was published.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let answer = archive.get(&format!("{FOLDER}/{id}/live.m3u8?target=4&part=209{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Self::read(answer.text())
    }

    fn read(text: &str) -> Self {
        let mut playlist = Self { text: text.to_owned(), ..Self::default() };
        for line in text.lines() {
            if let Some(sequence) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                playlist.sequence = sequence.parse().unwrap();
            } else if line.starts_with("#EXT-X-PART:") {
                playlist.open.push(attribute(line, "URI").unwrap().to_owned());
            } else if line.starts_with("#EXT-X-PRELOAD-HINT:") {
                playlist.hint = attribute(line, "URI").map(str::to_owned);
            } else if !line.starts_with('#') {
                playlist.segments.push((line.to_owned(), std::mem::take(&mut playlist.open)));
            }
        }
        playlist
    }
}

async fn fetch(archive: &Archive, id: &str, uri: &str) -> Answer {
    let answer = archive.get(&format!("{FOLDER}/{id}/{uri}")).await;
    assert_eq!(answer.status, 200, "{id}/{uri}: {}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    answer
}

const CLIPS: [&str; 18] = [
    "bbb.mkv",
    "bbb.ts",
    "bbb_frag.mp4",
    "bbb_cmaf.mp4",
    "h264_ip.mkv",
    "h264_long_gop.mkv",
    "h264_open_gop.mkv",
    "h264_open_gop.ts",
    "h264_pyramid.mkv",
    "h264_short_gop.mkv",
    "h264_vfr.mkv",
    "h265.ts",
    "late_audio.mkv",
    "av1_opus.mkv",
    "vp9_opus.webm",
    "audio_aac.ts",
    "audio_opus.mkv",
    "audio_mp3.mkv",
];

#[tokio::test]
async fn parts_of_what_is_recorded_are_those_of_the_archive() {
    // Records that go out while a fragment is open change nothing.
    let short = Options { part_duration_ms: 300, ..Options::default() };
    let mut open_parts = 0;
    for (clip, options) in CLIPS.iter().flat_map(|clip| [(clip, Options::default()), (clip, short)]) {
        let (mut archive, mut seen) = (Archive::new(), BTreeMap::new());
        let (open, fragments) = watch(&archive, clip, options, &mut seen).await;
        open_parts += open;
        assert!(fragments > 0 && seen.len() >= 2 * fragments, "{clip}: {} of {fragments}", seen.len());
        archive.restart();
        for ((id, uri), body) in &seen {
            assert_eq!(fetch(&archive, id, uri).await.body, body, "{clip}: {id}/{uri} from the archive");
        }
    }
    assert!(open_parts > 200, "{open_parts}");
}

/// Fetches all that the playlists list while a clip is recorded. How many parts of open fragments that were, in how many
/// fragments.
async fn watch(
    archive: &Archive,
    clip: &str,
    options: Options,
    seen: &mut BTreeMap<(String, String), Bytes>,
) -> (usize, usize) {
    let mut recorder = Recorder::new(archive, clip, options).await;
    let multivariant = archive.get(&format!("{FOLDER}/live.m3u8?part=200")).await;
    let has = |id: &&str| multivariant.text().contains(&format!("{id}/"));
    let ids: Vec<&str> = ["v1", "a1"].into_iter().filter(has).collect();
    assert!(!ids.is_empty(), "{clip}");
    for id in &ids {
        Playlist::get(archive, id, "").await;
    }
    let (mut open_parts, mut fragments) = (0, 0);
    loop {
        // In the middle of it.
        let half =
            recorder.outputs.iter().take_while(|output| !matches!(output, Output::Cut(cut) if cut.part.is_none()));
        for _ in 0..half.count() / 2 {
            recorder.step();
        }
        open_parts += look(archive, clip, &ids, fragments, seen).await;
        let more = recorder.close_one();
        look(archive, clip, &ids, fragments, seen).await;
        if !more {
            return (open_parts, fragments);
        }
        fragments += 1;
        recorder.store();
    }
}

/// Fetches what is listed of the last fragments; how many parts of an open one that were.
async fn look(
    archive: &Archive,
    clip: &str,
    ids: &[&str],
    fragments: usize,
    seen: &mut BTreeMap<(String, String), Bytes>,
) -> usize {
    let mut open_parts = 0;
    for id in ids {
        let playlist = Playlist::get(archive, id, "").await;
        open_parts += playlist.open.len();
        let of_run = playlist.segments.iter().rev().take(fragments + 1).filter(|(_, parts)| !parts.is_empty());
        let all = of_run.clone().flat_map(|(uri, parts)| parts.iter().chain([uri])).chain(&playlist.open);
        for uri in all {
            let body = fetch(archive, id, uri).await.body;
            let known = seen.entry(((*id).to_owned(), uri.clone())).or_insert_with(|| body.clone());
            assert_eq!(*known, body, "{clip}: {id}/{uri}");
        }
        let known = |uri: &String| seen[&((*id).to_owned(), uri.clone())].clone();
        for (uri, parts) in of_run {
            let whole: Vec<u8> = parts.iter().flat_map(|part| known(part).to_vec()).collect();
            assert_eq!(known(uri), whole, "{clip}: {id}/{uri}");
        }
    }
    open_parts
}

/// Samples of an init segment and what follows.
fn sample_count(bytes: Vec<Bytes>) -> usize {
    let (mut demuxer, mut events) = (fmp4::Demuxer::new(), Vec::new());
    bytes.into_iter().for_each(|bytes| demuxer.push(bytes, &mut events).expect("it is well-formed"));
    demuxer.finish(&mut events).expect("it ends where it should");
    events.iter().filter(|event| matches!(event, Event::Sample(_))).count()
}

#[tokio::test]
async fn a_playlist_and_a_part_are_waited_for() {
    let archive = Archive::new();
    let mut recorder = Recorder::new(&archive, "bbb.mkv", Options::default()).await;
    Playlist::get(&archive, "v1", "").await;
    let first = recorder.record_parts("v1", 2).await;
    let last = first.sequence + first.segments.len() as u64 - 1;
    let url = |query: &str| format!("{FOLDER}/v1/live.m3u8?target=4&part=209{query}");
    // There at once: a part that is, the segments before, and those at whose end it is.
    for query in [format!("&_HLS_msn={last}"), format!("&_HLS_msn={}&_HLS_part=1", last + 1)] {
        let answer = archive.get(&url(&query)).now_or_never().unwrap_or_else(|| panic!("{query} waits"));
        assert_eq!(answer.text(), first.text, "{query}");
    }
    // The next part, by the playlist and by itself.
    let (next, hint) = (url(&format!("&_HLS_msn={}&_HLS_part=2", last + 1)), first.hint.clone().expect("a hint"));
    let hint_uri = hint_url(&hint);
    let (mut playlist, mut part) = (Box::pin(archive.get(&next)), Box::pin(archive.get(&hint_uri)));
    let mut waited = 0;
    let (playlist, part) = loop {
        let (playlist, part) = (playlist.as_mut().now_or_never(), part.as_mut().now_or_never());
        match (playlist, part) {
            (Some(playlist), Some(part)) => break (playlist, part),
            (None, None) => waited += 1,
            _ => panic!("one of them alone"),
        }
        assert!(recorder.step());
        // What follows the hub sees it.
        tokio::task::yield_now().await;
    };
    assert!(waited > 1, "{waited}");
    let playlist = Playlist::read(playlist.text());
    assert_eq!((playlist.open.len(), playlist.open.last()), (3, Some(&hint)));
    assert_eq!(part.body, fetch(&archive, "v1", &hint).await.body);
    let init = playlist.text.lines().find(|line| line.starts_with("#EXT-X-MAP")).expect("an init segment");
    let init = fetch(&archive, "v1", attribute(init, "URI").unwrap()).await.body;
    let mut media = vec![init];
    for uri in &playlist.open {
        media.push(fetch(&archive, "v1", uri).await.body);
    }
    assert_eq!(sample_count(media), 15, "three parts of five pictures");
    let parts: Vec<&str> = playlist.text.lines().filter(|line| line.starts_with("#EXT-X-PART:")).collect();
    assert!(parts.iter().all(|part| attribute(part, "DURATION") == Some("0.200000")), "{parts:?}");
    let independent: Vec<bool> = parts.iter().map(|part| part.ends_with(",INDEPENDENT=YES")).collect();
    assert_eq!(independent, [true, false, false]);
    // A whole segment, which is not durable yet.
    let next = url(&format!("&_HLS_msn={}", last + 1));
    let mut answer = Box::pin(archive.get(&next));
    assert!(answer.as_mut().now_or_never().is_none());
    recorder.close_one();
    let playlist = Playlist::read(answer.await.text());
    assert_eq!(playlist.segments.len(), first.segments.len() + 1);
    // Others say how far they are.
    assert!(
        playlist.text.contains(&format!(
            "#EXT-X-RENDITION-REPORT:URI=\"../a1/live.m3u8?target=4&part=209\",LAST-MSN={}",
            last + 1
        )),
        "{}",
        playlist.text
    );

    for (query, parameter) in [
        (format!("&_HLS_msn={}", last + 9), "_HLS_msn"),
        ("&_HLS_part=1".to_owned(), "_HLS_part"),
        ("&_HLS_msn=x".to_owned(), "_HLS_msn"),
    ] {
        let answer = archive.get(&url(&query)).await;
        assert_eq!((answer.status, answer.json()["parameter"].as_str()), (400, Some(parameter)), "{query}");
    }
    for (uri, status) in [("live.m3u8?part=49", 400), ("live.m3u8?window=0", 400), ("live.m3u8?window=86401", 400)] {
        assert_eq!(archive.get(&format!("{FOLDER}/v1/{uri}")).await.status, status, "{uri}");
    }
    let missing = hint.replace("-209-", "-209-9999");
    recorder.store();
    assert_eq!(archive.get(&hint_url(&missing)).await.status, 404);
}

fn hint_url(uri: &str) -> String {
    format!("{FOLDER}/v1/{uri}")
}

#[tokio::test]
async fn a_window_goes_back_and_may_be_left_out_of_the_next_answer() {
    let archive = Archive::new();
    for run in -4..0 {
        archive.push(Push::new("cam", "bbb.mkv", START.plus_ms(run * 20_000))).await;
    }
    let mut recorder = Recorder::new(&archive, "bbb.mkv", Options::default()).await;
    Playlist::get(&archive, "v1", "").await;
    recorder.close_one();
    let (near, wide) = (Playlist::get(&archive, "v1", "").await, Playlist::get(&archive, "v1", "&window=3600").await);
    assert_eq!(wide.sequence, 0, "all there is");
    assert!(near.sequence > 8 && wide.segments.ends_with(&near.segments), "{}", near.sequence);
    let skipping = Playlist::get(&archive, "v1", "&window=3600&_HLS_skip=YES").await;
    let line = skipping.text.lines().find(|line| line.starts_with("#EXT-X-SKIP")).expect("some are left out");
    let skipped: usize = attribute(line, "SKIPPED-SEGMENTS").unwrap().parse().unwrap();
    assert!(skipped > 2 && skipping.sequence == 0, "{skipped}");
    assert_eq!(wide.segments[skipped..], skipping.segments);
    // What is left out ends before six target durations.
    let line = |line: &&str| line.starts_with("#EXTINF:");
    let kept: f64 =
        skipping.text.lines().filter(line).map(|line| line[8..].trim_end_matches(',').parse::<f64>().unwrap()).sum();
    assert!(kept >= 24.0, "{kept}");
    // Parts are those near the end only.
    let with_parts = wide.segments.iter().position(|(_, parts)| !parts.is_empty()).expect("parts");
    assert_eq!(with_parts, wide.segments.len() - 1);
}

#[tokio::test]
async fn what_fails_is_a_gap_and_what_is_not_anchored_waits_to_be_durable() {
    let archive = Archive::new();
    let mut recorder = Recorder::new(&archive, "bbb.mkv", Options::default()).await;
    let before = Playlist::get(&archive, "v1", "").await;
    recorder.close_one();
    let failed = recorder.closed.pop_front().expect("it is closed").place;
    recorder.publish(LiveEvent::Failed(failed));
    let playlist = Playlist::get(&archive, "v1", "").await;
    assert_eq!(playlist.segments.len(), before.segments.len() + 1);
    let last = playlist.segments.last().expect("one").0.clone();
    assert!(
        playlist.text.contains(&format!("#EXT-X-GAP\n#EXTINF:{}", extinf(&playlist.text, &last))),
        "{}",
        playlist.text
    );
    assert_eq!(archive.get(&hint_url(&last)).await.status, 404);

    let (config, start_ms) = match recorder.outputs.front() {
        Some(Output::Open { config, start_ms, .. }) => (Arc::clone(config), *start_ms),
        _ => panic!("the next one opens"),
    };
    let fragment = OpenFragment { number: archive.number(START), ..recorder.next };
    let producer_start = recorder.start.plus_ms(start_ms);
    let (run, is_anchored, starts_with_sync) = (recorder.run, false, true);
    recorder.publish(LiveEvent::Opened { fragment, run, config, producer_start, is_anchored, starts_with_sync });
    let playlist = Playlist::get(&archive, "v1", "").await;
    assert_eq!(playlist.hint, None);
}

/// What stands after `#EXTINF:` of a segment.
fn extinf<'a>(text: &'a str, uri: &str) -> &'a str {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| *line == uri).expect("it is listed");
    &lines[at - 1]["#EXTINF:".len()..]
}

/// A record of a fragment that is still open may fail: it goes on, and is never whole.
#[tokio::test]
async fn what_fails_while_it_is_open_does_not_come_back() {
    let archive = Archive::new();
    let mut recorder = Recorder::new(&archive, "bbb.mkv", Options::default()).await;
    let before = Playlist::get(&archive, "v1", "").await;
    let open = recorder.record_parts("v1", 2).await;
    let failed = recorder.open.expect("it is open");
    recorder.publish(LiveEvent::Failed(failed));
    assert_eq!(Playlist::get(&archive, "v1", "").await.hint, None);
    assert_eq!(archive.get(&hint_url(&open.open[0])).await.status, 404);
    for _ in 0..60 {
        recorder.step();
    }
    assert!(recorder.closed.is_empty(), "it is open still");
    let playlist = Playlist::get(&archive, "v1", "").await;
    assert_eq!((playlist.segments.len(), playlist.hint), (before.segments.len(), None));
    recorder.close_one();
    Playlist::get(&archive, "v1", "").await;
    for uri in [&open.open[0], &open.open[0].replace("-209-0", "-209-3"), &open.open[0].replace("-209-0", "-209")] {
        assert_eq!(archive.get(&hint_url(uri)).await.status, 404, "{uri}");
    }
    let playlist = Playlist::get(&archive, "v1", "").await;
    assert_eq!(playlist.segments.len(), before.segments.len() + 1);
    assert!(playlist.text.contains("#EXT-X-GAP\n"), "{}", playlist.text);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_long_nor_when_the_server_stops() {
    let archive = Archive::new();
    let mut recorder = Recorder::new(&archive, "bbb.mkv", Options::default()).await;
    Playlist::get(&archive, "v1", "").await;
    let open = recorder.record_parts("v1", 1).await;
    let (next, hint) = (open.sequence + open.segments.len() as u64, open.hint.expect("a hint"));
    let playlist = |target: u32| format!("{FOLDER}/v1/live.m3u8?target={target}&part=209&_HLS_msn={next}");
    for (uri, status, seconds) in [(playlist(4), 503, 12), (playlist(3600), 503, 30), (hint_url(&hint), 404, 5)] {
        let begun = tokio::time::Instant::now();
        assert_eq!(archive.get(&uri).await.status, status, "{uri}");
        assert_eq!(begun.elapsed().as_secs(), seconds, "{uri}");
    }
    let next = playlist(4);
    let mut waits = Box::pin(archive.get(&next));
    assert!(waits.as_mut().now_or_never().is_none());
    archive.api.heads.stop();
    let begun = tokio::time::Instant::now();
    assert_eq!((waits.await.status, begun.elapsed().as_secs()), (503, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_has_a_bound_and_ends_when_nobody_watches() {
    let archive = Archive::new();
    let mut recorder = Recorder::new(&archive, "audio_opus.mkv", Options::default()).await;
    Playlist::get(&archive, "a1", "").await;
    let sample = loop {
        match recorder.outputs.front() {
            Some(Output::Sample(sample)) => break sample.clone(),
            _ => assert!(recorder.step(), "the clip is over"),
        }
    };
    let number = recorder.open.expect("it is open").number;
    let large = Bytes::from(vec![0; 30 << 20]);
    for (count, held) in [(1, 30 << 20), (2, 60 << 20), (3, 0)] {
        let decode_ticks = sample.decode_ticks + count * i64::from(sample.duration_ticks);
        let sample = Sample { decode_ticks, data: large.clone(), ..sample.clone() };
        recorder.publish(LiveEvent::Sample { number, sample });
        let playlist = Playlist::get(&archive, "a1", "").await;
        assert_eq!((archive.api.heads.held_bytes(), playlist.hint.is_some()), (held, held > 0), "{count}");
    }
    let followed = || format!("{:?}", archive.api.heads);
    assert_eq!(followed(), "Heads(1)");
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    assert_eq!(followed(), "Heads(0)");
}
