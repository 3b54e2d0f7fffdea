//! What is said on one connection, word for word.

mod rtsp_common;

use std::time::Duration;

use md5::{Digest as _, Md5};
use rtsp_common::client::{Client, SDP, interleaved, report, rtp};
use rtsp_common::{FADING, OTHER, SECRET, Server, Store, USER};
use sha2::Sha256;
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use vidar_core::clock::ManualClock;
use vidar_core::time::UnixMs;
use vidar_media::{Codec, Event, SyncKind};

const IDR: &[u8] = &[0x65, 0x88, 0x84, 0, 0x10];
const SLICE: &[u8] = &[0x41, 0x9a, 0x21, 0x6c];
const TCP: &str = "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record";

async fn open() -> Server {
    Server::with(Store::Takes, |options| options.allow_basic = true).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn nothing_but_options_without_a_password() {
    let server = Server::start().await;
    let mut client = Client::connect(server.address).await;
    client.authorization = None;
    let options = client.request("OPTIONS", "cam", "", "").await;
    assert_eq!(options.status, 200);
    for method in ["ANNOUNCE", "SETUP", "RECORD", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER"] {
        assert!(options.field("Public").contains(method));
    }
    for method in ["ANNOUNCE", "SETUP", "RECORD", "TEARDOWN", "GET_PARAMETER", "DESCRIBE", "NONSENSE"] {
        let answer = client.request(method, "cam", "", "").await;
        assert_eq!(answer.status, 401, "{method}");
        let challenges = answer.fields("WWW-Authenticate");
        assert_eq!(challenges.len(), 2, "no Basic unless it was allowed");
        assert!(challenges[0].contains("SHA-256") && challenges[1].contains("MD5"));
    }
    let mut basic = Client::connect(server.address).await;
    assert_eq!(basic.announce(SDP).await.status, 401);
    assert_eq!(server.run_count(), 0);
}

#[tokio::test]
async fn digest_of_both_algorithms_with_and_without_qop() {
    let server = Server::start().await;
    for (sha, qop) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut client = Client::connect(server.address).await;
        client.authorization = None;
        let challenge = client.announce(SDP).await;
        let nonce =
            challenge.field("WWW-Authenticate").split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let hash = |text: String| if sha { hex(&Sha256::digest(text)) } else { hex(&Md5::digest(text)) };
        let uri = format!("rtsp://{}/cam", server.address);
        let answer = |secret: &str, nonce: &str| {
            let (user, request) = (hash(format!("{USER}:vidar:{secret}")), hash(format!("ANNOUNCE:{uri}")));
            let (middle, extra) =
                if qop { (":00000001:c0ffee:auth", ", qop=auth, nc=00000001, cnonce=\"c0ffee\"") } else { ("", "") };
            let algorithm = if sha { ", algorithm=SHA-256" } else { "" };
            let response = hash(format!("{user}:{nonce}{middle}:{request}"));
            format!(
                "Digest username=\"{USER}\", realm=\"vidar\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\"{extra}{algorithm}"
            )
        };
        client.authorization = Some(answer(SECRET, "another"));
        let stale = client.announce(SDP).await;
        assert_eq!(stale.status, 401);
        assert!(stale.fields("WWW-Authenticate").iter().all(|challenge| challenge.contains("stale=true")));
        client.authorization = Some(answer("wrong", &nonce));
        let wrong = client.announce(SDP).await;
        assert_eq!((wrong.status, wrong.head.contains("stale")), (401, false));
        client.authorization = Some(answer(SECRET, &nonce));
        assert_eq!(client.announce(SDP).await.status, 200, "sha {sha}, qop {qop}");
    }
}

#[tokio::test]
async fn guessing_ends_the_connection() {
    let server = open().await;
    let mut client = Client::connect(server.address).await;
    client.authorization = Some("Basic QUtFWTpndWVzcw==".to_owned());
    for _ in 0..5 {
        assert_eq!(client.announce(SDP).await.status, 401);
    }
    client.stream.shutdown().await.unwrap();
    assert!(client.answer().await.is_none());
}

#[tokio::test]
async fn methods_out_of_order() {
    let server = open().await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.set_up("video", TCP).await.status, 455);
    assert_eq!(client.request("RECORD", "cam", "", "").await.status, 455);
    assert_eq!(client.request("PAUSE", "cam", "", "").await.status, 455);
    assert_eq!(client.request("TEARDOWN", "cam", "", "").await.status, 454);
    assert_eq!(client.announce(SDP).await.status, 200);
    assert_eq!(client.request("RECORD", "cam", "", "").await.status, 455);
    assert_eq!(client.announce(SDP).await.status, 200, "again, nothing is set up yet");
    assert_eq!(client.set_up("nothing", TCP).await.status, 404);
    assert_eq!(client.set_up("video", "RTP/AVP;multicast;port=1-2").await.status, 461);
    assert_eq!(client.set_up("video", "RTP/AVP/TCP;interleaved=0-1;mode=play").await.status, 461);
    assert_eq!(client.set_up("video", TCP).await.field("Transport"), TCP);
    assert_eq!(client.set_up("video", TCP).await.status, 200, "again");
    let other = client.set_up("audio", "RTP/AVP/TCP;unicast;interleaved=1-2").await;
    assert!(other.field("Transport").contains("interleaved=2-3"), "another pair: {}", other.head);
    assert_eq!(client.announce(SDP).await.status, 455);
    let session = client.session.replace("someone-else".to_owned());
    assert_eq!(client.request("RECORD", "cam", "", "").await.status, 454);
    client.session = session;
    assert_eq!(client.request("RECORD", "cam/video", "", "").await.status, 460);
    assert_eq!(
        client.request("RECORD", "cam", "Require: com.example.x\r\n", "").await.field("Unsupported"),
        "com.example.x"
    );
    assert_eq!(client.request("RECORD", "cam", "Range: npt=0.000-\r\n", "").await.status, 200);
    assert_eq!(client.set_up("video", TCP).await.status, 455);
    for (method, status) in [("DESCRIBE", 405), ("PLAY", 405), ("REDIRECT", 501), ("GET", 501)] {
        assert_eq!(client.request(method, "cam", "", "").await.status, status, "{method}");
    }
    assert_eq!(client.request("GET_PARAMETER", "cam", "", "").await.status, 200);
    assert_eq!(client.request("SET_PARAMETER", "cam", "", "").await.status, 200);
    assert_eq!(client.request("SET_PARAMETER", "cam", "", "volume: 11").await.status, 451);
    assert_eq!(client.request("PAUSE", "cam", "", "").await.status, 200);
    assert_eq!(client.request("RECORD", "cam", "", "").await.status, 200);
    assert_eq!(client.raw("OPTIONS rtsp://h/cam RTSP/2.0\r\nCSeq: 9\r\n\r\n").await.status, 505);
    assert_eq!(client.raw("OPTIONS cam RTSP/1.0\r\nCSeq: 9\r\n\r\n").await.status, 400);
    assert_eq!(client.request("TEARDOWN", "cam", "", "").await.status, 200);
    client.session = None;
    assert_eq!(ends(&server), ["PAUSE", "TEARDOWN"]);
    client.begin().await;
    assert_eq!(server.run_count(), 3, "the connection can be used again");
}

/// How the runs ended, those that did.
fn ends(server: &Server) -> Vec<String> {
    server.runs().into_iter().filter_map(|run| run.finished.map(|(_, cause)| cause)).collect()
}

/// A paused session is kept for as long as its client is heard of.
#[tokio::test]
async fn a_pause_ends_a_run_and_the_next_record_begins_one() {
    let clock = ManualClock::new(UnixMs(0));
    let server =
        Server::with(Store::Takes, |options| (options.allow_basic, options.clock) = (true, clock.clone())).await;
    let mut client = Client::connect(server.address).await;
    client.begin().await;
    client.send(&interleaved(0, &rtp(96, 10, 9000, IDR))).await;
    assert_eq!(client.request("PAUSE", "cam", "", "").await.status, 200);
    assert_eq!(ends(&server), ["PAUSE"], "what was sent is kept before the answer");
    assert_eq!(client.request("PAUSE", "cam", "", "").await.status, 200, "again");
    client.send(&interleaved(0, &rtp(96, 11, 12_600, SLICE))).await;
    for _ in 0..3 {
        clock.advance(Duration::from_secs(59));
        assert_eq!(client.request("GET_PARAMETER", "cam", "", "").await.status, 200);
    }
    assert_eq!(client.request("RECORD", "cam", "", "").await.status, 200);
    client.send(&interleaved(0, &rtp(96, 12, 16_200, IDR))).await;
    client.send(&interleaved(0, &rtp(96, 13, 19_800, SLICE))).await;
    assert_eq!(client.request("PAUSE", "cam", "", "").await.status, 200);
    let runs = server.runs();
    assert_eq!(runs.iter().map(|run| run.samples(0).len()).collect::<Vec<_>>(), [1, 2], "nothing of the pause");
    assert_eq!(runs.iter().map(|run| run.finished.as_ref().unwrap().0).collect::<Vec<_>>(), [true, true]);
    clock.advance(Duration::from_secs(60));
    assert!(client.answer().await.is_none(), "a silent client, paused or not, is dropped");
}

#[tokio::test]
async fn announcements_that_are_refused() {
    let server = open().await;
    let mut client = Client::connect(server.address).await;
    let sdp = "Content-Type: application/sdp\r\n";
    for (path, extra, body, status) in [
        ("", sdp, SDP, 404),
        ("cam/more", sdp, SDP, 404),
        ("c%20m", sdp, SDP, 400),
        ("..%2fcam", sdp, SDP, 400),
        (rtsp_common::CLOSED, sdp, SDP, 403),
        ("cam", "Content-Type: text/plain\r\n", SDP, 415),
        ("cam", sdp, "", 400),
        ("cam", sdp, "nonsense", 400),
        ("cam", sdp, "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 VP9/90000\r\n", 415),
        ("cam", "Content-Type: Application/SDP;charset=utf-8\r\n", SDP, 200),
        ("cam/", "", SDP, 200),
    ] {
        assert_eq!(client.request("ANNOUNCE", path, extra, body).await.status, status, "{path} {extra} {body}");
    }
    let many = "m=audio 0 RTP/AVP 0\r\n".repeat(11);
    assert_eq!(client.announce(&format!("v=0\r\n{many}")).await.status, 413);
    let long = "ANNOUNCE rtsp://h/cam RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 70000\r\n\r\n";
    assert_eq!(client.raw(long).await.status, 413);
    assert!(client.answer().await.is_none(), "the rest cannot be read on");
}

#[tokio::test]
async fn a_session_is_of_the_key_that_announced_it_while_that_may_push() {
    let server = open().await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.announce(SDP).await.status, 200);
    client.become_key(OTHER);
    assert_eq!(client.set_up("video", TCP).await.status, 403);
    assert_eq!(client.announce(SDP).await.status, 403);
    client.become_key(USER);
    assert_eq!(client.set_up("video", TCP).await.status, 200);
    client.become_key(OTHER);
    for method in ["RECORD", "PAUSE", "TEARDOWN", "GET_PARAMETER"] {
        assert_eq!(client.request(method, "cam", "", "").await.status, 403, "{method}");
    }
    client.become_key(USER);
    assert_eq!(client.request("RECORD", "cam", "", "").await.status, 200);

    let mut client = Client::connect(server.address).await;
    client.become_key(FADING);
    assert_eq!(client.announce(SDP).await.status, 200);
    assert_eq!(client.set_up("video", TCP).await.status, 200);
    assert_eq!(client.request("RECORD", "cam", "", "").await.status, 403, "its policy is another now");
    assert_eq!(server.run_count(), 1);
}

#[tokio::test]
async fn refusals_of_the_store_have_words_in_rtsp() {
    for (status, said) in [(404, 404), (409, 455), (503, 503), (507, 503), (200, 500)] {
        let server = Server::with(Store::Refuses(status), |options| options.allow_basic = true).await;
        let mut client = Client::connect(server.address).await;
        assert_eq!(client.announce(SDP).await.status, 200);
        assert_eq!(client.set_up("video", TCP).await.status, 200);
        let answer = client.request("RECORD", "cam", "", "").await;
        assert_eq!(answer.status, said);
        assert!(answer.head.contains("not  now"), "{}", answer.head);
    }
}

#[tokio::test]
async fn media_among_requests_and_garbage() {
    let server = open().await;
    let mut client = Client::connect(server.address).await;
    let early = interleaved(0, &rtp(96, 1, 0, IDR));
    assert_eq!(client.announce(SDP).await.status, 200);
    client.send(&early).await;
    assert_eq!(client.set_up("audio", "RTP/AVP/TCP;unicast;interleaved=2-3;mode=record").await.status, 200);
    assert_eq!(client.set_up("video", TCP).await.status, 200);
    assert_eq!(client.request("RECORD", "cam", "", "").await.status, 200);
    client.send(&interleaved(1, &report(96, 0, 9000))).await;
    client.send(&interleaved(3, &report(8, 100, 0))).await;
    // An empty line before a packet, a channel that nobody set up, an answer to nothing, a packet of another type.
    client.send(&[b"\r\n", &interleaved(0, &rtp(96, 10, 9000, IDR))[..]].concat()).await;
    client.send(&interleaved(9, b"who knows")).await;
    client.send(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n").await;
    client.send(&interleaved(0, &rtp(97, 11, 9000, IDR))).await;
    client.send(&interleaved(2, &rtp(8, 5, 0, &[0xd5; 160]))).await;
    assert_eq!(client.request("GET_PARAMETER", "cam", "", "").await.status, 200);
    // A sender that loses its place in the middle of a packet, and one number.
    client.send(&interleaved(0, &rtp(96, 11, 12_600, SLICE))[..9]).await;
    client.send(&[0xff; 12]).await;
    client.send(&interleaved(0, &rtp(96, 13, 16_200, SLICE))).await;
    client.send(&interleaved(0, &rtp(96, 14, 19_800, SLICE))).await;
    assert_eq!(client.request("TEARDOWN", "cam", "", "").await.status, 200);
    let run = server.finished().await;
    let config = run.config();
    assert_eq!([config.tracks[0].codec, config.tracks[1].codec], [Codec::H264, Codec::G711Alaw]);
    let times: Vec<(i64, SyncKind)> = run.samples(0).iter().map(|s| (s.presentation_ticks, s.sync)).collect();
    assert_eq!(times[0], (0, SyncKind::Sync));
    assert_eq!(times.last(), Some(&(10_800, SyncKind::None)));
    assert_eq!(run.samples(1)[0].presentation_ticks, 800, "100 ms later, by the reports");
    assert!(run.lost() >= 1);
    assert!(matches!(run.events[0], Event::Config(_)));
}

#[tokio::test]
async fn the_end_of_a_connection_is_clean_between_messages_only() {
    for (tail, complete) in [(&[][..], true), (&[b'$', 0, 0, 9][..], false), (b"TEARDOWN rtsp://", false)] {
        let server = open().await;
        let mut client = Client::connect(server.address).await;
        client.begin().await;
        client.send(&interleaved(0, &rtp(96, 10, 9000, IDR))).await;
        client.send(tail).await;
        client.stream.shutdown().await.unwrap();
        let run = server.finished().await;
        assert_eq!(run.finished, Some((complete, "the connection was closed".to_owned())));
        assert_eq!(run.samples(0).len(), 1, "what was held is given out");
    }
}

#[tokio::test]
async fn goodbye_on_all_tracks_ends_the_run_and_not_the_session() {
    let server = open().await;
    let mut client = Client::connect(server.address).await;
    client.begin().await;
    client.send(&interleaved(0, &rtp(96, 10, 9000, IDR))).await;
    client.send(&interleaved(1, &[0x81, 203, 0, 1, 0, 0, 0, 96])).await;
    client.send(&interleaved(3, &[0x81, 203, 0, 1, 0, 0, 0, 8])).await;
    let run = server.finished().await;
    assert_eq!(run.finished, Some((true, "all tracks said goodbye".to_owned())));
    assert_eq!(client.request("PAUSE", "cam", "", "").await.status, 200);
    assert_eq!(client.request("TEARDOWN", "cam", "", "").await.status, 200);
}

#[tokio::test]
async fn a_silent_publisher_is_dropped() {
    let short = Duration::from_millis(200);
    let server =
        Server::with(Store::Takes, |options| (options.allow_basic, options.session_timeout) = (true, short)).await;
    let mut client = Client::connect(server.address).await;
    client.begin().await;
    assert!(client.answer().await.is_none());
    assert_eq!(server.finished().await.finished, Some((false, "silent for too long".to_owned())));
}

#[tokio::test]
async fn slow_and_unknown_clients_are_dropped() {
    let clock = ManualClock::new(UnixMs(0));
    let server =
        Server::with(Store::Takes, |options| (options.allow_basic, options.clock) = (true, clock.clone())).await;
    // A message that does not end.
    let mut slow = Client::connect(server.address).await;
    assert_eq!(slow.announce(SDP).await.status, 200);
    slow.send(b"SETUP rtsp://").await;
    let mut reading = Client::connect(server.address).await;
    assert_eq!(reading.request("OPTIONS", "cam", "", "").await.status, 200);
    clock.advance(Duration::from_secs(9));
    assert_eq!(reading.request("OPTIONS", "cam", "", "").await.status, 200);
    // The part may have been looked at before or after those seconds: these are enough in both cases.
    clock.advance(Duration::from_secs(10));
    assert_eq!(slow.answer().await.unwrap().status, 408);
    assert!(slow.answer().await.is_none());
    // OPTIONS keeps nobody connected who has not said who it is.
    clock.advance(Duration::from_secs(40));
    assert_eq!(reading.request("OPTIONS", "cam", "", "").await.status, 200);
    clock.advance(Duration::from_secs(2));
    assert!(reading.answer().await.is_none());
}

#[tokio::test]
async fn receiver_reports_are_sent() {
    let server = open().await;
    let mut client = Client::connect(server.address).await;
    client.begin().await;
    client.send(&interleaved(0, &rtp(96, 10, 9000, IDR))).await;
    client.send(&interleaved(0, &rtp(96, 13, 9000, IDR))).await;
    let (channel, packet) = client.frame().await;
    assert_eq!((channel, packet[1], &packet[8..12]), (1, 201, &[0, 0, 0, 96][..]));
    assert_eq!(packet[12..16], [128, 0, 0, 2], "2 of 4 lost");
    assert_eq!(packet[16..20], [0, 0, 0, 13]);
}

#[tokio::test]
async fn udp_packets_of_the_peer_only_in_their_order() {
    let server = open().await;
    let mut client = Client::connect(server.address).await;
    let sockets = [bind("127.0.0.1").await, bind("127.0.0.1").await, bind("127.0.0.1").await, bind("127.0.0.2").await];
    let [rtp_socket, rtcp_socket, late_comer, stranger] = sockets;
    let to = client.begin_over_udp(&rtp_socket, &rtcp_socket).await;
    rtcp_socket.send_to(&report(96, 0, 9000), (to.0, to.1 + 1)).await.unwrap();
    stranger.send_to(&rtp(96, 10, 77, IDR), to).await.unwrap();
    let packet = |sequence: u16| {
        rtp(96, sequence, 9000 + u32::from(sequence - 10) * 3600, if sequence == 10 { IDR } else { SLICE })
    };
    for sequence in [10, 12, 11, 11, 13, 16, 15] {
        rtp_socket.send_to(&packet(sequence), to).await.unwrap();
    }
    late_comer.send_to(&packet(14), to).await.unwrap();
    assert_eq!(client.request("TEARDOWN", "cam", "", "").await.status, 200);
    let run = server.finished().await;
    let times: Vec<i64> = run.samples(0).iter().map(|sample| sample.presentation_ticks / 3600).collect();
    assert_eq!(times, [0, 1, 2, 3, 5, 6]);
    assert_eq!(run.lost(), 1);
    assert_eq!(run.walls()[0].1, 0);
}

#[tokio::test]
async fn receiver_reports_over_udp_come_every_5_s() {
    let clock = ManualClock::new(UnixMs(0));
    let server =
        Server::with(Store::Takes, |options| (options.allow_basic, options.clock) = (true, clock.clone())).await;
    let mut client = Client::connect(server.address).await;
    let (rtp_socket, rtcp_socket) = (bind("127.0.0.1").await, bind("127.0.0.1").await);
    let to = client.begin_over_udp(&rtp_socket, &rtcp_socket).await;
    rtcp_socket.send_to(&report(96, 0, 9000), (to.0, to.1 + 1)).await.unwrap();
    let mut names = Vec::new();
    // What is sent, samples and losses so far; in the report: fraction and count of the lost, the highest number, the delay.
    for (sequences, samples, lost_word, highest, delay_s) in
        [(&[10, 13, 11][..], 3, 64 << 24 | 1, 13, 5), (&[14, 15], 5, 1, 15, 10)]
    {
        for sequence in sequences {
            let payload = if *sequence == 10 { IDR } else { SLICE };
            let packet = rtp(96, *sequence, 9000 + u32::from(sequence - 10) * 3600, payload);
            rtp_socket.send_to(&packet, to).await.unwrap();
        }
        // Where 11 is known, 13 came: it waits for 12 until the clock goes on.
        server.run_when(|run| run.samples(0).len() + 1 >= samples && !run.walls().is_empty()).await;
        clock.advance(Duration::from_millis(4900));
        server.run_when(|run| run.samples(0).len() == samples && run.lost() == 1).await;
        assert_eq!(client.request("GET_PARAMETER", "cam", "", "").await.status, 200);
        let mut buffer = [0; 256];
        let early = rtcp_socket.try_recv(&mut buffer);
        assert!(early.is_err(), "a report after 4.9 s: {early:?}");
        clock.advance(Duration::from_millis(100));
        let received = tokio::time::timeout(Duration::from_secs(20), rtcp_socket.recv(&mut buffer)).await;
        let packet = &buffer[..received.expect("in time").unwrap()];
        assert_eq!(packet[..4], [0x81, 201, 0, 7]);
        let words: Vec<u32> =
            packet[4..32].chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words[1..4], [96, lost_word, highest]);
        assert_eq!(words[5..], [(3_990_000_000_u64 as u32) << 16, delay_s << 16], "of the sender report");
        names.push(words[0]);
    }
    assert_eq!(names[0], names[1]);
}

async fn bind(address: &str) -> UdpSocket {
    UdpSocket::bind((address, 0)).await.unwrap()
}

#[tokio::test]
async fn too_many_connections() {
    let server = Server::with(Store::Takes, |options| options.max_connections = 1).await;
    let mut first = Client::connect(server.address).await;
    assert_eq!(first.request("OPTIONS", "cam", "", "").await.status, 200);
    let mut second = Client::connect(server.address).await;
    assert_eq!(second.answer().await.unwrap().status, 503);
    assert!(second.answer().await.is_none());
}

#[tokio::test]
async fn a_server_that_stops_ends_its_runs() {
    let server = open().await;
    let mut client = Client::connect(server.address).await;
    client.begin().await;
    client.send(&interleaved(0, &rtp(96, 10, 9000, IDR))).await;
    assert_eq!(client.request("GET_PARAMETER", "cam", "", "").await.status, 200);
    let run = server.stopped().await;
    assert_eq!(run.finished, Some((false, "the server is stopping".to_owned())));
    assert_eq!(run.samples(0).len(), 1);
    assert!(client.answer().await.is_none());
}

/// Each announces what broke some server, and is set up and recorded all the same.
#[tokio::test]
async fn announcements_of_odd_cameras() {
    for sdp in [
        "v=0\r\ns=no origin\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000 \r\na=control:video\r\n",
        "v=0\nm=video 0 RTP/AVP smart/1/90000\na=control:video\na=rtpmap:96 H264/90000\n",
        "v=0\r\no=- broken\r\ns=\r\nc=\r\nt=\r\nm=video 0 RTP/AVP 96\r\na=control:video\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 sprop-parameter-sets=\r\n",
        "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:rtsp://192.0.2.1/cam/video\r\nm=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\na=control:meta\r\n",
    ] {
        let server = open().await;
        let mut client = Client::connect(server.address).await;
        assert_eq!(client.announce(sdp).await.status, 200, "{sdp}");
        if sdp.contains("meta") {
            assert_eq!(client.set_up("meta", "RTP/AVP/TCP;unicast;interleaved=2-3").await.status, 200);
        }
        assert_eq!(client.set_up("video", TCP).await.status, 200, "{sdp}");
        assert_eq!(client.request("RECORD", "cam", "", "").await.status, 200);
        let sps = [
            0x67, 0x64, 0, 0x0c, 0xac, 0xb4, 0x14, 0x23, 0xf2, 0xe0, 0x22, 0, 0, 3, 0, 2, 0, 0, 3, 0, 0x64, 0x1e, 0x28,
            0x55, 0x40,
        ];
        for (sequence, nal) in [&sps[..], &[0x68, 0xef, 0x3c, 0xb0], IDR].iter().enumerate() {
            client.send(&interleaved(0, &rtp(96, sequence as u16, 9000, nal))).await;
        }
        client.send(&interleaved(2, &rtp(107, 0, 9000, b"<xml/>"))).await;
        assert_eq!(client.request("TEARDOWN", "cam", "", "").await.status, 200);
        let run = server.finished().await;
        assert_eq!((run.config().tracks.len(), run.samples(0).len()), (1, 1), "{sdp}");
    }
}
