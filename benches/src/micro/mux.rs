//! The header of a media segment of a 2 s fragment, beside the same boxes by `mp4-atom`.

use anyhow::Context;
use mp4_atom::{Encode, Mfhd, Moof, Tfdt, Tfhd, Traf, Trun, TrunEntry};
use vidar_media::container::fmp4::init::track_id;
use vidar_media::container::fmp4::segment::{SegmentStart, TrackRun, header, sample_flags};
use vidar_media::table::{SampleEntry, Table};

use super::clip;
use crate::measure::{Report, Work};

pub(super) fn rows(report: &mut Report) -> anyhow::Result<()> {
    let table = clip::first_table()?;
    let runs = runs(&table);
    header(SegmentStart::Inside, 1, &runs).context("less than 2 GiB of samples")?;
    report.row(
        "fMP4 header of a 2 s fragment",
        Work::Each(clip::sample_count(&table), "sample"),
        || header(SegmentStart::Inside, 1, &runs),
        "the same boxes by mp4-atom",
        || by_mp4_atom(&runs),
    );
    Ok(())
}

fn runs(table: &Table) -> Vec<TrackRun<'_>> {
    let run = |track: u8, samples| TrackRun { track_id: track_id(track), base_decode_ticks: 90_000, samples };
    table.tracks.iter().map(|track| run(track.track, &track.samples)).collect()
}

fn by_mp4_atom(runs: &[TrackRun<'_>]) -> Vec<u8> {
    let traf = |run: &TrackRun<'_>| Traf {
        tfhd: Tfhd { track_id: run.track_id, default_base_is_moof: true, ..Tfhd::default() },
        tfdt: Some(Tfdt { base_media_decode_time: run.base_decode_ticks }),
        trun: vec![Trun { data_offset: Some(0), samples: entries(run.samples).into() }],
        ..Traf::default()
    };
    let moof = Moof { mfhd: Mfhd { sequence_number: 1 }, traf: runs.iter().map(traf).collect() };
    let mut out = Vec::new();
    moof.encode(&mut out).expect("a vector takes all");
    out
}

/// Durations are the differences of decode times, as ours are.
fn entries(samples: &[SampleEntry]) -> Vec<TrunEntry> {
    let duration = |index: usize, sample: &SampleEntry| match samples.get(index + 1) {
        Some(next) => (next.decode_ticks - sample.decode_ticks) as u32,
        None => sample.duration_ticks,
    };
    let entry = |(index, sample): (usize, &SampleEntry)| TrunEntry {
        duration: Some(duration(index, sample)),
        size: Some(sample.mp4_len()),
        flags: Some(sample_flags(sample.sync)),
        cts: Some(sample.composition_ticks.into()),
    };
    samples.iter().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use mp4_atom::{Atom, Buf, Decode, Header};

    use super::*;

    #[test]
    fn both_say_the_same_of_every_sample() {
        let table = clip::first_table().unwrap();
        let read = |bytes: &[u8]| {
            let mut rest = bytes;
            let header = Header::decode(&mut rest).unwrap();
            assert_eq!(header.kind, Moof::KIND);
            let mut body = &rest[..header.size.unwrap()];
            let mut moof = Moof::decode_body(&mut body).unwrap();
            assert_eq!(body.remaining(), 0);
            // Ours are filled in, the baseline has none.
            moof.traf.iter_mut().for_each(|traf| traf.trun[0].data_offset = None);
            moof
        };
        let runs = runs(&table);
        let ours = header(SegmentStart::Inside, 1, &runs).unwrap();
        assert_eq!(read(&ours.bytes), read(&by_mp4_atom(&runs)));
    }
}
