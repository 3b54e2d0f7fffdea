//! Epochs: the high half of the sequence in every number, durable before use.

use std::io;

use crate::backend::SegmentIo;

const NAME: &str = "epoch";
/// Skipped where the epoch file is damaged: epochs that left no segment file.
const DAMAGE_SKIP: u32 = 1 << 10;

/// The last epoch taken, by the epoch file.
fn last(io: &dyn SegmentIo) -> io::Result<Option<Result<u32, ()>>> {
    let Some(bytes) = io.read_small(NAME)? else { return Ok(None) };
    Ok(Some(std::str::from_utf8(&bytes).ok().and_then(parse).ok_or(())))
}

fn parse(text: &str) -> Option<u32> {
    let (body, crc) = text.trim_end().rsplit_once(' ')?;
    let epoch = body.strip_prefix("vidar-epoch-1 ")?;
    if u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(body.as_bytes())) {
        return None;
    }
    u32::from_str_radix(epoch, 16).ok()
}

fn encode(epoch: u32) -> String {
    let body = format!("vidar-epoch-1 {epoch:08x}");
    format!("{body} {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

/// Takes the next epoch: greater than the epoch file's and than `greatest_used`, synced when this returns.
pub(crate) fn take(io: &dyn SegmentIo, greatest_used: u32) -> io::Result<u32> {
    let last = match last(io)? {
        None => 0,
        Some(Ok(epoch)) => epoch,
        Some(Err(())) => {
            tracing::warn!("the epoch file is damaged: going on from the names of the segment files");
            greatest_used.saturating_add(DAMAGE_SKIP)
        }
    };
    let next = last.max(greatest_used).checked_add(1).ok_or_else(|| io::Error::other("all epochs are used"))?;
    io.replace_small(NAME, encode(next).as_bytes())?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::memory::MemoryIo;

    #[test]
    fn epochs_only_grow() {
        let io = MemoryIo::new();
        assert_eq!(take(&io, 0).unwrap(), 1);
        assert_eq!(take(&io, 0).unwrap(), 2);
        assert_eq!(take(&io, 9).unwrap(), 10);
        io.tamper("epoch", |bytes| bytes[15] ^= 1);
        assert_eq!(take(&io, 10).unwrap(), 10 + DAMAGE_SKIP + 1);
        io.replace_small("epoch", encode(u32::MAX).as_bytes()).unwrap();
        assert!(take(&io, 0).is_err());
    }
}
