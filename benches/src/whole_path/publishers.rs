//! ffmpeg, as often as wanted, each sending the same clip over and over in real time.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

use crate::process::Snapshot;

/// End with their owner.
pub(super) struct Publishers(Vec<Child>);

impl Publishers {
    /// One for each URL; `output` are the options before it.
    pub(super) fn start(urls: impl Iterator<Item = String>, output: &[&str]) -> anyhow::Result<Self> {
        let clip = vidar_fixtures::path("bbb.mkv");
        let mut publishers = Self(Vec::new());
        for url in urls {
            let child = Command::new("ffmpeg")
                .args(["-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i"])
                .arg(&clip)
                .args(["-c", "copy"])
                .args(output)
                .arg(url)
                .stdin(Stdio::null())
                .spawn()
                .context("ffmpeg")?;
            publishers.0.push(child);
        }
        Ok(publishers)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// That all of them go on.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                bail!("a publisher ended: {status}");
            }
        }
        Ok(())
    }

    /// Spent by all of them so far.
    pub(super) fn cpu_ms(&self) -> anyhow::Result<u64> {
        self.0.iter().map(|child| Ok(Snapshot::of(&child.id().to_string())?.cpu_ms)).sum()
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}
