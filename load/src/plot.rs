//! Cost against the number of streams, as an SVG: a line for each protocol, pace and GOP.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::Value;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Around the axes; names of lines stand at the right.
const MARGIN: f64 = 60.0;
const NAMES: f64 = 220.0;
const COLOURS: [&str; 7] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#7f7f7f"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Lines that `publish --out` wrote.
    runs: PathBuf,
    /// The picture.
    svg: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let text = fs::read_to_string(&arguments.runs).with_context(|| arguments.runs.display().to_string())?;
    fs::write(&arguments.svg, svg(&text)?).with_context(|| arguments.svg.display().to_string())
}

/// Runs that do not count are left out.
fn svg(runs: &str) -> anyhow::Result<String> {
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for run in runs.lines() {
        let run: Value = serde_json::from_str(run)?;
        let counts = run["faults"].as_array().is_some_and(Vec::is_empty);
        if let (true, Some(streams), Some(cost)) =
            (counts, run["streams"].as_f64(), run["server_cpu_ms_per_stream_s"].as_f64())
        {
            let word = |name: &str| run[name].as_str().unwrap_or_default().to_owned();
            let name = format!("{}, {}, GOP {} s", word("protocol"), word("pace"), run["gop_s"]);
            lines.entry(name).or_default().push((streams, cost));
        }
    }
    ensure!(!lines.is_empty(), "no run that counts");
    let most = |get: fn(&(f64, f64)) -> f64| lines.values().flatten().map(get).fold(0.0, f64::max) * 1.1;
    let (streams_max, cost_max) = (most(|point| point.0), most(|point| point.1));
    let x = |streams: f64| MARGIN + (WIDTH - 2.0 * MARGIN - NAMES) * streams / streams_max;
    let y = |cost: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * cost / cost_max;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{MARGIN}\" y=\"30\">\
         server CPU, ms per stream-second, against streams</text>\n"
    );
    for step in 0..=4 {
        let (streams, cost) = (streams_max * f64::from(step) / 4.0, cost_max * f64::from(step) / 4.0);
        let (left, right, bottom) = (x(0.0), x(streams_max), y(0.0));
        writeln!(out, "<path d=\"M{left:.1} {0:.1}H{right:.1}\" stroke=\"#ddd\"/>", y(cost))?;
        writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{cost:.1}</text>", left - 6.0, y(cost) + 4.0)?;
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{streams:.0}</text>",
            x(streams),
            bottom + 18.0
        )?;
    }
    for (index, (name, points)) in lines.iter_mut().enumerate() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let colour = COLOURS[index % COLOURS.len()];
        let shown: Vec<_> =
            points.iter().map(|(streams, cost)| format!("{:.1},{:.1}", x(*streams), y(*cost))).collect();
        writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>", shown.join(" "))?;
        for (streams, cost) in points.iter() {
            writeln!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*streams), y(*cost))?;
        }
        let (left, top) = (WIDTH - NAMES - MARGIN + 20.0, MARGIN + 18.0 * index as f64);
        writeln!(out, "<text x=\"{left}\" y=\"{top}\" fill=\"{colour}\">{name}</text>")?;
    }
    Ok(out + "</svg>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_do_not_count_are_not_drawn() {
        let run = |protocol: &str, streams: u32, faults: &str| {
            format!(
                "{{\"protocol\":\"{protocol}\",\"pace\":\"aligned\",\"gop_s\":2,\"streams\":{streams},\
                 \"server_cpu_ms_per_stream_s\":2.5,\"faults\":[{faults}]}}"
            )
        };
        let runs = [run("A", 20, ""), run("A", 10, ""), run("B", 10, "\"late\""), "{\"baseline\":\"x\"}".to_owned()];
        let svg = svg(&runs.join("\n")).unwrap();
        assert!(svg.contains("A, aligned, GOP 2 s") && !svg.contains("B, aligned"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(super::svg(&runs[2]).is_err());
    }
}
