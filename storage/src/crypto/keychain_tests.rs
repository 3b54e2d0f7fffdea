//! Tests of the keychain module.

use std::io::ErrorKind;

use super::*;
use crate::backend::fault::{Fault, FaultyIo, Op};
use crate::backend::memory::MemoryIo;
use crate::crypto::keys::Secret;
use crate::testing::{FixedKek, options};

fn open(io: &MemoryIo) -> Result<(Keychain, bool), OpenError> {
    Keychain::open(Arc::new(io.clone()), &options())
}

#[test]
fn one_damaged_or_missing_copy_is_replaced_by_the_other() {
    for copy in COPIES {
        for remove in [false, true] {
            let io = MemoryIo::new();
            let (chain, repaired) = open(&io).unwrap();
            assert!(!repaired);
            let stream = StreamId::new();
            chain.create_stream(stream).unwrap();
            let key = chain.ring().current(stream).map(|(_, key)| key.clone());
            if remove {
                io.remove_small(copy);
            } else {
                io.tamper(copy, |bytes| bytes[100] ^= 1);
            }
            let (chain, repaired) = open(&io).unwrap();
            assert!(repaired);
            assert_eq!(chain.ring().current(stream).map(|(_, key)| key.clone()), key);
            assert_eq!(io.read_small(COPIES[0]).unwrap(), io.read_small(COPIES[1]).unwrap());
        }
    }
}

#[test]
fn two_damaged_copies_are_an_error_and_nothing_is_overwritten() {
    let io = MemoryIo::new();
    open(&io).unwrap();
    COPIES.iter().for_each(|copy| io.tamper(copy, |bytes| bytes[100] ^= 1));
    let before = io.read_small(COPIES[0]).unwrap();
    assert!(matches!(open(&io), Err(OpenError::KeyringCorrupt { .. })));
    assert_eq!(io.read_small(COPIES[0]).unwrap(), before);
}

#[test]
fn without_its_key_or_with_another_the_keyring_stays_closed() {
    let io = MemoryIo::new();
    open(&io).unwrap();
    let mut options = options();
    options.kek = Arc::new(FixedKek::new(None));
    let error = Keychain::open(Arc::new(io.clone()), &options).err().unwrap();
    assert!(matches!(&error, OpenError::KekMissing { .. }) && error.to_string().contains("the test's key"), "{error}");
    options.kek = Arc::new(FixedKek::new(Some(Secret::random())));
    let error = Keychain::open(Arc::new(io.clone()), &options).err().unwrap();
    assert!(matches!(&error, OpenError::KekWrong { .. }) && error.to_string().contains("the test's key"), "{error}");
}

#[test]
fn segment_files_without_a_keyring_are_an_error() {
    let io = MemoryIo::new();
    io.create("00000001-00000000-0000-0000-0000-000000000000.vseg", 1).unwrap();
    assert!(matches!(open(&io), Err(OpenError::KeyringMissing { .. })));
}

#[test]
fn the_newest_copy_holds_after_a_crash_between_the_two() {
    let memory = MemoryIo::new();
    let io = FaultyIo::new(Arc::new(memory.clone()));
    let (chain, _) = Keychain::open(Arc::new(io.clone()), &options()).unwrap();
    let (kept, gone) = (StreamId::new(), StreamId::new());
    chain.create_stream(kept).unwrap();
    chain.create_stream(gone).unwrap();
    let fault = Fault { op: Op::Replace, after: 1, times: 1, error: ErrorKind::Other, torn_bytes: 0 };
    io.fail(fault);
    assert!(
        chain.destroy(&[gone], chain.prepare_destroy().unwrap()).is_err(),
        "not answered before both copies are written"
    );
    let (chain, repaired) = open(&memory).unwrap();
    assert!(repaired && chain.ring().current(gone).is_none() && chain.ring().current(kept).is_some());
}

#[test]
fn keys_are_made_once_also_by_many_at_a_time() {
    let io = MemoryIo::new();
    let (chain, _) = open(&io).unwrap();
    let streams: Vec<StreamId> = (0..8).map(|_| StreamId::new()).collect();
    std::thread::scope(|scope| {
        for stream in streams.iter().chain(&streams) {
            scope.spawn(|| chain.create_stream(*stream).unwrap());
        }
    });
    let (again, repaired) = open(&io).unwrap();
    assert!(!repaired);
    for stream in &streams {
        assert_eq!(again.ring().current(*stream), chain.ring().current(*stream));
        assert!(chain.ring().current(*stream).is_some());
    }
}

#[test]
fn a_key_that_cannot_be_written_is_not_given_out() {
    let memory = MemoryIo::new();
    let io = FaultyIo::new(Arc::new(memory.clone()));
    let (chain, _) = Keychain::open(Arc::new(io.clone()), &options()).unwrap();
    io.fail(Fault { op: Op::Replace, after: 0, times: 1, error: ErrorKind::Other, torn_bytes: 0 });
    let stream = StreamId::new();
    assert!(matches!(chain.create_stream(stream), Err(SinkError::Failed { .. })));
    assert!(chain.ring().current(stream).is_none());
    chain.create_stream(stream).unwrap();
    assert!(chain.ring().current(stream).is_some());
}

#[test]
fn the_reserve_serves_the_keyring_on_a_full_disk() {
    let io = MemoryIo::new();
    let (chain, _) = open(&io).unwrap();
    io.reserve(4096).unwrap();
    io.set_capacity(Some(4096 + 2 * io.read_small(COPIES[0]).unwrap().unwrap().len() as u64));
    let stream = StreamId::new();
    chain.create_stream(stream).unwrap();
    assert!(chain.ring().current(stream).is_some());
}
