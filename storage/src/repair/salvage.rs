//! What of a file still opens, and what can be used of that.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use vidar_core::record::TableEnvelope;
use vidar_core::source::ConfigKey;
use vidar_core::time::UnixMs;

use super::{PartName, Repair, RepairedFile};
use crate::check;
use crate::load::{Log, LogFile, Records, open_fragment};
use crate::segment_file::footer::RecordEntry;
use crate::segment_file::reader;
use crate::segment_file::record::{RecordKind, RecordShape};

/// Configs that a file needs: none where it stands there and is good; else the same from another file. What is in neither
/// is not listed.
pub(super) type Configs = BTreeMap<ConfigKey, Option<(RecordEntry, Vec<u8>)>>;

/// What is found of one file.
pub(super) struct Assessed {
    pub(super) entries: Vec<RecordEntry>,
    /// Sealed heads as the footer or a scan has them, one for each entry.
    pub(super) heads: Vec<Option<Vec<u8>>>,
    /// As many: it opens, with or without its copied head.
    good: Vec<bool>,
    pub(super) archived: UnixMs,
}

impl Repair<'_> {
    pub(super) fn assess(&self, log: &mut Log, file: &LogFile) -> Option<Assessed> {
        let records = log.records_of(file, self.keys).ok()?;
        let archived = records.archived().unwrap_or(file.header.archive);
        let (mut entries, mut heads, mut good) = (Vec::new(), Vec::new(), Vec::new());
        for (entry, head) in living(log, &records) {
            let head = head.map(<[u8]>::to_vec);
            good.push(self.salvage(file, entry, head.as_deref()).is_some());
            entries.push(entry.clone());
            heads.push(head);
        }
        Some(Assessed { entries, heads, good, archived })
    }

    /// The bytes of a record that opens, and whether its head had to come from a copy.
    pub(super) fn salvage(&self, file: &LogFile, entry: &RecordEntry, copy: Option<&[u8]>) -> Option<(Vec<u8>, bool)> {
        let shape = &entry.shape;
        let head_len = u64::from(shape.head_len());
        let read = |from: u64, len: u64| reader::read(&*file.handle().ok()?, entry.offset + from, len as usize).ok();
        if let Some(bytes) = read(0, shape.record_len())
            && check::open(self.keys, shape, &bytes).is_ok()
        {
            return Some((bytes, false));
        }
        let mut bytes = copy?.to_vec();
        bytes.extend(read(head_len, shape.record_len() - head_len)?);
        check::open(self.keys, shape, &bytes).is_ok().then_some((bytes, true))
    }

    /// Which parts are good, and what is lost.
    pub(super) fn learn_parts(
        &mut self,
        log: &mut Log,
        file: &LogFile,
        damaged: bool,
        found: Option<&Vec<RecordShape>>,
        parts: &mut HashSet<PartName>,
    ) {
        let part = |shape: &RecordShape| (shape.meta.stream, shape.meta.number, shape.part);
        if !damaged {
            let Ok(records) = log.records_of(file, self.keys) else { return };
            let shapes = living(log, &records).map(|(entry, _)| entry.shape);
            parts.extend(shapes.filter(|shape| shape.kind == RecordKind::Part).map(|shape| part(&shape)));
            return;
        }
        let assessed = self.assess(log, file);
        let listed = assessed.iter().flat_map(|assessed| assessed.entries.iter().zip(&assessed.good));
        for (entry, good) in listed {
            if entry.shape.kind == RecordKind::Part && *good {
                parts.insert(part(&entry.shape));
            } else if !good {
                self.lose(&entry.shape);
            }
        }
        let unlisted = found.into_iter().flatten();
        unlisted.filter(|shape| !assessed.as_ref().is_some_and(|a| a.lists(shape))).for_each(|shape| self.lose(shape));
    }

    fn lose(&mut self, shape: &RecordShape) {
        if shape.kind == RecordKind::Part {
            self.lost_parts.insert((shape.meta.stream, shape.meta.number, shape.part));
        }
    }

    pub(super) fn closes_lost_part(&self, log: &mut Log, file: &LogFile) -> bool {
        let Ok(records) = log.records_of(file, self.keys) else { return false };
        let mut closings = records
            .iter()
            .map(|(entry, _)| &entry.shape)
            .filter(|shape| shape.kind == RecordKind::Fragment && shape.part > 0);
        closings.any(|shape| {
            let (stream, number) = (shape.meta.stream, shape.meta.number);
            (0..shape.part).any(|part| self.lost_parts.contains(&(stream, number, part)))
        })
    }

    /// Of every config that the file needs: none where it stands in the file and is good; else the same from another.
    /// What is in neither is not listed.
    pub(super) fn configs(
        &self,
        log: &mut Log,
        assessed: &Assessed,
        others: &[&LogFile],
        repaired: &mut RepairedFile,
    ) -> Configs {
        let mut configs = Configs::new();
        let of = |kind: fn(RecordKind) -> bool| {
            let entries = assessed.entries.iter().zip(&assessed.good);
            entries.filter(move |(entry, good)| **good && kind(entry.shape.kind)).map(|(entry, _)| entry)
        };
        configs.extend(of(|kind| kind == RecordKind::Config).map(|entry| (config_key(&entry.shape), None)));
        let needed = of(|kind| matches!(kind, RecordKind::Fragment | RecordKind::Part));
        let mut missing: BTreeSet<ConfigKey> =
            needed.map(|entry| config_key(&entry.shape)).filter(|key| !configs.contains_key(key)).collect();
        for file in others {
            if missing.is_empty() {
                break;
            }
            let Ok(records) = log.records_of(file, self.keys) else { continue };
            for (entry, _) in records.iter().filter(|(entry, _)| entry.shape.kind == RecordKind::Config) {
                let key = config_key(&entry.shape);
                if missing.contains(&key)
                    && let Some((sealed, _)) = self.salvage(file, entry, None)
                {
                    missing.remove(&key);
                    configs.insert(key, Some((entry.clone(), sealed)));
                    repaired.restored += 1;
                }
            }
        }
        configs
    }

    pub(super) fn is_kept(
        &self,
        assessed: &Assessed,
        index: usize,
        configs: &Configs,
        parts: &HashSet<PartName>,
    ) -> bool {
        let (entry, head) = (&assessed.entries[index], assessed.heads[index].as_deref());
        let shape = &entry.shape;
        let name = (shape.meta.stream, shape.meta.number);
        let decodes = || configs.contains_key(&config_key(shape));
        assessed.good[index]
            && match shape.kind {
                RecordKind::Config | RecordKind::Control => true,
                RecordKind::Part => decodes(),
                RecordKind::Fragment => {
                    let there = |part: u16| parts.contains(&(name.0, name.1, part));
                    let head = open_fragment(self.keys, entry, head);
                    let whole = |table: &TableEnvelope| table.pieces.iter().filter_map(|piece| piece.part).all(there);
                    decodes() && head.is_ok_and(|head| whole(&head.table))
                }
            }
    }
}

impl Assessed {
    pub(super) fn lists(&self, shape: &RecordShape) -> bool {
        self.entries.iter().any(|entry| entry.shape == *shape)
    }

    /// Samples of a fragment, where its entry says.
    pub(super) fn sample_count(&self, shape: &RecordShape) -> u64 {
        let entry = self.entries.iter().find(|entry| entry.shape == *shape);
        entry.and_then(|entry| entry.summary.as_ref()).map_or(0, |summary| summary.sample_count())
    }
}

fn living<'a>(log: &'a Log, records: &'a Records) -> impl Iterator<Item = (&'a RecordEntry, Option<&'a [u8]>)> {
    records.iter().filter(|(entry, _)| !log.controls.is_gone_record(&entry.shape))
}

pub(super) fn config_key(shape: &RecordShape) -> ConfigKey {
    (shape.meta.stream, shape.meta.config)
}
