//! Tests of the record module.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::crypto::aead::ReferenceAead;

fn shape(kind: RecordKind) -> RecordShape {
    let number = FragmentNumber::new(5, 6, 7);
    let mut shape = RecordShape::bare(kind, StreamId::new(), number, ConfigId([9; 16]));
    shape.meta.run = RunId::new();
    shape.meta.ordinal = 77;
    shape.meta.producer_start = UnixMs(-12);
    shape.meta.duration_ms = 2000;
    shape.meta.flags = FragmentFlags(0x21);
    shape.part = 3;
    shape
}

fn sealed(kind: RecordKind, outer: &Secret, facts: &[u8], table: &[u8], media: &[u8]) -> (RecordHeader, Vec<u8>) {
    let mut shape = shape(kind);
    shape.facts_len = facts.len() as u32;
    shape.table_len = table.len() as u32;
    shape.media_len = media.len() as u64;
    let header = RecordHeader { shape, salt: crate::crypto::keys::random() };
    let mut out = Blocks::default();
    let cut = media.len() / 2;
    let pieces = [Bytes::copy_from_slice(&media[..cut]), Bytes::new(), Bytes::copy_from_slice(&media[cut..])];
    seal(&mut out, &header, outer, &Content { facts, table, media: &pieces });
    assert_eq!(out.len() as u64, shape.record_len());
    (header, out.to_vec())
}

/// HMAC-SHA256 by RFC 2104, for keys of at most 64 bytes.
fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|b| b ^ byte);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(data).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// A decoder written from `docs/formats/record.md` alone, on another implementation of everything.
fn reference_open(outer: &Secret, record: &[u8]) -> Vec<Vec<u8>> {
    let field = |at: usize, len: usize| &record[at..at + len];
    let int = |at: usize, len: usize| field(at, len).iter().fold(0_usize, |n, byte| n << 8 | usize::from(*byte));
    let info = [b"vidar record 1", field(48, 32), field(12, 16), field(28, 20), &[1]].concat();
    let key = Secret::new(hmac(&hmac(&[0; 32], outer.bytes()), &info));
    let aead = ReferenceAead::new(&key);
    let mut at = 168;
    let mut open = |section: u8, index: u32, last: u8, len: usize| {
        let mut nonce = [section, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        nonce[7..11].copy_from_slice(&index.to_be_bytes());
        let mut bytes = record[at..at + len + 16].to_vec();
        at += len + 16;
        aead.open_in_place(&nonce, &record[..164], &mut bytes).expect("the reference opens it").to_vec()
    };
    let (facts, table) = (open(1, 0, 1, int(144, 4)), open(2, 0, 1, int(148, 4)));
    let media_len = int(152, 8);
    let mut media = Vec::new();
    let mut index = 0;
    while media.len() < media_len {
        let len = (media_len - media.len()).min(65_536);
        let last = u8::from(media.len() + len == media_len);
        media.extend(open(3, index, last, len));
        index += 1;
    }
    assert_eq!(at, record.len());
    vec![facts, table, media]
}

fn opener(outer: &Secret, record: &[u8]) -> Result<RecordOpener, WireError> {
    RecordHeader::decode(&record[..RECORD_HEADER_LEN.min(record.len())])
        .map(|header| RecordOpener::new(&header, record, outer))
}

/// Everything in a record, or an error.
fn open_all(outer: &Secret, record: &[u8]) -> Result<(Bytes, Bytes, Bytes), OpenRecordError> {
    let opener = opener(outer, record)?;
    let (facts, table) = opener.head(record.to_vec())?;
    let media_len = opener.shape.media_len;
    let start = opener.shape.head_len() as usize;
    let mut sealed = record.get(start..).unwrap_or_default().to_vec();
    Ok((facts, table, opener.media(&opener.span(&(0..media_len)), &mut sealed, media_len)?))
}

#[test]
fn every_kind_opens_in_the_reference_decoder_too() {
    let outer = Secret::random();
    let media: Vec<u8> = (0..200_000_u32).map(|i| (i * 7) as u8).collect();
    let kinds = [RecordKind::Fragment, RecordKind::Part, RecordKind::Config, RecordKind::Control];
    for kind in kinds {
        for len in [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000] {
            let (header, record) = sealed(kind, &outer, b"facts", b"a table", &media[..len]);
            assert_eq!(RecordHeader::decode(&record), Ok(header));
            assert_eq!(
                reference_open(&outer, &record),
                [b"facts".to_vec(), b"a table".to_vec(), media[..len].to_vec()]
            );
            let (facts, table, opened) = open_all(&outer, &record).unwrap();
            assert_eq!((&facts[..], &table[..], &opened[..]), (&b"facts"[..], &b"a table"[..], &media[..len]));
        }
    }
}

#[test]
fn the_header_on_disk_is_what_the_page_says() {
    let header = RecordHeader { shape: shape(RecordKind::Part), salt: [0xaa; 32] };
    let bytes = header.encode();
    let meta = &header.shape.meta;
    assert_eq!((&bytes[..8], &bytes[12..28]), (&b"VREC\0\x01\x02\0"[..], &meta.stream.as_bytes()[..]));
    assert_eq!((&bytes[28..48], &bytes[48..80]), (&meta.number.as_bytes()[..], &[0xaa; 32][..]));
    assert_eq!((&bytes[104..112], &bytes[112..120]), (&77_u64.to_be_bytes()[..], &(-12_i64).to_be_bytes()[..]));
    assert_eq!((&bytes[124..128], &bytes[128..144]), (&[0, 0x21, 0, 3][..], &[9; 16][..]));
}

#[test]
fn no_flipped_byte_ever_gives_plaintext() {
    let outer = Secret::random();
    let (_, record) = sealed(RecordKind::Fragment, &outer, b"facts", b"table", b"media");
    for at in 0..record.len() {
        for bit in 0..8 {
            let mut bad = record.clone();
            bad[at] ^= 1 << bit;
            assert!(open_all(&outer, &bad).is_err(), "byte {at} bit {bit}");
            if at < AAD_LEN {
                // Whoever alters a byte can also make the checksum right. Nothing may open then, section by section.
                let crc = crc32c::crc32c(&bad[..AAD_LEN]);
                bad[AAD_LEN..RECORD_HEADER_LEN].copy_from_slice(&crc.to_be_bytes());
                if let Ok(opener) = opener(&outer, &bad) {
                    assert!(opener.head(bad.clone()).is_err(), "byte {at} bit {bit}, head");
                    let start = header_end(&record);
                    for len in [1, 4, 5] {
                        let media = opener.media(&opener.span(&(0..len)), &mut bad[start..].to_vec(), len);
                        assert!(media.is_err(), "byte {at} bit {bit}, media");
                    }
                }
            }
        }
    }
    assert!(open_all(&Secret::random(), &record).is_err(), "another key");
}

fn header_end(record: &[u8]) -> usize {
    RecordHeader::decode(record).unwrap().shape.head_len() as usize
}

#[test]
fn no_truncation_gives_media() {
    let outer = Secret::random();
    let (_, small) = sealed(RecordKind::Fragment, &outer, b"facts", b"table", &[7; 300]);
    (0..small.len()).for_each(|len| assert!(open_all(&outer, &small[..len]).is_err(), "{len} of the small one"));
    let (_, record) = sealed(RecordKind::Fragment, &outer, b"facts", b"table", &[7; 70_000]);
    for len in (0..record.len()).filter(|len| *len < 400 || len % 97 == 0 || *len > record.len() - 40) {
        assert!(open_all(&outer, &record[..len]).is_err(), "{len}");
    }
    // Cut exactly between chunks: the first chunk is not the last.
    assert!(open_all(&outer, &record[..header_end(&record) + 65_536 + 16]).is_err());
}

#[test]
fn chunks_cannot_be_swapped_or_repeated() {
    let outer = Secret::random();
    let (_, record) = sealed(RecordKind::Fragment, &outer, b"", b"", &[7; 3 * 65_536]);
    let (start, len) = (header_end(&record), 65_536 + 16);
    for (from, to) in [(0, 1), (1, 0), (2, 0), (0, 2)] {
        let mut bad = record.clone();
        let chunk = record[start + from * len..start + (from + 1) * len].to_vec();
        bad[start + to * len..start + (to + 1) * len].copy_from_slice(&chunk);
        assert!(open_all(&outer, &bad).is_err(), "chunk {from} in place of {to}");
    }
}

#[test]
fn a_record_moved_to_another_stream_number_or_time_is_refused() {
    let outer = Secret::random();
    let (header, record) = sealed(RecordKind::Fragment, &outer, b"facts", b"table", b"media");
    type Change = fn(&mut RecordShape);
    let changes: [Change; 7] = [
        |shape| shape.meta.stream = StreamId::new(),
        |shape| shape.meta.number = FragmentNumber::new(5, 6, 8),
        |shape| shape.meta.producer_start = UnixMs(-11),
        |shape| shape.meta.run = RunId::new(),
        |shape| shape.meta.lease_epoch = 1,
        |shape| shape.meta.config = ConfigId([8; 16]),
        |shape| shape.kind = RecordKind::Part,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut moved = header;
        change(&mut moved.shape);
        let bad = [&moved.encode()[..], &record[RECORD_HEADER_LEN..]].concat();
        assert!(open_all(&outer, &bad).is_err(), "change {index}");
    }
}

#[test]
fn lengths_beyond_the_bounds_are_refused() {
    type Change = fn(&mut RecordShape);
    let changes: [Change; 3] = [
        |shape| shape.facts_len = FACTS_LEN_MAX + 1,
        |shape| shape.table_len = u32::MAX,
        |shape| shape.media_len = u64::MAX,
    ];
    for change in changes {
        let mut shape = shape(RecordKind::Fragment);
        change(&mut shape);
        assert!(RecordHeader::decode(&RecordHeader { shape, salt: [0; 32] }.encode()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_range_of_the_media_is_the_slice(len in 0..300_000_usize, a in 0.0..1.0_f64, b in 0.0..1.0_f64) {
        let outer = Secret::new([1; 32]);
        let media: Vec<u8> = (0..len).map(|i| (i / 3) as u8).collect();
        let (_, record) = sealed(RecordKind::Fragment, &outer, b"", b"", &media);
        let opener = opener(&outer, &record).unwrap();
        let (a, b) = ((a * len as f64) as usize, (b * len as f64) as usize);
        let range = a.min(b)..a.max(b);
        let span = opener.span(&(range.start as u64..range.end as u64));
        prop_assert!(span.sealed_len <= range.len() as u64 + 2 * SEALED_CHUNK_LEN, "only the chunks it touches");
        let start = header_end(&record) + span.offset as usize;
        let mut sealed = record[start..start + span.sealed_len as usize].to_vec();
        let opened = opener.media(&span, &mut sealed, range.len() as u64).unwrap();
        prop_assert_eq!(&opened[..], &media[range]);
    }

    #[test]
    fn no_input_panics(input in prop::collection::vec(any::<u8>(), 0..400)) {
        crate::fuzz::record(&input);
    }
}
