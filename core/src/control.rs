//! Control records: what the log says beside media.
//!
//! They make the segment files the whole truth: catalog, timeline and search are made from them and from fragment
//! records alone. A change is answered only when its record is synced. Each carries a number of the same sequence as
//! fragments, so a copy (checkpoint) is recognised, and the order of changes is plain. Layout: `docs/formats/control.md`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{FragmentNumber, PushId, RunId, StreamId, StreamName};
use crate::record::WallSource;
use crate::time::UnixMs;
use crate::wire::{Reader, WireError, Writer};

/// One control record with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlRecord {
    /// Its place in the order of changes; a repeated copy keeps it.
    pub number: FragmentNumber,
    /// What happened.
    pub body: Control,
}

/// What a control record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// A stream came into being, or its attributes changed (the greatest number holds).
    Stream(StreamRecord),
    /// A stream and all it holds is gone.
    StreamDeleted {
        /// Which.
        stream: StreamId,
        /// When, by the server's clock.
        at: UnixMs,
    },
    /// A connection's first fragment closed, or its facts changed (the greatest number holds).
    Run(RunRecord),
    /// A connection ended.
    RunEnded {
        /// Of which stream.
        stream: StreamId,
        /// Which.
        run: RunId,
        /// When, by the server's clock.
        at: UnixMs,
        /// Why, in a few words.
        cause: String,
    },
    /// Media is known to be missing.
    Gap(GapRecord),
    /// All fragments of a stream below a number are gone (retention).
    Floor {
        /// Of which stream.
        stream: StreamId,
        /// The smallest number that may still be read.
        below: FragmentNumber,
        /// The ordinal that the next fragment of the stream gets at least.
        next_ordinal: u64,
        /// Discontinuities counted so far.
        discontinuity: u32,
    },
    /// Something happened to a key. Key material never stands here.
    Key {
        /// Whose key; none: the keyring's.
        stream: Option<StreamId>,
        /// Its version.
        version: u32,
        /// `created`, `rotated` or `destroyed`.
        event: String,
    },
}

/// A stream as its last change left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// Its id.
    pub stream: StreamId,
    /// Its name.
    pub name: StreamName,
    /// When it was created, by the server's clock.
    pub created: UnixMs,
    /// What its owner chose.
    pub settings: StreamSettings,
}

/// Of a stream that is not stored, what those who watch it find: 5 minutes, or 200 MB if that is less.
pub const LIVE_ONLY_MS: i64 = 300_000;
/// See [`LIVE_ONLY_MS`].
pub const LIVE_ONLY_BYTES: u64 = 200_000_000;

const HOUR_MS: i64 = 3_600_000;

/// What the owner of a stream chooses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSettings {
    /// The device it belongs to; by default the stream's name.
    pub device: String,
    /// Fragments older than this may go. 0: it is for watching only, see [`StreamSettings::is_live_only`].
    pub retention_hours: u32,
    /// Above this the oldest fragments go; none: no bound but the disk marks.
    pub retention_bytes: Option<u64>,
    /// Attributes for listings and search.
    #[serde(default)]
    pub tags: Vec<(String, String)>,
}

impl StreamSettings {
    /// Nothing of it is there to stay: what is stored for those who watch goes within minutes.
    #[must_use]
    pub fn is_live_only(&self) -> bool {
        self.retention_hours == 0
    }

    /// The bytes that it may hold.
    #[must_use]
    pub fn bytes_max(&self) -> Option<u64> {
        let live = self.is_live_only().then_some(LIVE_ONLY_BYTES);
        self.retention_bytes.map_or(live, |bytes| Some(bytes.min(live.unwrap_or(bytes))))
    }
}

/// For how long so many hours of retention keep.
#[must_use]
pub fn kept_ms(retention_hours: u32) -> i64 {
    if retention_hours == 0 { LIVE_ONLY_MS } else { i64::from(retention_hours) * HOUR_MS }
}

/// A connection that pushed media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// Of which stream.
    pub stream: StreamId,
    /// Which.
    pub run: RunId,
    /// When it began, by the server's clock.
    pub started: UnixMs,
    /// `rtsp`, `http`, …
    pub protocol: String,
    /// Address it came from.
    pub source: String,
    /// Name the client gave itself; empty if none.
    pub user_agent: String,
    /// Presentation time of its first sample, by the producer's clock: the anchor that all its times count from.
    pub anchor: UnixMs,
    /// Where the anchor comes from.
    pub anchor_source: WallSource,
    /// The run it goes on without a discontinuity.
    pub continues: Option<RunId>,
    /// The HTTP push it belongs to.
    pub push: Option<PushId>,
}

/// Why media is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// Packets were lost on the way.
    Loss,
    /// The store could not keep up, or had no room.
    Overload,
    /// The store failed.
    StoreFailed,
    /// Stored bytes were found damaged.
    Damage,
    /// The producer's data could not be read.
    BadInput,
}

impl GapCause {
    /// The word listings use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Overload => "overload",
            Self::StoreFailed => "store_failed",
            Self::Damage => "damage",
            Self::BadInput => "bad_input",
        }
    }
}

/// Media that is known to be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapRecord {
    /// Of which stream.
    pub stream: StreamId,
    /// Of which run.
    pub run: Option<RunId>,
    /// From, by the producer's clock.
    pub start: UnixMs,
    /// To, by the producer's clock.
    pub end: UnixMs,
    /// When it was noticed, by the server's clock.
    pub noticed: UnixMs,
    /// Why.
    pub cause: GapCause,
    /// Packets or samples missing; 0 if unknown.
    pub count: u64,
    /// The ordinal that stays empty in playlists, if a fragment had been given one.
    pub ordinal: Option<u64>,
}

impl Control {
    /// The stream it is about.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Stream(record) => Some(record.stream),
            Self::StreamDeleted { stream, .. } | Self::RunEnded { stream, .. } | Self::Floor { stream, .. } => {
                Some(*stream)
            }
            Self::Run(record) => Some(record.stream),
            Self::Gap(record) => Some(record.stream),
            Self::Key { stream, .. } => *stream,
        }
    }
}

const CONTROL_FORMAT_VERSION: u8 = 1;

impl ControlRecord {
    /// The plain bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(CONTROL_FORMAT_VERSION).raw(self.number.as_bytes());
        match &self.body {
            Control::Stream(record) => {
                w.u8(1).raw(record.stream.as_bytes()).string(record.name.as_str()).i64(record.created.0);
                let settings = &record.settings;
                w.string(&settings.device).varint(settings.retention_hours.into());
                w.option(settings.retention_bytes, |w, bytes| {
                    w.varint(bytes);
                });
                w.varint(settings.tags.len() as u64);
                for (name, value) in &settings.tags {
                    w.string(name).string(value);
                }
            }
            Control::StreamDeleted { stream, at } => {
                w.u8(2).raw(stream.as_bytes()).i64(at.0);
            }
            Control::Run(record) => {
                w.u8(3).raw(record.stream.as_bytes()).raw(record.run.as_bytes()).i64(record.started.0);
                w.string(&record.protocol).string(&record.source).string(&record.user_agent);
                w.i64(record.anchor.0).u8(record.anchor_source.code());
                w.option(record.continues, |w, run| {
                    w.raw(run.as_bytes());
                });
                w.option(record.push, |w, push| {
                    w.raw(push.as_bytes());
                });
            }
            Control::RunEnded { stream, run, at, cause } => {
                w.u8(4).raw(stream.as_bytes()).raw(run.as_bytes()).i64(at.0).string(cause);
            }
            Control::Gap(record) => {
                w.u8(5).raw(record.stream.as_bytes());
                w.option(record.run, |w, run| {
                    w.raw(run.as_bytes());
                });
                w.i64(record.start.0).i64(record.end.0).i64(record.noticed.0);
                w.u8(match record.cause {
                    GapCause::Loss => 0,
                    GapCause::Overload => 1,
                    GapCause::StoreFailed => 2,
                    GapCause::Damage => 3,
                    GapCause::BadInput => 4,
                });
                w.varint(record.count).option(record.ordinal, |w, ordinal| {
                    w.varint(ordinal);
                });
            }
            Control::Floor { stream, below, next_ordinal, discontinuity } => {
                w.u8(6)
                    .raw(stream.as_bytes())
                    .raw(below.as_bytes())
                    .varint(*next_ordinal)
                    .varint((*discontinuity).into());
            }
            Control::Key { stream, version, event } => {
                w.u8(7);
                w.option(*stream, |w, stream| {
                    w.raw(stream.as_bytes());
                });
                w.varint((*version).into()).string(event);
            }
        }
        w.into_bytes()
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// If the bytes are not of version 1, or of a kind this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != CONTROL_FORMAT_VERSION {
            return Err(WireError { expected: "control format version 1", offset: 0 });
        }
        let number = FragmentNumber::from_bytes(r.array()?);
        let kind = r.u8()?;
        let body = match kind {
            1 => Control::Stream(StreamRecord {
                stream: stream_id(&mut r)?,
                name: {
                    let name = r.string()?;
                    StreamName::new(name).map_err(|_| r.error("a stream name"))?
                },
                created: UnixMs(r.i64()?),
                settings: StreamSettings {
                    device: r.string()?.to_owned(),
                    retention_hours: r.varint_as()?,
                    retention_bytes: r.option(Reader::varint)?,
                    tags: {
                        let count = r.count(2)?;
                        (0..count)
                            .map(|_| Ok((r.string()?.to_owned(), r.string()?.to_owned())))
                            .collect::<Result<_, WireError>>()?
                    },
                },
            }),
            2 => Control::StreamDeleted { stream: stream_id(&mut r)?, at: UnixMs(r.i64()?) },
            3 => Control::Run(RunRecord {
                stream: stream_id(&mut r)?,
                run: run_id(&mut r)?,
                started: UnixMs(r.i64()?),
                protocol: r.string()?.to_owned(),
                source: r.string()?.to_owned(),
                user_agent: r.string()?.to_owned(),
                anchor: UnixMs(r.i64()?),
                anchor_source: {
                    let code = r.u8()?;
                    WallSource::from_code(code).ok_or_else(|| r.error("a wall-clock source"))?
                },
                continues: r.option(run_id)?,
                push: r.option(|r| Ok(PushId::from_bytes(r.array()?)))?,
            }),
            4 => Control::RunEnded {
                stream: stream_id(&mut r)?,
                run: run_id(&mut r)?,
                at: UnixMs(r.i64()?),
                cause: r.string()?.to_owned(),
            },
            5 => Control::Gap(GapRecord {
                stream: stream_id(&mut r)?,
                run: r.option(run_id)?,
                start: UnixMs(r.i64()?),
                end: UnixMs(r.i64()?),
                noticed: UnixMs(r.i64()?),
                cause: match r.u8()? {
                    0 => GapCause::Loss,
                    1 => GapCause::Overload,
                    2 => GapCause::StoreFailed,
                    3 => GapCause::Damage,
                    4 => GapCause::BadInput,
                    _ => return Err(r.error("a gap cause")),
                },
                count: r.varint()?,
                ordinal: r.option(Reader::varint)?,
            }),
            6 => Control::Floor {
                stream: stream_id(&mut r)?,
                below: FragmentNumber::from_bytes(r.array()?),
                next_ordinal: r.varint()?,
                discontinuity: r.varint_as()?,
            },
            7 => Control::Key { stream: r.option(stream_id)?, version: r.varint_as()?, event: r.string()?.to_owned() },
            _ => return Err(r.error("a known control kind")),
        };
        r.finish()?;
        Ok(Self { number, body })
    }
}

fn stream_id(r: &mut Reader<'_>) -> Result<StreamId, WireError> {
    Ok(StreamId::from_bytes(r.array()?))
}

fn run_id(r: &mut Reader<'_>) -> Result<RunId, WireError> {
    Ok(RunId::from_bytes(r.array()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips_and_every_truncation_is_refused() {
        let (stream, run) = (StreamId::new(), RunId::new());
        let bodies = [
            Control::Stream(StreamRecord {
                stream,
                name: StreamName::new("cam-1").unwrap(),
                created: UnixMs(5),
                settings: StreamSettings {
                    device: "cam".into(),
                    retention_hours: 168,
                    retention_bytes: Some(1 << 40),
                    tags: vec![("site".into(), "north".into())],
                },
            }),
            Control::StreamDeleted { stream, at: UnixMs(-1) },
            Control::Run(RunRecord {
                stream,
                run,
                started: UnixMs(1),
                protocol: "rtsp".into(),
                source: "127.0.0.1:5000".into(),
                user_agent: "Lavf".into(),
                anchor: UnixMs(2),
                anchor_source: WallSource::SenderReport,
                continues: Some(RunId::new()),
                push: Some(PushId::new()),
            }),
            Control::RunEnded { stream, run, at: UnixMs(9), cause: "teardown".into() },
            Control::Gap(GapRecord {
                stream,
                run: Some(run),
                start: UnixMs(1),
                end: UnixMs(2),
                noticed: UnixMs(3),
                cause: GapCause::Loss,
                count: 4,
                ordinal: Some(77),
            }),
            Control::Floor { stream, below: FragmentNumber::new(9, 9, 9), next_ordinal: 3, discontinuity: 2 },
            Control::Key { stream: None, version: 3, event: "rotated".into() },
        ];
        for body in bodies {
            let record = ControlRecord { number: FragmentNumber::new(1, 2, 3), body };
            let bytes = record.encode();
            assert_eq!(ControlRecord::decode(&bytes), Ok(record));
            for len in 0..bytes.len() {
                assert!(ControlRecord::decode(&bytes[..len]).is_err(), "{len}");
            }
        }
    }
}
