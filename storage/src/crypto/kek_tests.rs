//! Tests of the providers.

use super::*;

const CONTEXT: &[u8] = b"what it is";

fn file(dir: &tempfile::TempDir) -> KeyFile {
    KeyFile::beside(&dir.path().join("data/"))
}

#[test]
fn a_key_file_is_private_made_once_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (provider, path) = (file(&dir), dir.path().join("data.key"));
    assert!(matches!(provider.wrap(CONTEXT, &Secret::random()), Err(KekError::Missing { .. })));
    provider.prepare().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let key = provider.load().unwrap();
    provider.prepare().unwrap();
    assert_eq!(provider.load().unwrap(), key, "an existing key is never replaced");
    assert!(provider.create().is_err(), "an existing key is never replaced");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let digit = if &text[12..13] == "0" { "1" } else { "0" };
    text.replace_range(12..13, digit);
    std::fs::write(&path, text).unwrap();
    assert!(provider.load().unwrap_err().to_string().contains("data.key"));
}

#[test]
fn a_wrap_opens_with_its_key_and_its_context_only() {
    let dir = tempfile::tempdir().unwrap();
    let provider = file(&dir);
    provider.prepare().unwrap();
    let secret = Secret::random();
    let wrapped = provider.wrap(CONTEXT, &secret).unwrap();
    assert_eq!(provider.unwrap(CONTEXT, &wrapped).unwrap(), secret);
    assert!(matches!(provider.unwrap(b"something else", &wrapped), Err(KekError::Wrong { .. })));
    assert!(matches!(provider.unwrap(CONTEXT, &wrapped[1..]), Err(KekError::Wrong { .. })));
    assert!(matches!(KeyEnv::new("VIDAR_TEST_NO_SUCH_KEY").unwrap(CONTEXT, &wrapped), Err(KekError::Missing { .. })));
}

#[test]
fn a_rotation_leaves_both_keys_until_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (provider, secret) = (file(&dir), Secret::random());
    provider.prepare().unwrap();
    let old = provider.wrap(CONTEXT, &secret).unwrap();
    let new = provider.rotate(CONTEXT, &secret).unwrap();
    for wrapped in [&old, &new] {
        assert_eq!(provider.unwrap(CONTEXT, wrapped).unwrap(), secret);
    }
    // The keyring was not changed: the new key goes.
    provider.settle(CONTEXT, &old).unwrap();
    assert!(provider.unwrap(CONTEXT, &old).is_ok() && provider.unwrap(CONTEXT, &new).is_err());
    // It was changed: the old key goes.
    let new = provider.rotate(CONTEXT, &secret).unwrap();
    let again = provider.rotate(CONTEXT, &secret).unwrap();
    provider.settle(CONTEXT, &new).unwrap();
    assert!(provider.unwrap(CONTEXT, &new).is_ok() && provider.unwrap(CONTEXT, &again).is_ok(), "one new key");
    assert!(matches!(provider.unwrap(CONTEXT, &old), Err(KekError::Wrong { .. })));
    assert!(!dir.path().join("data.key.new").exists());
}

#[test]
fn a_new_key_that_was_torn_was_never_used_and_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (provider, secret) = (file(&dir), Secret::random());
    provider.prepare().unwrap();
    let old = provider.wrap(CONTEXT, &secret).unwrap();
    let torn = dir.path().join("data.key.new");
    std::fs::write(&torn, "vidar-kek-1 00").unwrap();
    assert_eq!(provider.unwrap(CONTEXT, &old).unwrap(), secret);
    let new = provider.rotate(CONTEXT, &secret).unwrap();
    assert_eq!(provider.unwrap(CONTEXT, &new).unwrap(), secret);
    std::fs::write(&torn, "vidar-kek-1 00").unwrap();
    provider.settle(CONTEXT, &old).unwrap();
    assert!(!torn.exists());
}

#[test]
fn every_truncation_of_a_key_is_refused() {
    let text = encode(&Secret::random());
    assert_eq!(text.capacity(), KEY_FILE_BYTES_MAX, "it never grew: memory that it left would not be wiped");
    assert!(decode(&text).is_ok());
    for len in 0..text.len() - 1 {
        assert!(decode(&text[..len]).is_err(), "{len}");
    }
    assert!(unhex(&"g".repeat(64)).is_none());
    let env = KeyEnv::new("VIDAR_TEST_NO_SUCH_KEY");
    assert!(matches!(env.prepare(), Err(KekError::Missing { .. })));
    assert!(matches!(env.rotate(CONTEXT, &Secret::random()), Err(KekError::Unsupported { .. })));
}
