//! URIs of the native playlists: files below the folder of a rendition.

use std::ops::RangeInclusive;

use vidar_core::entry::SharedEntry;
use vidar_core::ids::FragmentNumber;

use super::plan::Names;
use super::rendition::RenditionId;

/// Longest parts that a URL may ask for, in milliseconds.
pub(crate) const PART_MS: RangeInclusive<u32> = 50..=10_000;

/// How they are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uris {
    /// `token=…`, percent-encoded, if the request had one.
    pub(crate) token: Option<String>,
    /// Init segments name the fragment they are found by.
    pub(crate) hint_init: bool,
    /// Name of the media playlists, and what they are told.
    pub(crate) file: &'static str,
    pub(crate) parameters: Vec<(&'static str, String)>,
    /// What segments are made of.
    pub(crate) cut: Cut,
}

/// What a segment has of its track of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Cut {
    /// All.
    #[default]
    Whole,
    /// All, in parts of at most so many milliseconds.
    Parts(u32),
    /// One of these.
    Part(u32, usize),
    /// The first keyframe alone.
    KeyFrame,
}

impl Uris {
    /// A URI with its parameters and the token.
    fn with(&self, path: &str, parameters: &[(&str, String)]) -> String {
        let own = parameters.iter().map(|(name, value)| format!("{name}={value}"));
        let all: Vec<String> = own.chain(self.token.clone()).collect();
        if all.is_empty() { path.to_owned() } else { format!("{path}?{}", all.join("&")) }
    }

    /// Of a part of the segment of a fragment.
    pub(super) fn part(&self, id: RenditionId, number: FragmentNumber, part_ms: u32, index: usize) -> String {
        Self { cut: Cut::Part(part_ms, index), ..self.clone() }.segment(id, number)
    }

    /// Of the init segment that a fragment needs whose config is not stored yet.
    pub(super) fn init_of(&self, number: FragmentNumber) -> String {
        self.with(&format!("init-of-{number}.mp4"), &[])
    }
}

/// What the name of a segment says: `NUMBER.m4s`, `NUMBER-PARTMS.m4s`, `NUMBER-PARTMS-INDEX.m4s` or `NUMBER-key.m4s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentName {
    pub(crate) number: FragmentNumber,
    pub(crate) cut: Cut,
}

impl SegmentName {
    pub(crate) fn parse(file: &str) -> Option<Self> {
        let mut words = file.strip_suffix(".m4s")?.split('-');
        let number = words.next()?.parse().ok()?;
        let cut = match (words.next(), words.next()) {
            (None, _) => Cut::Whole,
            (Some("key"), None) => Cut::KeyFrame,
            (Some(part_ms), None) => Cut::Parts(number_of(part_ms, PART_MS)?),
            (Some(part_ms), Some(part)) => {
                Cut::Part(number_of(part_ms, PART_MS)?, number_of(part, 0..=u32::MAX)? as usize)
            }
        };
        words.next().is_none().then_some(Self { number, cut })
    }
}

/// Without signs and leading zeros: a segment has one name.
fn number_of(word: &str, range: RangeInclusive<u32>) -> Option<u32> {
    let number: u32 = word.parse().ok()?;
    (word == number.to_string() && range.contains(&number)).then_some(number)
}

impl Names for Uris {
    fn playlist(&self, id: RenditionId) -> String {
        self.with(&format!("{id}/{}", self.file), &self.parameters)
    }

    fn init(&self, _: RenditionId, entry: &SharedEntry) -> String {
        let hint = self.hint_init.then(|| ("at", entry.meta.number.to_string()));
        self.with(&format!("init-{}.mp4", entry.meta.config), hint.as_slice())
    }

    fn segment(&self, _: RenditionId, number: FragmentNumber) -> String {
        let name = match self.cut {
            Cut::Whole => format!("{number}.m4s"),
            Cut::Parts(part_ms) => format!("{number}-{part_ms}.m4s"),
            Cut::Part(part_ms, index) => format!("{number}-{part_ms}-{index}.m4s"),
            Cut::KeyFrame => format!("{number}-key.m4s"),
        };
        self.with(&name, &[])
    }

    fn missing(&self, _: RenditionId, ordinal: u64) -> String {
        self.with(&format!("gap-{ordinal}.m4s"), &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_read_as_they_are_written() {
        let number = FragmentNumber::new(7, 8, 9);
        let id = RenditionId::parse("v1").unwrap();
        for cut in [Cut::Whole, Cut::Parts(209), Cut::Part(209, 3), Cut::KeyFrame] {
            let name = Uris { cut, ..Uris::default() }.segment(id, number);
            assert_eq!(SegmentName::parse(&name), Some(SegmentName { number, cut }), "{name}");
        }
        for wrong in ["", "-0209", "-+209", "-49", "-10001", "-209-", "-209-01", "-209-1-1", "-209-a", "-key-1", "-Key"]
        {
            let name = format!("{number}{wrong}.m4s");
            assert_eq!(SegmentName::parse(&name).is_some(), wrong.is_empty(), "{name}");
        }
    }
}
