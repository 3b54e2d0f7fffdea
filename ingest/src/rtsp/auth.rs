//! Digest (RFC 7616, RFC 2069) and Basic (RFC 7617) on RTSP requests (RFC 2326 section D).
//!
//! The challenge offers SHA-256 first and MD5 last with one nonce: ffmpeg and GStreamer take the *last* challenge, and
//! know MD5 only. A nonce belongs to a connection and lives as long; nobody else can use it, so it needs no table.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use rtsp_types::Url;
use sha2::{Digest as _, Sha256};
use vidar_core::auth::{Authenticator, DigestAlgorithm, Principal};

const REALM: &str = "vidar";

/// What one connection asks of its client.
pub(crate) struct Challenge {
    nonce: String,
    basic: bool,
}

/// How an answer to the challenge is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// None was given.
    Missing,
    /// Right, but for the nonce of another connection.
    Stale,
    /// Wrong, or not understood.
    Wrong,
}

impl Challenge {
    /// `basic` only where nobody can listen.
    pub(crate) fn new(nonce: String, basic: bool) -> Self {
        Self { nonce, basic }
    }

    /// The values of the WWW-Authenticate fields, each to stand on a line of its own.
    pub(crate) fn fields(&self, denied: Denied) -> Vec<String> {
        let stale = if denied == Denied::Stale { ", stale=true" } else { "" };
        let digest = |algorithm| {
            let nonce = &self.nonce;
            format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\", algorithm={algorithm}, qop=\"auth\"{stale}")
        };
        let mut fields = Vec::new();
        if self.basic {
            fields.push(format!("Basic realm=\"{REALM}\""));
        }
        fields.push(digest("SHA-256"));
        // Without `qop`, as RFC 2069 had it: that is what RTSP clients know.
        fields.push(format!("Digest realm=\"{REALM}\", nonce=\"{}\", algorithm=MD5{stale}", self.nonce));
        fields
    }

    /// Who sent a request, by its Authorization field.
    pub(crate) fn check(
        &self,
        authenticator: &dyn Authenticator,
        method: &str,
        uri: Option<&Url>,
        authorization: Option<&str>,
    ) -> Result<Principal, Denied> {
        let authorization = authorization.ok_or(Denied::Missing)?;
        let (scheme, rest) = authorization.split_once(' ').ok_or(Denied::Wrong)?;
        if scheme.eq_ignore_ascii_case("digest") {
            self.check_digest(authenticator, method, uri, rest)
        } else if self.basic && scheme.eq_ignore_ascii_case("basic") {
            check_basic(authenticator, rest).ok_or(Denied::Wrong)
        } else {
            Err(Denied::Wrong)
        }
    }

    fn check_digest(
        &self,
        authenticator: &dyn Authenticator,
        method: &str,
        uri: Option<&Url>,
        answer: &str,
    ) -> Result<Principal, Denied> {
        let answer = Answer::parse(answer).ok_or(Denied::Wrong)?;
        if !same_resource(answer.uri, uri) {
            return Err(Denied::Wrong);
        }
        // An unknown key costs the same work as a wrong secret.
        let known = authenticator.digest_secret(answer.username);
        let secret = known.as_ref().map_or("", |(_, secret)| secret);
        let expected = answer.expected(secret, method);
        let right = same(expected.as_bytes(), answer.response.as_bytes());
        match (known.filter(|_| right), same(answer.nonce.as_bytes(), self.nonce.as_bytes())) {
            (Some((principal, _)), true) => {
                authenticator.note_use(&principal);
                Ok(principal)
            }
            (Some(_), false) => Err(Denied::Stale),
            (None, _) => Err(Denied::Wrong),
        }
    }
}

fn check_basic(authenticator: &dyn Authenticator, encoded: &str) -> Option<Principal> {
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    authenticator.basic(id, secret)
}

/// An answer may name the URI of the whole where a track is meant, with or without host: the stream must be the same.
fn same_resource(claimed: &str, uri: Option<&Url>) -> bool {
    let Some(uri) = uri else { return true };
    let path = match Url::parse(claimed) {
        Ok(claimed) => claimed.path().to_owned(),
        Err(_) => claimed.to_owned(),
    };
    let stream = |path: &str| path.trim_matches('/').split(['/', '?']).next().unwrap_or_default().to_owned();
    stream(&path) == stream(uri.path())
}

/// The fields of a Digest answer.
struct Answer<'a> {
    username: &'a str,
    realm: &'a str,
    nonce: &'a str,
    uri: &'a str,
    response: &'a str,
    algorithm: DigestAlgorithm,
    /// Nonce count, client nonce, quality of protection.
    qop: Option<(&'a str, &'a str, &'a str)>,
}

impl<'a> Answer<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let fields = parameters(text);
        let get = |name: &str| fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
        let algorithm = match get("algorithm") {
            None => DigestAlgorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("MD5") => DigestAlgorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => DigestAlgorithm::Sha256,
            Some(_) => return None,
        };
        let qop = match get("qop") {
            None | Some("") => None,
            Some(qop) if qop.eq_ignore_ascii_case("auth") => Some((get("nc")?, get("cnonce")?, qop)),
            Some(_) => return None,
        };
        Some(Self {
            username: get("username")?,
            realm: get("realm").filter(|realm| *realm == REALM)?,
            nonce: get("nonce")?,
            uri: get("uri")?,
            response: get("response")?,
            algorithm,
            qop,
        })
    }

    fn expected(&self, secret: &str, method: &str) -> String {
        let hash = |text: &str| hash(self.algorithm, text);
        let user = hash(&format!("{}:{}:{secret}", self.username, self.realm));
        let request = hash(&format!("{method}:{}", self.uri));
        match self.qop {
            Some((count, cnonce, qop)) => hash(&format!("{user}:{}:{count}:{cnonce}:{qop}:{request}", self.nonce)),
            None => hash(&format!("{user}:{}:{request}", self.nonce)),
        }
    }
}

fn hash(algorithm: DigestAlgorithm, text: &str) -> String {
    let digest = match algorithm {
        DigestAlgorithm::Md5 => Md5::digest(text).to_vec(),
        DigestAlgorithm::Sha256 => Sha256::digest(text).to_vec(),
    };
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Takes the same time wherever they differ. Hexadecimal digits may be of either case.
fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x.to_ascii_lowercase() ^ y.to_ascii_lowercase()));
    std::hint::black_box(difference) == 0 && a.len() == b.len()
}

/// `name=value, name="value"`; escapes within quotes are kept as they are (no name of ours has one).
fn parameters(text: &str) -> Vec<(&str, &str)> {
    let mut fields = Vec::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let Some((value, next)) = quoted.split_once('"') else { break };
                (value, next.split_once(',').map_or("", |(_, next)| next))
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        fields.push((name.trim(), value.trim()));
        rest = next.trim_start();
    }
    fields
}

#[cfg(test)]
mod tests {
    use vidar_core::time::UnixMs;

    use super::*;

    struct One;

    impl Authenticator for One {
        fn basic(&self, id: &str, secret: &str) -> Option<Principal> {
            (id == "key" && secret == "s3cret").then(|| Principal::root(id))
        }
        fn bearer(&self, _: &str) -> Option<Principal> {
            None
        }
        fn digest_secret(&self, id: &str) -> Option<(Principal, String)> {
            (id == "key").then(|| (Principal::root(id), "s3cret".to_owned()))
        }
        fn sign(&self, _: &Principal, _: &str, _: UnixMs) -> String {
            String::new()
        }
        fn signed(&self, _: &str, _: &str, _: UnixMs) -> Option<Principal> {
            None
        }
    }

    /// RFC 7616 section 3.9.1, both algorithms, and RFC 2617 section 3.5's numbers without qop.
    #[test]
    fn published_examples() {
        let fields = |algorithm: &str, rest: &str| {
            format!(
                "username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", response=\"\"{rest}"
            )
        };
        let qop = ", nc=00000001, cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth";
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let text = fields(algorithm, qop).replace("http-auth@example.org", REALM);
            let mut answer = Answer::parse(&text).unwrap();
            answer.realm = "http-auth@example.org";
            assert_eq!(answer.expected("Circle of Life", "GET"), response);
        }
        // RFC 2069 section 2.4 as corrected by its errata.
        let text = format!(
            "username=\"Mufasa\", realm=\"{REALM}\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
             uri=\"/dir/index.html\", response=\"\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""
        );
        let mut answer = Answer::parse(&text).unwrap();
        answer.realm = "testrealm@host.com";
        assert_eq!(answer.expected("CircleOfLife", "GET"), "1949323746fe6a43ef61f9606e7febea");
    }

    fn answer(user: &str, secret: &str, nonce: &str, uri: &str, algorithm: Option<DigestAlgorithm>) -> String {
        let kind = algorithm.unwrap_or(DigestAlgorithm::Md5);
        let (a, b) = (hash(kind, &format!("{user}:{REALM}:{secret}")), hash(kind, &format!("ANNOUNCE:{uri}")));
        let response = hash(kind, &format!("{a}:{nonce}:{b}"));
        let name = match algorithm {
            None => "",
            Some(DigestAlgorithm::Md5) => ", algorithm=\"MD5\"",
            Some(DigestAlgorithm::Sha256) => ", algorithm=SHA-256",
        };
        format!(
            "Digest username=\"{user}\",realm=\"{REALM}\" , nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\"{name}"
        )
    }

    #[test]
    fn who_may_and_who_may_not() {
        let challenge = Challenge::new("n0nce".into(), false);
        let uri = Url::parse("rtsp://h:1/cam").unwrap();
        let check = |text: &str| challenge.check(&One, "ANNOUNCE", Some(&uri), Some(text));
        for algorithm in [None, Some(DigestAlgorithm::Md5), Some(DigestAlgorithm::Sha256)] {
            assert_eq!(
                check(&answer("key", "s3cret", "n0nce", "rtsp://h:1/cam", algorithm)).unwrap().access_key_id,
                "key"
            );
            assert_eq!(check(&answer("key", "s3cret", "n0nce", "/cam", algorithm)).unwrap().access_key_id, "key");
            assert_eq!(check(&answer("key", "wrong", "n0nce", "/cam", algorithm)), Err(Denied::Wrong));
            assert_eq!(check(&answer("nobody", "", "n0nce", "/cam", algorithm)), Err(Denied::Wrong));
            assert_eq!(check(&answer("key", "s3cret", "other", "/cam", algorithm)), Err(Denied::Stale));
            assert_eq!(check(&answer("key", "s3cret", "n0nce", "/elsewhere", algorithm)), Err(Denied::Wrong));
        }
        assert_eq!(challenge.check(&One, "ANNOUNCE", Some(&uri), None), Err(Denied::Missing));
        let good = answer("key", "s3cret", "n0nce", "/cam", None);
        assert_eq!(challenge.check(&One, "SETUP", Some(&uri), Some(&good)), Err(Denied::Wrong), "of another method");
        for len in 0..good.len() {
            assert!(check(&good[..len]).is_err(), "cut at {len}");
        }
        for bad in ["", "Digest", "Digest ", "Digest =,=,\"", "Bearer x", "Digest username=\"key"] {
            assert_eq!(check(bad), Err(Denied::Wrong), "{bad}");
        }
    }

    #[test]
    fn basic_only_where_it_is_offered() {
        let text = format!("Basic {}", STANDARD.encode("key:s3cret"));
        let check = |basic, text: &str| Challenge::new("n".into(), basic).check(&One, "ANNOUNCE", None, Some(text));
        assert!(check(true, &text).is_ok());
        assert_eq!(check(false, &text), Err(Denied::Wrong));
        assert_eq!(check(true, &format!("Basic {}", STANDARD.encode("key:no"))), Err(Denied::Wrong));
        assert_eq!(check(true, "Basic ?"), Err(Denied::Wrong));
    }

    #[test]
    fn md5_is_offered_last() {
        let fields = Challenge::new("n".into(), true).fields(Denied::Stale);
        assert_eq!(fields.len(), 3);
        assert!(fields[0].starts_with("Basic"));
        assert!(fields[1].contains("SHA-256") && fields[1].contains("stale=true"));
        assert!(fields[2].contains("MD5") && fields[2].contains("nonce=\"n\""));
        assert_eq!(Challenge::new("n".into(), false).fields(Denied::Missing).len(), 2);
    }
}
