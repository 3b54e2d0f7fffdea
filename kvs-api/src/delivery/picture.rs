//! Which pictures are made of a fragment, and what they are called.

use serde_json::{Map, Value};
use uuid::Uuid;
use vidar_core::entry::FragmentEntry;
use vidar_core::ids::FragmentNumber;
use vidar_core::sample::Tag;
use vidar_core::time::UnixMs;
use vidar_indexer::TimeAxis;
use vidar_player_api::image::ImageFormat;

use super::{id_of, marks};

/// Pictures of one fragment at most: 20 s of them, and many more.
pub(crate) const COUNT_MAX: usize = 1000;
/// Bytes of a part of a path at most, that a producer or a stream may choose: with all else a name stays below 255.
const PART_MAX: usize = 80;

/// When the pictures of a fragment are taken, by the clock that was chosen. Where it was asked for: from its first
/// instant on. Else at multiples of the interval since the epoch, so that neighbours keep the interval between them.
pub(crate) fn instants(axis: TimeAxis, entry: &FragmentEntry, interval_ms: i64, asked: bool) -> Vec<UnixMs> {
    let start = match axis {
        TimeAxis::Producer => entry.meta.producer_start,
        TimeAxis::Server => entry.meta.server_start(),
    };
    let end = start.plus_ms(i64::from(entry.meta.duration_ms).max(1));
    let first = match asked {
        true => start,
        false => start.plus_ms(start.0.wrapping_neg().rem_euclid(interval_ms)),
    };
    let all = std::iter::successors(Some(first), |at| Some(at.plus_ms(interval_ms)));
    all.take_while(|at| *at < end).take(COUNT_MAX).collect()
}

/// The same for the same picture: one that is made again takes the place of the first.
pub(crate) fn id(number: FragmentNumber, at: UnixMs) -> Uuid {
    id_of(&[number.as_bytes(), &at.0.to_be_bytes()])
}

/// Where a picture goes below its target: the folders of its destination, and as the service has it
/// `PREFIX_ACCOUNT_STREAM_TIMECODE_ID.jpg`, where a prefix may have folders too.
///
/// A prefix comes from outside: what is no plain character becomes `_`, and parts that lead elsewhere are left out.
pub(crate) fn path(folders: &str, prefix: Option<&str>, account: &str, stream: &str, name: PictureName) -> String {
    let extension = match name.format {
        ImageFormat::Jpeg => "jpg",
        ImageFormat::Png => "png",
    };
    let (at, id) = (name.at.0, id(name.number, name.at));
    let prefix: String =
        prefix.map(|prefix| prefix.split('/').map(plain).collect::<Vec<_>>().join("/") + "_").unwrap_or_default();
    let key = format!("{prefix}{account}_{}_{at}_{id}.{extension}", plain(stream));
    let parts = folders.split('/').chain(key.split('/'));
    parts.filter(|part| !matches!(*part, "" | "." | "..")).collect::<Vec<_>>().join("/")
}

/// What a picture is called after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PictureName {
    pub(crate) number: FragmentNumber,
    pub(crate) at: UnixMs,
    pub(crate) format: ImageFormat,
}

fn plain(part: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "!-_.*'()=".contains(c) { c } else { '_' };
    part.chars().take(PART_MAX).map(plain).collect()
}

/// What is kept with a picture: the metadata of an object of the service.
pub(crate) fn metadata(entry: &FragmentEntry, into_ms: i64, tags: &[Tag]) -> Map<String, Value> {
    let own = marks::own(tags).map(|(name, value)| (name.to_owned(), value.into()));
    let mut all: Map<String, Value> = own.collect();
    let instant = |began: UnixMs| Value::from(began.plus_ms(into_ms).0.to_string());
    all.insert("aws_kinesisvideo_fragment_number".to_owned(), entry.meta.number.to_string().into());
    all.insert("aws_kinesisvideo_producer_timestamp".to_owned(), instant(entry.meta.producer_start));
    all.insert("aws_kinesisvideo_server_timestamp".to_owned(), instant(entry.meta.server_start()));
    all
}

#[cfg(test)]
mod tests {
    use vidar_core::entry::Locator;
    use vidar_core::ids::{ConfigId, FileId, RunId, StreamId};
    use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta};

    use super::*;

    fn entry(server_ms: u64, producer_ms: i64, duration_ms: u32) -> FragmentEntry {
        let meta = FragmentMeta {
            stream: StreamId::new(),
            number: FragmentNumber::new(1, server_ms, 0),
            run: RunId::new(),
            lease_epoch: 0,
            ordinal: 0,
            discontinuity: 0,
            producer_start: UnixMs(producer_ms),
            duration_ms,
            config: ConfigId::NONE,
            flags: FragmentFlags::STARTS_WITH_SYNC,
        };
        let file = FileId::new();
        let record = Locator { volume: 0, file, offset: 0, head_len: 0, media_len: 0, record_len: 0 };
        FragmentEntry::new(meta, &FragmentFacts::default(), record, Vec::new())
    }

    #[test]
    fn neighbours_keep_the_interval_and_what_was_asked_for_has_a_picture() {
        let at = |axis, entry: &FragmentEntry, interval, asked| -> Vec<i64> {
            instants(axis, entry, interval, asked).into_iter().map(|at| at.0).collect()
        };
        let (first, second) = (entry(5_000, 10_100, 2000), entry(7_000, 12_100, 2000));
        assert_eq!(at(TimeAxis::Producer, &first, 700, false), [10_500, 11_200, 11_900]);
        assert_eq!(at(TimeAxis::Producer, &second, 700, false), [12_600, 13_300, 14_000]);
        assert_eq!(at(TimeAxis::Server, &first, 1000, false), [5_000, 6_000]);
        assert_eq!(at(TimeAxis::Producer, &first, 60_000, false), [0; 0]);
        assert_eq!(at(TimeAxis::Producer, &first, 60_000, true), [10_100]);
        assert_eq!(at(TimeAxis::Producer, &first, 1500, true), [10_100, 11_600]);
        assert_eq!(at(TimeAxis::Producer, &entry(0, 5, 0), 200, true), [5], "one picture has no duration");
        assert_eq!(at(TimeAxis::Producer, &entry(0, -100, 200), 200, false), [0], "before the epoch");
        assert_eq!(instants(TimeAxis::Producer, &entry(0, 0, u32::MAX), 200, false).len(), COUNT_MAX);
    }

    #[test]
    fn a_name_stays_below_its_target_and_is_the_same_again() {
        let name = |ordinal| PictureName {
            number: FragmentNumber::new(ordinal, 5, 0),
            at: UnixMs(7),
            format: ImageFormat::Jpeg,
        };
        let of = |folders: &str, prefix: Option<&str>| path(folders, prefix, "123456789012", "cam", name(1));
        let id = id(name(1).number, UnixMs(7));
        assert_eq!(of("", None), format!("123456789012_cam_7_{id}.jpg"));
        assert_eq!(of("a/b", Some("front door/x")), format!("a/b/front_door/x_123456789012_cam_7_{id}.jpg"));
        assert_eq!(of("", Some("../../etc/./..")), format!("etc/.._123456789012_cam_7_{id}.jpg"));
        assert_eq!(of("", Some("/")), format!("_123456789012_cam_7_{id}.jpg"));
        assert_ne!(of("", None), path("", None, "123456789012", "cam", name(2)));
        let long = path("", Some(&"p".repeat(256)), "123456789012", &"s".repeat(256), name(1));
        assert!(long.len() + ".json".len() <= 255, "{}", long.len());
    }
}
