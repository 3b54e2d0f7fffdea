//! What holds for one document: limits, times, tracks, and the header as it was sent.

use bytes::Bytes;
use vidar_core::time::UnixMs;
use vidar_core::track::{StreamConfig, Track, TrackKind};

use super::ebml::{BodyError, Elements, VintLimits};
use super::id;
use super::timing::{FrameDuration, Scale, codec_frame_duration};
use super::track_entry::{Encoding, TrackEntry};
use crate::demux::DemuxErrorKind;

/// From 1970 to 2001, where Matroska's dates begin (RFC 8794 section 7.6).
const EPOCH_2001_MS: i64 = 978_307_200_000;

/// A document that is being read.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) limits: VintLimits,
    pub(super) info: Info,
    /// Of the first Tracks element of the Segment.
    pub(super) entries: Option<Vec<TrackEntry>>,
    /// Those that samples are matched against, once the header is complete.
    pub(super) tracks: Vec<TrackState>,
    ebml: Bytes,
    segment: Option<SegmentHeader>,
}

/// Bytes of a Segment up to its first Cluster.
#[derive(Debug)]
struct SegmentHeader {
    bytes: Vec<u8>,
    complete: bool,
}

/// What Info says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) scale: Scale,
    /// When a timestamp of 0 was.
    pub(super) date: Option<UnixMs>,
}

impl Info {
    pub(super) const DEFAULT: Self = Self { scale: Scale::DEFAULT, date: None };

    pub(super) fn parse(body: &[u8], limits: VintLimits) -> Result<Self, BodyError> {
        let mut info = Self::DEFAULT;
        for element in Elements::new(body, limits) {
            let element = element?;
            match element.id {
                id::TIMESTAMP_SCALE => info.scale = Scale { ns: element.uint()? },
                id::DATE_UTC => info.date = Some(UnixMs(EPOCH_2001_MS + element.int()?.div_euclid(1_000_000))),
                _ => {}
            }
            if info.scale.ns == 0 {
                return Err(BodyError::new(element.range.start, "a TimestampScale of 0"));
            }
        }
        Ok(info)
    }
}

/// A date as Matroska counts: nanoseconds since 2001. None if that does not fit.
pub(super) fn date_ns(at: UnixMs) -> Option<i64> {
    at.0.checked_sub(EPOCH_2001_MS)?.checked_mul(1_000_000)
}

impl Document {
    /// From the EBML header: its bytes, of which `head_len` are its head.
    pub(super) fn new(ebml: Bytes, head_len: usize) -> Result<Self, BodyError> {
        let limits = parse_ebml_header(ebml.get(head_len..).unwrap_or_default())?;
        Ok(Self { limits, info: Info::DEFAULT, entries: None, tracks: Vec::new(), ebml, segment: None })
    }

    /// A Segment begins; true if it is not the first.
    pub(super) fn begin_segment(&mut self, head: &[u8]) -> bool {
        self.info = Info::DEFAULT;
        self.entries = None;
        let bytes = [&self.ebml[..], head].concat();
        self.segment.replace(SegmentHeader { bytes, complete: false }).is_some()
    }

    /// True from the start of a Segment to its first Cluster.
    pub(super) fn in_header(&self) -> bool {
        self.segment.as_ref().is_some_and(|segment| !segment.complete)
    }

    /// Bytes of the header so far.
    pub(super) fn header_len(&self) -> usize {
        self.segment.as_ref().map_or(0, |segment| segment.bytes.len())
    }

    /// Keeps bytes of the header.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if let Some(segment) = &mut self.segment {
            segment.bytes.extend_from_slice(bytes);
        }
    }

    /// The header is complete; None if it declares no track.
    pub(super) fn end_header(&mut self) -> Option<StreamConfig> {
        let segment = self.segment.as_mut()?;
        segment.complete = true;
        let matroska_header = std::mem::take(&mut segment.bytes).into();
        let entries = self.entries.take().filter(|entries| !entries.is_empty())?;
        self.tracks = entries.iter().map(|entry| TrackState::new(entry, self.info.scale)).collect();
        let tracks = self.tracks.iter().map(|state| state.track.clone()).collect();
        Some(StreamConfig { tracks, matroska_header })
    }
}

pub(super) fn parse_ebml_header(body: &[u8]) -> Result<VintLimits, BodyError> {
    let mut limits = VintLimits::DEFAULT;
    let (mut read_version, mut doc_type) = (1, "matroska".to_owned());
    for element in Elements::new(body, VintLimits::DEFAULT) {
        let element = element?;
        let length = |max: usize| {
            let unusable = |value| BodyError::of(DemuxErrorKind::Unusable, element.range.start, value);
            let value = element.uint()?;
            let known = usize::try_from(value).ok().filter(|len| (1..=max).contains(len));
            known.ok_or_else(|| unusable(format!("{} of {value}; 1 to {max} is read", id::name(element.id))))
        };
        match element.id {
            id::EBML_MAX_ID_LENGTH => limits.id_bytes = length(4)?,
            id::EBML_MAX_SIZE_LENGTH => limits.size_bytes = length(8)?,
            id::EBML_READ_VERSION => read_version = element.uint()?,
            id::DOC_TYPE => doc_type = element.text(),
            _ => {}
        }
    }
    let unusable = |detail| Err(BodyError::of(DemuxErrorKind::Unusable, 0, detail));
    if read_version != 1 {
        return unusable(format!("EBMLReadVersion {read_version}; 1 is read"));
    }
    if doc_type != "matroska" && doc_type != "webm" {
        return unusable(format!("DocType {doc_type:?}; \"matroska\" and \"webm\" are read"));
    }
    Ok(limits)
}

/// What the samples of a track are made with.
#[derive(Debug)]
pub(super) struct TrackState {
    pub(super) track: Track,
    /// Goes before every frame.
    pub(super) stripped: Bytes,
    default_duration: Option<FrameDuration>,
}

impl TrackState {
    fn new(entry: &TrackEntry, scale: Scale) -> Self {
        let stripped = match &entry.encoding {
            Encoding::HeaderStripped { bytes, .. } => bytes.clone(),
            Encoding::None | Encoding::Opaque => Bytes::new(),
        };
        let default_duration = entry.default_duration_ns.map(FrameDuration::from_ns);
        Self { track: entry.to_track(scale), stripped, default_duration }
    }

    /// Whether a keyframe flag means anything: of what is no video, all can be decoded alone.
    pub(super) fn has_keyframes(&self) -> bool {
        self.track.kind == TrackKind::Video
    }

    /// Ticks from the time of a block to its frame `index`: by the declared duration of frames, else by the codec's,
    /// else by spreading the block's duration, else one tick each, so that they stay in order.
    pub(super) fn laced_ticks(
        &self,
        index: usize,
        count: usize,
        first: &[u8],
        block_ticks: Option<i64>,
    ) -> Option<i64> {
        if index == 0 {
            return Some(0);
        }
        if let Some(duration) = self.default_duration.or_else(|| codec_frame_duration(&self.track, first)) {
            return duration.ticks(index, self.track.timescale_hz);
        }
        let index = i64::try_from(index).ok()?;
        block_ticks.map_or(Some(index), |ticks| share(ticks, index, count))
    }
}

/// The part of `ticks` that `index` of `count` frames take.
pub(super) fn share(ticks: i64, index: i64, count: usize) -> Option<i64> {
    i64::try_from((i128::from(ticks) * i128::from(index)).checked_div(count as i128)?).ok()
}
