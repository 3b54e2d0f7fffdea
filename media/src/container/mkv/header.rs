//! What a written document begins with: EBML header, Segment, Info, Tracks.

use bytes::Bytes;
use vidar_core::time::UnixMs;
use vidar_core::track::{AudioParams, StreamConfig, Track, TrackKind, VideoParams};

use super::codec_id::{Named, from_matroska, to_matroska};
use super::document::date_ns;
use super::ebml::{write_element, write_float, write_id, write_master, write_uint};
use super::id;
use super::mux::track_numbers;
use super::original::{Original, OriginalEntry};
use super::timing::Timing;

/// Eight bytes of unknown size.
pub(super) const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const APPLICATION: &[u8] = b"vidar";

/// What a header says besides its tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderOptions {
    /// When a timestamp of 0 was (DateUTC). Left out if it is over 292 years from 2001.
    pub date: Option<UnixMs>,
    /// In units of the timing.
    pub duration: Option<i64>,
    /// Bytes that follow the header (Clusters, tags); else the Segment is of unknown size. The length of the header
    /// does not depend on it.
    pub len_after_bytes: Option<u64>,
}

/// The header of a document with these tracks, up to the first Cluster. The same input gives the same bytes.
///
/// A track of a Matroska source is declared as it was there, in all that still holds. Tracks that Matroska has no
/// name for are left out ([`can_carry`]).
#[must_use]
pub fn header(config: &StreamConfig, timing: Timing, options: &HeaderOptions) -> Bytes {
    let mut out = Vec::new();
    write_master(&mut out, id::EBML, ebml_header);
    let mut children = Vec::new();
    write_master(&mut children, id::INFO, |out| info(out, timing, options));
    let original = Original::parse(&config.matroska_header);
    write_master(&mut children, id::TRACKS, |out| {
        for (track, number) in config.tracks.iter().zip(track_numbers(config)) {
            let original = original.as_ref().filter(|_| number == track.source_number);
            let original = original.and_then(|original| original.entry(number));
            if let Some(named) = to_matroska(track) {
                track_entry(out, track, number, &named, original);
            }
        }
    });
    write_id(&mut out, id::SEGMENT);
    let len = options.len_after_bytes.and_then(|len| len.checked_add(children.len() as u64));
    let len = len.filter(|len| *len < (1 << 56) - 1).map(|len| (len | 1 << 56).to_be_bytes());
    out.extend_from_slice(&len.unwrap_or(UNKNOWN_SIZE));
    out.extend_from_slice(&children);
    out.into()
}

/// True if Matroska has a name for the track's codec: all that came from there, and all but some PCM and what is opaque
/// of other sources.
#[must_use]
pub fn can_carry(track: &Track) -> bool {
    to_matroska(track).is_some()
}

pub(super) fn ebml_header(out: &mut Vec<u8>) {
    write_uint(out, id::EBML_VERSION, 1);
    write_uint(out, id::EBML_READ_VERSION, 1);
    write_uint(out, id::EBML_MAX_ID_LENGTH, 4);
    write_uint(out, id::EBML_MAX_SIZE_LENGTH, 8);
    write_element(out, id::DOC_TYPE, b"matroska");
    write_uint(out, id::DOC_TYPE_VERSION, 4);
    write_uint(out, id::DOC_TYPE_READ_VERSION, 2);
}

fn info(out: &mut Vec<u8>, timing: Timing, options: &HeaderOptions) {
    write_uint(out, id::TIMESTAMP_SCALE, timing.scale_ns());
    write_element(out, id::MUXING_APP, APPLICATION);
    write_element(out, id::WRITING_APP, APPLICATION);
    if let Some(duration) = options.duration.filter(|duration| *duration > 0) {
        write_float(out, id::DURATION, duration as f64);
    }
    if let Some(ns) = options.date.and_then(date_ns) {
        write_element(out, id::DATE_UTC, &ns.to_be_bytes());
    }
}

fn track_entry(out: &mut Vec<u8>, track: &Track, number: u64, named: &Named, original: Option<OriginalEntry<'_>>) {
    write_master(out, id::TRACK_ENTRY, |out| match original {
        Some(original) if original.entry.codec_id == named.codec_id => copy_entry(out, track, named, original),
        _ => {
            new_entry(out, track, number);
            write_element(out, id::CODEC_ID, named.codec_id.as_bytes());
            private(out, &named.codec_private);
        }
    });
}

fn private(out: &mut Vec<u8>, codec_private: &[u8]) {
    if !codec_private.is_empty() {
        write_element(out, id::CODEC_PRIVATE, codec_private);
    }
}

/// The entry as it was, but for what changed since.
fn copy_entry(out: &mut Vec<u8>, track: &Track, named: &Named, original: OriginalEntry<'_>) {
    let entry = original.entry;
    let same_private = from_matroska(entry).codec_private == track.codec_private;
    let same_picture = entry.video == track.video;
    for (element, bytes) in original.elements() {
        match element.id {
            // Whole again if its header was stripped.
            id::CODEC_PRIVATE if same_private => private(out, &entry.codec_private),
            id::CODEC_PRIVATE => {}
            id::VIDEO if !same_picture => {}
            _ => out.extend_from_slice(bytes),
        }
    }
    if !same_private {
        private(out, &named.codec_private);
    }
    if let Some(params) = track.video.filter(|_| !same_picture) {
        video(out, params);
    }
}

fn new_entry(out: &mut Vec<u8>, track: &Track, number: u64) {
    write_uint(out, id::TRACK_NUMBER, number);
    write_uint(out, id::TRACK_UID, number);
    write_uint(out, id::TRACK_TYPE, track_type(track.kind));
    write_uint(out, id::FLAG_LACING, 0);
    language(out, &track.language);
    if !track.name.is_empty() {
        write_element(out, id::NAME, track.name.as_bytes());
    }
    let nanoseconds = |ticks: u32| u64::from(ticks) * 1_000_000_000 / u64::from(track.timescale_hz.max(1));
    for (id, value) in [
        (id::DEFAULT_DURATION, track.default_duration_ticks.map(nanoseconds)),
        (id::CODEC_DELAY, Some(track.trims.codec_delay_ns)),
        (id::SEEK_PRE_ROLL, Some(track.trims.seek_preroll_ns)),
    ] {
        if let Some(value) = value.filter(|value| *value > 0) {
            write_uint(out, id, value);
        }
    }
    if let Some(params) = track.video {
        video(out, params);
    }
    if let Some(params) = track.audio {
        audio(out, params);
    }
}

fn track_type(kind: TrackKind) -> u64 {
    match kind {
        TrackKind::Video => 1,
        TrackKind::Audio => 2,
        TrackKind::Subtitle => 17,
        // Metadata.
        TrackKind::Data => 33,
    }
}

/// Three letters are ISO 639-2, the rest BCP 47. Nothing would mean English.
fn language(out: &mut Vec<u8>, language: &str) {
    let three_letters = language.len() == 3 && language.bytes().all(|byte| byte.is_ascii_lowercase());
    write_element(out, id::LANGUAGE, if three_letters { language.as_bytes() } else { b"und" });
    if !three_letters && !language.is_empty() {
        write_element(out, id::LANGUAGE_BCP47, language.as_bytes());
    }
}

fn video(out: &mut Vec<u8>, params: VideoParams) {
    write_master(out, id::VIDEO, |out| {
        write_uint(out, id::PIXEL_WIDTH, params.width.into());
        write_uint(out, id::PIXEL_HEIGHT, params.height.into());
    });
}

fn audio(out: &mut Vec<u8>, params: AudioParams) {
    write_master(out, id::AUDIO, |out| {
        if params.sample_rate_hz > 0 {
            write_float(out, id::SAMPLING_FREQUENCY, params.sample_rate_hz.into());
        }
        if params.channels > 0 {
            write_uint(out, id::CHANNELS, params.channels.into());
        }
        if params.bits > 0 {
            write_uint(out, id::BIT_DEPTH, params.bits.into());
        }
    });
}
