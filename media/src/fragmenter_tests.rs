//! Events in, a line of text for each output: what is cut where.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use vidar_core::track::{AudioParams, Codec, NalFraming, Trims, VideoParams};

use super::*;
use crate::table::Table;

fn track(kind: TrackKind, timescale_hz: u32) -> Track {
    Track {
        source_number: if kind == TrackKind::Video { 1 } else { 2 },
        kind,
        codec: Codec::Opaque,
        codec_id: "test".into(),
        codec_private: Bytes::new(),
        timescale_hz,
        framing: NalFraming::None,
        in_band_parameter_sets: false,
        video: (kind == TrackKind::Video).then(VideoParams::default),
        audio: (kind == TrackKind::Audio).then(AudioParams::default),
        default_duration_ticks: None,
        trims: Trims::default(),
        language: String::new(),
        name: String::new(),
    }
}

fn config(kinds: &[TrackKind]) -> Event {
    let tracks = kinds.iter().map(|kind| track(*kind, 1000)).collect();
    Event::Config(StreamConfig { tracks, matroska_header: Bytes::new() })
}

fn sample(track: u8, presentation_ticks: i64, sync: bool, len: usize) -> Event {
    let sync = if sync { SyncKind::Sync } else { SyncKind::None };
    let data = Bytes::from(vec![track; len]);
    Event::Sample(RawSample {
        track,
        presentation_ticks,
        decode_ticks: None,
        duration_ticks: None,
        sync,
        block_flags: 0,
        data,
    })
}

const AV: &[TrackKind] = &[TrackKind::Video, TrackKind::Audio];

fn run(options: Options, events: Vec<Event>) -> Vec<Output> {
    let mut fragmenter = Fragmenter::new(options);
    let mut out = Vec::new();
    for event in events {
        fragmenter.push(event, &mut out).unwrap();
    }
    fragmenter.finish(true, &mut out);
    out
}

fn tables(cut: &Cut) -> Vec<Table> {
    cut.table.pieces.iter().map(|piece| Table::decode(&piece.table).unwrap()).collect()
}

fn describe(out: &[Output]) -> String {
    let mut text = String::new();
    for output in out {
        let line = match output {
            Output::RunBreak => "run break".to_owned(),
            Output::Open { start_ms, starts_with_sync, .. } => format!("open {start_ms} sync={starts_with_sync}"),
            Output::Sample(_) => continue,
            Output::Tags(tags) => format!("tags {}", tags.len()),
            Output::Cut(cut) => {
                let samples: Vec<String> = tables(cut)
                    .iter()
                    .map(|table| {
                        table
                            .tracks
                            .iter()
                            .map(|t| format!("{}:{}", t.track, t.samples.len()))
                            .collect::<Vec<_>>()
                            .join(" ")
                    })
                    .collect();
                let what = cut.part.map_or("close".to_owned(), |part| format!("part {part}"));
                let flags = cut.flags.0;
                format!(
                    "{what} {}+{} flags={flags} back={} [{}]",
                    cut.start_ms,
                    cut.duration_ms,
                    cut.facts.sync_back,
                    samples.join(" | ")
                )
            }
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn check(events: Vec<Event>, expected: Expect) {
    expected.assert_eq(&describe(&run(Options::default(), events)));
}

#[test]
fn fragments_start_at_sync_samples_of_the_video_whatever_comes_between() {
    let mut events = vec![config(AV)];
    for i in 0..100 {
        events.push(sample(1, i * 40, true, 10));
        events.push(sample(0, i * 40 + 1, i % 25 == 0, 100));
    }
    check(
        events,
        expect![[r#"
            open 0 sync=false
            close 1+1000 flags=1 back=0 [0:25 1:26]
            open 1001 sync=true
            close 1001+1000 flags=1 back=0 [0:25 1:25]
            open 2001 sync=true
            close 2001+1000 flags=1 back=0 [0:25 1:25]
            open 3001 sync=true
            close 3001+1000 flags=1 back=0 [0:25 1:24]
        "#]],
    );
}

#[test]
fn a_long_gop_goes_out_in_parts_and_is_cut_at_the_limit() {
    let mut events = vec![config(AV)];
    events.extend((0..250).map(|i| sample(0, i * 100, i == 0, 10)));
    check(
        events,
        expect![[r#"
            open 0 sync=true
            part 0 0+2000 flags=1 back=0 [0:20]
            part 1 0+4000 flags=1 back=0 [0:20]
            part 2 0+6000 flags=1 back=0 [0:20]
            part 3 0+8000 flags=1 back=0 [0:20]
            part 4 0+10000 flags=1 back=0 [0:20]
            part 5 0+12000 flags=1 back=0 [0:20]
            part 6 0+14000 flags=1 back=0 [0:20]
            part 7 0+16000 flags=1 back=0 [0:20]
            part 8 0+18000 flags=1 back=0 [0:20]
            close 0+20000 flags=5 back=0 [0:20 | 0:20 | 0:20 | 0:20 | 0:20 | 0:20 | 0:20 | 0:20 | 0:20 | 0:20]
            open 20000 sync=false
            part 0 20000+2000 flags=0 back=1 [0:20]
            part 1 20000+4000 flags=0 back=1 [0:20]
            close 20000+5000 flags=0 back=1 [0:20 | 0:20 | 0:10]
        "#]],
    );
}

#[test]
fn sound_alone_is_cut_by_duration() {
    let mut events = vec![config(&[TrackKind::Audio])];
    events.extend((0..120).map(|i| sample(0, i * 50, true, 10)));
    check(
        events,
        expect![[r#"
            open 0 sync=true
            close 0+2000 flags=1 back=0 [0:40]
            open 2000 sync=true
            close 2000+2000 flags=1 back=0 [0:40]
            open 4000 sync=true
            close 4000+2000 flags=1 back=0 [0:40]
        "#]],
    );
}

#[test]
fn times_that_jump_begin_a_run_and_tags_stay_with_their_fragment() {
    let tag = || Event::Tags(vec![Tag { name: "n".repeat(500), value: "é".repeat(2000) }]);
    let mut events = vec![config(AV), tag()];
    events.extend((0..4).map(|i| sample(0, i * 500, i % 2 == 0, 10)));
    events.push(tag());
    events.extend((0..2).map(|i| sample(0, 60_000 + i * 500, i % 2 == 0, 10)));
    let out = run(Options::default(), events);
    expect![[r#"
        open 0 sync=true
        tags 1
        close 0+1000 flags=1 back=0 [0:2]
        open 1000 sync=true
        tags 1
        close 1000+1000 flags=1 back=0 [0:2]
        run break
        open 60000 sync=true
        close 60000+1000 flags=1 back=0 [0:2]
    "#]]
    .assert_eq(&describe(&out));
    let Some(Output::Cut(cut)) = out.iter().find(|o| matches!(o, Output::Cut(_))) else { panic!("no cut") };
    assert_eq!((cut.facts.tags[0].name.len(), cut.facts.tags[0].value.len()), (128, 1024));
}

#[test]
fn a_large_fragment_is_cut_at_its_limit_and_a_declared_end_closes_it() {
    let options = Options { fragment_bytes_max: 1000, part_bytes: 600, ..Options::default() };
    let mut events = vec![config(AV)];
    events.extend((0..8).map(|i| sample(0, i * 10, i == 0, 300)));
    events.extend([Event::EndOfFragment, Event::Lost { count: 3 }, sample(0, 100, true, 1)]);
    expect![[r#"
        open 0 sync=true
        part 0 0+20 flags=1 back=0 [0:2]
        close 0+30 flags=5 back=0 [0:2 | 0:1]
        open 30 sync=false
        part 0 30+20 flags=0 back=1 [0:2]
        close 30+30 flags=4 back=1 [0:2 | 0:1]
        open 60 sync=false
        close 60+20 flags=0 back=2 [0:2]
        open 100 sync=true
        close 100+30 flags=33 back=0 [0:1]
    "#]]
    .assert_eq(&describe(&run(options, events)));
}

#[test]
fn samples_of_undeclared_tracks_are_an_error() {
    let mut fragmenter = Fragmenter::new(Options::default());
    let error = FragmentError::UnknownTrack { track: 0, track_count: 0 };
    assert_eq!(fragmenter.push(sample(0, 0, true, 1), &mut Vec::new()), Err(error));
}

#[test]
fn a_changed_config_starts_a_fragment_and_keeps_the_decode_times_of_tracks_that_stay() {
    let mut changed = StreamConfig { tracks: vec![track(TrackKind::Video, 1000)], matroska_header: Bytes::new() };
    changed.tracks[0].codec_private = Bytes::from_static(b"new");
    let mut events = vec![config(&[TrackKind::Video])];
    events.extend([sample(0, 0, true, 1), sample(0, 40, false, 1), Event::Config(changed), sample(0, 80, false, 1)]);
    let out = run(Options::default(), events);
    expect![[r#"
        open 0 sync=true
        close 0+80 flags=1 back=0 [0:2]
        open 80 sync=false
        close 80+40 flags=0 back=1 [0:1]
    "#]]
    .assert_eq(&describe(&out));
    assert!(!out.iter().any(|o| matches!(o, Output::RunBreak)));
}

#[test]
fn leading_pictures_are_told_from_others() {
    let mut events = vec![config(&[TrackKind::Video])];
    // An open GOP: the pictures at 20 and 40 follow the sync sample at 60 and are shown before it.
    for (ticks, sync) in [(0, true), (60, true), (20, false), (40, false), (80, false)] {
        events.push(sample(0, ticks, sync, 1));
    }
    let kinds: Vec<SyncKind> = run(Options::default(), events)
        .iter()
        .filter_map(|o| if let Output::Sample(s) = o { Some(s.sync) } else { None })
        .collect();
    use SyncKind::{Leading, Sync};
    assert_eq!(kinds, [Sync, Sync, Leading, Leading, SyncKind::None]);
}

#[test]
fn samples_without_bytes_or_duration_do_not_grow_a_fragment_for_ever() {
    let mut events = vec![config(&[TrackKind::Video])];
    events.extend((0..70_000).map(|i| sample(0, 0, i == 0, 0)));
    let counts: Vec<Vec<usize>> = run(Options::default(), events)
        .iter()
        .filter_map(|output| if let Output::Cut(cut) = output { cut.part.is_none().then(|| tables(cut)) } else { None })
        .map(|tables| tables.iter().map(Table::sample_count).collect())
        .collect();
    assert_eq!(counts.iter().flatten().sum::<usize>(), 70_000);
    assert!(counts.iter().all(|pieces| pieces.iter().sum::<usize>() <= 1 << 16), "{counts:?}");
    assert!(counts.iter().flatten().all(|piece| *piece <= 1 << 13), "{counts:?}");
}

#[test]
fn a_track_with_few_samples_breaks_no_run() {
    let mut events = vec![config(AV)];
    for second in 0..60 {
        events.push(sample(0, second * 1000, true, 10));
        if second % 15 == 0 {
            events.push(sample(1, second * 1000 + 1, true, 1));
        }
    }
    assert!(!run(Options::default(), events).iter().any(|output| matches!(output, Output::RunBreak)));
}

fn cluster(timecode: i64) -> Event {
    Event::SourceFragment { timecode: Some(timecode), units: Some(timecode), sized: false }
}

#[test]
fn fragments_of_the_source_stay_as_they_were_sent() {
    let mut events = vec![config(AV), cluster(0)];
    // Keyframes, a jump, and 25 s of time: nothing cuts but the next Cluster.
    events.extend((0..6).map(|i| sample(0, i * 5000, true, 10)));
    events.push(sample(0, 40_000, false, 10));
    events.extend([cluster(40_040), sample(1, 40_040, true, 1), sample(0, 40_050, false, 10)]);
    // Closed by its producer; what comes then waits for no Cluster.
    events.extend([Event::EndOfFragment, sample(0, 40_500, true, 10), cluster(300_000), sample(0, 300_000, true, 10)]);
    let options = Options { as_sent: true, part_duration_ms: u32::MAX, ..Options::default() };
    expect![[r#"
        open 0 sync=true
        close 0+40040 flags=1 back=0 [0:7]
        open 40040 sync=false
        close 40050+50 flags=0 back=1 [0:1 1:1]
        open 40500 sync=true
        close 40500+450 flags=1 back=0 [0:1]
        run break
        open 300000 sync=true
        close 300000+1 flags=1 back=0 [0:1]
    "#]]
    .assert_eq(&describe(&run(options, events)));
}

proptest! {
    #[test]
    fn every_sample_goes_out_once_with_its_time_and_bytes(
        steps in prop::collection::vec((0..2_u8, -300..3000_i64, any::<bool>(), 0..40_usize, 0..20_u8), 0..200),
        as_sent: bool,
    ) {
        let options = Options { part_bytes: 200, fragment_bytes_max: 700, part_duration_ms: 500, fragment_duration_ms_max: 4000, as_sent, ..Options::default() };
        let mut events = vec![config(AV)];
        let (mut now, mut pushed) = ([0_i64; 2], Vec::new());
        for (index, (track, step, sync, len, other)) in steps.into_iter().enumerate() {
            now[usize::from(track)] += step;
            let mut event = sample(track, now[usize::from(track)], sync, len);
            if let Event::Sample(raw) = &mut event {
                raw.data = format!("{index}:{}", "x".repeat(len)).into();
                pushed.push((track, raw.presentation_ticks, raw.data.clone()));
            }
            events.push(event);
            match other {
                0 => events.push(Event::EndOfFragment),
                1 => events.push(Event::Discontinuity),
                2 => events.push(Event::Lost { count: 1 }),
                3 | 4 => events.push(Event::SourceFragment { timecode: Some(now[0]), units: None, sized: false }),
                _ => {}
            }
        }
        let mut stored = Vec::new();
        let (mut parts, mut open) = (Vec::new(), false);
        for output in run(options, events) {
            match output {
                Output::Open { .. } => { prop_assert!(!open); open = true; }
                Output::Cut(cut) => {
                    prop_assert!(open && cut.duration_ms >= 1);
                    let media: Vec<u8> = cut.media.concat();
                    let tables = tables(&cut);
                    prop_assert_eq!(cut.table.pieces.len(), tables.len());
                    let inline = cut.table.pieces.last().filter(|piece| piece.part.is_none()).map_or(0, |piece| piece.media_len);
                    prop_assert_eq!(inline, media.len() as u64);
                    if let Some(part) = cut.part {
                        prop_assert_eq!(usize::from(part), parts.len());
                        parts.push(media);
                        continue;
                    }
                    open = false;
                    parts.push(media);
                    let facts = &cut.facts.tracks;
                    prop_assert_eq!(facts.iter().map(|f| f.totals.sample_count as usize).sum::<usize>(), tables.iter().map(Table::sample_count).sum());
                    for (table, piece) in tables.iter().zip(&cut.table.pieces) {
                        let media = &parts[piece.part.map_or(parts.len() - 1, usize::from)];
                        let mut offset = 0;
                        for track in &table.tracks {
                            for s in &track.samples {
                                stored.push((track.track, s.presentation_ticks(), media[offset..offset + s.size as usize].to_vec()));
                                offset += s.size as usize;
                            }
                        }
                        prop_assert_eq!(offset, media.len());
                    }
                    parts.clear();
                }
                _ => {}
            }
        }
        prop_assert!(!open);
        let order = |a: &(u8, i64, Vec<u8>), b: &(u8, i64, Vec<u8>)| a.2.cmp(&b.2);
        let mut pushed: Vec<_> = pushed.into_iter().map(|(t, p, d)| (t, p, d.to_vec())).collect();
        pushed.sort_by(order);
        stored.sort_by(order);
        prop_assert_eq!(stored, pushed);
    }
}
