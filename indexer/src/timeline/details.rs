//! What is known of a fragment beyond its entry, kept small: tracks are shared among fragments that look alike.

use std::sync::Arc;

use vidar_core::limits::{TAG_COUNT_MAX, TRACK_COUNT_MAX};
use vidar_core::record::{FragmentFacts, WallSource};
use vidar_core::sample::Tag;
use vidar_core::track::TrackKind;
use vidar_core::wire::{Reader, WireError, Writer};

/// One track, as a listing or a search sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrackShape {
    /// What it carries.
    pub kind: TrackKind,
    /// [`Codec::name`](vidar_core::track::Codec::name).
    pub codec: String,
    /// In pixels; 0 if it is no video or unknown.
    pub width: u32,
    /// In pixels; 0 if it is no video or unknown.
    pub height: u32,
}

/// What is known of a fragment beyond its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// In the order of the config's tracks.
    pub tracks: Arc<[TrackShape]>,
    /// Where the newest knowledge of the wall clock came from when the fragment was closed…
    pub wall_source: WallSource,
    /// …and what it says less what the times of its run say, in milliseconds.
    pub wall_offset_ms: i64,
    more: Option<Arc<More>>,
}

#[derive(Debug, PartialEq, Eq)]
struct More {
    tags: Vec<Tag>,
    lost_count: u32,
}

impl Details {
    /// `alike`: details of a fragment near by, whose tracks are shared if they are the same.
    pub(crate) fn new(facts: &FragmentFacts, alike: Option<&Self>) -> Self {
        let more = !facts.tags.is_empty() || facts.lost_count != 0;
        Self {
            tracks: match alike {
                Some(alike) if same_tracks(&alike.tracks, facts) => Arc::clone(&alike.tracks),
                _ => facts.tracks.iter().map(shape).collect(),
            },
            wall_source: facts.wall_source,
            wall_offset_ms: facts.wall_offset_ms,
            more: more.then(|| Arc::new(More { tags: facts.tags.clone(), lost_count: facts.lost_count })),
        }
    }

    /// What neighbours often have in common: all but the wall clock.
    pub(super) fn shared(&self) -> Self {
        Self { wall_source: WallSource::default(), wall_offset_ms: 0, ..self.clone() }
    }

    /// The bytes of what is shared.
    pub(super) fn encode(&self, w: &mut Writer) {
        w.varint(self.tracks.len() as u64);
        for track in &*self.tracks {
            let kind = KINDS.iter().position(|kind| *kind == track.kind).unwrap_or(KINDS.len());
            w.varint(kind as u64).string(&track.codec).varint(track.width.into()).varint(track.height.into());
        }
        w.varint(self.tags().len() as u64);
        for tag in self.tags() {
            w.string(&tag.name).string(&tag.value);
        }
        w.varint(self.lost_count().into());
    }

    /// Reads what `encode` wrote.
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let track_count = r.count(4)?;
        if track_count > TRACK_COUNT_MAX {
            return Err(r.error("at most 10 tracks"));
        }
        let tracks = (0..track_count).map(|_| {
            let kind = r.varint_as::<usize>()?;
            let kind = *KINDS.get(kind).ok_or_else(|| r.error("a track kind"))?;
            let (codec, width, height) = (r.string()?.to_owned(), r.varint_as()?, r.varint_as()?);
            Ok(TrackShape { kind, codec, width, height })
        });
        let tracks = tracks.collect::<Result<_, WireError>>()?;
        let tag_count = r.count(2)?;
        if tag_count > TAG_COUNT_MAX {
            return Err(r.error("at most 64 tags"));
        }
        let tags = (0..tag_count).map(|_| Ok(Tag { name: r.string()?.to_owned(), value: r.string()?.to_owned() }));
        let tags = tags.collect::<Result<Vec<_>, WireError>>()?;
        let lost_count = r.varint_as()?;
        let more = !tags.is_empty() || lost_count != 0;
        let more = more.then(|| Arc::new(More { tags, lost_count }));
        Ok(Self { tracks, wall_source: WallSource::default(), wall_offset_ms: 0, more })
    }

    /// From the producer.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        self.more.as_ref().map_or(&[], |more| &more.tags)
    }

    /// Samples or packets known to be lost within it.
    #[must_use]
    pub fn lost_count(&self) -> u32 {
        self.more.as_ref().map_or(0, |more| more.lost_count)
    }
}

/// By their code in a block.
const KINDS: [TrackKind; 4] = [TrackKind::Video, TrackKind::Audio, TrackKind::Subtitle, TrackKind::Data];

fn shape(track: &vidar_core::record::TrackFacts) -> TrackShape {
    TrackShape { kind: track.kind, codec: track.codec.clone(), width: track.width, height: track.height }
}

fn same_tracks(shapes: &[TrackShape], facts: &FragmentFacts) -> bool {
    shapes.len() == facts.tracks.len()
        && shapes.iter().zip(&facts.tracks).all(|(shape, track)| {
            (shape.kind, shape.width, shape.height) == (track.kind, track.width, track.height)
                && shape.codec == track.codec
        })
}
