//! Reading what is wanted in another order than it is stored in.

use bytes::Bytes;
use vidar_core::entry::FragmentEntry;
use vidar_core::source::{FragmentSource, ReadError};

use crate::fragment::{StoredRange, group_reads, read_group};

/// Reads each range into its place among `chunks`, in the order of the store, so that neighbours are read at once.
///
/// # Errors
/// As [`FragmentSource::media`].
pub async fn read_into(
    source: &dyn FragmentSource,
    entry: &FragmentEntry,
    mut wanted: Vec<(StoredRange, usize)>,
    chunks: &mut [Bytes],
) -> Result<(), ReadError> {
    // Part records, then the closing record.
    let order = |part: Option<u16>| part.map_or(u32::MAX, u32::from);
    wanted.sort_by_key(|(stored, _)| (order(stored.part), stored.range.start));
    let mut places = wanted.iter().filter(|(stored, _)| !stored.range.is_empty());
    // Where the bytes that come next go, and how many are still to come.
    let mut filling: Option<(usize, u64)> = None;
    let mut parts: Vec<Bytes> = Vec::new();
    for group in group_reads(wanted.iter().map(|(stored, _)| stored.clone())) {
        for mut slice in read_group(source, entry, &group).await? {
            while !slice.is_empty() {
                let next = || places.next().map(|(stored, place)| (*place, stored.range.end - stored.range.start));
                let Some((place, left)) = filling.take().or_else(next) else { break };
                let taken = slice.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(slice.len()));
                let left = left - taken.len() as u64;
                parts.push(taken);
                if left > 0 {
                    filling = Some((place, left));
                } else {
                    let whole = if let [one] = &parts[..] { one.clone() } else { parts.concat().into() };
                    chunks[place] = whole;
                    parts.clear();
                }
            }
        }
    }
    Ok(())
}
