//! The bytes of an MP4 that is laid out.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use vidar_core::source::{FragmentSource, ReadError};
use vidar_media::container::fmp4::progressive::{LayoutError, UnitContent};

use super::mp4::Mp4;
use super::plan::open_tables;
use super::span::Opened;
use crate::fragment::{StoredRange, group_reads, read_group};
use crate::virtual_file::VirtualFile;

/// Samples whose table entries are remembered: some 30 minutes of a camera with sound, 10 MB.
const REMEMBERED_SAMPLES_MAX: usize = 128 << 10;
/// Tables that a stretch of the index opens at the same time.
const OPEN_AT_ONCE: usize = 4;

/// An MP4 that is made while it is read.
pub(super) struct Mp4File {
    source: Arc<dyn FragmentSource>,
    mp4: Mp4,
    remembered: Mutex<Remembered>,
}

/// Tables that were needed lately.
#[derive(Default)]
struct Remembered {
    tables: VecDeque<(usize, Arc<Opened>)>,
    sample_count: usize,
}

impl Remembered {
    fn get(&self, fragment: usize) -> Option<Arc<Opened>> {
        // Sorted: the index is made in order, column by column.
        let found = self.tables.binary_search_by_key(&fragment, |(known, _)| *known).ok()?;
        Some(self.tables[found].1.clone())
    }

    fn put(&mut self, fragment: usize, opened: Arc<Opened>) {
        let Err(place) = self.tables.binary_search_by_key(&fragment, |(known, _)| *known) else { return };
        self.sample_count += opened.sample_count();
        self.tables.insert(place, (fragment, opened));
        while self.sample_count > REMEMBERED_SAMPLES_MAX && self.tables.len() > 1 {
            // The one farthest from what is needed now.
            let from_front = place > self.tables.len() / 2;
            let gone = if from_front { self.tables.pop_front() } else { self.tables.pop_back() };
            self.sample_count -= gone.map_or(0, |(_, opened)| opened.sample_count());
        }
    }
}

impl Opened {
    fn sample_count(&self) -> usize {
        self.tables.iter().map(vidar_media::table::Table::sample_count).sum()
    }
}

impl Mp4File {
    pub(super) fn new(source: Arc<dyn FragmentSource>, mp4: Mp4) -> Self {
        Self { source, mp4, remembered: Mutex::default() }
    }

    async fn tables(&self, fragment: usize) -> Result<Arc<Opened>, ReadError> {
        let known = self.remembered.lock().expect("no panic under this lock").get(fragment);
        if let Some(known) = known {
            return Ok(known);
        }
        let opened = Arc::new(open_tables(&*self.source, &self.mp4.fragments[fragment]).await?);
        self.remembered.lock().expect("no panic under this lock").put(fragment, opened.clone());
        Ok(opened)
    }

    /// The table is not the one that the timeline's totals were made from.
    fn disagrees(&self, fragment: usize, error: &LayoutError) -> ReadError {
        let entry = &self.mp4.fragments[fragment];
        ReadError::Corrupt {
            number: entry.meta.number,
            file: entry.record.file.to_string(),
            offset_bytes: entry.record.offset,
            detail: error.to_string(),
        }
    }

    async fn media(&self, fragment: usize, range: Range<u64>) -> Result<Vec<Bytes>, ReadError> {
        let opened = self.tables(fragment).await?;
        let extents = self.mp4.layout.extents(fragment, &opened.tables);
        let extents = extents.map_err(|error| self.disagrees(fragment, &error))?;
        let mut before = 0;
        let wanted = extents.into_iter().filter_map(|extent| {
            let len = extent.range.end - extent.range.start;
            let skip = range.start.saturating_sub(before).min(len);
            let take = range.end.saturating_sub(before).min(len);
            before += len;
            let part = opened.parts.get(extent.piece).copied().flatten();
            let wanted = extent.range.start + skip..extent.range.start + take;
            (skip < take).then_some(StoredRange { part, range: wanted })
        });
        let mut chunks = Vec::new();
        for group in group_reads(wanted.collect::<Vec<_>>()) {
            chunks.extend(read_group(&*self.source, &self.mp4.fragments[fragment], &group).await?);
        }
        Ok(chunks)
    }
}

#[async_trait]
impl VirtualFile for Mp4File {
    fn len(&self) -> u64 {
        self.mp4.layout.len()
    }

    fn stretch(&self, at: u64, end: u64) -> u64 {
        self.mp4.layout.units(at..end).next().map_or(1, |unit| unit.len)
    }

    async fn make(&self, range: Range<u64>) -> Result<Vec<Bytes>, ReadError> {
        let mut chunks = Vec::new();
        for unit in self.mp4.layout.units(range) {
            match unit.content {
                UnitContent::Fixed(bytes) => chunks.push(bytes),
                UnitContent::Media { fragment, range } => chunks.extend(self.media(fragment, range).await?),
                UnitContent::Column { track, column, fragments, skip } => {
                    let mut entries = Vec::new();
                    let opened = stream::iter(fragments)
                        .map(|fragment| async move { self.tables(fragment).await.map(|opened| (fragment, opened)) });
                    let mut opened = opened.buffered(OPEN_AT_ONCE);
                    while let Some(next) = opened.next().await {
                        let (fragment, opened) = next?;
                        let written =
                            self.mp4.layout.write_column(track, column, fragment, &opened.tables, &mut entries);
                        written.map_err(|error| self.disagrees(fragment, &error))?;
                    }
                    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(entries.len());
                    let end = skip.saturating_add(usize::try_from(unit.len).unwrap_or(usize::MAX)).min(entries.len());
                    chunks.push(Bytes::from(entries).slice(skip..end));
                }
            }
        }
        Ok(chunks)
    }
}
