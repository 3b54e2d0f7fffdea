//! `vidar retention`: what would go.

use std::process::ExitCode;

use clap::Args;
use hyper::Method;

use super::client::{Client, Endpoint, query};
use super::online;

#[derive(Debug, Args)]
pub(crate) struct RetentionArgs {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Changes nothing: says what the next look would let go. The server itself looks every 5 s.
    #[arg(long, required = true)]
    dry_run: bool,
    /// Of this stream only.
    #[arg(long)]
    stream: Option<String>,
    /// As if its retention were so many hours.
    #[arg(long, requires = "stream")]
    retention_hours: Option<u32>,
    /// As if it might keep so many bytes; `none`: no bound.
    #[arg(long, requires = "stream")]
    retention_bytes: Option<String>,
    /// As if all streams together might keep so many bytes; `none`: no bound.
    #[arg(long)]
    total_bytes: Option<String>,
}

pub(crate) async fn retention(args: RetentionArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.endpoint)?;
    let query = query(&[
        ("stream", args.stream),
        ("retention_hours", args.retention_hours.map(|hours| hours.to_string())),
        ("retention_bytes", args.retention_bytes),
        ("total_bytes", args.total_bytes),
    ]);
    let answer = client.json(Method::GET, &format!("/v1/retention/preview{query}"), None).await?;
    let columns = ["stream", "reason", "fragments", "stored_bytes", "start", "end"];
    online::print(&answer, "streams", &columns, args.endpoint.json)
}
