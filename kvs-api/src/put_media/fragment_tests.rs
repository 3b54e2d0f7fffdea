//! Tests of the fragment module.

use bytes::Bytes;
use vidar_core::sample::SyncKind;
use vidar_core::track::StreamConfig;

use super::*;

fn cluster(units: i64) -> Event {
    Event::SourceFragment { timecode: Some(units), units: Some(units), sized: false }
}

fn sample(at: i64) -> Event {
    Event::Sample(RawSample {
        track: 0,
        presentation_ticks: at,
        decode_ticks: None,
        duration_ticks: None,
        sync: SyncKind::None,
        block_flags: 0,
        data: Bytes::from_static(b"x"),
    })
}

/// What is left of these events, and the id of the refusal.
fn check(limits: Limits, ends: bool, mut events: Vec<Event>) -> (Vec<Event>, Option<u16>) {
    let mut watch = Watch::new(Strictness::default(), limits, UnixMs(0));
    let fault = watch.check(&mut events, ends).err();
    (events, fault.map(|fault| fault.error.id))
}

#[test]
fn where_a_fragment_is_refused_the_one_before_is_complete() {
    let before = [Event::Config(StreamConfig::default()), cluster(5), sample(5)];
    let then = |more: &[Event]| [&before[..], more].concat();
    let outcome = check(Limits::default(), false, then(&[cluster(4), sample(4)]));
    assert_eq!(outcome, (then(&[Event::EndOfFragment]), Some(4004)));
    // Within it, it is not.
    let tags = || Event::Tags(vec![Tag { name: "name".to_owned(), value: "v".repeat(257) }]);
    assert_eq!(check(Limits::default(), false, then(&[tags(), sample(6)])), (then(&[]), Some(4009)));
    assert_eq!(check(Limits::NONE, false, then(&[tags()])), (then(&[tags()]), None));
    // A connection that is too old ends where a fragment does.
    assert_eq!(check(Limits::default(), true, then(&[])), (before[..1].to_vec(), Some(4003)));
    // Another document counts anew.
    let again = then(&[Event::Discontinuity, before[0].clone(), cluster(1), sample(1)]);
    assert_eq!(check(Limits::default(), false, again.clone()), (again, None));
}

#[test]
fn a_fragment_is_bounded_in_bytes_and_frames() {
    let mut watch = Watch::new(Strictness::default(), Limits::NONE, UnixMs(0));
    watch.check(&mut vec![cluster(0)], false).unwrap();
    for _ in 0..SAMPLE_COUNT_MAX {
        watch.check(&mut vec![sample(0)], false).unwrap();
    }
    assert_eq!(watch.check(&mut vec![sample(0)], false).unwrap_err().error, ErrorId::FRAGMENT_SIZE);
}
