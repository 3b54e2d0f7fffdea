//! What memory something takes, beside what the process had before.

use std::fs;

use anyhow::Context;

/// Memory as it stood when something began.
pub(crate) struct Memory {
    before_kib: u64,
}

impl Memory {
    /// From now on the most is noted (proc_pid_clear_refs(5)).
    pub(crate) fn begin() -> anyhow::Result<Self> {
        fs::write("/proc/self/clear_refs", "5").context("forget how much memory it was at most")?;
        Ok(Self { before_kib: status_kib("VmRSS:")? })
    }

    /// By how many MiB the process grew since then, at its most. What others freed before, and the allocator kept, is
    /// used first, and not counted.
    pub(crate) fn grown_mib(&self) -> anyhow::Result<u64> {
        Ok(status_kib("VmHWM:")?.saturating_sub(self.before_kib) / 1024)
    }
}

fn status_kib(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let value = line.split_whitespace().next().context("no number")?;
    Ok(value.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_given_back_is_seen() {
        let memory = Memory::begin().unwrap();
        let bytes = std::hint::black_box(vec![1_u8; 64 << 20]);
        drop(bytes);
        let grown = memory.grown_mib().unwrap();
        assert!((60..200).contains(&grown), "{grown} MiB");
    }
}
