//! What happened, in order, as one number: the same seed gives the same trace.
//!
//! Keys, salts and UUIDs come from the system and differ from run to run. They are never noted: files and streams stand in
//! the trace by the order in which they appeared.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::lock;

/// The trace of a simulation. Clones are the same trace.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<State>>);

struct State {
    hash: u32,
    lines: u64,
    verbose: bool,
    line: String,
}

impl Trace {
    /// An empty trace. `verbose`: each line is printed as well.
    #[must_use]
    pub(crate) fn new(verbose: bool) -> Self {
        Self(Arc::new(Mutex::new(State { hash: 0, lines: 0, verbose, line: String::new() })))
    }

    /// Takes note.
    #[allow(clippy::print_stdout)] // what `--verbose` is for
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        let mut state = lock(&self.0);
        let mut text = std::mem::take(&mut state.line);
        text.clear();
        // Writing to a string does not fail.
        let _ = fmt::Write::write_fmt(&mut text, line);
        state.hash = crc32c::crc32c_append(crc32c::crc32c_append(state.hash, text.as_bytes()), b"\n");
        state.lines += 1;
        if state.verbose {
            println!("{:6} {text}", state.lines);
        }
        state.line = text;
    }

    /// How many lines so far, and their checksum.
    #[must_use]
    pub(crate) fn hash(&self) -> (u64, u32) {
        let state = lock(&self.0);
        (state.lines, state.hash)
    }
}
