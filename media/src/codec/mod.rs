//! Codecs: parameter sets, what a track is and what a sample is. A file each.
//!
//! Nothing is decoded here: headers are read for what storing, cutting and muxing need. Every parser takes any bytes
//! and answers with a [`CodecError`] at worst.

pub mod aac;
pub mod av1;
mod bits;
pub mod g711;
pub mod h264;
mod h264_slice;
pub mod h265;
pub mod mp3;
pub mod nal;
pub mod opus;
pub mod picture_order;
pub mod vp8;
pub mod vp9;

#[cfg(test)]
mod codec_tests;

use bytes::Bytes;
use vidar_core::sample::SyncKind;
use vidar_core::track::{AudioParams, Codec, NalFraming, Track, TrackKind, Trims, VideoParams};

/// A header or parameter set does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct CodecError {
    /// What was wrong.
    pub detail: String,
}

impl CodecError {
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}

/// What the bytes of one sample show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Whether decoding can start here. None if the codec does not show it, or the bytes do not read.
    ///
    /// `Sync`: IDR pictures, H.264 intra pictures with a recovery point at once, H.265 IRAP pictures (IDR, BLA, CRA),
    /// AV1, VP8 and VP9 key frames, all sound. `Leading`: H.265 RASL and RADL pictures; H.264 does not show them.
    pub sync: Option<SyncKind>,
    /// Ranges (offset, length with the length field), in order, of parameter sets equal to ones of the track's private
    /// data. Only where all parameter sets of the sample are (otherwise the sample needs each of its own), and only
    /// for samples with length fields.
    pub drops: Vec<(u32, u32)>,
    /// The sample's parameter sets differ from the track's private data: that which now holds, with the length size of
    /// the samples. [`with_private`] makes the new track; `drops` against it: inspect again.
    pub new_private: Option<Bytes>,
}

/// Most pictures that may precede one in decode order and follow it in presentation order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReorderDepth {
    /// In pictures, at most 16.
    pub depth: u8,
    /// The headers say so. Else it is only an upper bound, from the level.
    pub exact: bool,
}

impl ReorderDepth {
    /// Presentation order is decode order.
    pub const NONE: Self = Self { depth: 0, exact: true };
}

/// What a fragment keeps of a sample beside its bytes. Only NAL units behind lengths are looked into: those of Annex B have
/// no place in MP4.
#[must_use]
pub fn inspect_stored(track: &Track, data: &[u8]) -> Inspection {
    let has_nals =
        matches!(track.codec, Codec::H264 | Codec::H265) && matches!(track.framing, NalFraming::LengthPrefixed(_));
    if has_nals { inspect(track, data) } else { Inspection::default() }
}

/// What the bytes of one sample show, read with its track's config. Cheap for codecs without NAL units.
#[must_use]
pub fn inspect(track: &Track, data: &[u8]) -> Inspection {
    let keyframe = |key: Option<bool>| Inspection {
        sync: key.map(|key| if key { SyncKind::Sync } else { SyncKind::None }),
        ..Inspection::default()
    };
    match track.codec {
        Codec::H264 | Codec::H265 => inspect_nals(track, data),
        Codec::Av1 => av1::inspect(track, data),
        Codec::Vp8 => keyframe(vp8::is_keyframe(data)),
        Codec::Vp9 => keyframe(vp9::is_keyframe(data)),
        _ if track.kind == TrackKind::Audio => keyframe(Some(true)),
        _ => Inspection::default(),
    }
}

/// How far pictures of the track are out of order. None if the codec or its headers do not say. Sound, AV1, VP8 and VP9
/// never are.
#[must_use]
pub fn reorder_depth(track: &Track) -> Option<ReorderDepth> {
    let depths: Vec<ReorderDepth> = match track.codec {
        Codec::H264 => {
            let sps = h264::parse_avcc(&track.codec_private).ok()?.sps;
            sps.iter().filter_map(|sps| Some(h264::parse_sps(sps).ok()?.reorder)).collect()
        }
        Codec::H265 => {
            let sps = h265::parse_hvcc(&track.codec_private).ok()?.sps;
            sps.iter().filter_map(|sps| Some(h265::parse_sps(sps).ok()?.reorder)).collect()
        }
        Codec::Av1 | Codec::Vp8 | Codec::Vp9 => vec![ReorderDepth::NONE],
        _ if track.kind == TrackKind::Audio => vec![ReorderDepth::NONE],
        _ => return None,
    };
    depths.into_iter().reduce(|a, b| ReorderDepth { depth: a.depth.max(b.depth), exact: a.exact && b.exact })
}

/// The track with other private data, and the picture size that it says.
#[must_use]
pub fn with_private(track: &Track, codec_private: Bytes) -> Track {
    let mut track = Track { codec_private, ..track.clone() };
    track.video = private_size(track.codec, &track.codec_private).or(track.video);
    track
}

/// Picture size as the private data of H.264, H.265 and AV1 says it.
#[must_use]
pub fn private_size(codec: Codec, codec_private: &[u8]) -> Option<VideoParams> {
    let (width, height) = match codec {
        Codec::H264 => {
            let sps = h264::parse_sps(h264::parse_avcc(codec_private).ok()?.sps.first()?).ok()?;
            (sps.width, sps.height)
        }
        Codec::H265 => {
            let sps = h265::parse_sps(h265::parse_hvcc(codec_private).ok()?.sps.first()?).ok()?;
            (sps.width, sps.height)
        }
        Codec::Av1 => {
            let header = av1::private_sequence_header(codec_private)?;
            (header.width, header.height)
        }
        _ => return None,
    };
    Some(VideoParams { width, height })
}

/// A NAL unit without padding, and where it stands, with padding and length field.
struct Placed<'a> {
    offset: usize,
    len: usize,
    nal: &'a [u8],
}

/// The NAL units of a sample, up to where it no longer reads.
fn placed_nals(framing: NalFraming, data: &[u8]) -> Vec<Placed<'_>> {
    match framing {
        NalFraming::None => Vec::new(),
        NalFraming::LengthPrefixed(size) => nal::iter_length_prefixed(data, size)
            .map_while(Result::ok)
            .map(|(offset, nal)| Placed { offset, len: nal.len() + usize::from(size), nal: nal::trim(nal) })
            .collect(),
        NalFraming::AnnexB => {
            let mut nals = Vec::new();
            let mut next = nal::find_start_code(data, 0);
            while let Some(offset) = next {
                next = nal::find_start_code(data, offset + 3);
                let end = next.unwrap_or(data.len());
                nals.push(Placed { offset, len: end - offset, nal: nal::trim(&data[offset + 3..end]) });
            }
            nals
        }
    }
}

fn inspect_nals(track: &Track, data: &[u8]) -> Inspection {
    let nals = placed_nals(track.framing, data);
    if nals.iter().all(|placed| placed.nal.is_empty()) {
        return Inspection::default();
    }
    let h265 = track.codec == Codec::H265;
    let units = nals.iter().map(|placed| placed.nal);
    let sync = if h265 { h265::sync(units) } else { h264::sync(units) };
    let set_id = if h265 { h265::parameter_set_id } else { h264::parameter_set_id };
    let sets: Vec<&Placed<'_>> = nals.iter().filter(|placed| set_id(placed.nal).is_some()).collect();
    let mut inspection = Inspection { sync: Some(sync), ..Inspection::default() };
    if sets.is_empty() {
        return inspection;
    }
    let config = private_sets(track.codec, &track.codec_private);
    let known = |nal: &[u8]| config.iter().any(|set| set == nal);
    if sets.iter().all(|placed| known(placed.nal)) {
        if let NalFraming::LengthPrefixed(_) = track.framing {
            inspection.drops = sets.iter().filter_map(|placed| range(placed)).collect();
        }
    } else {
        inspection.new_private = merged_private(track, &config, sets.iter().map(|placed| placed.nal));
    }
    inspection
}

fn range(placed: &Placed<'_>) -> Option<(u32, u32)> {
    Some((u32::try_from(placed.offset).ok()?, u32::try_from(placed.len).ok()?))
}

/// All parameter sets of private data, without padding; none if it does not read.
fn private_sets(codec: Codec, codec_private: &[u8]) -> Vec<Bytes> {
    let sets = match codec {
        Codec::H264 => h264::parse_avcc(codec_private).map(|avcc| [avcc.sps, avcc.pps].concat()),
        Codec::H265 => h265::parse_hvcc(codec_private).map(|hvcc| [hvcc.vps, hvcc.sps, hvcc.pps].concat()),
        _ => return Vec::new(),
    };
    sets.unwrap_or_default().into_iter().map(|set| set.slice(..nal::trim(&set).len())).collect()
}

/// Private data of the config's sets, each replaced by the sample's of the same kind and id. None if nothing changed
/// in the end, or the sets make no private data.
fn merged_private<'a>(track: &Track, config: &[Bytes], sets: impl Iterator<Item = &'a [u8]>) -> Option<Bytes> {
    let h265 = track.codec == Codec::H265;
    let set_id = if h265 { h265::parameter_set_id } else { h264::parameter_set_id };
    let mut merged = config.to_vec();
    for set in sets {
        let set = Bytes::copy_from_slice(set);
        let id = set_id(&set);
        match merged.iter_mut().find(|old| set_id(old) == id) {
            Some(old) => *old = set,
            None => merged.push(set),
        }
    }
    if merged == config {
        return None;
    }
    let length_size = if let NalFraming::LengthPrefixed(size) = track.framing { size } else { 4 };
    let of_type = |kind: u8| -> Vec<Bytes> {
        merged.iter().filter(|set| set_id(set).is_some_and(|(set_kind, _)| set_kind == kind)).cloned().collect()
    };
    if h265 {
        use h265::nal_type::{PPS, SPS, VPS};
        h265::hvcc_with(&of_type(VPS), &of_type(SPS), &of_type(PPS), length_size).ok()
    } else {
        use h264::nal_type::{PPS, SPS};
        h264::avcc_with(&of_type(SPS), &of_type(PPS), length_size).ok()
    }
}

/// Frames in seconds, reduced. None if it is no rate.
fn frame_rate(frames: u64, seconds: u64) -> Option<(u32, u32)> {
    let (mut a, mut b) = (frames, seconds);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let reduced = |value: u64| u32::try_from(value.checked_div(a)?).ok().filter(|value| *value > 0);
    Some((reduced(frames)?, reduced(seconds)?))
}

/// Takes `count` byte strings off the front, each behind its length in 2 bytes.
fn take_sets(rest: &mut &[u8], count: usize) -> Result<Vec<Bytes>, CodecError> {
    let mut sets = Vec::new();
    for _ in 0..count {
        let set = rest.split_at_checked(2).and_then(|(field, tail)| {
            let (set, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(field.try_into().ok()?)))?;
            *rest = tail;
            Some(set)
        });
        sets.push(Bytes::copy_from_slice(set.ok_or_else(|| CodecError::new("private data ends within its sets"))?));
    }
    Ok(sets)
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, CodecError> {
    let (first, tail) = rest.split_first().ok_or_else(|| CodecError::new("private data ends before a count"))?;
    *rest = tail;
    Ok(*first)
}

/// A track without anything particular.
pub(crate) fn plain_track(
    kind: TrackKind,
    codec: Codec,
    codec_id: &str,
    source_number: u64,
    timescale_hz: u32,
) -> Track {
    Track {
        source_number,
        kind,
        codec,
        codec_id: codec_id.to_owned(),
        codec_private: Bytes::new(),
        timescale_hz: timescale_hz.max(1),
        framing: NalFraming::None,
        in_band_parameter_sets: false,
        video: None,
        audio: None,
        default_duration_ticks: None,
        trims: Trims::default(),
        language: String::new(),
        name: String::new(),
    }
}

/// A video track of which only the codec is known.
pub(crate) fn plain_video(codec: Codec) -> Track {
    plain_track(TrackKind::Video, codec, codec.name(), 1, 90_000)
}

/// A track of NAL units behind lengths of 4 bytes.
fn video_track(codec: Codec, codec_private: Bytes, size: VideoParams, source_number: u64, timescale_hz: u32) -> Track {
    let codec_id = if codec == Codec::H265 { "H265" } else { "H264" };
    Track {
        codec_private,
        framing: NalFraming::LengthPrefixed(4),
        in_band_parameter_sets: true,
        video: Some(size),
        ..plain_track(TrackKind::Video, codec, codec_id, source_number, timescale_hz)
    }
}

fn audio_track(codec: Codec, codec_id: &str, audio: AudioParams, source_number: u64, timescale_hz: u32) -> Track {
    Track { audio: Some(audio), ..plain_track(TrackKind::Audio, codec, codec_id, source_number, timescale_hz) }
}
