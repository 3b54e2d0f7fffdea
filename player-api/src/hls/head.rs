//! What is being recorded, sample by sample, while somebody watches it in parts.
//!
//! A task follows the hub for each stream that is watched, and ends a while after the last question. A fragment is here from
//! its first sample until it is durable; then its media comes from the archive, and what stays for a while is where its parts
//! are cut. Buffers are shared with the hub.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use vidar_core::hub::LiveEvent;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::sample::{Sample, SyncKind};
use vidar_core::sink::OpenFragment;
use vidar_core::time::{UnixMs, ticks_to_ms_nearest};
use vidar_core::track::{StreamConfig, Track};
use vidar_live::{Hub, RecvError, Subscriber};
use vidar_media::codec;
use vidar_media::table::SampleEntry;

use super::media::Part;
use super::parts;
use super::rendition::RenditionId;
use super::segment::{self, zero_ticks_at};

/// After the last question nobody watches any more.
const IDLE: Duration = Duration::from_secs(60);
/// Durable fragments whose cuts are kept, and failed ones that are gaps.
const SETTLED_COUNT: usize = 16;
/// Bytes of media of one stream that are held at most; then the oldest fragment is to be had once it is durable.
const HELD_BYTES_MAX: usize = 64 << 20;
/// The same of all streams.
const TOTAL_BYTES_MAX: usize = 256 << 20;

/// The streams that are watched so.
#[derive(Clone, Default)]
pub struct Heads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Held for a look-up.
    all: Mutex<HashMap<StreamId, Arc<Head>>>,
    /// Bytes of media of all.
    held_bytes: AtomicUsize,
    stopping: watch::Sender<bool>,
}

impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Heads").field(&self.all().len()).finish()
    }
}

impl Heads {
    fn all(&self) -> MutexGuard<'_, HashMap<StreamId, Arc<Head>>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of media that are held for viewers of parts. Most are those that the hub holds, too.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.0.held_bytes.load(Ordering::Relaxed)
    }

    /// Nobody is to wait any more.
    pub fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Resolves once that was said.
    pub(super) async fn stopped(&self) {
        let mut stopping = self.0.stopping.subscribe();
        // Its sender is in `self`.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// The head of a stream, which is followed from now on.
    pub(super) fn follow(&self, hub: &Arc<Hub>, stream: StreamId) -> Arc<Head> {
        let (head, mut subscriber) = {
            let mut all = self.all();
            if let Some(head) = all.get(&stream) {
                head.touch();
                return Arc::clone(head);
            }
            let head = Arc::new(Head::new(Arc::clone(&self.0)));
            all.insert(stream, Arc::clone(&head));
            (head, hub.subscribe(stream))
        };
        // What the hub has is known before the first answer.
        while let Some(event) = subscriber.next().now_or_never() {
            head.take(event);
        }
        tokio::spawn(run(self.clone(), stream, Arc::clone(&head), subscriber));
        head
    }

    /// The head of a stream, if it is followed.
    pub(super) fn get(&self, stream: StreamId) -> Option<Arc<Head>> {
        self.all().get(&stream).inspect(|head| head.touch()).cloned()
    }
}

async fn run(heads: Heads, stream: StreamId, head: Arc<Head>, mut subscriber: Subscriber) {
    loop {
        let idle_at = head.state().asked + IDLE;
        tokio::select! {
            event = subscriber.next() => head.take(event),
            () = heads.stopped() => return,
            () = tokio::time::sleep_until(idle_at) => {
                let mut all = heads.all();
                // Who asks takes this lock first.
                if head.state().asked + IDLE <= Instant::now() {
                    all.remove(&stream);
                    return;
                }
            }
        }
    }
}

/// What is recorded of one stream.
pub(super) struct Head {
    /// Held for a look, or for one event.
    state: Mutex<State>,
    changed: watch::Sender<()>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct State {
    asked: Instant,
    /// In order of ordinals.
    fragments: VecDeque<HeadFragment>,
    held_bytes: usize,
    /// The greatest ordinal that was seen.
    pub(super) newest: Option<u64>,
}

#[derive(Debug)]
pub(super) struct HeadFragment {
    pub(super) place: OpenFragment,
    pub(super) config: Arc<StreamConfig>,
    pub(super) producer_start: UnixMs,
    pub(super) state: FragmentState,
    /// Known once it is closed.
    pub(super) duration_ms: Option<u32>,
    /// Producer time of media time 0: known with the first sample.
    origin_ms: Option<i64>,
    tracks: Vec<HeadTrack>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FragmentState {
    Open,
    Closed,
    Durable,
    Failed,
}

#[derive(Debug, Default)]
struct HeadTrack {
    entries: Vec<SampleEntry>,
    /// Of each, its bytes less those that its entry drops; none once it is durable.
    data: Vec<Bytes>,
    /// Where it is cut so far, for some lengths of parts: what is asked again at each sample is not to look at all of them.
    cuts: RefCell<VecDeque<(u32, Vec<Range<usize>>)>>,
}

/// Lengths of parts whose cuts are kept.
const CUTS_MAX: usize = 4;

impl HeadTrack {
    fn with_cut<T>(
        &self,
        of_config: &Track,
        part_ms: u32,
        is_closed: bool,
        look: impl FnOnce(&[Range<usize>]) -> T,
    ) -> T {
        let mut cuts = self.cuts.borrow_mut();
        let at = cuts.iter().position(|(length, _)| *length == part_ms).unwrap_or_else(|| {
            cuts.truncate(CUTS_MAX - 1);
            cuts.push_front((part_ms, Vec::new()));
            0
        });
        let (_, cut) = &mut cuts[at];
        parts::cut_on(&self.entries, part_ms, of_config.timescale_hz, is_closed, cut);
        look(cut)
    }
}

/// What there is of a part, or of all parts of a fragment.
pub(super) enum Found {
    Media(Vec<Bytes>),
    /// It is still to come.
    NotYet,
    /// It is not here, and will not be.
    Never,
    /// The archive has it, if anybody has.
    Elsewhere,
}

impl Head {
    fn new(shared: Arc<Shared>) -> Self {
        let state = State { asked: Instant::now(), fragments: VecDeque::new(), held_bytes: 0, newest: None };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()), shared }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.state().asked = Instant::now();
    }

    /// Tells of whatever happens from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn take(&self, event: Result<LiveEvent, RecvError>) {
        let mut state = self.state();
        let before = state.held_bytes;
        state.take(event);
        let total = &self.shared.held_bytes;
        total.fetch_add(state.held_bytes, Ordering::Relaxed);
        total.fetch_sub(before, Ordering::Relaxed);
        while state.held_bytes > HELD_BYTES_MAX || total.load(Ordering::Relaxed) > TOTAL_BYTES_MAX {
            let before = state.held_bytes;
            state.give_up_oldest();
            total.fetch_sub(before - state.held_bytes, Ordering::Relaxed);
            if state.held_bytes == before {
                break;
            }
        }
        drop(state);
        self.changed.send_replace(());
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        let held = self.state().held_bytes;
        self.shared.held_bytes.fetch_sub(held, Ordering::Relaxed);
    }
}

impl State {
    fn take(&mut self, event: Result<LiveEvent, RecvError>) {
        match event {
            // What was open is not whole here: it is to be had once it is durable.
            Err(RecvError::Lagged) => self.forget(|fragment| fragment.state != FragmentState::Durable),
            // Where its time may still change, so may its bytes.
            Ok(LiveEvent::Opened { is_anchored: false, .. }) => {}
            Ok(LiveEvent::Opened { fragment: place, config, producer_start, .. }) => {
                let tracks = config.tracks.iter().map(|_| HeadTrack::default()).collect();
                let state = FragmentState::Open;
                let (origin_ms, duration_ms) = (None, None);
                let opened = HeadFragment { place, config, producer_start, state, duration_ms, origin_ms, tracks };
                self.newest = self.newest.max(Some(place.ordinal));
                // Of two that begin at once, either may be told first.
                let at = self.fragments.iter().rposition(|fragment| fragment.place.ordinal < place.ordinal);
                self.fragments.insert(at.map_or(0, |at| at + 1), opened);
            }
            Ok(LiveEvent::Sample { number, sample }) => {
                // One of which a part could not be stored goes on, and will never be whole.
                let Some(fragment) = self.find(number).filter(|fragment| fragment.is_open()) else { return };
                let held = fragment.add(sample);
                self.held_bytes += held;
            }
            Ok(LiveEvent::Closed { fragment, duration_ms, next_decode_ticks }) => {
                if let Some(fragment) = self.find(fragment.number) {
                    fragment.close(duration_ms, next_decode_ticks);
                }
            }
            Ok(LiveEvent::Durable(durable)) => {
                let Some(fragment) = self.find(durable.number) else { return };
                fragment.duration_ms = Some(durable.duration_ms.max(1));
                self.settle(durable.number, FragmentState::Durable);
            }
            Ok(LiveEvent::Failed(place)) => self.settle(place.number, FragmentState::Failed),
            Ok(LiveEvent::Tags { .. } | LiveEvent::Ended(_)) => {}
        }
    }

    /// Its media is let go, and of all that came to that end the oldest is forgotten.
    fn settle(&mut self, number: FragmentNumber, end: FragmentState) {
        let Some(fragment) = self.find(number) else { return };
        fragment.state = end;
        let released = fragment.release();
        self.held_bytes -= released;
        let ended = self.fragments.iter().filter(|fragment| fragment.state == end);
        if ended.clone().count() > SETTLED_COUNT {
            let oldest = ended.clone().next().map(|fragment| fragment.place.number);
            self.forget(|fragment| Some(fragment.place.number) == oldest);
        }
    }

    fn forget(&mut self, which: impl Fn(&HeadFragment) -> bool) {
        self.fragments.retain(|fragment| !which(fragment));
        self.held_bytes = self.fragments.iter().map(HeadFragment::held_bytes).sum();
    }

    fn give_up_oldest(&mut self) {
        let oldest = self.fragments.iter().find(|fragment| fragment.holds_media());
        let oldest = oldest.map(|fragment| fragment.place.number);
        self.forget(|fragment| Some(fragment.place.number) == oldest);
    }

    fn find(&mut self, number: FragmentNumber) -> Option<&mut HeadFragment> {
        self.fragments.iter_mut().rfind(|fragment| fragment.place.number == number)
    }

    /// The fragments from an ordinal on, as far as they follow each other, and no more than one that is open.
    pub(super) fn from(&self, ordinal: u64) -> impl Iterator<Item = &HeadFragment> {
        let mut next = Some(ordinal);
        let after = self.fragments.iter().skip_while(move |fragment| fragment.place.ordinal < ordinal);
        after.take_while(move |fragment| {
            let follows = next == Some(fragment.place.ordinal);
            next = next.filter(|_| fragment.duration_ms.is_some()).and_then(|next| next.checked_add(1));
            // Of one that failed while it was open nobody knows how long it is: what follows waits to be durable.
            follows && (fragment.is_open() || fragment.duration_ms.is_some())
        })
    }

    /// The fragment of that number.
    pub(super) fn get(&self, number: FragmentNumber) -> Option<&HeadFragment> {
        self.fragments.iter().rfind(|fragment| fragment.place.number == number)
    }
}

impl HeadFragment {
    /// Returns how many bytes that holds.
    fn add(&mut self, sample: Sample) -> usize {
        let (index, config) = (usize::from(sample.track), Arc::clone(&self.config));
        let (Some(track), Some(of_config)) = (self.tracks.get_mut(index), config.tracks.get(index)) else { return 0 };
        let presentation_ms = || ticks_to_ms_nearest(sample.presentation_ticks(), of_config.timescale_hz);
        self.origin_ms.get_or_insert_with(|| self.producer_start.0.saturating_sub(presentation_ms()));
        let drops = codec::inspect_stored(of_config, &sample.data).drops;
        track.data.push(kept(&sample.data, &drops));
        track.entries.push(SampleEntry::of(&sample, drops, 0));
        track.data.last().map_or(0, Bytes::len)
    }

    fn close(&mut self, duration_ms: u32, next_decode_ticks: Option<i64>) {
        self.duration_ms = Some(duration_ms.max(1));
        if !self.is_open() {
            return;
        }
        self.state = FragmentState::Closed;
        let primary = self.config.primary_track().and_then(|index| self.tracks.get_mut(index));
        if let (Some(next), Some(last)) = (next_decode_ticks, primary.and_then(|track| track.entries.last_mut())) {
            last.lasts_until(next);
        }
    }

    fn held_bytes(&self) -> usize {
        self.tracks.iter().flat_map(|track| &track.data).map(Bytes::len).sum()
    }

    fn holds_media(&self) -> bool {
        self.tracks.iter().any(|track| !track.data.is_empty())
    }

    /// Lets go of the media; how many bytes that were.
    fn release(&mut self) -> usize {
        let held = self.held_bytes();
        self.tracks.iter_mut().for_each(|track| track.data = Vec::new());
        held
    }

    fn is_open(&self) -> bool {
        self.state == FragmentState::Open
    }

    fn track(&self, id: RenditionId) -> Option<(u8, &Track, &HeadTrack)> {
        let index = id.track(&self.config)?;
        let at = usize::from(index);
        Some((index, self.config.tracks.get(at)?, self.tracks.get(at)?))
    }

    /// When it begins, as its record says: the first keyframe of the primary track, else its first sample.
    pub(super) fn start(&self) -> UnixMs {
        let primary = self.config.primary_track();
        let track = primary.and_then(|index| Some((self.config.tracks.get(index)?, self.tracks.get(index)?)));
        let Some(((of_config, track), origin_ms)) = track.zip(self.origin_ms) else { return self.producer_start };
        let key = track.entries.iter().find(|entry| entry.sync == SyncKind::Sync).or(track.entries.first());
        let ms = |entry: &SampleEntry| ticks_to_ms_nearest(entry.presentation_ticks(), of_config.timescale_hz);
        key.map_or(self.producer_start, |key| UnixMs(origin_ms.saturating_add(ms(key))))
    }

    /// Its samples of the rendition, if there are some, begin with a sync sample.
    pub(super) fn starts_with_sync(&self, id: RenditionId) -> bool {
        let first = self.track(id).and_then(|(.., track)| track.entries.first());
        first.is_none_or(|first| first.sync == SyncKind::Sync)
    }

    /// It has samples of the rendition.
    pub(super) fn has(&self, id: RenditionId) -> bool {
        self.track(id).is_some_and(|(.., track)| !track.entries.is_empty())
    }

    /// How many of its parts are complete.
    pub(super) fn part_count(&self, id: RenditionId, part_ms: u32) -> usize {
        let Some((_, of_config, track)) = self.track(id) else { return 0 };
        track.with_cut(of_config, part_ms, !self.is_open(), <[_]>::len)
    }

    /// Its parts that are complete.
    pub(super) fn parts(&self, id: RenditionId, part_ms: u32, uri: impl Fn(usize) -> String) -> Vec<Part> {
        let Some((_, of_config, track)) = self.track(id) else { return Vec::new() };
        let timescale_hz = of_config.timescale_hz;
        let cut = track.with_cut(of_config, part_ms, !self.is_open(), <[_]>::to_vec);
        let listed = |(index, part)| parts::listed(&track.entries, part, timescale_hz, uri(index));
        cut.iter().enumerate().map(listed).collect()
    }

    /// The media of one of its parts, or of all.
    pub(super) fn media(&self, id: RenditionId, part_ms: u32, which: Option<usize>) -> Found {
        match self.state {
            FragmentState::Durable => return Found::Elsewhere,
            FragmentState::Failed => return Found::Never,
            FragmentState::Open if which.is_none() => return Found::NotYet,
            FragmentState::Open | FragmentState::Closed => {}
        }
        let Some((index, of_config, track)) = self.track(id) else { return Found::Never };
        let cut = track.with_cut(of_config, part_ms, !self.is_open(), <[_]>::to_vec);
        if which.is_some_and(|which| which >= cut.len()) || cut.is_empty() {
            return if self.is_open() { Found::NotYet } else { Found::Never };
        }
        let zero_ticks =
            zero_ticks_at(self.origin_ms.unwrap_or_default(), &self.config, of_config, of_config.timescale_hz);
        let mut media = Vec::new();
        for (part, range) in cut.iter().enumerate().filter(|(part, _)| which.is_none_or(|which| which == *part)) {
            let entries = parts::entries(&track.entries, range);
            let header = segment::header(index, self.place.ordinal, zero_ticks, parts::start(part), &entries);
            let Some(header) = header else { return Found::Never };
            media.push(header.bytes);
            media.extend(track.data[range.clone()].iter().filter(|data| !data.is_empty()).cloned());
        }
        Found::Media(media)
    }
}

/// A sample without the ranges that are dropped.
fn kept(data: &Bytes, drops: &[(u32, u32)]) -> Bytes {
    if drops.is_empty() {
        return data.clone();
    }
    let (mut kept, mut from) = (Vec::with_capacity(data.len()), 0);
    for (offset, len) in drops {
        kept.extend_from_slice(&data[from..*offset as usize]);
        from = (offset + len) as usize;
    }
    kept.extend_from_slice(&data[from..]);
    kept.into()
}
