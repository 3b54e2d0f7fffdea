//! Other programs read what we write: mkvmerge, ffmpeg.

mod mkv_common;

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use mkv_common::{clips, configs, remux, samples, whole};
use vidar_media::container::mkv::mux;
use vidar_media::{AudioParams, Codec, Event, NalFraming, PcmFormat, StreamConfig, Tag, Track, TrackKind, Trims};

fn output(program: &str, arguments: &[&str], path: &Path) -> (bool, String) {
    let output =
        Command::new(program).args(arguments).arg(path).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn keep(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Track, time, size, flags and hash of every packet.
fn packets(path: &Path) -> String {
    let entries = "packet=stream_index,pts,size,flags,data_hash";
    let arguments = ["-v", "error", "-show_packets", "-show_data_hash", "md5", "-show_entries", entries, "-of", "flat"];
    let (ok, text) = output("ffprobe", &arguments, path);
    assert!(ok, "{}: {text}", path.display());
    // What is to be cut off the last packet (DiscardPadding) is not kept.
    text.lines().filter(|line| !line.contains("side_data")).collect::<Vec<_>>().join("\n")
}

fn assert_readable(path: &Path) {
    let (ok, text) = output("mkvmerge", &["-J"], path);
    let clean = text.contains("\"warnings\": []") && text.contains("\"errors\": []");
    assert!(ok && clean && text.contains("\"recognized\": true"), "{}: {text}", path.display());
    let arguments = ["-v", "error", "-xerror", "-nostdin", "-i"];
    let decoded =
        Command::new("ffmpeg").args(arguments).arg(path).args(["-map", "0", "-f", "null", "-"]).output().unwrap();
    let errors = String::from_utf8_lossy(&decoded.stderr).into_owned();
    assert!(decoded.status.success() && errors.is_empty(), "{}: {errors}", path.display());
}

#[test]
fn clips_written_again_have_the_same_packets_and_decode() {
    for (name, bytes) in clips() {
        // Captures are cut off in mid-picture, or are several documents.
        if name.starts_with("kvs_") {
            continue;
        }
        let (events, _) = whole(&bytes);
        let (config, samples) = (&configs(&events)[0], samples(&events));
        let source = keep(&format!("source_{name}"), &bytes);
        for live in [false, true] {
            let path = keep(&format!("{live}_{name}"), &remux(config, &samples, live));
            // The same blocks in clusters of unknown size: a few will do.
            if !live || ["bbb.mkv", "laced.mkv"].contains(&name.as_str()) {
                assert_readable(&path);
            }
            // ffprobe guesses times within a lace.
            if name != "laced.mkv" {
                assert!(packets(&path) == packets(&source), "{name}");
            }
        }
    }
}

fn audio(codec: Codec, timescale_hz: u32, audio: AudioParams) -> Track {
    Track {
        source_number: 300,
        kind: TrackKind::Audio,
        codec,
        codec_id: "other".to_owned(),
        codec_private: Bytes::new(),
        timescale_hz,
        framing: NalFraming::None,
        in_band_parameter_sets: false,
        video: None,
        audio: Some(audio),
        default_duration_ticks: Some(timescale_hz / 50),
        trims: Trims::default(),
        language: "de-AT".to_owned(),
        name: "Mikrofon".to_owned(),
    }
}

#[test]
fn sound_of_other_sources_decodes() {
    let pcm = |bits, big_endian, float| Codec::Pcm(PcmFormat { bits, big_endian, float, signed: bits != 8 });
    for (codec, hz, bits, name) in [
        (Codec::G711Alaw, 8000, 8, "pcm_alaw"),
        (Codec::G711Ulaw, 8000, 8, "pcm_mulaw"),
        (pcm(8, false, false), 8000, 8, "pcm_u8"),
        (pcm(16, true, false), 16_000, 16, "pcm_s16be"),
        (pcm(24, false, false), 16_000, 24, "pcm_s24le"),
        (pcm(32, false, true), 16_000, 32, "pcm_f32le"),
    ] {
        let track = audio(codec, hz, AudioParams { sample_rate_hz: hz, channels: 1, bits });
        let config = StreamConfig { tracks: vec![track], matroska_header: Bytes::new() };
        let layout = mux::Layout::new(&config, mux::Timing::of(&config));
        let len = hz / 50 * u32::from(bits) / 8;
        let options = mux::HeaderOptions { duration: Some(200), ..Default::default() };
        let mut out = mux::header(&config, layout.timing(), &options).to_vec();
        let mut writer = mux::Writer::new(layout.clone());
        for index in 0..10 {
            let timestamp = layout.timing().units(i64::from(index * hz / 50), hz);
            let frame = mux::Frame { track: 0, timestamp, duration: None, sync: true, block_flags: 0, len };
            out.extend_from_slice(&writer.block(&frame).unwrap());
            out.extend(std::iter::repeat_n(0x11, len as usize));
        }
        out.extend_from_slice(&writer.tags(&[Tag { name: "PLACE".to_owned(), value: "door".to_owned() }]));
        let path = keep(&format!("{name}.mkv"), &out);
        assert_readable(&path);
        let (_, text) = output("ffprobe", &["-v", "error", "-show_streams", "-show_format"], &path);
        assert!(text.contains(&format!("codec_name={name}\n")), "{name}: {text}");
        assert!(text.contains("TAG:title=Mikrofon"), "{text}");
        let (_, text) = output("mkvmerge", &["-J"], &path);
        assert!(text.contains("\"language_ietf\": \"de-AT\""), "{text}");
        let (events, end) = whole(&out);
        assert_eq!(end, Ok(()));
        assert_eq!(configs(&events)[0].tracks[0].codec, codec);
        let tags =
            |event: &Event| matches!(event, Event::Tags(tags) if tags[0].name == "PLACE" && tags[0].value == "door");
        assert!(tags(events.last().unwrap()));
    }
}
