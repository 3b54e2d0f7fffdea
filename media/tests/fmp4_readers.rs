//! ffprobe and the `mp4` crate agree with us: on what we read, and on what we write.

use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use vidar_core::time::ticks_to_ms_nearest;
use vidar_media::container::fmp4::segment::{SegmentStart, TrackRun};
use vidar_media::container::fmp4::{Demuxer, init, sample_entry, segment};
use vidar_media::table::SampleEntry;
use vidar_media::{Codec, Demux, Event, RawSample, StreamConfig, SyncKind};

const FRAGMENTED: [&str; 7] =
    ["bbb_frag.mp4", "bbb_cmaf.mp4", "h264_open_gop.mp4", "h265.mp4", "av1_opus.mp4", "vp9_opus.mp4", "audio_aac.mp4"];

/// A packet as ffprobe shows it: presentation time, decode time, size, whether it is a keyframe.
type Packet = (i64, i64, usize, bool);

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the tool is installed");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// The packets of each stream.
fn ffprobe(path: &Path, stream_count: usize) -> Vec<Vec<Packet>> {
    let entries = "packet=stream_index,pts,dts,size,flags";
    let mut command = Command::new("ffprobe");
    let text = run(command.args(["-v", "error", "-of", "csv=p=0", "-show_entries", entries]).arg(path));
    let mut streams = vec![Vec::new(); stream_count];
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |index: usize| fields[index].parse::<i64>().expect("a number");
        let packet = (number(1), number(2), number(3) as usize, fields[4].starts_with('K'));
        streams[number(0) as usize].push(packet);
    }
    streams
}

fn demux(bytes: Vec<u8>) -> (StreamConfig, Vec<Vec<RawSample>>) {
    let (mut events, mut demuxer) = (Vec::new(), Demuxer::new());
    demuxer.push(bytes.into(), &mut events).expect("a whole file");
    demuxer.finish(&mut events).expect("a whole file");
    let Some(Event::Config(config)) = events.first().cloned() else { panic!("no config first") };
    let mut tracks = vec![Vec::new(); config.tracks.len()];
    for event in events {
        if let Event::Sample(sample) = event {
            tracks[usize::from(sample.track)].push(sample);
        }
    }
    (config, tracks)
}

/// Our samples as packets, times less `start`.
///
/// Where a sample is shown before its decode time, ffmpeg delays what it shows of the whole track until none is
/// (`dts_shift` in its reader); the standard does not.
fn packets(samples: &[RawSample], start: i64) -> Vec<Packet> {
    let decode_ticks = |s: &RawSample| s.decode_ticks.expect("MP4 says when to decode");
    let delay = samples.iter().map(|s| decode_ticks(s) - s.presentation_ticks).max().unwrap_or(0).max(0);
    let packet = |s: &RawSample| {
        (s.presentation_ticks + delay - start, decode_ticks(s) - start, s.data.len(), s.sync == SyncKind::Sync)
    };
    samples.iter().map(packet).collect()
}

fn entry(sample: &RawSample) -> SampleEntry {
    let decode_ticks = sample.decode_ticks.expect("MP4 says when to decode");
    SampleEntry {
        decode_ticks,
        composition_ticks: (sample.presentation_ticks - decode_ticks) as i32,
        duration_ticks: sample.duration_ticks.unwrap_or(1),
        duration_estimated: false,
        sync: sample.sync,
        block_flags: 0,
        size: sample.data.len() as u32,
        arrival: 0,
        drops: Vec::new(),
    }
}

/// The chosen tracks as an init segment and one segment of all samples.
fn mux(config: &StreamConfig, tracks: &[Vec<RawSample>], chosen: &[u8]) -> Vec<u8> {
    let init = init::encode(config, chosen, init::InitOptions::default()).expect("MP4 has a place for them");
    let samples = |index: &u8| &tracks[usize::from(*index)];
    let tables: Vec<Vec<SampleEntry>> = chosen.iter().map(|index| samples(index).iter().map(entry).collect()).collect();
    let run = |(index, samples): (&u8, &Vec<SampleEntry>)| -> (u32, u64) {
        (init::track_id(*index), samples[0].decode_ticks as u64)
    };
    let heads: Vec<_> = chosen.iter().zip(&tables).map(run).collect();
    let runs: Vec<_> = heads
        .iter()
        .zip(&tables)
        .map(|((track_id, base), samples)| TrackRun { track_id: *track_id, base_decode_ticks: *base, samples })
        .collect();
    let header = segment::header(SegmentStart::Segment, 1, &runs).expect("less than 2 GiB");
    let media = chosen.iter().flat_map(samples).flat_map(|sample| sample.data.iter().copied());
    let file: Vec<u8> = init.into_iter().chain(header.bytes).chain(media).collect();
    file
}

#[test]
fn ffprobe_sees_the_packets_that_we_see() {
    for name in FRAGMENTED {
        let (config, tracks) = demux(vidar_fixtures::read(name));
        let theirs = ffprobe(&vidar_fixtures::path(name), tracks.len());
        for (index, samples) in tracks.iter().enumerate() {
            assert!(samples.len() > 90, "{name} {index}");
            assert_eq!(packets(samples, 0), theirs[index], "{name} {}", config.tracks[index].codec_id);
        }
    }
}

#[test]
fn ffprobe_sees_the_packets_that_we_write() {
    let folder = new_folder();
    for name in FRAGMENTED {
        let (config, tracks) = demux(vidar_fixtures::read(name));
        let all: Vec<u8> = (0..tracks.len() as u8).collect();
        for chosen in [&all[..], &all[..1]] {
            let path = folder.join(name);
            let bytes = mux(&config, &tracks, chosen);
            std::fs::write(&path, &bytes).expect("a file");
            let theirs = ffprobe(&path, chosen.len());
            for (index, samples) in theirs.iter().enumerate() {
                assert_eq!(*samples, packets(&tracks[index], 0), "{name}");
            }
            let (again, samples) = demux(bytes);
            let private =
                |config: &StreamConfig| config.tracks.iter().map(|t| t.codec_private.clone()).collect::<Vec<_>>();
            assert_eq!(private(&again), private(&config)[..chosen.len()]);
            let data = |tracks: &[Vec<RawSample>]| tracks.iter().flatten().map(|s| s.data.clone()).collect::<Vec<_>>();
            assert_eq!(data(&samples), data(&tracks[..chosen.len()]), "{name}");
        }
    }
    std::fs::remove_dir_all(folder).expect("our folder");
}

/// How ffmpeg can fragment. With an edit list, it shows times less the edit's media time.
#[test]
fn every_way_of_ffmpeg_to_fragment_is_read() {
    let ways: [(&str, &[&str]); 9] = [
        ("edits.mp4", &["-movflags", "+frag_keyframe+empty_moov+delay_moov+default_base_moof"]),
        ("delay.mp4", &["-movflags", "+frag_keyframe+delay_moov+default_base_moof", "-output_ts_offset", "0.5"]),
        ("frame.mp4", &["-movflags", "+frag_every_frame+empty_moov"]),
        ("separate.mp4", &["-movflags", "+frag_keyframe+empty_moov+separate_moof"]),
        ("no_offset.mp4", &["-movflags", "+frag_keyframe+empty_moov+omit_tfhd_offset"]),
        ("dash.mp4", &["-movflags", "+frag_keyframe+dash+delay_moov+global_sidx"]),
        ("signed.mp4", &["-movflags", "+frag_keyframe+empty_moov+negative_cts_offsets"]),
        ("prft.mp4", &["-movflags", "+frag_keyframe+empty_moov", "-write_prft", "wallclock"]),
        ("smooth.ismv", &["-movflags", "+frag_keyframe"]),
    ];
    let folder = new_folder();
    let (mut edited, mut delayed) = (0, 0);
    for (name, options) in ways {
        let path = folder.join(name);
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-y", "-i"]).arg(vidar_fixtures::path("bbb.mp4"));
        run(command.args(["-c", "copy"]).args(options).arg(&path));
        let (config, tracks) = demux(std::fs::read(&path).expect("made"));
        let theirs = ffprobe(&path, tracks.len());
        for (index, samples) in tracks.iter().enumerate() {
            let track = &config.tracks[index];
            let start = track.trims.edit_start_ticks;
            let ours = packets(samples, start);
            let delay = theirs[index][0].1 - ours[0].1;
            assert_eq!(ticks_to_ms_nearest(delay, track.timescale_hz), track.trims.edit_delay_ms, "{name} {index}");
            let theirs: Vec<Packet> = theirs[index].iter().map(|p| (p.0 - delay, p.1 - delay, p.2, p.3)).collect();
            assert_eq!(ours, theirs, "{name} {index}");
            edited += usize::from(start != 0);
            delayed += usize::from(delay != 0);
        }
    }
    assert!(edited > 0 && delayed > 0, "there are edit lists: {edited}, {delayed}");
    std::fs::remove_dir_all(folder).expect("our folder");
}

/// As mp4mux fragments: a `uuid` box between, and a fragment that starts without a sync sample where it is cut by time.
#[test]
fn the_fragments_of_gstreamer_are_read() {
    let folder = new_folder();
    let path = folder.join("gst.mp4");
    let source = vidar_fixtures::path("bbb.mp4");
    let pipeline = format!(
        "filesrc location={} ! qtdemux name=d d.video_0 ! queue ! h264parse ! \
         mp4mux name=m fragment-duration=500 streamable=true ! filesink location={} d.audio_0 ! queue ! aacparse ! m.",
        source.display(),
        path.display()
    );
    run(Command::new("gst-launch-1.0").arg("-q").args(pipeline.split_whitespace()));
    let (config, tracks) = demux(std::fs::read(&path).expect("made"));
    let theirs = ffprobe(&path, tracks.len());
    for (index, samples) in tracks.iter().enumerate() {
        let trims = config.tracks[index].trims;
        assert_eq!(packets(samples, trims.edit_start_ticks), theirs[index], "{index} {trims:?}");
    }
    std::fs::remove_dir_all(folder).expect("our folder");
}

#[test]
fn the_mp4_crate_reads_our_codec_boxes() {
    for (name, kind) in [
        ("bbb_frag.mp4", mp4::MediaType::H264),
        ("h265.mp4", mp4::MediaType::H265),
        ("vp9_opus.mp4", mp4::MediaType::VP9),
        ("audio_aac.mp4", mp4::MediaType::AAC),
    ] {
        let (mut config, tracks) = demux(vidar_fixtures::read(name));
        // The only entry of H.265 that it knows is hev1.
        config.tracks[0].in_band_parameter_sets = config.tracks[0].codec == Codec::H265;
        let bytes = mux(&config, &tracks, &[0]);
        let len = bytes.len() as u64;
        let reader = mp4::Mp4Reader::read_header(Cursor::new(bytes), len).expect(name);
        let track = &reader.tracks()[&1];
        assert_eq!(track.media_type().expect(name), kind, "{name}");
        assert_eq!(track.timescale(), config.tracks[0].timescale_hz);
        assert_eq!(track.sample_count() as usize, tracks[0].len(), "{name}");
        if let Some(video) = config.tracks[0].video.filter(|_| kind != mp4::MediaType::H265) {
            assert_eq!((u32::from(track.width()), u32::from(track.height())), (video.width, video.height));
        }
    }
}

#[test]
fn ffprobe_names_the_codecs_of_our_sample_entries() {
    let mut seen = Vec::new();
    let folder = new_folder();
    for name in FRAGMENTED {
        let (config, tracks) = demux(vidar_fixtures::read(name));
        for index in 0..tracks.len() {
            let path = folder.join("one.mp4");
            std::fs::write(&path, mux(&config, &tracks, &[index as u8])).expect("a file");
            let mut command = Command::new("ffprobe");
            command.args(["-v", "error", "-of", "csv=p=0", "-show_entries", "stream=codec_name"]);
            let codec_name = run(command.arg(&path)).trim().to_owned();
            let codec_string = sample_entry::codec_string(&config.tracks[index]).expect("one");
            seen.push(format!("{codec_name} {codec_string}"));
        }
    }
    seen.sort();
    seen.dedup();
    expect_test::expect![[r#"
        aac mp4a.40.2
        av1 av01.0.00M.08
        h264 avc1.64000c
        h264 avc1.64000d
        hevc hvc1.1.6.L30.90
        opus opus
        vp9 vp09.00.10.08
    "#]]
    .assert_eq(&(seen.join("\n") + "\n"));
    std::fs::remove_dir_all(folder).expect("our folder");
}

/// Every fragmented file of the corpus demuxes; every other MP4 is refused.
#[test]
fn the_corpus_is_read_or_refused() {
    for path in vidar_fixtures::corpus(&["mp4"]) {
        let bytes = Bytes::from(std::fs::read(&path).expect("a readable clip"));
        let is_fragmented = bytes.windows(4).any(|window| window == b"moof");
        let (mut events, mut demuxer) = (Vec::new(), Demuxer::new());
        let end = demuxer.push(bytes, &mut events).and_then(|()| demuxer.finish(&mut events));
        assert_eq!(end.is_ok(), is_fragmented, "{}: {end:?}", path.display());
    }
}

/// A new folder of our own.
fn new_folder() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("fmp4-readers-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}
