//! The tracks of a session on one timeline: what their sources give, to events.
//!
//! Each RTP source counts from a random time of its own. Sender reports relate these to one clock, so the first events
//! are held until every track has one (ffmpeg sends it ahead of the first packet, GStreamer after 1 to 3 s), and are
//! then placed exactly. A track without a report is placed by its arrival. The earliest sample stands at 0, and a
//! track that was placed stays where it is.
//!
//! # Invariants
//! 1. `Config` comes before any sample, and names exactly the tracks that samples refer to.
//! 2. What is held is at most [`HELD_BYTES_MAX`] and [`HELD_COUNT_MAX`], and at most the wait that was set.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use vidar_core::time::UnixMs;
use vidar_media::codec::{self, inspect};
use vidar_media::{Event, RawSample, StreamConfig, SyncKind, Track, TrackKind};

use super::depacketize::Unit;
use super::rtcp::{self, ntp_ns};
use super::source::{Found, Source};
use crate::push::Arrived;

/// 3 s of 20 Mbit/s.
const HELD_BYTES_MAX: usize = 8 << 20;
const HELD_COUNT_MAX: usize = 4096;
/// Reports that place tracks further apart than they arrived contradict each other.
const REPORTS_APART_NS: i128 = 10_000_000_000;

/// Both clocks at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) wall: UnixMs,
    pub(crate) monotonic: Duration,
}

struct MediaTrack {
    source: Source,
    /// As the last Config has it, and its index there.
    track: Option<(u8, Track)>,
    /// The last sender report of the current source: nanoseconds since 1970, RTP time.
    report: Option<(i128, i64)>,
    /// The RTP time that stands at 0 of the timeline.
    base_ticks: Option<i64>,
    /// It has given a sample.
    heard: bool,
    clock_hz: u32,
}

struct Held {
    at: Now,
    track: usize,
    found: Found,
}

/// All tracks of a session.
pub(crate) struct Media {
    tracks: Vec<MediaTrack>,
    /// How long the first events may be held.
    wait: Duration,
    held: VecDeque<Held>,
    held_bytes: usize,
    began: Option<Duration>,
    /// By our monotonic clock. Set once tracks are placed.
    zero_ns: Option<i128>,
    found: Vec<Found>,
    out: Vec<Arrived>,
}

impl Media {
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            tracks: Vec::new(),
            wait,
            held: VecDeque::new(),
            held_bytes: 0,
            began: None,
            zero_ns: None,
            found: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Adds a track; its index counts up from 0.
    pub(crate) fn add(&mut self, source: Source, clock_hz: u32) {
        self.tracks.push(MediaTrack { source, track: None, report: None, base_ticks: None, heard: false, clock_hz });
    }

    /// The events that are ready.
    pub(crate) fn take(&mut self) -> Vec<Arrived> {
        std::mem::take(&mut self.out)
    }

    /// Bytes held: of access units that are not complete, and of events that are not placed yet.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        let of_tracks = self.tracks.iter().map(|track| track.source.depacketizer().held_bytes());
        self.held_bytes + of_tracks.sum::<usize>()
    }

    /// An RTP packet of a track.
    pub(crate) fn rtp(&mut self, track: usize, packet: &Bytes, now: Now) {
        let mut found = std::mem::take(&mut self.found);
        self.tracks[track].source.rtp(packet, now.monotonic, &mut found);
        self.accept(track, &mut found, now);
        self.found = found;
    }

    /// An RTCP packet of a track.
    pub(crate) fn rtcp(&mut self, track: usize, packet: &[u8], now: Now) {
        for report in rtcp::parse(packet) {
            if let Some((ntp, ticks)) = self.tracks[track].source.rtcp(report, now.monotonic) {
                self.tracks[track].report = Some((ntp_ns(ntp), ticks));
                if self.zero_ns.is_some() {
                    self.out.extend(self.wall(track, now.wall));
                }
            }
        }
        self.release_if_ready(now);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Now) {
        let mut found = std::mem::take(&mut self.found);
        for track in 0..self.tracks.len() {
            self.tracks[track].source.release(now.monotonic, &mut found);
            self.accept(track, &mut found, now);
        }
        self.found = found;
        self.release_if_ready(now);
    }

    /// When `tick` has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let sources = self.tracks.iter().filter_map(|track| track.source.deadline());
        let held = self.began.filter(|_| self.zero_ns.is_none()).map(|began| began + self.wait);
        sources.chain(held).min()
    }

    /// No more will come. False if something was cut off.
    pub(crate) fn finish(&mut self, now: Now) -> bool {
        let mut found = std::mem::take(&mut self.found);
        let mut whole = true;
        for track in 0..self.tracks.len() {
            self.tracks[track].source.flush(&mut found);
            whole &= !matches!(found.last(), Some(Found::Lost(_)));
            self.accept(track, &mut found, now);
        }
        if self.zero_ns.is_none() {
            self.release(now);
        }
        whole
    }

    /// True if every source said goodbye.
    pub(crate) fn all_left(&self) -> bool {
        !self.tracks.is_empty() && self.tracks.iter().all(|track| track.source.has_left())
    }

    /// A receiver report about a track.
    pub(crate) fn report(&mut self, track: usize, own_ssrc: u32, now: Duration) -> Option<Vec<u8>> {
        self.tracks[track].source.report(own_ssrc, now)
    }

    fn accept(&mut self, track: usize, found: &mut Vec<Found>, now: Now) {
        for found in found.drain(..) {
            if self.zero_ns.is_some() {
                self.give(track, found, now);
            } else {
                self.began.get_or_insert(now.monotonic);
                self.held_bytes += size(&found);
                self.tracks[track].heard |= matches!(found, Found::Unit(_));
                self.held.push_back(Held { at: now, track, found });
            }
        }
        self.release_if_ready(now);
    }

    fn release_if_ready(&mut self, now: Now) {
        let Some(began) = self.began.filter(|_| self.zero_ns.is_none()) else { return };
        let several = self.tracks.len() > 1;
        let ready = |track: &MediaTrack| {
            let placeable = !several || track.report.is_some() && track.heard;
            track.source.depacketizer().track().is_some() && placeable
        };
        let full = self.held_bytes > HELD_BYTES_MAX || self.held.len() > HELD_COUNT_MAX;
        if full || now.monotonic.saturating_sub(began) >= self.wait || self.tracks.iter().all(ready) {
            self.release(now);
        }
        // Nothing is known of any track yet: go on with what is new.
        while self.held_bytes > HELD_BYTES_MAX || self.held.len() > HELD_COUNT_MAX {
            let Some(held) = self.held.pop_front() else { break };
            self.held_bytes -= size(&held.found);
        }
    }

    /// Places the tracks that are known, and gives out what was held.
    fn release(&mut self, now: Now) {
        if self.tracks.iter().all(|track| track.source.depacketizer().track().is_none()) {
            return;
        }
        self.place();
        self.configure(now.wall);
        self.held_bytes = 0;
        for Held { at, track, found } in std::mem::take(&mut self.held) {
            self.give(track, found, at);
        }
    }

    /// Chooses the zero of the timeline: the earliest sample.
    fn place(&mut self) {
        let mut firsts: Vec<(usize, i64, i128)> = Vec::new();
        for held in &self.held {
            let Found::Unit(unit) = &held.found else { continue };
            let known = self.tracks[held.track].source.depacketizer().track().is_some();
            if known && !firsts.iter().any(|(track, ..)| *track == held.track) {
                firsts.push((held.track, unit.ticks, nanoseconds(held.at)));
            }
        }
        // The reference is the first to come that has a report.
        let reported = firsts.iter().find(|(track, ..)| self.tracks[*track].report.is_some());
        let Some(&(reference, ticks, arrival)) = reported.or(firsts.first()) else {
            self.zero_ns = Some(0);
            return;
        };
        self.zero_ns = Some(arrival);
        self.tracks[reference].base_ticks = Some(ticks);
        let since: Vec<i128> =
            firsts.iter().map(|(track, ticks, arrival)| self.since_zero(*track, *ticks, *arrival)).collect();
        let earliest = since.iter().copied().min().unwrap_or(0);
        for ((track, ticks, _), since) in firsts.iter().zip(&since) {
            let track = &mut self.tracks[*track];
            track.base_ticks = Some(ticks.saturating_sub(to_ticks(since - earliest, track.clock_hz)));
        }
        self.zero_ns = Some(arrival + earliest);
    }

    /// Where a track's sample stands on the timeline, in nanoseconds: by report if it can be, else by arrival.
    fn since_zero(&self, track: usize, ticks: i64, arrival: i128) -> i128 {
        let by_arrival = arrival - self.zero_ns.unwrap_or(arrival);
        let zero_by_report = self.tracks.iter().find_map(|placed| {
            let ((at, report_ticks), base) = placed.report.zip(placed.base_ticks)?;
            Some(at - to_ns(i128::from(report_ticks) - i128::from(base), placed.clock_hz))
        });
        let this = &self.tracks[track];
        let by_report = this.report.zip(zero_by_report).map(|((at, report_ticks), zero)| {
            at + to_ns(i128::from(ticks) - i128::from(report_ticks), this.clock_hz) - zero
        });
        by_report.filter(|since| (since - by_arrival).abs() < REPORTS_APART_NS).unwrap_or(by_arrival)
    }

    /// Announces all tracks that are known.
    fn configure(&mut self, at: UnixMs) {
        let mut tracks = Vec::new();
        for media in &mut self.tracks {
            // Private data that changed in band stays.
            let track = media.track.take().map(|(_, track)| track);
            media.track = track.or_else(|| media.source.depacketizer().track().cloned()).map(|track| {
                tracks.push(track.clone());
                (tracks.len() as u8 - 1, track)
            });
        }
        self.out.push(Arrived {
            at: Some(at),
            event: Event::Config(StreamConfig { tracks, matroska_header: Bytes::new() }),
        });
        for track in 0..self.tracks.len() {
            self.out.extend(self.wall(track, at));
        }
    }

    fn wall(&self, track: usize, arrived: UnixMs) -> Option<Arrived> {
        let media = &self.tracks[track];
        let ((at, ticks), base) = media.report.zip(media.base_ticks)?;
        let at = UnixMs(i64::try_from((at + 500_000).div_euclid(1_000_000)).ok()?);
        let presentation_ticks = ticks.saturating_sub(base);
        Some(Arrived {
            at: Some(arrived),
            event: Event::Wall { track: media.track.as_ref()?.0, presentation_ticks, at },
        })
    }

    fn give(&mut self, track: usize, found: Found, now: Now) {
        let event = match found {
            Found::Unit(unit) => return self.sample(track, unit, now),
            Found::Lost(count) => Event::Lost { count },
            Found::NewSource => {
                let track = &mut self.tracks[track];
                (track.report, track.base_ticks) = (None, None);
                Event::Discontinuity
            }
        };
        self.out.push(Arrived { at: Some(now.wall), event });
    }

    fn sample(&mut self, index: usize, unit: Unit, now: Now) {
        if self.tracks[index].track.is_none() {
            if self.tracks[index].source.depacketizer().track().is_none() {
                return;
            }
            self.configure(now.wall);
        }
        let base = self.base_ticks(index, unit.ticks, now);
        let Some((number, track)) = &mut self.tracks[index].track else { return };
        let (number, mut sync, mut data) = (*number, SyncKind::Sync, unit.data);
        if track.kind == TrackKind::Video {
            let inspection = inspect(track, &data);
            sync = inspection.sync.unwrap_or_default();
            if let Some(private) = inspection.new_private {
                *track = codec::with_private(track, private);
                self.configure(now.wall);
            }
        } else {
            // A slice of what was read would keep all of that in memory for as long as the fragment is open.
            data = Bytes::copy_from_slice(&data);
        }
        let sample = RawSample {
            track: number,
            presentation_ticks: unit.ticks.saturating_sub(base),
            decode_ticks: None,
            duration_ticks: unit.duration_ticks,
            sync,
            block_flags: 0,
            data,
        };
        self.out.push(Arrived { at: Some(now.wall), event: Event::Sample(sample) });
    }

    /// A track that comes late is placed at its first sample.
    fn base_ticks(&mut self, index: usize, ticks: i64, now: Now) -> i64 {
        if let Some(base) = self.tracks[index].base_ticks {
            return base;
        }
        let since = self.since_zero(index, ticks, nanoseconds(now));
        let track = &mut self.tracks[index];
        let base = ticks.saturating_sub(to_ticks(since, track.clock_hz));
        track.base_ticks = Some(base);
        let wall = self.wall(index, now.wall);
        self.out.extend(wall);
        base
    }
}

fn size(found: &Found) -> usize {
    if let Found::Unit(unit) = found { unit.data.len() } else { 0 }
}

fn nanoseconds(now: Now) -> i128 {
    i128::try_from(now.monotonic.as_nanos()).unwrap_or(i128::MAX)
}

/// Rounded to nearest.
fn to_ticks(ns: i128, clock_hz: u32) -> i64 {
    let ticks = (ns * i128::from(clock_hz) + 500_000_000).div_euclid(1_000_000_000);
    i64::try_from(ticks).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

fn to_ns(ticks: i128, clock_hz: u32) -> i128 {
    (ticks * 1_000_000_000).div_euclid(clock_hz.max(1).into())
}

#[cfg(test)]
#[path = "media_tests.rs"]
mod media_tests;
