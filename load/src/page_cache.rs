//! What the kernel remembers of files: all of a folder, or nothing.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Takes the files of a folder out of it (dd advises the kernel that it does not need them).
pub(crate) fn evict(folder: &Path) -> anyhow::Result<()> {
    for path in files(folder)? {
        // What is not on the disk yet stays.
        File::open(&path)?.sync_all()?;
        let input = format!("if={}", path.display());
        let done = Command::new("dd").args([&input, "iflag=nocache", "count=0", "status=none"]).status();
        ensure!(done.context("dd")?.success(), "dd cannot take {} out of the page cache", path.display());
    }
    Ok(())
}

/// Reads them all, so that they are in it.
pub(crate) fn load(folder: &Path) -> anyhow::Result<()> {
    let files = files(folder)?;
    let bytes = files.iter().map(|path| Ok(fs::metadata(path)?.len())).sum::<io::Result<u64>>()?;
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let free_kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    let free: u64 = free_kib.and_then(|kib| kib.parse().ok()).context("/proc/meminfo does not read")?;
    ensure!(bytes < free * 1024 / 2, "{} MB do not stay in the memory that is free", bytes / 1_000_000);
    for path in files {
        io::copy(&mut File::open(path)?, &mut io::sink())?;
    }
    Ok(())
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => found.extend(files(&entry.path())?),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_folders_within_are_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), "x").unwrap();
        assert_eq!(files(folder.path()).unwrap(), [folder.path().join("a/b/c")]);
        load(folder.path()).unwrap();
        evict(folder.path()).unwrap();
        assert!(files(&folder.path().join("missing")).is_err());
    }
}
