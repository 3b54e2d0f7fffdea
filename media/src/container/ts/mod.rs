//! MPEG transport streams (ISO/IEC 13818-1).
//!
//! ```text
//! bytes ─► input: packets ─┬─► section: PAT, PMT ─► program: what the streams are
//!                          └─► pes: payloads, times ─► elementary: samples ─► output: events
//! ```
//! Nothing is muxed here.

mod demux;
mod elementary;
mod input;
mod output;
mod packet;
mod pes;
mod program;
mod section;

#[cfg(test)]
mod demux_tests;
#[cfg(test)]
mod test_stream;

pub use demux::Demuxer;
