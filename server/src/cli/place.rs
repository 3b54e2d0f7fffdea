//! Where a subcommand works that can do both: on a stopped data directory, or through a running server.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::DataDir;
use super::client::{Client, Endpoint};

/// A stopped data directory, or with `--endpoint` a running server.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Folder of a stopped server.
    #[arg(long, env = "VIDAR_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// File that holds the key which wraps all others [default: DATA_DIR with `.key` behind it].
    #[arg(long, env = "VIDAR_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Base URL of a running server, to be asked instead.
    #[arg(long)]
    endpoint: Option<String>,
    /// Access key id; with none the root pair of VIDAR_DATA_DIR is used.
    #[arg(long, env = "VIDAR_ACCESS_KEY_ID")]
    access_key_id: Option<String>,
    /// Its secret.
    #[arg(long, env = "VIDAR_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_access_key: Option<String>,
    /// Prints JSON, one object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Place {
    /// A client, if a server is to be asked.
    pub(crate) fn client(&self) -> anyhow::Result<Option<Client>> {
        let Some(endpoint) = self.endpoint.clone() else { return Ok(None) };
        let (access_key_id, secret_access_key) = (self.access_key_id.clone(), self.secret_access_key.clone());
        Client::new(&Endpoint { endpoint, access_key_id, secret_access_key, json: self.json }).map(Some)
    }

    /// The data directory otherwise.
    pub(crate) fn data(&self) -> anyhow::Result<DataDir> {
        let data_dir = self.data_dir.clone().context("--data-dir (or VIDAR_DATA_DIR) or --endpoint is needed")?;
        Ok(DataDir { data_dir, key_file: self.key_file.clone() })
    }
}
