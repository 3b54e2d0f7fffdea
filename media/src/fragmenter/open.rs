//! The fragment that is open.

use std::sync::Arc;

use bytes::Bytes;
use vidar_core::record::{FragmentFacts, FragmentFlags, Piece, TableEnvelope, TrackFacts, WallSource};
use vidar_core::sample::{Sample, SyncKind, Tag};
use vidar_core::time::ticks_to_ms_nearest;
use vidar_core::track::{StreamConfig, TrackKind};

use super::{Cut, Options};
use crate::table::{SampleEntry, Table, TrackTable, totals};

/// Samples of a fragment: 20 s of ten tracks of sound in frames of 3 ms. Without this bound samples without bytes or
/// duration would grow a table for ever.
const FRAGMENT_SAMPLE_COUNT_MAX: u32 = 1 << 16;
/// Samples of an open fragment that go out as a part.
const PART_SAMPLE_COUNT: u32 = 1 << 13;

/// Where the next fragment begins on the primary track.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub(super) presentation_ms: i64,
    /// None: its first sample has not come.
    pub(super) decode_ticks: Option<i64>,
}

#[derive(Debug)]
pub(super) struct OpenFragment {
    /// Media time of the first sample of any track.
    first_ms: i64,
    /// Of the first sample and of the first sync sample of the primary track.
    primary_ms: Option<i64>,
    primary_sync_ms: Option<i64>,
    primary_starts_with_sync: bool,
    /// Media time of the first sample of the piece that grows.
    part_start_ms: i64,
    /// Of the piece that grows: samples and their bytes, a list for each track.
    piece: Vec<Vec<(SampleEntry, Bytes)>>,
    piece_bytes: u64,
    arrival: u32,
    /// Of all pieces.
    sample_count: u32,
    /// Pieces that went out as parts.
    parts: Vec<(Piece, Table)>,
    parts_bytes: u64,
    /// Presentation time of each track's last sync sample.
    last_sync: Vec<Option<i64>>,
    pub(super) tags: Vec<Tag>,
    lost: u32,
}

impl OpenFragment {
    pub(super) fn new(track_count: usize, first_ms: i64, tags: Vec<Tag>, lost: u32) -> Self {
        Self {
            first_ms,
            primary_ms: None,
            primary_sync_ms: None,
            primary_starts_with_sync: false,
            part_start_ms: first_ms,
            piece: vec![Vec::new(); track_count],
            piece_bytes: 0,
            arrival: 0,
            sample_count: 0,
            parts: Vec::new(),
            parts_bytes: 0,
            last_sync: vec![None; track_count],
            tags,
            lost,
        }
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.piece_bytes
    }

    pub(super) fn lost(&mut self, count: u32) {
        self.lost = self.lost.saturating_add(count.max(1));
    }

    pub(super) fn starts_with_sync(&self) -> bool {
        self.primary_starts_with_sync
    }

    /// Whether a sample that arrives now begins the next fragment; the flags say why this one ends.
    pub(super) fn cut_before(
        &self,
        options: &Options,
        config: &StreamConfig,
        primary: bool,
        is_sync: bool,
        presentation_ms: i64,
        len: usize,
    ) -> Option<FragmentFlags> {
        let age_ms = presentation_ms.saturating_sub(self.start_ms());
        if !options.as_sent && primary && is_sync && self.primary_ms.is_some() {
            let video = config.tracks.iter().any(|track| track.kind == TrackKind::Video);
            if video || age_ms >= i64::from(options.audio_fragment_ms) {
                return Some(FragmentFlags::default());
            }
        }
        let too_old = !options.as_sent && age_ms >= i64::from(options.fragment_duration_ms_max);
        let bytes = self.piece_bytes + self.parts_bytes;
        let too_large = bytes.saturating_add(len as u64) > options.fragment_bytes_max;
        let too_many = self.sample_count >= FRAGMENT_SAMPLE_COUNT_MAX;
        (too_old || too_large || too_many).then_some(FragmentFlags::CUT_AT_LIMIT)
    }

    pub(super) fn part_due(&self, options: &Options, presentation_ms: i64) -> bool {
        let age_ms = presentation_ms.saturating_sub(self.part_start_ms);
        let many = self.arrival >= PART_SAMPLE_COUNT;
        (age_ms >= i64::from(options.part_duration_ms) || self.piece_bytes >= options.part_bytes || many)
            && self.parts.len() < usize::from(u16::MAX)
    }

    /// A sample that is shown before the sync sample it follows is a leading picture.
    pub(super) fn sync_kind(&self, track: u8, sync: SyncKind, presentation_ticks: i64, video: bool) -> SyncKind {
        let leads = video && self.last_sync[usize::from(track)].is_some_and(|shown| presentation_ticks < shown);
        if sync == SyncKind::None && leads { SyncKind::Leading } else { sync }
    }

    pub(super) fn add(&mut self, sample: Sample, drops: Vec<(u32, u32)>, presentation_ms: i64, primary: bool) {
        let track = usize::from(sample.track);
        let is_sync = sample.sync == SyncKind::Sync;
        if primary {
            self.primary_starts_with_sync |= self.primary_ms.is_none() && is_sync;
            self.primary_ms.get_or_insert(presentation_ms);
            if is_sync {
                self.primary_sync_ms.get_or_insert(presentation_ms);
            }
        }
        if is_sync {
            self.last_sync[track] = Some(sample.presentation_ticks());
        }
        if self.arrival == 0 {
            self.part_start_ms = presentation_ms;
        }
        // The sample before is followed by this one: its duration is no guess any more.
        if let Some((entry, _)) = self.piece[track].last_mut()
            && entry.duration_estimated
        {
            entry.lasts_until(sample.decode_ticks);
        }
        self.piece_bytes += sample.data.len() as u64;
        let entry = SampleEntry::of(&sample, drops, self.arrival);
        self.arrival += 1;
        self.sample_count += 1;
        self.piece[track].push((entry, sample.data));
    }

    fn start_ms(&self) -> i64 {
        self.primary_sync_ms.or(self.primary_ms).unwrap_or(self.first_ms)
    }

    /// What grew since the last part, as a part.
    pub(super) fn part(&mut self, config: &Arc<StreamConfig>, primary: u8, sync_back: u32) -> Option<Cut> {
        if self.arrival == 0 {
            return None;
        }
        let index = u16::try_from(self.parts.len()).ok()?;
        let (table, media) = self.take_piece();
        let piece = Piece { part: Some(index), media_len: table.media_len(), table: table.encode() };
        self.parts_bytes += piece.media_len;
        self.parts.push((piece.clone(), table));
        // Its own record holds its media: the piece in a part's own table names no part.
        let own = TableEnvelope { pieces: vec![Piece { part: None, ..piece }] };
        let tables: Vec<Table> = self.parts.iter().map(|(_, table)| table.clone()).collect();
        let flags = FragmentFlags::default();
        Some(self.cut(Some(index), config, primary, sync_back, None, flags, &tables, own, media))
    }

    pub(super) fn close(
        mut self,
        config: &Arc<StreamConfig>,
        primary: u8,
        sync_back: u32,
        next: Option<Next>,
        flags: FragmentFlags,
    ) -> Cut {
        let mut next_decode_ticks = None;
        if let (Some(decode_ticks), Some((entry, _))) = (
            next.and_then(|next| next.decode_ticks),
            self.piece.get_mut(usize::from(primary)).and_then(|p| p.last_mut()),
        ) && entry.lasts_until(decode_ticks)
        {
            next_decode_ticks = Some(decode_ticks);
        }
        let (table, media) = self.take_piece();
        let parts = std::mem::take(&mut self.parts);
        let (mut pieces, mut tables): (Vec<Piece>, Vec<Table>) = parts.into_iter().unzip();
        if !table.tracks.is_empty() || pieces.is_empty() {
            pieces.push(Piece { part: None, media_len: table.media_len(), table: table.encode() });
            tables.push(table);
        }
        let next_ms = next.map(|next| next.presentation_ms);
        let cut = self.cut(None, config, primary, sync_back, next_ms, flags, &tables, TableEnvelope { pieces }, media);
        Cut { next_decode_ticks, ..cut }
    }

    fn take_piece(&mut self) -> (Table, Vec<Bytes>) {
        let mut table = Table::default();
        let mut media = Vec::with_capacity(usize::try_from(self.arrival).unwrap_or(0));
        for (track, samples) in self.piece.iter_mut().enumerate() {
            if samples.is_empty() {
                continue;
            }
            let (entries, bytes): (Vec<SampleEntry>, Vec<Bytes>) = std::mem::take(samples).into_iter().unzip();
            table.tracks.push(TrackTable { track: u8::try_from(track).expect("at most 10 tracks"), samples: entries });
            media.extend(bytes.into_iter().filter(|bytes| !bytes.is_empty()));
        }
        self.arrival = 0;
        self.piece_bytes = 0;
        (table, media)
    }

    #[allow(clippy::too_many_arguments)] // one private constructor of a record with many fields
    fn cut(
        &self,
        part: Option<u16>,
        config: &Arc<StreamConfig>,
        primary: u8,
        sync_back: u32,
        next_ms: Option<i64>,
        flags: FragmentFlags,
        tables: &[Table],
        table: TableEnvelope,
        media: Vec<Bytes>,
    ) -> Cut {
        let start_ms = self.start_ms();
        let end_ms = next_ms.unwrap_or_else(|| presentation_end_ms(config, primary, tables));
        let starts_with_sync = self.primary_starts_with_sync;
        Cut {
            part,
            config: Arc::clone(config),
            start_ms,
            start_is_sync: self.primary_sync_ms.is_some(),
            duration_ms: u32::try_from(end_ms.saturating_sub(start_ms).max(1)).unwrap_or(u32::MAX),
            next_decode_ticks: None,
            flags: flags
                .with(FragmentFlags::STARTS_WITH_SYNC, starts_with_sync)
                .with(FragmentFlags::LOSSY, self.lost > 0),
            facts: FragmentFacts {
                tracks: track_facts(config, tables),
                tags: self.tags.clone(),
                wall_offset_ms: 0,
                wall_source: WallSource::Arrival,
                sync_back: if starts_with_sync { 0 } else { sync_back },
                lost_count: self.lost,
            },
            table,
            media,
        }
    }
}

/// End of the last sample shown: of the primary track, or of any if that has none.
fn presentation_end_ms(config: &StreamConfig, primary: u8, tables: &[Table]) -> i64 {
    let end_of = |track: &TrackTable| {
        let timescale_hz = config.tracks.get(usize::from(track.track)).map_or(1000, |t| t.timescale_hz);
        let end = track.samples.iter().map(SampleEntry::presentation_end_ticks).max();
        end.map(|ticks| ticks_to_ms_nearest(ticks, timescale_hz))
    };
    let all = || tables.iter().flat_map(|table| &table.tracks);
    let of_primary = all().filter(|track| track.track == primary).filter_map(end_of).max();
    of_primary.or_else(|| all().filter_map(end_of).max()).unwrap_or(0)
}

fn track_facts(config: &StreamConfig, tables: &[Table]) -> Vec<TrackFacts> {
    config
        .tracks
        .iter()
        .enumerate()
        .map(|(index, track)| {
            let index = u8::try_from(index).expect("at most 10 tracks");
            let of_track = tables.iter().flat_map(|table| &table.tracks).filter(|t| t.track == index);
            TrackFacts {
                kind: track.kind,
                codec: track.codec.name().to_owned(),
                width: track.video.map_or(0, |video| video.width),
                height: track.video.map_or(0, |video| video.height),
                size_bytes: of_track.map(TrackTable::size_bytes).sum(),
                totals: totals(tables, index),
            }
        })
        .collect()
}
