//! The vocabulary that every crate of Vidar shares. No I/O happens here.
//!
//! Ids ([`ids`]), time ([`time`], [`clock`]), what is written to the log ([`record`], [`control`], [`entry`]), and the
//! seams between crates: [`sink`] (ingest to store), [`source`] (store to players), [`log`] (store to index), [`hub`],
//! [`registry`], [`auth`] and what is allowed ([`policy`]), [`admission`]; what routes read of a [`query`]. The byte layouts are specified in `docs/formats`; this crate is their reference encoder.
//!
//! ```
//! use vidar_core::ids::FragmentNumber;
//! let number = FragmentNumber::new(1, 1_511_852_109_126, 0);
//! assert_eq!(number.to_string().len(), 47);
//! assert_eq!(number.server_ms(), 1_511_852_109_126);
//! ```

pub mod admission;
pub mod auth;
pub mod clock;
pub mod control;
pub mod entry;
pub mod error;
pub mod hub;
pub mod ids;
pub mod limits;
pub mod log;
pub mod policy;
pub mod query;
pub mod record;
pub mod registry;
pub mod sample;
pub mod sink;
pub mod source;
pub mod time;
pub mod track;
pub mod wire;
