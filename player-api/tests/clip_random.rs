//! Clips of archives that no camera makes: random runs, gaps, overlaps, configs, tracks that come and go.

mod support;

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use support::{Archive, KEY, SECRET, START};
use tower::ServiceExt as _;
use vidar_core::entry::{FragmentEntry, Locator, SharedEntry};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId, StreamName};
use vidar_core::log::{LogEvent, LogObserver as _};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta, Piece, TableEnvelope, TrackFacts};
use vidar_core::registry::StreamRegistry as _;
use vidar_core::sample::SyncKind;
use vidar_core::source::{FragmentHead, FragmentSource, ReadError};
use vidar_core::time::{UnixMs, ms_to_ticks_floor, ticks_to_ms_nearest};
use vidar_core::track::{Codec, StreamConfig, Track, TrackKind};
use vidar_media::container::mkv;
use vidar_media::demux::{Demux as _, Event};
use vidar_media::table::{SampleEntry, Table, TrackTable, totals};
use vidar_player_api::Api;

/// What a run is made by.
#[derive(Debug, Clone)]
struct RunSeed {
    /// After the end of the run before, in milliseconds; negative: it overlaps.
    pause_ms: i64,
    video_hz: u32,
    audio_hz: u32,
    has_video: bool,
    has_audio: bool,
    /// More than three tracks: totals do not stand in the timeline.
    extra_tracks: u8,
    fragments: Vec<FragmentSeed>,
}

#[derive(Debug, Clone)]
struct FragmentSeed {
    pictures: u8,
    starts_with_sync: bool,
    leading: bool,
    sounds: u8,
    /// Sound that belongs to the time before, or after.
    sound_shift_ms: i64,
    pieces: u8,
}

fn run_seed() -> impl Strategy<Value = RunSeed> {
    let fragment = (0..12_u8, 0..4_u8, any::<bool>(), 0..8_u8, -300..300_i64, 1..4_u8).prop_map(
        |(pictures, sync, leading, sounds, sound_shift_ms, pieces)| FragmentSeed {
            pictures,
            starts_with_sync: sync != 0,
            leading,
            sounds,
            sound_shift_ms,
            pieces,
        },
    );
    let pause = prop_oneof![Just(0), Just(20), -900..0_i64, 60..100_000_i64, Just(90_000_000_i64)];
    let video_hz = prop::sample::select(vec![1000, 90_000, 12_800, 1_000_000_000, 30]);
    let audio_hz = prop::sample::select(vec![1000, 48_000, 44_100, 8000]);
    let kinds = prop::sample::select(vec![(true, true), (true, true), (true, false), (false, true)]);
    (pause, video_hz, audio_hz, kinds, prop::sample::select(vec![0, 0, 0, 1, 3]), prop::collection::vec(fragment, 1..7))
        .prop_map(|(pause_ms, video_hz, audio_hz, (has_video, has_audio), extra_tracks, fragments)| RunSeed {
            pause_ms,
            video_hz,
            audio_hz,
            has_video,
            has_audio,
            extra_tracks,
            fragments,
        })
}

/// Everything in memory; media is a function of its place.
#[derive(Default)]
struct MadeUp {
    heads: HashMap<FragmentNumber, Arc<FragmentHead>>,
    configs: HashMap<ConfigId, Arc<StreamConfig>>,
}

#[async_trait]
impl FragmentSource for MadeUp {
    async fn head(&self, entry: &FragmentEntry) -> Result<Arc<FragmentHead>, ReadError> {
        Ok(self.heads[&entry.meta.number].clone())
    }

    async fn media(&self, entry: &FragmentEntry, part: Option<u16>, range: Range<u64>) -> Result<Bytes, ReadError> {
        let head = &self.heads[&entry.meta.number];
        let piece = head.table.pieces.iter().find(|piece| piece.part == part).expect("a piece that there is");
        assert!(range.start <= range.end && range.end <= piece.media_len);
        let seed = entry.meta.ordinal.wrapping_mul(131).wrapping_add(part.map_or(7, u64::from));
        Ok(range.map(|at| seed.wrapping_add(at.wrapping_mul(7)) as u8).collect::<Vec<u8>>().into())
    }

    async fn config(&self, entry: &FragmentEntry) -> Result<Arc<StreamConfig>, ReadError> {
        Ok(self.configs[&entry.meta.config].clone())
    }
}

fn base_tracks() -> (Track, Track) {
    let config = support::events("h264_ip.mkv").into_iter().find_map(|event| match event {
        Event::Config(config) => Some(config),
        _ => None,
    });
    let mut tracks = config.expect("a config comes first").tracks.into_iter();
    (tracks.next().unwrap(), tracks.next().unwrap())
}

fn config(seed: &RunSeed) -> StreamConfig {
    let (video, audio) = base_tracks();
    let mut tracks = Vec::new();
    if seed.has_video {
        tracks.push(Track { timescale_hz: seed.video_hz, codec_id: "avc1".into(), ..video.clone() });
    }
    if seed.has_audio {
        tracks.push(Track { timescale_hz: seed.audio_hz, codec_id: "mp4a".into(), ..audio.clone() });
    }
    for extra in 0..seed.extra_tracks {
        // Matroska has no name for the second.
        let codec_id = if extra == 0 { "S_TEXT/UTF8" } else { "ABCD" }.to_owned();
        let kind = if extra == 0 { TrackKind::Subtitle } else { TrackKind::Data };
        let codec = Codec::Opaque;
        tracks.push(Track { kind, codec, codec_id, timescale_hz: 1000, codec_private: Bytes::new(), ..audio.clone() });
    }
    for (index, track) in tracks.iter_mut().enumerate() {
        track.source_number = index as u64 + 1;
        track.trims = Default::default();
        track.default_duration_ticks = None;
    }
    StreamConfig { tracks, matroska_header: Bytes::new() }
}

const FRAME_MS: i64 = 40;

/// Times of a track's samples in milliseconds: decode, presentation, sync.
type Times = Vec<(i64, i64, SyncKind)>;

fn pictures(seed: &FragmentSeed, start_ms: i64) -> Times {
    let mut times: Times = Vec::new();
    for i in 0..i64::from(seed.pictures) {
        let sync = i == 0 && seed.starts_with_sync;
        let leads = seed.leading && seed.starts_with_sync && i == 1;
        let shown = match (leads, i % 3) {
            (true, _) => start_ms - FRAME_MS,
            (_, 1) if i + 1 < i64::from(seed.pictures) => start_ms + (i + 1) * FRAME_MS,
            (_, 2) if !(seed.leading && i == 2) => start_ms + (i - 1) * FRAME_MS,
            _ => start_ms + i * FRAME_MS,
        };
        let kind = if sync {
            SyncKind::Sync
        } else if leads {
            SyncKind::Leading
        } else {
            SyncKind::None
        };
        times.push((start_ms + i * FRAME_MS - 2 * FRAME_MS, shown, kind));
    }
    times
}

fn samples(times: &Times, hz: u32, last_ticks: &mut i64, size: u32) -> Vec<SampleEntry> {
    let each = times.iter().enumerate().map(|(index, (decode_ms, shown_ms, sync))| {
        let decode_ticks = ms_to_ticks_floor(*decode_ms, hz).max(last_ticks.saturating_add(1));
        *last_ticks = decode_ticks;
        SampleEntry {
            decode_ticks,
            composition_ticks: i32::try_from(ms_to_ticks_floor(*shown_ms, hz) - decode_ticks).unwrap_or(0),
            duration_ticks: u32::try_from(ms_to_ticks_floor(FRAME_MS, hz)).unwrap_or(1),
            duration_estimated: false,
            sync: *sync,
            block_flags: 0,
            size: size + index as u32 * 3,
            arrival: index as u32,
            drops: if size > 40 && index % 4 == 0 { vec![(0, 5), (9, 4)] } else { Vec::new() },
        }
    });
    each.collect()
}

struct Made {
    router: axum::Router,
    entries: Vec<SharedEntry>,
}

async fn make(seeds: &[RunSeed]) -> Made {
    let archive = Archive::new();
    let stream = archive.registry.ensure(&StreamName::new("cam").unwrap()).await.unwrap().stream;
    let mut source = MadeUp::default();
    let mut entries: Vec<SharedEntry> = Vec::new();
    let mut clock = START;
    for (run_index, seed) in seeds.iter().enumerate() {
        let config = Arc::new(config(seed));
        let config_id = ConfigId([run_index as u8 + 1; 16]);
        source.configs.insert(config_id, config.clone());
        let run = RunId::new();
        let primary = config.primary_track().unwrap() as u8;
        let mut last = vec![i64::MIN / 4; config.tracks.len()];
        let (mut media_ms, mut sync_back, mut epoch) = (10_000_i64, 0, None::<i64>);
        clock = clock.plus_ms(seed.pause_ms);
        let mut first = true;
        for fragment in &seed.fragments {
            let length_ms = i64::from(fragment.pictures.max(fragment.sounds).max(1)) * FRAME_MS;
            let mut columns: Vec<Vec<SampleEntry>> = Vec::new();
            for (index, track) in config.tracks.iter().enumerate() {
                let times = match track.kind {
                    TrackKind::Video => pictures(fragment, media_ms),
                    TrackKind::Audio => (0..i64::from(fragment.sounds))
                        .map(|i| media_ms + fragment.sound_shift_ms + i * FRAME_MS)
                        .map(|ms| (ms, ms, SyncKind::Sync))
                        .collect(),
                    _ => (0..i64::from(fragment.sounds % 2)).map(|_| (media_ms, media_ms, SyncKind::Sync)).collect(),
                };
                columns.push(samples(&times, track.timescale_hz, &mut last[index], 30 + 20 * index as u32));
            }
            if columns.iter().all(Vec::is_empty) {
                continue;
            }
            let tables = cut(&columns, usize::from(fragment.pieces));
            let pieces = tables.iter().enumerate().map(|(index, table)| Piece {
                part: (index + 1 < tables.len()).then_some(index as u16),
                media_len: table.media_len(),
                table: table.encode(),
            });
            let tracks = (0_u8..).zip(&config.tracks).map(|(index, track)| TrackFacts {
                kind: track.kind,
                codec: track.codec.name().to_owned(),
                width: 0,
                height: 0,
                size_bytes: columns[usize::from(index)].iter().map(|s| u64::from(s.size)).sum(),
                totals: totals(&tables, index),
            });
            // As the fragmenter says: the first sync sample of the primary track, its first, the first of any.
            let of_primary = &columns[usize::from(primary)];
            let reference = of_primary.iter().find(|s| s.sync == SyncKind::Sync).or(of_primary.first());
            let ms = |sample: &SampleEntry, track: usize| {
                ticks_to_ms_nearest(sample.presentation_ticks(), config.tracks[track].timescale_hz)
            };
            let start_ms = reference.map(|sample| ms(sample, usize::from(primary))).unwrap_or_else(|| {
                let first_of = |track: usize| columns[track].first().map(|sample| (sample.arrival, track, sample));
                let (_, track, sample) =
                    (0..columns.len()).filter_map(first_of).min_by_key(|(a, t, _)| (*a, *t)).unwrap();
                ms(sample, track)
            });
            let epoch = *epoch.get_or_insert(clock.0 - start_ms);
            let starts = UnixMs(epoch + start_ms);
            let starts_with_sync = of_primary.first().is_some_and(|sample| sample.sync == SyncKind::Sync);
            sync_back = if starts_with_sync { 0 } else { sync_back };
            let facts = FragmentFacts { tracks: tracks.collect(), sync_back, ..FragmentFacts::default() };
            sync_back += 1;
            let ordinal = entries.len() as u64;
            let number = FragmentNumber::new((1 << 32) + ordinal, starts.0.max(0) as u64, 0);
            let flags = FragmentFlags::default()
                .with(FragmentFlags::STARTS_WITH_SYNC, starts_with_sync)
                .with(FragmentFlags::RUN_START, std::mem::take(&mut first));
            let meta = FragmentMeta {
                stream,
                number,
                run,
                lease_epoch: 0,
                ordinal,
                discontinuity: 0,
                producer_start: starts,
                duration_ms: length_ms as u32,
                config: config_id,
                flags,
            };
            let locator = Locator {
                volume: 0,
                file: FileId::from_bytes([1; 16]),
                offset: 0,
                head_len: 0,
                media_len: 0,
                record_len: 0,
            };
            let entry: SharedEntry = Arc::new(FragmentEntry::new(meta, &facts, locator, Vec::new()));
            let head = FragmentHead { facts: facts.clone(), table: TableEnvelope { pieces: pieces.collect() } };
            source.heads.insert(number, Arc::new(head));
            archive.index.observe(&LogEvent::Fragment { entry: entry.clone(), facts: Arc::new(facts) });
            entries.push(entry);
            media_ms += length_ms;
            clock = starts.plus_ms(length_ms);
        }
    }
    let api = Arc::new(Api {
        heads: Default::default(),
        index: archive.api.index.clone(),
        source: Arc::new(source),
        registry: archive.api.registry.clone(),
        auth: archive.api.auth.clone(),
        hub: archive.api.hub.clone(),
        clock: archive.api.clock.clone(),
        options: archive.api.options.clone(),
    });
    Made { router: vidar_player_api::router(api), entries }
}

/// The samples of each track, spread over pieces.
fn cut(columns: &[Vec<SampleEntry>], pieces: usize) -> Vec<Table> {
    let mut tables = vec![Table::default(); pieces];
    for (track, samples) in columns.iter().enumerate() {
        let len = samples.len().div_ceil(pieces).max(1);
        for (table, samples) in tables.iter_mut().zip(samples.chunks(len)) {
            table.tracks.push(TrackTable { track: track as u8, samples: samples.to_vec() });
        }
    }
    for table in &mut tables {
        // Arrival counts within a piece.
        for (arrival, sample) in (0..).zip(table.tracks.iter_mut().flat_map(|track| &mut track.samples)) {
            sample.arrival = arrival;
        }
    }
    tables
}

impl Made {
    async fn get(&self, uri: &str, range: Option<Range<usize>>) -> (u16, http::HeaderMap, Bytes) {
        let mut request =
            Request::builder().method(Method::GET).uri(uri).header("authorization", format!("Bearer {KEY}:{SECRET}"));
        if let Some(range) = range {
            request = request.header("range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("{uri}: {error}"));
        (parts.status.as_u16(), parts.headers, body.to_bytes())
    }
}

fn check_mp4(file: &Bytes) {
    let mut reader = mp4::Mp4Reader::read_header(Cursor::new(file.clone()), file.len() as u64).unwrap();
    let mdhd = |track: &mp4::Mp4Track| (track.trak.mdia.mdhd.duration, track.trak.mdia.mdhd.timescale);
    let tracks: Vec<(u32, (u64, u32))> = reader.tracks().iter().map(|(id, track)| (*id, mdhd(track))).collect();
    assert!(!tracks.is_empty());
    for (id, (duration, timescale)) in tracks {
        let mut at = 0;
        let count = reader.sample_count(id).unwrap();
        assert!(count > 0);
        for number in 1..=count {
            let sample = reader.read_sample(id, number).unwrap().unwrap();
            assert_eq!(sample.start_time, at);
            assert!(!sample.bytes.is_empty());
            at += u64::from(sample.duration);
        }
        assert_eq!(at, duration, "track {id}");
        let edits = &reader.tracks()[&id].trak.edts.as_ref().unwrap().elst.as_ref().unwrap().entries;
        let edit = edits.last().unwrap();
        // A media time is a composition time: later than decode times by some pictures.
        assert!(edits.len() <= 2 && edit.media_time <= duration + u64::from(timescale), "{edits:?} {duration}");
    }
}

fn check_mkv(file: &Bytes) {
    let mut demuxer = mkv::Demuxer::new();
    let mut events = Vec::new();
    demuxer.push(file.clone(), &mut events).unwrap();
    demuxer.finish(&mut events).unwrap();
    let samples = events.iter().filter_map(|event| match event {
        Event::Sample(sample) => Some(sample),
        _ => None,
    });
    let mut count = 0;
    for sample in samples {
        // Bytes of one piece: each is 7 more than the one before.
        assert!(sample.data.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(7)));
        count += 1;
    }
    assert!(count > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_clip_is_as_long_as_it_says_and_reads(
        seeds in prop::collection::vec(run_seed(), 1..5),
        asked in prop::collection::vec((any::<u32>(), any::<u32>()), 1..4),
        cuts in any::<(u32, u32)>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let made = make(&seeds).await;
            let (Some(first), Some(last)) = (made.entries.first(), made.entries.last()) else { return };
            let start = first.meta.producer_start.plus_ms(-100);
            let len = (last.meta.producer_end().since_ms(start) + 100).max(2);
            let mut ranges = vec![(0, len)];
            ranges.extend(asked.iter().map(|(a, b)| {
                let from = i64::from(*a) % (len - 1);
                (from, from + 1 + i64::from(*b) % (len - from))
            }));
            // Near the beginning of a fragment something is shown.
            ranges.extend(asked.iter().map(|(a, b)| {
                let entry = &made.entries[*a as usize % made.entries.len()];
                let from = entry.meta.producer_start.since_ms(start) + i64::from(*b % 200) - 100;
                (from, from + 1 + i64::from(*b % 1000))
            }));
            for (from, to) in ranges {
                for file in ["clip.mp4", "clip.mkv"] {
                    let (from, to) = (start.plus_ms(from), start.plus_ms(to));
                    let uri = format!("/v1/streams/cam/{file}?start={}&end={}", from.0, to.0);
                    let (status, headers, body) = made.get(&uri, None).await;
                    assert!(matches!(status, 200 | 404 | 422), "{status} {uri} {body:?}");
                    if status != 200 {
                        continue;
                    }
                    assert_eq!(headers["content-length"].to_str().unwrap(), body.len().to_string());
                    if file == "clip.mp4" { check_mp4(&body) } else { check_mkv(&body) }
                    let at = cuts.0 as usize % body.len();
                    let part = at..(at + 1 + cuts.1 as usize % 500).min(body.len());
                    let (status, _, slice) = made.get(&uri, Some(part.clone())).await;
                    assert_eq!((status, &slice[..]), (206, &body[part]));
                }
            }
        });
    }
}
