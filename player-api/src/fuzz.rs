//! Fuzz bodies, plain functions: the fuzzer's target calls them, and a test replays their corpus.

use http::{HeaderMap, HeaderValue, header};

use crate::auth::{self, url_token};
use crate::hls::{Names, RenditionId, SegmentName, Uris};
use crate::params::{self, Params};
use crate::routes;

/// What strangers send in: the first line is a query, the second a path part, the third an `Authorization` value, the
/// rest a page token.
///
/// # Panics
/// If a property breaks.
pub fn api_request(input: &[u8]) {
    let mut lines = input.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let query = String::from_utf8_lossy(line()).into_owned();
    let _ = url_token(Some(&query));
    if let Ok(params) = Params::parse(Some(&query), &["start", "end", "limit", "interval", "q"]) {
        let _ = (params.limit(), params.next_token());
        if let Ok(Some(interval_ms)) = params.interval_ms("interval") {
            assert!(interval_ms >= 1000);
        }
        if let Ok((Some(start), Some(end))) = params.span() {
            assert!(start < end);
        }
        if let Some(q) = params.text("q") {
            let again = format!("q={}", params::encode(q));
            assert_eq!(Params::parse(Some(&again), &["q"]).expect("what we encode").text("q"), Some(q));
        }
    }
    let part = String::from_utf8_lossy(line()).into_owned();
    if let Some(rendition) = RenditionId::parse(&part) {
        assert_eq!(rendition.to_string(), part);
    }
    if let Some(name) = SegmentName::parse(&part) {
        let first = RenditionId::of_track_number(1).expect("the first pictures");
        let again = Uris { cut: name.cut, ..Uris::default() }.segment(first, name.number);
        assert_eq!(SegmentName::parse(&again), Some(name));
    }
    if let Ok(name) = params::stream_name(&part) {
        assert!(!name.as_str().contains(['/', '%', '\0']));
    }
    routes::check_prefix_is_below_a_stream(&part);
    if let Ok(value) = HeaderValue::from_bytes(line()) {
        let _ = auth::credentials(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]));
    }
    routes::check_page_token(line());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/api_request");
        let seeds: Vec<_> =
            std::fs::read_dir(folder).expect("a corpus").map(|seed| seed.expect("a seed").path()).collect();
        assert!(seeds.len() >= 3);
        for seed in seeds {
            let input = std::fs::read(&seed).expect("a readable seed");
            (0..=input.len()).for_each(|len| super::api_request(&input[..len]));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(input: Vec<u8>) {
            super::api_request(&input);
        }

        #[test]
        fn no_text_panics(input in "[a-z=&%+0-9:./\n A-Z_-]{0,80}") {
            super::api_request(input.as_bytes());
        }
    }
}
