//! Publishers: each plays the script on a connection of its own, on schedule or as fast as it is acknowledged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use crate::http::{Answer, Peer, find};
use crate::rtsp;
use crate::script::Script;
use crate::tally::Tally;

/// Fragments of one publisher that may wait for their acknowledgement when it goes as fast as it can.
const WINDOW: u64 = 4;
/// For the server to close a push.
const PATIENCE: Duration = Duration::from_secs(60);

/// How media is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// RTSP, interleaved on its connection.
    RtspTcp,
    /// RTSP, RTP packets over UDP.
    RtspUdp,
    /// Matroska over HTTP.
    HttpMatroska,
    /// Fragmented MP4 over HTTP, a fragment for each GOP.
    HttpFmp4,
    /// What `rtsp-tcp` sends, to a port of a process that throws it away: the least that receiving costs. No server.
    RawTcp,
}

/// When to send.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// On schedule, to the end of the GOP that is being sent then.
    RealTime { start: Instant, until: Instant },
    /// So many times as fast as it was recorded, to a GOP that begins after this, however much is late.
    Faster { start: Instant, until: Instant, times: u32 },
    /// So much of it, as fast as it is acknowledged.
    Acknowledged { media_us: u64 },
}

/// One of many.
pub(crate) struct Publisher {
    pub(crate) peer: Arc<Peer>,
    pub(crate) script: Arc<Script>,
    pub(crate) protocol: Protocol,
    pub(crate) stream: String,
    pub(crate) number: u64,
    /// Producer time of what is sent over HTTP, in milliseconds; none: of its arrival.
    pub(crate) start_ms: Option<u64>,
    /// Of RTSP.
    pub(crate) sdp: Arc<str>,
}

#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    answered: Notify,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher {
    /// Connects, says so through `connected`, waits for its pace, sends, and ends when the server closed the push.
    pub(crate) async fn run(self, connected: Arc<Notify>, paces: watch::Receiver<Option<Vec<Pace>>>) -> Tally {
        let shared = Arc::new(Shared::default());
        if let Err(error) = self.push(&shared, &connected, paces).await {
            shared.tally().errors.push(format!("{}: {error:#}", self.stream));
        }
        std::mem::take(&mut shared.tally())
    }

    async fn push(
        &self,
        shared: &Arc<Shared>,
        connected: &Notify,
        mut paces: watch::Receiver<Option<Vec<Pace>>>,
    ) -> anyhow::Result<()> {
        let opened = match self.protocol {
            Protocol::HttpMatroska | Protocol::HttpFmp4 => self.open_http(shared).await,
            Protocol::RtspTcp | Protocol::RtspUdp => {
                let udp = self.protocol == Protocol::RtspUdp;
                rtsp::open(&self.peer, &self.stream, &self.sdp, udp).await.map(Wire::Rtsp)
            }
            Protocol::RawTcp => self.open_raw().await,
        };
        // Also if it failed: nobody is to wait for it.
        connected.notify_one();
        let mut wire = opened?;
        let pace = {
            let paces = paces.wait_for(Option::is_some).await?;
            paces.as_ref().and_then(|paces| paces.get(self.number as usize).copied()).context("no pace")?
        };
        self.send(&mut wire, shared, pace).await?;
        timeout(PATIENCE, wire.close()).await.context("the server does not close the push")?
    }

    async fn open_raw(&self) -> anyhow::Result<Wire> {
        let connection = TcpStream::connect(&self.peer.rtsp).await?;
        connection.set_nodelay(true)?;
        Ok(Wire::Raw(connection))
    }

    async fn open_http(&self, shared: &Arc<Shared>) -> anyhow::Result<Wire> {
        let connection = TcpStream::connect(&self.peer.http).await?;
        connection.set_nodelay(true)?;
        let (reader, mut writer) = connection.into_split();
        let start = self.start_ms.map(|start_ms| format!("&start={start_ms}")).unwrap_or_default();
        let head = self.peer.head("PUT", &format!("/v1/streams/{}/media?ack=stream{start}", self.stream));
        writer.write_all((head + "Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await?;
        let answers = tokio::spawn(read_answers(reader, Arc::clone(shared)));
        let mut wire = Wire::Http(writer, answers);
        let mut header = CHUNK_HEAD.to_vec();
        header.extend_from_slice(&self.script.header);
        wire.send(&mut header).await?;
        Ok(wire)
    }

    async fn send(&self, wire: &mut Wire, shared: &Shared, pace: Pace) -> anyhow::Result<()> {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut out = Vec::new();
        for turn in 0.. {
            let turn_us = turn * self.script.turn_us;
            for write in &self.script.writes {
                let media_us = turn_us + write.due_us;
                let (due, lag) = match pace {
                    Pace::RealTime { start, until } => {
                        let due = start + Duration::from_micros(media_us);
                        // Whole GOPs only: a cluster that was begun has to end.
                        if write.opens && due >= until {
                            return Ok(());
                        }
                        sleep_until(due.into()).await;
                        (due, Some(due.elapsed()))
                    }
                    Pace::Faster { start, until, times } => {
                        if write.opens && Instant::now() >= until {
                            return Ok(());
                        }
                        let due = start + Duration::from_micros(media_us / u64::from(times));
                        sleep_until(due.into()).await;
                        (due, Some(due.elapsed()))
                    }
                    Pace::Acknowledged { media_us: end } if write.opens && media_us >= end => return Ok(()),
                    Pace::Acknowledged { .. } => {
                        shared.wait_for_window().await?;
                        (start + Duration::from_micros(media_us), None)
                    }
                };
                out.clear();
                out.extend_from_slice(wire.head());
                if write.opens
                    && let Wire::Rtsp(_) = wire
                {
                    let wall = wall + due.saturating_duration_since(start);
                    rtsp::sender_reports(self.number, media_us, wall, &mut out);
                }
                self.script.render(write, turn, self.number, &mut out);
                {
                    let mut tally = shared.tally();
                    tally.lags.extend(lag);
                    tally.note_slow(lag.unwrap_or_default(), Instant::now());
                    if write.opens {
                        tally.end_fragment(Instant::now());
                        tally.sent_fragments += 1;
                    }
                    tally.sent_bytes += write.media_bytes;
                }
                wire.send(&mut out).await?;
                if write.closes {
                    shared.tally().end_fragment(Instant::now());
                }
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Until another fragment may be sent, or no more answers come.
    async fn wait_for_window(&self) -> anyhow::Result<()> {
        loop {
            let answered = self.answered.notified();
            {
                let tally = self.tally();
                ensure!(tally.errors.is_empty(), "stopped by an error");
                if tally.waiting() <= WINDOW {
                    return Ok(());
                }
            }
            answered.await;
        }
    }
}

/// A push that is open.
enum Wire {
    Http(OwnedWriteHalf, JoinHandle<anyhow::Result<()>>),
    Rtsp(rtsp::Session),
    Raw(TcpStream),
}

/// Room for the length of a chunk, which may have zeros before it.
const CHUNK_HEAD: &[u8] = b"00000000\r\n";

impl Wire {
    /// What stands before each write.
    fn head(&self) -> &'static [u8] {
        match self {
            Self::Http(..) => CHUNK_HEAD,
            Self::Rtsp(_) | Self::Raw(_) => b"",
        }
    }

    /// `head` and media.
    async fn send(&mut self, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
        match self {
            Self::Http(writer, _) => {
                let len = format!("{:08x}", bytes.len() - CHUNK_HEAD.len());
                bytes[..8].copy_from_slice(len.as_bytes());
                bytes.extend_from_slice(b"\r\n");
                Ok(writer.write_all(bytes).await?)
            }
            Self::Rtsp(session) => session.send(bytes).await,
            Self::Raw(connection) => Ok(connection.write_all(bytes).await?),
        }
    }

    /// Returns when the server has made everything durable.
    async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Http(mut writer, answers) => {
                writer.write_all(b"0\r\n\r\n").await?;
                answers.await?
            }
            Self::Rtsp(session) => session.close().await,
            Self::Raw(_) => Ok(()),
        }
    }
}

/// Counts the lines of the answer to a push.
async fn read_answers(mut reader: OwnedReadHalf, shared: Arc<Shared>) -> anyhow::Result<()> {
    let (mut answer, mut lines) = (Answer::default(), Vec::new());
    let mut buffer = vec![0; 4096];
    while !answer.ended() {
        let len = reader.read(&mut buffer).await?;
        lines.extend(answer.push(&buffer[..len])?);
        while let Some(end) = find(&lines, b"\n") {
            shared.tally().answered(&lines[..end], Instant::now());
            lines.drain(..=end);
        }
        shared.answered.notify_one();
        if len == 0 {
            let error = format!("the answer was cut off: {} {}", answer.status.unwrap_or(0), lines.escape_ascii());
            shared.tally().errors.push(error.clone());
            shared.answered.notify_one();
            bail!(error);
        }
    }
    Ok(())
}
