//! A server of its own on loopback.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::http::Peer;

const ID: &str = "bench";
const SECRET: &str = "bench-secret";
/// For the server to listen, and for an answer of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Last lines of a log that are shown if the server does not start.
const LOG_LINES: usize = 20;

/// A `vidar` that is ended with its owner.
#[derive(Debug)]
pub struct Server {
    child: Child,
    http: String,
    rtsp: String,
}

impl Server {
    /// Keeps everything in `folder`. `cores`: the only ones it may run on (`0-1`). Returns once it listens.
    ///
    /// # Errors
    /// If it does not start, with the end of its log.
    pub fn start(program: &Path, folder: &Path, cores: Option<&str>) -> anyhow::Result<Self> {
        let mut command = pinned(program, cores);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VIDAR_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["serve", "--http", "127.0.0.1:0", "--rtsp", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            // A disk that is nearly full is no reason to measure nothing.
            .args(["--disk-policy-mib", "2", "--disk-refuse-mib", "1"])
            // What is pushed to be played says that it is of long ago.
            .args(["--default-retention-hours", "87600"])
            .env("VIDAR_ROOT_ACCESS_KEY_ID", ID)
            .env("VIDAR_ROOT_SECRET_ACCESS_KEY", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let stderr = child.stderr.take();
        let mut server = Self { child, http: String::new(), rtsp: String::new() };
        let (sender, listening) = mpsc::channel();
        // Reads on after that line: a full pipe would stop the server.
        thread::spawn(move || {
            let mut last = VecDeque::new();
            for line in BufReader::new(stderr?).lines().map_while(Result::ok) {
                if let Some(addresses) = addresses(&line) {
                    let _ = sender.send(Ok(addresses));
                }
                last.push_back(line);
                last.drain(..last.len().saturating_sub(LOG_LINES));
            }
            sender.send(Err(Vec::from(last).join("\n"))).ok()
        });
        match listening.recv_timeout(PATIENCE).context("the server does not say where it listens")? {
            Ok((http, rtsp)) => (server.http, server.rtsp) = (http, rtsp),
            Err(log) => bail!("the server ended:\n{log}"),
        }
        Ok(server)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn peer(&self) -> Peer {
        let [http, rtsp] = [&self.http, &self.rtsp].map(String::clone);
        Peer { http, rtsp, id: ID.to_owned(), secret: SECRET.to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that may run on these cores only.
pub(crate) fn pinned(program: &Path, cores: Option<&str>) -> Command {
    let Some(cores) = cores else { return Command::new(program) };
    let mut taskset = Command::new("taskset");
    taskset.args(["-c", cores]).arg(program);
    taskset
}

/// Of the ports, HTTP and RTSP, out of the line of the log that says `listening`.
fn addresses(line: &str) -> Option<(String, String)> {
    let (_, fields) = line.split_once("listening ")?;
    let value = |name: &str| {
        let mut fields = fields.split_whitespace().filter_map(|field| field.split_once('='));
        fields.find_map(|(known, value)| (known == name).then(|| value.to_owned()))
    };
    Some((value("http")?, value("rtsp")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_line_that_names_both() {
        let line = "2026-01-01T00:00:00Z  INFO vidar_server::serve: listening http=127.0.0.1:81 rtsp=127.0.0.1:554";
        assert_eq!(addresses(line), Some(("127.0.0.1:81".to_owned(), "127.0.0.1:554".to_owned())));
        assert_eq!(addresses("listening rtsp=[::1]:1 http=[::1]:2").unwrap().0, "[::1]:2");
        assert_eq!(addresses("INFO listening http=127.0.0.1:81"), None);
        assert_eq!(addresses("INFO ready http=127.0.0.1:81 rtsp=127.0.0.1:554"), None);
    }
}
