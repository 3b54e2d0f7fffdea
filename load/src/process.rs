//! What the kernel says of a process (proc_pid_stat(5), proc_pid_status(5), proc_pid_io(5)).

use std::fs;

use anyhow::Context;

/// Of the times in `/proc`: USER_HZ, 100 on every platform we run on, so a tick is 10 ms.
pub(crate) const TICK_MS: u64 = 10;

/// A process at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Spent so far in user and kernel mode by all its threads, ended ones too.
    pub cpu_ms: u64,
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// Threads at the instant.
    pub threads: u64,
    /// Handed to the disk so far (proc_pid_io(5)).
    pub written_bytes: u64,
    /// Fetched from the disk so far.
    pub read_bytes: u64,
    /// Read so far, from the disk or from memory.
    pub asked_bytes: u64,
    /// read(2), recv(2) and the like.
    pub read_calls: u64,
    /// write(2), send(2) and the like.
    pub write_calls: u64,
}

impl Snapshot {
    /// `pid`: a number, or `self`.
    ///
    /// # Errors
    /// If there is no such process, or `/proc` does not read.
    pub fn of(pid: &str) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| path)
        };
        let (stat, status, io) = (read("stat")?, read("status")?, read("io")?);
        let field = |name| status_field(&status, name).with_context(|| format!("no {name} in /proc/{pid}/status"));
        Ok(Self {
            cpu_ms: cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat does not read"))? * TICK_MS,
            rss_kib: field("VmRSS")?,
            threads: field("Threads")?,
            written_bytes: status_field(&io, "write_bytes").context("no write_bytes")?,
            read_bytes: status_field(&io, "read_bytes").context("no read_bytes")?,
            asked_bytes: status_field(&io, "rchar").context("no rchar")?,
            read_calls: status_field(&io, "syscr").context("no syscr")?,
            write_calls: status_field(&io, "syscw").context("no syscw")?,
        })
    }
}

/// utime and stime, fields 14 and 15. The second field is the program's name in parentheses, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    ticks()?.checked_add(ticks()?)
}

/// The number of a line such as `VmRSS:   1234 kB` or `syscw: 5`.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let mut values = status.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_whatever_the_program_is_called() {
        let stat = |name: &str| format!("77 ({name}) S 1 77 77 0 -1 4194560 100 0 0 0 1234 66 5 5 20 0 9 0 8\n");
        for name in ["vidar", "a b", "x) S 1 (y", ""] {
            assert_eq!(cpu_ticks(&stat(name)), Some(1300), "{name}");
        }
        assert_eq!(cpu_ticks("77 (vidar) S 1 2 3"), None);
        assert_eq!(cpu_ticks("77 vidar S"), None);
    }

    #[test]
    fn status_fields_are_found_by_their_whole_name() {
        let status = "Name:\tvidar\nVmRSSx:\t1 kB\nVmRSS:\t  2048 kB\nThreads:\t7\n";
        assert_eq!(status_field(status, "VmRSS"), Some(2048));
        assert_eq!(status_field(status, "Threads"), Some(7));
        assert_eq!(status_field(status, "VmHWM"), None);
        assert_eq!(status_field(status, "Name"), None);
    }

    #[test]
    fn this_process_is_alive() {
        let snapshot = Snapshot::of("self").unwrap();
        assert!(snapshot.threads >= 1 && snapshot.rss_kib > 0, "{snapshot:?}");
        assert!(Snapshot::of("no-such-process").is_err());
    }
}
