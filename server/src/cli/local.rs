//! The API over a stopped data directory, without a port: what a server would answer, asked in this process.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Request, Response, header};
use serde_json::Value;
use tower::ServiceExt;
use vidar_core::clock::SystemClock;
use vidar_core::log::LogObserver;
use vidar_indexer::{Index, IndexOptions};
use vidar_live::{Hub, HubOptions};
use vidar_player_api::{Api, ApiOptions};
use vidar_storage::Store;
use vidar_storage::backend::fs::FsIo;

use super::DataDir;
use super::client::{json_of, refused};
use crate::authenticator::Credentials;
use crate::credentials::RootPair;
use crate::registry::Registry;

/// A data directory that is opened as a server does: the lock is taken, what a crash left is recovered.
pub(crate) struct Local {
    router: Router,
    authorization: String,
    store: Store,
    index: Arc<Index>,
}

impl Local {
    pub(crate) async fn open(data: &DataDir) -> anyhow::Result<Self> {
        let (options, clock) = (data.store_options()?, SystemClock::shared());
        // Nothing is made where nothing is.
        anyhow::ensure!(options.data_dir.join("keyring.a").is_file(), "{} holds no store", options.data_dir.display());
        let open = {
            let clock = Arc::clone(&clock);
            move || -> anyhow::Result<(Store, Arc<Index>)> {
                let index = Index::open(IndexOptions::in_memory(Arc::clone(&clock)))?;
                let io = Arc::new(FsIo::new(&options.data_dir));
                let observers = vec![Arc::clone(&index) as Arc<dyn LogObserver>];
                let (store, report) = Store::open(options, io, clock, observers)?;
                for damage in &report.damage {
                    tracing::error!(%damage, "damage in the log");
                }
                Ok((store, index))
            }
        };
        let (store, index) = tokio::task::spawn_blocking(open).await.context("open the data directory")??;
        // Known to this process alone.
        let pair = RootPair::random()?;
        let authorization =
            format!("Basic {}", STANDARD.encode(format!("{}:{}", pair.access_key_id, pair.secret.as_str())));
        let registry = Registry::new(Arc::clone(&index), store.clone(), Arc::clone(&clock), 1, false);
        let api = Api {
            heads: Default::default(),
            index: Arc::clone(&index),
            source: Arc::new(store.clone()),
            registry: Arc::new(registry),
            auth: Arc::new(Credentials::new(pair, None, Arc::clone(&clock))),
            hub: Hub::new(HubOptions::default()),
            clock,
            options: ApiOptions::default(),
        };
        Ok(Self { router: vidar_player_api::router(Arc::new(api)), authorization, store, index })
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Response<Body>> {
        let request = Request::get(path).header(header::AUTHORIZATION, &self.authorization).body(Body::empty())?;
        let response = self.router.clone().oneshot(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        Err(refused(status, &json_of(response.into_body()).await.unwrap_or(Value::Null)))
    }

    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let closed = self.store.close().await;
        self.index.close();
        closed.context("close the store")
    }
}
