//! The order in which pictures of H.264 and H.265 are shown, for streams that carry no times.
//!
//! Slice headers carry the low bits of a count that grows in that order and begins anew with each coded video sequence,
//! in H.264 also with a `memory_management_control_operation` 5 (ISO/IEC 14496-10 section 8.2.1, ISO/IEC 23008-2 section
//! 8.3.1). Not looked into, and kept in decode order: H.264's counts of type 1.

use std::collections::VecDeque;

use bytes::Bytes;
use vidar_core::track::{Codec, NalFraming, Track};

use super::bits::BitReader;
use super::{h264, h264_slice, h265, nal, reorder_depth};

/// Pictures that wait for others to be shown before them, when the stream claims that ever more are.
const WAITING_COUNT_MAX: usize = 64;

/// Where a picture stands in the order shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// All pictures of one coded video sequence are shown before those of the next.
    pub sequence: u64,
    /// `PicOrderCnt`.
    pub count: i64,
}

/// Reads places off pictures that come in decode order.
#[derive(Debug)]
pub struct PictureOrder {
    sets: Sets,
    length_size: u8,
    last: Place,
    /// `prevPicOrderCntMsb` and `prevPicOrderCntLsb`.
    reference: (i64, i64),
    /// The next random access picture begins a sequence.
    begins: bool,
}

#[derive(Debug)]
enum Sets {
    H264(h264_slice::Sets),
    H265(Box<h265::Sps>, Vec<Pps>),
}

/// What of an H.265 picture parameter set slice headers depend on (ISO/IEC 23008-2 section 7.3.2.3.1).
#[derive(Debug)]
struct Pps {
    id: u32,
    output_flag: bool,
    extra_bits: usize,
}

/// What the header of a picture's first slice says.
struct Slice {
    /// The low bits of the count.
    count: i64,
    /// One above them.
    max: i64,
    begins: bool,
    /// Later pictures count from it.
    reference: bool,
}

impl PictureOrder {
    /// With the parameter sets of the track's private data. None for other codecs, and where those do not say the order.
    #[must_use]
    pub fn of(track: &Track) -> Option<Self> {
        let NalFraming::LengthPrefixed(length_size) = track.framing else { return None };
        let sets = match track.codec {
            Codec::H264 => {
                let sets = h264_slice::Sets::new(&h264::parse_avcc(&track.codec_private).ok()?);
                Sets::H264(Some(sets).filter(h264_slice::Sets::say_order)?)
            }
            Codec::H265 => {
                let record = h265::parse_hvcc(&track.codec_private).ok()?;
                let sps = h265::parse_sps(record.sps.first()?).ok()?;
                Sets::H265(Box::new(sps), record.pps.iter().filter_map(read_pps).collect())
            }
            _ => return None,
        };
        Some(Self { sets, length_size, last: Place { sequence: 0, count: -1 }, reference: (0, 0), begins: true })
    }

    /// Of the next picture. One that does not read stands behind the last.
    pub fn place(&mut self, sample: &[u8]) -> Place {
        let nals = || nal::iter_length_prefixed(sample, self.length_size).map_while(|nal| Some(nal.ok()?.1));
        let slice = match &self.sets {
            Sets::H264(sets) => nals().find(|nal| h264::is_vcl(nal)).and_then(|nal| h264_slice(nal, sets)),
            Sets::H265(sps, pps) => nals()
                .find(|nal| h265::first_slice_segment_in_pic(nal))
                .and_then(|nal| h265_slice(nal, sps, pps, self.begins)),
        };
        let ends = matches!(self.sets, Sets::H265(..)) && nals().any(|nal| matches!(h265::nal_unit_type(nal), 36 | 37));
        match slice {
            Some(slice) => self.follow(&slice),
            None => self.last.count = self.last.count.saturating_add(1),
        }
        self.begins |= ends;
        self.last
    }

    fn follow(&mut self, slice: &Slice) {
        let (max, (mut high, low)) = (slice.max, self.reference);
        if slice.begins {
            (high, self.begins) = (0, false);
            self.last.sequence += 1;
        } else if low - slice.count >= max / 2 {
            high = high.saturating_add(max);
        } else if slice.count - low > max / 2 {
            high = high.saturating_sub(max);
        }
        if slice.reference || slice.begins {
            self.reference = (high, slice.count);
        }
        self.last.count = high.saturating_add(slice.count);
    }
}

fn h264_slice(nal: &[u8], sets: &h264_slice::Sets) -> Option<Slice> {
    let order = sets.order(nal)?;
    let (count, bits) = match order.count {
        Some((count, bits)) => (count.into(), bits),
        // In decode order; also behind all pictures of a sequence that was counted.
        None if order.idr => (0, 0),
        None => return None,
    };
    // Section 8.2.1: what an operation 5 resets stands where its frame was, less its count.
    let (count, begins) = order.reset.map_or((count, order.idr), |behind| (behind, true));
    Some(Slice { count, max: 1 << bits, begins, reference: nal[0] & 0x60 != 0 })
}

/// ISO/IEC 23008-2 section 7.3.6.1. `begins`: a clean random access picture begins a sequence.
fn h265_slice(nal: &[u8], sps: &h265::Sps, pps: &[Pps], begins: bool) -> Option<Slice> {
    use h265::nal_type::{BLA_W_LP, CRA, IDR_N_LP, IDR_W_RADL, IRAP_LAST, RADL_N, RASL_R};
    let kind = h265::nal_unit_type(nal);
    let payload = nal::payload_start(nal, 2);
    let mut r = BitReader::new(&payload);
    r.skip(if (BLA_W_LP..=IRAP_LAST).contains(&kind) { 2 } else { 1 }).ok()?;
    let id = r.ue().ok()?;
    let pps = pps.iter().find(|pps| pps.id == id)?;
    r.skip(pps.extra_bits).ok()?;
    r.ue().ok()?;
    r.skip(usize::from(pps.output_flag) + if sps.separate_planes { 2 } else { 0 }).ok()?;
    let idr = matches!(kind, IDR_W_RADL | IDR_N_LP);
    let count = if idr { 0 } else { r.bits(sps.order_bits.into()).ok()?.into() };
    let leading = (RADL_N..=RASL_R).contains(&kind);
    // Even types below 16 are of pictures that none of their sub-layer refers to.
    let reference = nal[1] & 7 == 1 && !leading && (kind >= BLA_W_LP || kind % 2 == 1);
    let begins = (BLA_W_LP..=IDR_N_LP).contains(&kind) || kind == CRA && begins;
    Some(Slice { count, max: 1 << sps.order_bits, begins, reference })
}

fn read_pps(nal: &Bytes) -> Option<Pps> {
    let payload = nal::payload_start(nal, 2);
    let mut r = BitReader::new(&payload);
    let id = r.ue().ok()?;
    r.ue().ok()?;
    r.skip(1).ok()?;
    Some(Pps { id, output_flag: r.flag().ok()?, extra_bits: r.bits(3).ok()? as usize })
}

/// Gives pictures, which come in decode order, the times at which they are shown: those at which they are decoded, in
/// the order shown.
#[derive(Debug)]
pub struct ShownTimes<T> {
    order: PictureOrder,
    depth: usize,
    waiting: VecDeque<Waiting<T>>,
    /// That no picture has got yet.
    times: VecDeque<i64>,
}

#[derive(Debug)]
struct Waiting<T> {
    picture: T,
    place: Place,
    shown: Option<i64>,
}

impl<T> ShownTimes<T> {
    /// None as for [`PictureOrder::of`], and where nothing is out of order.
    #[must_use]
    pub fn of(track: &Track) -> Option<Self> {
        let depth = usize::from(reorder_depth(track)?.depth);
        let order = PictureOrder::of(track).filter(|_| depth > 0)?;
        Some(Self { order, depth, waiting: VecDeque::new(), times: VecDeque::new() })
    }

    /// The next picture: its bytes, what it is to the caller, and when it is decoded.
    pub fn push(&mut self, sample: &[u8], picture: T, decoded: i64) {
        let place = self.order.place(sample);
        self.times.push_back(decoded);
        self.waiting.push_back(Waiting { picture, place, shown: None });
        while let Some(next) = self.next_shown() {
            // As many times wait as pictures do.
            if self.times.len() <= self.depth && self.waiting[next].place.sequence == place.sequence {
                break;
            }
            self.show(next);
        }
        if self.waiting.len() > WAITING_COUNT_MAX {
            self.show(0);
        }
    }

    /// No more pictures come: all can be taken.
    pub fn finish(&mut self) {
        while let Some(next) = self.next_shown() {
            self.show(next);
        }
    }

    /// The next picture in decode order, if it is certain when it is shown.
    pub fn pop(&mut self) -> Option<(T, i64)> {
        let shown = self.waiting.front()?.shown?;
        self.waiting.pop_front().map(|waiting| (waiting.picture, shown))
    }

    fn next_shown(&self) -> Option<usize> {
        let open = self.waiting.iter().enumerate().filter(|(_, waiting)| waiting.shown.is_none());
        open.min_by_key(|(_, waiting)| waiting.place).map(|(index, _)| index)
    }

    fn show(&mut self, index: usize) {
        if self.waiting[index].shown.is_none() {
            self.waiting[index].shown = self.times.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;
    use crate::container::{SNIFF_BYTES, Sniffed, sniff};

    /// Pictures of the first track, and when they are shown.
    fn pictures(name: &str) -> (Track, Vec<(Bytes, i64)>) {
        let bytes = Bytes::from(vidar_fixtures::read(name));
        let Sniffed::Format(format) = sniff(&bytes[..SNIFF_BYTES]) else { panic!("{name}") };
        let (mut demuxer, mut events) = (format.demuxer(), Vec::new());
        demuxer.push(bytes, &mut events).unwrap();
        demuxer.finish(&mut events).unwrap();
        let (mut track, mut pictures) = (None, Vec::new());
        for event in events {
            match event {
                Event::Config(config) => track = track.or(config.tracks.into_iter().next()),
                Event::Sample(sample) if sample.track == 0 => pictures.push((sample.data, sample.presentation_ticks)),
                _ => {}
            }
        }
        (track.unwrap(), pictures)
    }

    /// With their numbers as times.
    fn ranks(track: &Track, pictures: &[(Bytes, i64)]) -> Vec<usize> {
        let (mut ranks, mut out) = (ShownTimes::of(track).unwrap(), Vec::new());
        for (index, (picture, _)) in pictures.iter().enumerate() {
            ranks.push(picture, index, index as i64);
            out.extend(std::iter::from_fn(|| ranks.pop()));
            assert!(index + 1 - out.len() <= 2 * usize::from(reorder_depth(track).unwrap().depth) + 8);
        }
        ranks.finish();
        out.extend(std::iter::from_fn(|| ranks.pop()));
        assert!(out.iter().map(|(index, _)| *index).eq(0..pictures.len()), "decode order");
        out.into_iter().map(|(_, rank)| rank as usize).collect()
    }

    #[test]
    fn pictures_are_ranked_as_their_container_times_them() {
        for name in [
            "bbb.mkv",
            "bbb.ts",
            "h264_pyramid.mkv",
            "h264_open_gop.mkv",
            "h264_vfr.mkv",
            "h265_open_gop.mkv",
            "h265.mp4",
        ] {
            let (track, pictures) = pictures(name);
            let mut times: Vec<i64> = pictures.iter().map(|(_, time)| *time).collect();
            times.sort_unstable();
            let expected: Vec<usize> =
                pictures.iter().map(|(_, time)| times.partition_point(|other| other < time)).collect();
            assert_eq!(ranks(&track, &pictures), expected, "{name}");
            assert!(!expected.is_sorted(), "{name}: nothing is out of order");
        }
    }

    #[test]
    fn pictures_that_do_not_read_keep_their_order_and_none_waits_for_ever() {
        let (track, mut pictures) = pictures("bbb.mkv");
        for (picture, _) in &mut pictures {
            *picture = Bytes::from_static(&[0, 0, 0, 1, 0x65]);
        }
        assert!(ranks(&track, &pictures).into_iter().eq(0..pictures.len()));

        // One that claims to be shown after all that come.
        let mut ranks = ShownTimes::of(&track).unwrap();
        ranks.push(&[], (), 0);
        ranks.waiting[0].place.count = i64::MAX;
        let mut taken = 0;
        for _ in 0..200 {
            ranks.push(&[], (), 1);
            taken += std::iter::from_fn(|| ranks.pop()).count();
            assert!(ranks.waiting.len() <= WAITING_COUNT_MAX);
        }
        assert!(taken > 200 - WAITING_COUNT_MAX);
    }

    #[test]
    fn other_tracks_have_no_order() {
        assert!(PictureOrder::of(&super::super::plain_video(Codec::Vp9)).is_none());
        assert!(ShownTimes::<()>::of(&pictures("h264_ip.mkv").0).is_none(), "nothing is out of order");
    }
}
