//! `POST /v1/sign`: a token for a player's URLs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::policy::{Action, Target};

use crate::auth::{Access, forbidden};
use crate::params;
use crate::{Api, ApiError, ApiResult};

/// A week.
const EXPIRES_S_MAX: i64 = 7 * 86_400;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignRequest {
    path_prefix: String,
    expires_s: i64,
}

/// Signs a prefix. Who came by a token may not make another.
pub(super) async fn sign(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    body: Bytes,
) -> ApiResult<Json<Value>> {
    let Access::Full(maker) = access else {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "a signed URL cannot sign others"));
    };
    if maker.is_temporary() {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "temporary credentials cannot sign URLs"));
    }
    let request: SignRequest = params::json_body(&body)?;
    let prefix = check_prefix(&request.path_prefix)?;
    if !(1..=EXPIRES_S_MAX).contains(&request.expires_s) {
        return Err(ApiError::unusable(format!("expires_s: expected 1 to {EXPIRES_S_MAX}")).with("field", "expires_s"));
    }
    if !maker.may(Action::Read, Target::Stream(stream_of(prefix))) {
        return Err(forbidden());
    }
    let expires = api.clock.now().plus_ms(request.expires_s * 1000);
    let token = api.auth.sign(&maker, prefix, expires);
    let url_suffix = format!("?token={}", params::encode(&token));
    let url = api.options.public_url.as_ref().map(|base| format!("{base}{prefix}{url_suffix}"));
    Ok(Json(json!({
        "path_prefix": prefix,
        "token": token,
        "url_suffix": url_suffix,
        "url": url,
        "expires": expires,
    })))
}

/// The stream of a prefix that was checked.
fn stream_of(prefix: &str) -> &str {
    prefix.split('/').nth(3).unwrap_or_default()
}

/// `/v1/streams/NAME` or something below it, in the one form that requests use.
pub(super) fn check_prefix(prefix: &str) -> ApiResult<&str> {
    let wrong = |what: &str| ApiError::unusable(format!("path_prefix: {what}")).with("field", "path_prefix");
    let rest =
        prefix.strip_prefix("/v1/streams/").ok_or_else(|| wrong("expected /v1/streams/NAME or a path below it"))?;
    let mut parts = rest.strip_suffix('/').unwrap_or(rest).split('/');
    params::stream_name(parts.next().unwrap_or_default())?;
    // Anything that could be read in two ways is not signed.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if parts.any(|part| part.is_empty() || part == "." || part == ".." || !part.bytes().all(plain)) {
        return Err(wrong("expected path parts of a-z A-Z 0-9 _ . -"));
    }
    Ok(rest.strip_suffix('/').map_or(prefix, |_| &prefix[..prefix.len() - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prefixes_of_a_stream_are_signed() {
        for good in ["/v1/streams/a", "/v1/streams/a/", "/v1/streams/a/hls", "/v1/streams/a.b/clip.mp4"] {
            let prefix = check_prefix(good).expect(good);
            assert_eq!(prefix, good.trim_end_matches('/'));
            assert!(matches!(stream_of(prefix), "a" | "a.b"), "{good}");
        }
        for bad in [
            "",
            "/",
            "/v1",
            "/v1/streams",
            "/v1/streams/",
            "v1/streams/a",
            "/v1/streams/..",
            "/v1/streams/a//b",
            "/v1/streams/a/../b",
            "/v1/streams/a/%2e",
            "/v1/streams/a?x",
            "/v1/search",
            "/v1/streams/a/ü",
        ] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}
