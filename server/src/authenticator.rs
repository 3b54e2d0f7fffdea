//! Who is let in, and as whom: the root pair, access keys, temporary credentials, signed URLs.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use vidar_core::auth::{Authenticator, Principal};
use vidar_core::clock::SharedClock;
use vidar_core::policy::{Action, Policy, Target};
use vidar_core::time::UnixMs;
use vidar_kvs_api::{Keys, Refusal};
use zeroize::Zeroizing;

use crate::access_keys::{AccessKeys, Session, Token};
use crate::console::session::Sessions;
use crate::credentials::RootPair;

const MAC_BYTES: usize = 32;

/// Checks credentials of every kind.
pub struct Credentials {
    /// Guards the pair, which a reload replaces.
    root: RwLock<Arc<Root>>,
    /// The others; none: only the pair counts.
    keys: Option<Arc<AccessKeys>>,
    /// Who signed in by a browser.
    pub(crate) browsers: Sessions,
    clock: SharedClock,
}

struct Root {
    pair: RootPair,
    /// Signs player URLs, whoever asks.
    url_key: hmac::Key,
    /// How many pairs there were before.
    generation: u64,
}

impl Root {
    fn new(pair: RootPair, generation: u64) -> Arc<Self> {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, pair.secret.as_bytes());
        let derived = hmac::sign(&secret, b"vidar signed url v2");
        Arc::new(Self { pair, url_key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()), generation })
    }
}

/// Equal, in a time that depends on neither text: the tags of a random key are compared.
fn same(a: &str, b: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"vidar constant-time comparison");
    hmac::verify(&key, a.as_bytes(), hmac::sign(&key, b.as_bytes()).as_ref()).is_ok()
}

impl Credentials {
    /// Of a root pair and the keys beside it.
    #[must_use]
    pub fn new(pair: RootPair, keys: Option<Arc<AccessKeys>>, clock: SharedClock) -> Self {
        Self { root: RwLock::new(Root::new(pair, 0)), keys, browsers: Sessions::default(), clock }
    }

    /// From now on another root pair counts. Signed URLs and temporary credentials of the old one end, and so does what was
    /// begun with it. The same pair again changes nothing.
    pub fn replace(&self, pair: RootPair) {
        {
            let mut root = self.root.write().expect("no panic under this lock");
            if root.pair.access_key_id == pair.access_key_id && same(&root.pair.secret, &pair.secret) {
                return;
            }
            let generation = root.generation + 1;
            *root = Root::new(pair, generation);
        }
        if let Some(keys) = &self.keys {
            keys.note_change();
        }
    }

    /// Resolves when somebody may do something else than before.
    pub(crate) async fn changed(&self) {
        match &self.keys {
            Some(keys) => keys.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Ends what browsers began with keys that do not count any more.
    pub(crate) fn end_sessions(&self) {
        self.browsers.end_without_key(|id| self.lasting(id).ok().map(|(who, _)| who));
    }

    /// Whether somebody who was let in earlier may do that now: by what the key may do now, and what he could then.
    #[must_use]
    pub fn may_still(&self, who: &Principal, action: Action, target: Target<'_>) -> bool {
        let lasts = !who.has_ended(self.clock.now());
        // The secret of access keys never changes, that of the root pair may, under the same id.
        let allows = |now: &Principal| now.generation() == who.generation() && now.may(action, target);
        lasts && who.may(action, target) && self.lasting(who.key_id()).is_ok_and(|(now, _)| allows(&now))
    }

    /// Temporary credentials of a key; none if it does not count any more.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub(crate) fn make_session(
        &self,
        parent: &Principal,
        policy: Option<Policy>,
        lifetime: Duration,
    ) -> anyhow::Result<Option<Session>> {
        let id = &parent.access_key_id;
        let (Some(keys), Ok((_, secret))) = (&self.keys, self.lasting(id)) else { return Ok(None) };
        keys.session(id, &secret, policy, lifetime).map(Some)
    }

    fn root(&self) -> Arc<Root> {
        Arc::clone(&self.root.read().expect("no panic under this lock"))
    }

    /// Who has a key that counts, and its secret. What it signs has to be checked with that.
    ///
    /// # Errors
    /// If there is none, or the session token does not belong to it.
    pub fn secret(&self, access_key_id: &str, token: Option<&str>) -> Result<(Principal, Zeroizing<String>), Refusal> {
        match token.filter(|token| !token.is_empty()) {
            Some(token) => self.temporary(access_key_id, token),
            None => self.lasting(access_key_id),
        }
    }

    /// Of the root pair and access keys.
    fn lasting(&self, access_key_id: &str) -> Result<(Principal, Zeroizing<String>), Refusal> {
        let root = self.root();
        if same(access_key_id, &root.pair.access_key_id) {
            let principal = Principal::root(access_key_id).with_generation(root.generation);
            return Ok((principal, root.pair.secret.clone()));
        }
        let key = self.keys.as_ref().and_then(|keys| keys.active(access_key_id)).ok_or(Refusal::Unknown)?;
        Ok((key.principal(), key.secret))
    }

    fn temporary(&self, access_key_id: &str, token: &str) -> Result<(Principal, Zeroizing<String>), Refusal> {
        let keys = self.keys.as_ref().ok_or(Refusal::Unknown)?;
        let token = Token::parse(token).ok_or(Refusal::Unknown)?;
        let (mut principal, parent_secret) = self.lasting(token.parent())?;
        let session = keys.known_session(&token, access_key_id, &parent_secret).ok_or(Refusal::Unknown)?;
        if session.expires <= self.clock.now() {
            return Err(Refusal::Expired);
        }
        if let Some(policy) = session.policy {
            principal = principal.bound(Arc::new(policy));
        }
        Ok((principal.temporary(access_key_id, session.expires), session.secret))
    }

    fn by_secret(&self, access_key_id: &str, secret: &str, token: Option<&str>) -> Option<Principal> {
        let known = self.secret(access_key_id, token).ok();
        // Compared, whoever asks.
        let good = same(secret, known.as_ref().map_or("", |(_, secret)| secret));
        let (principal, _) = known.filter(|_| good)?;
        Authenticator::note_use(self, &principal);
        Some(principal)
    }
}

impl Authenticator for Credentials {
    fn basic(&self, access_key_id: &str, secret: &str) -> Option<Principal> {
        self.by_secret(access_key_id, secret, None)
    }

    fn bearer(&self, token: &str) -> Option<Principal> {
        let (access_key_id, rest) = token.split_once(':')?;
        let (secret, session) = rest.split_once(':').map_or((rest, None), |(secret, token)| (secret, Some(token)));
        self.by_secret(access_key_id, secret, session)
    }

    fn digest_secret(&self, access_key_id: &str) -> Option<(Principal, String)> {
        let (principal, secret) = self.secret(access_key_id, None).ok()?;
        Some((principal, secret.to_string()))
    }

    fn session(&self, cookie: &str) -> Option<Principal> {
        let counts = |id: &str| self.lasting(id).ok().map(|(who, _)| who);
        let who = self.browsers.principal(cookie, self.clock.now(), counts)?;
        Authenticator::note_use(self, &who);
        Some(who)
    }

    fn may_still(&self, principal: &Principal, action: Action, target: Target<'_>) -> bool {
        Self::may_still(self, principal, action, target)
    }

    fn note_use(&self, principal: &Principal) {
        if let Some(keys) = &self.keys {
            keys.note_use(principal.key_id());
        }
    }

    fn sign(&self, maker: &Principal, path_prefix: &str, expires: UnixMs) -> String {
        let mut bytes = expires.0.to_be_bytes().to_vec();
        for part in [maker.access_key_id.as_str(), "\n", path_prefix] {
            bytes.extend_from_slice(part.as_bytes());
        }
        let tag = hmac::sign(&self.root().url_key, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn signed(&self, token: &str, path: &str, now: UnixMs) -> Option<Principal> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signed, tag) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        hmac::verify(&self.root().url_key, signed, tag).ok()?;
        let (expires, rest) = signed.split_at_checked(8)?;
        let expires = UnixMs(i64::from_be_bytes(expires.try_into().ok()?));
        let (maker, prefix) = std::str::from_utf8(rest).ok()?.split_once('\n')?;
        let rest = path.strip_prefix(prefix)?;
        let below = rest.is_empty() || rest.starts_with('/');
        let (maker, _) = self.secret(maker, None).ok().filter(|_| below && now < expires)?;
        let stream = prefix.split('/').nth(3)?;
        maker.may(Action::Read, Target::Stream(stream)).then_some(maker)
    }
}

impl Keys for Credentials {
    fn secret(&self, access_key_id: &str, token: Option<&str>) -> Result<(Principal, Zeroizing<String>), Refusal> {
        Self::secret(self, access_key_id, token)
    }

    fn may_still(&self, who: &Principal, action: Action, target: Target<'_>) -> bool {
        Self::may_still(self, who, action, target)
    }

    fn note_use(&self, principal: &Principal) {
        Authenticator::note_use(self, principal);
    }
}

#[cfg(test)]
mod tests {
    use vidar_core::clock::ManualClock;
    use vidar_core::policy::Preset;

    use super::*;
    use crate::access_keys::{AccessKey, NewKey};

    fn root_pair(secret: &str) -> RootPair {
        RootPair { access_key_id: "id".into(), secret: secret.to_owned().into() }
    }

    fn root_only() -> Credentials {
        Credentials::new(root_pair("secret"), None, ManualClock::new(UnixMs(0)))
    }

    /// A server with one key, for reading `a*`.
    struct WithKey {
        auth: Credentials,
        keys: Arc<AccessKeys>,
        key: AccessKey,
        clock: Arc<ManualClock>,
        _dir: tempfile::TempDir,
    }

    async fn with_key(expires: Option<UnixMs>) -> WithKey {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(UnixMs(1_000_000)));
        let keys = AccessKeys::open(dir.path(), &[1; 32], Arc::clone(&clock) as _).unwrap();
        let policy = Preset::Read.policy(vec!["a*".to_owned()]);
        let key = keys.create(NewKey { name: "k".into(), policy, expires }).await.unwrap();
        let auth = Credentials::new(root_pair("secret"), Some(Arc::clone(&keys)), Arc::clone(&clock) as _);
        WithKey { auth, keys, key, clock, _dir: dir }
    }

    #[test]
    fn only_the_pair_is_let_in_where_there_are_no_keys() {
        let auth = root_only();
        assert!(auth.basic("id", "secret").is_some());
        assert!(auth.bearer("id:secret").is_some());
        for (id, secret) in
            [("id", ""), ("id", "secret2"), ("", "secret"), ("secret", "id"), ("id", "Secret"), ("", "")]
        {
            assert!(auth.basic(id, secret).is_none(), "{id} {secret}");
        }
        assert!(auth.bearer("secret").is_none() && auth.bearer("id:secret:token").is_none());
        assert_eq!(auth.digest_secret("id").expect("known").1, "secret");
        assert_eq!(auth.digest_secret("other"), None);
        auth.replace(root_pair("other-secret"));
        assert!(auth.basic("id", "secret").is_none());
    }

    #[test]
    fn a_signed_url_opens_what_is_below_its_prefix_until_it_expires() {
        let auth = root_only();
        let token = auth.sign(&Principal::root("id"), "/v1/streams/a", UnixMs(1000));
        let open = |path, now| auth.signed(&token, path, UnixMs(now)).is_some();
        assert!(open("/v1/streams/a", 999) && open("/v1/streams/a/hls/live.m3u8", 0));
        assert!(!open("/v1/streams/ab", 0) && !open("/v1/streams", 0) && !open("/v1/streams/a", 1000));
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character carries bits that are not used; a decoder refuses them or ignores none.
            assert!(auth.signed(&changed, "/v1/streams/a", UnixMs(0)).is_none(), "{position}");
        }
        assert!(auth.signed("", "/v1/streams/a", UnixMs(0)).is_none());
        auth.replace(root_pair("other-secret"));
        assert!(!open("/v1/streams/a", 0));
    }

    #[tokio::test]
    async fn a_key_is_let_in_while_it_counts_and_may_what_its_policy_says() {
        let WithKey { auth, keys, key, clock, _dir, .. } = with_key(Some(UnixMs(2_000_000))).await;
        let enter = || auth.basic(&key.access_key_id, &key.secret);
        let principal = enter().expect("it counts");
        assert!(principal.may(Action::Read, Target::Stream("a1")) && !principal.may(Action::Read, Target::Stream("b")));
        assert!(auth.basic(&key.access_key_id, "secret").is_none() && auth.basic(&key.access_key_id, "").is_none());
        assert_eq!(keys.list()[0].used_ms, Some(1_000_000));
        assert_eq!(auth.digest_secret(&key.access_key_id).expect("known").1, *key.secret);
        let id = key.access_key_id.clone();
        keys.update(id.clone(), |key| key.enabled = false).await.unwrap();
        assert!(enter().is_none() && auth.digest_secret(&id).is_none());
        keys.update(id, |key| key.enabled = true).await.unwrap();
        assert!(enter().is_some());
        clock.advance(Duration::from_secs(1000));
        assert!(enter().is_none(), "it has expired");
        assert!(auth.basic("id", "secret").is_some(), "the root pair stays");
    }

    #[tokio::test]
    async fn a_signed_url_is_worth_no_more_than_the_key_that_signed_it() {
        let WithKey { auth, keys, key, _dir, .. } = with_key(None).await;
        let maker = key.principal();
        let (a, b) = (
            auth.sign(&maker, "/v1/streams/a", UnixMs(i64::MAX)),
            auth.sign(&maker, "/v1/streams/b", UnixMs(i64::MAX)),
        );
        let open = |token: &str, path: &str| auth.signed(token, path, UnixMs(0));
        assert_eq!(open(&a, "/v1/streams/a").map(|who| who.access_key_id), Some(key.access_key_id.clone()));
        assert!(open(&b, "/v1/streams/b").is_none(), "it may not read that itself");
        keys.update(key.access_key_id, |key| key.enabled = false).await.unwrap();
        assert!(open(&a, "/v1/streams/a").is_none());
    }

    #[tokio::test]
    async fn temporary_credentials_need_their_token_and_end() {
        let WithKey { auth, keys, key, clock, _dir, .. } = with_key(None).await;
        let minute = Duration::from_secs(60);
        let none = Policy { statements: Preset::Read.policy(vec!["a1".to_owned()]).statements };
        let session = |policy, lifetime| auth.make_session(&key.principal(), policy, lifetime).unwrap().expect("made");
        let (whole, part) = (session(None, minute), session(Some(none), minute));
        let enter = |session: &Session, token: &str| {
            auth.bearer(&format!("{}:{}:{token}", session.access_key_id, session.secret.as_str()))
        };
        let may = |session, stream| {
            enter(session, &session.token).is_some_and(|who: Principal| who.may(Action::Read, Target::Stream(stream)))
        };
        assert!(may(&whole, "a1") && may(&whole, "a2") && !may(&whole, "b"));
        assert!(may(&part, "a1") && !may(&part, "a2"), "no more than both allow");
        assert!(enter(&whole, &whole.token).expect("let in").is_temporary());
        assert!(enter(&whole, &part.token).is_none() && enter(&whole, "").is_none());
        assert!(auth.basic(&whole.access_key_id, &whole.secret).is_none(), "without its token");
        assert_eq!(auth.secret(&whole.access_key_id, Some("x")), Err(Refusal::Unknown));
        clock.advance(minute);
        assert_eq!(auth.secret(&whole.access_key_id, Some(&whole.token)), Err(Refusal::Expired));
        let again = session(None, minute);
        assert!(enter(&again, &again.token).is_some());
        assert_eq!(keys.list()[0].used_ms, Some(1_060_000), "its key was used");
        let long = session(None, Duration::from_secs(129_600));
        clock.advance(Duration::from_secs(1));
        assert!(enter(&long, &long.token).is_some());
        let id = key.access_key_id.clone();
        keys.delete(id).await.unwrap();
        assert_eq!(auth.secret(&again.access_key_id, Some(&again.token)), Err(Refusal::Unknown), "its key is gone");
        assert!(auth.make_session(&key.principal(), None, minute).unwrap().is_none());
    }

    #[tokio::test]
    async fn temporary_credentials_of_the_root_pair_end_with_its_secret_and_are_not_made_without_it() {
        let WithKey { auth, keys, clock, _dir, .. } = with_key(None).await;
        let session = auth.make_session(&Principal::root("id"), None, Duration::from_secs(60)).unwrap().expect("made");
        let enter = |session: &Session| auth.secret(&session.access_key_id, Some(&session.token)).map(|_| ());
        assert_eq!(enter(&session), Ok(()));
        // As somebody makes them who has the index key, from an old keyring, but not the secret.
        let forged = keys.session("id", "guessed", None, Duration::from_secs(60)).unwrap();
        assert_eq!(enter(&forged), Err(Refusal::Unknown));
        auth.replace(root_pair("another"));
        assert_eq!(enter(&session), Err(Refusal::Unknown));
        auth.replace(root_pair("secret"));
        assert_eq!(enter(&session), Ok(()));
        // A clock that was set back gives nobody more time.
        let late =
            auth.make_session(&Principal::root("id"), None, Duration::from_secs(129_600)).unwrap().expect("made");
        clock.step_ms(-1);
        assert_eq!(enter(&late), Err(Refusal::Unknown));
    }

    #[tokio::test]
    async fn what_was_begun_with_another_root_secret_ends() {
        let WithKey { auth, key, _dir, .. } = with_key(None).await;
        let may = |who: &Principal| auth.may_still(who, Action::Push, Target::Stream("b"));
        let root = auth.basic("id", "secret").expect("let in");
        let session = auth.make_session(&root, None, Duration::from_secs(60)).unwrap().expect("made");
        let (temporary, _) = auth.secret(&session.access_key_id, Some(&session.token)).unwrap();
        auth.replace(root_pair("secret"));
        assert!(may(&root) && may(&temporary), "it is the same pair");
        auth.replace(root_pair("another"));
        assert!(!may(&root) && !may(&temporary), "the secret changed under its id");
        assert!(may(&auth.basic("id", "another").expect("let in")));
        assert!(auth.may_still(&key.principal(), Action::Read, Target::Stream("a1")), "of another key");
        auth.replace(root_pair("secret"));
        assert!(!may(&root), "what ended stays ended");
    }

    #[tokio::test]
    async fn who_was_let_in_may_what_the_key_may_now() {
        let WithKey { auth, keys, key, clock, _dir } = with_key(None).await;
        let as_trait: &dyn Authenticator = &auth;
        let read = |who: &Principal, stream| {
            let may = auth.may_still(who, Action::Read, Target::Stream(stream));
            assert_eq!(as_trait.may_still(who, Action::Read, Target::Stream(stream)), may);
            may
        };
        let (who, id) = (key.principal(), key.access_key_id.clone());
        let session = auth.make_session(&who, None, Duration::from_secs(60)).unwrap().expect("made");
        let (temporary, _) = auth.secret(&session.access_key_id, Some(&session.token)).unwrap();
        assert!(read(&who, "a1") && read(&temporary, "a1") && !read(&who, "b") && read(&Principal::root("id"), "b"));
        let change = |change: fn(&mut AccessKey)| keys.update(id.clone(), change);
        change(|key| key.policy = Arc::new(Preset::Read.policy(vec!["b".to_owned()]))).await.unwrap();
        assert!(!read(&who, "a1") && !read(&who, "b") && !read(&temporary, "a1"), "both have to allow it");
        change(|key| (key.policy, key.enabled) = (Arc::new(Policy::all()), false)).await.unwrap();
        assert!(!read(&who, "a1") && !read(&temporary, "a1"));
        change(|key| key.enabled = true).await.unwrap();
        assert!(read(&who, "a1") && read(&temporary, "a1"));
        clock.advance(Duration::from_secs(60));
        assert!(read(&who, "a1") && !read(&temporary, "a1"), "it has ended");
    }
}
