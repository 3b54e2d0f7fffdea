//! Ranges and conditions, over a file that is its own positions.

use axum::body::to_bytes;

use super::*;

struct Counting(u64);

fn byte(position: u64) -> u8 {
    (position % 251) as u8
}

#[async_trait]
impl VirtualFile for Counting {
    fn len(&self) -> u64 {
        self.0
    }

    fn stretch(&self, at: u64, end: u64) -> u64 {
        // Uneven, and never across a multiple of 64.
        (64 - at % 64).min(end - at)
    }

    async fn make(&self, range: Range<u64>) -> Result<Vec<Bytes>, ReadError> {
        let bytes: Vec<u8> = range.map(byte).collect();
        let (a, b) = bytes.split_at(bytes.len() / 2);
        Ok(vec![Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)])
    }
}

async fn ask(method: Method, fields: &[(&'static str, &'static str)], len: u64) -> (StatusCode, HeaderMap, Bytes) {
    let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let answer = Answer { content_type: "video/mp4", etag: "\"tag\"".to_owned(), headers: Vec::new() };
    let response = answer.respond(&method, &fields.collect(), Arc::new(Counting(len)));
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap())
}

#[tokio::test]
async fn ranges_are_answered_as_rfc_9110_says() {
    let whole = || Some(0..1000);
    for (fields, status, range) in [
        (&[][..], 200, whole()),
        (&[("range", "bytes=0-0")], 206, Some(0..1)),
        (&[("range", "bytes=0-")], 206, whole()),
        (&[("range", "bytes=10-99")], 206, Some(10..100)),
        (&[("range", "BYTES = 10-99")], 206, Some(10..100)),
        (&[("range", "bytes=999-5000")], 206, Some(999..1000)),
        (&[("range", "bytes=0-99999999999999999999999")], 206, whole()),
        (&[("range", "bytes=-1")], 206, Some(999..1000)),
        (&[("range", "bytes=-5000")], 206, whole()),
        (&[("range", "bytes=1000-")], 416, None),
        (&[("range", "bytes=99999999999999999999999-")], 416, None),
        (&[("range", "bytes=-0")], 416, None),
        // Ignored: several, other units, broken.
        (&[("range", "bytes=0-1,5-6")], 200, whole()),
        (&[("range", "items=0-1")], 200, whole()),
        (&[("range", "bytes=5-4")], 200, whole()),
        (&[("range", "bytes=-")], 200, whole()),
        (&[("range", "bytes=a-b")], 200, whole()),
        (&[("range", "bytes")], 200, whole()),
        (&[("range", "bytes=1-2"), ("if-range", "\"tag\"")], 206, Some(1..3)),
        (&[("range", "bytes=1-2"), ("if-range", "W/\"tag\"")], 200, whole()),
        (&[("range", "bytes=1-2"), ("if-range", "\"old\"")], 200, whole()),
        (&[("range", "bytes=1-2"), ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")], 200, whole()),
        (&[("range", "bytes=5000-"), ("if-range", "\"old\"")], 200, whole()),
        (&[("if-none-match", "\"tag\"")], 304, None),
        (&[("if-none-match", "\"a\", W/\"tag\"")], 304, None),
        (&[("if-none-match", "*"), ("range", "bytes=1-2")], 304, None),
        (&[("if-none-match", "\"a\"")], 200, whole()),
        (&[("if-match", "\"tag\"")], 200, whole()),
        (&[("if-match", "*"), ("range", "bytes=1-2")], 206, Some(1..3)),
        (&[("if-match", "\"a\"")], 412, None),
        (&[("if-match", "W/\"tag\"")], 412, None),
    ] {
        let (found, headers, body) = ask(Method::GET, fields, 1000).await;
        assert_eq!(found.as_u16(), status, "{fields:?}");
        assert_eq!(headers[ETAG], "\"tag\"", "{fields:?}");
        assert_eq!(headers[ACCEPT_RANGES], "bytes", "{fields:?}");
        let content_range = headers.get(CONTENT_RANGE).map(|value| value.to_str().unwrap().to_owned());
        let expected = match (status, &range) {
            (206, Some(range)) => Some(format!("bytes {}-{}/1000", range.start, range.end - 1)),
            (416, _) => Some("bytes */1000".to_owned()),
            _ => None,
        };
        assert_eq!(content_range, expected, "{fields:?}");
        let bytes: Vec<u8> = range.clone().unwrap_or(0..0).map(byte).collect();
        assert_eq!(body, bytes, "{fields:?}");
        let head = ask(Method::HEAD, fields, 1000).await;
        assert!(head.2.is_empty());
        if status == 200 {
            assert_eq!((head.0.as_u16(), &head.1), (200, &headers), "{fields:?}");
        }
        if let Some(range) = range {
            assert_eq!(headers[CONTENT_LENGTH], (range.end - range.start).to_string(), "{fields:?}");
        }
    }
    // A range has no meaning for HEAD (RFC 9110 section 14.2).
    let (status, headers, _) = ask(Method::HEAD, &[("range", "bytes=10-99")], 1000).await;
    assert_eq!((status.as_u16(), headers[CONTENT_LENGTH].to_str().unwrap()), (200, "1000"));
}

struct Broken;

#[async_trait]
impl VirtualFile for Broken {
    fn len(&self) -> u64 {
        3
    }

    fn stretch(&self, _: u64, _: u64) -> u64 {
        1
    }

    async fn make(&self, range: Range<u64>) -> Result<Vec<Bytes>, ReadError> {
        let number = vidar_core::ids::FragmentNumber::MIN;
        if range.start == 1 { Err(ReadError::NotFound { number }) } else { Ok(vec![Bytes::from_static(b"x")]) }
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_made_is_broken_off() {
    assert!(to_bytes(body(Arc::new(Broken), 0..3), usize::MAX).await.is_err());
    assert_eq!(to_bytes(body(Arc::new(Broken), 2..3), usize::MAX).await.unwrap(), "x");
}
