//! Encoding and decoding the sample table of a 2 s fragment, beside fields of fixed width, one after the other.

use bytes::Bytes;
use vidar_media::SyncKind;
use vidar_media::table::{SampleEntry, Table, TrackTable};

use super::clip;
use crate::measure::{Report, Work};

/// 8 + 4 + 4 + 4 + 4 + 3 bytes.
const PLAIN_BYTES: usize = 27;

pub(super) fn rows(report: &mut Report) -> anyhow::Result<()> {
    let table = clip::first_table()?;
    let count = clip::sample_count(&table);
    let (encoded, plain) = (table.encode(), encode_plainly(&table));
    eprintln!("a table of {count} samples: {} bytes, {} in fields of fixed width", encoded.len(), plain.len());
    let work = Work::Each(count, "sample");
    report.row("table encode", work, || table.encode(), "fixed-width fields", || encode_plainly(&table));
    let decode = || Table::decode(&encoded).map(|table| table.tracks.len());
    report.row("table decode", work, decode, "fixed-width fields", || decode_plainly(&plain).tracks.len());
    Ok(())
}

fn encode_plainly(table: &Table) -> Bytes {
    let mut out = Vec::new();
    for track in &table.tracks {
        out.push(track.track);
        out.extend_from_slice(&(track.samples.len() as u32).to_le_bytes());
        for sample in &track.samples {
            out.extend_from_slice(&sample.decode_ticks.to_le_bytes());
            out.extend_from_slice(&sample.composition_ticks.to_le_bytes());
            for word in [sample.duration_ticks, sample.size, sample.arrival] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            let sync = match sample.sync {
                SyncKind::None => 0,
                SyncKind::Sync => 1,
                SyncKind::Leading => 2,
            };
            out.extend_from_slice(&[sync, sample.block_flags, sample.duration_estimated.into()]);
        }
    }
    out.into()
}

/// Reads what `encode_plainly` wrote, and nothing else.
fn decode_plainly(mut rest: &[u8]) -> Table {
    let mut tracks = Vec::new();
    while let Some((&[track, a, b, c, d], after)) = rest.split_first_chunk() {
        let len = u32::from_le_bytes([a, b, c, d]) as usize * PLAIN_BYTES;
        let (rows, after) = after.split_at(len);
        rest = after;
        tracks.push(TrackTable { track, samples: rows.chunks_exact(PLAIN_BYTES).map(decode_row).collect() });
    }
    Table { tracks }
}

fn decode_row(row: &[u8]) -> SampleEntry {
    let word = |at: usize| row[at..at + 4].try_into().expect("4 bytes");
    SampleEntry {
        decode_ticks: i64::from_le_bytes(row[..8].try_into().expect("8 bytes")),
        composition_ticks: i32::from_le_bytes(word(8)),
        duration_ticks: u32::from_le_bytes(word(12)),
        size: u32::from_le_bytes(word(16)),
        arrival: u32::from_le_bytes(word(20)),
        sync: [SyncKind::None, SyncKind::Sync, SyncKind::Leading][usize::from(row[24])],
        block_flags: row[25],
        duration_estimated: row[26] != 0,
        drops: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_keeps_what_the_table_keeps() {
        let mut table = clip::first_table().unwrap();
        for sample in table.tracks.iter_mut().flat_map(|track| &mut track.samples) {
            sample.drops.clear();
        }
        assert_eq!(decode_plainly(&encode_plainly(&table)), table);
    }
}
