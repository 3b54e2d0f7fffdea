//! The committed vectors: a keyring and a record with fixed keys and salts, made by other code than this.

use std::collections::HashMap;

use bytes::Bytes;
use vidar_core::ids::{ConfigId, FragmentNumber, RunId, StreamId};
use vidar_core::record::FragmentFlags;
use vidar_core::time::UnixMs;

use crate::backend::blocks::Blocks;
use crate::crypto::keyring::{Keyring, KeyringError};
use crate::crypto::keys::{Secret, config_id};
use crate::segment_file::record::{Content, RecordHeader, RecordKind, RecordShape, seal};

fn vectors() -> HashMap<&'static str, Vec<u8>> {
    let text = include_str!("../../../docs/formats/vectors/vectors.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
    let pairs = lines.map(|line| line.split_once(' ').unwrap());
    pairs.map(|(name, hex)| (name, hex.as_bytes().chunks(2).map(byte).collect())).collect()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap()
}

#[test]
fn the_keyring_of_the_vectors_opens() {
    let v = vectors();
    let ring = Keyring::decode(&v["keyring"], &Secret::new(array(&v["kek"]))).unwrap();
    let stream = StreamId::from_bytes(array(&v["stream"]));
    assert_eq!(ring.current(stream), Some((1, &Secret::new(array(&v["stream_key"])))));
    assert_eq!(ring.log_key(), &Secret::new(array(&v["log_key"])));
    assert_eq!((ring.generation, ring.encode()), (3, v["keyring"].clone()));
    assert_eq!(Keyring::decode(&v["keyring"], &Secret::new([0; 32])).unwrap_err(), KeyringError::WrongKey);
}

#[test]
fn the_record_of_the_vectors_is_sealed_to_the_same_bytes() {
    let v = vectors();
    let (stream, key) = (StreamId::from_bytes(array(&v["stream"])), Secret::new(array(&v["stream_key"])));
    let config = config_id(&key, stream, &v["table"]);
    assert_eq!(config, ConfigId(array(&v["config_id"])));
    let number = FragmentNumber::new(5 << 32 | 6, 7000, 9);
    assert_eq!(number.as_bytes()[..], v["number"]);
    let mut shape = RecordShape::bare(RecordKind::Fragment, stream, number, config);
    (shape.key_version, shape.part) = (1, 3);
    (shape.facts_len, shape.table_len) = (v["facts"].len() as u32, v["table"].len() as u32);
    shape.media_len = v["media"].len() as u64;
    let meta = &mut shape.meta;
    (meta.run, meta.discontinuity, meta.ordinal) = (RunId::from_bytes(array(&v["run"])), 2, 77);
    (meta.producer_start, meta.duration_ms, meta.flags) = (UnixMs(-12), 2000, FragmentFlags(33));
    let header = RecordHeader { shape, salt: array(&v["salt"]) };
    let media = [Bytes::from(v["media"].clone())];
    let mut sealed = Blocks::default();
    seal(&mut sealed, &header, &key, &Content { facts: &v["facts"], table: &v["table"], media: &media });
    assert_eq!(sealed[..], v["record"][..]);
}
