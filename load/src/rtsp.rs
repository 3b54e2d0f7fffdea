//! The announcing side of RTSP (RFC 2326), with Digest by MD5 (RFC 2069), and RTCP sender reports.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::clip::{AUDIO_HZ, Clip};
use crate::http::{Peer, find};
use crate::packetize::{PAYLOAD_TYPE, SSRC, VIDEO_HZ};

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_UNIX_S: u64 = 2_208_988_800;

/// A session that records.
pub(crate) struct Session {
    control: Control,
    /// RTP of video, RTCP of video, RTP of sound, RTCP of sound: numbered as channels are. Empty: interleaved.
    udp: Vec<UdpSocket>,
}

/// What is announced: H.264 and AAC.
pub(crate) fn sdp(clip: &Clip) -> anyhow::Result<String> {
    let sets = parameter_sets(&clip.avcc).context("the avcC does not read")?;
    let sets: Vec<_> = sets.iter().map(|set| BASE64_STANDARD.encode(set)).collect();
    let config: String = clip.audio_config.iter().map(|byte| format!("{byte:02x}")).collect();
    let channels = clip.audio_config.get(1).map_or(1, |byte| byte >> 3 & 15);
    let [video, sound] = PAYLOAD_TYPE;
    let profile = clip.avcc.get(1..4).context("avcC")?.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=load\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=video 0 RTP/AVP {video}\r\na=rtpmap:{video} H264/{VIDEO_HZ}\r\n\
         a=fmtp:{video} packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={}\r\na=control:0\r\n\
         m=audio 0 RTP/AVP {sound}\r\na=rtpmap:{sound} MPEG4-GENERIC/{AUDIO_HZ}/{channels}\r\n\
         a=fmtp:{sound} profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config={config}\r\n\
         a=control:1\r\n",
        sets.join(",")
    ))
}

/// SPS and PPS, each behind its length in 2 bytes.
fn parameter_sets(avcc: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut at = 5;
    let mut sets = Vec::new();
    for mask in [0x1F, 0xFF] {
        let count = avcc.get(at)? & mask;
        at += 1;
        for _ in 0..count {
            let len = usize::from(u16::from_be_bytes([*avcc.get(at)?, *avcc.get(at + 1)?]));
            sets.push(avcc.get(at + 2..at + 2 + len)?.to_vec());
            at += 2 + len;
        }
    }
    Some(sets)
}

/// ANNOUNCE, SETUP and RECORD.
pub(crate) async fn open(peer: &Peer, stream: &str, sdp: &str, udp: bool) -> anyhow::Result<Session> {
    let connection = TcpStream::connect(&peer.rtsp).await?;
    connection.set_nodelay(true)?;
    let (reader, writer) = connection.into_split();
    let (sender, answers) = mpsc::channel(8);
    tokio::spawn(read_answers(reader, sender));
    let url = format!("rtsp://{}/{stream}", peer.rtsp);
    let user = (peer.id.clone(), peer.secret.clone());
    let mut control = Control { writer, answers, url: url.clone(), user, challenge: None, sequence: 0, session: None };
    let mut sockets = Vec::new();
    control.request("ANNOUNCE", &url, "Content-Type: application/sdp\r\n", sdp).await?;
    for track in 0..2 {
        let transport = if udp {
            sockets.extend([UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?]);
            let port = |index: usize| sockets[2 * track + index].local_addr().map(|address| address.port());
            format!("Transport: RTP/AVP;unicast;client_port={}-{};mode=record\r\n", port(0)?, port(1)?)
        } else {
            format!("Transport: RTP/AVP/TCP;unicast;interleaved={}-{};mode=record\r\n", 2 * track, 2 * track + 1)
        };
        let answer = control.request("SETUP", &format!("{url}/{track}"), &transport, "").await?;
        let id = field(&answer, "session").context("no Session")?;
        control.session = Some(id.split(';').next().unwrap_or_default().to_owned());
        if udp {
            let ports = field(&answer, "transport").and_then(|value| value.split_once("server_port="));
            let ports = ports.context("no server_port")?.1.split(';').next().unwrap_or_default();
            let (rtp, rtcp) = ports.split_once('-').context("not two ports")?;
            let host = peer.rtsp.rsplit_once(':').context("an address without a port")?.0;
            sockets[2 * track].connect(format!("{host}:{rtp}")).await?;
            sockets[2 * track + 1].connect(format!("{host}:{rtcp}")).await?;
        }
    }
    control.request("RECORD", &url, "Range: npt=0.000-\r\n", "").await?;
    Ok(Session { control, udp: sockets })
}

impl Session {
    /// Packets, each behind `$`, channel and length.
    pub(crate) async fn send(&mut self, packets: &[u8]) -> anyhow::Result<()> {
        if self.udp.is_empty() {
            return Ok(self.control.writer.write_all(packets).await?);
        }
        let mut left = packets;
        while let [b'$', channel, high, low, rest @ ..] = left {
            let (packet, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            self.udp[usize::from(*channel)].send(packet).await?;
            left = rest;
        }
        Ok(())
    }

    /// The answer comes when everything is durable.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        let url = self.control.url.clone();
        self.control.request("TEARDOWN", &url, "", "").await?;
        Ok(())
    }
}

/// Requests and their answers.
struct Control {
    writer: OwnedWriteHalf,
    answers: mpsc::Receiver<String>,
    url: String,
    user: (String, String),
    challenge: Option<Challenge>,
    sequence: u32,
    session: Option<String>,
}

struct Challenge {
    realm: String,
    nonce: String,
}

impl Control {
    /// The header of a successful answer. Answers a challenge once.
    async fn request(&mut self, method: &str, url: &str, fields: &str, body: &str) -> anyhow::Result<String> {
        let mut answer = self.exchange(method, url, fields, body).await?;
        if answer.starts_with("RTSP/1.0 401") && self.challenge.is_none() {
            self.challenge = Some(challenge(&answer).context("no Digest by MD5 is offered")?);
            answer = self.exchange(method, url, fields, body).await?;
        }
        ensure!(answer.starts_with("RTSP/1.0 200"), "{method}: {}", answer.lines().next().unwrap_or_default());
        Ok(answer)
    }

    async fn exchange(&mut self, method: &str, url: &str, fields: &str, body: &str) -> anyhow::Result<String> {
        self.sequence += 1;
        let mut request = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n{fields}", self.sequence);
        if let Some(session) = &self.session {
            write!(request, "Session: {session}\r\n")?;
        }
        if let Some(Challenge { realm, nonce }) = &self.challenge {
            let (id, secret) = &self.user;
            let response = hex_md5(&format!(
                "{}:{nonce}:{}",
                hex_md5(&format!("{id}:{realm}:{secret}")),
                hex_md5(&format!("{method}:{url}"))
            ));
            write!(
                request,
                "Authorization: Digest username=\"{id}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{url}\", \
                 response=\"{response}\"\r\n"
            )?;
        }
        write!(request, "Content-Length: {}\r\n\r\n{body}", body.len())?;
        self.writer.write_all(request.as_bytes()).await?;
        timeout(PATIENCE, self.answers.recv()).await.context("no answer")?.context("the connection ended")
    }
}

fn hex_md5(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of the challenge by MD5, which may have no algorithm.
fn challenge(answer: &str) -> Option<Challenge> {
    let mut digests = answer.lines().filter_map(|line| line.split_once(": ")?.1.strip_prefix("Digest "));
    let digest = digests.rfind(|value| !value.contains("SHA-256"))?;
    let value = |name: &str| Some(digest.split_once(&format!("{name}=\""))?.1.split_once('"')?.0.to_owned());
    Some(Challenge { realm: value("realm")?, nonce: value("nonce")? })
}

/// The value of a field of a header, whatever the case of its name.
fn field<'a>(header: &'a str, wanted: &str) -> Option<&'a str> {
    let mut fields = header.lines().filter_map(|line| line.split_once(':'));
    fields.find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then_some(value.trim()))
}

/// Hands on the headers of answers; receiver reports between them are skipped. No answer that is expected has a body.
async fn read_answers(mut reader: OwnedReadHalf, answers: mpsc::Sender<String>) -> anyhow::Result<()> {
    let mut unread = Vec::new();
    loop {
        if reader.read_buf(&mut unread).await? == 0 {
            return Ok(());
        }
        loop {
            let len = match unread.as_slice() {
                [b'$', _, high, low, rest @ ..] => {
                    let len = usize::from(u16::from_be_bytes([*high, *low]));
                    (rest.len() >= len).then_some(4 + len)
                }
                bytes => find(bytes, b"\r\n\r\n").map(|end| end + 4),
            };
            let Some(len) = len else { break };
            let message: Vec<u8> = unread.drain(..len).collect();
            if message[0] != b'$' && answers.send(String::from_utf8_lossy(&message).into_owned()).await.is_err() {
                bail!("nobody waits for answers");
            }
        }
    }
}

/// For both tracks: what time by the wall the media has that is sent now (RFC 3550 section 6.4.1).
pub(crate) fn sender_reports(publisher: u64, media_us: u64, wall: SystemTime, out: &mut Vec<u8>) {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    let ntp = ((since.as_secs() + NTP_UNIX_S) << 32) | fraction;
    for (track, hz) in [VIDEO_HZ, AUDIO_HZ].into_iter().enumerate() {
        let ssrc = SSRC[track].wrapping_add(publisher as u32);
        let ticks = (u128::from(media_us) * u128::from(hz) / 1_000_000) as u32;
        out.extend_from_slice(&[b'$', 2 * track as u8 + 1, 0, 28, 0x80, 200, 0, 6]);
        out.extend_from_slice(&ssrc.to_be_bytes());
        out.extend_from_slice(&ntp.to_be_bytes());
        out.extend_from_slice(&ticks.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_by_md5_is_taken() {
        let answer = "RTSP/1.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"v\", nonce=\"a\", algorithm=SHA-256\r\n\
            WWW-Authenticate: Digest realm=\"v\", nonce=\"b\", algorithm=MD5\r\n";
        assert_eq!(challenge(answer).unwrap().nonce, "b");
        assert!(challenge("WWW-Authenticate: Basic realm=\"v\"").is_none());
    }

    #[test]
    fn parameter_sets_are_read_and_cut_ones_are_not() {
        let avcc = [1, 66, 0, 30, 0xFF, 0xE1, 0, 2, 0x67, 1, 1, 0, 1, 0x68];
        assert_eq!(parameter_sets(&avcc).unwrap(), [vec![0x67, 1], vec![0x68]]);
        assert_eq!(parameter_sets(&avcc[..avcc.len() - 1]), None);
    }
}
