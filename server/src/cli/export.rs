//! `vidar export`: a range as a plain file, with a manifest that says what is in it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use hyper::header::HeaderMap;
use ring::digest::{self, SHA256};
use serde_json::{Value, json};
use vidar_core::time::UnixMs;

use super::EXIT_DAMAGE;
use super::client::{Client, encode, json_of, progress, query, write_body};
use super::local::Local;
use super::offline::print;
use super::part::{PartFile, hex};
use super::place::Place;

/// Of the manifest.
const MANIFEST_VERSION: u64 = 1;
/// Fragments that are read before the bar moves on.
const PAGE: &str = "20";

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    place: Place,
    /// Name of the stream; with `--check` the file to be checked.
    #[arg(value_name = "STREAM|FILE")]
    subject: String,
    /// From, by producer time: RFC 3339, or seconds or milliseconds since 1970.
    #[arg(long)]
    start: Option<String>,
    /// To, exclusive.
    #[arg(long)]
    end: Option<String>,
    /// File to write: `.mp4` or `.mkv`.
    #[arg(long, short, required_unless_present = "check")]
    out: Option<PathBuf>,
    /// File for the manifest (JSON).
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Leaves damaged fragments out instead of failing.
    #[arg(long)]
    skip_damaged: bool,
    /// Manifest to check a file against.
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["out", "manifest", "start", "end", "skip_damaged"])]
    check: Option<PathBuf>,
}

/// Whoever answers.
enum Source {
    Server(Box<Client>),
    Directory(Box<Local>),
}

impl Source {
    async fn json(&self, path: &str) -> anyhow::Result<Value> {
        match self {
            Self::Server(client) => json_of(client.get(path).await?.into_body()).await,
            Self::Directory(local) => json_of(local.get(path).await?.into_body()).await,
        }
    }

    async fn download(&self, path: &str, to: &mut dyn Write) -> anyhow::Result<(u64, HeaderMap)> {
        match self {
            Self::Server(client) => {
                let response = client.get(path).await?;
                let headers = response.headers().clone();
                Ok((write_body(response, to).await?, headers))
            }
            Self::Directory(local) => {
                let response = local.get(path).await?;
                let headers = response.headers().clone();
                Ok((write_body(response, to).await?, headers))
            }
        }
    }

    /// All pages of a list.
    async fn all(&self, path: &str, list: &str, pairs: &[(&str, Option<String>)]) -> anyhow::Result<Vec<Value>> {
        let bar = progress(None, "{pos} read {spinner}");
        let (mut items, mut token) = (Vec::new(), None);
        loop {
            let page = [pairs, &[("next_token", token)]].concat();
            let mut answer = self.json(&format!("{path}{}", query(&page))).await?;
            if let Value::Array(more) = answer[list].take() {
                items.extend(more);
            }
            bar.set_position(items.len() as u64);
            token = answer["next_token"].as_str().map(str::to_owned);
            if token.is_none() {
                bar.finish_and_clear();
                return Ok(items);
            }
        }
    }
}

pub(crate) async fn export(args: ExportArgs) -> anyhow::Result<ExitCode> {
    if let Some(manifest) = &args.check {
        return check(manifest, Path::new(&args.subject), args.place.json);
    }
    let source = match args.place.client()? {
        Some(client) => Source::Server(Box::new(client)),
        None => Source::Directory(Box::new(Local::open(&args.place.data()?).await?)),
    };
    let written = write(&source, &args).await;
    if let Source::Directory(local) = source {
        local.close().await?;
    }
    let manifest = written?;
    if args.place.json {
        print(&manifest.to_string())?;
    } else {
        let (output, fragments) = (&manifest["output"], manifest["fragments"].as_array().map_or(0, Vec::len));
        let (size, hash) = (&output["size_bytes"], output["sha256"].as_str().unwrap_or_default());
        print(&format!("{fragments} fragments, {size} bytes, SHA-256 {hash}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn write(source: &Source, args: &ExportArgs) -> anyhow::Result<Value> {
    let out = args.out.as_deref().context("--out is needed")?;
    let container = out.extension().and_then(|ext| ext.to_str()).filter(|ext| matches!(*ext, "mp4" | "mkv"));
    let container = container.context("--out: expected a name that ends in .mp4 or .mkv")?;
    let stream = format!("/v1/streams/{}", encode(&args.subject));
    let range = |end: Option<String>| [("start", args.start.clone()), ("end", end)];
    let asked = [&range(args.end.clone())[..], &[("limit", Some(PAGE.to_owned()))]].concat();
    let fragments = source.all(&format!("{stream}/manifest"), "fragments", &asked).await?;
    // What becomes durable meanwhile is no part of it.
    let end = args.end.clone().or_else(|| last_end(&fragments));
    let gaps = source.all(&format!("{stream}/timeline"), "gaps", &range(end.clone())).await?;
    let (damaged, whole): (Vec<_>, Vec<_>) = fragments.into_iter().partition(|fragment| !fragment["damage"].is_null());
    let gaps: Vec<Value> = gaps.into_iter().filter(|gap| gap["cause"] == "damage").collect();
    let is_whole = damaged.is_empty() && gaps.is_empty();
    if !is_whole && !args.skip_damaged {
        let fragment = |fragment: &Value| fragment["damage"].as_str().unwrap_or_default().to_owned();
        let gap = |gap: &Value| format!("{} to {}: lost to damage", text(&gap["start"]), text(&gap["end"]));
        let list: Vec<String> = damaged.iter().map(fragment).chain(gaps.iter().map(gap)).collect();
        bail!("damage in the range (--skip-damaged leaves it out):\n{}", list.join("\n"));
    }
    let check = args.skip_damaged.then(|| "1".to_owned());
    let pairs = [&range(end.clone())[..], &[("check", check)]].concat();
    let mut part = PartFile::create(out)?;
    let (len, headers) = source.download(&format!("{stream}/clip.{container}{}", query(&pairs)), &mut part).await?;
    let sha256 = part.finish()?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let manifest = json!({
        "version": MANIFEST_VERSION, "stream": args.subject, "start": args.start, "end": end, "container": container,
        "output": { "file": out.file_name().and_then(|name| name.to_str()), "size_bytes": len, "sha256": sha256 },
        "missing": header("vidar-gaps"), "omitted_tracks": header("vidar-omitted-tracks"),
        "fragments": whole, "damaged": damaged, "damage_gaps": gaps,
    });
    if let Some(path) = &args.manifest {
        let mut file = PartFile::create(path)?;
        writeln!(file, "{}", serde_json::to_string_pretty(&manifest)?).context("write the manifest")?;
        file.finish()?;
    }
    Ok(manifest)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Where the last of them ends.
fn last_end(fragments: &[Value]) -> Option<String> {
    let end = |fragment: &Value| {
        let start = UnixMs::parse(fragment["producer_time"].as_str()?).ok()?;
        Some(start.plus_ms(fragment["duration_ms"].as_i64()?.max(1)))
    };
    fragments.iter().filter_map(end).max().map(|end| end.to_string())
}

/// Compares a file with its manifest.
fn check(manifest: &Path, file: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let text = std::fs::read(manifest).with_context(|| format!("read {}", manifest.display()))?;
    let expected: Value = serde_json::from_slice(&text).with_context(|| manifest.display().to_string())?;
    if expected["version"] != MANIFEST_VERSION {
        bail!("{}: no manifest of version {MANIFEST_VERSION}", manifest.display());
    }
    let mut hash = digest::Context::new(&SHA256);
    let mut input = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let bar = progress(input.metadata().ok().map(|meta| meta.len()), "{bytes} of {total_bytes} {wide_bar} {eta}");
    let (mut buffer, mut len) = (vec![0; 1 << 20], 0_u64);
    loop {
        let read = input.read(&mut buffer).with_context(|| format!("read {}", file.display()))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        len += read as u64;
        bar.set_position(len);
    }
    bar.finish_and_clear();
    let sha256 = hex(&hash.finish());
    let output = &expected["output"];
    let same = output["size_bytes"] == len && output["sha256"] == sha256.as_str();
    if as_json {
        print(&json!({ "file": file, "size_bytes": len, "sha256": sha256, "matches": same }).to_string())?;
    } else {
        print(if same { "the file is what its manifest says" } else { "the file is NOT what its manifest says" })?;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGE) })
}
