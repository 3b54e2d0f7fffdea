//! Tests of headers that are written again.

use super::*;
use crate::container::mkv::Demuxer;
use crate::container::mkv::ebml::{write_element, write_uint};
use crate::container::mkv::mux::tests::opaque_track;
use crate::demux::Event;
use crate::fuzz::demux_in_pieces;

fn tag(name: &str) -> Tag {
    Tag { name: name.to_owned(), value: "v".to_owned() }
}

fn element(id: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_element(&mut out, id, body);
    out
}

fn track_entry() -> Vec<u8> {
    let mut entry = Vec::new();
    write_uint(&mut entry, id::TRACK_NUMBER, 7);
    write_uint(&mut entry, id::TRACK_TYPE, 33);
    write_element(&mut entry, id::CODEC_ID, b"D_TEST\0\0");
    element(id::TRACKS, &element(id::TRACK_ENTRY, &entry))
}

/// A source with what producers put before the first Cluster, and the config that is made of it.
fn source(children: &[Vec<u8>]) -> StreamConfig {
    let mut bytes = element(id::EBML, &element(id::DOC_TYPE, b"matroska"));
    write_id(&mut bytes, id::SEGMENT);
    bytes.push(0xff);
    bytes.extend(children.concat());
    write_id(&mut bytes, id::CLUSTER);
    bytes.push(0xff);
    let (events, end) = demux_in_pieces(Demuxer::new(), &bytes.into(), || usize::MAX);
    assert_eq!(end, Ok(()));
    let config =
        events.into_iter().find_map(|event| if let Event::Config(config) = event { Some(config) } else { None });
    config.expect("a config")
}

fn info() -> Vec<u8> {
    let mut scale = Vec::new();
    write_uint(&mut scale, id::TIMESTAMP_SCALE, 100_000);
    element(id::INFO, &scale)
}

#[test]
fn a_header_is_repeated_as_it_was_sent_less_what_held_for_the_first_fragment_only() {
    let (early, late) = (plain_tags([&tag("early")]).to_vec(), plain_tags([&tag("late")]).to_vec());
    let (void, cues) = (element(id::VOID, &[0; 3]), element(id::CUES, &[]));
    let children = [element(id::CRC_32, &[0; 4]), early, void.clone(), info(), track_entry(), cues, late.clone()];
    let header = FragmentHeader::new(&source(&children));
    let mut expected = element(id::EBML, &element(id::DOC_TYPE, b"matroska"));
    write_id(&mut expected, id::SEGMENT);
    expected.extend(UNKNOWN_SIZE);
    expected.extend([void, info(), track_entry(), late].concat());
    assert_eq!(header.bytes, expected);
    assert_eq!((header.timing.scale_ns(), header.as_sent), (100_000, true));

    let first = [tag("early"), tag("late"), tag("own")];
    assert_eq!(header.own_tags(&first), [&first[0], &first[2]]);
    let later = [tag("late"), tag("own")];
    assert_eq!(header.own_tags(&later), [&later[0], &later[1]]);
    assert!(header.own_tags(&[]).is_empty());
}

#[test]
fn a_header_that_does_not_hold_any_more_is_written_anew() {
    let late = plain_tags([&tag("late")]).to_vec();
    let mut config = source(&[info(), track_entry(), late]);
    config.tracks[0].codec_private = Bytes::from_static(b"changed");
    let header = FragmentHeader::new(&config);
    assert_eq!(header.bytes, super::header(&config, header.timing, &HeaderOptions::default()));
    assert_eq!((header.timing.scale_ns(), header.as_sent), (100_000, true));
    // It has no tags of the source: they stay with the fragment.
    assert_eq!(header.own_tags(&[tag("late")]), [&tag("late")]);

    let other = StreamConfig { tracks: vec![opaque_track()], matroska_header: Bytes::new() };
    let header = FragmentHeader::new(&other);
    assert_eq!((header.timing.scale_ns(), header.as_sent), (1_000_000, false));
}

#[test]
fn a_document_of_tags_reads_back() {
    let tags = [tag("a"), tag("b")];
    let (events, _) = demux_in_pieces(Demuxer::new(), &tags_document(&tags), || 1);
    assert_eq!(events, [Event::Tags(tags.to_vec())]);
}
