//! Matroska in: a push parser.
//!
//! A document is an EBML header and a Segment; another header begins another document, with tracks of its own. What
//! stands before the first Cluster is its *header*: Info and Tracks are read from it, and its bytes are kept as sent
//! (less Attachments). Then blocks become samples, each as soon as its last byte is there.
//!
//! ```text
//! EBML                       an element in memory
//! Segment                    open, of known or unknown size
//!   Info Tracks Tags         in memory
//!   SeekHead Cues Chapters   skipped, after the header without being held
//!   Cluster                  open, of known or unknown size
//!     Timestamp SimpleBlock  in memory
//!     BlockGroup             open
//!       Block BlockDuration  in memory
//! ```
//!
//! # Invariants
//! 1. No more is held than the header of a document, the one element that must be whole, and the Block of an open
//!    BlockGroup.
//! 2. Events depend on the bytes alone, not on how they were cut.
//!
//! RFC 8794 (EBML), RFC 9559 (Matroska). Not here: decode times, cutting into fragments.

use bytes::Bytes;
use vidar_core::limits::{INIT_BYTES_MAX, SAMPLE_BYTES_MAX};

use super::document::{Document, Info};
use super::ebml::{BodyError, Element, HEAD_BYTES_MAX, Head, HeadStep, VintLimits, read_head};
use super::input::Input;
use super::samples::{Around, Times, read_block};
use super::timing::Scale;
use super::track_entry::parse_tracks;
use super::{id, tags};
use crate::demux::{Demux, DemuxError, DemuxErrorKind, Event, PassedOver};

/// A block is at most a sample, its head, and the sizes of what is laced into it.
const BLOCK_BYTES_MAX: usize = SAMPLE_BYTES_MAX + 4096;
/// An integer.
const VALUE_BYTES_MAX: usize = 8;

/// A demuxer for Matroska and WebM. See [`Demux`].
///
/// Tags come as events where they stand, those of the header before the config. An input that is nothing but Tags is
/// valid (producers close so). A header without any Cluster gives no event.
#[derive(Debug, Default)]
pub struct Demuxer {
    input: Input,
    /// Open master elements, outermost first: Segment, Cluster, BlockGroup.
    levels: Vec<Place>,
    current: Option<Current>,
    document: Option<Document>,
    /// A config was given out.
    configured: bool,
    /// There were Tags outside any document.
    bare_tags: bool,
    cluster_count: u64,
    cluster: Cluster,
    group: Group,
    passed_over: PassedOver,
}

/// Where an element stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    id: u32,
    start: u64,
    body_start: u64,
    /// None: of unknown size.
    end: Option<u64>,
}

/// The element whose head was read and whose body is to come.
#[derive(Debug)]
struct Current {
    place: Place,
    end: u64,
    head: Bytes,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Wait until the body is whole, then read it.
    Read,
    /// Pass over the body.
    Skip,
}

/// The open Cluster.
#[derive(Debug, Default)]
struct Cluster {
    timestamp: Option<i64>,
    block_count: u64,
}

/// What the open BlockGroup said so far.
#[derive(Debug, Default)]
struct Group {
    /// With its offset.
    block: Option<(u64, Bytes)>,
    duration: Option<u64>,
    has_reference: bool,
}

impl Demux for Demuxer {
    fn push(&mut self, input: Bytes, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        self.input.push(input);
        while self.step(events)? {}
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        self.input.len() + self.group.block.as_ref().map_or(0, |(_, block)| block.len())
    }

    fn passed_over(&self) -> PassedOver {
        self.passed_over
    }

    fn finish(&mut self, _events: &mut Vec<Event>) -> Result<(), DemuxError> {
        let end = self.input.offset() + self.input.len() as u64;
        let cut = self.current.as_ref().map(|current| (current.place, current.end, self.path(Some(current.place.id))));
        let open = || {
            let (depth, level) = self.levels.iter().enumerate().rfind(|(_, level)| level.end.is_some())?;
            Some((*level, level.end?, self.path_of(depth + 1)))
        };
        if self.current.is_none() && self.input.len() > 0 {
            let detail = "the input ends within the head of an element".to_owned();
            return Err(self.error(DemuxErrorKind::Truncated, self.input.offset(), None, detail));
        }
        if let Some((place, element_end, path)) = cut.or_else(open) {
            let detail = format!("the input ends {} bytes before the element does", element_end.saturating_sub(end));
            return Err(DemuxError { kind: DemuxErrorKind::Truncated, offset: place.start, path, detail });
        }
        if end == 0 {
            return Err(self.error(DemuxErrorKind::Truncated, 0, None, "the input is empty".to_owned()));
        }
        let has_tracks = self.document.as_ref().is_some_and(|document| document.entries.is_some());
        if !self.configured && !has_tracks && !self.bare_tags {
            return Err(self.error(DemuxErrorKind::Unusable, end, None, "the input has no tracks".to_owned()));
        }
        Ok(())
    }
}

impl Demuxer {
    /// A demuxer at the start of an input.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Does the next thing; false if that needs more input.
    fn step(&mut self, events: &mut Vec<Event>) -> Result<bool, DemuxError> {
        let here = self.input.offset();
        let Some(current) = &self.current else {
            self.close_complete_levels(here, events)?;
            return self.read_head(here, events);
        };
        let left = current.end - here;
        match current.action {
            Action::Skip if self.input.skip(left) < left => return Ok(false),
            Action::Skip => self.current = None,
            Action::Read => {
                // Bounded when the head was read.
                let Some(body) = self.input.take(usize::try_from(left).unwrap_or(usize::MAX)) else {
                    return Ok(false);
                };
                if let Some(current) = self.current.take() {
                    self.read_body(&current, body, events)?;
                }
            }
        }
        Ok(true)
    }

    /// Closes the outermost level that ends here, and all within it.
    fn close_complete_levels(&mut self, here: u64, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        if let Some(depth) = self.levels.iter().position(|level| level.end == Some(here)) {
            while self.levels.len() > depth {
                self.close_level(events)?;
            }
        }
        Ok(())
    }

    /// Levels of unknown size end at an element that cannot be within them (RFC 8794 section 6.2). An EBML header is
    /// never within a Segment: one whose size is wrong ends there too.
    fn close_unknown_levels(&mut self, next: u32, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        while let Some(level) = self.levels.last() {
            let unknown = level.end.is_none();
            let ends = match level.id {
                id::CLUSTER => unknown && (id::is_segment_child(next) || id::is_root(next)),
                id::SEGMENT => unknown && id::is_root(next) || next == id::EBML,
                _ => false,
            };
            if !ends {
                break;
            }
            self.close_level(events)?;
        }
        Ok(())
    }

    fn close_level(&mut self, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        if self.levels.last().is_some_and(|level| level.id == id::BLOCK_GROUP) {
            self.end_group(events)?;
        }
        self.levels.pop();
        Ok(())
    }

    fn read_head(&mut self, start: u64, events: &mut Vec<Event>) -> Result<bool, DemuxError> {
        let limits = self.document.as_ref().map_or(VintLimits::DEFAULT, |document| document.limits);
        let mut wanted = 1;
        let head = loop {
            let Some(bytes) = self.input.peek(wanted) else { return Ok(false) };
            match read_head(bytes, limits) {
                HeadStep::Done(head) => break head,
                HeadStep::Needs(len) => wanted = len.min(HEAD_BYTES_MAX),
                HeadStep::Broken(what) => {
                    let what = if start == 0 { "expected an EBML header" } else { what };
                    return Err(self.error(DemuxErrorKind::Malformed, start, None, what.to_owned()));
                }
            }
        };
        let head_bytes = self.input.take(head.len).unwrap_or_default();
        self.close_unknown_levels(head.id, events)?;
        let place = self.place(head, start)?;
        self.open(place, head_bytes, events)?;
        Ok(true)
    }

    /// Where the element stands, which must be within its parents.
    fn place(&self, head: Head, start: u64) -> Result<Place, DemuxError> {
        let known_root = matches!(head.id, id::EBML | id::SEGMENT | id::TAGS | id::VOID | id::CRC_32);
        if self.levels.is_empty() && !known_root {
            return Err(self.error(DemuxErrorKind::Malformed, start, None, "expected an EBML header".to_owned()));
        }
        let malformed = |detail| self.error(DemuxErrorKind::Malformed, start, Some(head.id), detail);
        let body_start = start + head.len as u64;
        let end = match head.size {
            None if matches!(head.id, id::SEGMENT | id::CLUSTER) => None,
            None => return Err(malformed("an unknown size, which only Segment and Cluster may have".to_owned())),
            Some(size) => {
                let end = body_start.checked_add(size);
                Some(end.ok_or_else(|| malformed(format!("a size of {size} bytes")))?)
            }
        };
        let parent_end = self.levels.iter().filter_map(|level| level.end).min().unwrap_or(u64::MAX);
        match end.unwrap_or(body_start).checked_sub(parent_end) {
            Some(beyond @ 1..) => Err(malformed(format!("the element ends {beyond} bytes beyond its parent"))),
            _ => Ok(Place { id: head.id, start, body_start, end }),
        }
    }

    fn open(&mut self, place: Place, head: Bytes, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        let parent = self.levels.last().map(|level| level.id);
        match (parent, place.id) {
            (Some(id::BLOCK_GROUP), id::DISCARD_PADDING) => self.passed_over.discard_paddings += 1,
            (Some(id::BLOCK_GROUP), id::BLOCK_ADDITIONS) => self.passed_over.block_additions += 1,
            _ => {}
        }
        match (parent, place.id) {
            (None, id::EBML | id::TAGS) => self.read_later(place, head, INIT_BYTES_MAX),
            (None, id::SEGMENT) => self.open_segment(place, &head, events),
            (None, _) => self.skip(place),
            (Some(id::SEGMENT), id::CLUSTER) => self.open_cluster(place, events),
            (Some(id::SEGMENT), id::SEGMENT) => Err(self.misplaced(place, "a Segment within a Segment")),
            (Some(id::SEGMENT), _) => self.open_segment_child(place, head),
            (Some(_), other) if id::is_segment_child(other) || id::is_root(other) => {
                Err(self.misplaced(place, "not an element of a Cluster"))
            }
            (Some(id::CLUSTER), id::TIMESTAMP) => self.read_later(place, head, VALUE_BYTES_MAX),
            (Some(id::CLUSTER), id::SIMPLE_BLOCK) => self.read_later(place, head, BLOCK_BYTES_MAX),
            (Some(id::CLUSTER), id::BLOCK_GROUP) => {
                self.levels.push(place);
                self.group = Group::default();
                Ok(())
            }
            (Some(id::BLOCK_GROUP), id::BLOCK) => self.read_later(place, head, BLOCK_BYTES_MAX),
            (Some(id::BLOCK_GROUP), id::BLOCK_DURATION | id::REFERENCE_BLOCK) => {
                self.read_later(place, head, VALUE_BYTES_MAX)
            }
            _ => self.skip(place),
        }
    }

    fn skip(&mut self, place: Place) -> Result<(), DemuxError> {
        let end = place.end.ok_or_else(|| self.misplaced(place, "an unknown size"))?;
        self.current = Some(Current { place, end, head: Bytes::new(), action: Action::Skip });
        Ok(())
    }

    /// The body is to be whole, and may have up to `len_max` bytes.
    fn read_later(&mut self, place: Place, head: Bytes, len_max: usize) -> Result<(), DemuxError> {
        let end = place.end.ok_or_else(|| self.misplaced(place, "an unknown size"))?;
        let len = end - place.body_start;
        if len > len_max as u64 {
            let kind = if len_max == VALUE_BYTES_MAX { DemuxErrorKind::Malformed } else { DemuxErrorKind::TooLarge };
            let detail = format!("{len} bytes; at most {len_max} are taken");
            return Err(self.error(kind, place.start, Some(place.id), detail));
        }
        self.current = Some(Current { place, end, head, action: Action::Read });
        Ok(())
    }

    fn open_segment(&mut self, place: Place, head: &[u8], events: &mut Vec<Event>) -> Result<(), DemuxError> {
        let Some(document) = &mut self.document else {
            return Err(self.misplaced(place, "expected an EBML header"));
        };
        if document.begin_segment(head) {
            events.push(Event::Discontinuity);
        }
        self.levels.push(place);
        Ok(())
    }

    /// What stands in a Segment, other than its Clusters. Until the first of these its bytes are kept.
    fn open_segment_child(&mut self, place: Place, head: Bytes) -> Result<(), DemuxError> {
        match self.document.as_ref().filter(|document| document.in_header()) {
            Some(document) if place.id != id::ATTACHMENTS => {
                let room = INIT_BYTES_MAX.saturating_sub(document.header_len() + head.len());
                self.read_later(place, head, room)
            }
            None if place.id == id::TAGS => self.read_later(place, head, INIT_BYTES_MAX),
            _ => self.skip(place),
        }
    }

    /// At the first Cluster the header is complete.
    fn open_cluster(&mut self, place: Place, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        if let Some(document) = self.document.as_mut().filter(|document| document.in_header()) {
            let Some(config) = document.end_header() else {
                return Err(self.error(DemuxErrorKind::Unusable, place.start, Some(id::TRACKS), NO_TRACK.to_owned()));
            };
            events.push(Event::Config(config));
            let date = document.info.date;
            events.extend(date.map(|at| Event::Wall { track: 0, presentation_ticks: 0, at }));
            self.configured = true;
        }
        self.levels.push(place);
        self.cluster = Cluster::default();
        self.cluster_count += 1;
        Ok(())
    }

    fn read_body(&mut self, current: &Current, body: Bytes, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        let place = current.place;
        let result = match place.id {
            id::EBML => self.read_ebml_header(&current.head, &body, events),
            id::TIMESTAMP => self.read_timestamp(&body, events),
            id::SIMPLE_BLOCK => self.read_block(&body, Around::SimpleBlock, events),
            id::BLOCK | id::BLOCK_DURATION | id::REFERENCE_BLOCK => self.read_group_child(place, body),
            _ => self.read_segment_child(current, &body, events),
        };
        result.map_err(|error| self.body_error(place.id, place.body_start, error))
    }

    fn read_ebml_header(&mut self, head: &[u8], body: &[u8], events: &mut Vec<Event>) -> Result<(), BodyError> {
        self.document = Some(Document::new([head, body].concat().into(), head.len())?);
        if self.configured {
            events.push(Event::Discontinuity);
        }
        Ok(())
    }

    fn read_segment_child(&mut self, current: &Current, body: &[u8], events: &mut Vec<Event>) -> Result<(), BodyError> {
        let limits = self.document.as_ref().map_or(VintLimits::DEFAULT, |document| document.limits);
        if let Some(document) = self.document.as_mut().filter(|document| document.in_header()) {
            document.keep(&current.head);
            document.keep(body);
            match current.place.id {
                id::INFO => document.info = Info::parse(body, limits)?,
                // Later ones are copies (RFC 9559 section 5.1.4).
                id::TRACKS if document.entries.is_none() => document.entries = Some(parse_tracks(body, limits)?),
                _ => {}
            }
        }
        if current.place.id == id::TAGS {
            self.bare_tags |= self.document.is_none();
            let tags::Parsed { tags, of_tracks } = tags::parse(body, limits)?;
            let end_of_fragment = tags::end_of_fragment(&tags);
            events.extend((!tags.is_empty()).then_some(Event::Tags(tags)));
            events.extend((!of_tracks.is_empty()).then_some(Event::TrackTags(of_tracks)));
            events.extend(end_of_fragment.then_some(Event::EndOfFragment));
        }
        Ok(())
    }

    fn read_timestamp(&mut self, body: &[u8], events: &mut Vec<Event>) -> Result<(), BodyError> {
        if self.cluster.timestamp.is_some() {
            return Err(BodyError::new(0, "a second Timestamp in the Cluster"));
        }
        let value = value(id::TIMESTAMP, body).uint()?;
        let timestamp = i64::try_from(value).ok().and_then(|units| Some((units, self.ticks(units)?)));
        let (units, ticks) = timestamp.ok_or_else(|| BodyError::new(0, format!("a time beyond 64 bits: {value}")))?;
        self.cluster.timestamp = Some(units);
        let sized = self.levels.last().is_some_and(|cluster| cluster.end.is_some());
        events.push(Event::SourceFragment { timecode: Some(ticks), units: Some(units), sized });
        Ok(())
    }

    fn ticks(&self, units: i64) -> Option<i64> {
        self.document.as_ref()?.info.scale.ticks(units)
    }

    fn read_group_child(&mut self, place: Place, body: Bytes) -> Result<(), BodyError> {
        match place.id {
            id::BLOCK if self.group.block.is_some() => {
                return Err(BodyError::new(0, "a second Block in the BlockGroup"));
            }
            id::BLOCK => self.group.block = Some((place.body_start, body)),
            id::BLOCK_DURATION => self.group.duration = Some(value(place.id, &body).uint()?),
            _ => self.group.has_reference = true,
        }
        Ok(())
    }

    fn end_group(&mut self, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        let group = std::mem::take(&mut self.group);
        let Some((offset, block)) = group.block else {
            let start = self.levels.last().map_or(0, |level| level.start);
            return Err(self.error(DemuxErrorKind::Malformed, start, None, "a BlockGroup without a Block".to_owned()));
        };
        let around = Around::BlockGroup { duration: group.duration, has_reference: group.has_reference };
        self.read_block(&block, around, events).map_err(|error| self.body_error(id::BLOCK, offset, error))
    }

    fn read_block(&mut self, bytes: &Bytes, around: Around, events: &mut Vec<Event>) -> Result<(), BodyError> {
        let tracks = self.document.as_ref().map_or(&[][..], |document| &document.tracks);
        let scale = self.document.as_ref().map_or(Scale::DEFAULT, |document| document.info.scale);
        read_block(bytes, around, tracks, Times { scale, cluster: self.cluster.timestamp }, events)?;
        self.cluster.block_count += 1;
        Ok(())
    }

    fn misplaced(&self, place: Place, detail: &str) -> DemuxError {
        self.error(DemuxErrorKind::Malformed, place.start, Some(place.id), detail.to_owned())
    }

    fn error(&self, kind: DemuxErrorKind, offset: u64, id: Option<u32>, detail: String) -> DemuxError {
        DemuxError { kind, offset, path: self.path(id), detail }
    }

    fn body_error(&self, id: u32, body_start: u64, error: BodyError) -> DemuxError {
        let mut path = self.path(Some(id));
        if !error.path.is_empty() {
            path = format!("{path}/{}", error.path);
        }
        DemuxError { kind: error.kind, offset: body_start + error.offset as u64, path, detail: error.detail }
    }

    /// The open levels, and an element in them: `Segment/Cluster[3]/SimpleBlock[17]`.
    fn path(&self, id: Option<u32>) -> String {
        let levels = self.path_of(self.levels.len());
        match id {
            Some(id) if levels.is_empty() => id::name(id).into_owned(),
            Some(id::SIMPLE_BLOCK) => format!("{levels}/SimpleBlock[{}]", self.cluster.block_count),
            Some(id) => format!("{levels}/{}", id::name(id)),
            None if levels.is_empty() => "EBML".to_owned(),
            None => levels,
        }
    }

    fn path_of(&self, depth: usize) -> String {
        let name = |level: &Place| match level.id {
            id::CLUSTER => format!("Cluster[{}]", self.cluster_count.saturating_sub(1)),
            id::BLOCK_GROUP => format!("BlockGroup[{}]", self.cluster.block_count),
            other => id::name(other).into_owned(),
        };
        self.levels.iter().take(depth).map(name).collect::<Vec<_>>().join("/")
    }
}

const NO_TRACK: &str = "no track before the first Cluster";

fn value(id: u32, body: &[u8]) -> Element<'_> {
    Element { id, body, range: 0..body.len() }
}

#[cfg(test)]
#[path = "demux_tests.rs"]
mod tests;
