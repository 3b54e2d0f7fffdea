//! What a request says of its signature.

use http::{HeaderName, header};
use percent_encoding::percent_decode_str;
use time::{Date, Month, OffsetDateTime, Time};
use vidar_core::time::UnixMs;

use super::{ALGORITHM, AuthError, Request, Rules, TERMINATOR, canonical, unhex};

const SIGNATURE: &str = "X-Amz-Signature";
const TOKEN: &str = "X-Amz-Security-Token";
/// Headers signed at most; clients sign fewer than 20.
const SIGNED_HEADER_COUNT_MAX: usize = 100;
/// A week, as for the reference service.
const EXPIRES_S_MAX: u32 = 604_800;

/// What a request says of its signature: by whose key, when, over what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose key.
    pub access_key_id: String,
    /// What comes with temporary credentials.
    pub session_token: Option<String>,
    /// Region that the signer thought of.
    pub region: String,
    pub(super) service: String,
    /// `yyyymmdd`.
    scope_date: String,
    pub(super) time: SignedTime,
    pub(super) signed_headers: Vec<HeaderName>,
    pub(super) signature: [u8; 32],
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Header,
    Query { expires_s: u32 },
}

/// When it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignedTime {
    at: UnixMs,
    /// As it stands in the string to sign: `20261126T011000Z`.
    pub(super) text: String,
}

impl Claim {
    /// Reads the claim of a request.
    ///
    /// # Errors
    /// `Missing` if it makes none; `Incomplete` if it does not read.
    pub fn parse(request: &Request<'_>) -> Result<Self, AuthError> {
        let authorization = request.only(header::AUTHORIZATION.as_str())?;
        let query = request.path_and_query().1.filter(|query| query.contains("X-Amz-Algorithm="));
        match (authorization, query) {
            (None, None) => Err(AuthError::Missing),
            (Some(_), Some(_)) => Err(AuthError::incomplete("Authorization, and X-Amz-Algorithm in the query")),
            (Some(authorization), None) => Self::from_header(request, authorization),
            (None, Some(query)) => Self::from_query(request, query),
        }
    }

    fn from_header(request: &Request<'_>, authorization: &str) -> Result<Self, AuthError> {
        let fields = authorization.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix([' ', '\t']));
        let fields = fields.ok_or(AuthError::incomplete("Authorization"))?;
        let [mut credential, mut signed_headers, mut signature] = [None; 3];
        for field in fields.split(',') {
            let (name, value) = field.split_once('=').ok_or(AuthError::incomplete("Authorization"))?;
            let place = match name.trim() {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(AuthError::incomplete("Authorization")),
            };
            if place.replace(value.trim()).is_some() {
                return Err(AuthError::incomplete("Authorization"));
            }
        }
        let time = match (request.only("x-amz-date")?, request.only("date")?) {
            (Some(time), _) => SignedTime::basic(time),
            (None, Some(time)) => SignedTime::basic(time).or_else(|| SignedTime::http(time)),
            (None, None) => None,
        };
        Fields {
            credential: credential.ok_or(AuthError::incomplete("Credential"))?,
            signed_headers: signed_headers.ok_or(AuthError::incomplete("SignedHeaders"))?,
            signature: signature.ok_or(AuthError::incomplete("Signature"))?,
            time: time.ok_or(AuthError::incomplete("X-Amz-Date"))?,
            session_token: request.only("x-amz-security-token")?.map(str::to_owned),
            form: Form::Header,
        }
        .claim()
    }

    fn from_query(request: &Request<'_>, query: &str) -> Result<Self, AuthError> {
        let get = |name: &'static str| -> Result<Option<String>, AuthError> {
            let mut values = query.split('&').filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            match (values.next(), values.next()) {
                (value, None) => {
                    let value = value.map(|value| percent_decode_str(value).decode_utf8()).transpose();
                    value.map(|value| value.map(Into::into)).map_err(|_| AuthError::incomplete(name))
                }
                _ => Err(AuthError::incomplete(name)),
            }
        };
        let need = |name| get(name)?.ok_or(AuthError::incomplete(name));
        if need("X-Amz-Algorithm")? != ALGORITHM {
            return Err(AuthError::incomplete("X-Amz-Algorithm"));
        }
        let expires_s = need("X-Amz-Expires")?.parse().ok().filter(|s| (1..=EXPIRES_S_MAX).contains(s));
        let session_token = match get(TOKEN)? {
            Some(token) => Some(token),
            None => request.only("x-amz-security-token")?.map(str::to_owned),
        };
        Fields {
            credential: &need("X-Amz-Credential")?,
            signed_headers: &need("X-Amz-SignedHeaders")?,
            signature: &need(SIGNATURE)?,
            time: SignedTime::basic(&need("X-Amz-Date")?).ok_or(AuthError::incomplete("X-Amz-Date"))?,
            session_token,
            form: Form::Query { expires_s: expires_s.ok_or(AuthError::incomplete("X-Amz-Expires"))? },
        }
        .claim()
    }

    pub(super) fn date(&self) -> &str {
        &self.scope_date
    }

    pub(super) fn check_scope(&self, rules: &Rules) -> Result<(), AuthError> {
        let part = if self.service != rules.service {
            "service"
        } else if rules.region.as_ref().is_some_and(|region| *region != self.region) {
            "region"
        } else if self.time.text.get(..8) != Some(self.scope_date.as_str()) {
            "date"
        } else {
            return Ok(());
        };
        Err(AuthError::Scope { part })
    }

    pub(super) fn check_time(&self, rules: &Rules, now: UnixMs) -> Result<(), AuthError> {
        let age_ms = now.since_ms(self.time.at);
        let tolerance_ms = rules.clock_tolerance_ms;
        let skewed = || AuthError::Skewed { signed: self.time.at, now, tolerance_ms };
        match self.form {
            _ if age_ms < -tolerance_ms => Err(skewed()),
            Form::Header if age_ms > tolerance_ms => Err(skewed()),
            Form::Query { expires_s } if age_ms >= i64::from(expires_s) * 1000 => Err(AuthError::Expired),
            _ => Ok(()),
        }
    }

    /// The canonical queries that it may have been signed with. A session token may be added after signing.
    pub(super) fn queries(&self, query: Option<&str>) -> Vec<String> {
        let query = query.unwrap_or_default();
        match self.form {
            Form::Header => vec![canonical::query(query, &[])],
            Form::Query { .. } if query.contains(TOKEN) => {
                vec![canonical::query(query, &[SIGNATURE]), canonical::query(query, &[SIGNATURE, TOKEN])]
            }
            Form::Query { .. } => vec![canonical::query(query, &[SIGNATURE])],
        }
    }
}

/// What both forms say, before it is taken apart.
struct Fields<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    time: SignedTime,
    session_token: Option<String>,
    form: Form,
}

impl Fields<'_> {
    fn claim(self) -> Result<Claim, AuthError> {
        let mut parts = self.credential.rsplitn(5, '/');
        let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(AuthError::incomplete("Credential"));
        let (terminator, service, region, date, access_key_id) = (part()?, part()?, part()?, part()?, part()?);
        if terminator != TERMINATOR {
            return Err(AuthError::incomplete("Credential"));
        }
        let names = self.signed_headers.split(';').take(SIGNED_HEADER_COUNT_MAX + 1);
        let names = names.map(|name| HeaderName::from_lowercase(name.as_bytes())).collect::<Result<Vec<_>, _>>();
        let signed_headers = names.map_err(|_| AuthError::incomplete("SignedHeaders"))?;
        // One that is named often would be hashed as often.
        let repeats = signed_headers.iter().enumerate().any(|(index, name)| signed_headers[..index].contains(name));
        if repeats || signed_headers.len() > SIGNED_HEADER_COUNT_MAX || !signed_headers.contains(&header::HOST) {
            return Err(AuthError::incomplete("SignedHeaders"));
        }
        Ok(Claim {
            access_key_id: access_key_id.to_owned(),
            session_token: self.session_token,
            region: region.to_owned(),
            service: service.to_owned(),
            scope_date: date.to_owned(),
            time: self.time,
            signed_headers,
            signature: unhex(self.signature).ok_or(AuthError::incomplete("Signature"))?,
            form: self.form,
        })
    }
}

impl SignedTime {
    /// `20261126T011000Z`.
    fn basic(text: &str) -> Option<Self> {
        let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
        let number = |from: usize, to: usize| {
            bytes[from..to]
                .iter()
                .try_fold(0_u16, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u16::from(byte - b'0')))
        };
        let small = |from: usize| number(from, from + 2).and_then(|value| u8::try_from(value).ok());
        if (bytes[8], bytes[15]) != (b'T', b'Z') {
            return None;
        }
        let month = Month::try_from(small(4)?).ok()?;
        let date = Date::from_calendar_date(number(0, 4)?.into(), month, small(6)?).ok()?;
        let time = Time::from_hms(small(9)?, small(11)?, small(13)?).ok()?;
        let seconds = OffsetDateTime::new_utc(date, time).unix_timestamp();
        Some(Self { at: UnixMs(seconds * 1000), text: text.to_owned() })
    }

    /// RFC 9110 section 5.6.7: `Thu, 26 Nov 2026 01:10:00 GMT`; botocore writes `-0000` for `GMT`.
    fn http(text: &str) -> Option<Self> {
        let text = text.strip_suffix("-0000").map_or_else(|| text.to_owned(), |date| format!("{date}GMT"));
        let since = httpdate::parse_http_date(&text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        let at = UnixMs(i64::try_from(since.as_millis()).ok()?);
        Some(Self { at, text: basic(at)? })
    }
}

/// A time as signatures write it.
pub(super) fn basic(at: UnixMs) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000)).ok()?;
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    Some(format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_both_forms() {
        let signed = SignedTime::basic("20150830T123600Z").unwrap();
        assert_eq!(signed.at, UnixMs(1_440_938_160_000));
        assert_eq!(SignedTime::http("Sun, 30 Aug 2015 12:36:00 GMT").as_ref(), Some(&signed));
        assert_eq!(SignedTime::http("Sun, 30 Aug 2015 12:36:00 -0000"), Some(signed));
        for bad in [
            "",
            "20150830T123600",
            "20150830T123600z",
            "20151330T123600Z",
            "20150230T123600Z",
            "20150830T126000Z",
            "2015083 T123600Z",
            "20150830 123600Z",
            "２0150830T1236Z",
        ] {
            assert_eq!(SignedTime::basic(bad), None, "{bad}");
        }
        assert_eq!(SignedTime::http("yesterday"), None);
    }
}
