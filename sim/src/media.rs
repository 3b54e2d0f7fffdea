//! Media as a camera sends it: H.264-like samples behind lengths, audio where wanted.

use bytes::Bytes;
use vidar_core::sample::SyncKind;
use vidar_core::track::{AudioParams, Codec, NalFraming, StreamConfig, Track, TrackKind, Trims, VideoParams};
use vidar_media::{Event, RawSample};

use crate::random::Random;

/// Ticks of a second.
const TIMESCALE_HZ: u32 = 90_000;
/// Samples of an AAC frame, in ticks of its track.
const AAC_TICKS: i64 = 1024;
const AAC_HZ: u32 = 48_000;

/// A camera: what it sends.
#[derive(Debug, Clone)]
pub(crate) struct Camera {
    random: Random,
    fps: u64,
    gop: u64,
    size_max: u64,
    audio: bool,
    pictures: u64,
    sounds: i64,
}

impl Camera {
    /// Some camera.
    #[must_use]
    pub(crate) fn new(mut random: Random) -> Self {
        let fps = [5, 10, 25][random.index(3)];
        let gop = random.within(3..50);
        // Some send so much that a fragment goes out in parts.
        let size_max = [300, 2_000, 2_000, 12_000][random.index(4)];
        let audio = random.one_in(3);
        Self { random, fps, gop, size_max, audio, pictures: 0, sounds: 0 }
    }

    /// Its tracks.
    #[must_use]
    pub(crate) fn config(&self) -> StreamConfig {
        let track = |number, kind, codec, codec_id: &str, timescale_hz| Track {
            source_number: number,
            kind,
            codec,
            codec_id: codec_id.into(),
            codec_private: Bytes::new(),
            timescale_hz,
            framing: NalFraming::None,
            in_band_parameter_sets: false,
            video: None,
            audio: None,
            default_duration_ticks: None,
            trims: Trims::default(),
            language: String::new(),
            name: String::new(),
        };
        let mut tracks = vec![Track {
            codec_private: Bytes::from_static(&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe0, 0]),
            framing: NalFraming::LengthPrefixed(4),
            video: Some(VideoParams { width: 320, height: 180 }),
            ..track(1, TrackKind::Video, Codec::H264, "V_MPEG4/ISO/AVC", TIMESCALE_HZ)
        }];
        if self.audio {
            tracks.push(Track {
                codec_private: Bytes::from_static(&[0x11, 0x90]),
                audio: Some(AudioParams { sample_rate_hz: AAC_HZ, channels: 2, bits: 16 }),
                ..track(2, TrackKind::Audio, Codec::Aac, "A_AAC", AAC_HZ)
            });
        }
        StreamConfig { tracks, matroska_header: Bytes::new() }
    }

    /// Whether all of its bytes come on one track.
    #[must_use]
    pub(crate) fn is_video_only(&self) -> bool {
        !self.audio
    }

    /// Milliseconds between two pictures.
    #[must_use]
    pub(crate) fn interval_ms(&self) -> u64 {
        1000 / self.fps
    }

    /// The next picture, and the sound until then.
    pub(crate) fn next(&mut self) -> Vec<Event> {
        let ticks = i64::from(TIMESCALE_HZ) / self.fps as i64;
        let index = self.pictures;
        self.pictures += 1;
        let sync = index.is_multiple_of(self.gop);
        let len = self.random.within(40..self.size_max) as usize * if sync { 3 } else { 1 };
        let mut data = (len as u32 + 1).to_be_bytes().to_vec();
        data.push(if sync { 0x65 } else { 0x41 });
        data.extend(self.random.bytes(len));
        let at = index as i64 * ticks;
        let mut events = vec![sample(0, at, ticks, if sync { SyncKind::Sync } else { SyncKind::None }, data)];
        while self.audio && self.sounds * AAC_TICKS * i64::from(TIMESCALE_HZ) < at * i64::from(AAC_HZ) {
            let len = self.random.within(20..200) as usize;
            let data = self.random.bytes(len);
            events.push(sample(1, self.sounds * AAC_TICKS, AAC_TICKS, SyncKind::Sync, data));
            self.sounds += 1;
        }
        events
    }
}

fn sample(track: u8, at: i64, duration: i64, sync: SyncKind, data: Vec<u8>) -> Event {
    Event::Sample(RawSample {
        track,
        presentation_ticks: at,
        decode_ticks: Some(at),
        duration_ticks: u32::try_from(duration).ok(),
        sync,
        block_flags: 0,
        data: data.into(),
    })
}
