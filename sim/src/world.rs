//! A history: boots, what happens in each, and what becomes of the directory between them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime;
use tokio::time::sleep;
use vidar_core::clock::Clock;
use vidar_core::time::UnixMs;
use vidar_storage::crypto::kek::KekError;
use vidar_storage::{Depth, Disposal, OpenError, RepairOptions, StoreOptions, repair_on, verify_on};

use crate::boot::{Boot, Shared, options};
use crate::contents::Rule;
use crate::disk::{Fault, SimDisk};
use crate::kek::NumberedKek;
use crate::lock;
use crate::model::{Excuse, Model};
use crate::ops::Op;
use crate::random::Random;
use crate::trace::Trace;
use crate::witness::Witness;

/// Streams, each with one publisher at a time.
const STREAMS: u64 = 4;
/// Of what a publisher sends at once.
const READ_BYTES_MAX: u64 = 96 << 10;
/// How a repair says that it does nothing without the right keyring.
const LACKS_KEYS: &str = "the keyring lacks keys";
/// The wall clock of the first boot.
const BEGINNING: UnixMs = UnixMs(1_700_000_000_000);

/// How a history went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How many things happened, and a checksum of them.
    pub trace: (u64, u32),
    /// Starts of the server.
    pub boots: u64,
    /// Of these, gone on from a checkpoint.
    pub resumed: u64,
    /// Fragments of which something was handed to the store.
    pub fragments: u64,
    /// Records seen on their way to the disk, footers' copies aside.
    pub records: u64,
    /// Calls to the disk.
    pub calls: u64,
}

/// A directory at some moment, and what was true of it then.
struct Saved {
    disk: SimDisk,
    model: Model,
}

struct World {
    random: Random,
    shared: Shared,
    options: StoreOptions,
    wall: UnixMs,
    uptime: Duration,
    saved: Option<Saved>,
    boots: u64,
    resumed: u64,
    calls: u64,
    may_rot: bool,
    /// This boot went on from a checkpoint that knows what rotted since.
    remembers_more: bool,
    last: Option<Rule>,
    clean: bool,
}

/// Runs the history of a seed.
///
/// # Errors
/// What is not as it has to be.
pub fn run(seed: u64, verbose: bool) -> Result<Outcome, String> {
    let mut random = Random::new(seed);
    let (trace, witness) = (Trace::new(verbose), Witness::default());
    let disk = SimDisk::new(random.fork(), trace.clone(), witness.clone());
    let shared = Shared { disk, model: Arc::new(Mutex::new(Model::default())), witness, trace };
    let options = options(&mut random);
    let mut world = World {
        may_rot: random.one_in(4),
        random,
        shared,
        options,
        wall: BEGINNING,
        uptime: Duration::ZERO,
        saved: None,
        boots: 0,
        resumed: 0,
        calls: 0,
        remembers_more: false,
        last: None,
        clean: false,
    };
    for _ in 0..world.random.within(2..4) {
        world.boot(true)?;
        world.between()?;
    }
    world.finish()?;
    let shared = &world.shared;
    let outcome = Outcome {
        trace: shared.trace.hash(),
        boots: world.boots,
        resumed: world.resumed,
        fragments: lock(&shared.model).fragments.len() as u64,
        records: shared.witness.record_count() as u64,
        calls: world.calls + shared.disk.calls(),
    };
    Ok(outcome)
}

impl World {
    /// Opens the directory, lets things happen, and ends it one way or another.
    fn boot(&mut self, busy: bool) -> Result<(), String> {
        // Dropping the runtime takes all tasks with it, as a crash does.
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let result = runtime.block_on(self.live(busy));
        drop(runtime);
        self.shared.disk.heal();
        result
    }

    async fn live(&mut self, busy: bool) -> Result<(), String> {
        self.boots += 1;
        self.shared.trace.note(format_args!("boot {}", self.boots));
        let (boot, resumed) = self.open()?;
        let boot = Arc::new(boot);
        self.resumed += u64::from(resumed);
        boot.check(true).await;
        self.verdict()?;
        // A start that goes on from a checkpoint finds what one finds that reads everything; but for control records that
        // rotted since, which the checkpoint knows and the log does not.
        self.remembers_more = resumed && lock(&self.shared.model).controls_rotten;
        if (self.random.one_in(3) || resumed) && !self.remembers_more {
            boot.check_rebuild(&self.options);
        }
        let killed = self.random.one_in(2);
        if busy {
            if killed {
                self.shared.disk.cut_in(self.random.within(1..400));
            }
            for _ in 0..self.random.within(5..22) {
                self.step(&boot).await?;
                if self.shared.disk.is_dead() {
                    break;
                }
            }
        }
        let rule = self.end(&boot, killed || self.shared.disk.is_dead()).await?;
        (self.wall, self.uptime) = (boot.clock.now(), boot.clock.uptime());
        self.shared.disk.end_boot(rule);
        self.last = Some(rule);
        Ok(())
    }

    async fn step(&mut self, boot: &Arc<Boot>) -> Result<(), String> {
        let op = Op::draw(&mut self.random);
        self.shared.trace.note(format_args!("{op:?} at {:?}", boot.clock.monotonic()));
        match op {
            Op::Copy => {
                let (disk, model) = (self.shared.disk.copy(), lock(&self.shared.model).clone());
                self.saved = Some(Saved { disk, model });
            }
            // After a failure the log may hold what was refused, until the next file says that it is void.
            Op::Rebuild if self.shared.disk.disturbed() == 0 && !self.remembers_more => {
                boot.check_rebuild(&self.options)
            }
            _ => boot.run(op, &mut self.random).await,
        }
        sleep(Duration::from_millis(self.random.within(0..4000))).await;
        let (budget, reads) = (boot.ingest.budget(), boot.ingest.open_pushes(None).len() as u64);
        if budget.used_bytes() > budget.limit_bytes() + reads.max(STREAMS) * READ_BYTES_MAX {
            return Err(format!("{} bytes are reserved of a budget of {}", budget.used_bytes(), budget.limit_bytes()));
        }
        self.verdict()
    }

    /// A stop, a kill, or whatever the power does.
    async fn end(&mut self, boot: &Arc<Boot>, killed: bool) -> Result<Rule, String> {
        self.clean = false;
        if killed {
            // What was answered before the power failed reaches those who asked.
            sleep(Duration::from_millis(self.random.within(0..50))).await;
            let rules = [Rule::KeepWritten, Rule::LoseUnsynced, Rule::Torn, Rule::Torn];
            let rule = rules[self.random.index(rules.len())];
            self.verdict()?;
            return Ok(rule);
        }
        self.shared.disk.heal();
        let closed = boot.stop().await;
        self.shared.trace.note(format_args!("stopped: {closed}"));
        if boot.ingest.budget().used_bytes() != 0 {
            return Err("bytes of the budget are reserved by nobody".into());
        }
        // A footer that could not be written is written by the next start.
        self.clean = closed && self.shared.disk.disturbed() == 0;
        if !closed && self.shared.disk.disturbed() == 0 {
            return Err("the store did not close on a disk that works".into());
        }
        boot.check(false).await;
        self.verdict()?;
        Ok(Rule::LoseUnsynced)
    }

    /// Opens the store, on a disk that may fail while it does.
    /// Whether it went on from a checkpoint is the second.
    fn open(&mut self) -> Result<(Boot, bool), String> {
        let flaky = self.random.one_in(6);
        if flaky {
            let at = self.shared.disk.calls() + self.random.within(1..60);
            let error = [std::io::ErrorKind::Other, std::io::ErrorKind::StorageFull][self.random.index(2)];
            self.shared.disk.fail(Fault { at, more: self.random.within(0..4), error });
            if self.random.one_in(4) {
                self.shared.disk.silence_kek(self.random.within(0..3) as u32, 1);
            }
        }
        let times = (self.wall, self.uptime);
        let mut opened = Boot::start(&self.shared, times, self.options(), &mut self.random);
        if flaky {
            // Whatever came of it: the machine goes down, and comes back with a disk that works.
            self.shared.trace.note(format_args!("a start on a failing disk: {}", opened.is_ok()));
            drop(opened);
            // Where a file does not answer, what it says of floors and deletions is not known either.
            lock(&self.shared.model).violations.clear();
            self.shared.disk.heal();
            self.shared.disk.end_boot([Rule::LoseUnsynced, Rule::Torn][self.random.index(2)]);
            (self.clean, self.last) = (false, None);
            opened = Boot::start(&self.shared, times, self.options(), &mut self.random);
        }
        let (boot, report) = opened.map_err(|error| format!("the store does not open: {error}"))?;
        self.shared.trace.note(format_args!(
            "opened: resumed {}, {} files, {} unclosed, {} fragments, {} incomplete, {} damaged",
            report.resumed,
            report.files,
            report.unclosed,
            report.fragments,
            report.incomplete,
            report.damage.len()
        ));
        if !lock(&self.shared.model).excuse.covers(&report.damage) {
            return Err(format!("a crash is no damage: {:?}", report.damage));
        }
        // A file whose header rotted is never changed again, a footer included.
        let may_stay_open = u64::from(lock(&self.shared.model).header_rotten);
        if self.clean && report.unclosed > may_stay_open {
            return Err(format!("{} files are not closed after a clean stop", report.unclosed));
        }
        Ok((boot, report.resumed))
    }

    /// What happens to a directory that nobody uses.
    fn between(&mut self) -> Result<(), String> {
        if self.random.one_in(8) {
            self.wrong_key()?;
        }
        if self.random.one_in(8) {
            let copy = ["keyring.a", "keyring.b"][self.random.index(2)];
            let lost = self.shared.disk.lose_small(copy);
            self.shared.trace.note(format_args!("{copy} is lost: {lost}"));
        }
        if self.random.one_in(4) {
            self.shared.disk.spoil();
        }
        if self.may_rot && self.random.one_in(2) {
            self.may_rot = false;
            if let Some(rot) = self.shared.disk.rot() {
                lock(&self.shared.model).rot(&rot);
                self.clean = false;
            }
        }
        if self.random.one_in(if lock(&self.shared.model).excuse != Excuse::Nothing { 2 } else { 12 }) {
            self.repair()?;
        }
        if self.random.one_in(6) {
            self.clone_lives()?;
        }
        if self.random.one_in(4)
            && let Some(Saved { disk, model }) = self.saved.take()
        {
            self.shared.trace.note(format_args!("an older copy is restored"));
            self.calls += self.shared.disk.calls();
            (self.shared.disk, self.clean) = (disk, false);
            *lock(&self.shared.model) = model;
        }
        Ok(())
    }

    /// Settings with the key provider of the directory that there is now.
    fn options(&self) -> StoreOptions {
        Shared::with_kek(&self.options, &self.shared.disk)
    }

    /// A wrong key opens nothing, nor does a provider that does not answer; and neither changes anything.
    fn wrong_key(&mut self) -> Result<(), String> {
        let mut wrong = self.options.clone();
        let is_silent = self.random.one_in(2);
        if is_silent {
            wrong.kek = Arc::new(NumberedKek::of(&self.shared.disk));
            self.shared.disk.silence_kek(0, 1);
        } else {
            wrong.kek = Arc::new(NumberedKek::wrong(&self.shared.disk));
        }
        let times = (self.wall, self.uptime);
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let opened = runtime.block_on(async { Boot::start(&self.shared, times, wrong, &mut self.random).err() });
        self.shared.disk.end_boot(Rule::KeepWritten);
        match opened {
            Some(OpenError::KekWrong { .. }) if !is_silent => Ok(()),
            Some(OpenError::Kek(KekError::Unavailable { .. })) if is_silent => Ok(()),
            other => Err(format!("a wrong key: {other:?}")),
        }
    }

    /// A clone of the machine runs for a while beside this one.
    fn clone_lives(&mut self) -> Result<(), String> {
        self.shared.trace.note(format_args!("a clone runs"));
        let model = Arc::new(Mutex::new(lock(&self.shared.model).clone()));
        let shared = Shared { disk: self.shared.disk.copy(), model, ..self.shared.clone() };
        let mut clone = Self {
            random: self.random.fork(),
            shared,
            options: self.options.clone(),
            wall: self.wall,
            uptime: self.uptime,
            saved: None,
            boots: 0,
            resumed: 0,
            calls: 0,
            may_rot: false,
            remembers_more: false,
            last: None,
            clean: false,
        };
        clone.boot(true)?;
        clone.boot(false)?;
        self.boots += clone.boots;
        self.resumed += clone.resumed;
        self.calls += clone.shared.disk.calls();
        self.shared.trace.note(format_args!("the clone is gone"));
        Ok(())
    }

    /// The last word: a start that finds everything, and a verification that finds no damage.
    fn finish(&mut self) -> Result<(), String> {
        self.boot(false)?;
        let disk = Arc::new(self.shared.disk.copy());
        let options = Shared::with_kek(&self.options, &disk);
        let verified = verify_on(&options, disk, Depth::Decrypt, &mut |_| {});
        let report = verified.map_err(|error| format!("verification: {error}"))?;
        if !lock(&self.shared.model).excuse.covers(&report.damage) {
            return Err(format!("verification finds damage: {:?}", report.damage));
        }
        Ok(())
    }

    /// A repair, which may be killed, and is then done again. It touches nothing that is whole, and leaves no damage.
    fn repair(&mut self) -> Result<(), String> {
        let (options, disk) = (self.options(), Arc::new(self.shared.disk.clone()));
        let how = RepairOptions { disposal: Disposal::Drop, dry_run: false, now: self.wall };
        if self.random.one_in(2) {
            self.shared.disk.cut_in(self.random.within(1..200));
            let killed = repair_on(&options, Arc::clone(&disk) as _, &how, &mut |_| {});
            self.shared.trace.note(format_args!("a repair is killed: {}", killed.is_err()));
            self.shared.disk.end_boot([Rule::KeepWritten, Rule::LoseUnsynced, Rule::Torn][self.random.index(3)]);
        }
        let repaired = repair_on(&options, Arc::clone(&disk) as _, &how, &mut |_| {});
        let report = match repaired {
            // What says that a stream was deleted rotted: its keys are gone, as if an older keyring stood there.
            Err(error) if lock(&self.shared.model).may_lack_keys() && error.to_string().contains(LACKS_KEYS) => {
                self.shared.trace.note(format_args!("a repair lacks keys"));
                self.shared.disk.end_boot(Rule::LoseUnsynced);
                return Ok(());
            }
            repaired => repaired.map_err(|error| format!("repair: {error}"))?,
        };
        self.shared.trace.note(format_args!(
            "repaired: {} damaged, {} files, {} put away, {} gaps, {} refused",
            report.damage.len(),
            report.files.len(),
            report.put_away.len(),
            report.gaps.len(),
            report.refused.len()
        ));
        let changed = !report.damage.is_empty() || !report.files.is_empty() || !report.put_away.is_empty();
        let excuse = lock(&self.shared.model).excuse.clone();
        if changed && excuse == Excuse::Nothing || !excuse.covers(&report.damage) {
            return Err(format!("a repair where nothing is damaged: {report:?}"));
        }
        self.shared.disk.end_boot(Rule::LoseUnsynced);
        let verified = verify_on(&options, disk, Depth::Decrypt, &mut |_| {});
        let left = verified.map_err(|error| format!("verification after a repair: {error}"))?.damage;
        self.shared.disk.end_boot(Rule::KeepWritten);
        if !left.is_empty() && report.refused.is_empty() {
            return Err(format!("a repair left damage: {left:?}"));
        }
        if report.refused.is_empty() {
            lock(&self.shared.model).repaired(&report.damage);
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), String> {
        let mut wrong = lock(&self.shared.model).violations.clone();
        wrong.extend(self.shared.witness.violations());
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}
