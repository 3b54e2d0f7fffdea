//! The server's side of a helper: bytes in, events out, nothing trusted.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vidar_core::error::ErrorKind;
use vidar_media::Event;

use super::format::Foreign;
use super::message::{Decoder, Message};

/// Helpers at a time.
const HELPER_COUNT_MAX: usize = 8;
/// A helper that neither takes input nor says anything for so long, though it could, has ended.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 64 << 10;
/// Of a helper's standard error, to the log.
const LOG_BYTES_MAX: usize = 64 << 10;
/// The helper gets no secrets by its environment: these only.
const ENVIRONMENT: [&str; 10] = [
    "HOME",
    "LD_LIBRARY_PATH",
    "PATH",
    "TMPDIR",
    "VIDAR_LOG",
    "XDG_CACHE_HOME",
    "GST_DEBUG",
    "GST_PLUGIN_PATH",
    "GST_PLUGIN_SYSTEM_PATH",
    "GST_REGISTRY",
];

/// Why a helper cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// HTTP status.
    pub(crate) status: u16,
    pub(crate) detail: String,
}

/// Starts helpers, few at a time.
#[derive(Debug, Clone)]
pub struct Helpers {
    executable: PathBuf,
    permits: Arc<Semaphore>,
    stall_timeout: Duration,
}

impl Default for Helpers {
    /// Helpers are this executable itself, even if its file has been replaced.
    fn default() -> Self {
        Self::new("/proc/self/exe")
    }
}

impl Helpers {
    /// `executable` runs a helper when called with `demux-helper FORMAT`.
    #[must_use]
    pub fn new(executable: impl Into<PathBuf>) -> Self {
        let permits = Arc::new(Semaphore::new(HELPER_COUNT_MAX));
        Self { executable: executable.into(), permits, stall_timeout: STALL_TIMEOUT }
    }

    /// A helper that does nothing for so long has ended.
    #[must_use]
    pub fn stalled_after(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Starts a helper.
    pub(crate) fn start(&self, format: Foreign) -> Result<Helper, Failure> {
        let unavailable = |detail: String| Failure { status: ErrorKind::Unavailable.http_status(), detail };
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| unavailable(format!("{HELPER_COUNT_MAX} demuxing helpers run: try again")))?;
        let mut child =
            self.command(format).spawn().map_err(|error| unavailable(format!("start a helper: {error}")))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| unavailable("start a helper: no pipe".to_owned()))?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(forward_log(stderr));
        }
        tracing::debug!(pid = child.id(), format = format.name(), "a demuxing helper starts");
        Ok(Helper {
            child,
            stdin,
            stdout,
            pending: Bytes::new(),
            decoder: Decoder::default(),
            stall_timeout: self.stall_timeout,
            _permit: permit,
        })
    }

    fn command(&self, format: Foreign) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(["demux-helper", format.name()]).env_clear();
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        // An arena of glibc's for each thread would use up the address space.
        command.env("MALLOC_ARENA_MAX", "2");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// What a helper does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// It found something.
    Event(Event),
    /// All that was fed is written.
    Hungry,
    /// The input has ended, and all of it was taken apart.
    End,
}

/// A process that takes one input apart. Dropping it kills it.
pub(crate) struct Helper {
    child: Child,
    /// None: the input has ended.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// Input that is not written yet.
    pending: Bytes,
    decoder: Decoder,
    stall_timeout: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Helper {
    /// It wants the next bytes of the input.
    pub(crate) fn hungry(&self) -> bool {
        self.stdin.is_some() && self.pending.is_empty()
    }

    /// Gives it input, when it is hungry.
    pub(crate) fn feed(&mut self, input: Bytes) {
        self.pending = input;
    }

    /// The input has ended, when it is hungry.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }

    /// The next step.
    ///
    /// # Errors
    /// If the input cannot be read on, or the helper died, hangs or talks nonsense.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Step, Failure> {
        loop {
            let message =
                self.decoder.next().map_err(|error| broken(&format!("it says what it should not: {error}")))?;
            match message {
                Some(Message::Config(config)) => return Ok(Step::Event(Event::Config(config))),
                Some(Message::Sample(sample)) => return Ok(Step::Event(Event::Sample(sample))),
                Some(Message::Error { status, detail }) => return Err(Failure { status, detail }),
                Some(Message::End) => return Ok(Step::End),
                None => {}
            }
            if self.exchange().await? {
                return Ok(Step::Hungry);
            }
        }
    }

    /// Waits until it is gone.
    pub(crate) async fn wait(mut self) {
        self.stdin = None;
        if tokio::time::timeout(self.stall_timeout, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// Ends it now.
    pub(crate) async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Writes some or reads some, whichever goes. True: it has just become hungry.
    async fn exchange(&mut self) -> Result<bool, Failure> {
        let waits_for_input = self.hungry();
        let (stdin, pending) = (self.stdin.as_mut(), &self.pending);
        let write = async {
            match stdin {
                Some(stdin) if !pending.is_empty() => stdin.write(pending).await,
                _ => std::future::pending().await,
            }
        };
        self.decoder.buffer().reserve(READ_BYTES);
        let read = self.stdout.read_buf(self.decoder.buffer());
        let stalled = async {
            match waits_for_input {
                // Only the input can be late.
                true => std::future::pending().await,
                false => tokio::time::sleep(self.stall_timeout).await,
            }
        };
        tokio::select! {
            written = write => match written {
                Ok(len) if len > 0 => {
                    self.pending.advance(len);
                    Ok(self.pending.is_empty())
                }
                // It takes no more; it will have said why.
                Ok(_) | Err(_) => {
                    self.pending.clear();
                    self.stdin = None;
                    Ok(false)
                }
            },
            read = read => match read {
                Ok(len) if len > 0 => Ok(false),
                Ok(_) | Err(_) => Err(self.died().await),
            },
            () = stalled => Err(broken("it did nothing for too long")),
        }
    }

    async fn died(&mut self) -> Failure {
        let status = tokio::time::timeout(self.stall_timeout, self.child.wait()).await;
        match status {
            Ok(Ok(status)) => broken(&format!("it ended with {status}")),
            Ok(Err(error)) => broken(&error.to_string()),
            Err(_) => broken("it closed its output"),
        }
    }
}

/// The input made the helper fail, as far as is known.
fn broken(what: &str) -> Failure {
    let detail = format!("the input could not be taken apart: the helper failed: {what}");
    Failure { status: ErrorKind::Malformed.http_status(), detail }
}

/// Standard error to the log, line by line, the first of it only.
async fn forward_log(mut stderr: ChildStderr) {
    let (mut left, mut buffer) = (LOG_BYTES_MAX, vec![0; 4096]);
    while let Ok(len @ 1..) = stderr.read(&mut buffer).await {
        let shown = len.min(left);
        left -= shown;
        for line in String::from_utf8_lossy(&buffer[..shown]).lines() {
            tracing::debug!(line, "a demuxing helper");
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
