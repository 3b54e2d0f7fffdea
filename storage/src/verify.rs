//! Checks of a stopped data directory, and the replay that an index is rebuilt from.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vidar_core::control::{Control, GapRecord};
use vidar_core::ids::{FileId, StreamId, StreamName};
use vidar_core::log::{LogEvent, LogObserver};

use crate::ahead;
use crate::backend::fs::FsIo;
use crate::backend::{DirLock, SegmentHandle, SegmentIo};
use crate::check::{FileCheck, Finding};
use crate::crypto::keychain;
use crate::crypto::keyring::Keyring;
use crate::crypto::keys::Secret;
use crate::files::Files;
use crate::load::{Log, LogFile, Mode, Records};
use crate::options::{Damage, OpenError, OpenReport, StoreOptions};
use crate::segment_file::footer::RecordEntry;
use crate::segment_file::header::{FileHeader, HEADER_LEN};
use crate::segment_file::reader::{self, Wanted};
use crate::shared::Shared;

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// All files have headers and footers, and are as long as those say.
    Presence,
    /// Also all checksums match, and what a checksum does not match opens.
    Checksum,
    /// Also every record opens.
    Decrypt,
}

/// How far a verification, a repair or a replay is. A replay reads each file twice: it counts for two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files done.
    pub files: u64,
    /// Of so many.
    pub files_total: u64,
    /// Records checked.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Length of the files that are done, and of what was read of the next one. 0 in a replay.
    pub done_bytes: u64,
    /// Of all files so many.
    pub total_bytes: u64,
}

impl Progress {
    fn of(files: u64, total_bytes: u64) -> Self {
        Self { files_total: files, total_bytes, ..Self::default() }
    }

    /// So many of the readings of a replay are done.
    pub(crate) fn of_replay(done: usize, files: usize) -> Self {
        Self { files: done as u64, files_total: 2 * files as u64, ..Self::default() }
    }

    /// Bytes of a file were read that ends at `end`.
    fn read(&mut self, bytes: u64, depth: Depth, end: u64) {
        self.bytes += bytes;
        // What is opened is read twice.
        let share = if depth == Depth::Decrypt { bytes.div_ceil(2) } else { bytes };
        self.done_bytes = (self.done_bytes + share).min(end);
    }

    fn file_done(&mut self, end: u64) {
        self.files += 1;
        self.done_bytes = end;
    }
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
    /// What is not as it was written, by file and offset.
    pub damage: Vec<Damage>,
    /// Names of the streams that exist.
    pub streams: BTreeMap<StreamId, StreamName>,
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
    let examined = examine(&io, &ring, depth, ahead::threads(options.by_hand), progress)?;
    let mut report = examined.report;
    if !same {
        let detail = "one of the two copies is missing, damaged or behind".to_owned();
        report.damage.insert(0, Damage { file: "keyring".into(), offset: 0, len: 0, record: None, detail });
    }
    Ok(report)
}

/// A data directory that was looked at.
pub(crate) struct Examined {
    pub(crate) log: Log,
    pub(crate) report: VerifyReport,
    /// As the damage in the report, in the same order.
    pub(crate) findings: Vec<Finding>,
    /// Gaps that the log holds.
    pub(crate) gaps: Vec<GapRecord>,
}

/// Reads all of the log, `threads` ahead, and looks at every file.
pub(crate) fn examine(
    io: &Arc<dyn SegmentIo>,
    keys: &Keyring,
    depth: Depth,
    threads: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<Examined, OpenError> {
    let table = Files::new(Arc::clone(io));
    let heard = Arc::new(Heard::default());
    let mut log = Log::read(&**io, keys, Mode::ReadOnly, &table, threads, &mut |_| {})?;
    log.replay(keys, &table, &[Arc::clone(&heard) as Arc<dyn LogObserver>], None, &mut |_| {});
    let (streams, gaps) = std::mem::take(&mut *heard.lock());
    let mut report =
        VerifyReport { files: log.report.files, unclosed: log.report.unclosed, streams, ..VerifyReport::default() };
    let mut findings = Vec::new();
    let mut of_log = std::mem::take(&mut log.report.damage);
    let files = std::mem::take(&mut log.files);
    let lengths: Vec<u64> = files.iter().map(LogFile::len).collect();
    let mut so_far = Progress::of(report.files, lengths.iter().sum());
    for (file, len) in files.iter().zip(lengths) {
        let end = so_far.done_bytes + len;
        let records = log.records_of(file, keys);
        log.report.damage.clear();
        let (own, others): (Vec<_>, Vec<_>) = of_log.into_iter().partition(|damage| damage.file == file.name);
        of_log = others;
        let entries: Vec<_> = records.iter().flat_map(Records::iter).map(|(entry, _)| entry.clone()).collect();
        let closed = matches!(records, Ok(Records::Closed(_)));
        // Bytes that a scan found no record in; not those of a footer.
        let scanned = match &records {
            Ok(Records::Scanned(scan)) => HEADER_LEN as u64..scan.data_end,
            _ => 0..0,
        };
        let controls = &log.controls;
        let handle = file.handle().map_err(OpenError::io("check a segment file"))?;
        let mut check = FileCheck {
            name: &file.name,
            file: file.header.file,
            handle: &*handle,
            closed,
            keys,
            is_gone: &|shape| controls.is_gone_record(shape),
            pace: &mut |bytes| {
                so_far.read(bytes, depth, end);
                progress(so_far);
                Ok(())
            },
        };
        for damage in own {
            if damage.record.is_none() && scanned.contains(&damage.offset) {
                check.identify(damage, &|_| false, &mut findings);
            } else {
                findings.push(Finding { damage, shape: None });
            }
        }
        let (count, found) = check.run(&entries, depth).map_err(OpenError::io("check a segment file"))?;
        findings.extend(found);
        so_far.records += count;
        so_far.file_done(end);
        progress(so_far);
    }
    (report.records, report.bytes) = (so_far.records, so_far.bytes);
    log.files = files;
    findings.extend(of_log.into_iter().map(|damage| Finding { damage, shape: None }));
    // Of two that say the same the one that names the record.
    let place = |finding: &Finding| (finding.damage.file.clone(), finding.damage.offset);
    findings.sort_by_key(|finding| (place(finding), finding.damage.record.is_none()));
    findings.dedup_by_key(|finding| place(finding));
    report.damage = findings.iter().map(|finding| finding.damage.clone()).collect();
    Ok(Examined { log, report, findings, gaps })
}

/// As [`verify`], of the closed files of a running store. See [`Store::verify`](crate::Store::verify).
pub(crate) fn verify_running(
    shared: &Shared,
    depth: Depth,
    pace: &mut dyn FnMut(Progress) -> io::Result<()>,
    found: &mut dyn FnMut(Damage),
) -> io::Result<Progress> {
    let found = &mut |damage: Damage| {
        if let Some((stream, number)) = damage.record {
            shared.damaged.note(stream, number);
        }
        found(damage);
    };
    let files = shared.files.closed();
    let mut progress = Progress::of(files.len() as u64, files.iter().map(|(_, len)| len).sum());
    for (header, len) in files {
        let end = progress.done_bytes + len;
        let name = shared.files.name(header.file);
        // What went meanwhile is not looked at.
        if let (Some(name), Ok(Some(handle))) = (name, shared.files.handle(header.file)) {
            let keys = shared.keys.ring();
            let (entries, damage) = read_closed(&name, &*handle, header.file, &keys);
            let exists = || shared.files.name(header.file).is_some();
            damage.into_iter().filter(|_| exists()).for_each(&mut *found);
            let mut check = FileCheck {
                name: &name,
                file: header.file,
                handle: &*handle,
                closed: true,
                keys: &keys,
                is_gone: &|shape| shared.controls().is_gone_record(shape),
                pace: &mut |bytes| {
                    progress.read(bytes, depth, end);
                    pace(progress)
                },
            };
            let (records, findings) = check.run(&entries, depth)?;
            progress.records += records;
            findings.into_iter().filter(|_| exists()).for_each(|finding| found(finding.damage));
        }
        progress.file_done(end);
        pace(progress)?;
    }
    Ok(progress)
}

/// The entries of a closed file, and what is wrong with its header or footer.
fn read_closed(
    name: &str,
    handle: &dyn SegmentHandle,
    file: FileId,
    keys: &Keyring,
) -> (Vec<RecordEntry>, Option<Damage>) {
    let damage =
        |offset, len, detail: String| Some(Damage { file: name.to_owned(), offset, len, record: None, detail });
    let header = reader::read(handle, 0, HEADER_LEN).map_err(|error| error.to_string());
    let header = header.and_then(|bytes| FileHeader::decode(&bytes).map_err(|error| error.to_string()));
    let of_header = header.err().and_then(|detail| damage(0, HEADER_LEN as u64, detail));
    match reader::read_trailer(handle, file) {
        Ok(Some(trailer)) => match reader::read_footer(handle, trailer, keys.log_key(), Wanted::All) {
            Ok(footer) => (footer.records().map(|(entry, _)| entry.clone()).collect(), of_header),
            Err(error) => (Vec::new(), damage(trailer.copies_offset, trailer.copies_len, error.to_string())),
        },
        Ok(None) => (Vec::new(), damage(0, 0, "its trailer does not read".into())),
        Err(error) => (Vec::new(), damage(0, 0, format!("cannot be read: {error}"))),
    }
}

/// Names of streams and gaps, as the log tells them.
#[derive(Default)]
struct Heard(Mutex<(BTreeMap<StreamId, StreamName>, Vec<GapRecord>)>);

impl Heard {
    fn lock(&self) -> MutexGuard<'_, (BTreeMap<StreamId, StreamName>, Vec<GapRecord>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogObserver for Heard {
    fn observe(&self, event: &LogEvent) {
        let LogEvent::Control(record) = event else { return };
        match &record.body {
            // In the order of their numbers: the newest holds.
            Control::Stream(stream) => {
                self.lock().0.insert(stream.stream, stream.name.clone());
            }
            Control::StreamDeleted { stream, .. } => {
                self.lock().0.remove(stream);
            }
            Control::Gap(gap) => self.lock().1.push(gap.clone()),
            _ => {}
        }
    }
}

/// Tells observers all that is in a data directory that no server uses. Nothing is changed: fragments that a crash left
/// open are not told.
///
/// # Errors
/// If it is in use or its keys are not at hand. Damage is in the report.
pub fn replay(options: &StoreOptions, observers: &[Arc<dyn LogObserver>]) -> Result<OpenReport, OpenError> {
    replay_with(options, |_| Ok(observers.to_vec()), &mut |_| {})
}

/// As [`replay`], with observers that need the index key. `progress` hears of each file that was read.
///
/// # Errors
/// As `replay`, and what `observers` answers.
pub fn replay_with<E: From<OpenError>>(
    options: &StoreOptions,
    observers: impl FnOnce(&Secret) -> Result<Vec<Arc<dyn LogObserver>>, E>,
    progress: &mut dyn FnMut(Progress),
) -> Result<OpenReport, E> {
    let io: Arc<dyn SegmentIo> = Arc::new(FsIo::new(&options.data_dir));
    let (_lock, ring, same) = open(options, &*io)?;
    let observers = observers(ring.index_key())?;
    Ok(replay_log(&io, &ring, same, &observers, ahead::threads(options.by_hand), progress)?)
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
    replay_log(&io, &ring, same, observers, ahead::threads(options.by_hand), &mut |_| {})
}

fn replay_log(
    io: &Arc<dyn SegmentIo>,
    ring: &Keyring,
    same: bool,
    observers: &[Arc<dyn LogObserver>],
    threads: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<OpenReport, OpenError> {
    let table = Files::new(Arc::clone(io));
    let mut log = Log::read(&**io, ring, Mode::ReadOnly, &table, threads, progress)?;
    log.replay(ring, &table, observers, None, progress);
    log.report.incomplete = log.open.len() as u64;
    log.report.keyring_repaired = !same;
    Ok(log.report)
}

/// Nothing is made where there is no store.
pub(crate) fn open(options: &StoreOptions, io: &dyn SegmentIo) -> Result<(DirLock, Keyring, bool), OpenError> {
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
