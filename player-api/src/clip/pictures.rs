//! Which pictures of a span a clip takes: from the sync sample that the first one needs to the last that is shown.

use std::collections::BTreeSet;

use vidar_core::sample::SyncKind;

use super::span::{Known, Need, Origin, Span, Start};
use super::tracks::ClipTrack;

/// Where pictures are taken from: from this sample on, less these leading ones.
#[derive(Debug, Clone, Default)]
pub(super) struct PictureStart {
    pub(super) first: (usize, usize),
    pub(super) left_out: BTreeSet<(usize, usize)>,
    pub(super) sync_ns: i128,
    pub(super) origin: Origin,
}

impl Span {
    /// The picture shown at an instant, and the sync sample that decoding it starts with; else the first that decodes.
    pub(super) fn picture_start(&self, track: &ClipTrack, at_ns: Option<i128>) -> Result<Option<PictureStart>, Need> {
        let before = if matches!(self.start, Start::At(_)) { 0 } else { self.shown.start };
        let known: Vec<Known<'_>> = self.known(track).filter(|sample| sample.fragment >= before).collect();
        // The last of those with the greatest time not after the instant.
        let zone = self.start_zone();
        let candidates = known.iter().enumerate().filter(|(_, sample)| zone.contains(&sample.fragment));
        let shown = at_ns.and_then(|at_ns| {
            let not_after = candidates.filter(|(_, sample)| sample.at_ns() <= at_ns);
            not_after.max_by_key(|(_, sample)| sample.at_ns()).map(|(index, _)| index)
        });
        let Some(shown) = shown else { return self.first_picture(track, &known) };
        // A leading picture refers to what came before the sync sample it follows.
        let mut skip = usize::from(known[shown].entry.sync == SyncKind::Leading);
        for (index, sample) in known[..=shown].iter().enumerate().rev() {
            if sample.entry.sync == SyncKind::Sync {
                if skip == 0 {
                    return Ok(Some(start_at(&known, index, &known[shown])));
                }
                skip -= 1;
            }
            let first_of_fragment = index == 0 || known[index - 1].fragment != sample.fragment;
            if first_of_fragment && sample.fragment > before {
                let back = (self.fragments[sample.fragment].entry.sync_back as usize).max(1);
                let earlier = sample.fragment.saturating_sub(back).max(before);
                if self.fragments[earlier].opened.is_none() {
                    return Err(Need(BTreeSet::from([earlier])));
                }
            }
        }
        // Nothing stored decodes it: the next sync sample.
        let later = known.iter().enumerate().skip(shown).find(|(_, sample)| sample.entry.sync == SyncKind::Sync);
        Ok(later.map(|(index, sample)| start_at(&known, index, sample)))
    }

    fn first_picture(&self, track: &ClipTrack, known: &[Known<'_>]) -> Result<Option<PictureStart>, Need> {
        let in_shown = |sample: &Known<'_>| self.shown.contains(&sample.fragment);
        let sync = known.iter().enumerate().find(|(_, s)| in_shown(s) && s.entry.sync == SyncKind::Sync);
        let found_in = sync.map_or(self.shown.end, |(_, sample)| sample.fragment);
        // A fragment between that is not opened may hold an earlier one.
        let holds = |index: &usize| {
            let fragment = &self.fragments[*index];
            let totals = fragment.source(track).and_then(|source| fragment.totals(source));
            fragment.opened.is_none() && totals.is_some_and(|totals| totals.sync_count > 0)
        };
        match (self.shown.start..found_in).find(holds) {
            Some(index) => Err(Need(BTreeSet::from([index]))),
            None => Ok(sync.map(|(index, sample)| start_at(known, index, sample))),
        }
    }

    /// What is taken of each fragment, where what is shown from `from_ns` on is presented. None: the fragment was not opened
    /// and is taken whole.
    pub(super) fn take_pictures(
        &self,
        track: &ClipTrack,
        start: &PictureStart,
        from_ns: i128,
        end_ns: Option<i128>,
        needed_past_end: bool,
    ) -> Vec<Option<Vec<bool>>> {
        let before_end = |sample: &Known<'_>| end_ns.is_none_or(|end_ns| sample.at_ns() < end_ns);
        let from_start = || self.known(track).filter(|sample| sample.place() >= start.first);
        // The first sample that is not taken any more.
        let stop = if needed_past_end {
            // What is decoded after it, but shown before the start, is of no use.
            let presented = |sample: &Known<'_>| sample.at_ns() >= from_ns && before_end(sample);
            let last = from_start().filter(presented).last().map(|last| (last.fragment, last.position + 1));
            // What is not opened lies before the end.
            let not_opened = self.shown.clone().rfind(|index| self.fragments[*index].opened.is_none());
            last.max(not_opened.map(|index| (index + 1, 0))).unwrap_or(start.first)
        } else {
            from_start().find(|sample| !before_end(sample)).map_or((usize::MAX, 0), |sample| sample.place())
        };
        self.flags(track, start.first.0..=stop.0, |sample| {
            let place = sample.place();
            place >= start.first && place < stop && !start.left_out.contains(&place)
        })
    }
}

fn start_at(known: &[Known<'_>], sync: usize, shown: &Known<'_>) -> PictureStart {
    let after = known.iter().skip(sync + 1).take_while(|sample| sample.entry.sync != SyncKind::Sync);
    let leading = after.filter(|sample| sample.entry.sync == SyncKind::Leading);
    let left_out = leading.map(Known::place).collect();
    let origin = Origin { fragment: shown.fragment, shown_ns: shown.at_ns(), at_ns: shown.at_ns() };
    PictureStart { first: known[sync].place(), left_out, sync_ns: known[sync].at_ns(), origin }
}
