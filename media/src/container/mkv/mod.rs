//! Matroska and WebM: [`demux`] and [`mux`].

mod block;
mod codec_id;
pub mod demux;
mod document;
mod ebml;
pub mod fixed;
mod header;
mod id;
mod input;
pub mod mux;
mod original;
mod repeat;
mod samples;
mod tags;
mod timing;
mod track_entry;

pub use demux::Demuxer;
