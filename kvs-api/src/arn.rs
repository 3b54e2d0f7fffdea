//! Names of streams for all the world: `arn:aws:kinesisvideo:REGION:ACCOUNT:stream/NAME/CREATED`.

use vidar_core::control::StreamRecord;

use crate::error::{ServiceError, ServiceResult};

const ARN_BYTES_MAX: usize = 1024;

/// What an ARN says. Partition, region and account may be any: there is one of each here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arn<'a> {
    pub(crate) name: &'a str,
    /// When the stream was made.
    pub(crate) created_ms: i64,
}

impl<'a> Arn<'a> {
    pub(crate) fn parse(text: &'a str) -> ServiceResult<Self> {
        Self::read(text).ok_or_else(|| ServiceError::invalid(format!("{text:?} is not the ARN of a stream.")))
    }

    fn read(text: &'a str) -> Option<Self> {
        if text.len() > ARN_BYTES_MAX {
            return None;
        }
        let mut parts = text.splitn(6, ':');
        let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let words = [partition, region].iter().all(|word| !word.is_empty());
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (name, created) = resource.strip_prefix("stream/")?.split_once('/')?;
        let good = arn == "arn" && service == "kinesisvideo" && words && digits(account) && digits(created);
        Some(Self { name, created_ms: created.parse().ok()? }).filter(|_| good)
    }
}

/// The ARN of a stream.
pub(crate) fn of(record: &StreamRecord, region: &str, account: &str) -> String {
    format!("arn:aws:kinesisvideo:{region}:{account}:stream/{}/{}", record.name, record.created.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns() {
        let arn = Arn::parse("arn:aws:kinesisvideo:us-west-2:123456789012:stream/a.b/1562589645061").unwrap();
        assert_eq!(arn, Arn { name: "a.b", created_ms: 1_562_589_645_061 });
        assert!(Arn::parse("arn:aws-cn:kinesisvideo:cn-north-1:1:stream/a/1").is_ok());
        for bad in [
            "",
            "a",
            "arn:aws:kinesisvideo:us-west-2:1:stream/a",
            "arn:aws:kinesisvideo:us-west-2:1:channel/a/1",
            "arn:aws:s3:us-west-2:1:stream/a/1",
            "arn:aws:kinesisvideo:us-west-2:x:stream/a/1",
            "arn:aws:kinesisvideo::1:stream/a/1",
            "arn:aws:kinesisvideo:us-west-2:1:stream/a/-1",
            "arn:aws:kinesisvideo:us-west-2:1:stream/a/b/1",
            "arn:aws:kinesisvideo:us-west-2:1:stream/a/99999999999999999999",
        ] {
            assert!(Arn::parse(bad).is_err(), "{bad}");
        }
    }
}
