//! Tracks and their entries (RFC 9559 section 5.1.4), read from a body in memory.

use bytes::Bytes;
use vidar_core::limits::{CODEC_PRIVATE_BYTES_MAX, TRACK_COUNT_MAX};
use vidar_core::track::{AudioParams, Track, TrackKind, Trims, VideoParams};

use super::codec_id;
use super::ebml::{BodyError, Element, Elements, VintLimits};
use super::id;
use super::timing::{FrameDuration, Scale};
use crate::demux::DemuxErrorKind;

/// Longest prefix of frames that is put back: real ones are a start code or a sync word. Each of a block's laced
/// frames gets it, so a long one would make much of little.
const STRIPPED_BYTES_MAX: usize = 256;

/// A TrackEntry as it was declared.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TrackEntry {
    pub(super) number: u64,
    pub(super) kind: TrackKind,
    pub(super) codec_id: String,
    pub(super) codec_private: Bytes,
    pub(super) default_duration_ns: Option<u64>,
    pub(super) encoding: Encoding,
    pub(super) video: Option<VideoParams>,
    pub(super) audio: Option<AudioParams>,
    trims: Trims,
    language: String,
    name: String,
}

/// What was done to the frames (ContentEncodings).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Encoding {
    #[default]
    None,
    /// These bytes were taken off the front of every frame (ContentCompAlgo 3), and of the private data if so said.
    HeaderStripped { bytes: Bytes, private_too: bool },
    /// Compressed or encrypted: frames are kept as they are.
    Opaque,
}

/// The entries of a Tracks element. Errors and offsets count from the start of its body.
pub(super) fn parse_tracks(body: &[u8], limits: VintLimits) -> Result<Vec<TrackEntry>, BodyError> {
    let mut entries: Vec<TrackEntry> = Vec::new();
    for element in Elements::new(body, limits) {
        let element = element?;
        if element.id != id::TRACK_ENTRY {
            continue;
        }
        let within = |error: BodyError| error.within(&format!("TrackEntry[{}]", entries.len()), element.body_offset());
        if entries.len() == TRACK_COUNT_MAX {
            let detail = format!("more than {TRACK_COUNT_MAX} tracks");
            return Err(within(BodyError::of(DemuxErrorKind::TooLarge, 0, detail)));
        }
        let entry = TrackEntry::parse(element.body, limits).map_err(within)?;
        if entries.iter().any(|other| other.number == entry.number) {
            return Err(within(BodyError::new(0, format!("a second track of number {}", entry.number))));
        }
        entries.push(entry);
    }
    Ok(entries)
}

impl TrackEntry {
    fn parse(body: &[u8], limits: VintLimits) -> Result<Self, BodyError> {
        let mut entry = Self {
            number: 0,
            kind: TrackKind::Data,
            codec_id: String::new(),
            codec_private: Bytes::new(),
            default_duration_ns: None,
            encoding: Encoding::None,
            video: None,
            audio: None,
            trims: Trims::default(),
            language: String::new(),
            name: String::new(),
        };
        let mut bcp47 = None;
        for element in Elements::new(body, limits) {
            let element = element?;
            let within = |error: BodyError| error.within(&id::name(element.id), element.body_offset());
            match element.id {
                id::TRACK_NUMBER => entry.number = element.uint()?,
                id::TRACK_TYPE => entry.kind = kind(element.uint()?),
                id::CODEC_ID => entry.codec_id = element.text(),
                id::CODEC_PRIVATE => entry.codec_private = codec_private(&element).map_err(within)?,
                id::DEFAULT_DURATION => entry.default_duration_ns = Some(element.uint()?).filter(|ns| *ns > 0),
                id::CODEC_DELAY => entry.trims.codec_delay_ns = element.uint()?,
                id::SEEK_PRE_ROLL => entry.trims.seek_preroll_ns = element.uint()?,
                id::LANGUAGE => entry.language = element.text(),
                id::LANGUAGE_BCP47 => bcp47 = Some(element.text()),
                id::NAME => entry.name = element.text(),
                id::VIDEO => entry.video = Some(video(element.body, limits).map_err(within)?),
                id::AUDIO => entry.audio = Some(audio(element.body, limits).map_err(within)?),
                id::CONTENT_ENCODINGS => entry.encoding = encoding(element.body, limits).map_err(within)?,
                _ => {}
            }
        }
        if entry.number == 0 {
            return Err(BodyError::new(0, "expected a TrackNumber other than 0"));
        }
        if entry.codec_id.is_empty() {
            return Err(BodyError::new(0, "expected a CodecID"));
        }
        // RFC 9559 section 5.1.4.1.20: where this is, Language does not count.
        entry.language = bcp47.unwrap_or(entry.language);
        entry.restore_private();
        Ok(entry)
    }

    fn restore_private(&mut self) {
        if let Encoding::HeaderStripped { bytes, private_too: true } = &self.encoding
            && !self.codec_private.is_empty()
        {
            self.codec_private = [&bytes[..], &self.codec_private].concat().into();
        }
    }

    /// The track for the vocabulary.
    pub(super) fn to_track(&self, scale: Scale) -> Track {
        let timescale_hz = scale.timescale_hz();
        let mapped = codec_id::from_matroska(self);
        let default_duration_ticks = self
            .default_duration_ns
            .and_then(|ns| FrameDuration::from_ns(ns).ticks(1, timescale_hz))
            .and_then(|ticks| u32::try_from(ticks).ok())
            .filter(|ticks| *ticks > 0);
        Track {
            source_number: self.number,
            kind: self.kind,
            codec: mapped.codec,
            codec_id: self.codec_id.clone(),
            codec_private: mapped.codec_private,
            timescale_hz,
            framing: mapped.framing,
            in_band_parameter_sets: mapped.in_band_parameter_sets,
            video: self.video,
            audio: self.audio,
            default_duration_ticks,
            trims: self.trims,
            language: self.language.clone(),
            name: self.name.clone(),
        }
    }
}

fn kind(track_type: u64) -> TrackKind {
    match track_type {
        1 => TrackKind::Video,
        2 => TrackKind::Audio,
        17 => TrackKind::Subtitle,
        _ => TrackKind::Data,
    }
}

fn codec_private(element: &Element<'_>) -> Result<Bytes, BodyError> {
    let len = element.body.len();
    if len > CODEC_PRIVATE_BYTES_MAX {
        let detail = format!("{len} bytes of private data; at most {CODEC_PRIVATE_BYTES_MAX} are kept");
        return Err(BodyError::of(DemuxErrorKind::TooLarge, 0, detail));
    }
    Ok(Bytes::copy_from_slice(element.body))
}

fn video(body: &[u8], limits: VintLimits) -> Result<VideoParams, BodyError> {
    let (mut width, mut height) = (0_u64, 0_u64);
    let (mut crop_width, mut crop_height) = (0_u64, 0_u64);
    for element in Elements::new(body, limits) {
        let element = element?;
        match element.id {
            id::PIXEL_WIDTH => width = element.uint()?,
            id::PIXEL_HEIGHT => height = element.uint()?,
            id::PIXEL_CROP_LEFT | id::PIXEL_CROP_RIGHT => crop_width = crop_width.saturating_add(element.uint()?),
            id::PIXEL_CROP_TOP | id::PIXEL_CROP_BOTTOM => crop_height = crop_height.saturating_add(element.uint()?),
            _ => {}
        }
    }
    let cropped = |pixels: u64, crop| u32::try_from(pixels.saturating_sub(crop)).unwrap_or(0);
    Ok(VideoParams { width: cropped(width, crop_width), height: cropped(height, crop_height) })
}

fn audio(body: &[u8], limits: VintLimits) -> Result<AudioParams, BodyError> {
    // RFC 9559 sections 5.1.4.1.29.1 and .3: the defaults.
    let mut audio = AudioParams { sample_rate_hz: 8000, channels: 1, bits: 0 };
    for element in Elements::new(body, limits) {
        let element = element?;
        match element.id {
            // A float outside the range of u32 becomes its nearest bound; no number becomes 0.
            id::SAMPLING_FREQUENCY => audio.sample_rate_hz = element.float()?.round() as u32,
            id::CHANNELS => audio.channels = u16::try_from(element.uint()?).unwrap_or(0),
            id::BIT_DEPTH => audio.bits = u16::try_from(element.uint()?).unwrap_or(0),
            _ => {}
        }
    }
    Ok(audio)
}

/// Elements of one kind, with the offset of their bodies.
fn children(body: &[u8], limits: VintLimits, wanted: u32) -> Result<Vec<Element<'_>>, BodyError> {
    let wanted =
        |element: &Result<Element<'_>, BodyError>| element.as_ref().map_or(true, |element| element.id == wanted);
    Elements::new(body, limits).filter(wanted).collect()
}

fn encoding(body: &[u8], limits: VintLimits) -> Result<Encoding, BodyError> {
    let mut found = Vec::new();
    for element in children(body, limits, id::CONTENT_ENCODING)? {
        let within = |error: BodyError| error.within("ContentEncoding", element.body_offset());
        found.push(one_encoding(element.body, limits).map_err(within)?);
    }
    match found.pop() {
        None => Ok(Encoding::None),
        Some(one) if found.is_empty() => Ok(one),
        // One after the other: nobody does that.
        Some(_) => Ok(Encoding::Opaque),
    }
}

fn one_encoding(body: &[u8], limits: VintLimits) -> Result<Encoding, BodyError> {
    // RFC 9559 section 5.1.4.1.31: the defaults are compression of frames with zlib.
    let (mut scope, mut encoding_type, mut algorithm, mut settings) = (1, 0, 0, Bytes::new());
    for element in Elements::new(body, limits) {
        let element = element?;
        match element.id {
            id::CONTENT_ENCODING_SCOPE => scope = element.uint()?,
            id::CONTENT_ENCODING_TYPE => encoding_type = element.uint()?,
            id::CONTENT_COMPRESSION => {
                let within = |error: BodyError| error.within("ContentCompression", element.body_offset());
                for element in Elements::new(element.body, limits) {
                    let element = element.map_err(within)?;
                    match element.id {
                        id::CONTENT_COMP_ALGO => algorithm = element.uint().map_err(within)?,
                        id::CONTENT_COMP_SETTINGS => settings = Bytes::copy_from_slice(element.body),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let stripped = encoding_type == 0 && algorithm == 3 && settings.len() <= STRIPPED_BYTES_MAX && scope & 1 == 1;
    Ok(if stripped {
        Encoding::HeaderStripped { bytes: settings, private_too: scope & 2 != 0 }
    } else {
        Encoding::Opaque
    })
}
