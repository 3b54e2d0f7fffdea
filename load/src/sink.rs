//! A TCP port where everything is read and thrown away: the least that receiving can cost. A process of its own, so that
//! what it costs is not the load's.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};
use std::thread;

use anyhow::Context;

/// Ends with its owner.
pub(crate) struct Sink {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Sink {
    /// This program again. `cores`: the only ones it may run on.
    pub(crate) fn start(cores: Option<&str>) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = crate::server::pinned(&program, cores);
        let mut child = command.arg("sink").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("the sink")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("stdout is piped")?;
        let read = BufReader::new(stdout).read_line(&mut line);
        let address = read.map_err(anyhow::Error::from).and_then(|_| Ok(line.trim().parse()?));
        let mut sink = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        sink.address = address.context("the sink does not say where it listens")?;
        Ok(sink)
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process: prints its address, then reads until it is ended.
pub(crate) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for connection in listener.incoming() {
        let mut connection = connection?;
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(1..) = connection.read(&mut buffer) {}
        });
    }
    Ok(())
}
