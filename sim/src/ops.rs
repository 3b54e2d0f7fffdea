//! What happens to a running server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use http_body_util::BodyExt;
use tokio::time::sleep;
use tower::ServiceExt;
use vidar_core::clock::Clock;
use vidar_core::ids::StreamName;
use vidar_core::registry::StreamRegistry;
use vidar_core::sink::SinkError;
use vidar_media::container::mkv;
use vidar_media::{Demux, Event};
use vidar_server::retention::all_entries;
use vidar_storage::{Depth, Progress};

use crate::boot::Boot;
use crate::disk::Fault;
use crate::http;
use crate::lock;
use crate::model::Excuse;
use crate::push;
use crate::random::Random;

/// One step of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// A connection begins, and goes on beside what follows.
    Push,
    /// A fragment in parts, straight to the store.
    Parts,
    /// Fragments are read.
    Read,
    /// A range is played as one file.
    Clip,
    /// Retention looks once.
    Retain,
    /// Settings of a stream change.
    Settings,
    /// A stream goes.
    Delete,
    /// The wall clock steps.
    Step,
    /// Hours pass.
    Sleep,
    /// The disk grows slow, or quick again.
    Slow,
    /// The disk fills up, or room is made.
    Fill,
    /// A call of the disk will fail.
    Fail,
    /// Reads flip bits.
    Flip,
    /// Keys of streams, or the key of the keyring, are replaced.
    Rotate,
    /// The key provider does not answer for a while.
    Silence,
    /// Closed files are checked beside everything else.
    Verify,
    /// The directory is copied.
    Copy,
    /// The index is compared with one made anew.
    Rebuild,
}

impl Op {
    /// One of them.
    pub(crate) fn draw(random: &mut Random) -> Self {
        match random.within(0..100) {
            0..28 => Self::Push,
            28..30 => Self::Rotate,
            30..32 => Self::Silence,
            32..34 => Self::Verify,
            34..42 => Self::Parts,
            42..52 => Self::Read,
            52..57 => Self::Clip,
            57..65 => Self::Retain,
            65..69 => Self::Settings,
            69..72 => Self::Delete,
            72..76 => Self::Step,
            76..80 => Self::Sleep,
            80..84 => Self::Slow,
            84..87 => Self::Fill,
            87..91 => Self::Fail,
            91..93 => Self::Flip,
            93..96 => Self::Copy,
            _ => Self::Rebuild,
        }
    }
}

fn name(random: &mut Random) -> StreamName {
    StreamName::new(format!("cam-{}", random.within(0..4))).expect("a good name")
}

impl Boot {
    /// Does it. `Copy` and `Rebuild` are for the caller.
    pub(crate) async fn run(self: &Arc<Self>, op: Op, random: &mut Random) {
        let disk = &self.shared.disk;
        match op {
            Op::Push if random.one_in(4) => {
                drop(tokio::spawn(http::push(Arc::clone(self), name(random), random.fork())));
            }
            Op::Push => drop(tokio::spawn(push::push(Arc::clone(self), name(random), random.fork()))),
            Op::Parts => push::append_in_parts(self, &name(random), random).await,
            Op::Read => self.read_some(random).await,
            Op::Clip => self.clip(random).await,
            Op::Retain => {
                let _work = self.pace.work();
                self.retention.step().await;
            }
            Op::Settings => self.change_settings(random).await,
            Op::Delete => self.delete(random).await,
            Op::Step => {
                let hour = 3_600_000;
                self.clock.step_ms([-hour, 365 * 24 * hour, -400 * 24 * hour, 2_000][random.index(4)]);
            }
            Op::Sleep => sleep(Duration::from_secs(random.within(600..6000))).await,
            Op::Slow => self.pace.set_latency_ms([0, 5, 100, 2_000][random.index(4)]),
            Op::Fill => {
                if random.one_in(2) {
                    lock(&self.shared.model).was_short = true;
                    disk.fill_up(random.within(0..400 << 10));
                } else {
                    disk.heal();
                }
            }
            Op::Fail => {
                let error = [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull][random.index(2)];
                lock(&self.shared.model).was_short |= error == std::io::ErrorKind::StorageFull;
                let more = if random.one_in(3) { random.within(0..12) } else { 0 };
                disk.fail(Fault { at: disk.calls() + random.within(1..40), more, error });
            }
            Op::Rotate => self.rotate(random).await,
            Op::Silence => disk.silence_kek(random.within(0..3) as u32, random.within(0..4) as u32),
            Op::Verify => self.verify(random),
            Op::Flip => disk.flip(random.within(1..4) as u32),
            Op::Copy | Op::Rebuild => {}
        }
    }

    async fn read_some(&self, random: &mut Random) {
        for _ in 0..random.within(1..6) {
            let wanted = {
                let model = lock(&self.shared.model);
                let due: Vec<_> = model.fragments.iter().filter(|(_, fragment)| fragment.is_due(false)).collect();
                if due.is_empty() {
                    return;
                }
                let (number, fragment) = due[random.index(due.len())];
                (fragment.stream, *number, fragment.index)
            };
            let (stream, number, index) = wanted;
            let before = self.shared.disk.disturbed();
            let Some(entry) = self.index.timeline().get(stream, number) else {
                return lock(&self.shared.model).violate(format!("fragment {index} is due and not in the timeline"));
            };
            let read = self.read(&entry).await;
            let mut model = lock(&self.shared.model);
            match read {
                Ok(pieces) => model.check_content(&entry, &pieces),
                Err(_) if self.shared.disk.has_failed_since(before) => {}
                Err(error) if model.fragments.get(&number).is_some_and(|fragment| fragment.is_due(false)) => {
                    model.violate(format!("fragment {index} does not read: {error}"));
                }
                Err(_) => {}
            }
        }
    }

    /// Plays a range of what a stream holds: each picture in it is one that was pushed, none is missing.
    async fn clip(&self, random: &mut Random) {
        let name = name(random);
        let Some(stream) = self.registry.get(&name) else { return };
        let Some((start, end)) = self.index.timeline().totals(stream.stream).producer else { return };
        let (a, b) = (random.within(0..1000), random.within(0..1000));
        let at = |share: u64| start.0 + (end.0 - start.0).max(0) / 1000 * share as i64;
        // Plain numbers from 10^11 on are milliseconds.
        let query = format!("start={}&end={}", at(a.min(b)), at(a.max(b)) + 1);
        let user = base64::engine::general_purpose::STANDARD.encode("sim:sim");
        let request = Request::get(format!("/v1/streams/{name}/clip.mkv?{query}"));
        let request = request.header("authorization", format!("Basic {user}")).body(Body::empty());
        let before = (self.shared.disk.disturbed(), lock(&self.shared.model).excuse != Excuse::Nothing);
        let Ok(response) = self.router.clone().oneshot(request.expect("a good request")).await;
        let status = response.status();
        let body = response.into_body().collect().await;
        self.shared.trace.note(format_args!("clip of {name}: {status} {}", body.is_ok()));
        let excused = before.1 || self.shared.disk.has_failed_since(before.0);
        let mut model = lock(&self.shared.model);
        // No media in the range; expired meanwhile.
        let Ok(body) = body else {
            if !excused {
                model.violate(format!("a clip of {name} broke off"));
            }
            return;
        };
        if status.is_server_error() && !excused {
            model.violate(format!("a clip of {name}: {status}"));
        }
        if !status.is_success() {
            return;
        }
        let (mut demuxer, mut events) = (mkv::demux::Demuxer::new(), Vec::new());
        let parsed = demuxer.push(body.to_bytes(), &mut events).and_then(|()| demuxer.finish(&mut events));
        if let Err(error) = parsed {
            return model.violate(format!("a clip of {name} does not parse: {error}"));
        }
        let mine: Vec<Vec<u8>> =
            model.fragments.values().filter(|f| f.stream == stream.stream).map(|f| f.media()).collect();
        let has = |data: &[u8]| mine.iter().any(|media| media.windows(data.len()).any(|window| window == data));
        let samples = events.iter().filter_map(|event| match event {
            Event::Sample(sample) => Some(&sample.data),
            _ => None,
        });
        let strange = samples.step_by(7).filter(|data| !has(data)).count();
        if strange > 0 {
            model.violate(format!("a clip of {name} holds {strange} samples that were never pushed"));
        }
    }

    async fn change_settings(&self, random: &mut Random) {
        let _work = self.pace.work();
        let name = name(random);
        let Some(record) = self.registry.get(&name) else { return };
        let mut settings = record.settings.clone();
        settings.retention_hours = [1, 2, 3, 1, 24, 8760][random.index(6)];
        settings.retention_bytes = random.one_in(4).then(|| random.within(1..200 << 10));
        lock(&self.shared.model).settings(record.stream, &settings);
        let changed = self.registry.change(&name, settings).await;
        self.shared.trace.note(format_args!("settings of {name}: {}", changed.is_ok()));
    }

    async fn delete(&self, random: &mut Random) {
        let _work = self.pace.work();
        let name = name(random);
        let Some(record) = self.registry.get(&name) else { return };
        let tried = std::mem::replace(&mut lock(&self.shared.model).stream(record.stream).delete_tried, true);
        // As the registry does it, which also waits for search: that is not simulated, and never says that it is done.
        let entries = all_entries(self.index.timeline(), record.stream);
        let deleted = self.store.delete_stream(record.stream, self.clock.now(), entries).await;
        self.shared.trace.note(format_args!("deletion of {name}: {}", deleted.is_ok()));
        let mut model = lock(&self.shared.model);
        let stream = model.stream(record.stream);
        match deleted {
            Ok(()) => stream.delete_acked = true,
            // Without the key provider nothing happens.
            Err(SinkError::NoKey { .. }) => stream.delete_tried = tried,
            Err(_) => {}
        }
    }

    /// What was sealed before stays readable: later reads say so.
    async fn rotate(&self, random: &mut Random) {
        let _work = self.pace.work();
        if random.one_in(2) {
            let rotated = self.store.rotate_kek(None).await;
            return self.shared.trace.note(format_args!("the key of the keyring is rotated: {}", rotated.is_ok()));
        }
        let name = name(random);
        let Some(record) = self.registry.get(&name) else { return };
        let rotated = self.store.rotate_stream_keys(&[record.stream]).await;
        self.shared.trace.note(format_args!("the key of {name} is rotated: {}", rotated.is_ok()));
    }

    /// Closed files are whole, whatever is written meanwhile.
    fn verify(&self, random: &mut Random) {
        let before = self.shared.disk.disturbed();
        let depth = [Depth::Presence, Depth::Checksum, Depth::Decrypt][random.index(3)];
        let mut damage = Vec::new();
        let mut pace = |_: Progress| -> io::Result<()> {
            if random.one_in(4) {
                self.store.turn();
            }
            Ok(())
        };
        let verified = self.store.verify(depth, &mut pace, &mut |found| damage.push(found));
        let records = verified.map_or(0, |progress| progress.records);
        self.shared.trace.note(format_args!("verified: {records} records, {} damaged", damage.len()));
        let mut model = lock(&self.shared.model);
        if !model.excuse.covers(&damage) && !self.shared.disk.has_failed_since(before) {
            model.violate(format!("verification beside recording finds damage: {damage:?}"));
        }
    }
}
