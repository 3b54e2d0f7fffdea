//! Units in, events out: holds samples back until it is known what the tracks are.

use vidar_core::track::{StreamConfig, Track};

use super::elementary::{Output, Unit};
use crate::demux::{Event, RawSample};

/// A config is given out without the tracks that showed nothing after this time…
const WAIT_TICKS: i64 = 2 * super::pes::CLOCK_HZ as i64;
/// …or this much input.
const WAIT_BYTES: u64 = 2 << 20;

/// What a stream is known to be.
#[derive(Debug)]
pub(super) struct Known {
    /// None: nothing seen yet.
    track: Option<Track>,
    language: String,
    /// Index into the tracks of the config.
    index: Option<u8>,
}

impl Known {
    pub(super) fn new(track: Option<Track>, language: String) -> Self {
        let track = track.map(|track| Track { language: language.clone(), ..track });
        Self { track, language, index: None }
    }
}

#[derive(Debug)]
enum Held {
    Unit(usize, Unit),
    Event(Event),
}

/// Orders events: config, then samples.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    /// What the streams of the program are, in order of their declaration.
    pub(super) known: Vec<Known>,
    /// Samples are given out as they come.
    configured: bool,
    /// Before the next sample, a config is due.
    stale: bool,
    held: Vec<Held>,
    /// Times of the first sample held, and where the input was when the program was declared.
    first_ticks: Option<i64>,
    declared_at: u64,
    last_config: Option<StreamConfig>,
    /// Discontinuities told, and whether there was a sample before.
    epoch: u32,
    begun: bool,
}

impl Outlet {
    /// Bytes of samples whose tracks are not known yet.
    pub(super) fn held_bytes(&self) -> usize {
        let of = |held: &Held| if let Held::Unit(_, unit) = held { unit.data.len() } else { 0 };
        self.held.iter().map(of).sum()
    }

    /// The streams of a program are declared, or declared again. Indices of those before are void.
    pub(super) fn declare(&mut self, known: Vec<Known>, offset: u64, events: &mut Vec<Event>) {
        self.release(events);
        self.known = known;
        (self.configured, self.stale) = (false, false);
        (self.first_ticks, self.declared_at) = (None, offset);
    }

    /// Takes what a stream gave. `offset`: how much was read.
    pub(super) fn take(&mut self, stream: usize, outputs: Vec<Output>, offset: u64, events: &mut Vec<Event>) {
        for output in outputs {
            match output {
                Output::Track(track) => self.track(stream, *track, events),
                Output::Unit(unit) => self.unit(stream, unit, offset, events),
            }
        }
    }

    /// An event at this place.
    pub(super) fn event(&mut self, event: Event, events: &mut Vec<Event>) {
        if self.configured {
            events.push(event);
        } else if !self.held.is_empty() {
            self.held.push(Held::Event(event));
        }
    }

    /// Gives out what is held back, if anything is.
    pub(super) fn release(&mut self, events: &mut Vec<Event>) {
        if !self.configured && !self.held.is_empty() {
            self.configure(events);
        }
    }

    /// No sample was given out or is held since the program was declared.
    pub(super) fn is_silent(&self) -> bool {
        !self.configured && self.held.is_empty()
    }

    /// Input since the program was declared.
    pub(super) fn waited_bytes(&self, offset: u64) -> u64 {
        offset - self.declared_at
    }

    fn track(&mut self, stream: usize, track: Track, events: &mut Vec<Event>) {
        let changed = self.known.get(stream).is_some_and(|known| known.track.is_some());
        if changed {
            // What is held is of the track before.
            self.release(events);
        }
        if let Some(known) = self.known.get_mut(stream) {
            known.track = Some(Track { language: known.language.clone(), ..track });
            self.stale = self.configured;
        }
    }

    fn unit(&mut self, stream: usize, unit: Unit, offset: u64, events: &mut Vec<Event>) {
        if self.known.get(stream).is_none_or(|known| known.track.is_none()) {
            return;
        }
        if self.configured {
            if self.stale {
                self.configure(events);
            }
            return self.send(stream, unit, events);
        }
        let time = unit.decode.unwrap_or(unit.presentation);
        let waited = time.saturating_sub(*self.first_ticks.get_or_insert(time)).saturating_abs();
        self.held.push(Held::Unit(stream, unit));
        let all = self.known.iter().all(|known| known.track.is_some());
        if all || waited >= WAIT_TICKS || self.waited_bytes(offset) >= WAIT_BYTES {
            self.configure(events);
        }
    }

    fn configure(&mut self, events: &mut Vec<Event>) {
        let mut tracks = Vec::new();
        for known in &mut self.known {
            known.index = None;
            if let Some(track) = &known.track {
                known.index = u8::try_from(tracks.len()).ok();
                tracks.push(track.clone());
            }
        }
        let config = StreamConfig { tracks, ..StreamConfig::default() };
        if self.last_config.as_ref() != Some(&config) {
            events.push(Event::Config(config.clone()));
            self.last_config = Some(config);
        }
        (self.configured, self.stale) = (true, false);
        for held in std::mem::take(&mut self.held) {
            match held {
                Held::Unit(stream, unit) => self.send(stream, unit, events),
                Held::Event(event) => events.push(event),
            }
        }
    }

    fn send(&mut self, stream: usize, unit: Unit, events: &mut Vec<Event>) {
        let Some(track) = self.known.get(stream).and_then(|known| known.index) else { return };
        if unit.epoch > self.epoch {
            self.epoch = unit.epoch;
            if self.begun {
                events.push(Event::Discontinuity);
            }
        }
        self.begun = true;
        events.push(Event::Sample(RawSample {
            track,
            presentation_ticks: unit.presentation,
            decode_ticks: unit.decode,
            duration_ticks: unit.duration,
            sync: unit.sync,
            block_flags: 0,
            data: unit.data,
        }));
    }
}
