//! Viewers at the head: each follows one stream (`clip.mp4?live=1`) and notes when a fragment was there. Which one it
//! was, its decode time says: a viewer that is behind must not have one of its fragments taken for the next.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::http::{Peer, find};

/// What followers saw, by the position of their stream.
pub(crate) struct Followers {
    all: Vec<(usize, Arc<Mutex<Seen>>)>,
    /// They end with this.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The fragments in their order.
    fragments: Vec<Fragment>,
    bytes: u64,
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fragment {
    /// Between its first decode time and that of the first fragment.
    after: Duration,
    /// When its last byte was there.
    seen: Instant,
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
    /// So many, shared out among the streams, each of which has a fragment. They see all that was pushed since
    /// `start_ms`, of the clock on the wall.
    pub(crate) fn start(peer: &Arc<Peer>, streams: &[String], start_ms: u128, count: usize) -> Self {
        let (mut all, mut tasks) = (Vec::new(), JoinSet::new());
        for index in (0..streams.len()).cycle().take(count) {
            let seen = Arc::new(Mutex::new(Seen::default()));
            all.push((index, Arc::clone(&seen)));
            let path = format!("/v1/streams/{}/clip.mp4?live=1&start={start_ms}", streams[index]);
            let peer = Arc::clone(peer);
            tasks.spawn(async move {
                let mut boxes = Boxes::default();
                let ended = peer.fetch(&path, |piece| {
                    let mut seen = lock(&seen);
                    seen.bytes += piece.len() as u64;
                    let now = Instant::now();
                    seen.fragments.extend(boxes.push(piece).map(|after| Fragment { after, seen: now }));
                });
                let error = ended.await.err().map_or_else(|| "it ended".to_owned(), |error| format!("{error:#}"));
                lock(&seen).error = Some(format!("{path}: {error}"));
            });
        }
        Self { all, _tasks: tasks }
    }

    /// `ended`: when fragments of each stream were complete, each of which lasts a `gop`. Those count that were so within
    /// `window`.
    pub(crate) fn watched(self, ended: &[Vec<Instant>], gop: Duration, window: &Range<Instant>) -> Watched {
        let mut watched = Watched { count: self.all.len(), ..Watched::default() };
        for (stream, seen) in &self.all {
            let mut seen = lock(seen);
            watched.bytes += seen.bytes;
            watched.error = watched.error.or(seen.error.take());
            let (latencies, late) = latencies(&ended[*stream], &seen.fragments, gop, window);
            watched.latencies.extend(latencies);
            watched.late += late;
        }
        watched
    }
}

/// Also of those that are late: not there before the next one was complete.
fn latencies(ended: &[Instant], seen: &[Fragment], gop: Duration, window: &Range<Instant>) -> (Vec<Duration>, usize) {
    let (mut latencies, mut late) = (Vec::new(), 0);
    let index_of = |fragment: &Fragment| ((fragment.after + gop / 2).as_nanos() / gop.as_nanos()) as usize;
    for (index, end) in ended.iter().enumerate().filter(|(_, end)| window.contains(end)) {
        let upto = seen.partition_point(|fragment| index_of(fragment) <= index);
        let there = seen[..upto].last().filter(|fragment| index_of(fragment) == index).map(|fragment| fragment.seen);
        latencies.extend(there.map(|there| there.saturating_duration_since(*end)));
        let next = ended.get(index + 1);
        late += usize::from(there.is_none_or(|there| next.is_some_and(|next| there >= *next)));
    }
    (latencies, late)
}

/// Boxes of a file as it comes (ISO/IEC 14496-12 section 4.2). Times are those of the first track.
#[derive(Debug, Default)]
struct Boxes {
    head: Vec<u8>,
    /// Of the box that is being read.
    left: u64,
    kind: [u8; 4],
    /// Of a `moov` or `moof`.
    body: Vec<u8>,
    timescale_hz: u64,
    /// Decode time of the first fragment, and of this one.
    first_ticks: Option<u64>,
    ticks: u64,
}

impl Boxes {
    /// The fragments whose `mdat` end in it: how long after the first they begin.
    fn push(&mut self, mut bytes: &[u8]) -> impl Iterator<Item = Duration> + use<> {
        let mut ended = Vec::new();
        while !bytes.is_empty() {
            if self.left > 0 {
                let len = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                if matches!(&self.kind, b"moov" | b"moof") {
                    self.body.extend_from_slice(&bytes[..len]);
                }
                bytes = &bytes[len..];
                self.left -= len as u64;
                if self.left == 0 {
                    ended.extend(self.end());
                }
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
            self.kind.copy_from_slice(&self.head[4..8]);
            self.head.clear();
        }
        ended.into_iter()
    }

    fn end(&mut self) -> Option<Duration> {
        let body = std::mem::take(&mut self.body);
        match &self.kind {
            // Behind version, flags and two times (section 8.4.2).
            b"moov" => self.timescale_hz = number(&body, b"mdhd", [12..16, 20..24])?,
            // Section 8.8.12.
            b"moof" => self.ticks = number(&body, b"tfdt", [4..8, 4..12])?,
            b"mdat" => {
                let ticks = self.ticks.saturating_sub(*self.first_ticks.get_or_insert(self.ticks));
                return Some(Duration::from_millis(ticks * 1000 / self.timescale_hz.max(1)));
            }
            _ => {}
        }
        None
    }
}

/// A number in the first full box of a kind: where it stands in versions 0 and 1, behind the kind.
fn number(body: &[u8], kind: &[u8; 4], places: [Range<usize>; 2]) -> Option<u64> {
    let fields = &body[find(body, kind)? + 4..];
    let [first, second] = places;
    let place = if *fields.first()? == 0 { first } else { second };
    Some(fields.get(place)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes(), &kind[..], body].concat()
    }

    /// A full box: its version and its numbers.
    fn full(kind: &[u8; 4], version: u8, words: &[u32]) -> Vec<u8> {
        let words = words.iter().flat_map(|word| word.to_be_bytes());
        boxed(kind, &[version, 0, 0, 0].into_iter().chain(words).collect::<Vec<_>>())
    }

    #[test]
    fn fragments_are_known_by_their_decode_times_however_they_are_cut() {
        for media_header in [full(b"mdhd", 0, &[1, 2, 90_000, 3]), full(b"mdhd", 1, &[0, 1, 0, 2, 90_000, 0, 3])] {
            let times = [full(b"tfdt", 1, &[0, 90_000]), full(b"tfdt", 0, &[270_000]), full(b"tfdt", 1, &[1, 90_000])];
            let media = [&b"\0\0\0\x0bmdatxyz"[..], b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x12ab", b"\0\0\0\x09mdat!"];
            let mut file = [boxed(b"ftyp", b"abcd"), boxed(b"moov", &boxed(b"trak", &media_header))].concat();
            for (time, media) in times.iter().zip(media) {
                // The times of the other track are left alone.
                let other = boxed(b"traf", &full(b"tfdt", 0, &[7]));
                file.extend(boxed(b"moof", &[boxed(b"traf", time), other].concat()));
                file.extend(media);
            }
            let expected = [ms(0), ms(2000), ms((1_u64 << 32) * 1000 / 90_000)];
            for len in 1..=file.len() {
                let mut boxes = Boxes::default();
                let seen: Vec<Duration> = file.chunks(len).flat_map(|piece| boxes.push(piece)).collect();
                assert_eq!(seen, expected, "pieces of {len}");
            }
        }
    }

    #[test]
    fn a_viewer_that_is_behind_is_late_with_every_fragment() {
        let start = Instant::now();
        let at = |time: u64| start + ms(time);
        let ended = [at(0), at(2000), at(4000), at(6000), at(8000)];
        let seen = |times: &[(u64, u64)]| -> Vec<Fragment> {
            times.iter().map(|(after, seen)| Fragment { after: ms(*after), seen: at(*seen) }).collect()
        };
        let judge = |times: &[(u64, u64)]| latencies(&ended, &seen(times), ms(2000), &(at(0)..at(7000)));
        assert_eq!(judge(&[(0, 10), (2001, 2030), (3999, 4001), (6000, 6001)]).1, 0);
        // One is missing, one comes after the next was complete, and one in two pieces.
        let (latencies, late) = judge(&[(0, 10), (4000, 6001), (6000, 6100), (6900, 6200)]);
        assert_eq!((latencies, late), (vec![ms(10), ms(2001), ms(200)], 2));
        // By their order alone these would be 200 ms late, each.
        let (latencies, late) = judge(&[(0, 2200), (2000, 4200), (4000, 6200), (6000, 8200)]);
        assert_eq!((latencies, late), (vec![ms(2200); 4], 4));
    }
}
