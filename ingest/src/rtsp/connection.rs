//! One connection: requests and packets in, answers and receiver reports out. What is answered: `requests`.
//!
//! # Invariants
//! 1. Nothing but OPTIONS is done for a client that has not shown who it is.
//! 2. A run that began is finished, whatever ends the connection.
//! 3. Media goes on while the client does not read, until 64 KiB of answers wait: then its connection is not read either
//!    (media over UDP is), and it has the write timeout to take something.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rtsp_types::Request;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::RtspOptions;
use super::auth::Challenge;
use super::media::Now;
use super::message::{Answer, Item, MessageReader};
use super::outgoing::Outgoing;
use super::publish::PublishError;
use super::rtcp;
use super::session::{Recording, Session};
use super::udp::{self, Datagram};

/// Receiver reports (RFC 3550 section 6.2: 5 s at most bandwidths). Some cameras leave after 10 s without one.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Time between looks at the clock.
const TICK_MIN: Duration = Duration::from_millis(1);
const TICK_MAX: Duration = Duration::from_secs(1);
/// UDP packets that are under way when the session ends.
const DRAIN: Duration = Duration::from_millis(200);
/// Wrong answers to the challenge before we hang up.
const DENIED_COUNT_MAX: u32 = 5;
/// A client is given this long to read why we hang up.
const LINGER: Duration = Duration::from_secs(1);
/// The longest UDP payload.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_535;

/// How a connection ends.
#[derive(Debug)]
pub(super) enum End {
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
    pub(super) options: Arc<RtspOptions>,
    stream: TcpStream,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) reader: MessageReader,
    outgoing: Outgoing,
    pub(super) challenge: Challenge,
    pub(super) denied_count: u32,
    /// A request has shown who the client is.
    pub(super) authorized: bool,
    pub(super) session: Option<Session>,
    /// Names us in receiver reports.
    ssrc: u32,
    heard: Duration,
    /// Since when a message is being received.
    mid_message: Option<Duration>,
    pub(super) datagram: Vec<u8>,
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
            outgoing: Outgoing::default(),
            challenge: Challenge::new(random.simple().to_string(), basic),
            denied_count: 0,
            authorized: false,
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
        self.say_last().await;
    }

    async fn serve(&mut self, stop: &CancellationToken) -> End {
        // One timer, set again only when something is due earlier or it went off: reads are many.
        let mut timer = std::pin::pin!(tokio::time::sleep(TICK_MAX));
        loop {
            let now = self.now();
            // What waits for room for its answer may be whole.
            let mid_message = self.reader.is_mid_item() && self.outgoing.has_room();
            self.mid_message = mid_message.then_some(self.mid_message.unwrap_or(now.monotonic));
            if let Err(end) = self.tick(now).await {
                return end;
            }
            // The clock that was handed in may go faster than the runtime's: look again once a second.
            let sleep = self.deadline().saturating_sub(now.monotonic).clamp(TICK_MIN, TICK_MAX);
            if timer.is_elapsed() || sleep < TICK_MAX && Instant::now() + sleep < timer.deadline() {
                timer.as_mut().reset(Instant::now() + sleep);
            }
            let is_recording = self.session.as_ref().is_some_and(|session| session.recording.is_some());
            let has_udp = is_recording && self.session.as_ref().is_some_and(Session::has_udp);
            let (session, datagram) = (&mut self.session, &mut self.datagram);
            let (mut incoming, socket) = self.stream.split();
            // Whom we do not read is not silent.
            let mut heard = !self.outgoing.has_room();
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Ours("the server is stopping".to_owned()),
                _ = socket.writable(), if !self.outgoing.is_empty() => {
                    if let Err(end) = self.send() {
                        return end;
                    }
                }
                read = incoming.read_buf(self.reader.buffer()), if self.outgoing.has_room() => match read {
                    Ok(0) => return End::Closed { complete: !self.reader.is_mid_item() },
                    Ok(_) => heard = true,
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
                () = &mut timer => {}
            }
            if let Err(end) = self.handle_buffered().await {
                return end;
            }
            // A stranger has until the timeout to say who it is, however much it talks. Waiting for the store is no
            // silence of the client.
            if heard && self.authorized {
                self.heard = self.options.clock.monotonic();
            }
        }
    }

    pub(super) fn now(&self) -> Now {
        Now { wall: self.options.clock.now(), monotonic: self.options.clock.monotonic() }
    }

    /// When something is due that no packet brings about.
    fn deadline(&self) -> Duration {
        let recording = self.session.as_ref().and_then(|session| session.recording.as_ref());
        let media = recording.and_then(|recording| recording.media.deadline());
        let report = recording.map(|recording| recording.next_report);
        let message = self.mid_message.map(|since| since + self.options.message_timeout);
        let stalled = self.outgoing.stalled().map(|since| since + self.options.write_timeout);
        let silence = self.heard + self.options.session_timeout;
        [media, report, message, stalled].into_iter().flatten().fold(silence, Duration::min)
    }

    /// Does what is due.
    async fn tick(&mut self, now: Now) -> Result<(), End> {
        if now.monotonic.saturating_sub(self.heard) >= self.options.session_timeout {
            return Err(End::Ours("silent for too long".to_owned()));
        }
        if self.mid_message.is_some_and(|since| now.monotonic.saturating_sub(since) >= self.options.message_timeout) {
            self.answer_with(Answer::new(408, "Request Time-out"))?;
            return Err(End::Ours("a message did not end".to_owned()));
        }
        if self.is_stalled(now) {
            // While the store was waited for nothing was sent: the client may have read all that it was.
            self.send()?;
            if self.is_stalled(now) {
                return Err(End::Ours("the client does not read its answers".to_owned()));
            }
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let Some(recording) = &mut session.recording else { return Ok(()) };
        recording.media.tick(now);
        recording.outlet.give(recording.media.take(), recording.media.unfinished_bytes()).await?;
        if now.monotonic >= recording.next_report {
            recording.next_report = now.monotonic + REPORT_INTERVAL;
            let frames = session.report(self.ssrc, now.monotonic);
            self.outgoing.report(&frames, now.monotonic, |bytes| self.stream.try_write(bytes)).map_err(not_sent)?;
        }
        Ok(())
    }

    fn is_stalled(&self, now: Now) -> bool {
        let stalled = self.outgoing.stalled().map(|since| now.monotonic.saturating_sub(since));
        stalled.is_some_and(|stalled| stalled >= self.options.write_timeout)
    }

    /// Handles everything that was read, as far as there is room for answers.
    async fn handle_buffered(&mut self) -> Result<(), End> {
        let now = self.now();
        while self.outgoing.has_room() {
            match self.reader.next() {
                Ok(None) => break,
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
                    self.answer_with(Answer::new(400, "Bad Request").cseq(cseq.as_deref()))?;
                }
                Err(error) => {
                    self.answer_with(Answer::new(error.status(), &format!("Bad Request: {error}")))?;
                    return Err(End::Ours(error.to_string()));
                }
            }
        }
        self.give().await
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
            recording.outlet.give(events, recording.media.unfinished_bytes()).await?;
            if recording.media.all_left() {
                self.end_run(true, "all tracks said goodbye", true).await?;
            }
        }
        Ok(())
    }

    /// Ends the run, if there is one. The session stays: a client that said goodbye may still want to tear it down.
    pub(super) async fn end_run(&mut self, complete: bool, cause: &str, drain: bool) -> Result<(), PublishError> {
        if drain && self.session.as_ref().is_some_and(|session| session.recording.is_some() && session.has_udp()) {
            self.drain().await;
        }
        let recording = self.session.as_mut().and_then(|session| session.recording.take());
        let Some(mut recording) = recording else { return Ok(()) };
        let whole = recording.media.finish(self.now());
        let events = recording.media.take();
        let dropped = recording.outlet.dropped();
        let given = recording.outlet.give(events, 0).await;
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

    fn answer_with(&mut self, answer: Answer) -> Result<(), End> {
        self.outgoing.answer(&answer.into_bytes());
        self.send()
    }

    /// Sends what the client takes now.
    fn send(&mut self) -> Result<(), End> {
        let now = self.options.clock.monotonic();
        self.outgoing.send(now, |bytes| self.stream.try_write(bytes)).map_err(not_sent)
    }

    /// Sends the rest before we hang up.
    async fn say_last(&mut self) {
        let sending =
            async { while !self.outgoing.is_empty() && self.stream.writable().await.is_ok() && self.send().is_ok() {} };
        let _ = tokio::time::timeout(LINGER, sending).await;
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
        self.answer_with(answer)?;
        if hang_up {
            self.say_last().await;
            // Closing at once could take the answer back.
            let _ = tokio::time::timeout(LINGER, self.stream.read_u8()).await;
            return Err(End::Ours("too many wrong passwords".to_owned()));
        }
        Ok(())
    }
}

fn not_sent(error: std::io::Error) -> End {
    tracing::info!(%error, "answer not sent");
    End::Closed { complete: false }
}

fn packet(recording: &mut Recording, track: usize, is_rtcp: bool, bytes: &Bytes, now: Now) {
    if is_rtcp {
        recording.outlet.touch();
        recording.media.rtcp(track, bytes, now);
    } else {
        recording.media.rtp(track, bytes, now);
    }
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
