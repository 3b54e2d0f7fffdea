//! Limits on what comes from outside, in one place.

/// Tracks of one push. The reference service knows 3.
pub const TRACK_COUNT_MAX: usize = 10;
/// One sample, in bytes.
pub const SAMPLE_BYTES_MAX: usize = 50 << 20;
/// One fragment, in bytes; a longer one is cut and marked.
pub const FRAGMENT_BYTES_MAX: u64 = 50 << 20;
/// One fragment, in milliseconds; a longer one is cut and marked.
pub const FRAGMENT_DURATION_MS_MAX: u32 = 20_000;
/// Header of a container (codec private data, track declarations), in bytes.
pub const INIT_BYTES_MAX: usize = 4 << 20;
/// Codec private data of one track, in bytes.
pub const CODEC_PRIVATE_BYTES_MAX: usize = 1 << 20;
/// Tags of one fragment.
pub const TAG_COUNT_MAX: usize = 64;
/// Name of a tag, in bytes.
pub const TAG_NAME_BYTES_MAX: usize = 128;
/// Value of a tag, in bytes.
pub const TAG_VALUE_BYTES_MAX: usize = 1024;
/// An open fragment is written as a part record once it is this old…
pub const PART_DURATION_MS: u32 = 2_000;
/// …or this large.
pub const PART_BYTES: u64 = 1 << 20;
/// A jump of the media time over this begins a run.
pub const TIME_JUMP_MS: i64 = 10_000;
/// A step of the server's clock over this begins a run.
pub const CLOCK_STEP_MS: i64 = 1_000;
/// A run that goes on within this of another's end, with the same config, continues it.
pub const CONTINUES_MS: i64 = 50;
