//! Transport streams against other readers: ffprobe for times and key flags, the same clip in Matroska for content.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use matroska_demuxer::{Frame, MatroskaFile};
use vidar_media::codec::{h264, h265, nal};
use vidar_media::container::ts;
use vidar_media::{Codec, Demux, Event, RawSample, StreamConfig, SyncKind};

/// The tracks and samples of a stream with one config.
fn demux(path: &Path) -> (StreamConfig, Vec<RawSample>) {
    let mut events = Vec::new();
    let mut demuxer = ts::Demuxer::new();
    demuxer.push(std::fs::read(path).unwrap().into(), &mut events).unwrap();
    demuxer.finish(&mut events).unwrap();
    let mut events = events.into_iter();
    let Some(Event::Config(config)) = events.next() else { panic!("no config first") };
    let samples = events.map(|event| match event {
        Event::Sample(sample) => sample,
        other => panic!("{other:?}"),
    });
    (config, samples.collect())
}

/// A clip that a muxer makes of a fixture.
fn muxed(name: &str, program: &str, args: &[&str]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let args: Vec<String> = args
        .iter()
        .map(|arg| match arg.strip_prefix('@') {
            Some(fixture) => vidar_fixtures::path(fixture).display().to_string(),
            None => arg.replace("OUT", &path.display().to_string()),
        })
        .collect();
    let output = Command::new(program).args(args).output().expect("the muxer runs");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    path
}

fn ffmpeg(name: &str, args: &[&str]) -> PathBuf {
    let head = ["-hide_banner", "-loglevel", "error", "-y"];
    muxed(name, "ffmpeg", &[&head, args, &["OUT"]].concat())
}

/// PTS, DTS, whether it is a key frame, size.
type Packet = (i64, Option<i64>, bool, usize);

/// Packets by PID.
fn ffprobe(path: &Path) -> BTreeMap<u64, Vec<Packet>> {
    let run = |entries: &str| {
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", entries, "-of", "csv=p=0"])
            .arg(path)
            .output()
            .expect("ffprobe runs");
        String::from_utf8(output.stdout).unwrap()
    };
    let ids: BTreeMap<String, u64> = run("stream=index,id")
        .lines()
        .filter_map(|line| {
            let (index, id) = line.trim_end_matches(',').split_once(',')?;
            Some((index.to_owned(), u64::from_str_radix(id.strip_prefix("0x")?, 16).ok()?))
        })
        .collect();
    let mut packets = BTreeMap::<u64, Vec<_>>::new();
    for line in run("packet=stream_index,pts,dts,size,flags").lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let [index, pts, dts, size, flags, ..] = fields[..] else { continue };
        let packet = (pts.parse().unwrap(), dts.parse().ok(), flags.starts_with('K'), size.parse().unwrap());
        packets.entry(ids[index]).or_default().push(packet);
    }
    packets
}

/// All packets have the times and key flags that ffprobe finds. Opaque tracks: PES packets hold several of its packets.
fn agrees_with_ffprobe(path: &Path) {
    let (config, samples) = demux(path);
    let expected = ffprobe(path);
    for (index, track) in config.tracks.iter().enumerate() {
        let place = format!("{} PID {}", path.display(), track.source_number);
        let mut found: Vec<Packet> = samples
            .iter()
            .filter(|sample| usize::from(sample.track) == index)
            .map(|sample| {
                let key = sample.sync == SyncKind::Sync;
                (sample.presentation_ticks, sample.decode_ticks, key, sample.data.len())
            })
            .collect();
        let mut expected = expected[&track.source_number].clone();
        // Where the clock begins anew, ffprobe counts from below 0.
        let wraps = (found[0].0 - expected[0].0) / (1 << 33);
        let unwrapped = |time: i64| time + (wraps << 33);
        for packet in &mut expected {
            packet.0 = unwrapped(packet.0);
            // Without any decode time in the stream ffprobe makes some up.
            packet.1 = packet.1.map(unwrapped).filter(|_| found[0].1.is_some());
        }
        if track.codec == Codec::Opaque {
            let bytes = |packets: &[Packet]| packets.iter().map(|packet| packet.3).sum::<usize>();
            assert_eq!((found[0].0, bytes(&found)), (expected[0].0, bytes(&expected)), "{place}");
            assert!(found.iter().all(|packet| expected.iter().any(|other| (packet.0, packet.1) == (other.0, other.1))));
            continue;
        }
        // Sizes differ by headers and start codes.
        found.iter_mut().chain(&mut expected).for_each(|packet| packet.3 = 0);
        // ffprobe adds rounded durations up.
        let near = |(a, b): (&Packet, &Packet)| (a.0 - b.0).abs() <= 1 && a.2 == b.2;
        let exact = track.video.is_some() || track.audio.is_some_and(|audio| audio.sample_rate_hz == 48_000);
        let near = !exact && found.len() == expected.len() && found.iter().zip(&expected).all(near);
        assert!(near || found == expected, "{place}: {found:?}, expected {expected:?}");
    }
}

#[test]
fn times_and_key_frames_are_those_of_ffprobe() {
    let clips = vidar_fixtures::corpus(&["ts"]);
    assert!(clips.len() >= 4);
    for path in clips {
        agrees_with_ffprobe(&path);
        assert_eq!(ffprobe(&path).len(), demux(&path).0.tracks.len(), "{}", path.display());
    }
}

#[test]
fn streams_of_other_muxers_and_options_are_read_alike() {
    let copy = ["-c", "copy"];
    let clip = |name: &str, args: &[&str]| ffmpeg(name, &[args, &copy[..]].concat());
    agrees_with_ffprobe(&ffmpeg("m2ts.ts", &["-i", "@bbb.mkv", "-c", "copy", "-mpegts_m2ts_mode", "1"]));
    agrees_with_ffprobe(&clip("opus.ts", &["-i", "@audio_opus.mkv"]));
    agrees_with_ffprobe(&clip("mp3.ts", &["-i", "@audio_mp3.mkv"]));
    let bounded = ["-i", "@bbb.mkv", "-c", "copy", "-omit_video_pes_length", "0", "-pes_payload_size", "0"];
    agrees_with_ffprobe(&ffmpeg("bounded.ts", &bounded));
    let flags = "+resend_headers+initial_discontinuity+pat_pmt_at_frames+system_b";
    agrees_with_ffprobe(&ffmpeg("flags.ts", &["-i", "@bbb.mkv", "-c", "copy", "-mpegts_flags", flags]));
    // The clock wraps 3 s after the start.
    let wrap = ["-i", "@bbb.mkv", "-c", "copy", "-muxdelay", "0", "-output_ts_offset", "95440.7"];
    agrees_with_ffprobe(&ffmpeg("wrap.ts", &wrap));

    let picture = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2"];
    let tone = ["-f", "lavfi", "-i", "sine=sample_rate=44100:duration=2"];
    let made = |name: &str, args: &[&str]| ffmpeg(name, &[&picture[..], &tone, args].concat());
    let hrd = "nal-hrd=cbr:bufsize=400:vbv-maxrate=400:aud=1:slices=4";
    let x264 = ["-c:v", "libx264", "-g", "25", "-b:v", "400k", "-x264-params", hrd, "-c:a", "aac"];
    agrees_with_ffprobe(&made("filler.ts", &x264));
    let four_channels = ["-map", "1", "-af", "aformat=channel_layouts=quad", "-c:a", "aac"];
    let path = made("quad.ts", &four_channels);
    agrees_with_ffprobe(&path);
    assert_eq!(demux(&path).0.tracks[0].audio.unwrap().channels, 4);
    let interlaced = ["-c:v", "libx264", "-g", "25", "-flags", "+ildct+ilme", "-c:a", "mp2"];
    agrees_with_ffprobe(&made("interlaced.ts", &interlaced));
    agrees_with_ffprobe(&made("opaque.ts", &["-c:v", "mpeg2video", "-g", "10", "-bf", "2", "-c:a", "ac3"]));

    let pipeline = "filesrc location=IN ! matroskademux name=d  mpegtsmux name=m ! filesink location=OUT \
                    d.video_0 ! queue ! h264parse ! m.  d.audio_0 ! queue ! aacparse ! m.";
    let pipeline = pipeline.replace("IN", &vidar_fixtures::path("bbb.mkv").display().to_string());
    let words: Vec<&str> = ["-q"].into_iter().chain(pipeline.split_whitespace()).collect();
    let path = muxed("gst.ts", "gst-launch-1.0", &words);
    agrees_with_ffprobe(&path);
    // It writes no decode times, though there are B pictures.
    assert!(demux(&path).1.iter().all(|sample| sample.decode_ticks.is_some() == (sample.track == 1)));
}

#[test]
fn of_two_programs_one_is_read() {
    let programs = ["-program", "title=a:st=0", "-program", "title=b:st=1"];
    let inputs = ["-i", "@h264_ip.mkv", "-i", "@h264_short_gop.mkv", "-map", "0:v", "-map", "1:v", "-c", "copy"];
    let path = ffmpeg("programs.ts", &[&inputs[..], &programs].concat());
    assert_eq!(ffprobe(&path).len(), 2);
    assert_eq!(demux(&path).0.tracks.len(), 1);
    agrees_with_ffprobe(&path);
}

/// NAL units of a sample, without those that Matroska keeps in private data: parameter sets, and x265's SEI.
fn nals(codec: Codec, data: &[u8]) -> Vec<Bytes> {
    let content = |nal: &&[u8]| match codec {
        Codec::H264 => !matches!(h264::nal_unit_type(nal), 7..=9),
        _ => !matches!(h265::nal_unit_type(nal), 32..=35 | 39),
    };
    let nals = nal::iter_length_prefixed(data, 4).map(|nal| nal.unwrap().1);
    nals.filter(content).map(Bytes::copy_from_slice).collect()
}

#[test]
fn content_is_that_of_the_same_clip_in_matroska() {
    let copy = |name: &str, args: &[&str]| ffmpeg(name, &[args, &["-c", "copy"]].concat());
    let bounded = copy("bounded_content.ts", &["-i", "@h264_pyramid.mkv", "-omit_video_pes_length", "0"]);
    for (ts, mkv) in [
        (vidar_fixtures::path("bbb.ts"), "bbb.mkv"),
        (vidar_fixtures::path("h264_open_gop.ts"), "h264_open_gop.mkv"),
        (vidar_fixtures::path("h265.ts"), "h265_open_gop.mkv"),
        (vidar_fixtures::path("audio_aac.ts"), "audio_aac.mkv"),
        (copy("opus_content.ts", &["-i", "@audio_opus.mkv"]), "audio_opus.mkv"),
        (copy("mp3_content.ts", &["-i", "@audio_mp3.mkv"]), "audio_mp3.mkv"),
        (bounded, "h264_pyramid.mkv"),
    ] {
        let (config, samples) = demux(&ts);
        let ts = ts.display();
        let mut file = MatroskaFile::open(File::open(vidar_fixtures::path(mkv)).unwrap()).unwrap();
        let mut expected = vec![Vec::new(); config.tracks.len()];
        let mut frame = Frame::default();
        while file.next_frame(&mut frame).unwrap() {
            expected[frame.track as usize - 1].push((frame.timestamp as i64, frame.data.clone()));
        }
        assert_eq!(file.tracks().len(), config.tracks.len());
        let mut offsets = Vec::new();
        for (index, (track, entry)) in config.tracks.iter().zip(file.tracks()).enumerate() {
            let found: Vec<&RawSample> = samples.iter().filter(|s| usize::from(s.track) == index).collect();
            assert_eq!(found.len(), expected[index].len(), "{ts} track {index}");
            for (sample, (ms, data)) in found.iter().zip(&expected[index]) {
                if track.video.is_some() {
                    let same = nals(track.codec, &sample.data) == nals(track.codec, data);
                    assert!(same, "{ts} at {ms} ms");
                } else {
                    assert!(sample.data == data[..], "{ts} at {ms} ms");
                }
                offsets.push(sample.presentation_ticks - ms * 90);
            }
            let private = entry.codec_private().unwrap_or_default();
            match track.codec {
                Codec::H264 => {
                    let (ours, theirs) = (h264::parse_avcc(&track.codec_private), h264::parse_avcc(private));
                    assert_eq!(ours, theirs);
                }
                Codec::H265 => {
                    let (ours, theirs) = (h265::parse_hvcc(&track.codec_private), h265::parse_hvcc(private));
                    assert_eq!(ours, theirs);
                }
                Codec::Aac => assert_eq!(track.codec_private[..2], private[..2]),
                Codec::Opus => assert_eq!(track.codec_private, private),
                _ => assert!(track.codec_private.is_empty()),
            }
        }
        // One constant for all tracks, but for the rounding to milliseconds.
        let (least, most) = (offsets.iter().min().unwrap(), offsets.iter().max().unwrap());
        assert!(most - least <= 90, "{ts}: offsets from {least} to {most}");
    }
}
