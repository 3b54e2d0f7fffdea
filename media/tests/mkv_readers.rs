//! Other programs read what we write: mkvmerge, ffmpeg.

mod mkv_common;

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use mkv_common::{clips, configs, remux, samples, whole};
use vidar_media::container::mkv::mux;
use vidar_media::{AudioParams, Codec, Event, NalFraming, PcmFormat, StreamConfig, Tag, Track, TrackKind, Trims};

/// Runs a program on a file, or without one.
fn output(program: &str, arguments: &[&str], path: Option<&Path>) -> (bool, String) {
    let mut command = Command::new(program);
    let output = command.args(arguments).args(path).output().unwrap_or_else(|error| panic!("{program}: {error}"));
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
    let (ok, text) = output("ffprobe", &arguments, Some(path));
    assert!(ok, "{}: {text}", path.display());
    // What is to be cut off the last packet (DiscardPadding) is not kept.
    text.lines().filter(|line| !line.contains("side_data")).collect::<Vec<_>>().join("\n")
}

fn assert_readable(path: &Path) {
    let (ok, text) = output("mkvmerge", &["-J"], Some(path));
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
    // Captures are cut off in mid-picture, or are several documents.
    let clips: Vec<_> = clips().into_iter().filter(|(name, _)| !name.starts_with("kvs_")).collect();
    std::thread::scope(|scope| {
        for half in clips.chunks(clips.len().div_ceil(2)) {
            scope.spawn(|| half.iter().for_each(|(name, bytes)| check_written_again(name, bytes)));
        }
    });
}

fn check_written_again(name: &str, bytes: &[u8]) {
    let (events, _) = whole(bytes);
    let (config, samples) = (&configs(&events)[0], samples(&events));
    // ffprobe guesses times within a lace.
    let laced = name == "laced.mkv";
    let expected = if laced { String::new() } else { packets(&keep(&format!("source_{name}"), bytes)) };
    let known = keep(&format!("known_{name}"), &remux(config, &samples, false));
    assert_readable(&known);
    assert!(laced || packets(&known) == expected, "{name}");
    // The same blocks in clusters of unknown size.
    let live = keep(&format!("live_{name}"), &remux(config, &samples, true));
    assert_readable(&live);
    assert!(laced || packets(&live) == expected, "{name}");
}

/// Runs a program that writes a file of this name, and reads it.
fn made(name: &str, program: &str, arguments: &[&str]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    let path_text = path.to_str().unwrap();
    let arguments: Vec<&str> =
        arguments.iter().map(|argument| if *argument == "OUT" { path_text } else { argument }).collect();
    let (ok, text) = output(program, &arguments, None);
    assert!(ok, "{program} {arguments:?}: {text}");
    std::fs::read(path).unwrap()
}

/// Bytes of the samples of each track.
fn data_by_track(events: &[Event]) -> Vec<Vec<Bytes>> {
    let tracks = configs(events)[0].tracks.len() as u8;
    let of = |track| samples(events).into_iter().filter(move |s| s.track == track).map(|s| s.data).collect();
    (0..tracks).map(of).collect()
}

#[test]
fn what_mkvmerge_makes_of_a_clip_has_the_same_samples() {
    let source = vidar_fixtures::path("laced.mkv");
    let source = source.to_str().unwrap();
    let (plain, _) = whole(&vidar_fixtures::read("laced.mkv"));
    let expected = data_by_track(&plain);
    for (index, options) in [
        &["--engage", "lacing_xiph"][..],
        &["--engage", "lacing_ebml"],
        &["--engage", "no_simpleblocks"],
        &["--disable-lacing"],
        &["--cluster-length", "100ms"],
        &["--timestamp-scale", "100000"],
        &["--timestamp-scale", "20833"],
    ]
    .into_iter()
    .enumerate()
    {
        let bytes =
            made(&format!("variant{index}.mkv"), "mkvmerge", &[&["-q", "-o", "OUT"], options, &[source]].concat());
        let (events, end) = whole(&bytes);
        assert_eq!(end, Ok(()), "{options:?}");
        assert!(data_by_track(&events) == expected, "{options:?}");
        let ms = |events: &[Event]| -> Vec<i64> {
            let hz = i64::from(configs(events)[0].tracks[0].timescale_hz);
            samples(events)
                .iter()
                .filter(|s| s.track == 0)
                .map(|s| (s.presentation_ticks * 1000 + hz / 2) / hz)
                .collect()
        };
        assert_eq!(ms(&events), ms(&plain), "{options:?}");
        let written = keep(&format!("written{index}.mkv"), &remux(&configs(&events)[0], &samples(&events), false));
        let (ok, text) = output("mkvmerge", &["-J"], Some(&written));
        assert!(ok, "{options:?}: {text}");
    }
}

#[test]
fn stripped_and_compressed_tracks_are_the_same_to_other_programs() {
    let picture = ["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc=size=64x48:duration=1", "-c:v", "mpeg4", "OUT"];
    made("plain_mpeg4.mkv", "ffmpeg", &picture);
    let plain = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plain_mpeg4.mkv");
    let hashes =
        |text: &str| -> Vec<String> { text.lines().filter(|l| l.contains("data_hash")).map(str::to_owned).collect() };
    for (compression, stripped) in [("0:mpeg4_p2", true), ("0:zlib", false)] {
        let arguments = ["-q", "--compression", compression, "-o", "OUT", plain.to_str().unwrap()];
        let (events, end) = whole(&made("encoded_mpeg4.mkv", "mkvmerge", &arguments));
        assert_eq!(end, Ok(()));
        // MPEG-4 pictures begin with a start code.
        assert_eq!(samples(&events).iter().all(|sample| sample.data.starts_with(&[0, 0, 1])), stripped);
        // Stripped frames of mkvmerge 74 do not decode, but are packets all the same.
        let expected = packets(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("encoded_mpeg4.mkv"));
        let written = keep("written_mpeg4.mkv", &remux(&configs(&events)[0], &samples(&events), false));
        assert!(output("mkvmerge", &["-J"], Some(&written)).0, "{compression}");
        assert_eq!(hashes(&packets(&written)), hashes(&expected), "{compression}");
    }
}

#[test]
fn what_programs_stream_is_read_to_its_end() {
    let clip = vidar_fixtures::path("bbb.mkv");
    let clip = clip.to_str().unwrap();
    let (plain, _) = whole(&vidar_fixtures::read("bbb.mkv"));
    let streamed = |options: &[&str]| {
        let arguments =
            [&["-v", "error", "-i", clip, "-map", "0", "-c", "copy"], options, &["-f", "matroska", "-"]].concat();
        Command::new("ffmpeg").args(arguments).output().unwrap().stdout
    };
    for options in [&[][..], &["-cluster_time_limit", "100"], &["-live", "1"], &["-write_crc32", "0"]] {
        let (events, end) = whole(&streamed(options));
        assert_eq!(end, Ok(()), "{options:?}");
        assert!(data_by_track(&events) == data_by_track(&plain), "{options:?}");
    }
    let pipeline = "videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48 ! vp8enc ! matroskamux streamable=true ! filesink location=";
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gst.mkv");
    let pipeline = format!("{pipeline}{}", path.display());
    let made = Command::new("gst-launch-1.0").arg("-q").args(pipeline.split(' ')).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (events, end) = whole(&std::fs::read(path).unwrap());
    assert_eq!((samples(&events).len(), end), (30, Ok(())));
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
        let (_, text) = output("ffprobe", &["-v", "error", "-show_streams", "-show_format"], Some(&path));
        assert!(text.contains(&format!("codec_name={name}\n")), "{name}: {text}");
        assert!(text.contains("TAG:title=Mikrofon"), "{text}");
        let (_, text) = output("mkvmerge", &["-J"], Some(&path));
        assert!(text.contains("\"language_ietf\": \"de-AT\""), "{text}");
        let (events, end) = whole(&out);
        assert_eq!(end, Ok(()));
        assert_eq!(configs(&events)[0].tracks[0].codec, codec);
        let tags =
            |event: &Event| matches!(event, Event::Tags(tags) if tags[0].name == "PLACE" && tags[0].value == "door");
        assert!(tags(events.last().unwrap()));
    }
}
