//! What operators do with keys.

use std::sync::Arc;

use vidar_core::control::Control;
use vidar_core::ids::StreamId;
use vidar_core::sink::SinkError;

use crate::crypto::kek::KekProvider;
use crate::crypto::keychain::RotateError;
use crate::crypto::keyring::KeyInfo;
use crate::store::Store;

impl Store {
    /// All keys that the store holds, without what opens anything.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.shared().keys.list()
    }

    /// Gives streams a new version of their keys: all that is appended after this resolved is sealed under it. What was
    /// sealed before stays readable. Resolves when the keyring and a note in the log are durable.
    ///
    /// # Errors
    /// If either cannot be written.
    pub async fn rotate_stream_keys(&self, streams: &[StreamId]) -> Result<Vec<(StreamId, u32)>, SinkError> {
        let (shared, streams) = (Arc::clone(self.shared()), streams.to_vec());
        let versions = self.blocking(move || shared.keys.rotate_streams(&streams)).await??;
        for (stream, version) in &versions {
            self.control(Control::Key { stream: Some(*stream), version: *version, event: "rotated".into() }).await?;
        }
        Ok(versions)
    }

    /// Wraps the keyring anew under a new key-encryption key: a new one of the same provider, or that of `to`. The old one
    /// does not open it any more. After a crash in any step one of the two does.
    ///
    /// # Errors
    /// If the provider fails or the keyring cannot be written.
    pub async fn rotate_kek(&self, to: Option<Arc<dyn KekProvider>>) -> Result<(), RotateError> {
        let shared = Arc::clone(self.shared());
        self.blocking(move || shared.keys.rotate_kek(to)).await?
    }
}

#[cfg(test)]
#[path = "manage_tests.rs"]
mod tests;
