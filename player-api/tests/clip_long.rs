//! A clip of very many fragments is planned without opening them.

mod support;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use support::{Archive, KEY, SECRET, START};
use tower::ServiceExt as _;
use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId, StreamId, StreamName};
use vidar_core::log::{LogEvent, LogObserver as _};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta, Piece, TableEnvelope, TrackFacts};
use vidar_core::registry::StreamRegistry as _;
use vidar_core::sample::SyncKind;
use vidar_core::source::{FragmentHead, FragmentSource, ReadError};
use vidar_core::track::{StreamConfig, TrackKind};
use vidar_media::demux::Event;
use vidar_media::table::{SampleEntry, Table, TrackTable, totals};
use vidar_player_api::{Api, ApiOptions};

const FRAGMENTS: u64 = 10_000;
const FRAGMENT_MS: i64 = 2_000;

/// Fragments that are made when they are asked for; counts which tables are.
struct MadeUp {
    config: Arc<StreamConfig>,
    opened: Mutex<HashSet<u64>>,
    /// On which tables were opened.
    threads: Mutex<HashSet<ThreadId>>,
    read: Mutex<u64>,
}

/// Pictures with B-frames, and sound that overlaps the border.
fn table(ordinal: u64) -> Table {
    let zero = ordinal as i64 * FRAGMENT_MS;
    let sample = |decode_ticks: i64, composition_ticks: i32, sync, size: u32, arrival: u32| SampleEntry {
        decode_ticks,
        composition_ticks,
        duration_ticks: 40,
        duration_estimated: false,
        sync,
        block_flags: 0,
        size,
        arrival,
        drops: if arrival == 0 { vec![(0, 6)] } else { Vec::new() },
    };
    let picture = |i: i64| {
        let sync = if i == 0 { SyncKind::Sync } else { SyncKind::None };
        let offset = [80, 160, 40, 40][(i % 4) as usize];
        sample(zero + i * 40 - 80, offset, sync, 1_000 + (ordinal % 7) as u32 * 10 + i as u32, i as u32)
    };
    let sound = |i: i64| sample(zero + 15 + i * 40, 0, SyncKind::Sync, 64, 50 + i as u32);
    Table {
        tracks: vec![
            TrackTable { track: 0, samples: (0..50).map(picture).collect() },
            TrackTable { track: 1, samples: (0..50).map(sound).collect() },
        ],
    }
}

fn facts(ordinal: u64, config: &StreamConfig) -> FragmentFacts {
    let table = table(ordinal);
    let tracks = (0_u8..).zip(&config.tracks).map(|(index, track)| TrackFacts {
        kind: track.kind,
        codec: track.codec.name().to_owned(),
        width: 0,
        height: 0,
        size_bytes: table.tracks[usize::from(index)].size_bytes(),
        totals: totals(std::slice::from_ref(&table), index),
    });
    FragmentFacts { tracks: tracks.collect(), ..FragmentFacts::default() }
}

#[async_trait]
impl FragmentSource for MadeUp {
    async fn head(&self, entry: &FragmentEntry) -> Result<Arc<FragmentHead>, ReadError> {
        let ordinal = entry.meta.ordinal;
        self.opened.lock().unwrap().insert(ordinal);
        self.threads.lock().unwrap().insert(thread::current().id());
        let table = table(ordinal);
        let piece = Piece { part: None, media_len: table.media_len(), table: table.encode() };
        Ok(Arc::new(FragmentHead { facts: facts(ordinal, &self.config), table: TableEnvelope { pieces: vec![piece] } }))
    }

    async fn media(&self, entry: &FragmentEntry, _: Option<u16>, range: Range<u64>) -> Result<Bytes, ReadError> {
        *self.read.lock().unwrap() += range.end - range.start;
        Ok(range.map(|at| (entry.meta.ordinal.wrapping_mul(31) + at) as u8).collect::<Vec<u8>>().into())
    }

    async fn config(&self, _: &FragmentEntry) -> Result<Arc<StreamConfig>, ReadError> {
        Ok(self.config.clone())
    }
}

struct Long {
    source: Arc<MadeUp>,
    router: axum::Router,
    /// Clips may have one fragment less.
    narrow: axum::Router,
}

async fn long() -> Long {
    let archive = Archive::new();
    let config = support::events("h264_ip.mkv").into_iter().find_map(|event| match event {
        Event::Config(config) => Some(Arc::new(config)),
        _ => None,
    });
    let config = config.unwrap();
    assert_eq!(config.tracks.iter().map(|t| t.kind).collect::<Vec<_>>(), [TrackKind::Video, TrackKind::Audio]);
    let name = StreamName::new("cam").unwrap();
    let stream: StreamId = archive.registry.ensure(&name).await.unwrap().stream;
    let run = RunId::new();
    let alike: Vec<FragmentFacts> = (0..7).map(|ordinal| facts(ordinal, &config)).collect();
    for ordinal in 0..FRAGMENTS {
        // But for their times, fragments repeat every seven.
        let mut facts = alike[(ordinal % 7) as usize].clone();
        for track in &mut facts.tracks {
            track.totals.first_decode_ticks += (ordinal - ordinal % 7) as i64 * FRAGMENT_MS;
        }
        let starts = START.plus_ms(ordinal as i64 * FRAGMENT_MS);
        let media_len = facts.size_bytes();
        let record = vidar_core::entry::Locator {
            volume: 0,
            file: FileId::from_bytes([1; 16]),
            offset: ordinal << 20,
            head_len: 100,
            media_len,
            record_len: media_len + 100,
        };
        let flags = FragmentFlags::STARTS_WITH_SYNC.with(FragmentFlags::RUN_START, ordinal == 0);
        let meta = FragmentMeta {
            stream,
            number: FragmentNumber::new((1 << 32) + ordinal, starts.0 as u64, 0),
            run,
            lease_epoch: 0,
            ordinal,
            discontinuity: 0,
            producer_start: starts,
            duration_ms: FRAGMENT_MS as u32,
            config: ConfigId([9; 16]),
            flags,
        };
        let entry: SharedEntry = Arc::new(FragmentEntry::new(meta, &facts, record, Vec::new()));
        archive.index.observe(&LogEvent::Fragment { entry, facts: Arc::new(facts) });
    }
    let source =
        Arc::new(MadeUp { config, opened: Mutex::default(), threads: Mutex::default(), read: Mutex::default() });
    let router = |count_max: u64| {
        vidar_player_api::router(Arc::new(Api {
            heads: Default::default(),
            index: archive.api.index.clone(),
            source: source.clone(),
            registry: archive.api.registry.clone(),
            auth: archive.api.auth.clone(),
            hub: archive.api.hub.clone(),
            clock: archive.api.clock.clone(),
            options: ApiOptions { clip_fragments_max: count_max as usize, ..archive.api.options.clone() },
        }))
    };
    Long { source: source.clone(), router: router(FRAGMENTS), narrow: router(FRAGMENTS - 1) }
}

impl Long {
    async fn send(&self, uri: &str, range: Option<Range<u64>>) -> http::Response<Body> {
        self.send_to(&self.router, uri, range).await
    }

    async fn send_to(&self, router: &axum::Router, uri: &str, range: Option<Range<u64>>) -> http::Response<Body> {
        let mut request =
            Request::builder().method(Method::GET).uri(uri).header("authorization", format!("Bearer {KEY}:{SECRET}"));
        if let Some(range) = range {
            request = request.header("range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    fn opened(&self) -> usize {
        self.source.opened.lock().unwrap().len()
    }
}

fn uri(file: &str, from_ms: i64, to_ms: i64) -> String {
    format!("/v1/streams/cam/{file}?start={}&end={}", START.plus_ms(from_ms), START.plus_ms(to_ms))
}

#[tokio::test]
async fn a_clip_of_ten_thousand_fragments() {
    let long = long().await;
    the_first_byte_does_not_wait_for_tables(&long).await;
    a_range_far_inside_opens_what_it_touches(&long).await;
    lengths_laid_out_from_totals_are_those_of_the_bytes(&long).await;
    more_than_a_plan_may_hold_is_refused(&long).await;
}

async fn more_than_a_plan_may_hold_is_refused(long: &Long) {
    let last_ms = FRAGMENTS as i64 * FRAGMENT_MS;
    for file in ["clip.mp4", "clip.mkv"] {
        let response = long.send_to(&long.narrow, &uri(file, 0, last_ms), None).await;
        assert_eq!(response.status(), 422);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("more than 9999 fragments; ask for less"), "{body:?}");
        let less = uri(file, 0, last_ms - FRAGMENT_MS);
        assert_eq!(long.send_to(&long.narrow, &less, Some(0..1)).await.status(), 206);
    }
}

async fn the_first_byte_does_not_wait_for_tables(long: &Long) {
    let last_ms = FRAGMENTS as i64 * FRAGMENT_MS;
    for file in ["clip.mp4", "clip.mkv"] {
        long.source.opened.lock().unwrap().clear();
        long.source.threads.lock().unwrap().clear();
        let response = long.send(&uri(file, 1_500, last_ms - 1_500), None).await;
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-length"].to_str().unwrap().parse::<u64>().unwrap() > FRAGMENTS * 50_000);
        assert!(long.opened() <= 8, "{file}: {} tables", long.opened());
        // Nobody else waits for so large a plan.
        assert!(!long.source.threads.lock().unwrap().contains(&thread::current().id()));
        let mut body = response.into_body();
        assert!(!body.frame().await.unwrap().unwrap().into_data().unwrap().is_empty());
        // A little is read ahead, however long the clip.
        assert!(long.opened() <= 8 + 2 * 64, "{file}: {} tables", long.opened());
    }
}

async fn a_range_far_inside_opens_what_it_touches(long: &Long) {
    for file in ["clip.mp4", "clip.mkv"] {
        let uri = uri(file, 100, FRAGMENTS as i64 * FRAGMENT_MS - 100);
        let response = long.send(&uri, Some(0..1)).await;
        let total = response.headers()["content-range"].to_str().unwrap().rsplit('/').next().unwrap().parse::<u64>();
        let total = total.unwrap();
        long.source.opened.lock().unwrap().clear();
        *long.source.read.lock().unwrap() = 0;
        let part = total / 2..total / 2 + 200_000;
        let bytes = long.send(&uri, Some(part.clone())).await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len(), 200_000);
        assert!(long.opened() <= 8 + 6, "{file}: {} tables", long.opened());
        assert!(*long.source.read.lock().unwrap() <= 3 * 200_000, "{file}");
        // In two parts it is the same.
        let mut parts = Vec::new();
        for range in [part.start..part.start + 77_777, part.start + 77_777..part.end] {
            parts.extend(long.send(&uri, Some(range)).await.into_body().collect().await.unwrap().to_bytes());
        }
        assert!(parts == bytes, "{file}");
    }
}

async fn lengths_laid_out_from_totals_are_those_of_the_bytes(long: &Long) {
    // 61 fragments, of which most are never opened to plan.
    let (from_ms, to_ms) = (4_000 * FRAGMENT_MS + 700, 4_060 * FRAGMENT_MS + 900);
    let response = long.send(&uri("clip.mp4", from_ms, to_ms), None).await;
    let len: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes.len(), len);
    let mut reader = mp4::Mp4Reader::read_header(std::io::Cursor::new(&bytes), len as u64).unwrap();
    let pictures = reader.sample_count(1).unwrap();
    // From the keyframe on, those before the start are not presented; and up to the last in decode order that is shown.
    assert_eq!(pictures, 60 * 50 + 24, "{pictures}");
    assert!((60 * 50 + 4..=60 * 50 + 7).contains(&reader.sample_count(2).unwrap()));
    for number in (1..=pictures).step_by(61) {
        let sample = reader.read_sample(1, number).unwrap().unwrap();
        assert_eq!(sample.start_time, u64::from(number - 1) * 40);
    }
    let response = long.send(&uri("clip.mkv", from_ms, to_ms), None).await;
    let len: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), len);
}
