//! Scripts out of the clip: RTP as it stands interleaved on a connection, Matroska clusters, fragmented MP4.

use crate::clip::{AUDIO_FRAME, AUDIO_HZ, Clip, FRAMES_PER_SECOND, Picture};
use crate::script::{Draft, Script};

/// Payload of an RTP packet, so that it fits an Ethernet frame.
const PAYLOAD_BYTES_MAX: usize = 1400;
pub(crate) const VIDEO_HZ: u64 = 90_000;
/// Of the first publisher; the others count up.
pub(crate) const SSRC: [u32; 2] = [0x0100_0000, 0x0200_0000];
pub(crate) const PAYLOAD_TYPE: [u8; 2] = [96, 97];

fn picture_us(index: usize) -> u64 {
    index as u64 * 1_000_000 / FRAMES_PER_SECOND
}

/// Pictures, each with the sound that begins while it is shown: one write for both.
fn interleaved(clip: &Clip) -> impl Iterator<Item = (usize, &Picture, std::ops::Range<usize>)> {
    let count = clip.pictures.len();
    let upto = move |picture: usize| picture * clip.audio.len() / count;
    clip.pictures.iter().enumerate().map(move |(index, picture)| (index, picture, upto(index)..upto(index + 1)))
}

/// `$`, channel and length before each packet (RFC 2326 section 10.12). Video on channel 0, sound on channel 2.
pub(crate) fn rtp(clip: &Clip) -> Script {
    let mut script = Script::new(Vec::new(), clip.loop_us());
    let mut tracks = rtp_packets(clip).map(|packets| Track { sequence: 0, packets });
    for (index, picture, sound) in interleaved(clip) {
        let mut draft = Draft { media_bytes: picture.data.len() as u64, ..Draft::default() };
        let ticks = index as u64 * VIDEO_HZ / FRAMES_PER_SECOND;
        let mut payloads = nal_units(&picture.data).flat_map(fu_a).peekable();
        while let Some(payload) = payloads.next() {
            tracks[0].packet(0, clip, ticks, payloads.peek().is_none(), &payload, &mut draft);
        }
        for unit in sound {
            let data = &clip.audio[unit];
            draft.media_bytes += data.len() as u64;
            // RFC 3640 section 3.3.6: 16 bits of headers, one of 13 bits of size and 3 of index.
            let mut payload = vec![0, 16];
            payload.extend_from_slice(&((data.len() as u16) << 3).to_be_bytes());
            payload.extend_from_slice(data);
            tracks[1].packet(1, clip, unit as u64 * AUDIO_FRAME, true, &payload, &mut draft);
        }
        script.push(picture_us(index), picture.sync, false, draft);
    }
    script
}

struct Track {
    sequence: u16,
    packets: u64,
}

impl Track {
    fn packet(&mut self, track: usize, clip: &Clip, ticks: u64, marker: bool, payload: &[u8], draft: &mut Draft) {
        let hz = [VIDEO_HZ, AUDIO_HZ][track];
        let len = (12 + payload.len()) as u16;
        draft.bytes.extend_from_slice(&[b'$', 2 * track as u8]);
        draft.bytes.extend_from_slice(&len.to_be_bytes());
        draft.bytes.extend_from_slice(&[0x80, PAYLOAD_TYPE[track] | u8::from(marker) << 7]);
        draft.counts(&self.sequence.to_be_bytes(), self.packets, 0);
        draft.counts(&(ticks as u32).to_be_bytes(), clip.loop_us() * hz / 1_000_000, 0);
        draft.counts(&SSRC[track].to_be_bytes(), 0, 1);
        draft.bytes.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// In a turn, of video and of sound: what sequence numbers go on by.
fn rtp_packets(clip: &Clip) -> [u64; 2] {
    let video = clip.pictures.iter().flat_map(|picture| nal_units(&picture.data)).map(|nal| fu_a(nal).len() as u64);
    [video.sum(), clip.audio.len() as u64]
}

fn nal_units(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = data.split_first_chunk::<4>()?;
        let (nal, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        data = rest;
        Some(nal)
    })
}

/// One packet, or several FU-A (RFC 6184 section 5.8).
fn fu_a(nal: &[u8]) -> Vec<Vec<u8>> {
    let [head, body @ ..] = nal else { return Vec::new() };
    if nal.len() <= PAYLOAD_BYTES_MAX {
        return vec![nal.to_vec()];
    }
    let last = body.len().div_ceil(PAYLOAD_BYTES_MAX - 2) - 1;
    let pieces = body.chunks(PAYLOAD_BYTES_MAX - 2).enumerate();
    let payload = |(index, piece): (usize, &[u8])| {
        let flags = u8::from(index == 0) << 7 | u8::from(index == last) << 6;
        [&[head & 0xE0 | 28, flags | head & 0x1F], piece].concat()
    };
    pieces.map(payload).collect()
}

/// A cluster of known size for each GOP, written picture by picture.
pub(crate) fn matroska(clip: &Clip) -> Script {
    let mut script = Script::new(clip.matroska_header.clone(), clip.loop_us());
    let mut drafts: Vec<(usize, Draft)> = Vec::new();
    let mut cluster_ms = 0;
    for (index, picture, sound) in interleaved(clip) {
        let mut draft = Draft::default();
        let ms = picture_us(index) / 1000;
        if picture.sync {
            flush_cluster(&mut script, &mut drafts, clip);
            cluster_ms = ms;
        }
        simple_block(&mut draft, 1, ms as i64 - cluster_ms as i64, picture.sync, &picture.data);
        for unit in sound {
            let ms = unit as u64 * AUDIO_FRAME * 1000 / AUDIO_HZ;
            simple_block(&mut draft, 2, ms as i64 - cluster_ms as i64, true, &clip.audio[unit]);
        }
        drafts.push((index, draft));
    }
    flush_cluster(&mut script, &mut drafts, clip);
    script
}

fn simple_block(draft: &mut Draft, track: u8, relative_ms: i64, sync: bool, data: &[u8]) {
    let size = 0x1000_0000 | (data.len() + 4) as u32;
    draft.bytes.push(0xA3);
    draft.bytes.extend_from_slice(&size.to_be_bytes());
    draft.bytes.push(0x80 | track);
    draft.bytes.extend_from_slice(&(relative_ms as i16).to_be_bytes());
    draft.bytes.push(u8::from(sync) << 7);
    draft.bytes.extend_from_slice(data);
    draft.media_bytes += data.len() as u64;
}

/// The cluster's head stands before its first picture.
fn flush_cluster(script: &mut Script, drafts: &mut Vec<(usize, Draft)>, clip: &Clip) {
    /// Identifier, size and value of the cluster's time.
    const TIME_BYTES: usize = 10;
    let size = TIME_BYTES + drafts.iter().map(|(_, draft)| draft.bytes.len()).sum::<usize>();
    for (position, (index, mut draft)) in drafts.drain(..).enumerate() {
        if position == 0 {
            let blocks = std::mem::take(&mut draft.bytes);
            draft.bytes.extend_from_slice(&0x1F43_B675_u32.to_be_bytes());
            draft.bytes.extend_from_slice(&(1 << 56 | size as u64).to_be_bytes());
            draft.bytes.extend_from_slice(&[0xE7, 0x88]);
            draft.counts(&(picture_us(index) / 1000).to_be_bytes(), clip.loop_us() / 1000, 0);
            draft.bytes.extend(blocks);
        }
        script.push(picture_us(index), position == 0, false, draft);
    }
}

/// `moof` and `mdat` for each GOP, written when its last picture has ended: not before is its `moof` known.
pub(crate) fn fmp4(clip: &Clip) -> Script {
    let mut script = Script::new(clip.mp4_header.clone(), clip.loop_us());
    let pictures = (clip.gop_s * FRAMES_PER_SECOND) as usize;
    let gops = clip.pictures.len() / pictures;
    for gop in 0..gops {
        let video = gop * pictures..(gop + 1) * pictures;
        let sound = gop * clip.audio.len() / gops..(gop + 1) * clip.audio.len() / gops;
        let video_sizes: Vec<_> = clip.pictures[video.clone()].iter().map(|picture| picture.data.len()).collect();
        let sound_sizes: Vec<_> = clip.audio[sound.clone()].iter().map(Vec::len).collect();
        let [video_len, sound_len] = [&video_sizes, &sound_sizes].map(|sizes| sizes.iter().sum::<usize>());
        let video_trun = trun(&video_sizes, (VIDEO_HZ / FRAMES_PER_SECOND) as u32);
        let sound_trun = trun(&sound_sizes, AUDIO_FRAME as u32);
        let [video_traf, sound_traf] = [&video_trun, &sound_trun].map(|trun| 8 + 16 + 20 + trun.len());
        let moof = 8 + 16 + video_traf + sound_traf;
        let mut draft = Draft { media_bytes: (video_len + sound_len) as u64, ..Draft::default() };
        draft.bytes.extend(head(b"moof", moof));
        draft.bytes.extend(head(b"mfhd", 16));
        draft.bytes.extend([0; 4]);
        draft.counts(&(gop as u32 + 1).to_be_bytes(), gops as u64, 0);
        let times = [
            (video.start as u64 * VIDEO_HZ / FRAMES_PER_SECOND, VIDEO_HZ),
            (sound.start as u64 * AUDIO_FRAME, AUDIO_HZ),
        ];
        let offsets = [moof + 8, moof + 8 + video_len];
        for (track, (trun, traf)) in [(video_trun, video_traf), (sound_trun, sound_traf)].into_iter().enumerate() {
            let (time, hz) = times[track];
            draft.bytes.extend(head(b"traf", traf));
            draft.bytes.extend(head(b"tfhd", 16));
            draft.bytes.extend([0, 2, 0, 0, 0, 0, 0, track as u8 + 1]);
            draft.bytes.extend(head(b"tfdt", 20));
            draft.bytes.extend([1, 0, 0, 0]);
            draft.counts(&time.to_be_bytes(), clip.loop_us() * hz / 1_000_000, 0);
            let data_offset_at = draft.bytes.len() + 16;
            draft.bytes.extend(trun);
            draft.bytes[data_offset_at..data_offset_at + 4].copy_from_slice(&(offsets[track] as u32).to_be_bytes());
        }
        draft.bytes.extend(head(b"mdat", 8 + video_len + sound_len));
        clip.pictures[video.clone()].iter().for_each(|picture| draft.bytes.extend_from_slice(&picture.data));
        clip.audio[sound].iter().for_each(|data| draft.bytes.extend_from_slice(data));
        script.push(picture_us(video.end), true, true, draft);
    }
    script
}

fn head(name: &[u8; 4], len: usize) -> Vec<u8> {
    [&(len as u32).to_be_bytes()[..], name].concat()
}

/// Duration, size and flags of each sample; the first one is a sync sample, and so is all sound as its flags are unread.
fn trun(sizes: &[usize], duration: u32) -> Vec<u8> {
    // data-offset, sample durations, sizes and flags are present (ISO/IEC 14496-12 section 8.8.8).
    let mut trun = head(b"trun", 20 + 12 * sizes.len());
    trun.extend([0, 0, 7, 1]);
    trun.extend((sizes.len() as u32).to_be_bytes());
    trun.extend([0; 4]);
    for (index, size) in sizes.iter().enumerate() {
        let flags: u32 = if index == 0 || duration == AUDIO_FRAME as u32 { 0x0200_0000 } else { 0x0101_0000 };
        [duration, *size as u32, flags].iter().for_each(|field| trun.extend(field.to_be_bytes()));
    }
    trun
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_nal_units_are_cut_and_come_together_again() {
        let nal: Vec<u8> = (0..5000_u32).map(|byte| byte as u8 | 1).collect();
        let packets = fu_a(&nal);
        assert!(packets.len() == 4 && packets.iter().all(|packet| packet.len() <= PAYLOAD_BYTES_MAX));
        let joined: Vec<u8> = packets.iter().flat_map(|packet| packet[2..].to_vec()).collect();
        assert_eq!(joined, nal[1..]);
        let flags: Vec<u8> = packets.iter().map(|packet| packet[1] & 0xC0).collect();
        assert_eq!(flags, [0x80, 0, 0, 0x40]);
    }

    #[test]
    fn every_sample_is_in_the_script_once() {
        let picture = |index| Picture { data: [&[0, 0, 0, 1][..], &[index]].concat(), sync: index % 60 == 0 };
        let clip = Clip {
            pictures: (0..240).map(picture).collect(),
            audio: vec![vec![7; 3]; 375],
            gop_s: 2,
            ..Clip::default()
        };
        for script in [rtp(&clip), matroska(&clip), fmp4(&clip)] {
            assert_eq!(script.turn_us, 8_000_000);
            assert_eq!(script.writes.iter().map(|write| write.media_bytes).sum::<u64>(), 240 * 5 + 375 * 3);
            assert_eq!(script.writes.iter().filter(|write| write.opens).count(), 4);
            assert!(script.writes.is_sorted_by_key(|write| write.due_us));
        }
        assert_eq!(rtp_packets(&clip), [240, 375]);
    }
}
