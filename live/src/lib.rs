//! The live hub: what happens at the head of each stream, in order of arrival, for viewers.
//!
//! ```text
//! ingest ── publish ──► window of a stream: [Opened … Closed][Opened … ◄ head
//!                          ▲ a new viewer starts at the oldest fragment that is not durable yet
//! ```
//! A window holds the fragments that the archive does not have yet, and what a viewer has still to read. Buffers are
//! shared with the store. A fragment leaves once it is durable (or failed) and every viewer is past it.
//!
//! # Invariants
//! 1. `publish` never waits: there is no queue to a viewer, only a window that it reads from.
//! 2. All windows together hold at most the hub's budget: over it the largest gives up its oldest fragments, whose
//!    viewers lag.
//! 3. A viewer sees whole fragments from their `Opened` on; after a lag it goes on at an `Opened`.

mod hub;
mod subscriber;
mod window;

pub use hub::{Hub, HubOptions};
pub use subscriber::{DurableFollower, RecvError, Subscriber};
