//! Pictures in a byte stream (ISO/IEC 13818-1 sections 2.14 and 2.17): access units out of PES packets.
//!
//! Payloads of one PTS, and those without one that follow, make a group. A group is closed when a packet of another PTS
//! begins, and split into access units where the standard says that one begins: usually it is just one.

use bytes::{Bytes, BytesMut};
use vidar_core::sample::SyncKind;
use vidar_core::track::Track;

use super::{Output, Payload, Unit};
use crate::codec::{self, CodecError, ReorderDepth, h264, h265, nal};
use crate::container::ts::pes::CLOCK_HZ;

/// NAL units without a picture that are kept for the next one, in bytes.
const PREFIX_BYTES_MAX: usize = 1 << 20;
/// Parameter sets kept until they make a track.
const SET_COUNT_MAX: usize = 64;
/// If nothing says how long a picture is shown: 25 a second.
const FRAME_TICKS: i64 = CLOCK_HZ as i64 / 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standard {
    H264,
    H265,
}

impl Standard {
    fn is_vcl(self, nal: &[u8]) -> bool {
        match self {
            Self::H264 => h264::is_vcl(nal),
            Self::H265 => h265::is_vcl(nal),
        }
    }

    fn begins_access_unit(self, nal: &[u8]) -> bool {
        match self {
            Self::H264 => h264::begins_access_unit(nal),
            Self::H265 => h265::begins_access_unit(nal),
        }
    }

    fn is_delimiter(self, nal: &[u8]) -> bool {
        match self {
            Self::H264 => h264::nal_unit_type(nal) == h264::nal_type::AUD,
            Self::H265 => h265::nal_unit_type(nal) == h265::nal_type::AUD,
        }
    }

    fn is_filler(self, nal: &[u8]) -> bool {
        match self {
            Self::H264 => h264::nal_unit_type(nal) == h264::nal_type::FILLER,
            Self::H265 => h265::nal_unit_type(nal) == h265::nal_type::FILLER,
        }
    }

    fn is_parameter_set(self, nal: &[u8]) -> bool {
        match self {
            Self::H264 => matches!(h264::nal_unit_type(nal), h264::nal_type::SPS | h264::nal_type::PPS),
            Self::H265 => matches!(h265::nal_unit_type(nal), h265::nal_type::VPS..=h265::nal_type::PPS),
        }
    }

    fn track(self, sets: &[Bytes], pid: u16) -> Result<Track, CodecError> {
        let of = |kind: u8| -> Vec<Bytes> {
            let type_of = if self == Self::H264 { h264::nal_unit_type } else { h265::nal_unit_type };
            sets.iter().filter(|set| type_of(set) == kind).cloned().collect()
        };
        match self {
            Self::H264 => {
                use h264::nal_type::{PPS, SPS};
                h264::track(&of(SPS), &of(PPS), pid.into(), CLOCK_HZ)
            }
            Self::H265 => {
                use h265::nal_type::{PPS, SPS, VPS};
                h265::track(&of(VPS), &of(SPS), &of(PPS), pid.into(), CLOCK_HZ)
            }
        }
    }
}

/// An access unit of a group.
#[derive(Debug, Default)]
struct Access {
    nals: Vec<Bytes>,
    has_picture: bool,
    field: Option<h264::Field>,
}

/// Presentation and decode time, and epoch.
type Times = (i64, i64, u32);

#[derive(Debug)]
pub(in super::super) struct Pictures {
    standard: Standard,
    pid: u16,
    group: BytesMut,
    /// PTS of the group, as it was sent, and what it means.
    pts: Option<u64>,
    times: Option<Times>,
    /// NAL units that came without a picture.
    prefix: Vec<Bytes>,
    /// Parameter sets, until they make a track.
    sets: Vec<Bytes>,
    has_track: bool,
    /// To tell fields from frames.
    sps: Option<h264::Sps>,
    /// Of the last picture.
    last: Option<Times>,
    /// A picture without a decode time has that of its presentation. Muxers that know no decode times (GStreamer's, fed
    /// from Matroska) write none at all, whatever the order of pictures: then there is none.
    has_decode: bool,
    /// From one picture to the next, in decode order.
    frame_ticks: i64,
}

impl Pictures {
    pub(super) fn new(standard: Standard, pid: u16) -> Self {
        Self {
            standard,
            pid,
            group: BytesMut::new(),
            pts: None,
            times: None,
            prefix: Vec::new(),
            sets: Vec::new(),
            has_track: false,
            sps: None,
            last: None,
            has_decode: false,
            frame_ticks: FRAME_TICKS,
        }
    }

    pub(super) fn begins(&mut self, pts: u64, out: &mut Vec<Output>) {
        if self.pts != Some(pts) {
            self.finish(out);
        }
    }

    pub(super) fn push(&mut self, payload: &Payload, pts: Option<u64>, out: &mut Vec<Output>) {
        if pts.is_some() && (self.pts != pts || self.starts_with_delimiter(&payload.data)) {
            self.finish(out);
        }
        if self.group.is_empty() {
            self.pts = pts;
            let times = |time| (time, payload.decode.unwrap_or(time), payload.epoch);
            self.times = payload.presentation.map(times);
            self.has_decode |= payload.decode.is_some();
        }
        // Without a time and nothing before it, it is the rest of what was lost.
        if self.pts.is_some() {
            self.group.extend_from_slice(&payload.data);
        }
    }

    /// The group may be cut short. Its last picture is given out only if decoding starts there: without it, all that
    /// follow would be lost too.
    pub(super) fn lose(&mut self, out: &mut Vec<Output>) {
        self.finish(out);
        if let Some(Output::Unit(Unit { sync: SyncKind::None | SyncKind::Leading, .. })) = out.last() {
            out.pop();
        }
        self.prefix.clear();
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.group.len() + self.prefix.iter().map(Bytes::len).sum::<usize>()
    }

    /// Closes the group.
    pub(super) fn finish(&mut self, out: &mut Vec<Output>) {
        self.pts = None;
        let mut times = self.times.take();
        let group = self.group.split().freeze();
        for access in self.split(&group) {
            let next = self.last.map(|(presentation, decode, epoch)| {
                let after = |time: i64| time.saturating_add(self.frame_ticks);
                (after(presentation), after(decode), epoch)
            });
            let own = times.take();
            if let (Some((_, decode, epoch)), Some((_, last, last_epoch))) = (own, self.last)
                && epoch == last_epoch
                && (1..=i64::from(CLOCK_HZ)).contains(&decode.saturating_sub(last))
            {
                self.frame_ticks = decode - last;
            }
            self.last = own.or(next);
            self.unit(access, out);
        }
    }

    fn starts_with_delimiter(&self, data: &[u8]) -> bool {
        let start = nal::find_start_code(&data[..data.len().min(8)], 0);
        start.is_some_and(|at| self.standard.is_delimiter(&data[at + 3..]))
    }

    /// The access units of a group that have pictures; what comes after the last of them is kept for the next group.
    fn split(&mut self, group: &Bytes) -> Vec<Access> {
        let mut units: Vec<Access> = Vec::new();
        let mut open = Access { nals: std::mem::take(&mut self.prefix), ..Access::default() };
        for nal in nal::split_annex_b(group) {
            if open.has_picture && self.standard.begins_access_unit(&nal) {
                add(&mut units, std::mem::take(&mut open));
            }
            if self.standard.is_delimiter(&nal) || self.standard.is_filler(&nal) {
                continue;
            }
            self.look_at(&nal, &mut open);
            open.nals.push(nal);
        }
        if open.has_picture {
            add(&mut units, open);
        } else if open.nals.iter().map(Bytes::len).sum::<usize>() <= PREFIX_BYTES_MAX {
            self.prefix = open.nals;
        }
        units
    }

    fn look_at(&mut self, nal: &Bytes, open: &mut Access) {
        if self.standard == Standard::H264 {
            if h264::nal_unit_type(nal) == h264::nal_type::SPS {
                self.sps = h264::parse_sps(nal).ok();
            }
            if !open.has_picture && h264::first_slice_in_picture(nal) {
                open.field = self.sps.as_ref().and_then(|sps| h264::field(nal, sps));
            }
        }
        open.has_picture |= self.standard.is_vcl(nal);
    }

    fn unit(&mut self, access: Access, out: &mut Vec<Output>) {
        if !self.has_track {
            self.find_track(&access.nals, out);
        }
        let Some((presentation, decode, epoch)) = self.last.filter(|_| self.has_track) else { return };
        let sync = match self.standard {
            Standard::H264 => h264::sync(access.nals.iter().map(|nal| &nal[..])),
            Standard::H265 => h265::sync(access.nals.iter().map(|nal| &nal[..])),
        };
        let data = nal::length_prefixed(&access.nals);
        let decode = Some(decode).filter(|_| self.has_decode);
        out.push(Output::Unit(Unit { presentation, decode, duration: None, sync, epoch, data }));
    }

    fn find_track(&mut self, nals: &[Bytes], out: &mut Vec<Output>) {
        for nal in nals.iter().filter(|nal| self.standard.is_parameter_set(nal)) {
            if !self.sets.contains(nal) && self.sets.len() < SET_COUNT_MAX {
                // A copy: a slice would keep its group in memory.
                self.sets.push(Bytes::copy_from_slice(nal));
            }
        }
        if let Ok(track) = self.standard.track(&self.sets, self.pid) {
            self.has_track = true;
            self.has_decode |= codec::reorder_depth(&track) == Some(ReorderDepth::NONE);
            self.sets = Vec::new();
            out.push(Output::Track(Box::new(track)));
        }
    }
}

/// Appends an access unit; the second field of a frame goes to the first.
fn add(units: &mut Vec<Access>, access: Access) {
    let first = units.last_mut().filter(|first| {
        matches!((first.field, access.field), (Some(a), Some(b)) if a.frame_num == b.frame_num && a.bottom != b.bottom)
    });
    match first {
        Some(first) => {
            first.field = None;
            first.nals.extend(access.nals);
        }
        None => units.push(access),
    }
}
