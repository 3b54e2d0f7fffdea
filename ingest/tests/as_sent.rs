//! Pushes whose source cuts its own fragments.

mod push_common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use push_common::{NOW, Setup, events, start};
use vidar_core::admission::Beside;
use vidar_core::control::Control;
use vidar_core::ids::FragmentNumber;
use vidar_core::record::{FragmentFlags, WallSource};
use vidar_core::sink::SinkError;
use vidar_core::time::UnixMs;
use vidar_ingest::{AsSent, Follower, IngestOptions, PushError, PushStart};
use vidar_media::Event;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Opened(FragmentNumber, Option<i64>),
    Durable(FragmentNumber),
    Failed(FragmentNumber),
    Stopped,
}

#[derive(Debug, Default)]
struct Notes(Mutex<Vec<Heard>>);

impl Notes {
    fn all(&self) -> Vec<Heard> {
        self.0.lock().unwrap().clone()
    }
}

impl Follower for Notes {
    fn opened(&self, number: FragmentNumber, units: Option<i64>) {
        self.0.lock().unwrap().push(Heard::Opened(number, units));
    }

    fn durable(&self, number: FragmentNumber) {
        self.0.lock().unwrap().push(Heard::Durable(number));
    }

    fn failed(&self, number: FragmentNumber, _: &SinkError) {
        self.0.lock().unwrap().push(Heard::Failed(number));
    }

    fn stopped(&self, _: Option<i64>, _: &PushError) {
        self.0.lock().unwrap().push(Heard::Stopped);
    }
}

const ORIGIN: UnixMs = UnixMs(NOW.0 - 3_600_000);

fn as_sent(notes: &Arc<Notes>) -> PushStart {
    let beside = Beside { count_max: 2, overlap: Duration::from_secs(30) };
    let sent = AsSent { origin: ORIGIN, beside, follower: Arc::clone(notes) as _ };
    PushStart { as_sent: Some(sent), protocol: "kinesis", ..start(None) }
}

/// Samples between the Clusters of a clip, by their bytes.
fn clusters(events: &[Event]) -> Vec<Vec<&[u8]>> {
    let mut clusters = Vec::new();
    for event in events {
        match event {
            Event::SourceFragment { .. } => clusters.push(Vec::new()),
            Event::Sample(sample) => clusters.last_mut().unwrap().push(&sample.data[..]),
            _ => {}
        }
    }
    clusters
}

#[tokio::test]
async fn a_cluster_is_a_fragment_whatever_the_clock_does() {
    for clip in ["bbb.mkv", "h264_long_gop.mkv", "h264_short_gop.mkv", "late_audio.mkv", "laced.mkv", "audio_opus.mkv"]
    {
        let setup = Setup::new(IngestOptions::default());
        let notes = Arc::new(Notes::default());
        let mut push = setup.ingest.begin(as_sent(&notes)).await.unwrap();
        let events = events(clip);
        for event in &events {
            push.events(vec![event.clone().into()]).await.unwrap();
            setup.clock.step_ms(7_000);
        }
        push.finish(true, "end of body").await;
        let sent = clusters(&events);
        let closed = setup.closed();
        assert_eq!(closed.len(), sent.len(), "{clip}");
        let records = setup.memory.fragments.lock().unwrap();
        for (fragment, sent) in closed.iter().zip(&sent) {
            let of_it = records.iter().filter(|record| record.meta.number == fragment.meta.number);
            let mut stored: Vec<&[u8]> = of_it.flat_map(|record| record.media.iter().map(|bytes| &bytes[..])).collect();
            let mut sent = sent.clone();
            stored.sort_unstable();
            sent.sort_unstable();
            sent.retain(|bytes| !bytes.is_empty());
            assert_eq!(stored, sent, "{clip}");
            assert!(!fragment.meta.flags.contains(FragmentFlags::INCOMPLETE));
            assert_eq!((fragment.meta.run, fragment.facts.wall_source), (closed[0].meta.run, WallSource::Given));
        }
        let controls = setup.memory.controls.lock().unwrap();
        let runs = controls.iter().filter(|control| matches!(control, Control::Run(_))).count();
        assert_eq!(runs, 1, "{clip}");
    }
}

#[tokio::test]
async fn the_follower_hears_of_each_in_order_and_of_none_that_was_cut_off() {
    let setup = Setup::new(IngestOptions::default());
    let notes = Arc::new(Notes::default());
    setup.memory.disk.forget_permits(usize::MAX);
    let mut push = setup.ingest.begin(as_sent(&notes)).await.unwrap();
    let events = events("h264_short_gop.mkv");
    let timecodes: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::SourceFragment { units, .. } = event { Some(*units) } else { None })
        .collect();
    push.events(events.into_iter().map(Into::into).collect()).await.unwrap();
    let opened = |heard: &[Heard]| heard.iter().filter(|heard| matches!(heard, Heard::Opened(..))).count();
    while opened(&notes.all()) < timecodes.len() {
        tokio::task::yield_now().await;
    }
    assert!(!notes.all().iter().any(|heard| matches!(heard, Heard::Durable(_))), "nothing is on the disk yet");
    setup.memory.disk.add_permits(1 << 20);
    push.finish(false, "connection lost").await;
    let heard = notes.all();
    let numbers: Vec<FragmentNumber> = setup.closed().iter().map(|fragment| fragment.meta.number).collect();
    let mut expected: Vec<Heard> = numbers.iter().zip(&timecodes).map(|(n, units)| Heard::Opened(*n, *units)).collect();
    expected.extend(numbers[..numbers.len() - 1].iter().map(|number| Heard::Durable(*number)));
    assert_eq!(heard, expected);
    let last = setup.closed().pop().unwrap();
    assert!(last.meta.flags.contains(FragmentFlags::INCOMPLETE));
}
