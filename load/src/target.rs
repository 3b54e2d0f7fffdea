//! The server that is measured: one that is started for it, or one that runs.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};

use crate::http::Peer;
use crate::server::Server;
use crate::sink::Sink;

/// The server: one that is started, or one that runs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArguments {
    /// The `vidar` to start; ended after the run.
    #[arg(long)]
    serve: Option<PathBuf>,
    /// Where it keeps everything [default: a folder that is removed at the end].
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Cores for the server; the others are the load's.
    #[arg(long, default_value_t = 1)]
    pub(crate) cpus: usize,
    /// HTTP address of a server that runs.
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: String,
    /// RTSP address of a server that runs.
    #[arg(long, default_value = "127.0.0.1:8554")]
    rtsp: String,
    /// Of a server that runs: its process.
    #[arg(long)]
    server_pid: Option<u32>,
    /// Of a server that runs: ID:SECRET.
    #[arg(long, default_value = "demo:demo-secret")]
    user: String,
}

/// What a server is asked and watched by.
pub(crate) struct Target {
    pub(crate) peer: Arc<Peer>,
    pub(crate) pid: String,
    /// Where it keeps everything, if that is known.
    pub(crate) data: Option<PathBuf>,
    _process: Option<Box<dyn std::any::Any>>,
    _folder: Option<tempfile::TempDir>,
}

impl ServerArguments {
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        let Some(program) = &self.serve else {
            let (id, secret) = self.user.split_once(':').context("--user is ID:SECRET")?;
            let (id, secret) = (id.to_owned(), secret.to_owned());
            let peer = Arc::new(Peer { http: self.http.clone(), rtsp: self.rtsp.clone(), id, secret });
            let pid = self.server_pid.context("--server-pid")?.to_string();
            return Ok(Target { peer, pid, data: self.data_dir.clone(), _process: None, _folder: None });
        };
        let folder = self.data_dir.is_none().then(tempfile::tempdir).transpose()?;
        let data = self.data_dir.clone().or(folder.as_ref().map(|folder| folder.path().join("data")));
        let data = data.context("a folder")?;
        let cores = self.split_cores()?;
        let server = Server::start(program, &data, cores.as_deref())?;
        Ok(Target {
            peer: Arc::new(server.peer()),
            pid: server.pid(),
            data: Some(data),
            _process: Some(Box::new(server)),
            _folder: folder,
        })
    }

    /// A process that throws away what it gets.
    pub(crate) fn sink(&self) -> anyhow::Result<Target> {
        let sink = Sink::start(self.split_cores()?.as_deref())?;
        let (http, rtsp) = (String::new(), sink.address.to_string());
        let peer = Arc::new(Peer { http, rtsp, id: String::new(), secret: String::new() });
        Ok(Target { peer, pid: sink.pid(), data: None, _process: Some(Box::new(sink)), _folder: None })
    }

    /// The cores of the server, if there are enough; this process keeps to the others.
    fn split_cores(&self) -> anyhow::Result<Option<String>> {
        let (server, all) = (self.cpus, std::thread::available_parallelism()?.get());
        if server == 0 || server >= all {
            return Ok(None);
        }
        let (load, pid) = (format!("{server}-{}", all - 1), std::process::id().to_string());
        let status = Command::new("taskset").args(["-apc", &load, &pid]).stdout(Stdio::null()).status();
        ensure!(status.context("taskset")?.success(), "taskset failed");
        Ok(Some(format!("0-{}", server - 1)))
    }
}
