//! Counts, sums and percentiles over all results of a query, in groups.
//!
//! Times and streams are columns, read with the result. Codecs, protocols, causes of gaps and tags are tokens: the
//! results of a segment are noted as bits first, and the list of each token is walked against them.

use std::collections::HashMap;
use std::sync::Arc;

use sketches_ddsketch::{Config, DDSketch};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, DocSet, InvertedIndexReader, Score, SegmentOrdinal, SegmentReader, TERMINATED};
use vidar_core::ids::FragmentNumber;
use vidar_core::time::UnixMs;

use super::live::{Live, Scope};
use super::schema::{Fields, Number, Text};
use super::subject::kind_code;
use super::{HitKind, SearchError, Sort};

/// Groups of an answer at most.
pub const GROUPS_MAX: usize = 1000;
/// Groups that are told apart while they are counted.
const GROUPS_COUNTED_MAX: usize = 10_000;
/// Groups by time that are aimed at where the request names no interval.
const INTERVALS_AIMED: i64 = 100;
const DAY_MS: i64 = 86_400_000;
/// What people read well on an axis: up to a minute, an hour, a day, four weeks.
#[rustfmt::skip]
const INTERVALS_S: [i64; 22] = [
    1, 2, 5, 10, 15, 30,
    60, 120, 300, 600, 900, 1800,
    3600, 7200, 10_800, 21_600, 43_200,
    86_400, 172_800, 604_800, 1_209_600, 2_419_200,
];

/// What to count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AggregateRequest {
    /// As of a [search](super::SearchRequest).
    pub q: String,
    /// What ends at this or before by the producer's clock is left out; durations count from here.
    pub start: Option<UnixMs>,
    /// What begins at this or after by the producer's clock is left out; durations count to here.
    pub end: Option<UnixMs>,
    /// None: all results are one group.
    pub by: Option<GroupBy>,
    /// Of groups by time, in milliseconds, 1000 at least. None: one of about a hundred groups.
    pub interval_ms: Option<i64>,
    /// `key` or a member of [`Totals`]. None: by time the earliest first, else the greatest count first.
    pub sort: Option<Sort>,
    /// Groups of the answer: 1 to [`GROUPS_MAX`].
    pub limit: usize,
}

/// What the results of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// The interval of the producer's clock in which they begin. What began before `start` counts in the first.
    Time,
    /// The interval of the server's clock in which they begin.
    ServerTime,
    /// The name of their stream.
    Stream,
    /// The device of their stream.
    Device,
    /// [`HitKind`].
    Kind,
    /// A codec of theirs. Those with several count in several groups, those with none in no group.
    Codec,
    /// The protocol that they came by, where that is known.
    Protocol,
    /// The cause of a gap, or of a fragment's losses.
    Gap,
    /// A value of this tag, of the stream or the producer. Names are compared without case.
    Tag(String),
}

impl GroupBy {
    /// Of the names in `docs/api/search.md`.
    ///
    /// # Errors
    /// `Invalid` if it is another.
    pub fn parse(name: &str) -> Result<Self, SearchError> {
        Ok(match name {
            "time" => Self::Time,
            "server_time" => Self::ServerTime,
            "stream" => Self::Stream,
            "device" => Self::Device,
            "kind" => Self::Kind,
            "codec" => Self::Codec,
            "protocol" => Self::Protocol,
            "gap" => Self::Gap,
            _ => match name.strip_prefix("tags.").filter(|tag| !tag.is_empty()) {
                Some(tag) => Self::Tag(tag.to_lowercase()),
                None => {
                    let known =
                        "time, server_time, stream, device, kind, codec, protocol, gap or tags.NAME is expected";
                    return Err(invalid("by", known));
                }
            },
        })
    }

    fn clock(&self) -> Option<Number> {
        match self {
            Self::Time => Some(Number::Time),
            Self::ServerTime => Some(Number::ServerTime),
            _ => None,
        }
    }

    /// What its tokens begin with; none: it is a column.
    fn facet(&self) -> Option<String> {
        match self {
            Self::Codec => Some(facet("codec", "")),
            Self::Protocol => Some(facet("protocol", "")),
            Self::Gap => Some(facet("gap", "")),
            Self::Tag(name) => Some(facet(&tag_facet(name), "")),
            _ => None,
        }
    }
}

/// The token by which documents with this value are counted: the value as it is.
pub(super) fn facet(name: &str, value: &str) -> String {
    format!("{name}\0{value}")
}

/// The name of a tag among facets.
pub(super) fn tag_facet(name: &str) -> String {
    format!("tags.{}", name.to_lowercase())
}

/// What the results of a group come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Totals {
    /// Results.
    pub count: u64,
    /// Of them fragments.
    pub fragments: u64,
    /// Of them runs.
    pub runs: u64,
    /// Of them gaps.
    pub gaps: u64,
    /// Bytes of the fragments' samples.
    pub size_bytes: u64,
    /// Length of the fragments by the producer's clock, within `start` and `end`.
    pub duration_ms: u64,
    /// Length of the gaps by the producer's clock, within `start` and `end`.
    pub gap_ms: u64,
    /// Of the fragments' bitrates; none: there are none.
    pub bitrate: Option<Percentiles>,
}

impl Totals {
    /// But for the bitrates. The times of a gap are what a producer said: their sum may be anything.
    fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.count, other.count),
            (&mut self.fragments, other.fragments),
            (&mut self.runs, other.runs),
            (&mut self.gaps, other.gaps),
            (&mut self.size_bytes, other.size_bytes),
            (&mut self.duration_ms, other.duration_ms),
            (&mut self.gap_ms, other.gap_ms),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// How values are spread. Exact within 1 %, the least and the greatest to the bit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// The least.
    pub min: f64,
    /// Half are not above.
    pub p50: f64,
    /// 90 % are not above.
    pub p90: f64,
    /// 99 % are not above.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

/// What results have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKey {
    /// When their interval begins.
    Time(UnixMs),
    /// A name or a value.
    Word(String),
}

/// Groups of results.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aggregate {
    /// In the order asked for.
    pub groups: Vec<(GroupKey, Totals)>,
    /// How many there are in all.
    pub group_count: u64,
    /// Length of the groups by time.
    pub interval_ms: Option<i64>,
    /// All results, each once.
    pub total: Totals,
    /// As of a [page](super::SearchPage::indexed_watermark).
    pub indexed_watermark: Option<FragmentNumber>,
}

/// Counts while the segments are read.
struct Tally {
    totals: Totals,
    bitrates: DDSketch,
}

/// What one document adds.
#[derive(Clone, Copy)]
struct Values {
    kind: u64,
    size_bytes: u64,
    length_ms: u64,
    bitrate: Option<u64>,
}

impl Tally {
    fn new() -> Self {
        Self { totals: Totals::default(), bitrates: DDSketch::new(Config::defaults()) }
    }

    fn add(&mut self, values: Values) {
        let Values { kind, size_bytes, length_ms, bitrate } = values;
        let mut one = Totals { count: 1, ..Totals::default() };
        if kind == kind_code(HitKind::Fragment) {
            (one.fragments, one.size_bytes, one.duration_ms) = (1, size_bytes, length_ms);
            if let Some(bitrate) = bitrate {
                self.bitrates.add(bitrate as f64);
            }
        } else if kind == kind_code(HitKind::Gap) {
            (one.gaps, one.gap_ms) = (1, length_ms);
        } else {
            one.runs = 1;
        }
        self.totals.add(&one);
    }

    fn merge(&mut self, other: &Self) {
        self.totals.add(&other.totals);
        // Both are of one configuration.
        let _ = self.bitrates.merge(&other.bitrates);
    }

    fn finish(self) -> Totals {
        let bitrates = self.bitrates;
        let at = |quantile| bitrates.quantile(quantile).ok().flatten();
        let percentiles = || {
            let (min, max) = (bitrates.min()?, bitrates.max()?);
            Some(Percentiles { min, p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)?, max })
        };
        Totals { bitrate: percentiles(), ..self.totals }
    }
}

/// Before it is known what it is called.
#[derive(PartialEq, Eq, Hash, Clone)]
enum RawKey {
    /// The kind, the interval's number or the stream's key.
    Number(i64),
    Word(String),
}

/// Tallies of a part of the index.
pub(super) struct Tallies {
    total: Tally,
    groups: HashMap<RawKey, Tally>,
}

impl Tallies {
    pub(super) fn new() -> Self {
        Self { total: Tally::new(), groups: HashMap::new() }
    }

    fn group(&mut self, key: RawKey) -> Option<&mut Tally> {
        if self.groups.len() >= GROUPS_COUNTED_MAX && !self.groups.contains_key(&key) {
            return None;
        }
        Some(self.groups.entry(key).or_insert_with(Tally::new))
    }

    /// Adds those of another part.
    pub(super) fn merge(&mut self, other: Self) -> tantivy::Result<()> {
        self.total.merge(&other.total);
        for (key, tally) in other.groups {
            self.group(key).ok_or_else(too_many)?.merge(&tally);
        }
        Ok(())
    }
}

/// Not of the index: what tantivy carries through for us.
const TOO_MANY: &str = "too many groups";

fn too_many() -> tantivy::TantivyError {
    tantivy::TantivyError::InvalidArgument(TOO_MANY.to_owned())
}

/// Whether the request asks for more groups than are counted.
pub(super) fn is_too_many(error: &tantivy::TantivyError) -> bool {
    matches!(error, tantivy::TantivyError::InvalidArgument(what) if what == TOO_MANY)
}

pub(super) fn too_many_groups() -> SearchError {
    invalid("by", format!("more than {GROUPS_COUNTED_MAX} groups: narrow the query, or take a longer interval"))
}

fn invalid(field: &'static str, detail: impl Into<String>) -> SearchError {
    SearchError::Invalid { field, detail: detail.into() }
}

/// Counts one index.
pub(super) struct Count {
    pub(super) plan: Arc<Plan>,
    pub(super) scope: Scope,
}

/// How results are grouped.
pub(super) struct Plan {
    pub(super) fields: Arc<Fields>,
    pub(super) by: Option<GroupBy>,
    /// 0: not by time.
    pub(super) interval_ms: i64,
    pub(super) start: Option<UnixMs>,
    pub(super) end: Option<UnixMs>,
}

impl Plan {
    /// Earliest and latest time of all documents of a segment.
    pub(super) fn span(reader: &SegmentReader, clock: Number) -> tantivy::Result<Option<(i64, i64)>> {
        let column = reader.fast_fields().column_opt::<i64>(clock.name())?;
        Ok(column.filter(|_| reader.num_docs() > 0).map(|column| (column.min_value(), column.max_value())))
    }
}

impl AggregateRequest {
    /// # Errors
    /// `Invalid` if it asks for what there is not.
    pub(super) fn check(&self) -> Result<(), SearchError> {
        if self.limit == 0 || self.limit > GROUPS_MAX {
            return Err(invalid("limit", format!("1 to {GROUPS_MAX}")));
        }
        if let Some(sort) = &self.sort {
            rank(&sort.field, &Totals::default())?;
        }
        match self.interval_ms {
            Some(_) if self.clock().is_none() => Err(invalid("interval", "goes with by=time or by=server_time")),
            Some(interval) if interval < 1000 => Err(invalid("interval", "is a second at least")),
            _ => Ok(()),
        }
    }

    /// By which groups are intervals.
    pub(super) fn clock(&self) -> Option<Number> {
        self.by.as_ref().and_then(GroupBy::clock)
    }

    /// The shortest interval that people read well, with few groups between these times.
    pub(super) fn interval_of(span: Option<(i64, i64)>) -> i64 {
        let length = span.map_or(0, |(from, to)| to.saturating_sub(from));
        let fits = |interval: &i64| length / interval < INTERVALS_AIMED;
        let longest = || (length / INTERVALS_AIMED / DAY_MS).saturating_add(1).saturating_mul(DAY_MS);
        INTERVALS_S.into_iter().map(|seconds| seconds * 1000).find(fits).unwrap_or_else(longest)
    }

    /// The answer, of what was counted. `name`: of a stream's key.
    pub(super) fn finish(
        &self,
        plan: &Plan,
        tallies: Tallies,
        name: impl Fn(u64) -> Option<String>,
    ) -> Result<Aggregate, SearchError> {
        let mut named: HashMap<GroupKey, Tally> = HashMap::new();
        for (key, tally) in tallies.groups {
            let key = match (key, &self.by) {
                (RawKey::Word(word), _) => GroupKey::Word(word),
                (RawKey::Number(number), Some(GroupBy::Time | GroupBy::ServerTime)) => {
                    GroupKey::Time(UnixMs(number.saturating_mul(plan.interval_ms)))
                }
                (RawKey::Number(number), Some(GroupBy::Kind)) => {
                    let kinds = [HitKind::Fragment, HitKind::Run, HitKind::Gap];
                    let Some(kind) = kinds.into_iter().find(|kind| kind_code(*kind) as i64 == number) else { continue };
                    GroupKey::Word(kind.name().to_owned())
                }
                // Deleted since.
                (RawKey::Number(number), _) => match name(number as u64) {
                    Some(name) => GroupKey::Word(name),
                    None => continue,
                },
            };
            named.entry(key).or_insert_with(Tally::new).merge(&tally);
        }
        let mut groups: Vec<_> = named.into_iter().map(|(key, tally)| (key, tally.finish())).collect();
        let group_count = groups.len() as u64;
        groups.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let by_count = Sort { field: "count".to_owned(), descending: true };
        match &self.sort {
            None if self.clock().is_some() => {}
            Some(sort) if sort.field == "key" => {
                if sort.descending {
                    groups.reverse();
                }
            }
            sort => {
                let sort = sort.as_ref().unwrap_or(&by_count);
                groups.sort_by_cached_key(|(_, totals)| {
                    let rank = rank(&sort.field, totals).unwrap_or(0);
                    if sort.descending { u64::MAX - rank } else { rank }
                });
            }
        }
        groups.truncate(self.limit);
        let interval_ms = self.clock().map(|_| plan.interval_ms);
        Ok(Aggregate { groups, group_count, interval_ms, total: tallies.total.finish(), indexed_watermark: None })
    }
}

/// By what groups are sorted.
fn rank(field: &str, totals: &Totals) -> Result<u64, SearchError> {
    Ok(match field {
        "key" => 0,
        "count" => totals.count,
        "fragments" => totals.fragments,
        "runs" => totals.runs,
        "gaps" => totals.gaps,
        "size_bytes" => totals.size_bytes,
        "duration_ms" => totals.duration_ms,
        "gap_ms" => totals.gap_ms,
        "bitrate" => totals.bitrate.map_or(0, |bitrate| bitrate.p50 as u64),
        _ => {
            let known = "key, count, fragments, runs, gaps, size_bytes, duration_ms, gap_ms or bitrate is expected";
            return Err(invalid("sort", known));
        }
    })
}

impl Collector for Count {
    type Fruit = tantivy::Result<Tallies>;
    type Child = Segment;

    fn for_segment(&self, _: SegmentOrdinal, reader: &SegmentReader) -> tantivy::Result<Segment> {
        let (columns, plan) = (reader.fast_fields(), Arc::clone(&self.plan));
        let tokens = match plan.by.as_ref().and_then(GroupBy::facet) {
            Some(before) => Some(Tokens {
                index: reader.inverted_index(plan.fields.text(Text::Facet))?,
                before,
                found: vec![0; reader.max_doc().div_ceil(64) as usize],
            }),
            None => None,
        };
        Ok(Segment {
            live: Live::open(self.scope.clone(), reader)?,
            time: columns.column_opt(Number::Time.name())?,
            clock: match plan.by.as_ref().and_then(GroupBy::clock) {
                Some(clock) => columns.column_opt(clock.name())?,
                None => None,
            },
            size_bytes: columns.column_opt(Number::SizeBytes.name())?,
            duration_ms: columns.column_opt(Number::DurationMs.name())?,
            bitrate: columns.column_opt(Number::Bitrate.name())?,
            plan,
            tokens,
            tallies: Tallies::new(),
            too_many: false,
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<tantivy::Result<Tallies>>) -> tantivy::Result<tantivy::Result<Tallies>> {
        let mut all = Tallies::new();
        for fruit in fruits {
            all.merge(fruit?)?;
        }
        Ok(Ok(all))
    }
}

/// The tokens of the groups, and which documents of the segment are results.
struct Tokens {
    index: Arc<InvertedIndexReader>,
    /// What they begin with.
    before: String,
    found: Vec<u64>,
}

impl Tokens {
    fn note(&mut self, doc: DocId) {
        self.found[doc as usize / 64] |= 1 << (doc % 64);
    }

    fn is_found(&self, doc: DocId) -> bool {
        self.found[doc as usize / 64] & 1 << (doc % 64) != 0
    }
}

/// Counts one segment of an index.
pub(super) struct Segment {
    plan: Arc<Plan>,
    live: Live,
    time: Option<Column<i64>>,
    /// That groups are by.
    clock: Option<Column<i64>>,
    size_bytes: Option<Column<u64>>,
    duration_ms: Option<Column<u64>>,
    bitrate: Option<Column<u64>>,
    tokens: Option<Tokens>,
    tallies: Tallies,
    too_many: bool,
}

impl Segment {
    fn values(&self, doc: DocId, kind: u64) -> Values {
        let unsigned = |column: &Option<Column<u64>>| column.as_ref().and_then(|column| column.first(doc));
        Values {
            kind,
            size_bytes: unsigned(&self.size_bytes).unwrap_or(0),
            length_ms: self.length_ms(doc, unsigned(&self.duration_ms).unwrap_or(0)),
            bitrate: unsigned(&self.bitrate),
        }
    }

    /// Within the bounds of the request.
    fn length_ms(&self, doc: DocId, duration_ms: u64) -> u64 {
        let Plan { start, end, .. } = &*self.plan;
        if start.is_none() && end.is_none() {
            return duration_ms;
        }
        let from = UnixMs(self.time.as_ref().and_then(|column| column.first(doc)).unwrap_or(0));
        let to = from.plus_ms(i64::try_from(duration_ms).unwrap_or(i64::MAX));
        let (from, to) = (start.map_or(from, |start| from.max(start)), end.map_or(to, |end| to.min(end)));
        u64::try_from(to.since_ms(from)).unwrap_or(0)
    }

    /// None: groups are by tokens, or there are none.
    fn key(&self, doc: DocId, stream: u64, kind: u64) -> Option<i64> {
        match self.plan.by.as_ref()? {
            GroupBy::Time | GroupBy::ServerTime => {
                let at = self.clock.as_ref()?.first(doc)?;
                let first = self.plan.start.filter(|_| self.plan.by == Some(GroupBy::Time));
                Some(first.map_or(at, |first| at.max(first.0)).div_euclid(self.plan.interval_ms))
            }
            // Its bits.
            GroupBy::Stream | GroupBy::Device => Some(stream as i64),
            GroupBy::Kind => Some(kind as i64),
            _ => None,
        }
    }

    /// Goes along the list of each token.
    fn count_tokens(&mut self) -> tantivy::Result<()> {
        let Some(tokens) = self.tokens.take() else { return Ok(()) };
        let mut beyond = tokens.before.clone().into_bytes();
        // The NUL at its end.
        if let Some(last) = beyond.last_mut() {
            *last += 1;
        }
        let mut terms = tokens.index.terms().range().ge(&tokens.before).lt(&beyond).into_stream()?;
        while terms.advance() {
            let mut list = tokens.index.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?;
            let mut group: Option<RawKey> = None;
            while list.doc() != TERMINATED {
                let doc = list.doc();
                if tokens.is_found(doc) {
                    let key = group.get_or_insert_with(|| {
                        let value = terms.key().get(tokens.before.len()..).unwrap_or_default();
                        RawKey::Word(String::from_utf8_lossy(value).into_owned())
                    });
                    let values = self.values(doc, self.live.kind(doc));
                    self.tallies.group(key.clone()).ok_or_else(too_many)?.add(values);
                }
                list.advance();
            }
        }
        Ok(())
    }
}

impl SegmentCollector for Segment {
    type Fruit = tantivy::Result<Tallies>;

    fn collect(&mut self, doc: DocId, _: Score) {
        let Some((stream, kind)) = self.live.stream_and_kind(doc) else { return };
        let values = self.values(doc, kind);
        self.tallies.total.add(values);
        if let Some(tokens) = &mut self.tokens {
            tokens.note(doc);
        } else if let Some(key) = self.key(doc, stream, kind) {
            match self.tallies.group(RawKey::Number(key)) {
                Some(tally) => tally.add(values),
                None => self.too_many = true,
            }
        }
    }

    fn harvest(mut self) -> tantivy::Result<Tallies> {
        if self.too_many {
            return Err(too_many());
        }
        self.count_tokens()?;
        Ok(self.tallies)
    }
}
