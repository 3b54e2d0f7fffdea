//! Checks of a stopped data directory, and the replay that an index is rebuilt from.

use std::io;
use std::path::Path;
use std::sync::Arc;

use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::log::LogObserver;

use crate::backend::fs::FsIo;
use crate::backend::{DirLock, SegmentIo};
use crate::crypto::keychain;
use crate::crypto::keyring::Keyring;
use crate::crypto::keys::Secret;
use crate::files::Files;
use crate::load::{Log, LogFile, Mode, Records};
use crate::options::{Damage, OpenError, OpenReport, StoreOptions};
use crate::segment_file::footer::RecordEntry;
use crate::segment_file::reader;
use crate::segment_file::record::{RECORD_HEADER_LEN, RecordHeader, RecordOpener};
use crate::segment_file::recover;

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// All files have headers and footers, and are as long as those say.
    Presence,
    /// Also all checksums match.
    Checksum,
    /// Also every record opens.
    Decrypt,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Files done.
    pub files: u64,
    /// Of so many.
    pub files_total: u64,
    /// Records checked.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segment files.
    pub files: u64,
    /// Of these, without a footer (the server did not stop by itself).
    pub unclosed: u64,
    /// Records that should be there.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is not as it was written.
    pub damage: Vec<Damage>,
}

/// Checks a data directory that no server uses. Nothing is changed.
///
/// # Errors
/// If it is in use or its keys are not at hand. Damage is in the report.
pub fn verify(
    options: &StoreOptions,
    depth: Depth,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, OpenError> {
    verify_on(options, Arc::new(FsIo::new(&options.data_dir)), depth, progress)
}

/// As [`verify`], on another [`SegmentIo`].
///
/// # Errors
/// As `verify`.
pub fn verify_on(
    options: &StoreOptions,
    io: Arc<dyn SegmentIo>,
    depth: Depth,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, OpenError> {
    let (_lock, ring, same) = open(options, &*io)?;
    let table = Files::new(Arc::clone(&io));
    let mut log = Log::read(&*io, &ring, Mode::ReadOnly, &table)?;
    log.replay(&ring, &table, &[]);
    if !same {
        let detail = "one of the two copies is missing, damaged or behind".to_owned();
        log.report.damage.push(Damage { file: "keyring".into(), offset: 0, len: 0, record: None, detail });
    }
    let mut report = VerifyReport {
        files: log.report.files,
        unclosed: log.report.unclosed,
        damage: std::mem::take(&mut log.report.damage),
        ..VerifyReport::default()
    };
    let files = std::mem::take(&mut log.files);
    for (index, file) in files.iter().enumerate() {
        let reported = log.report.damage.len();
        let records = log.records_of(file, &ring);
        log.report.damage.truncate(reported);
        if let Ok(records) = records {
            let check = FileCheck { file, keys: &ring, log: &log };
            check.records(&records, depth, &mut report);
        }
        let (records, bytes) = (report.records, report.bytes);
        progress(Progress { files: index as u64 + 1, files_total: report.files, records, bytes });
    }
    report.damage.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
    report.damage.dedup_by(|a, b| (&a.file, a.offset) == (&b.file, b.offset));
    Ok(report)
}

/// Tells observers all that is in a data directory that no server uses. Nothing is changed: fragments that a crash left
/// open are not told.
///
/// # Errors
/// If it is in use or its keys are not at hand. Damage is in the report.
pub fn replay(options: &StoreOptions, observers: &[Arc<dyn LogObserver>]) -> Result<OpenReport, OpenError> {
    replay_with(options, |_| Ok(observers.to_vec()))
}

/// As [`replay`], with observers that need the index key.
///
/// # Errors
/// As `replay`, and what `observers` answers.
pub fn replay_with<E: From<OpenError>>(
    options: &StoreOptions,
    observers: impl FnOnce(&Secret) -> Result<Vec<Arc<dyn LogObserver>>, E>,
) -> Result<OpenReport, E> {
    let io: Arc<dyn SegmentIo> = Arc::new(FsIo::new(&options.data_dir));
    let (_lock, ring, same) = open(options, &*io)?;
    let observers = observers(ring.index_key())?;
    Ok(replay_log(&io, &ring, same, &observers)?)
}

/// As [`replay`], on another [`SegmentIo`].
///
/// # Errors
/// As `replay`.
pub fn replay_on(
    options: &StoreOptions,
    io: Arc<dyn SegmentIo>,
    observers: &[Arc<dyn LogObserver>],
) -> Result<OpenReport, OpenError> {
    let (_lock, ring, same) = open(options, &*io)?;
    replay_log(&io, &ring, same, observers)
}

fn replay_log(
    io: &Arc<dyn SegmentIo>,
    ring: &Keyring,
    same: bool,
    observers: &[Arc<dyn LogObserver>],
) -> Result<OpenReport, OpenError> {
    let table = Files::new(Arc::clone(io));
    let mut log = Log::read(&**io, ring, Mode::ReadOnly, &table)?;
    log.replay(ring, &table, observers);
    log.report.incomplete = log.open.len() as u64;
    log.report.keyring_repaired = !same;
    Ok(log.report)
}

/// Nothing is made where there is no store.
fn open(options: &StoreOptions, io: &dyn SegmentIo) -> Result<(DirLock, Keyring, bool), OpenError> {
    let data_dir = || options.data_dir.clone();
    let missing = || OpenError::KeyringMissing { data_dir: data_dir() };
    keychain::read(io, options)?.ok_or_else(missing)?;
    let lock = io.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { data_dir: data_dir() },
        _ => OpenError::Io { what: format!("lock {}", Path::display(&options.data_dir)), source: error },
    })?;
    let (ring, same) = keychain::read(io, options)?.ok_or_else(missing)?;
    Ok((lock, ring, same))
}

struct FileCheck<'a> {
    file: &'a LogFile,
    keys: &'a Keyring,
    log: &'a Log,
}

impl FileCheck<'_> {
    fn records(&self, records: &Records, depth: Depth, report: &mut VerifyReport) {
        let len = self.file.handle.len().unwrap_or(0);
        let living: Vec<&RecordEntry> =
            records.iter().map(|(entry, _)| entry).filter(|entry| !self.is_gone(entry)).collect();
        report.records += living.len() as u64;
        for entry in living.iter().filter(|entry| entry.end() > len) {
            self.damage(entry, "the file ends before the record".into(), report);
        }
        match depth {
            Depth::Presence => {}
            Depth::Checksum => self.checksums(&living, report),
            Depth::Decrypt => living.iter().for_each(|entry| self.open(entry, report)),
        }
    }

    fn is_gone(&self, entry: &RecordEntry) -> bool {
        let meta = &entry.shape.meta;
        match entry.shape.kind {
            crate::segment_file::record::RecordKind::Control => false,
            crate::segment_file::record::RecordKind::Config => self.log.controls.is_deleted(meta.stream),
            _ => self.log.controls.is_gone(meta.stream, meta.number),
        }
    }

    fn damage(&self, entry: &RecordEntry, detail: String, report: &mut VerifyReport) {
        let record: Option<(StreamId, FragmentNumber)> = Some((entry.shape.meta.stream, entry.shape.meta.number));
        let (file, offset, len) = (self.file.name.clone(), entry.offset, entry.shape.record_len());
        report.damage.push(Damage { file, offset, len, record, detail });
    }

    /// Batches whose checksum fails may have holes where records expired: those that live in them are opened.
    fn checksums(&self, living: &[&RecordEntry], report: &mut VerifyReport) {
        let bad = recover::bad_batches(&*self.file.handle, self.file.header.file, &mut report.bytes);
        let is_bad = |entry: &RecordEntry| match &bad {
            Ok(bad) => bad.iter().any(|range| range.start < entry.end() && entry.offset < range.end),
            Err(_) => true,
        };
        for entry in living {
            if is_bad(entry) {
                self.open(entry, report);
            }
        }
    }

    fn open(&self, entry: &RecordEntry, report: &mut VerifyReport) {
        report.bytes += entry.shape.record_len();
        if let Err(detail) = self.try_open(entry) {
            self.damage(entry, detail, report);
        }
    }

    fn try_open(&self, entry: &RecordEntry) -> Result<(), String> {
        let bytes = reader::read(&*self.file.handle, entry.offset, entry.shape.record_len() as usize);
        let bytes = bytes.map_err(|error| error.to_string())?;
        let header = RecordHeader::decode(&bytes[..RECORD_HEADER_LEN]).map_err(|error| error.to_string())?;
        if header.shape != entry.shape {
            return Err("another record stands there".into());
        }
        let outer = self.keys.outer(&header.shape).ok_or("its key is not in the keyring")?;
        let opener = RecordOpener::new(&header, outer);
        let head_len = header.shape.head_len() as usize;
        opener.head(bytes[..head_len].to_vec()).map_err(|error| error.to_string())?;
        let media_len = header.shape.media_len;
        let media = opener.media(&opener.span(&(0..media_len)), bytes[head_len..].to_vec(), media_len);
        media.map(|_| ()).map_err(|error| error.to_string())
    }
}
