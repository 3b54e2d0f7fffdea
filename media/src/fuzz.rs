//! Fuzz bodies, plain functions: the fuzzer's targets call them, and a test replays their corpora.

use bytes::Bytes;
use vidar_core::sample::SyncKind;
use vidar_core::track::{Codec, NalFraming, StreamConfig, Track};

use crate::codec;
use crate::container::{fmp4, mkv, ts};
use crate::demux::{Demux, DemuxError, Event, RawSample};

/// What holds for every inspection: drops are in order and inside the sample, and private data that a sample brings
/// is accepted as the track's own.
///
/// # Panics
/// If it does not hold.
pub fn check_inspection(track: &Track, data: &[u8]) {
    let inspection = codec::inspect(track, data);
    let mut end = 0;
    for (offset, len) in &inspection.drops {
        assert!(*offset >= end && *len > 0, "drops overlap");
        end = offset + len;
        assert!(end as usize <= data.len(), "a drop reaches past the sample");
    }
    assert!(inspection.drops.is_empty() || inspection.new_private.is_none());
    let _ = codec::reorder_depth(track);
    if let Some(mut order) = codec::picture_order::PictureOrder::of(track) {
        let _ = order.place(data);
    }
    if let Some(private) = inspection.new_private {
        let new = codec::with_private(track, private);
        assert_eq!(codec::inspect(&new, data).new_private, None, "the new private data does not hold");
        assert!(codec::reorder_depth(&new).is_some());
    }
}

/// A sample of NAL units and its track's private data: the first byte is the framing, the second the length of the
/// private data.
fn check_nals(track: Track, data: &[u8]) {
    let Some((&[framing, private_len], rest)) = data.split_first_chunk() else { return };
    let (private, sample) = rest.split_at(usize::from(private_len).min(rest.len()));
    let framing = match framing % 4 {
        0 => NalFraming::AnnexB,
        1 => NalFraming::LengthPrefixed(1),
        2 => NalFraming::LengthPrefixed(2),
        _ => NalFraming::LengthPrefixed(4),
    };
    let track = Track { codec_private: Bytes::copy_from_slice(private), framing, ..track };
    check_inspection(&track, sample);
}

/// H.264 parameter sets, `avcC` and samples.
///
/// # Panics
/// If a property breaks.
pub fn codec_h264(data: &[u8]) {
    use codec::h264;
    let _ = h264::parse_sps(data);
    let _ = h264::recovery_frame_count(data);
    if let Ok(avcc) = h264::parse_avcc(data)
        && let Ok(made) = h264::avcc(&avcc.sps, &avcc.pps)
    {
        assert_eq!(h264::parse_avcc(&made).map(|again| (again.sps, again.pps)), Ok((avcc.sps, avcc.pps)));
    }
    check_nals(codec::plain_video(Codec::H264), data);
}

/// H.265 parameter sets, `hvcC` and samples.
///
/// # Panics
/// If a property breaks.
pub fn codec_h265(data: &[u8]) {
    use codec::h265;
    let _ = h265::parse_sps(data);
    if let Ok(hvcc) = h265::parse_hvcc(data)
        && let Ok(made) = h265::hvcc(&hvcc.vps, &hvcc.sps, &hvcc.pps)
    {
        assert_eq!(h265::parse_hvcc(&made), Ok(h265::Hvcc { length_size: 4, ..hvcc }));
    }
    check_nals(codec::plain_video(Codec::H265), data);
}

/// All other codecs: the first byte says which.
///
/// # Panics
/// If a property breaks.
pub fn codec_other(data: &[u8]) {
    use codec::{aac, av1, mp3, opus, vp8, vp9};
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 8 {
        0 => {
            let config = aac::AudioSpecificConfig::parse(rest);
            if let Some((config, encoded)) = config.ok().and_then(|config| Some((config, config.encode().ok()?))) {
                let again = aac::AudioSpecificConfig::parse(&encoded).expect("what is written reads");
                let key = |c: aac::AudioSpecificConfig| (c.object_type, c.sample_rate_hz, c.channels, c.frame_len);
                assert_eq!(key(again), key(config));
            }
            let _ = aac::track(rest, 1, 90_000);
        }
        1 => {
            if let Ok(adts) = aac::parse_adts(rest) {
                assert!(adts.frame_len >= adts.header_len);
            }
        }
        2 => {
            if let Ok(head) = opus::OpusHead::parse(rest) {
                assert_eq!(opus::OpusHead::parse(&head.encode()), Ok(head));
            }
            let _ = opus::packet_duration_48k(rest);
        }
        3 => {
            if let Ok(private) = av1::av1c(rest) {
                assert!(av1::private_sequence_header(&private).is_some());
            }
            let stripped = av1::strip_temporal_delimiters(&Bytes::copy_from_slice(rest));
            assert_eq!(av1::strip_temporal_delimiters(&stripped), stripped);
        }
        4 => check_nals(codec::plain_video(Codec::Av1), rest),
        5 => {
            let _ = (vp8::is_keyframe(rest), vp8::keyframe_size(rest));
        }
        6 => {
            let _ = vp9::is_keyframe(rest);
            let _ = vp9::parse_keyframe(rest).map(|key| vp9::vpcc(&key));
        }
        _ => {
            if let Ok(header) = mp3::parse_header(rest) {
                assert!(header.frame_len > mp3::HEADER_LEN);
            }
        }
    }
}

/// Fragmented MP4: the events do not depend on how the input is cut, and every sample entry that was read and has a place
/// in MP4 reads equal after it is written.
///
/// # Panics
/// If a property breaks.
pub fn demux_fmp4(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let whole = demux_in_pieces(fmp4::Demuxer::new(), &data, || usize::MAX);
    let mut seed = data.len() as u32 | 1;
    let cut = demux_in_pieces(fmp4::Demuxer::new(), &data, || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Mostly a few bytes, sometimes a thousand.
        if seed & 0x70_0000 == 0 { 1000 } else { 1 + (seed >> 28) as usize }
    });
    assert_eq!(whole, cut, "the events depend on how the input is cut");
    for event in whole.0 {
        let Event::Config(config) = event else { continue };
        for track in &config.tracks {
            fmp4::sample_entry::check_round_trip(track);
            let _ = fmp4::sample_entry::codec_string(track);
        }
    }
}

/// What a demuxer makes of an input that comes in pieces of the lengths that `len` gives.
pub fn demux_in_pieces(
    mut demuxer: impl Demux,
    data: &Bytes,
    mut len: impl FnMut() -> usize,
) -> (Vec<Event>, Result<(), DemuxError>) {
    let (mut events, mut rest) = (Vec::new(), data.clone());
    while !rest.is_empty() {
        let piece = rest.split_to(len().clamp(1, rest.len()));
        if let Err(error) = demuxer.push(piece, &mut events) {
            return (events, Err(error));
        }
    }
    let end = demuxer.finish(&mut events);
    (events, end)
}

/// Matroska: the events do not depend on how the input is cut, and what is written from them reads equal.
///
/// # Panics
/// If a property breaks.
pub fn demux_mkv(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let (events, end) = demux_in_pieces(mkv::Demuxer::new(), &data, || usize::MAX);
    let mut seed = data.len() as u32 | 1;
    let cut = demux_in_pieces(mkv::Demuxer::new(), &data, || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (seed >> 24) as usize / 8
    });
    assert_eq!((&events, &end), (&cut.0, &cut.1), "the events depend on how the input is cut");
    if let Err(error) = end {
        assert!(error.offset <= data.len() as u64 && !error.path.is_empty(), "{error}");
    }
    let document = events.split(|event| *event == Event::Discontinuity).next().unwrap_or_default();
    check_written_mkv(document);
}

/// Writes the samples of one document again.
fn check_written_mkv(events: &[Event]) {
    let Some(config) =
        events.iter().find_map(|event| if let Event::Config(config) = event { Some(config) } else { None })
    else {
        return;
    };
    if !config.tracks.iter().all(mkv::mux::can_carry) {
        return;
    }
    let samples: Vec<&RawSample> =
        events.iter().filter_map(|event| if let Event::Sample(sample) = event { Some(sample) } else { None }).collect();
    for live in [false, true] {
        let Ok(written) = write_mkv(config, &samples, live) else { continue };
        let (again, end) = demux_in_pieces(mkv::Demuxer::new(), &written.into(), || usize::MAX);
        assert_eq!(end, Ok(()));
        let mut again_samples =
            again.iter().filter_map(|event| if let Event::Sample(sample) = event { Some(sample) } else { None });
        for sample in &samples {
            let written = again_samples.next().expect("every sample is written");
            // Laced frames stand between units where these are no whole part of a second.
            let exact = config.tracks[usize::from(sample.track)].timescale_hz < 1_000_000_000;
            if exact {
                assert_eq!(&written, sample);
            }
            assert_eq!((&written.data, written.sync), (&sample.data, sample.sync));
        }
        assert_eq!(again_samples.next(), None);
        // A Cluster begins with the first sample: without any there is no config.
        let again_config =
            again.iter().find_map(|event| if let Event::Config(config) = event { Some(config) } else { None });
        if !samples.is_empty() {
            let numbers = mkv::mux::track_numbers(config);
            let numbered = config.tracks.iter().cloned().zip(numbers);
            let tracks = numbered.map(|(track, source_number)| Track { source_number, ..track }).collect::<Vec<_>>();
            assert_eq!(again_config.map(|again| &again.tracks), Some(&tracks));
        }
    }
}

/// A whole document: header and Clusters, of known size or, if `live`, of unknown size.
///
/// # Errors
/// If a sample cannot be written.
///
/// # Panics
/// If its length is not what was told beforehand.
pub fn write_mkv(config: &StreamConfig, samples: &[&RawSample], live: bool) -> Result<Vec<u8>, mkv::mux::MuxError> {
    use mkv::mux;
    let layout = mux::Layout::new(config, mux::Timing::of(config));
    let frames: Vec<mux::Frame> = samples
        .iter()
        .map(|sample| {
            let hz = config.tracks[usize::from(sample.track)].timescale_hz;
            let units = |ticks: u32| u64::try_from(layout.timing().units(ticks.into(), hz)).unwrap_or(0);
            mux::Frame {
                track: sample.track,
                timestamp: layout.timestamp(sample.track, sample.presentation_ticks),
                duration: sample.duration_ticks.map(units),
                sync: sample.sync == SyncKind::Sync,
                block_flags: sample.block_flags,
                len: u32::try_from(sample.data.len()).expect("a sample within the limits"),
            }
        })
        .collect();
    let len = layout.len_bytes(frames.iter().copied())?;
    let options = mux::HeaderOptions { len_after_bytes: (!live).then_some(len), ..mux::HeaderOptions::default() };
    let mut out = mux::header(config, layout.timing(), &options).to_vec();
    let total = out.len() as u64 + len;
    let heads = layout.heads(&frames)?;
    let mut writer = mux::Writer::new(layout);
    for (index, (frame, sample)) in frames.iter().zip(samples).enumerate() {
        let head = if live { writer.block(frame)? } else { heads.get(index) };
        out.extend_from_slice(&head);
        out.extend_from_slice(&sample.data);
    }
    assert_eq!(out.len() as u64, total, "the length told beforehand");
    Ok(out)
}

/// MPEG transport stream: the events do not depend on how the input is cut, samples name tracks of the last config, and
/// NAL units are behind lengths that add up.
///
/// # Panics
/// If a property breaks.
pub fn demux_ts(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let (events, end) = demux_in_pieces(ts::Demuxer::new(), &data, || usize::MAX);
    let mut seed = data.len() as u32 | 1;
    let cut = demux_in_pieces(ts::Demuxer::new(), &data, || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (seed >> 24) as usize
    });
    assert_eq!((&events, &end), (&cut.0, &cut.1), "the events depend on how the input is cut");
    if let Err(error) = end {
        assert!(error.offset <= data.len() as u64 && !error.path.is_empty(), "{error}");
    }
    let mut config = StreamConfig::default();
    for event in events {
        match event {
            Event::Config(next) => config = next,
            Event::Sample(sample) => {
                let track = config.tracks.get(usize::from(sample.track)).expect("samples follow their config");
                assert!(!sample.data.is_empty());
                if let NalFraming::LengthPrefixed(size) = track.framing {
                    assert!(codec::nal::iter_length_prefixed(&sample.data, size).all(|nal| nal.is_ok()));
                    assert_eq!(codec::inspect(track, &sample.data).sync, Some(sample.sync));
                }
            }
            _ => {}
        }
    }
}
