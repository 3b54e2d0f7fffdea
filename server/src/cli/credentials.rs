//! `vidar credentials`: the root pair of a data directory, and the access keys of a running server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};
use vidar_core::clock::SystemClock;

use super::client::{Client, Endpoint, encode};
use super::online::{all_pages, print};
use crate::credentials::{FILE_NAME, RootPair};

#[derive(Debug, Args)]
pub(crate) struct CredentialsArgs {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Folder that holds everything the server keeps: for the root pair.
    #[arg(long, env = "VIDAR_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    action: CredentialsAction,
}

#[derive(Debug, Subcommand)]
enum CredentialsAction {
    /// Shows the root pair of a data directory.
    Show,
    /// Makes a new root pair. A running server takes it up at SIGHUP.
    Rotate,
    /// Makes an access key. Its secret is shown this once.
    Create(CreateArgs),
    /// Lists access keys: never their secrets.
    List,
    /// From now on an access key does not count.
    Disable {
        /// Access key id.
        id: String,
    },
    /// It counts again.
    Enable {
        /// Access key id.
        id: String,
    },
    /// Deletes an access key.
    Delete {
        /// Access key id.
        id: String,
    },
    /// Makes temporary credentials of those that ask, which end by themselves.
    Session {
        /// Seconds until they end.
        #[arg(long, default_value_t = 3600)]
        duration_s: u64,
        #[command(flatten)]
        bounds: Bounds,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// What people call it.
    #[arg(long, default_value = "")]
    name: String,
    #[command(flatten)]
    bounds: Bounds,
    /// Days until it ends.
    #[arg(long)]
    days: Option<u32>,
}

/// What may be done.
#[derive(Debug, Args)]
struct Bounds {
    /// In one word.
    #[arg(long, value_enum, conflicts_with = "policy")]
    preset: Option<Preset>,
    /// Streams that the preset is for, with `*` for anything; may be given several times [default: all].
    #[arg(long = "stream", requires = "preset")]
    streams: Vec<String>,
    /// File with a policy in JSON.
    #[arg(long)]
    policy: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    Read,
    Write,
    Admin,
}

impl Bounds {
    fn put_into(&self, body: &mut Value) -> anyhow::Result<()> {
        if let Some(preset) = self.preset {
            body["preset"] = match preset {
                Preset::Read => "read",
                Preset::Write => "write",
                Preset::Admin => "admin",
            }
            .into();
        }
        if !self.streams.is_empty() {
            body["streams"] = json!(self.streams);
        }
        if let Some(path) = &self.policy {
            let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            body["policy"] = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

pub(crate) async fn credentials(args: CredentialsArgs) -> anyhow::Result<ExitCode> {
    let as_json = args.endpoint.json;
    if let CredentialsAction::Show | CredentialsAction::Rotate = args.action {
        return root_pair(&args);
    }
    let client = Client::new(&args.endpoint)?;
    let path = |id: &str| format!("/v1/credentials/{}", encode(id));
    let answer = match &args.action {
        CredentialsAction::Show | CredentialsAction::Rotate => Value::Null,
        CredentialsAction::List => all_pages(&client, "/v1/credentials", "credentials").await?,
        CredentialsAction::Create(create) => {
            let mut body = json!({ "name": create.name });
            create.bounds.put_into(&mut body)?;
            if let Some(days) = create.days {
                let end = SystemClock::shared()
                    .now()
                    .plus_ms(Duration::from_secs(86_400).as_millis() as i64 * i64::from(days));
                body["expires"] = end.to_string().into();
            }
            client.json(Method::POST, "/v1/credentials", Some(&body)).await?
        }
        CredentialsAction::Disable { id } => {
            client.json(Method::PATCH, &path(id), Some(&json!({ "enabled": false }))).await?
        }
        CredentialsAction::Enable { id } => {
            client.json(Method::PATCH, &path(id), Some(&json!({ "enabled": true }))).await?
        }
        CredentialsAction::Delete { id } => client.json(Method::DELETE, &path(id), None).await?,
        CredentialsAction::Session { duration_s, bounds } => {
            let mut body = json!({ "duration_s": duration_s });
            bounds.put_into(&mut body)?;
            client.json(Method::POST, "/v1/credentials/session", Some(&body)).await?
        }
    };
    let columns: &[&str] = match args.action {
        CredentialsAction::Create(_) => &["access_key_id", "secret_access_key", "name", "expires"],
        CredentialsAction::Session { .. } => &["access_key_id", "secret_access_key", "session_token", "expires"],
        _ => &["access_key_id", "name", "state", "created", "expires", "last_used"],
    };
    print(&answer, "credentials", columns, as_json)
}

fn root_pair(args: &CredentialsArgs) -> anyhow::Result<ExitCode> {
    let data_dir = args.data_dir.as_ref().context("--data-dir is needed (or VIDAR_DATA_DIR)")?;
    let path = data_dir.join(FILE_NAME);
    // Rotates only where there is a pair: a typing error in the path makes no second one.
    let mut pair = RootPair::read(&path)?;
    if let CredentialsAction::Rotate = args.action {
        pair = RootPair::random()?;
        pair.write(&path)?;
    }
    let line = if args.endpoint.json {
        json!({ "access_key_id": pair.access_key_id, "secret_access_key": pair.secret.as_str() }).to_string()
    } else {
        format!("access key id: {}\nsecret:        {}", pair.access_key_id, pair.secret.as_str())
    };
    super::offline::print(&line)?;
    Ok(ExitCode::SUCCESS)
}
