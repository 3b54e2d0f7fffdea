//! What is not understood: the payload of a PES packet is a sample. Of video, packets without a time belong to the one
//! before.

use bytes::BytesMut;
use vidar_core::sample::SyncKind;
use vidar_core::track::TrackKind;

use super::{Output, Payload, Unit};

#[derive(Debug)]
pub(in super::super) struct Opaque {
    video: bool,
    open: Option<Open>,
    last: Option<(i64, i64)>,
    /// Without a decode time, a sample has that of its presentation. Muxers that know no decode times at all write none,
    /// whatever the order of pictures.
    has_decode: bool,
}

#[derive(Debug)]
struct Open {
    pts: Option<u64>,
    first: Payload,
    rest: BytesMut,
}

impl Opaque {
    pub(super) fn new(kind: TrackKind) -> Self {
        Self { video: kind == TrackKind::Video, open: None, last: None, has_decode: kind != TrackKind::Video }
    }

    pub(super) fn begins(&mut self, pts: u64, out: &mut Vec<Output>) {
        if self.open.as_ref().is_some_and(|open| open.pts != Some(pts)) {
            self.close(out);
        }
    }

    pub(super) fn push(&mut self, payload: Payload, pts: Option<u64>, out: &mut Vec<Output>) {
        if let Some(open) = self.open.as_mut().filter(|open| self.video && (pts.is_none() || open.pts == pts)) {
            open.rest.extend_from_slice(&payload.data);
            return;
        }
        self.close(out);
        self.open = Some(Open { pts, first: payload, rest: BytesMut::new() });
        if !self.video {
            self.close(out);
        }
    }

    pub(super) fn lose(&mut self) {
        self.open = None;
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Output>) {
        self.close(out);
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.first.data.len() + open.rest.len())
    }

    fn close(&mut self, out: &mut Vec<Output>) {
        let Some(Open { first, rest, .. }) = self.open.take() else { return };
        self.has_decode |= first.decode.is_some();
        let times = first.presentation.map(|presentation| (presentation, first.decode.unwrap_or(presentation)));
        // A packet without a time has that of the one before; before any, it has none and no place.
        let Some((presentation, decode)) = times.or(self.last) else { return };
        let data = if rest.is_empty() { first.data } else { [&first.data[..], &rest].concat().into() };
        if data.is_empty() {
            return;
        }
        self.last = Some((presentation, decode));
        let sync = if !self.video || first.random_access { SyncKind::Sync } else { SyncKind::None };
        let decode = Some(decode).filter(|_| self.has_decode);
        out.push(Output::Unit(Unit { presentation, decode, duration: None, sync, epoch: first.epoch, data }));
    }
}
