//! A data directory that fails when told to.

use std::io;
use std::sync::{Arc, Mutex};

use super::layer::{HandleLayer, IoLayer};
use super::{SegmentHandle, SegmentIo};

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Making a segment file.
    Create,
    /// Writing to one.
    Write,
    /// Syncing one.
    Sync,
    /// Reading from one.
    Read,
    /// The same past the page cache. The error is not given.
    ReadDirect,
    /// What was read: a bit of it is another. The error is not given.
    Flip,
    /// Punching holes.
    Punch,
    /// Cutting one.
    Truncate,
    /// Removing one.
    Unlink,
    /// Replacing a small file.
    Replace,
    /// Appending to one.
    Append,
}

/// One planned failure.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Of what.
    pub op: Op,
    /// So many calls go well first.
    pub after: u32,
    /// Then so many fail.
    pub times: u32,
    /// With this.
    pub error: io::ErrorKind,
    /// A failing write still writes so many bytes.
    pub torn_bytes: usize,
}

/// Wraps another directory. Clones share the plan.
#[derive(Clone)]
pub struct FaultyIo {
    inner: Arc<dyn SegmentIo>,
    plan: Plan,
}

#[derive(Clone, Default)]
struct Plan(Arc<Mutex<Vec<Fault>>>);

impl Plan {
    fn check(&self, op: Op) -> Result<(), Fault> {
        let mut faults = self.0.lock().expect("no panic under this lock");
        for fault in faults.iter_mut().filter(|fault| fault.op == op) {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Err(*fault);
            }
        }
        Ok(())
    }

    fn io(&self, op: Op) -> io::Result<()> {
        self.check(op).map_err(|fault| fault.error.into())
    }

    fn flip(&self, read: &mut [u8]) {
        let middle = read.len() / 2;
        if let Some(byte) = read.get_mut(middle)
            && self.check(Op::Flip).is_err()
        {
            *byte ^= 0x10;
        }
    }
}

impl FaultyIo {
    /// Nothing fails yet.
    #[must_use]
    pub fn new(inner: Arc<dyn SegmentIo>) -> Self {
        Self { inner, plan: Plan::default() }
    }

    /// Plans a failure.
    pub fn fail(&self, fault: Fault) {
        self.plan.0.lock().expect("no panic under this lock").push(fault);
    }

    fn wrap(&self, inner: Arc<dyn SegmentHandle>) -> Arc<dyn SegmentHandle> {
        Arc::new(FaultyHandle { inner, plan: self.plan.clone() })
    }
}

impl IoLayer for FaultyIo {
    fn inner(&self) -> &dyn SegmentIo {
        &*self.inner
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentHandle>> {
        self.plan.io(Op::Create)?;
        self.inner.create(name, len).map(|handle| self.wrap(handle))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentHandle>> {
        self.inner.open(name).map(|handle| self.wrap(handle))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.plan.io(Op::Unlink)?;
        self.inner.unlink(name)
    }

    fn replace_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.plan.io(Op::Replace)?;
        self.inner.replace_small(name, bytes)
    }

    fn append_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.plan.io(Op::Append)?;
        self.inner.append_small(name, bytes)
    }
}

struct FaultyHandle {
    inner: Arc<dyn SegmentHandle>,
    plan: Plan,
}

impl FaultyHandle {
    /// A write that fails may still write something.
    fn check_write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Err(fault) = self.plan.check(Op::Write) else { return Ok(()) };
        self.inner.write_at(offset, &bytes[..fault.torn_bytes.min(bytes.len())])?;
        Err(fault.error.into())
    }
}

impl HandleLayer for FaultyHandle {
    fn inner(&self) -> &dyn SegmentHandle {
        &*self.inner
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_write(offset, bytes)?;
        self.inner.write_at(offset, bytes)
    }

    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_write(offset, bytes)?;
        self.inner.write_blocks(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.plan.io(Op::Sync)?;
        self.inner.sync_data()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.plan.io(Op::Read)?;
        self.inner.read_at(offset, buffer)?;
        self.plan.flip(buffer);
        Ok(())
    }

    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let read = self.plan.check(Op::ReadDirect).is_ok() && self.inner.read_direct(offset, buffer);
        if read {
            self.plan.flip(buffer);
        }
        read
    }

    /// Whoever reads gets to the reads that fail.
    fn read_cached(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.plan.io(Op::Punch)?;
        self.inner.punch(offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.plan.io(Op::Truncate)?;
        self.inner.truncate(len)
    }
}
