//! Where pictures and notifications of the compatible API go: names that its clients know, and what they stand for here.

use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use http::Uri;
use serde::Deserialize;

/// Characters of a name at most: those of the service's `Uri`.
const NAME_MAX: usize = 255;

/// `s3://BUCKET[/PREFIX]=DIR`: pictures that are to go there go into that directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ImageTarget {
    /// Without a slash at its end.
    pub uri: String,
    /// The directory.
    pub dir: PathBuf,
}

/// `ARN=URL`: notifications for that topic are posted there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Topic {
    /// Of the SNS topic.
    pub arn: String,
    /// With scheme and host.
    pub url: Uri,
}

impl FromStr for ImageTarget {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (uri, dir) = text.split_once('=').context("expected s3://BUCKET[/PREFIX]=DIR")?;
        let uri = uri.trim_end_matches('/');
        let path = uri.strip_prefix("s3://").unwrap_or_default();
        let plain =
            |part: &str| !matches!(part, "" | "." | "..") && !part.contains(|c: char| c == '*' || c.is_control());
        if uri.len() > NAME_MAX || !path.split('/').all(plain) {
            bail!("{uri}: expected s3://BUCKET or s3://BUCKET/PREFIX, at most {NAME_MAX} bytes");
        }
        ensure!(!dir.is_empty(), "{uri}: expected a directory behind =");
        Ok(Self { uri: uri.to_owned(), dir: dir.into() })
    }
}

impl FromStr for Topic {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (arn, url) = text.split_once('=').context("expected ARN=URL")?;
        let parts: Vec<&str> = arn.split(':').collect();
        let is_topic = matches!(&parts[..], ["arn", partition, "sns", region, account, name]
            if [partition, region, account, name].iter().all(|part| !part.is_empty()));
        if arn.len() > NAME_MAX || !is_topic || !arn.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("{arn}: expected the ARN of an SNS topic, arn:aws:sns:REGION:ACCOUNT:NAME");
        }
        let url: Uri = url.parse().with_context(|| format!("the URL of {arn}"))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
            bail!("the URL of {arn}: expected http:// or https:// and a host");
        }
        // Posts are signed instead.
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            bail!("the URL of {arn}: expected no user and password");
        }
        Ok(Self { arn: arn.to_owned(), url })
    }
}

impl TryFrom<String> for ImageTarget {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl TryFrom<String> for Topic {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

/// No name stands for two things.
pub(crate) fn check(images: &[ImageTarget], topics: &[Topic]) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    let names = images.iter().map(|target| ("image_target", &target.uri));
    for (setting, name) in names.chain(topics.iter().map(|topic| ("notify", &topic.arn))) {
        ensure!(seen.insert(name), "{setting}: {name} is there twice");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_looks_like() {
        let target: ImageTarget = "s3://shots/door/=/srv/a=b".parse().unwrap();
        assert_eq!((target.uri.as_str(), target.dir.to_str()), ("s3://shots/door", Some("/srv/a=b")));
        for bad in ["", "s3://b", "s3://b=", "s3://=/d", "file:///b=/d", "s3://b/../c=/d", "s3://b//c=/d", "s3://b*=/d"]
        {
            assert!(bad.parse::<ImageTarget>().is_err(), "{bad}");
        }
        let topic: Topic = "arn:aws:sns:eu-central-1:000000000000:door=https://h:1/p?a=b".parse().unwrap();
        assert_eq!(topic.arn, "arn:aws:sns:eu-central-1:000000000000:door");
        assert_eq!(topic.url.to_string(), "https://h:1/p?a=b");
        for bad in [
            "",
            "arn:aws:sns:r:0:t",
            "arn:aws:sqs:r:0:t=http://h",
            "arn:aws:sns:r:0:=http://h",
            "arn:aws:sns:r:0:tür=http://h",
        ] {
            assert!(bad.parse::<Topic>().is_err(), "{bad}");
        }
        for bad in ["ftp://h", "h", "/p", "http://", "http://u:p@h/"] {
            assert!(format!("arn:aws:sns:r:0:t={bad}").parse::<Topic>().is_err(), "{bad}");
        }
        let (targets, topics) = ([target.clone(), target], [topic.clone(), topic]);
        assert!(check(&targets[..1], &topics[..1]).is_ok());
        assert!(check(&targets, &[]).is_err());
        assert!(check(&[], &topics).is_err());
    }
}
