//! `moov` of a fragmented file: the tracks, and the defaults of their fragments (ISO/IEC 14496-12 sections 8.2 to 8.8.3).

use bytes::Bytes;
use vidar_core::limits::TRACK_COUNT_MAX;
use vidar_core::time::ticks_to_ms_nearest;
use vidar_core::track::{Codec, NalFraming, StreamConfig, Track, TrackKind, Trims};

use super::boxes::{BoxReader, Within, kind_text};
use super::sample_entry::{self, Entry};
use crate::demux::{DemuxError, DemuxErrorKind};

/// What to do about a file that is not fragmented.
pub(super) const NOT_FRAGMENTED: &str = "the MP4 is not fragmented; \
    with ffmpeg, fragment it by `-movflags +frag_keyframe+empty_moov+default_base_moof`";

/// A `moov`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Movie {
    /// What the demuxer announces.
    pub(super) config: StreamConfig,
    /// Beside `config.tracks`.
    pub(super) tracks: Vec<MovieTrack>,
}

/// What a track's fragments need to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MovieTrack {
    pub(super) id: u32,
    /// In the order of `stsd`, numbered from 1.
    pub(super) entries: Vec<Entry>,
    pub(super) defaults: Defaults,
}

/// Defaults of a track's samples: `trex`, overridden by `tfhd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) description_index: u32,
    pub(super) duration: u32,
    pub(super) size: u32,
    pub(super) flags: u32,
}

/// Of a track without `trex`.
pub(super) const NO_DEFAULTS: Defaults = Defaults { description_index: 1, duration: 0, size: 0, flags: 0 };

/// A leading edit list: where the presentation starts, in movie ticks and in ticks of the track.
#[derive(Debug, Default)]
struct Edits {
    delay: u64,
    media_time: Option<i64>,
}

#[derive(Debug, Default)]
struct Trak {
    id: u32,
    kind: Option<TrackKind>,
    timescale_hz: u32,
    language: String,
    entries: Vec<Entry>,
    edits: Edits,
}

impl Movie {
    /// Reads the body of a `moov`.
    pub(super) fn parse(body: BoxReader<'_>) -> Result<Self, DemuxError> {
        let start = body.clone();
        let (mut movie_timescale_hz, mut traks, mut defaults) = (0, Vec::new(), Vec::new());
        body.each_box(|kind, mut body| match &kind {
            b"mvhd" => {
                let (version, _) = body.full_box()?;
                body.take(if version == 0 { 8 } else { 16 })?;
                movie_timescale_hz = body.u32()?;
                Ok(())
            }
            b"trak" => {
                let index = traks.len();
                if index == TRACK_COUNT_MAX {
                    let error = body.error(format!("more than {TRACK_COUNT_MAX} tracks"));
                    return Err(DemuxError { kind: DemuxErrorKind::TooLarge, ..error });
                }
                traks.push(Trak::parse(body).within(|| format!("trak[{index}]"))?);
                Ok(())
            }
            b"mvex" => parse_mvex(body, &mut defaults).within(|| "mvex".into()),
            _ => Ok(()),
        })?;
        if traks.is_empty() {
            return Err(DemuxError { kind: DemuxErrorKind::Unusable, ..start.error("no track") });
        }
        let mut movie = Self { config: StreamConfig::default(), tracks: Vec::with_capacity(traks.len()) };
        for (index, trak) in traks.into_iter().enumerate() {
            if movie.tracks.iter().any(|track| track.id == trak.id) {
                let error = start.error(format!("a second track of ID {}", trak.id));
                return Err(error.within(|| format!("trak[{index}]")));
            }
            let defaults = defaults.iter().find(|(id, _)| *id == trak.id).map_or(NO_DEFAULTS, |(_, found)| *found);
            movie.config.tracks.push(trak.track(movie_timescale_hz));
            movie.tracks.push(MovieTrack { id: trak.id, entries: trak.entries, defaults });
        }
        Ok(movie)
    }
}

/// Puts what a sample entry says into a track.
pub(super) fn apply_entry(track: &mut Track, entry: &Entry) {
    track.codec = entry.codec;
    track.codec_id.clone_from(&entry.codec_id);
    track.codec_private = entry.codec_private.clone();
    track.framing = entry.framing;
    track.in_band_parameter_sets = entry.in_band_parameter_sets;
    track.video = entry.video;
    track.audio = entry.audio;
}

impl Trak {
    fn parse(body: BoxReader<'_>) -> Result<Self, DemuxError> {
        let start = body.clone();
        let mut trak = Self::default();
        let (mut stbl, mut has_id) = (None, false);
        body.each_box(|kind, mut body| match &kind {
            b"tkhd" => {
                let (version, _) = body.full_box().within(|| "tkhd".into())?;
                body.take(if version == 0 { 8 } else { 16 }).within(|| "tkhd".into())?;
                trak.id = body.u32().within(|| "tkhd".into())?;
                has_id = true;
                Ok(())
            }
            b"edts" => body
                .each_box(|kind, body| match &kind {
                    b"elst" => parse_elst(body, &mut trak.edits).within(|| "elst".into()),
                    _ => Ok(()),
                })
                .within(|| "edts".into()),
            b"mdia" => trak.parse_mdia(body, &mut stbl).within(|| "mdia".into()),
            _ => Ok(()),
        })?;
        if !has_id {
            return Err(start.error("no tkhd"));
        }
        if trak.timescale_hz == 0 {
            return Err(start.error("no timescale above 0").within(|| "mdia/mdhd".into()));
        }
        if let Some(stbl) = stbl {
            // After the handler, which may stand behind it.
            trak.parse_stbl(stbl).within(|| "mdia/minf/stbl".into())?;
        }
        if trak.entries.is_empty() {
            return Err(start.error("no sample entry").within(|| "mdia/minf/stbl/stsd".into()));
        }
        Ok(trak)
    }

    fn parse_mdia<'a>(&mut self, body: BoxReader<'a>, stbl: &mut Option<BoxReader<'a>>) -> Result<(), DemuxError> {
        body.each_box(|kind, mut body| match &kind {
            b"mdhd" => self.parse_mdhd(body).within(|| "mdhd".into()),
            b"hdlr" => {
                body.take(8).within(|| "hdlr".into())?;
                let handler = body.array().within(|| "hdlr".into())?;
                self.kind = Some(match &handler {
                    b"vide" => TrackKind::Video,
                    b"soun" => TrackKind::Audio,
                    b"text" | b"subt" | b"sbtl" | b"subp" | b"clcp" => TrackKind::Subtitle,
                    _ => TrackKind::Data,
                });
                Ok(())
            }
            b"minf" => body
                .each_box(|kind, body| {
                    if kind == *b"stbl" {
                        *stbl = Some(body);
                    }
                    Ok(())
                })
                .within(|| "minf".into()),
            _ => Ok(()),
        })
    }

    fn parse_mdhd(&mut self, mut body: BoxReader<'_>) -> Result<(), DemuxError> {
        let (version, _) = body.full_box()?;
        body.take(if version == 0 { 8 } else { 16 })?;
        self.timescale_hz = body.u32()?;
        body.u32_or_u64(version)?;
        // Three letters of 5 bits, each less 0x60.
        let packed = body.u16()?;
        let letters = [10, 5, 0].map(|shift| ((packed >> shift & 0x1f) as u8) + 0x60);
        if letters.iter().all(u8::is_ascii_lowercase) {
            self.language = letters.iter().map(|letter| char::from(*letter)).collect();
        }
        Ok(())
    }

    fn parse_stbl(&mut self, body: BoxReader<'_>) -> Result<(), DemuxError> {
        body.each_box(|kind, mut body| match &kind {
            b"stsd" => self.parse_stsd(body).within(|| "stsd".into()),
            b"stts" => {
                body.full_box()?;
                let plain = DemuxError { kind: DemuxErrorKind::Unusable, ..body.error(NOT_FRAGMENTED) };
                if body.u32()? == 0 { Ok(()) } else { Err(plain.within(|| "stts".into())) }
            }
            _ => Ok(()),
        })
    }

    fn parse_stsd(&mut self, mut body: BoxReader<'_>) -> Result<(), DemuxError> {
        let (version, _) = body.full_box()?;
        body.u32()?;
        let kind = self.kind.unwrap_or(TrackKind::Data);
        while let Some((fourcc, entry)) = body.next_box()? {
            self.entries.push(sample_entry::decode(fourcc, entry, kind, version).within(|| kind_text(fourcc))?);
        }
        Ok(())
    }

    fn track(&self, movie_timescale_hz: u32) -> Track {
        let delay = i64::try_from(self.edits.delay).unwrap_or(i64::MAX);
        let mut track = Track {
            source_number: self.id.into(),
            kind: self.kind.unwrap_or(TrackKind::Data),
            codec: Codec::Opaque,
            codec_id: String::new(),
            codec_private: Bytes::new(),
            timescale_hz: self.timescale_hz,
            framing: NalFraming::None,
            in_band_parameter_sets: false,
            video: None,
            audio: None,
            default_duration_ticks: None,
            trims: Trims {
                edit_start_ticks: self.edits.media_time.unwrap_or(0),
                edit_delay_ms: ticks_to_ms_nearest(delay, movie_timescale_hz),
                ..Trims::default()
            },
            language: self.language.clone(),
            name: String::new(),
        };
        if let Some(entry) = self.entries.first() {
            apply_entry(&mut track, entry);
        }
        track
    }
}

/// Empty edits at the start, then the media time of the first that is not empty (section 8.6.6). Later ones are not
/// followed.
fn parse_elst(mut body: BoxReader<'_>, edits: &mut Edits) -> Result<(), DemuxError> {
    let (version, _) = body.full_box()?;
    let count = body.u32()?;
    for _ in 0..count {
        let duration = body.u32_or_u64(version)?;
        let media_time = if version == 0 { i64::from(body.u32()? as i32) } else { body.u64()? as i64 };
        body.u32()?;
        if media_time != -1 {
            edits.media_time = Some(media_time);
            break;
        }
        edits.delay = edits.delay.saturating_add(duration);
    }
    Ok(())
}

fn parse_mvex(body: BoxReader<'_>, defaults: &mut Vec<(u32, Defaults)>) -> Result<(), DemuxError> {
    body.each_box(|kind, mut body| {
        if kind != *b"trex" {
            return Ok(());
        }
        let mut word = || body.u32().within(|| "trex".into());
        word()?;
        let id = word()?;
        let (description_index, duration, size, flags) = (word()?, word()?, word()?, word()?);
        defaults.push((id, Defaults { description_index, duration, size, flags }));
        Ok(())
    })
}
