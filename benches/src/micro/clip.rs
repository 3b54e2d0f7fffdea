//! A committed clip, as far as it is needed.

use anyhow::Context;
use bytes::Bytes;
use vidar_media::container::Format;
use vidar_media::fragmenter::{Cut, Fragmenter, Options, Output};
use vidar_media::table::{Table, TrackTable};
use vidar_media::{DemuxError, Event};

/// Bytes of a push: about what a read from a socket gives.
const PUSH_BYTES: usize = 64 << 10;

/// What a demuxer makes of a whole input.
pub(super) fn events(format: Format, input: &Bytes) -> Result<Vec<Event>, DemuxError> {
    let mut demuxer = format.demuxer();
    let mut events = Vec::new();
    let mut rest = input.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(PUSH_BYTES.min(rest.len()));
        demuxer.push(piece, &mut events)?;
    }
    demuxer.finish(&mut events)?;
    Ok(events)
}

/// The events of `bbb.mkv`: 2 s GOPs of H.264, and AAC.
pub(super) fn bbb() -> anyhow::Result<Vec<Event>> {
    Ok(events(Format::Matroska, &vidar_fixtures::read("bbb.mkv").into())?)
}

/// What a fragmenter makes of events.
pub(super) fn fragment(events: Vec<Event>) -> anyhow::Result<Vec<Output>> {
    let mut fragmenter = Fragmenter::new(Options::default());
    let mut out = Vec::new();
    for event in events {
        fragmenter.push(event, &mut out)?;
    }
    fragmenter.finish(true, &mut out);
    Ok(out)
}

/// The table of the first whole fragment of `bbb.mkv`, all its pieces in one.
pub(super) fn first_table() -> anyhow::Result<Table> {
    let is_whole = |cut: &Cut| cut.part.is_none();
    let mut cuts = fragment(bbb()?)?.into_iter().filter_map(|output| match output {
        Output::Cut(cut) if is_whole(&cut) => Some(cut),
        _ => None,
    });
    let cut = cuts.next().context("bbb.mkv has a fragment")?;
    let mut whole = Table::default();
    for piece in &cut.table.pieces {
        for track in Table::decode(&piece.table)?.tracks {
            match whole.tracks.iter_mut().find(|known| known.track == track.track) {
                Some(known) => known.samples.extend(track.samples),
                None => whole.tracks.push(track),
            }
        }
    }
    whole.tracks.sort_by_key(|track: &TrackTable| track.track);
    Ok(whole)
}

/// Samples of all tracks.
pub(super) fn sample_count(table: &Table) -> usize {
    table.tracks.iter().map(|track| track.samples.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fragment_is_a_gop_of_two_tracks() {
        let table = first_table().unwrap();
        assert_eq!(table.tracks.len(), 2);
        assert!(table.tracks[0].samples.len() >= 48, "{}", table.tracks[0].samples.len());
        assert!(table.tracks.iter().all(|track| track.samples.is_sorted_by_key(|sample| sample.decode_ticks)));
        assert_eq!(Table::decode(&table.encode()), Ok(table));
    }

    #[test]
    fn every_clip_of_the_benchmark_demuxes() {
        for (name, format, _) in super::super::demux::CLIPS {
            let events = events(format, &vidar_fixtures::read(name).into()).unwrap();
            let samples = events.iter().filter(|event| matches!(event, Event::Sample(_))).count();
            assert!(samples > 200, "{name}: {samples}");
        }
    }
}
