//! The encrypted, append-only, durable fragment store.
//!
//! [`Store`] takes fragments and control records, seals each under a key of its own, writes everything that waits in one
//! batch, syncs once, and only then answers. It reads back what is asked for, and nothing that was altered.
//! Layouts: `docs/formats`. Design: `docs/design/storage.md`.
//!
//! ```text
//! append ─► inbox (bounded) ─► commit thread: seal, write, sync ─► observers ─► answers
//! head, media, config ◄─ open (decrypt) ◄─ read ◄─ locator of a timeline entry
//! ```
//!
//! # What always holds
//! 1. Acknowledged means durable: after a crash every acknowledged record opens.
//! 2. Nothing is stored in clear; nothing can be altered, swapped or moved unnoticed.
//! 3. A (key, nonce) pair is never used twice.
//! 4. Damage is reported, skipped, and never returned as media.
//!
//! Not here: what media means. To the store a table is opaque bytes.
//!
//! ```
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! use std::sync::Arc;
//! use vidar_core::{clock::SystemClock, ids::StreamId};
//! use vidar_storage::{Store, StoreOptions, backend::fs::FsIo};
//!
//! let dir = tempfile::tempdir().unwrap();
//! let options = StoreOptions::new(dir.path().join("data"));
//! let io = Arc::new(FsIo::new(&options.data_dir));
//! let (store, report) = Store::open(options, io, SystemClock::shared(), Vec::new()).unwrap();
//! assert_eq!((report.epoch, report.fragments), (1, 0));
//! store.create_stream_key(StreamId::new()).await.unwrap();
//! store.close().await.unwrap();
//! # });
//! ```

mod ahead;
pub mod backend;
mod cache;
mod check;
mod checkpoint;
mod class;
mod closing;
mod commit;
mod controls;
pub mod crypto;
mod damaged;
mod epoch;
mod files;
mod footers;
#[doc(hidden)]
pub mod fuzz;
mod handles;
mod histogram;
mod inbox;
mod item;
mod lately;
mod list;
mod listing;
mod load;
mod options;
mod prepare;
mod punch;
mod read;
mod repair;
mod retire;
mod rolling;
mod segment_file;
mod shared;
mod store;
#[cfg(test)]
mod testing;
mod told;
mod verify;

pub use crypto::keychain::RotateError;
pub use crypto::keyring::{KeyInfo, Purpose};
pub use crypto::keys::Secret;
pub use histogram::Distribution;
pub use options::{Damage, DiskMarks, Expired, OpenError, OpenReport, Space, StoreOptions, StoreStats};
pub use repair::{Disposal, RepairOptions, RepairReport, RepairedFile, repair, repair_on};
pub use store::Store;
pub use verify::{Depth, Progress, VerifyReport, replay, replay_on, replay_with, verify, verify_on};
