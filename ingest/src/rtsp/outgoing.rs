//! What is still to be sent on a connection: its media is taken meanwhile, whether the client reads or not.
//!
//! # Invariants
//! 1. What was sent in part is finished before anything else goes out.
//! 2. At most [`OUTGOING_BYTES_MAX`] and one answer wait: without room nothing more is answered.

use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::{Buf, BytesMut};

/// Some hundred answers.
const OUTGOING_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: BytesMut,
    /// Since when the client has taken nothing, by the monotonic clock.
    stalled: Option<Duration>,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Another answer may be given.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() < OUTGOING_BYTES_MAX
    }

    pub(crate) fn stalled(&self) -> Option<Duration> {
        self.stalled
    }

    /// An answer waits for as long as it must.
    pub(crate) fn answer(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A report is sent now, or never.
    pub(crate) fn report(
        &mut self,
        bytes: &[u8],
        now: Duration,
        write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if !self.bytes.is_empty() {
            return Ok(());
        }
        self.bytes.extend_from_slice(bytes);
        self.send(now, write)?;
        if self.bytes.len() == bytes.len() {
            (self.bytes, self.stalled) = (BytesMut::new(), None);
        }
        Ok(())
    }

    /// Sends what `write` takes now.
    pub(crate) fn send(&mut self, now: Duration, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while !self.bytes.is_empty() {
            match write(&self.bytes) {
                Ok(count) => {
                    self.bytes.advance(count);
                    self.stalled = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stalled.get_or_insert(now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        // Most connections never have any: it is not kept for the next.
        self.bytes = BytesMut::new();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket with room for so many bytes.
    fn socket(room: usize, sent: &mut Vec<u8>) -> impl FnMut(&[u8]) -> io::Result<usize> {
        let mut room = room;
        move |bytes| {
            // Not more than 3 at a time.
            let count = bytes.len().min(room).min(3);
            room -= count;
            sent.extend(&bytes[..count]);
            if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }
    }

    #[test]
    fn a_report_is_sent_whole_or_not_at_all() {
        let at = Duration::from_secs;
        let (mut outgoing, mut sent) = (Outgoing::default(), Vec::new());
        outgoing.report(b"$report1", at(1), socket(0, &mut sent)).unwrap();
        assert_eq!((outgoing.is_empty(), outgoing.stalled()), (true, None), "dropped: nobody waits for it");
        outgoing.report(b"$report2", at(2), socket(5, &mut sent)).unwrap();
        assert_eq!((outgoing.is_empty(), outgoing.stalled()), (false, Some(at(2))), "begun");
        outgoing.answer(b"answer");
        outgoing.report(b"$report3", at(3), socket(100, &mut sent)).unwrap();
        outgoing.send(at(4), socket(0, &mut sent)).unwrap();
        assert_eq!(outgoing.stalled(), Some(at(2)), "nothing was taken since");
        outgoing.send(at(5), socket(4, &mut sent)).unwrap();
        assert_eq!(outgoing.stalled(), Some(at(5)), "something was");
        outgoing.send(at(6), socket(100, &mut sent)).unwrap();
        assert_eq!((outgoing.is_empty(), outgoing.stalled()), (true, None));
        outgoing.report(b"$report4", at(7), socket(100, &mut sent)).unwrap();
        assert_eq!(String::from_utf8(sent).unwrap(), "$report2answer$report4");
    }

    #[test]
    fn a_broken_connection_is_an_error() {
        let mut outgoing = Outgoing::default();
        assert!(outgoing.report(b"$report", Duration::ZERO, |_| Err(ErrorKind::BrokenPipe.into())).is_err());
        outgoing.answer(&[0; OUTGOING_BYTES_MAX]);
        assert!(!outgoing.has_room());
        assert!(outgoing.send(Duration::ZERO, |_| Err(ErrorKind::BrokenPipe.into())).is_err());
    }
}
