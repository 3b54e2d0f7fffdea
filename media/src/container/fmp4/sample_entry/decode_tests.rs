//! Entries that we do not write: QuickTime's, and broken ones.

use super::*;
use crate::container::fmp4::boxes::write_box;

/// A sound description: version, channels, bits and rate, then what a version or codec adds.
fn sound(version: u16, bits: u16, rate: u16, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend_from_slice(&version.to_be_bytes());
    body.extend_from_slice(&[0; 6]);
    body.extend_from_slice(&2_u16.to_be_bytes());
    body.extend_from_slice(&bits.to_be_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&rate.to_be_bytes());
    body.extend_from_slice(&[0; 2]);
    body.extend_from_slice(rest);
    body
}

fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_box(&mut out, kind, |out| out.extend_from_slice(body));
    out
}

fn read(kind: &[u8; 4], body: &[u8]) -> Result<Entry, DemuxError> {
    decode(*kind, BoxReader::new(body, 0), TrackKind::Audio, 0)
}

const ESDS: &[u8] =
    b"\0\0\0\0\x03\x80\x80\x80\x19\0\0\0\x04\x80\x80\x80\x11\x40\x15\0\0\0\0\0\0\0\0\0\0\0\x05\x02\x10\x10\x06\x01\x02";

#[test]
fn quicktime_pcm_is_known() {
    let format = |bits, big_endian, float, signed| Codec::Pcm(PcmFormat { bits, big_endian, float, signed });
    let enda = boxed(b"wave", &boxed(b"enda", &[0, 1]));
    let in_version_1 = |rest: &[u8]| [&[0; 16], rest].concat();
    // sizeOfStructOnly, rate, channels, 0x7f000000, bits, flags, bytes and frames of a packet.
    let mut lpcm = vec![0, 0, 0, 72];
    lpcm.extend_from_slice(&96_000_f64.to_be_bytes());
    for word in [6_u32, 0x7f00_0000, 24, 0x0e, 18, 1] {
        lpcm.extend_from_slice(&word.to_be_bytes());
    }
    let cases = [
        (b"sowt", sound(0, 16, 48_000, &[]), format(16, false, false, true)),
        (b"twos", sound(0, 16, 48_000, &[]), format(16, true, false, true)),
        (b"raw ", sound(0, 8, 8000, &[]), format(8, true, false, false)),
        (b"in24", sound(1, 16, 48_000, &in_version_1(&enda)), format(24, false, false, true)),
        (b"in32", sound(1, 16, 48_000, &in_version_1(&[])), format(32, true, false, true)),
        (b"fl32", sound(1, 16, 48_000, &in_version_1(&enda)), format(32, false, true, true)),
        (b"fl64", sound(1, 16, 48_000, &in_version_1(&[])), format(64, true, true, true)),
        (b"lpcm", sound(2, 16, 1, &lpcm), format(24, true, false, true)),
    ];
    for (kind, body, codec) in cases {
        assert_eq!(read(kind, &body).map(|entry| entry.codec), Ok(codec), "{}", kind_text(*kind));
    }
    let audio = read(b"lpcm", &sound(2, 16, 1, &lpcm)).unwrap().audio;
    assert_eq!(audio, Some(AudioParams { sample_rate_hz: 96_000, channels: 6, bits: 24 }));
    // A width that no decoder has.
    let body = sound(0, 20, 8000, &[]);
    let entry = read(b"twos", &body).unwrap();
    assert_eq!((entry.codec, &entry.codec_private[..]), (Codec::Opaque, &body[..]));
}

#[test]
fn aac_is_found_in_a_wave_and_rates_that_do_not_fit_in_its_config() {
    let wave = boxed(b"wave", &[boxed(b"frma", b"mp4a"), boxed(b"esds", ESDS), vec![0, 0, 0, 8, 0, 0, 0, 0]].concat());
    let entry = read(b"mp4a", &sound(1, 16, 0, &[&[0; 16], &wave[..]].concat())).unwrap();
    assert_eq!((entry.codec, &entry.codec_private[..]), (Codec::Aac, &b"\x10\x10"[..]));
    // 0x1010: AAC LC, 96 kHz, 2 channels.
    assert_eq!(entry.audio.map(|audio| audio.sample_rate_hz), Some(96_000));
    assert_eq!(read(b".mp3", &sound(0, 16, 44_100, &[])).map(|entry| entry.codec), Ok(Codec::Mp3));
}

#[test]
fn other_object_types_are_opaque() {
    for (object_type, codec) in
        [(0x67, Codec::Aac), (0x69, Codec::Mp3), (0x6b, Codec::Mp3), (0xa5, Codec::Opaque), (0xdd, Codec::Opaque)]
    {
        let mut esds = ESDS.to_vec();
        esds[17] = object_type;
        let entry = read(b"mp4a", &sound(0, 16, 48_000, &boxed(b"esds", &esds))).unwrap();
        assert_eq!(entry.codec, codec, "{object_type:#x}");
    }
}

#[test]
fn broken_entries_are_malformed_at_their_byte() {
    let whole = sound(0, 16, 48_000, &boxed(b"esds", ESDS));
    assert_eq!(read(b"mp4a", &whole).map(|entry| entry.codec), Ok(Codec::Aac));
    for len in 0..whole.len() {
        let error = read(b"mp4a", &whole[..len]).expect_err("a truncated entry");
        assert_eq!(error.kind, DemuxErrorKind::Malformed);
        assert!(error.offset <= len as u64, "{len}: {error}");
    }
    // A descriptor that is another, and a length without end.
    for (at, value) in [(4, 9), (8, 0x99)] {
        let mut esds = ESDS.to_vec();
        esds[at] = value;
        assert!(read(b"mp4a", &sound(0, 16, 48_000, &boxed(b"esds", &esds))).is_err(), "{at}");
    }
    let mapping = sound(0, 16, 48_000, &boxed(b"dOps", b"\0\x02\0\0\0\0\0\0\0\0\x01\x01\x01\0"));
    let error = read(b"Opus", &mapping).expect_err("a mapping of 3 bytes");
    assert_eq!(error.offset, 28 + 8 + 11);
    let picture = [vec![0; 78], boxed(b"avcC", b"\x01\x64\x00\x1f\xfe\xe0\x00")].concat();
    let error = decode(*b"avc1", BoxReader::new(&picture, 0), TrackKind::Video, 0).expect_err("3 bytes of length");
    assert_eq!((error.offset, error.kind), (78 + 8 + 4, DemuxErrorKind::Malformed));
}

#[test]
fn private_data_over_the_limit_is_refused() {
    let body = vec![0; CODEC_PRIVATE_BYTES_MAX + 1];
    let error = decode(*b"mett", BoxReader::new(&body, 0), TrackKind::Data, 0).expect_err("too much");
    assert_eq!(error.kind, DemuxErrorKind::TooLarge);
    let entry = decode(*b"mett", BoxReader::new(&body[1..], 0), TrackKind::Data, 0).unwrap();
    assert_eq!((entry.codec, entry.codec_private.len()), (Codec::Opaque, CODEC_PRIVATE_BYTES_MAX));
}
