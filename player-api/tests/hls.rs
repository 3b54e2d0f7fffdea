//! HLS: playlists as text, segments sample by sample.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use expect_test::expect;
use http::Method;
use support::{Archive, Push, START, events};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};
use vidar_core::sample::SyncKind;
use vidar_core::track::TrackKind;
use vidar_media::container::fmp4;
use vidar_media::demux::{Demux as _, Event, RawSample};
use vidar_media::fragmenter::Options;

fn base(stream: &str) -> String {
    format!("/v1/streams/{stream}/hls")
}

/// A playlist with ids that differ from run to run made readable.
fn masked(text: &str) -> String {
    let mut numbers: Vec<&str> = Vec::new();
    for word in text.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() > 40) {
        if !numbers.contains(&word) {
            numbers.push(word);
        }
    }
    numbers.iter().enumerate().fold(text.to_owned(), |text, (index, number)| text.replace(number, &format!("F{index}")))
}

fn media(text: &str) -> m3u8_rs::MediaPlaylist {
    m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The samples of a rendition, fetched through its playlist.
async fn samples(archive: &Archive, stream: &str, id: &str, query: &str) -> Vec<RawSample> {
    let folder = format!("{}/{id}", base(stream));
    let playlist = archive.get(&format!("{folder}/index.m3u8{query}")).await;
    assert_eq!(playlist.status, 200, "{:?}", playlist.body);
    let mut demuxer = fmp4::Demuxer::new();
    let mut found = Vec::new();
    for segment in media(playlist.text()).segments {
        if segment.unknown_tags.iter().any(|tag| tag.tag == "X-GAP") {
            continue;
        }
        let mut uris: Vec<String> = segment.map.iter().map(|map| map.uri.clone()).collect();
        uris.push(segment.uri.clone());
        for uri in uris {
            let answer = archive.get(&format!("{folder}/{uri}")).await;
            assert_eq!(answer.status, 200, "{uri}");
            assert_eq!(answer.header("content-length"), answer.body.len().to_string());
            demuxer.push(answer.body, &mut found).expect("our segments are well-formed");
        }
    }
    demuxer.finish(&mut found).expect("our segments end where they should");
    found.into_iter().filter_map(|event| if let Event::Sample(sample) = event { Some(sample) } else { None }).collect()
}

/// The samples of a clip by track, in the order of the file.
fn source_samples(clip: &str) -> BTreeMap<u8, Vec<RawSample>> {
    let mut tracks: BTreeMap<u8, Vec<RawSample>> = BTreeMap::new();
    for event in events(clip) {
        if let Event::Sample(sample) = event {
            tracks.entry(sample.track).or_default().push(sample);
        }
    }
    tracks
}

fn track_of(clip: &str, kind: TrackKind) -> u8 {
    let config =
        events(clip).into_iter().find_map(|event| if let Event::Config(config) = event { Some(config) } else { None });
    config.unwrap().tracks.iter().position(|track| track.kind == kind).unwrap() as u8
}

#[tokio::test]
async fn a_range_is_a_playlist_for_each_track() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    let answer = archive.get(&format!("{}/index.m3u8", base("cam"))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(answer.header("vidar-omitted-tracks"), "");
    expect![[r##"
        #EXTM3U
        #EXT-X-VERSION:6
        #EXT-X-INDEPENDENT-SEGMENTS
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="a1",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="a1/index.m3u8?start=2026-01-01T00%3A00%3A00.000Z&end=2026-01-01T00%3A00%3A08.000Z"
        #EXT-X-STREAM-INF:BANDWIDTH=350730,AVERAGE-BANDWIDTH=309105,CODECS="avc1.64000d,mp4a.40.2",RESOLUTION=320x180,FRAME-RATE=24.875,AUDIO="audio"
        v1/index.m3u8?start=2026-01-01T00%3A00%3A00.000Z&end=2026-01-01T00%3A00%3A08.000Z
        #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=350730,CODECS="avc1.64000d",RESOLUTION=320x180,URI="v1/iframes.m3u8?start=2026-01-01T00%3A00%3A00.000Z&end=2026-01-01T00%3A00%3A08.000Z"
    "##]].assert_eq(answer.text());
    let video = archive.get(&format!("{}/v1/index.m3u8", base("cam"))).await;
    expect![[r##"
        #EXTM3U
        #EXT-X-VERSION:6
        #EXT-X-TARGETDURATION:2
        #EXT-X-MEDIA-SEQUENCE:0
        #EXT-X-PLAYLIST-TYPE:VOD
        #EXT-X-INDEPENDENT-SEGMENTS
        #EXT-X-MAP:URI="init-01010101010101010101010101010101.mp4?at=F0"
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z
        #EXTINF:2.000,
        F0.m4s
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:02.000Z
        #EXTINF:2.000,
        F1.m4s
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:04.000Z
        #EXTINF:2.040,
        F2.m4s
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:06.040Z
        #EXTINF:1.960,
        F3.m4s
        #EXT-X-ENDLIST
    "##]]
    .assert_eq(&masked(video.text()));
    let audio = archive.get(&format!("{}/a1/index.m3u8", base("cam"))).await;
    assert_eq!(media(audio.text()).segments.len(), media(video.text()).segments.len());
}

#[tokio::test]
async fn keyframes_are_a_playlist_of_their_own() {
    let archive = Archive::new();
    // One of them was cut at the limit and begins with no keyframe.
    let options = Options { fragment_duration_ms_max: 1500, ..Options::default() };
    archive.push(Push { options, ..Push::new("cam", "bbb.mkv", START) }).await;
    let folder = format!("{}/v1", base("cam"));
    let playlist = archive.get(&format!("{folder}/iframes.m3u8")).await;
    assert_eq!(playlist.status, 200);
    assert!(playlist.text().contains("\n#EXT-X-I-FRAMES-ONLY\n"), "{}", playlist.text());
    let all: Vec<RawSample> = samples(&archive, "cam", "v1", "").await;
    let keys: Vec<&RawSample> = all.iter().filter(|sample| sample.sync == SyncKind::Sync).collect();
    let frames = media(playlist.text()).segments;
    let whole = media(archive.get(&format!("{folder}/index.m3u8")).await.text()).segments;
    assert!(frames.len() >= 4 && whole.len() > frames.len(), "{} of {}", frames.len(), whole.len());
    let seconds = |segments: &[m3u8_rs::MediaSegment]| segments.iter().map(|segment| segment.duration).sum::<f32>();
    assert!((seconds(&frames) - seconds(&whole)).abs() < 0.001);
    let mut found = Vec::new();
    for frame in &frames {
        let (mut demuxer, mut events) = (fmp4::Demuxer::new(), Vec::new());
        for uri in [&media(playlist.text()).segments[0].map.as_ref().expect("an init segment").uri, &frame.uri] {
            demuxer.push(archive.get(&format!("{folder}/{uri}")).await.body, &mut events).expect("it is well-formed");
        }
        demuxer.finish(&mut events).expect("it ends where it should");
        found.extend(events.into_iter().filter_map(|event| match event {
            Event::Sample(sample) => Some(sample),
            _ => None,
        }));
    }
    assert_eq!(found.len(), keys.len());
    for (found, key) in found.iter().zip(keys) {
        assert_eq!((found.sync, found.presentation_ticks), (SyncKind::Sync, key.presentation_ticks));
        assert_eq!(found.data, key.data);
    }
    let sound = archive.get(&format!("{}/a1/iframes.m3u8", base("cam"))).await;
    assert_eq!(sound.status, 404);
}

/// What the times of a track are late by, in seconds.
fn late_s(clip: &str, track: u8) -> f64 {
    let trims = support::events(clip).into_iter().find_map(|event| match event {
        Event::Config(config) => Some(config.tracks[usize::from(track)].trims),
        _ => None,
    });
    let trims = trims.unwrap();
    trims.edit_start_ticks as f64 / timescale(clip, track) - trims.edit_delay_ms as f64 / 1e3
        + trims.codec_delay_ns as f64 / 1e9
}

#[tokio::test]
async fn segments_hold_every_sample_with_its_times() {
    let clips = [
        ("bbb.mkv", &["v1", "a1"][..]),
        ("bbb_frag.mp4", &["v1", "a1"]),
        ("h264_open_gop.mkv", &["v1", "a1"]),
        ("h264_pyramid.mkv", &["v1", "a1"]),
        ("h264_vfr.mkv", &["v1"]),
        ("h264_long_gop.mkv", &["v1"]),
        ("h265_open_gop.mkv", &["v1", "a1"]),
        ("av1_opus.mkv", &["v1", "a1"]),
        ("vp9_opus.webm", &["v1", "a1"]),
        ("late_audio.mkv", &["v1", "a1"]),
        ("audio_aac.mkv", &["a1"]),
        ("audio_opus.mkv", &["a1"]),
        ("audio_mp3.mkv", &["a1"]),
    ];
    for (clip, renditions) in clips {
        // Small parts, so that fragments have several pieces.
        let options = Options { part_duration_ms: 700, ..Options::default() };
        let archive = Archive::new();
        let entries = archive.push(Push { options, ..Push::new("cam", clip, START) }).await;
        assert!(entries.len() == 1 || entries.iter().any(|entry| !entry.parts.is_empty()) || clip.starts_with("audio"));
        let mut origins = Vec::new();
        for id in renditions {
            let kind = if id.starts_with('v') { TrackKind::Video } else { TrackKind::Audio };
            let track = track_of(clip, kind);
            let expected = &source_samples(clip)[&track];
            let found = samples(&archive, "cam", id, "").await;
            assert_eq!(found.len(), expected.len(), "{clip} {id}");
            let shift = found[0].presentation_ticks - expected[0].presentation_ticks;
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!(found.presentation_ticks - expected.presentation_ticks, shift, "{clip} {id}");
                assert_eq!(found.data, expected.data, "{clip} {id}");
                assert!(found.decode_ticks.unwrap() > 0);
            }
            origins.push(shift as f64 / timescale(clip, track) + late_s(clip, track));
        }
        // The same shift for all tracks, but for what edit lists and CodecDelay say: to the tick.
        let spread =
            origins.iter().cloned().fold(f64::MIN, f64::max) - origins.iter().cloned().fold(f64::MAX, f64::min);
        assert!(spread < 0.001, "{clip}: {origins:?}");
    }
}

#[tokio::test]
async fn every_clip_of_the_corpus_keeps_its_samples() {
    for path in vidar_fixtures::corpus(&["mkv", "webm", "ts"]) {
        let clip = path.to_str().unwrap();
        let archive = Archive::new();
        archive.push(Push::new("cam", clip, START)).await;
        let main = archive.get(&format!("{}/index.m3u8", base("cam"))).await;
        if main.status == 422 {
            assert!(!main.json()["omitted_tracks"].is_null(), "{clip}");
            continue;
        }
        assert_eq!(main.status, 200, "{clip}: {:?}", main.body);
        let counts: Vec<usize> = source_samples(clip).values().map(Vec::len).collect();
        for id in ["v1", "a1"].into_iter().filter(|id| main.text().contains(&format!("{id}/"))) {
            let count = samples(&archive, "cam", id, "").await.len();
            assert!(counts.contains(&count), "{clip} {id}: {count} of {counts:?}");
        }
    }
}

fn timescale(clip: &str, track: u8) -> f64 {
    let config =
        events(clip).into_iter().find_map(|event| if let Event::Config(config) = event { Some(config) } else { None });
    f64::from(config.unwrap().tracks[usize::from(track)].timescale_hz)
}

#[tokio::test]
async fn parameter_sets_equal_to_the_config_are_left_out() {
    for (clip, sets) in [("bbb.ts", [7, 8]), ("h265.ts", [33, 34])] {
        let archive = Archive::new();
        archive.push(Push::new("cam", clip, START)).await;
        let plain = samples(&archive, "cam", "v1", "").await;
        let stored = &source_samples(clip)[&track_of(clip, TrackKind::Video)];
        assert_eq!(plain.len(), stored.len());
        let h265 = clip.starts_with("h265");
        let kind = |nal: &[u8]| if h265 { nal[0] >> 1 & 0x3f } else { nal[0] & 0x1f };
        let mut dropped = 0;
        for (ours, theirs) in plain.iter().zip(stored) {
            let (ours, theirs) = (nals(&ours.data), nals(&theirs.data));
            assert!(ours.iter().all(|nal| !sets.contains(&kind(nal))), "{clip}");
            dropped += theirs.len() - ours.len();
            // What is not dropped is the same, in the same order.
            let mut rest = theirs.iter();
            assert!(ours.iter().all(|nal| rest.any(|other| other == nal)), "{clip}");
        }
        assert!(dropped >= 2, "{clip}: {dropped}");
    }
}

/// The NAL units of a sample, behind lengths of 4 bytes.
fn nals(sample: &[u8]) -> Vec<&[u8]> {
    let (mut nals, mut rest) = (Vec::new(), sample);
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (nal, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
        nals.push(nal);
        rest = tail;
    }
    assert!(rest.is_empty());
    nals
}

#[tokio::test]
async fn a_range_begins_at_a_keyframe_and_says_how_much_earlier() {
    let archive = Archive::new();
    let entries = archive.push(Push::new("cam", "bbb.mkv", START)).await;
    let (start, end) = (entries[1].meta.producer_start.plus_ms(750), entries[2].meta.producer_start.plus_ms(1));
    let answer = archive.get(&format!("{}/v1/index.m3u8?start={start}&end={end}", base("cam"))).await;
    assert!(answer.text().contains("#EXT-X-START:TIME-OFFSET=0.750,PRECISE=YES\n"), "{}", answer.text());
    assert_eq!(answer.header("vidar-start-offset-ms"), "750");
    let uris: Vec<String> = media(answer.text()).segments.into_iter().map(|segment| segment.uri).collect();
    assert_eq!(uris, [1, 2].map(|index: usize| format!("{}.m4s", entries[index].meta.number)));

    // What is cut within a GOP needs the fragments before.
    let options = Options { fragment_duration_ms_max: 5_000, ..Options::default() };
    let entries = archive.push(Push { options, ..Push::new("long", "h264_long_gop.mkv", START) }).await;
    assert!(entries.len() > 3);
    let start = entries[2].meta.producer_start;
    let answer = archive.get(&format!("{}/v1/index.m3u8?start={start}", base("long"))).await;
    assert_eq!(media(answer.text()).segments.len(), entries.len());
    assert!(!answer.text().contains("INDEPENDENT"), "{}", answer.text());
    assert_eq!(answer.header("vidar-start-offset-ms"), start.since_ms(START).to_string());
}

#[tokio::test]
async fn a_new_run_is_a_discontinuity_and_a_lost_fragment_a_gap() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "h264_ip.mkv", START)).await;
    archive.push(Push { lost_ordinals: 2, ..Push::new("cam", "h264_ip.mkv", START.plus_ms(10_000)) }).await;
    let live = archive.get(&format!("{}/v1/live.m3u8?target=4", base("cam"))).await;
    assert_eq!(live.status, 200);
    expect![[r##"
        #EXTM3U
        #EXT-X-VERSION:8
        #EXT-X-TARGETDURATION:4
        #EXT-X-MEDIA-SEQUENCE:0
        #EXT-X-INDEPENDENT-SEGMENTS
        #EXT-X-MAP:URI="init-01010101010101010101010101010101.mp4"
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z
        #EXTINF:2.000,
        F0.m4s
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:02.000Z
        #EXTINF:2.000,
        F1.m4s
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:04.000Z
        #EXTINF:2.000,
        F2.m4s
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:06.000Z
        #EXT-X-GAP
        #EXTINF:2.000,
        gap-3.m4s
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:08.000Z
        #EXT-X-GAP
        #EXTINF:2.000,
        gap-4.m4s
        #EXT-X-DISCONTINUITY
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:10.000Z
        #EXTINF:2.000,
        F3.m4s
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:12.000Z
        #EXTINF:2.000,
        F4.m4s
        #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:14.000Z
        #EXTINF:2.000,
        F5.m4s
    "##]]
    .assert_eq(&masked(live.text()));

    let range = archive.get(&format!("{}/v1/index.m3u8", base("cam"))).await;
    assert_eq!(media(range.text()).segments.len(), 6, "between runs of a range nothing is known to be missing");
    assert_eq!(range.text().matches("#EXT-X-DISCONTINUITY\n").count(), 1);
}

#[tokio::test]
async fn a_live_window_slides_and_its_numbers_add_up() {
    let archive = Archive::new();
    let mut known: BTreeMap<u64, (String, u64)> = BTreeMap::new();
    for run in 0..6 {
        let start = START.plus_ms(run * 20_000);
        archive.push(Push { lost_ordinals: run as u64 % 2, ..Push::new("cam", "h264_ip.mkv", start) }).await;
        let text = archive.get(&format!("{}/v1/live.m3u8?target=3", base("cam"))).await;
        let playlist = media(text.text());
        assert_eq!(playlist.target_duration, 3);
        assert!(!playlist.end_list);
        let mut discontinuities = playlist.discontinuity_sequence;
        for (segment, sequence) in playlist.segments.iter().zip(playlist.media_sequence..) {
            discontinuities += u64::from(segment.discontinuity);
            let fact = (segment.uri.clone(), discontinuities);
            // What a sequence number names, and in which discontinuity, never changes.
            assert_eq!(known.entry(sequence).or_insert_with(|| fact.clone()), &fact, "{sequence}");
        }
        let ms: f32 = playlist.segments.iter().map(|segment| segment.duration * 1000.0).sum();
        assert!(playlist.segments.len() <= 16 && (run == 0 || ms >= 9_000.0), "{ms}");
    }
    assert!(known.len() >= 18);
}

#[tokio::test]
async fn restarts_change_nothing() {
    let mut archive = Archive::new();
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    let uris = [
        format!("{}/live.m3u8", base("cam")),
        format!("{}/v1/live.m3u8", base("cam")),
        format!("{}/a1/index.m3u8", base("cam")),
    ];
    let mut before = Vec::new();
    for uri in &uris {
        before.push(archive.get(uri).await.body);
    }
    archive.restart();
    for (uri, before) in uris.iter().zip(before) {
        assert_eq!(archive.get(uri).await.body, before, "{uri}");
    }
}

#[tokio::test]
async fn every_uri_carries_the_token_of_its_playlist() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    let signed =
        archive.send(Method::POST, "/v1/sign", r#"{"path_prefix": "/v1/streams/cam/hls", "expires_s": 60}"#).await;
    let suffix = signed.json()["url_suffix"].as_str().unwrap().to_owned();
    let token = suffix.trim_start_matches('?').to_owned();
    let get = |uri: String| archive.send_raw(http::Request::get(uri).body(axum::body::Body::empty()).unwrap());
    // Of a range there are keyframes, too.
    for (file, count) in [("index.m3u8", 3), ("live.m3u8", 2)] {
        let answer = get(format!("{}/{file}{suffix}", base("cam"))).await;
        assert_eq!(answer.status, 200);
        let parsed = m3u8_rs::parse_master_playlist_res(answer.text().as_bytes()).unwrap();
        let audio = parsed.alternatives.iter().filter_map(|alternative| alternative.uri.clone());
        let uris: Vec<String> = parsed.variants.iter().map(|variant| variant.uri.clone()).chain(audio).collect();
        assert_eq!(uris.len(), count);
        for uri in uris {
            assert!(uri.contains(&token), "{uri}");
            let answer = get(format!("{}/{uri}", base("cam"))).await;
            assert_eq!(answer.status, 200, "{uri}");
            let folder = uri.split('/').next().unwrap();
            for segment in media(answer.text()).segments {
                for uri in segment.map.iter().map(|map| &map.uri).chain([&segment.uri]) {
                    assert!(uri.contains(&token), "{uri}");
                    assert_eq!(get(format!("{}/{folder}/{uri}", base("cam"))).await.status, 200, "{uri}");
                }
            }
        }
    }
}

#[tokio::test]
async fn segments_may_be_kept_and_playlists_asked_for_again() {
    let archive = Archive::new();
    let entries = archive.push(Push::new("cam", "bbb.mkv", START)).await;
    for (uri, cache_control) in [
        (format!("{}/v1/{}.m4s", base("cam"), entries[0].meta.number), "private, max-age=31536000, immutable"),
        (format!("{}/a1/init-{}.mp4", base("cam"), entries[0].meta.config), "private, max-age=31536000, immutable"),
        (format!("{}/v1/live.m3u8", base("cam")), "private, no-cache"),
        (format!("{}/index.m3u8", base("cam")), "private, no-cache"),
    ] {
        let answer = archive.get(&uri).await;
        assert_eq!(answer.header("cache-control"), cache_control, "{uri}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let tag = answer.header("etag").to_owned();
        assert!(tag.starts_with('"'), "{uri}: {tag}");
        let head = archive.send(Method::HEAD, &uri, "").await;
        assert_eq!((head.status, head.header("etag"), head.body.len()), (200, tag.as_str(), 0), "{uri}");
        assert_eq!(head.header("content-length"), answer.body.len().to_string(), "{uri}");
        let pair = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "root:secret");
        let request =
            http::Request::get(&uri).header("authorization", format!("Basic {pair}")).header("if-none-match", &tag);
        let again = archive.send_raw(request.body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!((again.status, again.body), (304, Bytes::new()), "{uri}");
    }
}

#[tokio::test]
async fn tracks_that_hls_does_not_carry_are_named() {
    let archive = Archive::new();
    for (stream, clip) in [("pcm", "audio_pcm_s16le.mkv"), ("ulaw", "audio_pcm_mulaw.mkv"), ("vp8", "vp8_vorbis.webm")]
    {
        archive.push(Push::new(stream, clip, START)).await;
        let answer = archive.get(&format!("{}/index.m3u8", base(stream))).await;
        assert_eq!(answer.status, 422, "{stream}: {:?}", answer.body);
        assert!(!answer.json()["omitted_tracks"].is_null());
        assert_eq!(archive.get(&format!("{}/a1/index.m3u8", base(stream))).await.status, 404);
    }
    archive.push(Push::new("mixed", "h264_ip.mkv", START)).await;
    archive.push(Push::new("mixed", "audio_pcm_alaw.mkv", START.plus_ms(60_000))).await;
    let answer = archive.get(&format!("{}/index.m3u8", base("mixed"))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("vidar-omitted-tracks"), "0;codec=pcma");
    let video = archive.get(&format!("{}/v1/index.m3u8", base("mixed"))).await;
    assert_eq!(video.text().matches("#EXT-X-GAP").count(), media(video.text()).segments.len() - 3);
}

#[tokio::test]
async fn a_damaged_fragment_is_an_error_and_never_media() {
    let archive = Archive::new();
    let entries = archive.push(Push::new("cam", "bbb.mkv", START)).await;
    archive.source.damage(entries[1].meta.number);
    let answer = archive.get(&format!("{}/v1/{}.m4s", base("cam"), entries[1].meta.number)).await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(archive.get(&format!("{}/v1/{}.m4s", base("cam"), entries[2].meta.number)).await.status, 200);
    // Once that is known, playlists say so, and players do not ask for it.
    for playlist in ["v1/index.m3u8", "a1/index.m3u8", "v1/live.m3u8"] {
        let answer = archive.get(&format!("{}/{playlist}", base("cam"))).await;
        let lines: Vec<_> = answer.text().lines().collect();
        let gaps: Vec<_> = (0..lines.len()).filter(|index| lines[*index] == "#EXT-X-GAP").collect();
        assert_eq!(gaps.len(), 1, "{playlist}: {}", answer.text());
        assert!(lines[gaps[0] + 2].starts_with(&entries[1].meta.number.to_string()), "{}", answer.text());
        assert_eq!(media(answer.text()).segments.len(), entries.len());
    }
}

/// Counts what is warned of on this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() == &Level::WARN && metadata.target().starts_with("vidar_player_api::hls")
    }

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_damaged_config_is_a_gap_where_it_is_needed_and_the_rest_plays() {
    let archive = Archive::new();
    let broken = archive.push(Push::new("cam", "h264_ip.mkv", START)).await;
    let whole = archive.push(Push::new("cam", "bbb.mkv", START.plus_ms(60_000))).await;
    assert_ne!(broken[0].meta.config, whole[0].meta.config);
    archive.source.damage_config(&broken[0]);
    let warnings = Warnings::default();
    let _here = tracing::subscriber::set_default(warnings.clone());
    let numbers: Vec<_> = broken.iter().map(|entry| format!("{}.m4s", entry.meta.number)).collect();
    for file in ["index.m3u8", "live.m3u8"] {
        assert_eq!(archive.get(&format!("{}/{file}", base("cam"))).await.status, 200, "{file}");
        let answer = archive.get(&format!("{}/v1/{file}", base("cam"))).await;
        assert_eq!(answer.status, 200, "{file}");
        let lines: Vec<_> = answer.text().lines().collect();
        let gaps = (0..lines.len()).filter(|index| lines[*index] == "#EXT-X-GAP").map(|index| lines[index + 2]);
        assert_eq!(gaps.collect::<Vec<_>>(), numbers, "{file}: {}", answer.text());
        assert_eq!(media(answer.text()).segments.len(), broken.len() + whole.len());
    }
    assert_eq!(warnings.0.load(Ordering::Relaxed), 1, "said once, not at each refresh");
    assert!(!samples(&archive, "cam", "v1", "").await.is_empty());
    assert_eq!(archive.get(&format!("{}/v1/{}", base("cam"), numbers[0])).await.status, 500);
    // Nothing is left that would play.
    archive.source.damage_config(&whole[0]);
    for file in ["index.m3u8", "v1/index.m3u8", "live.m3u8", "v1/live.m3u8"] {
        assert_eq!(archive.get(&format!("{}/{file}", base("cam"))).await.status, 500, "{file}");
    }
}
