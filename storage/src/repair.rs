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

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vidar_core::control::{Control, ControlRecord, GapCause, GapRecord};
use vidar_core::ids::{FileId, FragmentNumber, StreamId, StreamName};
use vidar_core::source::ConfigKey;
use vidar_core::time::UnixMs;

use crate::backend::SegmentIo;
use crate::backend::fs::FsIo;
use crate::check;
use crate::commit::push_control;
use crate::crypto::keychain::Keychain;
use crate::crypto::keyring::Keyring;
use crate::crypto::keys::random;
use crate::epoch;
use crate::load::{Log, LogFile, Records, greatest_epoch, open_fragment};
use crate::options::{Damage, OpenError, StoreOptions};
use crate::segment_file::footer::RecordEntry;
use crate::segment_file::header::{FileHeader, HEADER_LEN, file_name};
use crate::segment_file::reader;
use crate::segment_file::record::{RecordKind, RecordShape};
use crate::segment_file::writer::Writer;
use crate::verify::{Depth, Examined, Progress, examine, open};

/// A batch of copied records is written above this.
const BATCH_BYTES: usize = 8 << 20;
/// Bytes that are copied at once where a file cannot be renamed.
const COPY_BYTES: u64 = 1 << 20;

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
    let examined = examine(&io, &ring, Depth::Decrypt, progress)?;
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

/// What is found of one file.
struct Assessed {
    entries: Vec<RecordEntry>,
    /// Sealed heads as the footer or a scan has them, one for each entry.
    heads: Vec<Option<Vec<u8>>>,
    /// As many: it opens, with or without its copied head.
    good: Vec<bool>,
    archived: UnixMs,
}

impl Repair<'_> {
    fn files(&mut self, log: &mut Log, found: &BTreeMap<String, Vec<RecordShape>>) -> io::Result<()> {
        for name in std::mem::take(&mut log.unfinished) {
            if !self.how.dry_run {
                self.io.unlink(&name)?;
                self.io.sync_dir()?;
            }
        }
        for name in std::mem::take(&mut log.replaced) {
            self.dispose(&name)?;
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
            let unclosed = reader::read_trailer(&*file.handle, file.header.file)?.is_none();
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

    fn assess(&self, log: &mut Log, file: &LogFile) -> Option<Assessed> {
        let records = log.records_of(file, self.keys).ok()?;
        let archived = records.archived().unwrap_or(file.header.archive);
        let (mut entries, mut heads, mut good) = (Vec::new(), Vec::new(), Vec::new());
        for (entry, head) in living(log, &records) {
            let head = head.map(<[u8]>::to_vec);
            good.push(self.salvage(file, entry, head.as_deref()).is_some());
            entries.push(entry.clone());
            heads.push(head);
        }
        Some(Assessed { entries, heads, good, archived })
    }

    /// The bytes of a record that opens, and whether its head had to come from a copy.
    fn salvage(&self, file: &LogFile, entry: &RecordEntry, copy: Option<&[u8]>) -> Option<(Vec<u8>, bool)> {
        let shape = &entry.shape;
        let head_len = u64::from(shape.head_len());
        let read = |from: u64, len: u64| reader::read(&*file.handle, entry.offset + from, len as usize).ok();
        if let Some(bytes) = read(0, shape.record_len())
            && check::open(self.keys, shape, &bytes).is_ok()
        {
            return Some((bytes, false));
        }
        let mut bytes = copy?.to_vec();
        bytes.extend(read(head_len, shape.record_len() - head_len)?);
        check::open(self.keys, shape, &bytes).is_ok().then_some((bytes, true))
    }

    /// Which parts are good, and what is lost.
    fn learn_parts(
        &mut self,
        log: &mut Log,
        file: &LogFile,
        damaged: bool,
        found: Option<&Vec<RecordShape>>,
        parts: &mut HashSet<PartName>,
    ) {
        let part = |shape: &RecordShape| (shape.meta.stream, shape.meta.number, shape.part);
        if !damaged {
            let Ok(records) = log.records_of(file, self.keys) else { return };
            let shapes = living(log, &records).map(|(entry, _)| entry.shape);
            parts.extend(shapes.filter(|shape| shape.kind == RecordKind::Part).map(|shape| part(&shape)));
            return;
        }
        let assessed = self.assess(log, file);
        let listed = assessed.iter().flat_map(|assessed| assessed.entries.iter().zip(&assessed.good));
        for (entry, good) in listed {
            if entry.shape.kind == RecordKind::Part && *good {
                parts.insert(part(&entry.shape));
            } else if !good {
                self.lose(&entry.shape);
            }
        }
        let unlisted = found.into_iter().flatten();
        unlisted.filter(|shape| !assessed.as_ref().is_some_and(|a| a.lists(shape))).for_each(|shape| self.lose(shape));
    }

    fn lose(&mut self, shape: &RecordShape) {
        if shape.kind == RecordKind::Part {
            self.lost_parts.insert((shape.meta.stream, shape.meta.number, shape.part));
        }
    }

    fn closes_lost_part(&self, log: &mut Log, file: &LogFile) -> bool {
        let Ok(records) = log.records_of(file, self.keys) else { return false };
        let mut closings = records
            .iter()
            .map(|(entry, _)| &entry.shape)
            .filter(|shape| shape.kind == RecordKind::Fragment && shape.part > 0);
        closings.any(|shape| {
            let (stream, number) = (shape.meta.stream, shape.meta.number);
            (0..shape.part).any(|part| self.lost_parts.contains(&(stream, number, part)))
        })
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
                replaces: Some((file.header.file, HEADER_LEN as u64)),
                ..file.header
            };
            self.write(header, file, &assessed, &kept, &configs, &gaps, &mut repaired)?;
            repaired.replaced_by = Some(file_name(header.epoch, header.file));
            self.dispose(&file.name)?;
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

    /// Of every config that the file needs: none where it stands in the file and is good; else the same from another.
    /// What is in neither is not listed.
    #[allow(clippy::type_complexity)]
    fn configs(
        &self,
        log: &mut Log,
        assessed: &Assessed,
        others: &[&LogFile],
        repaired: &mut RepairedFile,
    ) -> BTreeMap<ConfigKey, Option<(RecordEntry, Vec<u8>)>> {
        let mut configs = BTreeMap::new();
        let of = |kind: fn(RecordKind) -> bool| {
            let entries = assessed.entries.iter().zip(&assessed.good);
            entries.filter(move |(entry, good)| **good && kind(entry.shape.kind)).map(|(entry, _)| entry)
        };
        configs.extend(of(|kind| kind == RecordKind::Config).map(|entry| (config_key(&entry.shape), None)));
        let needed = of(|kind| matches!(kind, RecordKind::Fragment | RecordKind::Part));
        let mut missing: BTreeSet<ConfigKey> =
            needed.map(|entry| config_key(&entry.shape)).filter(|key| !configs.contains_key(key)).collect();
        for file in others {
            if missing.is_empty() {
                break;
            }
            let Ok(records) = log.records_of(file, self.keys) else { continue };
            for (entry, _) in records.iter().filter(|(entry, _)| entry.shape.kind == RecordKind::Config) {
                let key = config_key(&entry.shape);
                if missing.contains(&key)
                    && let Some((sealed, _)) = self.salvage(file, entry, None)
                {
                    missing.remove(&key);
                    configs.insert(key, Some((entry.clone(), sealed)));
                    repaired.restored += 1;
                }
            }
        }
        configs
    }

    fn is_kept(
        &self,
        assessed: &Assessed,
        index: usize,
        configs: &BTreeMap<ConfigKey, Option<(RecordEntry, Vec<u8>)>>,
        parts: &HashSet<PartName>,
    ) -> bool {
        let (entry, head) = (&assessed.entries[index], assessed.heads[index].as_deref());
        let shape = &entry.shape;
        let name = (shape.meta.stream, shape.meta.number);
        let decodes = || configs.contains_key(&config_key(shape));
        assessed.good[index]
            && match shape.kind {
                RecordKind::Config | RecordKind::Control => true,
                RecordKind::Part => decodes(),
                RecordKind::Fragment => {
                    let there = |part: u16| parts.contains(&(name.0, name.1, part));
                    let head = open_fragment(self.keys, entry, head);
                    let whole = |table: &vidar_core::record::TableEnvelope| {
                        table.pieces.iter().filter_map(|piece| piece.part).all(there)
                    };
                    decodes() && head.is_ok_and(|head| whole(&head.table))
                }
            }
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
        configs: &BTreeMap<ConfigKey, Option<(RecordEntry, Vec<u8>)>>,
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
            None => (epoch::take(self.io, greatest_epoch(self.io)?)?, 0),
        };
        self.numbers = Some((epoch, counter + 1));
        let sequence = (u64::from(epoch) << 32) | u64::from(counter);
        Ok(FragmentNumber::new(sequence, u64::try_from(self.how.now.0).unwrap_or(0), u32::from_be_bytes(random())))
    }

    /// Puts a file away that another holds all good records of.
    fn dispose(&self, name: &str) -> io::Result<()> {
        if self.how.dry_run {
            return Ok(());
        }
        if let Disposal::Quarantine(folder) = &self.how.disposal
            && !self.moved(name, folder)?
        {
            copy_out(self.io, name, &folder.join(name))?;
        }
        match self.io.unlink(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.io.sync_dir()
    }

    /// Renames the file into a folder. False where that cannot be: it stands on another disk, or on none.
    fn moved(&self, name: &str, folder: &Path) -> io::Result<bool> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let Some(path) = self.io.path(name) else { return Ok(false) };
        match fs::rename(path, folder.join(name)) {
            Ok(()) => fs::File::open(folder)?.sync_all().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Assessed {
    fn lists(&self, shape: &RecordShape) -> bool {
        self.entries.iter().any(|entry| entry.shape == *shape)
    }

    /// Samples of a fragment, where its entry says.
    fn sample_count(&self, shape: &RecordShape) -> u64 {
        let entry = self.entries.iter().find(|entry| entry.shape == *shape);
        entry.and_then(|entry| entry.summary.as_ref()).map_or(0, |summary| summary.sample_count())
    }
}

fn living<'a>(log: &'a Log, records: &'a Records) -> impl Iterator<Item = (&'a RecordEntry, Option<&'a [u8]>)> {
    records.iter().filter(|(entry, _)| !log.controls.is_gone_record(&entry.shape))
}

fn config_key(shape: &RecordShape) -> ConfigKey {
    (shape.meta.stream, shape.meta.config)
}

/// A file whose header does not match its checksum is damaged; one that does, but says something unknown, is not ours to
/// change.
fn may_change(file: &LogFile) -> io::Result<bool> {
    if !file.header.read_only {
        return Ok(true);
    }
    let bytes = reader::read(&*file.handle, 0, HEADER_LEN)?;
    let (checked, crc) = bytes.split_at(HEADER_LEN - 4);
    Ok(crc32c::crc32c(checked).to_be_bytes() != crc)
}

/// Copies a file; what cannot be read becomes zeros.
fn copy_out(io: &dyn SegmentIo, name: &str, to: &Path) -> io::Result<()> {
    let handle = io.open(name)?;
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    let (len, mut at) = (handle.len()?, 0);
    while at < len {
        let take = COPY_BYTES.min(len - at);
        let bytes = reader::read(&*handle, at, take as usize).or_else(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(vec![0; take as usize]),
        })?;
        out.write_all(&bytes)?;
        at += take;
    }
    out.sync_all()?;
    to.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
