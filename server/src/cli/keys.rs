//! `vidar keys`: on a stopped data directory, or with `--online` through a running server.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use vidar_core::clock::SystemClock;
use vidar_core::ids::StreamName;
use vidar_core::registry::StreamRegistry;
use vidar_indexer::Index;
use vidar_storage::StoreOptions;
use vidar_storage::crypto::kek::KeyFile;

use super::client::{Client, Endpoint, encode};
use super::online::{all_pages, print};
use crate::keys::{Keys, provider, rotated};
use crate::registry::Registry;
use crate::serve::open_store;

#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Folder of a server that is stopped.
    #[arg(long, env = "VIDAR_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// File that holds the key which wraps all others [default: DATA_DIR with `.key` behind it].
    #[arg(long, env = "VIDAR_KEY_FILE", global = true)]
    key_file: Option<PathBuf>,
    /// Asks the running server.
    #[arg(long, global = true)]
    online: bool,
    #[command(subcommand)]
    action: KeysAction,
}

#[derive(Debug, Subcommand)]
enum KeysAction {
    /// Lists all keys: what they are for, never what they are.
    List,
    /// Makes new keys, for what comes from now on.
    Rotate(RotateArgs),
    /// Destroys the keys of a stream for ever, and with them the stream.
    Destroy {
        /// Name of the stream.
        stream: String,
        /// Does not ask for the name again.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RotateTarget {
    /// The key that opens the keyring.
    #[arg(long)]
    kek: bool,
    /// The key of one stream.
    #[arg(long)]
    stream: Option<String>,
    /// The keys of all streams.
    #[arg(long)]
    all_streams: bool,
}

#[derive(Debug, Args)]
struct RotateArgs {
    #[command(flatten)]
    target: RotateTarget,
    /// File to keep the new key in, made if it is not there; the old one stays where it is. Without it the new key takes
    /// the place of the old one.
    #[arg(long, requires = "kek")]
    new_key_file: Option<PathBuf>,
}

const COLUMNS: [&str; 6] = ["purpose", "stream", "stream_id", "version", "state", "created"];

pub(crate) async fn keys(args: KeysArgs) -> anyhow::Result<ExitCode> {
    if let KeysAction::Destroy { stream, yes: false } = &args.action {
        confirm(stream)?;
    }
    let answer = if args.online { online(&args).await? } else { offline(&args).await? };
    let list = if matches!(args.action, KeysAction::List) { "keys" } else { "streams" };
    let columns: &[&str] = if list == "keys" { &COLUMNS } else { &["stream", "version"] };
    if list == "streams" && !args.endpoint.json && answer["streams"].as_array().is_none_or(Vec::is_empty) {
        return Ok(ExitCode::SUCCESS);
    }
    print(&answer, list, columns, args.endpoint.json)
}

/// Nothing brings the media back.
#[allow(clippy::print_stderr)]
fn confirm(stream: &str) -> anyhow::Result<()> {
    eprint!("all media of {stream} will be unreadable for ever; type its name to go on: ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("read from standard input")?;
    if line.trim() == stream { Ok(()) } else { bail!("not confirmed: nothing was done") }
}

async fn online(args: &KeysArgs) -> anyhow::Result<Value> {
    let client = Client::new(&args.endpoint)?;
    match &args.action {
        KeysAction::List => all_pages(&client, "/v1/keys", "keys").await,
        KeysAction::Rotate(RotateArgs { new_key_file: Some(_), .. }) => {
            bail!("--new-key-file needs the server stopped: it has to be started with the new file")
        }
        KeysAction::Rotate(RotateArgs { target, .. }) => {
            let mut body = json!({ "kek": target.kek, "all_streams": target.all_streams });
            if let Some(stream) = &target.stream {
                body["stream"] = stream.as_str().into();
            }
            client.json(Method::POST, "/v1/keys/rotate", Some(&body)).await
        }
        KeysAction::Destroy { stream, .. } => {
            client.json(Method::DELETE, &format!("/v1/streams/{}", encode(stream)), None).await
        }
    }
}

/// With a store of its own, which is recovered and closed in order.
async fn offline(args: &KeysArgs) -> anyhow::Result<Value> {
    let Some(data_dir) = &args.data_dir else { bail!("--data-dir is needed (or VIDAR_DATA_DIR), or --online") };
    // Where there is no store none is made.
    if !["keyring.a", "keyring.b"].iter().any(|copy| data_dir.join(copy).exists()) {
        bail!("{} holds no keyring", data_dir.display());
    }
    let mut options = StoreOptions::new(data_dir);
    options.kek = provider(data_dir, args.key_file.as_ref())?;
    let clock = SystemClock::shared();
    let (store, index, log) = open_store(options, Arc::clone(&clock), Vec::new()).await?;
    let registry = Arc::new(Registry::new(Arc::clone(&index), store.clone(), clock, 1, false));
    let keys = Keys { store: store.clone(), registry, log };
    let answer = act(&keys, &index, &args.action).await;
    let closed = store.close().await;
    index.close();
    let answer = answer?;
    closed.context("close the store")?;
    Ok(answer)
}

async fn act(keys: &Keys, index: &Index, action: &KeysAction) -> anyhow::Result<Value> {
    match action {
        KeysAction::List => {
            let shown: Vec<Value> = keys.list().into_iter().map(|(_, shown)| shown).collect();
            Ok(json!({ "keys": shown }))
        }
        KeysAction::Rotate(RotateArgs { target: RotateTarget { kek: true, .. }, new_key_file }) => {
            let to = new_key_file.as_ref().map(|path| Arc::new(KeyFile::new(path)) as _);
            keys.store.rotate_kek(to).await?;
            Ok(rotated(true, &[]))
        }
        KeysAction::Rotate(RotateArgs { target, .. }) => {
            let name = target.stream.as_deref().map(StreamName::new).transpose()?;
            Ok(rotated(false, &keys.rotate_streams(name.as_ref()).await?))
        }
        KeysAction::Destroy { stream, .. } => {
            keys.registry.delete(&StreamName::new(stream.as_str())?).await?;
            index.search().commit();
            Ok(Value::Null)
        }
    }
}
