//! Reads the body of a push into its demuxer.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use vidar_core::error::ErrorKind;
use vidar_media::container::{Format, SNIFF_BYTES, Sniffed, sniff};
use vidar_media::{Demux, DemuxErrorKind, Event};

use super::problem::Problem;
use crate::push::Push;

type FirstFrame = Option<Result<Frame<Bytes>, axum::Error>>;

/// The task that reads one body.
pub(super) struct Reader {
    pub(super) push: Push,
    pub(super) body: Body,
    /// Polled already, so that `100 Continue` went out before the answer.
    pub(super) first: FirstFrame,
    pub(super) media_type: Option<String>,
    pub(super) idle_timeout: Duration,
    pub(super) stop: CancellationToken,
}

/// How a body ended.
enum End {
    /// At its end, by the framing of HTTP.
    Clean,
    /// The connection was lost, or fell silent: what is complete stays.
    Lost(&'static str),
    /// Something was noted in the log.
    Failed,
}

/// Refuses a type that is known not to be media.
pub(super) fn check_media_type(media_type: Option<&str>) -> Result<(), Problem> {
    let essence = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (kind, _) = essence.split_once('/').unwrap_or((&essence, ""));
    let media = matches!(kind, "" | "video" | "audio") || essence.starts_with("application/");
    let not_media =
        matches!(essence.as_str(), "application/json" | "application/xml" | "application/x-www-form-urlencoded");
    // curl --data sends the form type by itself; it is sniffed like everything else.
    if media && (!not_media || essence.ends_with("form-urlencoded")) {
        return Ok(());
    }
    let detail = format!("content type {essence}: expected video/x-matroska, video/webm, video/mp4 or video/mp2t");
    Err(Problem::new(ErrorKind::UnsupportedType, detail))
}

impl Reader {
    pub(super) async fn run(mut self) {
        let end = self.read().await;
        let (complete, cause) = match end {
            End::Clean => (true, "end of body"),
            End::Lost(cause) => (false, cause),
            End::Failed => (false, "error"),
        };
        self.push.finish(complete, cause).await;
    }

    async fn read(&mut self) -> End {
        let mut head = Vec::new();
        let mut demuxer: Option<Box<dyn Demux>> = None;
        loop {
            let chunk = match self.next_chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(cause) => {
                    return match demuxer {
                        Some(mut demuxer) => end(&self.push, &mut *demuxer, End::Lost(cause)).await,
                        None => End::Lost(cause),
                    };
                }
            };
            let input = match &demuxer {
                Some(_) => chunk,
                None => {
                    head.extend_from_slice(&chunk);
                    match self.choose(&head, false) {
                        Ok(Some(chosen)) => demuxer = Some(chosen),
                        Ok(None) => continue,
                        Err(()) => return End::Failed,
                    }
                    std::mem::take(&mut head).into()
                }
            };
            let Some(demuxer) = &mut demuxer else { continue };
            if feed(&self.push, &mut **demuxer, input).await.is_err() {
                return End::Failed;
            }
        }
        if demuxer.is_none() {
            // Shorter than what tells every format: what it looks like has to do.
            let Ok(chosen) = self.choose(&head, true) else { return End::Failed };
            demuxer = chosen;
        }
        let Some(mut demuxer) = demuxer else {
            self.push.note_error(400, "the body is empty".to_owned(), Some(0));
            return End::Failed;
        };
        if !head.is_empty() && feed(&self.push, &mut *demuxer, head.into()).await.is_err() {
            return End::Failed;
        }
        end(&self.push, &mut *demuxer, End::Clean).await
    }

    fn choose(&self, head: &[u8], ended: bool) -> Result<Option<Box<dyn Demux>>, ()> {
        match sniff(head) {
            Sniffed::Format(format) => Ok(Some(format.demuxer())),
            Sniffed::NeedMore if !ended && head.len() < SNIFF_BYTES => Ok(None),
            Sniffed::NeedMore | Sniffed::Unknown => {
                if head.is_empty() {
                    return Ok(None);
                }
                let declared = self.media_type.as_deref().and_then(Format::from_media_type);
                if let Some(format) = declared {
                    // It will say at which byte it is not what it was declared to be.
                    return Ok(Some(format.demuxer()));
                }
                let detail = "the body is no Matroska, WebM, fragmented MP4 or MPEG-TS".to_owned();
                self.push.note_error(ErrorKind::UnsupportedType.http_status(), detail, Some(0));
                Err(())
            }
        }
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, &'static str> {
        loop {
            let frame = match self.first.take() {
                Some(first) => Some(first),
                // Either both run to their end or the body is not read again.
                None => tokio::select! {
                    frame = tokio::time::timeout(self.idle_timeout, self.body.frame()) => {
                        frame.map_err(|_| "the body fell silent")?
                    }
                    () = self.stop.cancelled() => return Err("the server stops"),
                },
            };
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err("connection lost"),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.push.touch();
                        return Ok(Some(data));
                    }
                    Err(_trailers) => {}
                },
            }
        }
    }
}

/// Takes what the demuxer held back. A lost connection ends anywhere; a clean end inside an element is a fault.
async fn end(push: &Push, demuxer: &mut dyn Demux, end: End) -> End {
    let mut events = Vec::new();
    let result = demuxer.finish(&mut events);
    if give(push, events).await.is_err() {
        return End::Failed;
    }
    match (result, end) {
        (Err(error), End::Lost(cause)) if error.kind == DemuxErrorKind::Truncated => End::Lost(cause),
        (Err(error), _) => {
            push.note_error(error.kind().http_status(), error.to_string(), Some(error.offset));
            End::Failed
        }
        (Ok(()), end) => end,
    }
}

async fn give(push: &Push, events: Vec<Event>) -> Result<(), ()> {
    for event in events {
        // The failure is in the log already.
        push.event(event, None).await.map_err(|_| ())?;
    }
    Ok(())
}

async fn feed(push: &Push, demuxer: &mut dyn Demux, input: Bytes) -> Result<(), ()> {
    let mut events = Vec::new();
    let result = demuxer.push(input, &mut events);
    give(push, events).await?;
    result.map_err(|error| push.note_error(error.kind().http_status(), error.to_string(), Some(error.offset)))
}
