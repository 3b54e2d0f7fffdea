//! The drive of one connection: its body into a push, until one of both ends.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::Frame;
use http_body_util::BodyExt;
use vidar_core::ids::StreamId;
use vidar_ingest::Push;
use vidar_media::container::mkv;
use vidar_media::{Demux, DemuxErrorKind, Event};

use super::PutMedia;
use super::acks::Acks;
use super::fault::{ErrorId, Fault};
use super::fragment::Watch;

/// A silent client is told so often that it is still heard.
const IDLE_ACK: Duration = Duration::from_secs(5);
/// A client that hears an ERROR ends its body: closing before that might lose it.
const DRAIN: Duration = Duration::from_secs(2);

pub(super) type FirstFrame = Option<Option<Result<Frame<Bytes>, axum::Error>>>;

/// One connection.
pub(super) struct Session {
    pub(super) push: Push,
    pub(super) body: Body,
    /// Polled already, so that `100 Continue` went out before the answer. Some(None): it has ended.
    pub(super) first: FirstFrame,
    pub(super) acks: Arc<Acks>,
    pub(super) watch: Watch,
    pub(super) stream: StreamId,
    /// By the monotonic clock.
    pub(super) ends: Duration,
    pub(super) put: Arc<PutMedia>,
}

/// How it ends.
enum End {
    /// At the end of the body.
    Clean,
    /// The client went away, or fell silent.
    Lost(&'static str),
    /// The client is told.
    Refused(Fault),
    /// The client was told, or does not listen.
    Broken,
}

impl Session {
    pub(super) async fn run(mut self) {
        let end = self.read(&mut mkv::Demuxer::new()).await;
        let (complete, cause) = match &end {
            End::Clean => (true, "end of body"),
            End::Lost(cause) => (false, *cause),
            End::Refused(fault) => (false, fault.error.code),
            End::Broken => (false, "acknowledgements ended"),
        };
        if let End::Refused(fault) = &end {
            let Fault { error, detail, offset } = fault;
            let log = self.push.log();
            tracing::warn!(stream = %log.stream, push = %log.push, id = error.id, code = error.code, detail, "media is refused");
            self.push.note_error(400, detail.clone(), *offset);
        }
        let timecode = self.watch.units();
        // What is complete is acknowledged before the refusal: nothing is said after it.
        self.push.finish(complete, cause).await;
        if let End::Refused(fault) = &end {
            self.acks.refuse(fault.error, timecode);
        }
        if matches!(end, End::Refused(_) | End::Broken) {
            let drained = async { while matches!(self.body.frame().await, Some(Ok(_))) {} };
            let _ = tokio::time::timeout(DRAIN, drained).await;
        }
        self.acks.end();
    }

    async fn read(&mut self, demuxer: &mut mkv::Demuxer) -> End {
        loop {
            let result = match self.next_chunk().await {
                Ok(Some(chunk)) => self.feed(demuxer, chunk).await,
                Ok(None) => return self.end_of_body(demuxer),
                Err(end) => Err(end),
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    async fn feed(&mut self, demuxer: &mut mkv::Demuxer, input: Bytes) -> Result<(), End> {
        let (len, mut events) = (input.len(), Vec::new());
        let result = demuxer.push(input, &mut events);
        self.push.hold(demuxer.held_bytes() as u64);
        let now = self.put.kvs.clock.monotonic();
        let checked = self.watch.check(&mut events, now >= self.ends);
        let fragments = events.iter().filter(|event| matches!(event, Event::SourceFragment { .. })).count();
        let pushed = self.push.events(events.into_iter().map(Into::into).collect()).await;
        pushed.map_err(|error| End::Refused(error.into()))?;
        checked.map_err(End::Refused)?;
        result.map_err(|error| End::Refused(error.into()))?;
        self.pace(self.put.rates.media(self.stream, now, len, fragments)).await
    }

    /// Over a rate the client is read more slowly.
    async fn pace(&mut self, wait: Duration) -> Result<(), End> {
        if wait.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.put.ingest.stop.cancelled() => Err(stopping()),
            () = self.acks.broken() => Err(End::Broken),
        }
    }

    fn end_of_body(&mut self, demuxer: &mut mkv::Demuxer) -> End {
        match demuxer.finish(&mut Vec::new()) {
            Ok(()) => self.watch.finish().map_or_else(End::Refused, |()| End::Clean),
            // A producer that stops before its first fragment has sent nothing, or a header.
            Err(error) if self.watch.is_empty() && error.kind == DemuxErrorKind::Truncated && error.offset == 0 => {
                End::Clean
            }
            Err(error) => End::Refused(error.into()),
        }
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, End> {
        let mut silent = Duration::ZERO;
        loop {
            let frame = match self.first.take() {
                Some(first) => first,
                None => tokio::select! {
                    biased;
                    () = self.put.ingest.stop.cancelled() => return Err(stopping()),
                    () = self.acks.broken() => return Err(End::Broken),
                    // Polls the body, and keeps nothing: it can be asked again.
                    frame = tokio::time::timeout(IDLE_ACK, self.body.frame()) => match frame {
                        Ok(frame) => frame,
                        Err(_) => {
                            silent += IDLE_ACK;
                            if silent >= self.put.ingest.idle_timeout() {
                                return Err(End::Lost("the body fell silent"));
                            }
                            self.acks.idle();
                            continue;
                        }
                    },
                },
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => return Ok(None),
                Some(Err(_)) => return Err(End::Lost("connection lost")),
                Some(Ok(Ok(data))) if !data.is_empty() => return Ok(Some(data)),
                // Trailers, or nothing.
                Some(Ok(_)) => {}
            }
        }
    }
}

/// Clients come again at once, and send the fragment again that goes on.
fn stopping() -> End {
    End::Refused(Fault::new(ErrorId::CONNECTION_DURATION, "the server stops"))
}
