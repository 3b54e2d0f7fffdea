//! The header of a source, to stand again before each of its fragments.
//!
//! ```text
//! EBML  Segment (of unknown size)  SeekHead Void Info Tracks Tags …  │ a fragment's Cluster and Tags follow
//! ```
//! It is written as it was sent, wherever that still holds: what only held for the first fragment (Tags before Info), or
//! for the whole of the source (its size, Cues, a checksum over all), is left out. A source that was no Matroska, or whose
//! tracks are not what they were at first, gets the header that [`header`] writes.

use bytes::Bytes;
use vidar_core::sample::Tag;
use vidar_core::track::StreamConfig;

use super::ebml::{write_id, write_master};
use super::header::{HeaderOptions, UNKNOWN_SIZE, ebml_header, header};
use super::mux::write_simple_tags;
use super::original::Original;
use super::timing::Timing;
use super::{id, tags};

/// What each fragment of a source begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Up to where the fragment's own elements begin.
    pub bytes: Bytes,
    /// The unit of timestamps: the source's own, else 1 ms.
    pub timing: Timing,
    /// Times are as they were in the source; else they count from the source's zero, wherever that is.
    pub as_sent: bool,
    /// Tags that the source's header had, and whether `bytes` have them.
    tags: Vec<(Tag, bool)>,
}

impl FragmentHeader {
    /// For the fragments of a config.
    #[must_use]
    pub fn new(config: &StreamConfig) -> Self {
        let original = Original::parse(&config.matroska_header);
        let timing = if original.is_some() { Timing::of(config) } else { Timing::MILLISECONDS };
        let tags = original.as_ref().map(header_tags).unwrap_or_default();
        let as_sent = original.is_some();
        match original.filter(|original| original.holds(&config.tracks)) {
            Some(original) => Self { bytes: again(&original), timing, as_sent, tags },
            None => {
                let bytes = header(config, timing, &HeaderOptions::default());
                let tags = tags.into_iter().map(|(tag, _)| (tag, false)).collect();
                Self { bytes, timing, as_sent, tags }
            }
        }
    }

    /// The tags of a fragment that its header does not have: the first fragment of a source has its header's too.
    #[must_use]
    pub fn own_tags<'a>(&self, tags: &'a [Tag]) -> Vec<&'a Tag> {
        let with_header = tags.len() >= self.tags.len() && tags.iter().zip(&self.tags).all(|(tag, (of, _))| tag == of);
        let in_header = |index: usize| with_header && self.tags.get(index).is_some_and(|(_, written)| *written);
        tags.iter().enumerate().filter(|(index, _)| !in_header(*index)).map(|(_, tag)| tag).collect()
    }
}

fn again(original: &Original<'_>) -> Bytes {
    let mut out = original.ebml.to_vec();
    write_id(&mut out, id::SEGMENT);
    out.extend_from_slice(&UNKNOWN_SIZE);
    let mut informed = false;
    for (element, bytes) in original.children() {
        informed |= element.id == id::INFO;
        match element.id {
            id::TAGS if !informed => {}
            id::CRC_32 | id::CUES => {}
            _ => out.extend_from_slice(bytes),
        }
    }
    out.into()
}

/// As the demuxer gives them out, and whether they are written again.
fn header_tags(original: &Original<'_>) -> Vec<(Tag, bool)> {
    let mut informed = false;
    let mut found = Vec::new();
    for (element, _) in original.children() {
        informed |= element.id == id::INFO;
        if element.id == id::TAGS {
            let tags::Parsed { tags, of_tracks } = tags::parse(element.body, original.limits).unwrap_or_default();
            found.extend(tags.into_iter().chain(of_tracks).map(|tag| (tag, informed)));
        }
    }
    found
}

/// A Tags element with one Tag of these names and values and nothing else: as clients of the reference service read it.
#[must_use]
pub fn plain_tags<'a>(tags: impl IntoIterator<Item = &'a Tag>) -> Bytes {
    let mut out = Vec::new();
    write_master(&mut out, id::TAGS, |out| write_master(out, id::TAG, |out| write_simple_tags(out, tags)));
    out.into()
}

/// A document that is nothing but such tags.
#[must_use]
pub fn tags_document<'a>(tags: impl IntoIterator<Item = &'a Tag>) -> Bytes {
    let mut out = Vec::new();
    write_master(&mut out, id::EBML, ebml_header);
    write_id(&mut out, id::SEGMENT);
    out.extend_from_slice(&UNKNOWN_SIZE);
    out.extend_from_slice(&plain_tags(tags));
    out.into()
}

#[cfg(test)]
#[path = "repeat_tests.rs"]
mod tests;
