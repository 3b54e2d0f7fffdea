//! What a checkpoint keeps of search: that its documents are in files, and which files those are.
//!
//! ```text
//! u8: 1 all that was observed is in partitions, 0 not (and nothing follows)
//! varint count: numbers of the records of streams and runs that documents were made with (20 bytes each)
//! varint count: directories of partitions (string)
//! ```
//!
//! Partitions are synced before that is said. A later start looks at everything if one of them is not there any more;
//! a file that does not open makes its partition go, as ever.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use vidar_core::ids::FragmentNumber;
use vidar_core::wire::{Reader, WireError, Writer};

use super::Search;
use super::partition::Home;
use crate::lock::lock;

impl Search {
    /// `records`: numbers of the control records of streams and runs that were observed so far.
    pub(crate) fn save(&self, records: &[FragmentNumber]) -> io::Result<Vec<u8>> {
        let mut w = Writer::new();
        if !self.shared.queue.commit_unless_behind() {
            w.u8(0);
            return Ok(w.into_vec());
        }
        let partitions = self.home.names()?;
        w.u8(1).varint(records.len() as u64);
        records.iter().for_each(|number| {
            w.raw(number.as_bytes());
        });
        w.varint(partitions.len() as u64);
        if let Home::Disk { dir, .. } = &self.home {
            for name in &partitions {
                sync(&dir.join(name))?;
                w.string(name);
            }
            File::open(dir)?.sync_all()?;
        }
        Ok(w.into_vec())
    }

    /// Before anything is observed. What was not saved whole is made again from catalog and timeline.
    pub(crate) fn restore(&self, saved: &[u8]) {
        match read(saved) {
            Ok(Some((records, partitions))) if partitions.iter().all(|name| self.opened.contains(*name)) => {
                lock(&self.saved).extend(records);
            }
            Ok(_) => self.shared.queue.tell(|next| next.behind = true),
            Err(error) => {
                tracing::warn!(%error, "search was not saved whole and is made again");
                self.shared.queue.tell(|next| next.behind = true);
            }
        }
    }
}

type Saved<'a> = (Vec<FragmentNumber>, Vec<&'a str>);

/// None: documents are missing.
fn read(saved: &[u8]) -> Result<Option<Saved<'_>>, WireError> {
    let mut r = Reader::new(saved);
    if r.u8()? == 0 {
        return Ok(None);
    }
    let records = r.count(20)?;
    let records = (0..records).map(|_| Ok(FragmentNumber::from_bytes(r.array()?))).collect::<Result<_, WireError>>()?;
    let partitions = r.count(1)?;
    let partitions = (0..partitions).map(|_| r.string()).collect::<Result<_, _>>()?;
    r.finish()?;
    Ok(Some((records, partitions)))
}

/// A directory and its files. What a merge removes meanwhile is not needed any more.
fn sync(dir: &Path) -> io::Result<()> {
    let gone_is_fine = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        gone_is_fine(File::open(entry?.path()).and_then(|file| file.sync_all()))?;
    }
    gone_is_fine(File::open(dir).and_then(|dir| dir.sync_all()))
}
