//! Tokens as strangers make them.

use ring::hmac;
use vidar_core::ids::{ConfigId, FragmentNumber, StreamId, StreamName};
use vidar_core::time::UnixMs;
use vidar_indexer::TimeAxis;

use super::session::{Container, Discontinuity, First, Maker, Mode, Session};
use super::{Kind, Seal, token};
use crate::selector::Range;

/// Hides nothing, but is not forged.
pub(super) struct Tagged(hmac::Key);

impl Tagged {
    pub(super) fn new(key: u8) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]))
    }
}

impl Seal for Tagged {
    fn seal(&self, context: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let tag = hmac::sign(&self.0, &[context, plain].concat());
        Some([tag.as_ref(), plain].concat())
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (tag, plain) = sealed.split_at_checked(32)?;
        hmac::verify(&self.0, &[context, plain].concat(), tag).ok()?;
        Some(plain.to_vec())
    }
}

pub(super) fn session() -> Session {
    Session {
        stream: StreamId::from_bytes([7; 16]),
        name: StreamName::new("door").unwrap(),
        maker: Maker { access_key_id: "KEY".into(), session_token: Some("T".into()) },
        mode: Mode::LiveReplay,
        container: Container::Ts,
        axis: TimeAxis::Producer,
        range: Some(Range { axis: TimeAxis::Producer, start: UnixMs(-5), end: Some(UnixMs(9)) }),
        first: First { number: FragmentNumber::new(1, 2, 3), ordinal: 300, config: ConfigId([9; 16]) },
        began: UnixMs(1_767_323_045_678),
        expires: UnixMs(1_767_323_345_678),
        target_s: 3,
        lead_ms: 10_000,
        results: 5000,
        discontinuity: Discontinuity::AtBreaks,
        shows_times: true,
        shows_numbers: false,
    }
}

#[test]
fn a_session_is_read_as_it_was_written() {
    let others = [
        Session { mode: Mode::Live, container: Container::Mp4, axis: TimeAxis::Server, range: None, ..session() },
        Session { shows_numbers: true, shows_times: false, discontinuity: Discontinuity::Never, ..session() },
        Session { maker: Maker { access_key_id: "K".into(), session_token: None }, ..session() },
    ];
    for session in others.into_iter().chain([session()]) {
        let bytes = session.encode();
        assert_eq!(Session::decode(&bytes), Ok(session));
        for len in 0..bytes.len() {
            assert!(Session::decode(&bytes[..len]).is_err(), "{len}");
        }
        assert!(Session::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}

#[test]
fn a_token_opens_for_its_api_and_its_maker_only() {
    let (ours, theirs) = (Tagged::new(1), Tagged::new(2));
    let text = token::make(&ours, Kind::Hls, &session(), "secret").expect("a token");
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~')), "{text}");
    let read = |seal: &Tagged, kind, text: &str, secret: &str| token::read(seal, kind, text)?.of(secret);
    assert_eq!(read(&ours, Kind::Hls, &text, "secret"), Some(session()));
    assert_eq!(read(&ours, Kind::Dash, &text, "secret"), None);
    assert_eq!(read(&ours, Kind::Hls, &text, "another"), None);
    // The key of the server alone makes no token.
    let forged = token::make(&ours, Kind::Hls, &session(), "").expect("a token");
    assert_eq!(read(&ours, Kind::Hls, &forged, "secret"), None);
    let forged = token::make(&theirs, Kind::Hls, &session(), "secret").expect("a token");
    assert_eq!(read(&ours, Kind::Hls, &forged, "secret"), None);
    for (index, byte) in text.bytes().enumerate().filter(|(_, byte)| *byte != b'~') {
        let mut changed = text.clone().into_bytes();
        changed[index] = if byte == b'A' { b'B' } else { b'A' };
        // The last character of base64 may hold bits that say nothing: such a text is not read at all.
        assert_eq!(read(&ours, Kind::Hls, std::str::from_utf8(&changed).unwrap(), "secret"), None, "{index}");
    }
    for bad in ["", "~", "AA", &text[1..], &"A".repeat(4000), &format!("{text} "), &format!("={text}")] {
        assert_eq!(read(&ours, Kind::Hls, bad, "secret"), None, "{bad}");
    }
    let long = Maker { access_key_id: "KEY".into(), session_token: Some("T".repeat(4000)) };
    assert_eq!(token::make(&ours, Kind::Hls, &Session { maker: long, ..session() }, "secret"), None);
}
