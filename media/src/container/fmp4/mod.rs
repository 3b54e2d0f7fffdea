//! ISO base media files: fragmented MP4 and CMAF in and out, MP4 with its index first out.

pub(crate) mod boxes;
mod demux;
pub mod init;
mod input;
mod moof;
mod movie;
pub mod progressive;
pub mod sample_entry;
pub mod segment;

pub use demux::Demuxer;

#[cfg(test)]
mod demux_tests;
#[cfg(test)]
mod write_tests;
