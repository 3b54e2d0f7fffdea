//! What an API needs to be made, with nothing stored.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use vidar_core::auth::{Authenticator, Principal};
use vidar_core::clock::SharedClock;
use vidar_core::entry::FragmentEntry;
use vidar_core::registry::StreamRegistry;
use vidar_core::source::{FragmentHead, FragmentSource, ReadError};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;
use vidar_indexer::{Index, IndexOptions};
use vidar_live::{Hub, HubOptions};
use vidar_player_api::{Api, ApiOptions};

struct Nothing;

#[async_trait]
impl FragmentSource for Nothing {
    async fn head(&self, entry: &FragmentEntry) -> Result<Arc<FragmentHead>, ReadError> {
        Err(ReadError::NotFound { number: entry.meta.number })
    }

    async fn media(&self, entry: &FragmentEntry, _: Option<u16>, _: Range<u64>) -> Result<Bytes, ReadError> {
        Err(ReadError::NotFound { number: entry.meta.number })
    }

    async fn config(&self, entry: &FragmentEntry) -> Result<Arc<StreamConfig>, ReadError> {
        Err(ReadError::NotFound { number: entry.meta.number })
    }
}

impl Authenticator for Nothing {
    fn basic(&self, _: &str, _: &str) -> Option<Principal> {
        None
    }

    fn bearer(&self, _: &str) -> Option<Principal> {
        None
    }

    fn digest_secret(&self, _: &str) -> Option<(Principal, String)> {
        None
    }

    fn sign(&self, _: &Principal, _: &str, _: UnixMs) -> String {
        String::new()
    }

    fn signed(&self, _: &str, _: &str, _: UnixMs) -> Option<Principal> {
        None
    }
}

/// A player of nothing, whose index is in `dir`.
pub fn player(dir: &Path, registry: Arc<dyn StreamRegistry>, clock: SharedClock) -> Arc<Api> {
    let index = Index::open(IndexOptions::new(dir.join("index"), [7; 32], Arc::clone(&clock))).expect("an index");
    Arc::new(Api {
        heads: Default::default(),
        index,
        source: Arc::new(Nothing),
        registry,
        auth: Arc::new(Nothing),
        hub: Hub::new(HubOptions::default()),
        clock,
        options: ApiOptions::default(),
    })
}
