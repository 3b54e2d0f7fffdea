//! Tests of the message module.

use proptest::prelude::*;
use vidar_core::track::{Codec, NalFraming, Track, TrackKind, Trims};

use super::*;

fn config() -> StreamConfig {
    let track = Track {
        source_number: 1,
        kind: TrackKind::Audio,
        codec: Codec::Mp3,
        codec_id: "A_MPEG/L3".into(),
        codec_private: Bytes::new(),
        timescale_hz: TIMESCALE_HZ,
        framing: NalFraming::None,
        in_band_parameter_sets: false,
        video: None,
        audio: None,
        default_duration_ticks: None,
        trims: Trims::default(),
        language: String::new(),
        name: String::new(),
    };
    StreamConfig { tracks: vec![track.clone(), track], matroska_header: Bytes::new() }
}

fn sample(track: u8, data: &[u8]) -> RawSample {
    RawSample {
        track,
        presentation_ticks: -40_000,
        decode_ticks: Some(-80_000),
        duration_ticks: Some(40_000),
        sync: SyncKind::Sync,
        block_flags: 0,
        data: Bytes::copy_from_slice(data),
    }
}

fn all() -> Vec<Message> {
    let plain = RawSample { decode_ticks: None, duration_ticks: None, sync: SyncKind::None, ..sample(0, b"") };
    vec![
        Message::Config(config()),
        Message::Sample(sample(1, b"a sample")),
        Message::Sample(plain),
        Message::Error { status: 400, detail: "broken".into() },
        Message::End,
    ]
}

fn read(bytes: &[u8]) -> Result<Vec<Message>, WireError> {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(bytes);
    std::iter::from_fn(|| decoder.next().transpose()).collect()
}

#[test]
fn messages_round_trip_however_they_are_cut() {
    let bytes: Vec<u8> = all().iter().flat_map(Message::encode).collect();
    for piece in 1..=bytes.len() {
        let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            decoder.buffer().extend_from_slice(piece);
            while let Some(message) = decoder.next().unwrap() {
                messages.push(message);
            }
        }
        assert_eq!(messages, all(), "{piece}");
    }
}

#[test]
fn a_truncated_stream_gives_the_complete_messages_only() {
    let bytes: Vec<u8> = all().iter().flat_map(Message::encode).collect();
    for len in 0..bytes.len() {
        let messages = read(&bytes[..len]).unwrap();
        assert!(messages.len() < all().len(), "{len}");
        assert_eq!(messages[..], all()[..messages.len()], "{len}");
    }
}

#[test]
fn a_truncated_message_is_refused() {
    for message in all() {
        let framed = message.encode();
        let body = Bytes::copy_from_slice(&framed[LENGTH_BYTES..]);
        assert_eq!(Message::decode(&body).as_ref(), Ok(&message));
        for len in 0..body.len() {
            // A sample's data goes to the end of its message.
            let shorter_sample = matches!(&message, Message::Sample(s) if len >= body.len() - s.data.len());
            assert_eq!(Message::decode(&body.slice(..len)).is_ok(), shorter_sample, "{message:?} {len}");
        }
    }
}

#[test]
fn what_a_helper_must_not_say() {
    let config = Message::Config(config()).encode();
    let beyond = [config.clone(), Message::Sample(sample(2, b"x")).encode()].concat();
    assert_eq!(read(&beyond).unwrap_err().expected, "a track of the config");
    assert!(read(&Message::Sample(sample(0, b"x")).encode()).is_err(), "a sample before the config");
    let long = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap().to_be_bytes();
    assert!(read(&long).is_err(), "refused by its length, before it came");
    assert!(read(&[0, 0, 0, 1, 9]).is_err(), "an unknown kind");
    assert!(read(&[0, 0, 0, 0]).is_err(), "no kind");
    assert!(read(&Message::Error { status: 200, detail: "fine".into() }.encode()).is_err(), "no error");
    let long = Message::Error { status: 400, detail: "ä".repeat(DETAIL_BYTES_MAX) };
    let Message::Error { detail, .. } = &read(&long.encode()).unwrap()[0] else { panic!("an error") };
    assert_eq!(detail.len(), DETAIL_BYTES_MAX);
}

proptest! {
    #[test]
    fn samples_round_trip(
        track in 0_u8..2, presentation_ticks: i64, decode_ticks: Option<i64>, duration_ticks: Option<u32>, sync: bool,
        data: Vec<u8>,
    ) {
        let sync = if sync { SyncKind::Sync } else { SyncKind::None };
        let data = Bytes::from(data);
        let sample = RawSample { track, presentation_ticks, decode_ticks, duration_ticks, sync, block_flags: 0, data };
        let bytes = [Message::Config(config()).encode(), Message::Sample(sample.clone()).encode()].concat();
        prop_assert_eq!(read(&bytes).unwrap().pop(), Some(Message::Sample(sample)));
    }

    #[test]
    fn any_bytes(data: Vec<u8>) {
        fuzz(&data);
    }
}
