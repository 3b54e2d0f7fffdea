//! What a start changes, kept aside: so that every start finds the same.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

const SEGMENTS: &str = "segments";

/// A data directory, and a copy of all of it but the closed files, which no start changes.
pub(crate) struct State {
    data: PathBuf,
    kept: PathBuf,
    closed: HashSet<OsString>,
}

impl State {
    /// Segment files that there are now.
    pub(crate) fn names(data: &Path) -> anyhow::Result<HashSet<OsString>> {
        fs::read_dir(data.join(SEGMENTS))?.map(|entry| Ok(entry?.file_name())).collect()
    }

    pub(crate) fn keep(data: &Path, kept: &Path, closed: HashSet<OsString>) -> anyhow::Result<Self> {
        let state = Self { data: data.to_owned(), kept: kept.to_owned(), closed };
        state.copy(&state.data, &state.kept)?;
        Ok(state)
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.data.join(SEGMENTS)
    }

    pub(crate) fn closed(&self) -> Vec<PathBuf> {
        self.closed.iter().map(|name| self.segments().join(name)).collect()
    }

    pub(crate) fn unclosed(&self) -> anyhow::Result<Vec<PathBuf>> {
        let names = fs::read_dir(self.kept.join(SEGMENTS))?;
        names.map(|entry| Ok(self.segments().join(entry?.file_name()))).collect()
    }

    /// As it was when it was kept.
    pub(crate) fn restore(&self, checkpoint: bool) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.data)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true if entry.file_name() != SEGMENTS => fs::remove_dir_all(entry.path())?,
                true => {}
                false => fs::remove_file(entry.path())?,
            }
        }
        for entry in fs::read_dir(self.segments())? {
            let entry = entry?;
            if !self.closed.contains(&entry.file_name()) {
                fs::remove_file(entry.path())?;
            }
        }
        self.copy(&self.kept, &self.data)?;
        if !checkpoint {
            fs::remove_file(self.data.join("checkpoint"))?;
        }
        Ok(())
    }

    fn copy(&self, from: &Path, to: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let (entry, to) = (entry.as_ref(), to);
            let entry = entry.map_err(|error| anyhow::anyhow!("{}: {error}", from.display()))?;
            let target = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.copy(&entry.path(), &target)?;
            } else if !self.closed.contains(&entry.file_name()) {
                fs::copy(entry.path(), &target)?;
            }
        }
        Ok(())
    }

    /// Everything is on the disk, and in the page cache or not. What the kernel knows of names and inodes stays.
    pub(crate) fn settle(&self, cold: bool) -> anyhow::Result<()> {
        rustix::fs::sync();
        self.each(&self.data, &mut |path| {
            let mut file = File::open(path)?;
            if cold {
                fadvise(&file, 0, None, Advice::DontNeed)?;
            } else {
                std::io::copy(&mut file, &mut std::io::sink())?;
            }
            Ok(())
        })
    }

    fn each(&self, folder: &Path, work: &mut impl FnMut(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => self.each(&entry.path(), work)?,
                false => work(&entry.path())?,
            }
        }
        Ok(())
    }
}
