//! The hub as its viewers see it.

use std::sync::Arc;

use bytes::Bytes;
use vidar_core::hub::{LiveEvent, LiveSink};
use vidar_core::ids::{FragmentNumber, RunId, StreamId};
use vidar_core::sample::{Sample, SyncKind};
use vidar_core::sink::{Durable, OpenFragment};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;
use vidar_live::{Hub, HubOptions, RecvError, Subscriber};

struct Publisher {
    hub: Arc<Hub>,
    stream: StreamId,
    run: RunId,
}

impl Publisher {
    fn new(budget_bytes: usize) -> Self {
        Self { hub: Hub::new(HubOptions { budget_bytes }), stream: StreamId::new(), run: RunId::new() }
    }

    fn publish(&self, event: LiveEvent) {
        self.hub.publish(self.stream, event);
    }

    fn open(&self, counter: u64) {
        self.publish(LiveEvent::Opened {
            fragment: place(counter),
            run: self.run,
            config: Arc::new(StreamConfig::default()),
            producer_start: UnixMs(0),
            is_anchored: true,
            starts_with_sync: true,
        });
    }

    fn sample(&self, decode_ticks: i64, size: usize) {
        let sample = Sample {
            track: 0,
            decode_ticks,
            composition_ticks: 0,
            duration_ticks: 1,
            duration_estimated: false,
            sync: SyncKind::None,
            block_flags: 0,
            data: Bytes::from(vec![0; size]),
        };
        // Viewers do not ask the hub of which fragment it is.
        self.publish(LiveEvent::Sample { number: FragmentNumber::MIN, sample });
    }

    fn close(&self, counter: u64) {
        self.publish(LiveEvent::Closed { fragment: place(counter), duration_ms: 1, next_decode_ticks: None });
    }

    fn durable(&self, counter: u64) {
        let number = place(counter).number;
        self.publish(LiveEvent::Durable(Durable { number, producer_start: UnixMs(0), duration_ms: 1, size_bytes: 1 }));
    }
}

fn place(counter: u64) -> OpenFragment {
    OpenFragment { number: FragmentNumber::new(counter, 0, 0), ordinal: counter, discontinuity: 0 }
}

/// An event in a word.
fn word(event: Result<LiveEvent, RecvError>) -> String {
    match event {
        Ok(LiveEvent::Opened { fragment, .. }) => format!("open {}", fragment.ordinal),
        Ok(LiveEvent::Sample { sample, .. }) => format!("sample {}", sample.decode_ticks),
        Ok(LiveEvent::Closed { fragment, .. }) => format!("close {}", fragment.ordinal),
        Ok(LiveEvent::Durable(durable)) => format!("durable {}", durable.number.sequence()),
        Ok(LiveEvent::Failed(fragment)) => format!("fail {}", fragment.ordinal),
        Ok(LiveEvent::Ended(_)) => "end".into(),
        Ok(LiveEvent::Tags { tags, .. }) => format!("tags {}", tags.len()),
        Err(RecvError::Lagged) => "lagged".into(),
    }
}

/// All that can be read without waiting.
async fn ready(viewer: &mut Subscriber) -> Vec<String> {
    let mut words = Vec::new();
    loop {
        tokio::select! {
            biased;
            event = viewer.next() => words.push(word(event)),
            () = std::future::ready(()) => return words,
        }
    }
}

#[tokio::test]
async fn a_viewer_starts_at_the_oldest_fragment_that_is_not_durable() {
    let publisher = Publisher::new(1 << 20);
    for counter in 1..=3 {
        publisher.open(counter);
        publisher.sample(counter as i64, 10);
        if counter < 3 {
            publisher.close(counter);
        }
    }
    publisher.durable(1);
    let mut viewer = publisher.hub.subscribe(publisher.stream);
    let seen = ready(&mut viewer).await;
    assert_eq!(seen, ["open 2", "sample 2", "close 2", "open 3", "sample 3", "durable 1"]);
    publisher.sample(4, 10);
    assert_eq!(ready(&mut viewer).await, ["sample 4"]);
}

#[tokio::test]
async fn who_comes_between_fragments_waits_for_the_next_one() {
    let publisher = Publisher::new(1 << 20);
    publisher.open(1);
    publisher.close(1);
    publisher.durable(1);
    let mut viewer = publisher.hub.subscribe(publisher.stream);
    publisher.sample(9, 10);
    publisher.publish(LiveEvent::Failed(place(1)));
    publisher.open(2);
    assert_eq!(ready(&mut viewer).await, ["fail 1", "open 2"]);
}

#[tokio::test]
async fn a_durable_fragment_leaves_once_it_is_read() {
    let publisher = Publisher::new(1 << 20);
    let mut viewer = publisher.hub.subscribe(publisher.stream);
    publisher.open(1);
    publisher.sample(1, 1000);
    publisher.close(1);
    publisher.durable(1);
    assert!(publisher.hub.held_bytes() > 1000, "not read yet");
    assert_eq!(ready(&mut viewer).await.len(), 4);
    assert_eq!(publisher.hub.held_bytes(), 0);

    publisher.open(2);
    publisher.sample(2, 1000);
    drop(viewer);
    assert!(publisher.hub.held_bytes() > 1000, "not durable yet");
    publisher.publish(LiveEvent::Failed(place(2)));
    assert_eq!(publisher.hub.held_bytes(), 0);
}

#[tokio::test]
async fn a_slow_viewer_lags_and_goes_on_at_a_fragment() {
    let publisher = Publisher::new(10_000);
    let mut slow = publisher.hub.subscribe(publisher.stream);
    let mut quick = publisher.hub.subscribe(publisher.stream);
    for counter in 1..=4 {
        publisher.open(counter);
        publisher.sample(counter as i64, 4000);
        publisher.close(counter);
        publisher.durable(counter);
        let seen = ready(&mut quick).await;
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert!(publisher.hub.held_bytes() <= 10_000);
    }
    let seen = ready(&mut slow).await;
    assert_eq!(seen[0], "lagged");
    assert!(seen[1].starts_with("open "), "{seen:?}");
    assert_eq!(seen.last().unwrap(), "durable 4");
    assert_eq!(seen.iter().filter(|word| *word == "lagged").count(), 1);
}

#[tokio::test]
async fn an_open_fragment_over_the_budget_is_given_up_but_the_next_is_seen() {
    let publisher = Publisher::new(5000);
    publisher.open(1);
    for ticks in 0..10 {
        publisher.sample(ticks, 1000);
        assert!(publisher.hub.held_bytes() <= 5000);
    }
    let mut viewer = publisher.hub.subscribe(publisher.stream);
    assert_eq!(ready(&mut viewer).await, [""; 0]);
    publisher.sample(10, 10);
    publisher.open(2);
    assert_eq!(ready(&mut viewer).await, ["open 2"]);
}

#[tokio::test]
async fn the_largest_window_gives_way() {
    let large = Publisher::new(20_000);
    let small = Publisher { hub: large.hub.clone(), stream: StreamId::new(), run: RunId::new() };
    large.open(1);
    large.sample(1, 15_000);
    small.open(1);
    small.sample(1, 6_000);
    let mut viewer = small.hub.subscribe(small.stream);
    assert_eq!(ready(&mut viewer).await, ["open 1", "sample 1"]);
    let mut viewer = large.hub.subscribe(large.stream);
    assert_eq!(ready(&mut viewer).await, [""; 0]);
}

#[tokio::test]
async fn a_stream_is_live_while_a_run_lasts() {
    let publisher = Publisher::new(1 << 20);
    assert!(!publisher.hub.is_live(publisher.stream));
    publisher.open(1);
    publisher.close(1);
    publisher.durable(1);
    assert!(publisher.hub.is_live(publisher.stream));
    publisher.publish(LiveEvent::Ended(publisher.run));
    assert!(!publisher.hub.is_live(publisher.stream));
    assert_eq!(publisher.hub.held_bytes(), 0);
}

#[tokio::test]
async fn followers_hear_of_durable_fragments_and_readers_are_woken() {
    let publisher = Publisher::new(1 << 20);
    let mut follower = publisher.hub.durable(publisher.stream);
    let mut viewer = publisher.hub.subscribe(publisher.stream);
    let waiting = tokio::spawn(async move { (follower.next().await.number, word(viewer.next().await)) });
    tokio::task::yield_now().await;
    publisher.open(1);
    publisher.close(1);
    publisher.durable(1);
    let (number, first) = waiting.await.unwrap();
    assert_eq!(number, place(1).number);
    assert_eq!(first, "open 1");
    publisher.publish(LiveEvent::Ended(publisher.run));
    assert_eq!(publisher.hub.held_bytes(), 0);
}
