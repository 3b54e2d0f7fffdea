//! `NextToken` of ListFragments: all that the next page needs, so that nothing is kept for it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use vidar_core::ids::StreamId;
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};
use vidar_indexer::Cursor;

const VERSION: u8 = 1;

/// Where a listing goes on. The cursor carries the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) stream: StreamId,
    /// Fragments that begin from here on…
    pub(super) start: UnixMs,
    /// …to here are listed.
    pub(super) last: UnixMs,
    pub(super) after: Cursor,
}

impl Token {
    /// As clients hand it back.
    pub(super) fn encode(&self) -> String {
        let mut writer = Writer::new();
        writer.u8(VERSION).raw(self.stream.as_bytes()).i64(self.start.0).i64(self.last.0);
        writer.string(&self.after.to_string());
        STANDARD.encode(writer.into_vec())
    }

    /// None: it is not one of ours.
    pub(super) fn decode(text: &str) -> Option<Self> {
        Self::read(&STANDARD.decode(text).ok()?).ok()
    }

    fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(reader.error("version 1"));
        }
        let stream = StreamId::from_bytes(reader.array()?);
        let (start, last) = (UnixMs(reader.i64()?), UnixMs(reader.i64()?));
        let after = reader.string()?.parse().map_err(|_| reader.error("a cursor"))?;
        reader.finish()?;
        Ok(Self { stream, start, last, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_every_truncation_is_refused() {
        let after = format!("{:058x}", 7).parse().unwrap();
        let token = Token { stream: StreamId::new(), start: UnixMs(-1), last: UnixMs(i64::MAX), after };
        let text = token.encode();
        assert_eq!(Token::decode(&text), Some(token));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')));
        let bytes = STANDARD.decode(&text).unwrap();
        for len in 0..bytes.len() {
            assert_eq!(Token::decode(&STANDARD.encode(&bytes[..len])), None, "{len}");
        }
        assert_eq!(Token::decode("no token"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics_and_what_reads_is_written_alike(bytes: Vec<u8>, version in 0..3_u8) {
            let bytes = [&[version][..], &bytes].concat();
            if let Ok(token) = Token::read(&bytes) {
                proptest::prop_assert_eq!(Token::decode(&token.encode()), Some(token));
            }
        }
    }
}
