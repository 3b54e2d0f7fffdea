//! GetMedia: where it begins, what follows, and what it does when things go wrong.

mod media_common;
#[path = "../../player-api/tests/support/mod.rs"]
mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt as _;
use media_common::{LivePush, Service, clip_samples, essence};
use serde_json::{Value, json};
use support::{Push, START, fragments};
use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamName;
use vidar_core::registry::StreamRegistry as _;
use vidar_media::fragmenter::{Options, Output};

const CLIP: &str = "h264_short_gop.mkv";

fn selector(kind: &str) -> Value {
    json!({"StartSelectorType": kind})
}

/// The outputs of a clip, a list for each fragment: opened, its samples, its end.
fn by_fragment(clip: &str) -> Vec<Vec<Output>> {
    let mut all: Vec<Vec<Output>> = Vec::new();
    for output in fragments(clip, Options::default()) {
        if matches!(output, Output::Open { .. }) {
            all.push(Vec::new());
        }
        all.last_mut().expect("an opening first").push(output);
    }
    all
}

fn frames(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Sample(_))).count()
}

/// Time goes on, in steps that let whoever waits look around.
async fn pass(ms: u64) {
    for _ in 0..ms.div_ceil(100) {
        tokio::time::advance(Duration::from_millis(100)).await;
    }
}

fn words(entries: &[SharedEntry]) -> Vec<String> {
    entries.iter().map(|entry| format!("{}+", entry.meta.number.sequence() & 0xffff_ffff)).collect()
}

#[tokio::test(start_paused = true)]
async fn archive_goes_over_into_live_without_a_gap_or_a_repeat() {
    let service = Service::new();
    let stored = service.archive.push(Push::new("cam-1", CLIP, START)).await;
    let mut watcher = service.get_media("cam-1", selector("EARLIEST")).await;
    assert_eq!(watcher.numbers(), words(&stored));
    let archived: Vec<_> = clip_samples(CLIP).iter().map(essence).collect();
    let got = |watcher: &mut media_common::Watcher| -> Vec<_> {
        watcher.documents().iter().flat_map(|of| of.samples.clone()).map(|sample| essence(&sample)).collect()
    };
    assert!(got(&mut watcher) == archived);

    // Every frame is out before the next one comes, and so are the end of a fragment and the beginning of the next.
    let mut push = LivePush::new(&service, "cam-1", START.plus_ms(3_600_000)).await;
    let mut count = archived.len();
    for output in fragments(CLIP, Options::default()) {
        let (opens, is_frame) = (matches!(output, Output::Open { .. }), matches!(output, Output::Sample(_)));
        let before = watcher.documents().len();
        if let Some(complete) = push.give(output) {
            assert!(!watcher.documents().last().expect("a document").is_complete(), "not durable yet");
            push.store(complete);
            assert!(watcher.documents().last().expect("a document").is_complete());
        }
        count += usize::from(is_frame);
        let documents = watcher.documents();
        assert_eq!(documents.len(), before + usize::from(opens));
        assert_eq!(documents.iter().map(|of| of.samples.len()).sum::<usize>(), count);
    }
    let twice = [&archived[..], &archived].concat();
    assert!(got(&mut watcher) == twice);
    let documents = watcher.documents();
    assert!(documents.iter().all(|of| of.is_complete() && of.clusters == 1));
    assert!(documents.is_sorted_by_key(|of| of.number()));

    // Live and stored documents are the same bytes, but for how far they are behind.
    let mut again = service.get_media("cam-1", selector("EARLIEST")).await;
    let again = again.documents();
    assert_eq!(again.len(), documents.len());
    for (live, stored) in documents.iter().zip(&again) {
        assert!(live.without_end() == stored.without_end(), "{}", live.number());
    }
}

#[tokio::test(start_paused = true)]
async fn each_selector_begins_where_it_says() {
    let service = Service::new();
    let entries = service.archive.push(Push::new("cam-1", CLIP, START)).await;
    let all = words(&entries);
    let number = |index: usize| entries[index].meta.number.to_string();
    let seconds = |index: usize, shift_ms: i64| (entries[index].meta.producer_start.0 + shift_ms) as f64 / 1000.0;
    let at = |kind: &str, time: f64| json!({"StartSelectorType": kind, "StartTimestamp": time});
    let newest = all.len() - 1;
    for (selector, first) in [
        (selector("EARLIEST"), 0),
        (selector("NOW"), newest),
        (json!({"StartSelectorType": "FRAGMENT_NUMBER", "AfterFragmentNumber": number(1)}), 2),
        (json!({"StartSelectorType": "CONTINUATION_TOKEN", "ContinuationToken": number(0)}), 1),
        (json!({"StartSelectorType": "FRAGMENT_NUMBER", "AfterFragmentNumber": "1"}), 0),
        (json!({"StartSelectorType": "FRAGMENT_NUMBER", "AfterFragmentNumber": number(newest)}), newest + 1),
        (at("PRODUCER_TIMESTAMP", seconds(2, 0)), 2),
        (at("PRODUCER_TIMESTAMP", seconds(2, 1)), 2),
        (at("PRODUCER_TIMESTAMP", seconds(2, -1)), 1),
        (at("PRODUCER_TIMESTAMP", 0.0), 0),
        (at("SERVER_TIMESTAMP", seconds(3, 6)), 3),
        (at("SERVER_TIMESTAMP", 0.0), 0),
        (at("SERVER_TIMESTAMP", seconds(newest, 3_600_000)), newest + 1),
    ] {
        let mut watcher = service.get_media("cam-1", selector.clone()).await;
        assert_eq!(watcher.numbers(), all[first..], "{selector}");
    }
    // What was sent later covers what was there.
    let later = service.archive.push(Push::new("cam-1", CLIP, START)).await;
    let mut watcher = service.get_media("cam-1", at("PRODUCER_TIMESTAMP", seconds(1, 0))).await;
    assert_eq!(watcher.numbers(), words(&later)[1..]);
}

#[tokio::test(start_paused = true)]
async fn now_is_the_fragment_that_arrives() {
    let service = Service::new();
    service.archive.push(Push::new("cam-1", CLIP, START)).await;
    let mut push = LivePush::new(&service, "cam-1", START.plus_ms(60_000)).await;
    let parts = by_fragment(CLIP);
    // One that is complete but not durable, and one that arrives.
    let first: Vec<_> = parts[0].iter().cloned().filter_map(|output| push.give(output)).collect();
    for output in &parts[1][..3] {
        assert!(push.give(output.clone()).is_none());
    }
    let open = push.open.expect("an open fragment").number.sequence() & 0xffff_ffff;
    let mut watcher = service.get_media("cam-1", selector("NOW")).await;
    assert_eq!(watcher.numbers(), [open.to_string()]);
    assert_eq!(watcher.documents()[0].samples.len(), 2);
    first.into_iter().for_each(|complete| push.store(complete));
    push.give_all(parts[1][3..].iter().cloned());
    assert_eq!(watcher.numbers(), [format!("{open}+")]);
    // A stream that has nothing yet waits for what comes.
    service.stream("cam-2").await;
    let mut waits = service.get_media("cam-2", selector("NOW")).await;
    assert!(waits.documents().is_empty());
    let mut push = LivePush::new(&service, "cam-2", START).await;
    push.give_all(parts[0].iter().cloned());
    assert_eq!(waits.documents().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_the_disk_but_viewers_not_for_ever() {
    let service = Service::new();
    let mut watcher = {
        service.stream("cam-1").await;
        service.get_media("cam-1", selector("NOW")).await
    };
    let mut push = LivePush::new(&service, "cam-1", START).await;
    let parts = by_fragment(CLIP);
    let give = |push: &mut LivePush<'_>, index: usize| {
        parts[index].iter().cloned().find_map(|output| push.give(output)).expect("complete")
    };
    let first = give(&mut push, 0);
    let second = give(&mut push, 1);
    watcher.pump();
    pass(900).await;
    let documents = watcher.documents();
    assert_eq!(
        (documents.len(), documents[0].is_complete()),
        (1, false),
        "the next one waits for the first to be durable"
    );
    push.store(first);
    let documents = watcher.documents();
    assert_eq!((documents.len(), documents[0].is_complete()), (2, true));
    assert_eq!(documents[1].samples.len(), frames(&parts[1]), "what was held is all there");

    // The disk is too slow: what arrives goes on, and nothing says that it is durable.
    let third = give(&mut push, 2);
    watcher.pump();
    pass(1_100).await;
    let documents = watcher.documents();
    assert_eq!((documents.len(), documents[1].is_complete()), (3, false));
    push.store(second);
    push.store(third);
    let documents = watcher.documents();
    assert_eq!((documents.len(), documents[1].is_complete(), documents[2].is_complete()), (3, false, true));

    // One that fails ends without an end; the next begins at once.
    let fourth = give(&mut push, 3);
    watcher.pump();
    push.fail(fourth.0);
    let fifth = give(&mut push, 4);
    push.store(fifth);
    let documents = watcher.documents();
    assert_eq!((documents.len(), documents[3].is_complete(), documents[4].is_complete()), (5, false, true));
}

#[tokio::test(start_paused = true)]
async fn fragments_of_two_connections_come_in_the_order_of_their_numbers() {
    let service = Service::new();
    service.stream("cam-1").await;
    let mut watcher = service.get_media("cam-1", selector("NOW")).await;
    let parts = by_fragment(CLIP);
    let (mut old, mut new) =
        (LivePush::new(&service, "cam-1", START).await, LivePush::new(&service, "cam-1", START.plus_ms(5_000)).await);
    let half = parts[0].len() / 2;
    parts[0][..half].iter().cloned().for_each(|output| assert!(old.give(output).is_none()));
    parts[1][..half].iter().cloned().for_each(|output| assert!(new.give(output).is_none()));
    watcher.pump();
    pass(500).await;
    old.give_all(parts[0][half..].iter().cloned());
    let documents = watcher.documents();
    assert_eq!(documents.len(), 2, "the older one was waited for");
    assert!(documents[0].is_complete() && documents[0].number() < documents[1].number());
    assert_eq!(
        (documents[0].samples.len(), documents[1].samples.len()),
        (frames(&parts[0]), frames(&parts[1][..half]))
    );
    new.give_all(parts[1][half..].iter().cloned());

    // One that stays open is given up, and what still comes of it is not mixed into others.
    parts[2][..half].iter().cloned().for_each(|output| assert!(old.give(output).is_none()));
    parts[3][..half].iter().cloned().for_each(|output| assert!(new.give(output).is_none()));
    watcher.pump();
    pass(1_100).await;
    assert_eq!(watcher.documents().len(), 4);
    old.give_all(parts[2][half..].iter().cloned());
    new.give_all(parts[3][half..].iter().cloned());
    let documents = watcher.documents();
    assert_eq!(documents.len(), 4);
    assert_eq!((documents[2].is_complete(), documents[2].samples.len()), (false, frames(&parts[2][..half])));
    assert_eq!((documents[3].is_complete(), documents[3].samples.len()), (true, frames(&parts[3])));
}

#[tokio::test(start_paused = true)]
async fn an_older_fragment_that_is_still_open_comes_before_a_newer_one_that_is_stored() {
    let service = Service::new();
    let parts = by_fragment(CLIP);
    let now = START.plus_ms(3_600_000);
    let (mut old, mut new) = (LivePush::new(&service, "cam-1", now).await, LivePush::new(&service, "cam-1", now).await);
    let half = parts[0].len() / 2;
    parts[0][..half].iter().cloned().for_each(|output| assert!(old.give(output).is_none()));
    new.give_all(parts[1].iter().cloned());
    let mut watcher = service.get_media("cam-1", selector("EARLIEST")).await;
    assert_eq!(watcher.documents().len(), 1);
    old.give_all(parts[0][half..].iter().cloned());
    let documents = watcher.documents();
    assert!(documents.len() == 2 && documents[0].number() < documents[1].number());
    assert!(documents.iter().all(|of| of.is_complete()));
    assert_eq!(documents[0].samples.len(), frames(&parts[0]));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_everything_once_and_holds_nothing() {
    let budget_bytes = 12_000;
    let service = Service::with_budget(budget_bytes);
    service.stream("cam-1").await;
    let mut watcher = service.get_media("cam-1", selector("NOW")).await;
    let mut push = LivePush::new(&service, "cam-1", START).await;
    let parts = by_fragment(CLIP);
    let half = parts[0].len() / 2;
    parts[0][..half].iter().cloned().for_each(|output| assert!(push.give(output).is_none()));
    watcher.pump();
    let begun = watcher.taken().len();
    // It stops reading within a fragment.
    push.give_all(parts[0][half..].iter().cloned());
    parts[1..].iter().for_each(|part| push.give_all(part.iter().cloned()));
    assert!(service.hub.held_bytes() <= budget_bytes, "{}", service.hub.held_bytes());
    assert_eq!(watcher.taken().len(), begun);
    let documents = watcher.documents();
    let got: Vec<_> = documents.iter().flat_map(|of| &of.samples).map(essence).collect();
    let sent: Vec<_> = clip_samples(CLIP).iter().map(essence).collect();
    assert_eq!((documents.len(), got.len()), (parts.len(), sent.len()));
    assert!(got == sent);
    assert!(documents.iter().all(|of| of.is_complete() && of.clusters == 1));
}

#[tokio::test(start_paused = true)]
async fn what_expires_is_passed_over_and_what_is_damaged_is_named() {
    let service = Service::new();
    let entries = service.archive.push(Push::new("cam-1", CLIP, START)).await;
    let number = |index: usize| entries[index].meta.number;
    service.archive.source.remove(number(1));
    service.archive.source.damage(number(2));
    let mut watcher = service.get_media("cam-1", selector("EARLIEST")).await;
    // The third goes while it is read.
    let begun = |taken: &[u8]| String::from_utf8_lossy(taken).contains(&number(3).to_string());
    while !begun(watcher.taken()) {
        assert!(watcher.pump_once());
    }
    service.archive.source.remove(number(3));
    let documents = watcher.documents();
    let came: Vec<String> = documents.iter().map(|of| of.number()).collect();
    let left = (0..entries.len()).filter(|index| *index != 1);
    assert_eq!(came, left.map(|index| number(index).to_string()).collect::<Vec<_>>());
    assert_eq!((documents[1].tag("ERROR_ID"), documents[1].tag("ERROR_CODE")), (Some("5000"), Some("INTERNAL_ERROR")));
    assert!(documents[0].is_complete() && !documents[2].is_complete() && documents[3].is_complete());
    assert!(!watcher.over);
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_with_its_stream_or_with_the_server() {
    let service = Service::new();
    service.archive.push(Push::new("cam-1", CLIP, START)).await;
    service.archive.push(Push::new("cam-2", CLIP, START)).await;
    let (mut first, mut second) = (
        service.get_media("cam-1", selector("EARLIEST")).await,
        service.get_media("cam-2", selector("EARLIEST")).await,
    );
    assert_eq!(first.documents().len(), second.documents().len());
    assert!(!first.over && !second.over, "no forced end");
    let name = StreamName::new("cam-1").expect("a name");
    service.archive.registry.delete(&name).await.expect("deleted");
    // A new stream of that name is not the one that was asked for.
    service.stream("cam-1").await;
    pass(1_100).await;
    first.pump();
    second.pump();
    assert!(first.over && !second.over);
    service.stop.cancel();
    second.pump();
    assert!(second.over);
}

#[tokio::test(start_paused = true)]
async fn answers_end_when_their_readers_may_not_go_on() {
    let service = Service::new();
    let entries = service.archive.push(Push::new("cam-1", CLIP, START)).await;
    let numbers = vec![entries[0].meta.number.to_string(); 10];
    let mut media = service.get_media("cam-1", selector("EARLIEST")).await;
    let mut list = service.open_list("cam-1", &numbers).await;
    let time = |at: vidar_core::time::UnixMs| at.0 as f64 / 1000.0;
    let range = json!({"StartTimestamp": time(START), "EndTimestamp": time(START.plus_ms(60_000))});
    let selector = json!({"FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": range});
    let clip = json!({"StreamName": "cam-1", "ClipFragmentSelector": selector});
    let mut clip = service.good("/getClip", clip).await.into_body();
    media.pump();
    assert!(!media.over && list.frame().await.is_some());
    assert!(clip.frame().await.expect("a piece").is_ok());
    service.keys.revoked.store(true, Ordering::Relaxed);
    pass(1_100).await;
    media.pump();
    assert!(media.over);
    assert!(clip.frame().await.expect("no end").is_err(), "a clip breaks off");
    let mut count = 0;
    while list.frame().await.is_some() {
        count += 1;
    }
    assert!(count > 0 && count < 20, "the fragment that was begun: {count}");
}

#[tokio::test(start_paused = true)]
async fn several_consumers_see_the_same_and_leave_nothing_behind() {
    let service = Service::new();
    service.stream("cam-1").await;
    let mut watchers = Vec::new();
    for _ in 0..5 {
        watchers.push(service.get_media("cam-1", selector("NOW")).await);
    }
    let mut push = LivePush::new(&service, "cam-1", START).await;
    for (index, part) in by_fragment(CLIP).into_iter().enumerate() {
        push.give_all(part);
        // They come and go.
        if index > 0 && watchers.len() > 2 {
            watchers.pop();
        }
        watchers.iter_mut().for_each(|watcher| watcher.pump());
    }
    let first = watchers[0].bytes().to_vec();
    assert!(first.len() > 1000 && watchers.iter_mut().all(|watcher| watcher.bytes() == first));
    drop(watchers);
    assert_eq!(service.hub.held_bytes(), 0);
}

#[tokio::test]
async fn requests_are_checked() {
    let service = Service::new();
    service.archive.push(Push::new("cam-1", CLIP, START)).await;
    let invalid = (400, "InvalidArgumentException".to_owned());
    for selector in [
        Value::Null,
        json!({}),
        selector("LATER"),
        selector("FRAGMENT_NUMBER"),
        selector("SERVER_TIMESTAMP"),
        selector("PRODUCER_TIMESTAMP"),
        selector("CONTINUATION_TOKEN"),
        json!({"StartSelectorType": "CONTINUATION_TOKEN", "ContinuationToken": "abc.def"}),
        json!({"StartSelectorType": "SERVER_TIMESTAMP", "StartTimestamp": "soon"}),
    ] {
        let body = json!({"StreamName": "cam-1", "StartSelector": selector});
        assert_eq!(service.bad("/getMedia", body).await, invalid, "{selector}");
    }
    assert_eq!(service.bad("/getMedia", json!({"StartSelector": selector("NOW")})).await, invalid);
    let body = |stream: &str| json!({"StreamName": stream, "StartSelector": selector("NOW")});
    assert_eq!(service.bad("/getMedia", body("none")).await, (404, "ResourceNotFoundException".to_owned()));
    assert_eq!(service.bad_as("writer", "/getMedia", body("cam-1")).await.0, 403);
    assert_eq!(service.bad_as("reader", "/getMedia", body("other")).await.0, 403);
    assert_eq!(service.bad_as("reader", "/getMedia", body("cam-1")).await.0, 200);
}
