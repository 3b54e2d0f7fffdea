//! The document of a fragment that is stored, made as it is read.

use bytes::Bytes;
use vidar_core::entry::SharedEntry;
use vidar_core::sample::Tag;
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::time::UnixMs;
use vidar_media::table::SampleEntry;
use vidar_player_api::fragment::{StoredRange, load_from};
use vidar_player_api::scatter::read_into;

use crate::document::Document;

/// Media that is read at once, in bytes; a larger frame alone.
const STRETCH_BYTES: u64 = 512 << 10;

/// A fragment on its way out.
pub(crate) struct StoredDocument {
    pub(crate) entry: SharedEntry,
    document: Document,
    tags: Vec<Tag>,
    /// In order of arrival.
    frames: Vec<StoredFrame>,
    /// Of them, the first that did not go out.
    next: usize,
}

struct StoredFrame {
    track: u8,
    sample: SampleEntry,
    stored: StoredRange,
}

impl StoredDocument {
    /// Opens a fragment; nothing is written yet.
    ///
    /// # Errors
    /// If it is gone, damaged or cannot be read now.
    pub(crate) async fn open(source: &dyn FragmentSource, entry: SharedEntry) -> Result<Self, ReadError> {
        Self::load(source, entry, None).await
    }

    /// Goes on with a document that has so many of the fragment's frames.
    ///
    /// # Errors
    /// As [`StoredDocument::open`].
    pub(crate) async fn resume(
        source: &dyn FragmentSource,
        entry: SharedEntry,
        document: Document,
        frame_count: usize,
    ) -> Result<Self, ReadError> {
        Self::load(source, entry, Some((document, frame_count))).await
    }

    async fn load(
        source: &dyn FragmentSource,
        entry: SharedEntry,
        begun: Option<(Document, usize)>,
    ) -> Result<Self, ReadError> {
        let loaded = load_from(source, &entry).await?;
        let frames = loaded.in_arrival_order().into_iter().map(|(track, sample)| StoredFrame {
            track,
            sample: sample.entry.clone(),
            stored: sample.stored(),
        });
        let frames = frames.collect();
        let (document, next) = begun.unwrap_or_else(|| {
            let document = Document::new(&loaded.config, entry.meta.number, entry.meta.producer_start);
            (document.with_origin(loaded.origin_ms()), 0)
        });
        Ok(Self { entry, document, tags: loaded.facts.tags, frames, next })
    }

    /// Up to its Cluster.
    pub(crate) fn begin(&self) -> Bytes {
        self.document.begin()
    }

    /// More frames; none: that were all.
    ///
    /// # Errors
    /// As [`StoredDocument::open`]: a fragment may expire while it is read.
    pub(crate) async fn next(&mut self, source: &dyn FragmentSource) -> Result<Option<Vec<Bytes>>, ReadError> {
        let (mut chunks, mut wanted, mut media) = (Vec::new(), Vec::new(), 0);
        while let Some(frame) = self.frames.get(self.next) {
            let len = u64::from(frame.sample.size);
            if media > 0 && media + len > STRETCH_BYTES {
                break;
            }
            self.next += 1;
            let Some(head) = self.document.stored_head(frame.track, &frame.sample) else { continue };
            chunks.push(head);
            wanted.push((frame.stored.clone(), chunks.len()));
            chunks.push(Bytes::new());
            media += len;
        }
        if chunks.is_empty() {
            return Ok(None);
        }
        read_into(source, &self.entry, wanted, &mut chunks).await?;
        Ok(Some(chunks))
    }

    /// The producer's tags.
    pub(crate) fn tags(&self) -> Bytes {
        self.document.tags(&self.tags)
    }

    /// What says that it is complete.
    pub(crate) fn end(&self, now: UnixMs) -> Bytes {
        self.document.end(self.entry.meta.duration_ms, now)
    }
}
