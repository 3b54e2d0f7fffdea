//! Clips of random ranges have the samples of their source, byte for byte and on time, as readers see them that share
//! no code with us: the `mp4` and `matroska-demuxer` crates. 50 ranges a clip; decoded pictures: `clip_media.rs`.

mod support;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use support::{Answer, Archive, Push, START};
use vidar_core::sample::SyncKind;
use vidar_core::track::{StreamConfig, Track, TrackKind};
use vidar_media::Codec;
use vidar_media::codec::nal::iter_length_prefixed;
use vidar_media::container::fmp4::sample_entry;
use vidar_media::demux::Event;

const RANGES: u64 = 50;
/// What sound comes earlier at the beginning of a run settles its decoder.
const LEAD_NS: i64 = 130_000_000;
const MS: i64 = 1_000_000;

/// A sample of the source.
struct Sample {
    /// When it is presented, on the timeline that its tracks share.
    at_ns: i64,
    /// When the next one of its track is.
    end_ns: i64,
    is_sync: bool,
    data: Bytes,
}

/// The samples of a track, in order of decoding.
struct SourceTrack {
    track: Track,
    samples: Vec<Sample>,
}

impl SourceTrack {
    fn is_video(&self) -> bool {
        self.track.kind == TrackKind::Video
    }

    /// Indexes of samples in order of presentation, from the first sync sample on.
    fn shown(&self) -> Vec<usize> {
        let first_ns = self.samples.iter().find(|sample| sample.is_sync).expect("a sync sample").at_ns;
        let mut shown: Vec<usize> = (0..self.samples.len()).filter(|i| self.samples[*i].at_ns >= first_ns).collect();
        shown.sort_by_key(|index| self.samples[*index].at_ns);
        shown
    }
}

/// A clip as our demuxers read it. server/tests/round_trip holds them against ffprobe.
struct Source {
    tracks: Vec<SourceTrack>,
    primary: usize,
}

impl Source {
    fn read(clip: &str) -> Self {
        let mut tracks: Vec<SourceTrack> = Vec::new();
        let mut shifts = Vec::new();
        let mut primary = 0;
        for event in support::events(clip) {
            match event {
                Event::Config(config) if tracks.is_empty() => {
                    primary = config.primary_track().expect("a track");
                    shifts = config.tracks.iter().map(|track| shift_ns(&config, track)).collect();
                    tracks.extend(config.tracks.into_iter().map(|track| SourceTrack { track, samples: Vec::new() }));
                }
                Event::Sample(sample) => {
                    let index = usize::from(sample.track);
                    let of = &mut tracks[index];
                    let hz = i128::from(of.track.timescale_hz);
                    let ns = i128::from(sample.presentation_ticks) * 1_000_000_000 / hz - shifts[index];
                    let at_ns = i64::try_from(ns).unwrap();
                    let is_sync = sample.sync == SyncKind::Sync;
                    of.samples.push(Sample { at_ns, end_ns: i64::MAX, is_sync, data: sample.data });
                }
                _ => {}
            }
        }
        for track in &mut tracks {
            let mut times: Vec<i64> = track.samples.iter().map(|sample| sample.at_ns).collect();
            times.sort_unstable();
            for sample in &mut track.samples {
                let next = times.partition_point(|at| *at <= sample.at_ns);
                sample.end_ns = times.get(next).copied().unwrap_or(sample.at_ns + 20 * MS);
            }
        }
        Self { tracks, primary }
    }
}

/// docs/design/playback.md, Selection: ticks less the edit list's media time; Matroska: less CodecDelay.
fn shift_ns(config: &StreamConfig, track: &Track) -> i128 {
    let trims = track.trims;
    if config.matroska_header.is_empty() {
        let edit_ns = i128::from(trims.edit_start_ticks) * 1_000_000_000 / i128::from(track.timescale_hz);
        edit_ns - i128::from(trims.edit_delay_ms) * 1_000_000
    } else {
        i128::from(trims.codec_delay_ns)
    }
}

/// A sample of a clip.
struct Found {
    /// From the clip's start of presentation.
    at_ns: i64,
    /// It is presented, at least in part.
    presented: bool,
    data: Vec<u8>,
}

/// The tracks of an MP4 clip, each in order of decoding.
fn read_mp4(file: &Bytes) -> Vec<Vec<Found>> {
    let mut reader = mp4::Mp4Reader::read_header(Cursor::new(file.clone()), file.len() as u64).unwrap();
    let movie_hz = i64::from(reader.timescale());
    let mut ids: Vec<u32> = reader.tracks().keys().copied().collect();
    ids.sort_unstable();
    let mut tracks = Vec::new();
    for id in ids {
        let is_video = reader.tracks()[&id].track_type().unwrap() == mp4::TrackType::Video;
        let trak = &reader.tracks()[&id].trak;
        let hz = i128::from(trak.mdia.mdhd.timescale);
        let to_ns = |ticks: i64, hz: i128| i64::try_from(i128::from(ticks) * 1_000_000_000 / hz).unwrap();
        let edits = trak.edts.as_ref().unwrap().elst.as_ref().unwrap().entries.clone();
        let edit = edits.last().unwrap();
        let (media_ticks, delay_ns) = match &edits[..] {
            [empty, _] => (edit.media_time as i64, to_ns(empty.segment_duration as i64, movie_hz.into())),
            _ => (edit.media_time as i64, 0),
        };
        let end_ns = delay_ns + to_ns(edit.segment_duration as i64, movie_hz.into());
        let mut found = Vec::new();
        for number in 1..=reader.sample_count(id).unwrap() {
            let sample = reader.read_sample(id, number).unwrap().unwrap();
            let ticks = sample.start_time as i64 + i64::from(sample.rendering_offset) - media_ticks;
            let at_ns = to_ns(ticks, hz) + delay_ns;
            // Durations are those of decoding: a picture is shown from its time on, sound may begin within a frame.
            let len_ns = to_ns(sample.duration.into(), hz);
            let begins = if is_video { at_ns > delay_ns - MS / 2 } else { at_ns + len_ns > delay_ns + MS / 2 };
            let presented = begins && at_ns < end_ns - 1000;
            found.push(Found { at_ns, presented, data: sample.bytes.to_vec() });
        }
        tracks.push(found);
    }
    tracks
}

/// The tracks of a Matroska clip, each in order of decoding.
fn read_mkv(answer: &Answer) -> Vec<Vec<Found>> {
    let offset_ns: i64 = answer.header("vidar-start-offset-ms").parse::<i64>().unwrap() * MS;
    let mut file = matroska_demuxer::MatroskaFile::open(Cursor::new(answer.body.clone())).unwrap();
    let scale_ns = file.info().timestamp_scale().get() as i64;
    let tracks: Vec<(u64, i64)> = file
        .tracks()
        .iter()
        .map(|track| (track.track_number().get(), track.codec_delay().unwrap_or(0) as i64))
        .collect();
    let mut found: Vec<Vec<Found>> = tracks.iter().map(|_| Vec::new()).collect();
    let mut frame = matroska_demuxer::Frame::default();
    while file.next_frame(&mut frame).unwrap() {
        let index = tracks.iter().position(|(number, _)| *number == frame.track).unwrap();
        let at_ns = frame.timestamp as i64 * scale_ns - tracks[index].1 - offset_ns;
        let presented = !frame.is_invisible && at_ns > -3 * MS / 2;
        found[index].push(Found { at_ns, presented, data: std::mem::take(&mut frame.data) });
    }
    found
}

/// A range, and what of the source belongs to it.
struct Range {
    from_ms: i64,
    to_ms: i64,
    /// Indexes into the primary track, in order of presentation.
    shown: Vec<usize>,
    /// On the source's timeline, where the clip's presentation starts and ends.
    start_ns: i64,
    end_ns: i64,
    /// On the source's timeline, the run's first sync sample.
    zero_ns: i64,
    /// Matroska starts with the keyframe, this far from the start, and so does sound beside it.
    whole_gop_ns: i64,
    tolerance_ns: i64,
}

impl Range {
    /// None if it is a matter of rounding what is shown at its start or its end.
    fn new(source: &Source, from_ms: i64, to_ms: i64, tolerance_ns: i64) -> Option<Self> {
        let primary = &source.tracks[source.primary];
        let order = primary.shown();
        let zero_ns = primary.samples[order[0]].at_ns;
        let after_ns = |index: usize| primary.samples[index].at_ns - zero_ns;
        let vague = |ms: i64| order.iter().any(|index| (1..MS).contains(&(after_ns(*index) - ms * MS).abs()));
        if vague(from_ms) || vague(to_ms) {
            return None;
        }
        let first = order.iter().rposition(|index| after_ns(*index) <= from_ms * MS).unwrap_or(0);
        let shown: Vec<usize> = order[first..].iter().copied().filter(|index| after_ns(*index) < to_ms * MS).collect();
        let trims = primary.track.trims;
        let trim_ns = if first == 0 && !primary.is_video() { trims.codec_delay_ns as i64 } else { 0 };
        let start_ns = primary.samples[*shown.first()?].at_ns + trim_ns;
        Some(Self {
            from_ms,
            to_ms,
            shown,
            start_ns,
            end_ns: zero_ns + to_ms * MS,
            zero_ns,
            whole_gop_ns: 0,
            tolerance_ns,
        })
    }

    fn begins_run(&self) -> bool {
        self.start_ns + self.whole_gop_ns <= self.zero_ns + LEAD_NS
    }

    /// Pictures, or sound alone: what is presented is what belongs to the range, and can be decoded.
    fn check_primary(&self, of: &SourceTrack, found: &[Found]) -> Result<(), String> {
        let mut presented: Vec<&Found> = found.iter().filter(|found| found.presented).collect();
        presented.sort_by_key(|found| found.at_ns);
        if !of.is_video() {
            // Sound that is not cut off where it starts settles its decoder.
            presented.retain(|found| {
                !self.begins_run() || found.at_ns >= of.samples[self.shown[0]].at_ns - self.start_ns - MS
            });
        }
        if presented.len() != self.shown.len() {
            return Err(format!("{} samples are presented, not {}", presented.len(), self.shown.len()));
        }
        for (found, index) in presented.iter().zip(&self.shown) {
            self.check_sample(of, *index, found)?;
        }
        if of.is_video() { self.check_decoding(of, found) } else { Ok(()) }
    }

    /// From a sync sample on all that follows, but not the pictures that lead up to it; until the last that is presented.
    fn check_decoding(&self, of: &SourceTrack, found: &[Found]) -> Result<(), String> {
        let is_first = |sample: &Sample| {
            let off_ns = found[0].at_ns + self.start_ns - sample.at_ns;
            off_ns.abs() <= self.tolerance_ns + self.rounded_ns(of, sample)
        };
        let first = of.samples.iter().position(is_first).filter(|first| of.samples[*first].is_sync);
        let (sync, after) =
            of.samples[first.ok_or("it starts with no sync sample")?..].split_first().expect("it is one");
        let gop_len = after.iter().position(|sample| sample.is_sync).unwrap_or(after.len());
        let (gop, rest) = after.split_at(gop_len);
        let follows = gop.iter().filter(|sample| sample.at_ns > sync.at_ns);
        let expected: Vec<&Sample> = std::iter::once(sync).chain(follows).chain(rest).take(found.len()).collect();
        for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
            if !is_same(&of.track, &expected.data, &found.data) {
                return Err(format!("picture {index} is not the next to be decoded"));
            }
        }
        // Matroska presents what comes before the start, too.
        let from_ns = self.start_ns + self.whole_gop_ns - 2 * MS;
        let ends_well = expected.last().is_some_and(|last| (from_ns..self.end_ns).contains(&last.at_ns));
        if ends_well && expected.len() == found.len() {
            Ok(())
        } else {
            Err(format!("it goes on after the last that is presented: {} pictures", found.len()))
        }
    }

    /// Sound beside pictures: all that is heard in the range is there, and what is presented is heard in the range.
    fn check_beside(&self, of: &SourceTrack, found: &[Found]) -> Result<(), String> {
        let (mut there, mut presented) = (vec![false; of.samples.len()], vec![false; of.samples.len()]);
        for found in found {
            let at_ns = self.start_ns + found.at_ns;
            let nearest = (0..of.samples.len()).min_by_key(|index| (of.samples[*index].at_ns - at_ns).abs());
            let index = nearest.ok_or("a track without samples")?;
            self.check_sample(of, index, found)?;
            presented[index] = found.presented;
            if std::mem::replace(&mut there[index], true) {
                return Err(format!("sample {index} is there twice"));
            }
        }
        for (index, sample) in of.samples.iter().enumerate() {
            let inside_ns = sample.end_ns.min(self.end_ns) - sample.at_ns.max(self.start_ns + self.whole_gop_ns);
            if inside_ns > 2 * MS && !there[index] || inside_ns < -2 * MS && presented[index] {
                return Err(format!("sample {index}: {inside_ns} ns in the range, there: {}", there[index]));
            }
        }
        Ok(())
    }

    /// An edit is of whole ticks of its track: where the start is between two of them, half of one.
    fn rounded_ns(&self, of: &SourceTrack, sample: &Sample) -> i64 {
        let hz = i128::from(of.track.timescale_hz);
        let rest = (i128::from(sample.at_ns - self.start_ns) * hz).rem_euclid(1_000_000_000);
        // Times here are of whole nanoseconds.
        let is_whole = rest.min(1_000_000_000 - rest) <= 3 * hz;
        if is_whole { 0 } else { 500_000_000 / i64::from(of.track.timescale_hz) }
    }

    fn check_sample(&self, of: &SourceTrack, index: usize, found: &Found) -> Result<(), String> {
        let sample = &of.samples[index];
        let off_ns = found.at_ns + self.start_ns - sample.at_ns;
        if off_ns.abs() > self.tolerance_ns + self.rounded_ns(of, sample) {
            return Err(format!("sample {index} is {off_ns} ns off"));
        }
        if is_same(&of.track, &sample.data, &found.data) { Ok(()) } else { Err(format!("sample {index} differs")) }
    }
}

/// Equal bytes; for video of MPEG-TS, and of files with parameter sets in samples, equal NAL units but those.
fn is_same(track: &Track, source: &[u8], found: &[u8]) -> bool {
    let is_h265 = match track.codec {
        Codec::H264 => false,
        Codec::H265 => true,
        _ => return source == found,
    };
    let units = |data: &[u8]| -> Vec<Vec<u8>> {
        let units = iter_length_prefixed(data, 4).map(|unit| unit.expect("whole NAL units").1.to_vec());
        let kept = |unit: &Vec<u8>| match unit.first() {
            Some(first) if is_h265 => !(32..=35).contains(&(first >> 1 & 0x3f)),
            Some(first) => !(7..=9).contains(&(first & 0x1f)),
            None => false,
        };
        units.filter(kept).collect()
    };
    source == found || units(source) == units(found)
}

/// The tracks of a clip are those of the source that have something in the range.
fn check_clip(what: &str, source: &Source, range: &Range, clip: Vec<Vec<Found>>, carried: &[bool]) {
    let mut left: Vec<usize> = (0..source.tracks.len()).filter(|index| carried[*index]).collect();
    for found in clip.iter().filter(|found| !found.is_empty()) {
        let mut faults = Vec::new();
        let same = left.iter().position(|index| {
            let of = &source.tracks[*index];
            let is_primary = *index == source.primary;
            let checked = if is_primary { range.check_primary(of, found) } else { range.check_beside(of, found) };
            checked.map_err(|fault| faults.push(format!("{:?}: {fault}", of.track.codec))).is_ok()
        });
        left.remove(same.unwrap_or_else(|| panic!("{what}: {faults:?}")));
    }
    for index in left {
        assert_ne!(index, source.primary, "{what}: no primary track");
        let missing = range.check_beside(&source.tracks[index], &[]);
        assert_eq!(missing, Ok(()), "{what}: a track is missing");
    }
}

/// The same numbers in each run (SplitMix64, public domain by Sebastiano Vigna).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as i64
    }
}

async fn check(path: &Path) {
    let clip = path.to_str().unwrap();
    let archive = Archive::new();
    let entries = archive.push(Push::new("cam", clip, START)).await;
    let source = Source::read(clip);
    let carried: Vec<bool> = source.tracks.iter().map(|of| sample_entry::encode(&of.track).is_some()).collect();
    let len_ms = entries.last().unwrap().meta.producer_end().since_ms(START);
    let seed = std::env::var("VIDAR_TEST_SEED").map_or(1, |seed| seed.parse().expect("VIDAR_TEST_SEED is a number"));
    let mut random = Random(seed);
    let mut done = 0;
    while done < RANGES {
        let from_ms = random.below(len_ms - 2);
        // Not to the end, which takes along the sound that goes on beyond the last picture.
        let to_ms = from_ms + 1 + random.below(len_ms - from_ms - 1);
        let Some(mut range) = Range::new(&source, from_ms, to_ms, 1000) else { continue };
        done += 1;
        let (start, end) = (START.plus_ms(range.from_ms), START.plus_ms(range.to_ms));
        let what = |container| format!("{clip} {from_ms}..{to_ms} ms as {container}, VIDAR_TEST_SEED={seed}");
        let get = |container| format!("/v1/streams/cam/clip.{container}?start={start}&end={end}");
        if carried[source.primary] {
            let answer = archive.get(&get("mp4")).await;
            assert_eq!(answer.status, 200, "{}: {:?}", what("mp4"), answer.text());
            check_clip(&what("mp4"), &source, &range, read_mp4(&answer.body), &carried);
        }
        let answer = archive.get(&get("mkv")).await;
        assert_eq!(answer.status, 200, "{}: {:?}", what("mkv"), answer.text());
        // Milliseconds, of the sample, of the start, and of CodecDelay.
        range.tolerance_ns = 3 * MS / 2 + 1000;
        let found = read_mkv(&answer);
        range.whole_gop_ns = found[source.primary][0].at_ns.min(0);
        check_clip(&what("mkv"), &source, &range, found, &vec![true; carried.len()]);
    }
}

fn fixtures(extensions: &[&str]) -> Vec<PathBuf> {
    let all = vidar_fixtures::corpus(extensions).into_iter();
    all.filter(|path| path.starts_with(vidar_fixtures::data_dir()) && !path.ends_with("bbb.mp4")).collect()
}

#[tokio::test]
async fn of_matroska() {
    for path in fixtures(&["mkv", "webm"]) {
        check(&path).await;
    }
}

#[tokio::test]
async fn of_mp4() {
    for path in fixtures(&["mp4"]) {
        check(&path).await;
    }
}

#[tokio::test]
async fn of_mpeg_ts() {
    for path in fixtures(&["ts"]) {
        check(&path).await;
    }
}

/// Two captures end within a block, and one of them has many documents: server/tests/round_trip.
#[tokio::test]
async fn of_the_corpus() {
    let folder = tempfile::tempdir().unwrap();
    for path in vidar_fixtures::pushable_corpus(folder.path()) {
        if !path.starts_with(folder.path()) && path.extension().is_some_and(|extension| extension == "mkv") {
            continue;
        }
        check(&path).await;
    }
}
