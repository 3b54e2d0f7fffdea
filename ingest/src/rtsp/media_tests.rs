//! Tracks whose clocks start anywhere come out on one timeline.

use super::super::depacketize;
use super::super::reorder::Patience;
use super::super::rtp::Packet;
use super::super::sdp::Description;
use super::*;

const SPROP: &str = "Z2QADKy0FCPy4CIAAAMAAgAAAwBkHihVQA==,aO88sA==";
const WAIT: Duration = Duration::from_millis(3500);

fn media(video_fmtp: &str) -> Media {
    let text = format!(
        "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 {video_fmtp}\r\nm=audio 0 RTP/AVP 8\r\n"
    );
    let description = Description::parse(text.as_bytes()).unwrap();
    let mut media = Media::new(WAIT);
    for section in &description.medias {
        let depacketizer = depacketize::choose(section).unwrap();
        let source = Source::new(section.payload_type, section.clock_hz, depacketizer, Patience::NONE);
        media.add(source, section.clock_hz);
    }
    media
}

fn announced() -> Media {
    media(&format!("sprop-parameter-sets={SPROP}"))
}

fn at(ms: u64) -> Now {
    Now { wall: UnixMs(1_000_000 + ms as i64), monotonic: Duration::from_millis(ms) }
}

struct Sender {
    track: usize,
    ssrc: u32,
    sequence: u16,
}

impl Sender {
    fn new(track: usize) -> Self {
        Self { track, ssrc: 10 + track as u32, sequence: 0 }
    }

    fn send(&mut self, media: &mut Media, timestamp: u32, payload: &[u8], now: Now) {
        let payload_type = [96, 8][self.track];
        let payload = Bytes::copy_from_slice(payload);
        let packet =
            Packet { marker: true, payload_type, sequence: self.sequence, timestamp, ssrc: self.ssrc, payload };
        self.sequence = self.sequence.wrapping_add(1);
        media.rtp(self.track, &packet.encode(), now);
    }

    /// A sender report: at `timestamp` the clock showed so many seconds since 1900.
    fn report(&self, media: &mut Media, seconds: f64, timestamp: u32, now: Now) {
        let ntp = ((seconds * f64::from(1 << 16)) as u64) << 16;
        let mut bytes = vec![0x80, 200, 0, 6];
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(ntp.to_be_bytes());
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend([0; 8]);
        media.rtcp(self.track, &bytes, now);
    }
}

fn take(media: &mut Media) -> Vec<String> {
    let describe = |Arrived { at, event }: Arrived| match event {
        Event::Config(config) => {
            let tracks: Vec<&str> = config.tracks.iter().map(|track| track.codec.name()).collect();
            format!("config {}", tracks.join(" "))
        }
        Event::Sample(sample) => {
            let ms = sample.presentation_ticks * 1000 / if sample.data.len() == 160 { 8000 } else { 90_000 };
            format!("{}: {ms} {:?} @{}", sample.track, sample.sync, at.unwrap().0 - 1_000_000)
        }
        Event::Wall { track, presentation_ticks, at } => format!("wall {track} {presentation_ticks} {}", at.0),
        other => format!("{other:?}"),
    };
    media.take().into_iter().map(describe).collect()
}

const IDR: &[u8] = &[0x65, 0x88, 0x84, 0, 0x10];
const SLICE: &[u8] = &[0x41, 0x9a, 0x21, 0x6c];
const SOUND: &[u8] = &[0xd5; 160];
/// 2026 or so.
const NTP: f64 = 3_990_000_000.0;
const UNIX_MS: i64 = (3_990_000_000 - 2_208_988_800) * 1000;

#[test]
fn reports_place_tracks_exactly_whatever_their_arrival() {
    let (mut media, mut video, mut audio) = (announced(), Sender::new(0), Sender::new(1));
    video.report(&mut media, NTP, 4_000_000_000, at(0));
    video.send(&mut media, 4_000_000_000, IDR, at(0));
    video.send(&mut media, 4_000_003_600, SLICE, at(40));
    audio.send(&mut media, 77, SOUND, at(900));
    assert_eq!(take(&mut media), Vec::<String>::new(), "held for the second report");
    // Tick 77 of the sound is half a second before the picture.
    audio.report(&mut media, NTP + 0.5, 77 + 8000, at(1000));
    assert_eq!(
        take(&mut media),
        [
            "config h264 pcma".to_owned(),
            format!("wall 0 45000 {UNIX_MS}"),
            format!("wall 1 8000 {}", UNIX_MS + 500),
            "0: 500 Sync @0".to_owned(),
            "0: 540 None @40".to_owned(),
            "1: 0 Sync @900".to_owned(),
        ]
    );
    // From now on nothing is held, and the 32 bits of the clock may wrap.
    video.send(&mut media, 4_000_000_000_u32.wrapping_add(300_000_000), SLICE, at(1100));
    assert_eq!(take(&mut media), ["0: 3333833 None @1100"]);
}

#[test]
fn arrival_places_tracks_without_reports() {
    let (mut media, mut video, mut audio) = (announced(), Sender::new(0), Sender::new(1));
    audio.send(&mut media, 5, SOUND, at(100));
    video.send(&mut media, 90_000, IDR, at(350));
    // The clock of a camera that was never told the time.
    video.report(&mut media, 12.0, 90_000, at(360));
    media.tick(at(3599));
    assert_eq!(take(&mut media).len(), 0);
    assert_eq!(media.deadline(), Some(Duration::from_millis(3600)));
    media.tick(at(3600));
    assert_eq!(take(&mut media), ["config h264 pcma", "1: 0 Sync @100", "0: 250 Sync @350"]);
    assert_eq!(media.deadline(), None);
    // A first report after that only says what time it is.
    audio.report(&mut media, NTP, 5 + 8000, at(4000));
    assert_eq!(take(&mut media), [format!("wall 1 8000 {UNIX_MS}")]);
}

#[test]
fn reports_that_contradict_arrival_are_not_believed() {
    let (mut media, mut video, mut audio) = (announced(), Sender::new(0), Sender::new(1));
    video.report(&mut media, NTP, 0, at(0));
    audio.report(&mut media, NTP + 86_400.0, 0, at(0));
    video.send(&mut media, 0, IDR, at(0));
    audio.send(&mut media, 0, SOUND, at(20));
    let samples: Vec<String> = take(&mut media).into_iter().filter(|event| event.contains('@')).collect();
    assert_eq!(samples, ["0: 0 Sync @0", "1: 20 Sync @20"]);
}

#[test]
fn a_track_that_comes_late_is_placed_by_its_report() {
    let (mut media, mut video, mut audio) = (announced(), Sender::new(0), Sender::new(1));
    video.report(&mut media, NTP, 1000, at(0));
    video.send(&mut media, 1000, IDR, at(0));
    media.tick(at(3500));
    assert_eq!(take(&mut media)[0], "config h264 pcma", "announced well enough");
    audio.report(&mut media, NTP + 6.0, 9, at(6500));
    audio.send(&mut media, 9, SOUND, at(6600));
    assert_eq!(take(&mut media), [format!("wall 1 48000 {}", UNIX_MS + 6000), "1: 6000 Sync @6600".to_owned()]);
}

#[test]
fn a_track_without_parameter_sets_is_waited_for_and_then_left_out() {
    let sets = SPROP.split(',').map(|set| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(set).unwrap()
    });
    let (mut media, mut video, mut audio) = (media(""), Sender::new(0), Sender::new(1));
    video.send(&mut media, 0, SLICE, at(0));
    audio.send(&mut media, 0, SOUND, at(0));
    media.tick(at(3500));
    assert_eq!(take(&mut media), ["config pcma", "0: 0 Sync @0"]);
    video.send(&mut media, 360_000, SLICE, at(4000));
    assert_eq!(take(&mut media).len(), 0);
    for set in sets {
        video.send(&mut media, 365_000, &set, at(4400));
    }
    video.send(&mut media, 369_000, IDR, at(4500));
    assert_eq!(take(&mut media), ["config h264 pcma", "0: 4500 Sync @4500"]);
    audio.send(&mut media, 800, SOUND, at(4500));
    assert_eq!(take(&mut media), ["1: 100 Sync @4500"]);
}

#[test]
fn a_new_source_is_a_discontinuity_and_one_stray_packet_is_none() {
    let (mut media, mut video, mut stray) = (announced(), Sender::new(0), Sender { ssrc: 99, ..Sender::new(0) });
    video.send(&mut media, 0, IDR, at(0));
    media.tick(at(3500));
    take(&mut media);
    stray.send(&mut media, 5, IDR, at(3600));
    video.send(&mut media, 3600, SLICE, at(3601));
    stray.sequence = 700;
    stray.send(&mut media, 1 << 31, IDR, at(5000));
    stray.send(&mut media, (1 << 31) + 3600, SLICE, at(5040));
    assert_eq!(take(&mut media), ["0: 40 None @3601", "Discontinuity", "0: 5040 Sync @5040", "0: 5080 None @5040"]);
}

#[test]
fn parameter_sets_that_change_are_a_new_config() {
    let (mut media, mut video) = (announced(), Sender::new(0));
    video.send(&mut media, 0, IDR, at(0));
    media.tick(at(3500));
    take(&mut media);
    // Another picture parameter set with the same id.
    video.send(&mut media, 3600, &[0x68, 0xee, 0x3c, 0x80], at(3600));
    video.send(&mut media, 3600, IDR, at(3600));
    assert_eq!(take(&mut media), ["config h264 pcma", "0: 40 Sync @3600"]);
    video.send(&mut media, 7200, &[0x68, 0xee, 0x3c, 0x80], at(3640));
    video.send(&mut media, 7200, IDR, at(3640));
    assert_eq!(take(&mut media), ["0: 80 Sync @3640"], "the same again");
}

#[test]
fn what_is_held_is_bounded() {
    // Sound is known from the start: with it, the picture would be left out once there is too much.
    let (mut media, mut video) = (media(""), Sender::new(0));
    media.tracks.truncate(1);
    let picture = [SLICE, &vec![7; 60_000]].concat();
    for n in 0..400 {
        video.send(&mut media, n * 3600, &picture, at(0));
    }
    assert!(media.held_bytes <= HELD_BYTES_MAX && !media.held.is_empty());
    assert_eq!(media.held_bytes, media.held.iter().map(|held| size(&held.found)).sum::<usize>());
    assert_eq!(take(&mut media).len(), 0);
    assert!(media.finish(at(1)));
    assert_eq!(take(&mut media).len(), 0, "without parameter sets there is no track");
}

#[test]
fn losses_and_the_end() {
    let (mut media, mut video) = (announced(), Sender::new(0));
    video.send(&mut media, 0, IDR, at(0));
    video.sequence += 3;
    video.send(&mut media, 3600, SLICE, at(40));
    assert!(!media.all_left());
    media.rtcp(0, &[0x81, 203, 0, 1, 0, 0, 0, 10], at(50));
    assert!(!media.all_left(), "one of two");
    media.rtcp(1, &[0x81, 203, 0, 1, 0, 0, 0, 11], at(50));
    assert!(media.all_left());
    assert!(media.finish(at(60)));
    assert_eq!(take(&mut media), ["config h264 pcma", "0: 0 Sync @0", "Lost { count: 3 }", "0: 40 None @40"]);
    let report = media.report(0, 1, Duration::ZERO).unwrap();
    assert_eq!((report[11], report[15]), (10, 3));
    assert!(media.report(1, 1, Duration::ZERO).is_none(), "nothing was received");
}
