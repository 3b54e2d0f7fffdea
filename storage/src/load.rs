//! Reading the whole log: at start, for a rebuild, for verification.
//!
//! Observers first hear of streams, deletions, floors, keys and runs, in the order of their numbers: what a fragment
//! refers to is known before it. Then come fragments, ends of runs and gaps, in the order of the log. Copies of a control
//! record are heard once; fragments that are deleted or below their floor, not at all.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use uuid::Uuid;
use vidar_core::control::{Control, ControlRecord};
use vidar_core::entry::Locator;
use vidar_core::ids::{FileId, FragmentNumber, StreamId};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::record::FragmentMeta;
use vidar_core::source::FragmentHead;
use vidar_core::time::UnixMs;

use crate::ahead;
use crate::backend::{SegmentHandle, SegmentIo};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::keeper::{self, Mark};
use crate::class::LONGEST;
use crate::controls::Controls;
use crate::crypto::keyring::Keyring;
use crate::files::{FileInfo, Files};
use crate::handles::Handles;
use crate::listing::{self, Listing};
use crate::options::{Damage, OpenError, OpenReport};
use crate::punch::{self, Stretch};
use crate::segment_file::footer::{self, RecordEntry};
use crate::segment_file::header::{FileHeader, HEADER_LEN, HeaderError, file_name, is_torn, parse_file_name};
use crate::segment_file::reader::{self, Footer, Wanted};
use crate::segment_file::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind, RecordOpener};
use crate::segment_file::recover::{self, BadSpan, Scan};
use crate::segment_file::writer;
use crate::told::{Closed, Head, Step, Told};
use crate::verify::Progress;

/// A replay of so many files ends with a checkpoint.
const FILES_PER_REPLAY: usize = 64;
/// Files that a replay goes through before it makes a checkpoint on the way, or a quarter of those before, if that is more:
/// each checkpoint names all of them.
const FILES_PER_CHECKPOINT: usize = if cfg!(test) { 4 } else { 4096 };

/// Whether the directory may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing is written.
    ReadOnly,
    /// Files without footer are closed; what a crash left undone is done.
    Recover,
}

/// A segment file that was found.
pub(crate) struct LogFile {
    pub(crate) header: FileHeader,
    pub(crate) name: String,
    handles: Arc<Handles>,
    /// From here on it was written again elsewhere.
    void_from: Option<u64>,
    /// End of its batches, as the list of files has it; 0: not closed, or not listed.
    listed_end: u64,
}

impl LogFile {
    /// Opens it, if it is not open.
    pub(crate) fn handle(&self) -> io::Result<Arc<dyn SegmentHandle>> {
        self.handles.get(self.header.epoch, self.header.file)
    }

    /// No more than this is read to know what is in it, as far as that is known.
    fn len_to_read(&self) -> u64 {
        if self.listed_end > 0 { self.listed_end } else { u64::MAX }
    }

    /// In bytes; 0 if it cannot be read.
    pub(crate) fn len(&self) -> u64 {
        self.handle().and_then(|handle| handle.len()).unwrap_or(0)
    }
}

/// The records of a file, from its footer or from a scan.
pub(crate) enum Records {
    Closed(Footer),
    Scanned(Scan),
}

impl Records {
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = (&RecordEntry, Option<&[u8]>)> + '_> {
        match self {
            Self::Closed(footer) => Box::new(footer.records()),
            Self::Scanned(scan) => Box::new(scan.records.iter().map(|(entry, head)| (entry, Some(&head[..])))),
        }
    }

    /// Each record, one after the other, with its sealed head, which may be opened in place.
    pub(crate) fn for_each(self, mut each: impl FnMut(RecordEntry, Option<&mut [u8]>)) {
        match self {
            Self::Closed(footer) => footer.for_each(each),
            Self::Scanned(scan) => scan.records.into_iter().for_each(|(entry, mut head)| each(entry, Some(&mut head))),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Closed(footer) => footer.entries.len(),
            Self::Scanned(scan) => scan.records.len(),
        }
    }

    /// About how many bytes of memory they take.
    fn weight(&self) -> usize {
        match self {
            Self::Closed(footer) => footer.weight(),
            Self::Scanned(scan) => {
                scan.records.iter().map(|(_, head)| size_of::<RecordEntry>() + head.capacity()).sum()
            }
        }
    }

    fn data_end(&self) -> u64 {
        match self {
            Self::Closed(footer) => footer.trailer.data_end,
            Self::Scanned(scan) => scan.data_end,
        }
    }

    /// When the last of them became durable, by the archive clock.
    pub(crate) fn archived(&self) -> Option<UnixMs> {
        match self {
            Self::Closed(footer) => Some(footer.trailer.archive),
            Self::Scanned(scan) => scan.archive,
        }
    }
}

/// A part whose fragment is not closed.
#[derive(Debug, Clone)]
pub(crate) struct OpenPart {
    pub(crate) index: u16,
    pub(crate) locator: Locator,
}

/// A fragment of which there are parts, but no closing record.
#[derive(Debug, Clone)]
pub(crate) struct OpenParts {
    /// Of the newest part.
    pub(crate) meta: FragmentMeta,
    /// Of retention, of all its records.
    pub(crate) class: u8,
    pub(crate) parts: Vec<OpenPart>,
}

/// Open fragments by name.
pub(crate) type OpenFragments = HashMap<(StreamId, FragmentNumber), OpenParts>;

/// Takes note of a part; `meta` is what it says of its fragment, `class` that of the file it is in.
pub(crate) fn note_part(open: &mut OpenFragments, meta: FragmentMeta, class: u8, part: OpenPart) {
    let new = || OpenParts { meta, class: LONGEST, parts: Vec::new() };
    let fragment = open.entry((meta.stream, meta.number)).or_insert_with(new);
    // A later version may have more classes.
    (fragment.meta, fragment.class) = (meta, class.min(LONGEST));
    fragment.parts.push(part);
}

/// Where the `count` parts of a closed fragment are. What is missing has a locator of length 0.
pub(crate) fn part_locators(parts: Option<OpenParts>, count: u16, record: &Locator) -> Vec<Locator> {
    let missing = Locator { offset: 0, head_len: 0, media_len: 0, record_len: 0, ..*record };
    let mut locators = vec![missing; count.into()];
    for part in parts.into_iter().flat_map(|parts| parts.parts) {
        if let Some(locator) = locators.get_mut(usize::from(part.index)) {
            *locator = part.locator;
        }
    }
    locators
}

/// What the log adds up to.
pub(crate) struct Log {
    pub(crate) files: Vec<LogFile>,
    pub(crate) controls: Controls,
    /// Greatest archive time.
    pub(crate) archive: Option<UnixMs>,
    pub(crate) open: OpenFragments,
    pub(crate) report: OpenReport,
    /// Files whose every record stands in another file, by name: a repair wrote them anew, and did not come to put them
    /// away.
    pub(crate) replaced: Vec<String>,
    /// Copies that a repair did not finish, by name.
    pub(crate) unfinished: Vec<String>,
    /// Each once, in the order of numbers.
    records: Vec<Arc<ControlRecord>>,
    /// Fragments of torn batches of which not all parts were written.
    torn: HashSet<(StreamId, FragmentNumber)>,
    /// What the list says that should be there.
    listing: Listing,
    mode: Mode,
    /// That read ahead.
    threads: usize,
    handles: Arc<Handles>,
    /// Where it went on from.
    checkpoint: Option<Checkpoint>,
    /// Something does not open that may do so another time: a checkpoint would hide it.
    is_hiding: bool,
    /// What was read of a file may not be on the disk, and could not be brought there: nothing may be built on it.
    is_unsynced: bool,
    /// A power cut takes no name of a file. Of one whose making was interrupted it may, whatever a start wrote to it since.
    is_named: bool,
    /// Fragments that were told, where a header is lost: what it voided may come back.
    told: Option<HashSet<FragmentNumber>>,
    /// Closing records that were met before all of their parts, as in a file whose place is lost.
    early: Vec<Early>,
}

/// A closing record that waits for parts from files behind it.
struct Early {
    file: usize,
    fragment: Closed,
}

/// The records of a file, and what is wrong with its footer.
pub(crate) type ReadRecords = (io::Result<Records>, Option<BadSpan>);

/// The greatest epoch in the names of segment files.
pub(crate) fn greatest_epoch(names: &[String]) -> u32 {
    names.iter().filter_map(|name| parse_file_name(name)).map(|(epoch, _)| epoch).max().unwrap_or(0)
}

impl Log {
    /// Finds all files, closes those that were not (`Recover`), and reads all control records. `threads` read ahead;
    /// `progress` hears of each file.
    pub(crate) fn read(
        io: &dyn SegmentIo,
        keys: &Keyring,
        mode: Mode,
        table: &Files,
        threads: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, OpenError> {
        let (mut log, _) = Self::new(io, keys, mode, table, threads)?;
        let names = io.list().map_err(OpenError::io("list segment files"))?;
        let present = log.find_files(io, names, keys.store)?;
        log.read_files(io, keys, table, &present, progress);
        Ok(log)
    }

    /// As `read`, in `Recover`, of what came after a checkpoint, among files of these names. What was found so far if it cannot be
    /// trusted.
    pub(crate) fn resume(
        io: &dyn SegmentIo,
        names: Vec<String>,
        keys: &Keyring,
        table: &Files,
        checkpoint: Checkpoint,
        observers: &[Arc<dyn LogObserver>],
        threads: usize,
    ) -> Result<Result<Self, OpenReport>, OpenError> {
        let distrust = |log: Self, why: &str| {
            tracing::warn!(why, "the checkpoint is not what the directory holds: reading the whole log");
            Ok(Err(log.report))
        };
        let (mut log, is_listed) = Self::new(io, keys, Mode::Recover, table, threads)?;
        if !is_listed {
            return distrust(log, "there is no list of files");
        }
        let (id, last, of_streams) = (checkpoint.id, checkpoint.last, checkpoint.keys.clone());
        let left_out = checkpoint.left_out.clone();
        log.checkpoint = Some(checkpoint);
        let present = log.find_files(io, names, keys.store)?;
        let checkpoint = log.checkpoint.as_mut().expect("it was just put there");
        let files = &mut checkpoint.files;
        if files
            .iter()
            .any(|info| !present.contains(&info.header.file) && log.listing.0.contains_key(&info.header.file))
        {
            return distrust(log, "a file is missing");
        }
        // It is not listed: it was removed on purpose.
        let removed: Vec<_> = files.extract_if(.., |info| !present.contains(&info.header.file)).collect();
        let is_new = |LogFile { header, .. }: &LogFile| {
            !header.read_only && ((header.epoch, header.sequence) > last || left_out.contains(&header.file))
        };
        if !log.files.iter().all(is_new) {
            return distrust(log, "a file is there that it does not name");
        }
        log.take_over(table);
        log.read_files(io, keys, table, &present, &mut |_| {});
        if !removed.iter().all(|info| info.may_be_dead(&log.controls)) {
            return distrust(log, "a file went of which not all had expired: a repair wrote it anew");
        }
        let has_key = |(stream, version): &(StreamId, u32)| {
            log.controls.is_deleted(*stream) || keys.current(*stream).is_some_and(|(newest, _)| newest >= *version)
        };
        if !of_streams.iter().all(has_key) {
            return distrust(log, "a key is missing");
        }
        // All of them, whatever the others say: each is asked once.
        let restored = observers.iter().filter(|observer| observer.restore(id)).count();
        if restored < observers.len() {
            return distrust(log, "what was derived from the log is not there");
        }
        log.report.resumed = true;
        Ok(Ok(log))
    }

    /// Takes over what a reading that was given up found in files that it then closed: in them it is not found again.
    pub(crate) fn found_before(&mut self, before: OpenReport) {
        let report = &mut self.report;
        report.unclosed = report.unclosed.max(before.unclosed);
        report.dropped_bytes = report.dropped_bytes.max(before.dropped_bytes);
        let not_again: Vec<_> = before.damage.into_iter().filter(|damage| !report.damage.contains(damage)).collect();
        report.damage.splice(0..0, not_again);
    }

    /// Begins with what the checkpoint says.
    fn take_over(&mut self, table: &Files) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        for info in &checkpoint.files {
            table.insert(info.clone());
        }
        checkpoint.controls.iter().for_each(|record| self.controls.note(record));
        for (run, stream, last) in &checkpoint.runs {
            self.controls.note_last(*run, *stream, *last);
        }
        self.records.clone_from(&checkpoint.controls);
        self.archive = Some(checkpoint.archive);
        self.open = std::mem::take(&mut checkpoint.open);
    }

    /// The second: there is a list of files, and it reads.
    fn new(
        io: &dyn SegmentIo,
        keys: &Keyring,
        mode: Mode,
        table: &Files,
        threads: usize,
    ) -> Result<(Self, bool), OpenError> {
        let (controls, open, report) = (Controls::default(), HashMap::new(), OpenReport::default());
        let (files, records, torn) = (Vec::new(), Vec::new(), HashSet::new());
        let (replaced, unfinished, told, early) = (Vec::new(), Vec::new(), None, Vec::new());
        let (listing, wrong) = Listing::read(io, keys.store).map_err(OpenError::io("read the list of files"))?;
        let mut log = Self {
            files,
            controls,
            archive: None,
            open,
            report,
            replaced,
            unfinished,
            records,
            torn,
            listing,
            mode,
            threads,
            handles: Arc::clone(table.handles()),
            checkpoint: None,
            is_hiding: false,
            is_unsynced: false,
            is_named: false,
            told,
            early,
        };
        let is_listed = wrong.is_none() && !log.listing.0.is_empty();
        if let Some(detail) = wrong {
            log.damage(listing::NAME, 0, 0, detail);
        }
        Ok((log, is_listed))
    }

    /// The first of two passes over the files that were found.
    fn read_files(
        &mut self,
        io: &dyn SegmentIo,
        keys: &Keyring,
        table: &Files,
        present: &HashSet<FileId>,
        progress: &mut dyn FnMut(Progress),
    ) {
        let missing = self.find_missing(present);
        let is_listed = |file: &LogFile| self.listing.0.contains_key(&file.header.file);
        self.is_named = self.files.iter().all(is_listed) || self.mode == Mode::Recover && io.sync_dir().is_ok();
        let mut seen: HashSet<_> = self.records.iter().map(|record| record.number).collect();
        let mut files = std::mem::take(&mut self.files);
        let mut kept = Vec::with_capacity(files.len());
        ahead::in_order(
            &files,
            self.threads,
            LogFile::len_to_read,
            |file| read_records(file, keys, Wanted::Controls),
            |(records, _)| records.as_ref().map_or(0, Records::weight),
            |index, read| {
                progress(Progress::of_replay(index, files.len()));
                let records = self.take_records(&files[index], read);
                let at = (&files[index], &files[..index]);
                kept.push(self.first_pass(io, at, records, keys, table, &mut seen));
            },
        );
        let mut kept = kept.into_iter();
        files.retain(|_| kept.next().unwrap_or(true));
        self.files = files;
        if self.mode == Mode::Recover {
            table.keep_list(keys.store, missing);
        }
        self.records.sort_by_key(|record| record.number);
        self.report.files = self.files.len() as u64;
        self.report.controls = self.records.len() as u64;
    }

    /// Returns the ids in all names.
    fn find_files(
        &mut self,
        io: &dyn SegmentIo,
        names: Vec<String>,
        store: Uuid,
    ) -> Result<HashSet<FileId>, OpenError> {
        let failed = |name: &str| OpenError::io(format!("read {name}"));
        let (mut present, mut unordered) = (HashSet::new(), Vec::new());
        let included = self.checkpoint.iter().flat_map(|checkpoint| &checkpoint.files);
        let included: HashMap<FileId, u32> = included.map(|info| (info.header.file, info.header.epoch)).collect();
        let mut found = Vec::new();
        for name in names {
            let Some((epoch, file)) = parse_file_name(&name) else { continue };
            present.insert(file);
            if included.get(&file) != Some(&epoch) {
                found.push((epoch, file, name));
            }
        }
        let mut headers = Vec::with_capacity(found.len());
        let work = |(.., name): &(u32, FileId, String)| read_header(io, name);
        let len = |_: &_| HEADER_LEN as u64;
        ahead::in_order(&found, self.threads, len, work, size_of_val, |_, read| headers.push(read));
        for ((epoch, file, name), read) in found.into_iter().zip(headers) {
            match read.map_err(failed(&name))? {
                Ok(header) if (header.epoch, header.file) != (epoch, file) => {
                    let theirs = file_name(header.epoch, header.file);
                    self.damage(&name, 0, HEADER_LEN as u64, format!("it is a copy of {theirs}: not read"));
                }
                Ok(header) if header.store != store => {
                    self.damage(
                        &name,
                        0,
                        HEADER_LEN as u64,
                        format!("it is of another store, {}: not read", header.store),
                    );
                }
                Ok(header) => self.push(self.files.len(), header, name),
                Err(HeaderError::Unsupported(detail)) => return Err(OpenError::Unsupported { file: name, detail }),
                Err(error) => {
                    if self.without_header(io, &name, epoch, file, &error).map_err(failed(&name))? {
                        unordered.push((epoch, file, name));
                    }
                }
            }
        }
        self.files.sort_by_key(|file| (file.header.epoch, file.header.sequence, file.header.file));
        for (epoch, file, name) in unordered {
            self.insert_by_id(epoch, file, name);
        }
        self.drop_replaced(io).map_err(OpenError::io("look for files that were written anew"))?;
        let void: HashMap<FileId, u64> = self.files.iter().filter_map(|file| file.header.replaces).collect();
        for file in &mut self.files {
            file.void_from = void.get(&file.header.file).copied();
        }
        Ok(present)
    }

    /// A file that voids another from its beginning on holds all of it that is good: it counts instead once it is
    /// closed. (One that voids it from its first batch on follows a file whose first batch failed.) Until then it is a copy that was not finished, and goes.
    fn drop_replaced(&mut self, io: &dyn SegmentIo) -> io::Result<()> {
        let names: HashMap<FileId, String> =
            self.files.iter().map(|file| (file.header.file, file.name.clone())).collect();
        let replaces = |file: &LogFile| {
            let (old, _) = file.header.replaces.filter(|(_, end)| *end == 0)?;
            names.get(&old).map(|name| (old, name))
        };
        let (mut replaced, mut unfinished) = (HashSet::new(), HashSet::new());
        for file in &self.files {
            let Some((old, name)) = replaces(file) else { continue };
            if reader::read_trailer(&*file.handle()?, file.header.file)?.is_some() {
                tracing::warn!(file = name, "written anew by a repair that did not come to put it away: passed over");
                self.replaced.push(name.clone());
                replaced.insert(old);
                continue;
            }
            unfinished.insert(file.header.file);
            self.unfinished.push(file.name.clone());
            if self.mode == Mode::Recover {
                tracing::info!(file = file.name, "removing a copy that was not finished");
                io.unlink(&file.name)?;
                io.sync_dir()?;
                self.handles.forget(file.header.file);
            }
        }
        self.files.retain(|file| !replaced.contains(&file.header.file) && !unfinished.contains(&file.header.file));
        Ok(())
    }

    /// Files that the list names and that are not there. One that another was written for is not missed.
    fn find_missing(&mut self, present: &HashSet<FileId>) -> Listing {
        let included = self.checkpoint.iter().flat_map(|checkpoint| &checkpoint.files).map(|info| &info.header);
        let headers = self.files.iter().map(|file| &file.header).chain(included);
        let replaced: HashSet<FileId> = headers.filter_map(|header| Some(header.replaces?.0)).collect();
        let mut missing = Listing::default();
        self.listing.0.retain(|file, listed| {
            let is_there = present.contains(file);
            if !is_there && !replaced.contains(file) {
                missing.0.insert(*file, *listed);
            }
            is_there
        });
        for (file, listed) in &missing.0 {
            self.damage(&listed.name(*file), 0, listed.data_end, "the file is missing".into());
        }
        missing
    }

    /// A file whose place in its epoch is lost: the list has it, or else the ids of files, which grow with the time they were
    /// made at. It is read, and never changed.
    fn insert_by_id(&mut self, epoch: u32, file: FileId, name: String) {
        let listed = self.listing.0.get(&file).map(|listed| listed.sequence);
        let at = self.files.partition_point(|other| match listed {
            Some(sequence) => (other.header.epoch, other.header.sequence) < (epoch, sequence),
            None => (other.header.epoch, other.header.file) < (epoch, file),
        });
        let before = at.checked_sub(1).and_then(|before| self.files.get(before)).map(|before| before.header);
        let next = before.filter(|before| before.epoch == epoch).map_or(0, |before| before.sequence + 1);
        let sequence = listed.unwrap_or(next);
        let (store, zero) = (Uuid::nil(), UnixMs(0));
        let header = FileHeader {
            read_only: true,
            file,
            store,
            epoch,
            sequence,
            volume: 0,
            created: zero,
            archive: zero,
            replaces: None,
        };
        self.push(at, header, name);
    }

    fn push(&mut self, at: usize, header: FileHeader, name: String) {
        let listed_end = self.listing.0.get(&header.file).map_or(0, |listed| listed.data_end);
        self.files
            .insert(at, LogFile { header, name, handles: Arc::clone(&self.handles), void_from: None, listed_end });
    }

    /// A file whose header does not read. One whose making was interrupted is empty, and goes; nothing else is ever removed.
    /// True if it can be read all the same.
    fn without_header(
        &mut self,
        io: &dyn SegmentIo,
        name: &str,
        epoch: u32,
        file: FileId,
        error: &HeaderError,
    ) -> io::Result<bool> {
        let handle = &*io.open(name)?;
        let torn = header_block(handle).is_ok_and(|block| is_torn(&block, epoch, file));
        let begun = recover::has_batches(handle, file)?;
        let listed = self.listing.0.contains_key(&file);
        if !begun && !listed && torn && recover::is_empty(handle)? {
            if self.mode == Mode::Recover {
                tracing::info!(file = name, "removing a segment file that was never begun");
                io.unlink(name)?;
                io.sync_dir()?;
            }
            return Ok(false);
        }
        let left = if begun { "" } else { "; no batch of it is found: not read" };
        self.damage(name, 0, handle.len()?.min(HEADER_LEN as u64), format!("{error}{left}"));
        Ok(begun)
    }

    fn damage(&mut self, file: &str, offset: u64, len: u64, detail: String) {
        let damage = Damage { file: file.to_owned(), offset, len, record: None, detail };
        tracing::error!(%damage, "stored bytes are damaged");
        self.report.damage.push(damage);
    }

    /// Closes the file if need be; learns what is in it and its control records. False if it was never begun.
    fn first_pass(
        &mut self,
        io: &dyn SegmentIo,
        (file, earlier): (&LogFile, &[LogFile]),
        records: io::Result<Records>,
        keys: &Keyring,
        table: &Files,
        seen: &mut HashSet<FragmentNumber>,
    ) -> bool {
        // Of one that nothing names, and in which nothing is found, the making may have been interrupted: then a power cut may
        // still take its name, and it would be missed.
        let is_listed = self.listing.0.contains_key(&file.header.file);
        let records = match records {
            Ok(Records::Scanned(scan)) => Records::Scanned(self.without_torn(scan, earlier, keys)),
            Ok(records) => records,
            Err(error) => {
                self.damage(&file.name, 0, 0, format!("cannot be read: {error}"));
                self.is_hiding = true;
                let mut info = FileInfo::new(file.header, false);
                info.is_begun = is_listed;
                table.insert(info);
                return true;
            }
        };
        if let Records::Scanned(scan) = &records
            && self.remove_spare(io, file, scan)
        {
            return false;
        }
        self.compare(file, &records);
        let closed = match &records {
            Records::Closed(footer) => {
                self.archive = self.archive.max(Some(footer.trailer.archive));
                self.is_settled(file)
            }
            Records::Scanned(scan) => self.close_scanned(file, scan, keys),
        };
        // Where its configs are is remembered of a file that has no footer to be asked.
        let is_unsettled = !closed && matches!(records, Records::Closed(_));
        let records = if is_unsettled { self.records_of(file, keys).unwrap_or(records) } else { records };
        let mut info = FileInfo::new(file.header, closed);
        let is_closed = matches!(records, Records::Closed(_));
        info.is_begun = is_listed || (is_closed && self.is_named) || records.iter().next().is_some();
        if let Records::Closed(footer) = &records {
            // Only its control records were kept.
            info.first = footer.first;
        }
        if closed {
            info.data_end = records.data_end();
        }
        for (entry, head) in records.iter() {
            info.note(entry);
            if entry.shape.kind != RecordKind::Control {
                continue;
            }
            match head.map(|head| open_control(keys, head)) {
                Some(Ok(record)) => {
                    self.controls.note(&record);
                    if seen.insert(record.number) {
                        self.records.push(Arc::new(record));
                    }
                }
                Some(Err(detail)) => {
                    self.is_hiding = true;
                    self.damage(&file.name, entry.offset, entry.shape.record_len(), detail);
                }
                None => self.is_hiding = true,
            }
        }
        table.insert(info);
        true
    }

    /// The trailer of a file that is not known to be closed may so far stand in the page cache only; and after a sync that
    /// failed another one says nothing of it. So it is written once more.
    fn is_settled(&self, file: &LogFile) -> bool {
        file.listed_end > 0
            || self.mode == Mode::ReadOnly
            || file.handle().and_then(|handle| writer::settle(&*handle)).is_ok()
    }

    /// Removes a file that was made ahead and never used. One that says what it replaces is needed for that alone.
    fn remove_spare(&self, io: &dyn SegmentIo, file: &LogFile, scan: &Scan) -> bool {
        let is_empty = scan.records.is_empty() && scan.bad.is_empty() && scan.torn.is_empty();
        let is_listed = self.listing.0.contains_key(&file.header.file);
        let is_spare = is_empty && !is_listed && file.header.replaces.is_none() && !file.header.read_only;
        if self.mode == Mode::ReadOnly || !is_spare {
            return false;
        }
        tracing::info!(file = file.name, "removing a segment file that was made ahead");
        // All of its blocks at once: nobody's syncs are stalled yet.
        let _ = file.handle().and_then(|handle| handle.truncate(HEADER_LEN as u64));
        if let Err(error) = io.unlink(&file.name).and_then(|()| io.sync_dir()) {
            tracing::warn!(file = file.name, %error, "cannot remove a segment file that was made ahead");
        }
        self.handles.forget(file.header.file);
        true
    }

    /// A file that was closed never gets shorter, nor loses its footer.
    fn compare(&mut self, file: &LogFile, records: &Records) {
        let listed = file.listed_end;
        let (data_end, detail) = match records {
            Records::Closed(footer) => (footer.trailer.data_end, "an older state of the file stands in its place"),
            Records::Scanned(_) => (0, "it was closed, and is cut, or an older state of it stands in its place"),
        };
        if data_end < listed {
            self.damage(&file.name, data_end, listed - data_end, detail.into());
        }
    }

    /// From the footer; by a scan where there is none that reads.
    pub(crate) fn records_of(&mut self, file: &LogFile, keys: &Keyring) -> io::Result<Records> {
        self.take_records(file, read_records(file, keys, Wanted::All))
    }

    fn take_records(&mut self, file: &LogFile, (records, wrong): ReadRecords) -> io::Result<Records> {
        if let Some(BadSpan { offset, len, detail }) = wrong {
            self.damage(&file.name, offset, len, detail);
        }
        let mut records = records?;
        if let Records::Scanned(scan) = &mut records {
            scan.drop_without_parts(|shape| !self.torn.contains(&(shape.meta.stream, shape.meta.number)));
        }
        Ok(records)
    }

    /// Finds fragments of a torn batch that close parts which stand nowhere: they were never acknowledged, and what there
    /// is of them is closed as that of any other fragment that a crash left open.
    fn without_torn(&mut self, mut scan: Scan, earlier: &[LogFile], keys: &Keyring) -> Scan {
        let mut missing: HashSet<_> = scan
            .torn_fragments()
            .flat_map(|shape| (0..shape.part).map(|part| (shape.meta.stream, shape.meta.number, part)))
            .collect();
        let found = |missing: &mut HashSet<_>, entry: &RecordEntry| {
            if entry.shape.kind == RecordKind::Part {
                missing.remove(&(entry.shape.meta.stream, entry.shape.meta.number, entry.shape.part));
            }
        };
        scan.records.iter().for_each(|(entry, _)| found(&mut missing, entry));
        missing.retain(|(stream, number, part)| {
            let open = self.open.get(&(*stream, *number));
            open.is_none_or(|open| open.parts.iter().all(|open| open.index != *part))
        });
        let reported = self.report.damage.len();
        for file in earlier.iter().rev() {
            if missing.is_empty() {
                return scan;
            }
            if let Ok(records) = self.records_of(file, keys) {
                records.iter().for_each(|(entry, _)| found(&mut missing, entry));
            }
        }
        self.report.damage.truncate(reported);
        self.torn.extend(missing.into_iter().map(|(stream, number, _)| (stream, number)));
        scan.drop_without_parts(|shape| !self.torn.contains(&(shape.meta.stream, shape.meta.number)));
        scan
    }

    /// Reports what a scan found, and closes the file. False if it stays as it is.
    fn close_scanned(&mut self, file: &LogFile, scan: &Scan, keys: &Keyring) -> bool {
        self.report.unclosed += 1;
        self.report.dropped_bytes += scan.dropped_bytes();
        self.archive = self.archive.max(scan.archive);
        for bad in &scan.bad {
            self.damage(&file.name, bad.offset, bad.len, bad.detail.clone());
        }
        for torn in &scan.torn {
            let (file, offset, len, detail) = (&file.name, torn.offset, torn.len, &torn.detail);
            tracing::warn!(file, offset, len, detail, "the end of a segment file was torn");
        }
        if self.mode == Mode::ReadOnly {
            return false;
        }
        // What was read may so far stand in the page cache only: that it is durable comes before anybody hears of it.
        let settled = file.handle().and_then(|handle| {
            if scan.unread {
                handle.sync_data()?
            } else {
                writer::write_again(&*handle, scan.synced_to..scan.data_end)?
            }
            Ok(handle)
        });
        if let Err(error) = &settled {
            tracing::warn!(file = file.name, %error, "cannot make durable what was read of a segment file");
            self.is_unsynced = true;
        }
        // A footer would leave out for good what did not read this time.
        let Some(handle) = settled.ok().filter(|_| !file.header.read_only && !scan.unread) else { return false };
        let archive = scan.archive.unwrap_or(file.header.archive);
        let entries: Vec<_> = scan.records.iter().map(|(entry, _)| entry.clone()).collect();
        let copied = scan.records.iter().filter(|(entry, _)| entry.has_copy());
        let copies: Vec<u8> = copied.flat_map(|(_, head)| head).copied().collect();
        let footer = footer::encode(keys.log_key(), file.header.file, scan.data_end, archive, &entries, &copies);
        let closed = writer::close(&*handle, scan.data_end, &footer);
        match closed {
            Ok(()) => tracing::info!(file = file.name, records = entries.len(), "closed a segment file after a crash"),
            Err(ref error) => tracing::error!(file = file.name, %error, "cannot close a segment file"),
        }
        closed.is_ok()
    }

    /// Tells observers everything. Learns open fragments and runs on the way; in `Recover` after a crash, holes that were
    /// not punched are. With `save` there are checkpoints on the way. Answers all control records, if the next one may be
    /// made from them. `progress` hears of each file.
    pub(crate) fn replay(
        &mut self,
        keys: &Keyring,
        table: &Files,
        observers: &[Arc<dyn LogObserver>],
        save: Option<&dyn SegmentIo>,
        progress: &mut dyn FnMut(Progress),
    ) -> Option<Vec<Arc<ControlRecord>>> {
        let all = self.records.clone();
        let old: HashSet<FragmentNumber> = self
            .checkpoint
            .take()
            .map_or_else(HashSet::new, |checkpoint| checkpoint.controls.iter().map(|record| record.number).collect());
        let tell = |event: &LogEvent| observers.iter().for_each(|observer| observer.observe(event));
        let mut later: HashMap<FragmentNumber, Arc<ControlRecord>> = HashMap::new();
        for record in std::mem::take(&mut self.records) {
            // What was met before the checkpoint is not met again.
            if is_identity(&record.body) || old.contains(&record.number) {
                tell(&LogEvent::Control(record));
            } else {
                later.insert(record.number, record);
            }
        }
        let redo = self.mode == Mode::Recover && self.report.unclosed > 0;
        let files = std::mem::take(&mut self.files);
        self.told = files.iter().any(|file| file.header.read_only).then(HashSet::new);
        let (mut unread, mut saved) = (self.is_unsynced, 0);
        let step = |done| Progress::of_replay(files.len() + done, files.len());
        // Fragments do not change what is gone.
        let gone = self.controls.clone();
        let torn = self.torn.clone();
        let work = |file: &LogFile| Told::read(file, keys, &gone, &torn, redo);
        ahead::in_order(
            &files,
            self.threads,
            LogFile::len_to_read,
            work,
            |told| told.as_ref().map_or(0, |told| told.weight),
            |index, told| {
                progress(step(index));
                let file = &files[index];
                // What could not be read was reported by the first pass.
                let Ok(told) = told else {
                    unread = true;
                    return;
                };
                unread |= told.unread;
                table.update(file.header.file, |info| info.witness = told.witness);
                let mut holes = Vec::new();
                for one in told.steps {
                    match one {
                        Step::Control(number) => {
                            if let Some(record) = later.remove(&number) {
                                tell(&LogEvent::Control(record));
                            }
                        }
                        Step::Part { meta, class, part } => {
                            // It will be closed, and then needs its run.
                            self.controls.note_fragment(&meta);
                            note_part(&mut self.open, meta, class, part);
                        }
                        Step::Closed(fragment) if self.lacks_parts(&fragment) => {
                            self.early.push(Early { file: index, fragment });
                        }
                        Step::Closed(fragment) => self.fragment(&file.name, fragment, &tell),
                        Step::Gone(locator) if table.is_punchable(file.header.file) => {
                            holes.push(Stretch { offset: locator.offset, len: locator.record_len });
                        }
                        Step::Gone(_) => {}
                    }
                }
                if !holes.is_empty()
                    && let Err(error) = file.handle().and_then(|handle| punch::punch(&*handle, holes))
                {
                    tracing::warn!(file = file.name, %error, "cannot free the blocks of expired media");
                }
                if index + 1 - saved >= FILES_PER_CHECKPOINT.max(saved / 4) && !unread {
                    saved = index + 1;
                    self.save(keys, table, observers, save, &all, file);
                }
            },
        );
        progress(step(files.len()));
        for Early { file, fragment } in std::mem::take(&mut self.early) {
            self.fragment(&files[file].name, fragment, &tell);
        }
        if unread {
            // What closes them may stand where the disk does not answer, or a power cut may take them away from under their
            // closing records: they wait for a start that knows.
            self.open.clear();
        }
        self.files = files;
        self.forget_closed(keys);
        self.open.retain(|(stream, number), _| !self.controls.is_gone(*stream, *number));
        if let Some(last) = self.files.last().filter(|_| !unread && self.files.len() >= FILES_PER_REPLAY) {
            self.save(keys, table, observers, save, &all, last);
        }
        (!unread && !self.is_hiding).then_some(all)
    }

    /// So that a long replay that is killed goes on where it was. All control records are in it: what of them still
    /// matters is known at the end.
    fn save(
        &self,
        keys: &Keyring,
        table: &Files,
        observers: &[Arc<dyn LogObserver>],
        io: Option<&dyn SegmentIo>,
        all: &[Arc<ControlRecord>],
        file: &LogFile,
    ) {
        let (Some(io), Some(archive)) = (io, self.archive) else { return };
        if self.is_hiding || !self.early.is_empty() || self.told.is_some() {
            return;
        }
        let last = (file.header.epoch, file.header.sequence);
        let mark = Mark { last, left_out: Vec::new(), archive, open: self.open.clone() };
        match keeper::write(io, keys, table, observers, mark, all.to_vec(), self.controls.last_of_runs()) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                tracing::warn!(%error, "cannot make a checkpoint on the way");
            }
            _ => {}
        }
    }

    /// Damage may have mixed up the order of the files: what is closed in any of them is not open.
    fn forget_closed(&mut self, keys: &Keyring) {
        if self.open.is_empty() || self.report.damage.is_empty() {
            return;
        }
        let (files, reported) = (std::mem::take(&mut self.files), self.report.damage.len());
        for file in &files {
            let Ok(records) = self.records_of(file, keys) else { continue };
            for (entry, _) in records.iter().filter(|(entry, _)| entry.shape.kind == RecordKind::Fragment) {
                self.open.remove(&(entry.shape.meta.stream, entry.shape.meta.number));
            }
        }
        self.report.damage.truncate(reported);
        self.files = files;
    }

    /// Not all parts of the fragment were met.
    fn lacks_parts(&self, fragment: &Closed) -> bool {
        let Closed { entry, part_count, .. } = fragment;
        let met = || self.open.get(&(entry.meta.stream, entry.meta.number)).map_or(0, |open| open.parts.len());
        *part_count > 0 && met() < usize::from(*part_count)
    }

    fn fragment(&mut self, file: &str, fragment: Closed, tell: &impl Fn(&LogEvent)) {
        let Closed { mut entry, part_count, head } = fragment;
        let record = (entry.meta.stream, entry.meta.number);
        let met = if self.open.is_empty() { None } else { self.open.remove(&record) };
        let parts = part_locators(met, part_count, &entry.record);
        let (offset, len) = (entry.record.offset, entry.record.record_len);
        let mut damage = |detail: String| {
            self.is_hiding = true;
            let damage = Damage { file: file.to_owned(), offset, len, record: Some(record), detail };
            tracing::error!(%damage, "stored bytes are damaged");
            self.report.damage.push(damage);
        };
        match head {
            Ok(_) if self.told.as_mut().is_some_and(|told| !told.insert(entry.meta.number)) => {}
            Ok(Head { facts, refers_to }) => {
                // A fragment that a crash left without some of its parts does not refer to them.
                let missing = |index: &u16| parts.get(usize::from(*index)).is_none_or(|part| part.record_len == 0);
                if refers_to.iter().any(missing) {
                    damage("a part of the fragment is missing".into());
                }
                self.controls.note_fragment(&entry.meta);
                self.report.fragments += 1;
                if !parts.is_empty() {
                    Arc::make_mut(&mut entry).parts = parts;
                }
                tell(&LogEvent::Fragment { entry, facts });
            }
            Err(detail) => damage(detail),
        }
    }
}

/// The block that a file begins with, as far as it is there.
fn header_block(handle: &dyn SegmentHandle) -> io::Result<Vec<u8>> {
    let len = handle.len()?.min(HEADER_LEN as u64) as usize;
    reader::read(handle, 0, len)
}

/// The header of a file that opens.
fn read_header(io: &dyn SegmentIo, name: &str) -> io::Result<Result<FileHeader, HeaderError>> {
    let handle = io.open(name)?;
    let block = header_block(&*handle).map_err(|error| HeaderError::Unreadable(error.to_string()));
    Ok(block.and_then(|block| FileHeader::decode(&block)))
}

/// From the footer; by a scan where there is none that reads.
pub(crate) fn read_records(file: &LogFile, keys: &Keyring, wanted: Wanted) -> ReadRecords {
    let (mut synced_to, mut wrong) = (file.listed_end, None);
    let mut read = || {
        let handle = file.handle()?;
        if let Some((trailer, footer)) = reader::read_closed(&*handle, file.header.file, keys.log_key(), wanted)? {
            synced_to = synced_to.max(trailer.data_end);
            match footer {
                Ok(footer) => return Ok(Records::Closed(footer)),
                Err(error) => {
                    let (offset, len, detail) = (trailer.copies_offset, trailer.copies_len, error.to_string());
                    wrong = Some(BadSpan { offset, len, detail });
                }
            }
        }
        recover::scan(&*handle, file.header.file, file.void_from, synced_to, keys).map(Records::Scanned)
    };
    let records = read();
    (records, wrong)
}

/// Others refer to what these name; their order is that of their numbers.
fn is_identity(body: &Control) -> bool {
    match body {
        Control::Stream(_)
        | Control::StreamDeleted { .. }
        | Control::Floor { .. }
        | Control::Key { .. }
        | Control::Run(_) => true,
        Control::RunEnded { .. } | Control::Gap(_) => false,
    }
}

fn opener(keys: &Keyring, head: &[u8]) -> Result<RecordOpener, String> {
    let header = head.get(..RECORD_HEADER_LEN).ok_or("its head is cut short")?;
    let header = RecordHeader::decode(header).map_err(|error| error.to_string())?;
    let outer = keys.outer(&header.shape).ok_or("its key is not in the keyring")?;
    Ok(RecordOpener::new(&header, head, outer))
}

/// Opens the head of a control record.
pub(crate) fn open_control(keys: &Keyring, head: &[u8]) -> Result<ControlRecord, String> {
    let opener = opener(keys, head)?;
    let (_, table) = opener.head(head.to_vec()).map_err(|error| error.to_string())?;
    let record = ControlRecord::decode(&table).map_err(|error| error.to_string())?;
    if record.number == opener.shape.meta.number { Ok(record) } else { Err("its number is not its own".into()) }
}

/// Opens the head of a fragment.
pub(crate) fn open_fragment(keys: &Keyring, entry: &RecordEntry, head: Option<&[u8]>) -> Result<FragmentHead, String> {
    let head = head.ok_or("its head is missing")?;
    opener_of(keys, entry, head)?.fragment_head(head.to_vec()).map_err(|error| error.to_string())
}

/// What opens the head of an entry.
pub(crate) fn opener_of(keys: &Keyring, entry: &RecordEntry, head: &[u8]) -> Result<RecordOpener, String> {
    let opener = opener(keys, head)?;
    if opener.shape == entry.shape { Ok(opener) } else { Err("its head is that of another record".into()) }
}
