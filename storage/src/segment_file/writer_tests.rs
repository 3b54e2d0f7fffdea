//! What a start writes once more.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::*;

/// A file of which a failed sync gives up what waited for it: it is read as written, and no later sync brings it to the
/// disk, as on Linux.
#[derive(Default)]
struct Cached(Mutex<State>);

#[derive(Default)]
struct State {
    cache: Vec<u8>,
    disk: Vec<u8>,
    dirty: BTreeSet<usize>,
    fails: bool,
    /// Each read finds another byte here.
    restless: Option<usize>,
}

const BLOCK: usize = BLOCK_LEN as usize;

impl SegmentHandle for Cached {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().cache.len() as u64)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut state, start) = (self.0.lock().unwrap(), offset as usize);
        state.cache[start..start + bytes.len()].copy_from_slice(bytes);
        state.dirty.extend(start / BLOCK..(start + bytes.len()).div_ceil(BLOCK));
        Ok(())
    }

    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.0.lock().unwrap();
        let dirty = std::mem::take(&mut state.dirty);
        if std::mem::take(&mut state.fails) {
            return Err(io::Error::other("it fails"));
        }
        for block in dirty {
            let range = block * BLOCK..(block + 1) * BLOCK;
            state.disk[range.clone()].copy_from_slice(&state.cache[range]);
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (state, start) = (&mut *self.0.lock().unwrap(), offset as usize);
        if let Some(at) = state.restless {
            state.cache[at] = state.cache[at].wrapping_add(1);
        }
        buffer.copy_from_slice(&state.cache[start..start + buffer.len()]);
        Ok(())
    }

    fn forget(&self, _: u64, _: u64) {}

    fn read_cached(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn read_direct(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        unreachable!("nothing is given back")
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        unreachable!("nothing is cut")
    }
}

/// Four blocks, of which the second and third were written before a sync that failed.
fn given_up() -> Cached {
    let file = Cached::default();
    *file.0.lock().unwrap() =
        State { cache: vec![1; 4 * BLOCK], disk: vec![1; 4 * BLOCK], fails: true, ..State::default() };
    file.write_at(BLOCK_LEN, &[2; 2 * BLOCK]).unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(file.0.lock().unwrap().disk, [1; 4 * BLOCK], "another sync says nothing of it");
    file
}

#[test]
fn what_a_failed_sync_gave_up_is_durable_once_it_was_written_again() {
    let file = given_up();
    write_again(&file, BLOCK_LEN + 100..3 * BLOCK_LEN - 100).unwrap();
    let state = file.0.lock().unwrap();
    assert_eq!(state.disk, [vec![1; BLOCK], vec![2; 2 * BLOCK], vec![1; BLOCK]].concat());
    assert_eq!(state.cache, state.disk);
}

#[test]
fn what_does_not_read_the_same_twice_is_not_written_again() {
    let file = given_up();
    file.0.lock().unwrap().restless = Some(BLOCK + 7);
    let error = write_again(&file, BLOCK_LEN..3 * BLOCK_LEN).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(file.0.lock().unwrap().disk, [1; 4 * BLOCK]);
}
