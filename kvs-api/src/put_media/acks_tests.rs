//! Tests of the acks module.

use futures::StreamExt;

use super::*;

fn number(counter: u64) -> FragmentNumber {
    FragmentNumber::new(counter, 1_795_655_400_061, 7)
}

async fn said(acks: &Arc<Acks>) -> Vec<String> {
    acks.end();
    let chunks: Vec<_> = chunks(Arc::clone(acks)).collect().await;
    chunks.into_iter().map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn each_is_a_chunk_in_the_form_that_clients_read() {
    let acks = Acks::new(true, true);
    acks.opened(number(1), Some(1_627_373_512_011));
    acks.idle();
    acks.durable(number(1));
    acks.opened(number(2), None);
    acks.opened(number(3), Some(5));
    acks.refuse(ErrorId::FRAGMENT_DURATION, Some(5));
    let first = r#""FragmentTimecode":1627373512011,"FragmentNumber":"9134385233"#;
    let said = said(&acks).await;
    for (chunk, event) in
        said.iter().zip(["BUFFERING", "IDLE", "RECEIVED", "PERSISTED", "BUFFERING", "BUFFERING", "ERROR"])
    {
        assert!(chunk.starts_with(&format!(r#"{{"EventType":"{event}""#)) && chunk.ends_with("}\r\n"), "{chunk}");
        assert!(chunk.len() <= 256, "{chunk}");
    }
    assert_eq!(said.len(), 7);
    assert!(said[0].contains(first) && said[3].contains(first), "{said:?}");
    assert_eq!(said[1], "{\"EventType\":\"IDLE\"}\r\n");
    assert!(!said[4].contains("Timecode"));
    let number = number(3);
    let error = format!(
        r#"{{"EventType":"ERROR","FragmentTimecode":5,"FragmentNumber":"{number}","ErrorCode":"MAX_FRAGMENT_DURATION_REACHED","ErrorId":4002}}"#
    );
    assert_eq!(said[6].trim_end(), error);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_after_an_error() {
    let acks = Acks::new(true, true);
    acks.opened(number(1), Some(1));
    acks.opened(number(2), Some(2));
    acks.failed(number(1), &SinkError::Full);
    acks.broken().await;
    acks.durable(number(2));
    acks.refuse(ErrorId::ARCHIVAL, Some(2));
    let said = said(&acks).await;
    assert_eq!(said.len(), 3);
    assert!(said[2].contains(r#""FragmentTimecode":1,"#) && said[2].contains(r#""ErrorId":5001"#), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn who_wants_none_is_told_errors_only() {
    let acks = Acks::new(false, true);
    acks.opened(number(1), Some(1));
    acks.durable(number(1));
    acks.idle();
    acks.refuse(ErrorId::STREAM_NOT_ACTIVE, None);
    assert_eq!(
        said(&acks).await,
        ["{\"EventType\":\"ERROR\",\"ErrorCode\":\"STREAM_NOT_ACTIVE\",\"ErrorId\":4008}\r\n"]
    );
}

#[tokio::test(start_paused = true)]
async fn those_that_nobody_reads_are_bounded() {
    let acks = Acks::new(true, true);
    for counter in 0..10_000 {
        acks.opened(number(counter), Some(1));
        acks.durable(number(counter));
    }
    acks.broken().await;
    assert_eq!(said(&acks).await.len(), WAITING_COUNT_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_few_go_at_once() {
    let acks = Acks::new(true, true);
    (0..23).for_each(|_| acks.idle());
    acks.end();
    let started = tokio::time::Instant::now();
    let times: Vec<_> = chunks(acks).map(|_| started.elapsed().as_millis() / 10).collect().await;
    for tick in 0..=4 {
        assert!(times.iter().filter(|at| **at == tick).count() <= BURST_COUNT, "{times:?}");
    }
    assert!(started.elapsed() >= 4 * BURST_PAUSE + LAST_PAUSE);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_keeps_nothing_receives_and_does_not_persist() {
    let acks = Acks::new(true, false);
    acks.opened(number(1), Some(1));
    acks.durable(number(1));
    let said = said(&acks).await;
    assert_eq!(said.len(), 2);
    assert!(said[1].contains("RECEIVED"), "{said:?}");
}
