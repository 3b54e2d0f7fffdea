//! The archive that players play: pushed over HTTP as fast as it is acknowledged, or there already.

use std::sync::Arc;

use anyhow::ensure;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::clip::Clip;
use crate::http::Peer;
use crate::packetize;
use crate::publish::{Pace, Protocol, Publisher};
use crate::tally::Tally;

/// Producer time of its beginning, in milliseconds: 2026-01-01T00:00:00Z.
pub(crate) const BEGIN_MS: u64 = 1_767_225_600_000;

/// What is in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Archive {
    pub(crate) streams: u16,
    /// Of each stream.
    pub(crate) seconds: u64,
}

pub(crate) fn stream_name(number: u16) -> String {
    format!("archive-{number}")
}

/// Pushes what is not there. A stream that is there has to be as long as is wanted.
pub(crate) async fn fill(peer: &Arc<Peer>, clip: &Clip, archive: Archive) -> anyhow::Result<()> {
    let listed: Value = serde_json::from_slice(&peer.get("/v1/streams?limit=1000").await?)?;
    let fragments = archive.seconds.div_ceil(clip.gop_s);
    let mut missing = Vec::new();
    for number in 0..archive.streams {
        let name = stream_name(number);
        let mut known = listed["streams"].as_array().into_iter().flatten();
        match known.find(|stream| stream["name"] == name.as_str()) {
            None => missing.push(number),
            Some(stream) => {
                let there = &stream["totals"]["fragments"];
                ensure!(*there == fragments, "{name} has {there} fragments, not the {fragments} of --minutes");
            }
        }
    }
    let script = Arc::new(packetize::matroska(clip));
    let pace = Pace::Acknowledged { media_us: fragments * clip.gop_s * 1_000_000 };
    let (_paces, pace) = watch::channel(Some(vec![pace; usize::from(archive.streams)]));
    let mut publishers = JoinSet::new();
    for number in missing {
        let publisher = Publisher {
            peer: Arc::clone(peer),
            script: Arc::clone(&script),
            protocol: Protocol::HttpMatroska,
            stream: stream_name(number),
            number: number.into(),
            start_ms: Some(BEGIN_MS),
            sdp: "".into(),
        };
        publishers.spawn(publisher.run(Arc::new(Notify::new()), pace.clone()));
    }
    let mut tally = Tally::default();
    publishers.join_all().await.into_iter().for_each(|one| tally.add(one));
    let faults = tally.faults();
    ensure!(faults.is_empty(), "the archive is not whole: {faults:?}");
    Ok(())
}
