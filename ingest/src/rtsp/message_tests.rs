//! Dialogues cut anywhere read the same; what is no message is skipped.

use proptest::prelude::*;
use rtsp_types::Method;

use super::*;

/// What a stream reads as, fed in pieces.
pub(crate) fn read(pieces: &[&[u8]], channels: &[u8]) -> (Vec<String>, Option<StreamError>) {
    let mut reader = MessageReader::new();
    channels.iter().for_each(|channel| reader.expect_channel(*channel));
    let mut items: Vec<String> = Vec::new();
    for piece in pieces {
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(item)) => items.push(describe(&item)),
                Err(error) => return (items, Some(error)),
            }
        }
    }
    (items, None)
}

fn describe(item: &Item) -> String {
    match item {
        Item::Request(request) => {
            let method: &str = request.method().into();
            format!("{method} {:?} +{}", header(request, &CSEQ), request.body().len())
        }
        Item::Response => "response".to_owned(),
        Item::Data { channel, payload } => format!("data {channel} {:02x?}", payload.to_vec()),
        Item::Skipped(count) => format!("skipped {count}"),
        Item::Unreadable { cseq } => format!("unreadable {cseq:?}"),
    }
}

const OPTIONS: &[u8] = b"OPTIONS rtsp://h/cam RTSP/1.0\r\nCSeq: 1\r\n\r\n";
const ANNOUNCE: &[u8] = b"ANNOUNCE rtsp://h/cam RTSP/1.0\r\ncseq:2\r\ncontent-length: 5\r\n\r\nv=0\r\n";

fn frame(channel: u8, payload: &[u8]) -> Vec<u8> {
    [&[b'$', channel][..], &(payload.len() as u16).to_be_bytes(), payload].concat()
}

const PACKET: [u8; 12] = [0x80, 0x60, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];

fn dialogue() -> (Vec<u8>, Vec<String>) {
    let stream = [
        OPTIONS,
        b"\r\n\r\n",
        ANNOUNCE,
        b"\r\n",
        &frame(0, &PACKET),
        b"RTSP/1.0 200 OK\r\nCSeq: 9\r\n\r\n",
        &frame(7, b"A"),
        OPTIONS,
    ];
    let options = "OPTIONS Some(\"1\") +0".to_owned();
    let items = vec![
        options.clone(),
        "ANNOUNCE Some(\"2\") +5".to_owned(),
        format!("data 0 {PACKET:02x?}"),
        "response".to_owned(),
        "data 7 [41]".to_owned(),
        options,
    ];
    (stream.concat(), items)
}

#[test]
fn a_dialogue_cut_anywhere() {
    let (stream, items) = dialogue();
    for cut in 0..stream.len() {
        let (head, tail) = stream.split_at(cut);
        assert_eq!(read(&[head, tail], &[0, 1]), (items.clone(), None), "{cut}");
        let (partial, error) = read(&[head], &[0, 1]);
        assert!(error.is_none() && items.starts_with(&partial), "{cut}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(&bytes, &[0, 1]), (items, None));
}

#[test]
fn garbage_is_skipped_up_to_the_next_packet_or_request() {
    let garbage: &[u8] = b"\x00\xffGET / \x01$\x00\x00\x20\x17$$RTSP\x80$\x02\x00\x0c\x17";
    let stream = [garbage, &frame(2, &PACKET)].concat();
    let found = vec![format!("skipped {}", garbage.len()), format!("data 2 {PACKET:02x?}")];
    assert_eq!(read(&[&stream], &[2, 3]), (found, None));
    let stream = [garbage, OPTIONS].concat();
    let found = vec![format!("skipped {}", garbage.len()), "OPTIONS Some(\"1\") +0".to_owned()];
    assert_eq!(read(&[&stream], &[2, 3]), (found, None));
    assert_eq!(read(&[&vec![0; SKIP_BYTES_MAX + 1]], &[]), (vec![], Some(StreamError::Garbage)));
}

#[test]
fn sizes_are_bounded() {
    let head = |len: usize| [&OPTIONS[..OPTIONS.len() - 2], b"X: ", &vec![b'x'; len][..]].concat();
    assert_eq!(read(&[&head(HEAD_BYTES_MAX)], &[]), (vec![], Some(StreamError::HeadTooLarge)));
    assert_eq!(read(&[&[&head(8000)[..], b"\r\n\r\n"].concat()], &[]).0.len(), 1);
    for (length, error) in [
        ("65537", StreamError::BodyTooLarge),
        ("-1", StreamError::Length),
        ("99999999999999999999", StreamError::Length),
    ] {
        let stream = format!("ANNOUNCE rtsp://h/c RTSP/1.0\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(read(&[stream.as_bytes()], &[]), (vec![], Some(error)), "{length}");
        assert!(matches!(error.status(), 400 | 413));
    }
    // A line that never ends is no request.
    let line = [&b"OPTIONS "[..], &vec![b'a'; LINE_BYTES_MAX]].concat();
    assert_eq!(read(&[&line, OPTIONS], &[]).0[1], "OPTIONS Some(\"1\") +0");
}

#[test]
fn whole_messages_that_do_not_read() {
    for text in
        ["OPTIONS not-a-uri RTSP/1.0\r\nCSeq: 4\r\n\r\n", "OPTIONS rtsp://h/ RTSP/1.0\r\nno colon\r\nCSeq: 4\r\n\r\n"]
    {
        assert_eq!(
            read(&[text.as_bytes(), OPTIONS], &[]).0,
            ["unreadable Some(\"4\")", "OPTIONS Some(\"1\") +0"],
            "{text}"
        );
    }
}

#[test]
fn answers_are_one_message_whatever_the_reason() {
    let request = Request::builder(Method::Options, rtsp_types::Version::V1_0).header(CSEQ, "5 ").build(Vec::new());
    let answer = Answer::new(400, "Bad\r\nX: y").field("Server", "vidar").answering(&request).into_bytes();
    assert_eq!(answer, b"RTSP/1.0 400 Bad  X: y\r\nServer: vidar\r\nCSeq: 5\r\n\r\n");
    let bare = Answer::ok().cseq(Some("5\u{1}")).into_bytes();
    assert_eq!(bare, b"RTSP/1.0 200 OK\r\n\r\n");
}

proptest! {
    #[test]
    fn any_bytes_read_the_same_however_they_are_cut(
        parts in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..30),
            Just(OPTIONS.to_vec()),
            Just(ANNOUNCE.to_vec()),
            Just(frame(0, &PACKET)),
            Just(b"$\0\0".to_vec()),
        ], 0..8),
        cuts in prop::collection::vec(1..40_usize, 1..40),
    ) {
        let stream = parts.concat();
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        prop_assert_eq!(read(&[&stream], &[0, 1]), read(&pieces, &[0, 1]));
    }
}
