//! Repair of a stopped data directory: what opens is kept, what does not is put away and recorded as a gap.
//!
//! ```text
//! examine ─► for each file to be written anew: copy what opens + gaps ─► footer ─► old file away
//! ```
//!
//! A new file takes the place of a damaged one in the log. Its header voids the old one from its first batch on, which
//! counts once the new file has its trailer: until then the old file holds, from then on the new one, whatever crashes.
//!
//! # Invariants
//! 1. Records are copied as they are (ciphertext), and only after all of them opened. Nothing is guessed: a head that does
//!    not open is taken from the footer's copy of it, a config from another file that holds the same, if those open.
//! 2. No file is removed before everything in it that opens was synced elsewhere.
//! 3. A directory without damage is not changed.

mod away;
mod salvage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use vidar_core::control::{Control, ControlRecord, GapCause, GapRecord};
use vidar_core::ids::{FileId, FragmentNumber, StreamId, StreamName};
use vidar_core::source::ConfigKey;
use vidar_core::time::UnixMs;

use crate::ahead;
use crate::backend::SegmentIo;
use crate::backend::fs::FsIo;
use crate::commit::push_control;
use crate::crypto::keychain::Keychain;
use crate::crypto::keyring::Keyring;
use crate::crypto::keys::random;
use crate::epoch;
use crate::load::{Log, LogFile, greatest_epoch};
use crate::options::{Damage, OpenError, StoreOptions};
use crate::segment_file::header::{FileHeader, HEADER_LEN, file_name};
use crate::segment_file::reader;
use crate::segment_file::record::{RecordKind, RecordShape};
use crate::segment_file::writer::Writer;
use crate::verify::{Depth, Examined, Progress, examine, open};

use salvage::{Assessed, Configs, config_key};

/// A batch of copied records is written above this.
const BATCH_BYTES: usize = 8 << 20;

/// What becomes of damaged files once they were written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposal {
    /// They are removed.
    Drop,
    /// They are moved into this folder, which is made if need be.
    Quarantine(PathBuf),
}

/// How to repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairOptions {
    /// What becomes of damaged files.
    pub disposal: Disposal,
    /// Nothing is changed; the report says what would be.
    pub dry_run: bool,
    /// The server's time, for gaps.
    pub now: UnixMs,
}

/// A file that was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairedFile {
    /// The damaged one.
    pub file: String,
    /// The one that holds its good records; none in a dry run.
    pub replaced_by: Option<String>,
    /// Records that are kept.
    pub kept: u64,
    /// Of these, made whole from a copy elsewhere.
    pub restored: u64,
    /// Records that do not open, or cannot be used without one that does not.
    pub lost: u64,
}

/// What a repair did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was found, as by a verification.
    pub damage: Vec<Damage>,
    /// Files that were written anew.
    pub files: Vec<RepairedFile>,
    /// Files that an interrupted repair had written anew, and that are put away now.
    pub put_away: Vec<String>,
    /// Gaps that were recorded.
    pub gaps: Vec<GapRecord>,
    /// Both copies of the keyring were written anew.
    pub keyring_repaired: bool,
    /// Files that are not touched, and why.
    pub refused: Vec<(String, String)>,
    /// Names of the streams that exist.
    pub streams: BTreeMap<StreamId, StreamName>,
}

impl RepairReport {
    /// Nothing was to be done.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.damage.is_empty() && self.put_away.is_empty() && !self.keyring_repaired
    }
}

/// Repairs a data directory that no server uses.
///
/// # Errors
/// If it is in use, its keys are not all at hand, or the disk fails. A repair that failed or was killed is done again from
/// the start.
pub fn repair(
    options: &StoreOptions,
    how: &RepairOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<RepairReport, OpenError> {
    repair_on(options, Arc::new(FsIo::new(&options.data_dir)), how, progress)
}

/// As [`repair`], on another [`SegmentIo`].
///
/// # Errors
/// As `repair`.
pub fn repair_on(
    options: &StoreOptions,
    io: Arc<dyn SegmentIo>,
    how: &RepairOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<RepairReport, OpenError> {
    let (_lock, ring, same) = open(options, &*io)?;
    let examined = examine(&io, &ring, Depth::Decrypt, ahead::threads(options.by_hand), progress)?;
    let Examined { mut log, report, findings, gaps } = examined;
    check_keys(&mut log, &ring, &report.streams)?;
    let mut repair = Repair {
        io: &*io,
        keys: &ring,
        how,
        known_gaps: gaps.iter().map(|gap| (gap.stream, gap.start, gap.ordinal)).collect(),
        lost_parts: HashSet::new(),
        report: RepairReport { damage: report.damage, streams: report.streams, ..RepairReport::default() },
        numbers: None,
    };
    if !same {
        repair.report.keyring_repaired = true;
        if !how.dry_run {
            Keychain::open(Arc::clone(&io), options)?;
        }
    }
    let failed = OpenError::io("repair");
    let mut shapes: BTreeMap<String, Vec<RecordShape>> = BTreeMap::new();
    for finding in findings {
        shapes.entry(finding.damage.file).or_default().extend(finding.shape);
    }
    repair.files(&mut log, &shapes).map_err(failed)?;
    Ok(repair.report)
}

/// A record whose key is missing is not damaged: with the right keyring it opens.
fn check_keys(log: &mut Log, keys: &Keyring, streams: &BTreeMap<StreamId, StreamName>) -> Result<(), OpenError> {
    let mut missing: BTreeSet<String> = streams
        .iter()
        .filter(|(stream, _)| keys.current(**stream).is_none())
        .map(|(_, name)| name.to_string())
        .collect();
    let files = std::mem::take(&mut log.files);
    for file in &files {
        let Ok(records) = log.records_of(file, keys) else { continue };
        let living = records.iter().map(|(entry, _)| &entry.shape).filter(|shape| !log.controls.is_gone_record(shape));
        let keyless = living.filter(|shape| keys.outer(shape).is_none()).map(|shape| shape.meta.stream);
        missing.extend(keyless.map(|stream| streams.get(&stream).map_or(stream.to_string(), ToString::to_string)));
    }
    log.files = files;
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.into_iter().collect::<Vec<_>>().join(", ");
    let detail = format!("the keyring lacks keys of {names}: put the right one back, what they seal is not damaged");
    Err(OpenError::io("repair")(io::Error::other(detail)))
}

type PartName = (StreamId, FragmentNumber, u16);

struct Repair<'a> {
    io: &'a dyn SegmentIo,
    keys: &'a Keyring,
    how: &'a RepairOptions,
    known_gaps: HashSet<(StreamId, UnixMs, Option<u64>)>,
    lost_parts: HashSet<PartName>,
    report: RepairReport,
    /// Epoch and counter of the next number.
    numbers: Option<(u32, u32)>,
}

impl Repair<'_> {
    /// Puts a file away that another holds all good records of.
    fn put_away(&self, name: &str) -> io::Result<()> {
        if self.how.dry_run { Ok(()) } else { away::put_away(self.io, &self.how.disposal, name) }
    }

    fn files(&mut self, log: &mut Log, found: &BTreeMap<String, Vec<RecordShape>>) -> io::Result<()> {
        for name in std::mem::take(&mut log.unfinished) {
            if !self.how.dry_run {
                self.io.unlink(&name)?;
                self.io.sync_dir()?;
            }
        }
        for name in std::mem::take(&mut log.replaced) {
            self.put_away(&name)?;
            self.report.put_away.push(name);
        }
        let files = std::mem::take(&mut log.files);
        let mut chosen = vec![false; files.len()];
        for (index, file) in files.iter().enumerate() {
            let damaged = found.contains_key(&file.name);
            // What it voids in another file must be gone for good before its header says something else.
            let voided = files.iter().any(|other| {
                let replaces = other.header.replaces.map(|(old, _)| old);
                found.contains_key(&other.name) && replaces == Some(file.header.file)
            });
            let unclosed = reader::read_trailer(&*file.handle()?, file.header.file)?.is_none();
            chosen[index] = damaged || (voided && unclosed);
        }
        for name in found.keys().filter(|name| files.iter().all(|file| file.name != **name)) {
            self.report.refused.push((name.clone(), "it is not a segment file that can be read".into()));
        }
        let mut parts: HashSet<PartName> = HashSet::new();
        for (index, file) in files.iter().enumerate() {
            if chosen[index] && !may_change(file)? {
                let why = "it is of a version, or has features, that this program must not change";
                self.report.refused.push((file.name.clone(), why.into()));
                chosen[index] = false;
            }
            self.learn_parts(log, file, chosen[index], found.get(&file.name), &mut parts);
        }
        // A closing record of a part that is lost cannot be played either.
        for (index, file) in files.iter().enumerate() {
            chosen[index] |= may_change(file)? && self.closes_lost_part(log, file);
        }
        for (index, file) in files.iter().enumerate().filter(|(index, _)| chosen[*index]) {
            let others = files.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, file)| file);
            self.file(log, file, &others.collect::<Vec<_>>(), found.get(&file.name), &parts)?;
        }
        log.files = files;
        Ok(())
    }

    /// Writes a file anew and puts the old one away.
    fn file(
        &mut self,
        log: &mut Log,
        file: &LogFile,
        others: &[&LogFile],
        found: Option<&Vec<RecordShape>>,
        parts: &HashSet<PartName>,
    ) -> io::Result<()> {
        let Some(assessed) = self.assess(log, file) else {
            let why = "it cannot be read at all: copy it to another disk";
            self.report.refused.push((file.name.clone(), why.into()));
            return Ok(());
        };
        let mut repaired = RepairedFile { file: file.name.clone(), replaced_by: None, kept: 0, restored: 0, lost: 0 };
        let configs = self.configs(log, &assessed, others, &mut repaired);
        let (kept, dropped): (Vec<usize>, Vec<usize>) =
            (0..assessed.entries.len()).partition(|index| self.is_kept(&assessed, *index, &configs, parts));
        repaired.kept = kept.len() as u64;
        let mut lost: Vec<RecordShape> = dropped.iter().map(|index| assessed.entries[*index].shape).collect();
        lost.extend(found.into_iter().flatten().filter(|shape| !assessed.lists(shape)));
        let borrowed = configs.iter().filter(|(_, config)| config.is_some()).map(|(key, _)| *key);
        let borrowed: HashSet<ConfigKey> = borrowed.collect();
        let is_lost = |shape: &&RecordShape| shape.kind != RecordKind::Config || !borrowed.contains(&config_key(shape));
        repaired.lost = lost.iter().filter(is_lost).count() as u64;
        let gaps = self.gaps(&lost, parts, &assessed);
        self.report.gaps.extend(gaps.iter().cloned());
        if !self.how.dry_run {
            let header = FileHeader {
                read_only: false,
                file: FileId::new(),
                store: self.keys.store,
                // From its beginning: a file that failed ends at its first batch at least.
                replaces: Some((file.header.file, 0)),
                ..file.header
            };
            let name = file_name(header.epoch, header.file);
            if let Err(error) = self.write(header, file, &assessed, &kept, &configs, &gaps, &mut repaired) {
                // Its room back at once; what cannot be removed now the next start or repair removes.
                let _ = self.io.unlink(&name);
                return Err(error);
            }
            repaired.replaced_by = Some(name);
            self.put_away(&file.name)?;
        } else {
            let restored = kept.iter().filter(|index| self.is_restored(file, &assessed, **index));
            repaired.restored += restored.count() as u64;
        }
        self.report.files.push(repaired);
        Ok(())
    }

    fn is_restored(&self, file: &LogFile, assessed: &Assessed, index: usize) -> bool {
        let salvaged = self.salvage(file, &assessed.entries[index], assessed.heads[index].as_deref());
        salvaged.is_some_and(|(_, restored)| restored)
    }

    /// One for each fragment that lost something and that no gap speaks of yet.
    fn gaps(&mut self, lost: &[RecordShape], parts: &HashSet<PartName>, assessed: &Assessed) -> Vec<GapRecord> {
        let mut gaps = Vec::new();
        let media = |shape: &&RecordShape| matches!(shape.kind, RecordKind::Fragment | RecordKind::Part);
        for shape in lost.iter().filter(media) {
            let meta = &shape.meta;
            // Parts that are left are closed as an incomplete fragment by the next start: it takes the ordinal.
            let rest = parts.iter().any(|(stream, number, _)| (*stream, *number) == (meta.stream, meta.number));
            let ordinal = (!rest).then_some(meta.ordinal);
            if !self.known_gaps.insert((meta.stream, meta.producer_start, ordinal)) {
                continue;
            }
            gaps.push(GapRecord {
                stream: meta.stream,
                run: Some(meta.run),
                start: meta.producer_start,
                end: meta.producer_end(),
                noticed: self.how.now,
                cause: GapCause::Damage,
                count: assessed.sample_count(shape),
                ordinal,
            });
        }
        gaps
    }

    #[allow(clippy::too_many_arguments)] // called once
    fn write(
        &mut self,
        header: FileHeader,
        file: &LogFile,
        assessed: &Assessed,
        kept: &[usize],
        configs: &Configs,
        gaps: &[GapRecord],
        repaired: &mut RepairedFile,
    ) -> io::Result<()> {
        let archive = assessed.archived;
        let mut writer = Writer::create(self.io, header, 2 * HEADER_LEN as u64)?;
        writer.begin();
        // Before their first use.
        for (entry, sealed) in configs.values().flatten() {
            writer.copy(entry, sealed);
        }
        for index in kept {
            let (entry, head) = (&assessed.entries[*index], assessed.heads[*index].as_deref());
            let salvaged = self.salvage(file, entry, head);
            let (sealed, restored) = salvaged
                .ok_or_else(|| io::Error::other(format!("{}+{} does not open any more", file.name, entry.offset)))?;
            repaired.restored += u64::from(restored);
            writer.copy(entry, &sealed);
            if writer.pending_len() >= BATCH_BYTES {
                writer.commit(archive)?;
                writer.begin();
            }
        }
        for gap in gaps {
            let record = ControlRecord { number: self.next_number()?, body: Control::Gap(gap.clone()) };
            push_control(&mut writer, self.keys, &record, &record.encode());
        }
        writer.commit(archive)?;
        writer.close(self.keys.log_key())
    }

    fn next_number(&mut self) -> io::Result<FragmentNumber> {
        let (epoch, counter) = match self.numbers {
            Some(numbers) => numbers,
            None => (epoch::take(self.io, greatest_epoch(&self.io.list()?))?, 0),
        };
        self.numbers = Some((epoch, counter + 1));
        let sequence = (u64::from(epoch) << 32) | u64::from(counter);
        Ok(FragmentNumber::new(sequence, u64::try_from(self.how.now.0).unwrap_or(0), u32::from_be_bytes(random())))
    }
}

/// A file whose header does not match its checksum is damaged; one that does, but says something unknown, is not ours to
/// change.
fn may_change(file: &LogFile) -> io::Result<bool> {
    if !file.header.read_only {
        return Ok(true);
    }
    let bytes = reader::read(&*file.handle()?, 0, HEADER_LEN)?;
    let (checked, crc) = bytes.split_at(HEADER_LEN - 4);
    Ok(crc32c::crc32c(checked).to_be_bytes() != crc)
}
