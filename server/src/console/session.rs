//! `/v1/session`: who signed in by a browser, and for how long (`docs/api/session.md`).
//!
//! A cookie names a session by 256 random bits. Sessions are in memory only, under a hash of that name, and hold no secret:
//! what one may do is asked of its access key at each request. A restart of the server ends them all.
//!
//! Whether a page of ours made a browser ask is judged in `player-api`, at the gate.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::auth::{Authenticator, Principal};
use vidar_core::clock::SharedClock;
use vidar_core::policy::{Action, Target};
use vidar_core::time::UnixMs;
use vidar_player_api::auth::{COOKIE_NAME, forged, is_own_page, session_cookie};
use vidar_player_api::params::json_body;
use vidar_player_api::{ApiError, ApiResult};
use zeroize::Zeroizing;

use super::ConsoleOptions;
use crate::authenticator::Credentials;

/// Sessions of a server at most: about 200 bytes each.
const SESSION_COUNT_MAX: usize = 4096;
/// Sessions of a key at most: one key does not push out others.
const SESSION_COUNT_MAX_OF_KEY: usize = 64;
/// A session that is not used for so long ends.
pub(crate) const IDLE_MS_MAX: i64 = 12 * 3_600_000;
/// A session ends after so long, used or not.
pub(crate) const LIFETIME_MS: i64 = 7 * 86_400_000;

/// Wrong secrets of a source in a row.
const WRONG_COUNT_MAX: u32 = 10;
/// After which one of them is forgotten.
const WRONG_STEP_MS: i64 = 6_000;
/// Sources that are remembered: about 60 bytes each.
const SOURCE_COUNT_MAX: usize = 10_000;

/// Every action, for what a page shows.
const ACTIONS: [Action; 8] = [
    Action::List,
    Action::Read,
    Action::Push,
    Action::Create,
    Action::Tag,
    Action::Change,
    Action::Delete,
    Action::Operate,
];

type Hash = [u8; 32];

struct Session {
    access_key_id: String,
    /// Which secret of the key was proven.
    generation: u64,
    begun: UnixMs,
    used: UnixMs,
}

impl Session {
    fn has_ended(&self, now: UnixMs) -> bool {
        now.0.saturating_sub(self.used.0) >= IDLE_MS_MAX || now.0.saturating_sub(self.begun.0) >= LIFETIME_MS
    }
}

/// Sessions of browsers.
#[derive(Default)]
pub(crate) struct Sessions {
    /// By the hash of their name: how long a look-up takes says nothing of a name. Guards the map; nothing is awaited under it.
    by_hash: Mutex<HashMap<Hash, Session>>,
}

fn hash_of(name: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, name.as_bytes()).as_ref());
    hash
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Hash, Session>> {
        self.by_hash.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one; its name. Where there are too many, those not used the longest end.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    fn begin(&self, who: &Principal, now: UnixMs) -> anyhow::Result<Zeroizing<String>> {
        let mut bytes = Zeroizing::new([0; 32]);
        let random = ring::rand::SystemRandom::new();
        random.fill(&mut *bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        let name = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
        let mut sessions = self.lock();
        sessions.retain(|_, session| !session.has_ended(now));
        make_room(&mut sessions, SESSION_COUNT_MAX_OF_KEY, |session| session.access_key_id == who.access_key_id);
        make_room(&mut sessions, SESSION_COUNT_MAX, |_| true);
        let (access_key_id, generation) = (who.access_key_id.clone(), who.generation());
        sessions.insert(hash_of(&name), Session { access_key_id, generation, begun: now, used: now });
        Ok(name)
    }

    /// Key, generation and end of one that goes on; it is used now.
    fn look_up(&self, name: &str, now: UnixMs) -> Option<(String, u64, UnixMs)> {
        let hash = hash_of(name);
        let mut sessions = self.lock();
        let session = sessions.get_mut(&hash)?;
        if session.has_ended(now) {
            sessions.remove(&hash);
            return None;
        }
        session.used = session.used.max(now);
        Some((session.access_key_id.clone(), session.generation, session.begun.plus_ms(LIFETIME_MS)))
    }

    /// Whose it is, if its key still counts with the secret that was proven. `counts`: who has a key now.
    pub(crate) fn principal(
        &self,
        name: &str,
        now: UnixMs,
        counts: impl FnOnce(&str) -> Option<Principal>,
    ) -> Option<Principal> {
        let (access_key_id, generation, _) = self.look_up(name, now)?;
        let who = counts(&access_key_id).filter(|who| who.generation() == generation);
        if who.is_none() {
            self.end(name);
        }
        who
    }

    fn end(&self, name: &str) {
        self.lock().remove(&hash_of(name));
    }

    /// Ends those whose key does not count any more.
    pub(crate) fn end_without_key(&self, counts: impl Fn(&str) -> Option<Principal>) {
        // Keys are looked up without the lock: they have one of their own.
        let ids: Vec<String> = self.lock().values().map(|session| session.access_key_id.clone()).collect();
        let now: HashMap<&String, u64> = ids.iter().filter_map(|id| Some((id, counts(id)?.generation()))).collect();
        let counts = |session: &Session| now.get(&session.access_key_id) == Some(&session.generation);
        // One that began meanwhile is looked at when it is used.
        self.lock().retain(|_, session| counts(session) || !ids.contains(&session.access_key_id));
    }
}

/// Ends those not used the longest, so that there is room for one more.
fn make_room(sessions: &mut HashMap<Hash, Session>, count_max: usize, among: impl Fn(&Session) -> bool) {
    let mut oldest: Vec<(UnixMs, Hash)> =
        sessions.iter().filter(|(_, session)| among(session)).map(|(hash, session)| (session.used, *hash)).collect();
    if oldest.len() < count_max {
        return;
    }
    oldest.sort_unstable();
    for (_, hash) in oldest.iter().take(oldest.len() + 1 - count_max) {
        sessions.remove(hash);
    }
}

/// Wrong secrets, by where they came from.
#[derive(Default)]
struct Attempts {
    /// When the last of the wrong ones will be forgotten. Guards the map only.
    until: Mutex<HashMap<IpAddr, UnixMs>>,
}

impl Attempts {
    /// Takes a place for an attempt; none: too many were wrong.
    fn begin(&self, source: IpAddr, now: UnixMs) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= SOURCE_COUNT_MAX && !until.contains_key(&source) {
            until.retain(|_, until| *until > now);
            if until.len() >= SOURCE_COUNT_MAX {
                return false;
            }
        }
        let until = until.entry(source).or_insert(now);
        let next = (*until).max(now).plus_ms(WRONG_STEP_MS);
        let has_room = next.0 - now.0 <= i64::from(WRONG_COUNT_MAX) * WRONG_STEP_MS;
        if has_room {
            *until = next;
        }
        has_room
    }

    /// Gives it back: it was right.
    fn was_right(&self, source: IpAddr) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until.get_mut(&source) {
            *until = until.plus_ms(-WRONG_STEP_MS);
        }
    }
}

/// Who is counted as one: an IPv6 host has the last 64 bits to itself (RFC 4291 section 2.5.4).
fn source_of(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

struct Context {
    auth: Arc<Credentials>,
    clock: SharedClock,
    attempts: Attempts,
    options: ConsoleOptions,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    access_key_id: String,
    secret_access_key: String,
}

/// The routes. They look at who asks themselves.
pub(super) fn router(auth: Arc<Credentials>, clock: SharedClock, options: ConsoleOptions) -> Router {
    let body_timeout = options.body_timeout;
    let context = Arc::new(Context { auth, clock, attempts: Attempts::default(), options });
    let routes = Router::new()
        .route("/v1/session", get(show).post(sign_in).delete(sign_out))
        .method_not_allowed_fallback(vidar_player_api::error::method_not_allowed)
        .with_state(context);
    vidar_player_api::read_json_bodies(routes, body_timeout)
}

/// The `Set-Cookie` of a name: RFC 6265bis section 5.6. Without a name: forget it.
fn cookie(name: Option<&str>, is_tls: bool) -> HeaderValue {
    let (value, age_s) = name.map_or(("", 0), |name| (name, LIFETIME_MS / 1000));
    let secure = if is_tls { "; Secure" } else { "" };
    let text = format!("{COOKIE_NAME}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(text).expect("plain ASCII")
}

fn answer(status: StatusCode, body: Value, set_cookie: Option<HeaderValue>) -> Response {
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(cookie) = set_cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

impl Context {
    /// What a page shows of who signed in.
    fn describe(&self, who: &Principal, ends: UnixMs) -> Value {
        let may = |target| ACTIONS.into_iter().filter(|action| who.may(*action, target)).collect::<Vec<_>>();
        json!({
            "access_key_id": who.access_key_id,
            "expires": ends,
            "may_some": may(Target::Some),
            "may_all": may(Target::All),
            "rtsp_port": self.options.rtsp_port,
            "kvs_url": self.options.kvs_url,
        })
    }
}

fn check_page(headers: &HeaderMap) -> ApiResult<()> {
    if is_own_page(headers) { Ok(()) } else { Err(forged()) }
}

async fn show(State(context): State<Arc<Context>>, headers: HeaderMap) -> ApiResult<Response> {
    let none = || ApiError::not_found("nobody is signed in");
    let name = session_cookie(&headers).ok_or_else(none)?;
    let who = context.auth.session(&name).ok_or_else(none)?;
    let (_, _, ends) = context.auth.browsers.look_up(&name, context.clock.now()).ok_or_else(none)?;
    Ok(answer(StatusCode::OK, context.describe(&who, ends), None))
}

async fn sign_in(
    State(context): State<Arc<Context>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<Response> {
    check_page(&headers)?;
    let SignIn { access_key_id, secret_access_key } = json_body(&body)?;
    let secret = Zeroizing::new(secret_access_key);
    let (now, source) = (context.clock.now(), source_of(peer));
    if !context.attempts.begin(source, now) {
        tracing::warn!(%source, "too many wrong secrets");
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong secrets: try again in a minute"));
    }
    let Some(who) = context.auth.basic(&access_key_id, &secret) else {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "no such access key id with that secret"));
    };
    context.attempts.was_right(source);
    // A browser that signs in anew leaves no session behind.
    if let Some(before) = session_cookie(&headers) {
        context.auth.browsers.end(&before);
    }
    let begun = context.auth.browsers.begin(&who, now);
    let name = begun.map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    tracing::info!(access_key_id = who.access_key_id, "signed in");
    let set_cookie = cookie(Some(&name), context.options.is_tls);
    Ok(answer(StatusCode::CREATED, context.describe(&who, now.plus_ms(LIFETIME_MS)), Some(set_cookie)))
}

async fn sign_out(State(context): State<Arc<Context>>, headers: HeaderMap) -> ApiResult<Response> {
    check_page(&headers)?;
    if let Some(name) = session_cookie(&headers) {
        context.auth.browsers.end(&name);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie(None, context.options.is_tls));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(id: &str) -> Principal {
        Principal::root(id)
    }

    fn counts(id: &str) -> Option<Principal> {
        Some(who(id))
    }

    #[test]
    fn a_session_ends_when_it_is_idle_or_old_or_its_key_does_not_count() {
        let sessions = Sessions::default();
        let begin = |at| sessions.begin(&who("a"), UnixMs(at)).unwrap();
        let goes_on = |name: &str, at| sessions.principal(name, UnixMs(at), counts).is_some();
        let idle = begin(0);
        assert!(goes_on(&idle, IDLE_MS_MAX - 1) && goes_on(&idle, 2 * IDLE_MS_MAX - 2));
        assert!(!goes_on(&idle, 3 * IDLE_MS_MAX - 2) && !goes_on(&idle, 0), "once it has ended it is gone");
        let old = begin(0);
        assert!((1..LIFETIME_MS / IDLE_MS_MAX * 2).all(|half| goes_on(&old, half * IDLE_MS_MAX / 2)));
        assert!(!goes_on(&old, LIFETIME_MS));
        let disabled = begin(0);
        assert!(sessions.principal(&disabled, UnixMs(1), |_| None).is_none());
        assert!(!goes_on(&disabled, 2), "it does not come back with its key");
        let rotated = begin(0);
        assert!(sessions.principal(&rotated, UnixMs(1), |id| Some(who(id).with_generation(1))).is_none());
        let (kept, ended) = (begin(0), sessions.begin(&who("b"), UnixMs(0)).unwrap());
        sessions.end_without_key(|id| counts(id).filter(|_| id == "a"));
        assert!(goes_on(&kept, 1) && !goes_on(&ended, 1));
        assert_eq!(sessions.lock().len(), 1);
        for wrong in ["", "a", &kept[1..], &format!("{}x", *kept)] {
            assert!(!goes_on(wrong, 1), "{wrong}");
        }
    }

    #[test]
    fn there_are_so_many_sessions_and_a_key_pushes_out_its_own() {
        let sessions = Sessions::default();
        let other = sessions.begin(&who("other"), UnixMs(0)).unwrap();
        let names: Vec<_> =
            (0..=SESSION_COUNT_MAX_OF_KEY as i64).map(|at| sessions.begin(&who("a"), UnixMs(at)).unwrap()).collect();
        let goes_on = |name: &str| sessions.principal(name, UnixMs(100), counts).is_some();
        assert!(!goes_on(&names[0]) && names[1..].iter().all(|name| goes_on(name)) && goes_on(&other));
        for index in 0..SESSION_COUNT_MAX {
            sessions.begin(&who(&index.to_string()), UnixMs(200)).unwrap();
        }
        assert_eq!(sessions.lock().len(), SESSION_COUNT_MAX);
        assert!(!goes_on(&other));
    }

    #[test]
    fn wrong_secrets_of_a_source_are_bounded_and_forgotten() {
        let attempts = Attempts::default();
        let [a, b] = [1, 2].map(|host| IpAddr::from([192, 0, 2, host]));
        let wrong = |source, at| attempts.begin(source, UnixMs(at));
        assert!((0..WRONG_COUNT_MAX).all(|_| wrong(a, 0)) && !wrong(a, 0) && wrong(b, 0));
        assert!(!wrong(a, WRONG_STEP_MS - 1) && wrong(a, WRONG_STEP_MS) && !wrong(a, WRONG_STEP_MS));
        for _ in 0..100 {
            assert!(wrong(b, 0));
            attempts.was_right(b);
        }
        for index in 2..SOURCE_COUNT_MAX as u32 {
            assert!(wrong(IpAddr::from(index.to_be_bytes()), 0));
        }
        assert!(!wrong(IpAddr::from([10, 0, 0, 1]), 0), "there is no room to count it");
        assert!(wrong(IpAddr::from([10, 0, 0, 1]), WRONG_STEP_MS * 100), "the others are forgotten");
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("[2001:db8:1:2:3::4]:5"), source("[2001:db8:1:2:5::6]:7"));
        assert_ne!(source("[2001:db8:1:2::4]:5"), source("[2001:db8:1:3::4]:5"));
        assert_eq!(source("[::ffff:192.0.2.1]:5"), source("192.0.2.1:7"));
        assert_ne!(source("192.0.2.1:5"), source("192.0.2.2:5"));
    }

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts_and_of_other_sites() {
        assert_eq!(
            cookie(Some("x"), true),
            "vidar-session=x; Path=/; Max-Age=604800; HttpOnly; SameSite=Strict; Secure"
        );
        assert_eq!(cookie(None, false), "vidar-session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    }
}
