//! Publishers that send bytes: a Matroska document in pieces, over the route that serves and through its demuxer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::Request;
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tower::ServiceExt;
use vidar_core::ids::{PushId, StreamName};
use vidar_ingest::http_push::{self, PUSH_ID_HEADER};
use vidar_media::container::mkv::mux::{self, HeaderOptions, Timing};
use vidar_media::{Event, SyncKind};

use crate::boot::Boot;
use crate::media::Camera;
use crate::push::compare;
use crate::random::Random;

/// A body whose pieces come as they are sent.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// One connection, which may be lost anywhere in the document.
pub(crate) async fn push(boot: Arc<Boot>, name: StreamName, mut random: Random) {
    let _work = boot.pace.work();
    let trace = boot.shared.trace.clone();
    let mut camera = Camera::new(random.fork());
    let (document, sent) = document(&mut camera, random.within(1..150));
    let complete = random.one_in(2);
    let end = if complete { document.len() } else { random.index(document.len()) };
    trace.note(format_args!("HTTP push to {name} begins: {end} of {} bytes", document.len()));
    let (pieces, body) = mpsc::channel(1);
    let push = PushId::new();
    let request = Request::post(format!("/v1/streams/{name}/media?ack=end"));
    let request = request.header(PUSH_ID_HEADER, push.to_string()).body(Body::new(Pieces(body)));
    let router = http_push::router(Arc::clone(&boot.ingest));
    let answer = tokio::spawn(router.oneshot(request.expect("a good request")));
    let (mut at, is_burst) = (0, random.one_in(3));
    while at < end {
        let piece = document.slice(at..end.min(at + random.within(1..16 << 10) as usize));
        at += piece.len();
        if pieces.send(Ok(piece)).await.is_err() {
            break;
        }
        if !is_burst {
            sleep(Duration::from_millis(random.within(0..500))).await;
        }
    }
    if !complete {
        // Whoever read it may be gone already.
        let _ = pieces.send(Err(io::Error::other("the connection is lost"))).await;
    }
    drop(pieces);
    let Ok(Ok(answer)) = answer.await else { return };
    let Some(log) = boot.ingest.log(push) else {
        return trace.note(format_args!("HTTP push to {name} refused: {}", answer.status()));
    };
    let (fragments, failed) = log.outcome();
    trace.note(format_args!("HTTP push to {name} ends: {fragments} durable, failed: {failed:?}"));
    if complete && failed.is_none() && camera.is_video_only() {
        compare(&boot, &log, &sent);
    }
}

/// So many pictures as a file, and what samples are in it.
fn document(camera: &mut Camera, pictures: u64) -> (Bytes, Vec<Bytes>) {
    let config = camera.config();
    let timing = Timing::of(&config);
    let layout = mux::Layout::new(&config, timing);
    let mut writer = mux::Writer::new(layout.clone());
    let mut bytes = mux::header(&config, timing, &HeaderOptions::default()).to_vec();
    let mut sent = Vec::new();
    for event in (0..pictures).flat_map(|_| camera.next()) {
        let Event::Sample(sample) = event else { continue };
        let frame = mux::Frame {
            track: sample.track,
            timestamp: layout.timestamp(sample.track, sample.presentation_ticks),
            duration: None,
            sync: sample.sync == SyncKind::Sync,
            block_flags: sample.block_flags,
            len: sample.data.len() as u32,
        };
        bytes.extend(writer.block(&frame).expect("times from 0 on"));
        bytes.extend(&sample.data);
        sent.push(sample.data);
    }
    (bytes.into(), sent)
}
