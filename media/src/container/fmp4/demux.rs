//! Fragmented MP4 and CMAF in.
//!
//! ```text
//! [ftyp] moov { [styp] [prft] moof mdat … }      sidx, mfra, emsg, free, uuid …: passed over
//! ```
//! `moov` and `moof` are read whole, media is not: a sample is given out once its last byte has come, in the order of the
//! file. Times are decode time plus composition offset, as written: edit lists are announced as
//! [`Trims`](vidar_core::track::Trims) and not applied.
//!
//! - A track without `tfdt` goes on where its fragment before ended.
//! - A `moov` equal to the one before is a repetition. A different one is a discontinuity and a new config.
//! - A track whose sample entry is not known (encrypted ones too) is opaque; its private data is the body of the entry.
//!
//! ISO/IEC 14496-12:2022, 23000-19 (CMAF). Not here: plain MP4, which is refused with advice.

use std::collections::VecDeque;

use bytes::Bytes;
use vidar_core::limits::INIT_BYTES_MAX;
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;

use super::boxes::{BoxReader, FourCc, Within, kind_text, malformed};
use super::input::Input;
use super::moof::{MOOF_BYTES_MAX, Moof, Run, RunSample};
use super::movie::{Movie, NOT_FRAGMENTED, apply_entry};
use crate::demux::{Demux, DemuxError, DemuxErrorKind, Event, PassedOver, RawSample};

/// Largest `prft` there is.
const PRFT_BYTES_MAX: usize = 64;
/// Seconds from 1900, where NTP begins, to 1970.
const NTP_TO_UNIX_S: i64 = 2_208_988_800;

/// Takes a fragmented MP4 apart.
#[derive(Debug, Default)]
pub struct Demuxer {
    input: Input,
    state: State,
    /// Boxes at the top level that were begun.
    box_count: u64,
    /// Of these, event messages.
    emsg_count: u64,
    movie: Option<Movie>,
    /// The tracks as announced last, with the sample entries (numbered from 1) that they use.
    config: StreamConfig,
    description_indexes: Vec<u32>,
    moof_count: u64,
    next_decode_ticks: Vec<i64>,
    /// Runs of the last `moof` whose data was not read, in the order of their data.
    runs: VecDeque<Run>,
    /// The sample of the first run whose bytes are awaited.
    sample: Option<RunSample>,
}

/// Where the parser stands.
#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// Before a box.
    #[default]
    Start,
    /// Behind the first 8 bytes of a box whose size has 64 bits.
    LargeSize { kind: FourCc, start: u64 },
    /// In a box that is read whole.
    Collect { kind: FourCc, start: u64, len: usize },
    /// In a box that is passed over, or in media. `end` is None if it ends with the input.
    Pass { kind: FourCc, start: u64, end: Option<u64> },
}

impl Demux for Demuxer {
    fn push(&mut self, input: Bytes, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        self.input.push(input);
        while self.step(events)? {}
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        self.input.available() + self.runs.iter().map(Run::held_bytes).sum::<usize>()
    }

    fn passed_over(&self) -> PassedOver {
        PassedOver { event_messages: self.emsg_count, ..PassedOver::default() }
    }

    fn finish(&mut self, _events: &mut Vec<Event>) -> Result<(), DemuxError> {
        let end = self.input.offset() + self.input.available() as u64;
        let truncated = |kind: FourCc, start: u64, what: &str| DemuxError {
            kind: DemuxErrorKind::Truncated,
            offset: start,
            path: kind_text(kind),
            detail: format!("the input ends at byte {end}, {what}"),
        };
        match self.state {
            State::Start if self.input.available() > 0 => Err(DemuxError {
                kind: DemuxErrorKind::Truncated,
                offset: self.input.offset(),
                path: "box".into(),
                detail: format!("the input ends at byte {end}, inside the header of a box"),
            }),
            State::LargeSize { kind, start } => Err(truncated(kind, start, "inside the header of a box")),
            State::Collect { kind, start, len } => {
                Err(truncated(kind, start, &format!("inside a box with a body of {len} bytes")))
            }
            State::Pass { kind, start, end: Some(box_end) } => {
                Err(truncated(kind, start, &format!("inside a box that ends at byte {box_end}")))
            }
            State::Start | State::Pass { end: None, .. } => match self.runs.front() {
                Some(run) => {
                    let error = run.error(format!("the input ends at byte {end}, before its samples do"));
                    Err(DemuxError { kind: DemuxErrorKind::Truncated, ..self.in_moof(error) })
                }
                None if self.movie.is_none() => Err(DemuxError {
                    kind: DemuxErrorKind::Unusable,
                    offset: end,
                    path: "moov".into(),
                    detail: "no moov in the input".into(),
                }),
                None => Ok(()),
            },
        }
    }
}

impl Demuxer {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on by one element. False if bytes are missing.
    fn step(&mut self, events: &mut Vec<Event>) -> Result<bool, DemuxError> {
        match self.state {
            State::Start => {
                let start = self.input.offset();
                let Some(header) = self.input.take(8) else { return Ok(false) };
                let mut header = BoxReader::new(&header, start);
                let (size, kind) = (header.u32()?, header.array()?);
                match size {
                    0 => self.begin(kind, start, None)?,
                    1 => self.state = State::LargeSize { kind, start },
                    _ => self.begin(kind, start, Some(size.into()))?,
                }
            }
            State::LargeSize { kind, start } => {
                let Some(size) = self.input.take(8) else { return Ok(false) };
                let size = BoxReader::new(&size, start + 8).u64()?;
                self.begin(kind, start, Some(size))?;
            }
            State::Collect { kind, start, len } => {
                let offset = self.input.offset();
                let Some(body) = self.input.take(len) else { return Ok(false) };
                self.state = State::Start;
                self.collected(kind, start, &body, offset, events)?;
            }
            State::Pass { kind, end, .. } => {
                if kind == *b"mdat" && !self.read_samples(events) {
                    return Ok(false);
                }
                let left = end.map_or(u64::MAX, |end| end - self.input.offset());
                if self.input.skip(left) < left {
                    return Ok(false);
                }
                self.state = State::Start;
            }
        }
        Ok(true)
    }

    /// Begins the box at `start` of `size` bytes, whose header has been read. No size: it ends with the input.
    fn begin(&mut self, kind: FourCc, start: u64, size: Option<u64>) -> Result<(), DemuxError> {
        let fault = |detail: String| malformed(start, detail).within(|| kind_text(kind));
        let offset = self.input.offset();
        let Some(len) = size.map(|size| size.checked_sub(offset - start)).unwrap_or(Some(u64::MAX)) else {
            return Err(fault(format!("a size of {} bytes", size.unwrap_or(0))));
        };
        let end = match size {
            Some(_) => Some(offset.checked_add(len).ok_or_else(|| fault("it ends beyond 64 bits".into()))?),
            None => None,
        };
        self.check_kind(kind, start)?;
        self.box_count += 1;
        self.emsg_count += u64::from(kind == *b"emsg");
        let len_max = match &kind {
            b"moov" => INIT_BYTES_MAX,
            b"moof" => MOOF_BYTES_MAX,
            b"prft" if len <= PRFT_BYTES_MAX as u64 => PRFT_BYTES_MAX,
            _ => {
                self.state = State::Pass { kind, start, end };
                return if kind == *b"mdat" { self.check_runs(start, end) } else { Ok(()) };
            }
        };
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= len_max) else {
            let Some(size) = size else { return Err(fault("a size of 0, which only media may have".into())) };
            let detail = format!("{size} bytes, the limit is {len_max}");
            return Err(DemuxError { kind: DemuxErrorKind::TooLarge, ..fault(detail) });
        };
        self.state = State::Collect { kind, start, len };
        Ok(())
    }

    /// Whether such a box may stand here.
    fn check_kind(&self, kind: FourCc, start: u64) -> Result<(), DemuxError> {
        let fault = |detail: &str| malformed(start, detail).within(|| kind_text(kind));
        let known = matches!(
            &kind,
            b"ftyp"
                | b"styp"
                | b"moov"
                | b"moof"
                | b"mdat"
                | b"prft"
                | b"sidx"
                | b"ssix"
                | b"emsg"
                | b"mfra"
                | b"free"
                | b"skip"
                | b"uuid"
                | b"wide"
                | b"meta"
                | b"pdin"
                | b"udta"
        );
        if self.box_count == 0 && !known {
            return Err(fault("not an ISO base media file: it begins with no known box"));
        }
        if !kind.iter().all(|byte| matches!(byte, 0x20..=0x7e | 0xa9)) {
            return Err(fault("no box type, expected four printable characters"));
        }
        match (&kind, &self.movie) {
            (b"mdat", None) => Err(DemuxError {
                kind: DemuxErrorKind::Unusable,
                ..fault(&format!("media before any moov: {NOT_FRAGMENTED}"))
            }),
            (b"moof", None) => Err(fault("a movie fragment before any moov")),
            (b"moof" | b"moov", _) if !self.runs.is_empty() => {
                let run = &self.runs[0];
                Err(self.in_moof(run.error(format!("no mdat holds its samples before byte {start}"))))
            }
            _ => Ok(()),
        }
    }

    /// All data of the last `moof` must lie in the `mdat` that follows it.
    fn check_runs(&self, start: u64, end: Option<u64>) -> Result<(), DemuxError> {
        let body = self.input.offset();
        for run in self.runs.iter().filter(|run| run.data_len > 0) {
            let data_end = run.data_start + run.data_len;
            if run.data_start < body || end.is_some_and(|end| data_end > end) {
                let mdat_end = end.map_or("the end".into(), |end| format!("byte {end}"));
                let detail = format!(
                    "its samples are bytes {} to {data_end}, the mdat at byte {start} holds bytes {body} to {mdat_end}",
                    run.data_start
                );
                return Err(self.in_moof(run.error(detail)));
            }
        }
        Ok(())
    }

    fn in_moof(&self, error: DemuxError) -> DemuxError {
        error.within(|| format!("moof[{}]", self.moof_count.saturating_sub(1)))
    }

    /// Takes a box that was read whole.
    fn collected(
        &mut self,
        kind: FourCc,
        start: u64,
        body: &Bytes,
        offset: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), DemuxError> {
        match &kind {
            b"moov" => {
                let movie = Movie::parse(BoxReader::new(body, offset)).within(|| "moov".into())?;
                self.begin_movie(movie, events);
                Ok(())
            }
            b"moof" => {
                self.moof_count += 1;
                let Some(movie) = &self.movie else { return Ok(()) };
                let moof = Moof::parse(body, offset, start, movie, &self.next_decode_ticks);
                let moof = moof.map_err(|error| self.in_moof(error))?;
                self.begin_fragment(moof, events);
                Ok(())
            }
            _ => self.wall(BoxReader::new(body, offset), events).within(|| kind_text(kind)),
        }
    }

    fn begin_movie(&mut self, movie: Movie, events: &mut Vec<Event>) {
        if self.movie.as_ref() == Some(&movie) {
            return;
        }
        if self.movie.is_some() {
            events.push(Event::Discontinuity);
        }
        self.next_decode_ticks = vec![0; movie.tracks.len()];
        self.description_indexes = vec![1; movie.tracks.len()];
        self.config = movie.config.clone();
        self.movie = Some(movie);
        events.push(Event::Config(self.config.clone()));
    }

    fn begin_fragment(&mut self, moof: Moof, events: &mut Vec<Event>) {
        self.use_entries(&moof.description_indexes, events);
        events.push(Event::SourceFragment { timecode: moof.timecode, units: None, sized: true });
        self.next_decode_ticks = moof.next_decode_ticks;
        self.runs = moof.runs.into();
        if self.runs.iter().all(|run| run.data_len == 0) {
            // Nothing to wait for: there may be no mdat.
            self.read_samples(events);
        }
    }

    /// Announces the config again where a fragment uses another sample entry than the one before.
    fn use_entries(&mut self, description_indexes: &[u32], events: &mut Vec<Event>) {
        let Some(movie) = &self.movie else { return };
        let mut changed = false;
        for (index, description) in description_indexes.iter().enumerate() {
            if *description == 0 || self.description_indexes[index] == *description {
                continue;
            }
            let Some(entry) = movie.tracks[index].entries.get(*description as usize - 1) else { continue };
            self.description_indexes[index] = *description;
            apply_entry(&mut self.config.tracks[index], entry);
            changed = true;
        }
        if changed {
            events.push(Event::Config(self.config.clone()));
        }
    }

    /// Gives out the samples whose bytes have come. True once there are none left.
    fn read_samples(&mut self, events: &mut Vec<Event>) -> bool {
        while let Some(run) = self.runs.front_mut() {
            let Some(sample) = self.sample.take().or_else(|| run.next()) else {
                self.runs.pop_front();
                continue;
            };
            let gap = if run.data_len == 0 { 0 } else { run.data_start.saturating_sub(self.input.offset()) };
            let data = if self.input.skip(gap) == gap { self.input.take(sample.size) } else { None };
            let Some(data) = data else {
                self.sample = Some(sample);
                return false;
            };
            events.push(Event::Sample(RawSample {
                track: run.track,
                presentation_ticks: sample.presentation_ticks,
                decode_ticks: Some(sample.decode_ticks),
                duration_ticks: Some(sample.duration_ticks).filter(|ticks| *ticks > 0),
                sync: sample.sync,
                block_flags: 0,
                data,
            }));
        }
        true
    }

    /// `prft` (section 8.16.5): what an NTP clock showed at a time of a track.
    fn wall(&mut self, mut body: BoxReader<'_>, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        let (version, _) = body.full_box()?;
        let (id, seconds, fraction) = (body.u32()?, body.u32()?, body.u32()?);
        let ticks = body.u32_or_u64(version)?;
        let track = self.movie.iter().flat_map(|movie| &movie.tracks).position(|track| track.id == id);
        let (Some(track), Ok(presentation_ticks)) = (track, i64::try_from(ticks)) else { return Ok(()) };
        if seconds == 0 {
            return Ok(());
        }
        // The 32 bits of 1900 ran from 1968 to 2036 with the top bit set: without it, they are those of the next era.
        let era_s = if seconds & 1 << 31 == 0 { 1_i64 << 32 } else { 0 };
        let unix_s = era_s + i64::from(seconds) - NTP_TO_UNIX_S;
        let at = UnixMs(unix_s * 1000 + ((i64::from(fraction) * 1000 + (1 << 31)) >> 32));
        events.push(Event::Wall { track: track as u8, presentation_ticks, at });
        Ok(())
    }
}
