//! What the helper says, and how it is framed: u32 length of what follows, u8 kind, payload (see
//! [`vidar_core::wire`]). Layout: `docs/design/foreign.md`.

use bytes::{Buf, Bytes, BytesMut};
use vidar_core::limits::SAMPLE_BYTES_MAX;
use vidar_core::sample::SyncKind;
use vidar_core::track::StreamConfig;
use vidar_core::wire::{Reader, WireError, Writer};
use vidar_media::RawSample;

/// One message: a sample of the greatest length, and its fields.
pub(super) const MESSAGE_BYTES_MAX: usize = SAMPLE_BYTES_MAX + (64 << 10);
/// Ticks per second of all times in messages.
pub(super) const TIMESCALE_HZ: u32 = 1_000_000;
/// Text of an error, in bytes.
const DETAIL_BYTES_MAX: usize = 4096;
const LENGTH_BYTES: usize = 4;

const CONFIG: u8 = 1;
const SAMPLE: u8 = 2;
const ERROR: u8 = 3;
const END: u8 = 4;

/// A message of the helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// The tracks, before any sample; again when they change.
    Config(StreamConfig),
    /// A sample of a track of the last config.
    Sample(RawSample),
    /// It cannot go on. Nothing follows.
    Error {
        /// HTTP status.
        status: u16,
        /// What was wrong.
        detail: String,
    },
    /// The input ended and all of it was said. Nothing follows.
    End,
}

impl Message {
    /// With its length before it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Config(config) => {
                w.u8(CONFIG).raw(&config.encode());
            }
            Self::Sample(sample) => encode_sample(sample, &mut w),
            Self::Error { status, detail } => {
                let end = detail.floor_char_boundary(DETAIL_BYTES_MAX);
                w.u8(ERROR).u16(*status).string(&detail[..end]);
            }
            Self::End => {
                w.u8(END);
            }
        }
        let body = w.into_vec();
        let mut framed = Writer::new();
        // Samples are at most SAMPLE_BYTES_MAX and configs at most what a config record holds.
        framed.u32(u32::try_from(body.len()).expect("a message is far below 4 GiB")).raw(&body);
        framed.into_vec()
    }

    fn decode(body: &Bytes) -> Result<Self, WireError> {
        let mut r = Reader::new(body);
        let message = match r.u8()? {
            CONFIG => {
                let rest = r.raw(r.remaining())?;
                let config = StreamConfig::decode(rest)
                    .map_err(|error| WireError { offset: error.offset.saturating_add(1), ..error })?;
                Self::Config(config)
            }
            SAMPLE => Self::Sample(decode_sample(body, &mut r)?),
            ERROR => {
                let status = r.u16()?;
                if !(400..600).contains(&status) {
                    return Err(r.error("a status of an error"));
                }
                let detail = r.string()?;
                if detail.len() > DETAIL_BYTES_MAX {
                    return Err(r.error("a shorter text"));
                }
                Self::Error { status, detail: detail.to_owned() }
            }
            END => Self::End,
            _ => return Err(r.error("a kind of message")),
        };
        r.finish()?;
        Ok(message)
    }
}

fn encode_sample(sample: &RawSample, w: &mut Writer) {
    w.u8(SAMPLE).u8(sample.track).signed(sample.presentation_ticks);
    w.option(sample.decode_ticks, |w, ticks| {
        w.signed(ticks);
    });
    w.option(sample.duration_ticks, |w, ticks| {
        w.u32(ticks);
    });
    w.u8(u8::from(sample.sync == SyncKind::Sync)).raw(&sample.data);
}

fn decode_sample(body: &Bytes, r: &mut Reader<'_>) -> Result<RawSample, WireError> {
    let (track, presentation_ticks) = (r.u8()?, r.signed()?);
    let decode_ticks = r.option(Reader::signed)?;
    let duration_ticks = r.option(Reader::u32)?;
    let sync = match r.u8()? {
        0 => SyncKind::None,
        1 => SyncKind::Sync,
        _ => return Err(r.error("0 or 1")),
    };
    if r.remaining() > SAMPLE_BYTES_MAX {
        return Err(r.error("a sample of at most 50 MiB"));
    }
    let data = body.slice(r.offset()..);
    r.raw(r.remaining())?;
    Ok(RawSample { track, presentation_ticks, decode_ticks, duration_ticks, sync, block_flags: 0, data })
}

/// Reads messages off what the helper wrote, in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    /// Of the last config.
    track_count: usize,
}

impl Decoder {
    /// Where the next bytes go.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next message, if it is complete.
    ///
    /// # Errors
    /// If the bytes are none. After an error the decoder is not used again.
    pub(super) fn next(&mut self) -> Result<Option<Message>, WireError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(WireError { expected: "a message of at most 50 MiB", offset: 0 });
        }
        if self.buffer.len() - LENGTH_BYTES < length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let message = Message::decode(&self.buffer.split_to(length).freeze())?;
        match &message {
            Message::Config(config) => self.track_count = config.tracks.len(),
            Message::Sample(sample) if usize::from(sample.track) >= self.track_count => {
                return Err(WireError { expected: "a track of the config", offset: 1 });
            }
            _ => {}
        }
        Ok(Some(message))
    }
}

/// Messages, read in pieces as long as the first byte says. What reads can be written and reads again.
///
/// # Panics
/// If that does not hold.
pub fn fuzz(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let read = |piece: usize| {
        let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
        for piece in data.chunks(piece) {
            decoder.buffer().extend_from_slice(piece);
            loop {
                match decoder.next() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error)),
                }
            }
        }
        (messages, None)
    };
    let (messages, error) = read(usize::from(*cut).max(1));
    let whole = read(data.len().max(1));
    assert_eq!((&messages, &error), (&whole.0, &whole.1), "it depends on the cuts");
    let mut again = Decoder::default();
    for message in messages {
        again.buffer().extend_from_slice(&message.encode());
        assert_eq!(again.next(), Ok(Some(message)));
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
