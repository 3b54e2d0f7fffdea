//! From a range to what a clip takes of each fragment: opens the tables at the edges, and no others.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use vidar_core::control::GapCause;
use vidar_core::entry::SharedEntry;
use vidar_core::error::ErrorKind;
use vidar_core::ids::{ConfigId, FragmentNumber};
use vidar_core::record::{FragmentFlags, TrackTotals};
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::track::{StreamConfig, Track};
use vidar_indexer::Timeline;
use vidar_media::container::fmp4::progressive::LayoutError;
use vidar_media::table::totals;

use super::snapshot::{Cut, Damage, Gap, Snapshot, SpanEntries};
use super::span::{Fragment, Opened, Span, Style};
use super::timing::Taken;
use super::tracks::{ClipTrack, match_tracks};
use crate::error::ApiError;
use crate::fragment;

/// Tables that are opened at the same time.
const OPEN_AT_ONCE: usize = 8;
/// Damaged fragments that are stepped over before a clip is given up.
const DAMAGE_MAX: usize = 64;

/// What a container wants to know of tracks.
pub(super) struct Wants {
    /// It has a place for the track.
    pub(super) carries: fn(&StreamConfig, usize) -> bool,
    /// A clip starts with the sync sample, not with what is shown at its start.
    pub(super) whole_gop: bool,
    /// Lengths take the bytes of each track where not all tracks are carried.
    pub(super) sizes: bool,
}

/// Why a clip is not laid out yet, or never.
#[derive(Debug)]
pub(super) enum Refused {
    /// Tables have to be opened first: span and fragment.
    Need(BTreeSet<(usize, usize)>),
    /// It cannot be.
    Layout(LayoutError),
}

impl From<LayoutError> for Refused {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

/// What a clip is made of.
pub(super) struct Plan {
    pub(super) snapshot: Snapshot,
    pub(super) configs: Vec<Arc<StreamConfig>>,
    pub(super) tracks: Vec<ClipTrack>,
    /// Names of tracks that are left out.
    pub(super) omitted: Vec<String>,
    pub(super) taken: Vec<Taken>,
}

impl Plan {
    pub(super) fn config_tracks(&self) -> Vec<Vec<Track>> {
        self.configs.iter().map(|config| config.tracks.clone()).collect()
    }
}

/// Opens what plans need, and remembers it.
pub(super) struct Opener<'a> {
    source: &'a dyn FragmentSource,
    timeline: &'a Timeline,
    opened: HashMap<FragmentNumber, Arc<Opened>>,
    facts: HashMap<FragmentNumber, Facts>,
    configs: HashMap<ConfigId, Arc<StreamConfig>>,
    damage: Damage<'a>,
    /// Fragments whose media was read; none: it is not read before it is sent.
    good: Option<HashSet<FragmentNumber>>,
}

/// Of each track.
#[derive(Clone)]
struct Facts {
    totals: Arc<[TrackTotals]>,
    sizes: Arc<[u64]>,
}

/// Why a plan is made anew.
enum Interrupted {
    /// Something turned out to be damaged, or to be readable after all.
    Damaged,
    Failed(ApiError),
}

impl<'a> Opener<'a> {
    /// `checked`: all media is read first.
    pub(super) fn new(source: &'a dyn FragmentSource, timeline: &'a Timeline, checked: bool) -> Self {
        let (opened, facts, configs) = (HashMap::new(), HashMap::new(), HashMap::new());
        let good = checked.then(HashSet::new);
        let damage = Damage::new(source);
        Self { source, timeline, opened, facts, configs, damage, good }
    }

    /// Plans a clip and lays it out. `lay_out` gives the tables it needs first, by span and fragment, as an error.
    pub(super) async fn plan<T>(
        &mut self,
        cut: &Cut,
        wants: &Wants,
        lay_out: impl Fn(&Plan) -> Result<T, Refused>,
    ) -> Result<(Plan, T), ApiError> {
        loop {
            match self.attempt(cut, wants, &lay_out).await {
                Ok(done) => return Ok(done),
                Err(Interrupted::Failed(error)) => return Err(error),
                Err(Interrupted::Damaged) => {
                    if self.damage.fragments.len() + self.damage.configs.len() > DAMAGE_MAX {
                        let detail = "more fragments of the range are damaged than are stepped over";
                        return Err(ApiError::of(ErrorKind::Corrupt, detail));
                    }
                }
            }
        }
    }

    async fn attempt<T>(
        &mut self,
        cut: &Cut,
        wants: &Wants,
        lay_out: &impl Fn(&Plan) -> Result<T, Refused>,
    ) -> Result<(Plan, T), Interrupted> {
        let snapshot = Snapshot::of(self.timeline, cut, &self.damage);
        self.check(&snapshot).await?;
        let (configs, of_config) = self.load_configs(&snapshot).await?;
        let (tracks, omitted) = match_tracks(&configs, wants.carries);
        if tracks.is_empty() && !omitted.is_empty() {
            let detail = format!("the container carries none of the tracks: {}", omitted.join(", "));
            return Err(Interrupted::Failed(ApiError::unusable(detail)));
        }
        let in_part =
            |config: &Arc<StreamConfig>| !(0..config.tracks.len()).all(|track| (wants.carries)(config, track));
        let sizes_of: Vec<bool> = configs.iter().map(|config| wants.sizes && in_part(config)).collect();
        let mut plan = Plan { snapshot, configs, tracks, omitted, taken: Vec::new() };
        for index in 0..plan.snapshot.spans.len() {
            let span = self.span(&plan.snapshot.spans[index], &of_config, &sizes_of).await?;
            // Only the first span of a clip can start within a GOP.
            let style = Style { whole_gop: wants.whole_gop || index > 0, keeps_lead: index == 0 };
            plan.taken.extend(self.take(span, &plan, style).await?);
        }
        if plan.taken.is_empty() {
            let detail = "no media in the range";
            return Err(Interrupted::Failed(ApiError::not_found(detail).with("gaps", named_gaps(&plan.snapshot.gaps))));
        }
        loop {
            match lay_out(&plan) {
                Ok(done) => return Ok((plan, done)),
                Err(Refused::Layout(error)) => {
                    return Err(Interrupted::Failed(ApiError::unusable(error.to_string())));
                }
                Err(Refused::Need(need)) => {
                    for (span, index) in need {
                        let mut fragments = std::mem::take(&mut plan.taken[span].span.fragments);
                        let opened = self.open(&mut fragments, &BTreeSet::from([index])).await;
                        plan.taken[span].span.fragments = fragments;
                        opened?;
                    }
                }
            }
        }
    }

    /// Reads all media of a snapshot, where that was asked for.
    async fn check(&mut self, snapshot: &Snapshot) -> Result<(), Interrupted> {
        let Some(good) = &mut self.good else { return Ok(()) };
        for entry in snapshot.spans.iter().flat_map(|span| &span.entries) {
            let number = entry.meta.number;
            if good.contains(&number) {
                continue;
            }
            match fragment::read_media(self.source, entry, &mut |_| {}).await {
                Ok(()) => good.insert(number),
                Err(error) => {
                    let interrupted = damaged(error)?;
                    self.damage.fragments.insert(number);
                    return Err(interrupted);
                }
            };
        }
        Ok(())
    }

    /// Each config once, and its index. Every file has a copy of its own, which is tried once: a config is damaged if
    /// none reads.
    async fn load_configs(
        &mut self,
        snapshot: &Snapshot,
    ) -> Result<(Vec<Arc<StreamConfig>>, HashMap<ConfigId, usize>), Interrupted> {
        let (mut configs, mut of_config) = (Vec::new(), HashMap::new());
        let (mut unreadable, read_before) = (HashSet::new(), self.configs.len());
        for entry in snapshot.spans.iter().flat_map(|span| &span.entries) {
            let (id, file) = (entry.meta.config, entry.record.file);
            if of_config.contains_key(&id) || unreadable.contains(&(id, file)) {
                continue;
            }
            let Some(config) = self.config(entry).await? else {
                unreadable.insert((id, file));
                continue;
            };
            of_config.insert(id, configs.len());
            configs.push(config);
        }
        let (known, lost) = (self.damage.configs.len(), unreadable.into_iter().map(|(id, _)| id));
        self.damage.configs.extend(lost.filter(|id| !of_config.contains_key(id)));
        // What the source steps over for its own copy may be read with another.
        let helps = self.configs.len() > read_before && self.damage.was_found.get();
        if self.damage.configs.len() > known || helps {
            return Err(Interrupted::Damaged);
        }
        Ok((configs, of_config))
    }

    /// The config of a fragment; none if the copy in its file is damaged.
    async fn config(&mut self, entry: &SharedEntry) -> Result<Option<Arc<StreamConfig>>, Interrupted> {
        let id = entry.meta.config;
        if let Some(config) = self.configs.get(&id) {
            return Ok(Some(config.clone()));
        }
        match self.source.config(entry).await {
            Ok(config) => Ok(Some(self.configs.entry(id).or_insert(config).clone())),
            // The fragment went meanwhile.
            Err(ReadError::NotFound { .. }) => {
                self.damage.fragments.insert(entry.meta.number);
                Err(Interrupted::Damaged)
            }
            Err(error) => damaged(error).map(|_| None),
        }
    }

    async fn span(
        &mut self,
        entries: &SpanEntries,
        of_config: &HashMap<ConfigId, usize>,
        sizes_of: &[bool],
    ) -> Result<Span, Interrupted> {
        let config = |entry: &SharedEntry| of_config.get(&entry.meta.config).copied().unwrap_or(0);
        let fragments = entries.entries.iter().map(|entry| Fragment::new(entry.clone(), config(entry)));
        let shown = entries.before..entries.entries.len() - entries.after;
        let mut span = Span { fragments: fragments.collect(), shown, start: entries.start, end: entries.end };
        self.add_facts(&mut span.fragments, sizes_of).await?;
        self.count_holed(&mut span.fragments).await?;
        Ok(span)
    }

    /// Where parts are lost, facts are those of the last one that is left: they count samples of the others, too. So tables are
    /// opened and counted.
    async fn count_holed(&mut self, fragments: &mut [Fragment]) -> Result<(), Interrupted> {
        let is_holed = |fragment: &Fragment| {
            let flags = fragment.entry.meta.flags;
            flags.contains(FragmentFlags::INCOMPLETE) && flags.contains(FragmentFlags::LOSSY)
        };
        let holed: BTreeSet<usize> = (0..fragments.len()).filter(|index| is_holed(&fragments[*index])).collect();
        self.open(fragments, &holed).await?;
        for index in holed {
            let fragment = &mut fragments[index];
            let tables = fragment.opened.as_ref().map_or(&[][..], |opened| &opened.tables);
            let last = tables.iter().flat_map(|table| &table.tracks).map(|of| of.track).max();
            fragment.totals = last.map(|last| (0..=last).map(|track| totals(tables, track)).collect());
        }
        Ok(())
    }

    /// Entries of more than three tracks carry no totals, and none the bytes of each track: the slow way.
    async fn add_facts(&mut self, fragments: &mut [Fragment], sizes_of: &[bool]) -> Result<(), Interrupted> {
        let lacks = |fragment: &Fragment| fragment.entry.totals.is_empty() || sizes_of[fragment.config];
        let lacking = fragments.iter().filter(|fragment| lacks(fragment)).map(|fragment| fragment.entry.clone());
        let unknown: Vec<SharedEntry> = lacking.filter(|entry| !self.facts.contains_key(&entry.meta.number)).collect();
        let source = self.source;
        let mut heads = stream::iter(unknown)
            .map(|entry| async move { (entry.meta.number, source.head(&entry).await) })
            .buffered(OPEN_AT_ONCE);
        while let Some((number, head)) = heads.next().await {
            match head {
                Ok(head) => {
                    let tracks = &head.facts.tracks;
                    let totals = tracks.iter().map(|track| track.totals).collect();
                    let sizes = tracks.iter().map(|track| track.size_bytes).collect();
                    self.facts.insert(number, Facts { totals, sizes });
                }
                Err(error) => {
                    let interrupted = damaged(error)?;
                    self.damage.fragments.insert(number);
                    return Err(interrupted);
                }
            }
        }
        for fragment in fragments.iter_mut().filter(|fragment| lacks(fragment)) {
            let facts = self.facts.get(&fragment.entry.meta.number);
            fragment.totals = facts.map(|facts| facts.totals.clone());
            fragment.sizes = facts.map(|facts| facts.sizes.clone());
        }
        Ok(())
    }

    /// Selects, opening what that needs.
    async fn take(&mut self, mut span: Span, plan: &Plan, style: Style) -> Result<Option<Taken>, Interrupted> {
        loop {
            match span.select(&plan.tracks, &plan.configs, style) {
                Ok(selection) => return Ok(selection.map(|selection| Taken { span, selection })),
                Err(need) => self.open(&mut span.fragments, &need.0).await?,
            }
        }
    }

    async fn open(&mut self, fragments: &mut [Fragment], indexes: &BTreeSet<usize>) -> Result<(), Interrupted> {
        let entries = indexes.iter().map(|index| fragments[*index].entry.clone());
        let unknown: Vec<SharedEntry> = entries.filter(|entry| !self.opened.contains_key(&entry.meta.number)).collect();
        let source = self.source;
        let mut loads = stream::iter(unknown)
            .map(|entry| async move { (entry.meta.number, open_tables(source, &entry).await) })
            .buffered(OPEN_AT_ONCE);
        while let Some((number, opened)) = loads.next().await {
            match opened {
                Ok(opened) => {
                    self.opened.insert(number, Arc::new(opened));
                }
                Err(error) => {
                    let interrupted = damaged(error)?;
                    self.damage.fragments.insert(number);
                    return Err(interrupted);
                }
            }
        }
        for index in indexes {
            fragments[*index].opened = self.opened.get(&fragments[*index].entry.meta.number).cloned();
        }
        Ok(())
    }
}

/// Reads the tables of a fragment.
pub(super) async fn open_tables(source: &dyn FragmentSource, entry: &SharedEntry) -> Result<Opened, ReadError> {
    let loaded = fragment::load_from(source, entry).await?;
    let (parts, tables) = loaded.pieces.into_iter().unzip();
    Ok(Opened { parts, tables })
}

/// What is damaged or gone is a gap; anything else fails the request.
fn damaged(error: ReadError) -> Result<Interrupted, Interrupted> {
    match error.kind() {
        ErrorKind::Corrupt => {
            tracing::error!(%error, "a clip goes on without what does not read");
            Ok(Interrupted::Damaged)
        }
        ErrorKind::NotFound => Ok(Interrupted::Damaged),
        _ => Err(Interrupted::Failed(error.into())),
    }
}

/// As problem details name them.
pub(super) fn named_gaps(gaps: &[Gap]) -> serde_json::Value {
    let named = gaps.iter().map(|gap| match gap.lossy {
        true => serde_json::json!({ "start": gap.start, "end": gap.end, "cause": GapCause::Loss.name() }),
        false => serde_json::json!({ "start": gap.start, "end": gap.end }),
    });
    named.collect()
}
