//! What the tests of Matroska share.
#![allow(dead_code)]

use std::path::Path;

use bytes::Bytes;
use vidar_media::container::mkv::Demuxer;
use vidar_media::{Demux, DemuxError, Event, RawSample, StreamConfig};

/// What a demuxer makes of pieces, and how it ended.
pub(crate) fn demux(pieces: impl IntoIterator<Item = Bytes>) -> (Vec<Event>, Result<(), DemuxError>) {
    let mut demuxer = Demuxer::new();
    let mut events = Vec::new();
    for piece in pieces {
        if let Err(error) = demuxer.push(piece, &mut events) {
            return (events, Err(error));
        }
    }
    let end = demuxer.finish(&mut events);
    (events, end)
}

pub(crate) fn whole(bytes: &[u8]) -> (Vec<Event>, Result<(), DemuxError>) {
    demux([Bytes::copy_from_slice(bytes)])
}

pub(crate) fn clips() -> Vec<(String, Vec<u8>)> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let read = |path: std::path::PathBuf| (name(&path), std::fs::read(&path).unwrap());
    vidar_fixtures::corpus(&["mkv", "webm"]).into_iter().map(read).collect()
}

pub(crate) fn samples(events: &[Event]) -> Vec<RawSample> {
    let sample = |event: &Event| if let Event::Sample(sample) = event { Some(sample.clone()) } else { None };
    events.iter().filter_map(sample).collect()
}

pub(crate) fn configs(events: &[Event]) -> Vec<StreamConfig> {
    let config = |event: &Event| if let Event::Config(config) = event { Some(config.clone()) } else { None };
    events.iter().filter_map(config).collect()
}

/// Writes the samples of one document again.
pub(crate) fn remux(config: &StreamConfig, samples: &[RawSample], live: bool) -> Vec<u8> {
    vidar_media::fuzz::write_mkv(config, &samples.iter().collect::<Vec<_>>(), live).unwrap()
}
