//! What requests ask for: query parameters, page tokens, streams by name, JSON bodies.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use vidar_core::control::StreamRecord;
use vidar_core::ids::StreamName;
use vidar_core::query::{Query, QueryError};
use vidar_core::time::UnixMs;

use crate::Api;
use crate::error::{ApiError, ApiResult};

/// Entries of a page if the request does not say.
pub const LIMIT_DEFAULT: usize = 100;
/// Entries of a page at most.
pub const LIMIT_MAX: usize = 1000;

/// The parameters of a query, each at most once and none unknown.
#[derive(Debug, Clone, Default)]
pub struct Params(Query);

impl Params {
    /// Reads a query string.
    ///
    /// # Errors
    /// 400 with the `parameter` at fault.
    pub fn parse(query: Option<&str>, known: &[&str]) -> ApiResult<Self> {
        Ok(Self(Query::parse(query, known)?))
    }

    /// As it was given.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.text(name)
    }

    /// A point in time: RFC 3339, or seconds or milliseconds since 1970.
    ///
    /// # Errors
    /// 400.
    pub fn time(&self, name: &str) -> ApiResult<Option<UnixMs>> {
        Ok(self.0.time(name)?)
    }

    /// `start` and `end`, half-open, in order.
    ///
    /// # Errors
    /// 400 if one is no time, or `end` is not after `start`.
    pub fn span(&self) -> ApiResult<(Option<UnixMs>, Option<UnixMs>)> {
        let (start, end) = (self.time("start")?, self.time("end")?);
        if let (Some(start), Some(end)) = (start, end)
            && end <= start
        {
            return Err(bad("end", "is not after start"));
        }
        Ok((start, end))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 if it is none, or out of the range.
    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> ApiResult<Option<u64>> {
        Ok(self.0.number(name, range)?)
    }

    /// A length of time, such as `15m`, in milliseconds.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn interval_ms(&self, name: &str) -> ApiResult<Option<i64>> {
        Ok(self.0.interval_ms(name)?)
    }

    /// One of some words; the first if it is not given.
    ///
    /// # Errors
    /// 400 if it is another.
    pub fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> ApiResult<T> {
        Ok(self.0.choice(name, words)?)
    }

    /// `limit`: entries of a page.
    ///
    /// # Errors
    /// 400 if it is not 1 to [`LIMIT_MAX`].
    pub fn limit(&self) -> ApiResult<usize> {
        Ok(self.number("limit", 1..=LIMIT_MAX as u64)?.map_or(LIMIT_DEFAULT, |limit| limit as usize))
    }

    /// The bytes behind `next_token`.
    ///
    /// # Errors
    /// 400 if it is no token of ours.
    pub fn next_token(&self) -> ApiResult<Option<Vec<u8>>> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| bad_token());
        self.text("next_token").map(decode).transpose()
    }
}

/// A page token as text.
#[must_use]
pub fn page_token(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// 400 for a page token that is not ours.
#[must_use]
pub fn bad_token() -> ApiError {
    bad("next_token", "is not a token of an earlier page")
}

/// 400 for the token of a page in order of another clock: going on from it would leave entries out.
#[must_use]
pub fn token_of_other_clock() -> ApiError {
    bad("next_token", "is of a page by the other clock: `time` stays the same from page to page")
}

/// The same for the token of a page in the other direction.
#[must_use]
pub fn token_of_other_order() -> ApiError {
    bad("next_token", "is of a page in the other order: `order` stays the same from page to page")
}

fn bad(name: &str, what: &str) -> ApiError {
    QueryError::of(name, what).into()
}

/// Percent-encoded, for a value in a query.
#[must_use]
pub fn encode(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The name in a path.
///
/// # Errors
/// 400 if it is outside the grammar.
pub fn stream_name(text: &str) -> ApiResult<StreamName> {
    StreamName::new(text).map_err(|error| ApiError::bad_request(error.to_string()).with("parameter", "stream"))
}

/// The stream of that name.
///
/// # Errors
/// 400 if the name is outside the grammar, 404 if there is none.
pub fn stream(api: &Api, name: &str) -> ApiResult<Arc<StreamRecord>> {
    let name = stream_name(name)?;
    api.registry.get(&name).ok_or_else(|| ApiError::not_found(format!("stream {name} does not exist")))
}

/// Reads a JSON body.
///
/// # Errors
/// 400 with what serde says: the member that is unknown, missing or of the wrong type.
pub fn json_body<T: DeserializeOwned>(body: &[u8]) -> ApiResult<T> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_request(format!("body: {error}")))
}
