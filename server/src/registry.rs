//! Streams by name: reads from the catalog, changes through the log.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use vidar_core::clock::SharedClock;
use vidar_core::control::{Control, StreamRecord, StreamSettings};
use vidar_core::ids::{StreamId, StreamName};
use vidar_core::limits::{TAG_COUNT_MAX, TAG_NAME_BYTES_MAX, TAG_VALUE_BYTES_MAX};
use vidar_core::registry::{RegistryError, StreamRegistry};
use vidar_core::sink::SinkError;
use vidar_indexer::Index;
use vidar_storage::Store;

/// Longest retention in hours: ten years, as the reference service.
pub(crate) const RETENTION_HOURS_MAX: u32 = 87_600;

/// The registry of one server. Clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    index: Arc<Index>,
    store: Store,
    clock: SharedClock,
    default_retention_hours: u32,
    create_streams: bool,
    changes: Arc<Changes>,
}

impl Registry {
    /// A registry over a store and what was read from it.
    #[must_use]
    pub fn new(
        index: Arc<Index>,
        store: Store,
        clock: SharedClock,
        default_retention_hours: u32,
        create_streams: bool,
    ) -> Self {
        Self { index, store, clock, default_retention_hours, create_streams, changes: Arc::default() }
    }

    fn known(&self, name: &StreamName) -> Result<Arc<StreamRecord>, RegistryError> {
        self.get(name).ok_or_else(|| RegistryError::NotFound { name: name.clone() })
    }

    /// Call while no other change of this name goes on.
    async fn make(&self, name: &StreamName, settings: StreamSettings) -> Result<Arc<StreamRecord>, RegistryError> {
        check(&settings)?;
        let record = StreamRecord { stream: StreamId::new(), name: name.clone(), created: self.clock.now(), settings };
        self.store.create_stream_key(record.stream).await?;
        self.store.control(Control::Stream(record.clone())).await?;
        tracing::info!(stream = %name, id = %record.stream, "stream created");
        Ok(Arc::new(record))
    }
}

/// Names of which something changes. Changes of one name come one after the other: two first pushes make one stream. Those
/// of different names do not wait for each other: many cameras that begin at once share the writes of their keys.
#[derive(Default)]
struct Changes {
    names: Mutex<HashSet<StreamName>>,
    ended: Notify,
}

/// A change that goes on, until dropped.
struct Change<'a> {
    changes: &'a Changes,
    name: &'a StreamName,
}

impl Changes {
    fn names(&self) -> MutexGuard<'_, HashSet<StreamName>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other change of this name goes on.
    async fn begin<'a>(&'a self, name: &'a StreamName) -> Change<'a> {
        loop {
            let ended = self.ended.notified();
            if self.names().insert(name.clone()) {
                return Change { changes: self, name };
            }
            ended.await;
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.changes.names().remove(self.name);
        self.changes.ended.notify_waiters();
    }
}

fn check(settings: &StreamSettings) -> Result<(), RegistryError> {
    let invalid = |field, detail: &str| Err(RegistryError::Invalid { field, detail: detail.to_owned() });
    if settings.retention_hours > RETENTION_HOURS_MAX {
        return invalid("retention_hours", "expected 0 to 87600");
    }
    if settings.retention_bytes == Some(0) {
        return invalid("retention_bytes", "expected 1 at least, or none");
    }
    if settings.device.is_empty() || settings.device.len() > 256 {
        return invalid("device", "expected 1 to 256 bytes");
    }
    let long = |(name, value): &(String, String)| {
        name.is_empty() || name.len() > TAG_NAME_BYTES_MAX || value.len() > TAG_VALUE_BYTES_MAX
    };
    if settings.tags.len() > TAG_COUNT_MAX || settings.tags.iter().any(long) {
        return invalid("tags", "expected at most 64, names of 1 to 128 bytes, values of at most 1024 bytes");
    }
    Ok(())
}

#[async_trait]
impl StreamRegistry for Registry {
    fn get(&self, name: &StreamName) -> Option<Arc<StreamRecord>> {
        self.index.catalog().stream_by_name(name)
    }

    fn list(&self) -> Vec<Arc<StreamRecord>> {
        self.index.catalog().streams()
    }

    async fn ensure(&self, name: &StreamName) -> Result<Arc<StreamRecord>, RegistryError> {
        if let Some(record) = self.get(name) {
            return Ok(record);
        }
        if !self.create_streams {
            return self.known(name);
        }
        let (this, name) = (self.clone(), name.clone());
        to_its_end(async move {
            let _one_by_one = this.changes.begin(&name).await;
            match this.get(&name) {
                Some(record) => Ok(record),
                None => this.make(&name, this.default_settings(&name)).await,
            }
        })
        .await
    }

    async fn create(
        &self,
        name: &StreamName,
        settings: Option<StreamSettings>,
    ) -> Result<Arc<StreamRecord>, RegistryError> {
        let (this, name) = (self.clone(), name.clone());
        to_its_end(async move { this.create_now(&name, settings).await }).await
    }

    async fn change(&self, name: &StreamName, settings: StreamSettings) -> Result<Arc<StreamRecord>, RegistryError> {
        let (this, name) = (self.clone(), name.clone());
        to_its_end(async move { this.change_now(&name, settings).await }).await
    }

    async fn delete(&self, name: &StreamName) -> Result<(), RegistryError> {
        let (this, name) = (self.clone(), name.clone());
        to_its_end(async move { this.delete_now(&name).await }).await
    }

    fn default_settings(&self, name: &StreamName) -> StreamSettings {
        StreamSettings {
            device: name.to_string(),
            retention_hours: self.default_retention_hours,
            retention_bytes: None,
            tags: Vec::new(),
        }
    }
}

/// A change that has begun is made, whether its client waits or not.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
) -> Result<T, RegistryError> {
    let failed = |error: tokio::task::JoinError| SinkError::Failed { detail: error.to_string() };
    tokio::spawn(change).await.map_err(failed)?
}

impl Registry {
    async fn create_now(
        &self,
        name: &StreamName,
        settings: Option<StreamSettings>,
    ) -> Result<Arc<StreamRecord>, RegistryError> {
        let _one_by_one = self.changes.begin(name).await;
        if self.get(name).is_some() {
            return Err(RegistryError::Exists { name: name.clone() });
        }
        self.make(name, settings.unwrap_or_else(|| self.default_settings(name))).await
    }

    async fn change_now(
        &self,
        name: &StreamName,
        settings: StreamSettings,
    ) -> Result<Arc<StreamRecord>, RegistryError> {
        check(&settings)?;
        let _one_by_one = self.changes.begin(name).await;
        let record = StreamRecord { settings, ..StreamRecord::clone(&*self.known(name)?) };
        self.store.control(Control::Stream(record.clone())).await?;
        Ok(Arc::new(record))
    }

    async fn delete_now(&self, name: &StreamName) -> Result<(), RegistryError> {
        let _one_by_one = self.changes.begin(name).await;
        let record = self.known(name)?;
        let entries = crate::retention::all_entries(self.index.timeline(), record.stream);
        self.store.delete_stream(record.stream, self.clock.now(), entries).await?;
        // Not before nothing of it is in the index's files, which are sealed under a key that stays.
        let (index, stream) = (Arc::clone(&self.index), record.stream);
        let purged = tokio::task::spawn_blocking(move || index.purged(stream)).await;
        if !purged.unwrap_or(false) {
            let detail =
                "the stream is deleted, but not yet out of the files of the index; that is tried again".to_owned();
            return Err(SinkError::Failed { detail }.into());
        }
        tracing::info!(stream = %name, id = %record.stream, "stream deleted");
        Ok(())
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
