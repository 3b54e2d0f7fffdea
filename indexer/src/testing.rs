//! Events for tests.

use std::sync::Arc;

use vidar_core::control::{Control, ControlRecord, GapCause, GapRecord, RunRecord, StreamRecord, StreamSettings};
use vidar_core::entry::{FragmentEntry, Locator, SharedEntry};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId, StreamId, StreamName};
use vidar_core::log::LogEvent;
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta, TrackFacts, TrackTotals, WallSource};
use vidar_core::sample::Tag;
use vidar_core::time::UnixMs;
use vidar_core::track::TrackKind;

/// 2026-01-01T00:00:00Z.
pub(crate) const DAY_ONE: i64 = 1_767_225_600_000;

/// One fragment, to be changed before it is observed.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    pub(crate) stream: StreamId,
    pub(crate) run: RunId,
    pub(crate) sequence: u64,
    pub(crate) server_ms: i64,
    pub(crate) start_ms: i64,
    pub(crate) duration_ms: u32,
    pub(crate) ordinal: u64,
    pub(crate) discontinuity: u32,
    pub(crate) codecs: Vec<&'static str>,
    pub(crate) size: (u32, u32),
    pub(crate) pictures: u32,
    pub(crate) size_bytes: u64,
    pub(crate) record_len: u64,
    pub(crate) lost_count: u32,
    pub(crate) repeats: bool,
    pub(crate) tags: Vec<(&'static str, String)>,
}

impl Fragment {
    pub(crate) fn new(stream: StreamId, run: RunId, sequence: u64) -> Self {
        let at = DAY_ONE + sequence as i64 * 2000;
        Self {
            stream,
            run,
            sequence,
            server_ms: at,
            start_ms: at,
            duration_ms: 2000,
            ordinal: sequence,
            discontinuity: 0,
            codecs: vec!["h264", "aac"],
            size: (1280, 720),
            pictures: 50,
            size_bytes: 1000,
            record_len: 1200,
            lost_count: 0,
            repeats: false,
            tags: Vec::new(),
        }
    }

    pub(crate) fn number(&self) -> FragmentNumber {
        FragmentNumber::new(self.sequence, self.server_ms as u64, 7)
    }

    pub(crate) fn facts(&self) -> FragmentFacts {
        let track = |(index, codec): (usize, &&'static str)| TrackFacts {
            kind: if index == 0 { TrackKind::Video } else { TrackKind::Audio },
            codec: (*codec).to_owned(),
            width: if index == 0 { self.size.0 } else { 0 },
            height: if index == 0 { self.size.1 } else { 0 },
            size_bytes: if index == 0 { self.size_bytes } else { 0 },
            totals: TrackTotals { sample_count: if index == 0 { self.pictures } else { 94 }, ..TrackTotals::default() },
        };
        FragmentFacts {
            tracks: self.codecs.iter().enumerate().map(track).collect(),
            tags: self.tags.iter().map(|(name, value)| Tag { name: (*name).into(), value: value.clone() }).collect(),
            lost_count: self.lost_count,
            ..FragmentFacts::default()
        }
    }

    pub(crate) fn entry(&self) -> SharedEntry {
        let meta = FragmentMeta {
            stream: self.stream,
            number: self.number(),
            run: self.run,
            lease_epoch: 0,
            ordinal: self.ordinal,
            discontinuity: self.discontinuity,
            producer_start: UnixMs(self.start_ms),
            duration_ms: self.duration_ms,
            config: ConfigId::NONE,
            flags: FragmentFlags::STARTS_WITH_SYNC.with(FragmentFlags::REPEATS, self.repeats),
        };
        let record = Locator {
            volume: 0,
            file: FileId::from_bytes([1; 16]),
            offset: 4096 * self.sequence,
            head_len: 100,
            media_len: self.size_bytes,
            record_len: self.record_len,
        };
        Arc::new(FragmentEntry::new(meta, &self.facts(), record, Vec::new()))
    }

    pub(crate) fn event(&self) -> LogEvent {
        LogEvent::Fragment { entry: self.entry(), facts: Arc::new(self.facts()) }
    }
}

pub(crate) fn control(sequence: u64, body: Control) -> LogEvent {
    let number = FragmentNumber::new(sequence, (DAY_ONE + sequence as i64 * 2000) as u64, 9);
    LogEvent::Control(Arc::new(ControlRecord { number, body }))
}

pub(crate) fn stream(sequence: u64, stream: StreamId, name: &str) -> LogEvent {
    stream_with(sequence, stream, name, name, &[])
}

pub(crate) fn stream_with(
    sequence: u64,
    stream: StreamId,
    name: &str,
    device: &str,
    tags: &[(&str, &str)],
) -> LogEvent {
    let settings = StreamSettings {
        device: device.to_owned(),
        retention_hours: 168,
        retention_bytes: None,
        tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let name = StreamName::new(name).expect("a name");
    control(sequence, Control::Stream(StreamRecord { stream, name, created: UnixMs(DAY_ONE), settings }))
}

pub(crate) fn run(sequence: u64, stream: StreamId, run: RunId, protocol: &str, source: &str) -> LogEvent {
    control(
        sequence,
        Control::Run(RunRecord {
            stream,
            run,
            started: UnixMs(DAY_ONE + sequence as i64 * 2000),
            protocol: protocol.to_owned(),
            source: source.to_owned(),
            user_agent: "Lavf".to_owned(),
            anchor: UnixMs(DAY_ONE + sequence as i64 * 2000),
            anchor_source: WallSource::Arrival,
            continues: None,
            push: None,
        }),
    )
}

pub(crate) fn run_ended(sequence: u64, stream: StreamId, run: RunId) -> LogEvent {
    let at = UnixMs(DAY_ONE + sequence as i64 * 2000);
    control(sequence, Control::RunEnded { stream, run, at, cause: "teardown".to_owned() })
}

pub(crate) fn gap(sequence: u64, stream: StreamId, run: RunId, start_ms: i64, end_ms: i64) -> LogEvent {
    control(
        sequence,
        Control::Gap(GapRecord {
            stream,
            run: Some(run),
            start: UnixMs(start_ms),
            end: UnixMs(end_ms),
            noticed: UnixMs(DAY_ONE + sequence as i64 * 2000),
            cause: GapCause::Overload,
            count: 3,
            ordinal: None,
        }),
    )
}

pub(crate) fn floor(sequence: u64, stream: StreamId, below: FragmentNumber) -> LogEvent {
    control(sequence, Control::Floor { stream, below, next_ordinal: 0, discontinuity: 0 })
}

pub(crate) fn deleted(sequence: u64, stream: StreamId) -> LogEvent {
    control(sequence, Control::StreamDeleted { stream, at: UnixMs(DAY_ONE) })
}
