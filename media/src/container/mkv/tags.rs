//! Tags (RFC 9559 section 5.1.8): names and values, flattened.

use vidar_core::limits::{TAG_COUNT_MAX, TAG_NAME_BYTES_MAX, TAG_VALUE_BYTES_MAX};
use vidar_core::sample::Tag;

use super::ebml::{BodyError, Elements, VintLimits};
use super::id;

/// The producer closes its fragment (reserved by the Kinesis Video PutMedia API).
const END_OF_FRAGMENT: &str = "AWS_KINESISVIDEO_END_OF_FRAGMENT";
/// SimpleTags within SimpleTags that are looked into.
const DEPTH_MAX: usize = 8;

/// What a Tags element holds.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) tags: Vec<Tag>,
    /// About a track, a chapter or an attachment; which one is not kept.
    pub(super) of_tracks: Vec<Tag>,
}

/// The tags of a Tags element: at most [`TAG_COUNT_MAX`] of each kind, each cut to the limits. A tag within another is
/// called `OUTER/INNER`; a tag without text has an empty value.
pub(super) fn parse(body: &[u8], limits: VintLimits) -> Result<Parsed, BodyError> {
    let mut parsed = Parsed::default();
    for element in Elements::new(body, limits) {
        let element = element?;
        if element.id == id::TAG {
            let within = |error: BodyError| error.within("Tag", element.body_offset());
            let tags = if has_target(element.body, limits) { &mut parsed.of_tracks } else { &mut parsed.tags };
            simple_tags(element.body, limits, "", 0, tags).map_err(within)?;
        }
    }
    Ok(parsed)
}

/// True if a Tag is about something other than the whole.
fn has_target(body: &[u8], limits: VintLimits) -> bool {
    let uids = [id::TAG_TRACK_UID, id::TAG_EDITION_UID, id::TAG_CHAPTER_UID, id::TAG_ATTACHMENT_UID];
    let targets = Elements::new(body, limits).map_while(Result::ok).filter(|element| element.id == id::TARGETS);
    let mut about = targets.flat_map(|targets| Elements::new(targets.body, limits).map_while(Result::ok));
    about.any(|element| uids.contains(&element.id))
}

/// True if the producer says that its fragment is complete.
pub(super) fn end_of_fragment(tags: &[Tag]) -> bool {
    tags.iter().any(|tag| tag.name == END_OF_FRAGMENT)
}

fn simple_tags(
    body: &[u8],
    limits: VintLimits,
    prefix: &str,
    depth: usize,
    tags: &mut Vec<Tag>,
) -> Result<(), BodyError> {
    for element in Elements::new(body, limits) {
        let element = element?;
        if element.id == id::SIMPLE_TAG && depth < DEPTH_MAX && tags.len() < TAG_COUNT_MAX {
            let within = |error: BodyError| error.within("SimpleTag", element.body_offset());
            simple_tag(element.body, limits, prefix, depth, tags).map_err(within)?;
        }
    }
    Ok(())
}

fn simple_tag(
    body: &[u8],
    limits: VintLimits,
    prefix: &str,
    depth: usize,
    tags: &mut Vec<Tag>,
) -> Result<(), BodyError> {
    let (mut name, mut value) = (String::new(), String::new());
    for element in Elements::new(body, limits) {
        let element = element?;
        match element.id {
            id::TAG_NAME => name = element.text(),
            id::TAG_STRING => value = element.text(),
            _ => {}
        }
    }
    let name = cut(format!("{prefix}{name}"), TAG_NAME_BYTES_MAX);
    let inner = format!("{name}/");
    tags.push(Tag { name, value: cut(value, TAG_VALUE_BYTES_MAX) });
    simple_tags(body, limits, &inner, depth + 1, tags)
}

fn cut(mut text: String, len_max: usize) -> String {
    text.truncate(text.floor_char_boundary(len_max));
    text
}
