//! Formats that GStreamer takes apart: a new source is a line in a table, not a parser.
//!
//! ```text
//! body ─► client ─stdin─► helper process: appsrc ─► demuxer ─► parser ─► appsink for each track
//! push ◄─ client ◄─stdout (messages)─────────────────────────────────────────┘
//! ```
//! GStreamer's demuxers are C and read bytes from outside: they run in a process of their own, with limits, and what
//! comes out of it is checked like any other input. `docs/design/foreign.md`.

mod client;
mod collect;
mod extent;
mod format;
mod helper;
mod id3;
mod message;
mod tracks;

pub use client::Helpers;
pub(crate) use client::Step;
pub use format::{Foreign, Sniffed, Sniffer};
pub use helper::{HelperError, run_helper};
#[doc(hidden)]
pub use message::fuzz as fuzz_message;
