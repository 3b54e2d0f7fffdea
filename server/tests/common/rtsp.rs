//! An RTSP client that says what it is told to, and waits for each answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;

use super::{ID, PATIENCE, SECRET, Vidar};

/// SDP of one track of G.711 (µ-law), with control `audio`.
pub const SOUND: &str = "v=0\r\nm=audio 0 RTP/AVP 0\r\na=control:audio\r\n";

pub struct Rtsp {
    pub stream: TcpStream,
    address: String,
}

impl Rtsp {
    pub fn connect(vidar: &Vidar) -> Self {
        let stream = TcpStream::connect(&vidar.rtsp).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, address: vidar.rtsp.clone() }
    }

    /// Sends a request; the head of its answer, whose status is 200.
    pub fn ask(&mut self, method: &str, path: &str, extra: &str, body: &str) -> String {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{ID}:{SECRET}"));
        let (address, len) = (&self.address, body.len());
        let request = format!(
            "{method} rtsp://{address}/{path} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: Basic {basic}\r\n\
             {extra}Content-Length: {len}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
        let answer = String::from_utf8(answer).expect("UTF-8");
        assert!(answer.starts_with("RTSP/1.0 200 "), "{method}: {answer}");
        answer
    }

    /// Announces [`SOUND`] and sets it up on channels 0 and 1; the answer to SETUP.
    pub fn set_up_sound(&mut self, name: &str) -> String {
        self.ask("ANNOUNCE", name, "Content-Type: application/sdp\r\n", SOUND);
        let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n";
        self.ask("SETUP", &format!("{name}/audio"), transport, "")
    }

    /// Sends a report: at this packet the sender's clock shows so many seconds, from a day in 2026 on.
    pub fn send_report(&mut self, second: u32, sequence: u16) {
        let words = [0x80c8_0006, 7, 3_990_000_000 + second, 0, u32::from(sequence) * 160, 0, 0];
        let packet: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let frame = [&[b'$', 1][..], &(packet.len() as u16).to_be_bytes(), &packet].concat();
        self.stream.write_all(&frame).expect("a report");
    }

    /// Sends sound in packets of 20 ms from this packet on; a packet counts as much in time as in number.
    pub fn send_sound(&mut self, first: u16, sound: &[u8]) {
        for (sequence, payload) in (first..).zip(sound.chunks(160)) {
            let header =
                [&[0x80, 0][..], &sequence.to_be_bytes(), &(u32::from(sequence) * 160).to_be_bytes(), &[0, 0, 0, 7]];
            let packet = [&header.concat(), payload].concat();
            let frame = [&[b'$', 0][..], &(packet.len() as u16).to_be_bytes(), &packet].concat();
            self.stream.write_all(&frame).expect("a packet");
        }
    }
}
