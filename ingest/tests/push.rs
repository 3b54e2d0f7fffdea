//! What a push makes of times, clocks and a store that is behind.

mod push_common;

use std::collections::HashMap;
use std::time::Duration;

use push_common::{NOW, Setup, events, start};
use vidar_core::auth::Principal;
use vidar_core::control::Control;
use vidar_core::error::ErrorKind;
use vidar_core::hub::LiveEvent;
use vidar_core::ids::FragmentNumber;
use vidar_core::record::{FragmentFlags, NewFragment, WallSource};
use vidar_core::time::UnixMs;
use vidar_ingest::IngestOptions;
use vidar_ingest::push::PushStart;
use vidar_ingest::push_log::PushLine;
use vidar_media::Event;

const GIVEN: UnixMs = UnixMs(NOW.0 - 86_400_000);

/// A clip less the pictures before `from_ms`: sound comes first.
fn late_pictures(from_ms: i64) -> Vec<Event> {
    let late = |event: &Event| matches!(event, Event::Sample(s) if s.track == 0 && s.presentation_ticks < from_ms);
    events("bbb.mkv").into_iter().filter(|event| !late(event)).collect()
}

#[tokio::test]
async fn a_given_start_is_that_of_the_first_keyframe_however_long_sound_goes_before() {
    // Keyframes are 2 s apart: pictures begin with one at 4 s, at 3 s they do not.
    for from_ms in [4_000, 3_000] {
        let setup = Setup::new(IngestOptions::default());
        let mut push = setup.ingest.begin(start(Some(GIVEN))).await.unwrap();
        for event in late_pictures(from_ms) {
            push.events(vec![event.into()]).await.unwrap();
        }
        push.finish(true, "end of body").await;
        let with_sync = |fragment: &NewFragment| fragment.meta.flags.contains(FragmentFlags::STARTS_WITH_SYNC);
        let first = setup.closed().into_iter().find(with_sync).unwrap().meta;
        assert_eq!(first.producer_start, GIVEN, "{from_ms}");
        // What came before it has its place before it, and is all there.
        let records = setup.memory.fragments.lock().unwrap();
        assert!(records[0].meta.producer_start < GIVEN.plus_ms(-900), "{:?}", records[0].meta);
        let stored: u64 = records.iter().map(NewFragment::media_len).sum();
        let sent: usize =
            late_pictures(from_ms).iter().map(|e| if let Event::Sample(s) = e { s.data.len() } else { 0 }).sum();
        assert_eq!(stored as usize, sent);
        let controls = setup.memory.controls.lock().unwrap();
        let Control::Run(run) = &controls[0] else { panic!("{controls:?}") };
        assert_eq!((run.anchor, run.anchor_source), (GIVEN, WallSource::Given));
    }
}

/// Viewers of parts build on it: a time that was told as final is the one that is stored.
#[tokio::test]
async fn viewers_are_told_which_times_are_final() {
    for (given, from_ms) in [(None, 0), (Some(GIVEN), 0), (Some(GIVEN), 3_000)] {
        let setup = Setup::new(IngestOptions::default());
        let mut push = setup.ingest.begin(start(given)).await.unwrap();
        for event in late_pictures(from_ms) {
            push.events(vec![event.into()]).await.unwrap();
        }
        push.finish(true, "end of body").await;
        let stored: HashMap<FragmentNumber, UnixMs> =
            setup.closed().iter().map(|fragment| (fragment.meta.number, fragment.meta.producer_start)).collect();
        let live = setup.memory.live.lock().unwrap();
        let told: Vec<(bool, bool, FragmentNumber, UnixMs)> = live
            .iter()
            .filter_map(|event| match event {
                LiveEvent::Opened { fragment, producer_start, is_anchored, starts_with_sync, .. } => {
                    Some((*is_anchored, *starts_with_sync, fragment.number, *producer_start))
                }
                _ => None,
            })
            .collect();
        assert!(!told[0].0, "nothing is known of the first");
        let is_final: Vec<_> =
            told.iter().filter(|(is_anchored, starts_with_sync, ..)| *is_anchored && *starts_with_sync).collect();
        assert!(!is_final.is_empty(), "{told:?}");
        for (.., number, producer_start) in is_final {
            assert_eq!(stored[number], *producer_start, "{given:?} {from_ms}");
        }
    }
}

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

#[tokio::test]
async fn steps_of_the_servers_clock_leave_the_producers_time_alone() {
    let reported = |at: UnixMs| Event::Wall { track: 0, presentation_ticks: 0, at };
    for (given, report, source) in [
        (Some(GIVEN), None, WallSource::Given),
        (Some(GIVEN), Some(reported(GIVEN.plus_ms(7))), WallSource::Given),
        (None, Some(reported(GIVEN)), WallSource::Container),
        (None, None, WallSource::Arrival),
    ] {
        for steps in [&[HOUR_MS][..], &[-HOUR_MS], &[YEAR_MS], &[HOUR_MS, -HOUR_MS], &[-YEAR_MS, YEAR_MS]] {
            step_while_pushing(given, report.as_ref(), source, steps).await;
        }
    }
}

/// Pushes a clip of four GOPs; the clock steps at its half, and again at three quarters.
async fn step_while_pushing(given: Option<UnixMs>, report: Option<&Event>, source: WallSource, steps: &[i64]) {
    let setup = Setup::new(IngestOptions::default());
    let mut push = setup.ingest.begin(start(given)).await.unwrap();
    let events = events("bbb.mkv");
    let quarter = events.len() / 4;
    let mut left = steps.iter();
    for (index, event) in events.into_iter().enumerate() {
        if (index == 2 * quarter || index == 3 * quarter)
            && let Some(step) = left.next()
        {
            // What came is taken before the clock steps.
            while (setup.ingest.open_pushes(None)[0].fragments as usize) < index / quarter - 1 {
                tokio::task::yield_now().await;
            }
            setup.clock.step_ms(*step);
        }
        push.events(vec![event.into()]).await.unwrap();
        if index == 0
            && let Some(report) = report
        {
            push.events(vec![report.clone().into()]).await.unwrap();
        }
    }
    push.finish(true, "end of body").await;
    let closed = setup.closed();
    let runs: Vec<_> = closed.chunk_by(|a, b| a.meta.run == b.meta.run).collect();
    assert_eq!(runs.len(), steps.len() + 1, "one step, one run: {source:?} {steps:?}");
    for (pair, step) in runs.windows(2).zip(steps) {
        let elapsed_ms = pair[1][0].meta.producer_start.since_ms(pair[0].last().unwrap().meta.producer_start);
        let expected = if source == WallSource::Arrival { *step } else { 0 };
        assert!((-10_000..10_000).contains(&(elapsed_ms - expected)), "{source:?} {steps:?}: {elapsed_ms}");
    }
    let numbers: Vec<_> = closed.iter().map(|fragment| fragment.meta.number).collect();
    assert!(numbers.is_sorted(), "numbers ascend whatever the clock says");
    let controls = setup.memory.controls.lock().unwrap();
    let told = controls.iter().filter_map(|c| if let Control::Run(run) = c { Some(run.anchor_source) } else { None });
    assert_eq!(told.collect::<Vec<_>>(), vec![source; steps.len() + 1]);
}

#[tokio::test]
async fn a_given_start_without_any_keyframe_is_that_of_what_came_first() {
    let setup = Setup::new(IngestOptions::default());
    let mut push = setup.ingest.begin(start(Some(GIVEN))).await.unwrap();
    push.events(late_pictures(i64::MAX).into_iter().map(Into::into).collect()).await.unwrap();
    push.finish(true, "end of body").await;
    let closed = setup.closed();
    assert_eq!(closed[0].meta.producer_start, GIVEN);
    let parts = setup.memory.fragments.lock().unwrap();
    assert!(parts.len() > closed.len(), "sound alone goes out in parts");
    assert!(parts.iter().all(|part| part.meta.producer_start >= GIVEN));
}

#[tokio::test]
async fn a_publisher_that_is_held_back_is_not_silent() {
    let setup = Setup::new(IngestOptions { budget_bytes: 200_000, ..IngestOptions::default() });
    setup.memory.disk.forget_permits(usize::MAX);
    let mut push = setup.ingest.begin(start(None)).await.unwrap();
    let first = tokio::spawn(async move {
        for event in events("bbb.mkv") {
            push.events(vec![event.into()]).await.unwrap();
        }
        push.finish(true, "end of body").await
    });
    // Until it is held back: then it is heard without sending.
    let heard = || tokio::time::timeout(Duration::from_secs(20), setup.heard.notified());
    while setup.ingest.budget().used_bytes() < 100_000 {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        setup.clock.advance(Duration::from_secs(11));
        heard().await.expect("a publisher that is held back is heard");
        assert!(!first.is_finished() && setup.ingest.begin(start(None)).await.is_err());
    }
    setup.memory.disk.add_permits(1 << 20);
    let (fragments, error) = first.await.unwrap().outcome();
    assert_eq!((fragments, error), (4, None));
}

#[tokio::test]
async fn a_push_ends_when_its_key_may_not_push_any_more() {
    let setup = Setup::new(IngestOptions::default());
    let of = |by: &str| PushStart { by: Some(Principal::root(by)), ..start(None) };
    let mut push = setup.ingest.begin(of("key")).await.unwrap();
    let mut clip = events("bbb.mkv").into_iter();
    push.events(clip.by_ref().take(100).map(Into::into).collect()).await.unwrap();
    setup.ingest.end_refused(|by, stream| by.access_key_id == "key" && stream.as_str() == "cam");
    push.events(clip.by_ref().take(100).map(Into::into).collect()).await.expect("it may");
    setup.ingest.end_refused(|by, _| by.access_key_id != "key");
    setup.ingest.end_refused(|by, _| by.access_key_id != "key");
    let refused = push.events(clip.map(Into::into).collect()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Forbidden);
    let log = push.finish(false, "error").await;
    assert_eq!(log.outcome().1, Some(403));
    let (lines, _, _) = log.lines(0, 1000);
    let errors = lines.iter().filter(|line| matches!(line, PushLine::Error { .. })).count();
    assert_eq!(errors, 1, "it is told once");
    assert!(!setup.closed().is_empty(), "what came before is kept");

    let mut push = setup.ingest.begin(start(None)).await.unwrap();
    setup.ingest.end_refused(|_, _| false);
    push.events(events("bbb.mkv").into_iter().map(Into::into).collect()).await.expect("nobody asks");
    push.finish(true, "end of body").await;
}
