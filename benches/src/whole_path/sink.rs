//! A TCP port where everything is read and thrown away: the least that receiving can cost.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Ends with the process.
pub(super) struct Sink {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    bytes: AtomicU64,
}

impl Sink {
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, counts) = (listener.local_addr()?, Arc::new(Counts::default()));
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                thread::spawn(move || drain(connection, &shared.bytes));
            }
        });
        Ok(Self { address, counts })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepted so far.
    pub(super) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }
}

/// Until the other side ends.
fn drain(mut connection: impl Read, bytes: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = connection.read(&mut buffer) {
        bytes.fetch_add(len as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_counted() {
        let bytes = AtomicU64::new(1);
        drain(&[0; 200_000][..], &bytes);
        assert_eq!(bytes.into_inner(), 200_001);
    }
}
