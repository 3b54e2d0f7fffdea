//! What a start asks of the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vidar_core::clock::SystemClock;

use super::*;
use crate::backend::SegmentHandle;
use crate::backend::layer::{HandleLayer, IoLayer};
use crate::backend::memory::MemoryIo;
use crate::handles::HANDLE_COUNT_MAX;
use crate::testing::{Saving, media, open, open_with, options, source};
use crate::{Depth, verify_on};

/// Counts the handles that are open at the same time.
#[derive(Clone)]
struct CountingIo {
    memory: MemoryIo,
    count: Arc<Count>,
}

#[derive(Default)]
struct Count {
    now: AtomicUsize,
    most: AtomicUsize,
    /// Written to the list of files.
    list_bytes: AtomicUsize,
    /// Files that were opened, and how often they were listed.
    opened: AtomicUsize,
    listed: AtomicUsize,
}

struct CountingHandle {
    inner: Arc<dyn SegmentHandle>,
    count: Arc<Count>,
}

impl Drop for CountingHandle {
    fn drop(&mut self) {
        self.count.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CountingIo {
    fn new(memory: MemoryIo) -> Self {
        Self { memory, count: Arc::default() }
    }

    fn count(&self, inner: Arc<dyn SegmentHandle>) -> Arc<dyn SegmentHandle> {
        let now = self.count.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.count.most.fetch_max(now, Ordering::Relaxed);
        Arc::new(CountingHandle { inner, count: Arc::clone(&self.count) })
    }

    fn most(&self) -> usize {
        self.count.most.load(Ordering::Relaxed)
    }
}

impl IoLayer for CountingIo {
    fn inner(&self) -> &dyn SegmentIo {
        &self.memory
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.count.listed.fetch_add(1, Ordering::Relaxed);
        self.memory.list()
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentHandle>> {
        self.memory.create(name, len).map(|handle| self.count(handle))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentHandle>> {
        self.count.opened.fetch_add(1, Ordering::Relaxed);
        self.memory.open(name).map(|handle| self.count(handle))
    }

    fn replace_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.count.list_bytes.fetch_add(if name == "files" { bytes.len() } else { 0 }, Ordering::Relaxed);
        self.memory.replace_small(name, bytes)
    }

    fn append_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.count.list_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        self.memory.append_small(name, bytes)
    }
}

impl HandleLayer for CountingHandle {
    fn inner(&self) -> &dyn SegmentHandle {
        &*self.inner
    }
}

/// A directory with more files than a process may have open.
async fn many_files() -> CountingIo {
    let io = CountingIo::new(MemoryIo::new());
    let mut small = options();
    small.segment_bytes = 16 << 10;
    let opened = open_with(small, &io);
    let from = source(&opened.store).await;
    let media = media(1, 12_000);
    while opened.store.stats().files < HANDLE_COUNT_MAX as u64 + 100 {
        from.append(&opened.store, &media).await;
    }
    opened.store.close().await.unwrap();
    io
}

#[tokio::test]
async fn an_archive_of_many_files_opens_a_bounded_number_of_them() {
    let memory = many_files().await.memory;
    let io = CountingIo::new(memory.clone());
    let opened = open_with(options(), &io);
    assert!(opened.report.files > HANDLE_COUNT_MAX as u64);
    // One of them may be in use when it is put out of the cache; the reserve and the next file are made meanwhile.
    let bound = HANDLE_COUNT_MAX + 2;
    assert!(io.most() <= bound, "{} were open", io.most());
    opened.store.close().await.unwrap();
    let io = CountingIo::new(memory);
    verify_on(&options(), Arc::new(io.clone()), Depth::Decrypt, &mut |_| {}).unwrap();
    assert!(io.most() <= bound, "{} were open", io.most());
}

#[tokio::test]
async fn a_start_from_a_checkpoint_lists_once_and_opens_nothing_that_it_names() {
    let (memory, observer) = (MemoryIo::new(), Arc::new(Saving::default()));
    let start = |io: &CountingIo, observer: &Arc<Saving>| {
        let observers = vec![Arc::clone(observer) as Arc<dyn LogObserver>];
        Store::open(options(), Arc::new(io.clone()), SystemClock::shared(), observers).unwrap()
    };
    let (store, _) = start(&CountingIo::new(memory.clone()), &observer);
    let from = source(&store).await;
    while store.stats().files < 20 {
        from.append(&store, &media(1, 60_000)).await;
    }
    store.close().await.unwrap();
    let io = CountingIo::new(memory);
    let (store, report) = start(&io, &observer.again());
    assert!(report.resumed);
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    assert_eq!((count(&io.count.listed), count(&io.count.opened)), (1, 0));
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_list_of_files_is_not_written_anew_for_each_file() {
    let io = many_files().await;
    let listed = io.memory.read_small("files").unwrap().unwrap().len();
    // Each file is begun and closed: a change of 36 bytes. At a start and at the stop the list is written as a whole.
    let bound = (HANDLE_COUNT_MAX + 100) * 2 * 36 + 2 * listed;
    let written = io.count.list_bytes.load(Ordering::Relaxed);
    assert!(written <= bound, "{written} bytes for a list of {listed}");
}

#[tokio::test]
async fn a_file_stays_while_any_stream_has_fragments_in_it() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let store = &opened.store;
    let mut from = Vec::new();
    for _ in 0..5 {
        from.push(source(store).await);
    }
    let mut first = Vec::new();
    for source in &from {
        first.push(source.append(store, &media(1, 5000)).await);
    }
    let file = opened.seen.entry(first[0]).unwrap().record.file;
    while store.stats().files < 2 {
        from[0].append(store, &media(1, 60_000)).await;
    }
    store.shared().closings.wait();
    let floor = store.next_number(vidar_core::time::UnixMs(5));
    // In an order that lets the witness go again and again.
    for (at, source) in from.iter().enumerate().rev() {
        assert!(store.shared().files.name(file).is_some(), "{at} has fragments in it");
        let entries = opened.seen.entries().into_iter().filter(|entry| entry.meta.stream == source.stream);
        store.expire(source.stream, floor, 0, 0, entries.collect()).await.unwrap();
    }
    assert_eq!(store.shared().files.name(file), None);
    store.close().await.unwrap();
    assert_eq!(open(&io).report.damage, []);
}
