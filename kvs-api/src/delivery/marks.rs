//! What the tags of a fragment ask for: the reserved ones, and those that go with what is delivered.

use vidar_core::sample::Tag;

const RESERVED: &str = "AWS_KINESISVIDEO_";
const NOTIFICATION: &str = "AWS_KINESISVIDEO_NOTIFICATION";
const IMAGE_GENERATION: &str = "AWS_KINESISVIDEO_IMAGE_GENERATION";
const IMAGE_PREFIX: &str = "AWS_KINESISVIDEO_IMAGE_PREFIX";

/// A notification is asked for.
pub(crate) fn asks_for_notification(tags: &[Tag]) -> bool {
    tags.iter().any(|tag| tag.name == NOTIFICATION)
}

/// A picture is asked for.
pub(crate) fn asks_for_image(tags: &[Tag]) -> bool {
    tags.iter().any(|tag| tag.name == IMAGE_GENERATION)
}

/// What the name of a picture begins with: the first that was said after a picture was asked for. It stands with it in
/// one Tag, and of that only the order is known.
pub(crate) fn image_prefix(tags: &[Tag]) -> Option<&str> {
    let asked = tags.iter().position(|tag| tag.name == IMAGE_GENERATION)?;
    let prefix = tags[asked..].iter().find(|tag| tag.name == IMAGE_PREFIX)?;
    Some(prefix.value.as_str()).filter(|prefix| !prefix.is_empty())
}

/// The producer's own, in order.
pub(crate) fn own(tags: &[Tag]) -> impl Iterator<Item = (&str, &str)> {
    let own = tags.iter().filter(|tag| !tag.name.starts_with(RESERVED));
    own.map(|tag| (tag.name.as_str(), tag.value.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tags_ask_for() {
        let tags = |tags: &[(&str, &str)]| -> Vec<Tag> {
            tags.iter().map(|(name, value)| Tag { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
        };
        let both = tags(&[(IMAGE_PREFIX, "early"), (IMAGE_GENERATION, ""), ("site", "1"), (IMAGE_PREFIX, "door")]);
        assert!(asks_for_image(&both));
        assert_eq!(image_prefix(&both), Some("door"));
        assert_eq!(own(&both).collect::<Vec<_>>(), [("site", "1")]);
        assert_eq!(image_prefix(&tags(&[(IMAGE_GENERATION, ""), (IMAGE_PREFIX, "")])), None);
        let notify = tags(&[(NOTIFICATION, "")]);
        assert!(asks_for_notification(&notify) && !asks_for_image(&notify));
        assert!(!asks_for_notification(&both));
    }
}
