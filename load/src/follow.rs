//! Viewers at the head: each follows one stream (`clip.mp4?live=1`) and notes when a fragment was there.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::http::Peer;

/// What followers saw, by the position of their stream.
pub(crate) struct Followers {
    all: Vec<(usize, Arc<Mutex<Seen>>)>,
    /// They end with this.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When the last byte of a fragment was there.
    fragments: Vec<Instant>,
    bytes: u64,
    error: Option<String>,
}

/// How the fragments of a while reached all viewers.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
    /// From when a fragment was complete until it was there.
    pub(crate) latencies: Vec<Duration>,
    /// Fragments that were not there before the next one was complete.
    pub(crate) late: usize,
    pub(crate) error: Option<String>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Followers {
    /// So many, shared out among the streams, each of which has a fragment.
    pub(crate) fn start(peer: &Arc<Peer>, streams: &[String], count: usize) -> Self {
        let (mut all, mut tasks) = (Vec::new(), JoinSet::new());
        for index in (0..streams.len()).cycle().take(count) {
            let seen = Arc::new(Mutex::new(Seen::default()));
            all.push((index, Arc::clone(&seen)));
            let (peer, path) = (Arc::clone(peer), format!("/v1/streams/{}/clip.mp4?live=1", streams[index]));
            tasks.spawn(async move {
                let mut boxes = Boxes::default();
                let ended = peer.fetch(&path, |piece| {
                    let mut seen = lock(&seen);
                    seen.bytes += piece.len() as u64;
                    let fragments = boxes.push(piece);
                    seen.fragments.extend(std::iter::repeat_n(Instant::now(), fragments));
                });
                let error = ended.await.err().map_or_else(|| "it ended".to_owned(), |error| format!("{error:#}"));
                lock(&seen).error = Some(format!("{path}: {error}"));
            });
        }
        Self { all, _tasks: tasks }
    }

    /// `ended`: when fragments of each stream were complete. Those count that were so within `window`.
    pub(crate) fn watched(self, ended: &[Vec<Instant>], window: &Range<Instant>) -> Watched {
        let mut watched = Watched { count: self.all.len(), ..Watched::default() };
        for (stream, seen) in &self.all {
            let mut seen = lock(seen);
            watched.bytes += seen.bytes;
            watched.error = watched.error.or(seen.error.take());
            let (latencies, late) = latencies(&ended[*stream], &seen.fragments, window);
            watched.latencies.extend(latencies);
            watched.late += late;
        }
        watched
    }
}

/// A fragment is what was there first after it was complete, and before the next one was.
fn latencies(ended: &[Instant], seen: &[Instant], window: &Range<Instant>) -> (Vec<Duration>, usize) {
    let (mut latencies, mut late) = (Vec::new(), 0);
    for (index, end) in ended.iter().enumerate().filter(|(_, end)| window.contains(end)) {
        let first = seen.get(seen.partition_point(|seen| seen < end));
        let is_next = |seen: &&Instant| ended.get(index + 1).is_none_or(|next| *seen < next);
        match first.filter(is_next) {
            Some(seen) => latencies.push(*seen - *end),
            None => late += 1,
        }
    }
    (latencies, late)
}

/// Boxes of a file as it comes (ISO/IEC 14496-12 section 4.2).
#[derive(Debug, Default)]
struct Boxes {
    head: Vec<u8>,
    /// Of the box that is being read.
    left: u64,
    is_media: bool,
}

impl Boxes {
    /// How many `mdat` end in it.
    fn push(&mut self, mut bytes: &[u8]) -> usize {
        let mut ended = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let len = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                bytes = &bytes[len..];
                self.left -= len as u64;
                ended += usize::from(self.left == 0 && self.is_media);
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let len = match self.head[..] {
                // Its length follows, in 8 bytes.
                [0, 0, 0, 1, _, _, _, _] => continue,
                [a, b, c, d, _, _, _, _] => u64::from(u32::from_be_bytes([a, b, c, d])),
                [.., a, b, c, d, e, f, g, h] if self.head.len() == 16 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                _ => continue,
            };
            self.left = len.saturating_sub(self.head.len() as u64);
            self.is_media = self.head[4..8] == *b"mdat";
            self.head.clear();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_ends_are_found_however_they_are_cut() {
        let mut file = b"\0\0\0\x0cftypabcd\0\0\0\x08moof\0\0\0\x0bmdatxyz\0\0\0\x08moof".to_vec();
        file.extend(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x12ab\0\0\0\x09mdat!");
        for len in 1..=file.len() {
            let mut boxes = Boxes::default();
            assert_eq!(file.chunks(len).map(|piece| boxes.push(piece)).sum::<usize>(), 3, "pieces of {len}");
        }
    }

    #[test]
    fn a_fragment_that_comes_after_the_next_is_late() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let ended = [at(0), at(2000), at(4000), at(6000)];
        let seen = [at(10), at(2030), at(6001)];
        let (latencies, late) = latencies(&ended, &seen, &(at(0)..at(6000)));
        assert_eq!((latencies, late), (vec![Duration::from_millis(10), Duration::from_millis(30)], 1));
    }
}
