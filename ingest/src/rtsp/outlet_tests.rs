//! A store that has no room now and then.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use vidar_media::codec::g711::{self, Law};
use vidar_media::{RawSample, TrackKind};

use super::*;

/// Takes the events for which `room` says so (the first for the first, and so on), and all after those.
struct Taker {
    room: Vec<bool>,
    taken: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Publish for Taker {
    async fn events(&mut self, events: Vec<Arrived>) -> Result<(), PublishError> {
        self.taken.lock().unwrap().extend(events.iter().map(describe));
        Ok(())
    }

    fn try_events(&mut self, events: Vec<Arrived>) -> Result<Option<Vec<Arrived>>, PublishError> {
        let room = match events.len() {
            // Several at once need room for all.
            2.. => !self.room.contains(&false),
            _ => self.room.is_empty() || self.room.remove(0),
        };
        self.taken.lock().unwrap().extend(events.iter().filter(|_| room).map(describe));
        Ok((!room).then_some(events))
    }

    async fn finish(self: Box<Self>, _: bool, _: &str) -> Result<(), PublishError> {
        Ok(())
    }
}

fn describe(arrived: &Arrived) -> String {
    assert_eq!(arrived.at, Some(UnixMs(7)));
    match &arrived.event {
        Event::Config(config) => format!("config {}", config.tracks.len()),
        Event::Sample(sample) => format!("sample {}/{}", sample.track, sample.presentation_ticks),
        Event::Lost { count } => format!("lost {count}"),
        other => format!("{other:?}"),
    }
}

fn config() -> Event {
    let audio = g711::track(Law::A, 8000, 1, 1, 8000);
    let video = vidar_media::Track { kind: TrackKind::Video, ..audio.clone() };
    Event::Config(StreamConfig { tracks: vec![audio, video], matroska_header: Bytes::new() })
}

fn sample(track: u8, presentation_ticks: i64, sync: SyncKind) -> Event {
    let data = Bytes::new();
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

async fn give(cannot_wait: bool, room: &[bool], events: Vec<Event>) -> (Vec<String>, u64) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let mut outlet = Outlet::new(Box::new(Taker { room: room.to_vec(), taken: Arc::clone(&taken) }), cannot_wait);
    let events = events.into_iter().map(|event| Arrived { at: Some(UnixMs(7)), event }).collect();
    outlet.give(events, 0).await.unwrap();
    let dropped = outlet.dropped();
    outlet.finish(true, "").await.unwrap();
    let taken = taken.lock().unwrap().clone();
    (taken, dropped)
}

fn events() -> Vec<Event> {
    vec![
        config(),
        sample(1, 0, SyncKind::Sync),
        sample(0, 1, SyncKind::Sync),
        sample(1, 2, SyncKind::None),
        Event::Lost { count: 2 },
        sample(0, 3, SyncKind::Sync),
        sample(1, 4, SyncKind::Sync),
        sample(0, 5, SyncKind::Sync),
    ]
}

#[tokio::test]
async fn whole_groups_of_pictures_are_dropped_and_counted() {
    let all =
        ["config 2", "sample 1/0", "sample 0/1", "sample 1/2", "lost 2", "sample 0/3", "sample 1/4", "sample 0/5"];
    assert_eq!(
        give(false, &[false], events()).await,
        (all.map(str::to_owned).to_vec(), 0),
        "who can wait loses nothing"
    );
    assert_eq!(give(true, &[], events()).await, (all.map(str::to_owned).to_vec(), 0));
    let (taken, dropped) = give(true, &[true, true, false], events()).await;
    assert_eq!(taken, ["config 2", "sample 1/0", "lost 5", "sample 1/4", "sample 0/5"]);
    assert_eq!(dropped, 3);
    // Still no room at the next keyframe.
    let (taken, dropped) = give(true, &[true, true, false, false], events()).await;
    assert_eq!((taken.len(), dropped), (2, 5));
}

#[tokio::test]
async fn a_config_is_never_dropped() {
    let (taken, dropped) = give(true, &[false], events()).await;
    assert_eq!(
        taken,
        [
            "config 2",
            "lost 0",
            "sample 1/0",
            "sample 0/1",
            "sample 1/2",
            "lost 2",
            "sample 0/3",
            "sample 1/4",
            "sample 0/5"
        ]
    );
    assert_eq!(dropped, 0);
    let mut later = events();
    later.insert(3, config());
    let (taken, _) = give(true, &[true, true, false], later).await;
    assert_eq!(taken, ["config 2", "sample 1/0", "config 2", "lost 5", "sample 1/4", "sample 0/5"]);
}
