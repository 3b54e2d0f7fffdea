//! Closing fragments that a crash left open, from their parts alone.

use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::record::{FragmentFlags, NewFragment, Piece, TableEnvelope};
use vidar_core::source::ReadError;

use crate::load::{OpenFragments, OpenParts};
use crate::options::OpenReport;
use crate::read::{self, Wanted};
use crate::segment_file::record::{RecordKind, RecordShape};
use crate::shared::Shared;

/// For each fragment of which a crash left parts only, the record that closes it.
pub(crate) fn closing_records(shared: &Shared, open: &OpenFragments, report: &mut OpenReport) -> Vec<NewFragment> {
    let mut closing = Vec::new();
    let mut open: Vec<_> = open.iter().collect();
    open.sort_unstable_by_key(|((_, number), _)| *number);
    for ((stream, number), parts) in open {
        match closing_record(shared, *stream, *number, parts) {
            Ok(record) => closing.push(record),
            Err(error) => {
                tracing::error!(%stream, %number, %error, "cannot close a fragment that a crash left open");
                report.incomplete -= 1;
            }
        }
    }
    closing
}

fn closing_record(
    shared: &Shared,
    stream: StreamId,
    number: FragmentNumber,
    open: &OpenParts,
) -> Result<NewFragment, ReadError> {
    let mut parts = open.parts.clone();
    parts.sort_by_key(|part| part.index);
    parts.dedup_by_key(|part| part.index);
    let mut table = TableEnvelope::default();
    let mut facts = None;
    for part in &parts {
        let wanted = Wanted { shared, stream, number, locator: &part.locator };
        let is_it = |shape: &RecordShape| {
            let same = (shape.meta.stream, shape.meta.number) == (stream, number);
            shape.kind == RecordKind::Part && same && shape.part == part.index
        };
        let head = wanted.fragment_head(is_it)?;
        let own = head.table.pieces.into_iter().map(|piece| Piece { part: Some(part.index), ..piece });
        table.pieces.extend(own);
        facts = Some(head.facts);
        let key = (stream, open.meta.config);
        if shared.configs.get(&key).is_none()
            && let Ok(plain) = read::plain_config(shared, part.locator.file, key)
        {
            let weight = plain.len();
            shared.configs.insert(key, plain, weight);
        }
    }
    let is_gapless = parts.iter().enumerate().all(|(position, part)| position == usize::from(part.index));
    let mut meta = open.meta;
    meta.flags = meta.flags.with(FragmentFlags::INCOMPLETE, true).with(FragmentFlags::LOSSY, !is_gapless);
    Ok(NewFragment { meta, part: None, facts: facts.unwrap_or_default(), table, media: Vec::new() })
}
