//! Access keys beside the root pair: each with a policy, perhaps an end, and when it was last used.
//!
//! They stand in one sealed file, which a change replaces before it is answered. Secrets can be read back, as SigV4 and
//! Digest need them; they are shown once, when they are made.
//!
//! Not here: the root pair (`credentials`), and who is let in (`authenticator`).

mod file;
pub(crate) mod routes;
pub(crate) mod sealed;
mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use vidar_core::auth::Principal;
use vidar_core::clock::SharedClock;
use vidar_core::policy::Policy;
use vidar_core::time::UnixMs;
use zeroize::Zeroizing;

pub use session::Session;
pub(crate) use session::{KnownSession, Token};

use crate::credentials::random_text;

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "access-keys";
/// Keys of a server at most.
pub const KEY_COUNT_MAX: usize = 10_000;
/// A use is noted if the one noted before is older.
const USE_STEP_MS: i64 = 60_000;
/// How often uses are written.
const USE_INTERVAL: Duration = Duration::from_secs(300);

/// An access key. No `Debug`: it holds its secret.
#[derive(Clone)]
pub struct AccessKey {
    /// Public half.
    pub access_key_id: String,
    /// Secret half.
    pub secret: Zeroizing<String>,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub policy: Arc<Policy>,
    /// Whether it counts.
    pub enabled: bool,
    /// When it was made.
    pub created_ms: i64,
    /// From when on it does not count.
    pub expires_ms: Option<i64>,
    /// When it was used, give or take a few minutes.
    pub used_ms: Option<i64>,
}

impl AccessKey {
    /// Whether it counts at that time.
    #[must_use]
    pub fn is_active(&self, now: UnixMs) -> bool {
        self.enabled && !self.is_expired(now)
    }

    fn is_expired(&self, now: UnixMs) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now.0)
    }

    /// Who has it.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal::limited(self.access_key_id.as_str(), Arc::clone(&self.policy))
    }
}

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub policy: Policy,
    /// From when on it does not count.
    pub expires: Option<UnixMs>,
}

/// Why keys did not change.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// There are as many as there may be, or their policies are too long.
    #[error("there is no room for more: at most {KEY_COUNT_MAX} keys, and 64 MiB of them")]
    Full,
    /// The change is not durable.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// All access keys of a server but the root pair.
pub struct AccessKeys {
    path: PathBuf,
    sealer: Arc<sealed::Sealer>,
    sessions: session::Sessions,
    clock: SharedClock,
    /// Guards what counts now. Never held while the file is written.
    keys: RwLock<BTreeMap<String, AccessKey>>,
    /// Changes are written one after the other.
    changes: Mutex<()>,
    /// Uses were noted that the file does not have.
    used: AtomicBool,
    /// Something else counts now, perhaps.
    changed: Notify,
}

type Keys = BTreeMap<String, AccessKey>;

impl AccessKeys {
    /// Those of a data directory.
    ///
    /// # Errors
    /// If their file is there and does not open.
    pub fn open(data_dir: &Path, index_key: &[u8; 32], clock: SharedClock) -> anyhow::Result<Arc<Self>> {
        let path = data_dir.join(FILE_NAME);
        let sealer = sealed::Sealer::new(index_key, b"vidar access keys 1");
        let keys = file::read(&path, &sealer)?.into_iter().map(|key| (key.access_key_id.clone(), key)).collect();
        Ok(Arc::new(Self {
            path,
            sealer: Arc::new(sealer),
            sessions: session::Sessions::new(index_key),
            clock,
            keys: RwLock::new(keys),
            changes: Mutex::default(),
            used: AtomicBool::new(false),
            changed: Notify::new(),
        }))
    }

    /// All, by id.
    #[must_use]
    pub fn list(&self) -> Vec<AccessKey> {
        self.read().values().cloned().collect()
    }

    /// One that counts now.
    #[must_use]
    pub fn active(&self, access_key_id: &str) -> Option<AccessKey> {
        let now = self.clock.now();
        self.read().get(access_key_id).filter(|key| key.is_active(now)).cloned()
    }

    /// Notes that somebody came with a key.
    pub fn note_use(&self, access_key_id: &str) {
        let now = self.clock.now();
        let recent = |key: &AccessKey| key.used_ms.is_some_and(|used| now.0.saturating_sub(used) < USE_STEP_MS);
        if self.read().get(access_key_id).is_none_or(recent) {
            return;
        }
        if let Some(key) = self.write().get_mut(access_key_id) {
            key.used_ms = Some(now.0);
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Makes a key.
    ///
    /// # Errors
    /// If there is no room, or it is not durable.
    pub async fn create(self: &Arc<Self>, new: NewKey) -> Result<AccessKey, KeysError> {
        let key = AccessKey {
            access_key_id: format!("VIDAK{}", random_text(15)?),
            secret: random_text(40)?.into(),
            name: new.name,
            policy: Arc::new(new.policy),
            enabled: true,
            created_ms: self.clock.now().0,
            expires_ms: new.expires.map(|expires| expires.0),
            used_ms: None,
        };
        let made = self.change(move |keys| {
            (keys.len() < KEY_COUNT_MAX).then(|| {
                keys.insert(key.access_key_id.clone(), key.clone());
                key
            })
        });
        made.await?.ok_or(KeysError::Full)
    }

    /// Changes a key; `None`: there is none of that id.
    ///
    /// # Errors
    /// As `create`.
    pub async fn update(
        self: &Arc<Self>,
        access_key_id: String,
        change: impl FnOnce(&mut AccessKey) + Send + 'static,
    ) -> Result<Option<AccessKey>, KeysError> {
        self.change(move |keys| {
            let key = keys.get_mut(&access_key_id)?;
            change(key);
            Some(key.clone())
        })
        .await
    }

    /// Deletes a key; `None`: there is none of that id.
    ///
    /// # Errors
    /// If it is not durable.
    pub async fn delete(self: &Arc<Self>, access_key_id: String) -> Result<Option<AccessKey>, KeysError> {
        self.change(move |keys| keys.remove(&access_key_id)).await
    }

    /// Temporary credentials of a key.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn session(
        &self,
        parent: &str,
        parent_secret: &str,
        policy: Option<Policy>,
        lifetime: Duration,
    ) -> anyhow::Result<Session> {
        let lifetime_ms = i64::try_from(lifetime.min(session::LIFETIME_MAX).as_millis())?;
        self.sessions.make(parent, parent_secret, policy, self.clock.now().plus_ms(lifetime_ms))
    }

    /// What a token says; none if it is not of ours, not of that id, or of a key that has another secret now.
    pub(crate) fn known_session(
        &self,
        token: &Token,
        access_key_id: &str,
        parent_secret: &str,
    ) -> Option<KnownSession> {
        let latest = self.clock.now().plus_ms(i64::try_from(session::LIFETIME_MAX.as_millis()).ok()?);
        self.sessions.open(token, access_key_id, parent_secret).filter(|session| session.expires <= latest)
    }

    /// Resolves when keys may do something else than they did.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Says that they may.
    pub(crate) fn note_change(&self) {
        self.changed.notify_one();
    }

    /// What a change comes to counts once it is durable. Begun, it goes on, whether its caller waits or not.
    async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Keys) -> Option<T> + Send + 'static,
    ) -> Result<Option<T>, KeysError> {
        let this = Arc::clone(self);
        let change = async move {
            let _one_by_one = this.changes.lock().await;
            let mut next = this.read().clone();
            let Some(made) = change(&mut next) else { return Ok(None) };
            this.replace(next).await?;
            this.note_change();
            Ok(Some(made))
        };
        tokio::spawn(change).await.context("change the access keys")?
    }

    /// Call with `changes` held.
    async fn replace(&self, next: Keys) -> Result<(), KeysError> {
        let used = self.used.swap(false, Ordering::Relaxed);
        let (path, sealer) = (self.path.clone(), Arc::clone(&self.sealer));
        let write = move || file::write(&path, &sealer, next.values()).map(|()| next);
        let written = tokio::task::spawn_blocking(write).await.context("write the access keys")?;
        if written.is_err() && used {
            self.used.store(true, Ordering::Relaxed);
        }
        let mut next = written?;
        let mut keys = self.write();
        for (id, key) in &mut next {
            key.used_ms = key.used_ms.max(keys.get(id).and_then(|before| before.used_ms));
        }
        *keys = next;
        Ok(())
    }

    /// Writes uses now and then, and at the end.
    pub async fn keep_uses(self: Arc<Self>, stop: CancellationToken) {
        let mut stopping = false;
        while !stopping {
            stopping = tokio::time::timeout(USE_INTERVAL, stop.cancelled()).await.is_ok();
            if self.used.load(Ordering::Relaxed) {
                let _one_by_one = self.changes.lock().await;
                let now = self.read().clone();
                if let Err(error) = self.replace(now).await {
                    tracing::warn!(%error, "uses of access keys are not written");
                }
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Keys> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use vidar_core::clock::ManualClock;
    use vidar_core::policy::Preset;

    use super::*;

    const INDEX_KEY: [u8; 32] = [3; 32];

    fn new_key(name: &str, expires: Option<UnixMs>) -> NewKey {
        NewKey { name: name.to_owned(), policy: Preset::Read.policy(vec!["a*".to_owned()]), expires }
    }

    #[tokio::test]
    async fn keys_outlive_the_server_and_changes_of_them_too() {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(UnixMs(1_000_000));
        let open = || AccessKeys::open(dir.path(), &INDEX_KEY, Arc::clone(&clock) as _).unwrap();
        let keys = open();
        assert!(keys.list().is_empty() && !dir.path().join(FILE_NAME).exists(), "no file for no keys");
        let a = keys.create(new_key("a", None)).await.unwrap();
        let b = keys.create(new_key("b", Some(UnixMs(2_000_000)))).await.unwrap();
        assert_eq!((a.access_key_id.len(), a.secret.len()), (20, 40));
        let file = std::fs::read(dir.path().join(FILE_NAME)).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        for secret in [a.secret.as_bytes(), a.access_key_id.as_bytes()] {
            assert!(!file.windows(secret.len()).any(|window| window == secret), "it stands in clear");
        }

        let keys = open();
        let again = keys.active(&a.access_key_id).expect("it counts");
        assert_eq!((&again.secret, &again.policy, again.created_ms), (&a.secret, &a.policy, 1_000_000));
        assert_eq!(keys.active(&b.access_key_id).map(|key| key.name).as_deref(), Some("b"));
        clock.advance(Duration::from_secs(1000));
        assert!(keys.active(&b.access_key_id).is_none(), "it has expired");

        let disabled = keys.update(a.access_key_id.clone(), |key| key.enabled = false).await.unwrap();
        assert!(disabled.is_some_and(|key| !key.enabled));
        assert!(keys.active(&a.access_key_id).is_none() && open().active(&a.access_key_id).is_none());
        assert!(keys.delete(b.access_key_id.clone()).await.unwrap().is_some());
        assert!(keys.delete(b.access_key_id).await.unwrap().is_none());
        assert!(keys.update("none".into(), |_| ()).await.unwrap().is_none());
        assert_eq!(open().list().len(), 1);
    }

    #[tokio::test]
    async fn a_file_that_does_not_open_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let clock = ManualClock::new(UnixMs(0));
        let open = |key: &[u8; 32]| AccessKeys::open(dir.path(), key, Arc::clone(&clock) as _).map(|_| ());
        AccessKeys::open(dir.path(), &INDEX_KEY, Arc::clone(&clock) as _)
            .unwrap()
            .create(new_key("a", None))
            .await
            .unwrap();
        assert!(open(&INDEX_KEY).is_ok() && open(&[4; 32]).is_err());
        let good = std::fs::read(&path).unwrap();
        for index in (0..good.len()).filter(|index| !(10..16).contains(index)) {
            let mut bad = good.clone();
            bad[index] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(open(&INDEX_KEY).is_err(), "{index}");
            std::fs::write(&path, &good[..index]).unwrap();
            assert!(open(&INDEX_KEY).is_err(), "cut at {index}");
            assert_eq!(std::fs::read(&path).unwrap(), good[..index]);
        }
    }

    #[tokio::test]
    async fn uses_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(UnixMs(1_000_000));
        let open = || AccessKeys::open(dir.path(), &INDEX_KEY, Arc::clone(&clock) as _).unwrap();
        let keys = open();
        let key = keys.create(new_key("a", None)).await.unwrap();
        keys.note_use(&key.access_key_id);
        let stop = CancellationToken::new();
        stop.cancel();
        Arc::clone(&keys).keep_uses(stop).await;
        assert_eq!(open().list()[0].used_ms, Some(1_000_000));
        clock.advance(Duration::from_millis(USE_STEP_MS as u64 - 1));
        keys.note_use(&key.access_key_id);
        assert_eq!(keys.list()[0].used_ms, Some(1_000_000), "not each use");
        clock.advance(Duration::from_millis(1));
        keys.note_use(&key.access_key_id);
        keys.create(new_key("b", None)).await.unwrap();
        let used = open().list().into_iter().find(|key| key.name == "a").and_then(|key| key.used_ms);
        assert_eq!(used, Some(1_000_000 + USE_STEP_MS));
    }
}
