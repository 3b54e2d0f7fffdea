//! Containers, a folder each, with equal file names: `demux` (bytes in, events out) and `mux` (samples in, bytes out).

pub mod fmp4;
pub mod mkv;
pub mod ts;
