//! Brings the tracks' samples together in one stream of messages, the config first.
//!
//! Samples are held until every announced track is known; a track that stays silent is not waited for longer than the
//! others' samples fill the limits. No clock decides.

use std::io::{self, Write};

use vidar_core::limits::{SAMPLE_BYTES_MAX, TRACK_COUNT_MAX};
use vidar_core::track::{StreamConfig, Track};
use vidar_media::RawSample;

use super::message::{Message, TIMESCALE_HZ};

/// Held samples, in bytes…
const HELD_BYTES_MAX: usize = 16 << 20;
/// …in number…
const HELD_COUNT_MAX: usize = 10_000;
/// …and in time.
const HELD_TICKS_MAX: u64 = 5 * TIMESCALE_HZ as u64;

/// Writes messages to `W`.
pub(super) struct Collector<W> {
    out: W,
    slots: Vec<Slot>,
    /// Slots in the order of the config; empty until the config was written.
    order: Vec<usize>,
    /// With the slot in place of the track.
    held: Vec<RawSample>,
    held_bytes: usize,
    /// No more tracks will come.
    complete: bool,
    /// An error or the end was written.
    ended: bool,
}

#[derive(Default)]
struct Slot {
    track: Option<Track>,
}

impl<W: Write> Collector<W> {
    pub(super) fn new(out: W) -> Self {
        let (slots, order, held) = (Vec::new(), Vec::new(), Vec::new());
        Self { out, slots, order, held, held_bytes: 0, complete: false, ended: false }
    }

    /// Room for a track that was announced; none if there are too many.
    pub(super) fn announce(&mut self) -> Option<usize> {
        if self.slots.len() == TRACK_COUNT_MAX {
            return None;
        }
        self.slots.push(Slot::default());
        Some(self.slots.len() - 1)
    }

    /// All tracks are announced.
    pub(super) fn complete(&mut self) -> io::Result<()> {
        self.complete = true;
        self.begin_if_ready()
    }

    /// What a track is, now.
    pub(super) fn track(&mut self, slot: usize, track: Track) -> io::Result<()> {
        let Some(known) = self.slots.get_mut(slot).map(|slot| &mut slot.track) else { return Ok(()) };
        if known.as_ref() == Some(&track) {
            return Ok(());
        }
        *known = Some(track);
        if self.order.is_empty() {
            return self.begin_if_ready();
        }
        if !self.order.contains(&slot) {
            self.order.push(slot);
        }
        self.write_config()
    }

    /// A sample of a track that is known.
    pub(super) fn sample(&mut self, slot: usize, mut sample: RawSample) -> io::Result<()> {
        if sample.data.len() > SAMPLE_BYTES_MAX {
            return self.fail(413, format!("a sample of {} bytes: at most 50 MiB", sample.data.len()));
        }
        if !self.order.is_empty() {
            return self.write_sample(slot, sample);
        }
        let Ok(held_as) = u8::try_from(slot) else { return Ok(()) };
        sample.track = held_as;
        self.held_bytes += sample.data.len();
        self.held.push(sample);
        self.begin_if_ready()
    }

    /// The input cannot be read on; what was complete before is said first.
    pub(super) fn fail(&mut self, status: u16, detail: String) -> io::Result<()> {
        self.begin()?;
        self.last(&Message::Error { status, detail })
    }

    /// The input has ended.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.begin()?;
        if self.order.is_empty() {
            let detail = "no track was found".to_owned();
            return self.last(&Message::Error { status: 400, detail });
        }
        self.last(&Message::End)
    }

    fn begin_if_ready(&mut self) -> io::Result<()> {
        if !self.order.is_empty() {
            return Ok(());
        }
        let all_known = self.complete && self.slots.iter().all(|slot| slot.track.is_some());
        let full = self.held_bytes > HELD_BYTES_MAX || self.held.len() > HELD_COUNT_MAX;
        if all_known || full || self.held_ticks() > HELD_TICKS_MAX { self.begin() } else { Ok(()) }
    }

    fn held_ticks(&self) -> u64 {
        let Some((first, last)) = self.held.first().zip(self.held.last()) else { return 0 };
        last.presentation_ticks.abs_diff(first.presentation_ticks)
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.order.is_empty() {
            return Ok(());
        }
        self.order = (0..self.slots.len()).filter(|slot| self.slots[*slot].track.is_some()).collect();
        if self.order.is_empty() {
            return Ok(());
        }
        self.write_config()?;
        self.held_bytes = 0;
        for sample in std::mem::take(&mut self.held) {
            self.write_sample(sample.track.into(), sample)?;
        }
        Ok(())
    }

    fn write_config(&mut self) -> io::Result<()> {
        let tracks = self.order.iter().filter_map(|slot| self.slots[*slot].track.clone()).collect();
        self.write(&Message::Config(StreamConfig { tracks, ..StreamConfig::default() }))
    }

    fn write_sample(&mut self, slot: usize, mut sample: RawSample) -> io::Result<()> {
        let Some(index) = self.order.iter().position(|known| *known == slot) else { return Ok(()) };
        sample.track = u8::try_from(index).expect("at most 10 tracks");
        self.write(&Message::Sample(sample))
    }

    fn last(&mut self, message: &Message) -> io::Result<()> {
        let result = self.write(message);
        self.ended = true;
        result
    }

    fn write(&mut self, message: &Message) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.out.write_all(&message.encode())?;
        self.out.flush()
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
