//! What is still to be sent on a connection: its media is taken meanwhile, whether the client reads or not.
//!
//! # Invariants
//! 1. What was sent in part is finished before anything else goes out.
//! 2. At most [`OUTGOING_BYTES_MAX`] and one answer wait: without room nothing more is answered.
//! 3. A client that reads nothing is behind once an answer waits. The rest of a report, which the system took in part, may
//!    wait for ever: some cameras never read.

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
    /// An answer waits, not only the rest of a report.
    has_answer: bool,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Another answer may be given.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() < OUTGOING_BYTES_MAX
    }

    /// Since when an answer waits, and nothing is taken.
    pub(crate) fn stalled(&self) -> Option<Duration> {
        self.stalled.filter(|_| self.has_answer)
    }

    /// An answer waits for as long as it must.
    pub(crate) fn answer(&mut self, bytes: &[u8]) {
        if !self.has_answer {
            // Nobody had to read what was there before it.
            (self.has_answer, self.stalled) = (true, None);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// A report is begun now, or never: while anything waits there is none.
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
        (self.bytes, self.has_answer) = (BytesMut::new(), false);
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
    fn a_report_is_begun_now_or_never_and_its_rest_may_wait_for_ever() {
        let at = Duration::from_secs;
        let (mut outgoing, mut sent) = (Outgoing::default(), Vec::new());
        outgoing.report(b"$report1", at(1), socket(0, &mut sent)).unwrap();
        assert_eq!((outgoing.is_empty(), outgoing.stalled()), (true, None), "dropped: nobody waits for it");
        outgoing.report(b"$report2", at(2), socket(5, &mut sent)).unwrap();
        outgoing.report(b"$report3", at(1000), socket(100, &mut sent)).unwrap();
        outgoing.send(at(1001), socket(0, &mut sent)).unwrap();
        assert_eq!((outgoing.is_empty(), outgoing.stalled()), (false, None), "begun: nobody has to read the rest");
        outgoing.answer(b"answer");
        outgoing.send(at(1002), socket(0, &mut sent)).unwrap();
        outgoing.answer(b"another");
        outgoing.send(at(1003), socket(0, &mut sent)).unwrap();
        assert_eq!(outgoing.stalled(), Some(at(1002)), "an answer waits since then");
        outgoing.send(at(1004), socket(4, &mut sent)).unwrap();
        assert_eq!(outgoing.stalled(), Some(at(1004)), "something was taken");
        outgoing.send(at(1005), socket(100, &mut sent)).unwrap();
        assert_eq!((outgoing.is_empty(), outgoing.stalled()), (true, None));
        outgoing.report(b"$report4", at(1006), socket(3, &mut sent)).unwrap();
        assert_eq!((outgoing.is_empty(), outgoing.stalled()), (false, None), "answers that are gone do not count");
        outgoing.send(at(1007), socket(100, &mut sent)).unwrap();
        assert_eq!(String::from_utf8(sent).unwrap(), "$report2answeranother$report4");
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
