//! One connection: requests and packets in, answers and receiver reports out.
//!
//! # Invariants
//! 1. Nothing but OPTIONS is done for a client that has not shown who it is.
//! 2. A run that began is finished, whatever ends the connection.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rtsp_types::headers::{AUTHORIZATION, CONTENT_TYPE, REQUIRE, SESSION, TRANSPORT, USER_AGENT};
use rtsp_types::{Method, Request, Url, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::RtspOptions;
use super::auth::{Challenge, Denied};
use super::media::Now;
use super::message::{Answer, Item, MessageReader, header};
use super::outlet::Outlet;
use super::publish::PublishError;
use super::session::{Path, Recording, Refused, Session};
use super::udp::{self, Datagram};
use super::{rtcp, transport, uri};

const PUBLIC: &str = "OPTIONS, ANNOUNCE, SETUP, RECORD, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
/// A message that began must have ended within this.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not take its answers is dropped after this.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Receiver reports (RFC 3550 section 6.2: 5 s at most bandwidths). Some cameras leave after 10 s without one.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// UDP packets that are under way when the session ends.
const DRAIN: Duration = Duration::from_millis(200);
/// Wrong answers to the challenge before we hang up.
const DENIED_COUNT_MAX: u32 = 5;
/// A client that is refused for good is given this long to read why.
const LINGER: Duration = Duration::from_secs(1);
/// The longest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// The client hung up, at the end of a message or within one.
    Closed { complete: bool },
    /// We end it: for people, why.
    Ours(String),
    /// The run could not go on.
    Publish(PublishError),
}

impl From<PublishError> for End {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

/// The state of one connection.
pub(crate) struct Connection {
    options: Arc<RtspOptions>,
    stream: TcpStream,
    local: SocketAddr,
    peer: SocketAddr,
    reader: MessageReader,
    challenge: Challenge,
    denied_count: u32,
    session: Option<Session>,
    /// Names us in receiver reports.
    ssrc: u32,
    heard: Duration,
    /// Since when a message is being received.
    mid_message: Option<Duration>,
    datagram: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(options: Arc<RtspOptions>, stream: TcpStream, peer: SocketAddr) -> std::io::Result<Self> {
        let local = stream.local_addr()?;
        let heard = options.clock.monotonic();
        let basic = options.allow_basic && peer.ip().to_canonical().is_loopback();
        let random = Uuid::new_v4();
        Ok(Self {
            local,
            peer,
            reader: MessageReader::new(),
            challenge: Challenge::new(random.simple().to_string(), basic),
            denied_count: 0,
            session: None,
            ssrc: random.as_fields().0,
            heard,
            mid_message: None,
            datagram: Vec::new(),
            options,
            stream,
        })
    }

    /// Serves until the client, or `stop`, ends it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let end = self.serve(&stop).await;
        let (complete, cause) = match &end {
            End::Closed { complete } => (*complete, "the connection was closed".to_owned()),
            End::Ours(cause) => (false, cause.clone()),
            End::Publish(error) => (false, error.to_string()),
        };
        tracing::debug!(cause, "connection ends");
        let drain = matches!(end, End::Closed { .. });
        if let Err(error) = self.end_run(complete, &cause, drain).await {
            tracing::warn!(%error, "the end of the run was not kept");
        }
    }

    async fn serve(&mut self, stop: &CancellationToken) -> End {
        loop {
            if let Err(end) = self.handle_buffered().await {
                return end;
            }
            let now = self.now();
            self.mid_message = self.reader.is_mid_item().then_some(self.mid_message.unwrap_or(now.monotonic));
            if let Err(end) = self.tick(now).await {
                return end;
            }
            let sleep = self.deadline().saturating_sub(now.monotonic).max(Duration::from_millis(1));
            let has_udp = self.session.as_ref().is_some_and(|session| session.recording.is_some() && session.has_udp());
            let (session, datagram) = (&mut self.session, &mut self.datagram);
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Ours("the server is stopping".to_owned()),
                read = self.stream.read_buf(self.reader.buffer()) => match read {
                    Ok(0) => return End::Closed { complete: !self.reader.is_mid_item() },
                    Ok(_) => self.heard = now.monotonic.max(self.options.clock.monotonic()),
                    Err(error) => {
                        tracing::info!(%error, "connection lost");
                        return End::Closed { complete: false };
                    }
                },
                (position, received) = receive(session, datagram), if has_udp => {
                    if let Err(end) = self.datagrams(position, received).await {
                        return end;
                    }
                }
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn now(&self) -> Now {
        Now { wall: self.options.clock.now(), monotonic: self.options.clock.monotonic() }
    }

    /// When something is due that no packet brings about.
    fn deadline(&self) -> Duration {
        let recording = self.session.as_ref().and_then(|session| session.recording.as_ref());
        let media = recording.and_then(|recording| recording.media.deadline());
        let report = recording.map(|recording| recording.next_report);
        let message = self.mid_message.map(|since| since + MESSAGE_TIMEOUT);
        let silence = self.heard + self.options.session_timeout;
        [media, report, message].into_iter().flatten().fold(silence, Duration::min)
    }

    /// Does what is due.
    async fn tick(&mut self, now: Now) -> Result<(), End> {
        if now.monotonic.saturating_sub(self.heard) >= self.options.session_timeout {
            return Err(End::Ours("silent for too long".to_owned()));
        }
        if self.mid_message.is_some_and(|since| now.monotonic.saturating_sub(since) >= MESSAGE_TIMEOUT) {
            self.write(Answer::new(408, "Request Time-out").into_bytes()).await?;
            return Err(End::Ours("a message did not end".to_owned()));
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let Some(recording) = &mut session.recording else { return Ok(()) };
        recording.media.tick(now);
        recording.outlet.give(recording.media.take()).await?;
        if now.monotonic >= recording.next_report {
            recording.next_report = now.monotonic + REPORT_INTERVAL;
            self.send_reports(now.monotonic).await?;
        }
        Ok(())
    }

    async fn send_reports(&mut self, now: Duration) -> Result<(), End> {
        let mut frames = Vec::new();
        if let Some(session) = &mut self.session
            && let Some(recording) = &mut session.recording
        {
            for set_up in &session.set_up {
                let Some(track) = set_up.track else { continue };
                let Some(report) = recording.media.report(track, self.ssrc, now) else { continue };
                match &set_up.path {
                    Path::Udp(pair) => pair.send_report(&report),
                    Path::Interleaved { rtcp, .. } => {
                        frames.extend([b'$', *rtcp]);
                        frames.extend((report.len() as u16).to_be_bytes());
                        frames.extend(report);
                    }
                }
            }
        }
        if frames.is_empty() { Ok(()) } else { self.write(frames).await }
    }

    /// Handles everything that was read.
    async fn handle_buffered(&mut self) -> Result<(), End> {
        let now = self.now();
        loop {
            match self.reader.next() {
                Ok(None) => return self.give().await,
                Ok(Some(Item::Data { channel, payload })) => self.interleaved(channel, &payload, now),
                Ok(Some(Item::Skipped(bytes))) => {
                    tracing::debug!(bytes, "skipped what is no message");
                    // How many packets that was cannot be known; gaps in their numbers are counted besides.
                }
                Ok(Some(Item::Response)) => {}
                Ok(Some(Item::Request(request))) => {
                    self.give().await?;
                    self.request(*request).await?;
                }
                Ok(Some(Item::Unreadable { cseq })) => {
                    self.write(Answer::new(400, "Bad Request").cseq(cseq.as_deref()).into_bytes()).await?;
                }
                Err(error) => {
                    self.write(Answer::new(error.status(), &format!("Bad Request: {error}")).into_bytes()).await?;
                    return Err(End::Ours(error.to_string()));
                }
            }
        }
    }

    /// Packets before RECORD, and on channels that nobody asked for, are ignored.
    fn interleaved(&mut self, channel: u8, payload: &Bytes, now: Now) {
        self.mid_message = None;
        let Some(session) = &mut self.session else { return };
        let Some((Some(track), is_rtcp)) = session.channel(channel) else { return };
        let Some(recording) = &mut session.recording else { return };
        packet(recording, track, is_rtcp, payload, now);
    }

    /// Handles a datagram, and all others that are there.
    async fn datagrams(&mut self, position: usize, first: std::io::Result<Datagram>) -> Result<(), End> {
        let now = self.now();
        let mut next = Some((position, first));
        // So many at most before the connection is looked at again.
        for _ in 0..256 {
            let Some((position, datagram)) = next.take() else { break };
            self.heard = now.monotonic;
            match datagram {
                Ok(datagram) => self.datagram(position, &datagram, now),
                // ICMP answers to our reports.
                Err(error) => tracing::debug!(%error, "UDP"),
            }
            let (session, buffer) = (&mut self.session, &mut self.datagram);
            next = poll_fn(|context| match receive_now(session, buffer, context) {
                std::task::Poll::Ready(received) => std::task::Poll::Ready(Some(received)),
                std::task::Poll::Pending => std::task::Poll::Ready(None),
            })
            .await;
        }
        if let Some((position, Ok(datagram))) = next {
            self.datagram(position, &datagram, now);
        }
        self.give().await
    }

    fn datagram(&mut self, position: usize, datagram: &Datagram, now: Now) {
        let Some(session) = &mut self.session else { return };
        let Some(track) = session.set_up.get(position).and_then(|set_up| set_up.track) else { return };
        let Some(recording) = &mut session.recording else { return };
        // RTCP on the RTP port (RFC 5761) is understood.
        let is_rtcp = datagram.is_rtcp || rtcp::is_rtcp(&datagram.bytes);
        packet(recording, track, is_rtcp, &datagram.bytes, now);
    }

    /// Hands on the events that are ready.
    async fn give(&mut self) -> Result<(), End> {
        let recording = self.session.as_mut().and_then(|session| session.recording.as_mut());
        if let Some(recording) = recording {
            let events = recording.media.take();
            recording.outlet.give(events).await?;
            if recording.media.all_left() {
                self.end_run(true, "all tracks said goodbye", true).await?;
            }
        }
        Ok(())
    }

    /// Ends the run, if there is one. The session stays: a client that said goodbye may still want to tear it down.
    async fn end_run(&mut self, complete: bool, cause: &str, drain: bool) -> Result<(), PublishError> {
        if drain && self.session.as_ref().is_some_and(|session| session.recording.is_some() && session.has_udp()) {
            self.drain().await;
        }
        let recording = self.session.as_mut().and_then(|session| session.recording.take());
        let Some(mut recording) = recording else { return Ok(()) };
        let whole = recording.media.finish(self.now());
        let events = recording.media.take();
        let dropped = recording.outlet.dropped();
        let given = recording.outlet.give(events).await;
        tracing::info!(cause, complete = complete && whole, dropped, "publisher ended");
        let finished = recording.outlet.finish(complete && whole, cause).await;
        given.and(finished)
    }

    /// Takes the UDP packets that are still under way.
    async fn drain(&mut self) {
        let end = tokio::time::sleep(DRAIN);
        tokio::pin!(end);
        loop {
            let (session, buffer) = (&mut self.session, &mut self.datagram);
            tokio::select! {
                biased;
                () = &mut end => return,
                (position, received) = receive(session, buffer) => {
                    let now = self.now();
                    if let Ok(datagram) = received {
                        self.datagram(position, &datagram, now);
                    }
                }
            }
        }
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        match tokio::time::timeout(WRITE_TIMEOUT, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::info!(%error, "answer not sent");
                Err(End::Closed { complete: false })
            }
            Err(_) => Err(End::Ours("the client does not read its answers".to_owned())),
        }
    }

    async fn request(&mut self, request: Request<Vec<u8>>) -> Result<(), End> {
        self.mid_message = None;
        let method: &str = request.method().into();
        if let Some(recording) = self.session.as_mut().and_then(|session| session.recording.as_mut()) {
            recording.outlet.touch();
        }
        let answer = self.answer(&request).await?;
        tracing::debug!(method, status = answer.status(), "request");
        let hang_up = answer.status() == 401 && self.denied_count >= DENIED_COUNT_MAX;
        let answer = answer.field("Server", "vidar").answering(&request);
        self.write(answer.into_bytes()).await?;
        if hang_up {
            // Closing at once could take the answer back.
            let _ = tokio::time::timeout(LINGER, self.stream.read_u8()).await;
            return Err(End::Ours("too many wrong passwords".to_owned()));
        }
        Ok(())
    }

    async fn answer(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, End> {
        if request.version() != Version::V1_0 {
            return Ok(Answer::new(505, "RTSP Version Not Supported"));
        }
        if request.method() == Method::Options {
            return Ok(self.with_session(Answer::ok().field("Public", PUBLIC)));
        }
        if let Err(refused) = self.authorize(request) {
            return Ok(refused);
        }
        if let Some(features) = header(request, &REQUIRE) {
            return Ok(Answer::new(551, "Option not supported").field("Unsupported", features));
        }
        if let Some(refused) = self.check_session(request) {
            return Ok(refused);
        }
        let answered = match request.method() {
            Method::Announce => self.announce(request),
            Method::Setup => self.set_up(request).await,
            Method::Record => self.record(request).await,
            Method::Pause => self.pause(request),
            Method::Teardown => return self.teardown(request).await,
            Method::GetParameter => Ok(self.with_session(Answer::ok())),
            Method::SetParameter => self.set_parameter(request),
            Method::Describe | Method::Play => {
                Err(Answer::new(405, "Method Not Allowed: playback is over HTTP").field("Allow", PUBLIC))
            }
            _ => Err(Answer::new(501, "Not Implemented").field("Public", PUBLIC)),
        };
        Ok(answered.unwrap_or_else(|refused| refused))
    }

    fn authorize(&mut self, request: &Request<Vec<u8>>) -> Result<(), Refused> {
        let method: &str = request.method().into();
        let authorization = header(request, &AUTHORIZATION);
        match self.challenge.check(&*self.options.auth, method, request.request_uri(), authorization) {
            Ok(principal) => {
                tracing::trace!(access_key_id = principal.access_key_id, "authorised");
                self.denied_count = 0;
                Ok(())
            }
            Err(denied) => {
                if denied == Denied::Wrong {
                    self.denied_count += 1;
                    tracing::warn!(count = self.denied_count, "wrong credentials");
                }
                let answer = Answer::new(401, "Unauthorized");
                let fields = self.challenge.fields(denied);
                Err(fields.iter().fold(answer, |answer, field| answer.field("WWW-Authenticate", field)))
            }
        }
    }

    /// RFC 2326 section 12.37. A request without the field means the session of its connection.
    fn check_session(&self, request: &Request<Vec<u8>>) -> Option<Refused> {
        let given = header(request, &SESSION)?.split(';').next().unwrap_or_default().trim();
        let ours = self.session.as_ref().is_some_and(|session| session.id == given);
        (!ours).then(|| Answer::new(454, "Session Not Found"))
    }

    fn with_session(&self, answer: Answer) -> Answer {
        match &self.session {
            Some(session) if !session.set_up.is_empty() => {
                let timeout = self.options.session_timeout.as_secs().max(1);
                answer.field("Session", &format!("{};timeout={timeout}", session.id))
            }
            _ => answer,
        }
    }

    fn announce(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, Refused> {
        if self.session.as_ref().is_some_and(|session| !session.set_up.is_empty()) {
            return Err(wrong_state("a session is under way"));
        }
        let uri = request_uri(request)?;
        let stream = uri::stream_name(uri).map_err(|(status, reason)| Answer::new(status, reason))?;
        if !uri::is_aggregate(uri) {
            return Err(Answer::new(404, "Not Found: the path is /STREAM"));
        }
        let kind = header(request, &CONTENT_TYPE).unwrap_or("application/sdp");
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/sdp") {
            return Err(Answer::new(415, "Unsupported Media Type: expected application/sdp"));
        }
        let session = Session::announce(Uuid::new_v4().simple().to_string(), stream, uri.clone(), request.body())?;
        tracing::Span::current().record("stream", session.stream.as_str());
        self.session = Some(session);
        Ok(Answer::ok())
    }

    async fn set_up(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, Refused> {
        let uri = request_uri(request)?;
        let Some(session) = &mut self.session else { return Err(wrong_state("nothing was announced")) };
        if session.recording.is_some() {
            return Err(wrong_state("recording"));
        }
        let taken: Vec<usize> = session.set_up.iter().map(|set_up| set_up.section).collect();
        let section = uri::find_track(&session.uri, uri, &session.description, &taken);
        let section = section.ok_or_else(|| Answer::new(404, "Not Found: no such track was announced"))?;
        let wanted = transport::parse(header(request, &TRANSPORT).unwrap_or_default())
            .map_err(|reason| Answer::new(461, &format!("Unsupported Transport: {reason}")))?;
        let field = session.set_up(section, wanted, self.local, self.peer).await?;
        for set_up in &session.set_up {
            if let Path::Interleaved { rtp, rtcp } = set_up.path {
                self.reader.expect_channel(rtp);
                self.reader.expect_channel(rtcp);
            }
        }
        Ok(self.with_session(Answer::ok().field("Transport", &field)))
    }

    async fn record(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, Refused> {
        let uri = request_uri(request)?;
        let now = self.now();
        let Some(session) = self.session.as_mut().filter(|session| !session.set_up.is_empty()) else {
            return Err(wrong_state("nothing was set up"));
        };
        only_aggregate(session, uri)?;
        if session.recording.is_none() {
            let user_agent = header(request, &USER_AGENT).unwrap_or_default();
            let begun = self.options.publishers.begin(session.stream.clone(), self.peer, user_agent).await;
            let publish = begun.map_err(|refusal| {
                tracing::info!(status = refusal.status, reason = refusal.reason, "publisher refused");
                // Somebody else publishes: the method is not valid in this state. RTSP has no word for a full disk.
                let (status, phrase) = match refusal.status {
                    409 => (455, "Method Not Valid in This State"),
                    507 => (503, "Service Unavailable"),
                    status @ 400..=599 => (status, "Refused"),
                    _ => (500, "Internal Server Error"),
                };
                Answer::new(status, &format!("{phrase}: {}", refusal.reason))
            })?;
            let outlet = Outlet::new(publish, session.has_udp());
            let media = session.media(self.options.report_wait);
            let next_report = now.monotonic + REPORT_INTERVAL;
            session.recording = Some(Recording { media, outlet, next_report });
            self.datagram.resize(if session.has_udp() { DATAGRAM_BYTES_MAX } else { 0 }, 0);
            tracing::info!(tracks = session.set_up.len(), udp = session.has_udp(), user_agent, "publisher began");
        }
        Ok(self.with_session(Answer::ok()))
    }

    /// What comes nevertheless is taken: the run goes on with the next RECORD.
    fn pause(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, Refused> {
        let uri = request_uri(request)?;
        match &self.session {
            Some(session) if !session.set_up.is_empty() => only_aggregate(session, uri)?,
            _ => return Err(wrong_state("nothing was set up")),
        }
        Ok(self.with_session(Answer::ok()))
    }

    async fn teardown(&mut self, request: &Request<Vec<u8>>) -> Result<Answer, End> {
        let refused = match (&self.session, request.request_uri()) {
            (None, _) => Some(Answer::new(454, "Session Not Found")),
            (Some(session), Some(uri)) => only_aggregate(session, uri).err(),
            (Some(_), None) => None,
        };
        if let Some(refused) = refused {
            return Ok(refused);
        }
        self.end_run(true, "TEARDOWN", true).await?;
        self.session = None;
        Ok(Answer::ok())
    }

    fn set_parameter(&self, request: &Request<Vec<u8>>) -> Result<Answer, Refused> {
        if !request.body().is_empty() {
            return Err(Answer::new(451, "Parameter Not Understood"));
        }
        Ok(self.with_session(Answer::ok()))
    }
}

fn packet(recording: &mut Recording, track: usize, is_rtcp: bool, bytes: &Bytes, now: Now) {
    if is_rtcp {
        recording.outlet.touch();
        recording.media.rtcp(track, bytes, now);
    } else {
        recording.media.rtp(track, bytes, now);
    }
}

fn request_uri(request: &Request<Vec<u8>>) -> Result<&Url, Refused> {
    request.request_uri().ok_or_else(|| Answer::new(400, "Bad Request: no URI"))
}

fn wrong_state(why: &str) -> Refused {
    Answer::new(455, &format!("Method Not Valid in This State: {why}")).field("Allow", PUBLIC)
}

/// RFC 2326 section 11.3.11: what holds for the whole is asked of the whole.
fn only_aggregate(session: &Session, uri: &Url) -> Result<(), Refused> {
    if session.set_up.len() > 1 && !uri::is_aggregate(uri) {
        return Err(Answer::new(460, "Only Aggregate Operation Allowed"));
    }
    Ok(())
}

async fn receive(session: &mut Option<Session>, buffer: &mut [u8]) -> (usize, std::io::Result<Datagram>) {
    poll_fn(|context| receive_now(session, buffer, context)).await
}

fn receive_now(
    session: &mut Option<Session>,
    buffer: &mut [u8],
    context: &mut std::task::Context<'_>,
) -> std::task::Poll<(usize, std::io::Result<Datagram>)> {
    match session {
        Some(session) => udp::poll_all(session.udp(), context, buffer),
        None => std::task::Poll::Pending,
    }
}
