//! Fuzz bodies; `crate::fuzz` shows them.

use std::time::Duration;

use bytes::Bytes;
use rtsp_types::headers::{AUTHORIZATION, TRANSPORT};
use vidar_core::auth::{Authenticator, Principal};
use vidar_core::time::UnixMs;
use vidar_media::{Event, SyncKind};

use super::auth::Challenge;
use super::media::{Media, Now};
use super::message::{Item, MessageReader, header};
use super::reorder::Patience;
use super::rtcp::{self, Reception, Report};
use super::sdp::Description;
use super::source::Source;
use super::{depacketize, transport, uri};

struct Nobody;

impl Authenticator for Nobody {
    fn basic(&self, _: &str, _: &str) -> Option<Principal> {
        None
    }
    fn bearer(&self, _: &str) -> Option<Principal> {
        None
    }
    fn digest_secret(&self, _: &str) -> Option<(Principal, String)> {
        None
    }
    fn sign(&self, _: &Principal, _: &str, _: UnixMs) -> String {
        String::new()
    }
    fn signed(&self, _: &str, _: &str, _: UnixMs) -> Option<Principal> {
        None
    }
}

/// What a stream reads as, fed in pieces of `step` bytes.
fn items(data: &[u8], step: usize) -> Vec<String> {
    let mut reader = MessageReader::new();
    [0, 1, 2, 3].into_iter().for_each(|channel| reader.expect_channel(channel));
    let mut items = Vec::new();
    for piece in data.chunks(step.max(1)) {
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(item)) => {
                    check_item(&item);
                    items.push(format!("{item:?}"));
                }
                Err(error) => {
                    items.push(error.to_string());
                    return items;
                }
            }
        }
    }
    items
}

fn check_item(item: &Item) {
    let Item::Request(request) = item else { return };
    let method: &str = request.method().into();
    let challenge = Challenge::new("nonce".to_owned(), true);
    let uri = request.request_uri();
    assert!(challenge.check(&Nobody, method, uri, header(request, &AUTHORIZATION)).is_err(), "nobody is authorised");
    let _ = transport::parse(header(request, &TRANSPORT).unwrap_or_default());
    let _ = uri.map(uri::stream_name);
    if let (Some(uri), Ok(description)) = (uri, Description::parse(request.body())) {
        let found = uri::find_track(uri, uri, &description, &[]);
        assert!(found.is_none_or(|index| index < description.medias.len()));
    }
}

/// Messages read the same however they are cut.
pub(crate) fn message(data: &[u8]) {
    let Some((step, data)) = data.split_first() else { return };
    assert_eq!(items(data, data.len()), items(data, usize::from(*step)), "the cut shows");
}

/// Announcements are read or refused, and so are their tracks.
pub(crate) fn sdp(data: &[u8]) {
    let Ok(description) = Description::parse(data) else { return };
    for (at, media) in description.medias.iter().enumerate() {
        assert_eq!(media.index, at);
        assert!(media.encoding.is_empty() || media.clock_hz > 0);
        if let Ok(depacketizer) = depacketize::choose(media) {
            assert!(depacketizer.track().is_none_or(|track| track.timescale_hz > 0));
        }
    }
}

/// Announcements of which one is chosen by the first byte.
const TRACKS: [&str; 11] = [
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 sprop-parameter-sets=Z2QADKy0FCPy4CIAAAMAAgAAAwBkHihVQA==,aO88sA==\r\n",
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H265/90000\r\n",
    "m=audio 0 RTP/AVP 96\r\na=rtpmap:96 MPEG4-GENERIC/48000/2\r\na=fmtp:96 mode=AAC-hbr;config=1190\r\n",
    "m=audio 0 RTP/AVP 96\r\na=rtpmap:96 MP4A-LATM/48000\r\na=fmtp:96 cpresent=0;config=40002310adca00\r\n",
    "m=audio 0 RTP/AVP 96\r\na=rtpmap:96 MP4A-LATM/48000\r\n",
    "m=audio 0 RTP/AVP 96\r\na=rtpmap:96 opus/48000/2\r\n",
    "m=audio 0 RTP/AVP 96\r\na=rtpmap:96 MPA/90000\r\n",
    "m=audio 0 RTP/AVP 96\r\na=rtpmap:96 PCMU/8000\r\n",
    "m=audio 0 RTP/AVP 96\r\na=rtpmap:96 PCMA/8000/2\r\n",
    "m=audio 0 RTP/AVP 96\r\na=rtpmap:96 L16/44100/2\r\n",
];

/// Packets of one track, as records: sequence step, time step (signed, times 100), flags, length, payload. Flags: 1
/// marker, 2 another source, 4 RTCP, 8 a packet as it stands.
///
/// A config comes before samples, samples are of its tracks, and no more comes out than went in.
pub(crate) fn depacketize(data: &[u8]) {
    let Some((choice, mut rest)) = data.split_first() else { return };
    // Bit 3 is of the patience.
    let text = TRACKS[usize::from(choice & 7 | choice >> 1 & 0x18) % TRACKS.len()];
    let description = Description::parse(text.as_bytes()).expect("it reads");
    let section = &description.medias[0];
    let patience = if choice & 8 == 0 { Patience::NONE } else { Patience::UDP };
    let depacketizer = depacketize::choose(section).expect("it is known");
    let mut media = Media::new(Duration::from_millis(50));
    media.add(Source::new(96, section.clock_hz, depacketizer, patience), section.clock_hz);
    let (mut sequence, mut timestamp, mut ms) = (0_u16, 0_u32, 0);
    let (mut bytes_in, mut bytes_out, mut tracks) = (0, 0, 0);
    let mut events = |media: &mut Media| {
        for arrived in media.take() {
            match arrived.event {
                Event::Config(config) => tracks = config.tracks.len(),
                Event::Sample(sample) => {
                    assert!(usize::from(sample.track) < tracks, "a sample of no track");
                    assert!(!sample.data.is_empty() || sample.sync == SyncKind::None);
                    bytes_out += sample.data.len();
                }
                Event::Wall { track, .. } => assert!(usize::from(track) < tracks, "a clock of no track"),
                _ => {}
            }
        }
    };
    while let Some((&[step, time, flags, len], after)) = rest.split_first_chunk() {
        let (payload, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        sequence = sequence.wrapping_add(step.into());
        timestamp = timestamp.wrapping_add((i32::from(time as i8) * 100) as u32);
        ms += 1;
        // Each NAL unit grows by its length field, each frame of LATM comes with a byte.
        bytes_in += payload.len() * 4 + 16;
        let now = Now { wall: UnixMs(ms), monotonic: Duration::from_millis(ms as u64) };
        if flags & 4 != 0 {
            media.rtcp(0, payload, now);
        } else if flags & 8 != 0 {
            media.rtp(0, &Bytes::copy_from_slice(payload), now);
        } else {
            let mut packet = vec![0x80, 96 | (flags & 1) << 7];
            packet.extend(sequence.to_be_bytes());
            packet.extend(timestamp.to_be_bytes());
            packet.extend([0, 0, 0, flags >> 1 & 1]);
            packet.extend(payload);
            media.rtp(0, &packet.into(), now);
        }
        media.tick(now);
        events(&mut media);
    }
    media.finish(Now { wall: UnixMs(ms), monotonic: Duration::from_secs(1000) });
    events(&mut media);
    assert!(bytes_out <= bytes_in, "{bytes_out} bytes out of {bytes_in}");
}

/// Reports are read, and what is answered has its form.
pub(crate) fn rtcp(data: &[u8]) {
    let mut reception = Reception::new(1, 0);
    for (at, byte) in data.iter().take(64).enumerate() {
        reception.packet(u16::from(*byte) << 8, u32::from(*byte) << 24, at as u32);
    }
    for report in rtcp::parse(data) {
        if let Report::Sender(sender) = report {
            reception.sender_report(&sender, 7);
            let _ = (sender.is_sane(), rtcp::ntp_ns(sender.ntp));
        }
    }
    let report = reception.report(9, u64::MAX);
    assert_eq!((report.len(), rtcp::is_rtcp(&report), rtcp::parse(&report)), (48, true, Vec::new()));
}
