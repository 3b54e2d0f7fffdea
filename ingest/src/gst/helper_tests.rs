//! Tests of the helper module.

use bytes::Bytes;
use vidar_media::Event;
use vidar_media::container::{SNIFF_BYTES, Sniffed, sniff};

use super::super::message::{Decoder, Message};
use super::*;

/// The first track of a fixture, and its pictures.
fn pictures(name: &str) -> (Track, Vec<RawSample>) {
    let bytes = Bytes::from(vidar_fixtures::read(name));
    let Sniffed::Format(format) = sniff(&bytes[..SNIFF_BYTES]) else { panic!("{name}") };
    let (mut demuxer, mut events) = (format.demuxer(), Vec::new());
    demuxer.push(bytes, &mut events).unwrap();
    demuxer.finish(&mut events).unwrap();
    let (mut track, mut pictures) = (None, Vec::new());
    for event in events {
        match event {
            Event::Config(config) => track = track.or(config.tracks.into_iter().next()),
            Event::Sample(sample) if sample.track == 0 => pictures.push(sample),
            _ => {}
        }
    }
    (track.unwrap(), pictures)
}

/// When pictures are shown, in microseconds, after the pipeline gave them with these times.
fn shown(track: &Track, pictures: &[(Bytes, Option<u64>)]) -> Vec<i64> {
    gst::init().unwrap();
    let codec_data = gst::Buffer::from_slice(track.codec_private.clone());
    let caps = gst::Caps::builder("video/x-h264").field("codec_data", codec_data).build();
    let mut out = Vec::new();
    let shared = Arc::new(Mutex::new(Collector::new(&mut out)));
    let slot = lock(&shared).announce().unwrap();
    lock(&shared).complete().unwrap();
    let mut state = TrackState::new(slot, Arc::clone(&shared));
    for (data, time) in pictures {
        let mut buffer = gst::Buffer::from_slice(data.clone());
        buffer.get_mut().unwrap().set_pts(time.map(gst::ClockTime::from_useconds));
        state.take(&gst::Sample::builder().buffer(&buffer).caps(&caps).build()).unwrap();
    }
    state.end().unwrap();
    lock(&shared).finish().unwrap();
    drop((state, shared));
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(&out);
    let messages = std::iter::from_fn(|| decoder.next().unwrap());
    let times = messages.filter_map(|message| match message {
        Message::Sample(sample) => Some(sample.presentation_ticks),
        _ => None,
    });
    times.collect()
}

#[test]
fn times_are_guessed_until_a_picture_says_its_own() {
    let (track, pictures) = pictures("bbb.mkv");
    let expected: Vec<i64> = pictures.iter().map(|picture| 1_000_000 + picture.presentation_ticks).collect();
    assert!(!expected.is_sorted(), "nothing is out of order");
    for guessed in [0, 1, 5] {
        let given = pictures.iter().zip(&expected).enumerate();
        let given = given.map(|(index, (picture, time))| {
            (picture.data.clone(), (index >= guessed).then(|| u64::try_from(*time).unwrap()))
        });
        let times = shown(&track, &given.collect::<Vec<_>>());
        assert_eq!(times.len(), expected.len());
        assert_eq!(times[guessed..], expected[guessed..], "{guessed} without times");
        assert!(times[..guessed].iter().all(|time| (0..1_000_000).contains(time)), "{:?}", &times[..guessed]);
    }
}
