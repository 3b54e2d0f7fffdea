//! PutMedia through the binary, by a producer that behaves as the C one does.

mod common;

use common::kinesis::{
    Fault, Producer, Put, address, call, cluster, create, end_of_fragment, frame, header, second, short, tags,
    tracks_header,
};
use common::{Random, Vidar, assert_lists, packets, start_in, start_with};
use serde_json::{Value, json};

const KVS: [&str; 2] = ["--kvs", "127.0.0.1:0"];
/// 2026-11-23T02:31:05Z, and as milliseconds.
const AT: &str = "1795401065";
const AT_MS: u64 = 1_795_401_065_000;

/// A server with a stream, and where it takes media.
fn serve(flags: &[&str]) -> (Vidar, String) {
    let mut vidar = start_with(&[&KVS[..], flags].concat());
    let at = address(&mut vidar);
    create(&at, "cam");
    (vidar, at)
}

fn of<'a>(acks: &'a [Value], event: &str) -> Vec<&'a Value> {
    acks.iter().filter(|ack| ack["EventType"] == event).collect()
}

fn error_id(acks: &[Value]) -> Option<u64> {
    acks.last().and_then(|ack| ack["ErrorId"].as_u64())
}

/// Every fragment went all the way, in order.
fn assert_persisted(acks: &[Value]) -> Vec<&str> {
    let numbers = |event: &str| -> Vec<&str> {
        of(acks, event).iter().map(|ack| ack["FragmentNumber"].as_str().expect("a text")).collect()
    };
    let began = numbers("BUFFERING");
    assert!(began.is_sorted_by(|a, b| a < b) && began.iter().all(|number| number.len() == 47), "{acks:?}");
    assert_eq!((&numbers("RECEIVED"), &numbers("PERSISTED")), (&began, &began), "{acks:?}");
    began
}

#[test]
fn clusters_come_back_as_fragments_once_they_are_durable() {
    let (vidar, at) = serve(&[]);
    for clip in vidar_fixtures::corpus(&["mkv", "webm"]) {
        let name = clip.file_name().and_then(|name| name.to_str()).expect("UTF-8").replace(['[', ']'], "_");
        create(&at, &name);
        let mut put = Put::relative(&name, AT).open(&at);
        for chunk in std::fs::read(&clip).expect("a clip").chunks(10_007) {
            put.send(chunk);
        }
        let acks = put.finish();
        let began = assert_persisted(&acks);
        let fragments = vidar.fragments(&name);
        let mut stored: Vec<&str> = fragments.iter().map(|f| f["fragment_number"].as_str().expect("a text")).collect();
        stored.sort_unstable();
        assert_eq!(stored, began, "{name}");
        assert!(fragments.iter().all(|fragment| fragment["incomplete"] == false), "{name}: {fragments:?}");
    }
    let back = tempfile::NamedTempFile::with_suffix(".mkv").expect("a file");
    let (status, bytes) = vidar.request(&[], &format!("/v1/streams/bbb.mkv/clip.mkv?start={AT}&end={}", 1_795_401_165));
    assert_eq!(status, 200);
    std::fs::write(back.path(), bytes).expect("it is written");
    let sent = packets(vidar_fixtures::path("bbb.mkv").to_str().expect("UTF-8"));
    let got = packets(back.path().to_str().expect("UTF-8"));
    for (track, (sent, got)) in sent.iter().zip(&got).enumerate() {
        let plain =
            |packets: &[common::Packet]| packets.iter().map(|p| (p.size, p.hash.clone(), p.key)).collect::<Vec<_>>();
        assert_lists(&format!("track {track}"), &plain(sent), &plain(got));
    }
}

#[test]
fn a_fragment_is_told_when_it_begins_and_closes_at_the_next_or_at_its_tag() {
    let (vidar, at) = serve(&[]);
    let mut put = Put::to("cam").open(&at);
    put.send(&[header(), cluster(AT_MS), frame(1, 0, b"key")].concat());
    assert_eq!(short(&[put.ack().expect("one")]), [format!("BUFFERING {AT_MS}")]);
    // Metadata comes after its Cluster. The last chunk is withheld until the end is persisted.
    put.send(&[tags(&[("door", "open")]), cluster(AT_MS + 1000), frame(1, 0, b"key")].concat());
    let mut acks = put.acks_until("PERSISTED");
    put.send(&end_of_fragment());
    acks.extend(put.acks_until("PERSISTED"));
    let expected = [
        format!("BUFFERING {}", AT_MS + 1000),
        format!("RECEIVED {AT_MS}"),
        format!("PERSISTED {AT_MS}"),
        format!("RECEIVED {}", AT_MS + 1000),
        format!("PERSISTED {}", AT_MS + 1000),
    ];
    let mut got = short(&acks);
    got.sort_by_key(|ack| !ack.starts_with("BUFFERING"));
    assert_eq!(got, expected);
    assert_eq!(put.finish(), Vec::<Value>::new());
    let fragments = vidar.fragments("cam");
    let shown: Vec<_> = fragments.iter().map(|f| (&f["producer_time"], &f["duration_ms"], &f["tags"])).collect();
    assert_eq!(
        shown[0],
        (&json!("2026-11-23T02:31:05.000Z"), &json!(1000), &json!([{"name": "door", "value": "open"}]))
    );
    assert_eq!(shown[1].0, &json!("2026-11-23T02:31:06.000Z"));
}

#[test]
fn who_may_not_hears_it_before_media() {
    let (_vidar, at) = serve(&[]);
    let refused = |put: Put<'_>| put.try_open(&at).map(|_| ()).unwrap_err();
    let error = |status: u16, name: &str| (status, name.to_owned());
    assert_eq!(refused(Put { secret: "wrong", ..Put::to("cam") }), error(403, "InvalidSignatureException"));
    assert_eq!(refused(Put::to("none")), error(404, "ResourceNotFoundException"));
    assert_eq!(refused(Put { timecodes: "absolute", ..Put::to("cam") }), error(400, "InvalidArgumentException"));
    assert_eq!(
        refused(Put { timecodes: "RELATIVE", start: "soon", ..Put::to("cam") }),
        error(400, "InvalidArgumentException")
    );
    let (_first, _second) = (Put::to("cam").open(&at), Put::to("cam").open(&at));
    assert_eq!(refused(Put::to("cam")), error(400, "ConnectionLimitExceededException"));
}

/// What a server says of this body: the acknowledgements, an ERROR last where there is one.
fn put(at: &str, body: &[u8]) -> Vec<Value> {
    let mut put = Put::to("cam").open(at);
    put.send(body);
    put.finish()
}

#[test]
fn what_breaks_the_format_is_refused_by_its_number() {
    let (vidar, at) = serve(&["--kvs-limits", "none"]);
    let begun = [header(), second(AT_MS), cluster(AT_MS + 1000), frame(1, 0, b"key")].concat();
    let goes_on = |more: &[u8]| [&begun[..], more].concat();
    let large = [&[0xa3][..], &((1_u64 << 56) | (60 << 20)).to_be_bytes()].concat();
    for (what, body, id, timecode) in [
        ("a frame over 50 MB", goes_on(&large), 4001, Some(AT_MS + 1000)),
        ("back in time", goes_on(&second(AT_MS + 999)), 4004, Some(AT_MS + 999)),
        ("no element", goes_on(&[0; 16]), 4006, Some(AT_MS + 1000)),
        ("no Matroska", b"RIFF....".to_vec(), 4006, None),
        ("ends in an element", goes_on(&frame(1, 1, b"abc")[..9]), 4006, Some(AT_MS + 1000)),
        ("the year 10000", goes_on(&second(300_000_000_000_000)), 4007, Some(300_000_000_000_000)),
        ("a track not declared", goes_on(&frame(2, 1, b"x")), 4010, Some(AT_MS + 1000)),
        ("11 tracks", [tracks_header(11), second(AT_MS)].concat(), 4012, None),
    ] {
        let acks = put(&at, &body);
        assert_eq!(error_id(&acks), Some(id), "{what}: {acks:?}");
        let error = acks.last().expect("an error");
        assert_eq!(error["FragmentTimecode"].as_u64(), timecode, "{what}: {acks:?}");
        // The fragment before is kept, and said to be, before the refusal.
        let complete = short(&acks).contains(&format!("PERSISTED {AT_MS}"));
        assert_eq!(complete, body.starts_with(&begun), "{what}: {acks:?}");
        let kept = of(&acks, "PERSISTED").len();
        assert_eq!(
            kept,
            of(&acks, "BUFFERING").len() - usize::from(kept > 0 && id != 4004 && id != 4007),
            "{what}: {acks:?}"
        );
    }
    // Nothing that came is lost: a fragment that was cut off is kept as such.
    let fragments = vidar.fragments("cam");
    assert!(fragments.iter().any(|fragment| fragment["incomplete"] == true));
}

#[test]
fn rules_that_users_would_do_without_hold_where_they_are_asked_for() {
    let (_strict, strict) =
        serve(&["--kvs-limits", "none", "--kvs-strict", "duration,timecodes,tracks,frames,sizes,headers,tags"]);
    let (_lenient, lenient) = serve(&["--kvs-limits", "none"]);
    let sized = [header(), common::element(&[0x1f, 0x43, 0xb6, 0x75], &second(AT_MS)[5..], true)].concat();
    for (what, body, id) in [
        ("20 s", [header(), cluster(AT_MS), frame(1, 0, b"a"), frame(1, 20_000, b"b")].concat(), 4002),
        ("the same time", [header(), second(AT_MS), second(AT_MS)].concat(), 4004),
        ("overlap", [header(), second(AT_MS), second(AT_MS + 960)].concat(), 4004),
        ("a size", sized, 4006),
        ("two documents", [header(), second(AT_MS), header(), second(AT_MS - 5000)].concat(), 4006),
        ("a reserved tag", [header(), second(AT_MS), tags(&[("AWS_X", "1")])].concat(), 4009),
        ("a track without frames", [tracks_header(2), second(AT_MS)].concat(), 4011),
        ("4 tracks", [tracks_header(4), second(AT_MS)].concat(), 4012),
    ] {
        assert_eq!(error_id(&put(&strict, &body)), Some(id), "{what}");
        assert_persisted(&put(&lenient, &body));
    }
    assert_persisted(&put(
        &strict,
        &[tracks_header(3), cluster(AT_MS), frame(1, 0, b"a"), frame(2, 0, b"b"), frame(3, 0, b"c")].concat(),
    ));
}

#[test]
fn metadata_is_kept_within_its_limits() {
    let (_vidar, at) = serve(&[]);
    let names: Vec<String> = (0..11).map(|index| format!("name{index}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "value")).collect();
    let fragment = |tags: Vec<u8>| [header(), tags.clone(), second(AT_MS), tags].concat();
    assert_persisted(&put(&at, &fragment(tags(&pairs[..10]))));
    // What stands before the first Cluster is of the file.
    assert_eq!(error_id(&put(&at, &fragment(tags(&pairs)))), Some(4009));
    assert_eq!(error_id(&put(&at, &fragment(tags(&[("name", &"v".repeat(257))])))), Some(4009));
    assert_persisted(&put(&at, &fragment(tags(&[("name", &"v".repeat(256))]))));
}

#[test]
fn a_body_without_a_fragment_ends_cleanly() {
    let (vidar, at) = serve(&[]);
    for body in [end_of_fragment(), header()] {
        assert_eq!(put(&at, &body), Vec::<Value>::new());
    }
    assert_eq!(Put::to("cam").open(&at).finish(), Vec::<Value>::new());
    assert!(vidar.fragments("cam").is_empty());
    let mut errors_only = Put { acks: "0", ..Put::to("cam") }.open(&at);
    errors_only.send(&[header(), second(AT_MS), b"\0\0".to_vec()].concat());
    assert_eq!(error_id(&errors_only.finish()), Some(4006));
}

#[test]
fn the_java_client_is_understood() {
    let (vidar, at) = serve(&[]);
    let java = Put { java: true, expect: false, ..Put::relative("cam", "2026-11-23T02:31:05.897Z") };
    let mut put = java.open(&at);
    put.send(&[header(), second(103)].concat());
    let acks = put.finish();
    assert_persisted(&acks);
    assert_eq!(acks[0]["FragmentTimecode"], 103, "as it was sent");
    assert_eq!(vidar.fragments("cam")[0]["producer_time"], "2026-11-23T02:31:06.000Z");
}

#[test]
fn a_fragment_that_is_sent_again_is_marked_and_the_first_is_kept() {
    let (vidar, at) = serve(&[]);
    let mut first = Put::to("cam").open(&at);
    first.send(&[header(), second(AT_MS), cluster(AT_MS + 1000), frame(1, 0, b"key")].concat());
    first.acks_until("PERSISTED");
    first.reset();
    vidar.until("both", |vidar| (vidar.fragments("cam").len() == 2).then_some(()));
    let again = put(&at, &[header(), second(AT_MS + 1000), second(AT_MS + 2000)].concat());
    assert_persisted(&again);
    let fragments = vidar.fragments("cam");
    let mut shown: Vec<_> = fragments
        .iter()
        .map(|f| (f["producer_time"].as_str().expect("a time"), f["incomplete"] == true, f["repeats"] == true))
        .collect();
    shown.sort_unstable();
    let expected = [
        ("2026-11-23T02:31:05.000Z", false, false),
        ("2026-11-23T02:31:06.000Z", false, true),
        ("2026-11-23T02:31:06.000Z", true, false),
        ("2026-11-23T02:31:07.000Z", false, false),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_silent_producer_is_told_that_it_is_heard_and_then_ended() {
    let (_vidar, at) = serve(&["--idle-timeout-s", "6"]);
    let mut put = Put::to("cam").open(&at);
    put.send(&[header(), second(AT_MS), end_of_fragment()].concat());
    assert_eq!(short(&put.acks())[3..], ["IDLE null"]);
}

#[test]
fn a_stream_that_is_deleted_under_a_producer_ends_its_connection() {
    let (vidar, at) = serve(&[]);
    let mut put = Put::to("cam").open(&at);
    put.send(&[header(), second(AT_MS), end_of_fragment()].concat());
    put.acks_until("PERSISTED");
    assert_eq!(vidar.request(&["-X", "DELETE"], "/v1/streams/cam").0, 204);
    put.send(&second(AT_MS + 1000));
    assert_eq!(error_id(&put.finish()), Some(4008));
    assert_eq!(call(&at, "/describeStream", &json!({"StreamName": "cam"})).0, 404, "it is not made again");
}

#[test]
fn a_stop_lets_producers_come_again_with_the_fragment_that_went_on() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let mut vidar = start_in(&dir, &KVS);
    let at = address(&mut vidar);
    create(&at, "cam");
    let mut producer = Put::to("cam").open(&at);
    producer.send(&[header(), second(AT_MS), second(AT_MS + 1000)].concat());
    producer.acks_until("PERSISTED");
    let stopped = std::thread::spawn(move || vidar.terminate());
    let mut acks = producer.acks_until("ERROR");
    producer.end();
    acks.extend(producer.acks());
    let error = acks.last().expect("an error");
    assert_eq!((error_id(&acks), error["FragmentTimecode"].as_u64()), (Some(4003), Some(AT_MS + 1000)), "{acks:?}");
    assert_eq!(stopped.join().expect("no panic"), Some(0));
    let mut vidar = start_in(&dir, &KVS);
    let at = address(&mut vidar);
    assert_persisted(&put(&at, &[header(), second(AT_MS + 1000)].concat()));
    assert_eq!(vidar.fragments("cam").iter().filter(|fragment| fragment["repeats"] == true).count(), 1);
}

/// All that a producer made is there, once and in order, whatever happened on the way.
fn assert_all_there(vidar: &Vidar, timecodes: &[u64], frames: i16) {
    let fragments = vidar.fragments("cam");
    for timecode in timecodes {
        let time = vidar_core::time::UnixMs(*timecode as i64).to_string();
        let mut of_time: Vec<&Value> =
            fragments.iter().filter(|fragment| fragment["producer_time"] == time.as_str()).collect();
        of_time.sort_by_key(|fragment| fragment["fragment_number"].as_str().map(str::to_owned));
        let complete = of_time.iter().any(|fragment| fragment["incomplete"] == false);
        assert!(complete, "{time}: {of_time:?}");
        let repeats: Vec<bool> = of_time.iter().map(|fragment| fragment["repeats"] == true).collect();
        assert!(!repeats[0] && repeats[1..].iter().all(|repeats| *repeats), "{time}: {of_time:?}");
    }
    let file = tempfile::NamedTempFile::with_suffix(".mkv").expect("a file");
    let end = (timecodes.last().expect("one") + 60_000) as f64 / 1000.0;
    let (status, bytes) =
        vidar.request(&[], &format!("/v1/streams/cam/clip.mkv?start={}&end={end}", timecodes[0] as f64 / 1000.0));
    assert_eq!(status, 200);
    std::fs::write(file.path(), bytes).expect("it is written");
    let sizes: Vec<u64> = packets(file.path().to_str().expect("UTF-8"))[0].iter().map(|packet| packet.size).collect();
    let len = |timecode: &u64, index: i16| format!("{timecode}/{index}/").len() as u64 + index as u64 * 17;
    let expected: Vec<u64> =
        timecodes.iter().flat_map(|timecode| (0..frames).map(move |index| len(timecode, index))).collect();
    assert_lists("frames", &expected, &sizes);
}

#[test]
fn a_producer_loses_nothing_by_resets_rotation_late_acks_and_restarts() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let (dir, flags) = (own.path().join("data"), [&KVS[..], &["--kvs-limits", "none"]].concat());
    let mut vidar = start_in(&dir, &flags);
    let mut at = address(&mut vidar);
    create(&at, "cam");
    let (mut producer, mut random, mut timecodes) = (Producer::new("cam"), Random(7), Vec::new());
    for index in 0..60 {
        let timecode = AT_MS + index * 1000;
        timecodes.push(timecode);
        producer.produce(timecode, 25);
        let fault = match random.below(8) {
            0 => Fault::Reset,
            1 => Fault::LateAcks,
            2 => Fault::Rotate,
            3 if index % 3 == 0 => {
                vidar.kill();
                vidar = start_in(&dir, &flags);
                at = address(&mut vidar);
                Fault::None
            }
            _ => Fault::None,
        };
        producer.send(&at, fault);
    }
    let producer = producer.stop(&at);
    assert!(producer.skipped.is_empty() && producer.connections > 10, "{} {:?}", producer.connections, producer.errors);
    assert_all_there(&vidar, &timecodes, 25);
}
