//! The live hub as ingest sees it.

use std::sync::Arc;

use crate::ids::{FragmentNumber, RunId, StreamId};
use crate::sample::{Sample, Tag};
use crate::sink::{Durable, OpenFragment};
use crate::time::UnixMs;
use crate::track::StreamConfig;

/// What happens at the head of a stream, in order of arrival. Buffers are shared with the store, never copied.
#[derive(Debug, Clone)]
pub enum LiveEvent {
    /// A fragment begins; its samples follow.
    Opened {
        /// Number and place.
        fragment: OpenFragment,
        /// Of which run.
        run: RunId,
        /// What decodes its samples.
        config: Arc<StreamConfig>,
        /// Of its first sample of the primary track, by the producer's clock.
        producer_start: UnixMs,
        /// `producer_start` is final: what its run counts from is fixed.
        is_anchored: bool,
        /// Its first sample of the primary track is a sync sample.
        starts_with_sync: bool,
    },
    /// A sample of an open fragment: while a connection takes over from another, two are open.
    Sample {
        /// Of which fragment.
        number: FragmentNumber,
        /// The sample.
        sample: Sample,
    },
    /// Tags of an open fragment.
    Tags {
        /// Of which fragment.
        number: FragmentNumber,
        /// In the order they came.
        tags: Arc<[Tag]>,
    },
    /// An open fragment is complete, not yet durable.
    Closed {
        /// Number and place.
        fragment: OpenFragment,
        /// To the next one.
        duration_ms: u32,
        /// Where the duration of its primary track's last sample is stored from: the decode time of the next one, in ticks.
        /// None: it stays as it was published.
        next_decode_ticks: Option<i64>,
    },
    /// A fragment is durable and in the timeline.
    Durable(Durable),
    /// A fragment that was opened will never be durable.
    Failed(OpenFragment),
    /// The publisher went away.
    Ended(RunId),
}

/// Takes what ingest publishes. Never waits: a slow viewer loses its place, not the publisher its time.
pub trait LiveSink: Send + Sync + 'static {
    /// Publishes all of `events`, in order, and leaves it empty.
    fn publish_all(&self, stream: StreamId, events: &mut Vec<LiveEvent>);

    /// Publishes one.
    fn publish(&self, stream: StreamId, event: LiveEvent) {
        self.publish_all(stream, &mut vec![event]);
    }
}
