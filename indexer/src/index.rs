//! The three together, as an observer of the log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use uuid::Uuid;
use vidar_core::clock::SharedClock;
use vidar_core::control::Control;
use vidar_core::ids::StreamId;
use vidar_core::log::{LogEvent, LogObserver};

use crate::catalog::Catalog;
use crate::lock::lock;
use crate::search::{Search, wipe};
use crate::timeline::{self, Timeline};

/// Of the timeline's files, beside the partitions of search.
const TIMELINE_DIR: &str = "timeline";
/// Is there from the beginning of a rebuild to its end.
const REBUILDING: &str = "rebuilding";

/// How to open an [`Index`].
#[derive(Clone)]
pub struct IndexOptions {
    /// Where search keeps its files; none: in memory only.
    pub dir: Option<PathBuf>,
    /// Seals those files.
    pub key: [u8; 32],
    /// Says when to commit.
    pub clock: SharedClock,
    /// Search is committed to its files once the oldest document outside them is this old. Default 30 s.
    pub commit_interval_ms: u64,
    /// …or once this many documents are outside them. Default 50,000.
    pub commit_documents: usize,
    /// Server time that one part of the search files covers; it goes as a whole. Default 7 days.
    pub partition_ms: i64,
    /// Changes that wait for search at most, 48 bytes each; with more it looks at everything. Default 65,536.
    pub queue_changes: usize,
    /// Opened pieces of search files kept in memory, in bytes. Default 32 MiB.
    pub cache_bytes: usize,
}

impl IndexOptions {
    /// With files in `dir`, sealed under `key`.
    #[must_use]
    pub fn new(dir: PathBuf, key: [u8; 32], clock: SharedClock) -> Self {
        Self { dir: Some(dir), key, ..Self::in_memory(clock) }
    }

    /// Without files.
    #[must_use]
    pub fn in_memory(clock: SharedClock) -> Self {
        Self {
            dir: None,
            key: [0; 32],
            clock,
            commit_interval_ms: 30_000,
            commit_documents: 50_000,
            partition_ms: 7 * 86_400_000,
            queue_changes: 1 << 16,
            cache_bytes: 32 << 20,
        }
    }
}

impl std::fmt::Debug for IndexOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexOptions").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Why an index could not be opened or removed. Damaged files are no reason: they are made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The directory cannot be used.
    #[error("index directory {dir}")]
    Io {
        /// Which.
        dir: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Catalog, timeline and search, made from the events of the log.
pub struct Index {
    catalog: Arc<Catalog>,
    timeline: Arc<Timeline>,
    search: Search,
    /// Held while a control record is observed: what a checkpoint says of records holds of catalog and search.
    controls: Mutex<()>,
}

impl Index {
    /// Opens what search has on disk. Catalog and timeline are empty until a checkpoint is restored or the log observed.
    ///
    /// # Errors
    /// If the directory cannot be made or listed.
    pub fn open(options: IndexOptions) -> Result<Arc<Self>, IndexError> {
        // From now on somebody else changes the files.
        options.dir.as_deref().map_or(Ok(()), Self::rebuilt)?;
        Self::open_as_it_is(options)
    }

    /// Opens an index whose files are made again as the log is observed. What a rebuild that was stopped made of search is
    /// kept; everything else is removed. Ends with [`rebuilt`](Self::rebuilt).
    ///
    /// # Errors
    /// As `open` and `wipe`.
    pub fn rebuild(options: IndexOptions) -> Result<Arc<Self>, IndexError> {
        if let Some(dir) = &options.dir {
            let begin = || {
                if dir.join(REBUILDING).try_exists()? {
                    return timeline::wipe(&dir.join(TIMELINE_DIR));
                }
                wipe_all(dir)?;
                fs::create_dir_all(dir)?;
                fs::write(dir.join(REBUILDING), [])
            };
            begin().map_err(|source| io_error(dir, source))?;
        }
        Self::open_as_it_is(options)
    }

    /// The files are complete: another rebuild begins anew.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub fn rebuilt(dir: &Path) -> Result<(), IndexError> {
        match fs::remove_file(dir.join(REBUILDING)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(dir, error)),
            _ => Ok(()),
        }
    }

    fn open_as_it_is(options: IndexOptions) -> Result<Arc<Self>, IndexError> {
        let dir = options.dir.as_ref().map(|dir| dir.join(TIMELINE_DIR));
        let failed = |source| IndexError::Io { dir: format!("{dir:?}"), source };
        let timeline = Timeline::open(timeline::Options::new(dir.clone(), options.key)).map_err(failed)?;
        let timeline = Arc::new(timeline);
        let catalog = Arc::new(Catalog::new(Arc::clone(&timeline)));
        let search = Search::open(options, Arc::clone(&catalog), Arc::clone(&timeline))?;
        Ok(Arc::new(Self { catalog, timeline, search, controls: Mutex::default() }))
    }

    /// Streams, runs and gaps.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Fragments by number and time.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Fragments, runs and gaps by what they contain.
    #[must_use]
    pub fn search(&self) -> &Search {
        &self.search
    }

    /// Waits until nothing of a stream whose deletion was observed is left in any file: neither its fragments nor its
    /// documents. Blocks. False: that failed, and is tried again.
    #[must_use]
    pub fn purged(&self, stream: StreamId) -> bool {
        let timeline = self.timeline.erased(stream);
        self.search.purged(stream) && timeline
    }

    /// Commits to the files of search what waits for it, and ends its thread. Later events still reach catalog and
    /// timeline. While search catches up, what is still missing is left for the next start: where it matters, first
    /// wait for [`Search::commit`].
    pub fn close(&self) {
        self.search.close();
    }

    /// Removes the files of search. The index must not be open. They are made again as the log is observed.
    ///
    /// # Errors
    /// If something there cannot be removed. That there is nothing is no error. What is not of search stays.
    pub fn wipe(dir: &Path) -> Result<(), IndexError> {
        Self::rebuilt(dir)?;
        wipe_all(dir).map_err(|source| io_error(dir, source))
    }
}

fn wipe_all(dir: &Path) -> io::Result<()> {
    timeline::wipe(&dir.join(TIMELINE_DIR)).and_then(|()| wipe(dir))
}

fn io_error(dir: &Path, source: io::Error) -> IndexError {
    IndexError::Io { dir: dir.display().to_string(), source }
}

impl LogObserver for Index {
    fn observe(&self, event: &LogEvent) {
        let _one_by_one = matches!(event, LogEvent::Control(_)).then(|| lock(&self.controls));
        match event {
            LogEvent::Fragment { entry, facts } => self.timeline.add(entry, facts),
            LogEvent::Control(record) => {
                self.catalog.apply(record);
                match &record.body {
                    Control::StreamDeleted { stream, .. } => self.timeline.delete(*stream),
                    Control::Floor { stream, below, next_ordinal, discontinuity } => {
                        self.timeline.raise_floor(*stream, *below, (*next_ordinal, *discontinuity));
                    }
                    Control::Gap(gap) => {
                        if let Some(ordinal) = gap.ordinal {
                            self.timeline.take_ordinal(gap.stream, ordinal);
                        }
                    }
                    Control::Stream(_) | Control::Run(_) | Control::RunEnded { .. } | Control::Key { .. } => {}
                }
            }
        }
        self.search.observe(event);
    }

    fn save(&self, id: Uuid) -> io::Result<()> {
        // First the records, then the documents that were made with them, then fragments, at least as many.
        let records = {
            let _none_on_its_way = lock(&self.controls);
            self.catalog.held_numbers()
        };
        let search = self.search.save(&records)?;
        self.timeline.save(id, &search)
    }

    fn restore(&self, id: Uuid) -> bool {
        let Some(search) = self.timeline.restore(id) else { return false };
        self.search.restore(&search);
        true
    }
}
