//! Tests of the collect module.

use bytes::Bytes;
use vidar_core::sample::SyncKind;

use super::super::message::Decoder;
use super::super::tracks::plain;
use super::*;
use vidar_core::track::{Codec, TrackKind};

fn track(number: u64) -> Track {
    plain(TrackKind::Audio, Codec::Mp3, "A_MPEG/L3", number)
}

fn sample(presentation_ticks: i64, len: usize) -> RawSample {
    let data = Bytes::from(vec![7; len]);
    let sync = SyncKind::Sync;
    RawSample { track: 0, presentation_ticks, decode_ticks: None, duration_ticks: None, sync, block_flags: 0, data }
}

/// The messages in short: `c2` a config of two tracks, `s1` a sample of track 1.
fn said(collector: &Collector<Vec<u8>>) -> String {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(&collector.out);
    let messages = std::iter::from_fn(|| decoder.next().expect("it reads"));
    let short = messages.map(|message| match message {
        Message::Config(config) => format!("c{}", config.tracks.len()),
        Message::Sample(sample) => format!("s{}", sample.track),
        Message::Error { status, .. } => format!("e{status}"),
        Message::End => "end".to_owned(),
    });
    short.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_config_waits_for_every_track() {
    let mut c = Collector::new(Vec::new());
    let (a, b) = (c.announce().unwrap(), c.announce().unwrap());
    c.track(b, track(2)).unwrap();
    c.sample(b, sample(0, 1)).unwrap();
    c.complete().unwrap();
    assert_eq!(said(&c), "", "one track is not known yet");
    c.track(a, track(1)).unwrap();
    c.sample(a, sample(0, 1)).unwrap();
    c.finish().unwrap();
    assert_eq!(said(&c), "c2 s1 s0 end");
    c.finish().unwrap();
    c.fail(400, String::new()).unwrap();
    assert_eq!(said(&c), "c2 s1 s0 end", "nothing after the end");
}

#[test]
fn a_silent_track_is_left_out_and_may_come_later() {
    for (ticks, len) in [(HELD_TICKS_MAX as i64, 1), (0, HELD_BYTES_MAX)] {
        let mut c = Collector::new(Vec::new());
        let (silent, heard) = (c.announce().unwrap(), c.announce().unwrap());
        c.complete().unwrap();
        c.track(heard, track(2)).unwrap();
        c.sample(heard, sample(0, len)).unwrap();
        c.sample(heard, sample(ticks, 0)).unwrap();
        assert_eq!(said(&c), "", "at the limit");
        c.sample(heard, sample(ticks + 1, 1)).unwrap();
        assert_eq!(said(&c), "c1 s0 s0 s0");
        c.track(silent, track(1)).unwrap();
        c.sample(silent, sample(9, 1)).unwrap();
        assert_eq!(said(&c), "c1 s0 s0 s0 c2 s1");
    }
}

#[test]
fn a_track_that_changes_gives_a_new_config() {
    let mut c = Collector::new(Vec::new());
    let a = c.announce().unwrap();
    c.track(a, track(1)).unwrap();
    c.complete().unwrap();
    c.track(a, track(1)).unwrap();
    c.track(a, track(5)).unwrap();
    assert_eq!(said(&c), "c1 c1");
}

#[test]
fn errors_come_after_what_was_complete() {
    let mut c = Collector::new(Vec::new());
    let a = c.announce().unwrap();
    c.track(a, track(1)).unwrap();
    c.sample(a, sample(0, 1)).unwrap();
    c.fail(400, "broken".into()).unwrap();
    assert_eq!(said(&c), "c1 s0 e400");
    let mut none = Collector::new(Vec::new());
    none.finish().unwrap();
    assert_eq!(said(&none), "e400", "no track");
}

#[test]
fn tracks_and_samples_are_bounded() {
    let mut c = Collector::new(Vec::new());
    for _ in 0..TRACK_COUNT_MAX {
        assert!(c.announce().is_some());
    }
    assert_eq!(c.announce(), None);
    c.track(0, track(1)).unwrap();
    c.sample(0, sample(0, SAMPLE_BYTES_MAX + 1)).unwrap();
    assert_eq!(said(&c), "c1 e413");
}
