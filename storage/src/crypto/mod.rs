//! Keys and sealing. Layouts: `docs/formats/keyring.md` and `docs/formats/record.md`.
//!
//! KEK ([`kek`]) → keyring secret → stream keys (`keyring`) → a key for each record (`keys`) → `aead`.

pub(crate) mod aead;
mod ask;
pub mod kek;
pub(crate) mod keychain;
pub(crate) mod keyring;
pub(crate) mod keys;
mod manage;
#[cfg(test)]
mod vector_tests;
pub(crate) mod wrap;
