//! Tests of the codec module.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use matroska_demuxer::{Frame, MatroskaFile};
use proptest::prelude::*;
use vidar_core::sample::SyncKind;

use super::*;

/// A sample and whether its container calls it a key frame.
type KeyedSample = (Vec<u8>, bool);

/// The tracks of a Matroska file that an independent reader finds, with their samples.
fn matroska(path: &Path) -> Vec<(Track, Vec<KeyedSample>)> {
    let mut file = match MatroskaFile::open(File::open(path).unwrap()) {
        Ok(file) => file,
        // It refuses real captures: Cues without a size, no Cues at all after a SeekHead.
        Err(_) if !path.starts_with(vidar_fixtures::data_dir()) => return Vec::new(),
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let mut tracks: Vec<(Track, Vec<KeyedSample>)> = Vec::new();
    for entry in file.tracks() {
        let (kind, codec) = match entry.codec_id() {
            "V_MPEG4/ISO/AVC" => (TrackKind::Video, Codec::H264),
            "V_MPEGH/ISO/HEVC" => (TrackKind::Video, Codec::H265),
            "V_AV1" => (TrackKind::Video, Codec::Av1),
            "V_VP8" => (TrackKind::Video, Codec::Vp8),
            "V_VP9" => (TrackKind::Video, Codec::Vp9),
            "A_AAC" => (TrackKind::Audio, Codec::Aac),
            "A_OPUS" => (TrackKind::Audio, Codec::Opus),
            "A_MPEG/L3" => (TrackKind::Audio, Codec::Mp3),
            _ => (TrackKind::Audio, Codec::Opaque),
        };
        let private = Bytes::copy_from_slice(entry.codec_private().unwrap_or_default());
        let nals = matches!(codec, Codec::H264 | Codec::H265);
        let video = entry.video().map(|video| VideoParams {
            width: video.pixel_width().get() as u32,
            height: video.pixel_height().get() as u32,
        });
        let length_size = match codec {
            Codec::H264 => h264::parse_avcc(&private).unwrap().length_size,
            Codec::H265 => h265::parse_hvcc(&private).unwrap().length_size,
            _ => 4,
        };
        let track = Track {
            codec_private: private,
            framing: if nals { NalFraming::LengthPrefixed(length_size) } else { NalFraming::None },
            video,
            ..plain_track(kind, codec, entry.codec_id(), entry.track_number().get(), 1000)
        };
        tracks.push((track, Vec::new()));
    }
    let mut frame = Frame::default();
    while file.next_frame(&mut frame).unwrap() {
        let (_, samples) = tracks.iter_mut().find(|(track, _)| track.source_number == frame.track).unwrap();
        samples.push((frame.data.clone(), frame.is_keyframe == Some(true)));
    }
    tracks
}

fn video(name: &str) -> (Track, Vec<KeyedSample>) {
    matroska(&vidar_fixtures::path(name)).into_iter().find(|(track, _)| track.kind == TrackKind::Video).unwrap()
}

#[test]
fn what_samples_show_agrees_with_their_container() {
    let (mut video_count, mut key_count, mut leading_count) = (0, 0, 0);
    for path in vidar_fixtures::corpus(&["mkv", "webm"]) {
        for (track, samples) in matroska(&path) {
            for (index, (data, key)) in samples.iter().enumerate() {
                let inspection = inspect(&track, data);
                let place = format!("{} track {} sample {index}", path.display(), track.source_number);
                if track.kind != TrackKind::Video {
                    assert_eq!(inspection, Inspection { sync: Some(SyncKind::Sync), ..Inspection::default() });
                    continue;
                }
                let sync = inspection.sync.unwrap_or_else(|| panic!("{place} shows nothing"));
                assert_eq!(sync == SyncKind::Sync, *key, "{place}");
                assert_eq!(inspection.new_private, None, "{place}");
                video_count += 1;
                key_count += u32::from(*key);
                leading_count += u32::from(sync == SyncKind::Leading);
            }
        }
    }
    assert!(video_count > 1000 && key_count > 30 && leading_count > 1, "{video_count} {key_count} {leading_count}");
}

#[test]
fn private_data_says_the_picture_size_and_is_made_again() {
    for path in vidar_fixtures::corpus(&["mkv", "webm"]) {
        for (track, _) in matroska(&path) {
            match track.codec {
                Codec::H264 => {
                    let avcc = h264::parse_avcc(&track.codec_private).unwrap();
                    let made = h264::avcc_with(&avcc.sps, &avcc.pps, avcc.length_size).unwrap();
                    assert_eq!(h264::parse_avcc(&made), Ok(avcc.clone()));
                    if path.starts_with(vidar_fixtures::data_dir()) {
                        assert_eq!(made, track.codec_private, "{}", path.display());
                    }
                    let annex_b = [&[0, 0, 0, 1], &avcc.sps[0][..], &[0, 0, 1], &avcc.pps[0][..]].concat();
                    let from_annex_b = h264::parse_avcc(&annex_b).unwrap();
                    assert_eq!((&from_annex_b.sps, &from_annex_b.pps), (&avcc.sps, &avcc.pps));
                    h264_agrees_with_h264_reader(&avcc.sps[0]);
                }
                Codec::H265 => {
                    let hvcc = h265::parse_hvcc(&track.codec_private).unwrap();
                    let made = h265::hvcc_with(&hvcc.vps, &hvcc.sps, &hvcc.pps, hvcc.length_size).unwrap();
                    assert_eq!(h265::parse_hvcc(&made), Ok(hvcc));
                    // All but the array of SEI and its count, and bits that ffmpeg leaves 0.
                    assert_eq!(made[..20], track.codec_private[..20]);
                }
                Codec::Av1 => {}
                Codec::Aac => {
                    let config = aac::AudioSpecificConfig::parse(&track.codec_private).unwrap();
                    let again = aac::AudioSpecificConfig::parse(&config.encode().unwrap());
                    assert_eq!(again, Ok(config));
                    continue;
                }
                Codec::Opus => {
                    let head = opus::OpusHead::parse(&track.codec_private).unwrap();
                    assert_eq!(head.encode(), track.codec_private);
                    continue;
                }
                _ => continue,
            }
            assert_eq!(private_size(track.codec, &track.codec_private), track.video, "{}", path.display());
        }
    }
}

/// An independent reader of the same SPS.
fn h264_agrees_with_h264_reader(sps: &[u8]) {
    use h264_reader::nal::sps::SeqParameterSet;
    let ours = h264::parse_sps(sps).unwrap();
    let rbsp = h264_reader::rbsp::decode_nal(sps).unwrap();
    let theirs = SeqParameterSet::from_bits(h264_reader::rbsp::BitReader::new(&*rbsp)).unwrap();
    assert_eq!(theirs.pixel_dimensions().unwrap(), (ours.width, ours.height));
    assert_eq!(theirs.log2_max_frame_num(), ours.frame_num_bits);
    let restriction = theirs.vui_parameters.as_ref().and_then(|vui| vui.bitstream_restrictions.as_ref());
    if let Some(restriction) = restriction {
        assert_eq!(restriction.max_num_reorder_frames, ours.reorder.depth.into());
    }
    let rate = ours.frame_rate.map(|(frames, seconds)| f64::from(frames) / f64::from(seconds));
    assert_eq!(theirs.fps(), rate);
}

#[test]
fn sizes_of_key_frames() {
    let (_, samples) = video("vp9_opus.webm");
    let key = vp9::parse_keyframe(&samples[0].0).unwrap();
    assert_eq!((key.width, key.height, key.bit_depth), (160, 120, 8));
    assert!(vp9::parse_keyframe(&samples[1].0).is_err());
    let (_, samples) = video("vp8_vorbis.webm");
    assert_eq!(vp8::keyframe_size(&samples[0].0), Some((160, 120)));
    assert_eq!(vp8::keyframe_size(&samples[1].0), None);
}

#[test]
fn depths_of_reordering() {
    for (name, depth) in [
        ("h264_pyramid.mkv", 2),
        ("h264_ip.mkv", 0),
        ("bbb.mkv", 2),
        ("h265_open_gop.mkv", 2),
        ("av1_opus.mkv", 0),
        ("vp9_opus.webm", 0),
    ] {
        assert_eq!(reorder_depth(&video(name).0), Some(ReorderDepth { depth, exact: true }), "{name}");
    }
    let (track, _) = video("bbb.mkv");
    assert_eq!(reorder_depth(&with_private(&track, Bytes::new())), None);
}

#[test]
fn without_a_restriction_the_level_bounds_the_depth() {
    // Main, level 3.0, 640x480, POC type 0, no VUI.
    let mut w = bits::BitWriter::default();
    w.bits(0x67, 8).bits(77, 8).bits(0, 8).bits(30, 8);
    w.bits(1, 1).bits(1, 1).bits(1, 1).bits(1, 1).bits(0b010, 3).bits(0, 1);
    w.bits(40, 11).bits(30, 9).bits(1, 1).bits(1, 1).bits(0, 1).bits(0, 1).bits(1, 1);
    let sps = h264::parse_sps(&w.into_vec()).unwrap();
    assert_eq!((sps.width, sps.height), (640, 480));
    assert_eq!(sps.reorder, ReorderDepth { depth: 8100_u32.div_euclid(40 * 30) as u8, exact: false });
}

/// A key frame of the clip with parameter sets before it.
fn key_frame_with(sets: &[Bytes], data: &[u8]) -> Vec<u8> {
    [&nal::length_prefixed(sets)[..], data].concat()
}

#[test]
fn parameter_sets_in_band_are_dropped_where_equal_and_told_where_they_differ() {
    for name in ["bbb.mkv", "h265_open_gop.mkv"] {
        let (track, samples) = video(name);
        let sets = private_sets(track.codec, &track.codec_private);
        let data = &samples[0].0;
        let same = inspect(&track, &key_frame_with(&sets, data));
        let mut at = 0;
        let ranges: Vec<_> = sets
            .iter()
            .map(|set| {
                at += set.len() as u32 + 4;
                (at - set.len() as u32 - 4, set.len() as u32 + 4)
            })
            .collect();
        assert_eq!(same, Inspection { sync: Some(SyncKind::Sync), drops: ranges, new_private: None }, "{name}");

        // Padded sets are the same sets.
        let padded: Vec<Bytes> = sets.iter().map(|set| [&set[..], &[0, 0]].concat().into()).collect();
        assert_eq!(inspect(&track, &key_frame_with(&padded, data)).new_private, None);

        // Another PPS of the same id: the new private data holds it and the SPS of the old.
        let mut other = sets.clone();
        let pps = other.last_mut().unwrap();
        let mut bytes = pps.to_vec();
        let at = bytes.len() - 2;
        bytes[at] ^= 0x04;
        *pps = bytes.into();
        let changed = inspect(&track, &key_frame_with(&other[other.len() - 1..], data));
        assert_eq!(changed.drops, []);
        let new = with_private(&track, changed.new_private.unwrap());
        assert_eq!(private_sets(new.codec, &new.codec_private), other, "{name}");
        assert_eq!(new.video, track.video);
        assert_eq!(inspect(&new, &key_frame_with(&other, data)).drops.len(), other.len());
        // Among equal sets one that differs keeps all of them.
        assert_eq!(inspect(&track, &key_frame_with(&other, data)).drops, []);

        // Nothing known before.
        let bare = Track { codec_private: Bytes::new(), ..track.clone() };
        let found = inspect(&bare, &key_frame_with(&sets, data)).new_private.unwrap();
        assert_eq!(private_sets(track.codec, &found), sets);
        assert_eq!(inspect(&bare, &key_frame_with(&sets[..1], data)).new_private, None, "an SPS alone makes no config");

        // Start codes in place of lengths.
        let code = [0, 0, 1];
        let nals: Vec<&[u8]> = nal::iter_length_prefixed(data, 4).map(|nal| nal.unwrap().1).collect();
        let stream: Vec<u8> = other.iter().map(|set| &set[..]).chain(nals).flat_map(|n| [&code, n].concat()).collect();
        let annex_b = Track { framing: NalFraming::AnnexB, ..track.clone() };
        let inspection = inspect(&annex_b, &stream);
        assert_eq!(inspection.sync, Some(SyncKind::Sync));
        assert_eq!(private_sets(track.codec, &inspection.new_private.unwrap()), other);
    }
}

#[test]
fn recovery_points_of_open_gops_are_sync_but_not_their_p_pictures() {
    let (track, samples) = video("h264_open_gop.mkv");
    let key: Vec<&Vec<u8>> = samples.iter().filter(|(_, key)| *key).map(|(data, _)| data).collect();
    let open = key[1];
    let nals: Vec<Bytes> =
        nal::iter_length_prefixed(open, 4).map(|nal| Bytes::copy_from_slice(nal.unwrap().1)).collect();
    assert!(nals.iter().all(|nal| h264::nal_unit_type(nal) != h264::nal_type::IDR), "an open GOP has no IDR picture");
    let sei = nals.iter().find(|nal| h264::recovery_frame_count(nal) == Some(0)).unwrap();
    assert_eq!(inspect(&track, open).sync, Some(SyncKind::Sync));
    let without_sei: Vec<Bytes> = nals.iter().filter(|nal| *nal != sei).cloned().collect();
    assert_eq!(inspect(&track, &nal::length_prefixed(&without_sei)).sync, Some(SyncKind::None));
    let inter = samples.iter().find(|(_, key)| !key).unwrap();
    let with_sei = key_frame_with(std::slice::from_ref(sei), &inter.0);
    assert_eq!(inspect(&track, &with_sei).sync, Some(SyncKind::None));
}

#[test]
fn extra_bytes_after_an_sps_change_nothing_and_truncation_never_panics() {
    for name in ["bbb.mkv", "h265_open_gop.mkv"] {
        let (track, _) = video(name);
        let parse = |nal: &[u8]| -> Option<(u32, u32, ReorderDepth)> {
            if track.codec == Codec::H264 {
                h264::parse_sps(nal).ok().map(|sps| (sps.width, sps.height, sps.reorder))
            } else {
                h265::parse_sps(nal).ok().map(|sps| (sps.width, sps.height, sps.reorder))
            }
        };
        let sets = private_sets(track.codec, &track.codec_private);
        let sps = sets.iter().find(|set| parse(set).is_some()).unwrap();
        assert_eq!(parse(&[sps, &[0x80, 0xff, 3, 7][..]].concat()), parse(sps));
        assert!((0..8).all(|len| parse(&sps[..len]).is_none()));
        for len in 8..sps.len() {
            let _ = parse(&sps[..len]);
        }
        let private = &track.codec_private;
        for len in 0..private.len() {
            let sets = private_sets(track.codec, &private[..len]);
            assert!(sets.len() < 4);
        }
    }
}

#[test]
fn frame_rates_of_the_vui() {
    let sps_rate = |name: &str| {
        let (track, _) = video(name);
        if track.codec == Codec::H264 {
            h264::parse_sps(&h264::parse_avcc(&track.codec_private).unwrap().sps[0]).unwrap().frame_rate
        } else {
            h265::parse_sps(&h265::parse_hvcc(&track.codec_private).unwrap().sps[0]).unwrap().frame_rate
        }
    };
    assert_eq!(sps_rate("h264_ip.mkv"), Some((25, 1)));
    assert_eq!(sps_rate("h265_open_gop.mkv"), Some((25, 1)));
}

fn garbage(codec: Codec, framing: NalFraming, private: Vec<u8>, data: &[u8]) {
    let track = Track { codec_private: private.into(), framing, ..plain_track(TrackKind::Video, codec, "", 1, 90_000) };
    crate::fuzz::check_inspection(&track, data);
}

proptest! {
    #[test]
    fn garbage_never_panics(private: Vec<u8>, data: Vec<u8>, size in prop::sample::select(vec![1_u8, 2, 4])) {
        for codec in [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp8, Codec::Vp9] {
            for framing in [NalFraming::LengthPrefixed(size), NalFraming::AnnexB, NalFraming::None] {
                garbage(codec, framing, private.clone(), &data);
            }
        }
    }

    #[test]
    fn garbage_behind_a_header_never_panics(data: Vec<u8>, kind: u8) {
        crate::fuzz::codec_h264(&data);
        crate::fuzz::codec_h265(&data);
        crate::fuzz::codec_other(&data);
        let _ = h264::parse_sps(&[&[0x67, 100], &data[..]].concat());
        let _ = h265::parse_sps(&[&[0x42, 1], &data[..]].concat());
        let _ = h264::parse_avcc(&[&[1, 100, 0, 30, 0xff, 0xe1], &data[..]].concat());
        let nal = [&[kind], &data[..]].concat();
        let _ = h264::recovery_frame_count(&nal);
        let _ = h264::begins_access_unit(&nal);
        let _ = h265::begins_access_unit(&nal);
    }
}
