//! What a document is of, and what catalog and timeline know of it.

use std::sync::Arc;

use ring::digest;
use vidar_core::control::{RunRecord, StreamRecord};
use vidar_core::entry::FragmentEntry;
use vidar_core::ids::{FragmentNumber, RunId, StreamId};
use vidar_core::record::FragmentFlags;
use vidar_core::time::UnixMs;
use vidar_core::track::TrackKind;

use super::{HitKind, SearchHit};
use crate::catalog::{Catalog, Run};
use crate::timeline::{Details, Timeline};

/// What a document is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Fragment(StreamId, FragmentNumber),
    Run(StreamId, RunId),
    Gap(StreamId, FragmentNumber),
}

/// How it stands in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) id: u64,
    /// Differs from those of a document of the same id that says something else, or is of something else: segment files
    /// that were restored beside a newer index give sequences again.
    pub(crate) attributes: u64,
    /// Decides its partition.
    pub(crate) server_time: UnixMs,
    /// Once the floor's sequence is greater, it is gone.
    pub(crate) expires: u64,
}

/// Whether documents with these attributes know all that can be known: of a fragment the run, of a run its end. While
/// the log is replayed that may come later; until then a document that knows more is left alone.
pub(crate) const fn is_complete(attributes: u64) -> bool {
    attributes & 1 == 1
}

/// Set in the ids of runs. Sequences of numbers do not get that far.
const RUN_ID: u64 = 1 << 63;

/// A run that goes on does not go by a floor.
pub(crate) const NEVER: u64 = u64::MAX;

impl Subject {
    pub(crate) fn stream(self) -> StreamId {
        match self {
            Self::Fragment(stream, _) | Self::Run(stream, _) | Self::Gap(stream, _) => stream,
        }
    }

    pub(crate) fn kind(self) -> HitKind {
        match self {
            Self::Fragment(..) => HitKind::Fragment,
            Self::Run(..) => HitKind::Run,
            Self::Gap(..) => HitKind::Gap,
        }
    }

    /// Columns [`High`](super::schema::Identity::High), `Millis` and `Low`.
    pub(crate) fn name_parts(self) -> [u64; 3] {
        match self {
            Self::Fragment(_, number) | Self::Gap(_, number) => {
                let (_, low) = split(*number.as_bytes().last_chunk::<16>().unwrap_or(&[0; 16]));
                let millis = u64::try_from(number.server_ms()).unwrap_or(0);
                [number.sequence(), millis, low & 0x0fff_ffff]
            }
            Self::Run(_, run) => {
                let (high, low) = split(*run.as_bytes());
                [high, 0, low]
            }
        }
    }

    /// Of its columns.
    pub(crate) fn of_parts(kind: u64, stream: StreamId, [high, millis, low]: [u64; 3]) -> Option<Self> {
        let number = || u32::try_from(low).ok().map(|random| FragmentNumber::new(high, millis, random));
        match kind {
            0 => Some(Self::Fragment(stream, number()?)),
            1 => {
                let id = (u128::from(high) << 64) | u128::from(low);
                Some(Self::Run(stream, RunId::from_bytes(id.to_be_bytes())))
            }
            2 => Some(Self::Gap(stream, number()?)),
            _ => None,
        }
    }

    /// No two have the same. Of fragments and gaps in the order of the log: a file of ids in order is small.
    pub(crate) fn id(self) -> u64 {
        match self {
            Self::Fragment(_, number) | Self::Gap(_, number) => number.sequence() & !RUN_ID,
            Self::Run(stream, run) => fingerprint(&[stream.as_bytes(), run.as_bytes()]) | RUN_ID,
        }
    }

    /// None: it is gone, or its stream is not known yet.
    pub(crate) fn standing(self, catalog: &Catalog, timeline: &Timeline) -> Option<Standing> {
        let record = catalog.stream(self.stream())?;
        let id = self.id();
        match self {
            Self::Fragment(stream, number) => {
                let entry = timeline.get(stream, number)?;
                let run = catalog.run_state(stream, entry.meta.run).and_then(|run| run.record);
                let of_run = run.as_ref().map(|(_, run)| &**run);
                let attributes = attributes(&record, Some(self), of_run, None, run.is_some());
                let expires = number.sequence();
                Some(Standing { id, attributes, server_time: entry.meta.server_start(), expires })
            }
            Self::Run(stream, run) => {
                let Run { record: run, ended } = catalog.run_state(stream, run)?;
                let (_, run) = run?;
                let over = ended.as_ref().map(|(_, at, _)| *at);
                let expires = ended.map_or(NEVER, |(number, _, _)| number.sequence());
                let attributes = attributes(&record, Some(self), Some(&run), over, over.is_some());
                Some(Standing { id, attributes, server_time: run.started, expires })
            }
            Self::Gap(stream, number) => {
                let gap = catalog.gap(stream, number)?;
                let attributes = attributes(&record, Some(self), None, None, true);
                let (server_time, expires) = (gap.noticed, number.sequence());
                Some(Standing { id, attributes, server_time, expires })
            }
        }
    }

    /// None: as for `standing`.
    pub(crate) fn hit(self, catalog: &Catalog, timeline: &Timeline) -> Option<SearchHit> {
        let stream = catalog.stream(self.stream())?;
        match self {
            Self::Fragment(id, number) => {
                let (entry, details) = timeline.get_with_details(id, number)?;
                let run = catalog.run_state(id, entry.meta.run).and_then(|run| run.record);
                let mut hit = blank(HitKind::Fragment, &stream, run.as_ref().map(|(_, run)| &**run));
                hit.run = Some(entry.meta.run);
                fill_fragment(&mut hit, &entry, &details);
                Some(hit)
            }
            Self::Run(id, run) => {
                let Run { record, ended } = catalog.run_state(id, run)?;
                let (_, record) = record?;
                let mut hit = blank(HitKind::Run, &stream, Some(&record));
                (hit.time, hit.server_time) = (record.anchor, record.started);
                hit.duration_ms = ended.map(|(_, at, _)| length(record.started, at));
                Some(hit)
            }
            Self::Gap(id, number) => {
                let gap = catalog.gap(id, number)?;
                let mut hit = blank(HitKind::Gap, &stream, None);
                hit.run = gap.run;
                (hit.time, hit.server_time) = (gap.start, gap.noticed);
                hit.duration_ms = Some(length(gap.start, gap.end));
                hit.gap = Some(gap.cause.name());
                Some(hit)
            }
        }
    }
}

fn blank(kind: HitKind, stream: &Arc<StreamRecord>, run: Option<&RunRecord>) -> SearchHit {
    SearchHit {
        kind,
        stream: stream.stream,
        stream_name: stream.name.to_string(),
        device: stream.settings.device.clone(),
        fragment_number: None,
        run: run.map(|run| run.run),
        protocol: run.map(|run| run.protocol.clone()),
        source: run.map(|run| run.source.clone()),
        codecs: Vec::new(),
        time: UnixMs(0),
        server_time: UnixMs(0),
        duration_ms: None,
        size_bytes: None,
        width: None,
        height: None,
        fps: None,
        bitrate: None,
        gap: None,
        tags: stream.settings.tags.clone(),
    }
}

fn fill_fragment(hit: &mut SearchHit, entry: &FragmentEntry, details: &Details) {
    let meta = &entry.meta;
    hit.fragment_number = Some(meta.number);
    (hit.time, hit.server_time) = (meta.producer_start, meta.server_start());
    hit.duration_ms = Some(meta.duration_ms.into());
    hit.size_bytes = Some(entry.size_bytes);
    for track in details.tracks.iter() {
        if !hit.codecs.contains(&track.codec) {
            hit.codecs.push(track.codec.clone());
        }
    }
    let duration_ms = u64::from(meta.duration_ms);
    hit.bitrate = entry.size_bytes.saturating_mul(8_000).checked_div(duration_ms);
    if let Some((index, video)) = details.tracks.iter().enumerate().find(|(_, track)| track.kind == TrackKind::Video) {
        hit.width = Some(video.width).filter(|width| *width != 0);
        hit.height = Some(video.height).filter(|height| *height != 0);
        let samples = entry.totals.get(index).map(|totals| totals.sample_count);
        hit.fps = samples.filter(|_| duration_ms != 0).map(|count| frame_rate(count, duration_ms));
    }
    if meta.flags.contains(FragmentFlags::LOSSY) || details.lost_count() != 0 {
        hit.gap = Some(vidar_core::control::GapCause::Loss.name());
    }
    hit.tags.extend(details.tags().iter().map(|tag| (tag.name.clone(), tag.value.clone())));
}

/// To a thousandth.
fn frame_rate(count: u32, duration_ms: u64) -> f64 {
    (f64::from(count) * 1e6 / duration_ms as f64).round() / 1e3
}

fn length(from: UnixMs, to: UnixMs) -> u64 {
    u64::try_from(to.since_ms(from)).unwrap_or(0)
}

/// What the documents of a stream take from its record.
pub(crate) fn stream_attributes(catalog: &Catalog, stream: StreamId) -> Option<u64> {
    catalog.stream(stream).map(|record| attributes(&record, None, None, None, true))
}

fn attributes(
    stream: &StreamRecord,
    subject: Option<Subject>,
    run: Option<&RunRecord>,
    ended: Option<UnixMs>,
    complete: bool,
) -> u64 {
    let settings = &stream.settings;
    let name = subject.map(|subject| subject.name_parts().map(u64::to_be_bytes));
    let mut parts: Vec<&[u8]> = vec![stream.stream.as_bytes(), name.as_ref().map_or(&[], |name| name.as_flattened())];
    parts.extend([stream.name.as_str().as_bytes(), settings.device.as_bytes()]);
    for (name, value) in &settings.tags {
        parts.extend([name.as_bytes(), value.as_bytes()]);
    }
    let ended = ended.map(|at| at.0.to_be_bytes());
    let anchor = run.map(|run| run.anchor.0.to_be_bytes());
    if let (Some(run), Some(anchor)) = (run, &anchor) {
        parts.extend([run.protocol.as_bytes(), run.source.as_bytes(), anchor.as_slice()]);
    }
    if let Some(ended) = &ended {
        parts.push(ended);
    }
    fingerprint(&parts) & !1 | u64::from(complete)
}

/// The first bytes of a SHA-256 over the parts, each after its length.
fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    digest.as_ref().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn split(bytes: [u8; 16]) -> (u64, u64) {
    let whole = u128::from_be_bytes(bytes);
    ((whole >> 64) as u64, whole as u64)
}

/// The low half of a stream's id: random bits.
pub(crate) fn stream_key(stream: StreamId) -> u64 {
    split(*stream.as_bytes()).1
}

pub(crate) const fn kind_code(kind: HitKind) -> u64 {
    match kind {
        HitKind::Fragment => 0,
        HitKind::Run => 1,
        HitKind::Gap => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read_back_from_their_columns() {
        let stream = StreamId::new();
        let number = FragmentNumber::new(u64::MAX - 5, 1_511_852_109_126, 0x0fff_fffe);
        for subject in
            [Subject::Fragment(stream, number), Subject::Run(stream, RunId::new()), Subject::Gap(stream, number)]
        {
            let kind = kind_code(subject.kind());
            let read = Subject::of_parts(kind, stream, subject.name_parts());
            assert_eq!(read, Some(subject));
        }
        assert_eq!(Subject::of_parts(3, stream, [0; 3]), None);
    }

    #[test]
    fn ids_are_those_of_the_log_but_for_runs() {
        let (stream, run) = (StreamId::new(), RunId::new());
        let number = |sequence| FragmentNumber::new(sequence, 2, 3);
        assert!(Subject::Fragment(stream, number(7)).id() < Subject::Gap(stream, number(8)).id());
        assert!(Subject::Run(stream, run).id() > Subject::Fragment(stream, number(u64::MAX)).id());
        assert_ne!(Subject::Run(stream, run).id(), Subject::Run(StreamId::new(), run).id());
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
    }
}
