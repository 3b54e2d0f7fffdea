//! What a session is, and its bytes in a token.

use vidar_core::ids::{ConfigId, FragmentNumber, StreamId, StreamName};
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};
use vidar_indexer::TimeAxis;

use crate::selector::Range;

const VERSION: u8 = 1;

/// How a session plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// What comes, from now on.
    Live,
    /// A range, at the speed it came.
    LiveReplay,
    /// A range, all of it.
    OnDemand,
}

/// Where players are told that the timeline breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Discontinuity {
    /// Before each segment.
    Always,
    /// Nowhere.
    Never,
    /// At gaps and overlaps.
    AtBreaks,
}

/// What segments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// Fragmented MP4, a track each.
    Mp4,
    /// MPEG-TS, all tracks together.
    Ts,
}

/// The fragment a session began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub(super) number: FragmentNumber,
    pub(super) ordinal: u64,
    pub(super) config: ConfigId,
}

/// Who opened it: it plays as long as that one may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Maker {
    pub(super) access_key_id: String,
    /// Of temporary credentials.
    pub(super) session_token: Option<String>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// Not another of its name, made later.
    pub(super) stream: StreamId,
    pub(super) name: StreamName,
    pub(super) maker: Maker,
    pub(super) mode: Mode,
    pub(super) container: Container,
    pub(super) axis: TimeAxis,
    /// Of all but `Live`.
    pub(super) range: Option<Range>,
    pub(super) first: First,
    pub(super) began: UnixMs,
    pub(super) expires: UnixMs,
    /// Longest segment, in seconds, as playlists say it.
    pub(super) target_s: u32,
    /// Media that it began with, in milliseconds.
    pub(super) lead_ms: u64,
    /// Fragments of a playlist at most.
    pub(super) results: u16,
    pub(super) discontinuity: Discontinuity,
    pub(super) shows_times: bool,
    pub(super) shows_numbers: bool,
}

const MODES: [Mode; 3] = [Mode::Live, Mode::LiveReplay, Mode::OnDemand];
const CONTAINERS: [Container; 2] = [Container::Mp4, Container::Ts];
const AXES: [TimeAxis; 2] = [TimeAxis::Producer, TimeAxis::Server];
const DISCONTINUITIES: [Discontinuity; 3] = [Discontinuity::Always, Discontinuity::Never, Discontinuity::AtBreaks];

/// The code of one of few values: its place.
fn code<T: PartialEq>(all: &[T], value: &T) -> u8 {
    all.iter().zip(0..).find(|(one, _)| *one == value).map_or(u8::MAX, |(_, code)| code)
}

fn of_code<T: Copy>(all: &[T], reader: &mut Reader<'_>) -> Result<T, WireError> {
    let code = reader.u8()?;
    all.get(usize::from(code)).copied().ok_or_else(|| reader.error("a known code"))
}

impl Session {
    /// Its bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).raw(self.stream.as_bytes()).string(self.name.as_str()).string(&self.maker.access_key_id);
        w.option(self.maker.session_token.as_deref(), |w, token| {
            w.string(token);
        });
        w.u8(code(&MODES, &self.mode)).u8(code(&CONTAINERS, &self.container)).u8(code(&AXES, &self.axis));
        w.option(self.range, |w, range| {
            w.signed(range.start.0).option(range.end, |w, end| {
                w.signed(end.0);
            });
        });
        w.raw(self.first.number.as_bytes()).varint(self.first.ordinal).raw(&self.first.config.0);
        w.signed(self.began.0).signed(self.expires.0);
        w.u32(self.target_s).varint(self.lead_ms).u16(self.results);
        w.u8(code(&DISCONTINUITIES, &self.discontinuity));
        w.u8(u8::from(self.shows_times) | u8::from(self.shows_numbers) << 1);
        w.into_vec()
    }

    /// Reads what `encode` wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return Err(r.error("version 1"));
        }
        let stream = StreamId::from_bytes(r.array()?);
        let name = StreamName::new(r.string()?).map_err(|_| r.error("a name of a stream"))?;
        let access_key_id = r.string()?.to_owned();
        let session_token = r.option(|r| r.string().map(str::to_owned))?;
        let (mode, container) = (of_code(&MODES, &mut r)?, of_code(&CONTAINERS, &mut r)?);
        let axis = of_code(&AXES, &mut r)?;
        let range = r.option(|r| {
            let start = UnixMs(r.signed()?);
            Ok(Range { axis, start, end: r.option(|r| r.signed().map(UnixMs))? })
        })?;
        let first = First {
            number: FragmentNumber::from_bytes(r.array()?),
            ordinal: r.varint()?,
            config: ConfigId(r.array()?),
        };
        let (began, expires) = (UnixMs(r.signed()?), UnixMs(r.signed()?));
        let (target_s, lead_ms, results) = (r.u32()?, r.varint()?, r.u16()?);
        let discontinuity = of_code(&DISCONTINUITIES, &mut r)?;
        let shows = r.u8()?;
        r.finish()?;
        Ok(Self {
            stream,
            name,
            maker: Maker { access_key_id, session_token },
            mode,
            container,
            axis,
            range,
            first,
            began,
            expires,
            target_s,
            lead_ms,
            results,
            discontinuity,
            shows_times: shows & 1 != 0,
            shows_numbers: shows & 2 != 0,
        })
    }
}
