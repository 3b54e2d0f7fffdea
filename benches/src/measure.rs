//! Measuring two things side by side, and showing them in a table.

use std::hint::black_box;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table};
use vidar_load::{digits, table};

/// Odd, so that the median is one of them.
const ROUNDS: usize = 9;

/// What one call does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Work {
    /// So many bytes.
    Bytes(usize),
    /// So many of these, shown as time for each.
    Each(usize, &'static str),
    /// So many of these, shown as how many there are in a second.
    Many(usize, &'static str),
}

impl Work {
    /// How fast it went, where a call took this long.
    fn show(self, call: Duration) -> String {
        let seconds = call.as_secs_f64().max(1e-12);
        match self {
            Self::Bytes(bytes) => format!("{} GB/s", digits(bytes as f64 / seconds / 1e9)),
            Self::Each(count, noun) => format!("{} ns/{noun}", digits(seconds * 1e9 / count.max(1) as f64)),
            Self::Many(count, noun) => {
                let rate = count as f64 / seconds;
                let (scaled, unit) = if rate >= 1e6 { (rate / 1e6, "M") } else { (rate / 1e3, "k") };
                format!("{} {unit} {noun}/s", digits(scaled))
            }
        }
    }
}

/// Rows of a run.
pub(crate) struct Report {
    table: Table,
    round: Duration,
}

impl Report {
    /// Each round of each thing takes about `round`.
    pub(crate) fn new(round: Duration) -> Self {
        let mut table = table(&["row", "here", "baseline", "", "speed"]);
        if let Some(column) = table.column_mut(3) {
            column.set_cell_alignment(CellAlignment::Left);
        }
        Self { table, round }
    }

    /// Measures `here` beside `baseline`, in turns, so that what else the machine does hits both. Both do the same
    /// `work` in one call. What they return is not optimised away.
    pub(crate) fn row<A, B>(
        &mut self,
        name: &str,
        work: Work,
        mut here: impl FnMut() -> A,
        baseline_name: &str,
        mut baseline: impl FnMut() -> B,
    ) {
        let mut here = || drop(black_box(here()));
        let mut baseline = || drop(black_box(baseline()));
        let calls = (calls_for(self.round, &mut here), calls_for(self.round, &mut baseline));
        let mut rounds = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
        for _ in 0..ROUNDS {
            rounds.0.push(time(calls.0, &mut here));
            rounds.1.push(time(calls.1, &mut baseline));
        }
        let (here, baseline) = (median(rounds.0), median(rounds.1));
        let ratio = baseline.as_secs_f64() / here.as_secs_f64().max(1e-12);
        let cells = [name, &work.show(here), &work.show(baseline), baseline_name, &format!("×{}", digits(ratio))];
        eprintln!("measured {name}");
        self.table.add_row(cells);
    }

    pub(crate) fn print(&self) {
        println!("{}", self.table);
    }
}

/// How many calls fill a round.
fn calls_for(round: Duration, call: &mut impl FnMut()) -> u32 {
    let mut calls = 1_u32;
    loop {
        let each = time(calls, call);
        if each.saturating_mul(calls) >= round / 4 || calls >= 1 << 28 {
            let wanted = round.as_nanos() / each.as_nanos().max(1);
            return u32::try_from(wanted).unwrap_or(1 << 28).clamp(1, 1 << 28);
        }
        calls *= 4;
    }
}

/// Of one call, over many.
fn time(calls: u32, call: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    // A call may take less than a nanosecond; a duration cannot.
    (start.elapsed() / calls.max(1)).max(Duration::from_nanos(1))
}

fn median(mut rounds: Vec<Duration>) -> Duration {
    rounds.sort_unstable();
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_shown_in_its_unit() {
        let call = Duration::from_millis(1);
        assert_eq!(Work::Bytes(2_500_000).show(call), "2.50 GB/s");
        assert_eq!(Work::Each(1000, "sample").show(call), "1000 ns/sample");
        assert_eq!(Work::Many(2000, "lookups").show(call), "2.00 M lookups/s");
        assert_eq!(Work::Many(20, "lookups").show(call), "20.0 k lookups/s");
    }

    #[test]
    fn the_median_is_not_moved_by_one_slow_round() {
        let rounds = [3, 1, 900, 2, 4].map(Duration::from_millis);
        assert_eq!(median(rounds.to_vec()), Duration::from_millis(3));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }

    #[test]
    fn every_call_is_made() {
        let mut count = 0;
        time(7, &mut || count += 1);
        assert_eq!(count, 7);
        assert!(calls_for(Duration::ZERO, &mut || count += 1) >= 1);
    }
}
