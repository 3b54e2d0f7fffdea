//! The header of a Matroska source, as a config keeps it: what is written again is written as it was sent.

use vidar_core::track::Track;

use super::document::{Info, parse_ebml_header};
use super::ebml::{Element, Elements, Head, HeadStep, VintLimits, read_head};
use super::id;
use super::timing::Scale;
use super::track_entry::{Encoding, TrackEntry, parse_tracks};

/// What a source's header says that a config does not.
#[derive(Debug)]
pub(super) struct Original<'a> {
    pub(super) scale: Scale,
    pub(super) limits: VintLimits,
    /// The whole EBML header.
    pub(super) ebml: &'a [u8],
    /// Of the Segment, up to its first Cluster.
    body: &'a [u8],
    /// With their bodies.
    entries: Vec<(TrackEntry, &'a [u8])>,
}

impl<'a> Original<'a> {
    /// None if the bytes are no such header.
    pub(super) fn parse(header: &'a [u8]) -> Option<Self> {
        let ebml = head(header, VintLimits::DEFAULT).filter(|head| head.id == id::EBML)?;
        let ebml_len = ebml.len.checked_add(usize::try_from(ebml.size?).ok()?)?;
        let (ebml_bytes, rest) = header.split_at_checked(ebml_len)?;
        let limits = parse_ebml_header(ebml_bytes.get(ebml.len..)?).ok()?;
        let segment = head(rest, limits).filter(|head| head.id == id::SEGMENT)?;
        let body = rest.get(segment.len..)?;
        let mut original = Self { scale: Scale::DEFAULT, limits, ebml: ebml_bytes, body, entries: Vec::new() };
        for element in Elements::new(body, limits) {
            let element = element.ok()?;
            match element.id {
                id::INFO => original.scale = Info::parse(element.body, limits).ok()?.scale,
                id::TRACKS if original.entries.is_empty() => original.entries = entries(element.body, limits)?,
                _ => {}
            }
        }
        Some(original)
    }

    /// True if it declares just these tracks, and their frames as they are kept.
    pub(super) fn holds(&self, tracks: &[Track]) -> bool {
        let holds = |((entry, _), track): (&(TrackEntry, &[u8]), &Track)| {
            !matches!(entry.encoding, Encoding::HeaderStripped { .. }) && entry.to_track(self.scale) == *track
        };
        self.entries.len() == tracks.len() && self.entries.iter().zip(tracks).all(holds)
    }

    /// What stands in the Segment, each with all its bytes.
    pub(super) fn children(&self) -> impl Iterator<Item = (Element<'a>, &'a [u8])> {
        let body = self.body;
        let elements = Elements::new(body, self.limits).flatten();
        elements.map(move |element| (element.clone(), body.get(element.range).unwrap_or_default()))
    }

    /// The entry of that number.
    pub(super) fn entry(&self, number: u64) -> Option<OriginalEntry<'_>> {
        let (entry, body) = self.entries.iter().find(|(entry, _)| entry.number == number)?;
        Some(OriginalEntry { entry, body, limits: self.limits })
    }
}

fn head(bytes: &[u8], limits: VintLimits) -> Option<Head> {
    match read_head(bytes, limits) {
        HeadStep::Done(head) => Some(head),
        HeadStep::Needs(_) | HeadStep::Broken(_) => None,
    }
}

fn entries(body: &[u8], limits: VintLimits) -> Option<Vec<(TrackEntry, &[u8])>> {
    let bodies = Elements::new(body, limits).flatten().filter(|element| element.id == id::TRACK_ENTRY);
    Some(parse_tracks(body, limits).ok()?.into_iter().zip(bodies.map(|element| element.body)).collect())
}

/// A TrackEntry of the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct OriginalEntry<'a> {
    pub(super) entry: &'a TrackEntry,
    body: &'a [u8],
    limits: VintLimits,
}

impl<'a> OriginalEntry<'a> {
    /// Its elements, each with all its bytes, that still hold for what is written: frames are whole again where their
    /// headers had been stripped, and additions to blocks are not kept.
    pub(super) fn elements(self) -> impl Iterator<Item = (Element<'a>, &'a [u8])> {
        let opaque = self.entry.encoding == Encoding::Opaque;
        let holds = move |element: &Element<'_>| match element.id {
            id::CONTENT_ENCODINGS => opaque,
            id::CRC_32 | id::VOID | id::MAX_BLOCK_ADDITION_ID | id::BLOCK_ADDITION_MAPPING => false,
            _ => true,
        };
        let bytes = move |element: Element<'a>| {
            let whole = self.body.get(element.range.clone()).unwrap_or_default();
            (element, whole)
        };
        Elements::new(self.body, self.limits).flatten().filter(holds).map(bytes)
    }
}
