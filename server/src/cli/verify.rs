//! `vidar verify` and `vidar repair`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use hyper::Method;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use vidar_core::clock::SystemClock;
use vidar_core::control::GapRecord;
use vidar_storage::{Depth, Disposal, Progress, RepairOptions, RepairedFile};

use super::client::{Client, progress};
use super::offline::print;
use super::place::Place;
use super::{DataDir, EXIT_DAMAGE};
use crate::verify::{DEPTHS, finding};

/// How often a running server is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
/// Folder in the data directory that damaged files are moved to.
const QUARANTINE_DIR: &str = "quarantine";
const BAR: &str = "{bytes} of {total_bytes} {wide_bar} {eta}";

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// How deep to look.
    #[arg(long, value_enum, default_value = "checksum")]
    depth: VerifyDepth,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum VerifyDepth {
    /// Files are there, and as long as their footers say.
    Presence,
    /// And every checksum holds.
    Checksum,
    /// And every record opens.
    Decrypt,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    data: DataDir,
    /// Damaged files are removed once what opens of them is written anew.
    #[arg(long, conflicts_with = "quarantine")]
    drop: bool,
    /// Folder that damaged files are moved to [default: `quarantine` in the data directory].
    #[arg(long, value_name = "DIR")]
    quarantine: Option<PathBuf>,
    /// Changes nothing; says what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let depth = match args.depth {
        VerifyDepth::Presence => Depth::Presence,
        VerifyDepth::Checksum => Depth::Checksum,
        VerifyDepth::Decrypt => Depth::Decrypt,
    };
    let report = match args.place.client()? {
        Some(client) => verify_online(&client, depth).await?,
        None => verify_offline(&args.place.data()?, depth)?,
    };
    let findings = report["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    if args.place.json {
        print(&report.to_string())?;
    } else {
        findings.iter().try_for_each(|finding| print(&line(finding)))?;
        let number = |name: &str| report[name].as_u64().unwrap_or(0);
        let (files, records, bytes) = (number("files"), number("records"), number("bytes"));
        print(&format!("{files} files, {records} records, {bytes} bytes, {} damaged", number("findings_total")))?;
    }
    anyhow::ensure!(report["state"] == "done", "the verification did not come to its end");
    Ok(if report["findings_total"] == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGE) })
}

fn verify_offline(data: &DataDir, depth: Depth) -> anyhow::Result<Value> {
    let bar = progress(Some(0), BAR);
    let report = vidar_storage::verify(&data.store_options()?, depth, &mut |step| advance(&bar, step))?;
    bar.finish_and_clear();
    let name = |stream| report.streams.get(&stream).map(ToString::to_string);
    let findings: Vec<Value> = report.damage.iter().map(|damage| finding(damage, name)).collect();
    Ok(json!({
        "state": "done", "depth": depth_name(depth), "files": report.files, "unclosed": report.unclosed,
        "records": report.records, "bytes": report.bytes, "findings_total": findings.len(), "findings": findings,
    }))
}

async fn verify_online(client: &Client, depth: Depth) -> anyhow::Result<Value> {
    let path = format!("/v1/verify?depth={}", depth_name(depth));
    let mut report = client.json(Method::POST, &path, None).await?;
    let bar = progress(Some(0), BAR);
    while report["state"] == "running" {
        bar.set_length(report["total_bytes"].as_u64().unwrap_or(0));
        bar.set_position(report["done_bytes"].as_u64().unwrap_or(0));
        tokio::time::sleep(POLL).await;
        report = client.json(Method::GET, "/v1/verify", None).await?;
    }
    bar.finish_and_clear();
    Ok(report)
}

fn advance(bar: &ProgressBar, step: Progress) {
    bar.set_length(step.total_bytes);
    bar.set_position(step.done_bytes);
}

fn depth_name(depth: Depth) -> &'static str {
    DEPTHS.iter().find(|(_, known)| *known == depth).map_or("", |(name, _)| *name)
}

fn line(finding: &Value) -> String {
    let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let mut line =
        format!("{}+{}: {} bytes: {}", text("file"), finding["offset"], finding["len_bytes"], text("detail"));
    if !finding["fragment_number"].is_null() {
        let stream = if finding["stream"].is_null() { text("stream_id") } else { text("stream") };
        line.push_str(&format!(" (stream {stream}, fragment {})", text("fragment_number")));
    }
    line
}

pub(crate) fn repair(args: RepairArgs) -> anyhow::Result<ExitCode> {
    let disposal = match (args.drop, args.quarantine) {
        (true, _) => Disposal::Drop,
        (false, Some(folder)) => Disposal::Quarantine(folder),
        (false, None) => Disposal::Quarantine(args.data.data_dir.join(QUARANTINE_DIR)),
    };
    let how = RepairOptions { disposal, dry_run: args.dry_run, now: SystemClock::shared().now() };
    let bar = progress(Some(0), BAR);
    let report = vidar_storage::repair(&args.data.store_options()?, &how, &mut |step| advance(&bar, step))
        .context("what was done until here is whole; run it again")?;
    bar.finish_and_clear();
    let name = |stream| report.streams.get(&stream).map(ToString::to_string);
    let findings: Vec<Value> = report.damage.iter().map(|damage| finding(damage, name)).collect();
    let gap = |gap: &GapRecord| json!({ "stream": name(gap.stream), "start": gap.start, "end": gap.end });
    let gaps: Vec<Value> = report.gaps.iter().map(gap).collect();
    if args.json {
        let refused = report.refused.iter().map(|(file, why)| json!({ "file": file, "detail": why }));
        print(
            &json!({
                "dry_run": args.dry_run, "findings": findings, "gaps": gaps, "put_away": report.put_away,
                "files": report.files.iter().map(file_json).collect::<Vec<_>>(),
                "keyring_repaired": report.keyring_repaired, "refused": refused.collect::<Vec<_>>(),
            })
            .to_string(),
        )?;
    } else {
        findings.iter().try_for_each(|finding| print(&line(finding)))?;
        for RepairedFile { file, kept, restored, lost, .. } in &report.files {
            print(&format!("{file}: {kept} records kept, {restored} of them from copies, {lost} lost"))?;
        }
        gaps.iter()
            .try_for_each(|gap| print(&format!("gap in {}: {} to {}", gap["stream"], gap["start"], gap["end"])))?;
        report.put_away.iter().try_for_each(|file| print(&format!("{file}: put away")))?;
        report.refused.iter().try_for_each(|(file, why)| print(&format!("{file}: not touched: {why}")))?;
        print(match (report.is_healthy(), args.dry_run) {
            (true, _) => "nothing to repair",
            (false, true) => "nothing was changed (--dry-run)",
            (false, false) => "repaired",
        })?;
    }
    Ok(if report.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGE) })
}

fn file_json(file: &RepairedFile) -> Value {
    let RepairedFile { file, replaced_by, kept, restored, lost } = file;
    json!({ "file": file, "replaced_by": replaced_by, "kept": kept, "restored": restored, "lost": lost })
}
