//! The bytes of a Matroska document that is laid out.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use vidar_core::source::{FragmentSource, ReadError};

use super::mkv::{Mkv, MkvFrame};
use super::plan::open_tables;
use super::span::Opened;
use crate::fragment::StoredRange;
use crate::scatter::read_into;
use crate::virtual_file::VirtualFile;

/// Bytes that are made at once.
const STRETCH_BYTES_MAX: u64 = 1 << 20;

/// A document that is made while it is read.
pub(super) struct MkvFile {
    source: Arc<dyn FragmentSource>,
    mkv: Mkv,
    /// The fragment that was needed last: a large one is made in several stretches.
    last: Mutex<Option<(usize, Arc<Laid>)>>,
}

/// A fragment that is laid out.
struct Laid {
    opened: Arc<Opened>,
    frames: Vec<MkvFrame>,
}

impl MkvFile {
    pub(super) fn new(source: Arc<dyn FragmentSource>, mkv: Mkv) -> Self {
        Self { source, mkv, last: Mutex::default() }
    }

    async fn laid(&self, index: usize) -> Result<Arc<Laid>, ReadError> {
        let known = self.last.lock().await.clone();
        if let Some((known, laid)) = known
            && known == index
        {
            return Ok(laid);
        }
        let entry = &self.mkv.fragments[index].fragment.entry;
        let opened = Arc::new(open_tables(&*self.source, entry).await?);
        // The tables are not what the length was made from.
        let disagrees = || ReadError::Corrupt {
            number: entry.meta.number,
            file: entry.record.file.to_string(),
            offset_bytes: entry.record.offset,
            detail: "its samples are not as many, or as large, as the timeline says".to_owned(),
        };
        let frames = self.mkv.frames(index, &opened).ok_or_else(disagrees)?;
        let laid = Arc::new(Laid { opened, frames });
        *self.last.lock().await = Some((index, laid.clone()));
        Ok(laid)
    }

    /// Bytes of a fragment, from its first Cluster on.
    async fn fragment(&self, index: usize, range: Range<u64>) -> Result<Vec<Bytes>, ReadError> {
        let laid = self.laid(index).await?;
        // Heads at once, media as what is to be read: by place in the file, and by place in the store.
        let mut chunks: Vec<Bytes> = Vec::new();
        let mut wanted: Vec<(StoredRange, usize)> = Vec::new();
        let mut at = 0;
        for frame in &laid.frames {
            let clip = |start: u64, len: u64| {
                let from = range.start.saturating_sub(start).min(len);
                from..range.end.saturating_sub(start).min(len).max(from)
            };
            let head_len = frame.head.len() as u64;
            let head = clip(at, head_len);
            if !head.is_empty() {
                chunks.push(frame.head.slice(head.start as usize..head.end as usize));
            }
            let media = clip(at + head_len, frame.len);
            if !media.is_empty() {
                let part = laid.opened.parts.get(frame.piece).copied().flatten();
                let stored = frame.offset + media.start..frame.offset + media.end;
                wanted.push((StoredRange { part, range: stored }, chunks.len()));
                chunks.push(Bytes::new());
            }
            at += head_len + frame.len;
        }
        read_into(&*self.source, &self.mkv.fragments[index].fragment.entry, wanted, &mut chunks).await?;
        Ok(chunks)
    }
}

#[async_trait]
impl VirtualFile for MkvFile {
    fn len(&self) -> u64 {
        self.mkv.offsets.last().copied().unwrap_or(0)
    }

    fn stretch(&self, at: u64, end: u64) -> u64 {
        // The header, then fragment by fragment.
        let next = self.mkv.offsets.partition_point(|offset| *offset <= at);
        let border = self.mkv.offsets.get(next).copied().unwrap_or(end);
        border.min(end).saturating_sub(at).min(STRETCH_BYTES_MAX)
    }

    async fn make(&self, range: Range<u64>) -> Result<Vec<Bytes>, ReadError> {
        let mut chunks = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let next = self.mkv.offsets.partition_point(|offset| *offset <= at);
            let border = self.mkv.offsets.get(next).copied().unwrap_or(range.end).min(range.end);
            if next == 0 {
                chunks.push(self.mkv.header.slice(at as usize..border as usize));
            } else {
                let start = self.mkv.offsets[next - 1];
                chunks.extend(self.fragment(next - 1, at - start..border - start).await?);
            }
            at = border;
        }
        Ok(chunks)
    }
}
