//! Players: each asks for one range after the other on a connection of its own, as fast as they come, and throws the bytes
//! away. Status and length of every answer are checked, and that a range is the same each time.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::Hasher;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http::{Peer, find};
use crate::random::Random;

/// Of one read, into a buffer that all players share, so that it stays in the processor's cache.
const BUFFER_BYTES: usize = 256 << 10;
const HEADER_BYTES_MAX: usize = 64 << 10;

/// What all players share.
pub(crate) struct Playing {
    pub(crate) peer: Arc<Peer>,
    /// Paths that are asked for.
    pub(crate) wants: Vec<String>,
    /// Each once, in this order; otherwise any of them, again and again.
    pub(crate) once: bool,
    /// So many bytes of a file at a time, anywhere in it; none: the whole.
    pub(crate) piece_bytes: Option<u64>,
    /// Bytes are compared too.
    pub(crate) hashes: bool,
    next: AtomicUsize,
    bytes: AtomicU64,
    seen: Mutex<Seen>,
    /// Length and hash of answers, by what was asked for and from where.
    known: Mutex<HashMap<(usize, u64), Answered>>,
    /// Of whole files.
    lengths: Mutex<HashMap<usize, u64>>,
    buffer: Mutex<Vec<u8>>,
}

/// Length and hash of an answer.
type Answered = (Option<u64>, u64);

/// What players saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// When something was asked for, and how long it took until the first byte of media was there.
    pub(crate) firsts: Vec<(Instant, Duration)>,
    /// The same until the last.
    pub(crate) wholes: Vec<(Instant, Duration)>,
    pub(crate) errors: Vec<String>,
}

/// An answer that is not whole yet.
struct Reading {
    began: Instant,
    head: Vec<u8>,
    /// From the end of the header on.
    left: Option<u64>,
    first: Option<Duration>,
    hash: Option<DefaultHasher>,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Playing {
    pub(crate) fn new(peer: Arc<Peer>, wants: Vec<String>) -> Self {
        Self {
            peer,
            wants,
            once: false,
            piece_bytes: None,
            hashes: false,
            next: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            seen: Mutex::default(),
            known: Mutex::default(),
            lengths: Mutex::default(),
            buffer: Mutex::new(vec![0; BUFFER_BYTES]),
        }
    }

    /// Of media, so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Plays until there is nothing more, or something is wrong.
    pub(crate) async fn play(self: Arc<Self>, seed: u64) {
        let mut random = Random(seed);
        if let Err(error) = self.ask_on(&mut random).await {
            lock(&self.seen).errors.push(format!("{error:#}"));
        }
    }

    async fn ask_on(&self, random: &mut Random) -> anyhow::Result<()> {
        let mut connection = TcpStream::connect(&self.peer.http).await?;
        connection.set_nodelay(true)?;
        while let Some(index) = self.pick(random) {
            let path = &self.wants[index];
            self.ask(&mut connection, index, random).await.with_context(|| path.clone())?;
        }
        Ok(())
    }

    fn pick(&self, random: &mut Random) -> Option<usize> {
        let count = self.wants.len();
        if !self.once {
            return Some((random.next() % count.max(1) as u64) as usize);
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < count)
    }

    async fn ask(&self, connection: &mut TcpStream, index: usize, random: &mut Random) -> anyhow::Result<()> {
        let mut request = self.peer.head("GET", &self.wants[index]);
        let from = self.piece_bytes.map(|piece| match lock(&self.lengths).get(&index) {
            // Every fourth is the beginning, as players do it.
            Some(len) if !random.next().is_multiple_of(4) => random.next() % len.saturating_sub(piece).max(1),
            _ => 0,
        });
        if let (Some(from), Some(piece)) = (from, self.piece_bytes) {
            request.push_str(&format!("Range: bytes={from}-{}\r\n", from + piece - 1));
        }
        request.push_str("\r\n");
        connection.write_all(request.as_bytes()).await?;
        let hash = self.hashes.then(DefaultHasher::new);
        let mut reading = Reading { began: Instant::now(), head: Vec::new(), left: None, first: None, hash };
        while reading.left != Some(0) {
            connection.readable().await?;
            let mut buffer = lock(&self.buffer);
            match connection.try_read(&mut buffer) {
                Ok(0) => bail!("the answer was cut off, {:?} bytes before its end", reading.left),
                Ok(len) => self.bytes.fetch_add(reading.take(&buffer[..len])?, Ordering::Relaxed),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
        }
        self.note(index, from.unwrap_or(0), reading)
    }

    fn note(&self, index: usize, from: u64, reading: Reading) -> anyhow::Result<()> {
        let took = reading.began.elapsed();
        if let Some(total) = reading.total_length() {
            lock(&self.lengths).insert(index, total);
        }
        let same = (reading.content_length(), reading.hash.map_or(0, |hash| hash.finish()));
        match lock(&self.known).entry((index, from)) {
            Entry::Occupied(known) => ensure!(*known.get() == same, "not what it was before"),
            Entry::Vacant(vacant) => drop(vacant.insert(same)),
        }
        let mut seen = lock(&self.seen);
        seen.firsts.extend(reading.first.map(|first| (reading.began, first)));
        seen.wholes.push((reading.began, took));
        Ok(())
    }
}

impl Reading {
    /// How many bytes of media there are in it.
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<u64> {
        let mut body = bytes;
        if self.left.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = find(&self.head, b"\r\n\r\n") else {
                ensure!(self.head.len() < HEADER_BYTES_MAX, "no end of the header");
                return Ok(0);
            };
            body = &bytes[end + 4 - before..];
            self.head.truncate(end);
            self.head.make_ascii_lowercase();
            let status = self.head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            let answer = || format!("{} {}", self.head.escape_ascii(), body.escape_ascii());
            ensure!(matches!(status, b"200" | b"206"), "{}", answer());
            self.left = Some(self.content_length().with_context(answer)?);
        }
        let (left, len) = (self.left.unwrap_or(0), body.len() as u64);
        if len > 0 {
            self.first.get_or_insert_with(|| self.began.elapsed());
        }
        if let Some(hash) = &mut self.hash {
            hash.write(body);
        }
        self.left = Some(left.checked_sub(len).context("more than Content-Length")?);
        Ok(len)
    }

    /// The value of a field of the header.
    fn field(&self, name: &str) -> Option<&str> {
        let mut lines = std::str::from_utf8(&self.head).ok()?.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn content_length(&self) -> Option<u64> {
        self.field("content-length")?.parse().ok()
    }

    /// Of the whole of which this is a range.
    fn total_length(&self) -> Option<u64> {
        self.field("content-range")?.rsplit_once('/')?.1.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading { began: Instant::now(), head: Vec::new(), left: None, first: None, hash: Some(DefaultHasher::new()) }
    }

    #[test]
    fn an_answer_is_the_same_however_it_is_cut() {
        let answer = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/77\r\n\r\nhello";
        for len in 1..=answer.len() {
            let mut reading = reading();
            let taken: u64 = answer.chunks(len).map(|piece| reading.take(piece).unwrap()).sum();
            assert_eq!((taken, reading.left), (5, Some(0)), "pieces of {len}");
            assert_eq!((reading.content_length(), reading.total_length()), (Some(5), Some(77)));
            assert!(reading.take(b"!").is_err());
        }
    }

    #[test]
    fn what_is_no_success_is_an_error() {
        let error = reading().take(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno").unwrap_err();
        assert!(error.to_string().contains("404 not found"), "{error}");
        assert!(reading().take(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
