//! What every implementation of [`SegmentIo`] must do.

use std::io::ErrorKind;
use std::sync::Arc;

use super::blocks::Blocks;
use super::fault::{Fault, FaultyIo, Op};
use super::fs::FsIo;
use super::memory::MemoryIo;
use super::{SegmentIo, WriteMode};

fn suite(io: &dyn SegmentIo) {
    let held = io.lock().unwrap();
    assert_eq!(io.lock().err().unwrap().kind(), ErrorKind::WouldBlock);
    drop(held);
    let _held = io.lock().expect("a lock that was given back");

    assert_eq!(io.list().unwrap(), Vec::<String>::new());
    assert_eq!(io.open("a.vseg").err().unwrap().kind(), ErrorKind::NotFound);
    let file = io.create("a.vseg", 3 * 4096).unwrap();
    assert_eq!(io.create("a.vseg", 0).err().unwrap().kind(), ErrorKind::AlreadyExists);
    io.sync_dir().unwrap();
    assert_eq!(io.list().unwrap(), ["a.vseg"]);
    assert_eq!(file.len().unwrap(), 3 * 4096);
    let mut zeros = [1; 64];
    file.read_at(4096, &mut zeros).unwrap();
    assert_eq!(zeros, [0; 64]);

    file.write_at(0, &vec![7; 5 * 4096]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(file.len().unwrap(), 5 * 4096);
    let again = io.open("a.vseg").unwrap();
    let mut bytes = [0; 2];
    again.read_at(5 * 4096 - 2, &mut bytes).unwrap();
    assert_eq!(bytes, [7, 7]);
    // Whether it can be read without waiting is not promised; what it is then, is.
    assert!(!again.read_cached(5 * 4096 - 1, &mut [0; 2]) && !again.read_cached(u64::MAX, &mut [0; 2]));
    assert_eq!(again.read_at(5 * 4096 - 1, &mut bytes).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(again.read_at(u64::MAX, &mut bytes).unwrap_err().kind(), ErrorKind::UnexpectedEof);

    // Whole blocks, also where the page cache holds what was there before; in the middle, and growing the file.
    let blocks = Blocks::from(&vec![9; 2 * 4096][..]);
    for at in [4096, 5 * 4096] {
        file.write_blocks(at, &blocks).unwrap();
        file.sync_data().unwrap();
        for handle in [&file, &again] {
            let mut written = vec![0; blocks.len()];
            handle.read_at(at, &mut written).unwrap();
            assert_eq!(written, vec![9; blocks.len()]);
            let mut cached = vec![0; blocks.len()];
            assert!(!handle.read_cached(at, &mut cached) || cached == written);
            let mut direct = Blocks::from(&vec![0; blocks.len()][..]);
            assert!(!handle.read_direct(at, &mut direct) || direct[..] == written);
            assert!(!handle.read_direct(at + 1, &mut direct) && !handle.read_direct(at, &mut direct[1..4097]));
        }
    }
    file.write_at(4096, &[7; 2 * 4096]).unwrap();
    let mut direct = Blocks::from(&[0; 2 * 4096][..]);
    assert!(
        !again.read_direct(4096, &mut direct) || direct[..] == [7; 2 * 4096],
        "not what the page cache still holds"
    );
    assert!(!again.read_direct(6 * 4096, &mut direct), "the file ends before");
    file.truncate(5 * 4096).unwrap();

    again.punch(4096, 8192).unwrap();
    for (at, expected) in [(4095, [7, 0]), (3 * 4096 - 1, [0, 7])] {
        file.read_at(at, &mut bytes).unwrap();
        assert_eq!(bytes, expected);
    }
    assert_eq!(file.len().unwrap(), 5 * 4096);
    file.truncate(100).unwrap();
    assert_eq!(again.len().unwrap(), 100);

    io.unlink("a.vseg").unwrap();
    io.sync_dir().unwrap();
    assert_eq!(io.unlink("a.vseg").unwrap_err().kind(), ErrorKind::NotFound);
    again.read_at(0, &mut bytes).expect("open handles keep reading");

    assert_eq!(io.read_small("keyring.a").unwrap(), None);
    for bytes in [&b"one"[..], b"", b"three"] {
        io.replace_small("keyring.a", bytes).unwrap();
        assert_eq!(io.read_small("keyring.a").unwrap().as_deref(), Some(bytes));
    }
    io.append_small("keyring.a", b" four").unwrap();
    assert_eq!(io.read_small("keyring.a").unwrap().as_deref(), Some(&b"three four"[..]));
    assert_eq!(io.append_small("keyring.c", b"x").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(io.list().unwrap(), Vec::<String>::new(), "small files are no segment files");
    io.reserve(8192).unwrap();
    io.reserve(0).unwrap();
    io.reserve(0).unwrap();
    let space = io.space().unwrap();
    assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes);
}

#[test]
fn every_implementation_conforms() {
    let dir = tempfile::tempdir().unwrap();
    suite(&FsIo::new(dir.path().join("deep/data")));
    let buffered = FsIo::buffered(dir.path().join("buffered"));
    suite(&buffered);
    assert_eq!(buffered.write_mode(), WriteMode::Buffered);
    suite(&MemoryIo::new());
    suite(&FaultyIo::new(Arc::new(MemoryIo::new())));
}

#[test]
#[should_panic(expected = "no whole blocks")]
fn what_is_not_aligned_is_noticed_without_a_disk() {
    let file = MemoryIo::new().create("a.vseg", 4096).unwrap();
    let _ = file.write_blocks(0, &Blocks::from(&[1; 4096][..])[..512]);
}

#[test]
fn large_files_go_in_steps_and_what_a_crash_left_of_them_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let io = FsIo::new(dir.path());
    let held = io.lock().unwrap();
    let file = io.create("a.vseg", 40 << 20).unwrap();
    io.unlink("a.vseg").unwrap();
    assert!(file.len().unwrap() <= 16 << 20, "given back before the end of the file");
    let segments = dir.path().join("segments");
    assert_eq!(std::fs::read_dir(&segments).unwrap().count(), 0);
    std::fs::write(segments.join("b.vseg.gone"), [1]).unwrap();
    std::fs::write(segments.join("c.vseg"), [1]).unwrap();
    assert_eq!(io.list().unwrap(), ["c.vseg"]);
    drop(held);
    let _held = io.lock().unwrap();
    let left: Vec<_> = std::fs::read_dir(&segments).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["c.vseg"]);
}

#[test]
fn unsynced_sectors_and_names_are_lost_one_by_one() {
    let io = MemoryIo::new();
    let file = io.create("a.vseg", 0).unwrap();
    file.write_at(0, &[1; 1024]).unwrap();
    file.sync_data().unwrap();
    io.sync_dir().unwrap();
    io.create("b.vseg", 10).unwrap();
    file.write_at(0, &[2; 1024]).unwrap();
    let mut coins = [false, true, false].into_iter();
    io.power_cut(|| coins.next().unwrap());
    assert_eq!(io.list().unwrap(), ["a.vseg"]);
    assert!(file.len().is_err(), "handles do not outlive the power");
    let mut bytes = [0; 1024];
    io.open("a.vseg").unwrap().read_at(0, &mut bytes).unwrap();
    assert_eq!((bytes[511], bytes[512]), (2, 1));
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let io = MemoryIo::new();
    io.set_capacity(Some(100));
    assert_eq!(io.create("a.vseg", 101).err().unwrap().kind(), ErrorKind::StorageFull);
    io.reserve(60).unwrap();
    assert_eq!(io.create("a.vseg", 50).err().unwrap().kind(), ErrorKind::StorageFull);
    io.reserve(0).unwrap();
    let file = io.create("a.vseg", 50).unwrap();
    assert_eq!(file.write_at(40, &[0; 80]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(io.space().unwrap().free_bytes, 50);
}

#[test]
fn faults_come_when_planned() {
    let io = FaultyIo::new(Arc::new(MemoryIo::new()));
    let file = io.create("a.vseg", 8).unwrap();
    io.fail(Fault { op: Op::Write, after: 1, times: 1, error: ErrorKind::StorageFull, torn_bytes: 2 });
    file.write_at(0, &[1; 4]).unwrap();
    assert_eq!(file.write_at(4, &[2; 4]).unwrap_err().kind(), ErrorKind::StorageFull);
    let mut bytes = [0; 8];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 1, 1, 1, 2, 2, 0, 0]);
    file.write_at(4, &[3; 4]).unwrap();
}
