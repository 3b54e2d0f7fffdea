//! What is damage, and what only did not read this time.

use std::io::ErrorKind;
use std::sync::Arc;

use vidar_core::entry::SharedEntry;
use vidar_core::source::{FragmentSource as _, ReadError};

use crate::Store;
use crate::backend::fault::{Fault, FaultyIo, Op};
use crate::backend::memory::MemoryIo;
use crate::testing::{Opened, Source, config, media, open, source};

const MEDIA_LEN: usize = 70_000;

struct Archive {
    io: FaultyIo,
    opened: Opened,
    from: Source,
}

impl Archive {
    async fn new() -> Self {
        let io = FaultyIo::new(Arc::new(MemoryIo::new()));
        let opened = open(&io);
        let from = source(&opened.store).await;
        Self { io, opened, from }
    }

    fn store(&self) -> &Store {
        &self.opened.store
    }

    async fn fragment(&self) -> SharedEntry {
        let number = self.from.append(self.store(), &media(7, MEDIA_LEN)).await;
        self.opened.seen.entry(number).unwrap()
    }

    /// So many readings go well, then so many do not.
    fn fail(&self, op: Op, after: u32, times: u32) {
        self.io.fail(Fault { op, after, times, error: ErrorKind::TimedOut, torn_bytes: 0 });
    }

    fn noted(&self, entry: &SharedEntry) -> (bool, u64) {
        (self.store().is_damaged(entry), self.store().stats().damage)
    }
}

#[tokio::test]
async fn damage_is_what_two_readings_agree_on() {
    let archive = Archive::new().await;
    let store = archive.store();
    let read = async |entry: &SharedEntry| store.media(entry, None, 0..MEDIA_LEN as u64).await;
    let entry = archive.fragment().await;
    // The header that its key is derived from, then with a key at hand what is sealed.
    for what in ["header", "media"] {
        archive.fail(Op::Flip, 0, 1);
        assert_eq!(read(&entry).await.expect(what), media(7, MEDIA_LEN), "{what}");
        assert_eq!(archive.noted(&entry), (false, 0), "{what}");
    }
    archive.fail(Op::Flip, 0, 1);
    store.head(&*archive.fragment().await).await.expect("a head that reads the second time");
    assert_eq!(archive.noted(&entry), (false, 0));

    archive.fail(Op::Flip, 0, 2);
    assert!(matches!(read(&entry).await, Err(ReadError::Corrupt { .. })));
    assert_eq!(archive.noted(&entry), (true, 1));
    assert_eq!(read(&entry).await.unwrap(), media(7, MEDIA_LEN), "and nothing wrong is kept");

    let entry = archive.fragment().await;
    archive.fail(Op::Flip, 0, 1);
    archive.fail(Op::Read, 1, 1);
    assert!(matches!(read(&entry).await, Err(ReadError::Io { .. })), "the second reading says nothing");
    assert_eq!(archive.noted(&entry), (false, 1));
}

#[tokio::test]
async fn a_damaged_copy_of_a_config_is_found_once() {
    let mut archive = Archive::new().await;
    let entries = [archive.fragment().await, archive.fragment().await];
    let mut other = archive.fragment().await;
    while other.record.file == entries[0].record.file {
        other = archive.fragment().await;
    }
    assert_eq!(entries[0].record.file, entries[1].record.file);
    archive.store().close().await.unwrap();
    archive.opened = open(&archive.io);
    // Trailer and entries of its file read; the config does not, twice.
    archive.fail(Op::Flip, 2, 2);
    for entry in [&entries[0], &entries[0], &entries[1]] {
        assert!(matches!(archive.store().config(entry).await, Err(ReadError::Corrupt { .. })));
        assert_eq!(archive.noted(entry), (true, 1), "all that need it are damaged, and it is not read again");
    }
    assert!(!archive.noted(&other).0, "another file has a copy of its own");
    archive.opened.store.config(&other).await.unwrap();
    archive.store().config(&entries[0]).await.expect("the other copy, which is at hand");
    assert_eq!(archive.noted(&entries[0]), (false, 1));
}

#[tokio::test]
async fn a_disk_error_or_a_flip_at_a_footer_or_a_config_is_no_damage() {
    let mut archive = Archive::new().await;
    let entry = archive.fragment().await;
    let expected = config("one");
    // Trailer, entries, and the config itself, of a file that nobody has open.
    for op in [Op::Read, Op::Flip] {
        for after in 0..3 {
            archive.store().close().await.unwrap();
            archive.opened = open(&archive.io);
            archive.fail(op, after, 1);
            let first = archive.store().config(&entry).await;
            match op {
                // Without a footer its batches are looked through; nothing replaces the config.
                Op::Read if after == 2 => assert!(matches!(first, Err(ReadError::Io { .. })), "{first:?}"),
                _ => assert_eq!(*first.expect("another reading"), expected, "{after}"),
            }
            assert_eq!(archive.noted(&entry), (false, 0), "{op:?} {after}");
            assert_eq!(*archive.store().config(&entry).await.unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn large_reads_go_past_the_page_cache_once() {
    const LEN: usize = 1 << 20;
    const OPEN_LEN: usize = 150_000;
    let mut archive = Archive::new().await;
    let mut numbers = Vec::new();
    for _ in 0..5 {
        numbers.push(archive.from.append(archive.store(), &media(7, LEN)).await);
    }
    let number = archive.from.append(archive.store(), &media(8, OPEN_LEN)).await;
    let open_still = archive.opened.seen.entry(number).unwrap();
    assert!(!archive.store().shared().files.is_closed(open_still.record.file));
    archive.fail(Op::ReadDirect, 0, 1);
    assert_eq!(archive.store().media(&open_still, None, 0..OPEN_LEN as u64).await.unwrap(), media(8, OPEN_LEN));
    archive.store().close().await.unwrap();
    archive.opened = open(&archive.io);
    let store = archive.store();
    let entries: Vec<_> = numbers.iter().map(|number| archive.opened.seen.entry(*number).unwrap()).collect();
    for entry in &entries {
        store.head(entry).await.unwrap();
    }
    let [failing, twice, flipped, small, in_turn] = &entries[..] else { unreachable!() };
    let read = async |entry: &SharedEntry, len: usize| store.media(entry, None, 0..len as u64).await;

    archive.fail(Op::Read, 0, 1);
    assert!(matches!(read(failing, LEN).await, Err(ReadError::Io { .. })), "the failure that was planned comes now");
    assert_eq!(read(failing, LEN).await.unwrap(), media(7, LEN), "what does not read past it is read through it");
    archive.fail(Op::Read, 0, 2);
    assert_eq!(read(twice, LEN).await.unwrap(), media(7, LEN));
    assert!(matches!(read(twice, LEN).await, Err(ReadError::Io { .. })), "the second time through the page cache");
    assert!(matches!(read(small, 60_000).await, Err(ReadError::Io { .. })), "little goes through it at once");
    archive.fail(Op::Flip, 0, 1);
    assert_eq!(read(flipped, LEN).await.unwrap(), media(7, LEN));
    assert_eq!(archive.noted(flipped), (false, 0));
    // What follows in the same file was not read before. The edges lie within chunks.
    let ranges: Vec<_> = (0..LEN).step_by(140_000).map(|from| from..(from + 140_000).min(LEN)).collect();
    archive.fail(Op::Read, 0, ranges.len() as u32);
    for again in [false, true] {
        for range in &ranges {
            match store.media(in_turn, None, range.start as u64..range.end as u64).await {
                Ok(read) => assert!(!again && read == media(7, LEN).slice(range.clone()), "{range:?}"),
                Err(error) => assert!(again && matches!(error, ReadError::Io { .. }), "{range:?}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_config_is_found_in_a_file_whose_trailer_cannot_be_written_again() {
    let memory = MemoryIo::new();
    let opened = open(&memory);
    let number = source(&opened.store).await.append(&opened.store, &media(7, MEDIA_LEN)).await;
    opened.store.close().await.unwrap();
    // Nothing says that the file was closed, and the disk takes nothing.
    memory.remove_small("files");
    let io = FaultyIo::new(Arc::new(memory));
    io.fail(Fault { op: Op::Write, after: 0, times: u32::MAX, error: ErrorKind::PermissionDenied, torn_bytes: 0 });
    let opened = open(&io);
    let entry = opened.seen.entry(number).unwrap();
    assert!(!opened.store.shared().files.is_closed(entry.record.file));
    assert_eq!(*opened.store.config(&entry).await.unwrap(), config("one"));
    assert_eq!(opened.store.stats().damage, 0);
}
