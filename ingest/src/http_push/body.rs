//! Reads the body of a push into its demuxer.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use vidar_core::error::ErrorKind;
use vidar_media::container::{Format, SNIFF_BYTES, Sniffed, sniff};
use vidar_media::{Demux, DemuxErrorKind, Event, PassedOver};

use super::problem::Problem;
use crate::push::Push;

/// Causes for which the server, not the client, ended the body.
const STOPPING: &str = "the server stops";
const SILENT: &str = "the body fell silent";

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
    #[cfg(feature = "gst")]
    pub(super) helpers: crate::gst::Helpers,
}

/// The first bytes of a body, until they tell what it is.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    #[cfg(feature = "gst")]
    sniffer: crate::gst::Sniffer,
}

/// What takes the body apart.
enum Parser {
    Own(Box<dyn Demux>),
    #[cfg(feature = "gst")]
    Foreign(crate::gst::Foreign),
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
        // A client that is still there must not take half a body for the whole.
        match cause {
            STOPPING => self.push.note_error(503, cause.to_owned(), None),
            SILENT => self.push.note_error(408, cause.to_owned(), None),
            _ => {}
        }
        self.push.finish(complete, cause).await;
    }

    async fn read(&mut self) -> End {
        let mut head = Head::default();
        let mut demuxer: Option<Box<dyn Demux>> = None;
        loop {
            let chunk = match self.next_chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(cause) => {
                    return match demuxer {
                        Some(mut demuxer) => end(&mut self.push, &mut *demuxer, End::Lost(cause)).await,
                        None => End::Lost(cause),
                    };
                }
            };
            let input = match &demuxer {
                Some(_) => chunk,
                None => {
                    head.bytes.extend_from_slice(&chunk);
                    match self.choose(&mut head, false) {
                        Ok(Some(Parser::Own(chosen))) => demuxer = Some(chosen),
                        #[cfg(feature = "gst")]
                        Ok(Some(Parser::Foreign(format))) => {
                            return self.read_foreign(format, head.bytes.into(), false).await;
                        }
                        Ok(None) => continue,
                        Err(()) => return End::Failed,
                    }
                    std::mem::take(&mut head.bytes).into()
                }
            };
            let Some(demuxer) = &mut demuxer else { continue };
            if feed(&mut self.push, &mut **demuxer, input).await.is_err() {
                tell_passed_over(&self.push, &**demuxer);
                return End::Failed;
            }
        }
        if demuxer.is_none() {
            // Shorter than what tells every format: what it looks like has to do.
            match self.choose(&mut head, true) {
                Ok(Some(Parser::Own(chosen))) => demuxer = Some(chosen),
                #[cfg(feature = "gst")]
                Ok(Some(Parser::Foreign(format))) => return self.read_foreign(format, head.bytes.into(), true).await,
                Ok(None) => {}
                Err(()) => return End::Failed,
            }
        }
        let Some(mut demuxer) = demuxer else {
            self.push.note_error(400, "the body is empty".to_owned(), Some(0));
            return End::Failed;
        };
        if !head.bytes.is_empty() && feed(&mut self.push, &mut *demuxer, head.bytes.into()).await.is_err() {
            return End::Failed;
        }
        end(&mut self.push, &mut *demuxer, End::Clean).await
    }

    fn choose(&self, head: &mut Head, ended: bool) -> Result<Option<Parser>, ()> {
        #[cfg(feature = "gst")]
        {
            use crate::gst::Sniffed;
            match head.sniffer.look(&head.bytes, self.media_type.as_deref()) {
                Sniffed::Format(format) => return Ok(Some(Parser::Foreign(format))),
                Sniffed::NeedMore if !ended => return Ok(None),
                Sniffed::NeedMore | Sniffed::Other => {}
            }
        }
        let head = &head.bytes[..];
        match sniff(head) {
            Sniffed::Format(format) => Ok(Some(Parser::Own(format.demuxer()))),
            Sniffed::NeedMore if !ended && head.len() < SNIFF_BYTES => Ok(None),
            Sniffed::NeedMore | Sniffed::Unknown => {
                if head.is_empty() {
                    return Ok(None);
                }
                let declared = self.media_type.as_deref().and_then(Format::from_media_type);
                if let Some(format) = declared {
                    // It will say at which byte it is not what it was declared to be.
                    return Ok(Some(Parser::Own(format.demuxer())));
                }
                #[cfg(feature = "gst")]
                if let Some(format) = self.media_type.as_deref().and_then(crate::gst::Foreign::from_media_type) {
                    return Ok(Some(Parser::Foreign(format)));
                }
                let known = "Matroska, WebM, fragmented MP4 or MPEG-TS";
                #[cfg(feature = "gst")]
                let known = format!("{known}, nor {}", crate::gst::Foreign::names().collect::<Vec<_>>().join(", "));
                let detail = format!("the body is no {known}");
                self.push.note_error(ErrorKind::UnsupportedType.http_status(), detail, Some(0));
                Err(())
            }
        }
    }

    /// Through a helper process. `ended`: `head` is all of the body.
    #[cfg(feature = "gst")]
    async fn read_foreign(&mut self, format: crate::gst::Foreign, head: Bytes, ended: bool) -> End {
        use crate::gst::Step;
        let mut helper = match self.helpers.start(format) {
            Ok(helper) => helper,
            Err(failure) => {
                self.push.note_error(failure.status, failure.detail, None);
                return End::Failed;
            }
        };
        helper.feed(head);
        let mut body_end = ended.then_some(End::Clean);
        let end = loop {
            if body_end.is_some() && helper.hungry() {
                helper.close();
            }
            // Both can be cancelled without loss.
            let step = tokio::select! {
                biased;
                chunk = self.next_chunk(), if helper.hungry() => {
                    match chunk {
                        Ok(Some(chunk)) => helper.feed(chunk),
                        Ok(None) => body_end = Some(End::Clean),
                        Err(cause) => body_end = Some(End::Lost(cause)),
                    }
                    continue;
                }
                step = helper.next() => step,
            };
            match step {
                Ok(Step::Event(event)) => {
                    // The failure is in the log already.
                    if self.push.events(vec![event.into()]).await.is_err() {
                        break End::Failed;
                    }
                }
                Ok(Step::Hungry) => {}
                Ok(Step::End) => {
                    helper.wait().await;
                    return body_end.unwrap_or(End::Clean);
                }
                Err(failure) => match body_end {
                    // Of course the input then ends inside something; but the helper may also have failed.
                    Some(lost @ End::Lost(_)) => {
                        let (log, detail) = (self.push.log(), failure.detail);
                        tracing::info!(stream = %log.stream, push = %log.push, detail, "the helper ends after the body was lost");
                        break lost;
                    }
                    _ => {
                        self.push.note_error(failure.status, failure.detail, None);
                        break End::Failed;
                    }
                },
            }
        };
        // Nothing more is expected of it.
        helper.kill().await;
        end
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, &'static str> {
        loop {
            let frame = match self.first.take() {
                Some(first) => Some(first),
                // Either both run to their end or the body is not read again.
                None => tokio::select! {
                    frame = tokio::time::timeout(self.idle_timeout, self.body.frame()) => {
                        frame.map_err(|_| SILENT)?
                    }
                    () = self.stop.cancelled() => return Err(STOPPING),
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
async fn end(push: &mut Push, demuxer: &mut dyn Demux, end: End) -> End {
    let mut events = Vec::new();
    let result = demuxer.finish(&mut events);
    tell_passed_over(push, demuxer);
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

/// Once for a push: nothing is left out silently.
fn tell_passed_over(push: &Push, demuxer: &dyn Demux) {
    let passed_over = demuxer.passed_over();
    if passed_over != PassedOver::default() {
        let log = push.log();
        tracing::info!(stream = %log.stream, push = %log.push, ?passed_over, "not kept: there is no place for it");
    }
}

async fn give(push: &mut Push, events: Vec<Event>) -> Result<(), ()> {
    // The failure is in the log already.
    push.events(events.into_iter().map(Into::into).collect()).await.map_err(|_| ())
}

async fn feed(push: &mut Push, demuxer: &mut dyn Demux, input: Bytes) -> Result<(), ()> {
    let mut events = Vec::new();
    let result = demuxer.push(input, &mut events);
    push.hold(demuxer.held_bytes() as u64);
    give(push, events).await?;
    result.map_err(|error| push.note_error(error.kind().http_status(), error.to_string(), Some(error.offset)))
}
