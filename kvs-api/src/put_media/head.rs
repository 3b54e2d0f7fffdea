//! What the head of a PutMedia says.

use http::{HeaderMap, header};
use vidar_core::time::UnixMs;

use crate::error::{ServiceError, ServiceResult};

const NAME: &str = "x-amzn-stream-name";
const ARN: &str = "x-amzn-stream-arn";
const TIMECODE_TYPE: &str = "x-amzn-fragment-timecode-type";
const START: &str = "x-amzn-producer-start-timestamp";
const ACKS: &str = "x-amzn-fragment-acknowledgment-required";
/// How the C producer, and what is made of it, calls itself.
const C_PRODUCER: &str = "AWS-SDK-KVS";

/// The parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) arn: Option<&'a str>,
    /// Producer time of the timecode 0.
    pub(super) origin: UnixMs,
    /// Acknowledgements are wanted.
    pub(super) acks: bool,
    pub(super) user_agent: &'a str,
}

impl<'a> Head<'a> {
    pub(super) fn parse(headers: &'a HeaderMap) -> ServiceResult<Self> {
        let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let start = text(headers, START)?.map(|start| start_time(start, user_agent)).transpose()?;
        let origin = match text(headers, TIMECODE_TYPE)? {
            Some("ABSOLUTE") => UnixMs(0),
            Some("RELATIVE") => {
                start.ok_or_else(|| ServiceError::invalid(format!("{START} is required with RELATIVE timecodes.")))?
            }
            _ => return Err(ServiceError::invalid(format!("{TIMECODE_TYPE}: expected ABSOLUTE or RELATIVE."))),
        };
        let acks = match text(headers, ACKS)? {
            // The Java client does not say, and expects them.
            None | Some("1" | "true") => true,
            Some("0" | "false") => false,
            Some(_) => return Err(ServiceError::invalid(format!("{ACKS}: expected 0 or 1."))),
        };
        Ok(Self { name: text(headers, NAME)?, arn: text(headers, ARN)?, origin, acks, user_agent })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> ServiceResult<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value.trim())),
        _ => Err(ServiceError::invalid(format!("{name}: expected one value of plain text."))),
    }
}

/// Seconds, with a fraction perhaps, or ISO 8601. The C producer writes milliseconds behind the point without zeros in
/// front: `.51` of it are 51 ms.
pub(super) fn start_time(text: &str, user_agent: &str) -> ServiceResult<UnixMs> {
    let c_time = || {
        let (seconds, ms) = text.split_once('.').filter(|_| user_agent.contains(C_PRODUCER))?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let ms = Some(ms).filter(|ms| ms.len() <= 3 && digits(ms))?.parse::<i64>().ok()?;
        let seconds = Some(seconds).filter(|seconds| digits(seconds))?.parse::<i64>().ok()?;
        seconds.checked_mul(1000)?.checked_add(ms).map(UnixMs)
    };
    let time = c_time().or_else(|| UnixMs::parse(text).ok()).filter(|time| (0..MS_MAX).contains(&time.0));
    time.ok_or_else(|| ServiceError::invalid(format!("{START}: expected seconds since 1970, or ISO 8601.")))
}

/// The year 10000.
pub(super) const MS_MAX: i64 = 253_402_300_800_000;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const C: &str = "AWS-SDK-KVS/3.5.0 GCC/12.2.0 Linux/6.1.0 x86_64";

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn both_forms_of_a_start_are_read_and_that_of_the_c_producer() {
        for (text, user_agent, ms) in [
            ("1795401065.51", C, 1_795_401_065_051),
            ("1795401065.051", C, 1_795_401_065_051),
            ("1795401065.5", C, 1_795_401_065_005),
            ("1795401065.5", "Go-http-client/1.1", 1_795_401_065_500),
            ("1795401065.897", "aws-sdk-java/1.12", 1_795_401_065_897),
            ("1795401065", C, 1_795_401_065_000),
            ("0", C, 0),
            ("0.0", C, 0),
            ("2026-11-23T02:37:59.897Z", "aws-sdk-java/1.12", 1_795_401_479_897),
            ("1.795401065897E9", "", 1_795_401_065_897),
        ] {
            assert_eq!(start_time(text, user_agent), Ok(UnixMs(ms)), "{text} {user_agent}");
        }
        for bad in ["", "-1", "x", "1.2.3", "99999999999999999999", "99999999999999999999.5", "1.-5", "NaN"] {
            assert!(start_time(bad, C).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_missing_or_said_twice_is_refused() {
        let good = map(&[(NAME, "cam"), (TIMECODE_TYPE, "RELATIVE"), (START, "7.5"), (ACKS, "0"), ("user-agent", C)]);
        let head = Head::parse(&good).unwrap();
        let expected = Head { name: Some("cam"), arn: None, origin: UnixMs(7_005), acks: false, user_agent: C };
        assert_eq!(head, expected);
        let absolute = map(&[(ARN, "a"), (TIMECODE_TYPE, "ABSOLUTE"), (START, "7.5")]);
        let head = Head::parse(&absolute).unwrap();
        assert_eq!((head.arn, head.origin, head.acks), (Some("a"), UnixMs(0), true));
        for bad in [
            &[(NAME, "cam")][..],
            &[(TIMECODE_TYPE, "absolute")],
            &[(TIMECODE_TYPE, "RELATIVE")],
            &[(TIMECODE_TYPE, "ABSOLUTE"), (TIMECODE_TYPE, "ABSOLUTE")],
            &[(TIMECODE_TYPE, "ABSOLUTE"), (START, "soon")],
            &[(TIMECODE_TYPE, "ABSOLUTE"), (ACKS, "2")],
        ] {
            assert!(Head::parse(&map(bad)).is_err(), "{bad:?}");
        }
    }
}
