//! Configuration, wiring, signals, subcommands: everything behind the binary `vidar`.

pub mod access_keys;
pub mod authenticator;
pub mod cli;
mod console;
pub mod credentials;
pub mod http;
pub mod keys;
pub mod kvs;
mod memory;
pub mod operate;
mod outlet;
pub mod registry;
pub mod retention;
pub mod serve;
pub mod settings;
pub mod sink;
mod stalled;
pub mod targets;
pub mod tls;
pub mod verify;
mod webhook;
