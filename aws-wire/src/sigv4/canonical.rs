//! The parts of a request in the one form that is signed.

use http::{HeaderMap, HeaderName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// RFC 3986 section 2.3: everything else is escaped.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// Without `.`, `..` and empty segments; escaped once more, for what is escaped already.
pub(super) fn path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    let path = format!("/{}{end}", segments.join("/"));
    percent_encode(path.as_bytes(), RESERVED_IN_PATH).to_string()
}

/// Sorted by name, then by value, both escaped; without the parameters named.
pub(super) fn query(query: &str, without: &[&str]) -> String {
    let escape = |text: &str| {
        let bytes: Vec<u8> = percent_decode_str(text).collect();
        percent_encode(&bytes, RESERVED).to_string()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let pairs = pairs.filter(|(name, _)| !without.contains(name));
    let mut pairs: Vec<_> = pairs.map(|(name, value)| (escape(name), escape(value))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// `name:value` lines, an empty one, and the list of names. None: one of them is not there.
pub(super) fn headers(names: &[HeaderName], headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut lines = Vec::new();
    for name in names {
        lines.extend_from_slice(name.as_str().as_bytes());
        let mut separator = b':';
        for value in headers.get_all(name) {
            lines.push(separator);
            push_trimmed(&mut lines, value.as_bytes());
            separator = b',';
        }
        if separator == b':' {
            return None;
        }
        lines.push(b'\n');
    }
    lines.push(b'\n');
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    lines.extend_from_slice(names.join(";").as_bytes());
    Some(lines)
}

/// Without space around it, and with one for several within.
fn push_trimmed(to: &mut Vec<u8>, value: &[u8]) {
    let words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            to.push(b' ');
        }
        to.extend_from_slice(word);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn paths() {
        for (from, to) in [
            ("", "/"),
            ("/", "/"),
            ("/putMedia", "/putMedia"),
            ("//a//b/", "/a/b/"),
            ("/a/../b/./c", "/b/c"),
            ("/../..", "/"),
            ("/a%20b", "/a%2520b"),
            ("/ü~-._", "/%C3%BC~-._"),
        ] {
            assert_eq!(path(from), to, "{from}");
        }
    }

    #[test]
    fn queries() {
        for (from, without, to) in [
            ("", "", ""),
            ("b=2&a=1&a=0", "", "a=0&a=1&b=2"),
            ("a", "", "a="),
            ("a=b=c&&", "", "a=b%3Dc"),
            ("a=%7e%2f%C3%bc+", "", "a=~%2F%C3%BC%2B"),
            ("X-Amz-Signature=1&x=2", "X-Amz-Signature", "x=2"),
        ] {
            assert_eq!(query(from, &[without]), to, "{from}");
        }
    }

    #[test]
    fn header_lines() {
        let mut map = HeaderMap::new();
        map.append("host", HeaderValue::from_static("h"));
        map.append("a", HeaderValue::from_static(" x   y\t z "));
        map.append("a", HeaderValue::from_static(""));
        let names = [HeaderName::from_static("a"), HeaderName::from_static("host")];
        assert_eq!(headers(&names, &map).unwrap(), b"a:x y z,\nhost:h\n\na;host");
        assert_eq!(headers(&[HeaderName::from_static("b")], &map), None);
    }
}
