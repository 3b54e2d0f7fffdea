//! Clients that do not read what they are told: their media is kept meanwhile, and in the end they are dropped.

mod rtsp_common;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use rtsp_common::client::{Client, interleaved, report, rtp};
use rtsp_common::{Server, Store};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, UdpSocket};
use vidar_core::clock::ManualClock;
use vidar_core::time::UnixMs;
use vidar_ingest::rtsp::RtspOptions;

const IDR: &[u8] = &[0x65, 0x88, 0x84, 0, 0x10];
const SLICE: &[u8] = &[0x41, 0x9a, 0x21, 0x6c];
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
const UNREAD: &str = "the client does not read its answers";

fn adjust(clock: &Arc<ManualClock>) -> impl FnOnce(&mut RtspOptions) {
    let clock = clock.clone();
    |options| (options.allow_basic, options.write_timeout, options.clock) = (true, WRITE_TIMEOUT, clock)
}

/// Video at 25 pictures a second.
fn picture(index: u16) -> Vec<u8> {
    rtp(96, index, 9000 + u32::from(index) * 3600, if index == 0 { IDR } else { SLICE })
}

/// It asks and asks. In the end no more questions are read: their answers would fill the memory.
#[tokio::test]
async fn media_over_udp_is_kept_while_nothing_more_is_answered() {
    let clock = ManualClock::new(UnixMs(0));
    let server = Server::with(Store::Takes, adjust(&clock)).await;
    let mut client = Client::connect(server.address).await;
    let (rtp_socket, rtcp_socket) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let to = client.begin_over_udp(&rtp_socket, &rtcp_socket).await;
    let asked = Cell::new(0);
    let asking = async {
        let questions = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(1000);
        while asked.get() < 4000 {
            if client.stream.write_all(&questions).await.is_err() {
                // The server hangs up.
                std::future::pending().await
            }
            asked.set(asked.get() + 1);
        }
    };
    let publishing = async {
        let (mut count, mut unread) = (0, 0);
        while unread < 100 {
            let before = asked.get();
            rtp_socket.send_to(&picture(count), to).await.unwrap();
            count += 1;
            server.run_when(|run| run.samples(0).len() == usize::from(count)).await;
            unread = if asked.get() == before { unread + 1 } else { 0 };
        }
        clock.advance(WRITE_TIMEOUT);
        (count, server.finished().await)
    };
    let (count, run) = tokio::select! {
        biased;
        () = asking => panic!("all questions were read"),
        ended = publishing => ended,
    };
    assert_eq!(run.finished, Some((false, UNREAD.to_owned())));
    assert_eq!((run.samples(0).len(), run.lost()), (count.into(), 0));
}

/// A publisher for whom the system keeps little.
async fn narrow(adjust: impl FnOnce(&mut RtspOptions)) -> (Server, Client) {
    let listening = TcpSocket::new_v4().unwrap();
    listening.set_send_buffer_size(4 << 10).unwrap();
    listening.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let server = Server::on(listening.listen(1).unwrap(), Store::Takes, adjust);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut client = Client::over(socket.connect(server.address).await.unwrap(), server.address);
    client.begin().await;
    client.send(&[interleaved(1, &report(96, 0, 9000)), interleaved(3, &report(8, 0, 0))].concat()).await;
    client.send(&interleaved(2, &rtp(8, 0, 0, &[0xd5; 160]))).await;
    (server, client)
}

/// What is not supported, and a question whose answer names it.
fn long_question(client: &Client) -> (String, String) {
    let (feature, authorization) = ("x".repeat(12 << 10), client.authorization.clone().unwrap());
    let fields = format!("CSeq: 7\r\nAuthorization: {authorization}\r\nRequire: {feature}\r\n\r\n");
    (feature, format!("GET_PARAMETER rtsp://h/cam RTSP/1.0\r\n{fields}"))
}

/// What waits is more than the system keeps for a client, and less than the server does.
#[tokio::test]
async fn interleaved_media_is_kept_while_answers_wait() {
    for reads in [false, true] {
        let clock = ManualClock::new(UnixMs(0));
        let (server, mut client) = narrow(adjust(&clock)).await;
        let (feature, question) = long_question(&client);
        client.send(question.repeat(4).as_bytes()).await;
        for index in 0..200 {
            client.send(&interleaved(0, &picture(index))).await;
            server.run_when(|run| run.samples(0).len() > usize::from(index)).await;
        }
        if reads {
            for _ in 0..4 {
                let answer = client.answer().await.unwrap();
                assert_eq!((answer.status, answer.field("Unsupported")), (551, &*feature));
            }
            // It is no longer behind.
            clock.advance(WRITE_TIMEOUT);
            assert_eq!([client.frame().await.0, client.frame().await.0], [1, 3], "reports");
            assert_eq!(client.request("TEARDOWN", "cam", "", "").await.status, 200);
        } else {
            clock.advance(WRITE_TIMEOUT);
        }
        let run = server.finished().await;
        let end = if reads { (true, "TEARDOWN") } else { (false, UNREAD) };
        assert_eq!(run.finished.as_ref().map(|(complete, cause)| (*complete, &**cause)), Some(end));
        assert_eq!((run.samples(0).len(), run.lost()), (200, 0));
    }
}

/// It is slow for a moment, and then the store is, in which time nothing is sent.
#[tokio::test]
async fn who_is_not_written_to_while_the_store_is_behind_is_not_dropped() {
    let clock = ManualClock::new(UnixMs(0));
    let (server, mut client) = narrow(adjust(&clock)).await;
    let (feature, question) = long_question(&client);
    client.send(question.repeat(4).as_bytes()).await;
    for index in 0..3 {
        client.send(&interleaved(0, &picture(index))).await;
        server.run_when(|run| run.samples(0).len() > usize::from(index)).await;
    }
    server.has_room.send_replace(false);
    client.send(&interleaved(0, &picture(3))).await;
    server.run_when(|run| run.waits > 0).await;
    client.take_what_is_there().await;
    clock.advance(WRITE_TIMEOUT);
    server.has_room.send_replace(true);
    for _ in 0..4 {
        let answer = client.answer().await.expect("the connection goes on");
        assert_eq!((answer.status, answer.field("Unsupported")), (551, &*feature));
    }
    assert_eq!(client.request("TEARDOWN", "cam", "", "").await.status, 200);
    assert_eq!(server.finished().await.finished, Some((true, "TEARDOWN".to_owned())));
}

/// It has the time to read its answers, however little a client may be silent.
#[tokio::test]
async fn who_is_not_read_is_not_silent() {
    let clock = ManualClock::new(UnixMs(0));
    let (server, mut client) = narrow(|options| {
        adjust(&clock)(options);
        options.session_timeout = WRITE_TIMEOUT / 2;
    })
    .await;
    let question = long_question(&client).1;
    let asked = Cell::new(0);
    let asking = async {
        while asked.get() < 10_000 {
            client.stream.write_all(question.as_bytes()).await.unwrap();
            asked.set(asked.get() + 1);
        }
    };
    let no_more_is_read = async {
        let (mut before, mut idle) = (0, 0);
        while idle < 1000 {
            tokio::task::yield_now().await;
            idle = if asked.get() == before { idle + 1 } else { 0 };
            before = asked.get();
        }
    };
    tokio::select! {
        biased;
        () = asking => panic!("all questions were read"),
        () = no_more_is_read => {}
    }
    // The system may still have room for a few bytes, which begins the time anew.
    let time_goes_on = async {
        loop {
            clock.advance(WRITE_TIMEOUT);
            tokio::task::yield_now().await;
        }
    };
    let run = tokio::select! {
        run = server.finished() => run,
        () = time_goes_on => unreachable!(),
    };
    assert_eq!(run.finished, Some((false, UNREAD.to_owned())));
}

/// So is one that publishes nothing.
#[tokio::test]
async fn who_only_asks_is_dropped() {
    let server = Server::with(Store::Takes, |options| options.write_timeout = Duration::from_millis(100)).await;
    let mut client = Client::connect(server.address).await;
    let questions = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(1000);
    let asking = async { while client.stream.write_all(&questions).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("the server hangs up");
}
