//! Fuzz bodies, plain functions: the fuzzer's target calls them, and a test replays their corpus.

use http::{HeaderMap, HeaderName, HeaderValue};
use vidar_core::time::UnixMs;

use crate::sigv4::{Body, Claim, Request, Rules};

/// The head of a request: the first line is the target, the others are headers.
///
/// # Panics
/// If a stranger's request is taken for signed.
pub fn sigv4_request(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let target = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut headers = HeaderMap::new();
    for line in lines.take(50) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let request = Request { method: "POST", target: &target, headers: &headers };
    let Ok(claim) = Claim::parse(&request) else { return };
    assert!(!claim.access_key_id.is_empty() && !claim.region.is_empty());
    let rules = Rules { clock_tolerance_ms: i64::MAX / 4, ..Rules::default() };
    for body in [Body::Whole([0; 32]), Body::Stream] {
        assert!(claim.check(&request, &body, "a secret nobody knows", &rules, UnixMs(1_795_655_400_000)).is_err());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/sigv4_request");
        let seeds: Vec<_> =
            std::fs::read_dir(folder).expect("a corpus").map(|seed| seed.expect("a seed").path()).collect();
        assert!(seeds.len() >= 3);
        for seed in seeds {
            let input = std::fs::read(&seed).expect("a readable seed");
            (0..=input.len()).for_each(|len| super::sigv4_request(&input[..len]));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(input: Vec<u8>) {
            super::sigv4_request(&input);
        }

        #[test]
        fn no_text_panics(input in "/[a-zA-Z]{0,5}\\?X-Amz-Algorithm=[A-Za-z0-9&=/%;-]{0,80}\n(authorization:AWS4-HMAC-SHA256 [A-Za-z0-9,=/ ;]{0,60})?") {
            super::sigv4_request(input.as_bytes());
        }
    }
}
