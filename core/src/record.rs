//! What is known of a fragment, and how it is encoded beside its sealed media.
//!
//! A fragment record is a header (clear, authenticated: [`FragmentMeta`]), sealed *facts* ([`FragmentFacts`]: what
//! search and playback plans need without opening more), a sealed *table* ([`TableEnvelope`]: opaque to the store) and
//! sealed media. Layouts: `docs/formats/record.md`.

use bytes::Bytes;

use crate::ids::{ConfigId, FragmentNumber, RunId, StreamId};
use crate::limits::{TAG_COUNT_MAX, TRACK_COUNT_MAX};
use crate::sample::Tag;
use crate::time::UnixMs;
use crate::track::TrackKind;
use crate::wire::{Reader, WireError, Writer};

/// Properties of a fragment, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FragmentFlags(pub u16);

impl FragmentFlags {
    /// The first sample of the primary track is a sync sample.
    pub const STARTS_WITH_SYNC: Self = Self(1);
    /// The connection ended within it, or a crash did.
    pub const INCOMPLETE: Self = Self(1 << 1);
    /// Cut at a limit, not at a sync sample.
    pub const CUT_AT_LIMIT: Self = Self(1 << 2);
    /// Sent again by the producer.
    pub const REPEATS: Self = Self(1 << 3);
    /// The first fragment of its run.
    pub const RUN_START: Self = Self(1 << 4);
    /// Samples of it are known to be lost.
    pub const LOSSY: Self = Self(1 << 5);

    /// All bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without the bits of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// With the bits of `other` set if `when`.
    #[must_use]
    pub const fn with(self, other: Self, when: bool) -> Self {
        if when { Self(self.0 | other.0) } else { self }
    }
}

/// The header fields of a fragment: clear on disk, authenticated with everything that is sealed under them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentMeta {
    /// Whose it is.
    pub stream: StreamId,
    /// Its name, with the server time of its beginning.
    pub number: FragmentNumber,
    /// The connection it came by.
    pub run: RunId,
    /// Lease epoch of the writer for this stream; 0 on a single machine.
    pub lease_epoch: u32,
    /// Position in the stream, dense: playlists count by it.
    pub ordinal: u64,
    /// Discontinuities in the stream before it: playlists count by it.
    pub discontinuity: u32,
    /// Presentation time of its first sync sample of the primary track, by the producer's clock.
    pub producer_start: UnixMs,
    /// To the start of the next fragment of the run where known, else to the end of its last sample.
    pub duration_ms: u32,
    /// What decodes it.
    pub config: ConfigId,
    /// Properties.
    pub flags: FragmentFlags,
}

impl FragmentMeta {
    /// When it began, by the server's clock.
    #[must_use]
    pub fn server_start(&self) -> UnixMs {
        UnixMs(self.number.server_ms())
    }

    /// First instant after it, by the producer's clock.
    #[must_use]
    pub fn producer_end(&self) -> UnixMs {
        self.producer_start.plus_ms(self.duration_ms.into())
    }
}

/// Where a wall-clock time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WallSource {
    /// When it arrived here.
    #[default]
    Arrival,
    /// Given with the push (`start=`).
    Given,
    /// An RTCP sender report (RFC 3550 section 6.4.1).
    SenderReport,
    /// The container (DateUTC, `prft`).
    Container,
}

impl WallSource {
    /// Its code on disk.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Arrival => 0,
            Self::Given => 1,
            Self::SenderReport => 2,
            Self::Container => 3,
        }
    }

    /// Of its code on disk.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Arrival),
            1 => Some(Self::Given),
            2 => Some(Self::SenderReport),
            3 => Some(Self::Container),
            _ => None,
        }
    }

    /// The word listings use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Given => "given",
            Self::SenderReport => "sender_report",
            Self::Container => "container",
        }
    }
}

/// How many bytes a fragment's track adds to the index boxes of an MP4 (ISO/IEC 14496-12 sections 8.6 and 8.7).
///
/// With these the length of an MP4 is known without opening a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackTotals {
    /// Samples.
    pub sample_count: u32,
    /// Their bytes in the MP4 view, in all.
    pub mp4_bytes: u64,
    /// Runs of equal durations among all but the last sample, plus 1 for the last (its duration may be corrected).
    /// 0 without samples.
    pub stts_runs: u32,
    /// Runs of equal composition offsets; 0 if all offsets are 0.
    pub ctts_runs: u32,
    /// Sync samples.
    pub sync_count: u32,
    /// Pieces of the fragment that hold samples of the track.
    pub chunk_count: u32,
    /// Decode time of the first sample, in ticks; 0 without samples.
    pub first_decode_ticks: i64,
}

/// One track of a fragment, as search and playback plans know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackFacts {
    /// What it carries.
    pub kind: TrackKind,
    /// [`Codec::name`](crate::track::Codec::name).
    pub codec: String,
    /// In pixels; 0 if it is no video or unknown.
    pub width: u32,
    /// In pixels; 0 if it is no video or unknown.
    pub height: u32,
    /// Stored bytes of its samples.
    pub size_bytes: u64,
    /// For MP4.
    pub totals: TrackTotals,
}

/// What is known of a fragment beyond its header. Sealed on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FragmentFacts {
    /// In the order of the config's tracks.
    pub tracks: Vec<TrackFacts>,
    /// From the producer.
    pub tags: Vec<Tag>,
    /// Newest knowledge of the wall clock less the run's anchor, in milliseconds.
    pub wall_offset_ms: i64,
    /// Where that comes from.
    pub wall_source: WallSource,
    /// How many fragments earlier decoding starts; 0: at this one.
    pub sync_back: u32,
    /// Samples or packets known to be lost within it.
    pub lost_count: u32,
}

const FACTS_FORMAT_VERSION: u8 = 1;

impl FragmentFacts {
    /// Stored bytes of all samples.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.tracks.iter().map(|track| track.size_bytes).sum()
    }

    /// The plain bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(FACTS_FORMAT_VERSION).varint(self.tracks.len() as u64);
        for track in &self.tracks {
            w.u8(match track.kind {
                TrackKind::Video => 0,
                TrackKind::Audio => 1,
                TrackKind::Subtitle => 2,
                TrackKind::Data => 3,
            });
            w.string(&track.codec).varint(track.width.into()).varint(track.height.into()).varint(track.size_bytes);
            track.totals.encode(&mut w);
        }
        w.varint(self.tags.len() as u64);
        for tag in &self.tags {
            w.string(&tag.name).string(&tag.value);
        }
        w.signed(self.wall_offset_ms).u8(self.wall_source.code());
        w.varint(self.sync_back.into()).varint(self.lost_count.into());
        w.into_bytes()
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// If the bytes are not of version 1, or over a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != FACTS_FORMAT_VERSION {
            return Err(WireError { expected: "facts format version 1", offset: 0 });
        }
        let track_count = r.count(11)?;
        if track_count > TRACK_COUNT_MAX {
            return Err(r.error("at most 10 tracks"));
        }
        let mut tracks = Vec::with_capacity(track_count);
        for _ in 0..track_count {
            let kind = match r.u8()? {
                0 => TrackKind::Video,
                1 => TrackKind::Audio,
                2 => TrackKind::Subtitle,
                3 => TrackKind::Data,
                _ => return Err(r.error("a track kind")),
            };
            let codec = r.string()?.to_owned();
            let (width, height, size_bytes) = (r.varint_as()?, r.varint_as()?, r.varint()?);
            tracks.push(TrackFacts { kind, codec, width, height, size_bytes, totals: TrackTotals::decode(&mut r)? });
        }
        let tag_count = r.count(2)?;
        if tag_count > TAG_COUNT_MAX {
            return Err(r.error("at most 64 tags"));
        }
        let tags = (0..tag_count)
            .map(|_| Ok(Tag { name: r.string()?.to_owned(), value: r.string()?.to_owned() }))
            .collect::<Result<_, WireError>>()?;
        let wall_offset_ms = r.signed()?;
        let wall_source = WallSource::from_code(r.u8()?).ok_or_else(|| r.error("a wall-clock source"))?;
        let (sync_back, lost_count) = (r.varint_as()?, r.varint_as()?);
        r.finish()?;
        Ok(Self { tracks, tags, wall_offset_ms, wall_source, sync_back, lost_count })
    }
}

impl TrackTotals {
    /// Appends its fields.
    pub fn encode(&self, w: &mut Writer) {
        w.varint(self.sample_count.into()).varint(self.mp4_bytes).varint(self.stts_runs.into());
        w.varint(self.ctts_runs.into()).varint(self.sync_count.into()).varint(self.chunk_count.into());
        w.signed(self.first_decode_ticks);
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// If it does not read.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            sample_count: r.varint_as()?,
            mp4_bytes: r.varint()?,
            stts_runs: r.varint_as()?,
            ctts_runs: r.varint_as()?,
            sync_count: r.varint_as()?,
            chunk_count: r.varint_as()?,
            first_decode_ticks: r.signed()?,
        })
    }
}

/// One piece of a fragment's media: a part record written while it was open, or what stands in the closing record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Index of the part record that holds its media; none: the record that holds this table.
    pub part: Option<u16>,
    /// Plain bytes of its media.
    pub media_len: u64,
    /// Its sample table (`media::table`), opaque here.
    pub table: Bytes,
}

/// The plain table of a record: the pieces of a fragment in order of arrival.
///
/// A part record's table has one piece, its own. A closing record's table lists all. The store can therefore close a
/// fragment that a crash left open without understanding tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableEnvelope {
    /// In order of arrival.
    pub pieces: Vec<Piece>,
}

const TABLE_FORMAT_VERSION: u8 = 1;

impl TableEnvelope {
    /// The plain bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(TABLE_FORMAT_VERSION).varint(self.pieces.len() as u64);
        for piece in &self.pieces {
            // 0: this record; n + 1: part n.
            w.varint(piece.part.map_or(0, |part| u64::from(part) + 1)).varint(piece.media_len).bytes(&piece.table);
        }
        w.into_bytes()
    }

    /// Reads what `encode` wrote. Piece tables are slices of `bytes`.
    ///
    /// # Errors
    /// If the bytes are not of version 1.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != TABLE_FORMAT_VERSION {
            return Err(WireError { expected: "table format version 1", offset: 0 });
        }
        let count = r.count(3)?;
        let mut pieces = Vec::with_capacity(count);
        for _ in 0..count {
            let part = match r.varint()? {
                0 => None,
                n => Some(u16::try_from(n - 1).map_err(|_| r.error("a part index below 65536"))?),
            };
            let media_len = r.varint()?;
            let table = r.bytes()?;
            let end = r.offset();
            pieces.push(Piece { part, media_len, table: bytes.slice(end - table.len()..end) });
        }
        r.finish()?;
        Ok(Self { pieces })
    }
}

/// A record on its way to the store.
#[derive(Debug, Clone)]
pub struct NewFragment {
    /// Header fields.
    pub meta: FragmentMeta,
    /// None: the whole fragment, or its close. Some: a part of it, while it is open.
    pub part: Option<u16>,
    /// As of this record.
    pub facts: FragmentFacts,
    /// Pieces: of a part its own; of a fragment all.
    pub table: TableEnvelope,
    /// The media of this record, to be stored one after the other.
    pub media: Vec<Bytes>,
}

impl NewFragment {
    /// Plain bytes of its media.
    #[must_use]
    pub fn media_len(&self) -> u64 {
        self.media.iter().map(|bytes| bytes.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_round_trip_and_every_truncation_is_refused() {
        let facts = FragmentFacts {
            tracks: vec![TrackFacts {
                kind: TrackKind::Video,
                codec: "h264".into(),
                width: 1280,
                height: 720,
                size_bytes: 1 << 40,
                totals: TrackTotals {
                    sample_count: 50,
                    mp4_bytes: 499_000,
                    stts_runs: 2,
                    ctts_runs: 40,
                    sync_count: 1,
                    chunk_count: 1,
                    first_decode_ticks: -3,
                },
            }],
            tags: vec![Tag { name: "door".into(), value: "öffen".into() }],
            wall_offset_ms: -12,
            wall_source: WallSource::SenderReport,
            sync_back: 1,
            lost_count: 7,
        };
        let bytes = facts.encode();
        assert_eq!(FragmentFacts::decode(&bytes), Ok(facts));
        for len in 0..bytes.len() {
            assert!(FragmentFacts::decode(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn envelopes_round_trip_and_every_truncation_is_refused() {
        let piece = |part, table: &'static [u8]| Piece { part, media_len: 300, table: Bytes::from_static(table) };
        let envelope = TableEnvelope { pieces: vec![piece(Some(0), b"ab"), piece(Some(1), b""), piece(None, b"c")] };
        let bytes = envelope.encode();
        assert_eq!(TableEnvelope::decode(&bytes), Ok(envelope));
        for len in 0..bytes.len() {
            assert!(TableEnvelope::decode(&bytes.slice(..len)).is_err(), "{len}");
        }
    }
}
