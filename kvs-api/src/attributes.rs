//! What the service knows of a stream beside what every stream here has: kept as tags with a reserved prefix.
//!
//! `aws:` is reserved in the service too: its users cannot make such tags, and do not see them.

use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use uuid::Uuid;
use vidar_core::control::{StreamRecord, StreamSettings};

use crate::error::{ServiceError, ServiceResult};
use crate::{KvsOptions, arn};

/// Tags that are not the user's.
pub(crate) const RESERVED: &str = "aws:";
pub(crate) const MEDIA_TYPE: &str = "aws:kinesisvideo:MediaType";
pub(crate) const KMS_KEY_ID: &str = "aws:kinesisvideo:KmsKeyId";
pub(crate) const STORAGE_TIER: &str = "aws:kinesisvideo:StorageTier";
pub(crate) const IMAGES: &str = "aws:kinesisvideo:ImageGeneration";
pub(crate) const NOTIFICATIONS: &str = "aws:kinesisvideo:Notification";
/// New with each change by this API, so that a change to the same values is one.
const CHANGE: &str = "aws:kinesisvideo:Change";

/// The value of a tag.
pub(crate) fn get<'a>(settings: &'a StreamSettings, name: &str) -> Option<&'a str> {
    settings.tags.iter().find(|(tag, _)| tag == name).map(|(_, value)| value.as_str())
}

/// Sets a tag.
pub(crate) fn set(settings: &mut StreamSettings, name: &str, value: impl Into<String>) {
    let value = value.into();
    match settings.tags.iter_mut().find(|(tag, _)| tag == name) {
        Some((_, old)) => *old = value,
        None => settings.tags.push((name.to_owned(), value)),
    }
    settings.tags.sort();
}

/// Takes a tag away.
pub(crate) fn remove(settings: &mut StreamSettings, name: &str) {
    settings.tags.retain(|(tag, _)| tag != name);
}

/// Notes that it was changed.
pub(crate) fn renew(settings: &mut StreamSettings) {
    set(settings, CHANGE, Uuid::new_v4().simple().to_string());
}

/// Of what a stream is now: another after each change, by whichever API.
pub(crate) fn version(record: &StreamRecord) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut hash = Context::new(&SHA256);
    let StreamSettings { device, retention_hours, retention_bytes, tags } = &record.settings;
    let state = json!([record.stream, device, retention_hours, retention_bytes, tags]);
    hash.update(state.to_string().as_bytes());
    let hash = hash.finish();
    hash.as_ref().iter().take(20).map(|byte| char::from(ALPHABET[usize::from(byte % 62)])).collect()
}

/// The stream as DescribeStream shows it.
pub(crate) fn stream_info(record: &StreamRecord, options: &KvsOptions) -> Value {
    let KvsOptions { region, account, .. } = options;
    let settings = &record.settings;
    let key = get(settings, KMS_KEY_ID).map(str::to_owned);
    json!({
        "DeviceName": settings.device,
        "StreamName": record.name,
        "StreamARN": arn::of(record, &options.region, &options.account),
        "MediaType": get(settings, MEDIA_TYPE),
        "KmsKeyId": key.unwrap_or_else(|| format!("arn:aws:kms:{region}:{account}:alias/aws/kinesisvideo")),
        "Version": version(record),
        "Status": "ACTIVE",
        "CreationTime": record.created.0 as f64 / 1000.0,
        "DataRetentionInHours": settings.retention_hours,
    })
}

/// `type/subtype`, perhaps several with commas between.
pub(crate) fn check_media_type(text: &str) -> ServiceResult<&str> {
    let word = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+');
        !text.is_empty() && text.bytes().all(plain)
    };
    let one = |text: &str| text.split_once('/').is_some_and(|(kind, sub)| word(kind) && word(sub));
    let good = text.len() <= 128 && text.split(',').all(one);
    if good { Ok(text) } else { Err(ServiceError::invalid("MediaType: expected type/subtype.")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        for good in ["video/h264", "video/h264,audio/aac", "a/b+c.d-e_f"] {
            assert!(check_media_type(good).is_ok(), "{good}");
        }
        for bad in ["", "video", "video/", "/h264", "video/h264,", "video/h264, audio/aac", "a/b/c"] {
            assert!(check_media_type(bad).is_err(), "{bad}");
        }
    }
}
