//! Protocols in, fragments out.
//!
//! A protocol is a folder that turns what a device sends into [`vidar_media::Event`]s and hands them to a [`Push`]. All
//! that is common to protocols stands beside: admission, the memory budget, runs and their wall clock, the record of
//! what became of each fragment.

mod actor;
pub mod admission;
pub mod budget;
mod committer;
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "gst")]
pub mod gst;
pub mod http_push;
mod last_run;
pub mod push;
pub mod push_log;
pub mod rtsp;
mod rtsp_push;

pub use push::{Arrived, AsSent, BeginError, Follower, Ingest, IngestOptions, Push, PushError, PushStart};
pub use rtsp_push::RtspPublishers;
