//! Signature Version 4, the checking side: in the `Authorization` header, or in a presigned query.
//!
//! ```text
//! Authorization: AWS4-HMAC-SHA256 Credential=ID/20261126/us-west-2/kinesisvideo/aws4_request,
//!                SignedHeaders=host;x-amz-date, Signature=<64 hex digits>
//! ```
//!
//! A [`Claim`] is what a request says about itself; [`Claim::check`] tells whether the secret of its key signed it.
//! Between the two the caller looks the key up.
//!
//! # Invariants
//! 1. The list of signed headers is taken as it stands, and header values as they were received: C clients sign
//!    `connection` and `transfer-encoding`, leave their session token out, and send `Host` without its port.
//! 2. Signatures are compared in constant time.
//! 3. Nothing is allocated beyond a few times the head of the request.
//!
//! "Signature Version 4 signing process", AWS General Reference; differences of clients as they were seen. Not here:
//! what a key may do.

mod canonical;
mod claim;
mod error;
mod payload;

use http::HeaderMap;
use ring::{digest, hmac};
use vidar_core::time::UnixMs;

pub use claim::Claim;
pub use error::AuthError;
pub use payload::Body;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";

/// The head of a request, as it was received.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its target: a path and a query, perhaps behind a scheme and an authority (RFC 9112 section 3.2.2).
    pub target: &'a str,
    /// Its headers, those that speak of the connection too.
    pub headers: &'a HeaderMap,
}

impl<'a> Request<'a> {
    /// Path and query. The AWS SDK for Java sends an absolute target and signs the path of it.
    fn path_and_query(&self) -> (&'a str, Option<&'a str>) {
        let target = match self.target.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
                rest.find(['/', '?']).map_or("/", |start| &rest[start..])
            }
            _ => self.target,
        };
        target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
    }

    /// The one value of a header, if it is there.
    fn only(&self, name: &'static str) -> Result<Option<&'a str>, AuthError> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                value.to_str().map(|value| Some(value.trim())).map_err(|_| AuthError::incomplete(name))
            }
            (Some(_), Some(_)) => Err(AuthError::incomplete(name)),
        }
    }
}

/// What the server asks of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Name of the service in the scope.
    pub service: String,
    /// The region in the scope; none: any.
    pub region: Option<String>,
    /// How far the clock of the signer may be off.
    pub clock_tolerance_ms: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { service: "kinesisvideo".to_owned(), region: None, clock_tolerance_ms: 300_000 }
    }
}

impl Claim {
    /// Whether `secret` signed the request that makes this claim.
    ///
    /// # Errors
    /// `Scope`, `Skewed` or `Expired` if the rules forbid it; `Mismatch` if something signed is not as it was, or the
    /// secret is another.
    pub fn check(
        &self,
        request: &Request<'_>,
        body: &Body,
        secret: &str,
        rules: &Rules,
        now: UnixMs,
    ) -> Result<(), AuthError> {
        self.check_scope(rules)?;
        self.check_time(rules, now)?;
        self.check_signature(request, body, secret)
    }

    /// What can be told before the body is here: scope, time and, where the head promises a hash, the signature. Answers
    /// that hash: the body's has to be the same.
    ///
    /// # Errors
    /// As `check`; `BodyMismatch` if the head promises something that is no hash.
    pub fn check_head(
        &self,
        request: &Request<'_>,
        secret: &str,
        rules: &Rules,
        now: UnixMs,
    ) -> Result<Option<[u8; 32]>, AuthError> {
        self.check_scope(rules)?;
        self.check_time(rules, now)?;
        let promised = payload::promised(request)?;
        if let Some(hash) = promised {
            self.check_signature(request, &Body::Whole(hash), secret)?;
        }
        Ok(promised)
    }

    fn check_signature(&self, request: &Request<'_>, body: &Body, secret: &str) -> Result<(), AuthError> {
        let key = self.signing_key(secret);
        let headers = canonical::headers(&self.signed_headers, request.headers).ok_or(AuthError::Mismatch)?;
        let (path, query) = request.path_and_query();
        let path = canonical::path(path);
        let payloads = payload::hashes(request, body)?;
        for query in self.queries(query) {
            let mut before = digest::Context::new(&digest::SHA256);
            for part in [request.method.as_bytes(), path.as_bytes(), query.as_bytes(), &headers] {
                before.update(part);
                before.update(b"\n");
            }
            for payload in &payloads {
                let mut canonical = before.clone();
                canonical.update(payload.as_bytes());
                let text = self.string_to_sign(canonical.finish().as_ref());
                if hmac::verify(&key, text.as_bytes(), &self.signature).is_ok() {
                    return Ok(());
                }
            }
        }
        Err(AuthError::Mismatch)
    }

    fn signing_key(&self, secret: &str) -> hmac::Key {
        let parts = [self.date(), &self.region, &self.service, TERMINATOR];
        let key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
        parts
            .iter()
            .fold(key, |key, part| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref()))
    }

    fn string_to_sign(&self, canonical_sha256: &[u8]) -> String {
        let (time, date, region, service) = (&self.time.text, self.date(), &self.region, &self.service);
        let hash = hex(canonical_sha256);
        format!("{ALGORITHM}\n{time}\n{date}/{region}/{service}/{TERMINATOR}\n{hash}")
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// 64 small digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_every_form_have_a_path_and_a_query() {
        let headers = HeaderMap::new();
        for (target, path, query) in [
            ("/putMedia", "/putMedia", None),
            ("/a?b=c?d", "/a", Some("b=c?d")),
            ("http://host:8080/putMedia", "/putMedia", None),
            ("https://host?a=b", "", Some("a=b")),
            ("http://host", "/", None),
            ("/a?b=http://c/d", "/a", Some("b=http://c/d")),
            ("/a://b", "/a://b", None),
            ("*", "*", None),
            ("", "", None),
        ] {
            let request = Request { method: "POST", target, headers: &headers };
            assert_eq!(request.path_and_query(), (path, query), "{target}");
        }
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(hex(&[0, 0x1f, 0xa0, 0xff]), "001fa0ff");
        let good = "0f".repeat(32);
        assert_eq!(unhex(&good), Some([15; 32]));
        for bad in ["", "0f", &good[1..], &good.to_uppercase(), &format!("{good}0"), &good.replace('f', "g")] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
