//! Subcommands that ask a running server.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use hyper::Method;
use serde_json::{Value, json};

use super::client::{Client, Endpoint, encode, query};
use super::part::PartFile;

#[derive(Debug, Args)]
pub(crate) struct StreamsArgs {
    #[command(flatten)]
    endpoint: Endpoint,
    #[command(subcommand)]
    action: Option<StreamsAction>,
}

#[derive(Debug, Subcommand)]
enum StreamsAction {
    /// Lists streams (as with no action).
    List,
    /// Shows one.
    Show { name: String },
    /// Creates one.
    Create {
        name: String,
        #[command(flatten)]
        settings: StreamSettings,
    },
    /// Changes settings of one.
    Change {
        name: String,
        #[command(flatten)]
        settings: StreamSettings,
    },
    /// Deletes one, with all it holds.
    Delete { name: String },
}

#[derive(Debug, Args)]
struct StreamSettings {
    /// Device it belongs to.
    #[arg(long)]
    device: Option<String>,
    /// Fragments older than this may go.
    #[arg(long)]
    retention_hours: Option<u32>,
    /// Above this the oldest fragments go; `none`: no bound.
    #[arg(long, value_parser = bound)]
    retention_bytes: Option<Value>,
    /// Attribute for listings and search, once for each. They take the place of all that it has.
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
}

fn bound(text: &str) -> Result<Value, std::num::ParseIntError> {
    if text == "none" { Ok(Value::Null) } else { text.parse::<u64>().map(Value::from) }
}

fn tag(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl StreamSettings {
    fn json(&self) -> Value {
        let mut body = json!({});
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[name] = value;
            }
        };
        set("device", self.device.clone().map(Value::from));
        set("retention_hours", self.retention_hours.map(Value::from));
        set("retention_bytes", self.retention_bytes.clone());
        let tags: serde_json::Map<_, _> =
            self.tags.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        set("tags", (!tags.is_empty()).then(|| tags.into()));
        body
    }
}

#[derive(Debug, Args)]
pub(crate) struct FragmentsArgs {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Name of the stream.
    stream: String,
    #[command(flatten)]
    range: Range,
    /// Clock that the range is in.
    #[arg(long, value_enum, default_value = "producer")]
    time: TimeAxis,
    /// `asc`, or `desc`: the newest first.
    #[arg(long)]
    order: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Continues where another list ended.
    #[arg(long)]
    next_token: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TimeAxis {
    Producer,
    Server,
}

#[derive(Debug, Args)]
struct Range {
    /// From: RFC 3339, or seconds or milliseconds since 1970.
    #[arg(long)]
    start: Option<String>,
    /// To, exclusive.
    #[arg(long)]
    end: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Query, such as `stream:cam-1 AND gap:true`.
    #[arg(default_value = "*")]
    query: String,
    #[command(flatten)]
    range: Range,
    /// Field to sort by, with `-` before it for descending.
    #[arg(long, allow_hyphen_values = true)]
    sort: Option<String>,
    /// Counts the results in groups by `time`, `server_time`, `stream`, `device`, `kind`, `codec`, `protocol`, `gap` or
    /// `tags.NAME` in place of listing them.
    #[arg(long, conflicts_with_all = ["format", "next_token"])]
    by: Option<String>,
    /// Length of groups by time, such as `15m`.
    #[arg(long, requires = "by")]
    interval: Option<String>,
    /// Writes all results as rows, as they are found.
    #[arg(long, value_enum)]
    format: Option<Rows>,
    /// How many at most: 50, or of rows all.
    #[arg(long)]
    limit: Option<u32>,
    /// Continues where another list ended.
    #[arg(long)]
    next_token: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rows {
    Csv,
    Ndjson,
}

#[derive(Debug, Args)]
pub(crate) struct ClipArgs {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Name of the stream.
    stream: String,
    #[command(flatten)]
    range: Range,
    /// File to write; `.mkv` gives Matroska, everything else MP4; `-`: standard output.
    #[arg(long, short)]
    output: PathBuf,
    /// What to do about gaps: `skip` or `error`.
    #[arg(long)]
    gaps: Option<String>,
}

pub(crate) async fn streams(args: StreamsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.endpoint)?;
    let path = |name: &str| format!("/v1/streams/{}", encode(name));
    let answer = match args.action.unwrap_or(StreamsAction::List) {
        StreamsAction::List => all_pages(&client, "/v1/streams", "streams").await?,
        StreamsAction::Show { name } => client.json(Method::GET, &path(&name), None).await?,
        StreamsAction::Create { name, settings } => {
            let mut body = settings.json();
            body["name"] = name.into();
            client.json(Method::POST, "/v1/streams", Some(&body)).await?
        }
        StreamsAction::Change { name, settings } => {
            client.json(Method::PATCH, &path(&name), Some(&settings.json())).await?
        }
        StreamsAction::Delete { name } => client.json(Method::DELETE, &path(&name), None).await?,
    };
    let columns =
        ["name", "device", "retention_hours", "retention_bytes", "totals.fragments", "totals.size_bytes", "live"];
    print(&answer, "streams", &columns, args.endpoint.json)
}

pub(crate) async fn fragments(args: FragmentsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.endpoint)?;
    let time = match args.time {
        TimeAxis::Producer => "producer",
        TimeAxis::Server => "server",
    };
    let query = query(&[
        ("start", args.range.start),
        ("end", args.range.end),
        ("time", Some(time.to_owned())),
        ("order", args.order),
        ("limit", Some(args.limit.to_string())),
        ("next_token", args.next_token),
    ]);
    let path = format!("/v1/streams/{}/fragments{query}", encode(&args.stream));
    let answer = client.json(Method::GET, &path, None).await?;
    let columns = ["fragment_number", "producer_time", "server_time", "duration_ms", "size_bytes", "starts_with_sync"];
    print(&answer, "fragments", &columns, args.endpoint.json)
}

pub(crate) async fn search(args: SearchArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.endpoint)?;
    let limit = args.limit.or(args.format.is_none().then_some(50));
    let format = args.format.map(|rows| match rows {
        Rows::Csv => "csv",
        Rows::Ndjson => "ndjson",
    });
    let (path, columns): (_, &[&str]) = if args.by.is_some() {
        let columns = &["key", "count", "fragments", "gaps", "size_bytes", "duration_ms", "gap_ms", "bitrate.p50"];
        ("/v1/search/aggregate", columns)
    } else {
        let columns = &["kind", "stream", "fragment_number", "producer_time", "duration_ms", "size_bytes", "codecs"];
        ("/v1/search", columns)
    };
    let list = if args.by.is_some() { "groups" } else { "results" };
    let query = query(&[
        ("q", Some(args.query)),
        ("by", args.by),
        ("interval", args.interval),
        ("start", args.range.start),
        ("end", args.range.end),
        ("sort", args.sort),
        ("format", format.map(str::to_owned)),
        ("limit", limit.map(|limit| limit.to_string())),
        ("next_token", args.next_token),
    ]);
    let path = format!("{path}{query}");
    if format.is_some() {
        client.download(&path, &mut std::io::stdout().lock()).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer = client.json(Method::GET, &path, None).await?;
    print(&answer, list, columns, args.endpoint.json)
}

#[allow(clippy::print_stderr)]
pub(crate) async fn clip(args: ClipArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.endpoint)?;
    let container = if args.output.extension().is_some_and(|ext| ext == "mkv") { "mkv" } else { "mp4" };
    let query = query(&[("start", args.range.start), ("end", args.range.end), ("gaps", args.gaps)]);
    let path = format!("/v1/streams/{}/clip.{container}{query}", encode(&args.stream));
    if args.output.as_os_str() == "-" {
        client.download(&path, &mut std::io::stdout().lock()).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut part = PartFile::create(&args.output)?;
    let len = client.download(&path, &mut part).await?;
    part.finish()?;
    if args.endpoint.json {
        write_line(&json!({ "output": args.output, "size_bytes": len }).to_string())?;
    } else {
        eprintln!("{}: {len} bytes", args.output.display());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn all_pages(client: &Client, path: &str, list: &str) -> anyhow::Result<Value> {
    let (mut items, mut token) = (Vec::new(), None);
    loop {
        let mut page = client.json(Method::GET, &format!("{path}{}", query(&[("next_token", token)])), None).await?;
        if let Value::Array(more) = page[list].take() {
            items.extend(more);
        }
        token = page["next_token"].as_str().map(str::to_owned);
        if token.is_none() {
            return Ok(json!({ list: items, "next_token": null }));
        }
    }
}

fn write_line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("write to standard output")
}

pub(crate) fn print(answer: &Value, list: &str, columns: &[&str], as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        write_line(&serde_json::to_string_pretty(answer)?)?;
    } else if !answer.is_null() {
        let one = std::slice::from_ref(answer);
        let rows = answer[list].as_array().map_or(one, Vec::as_slice);
        write_line(&table(rows, columns))?;
        for note in ["total", "indexed_watermark", "next_token"] {
            if !answer[note].is_null() {
                write_line(&format!("{note}: {}", text(&answer[note])))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rows: &[Value], columns: &[&str]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(columns);
    for row in rows {
        // A dot leads into an object.
        let value = |column: &str| column.split('.').fold(row, |value, name| &value[name]);
        table.add_row(columns.iter().map(|column| text(value(column))));
    }
    table.to_string()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
