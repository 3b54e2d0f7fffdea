//! Where what the compatible API delivers goes: pictures into directories, notifications to
//! webhooks. And where its progress is kept.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use async_trait::async_trait;
use vidar_core::clock::SharedClock;
use vidar_kvs_api::delivery::{Kept, Notice, Outlet, OutletError, PictureFile};

use crate::credentials::replace_private;
use crate::settings::Settings;
use crate::targets::ImageTarget;
use crate::webhook::Webhooks;

/// Targets, and the data directory.
pub(crate) struct Outlets {
    data_dir: PathBuf,
    images: Vec<ImageTarget>,
    webhooks: Webhooks,
}

impl Outlets {
    /// # Errors
    /// If there are webhooks, and they cannot be called.
    pub(crate) fn new(settings: &Settings, clock: SharedClock) -> anyhow::Result<Self> {
        let (data_dir, images) = (settings.data_dir.clone(), settings.image_targets.clone());
        let webhooks = Webhooks::new(&data_dir, &settings.topics, clock)?;
        Ok(Self { data_dir, images, webhooks })
    }

    fn progress_path(&self, feed: &str) -> PathBuf {
        self.data_dir.join(format!("delivered-{feed}.json"))
    }
}

/// Runs what blocks on the disk. A disk may be full, or away, for a while.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Result<T, OutletError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| OutletError::Again(format!("{error:#}"))),
        Err(error) => Err(OutletError::Final(error.to_string())),
    }
}

#[async_trait]
impl Outlet for Outlets {
    async fn put(&self, picture: &PictureFile) -> Result<(), OutletError> {
        let target = self.images.iter().find(|target| target.uri == picture.target);
        let target = target.ok_or_else(|| OutletError::Final(format!("{}: no such target", picture.target)))?;
        let path = target.dir.join(&picture.path);
        let (bytes, metadata) = (picture.bytes.clone(), serde_json::to_vec(&picture.metadata));
        let metadata = metadata.map_err(|error| OutletError::Final(error.to_string()))?;
        on_disk(move || {
            // First, so that it is there once the picture is.
            replace(&path.with_extension("json"), &metadata)?;
            replace(&path, &bytes).map_err(Into::into)
        })
        .await
    }

    async fn post(&self, notice: &Notice) -> Result<(), OutletError> {
        self.webhooks.post(notice).await
    }

    async fn restore(&self, feed: &str) -> Result<Option<Kept>, OutletError> {
        let path = self.progress_path(feed);
        let read = move || match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        };
        on_disk(read).await
    }

    async fn keep(&self, feed: &str, progress: Kept) -> Result<(), OutletError> {
        let path = self.progress_path(feed);
        on_disk(move || replace_private(&path, &serde_json::to_vec(&progress)?)).await
    }
}

/// Writes a file at once and durably, with the folders above it. What a crash leaves begins with a dot.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    // The end of a name tells it from others.
    let end = String::from_utf8_lossy(&name[name.len().saturating_sub(64)..]).into_owned();
    let temporary = folder.join(format!(".{end}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}
