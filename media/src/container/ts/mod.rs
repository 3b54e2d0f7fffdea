//! MPEG transport streams (ISO/IEC 13818-1).
//!
//! ```text
//! bytes ─► input: packets ─┬─► section: PAT, PMT ─► program: what the streams are
//!                          └─► pes: payloads, times ─► elementary: samples ─► output: events
//! ```
//!
//! Out go segments: samples ─► coding: elementary streams ─► mux: packets.

mod coding;
mod demux;
mod elementary;
mod input;
mod mux;
mod output;
mod packet;
mod pes;
mod program;
mod section;

#[cfg(test)]
mod demux_tests;
#[cfg(test)]
mod mux_tests;
#[cfg(test)]
mod test_stream;

pub use demux::Demuxer;
pub use mux::{Muxer, TIMESCALE_HZ, TsSample, carries};
