//! Settings: a flag, its environment variable, its key in the configuration file, its default, in this order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;

use crate::targets::{self, ImageTarget, Topic};
use crate::tls::CertFiles;

/// Flags of `vidar serve`; the same names are keys of the configuration file, with `_` for `-`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeArgs {
    /// Folder that holds everything the server keeps.
    #[arg(long, env = "VIDAR_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Configuration file (TOML). Flags and environment variables go before it.
    #[arg(long, env = "VIDAR_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address of the HTTP port [default: 127.0.0.1:8080].
    #[arg(long, env = "VIDAR_HTTP")]
    pub http: Option<SocketAddr>,
    /// Address of the RTSP port [default: 127.0.0.1:8554].
    #[arg(long, env = "VIDAR_RTSP")]
    pub rtsp: Option<SocketAddr>,
    /// File that holds the key which wraps all others [default: DATA_DIR with `.key` behind it].
    #[arg(long, env = "VIDAR_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// Base URL that answers hand out [default: the Host of the request].
    #[arg(long, env = "VIDAR_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Hours that a stream made by its first push keeps [default: 168].
    #[arg(long, env = "VIDAR_DEFAULT_RETENTION_HOURS")]
    pub default_retention_hours: Option<u32>,
    /// Whether a push to an unknown stream creates it [default: true].
    #[arg(long, env = "VIDAR_CREATE_STREAMS")]
    pub create_streams: Option<bool>,
    /// Address of the port of the compatible API (Kinesis Video) [default: none].
    #[arg(long, env = "VIDAR_KVS")]
    pub kvs: Option<SocketAddr>,
    /// URL that clients of the compatible API reach it by; needed where it does not listen on a loopback address.
    #[arg(long, env = "VIDAR_KVS_PUBLIC_URL")]
    pub kvs_public_url: Option<String>,
    /// Whether the port of the compatible API speaks TLS [default: true, but on a loopback address without a certificate].
    #[arg(long, env = "VIDAR_KVS_TLS")]
    pub kvs_tls: Option<bool>,
    /// File of its certificate, and those above it, in PEM [default: the server's own, in the data directory].
    #[arg(long, env = "VIDAR_KVS_TLS_CERT")]
    pub kvs_tls_cert: Option<PathBuf>,
    /// File of the key of that certificate, in PEM.
    #[arg(long, env = "VIDAR_KVS_TLS_KEY")]
    pub kvs_tls_key: Option<PathBuf>,
    /// The region that signatures have to be made for, and that ARNs name [default: any; us-west-2 in ARNs].
    #[arg(long, env = "VIDAR_KVS_REGION")]
    pub kvs_region: Option<String>,
    /// Account that ARNs name, 12 digits [default: 000000000000].
    #[arg(long, env = "VIDAR_KVS_ACCOUNT")]
    pub kvs_account: Option<String>,
    /// Seconds by which the clock of who signs a request may be off [default: 300].
    #[arg(long, env = "VIDAR_KVS_CLOCK_TOLERANCE_S")]
    pub kvs_clock_tolerance_s: Option<u64>,
    /// Fragments of a GetClip at most; the service's own limit is 200 [default: none].
    #[arg(long, env = "VIDAR_KVS_CLIP_FRAGMENTS")]
    pub kvs_clip_fragments: Option<usize>,
    /// MiB of media of a GetClip at most; the service's own limit is 100 [default: none].
    #[arg(long, env = "VIDAR_KVS_CLIP_MIB")]
    pub kvs_clip_mib: Option<u64>,
    /// Rates and counts of the compatible API: those that the reference service publishes, or none
    /// [default: published].
    #[arg(long, env = "VIDAR_KVS_LIMITS")]
    pub kvs_limits: Option<KvsLimits>,
    /// Rules of the reference service for media that are kept, and are not by default.
    #[arg(long, env = "VIDAR_KVS_STRICT", value_delimiter = ',')]
    pub kvs_strict: Option<Vec<KvsRule>>,
    /// Where pictures for a bucket are written: `s3://BUCKET[/PREFIX]=DIR`; several with commas between.
    #[arg(long, env = "VIDAR_IMAGE_TARGET", value_delimiter = ',')]
    pub image_target: Option<Vec<ImageTarget>>,
    /// Where notifications for an SNS topic are posted: `ARN=URL`; several with commas between.
    #[arg(long, env = "VIDAR_NOTIFY", value_delimiter = ',')]
    pub notify: Option<Vec<Topic>>,
    /// Seconds after which a silent publisher may be replaced [default: 10].
    #[arg(long, env = "VIDAR_PUBLISHER_SILENCE_S")]
    pub publisher_silence_s: Option<u64>,
    /// Seconds without a byte after which a push over HTTP ends [default: 30].
    #[arg(long, env = "VIDAR_IDLE_TIMEOUT_S")]
    pub idle_timeout_s: Option<u64>,
    /// Seconds after which a silent RTSP session ends [default: 60].
    #[arg(long, env = "VIDAR_RTSP_TIMEOUT_S")]
    pub rtsp_timeout_s: Option<u64>,
    /// Seconds within which a request's head, a body of JSON, an RTSP message has to arrive [default: 10].
    #[arg(long, env = "VIDAR_HEADER_TIMEOUT_S")]
    pub header_timeout_s: Option<u64>,
    /// Seconds after which a connection is cut whose peer takes nothing of what is written to it [default: 60].
    #[arg(long, env = "VIDAR_WRITE_TIMEOUT_S")]
    pub write_timeout_s: Option<u64>,
    /// Longest fragment in milliseconds; a longer GOP is cut and marked [default: 20000].
    #[arg(long, env = "VIDAR_FRAGMENT_DURATION_MS_MAX")]
    pub fragment_duration_ms_max: Option<u32>,
    /// Memory for samples on their way to the disk and to viewers, in MiB [default: 256].
    #[arg(long, env = "VIDAR_INGEST_MEMORY_MIB")]
    pub ingest_memory_mib: Option<u64>,
    /// Of it, what the heads of all streams may hold for viewers, in MiB [default: a quarter].
    #[arg(long, env = "VIDAR_LIVE_MEMORY_MIB")]
    pub live_memory_mib: Option<u64>,
    /// Size at which a segment file is closed, in MiB [default: 256].
    #[arg(long, env = "VIDAR_SEGMENT_MIB")]
    pub segment_mib: Option<u64>,
    /// Free space in MiB below which the oldest media goes [default: 1024].
    #[arg(long, env = "VIDAR_DISK_POLICY_MIB")]
    pub disk_policy_mib: Option<u64>,
    /// Free space in MiB below which new media is refused [default: 256].
    #[arg(long, env = "VIDAR_DISK_REFUSE_MIB")]
    pub disk_refuse_mib: Option<u64>,
    /// What to do below the policy mark: `delete-oldest` or `refuse` [default: delete-oldest].
    #[arg(long, env = "VIDAR_DISK_POLICY")]
    pub disk_policy: Option<DiskPolicy>,
    /// Media of all streams in MiB above which the oldest goes [default: none, but for the disk marks].
    #[arg(long, env = "VIDAR_RETENTION_MIB")]
    pub retention_mib: Option<u64>,
    /// MiB a second that a verification of the running server reads [default: 32].
    #[arg(long, env = "VIDAR_VERIFY_MIB_S")]
    pub verify_mib_s: Option<u64>,
    /// Pictures that are decoded at the same time [default: 2].
    #[arg(long, env = "VIDAR_IMAGE_WORKERS")]
    pub image_workers: Option<usize>,
    /// Connections at the same time, for each port [default: 4096].
    #[arg(long, env = "VIDAR_CONNECTIONS_MAX")]
    pub connections_max: Option<usize>,
    /// Seconds that a stopping server gives what is under way [default: 10].
    #[arg(long, env = "VIDAR_STOP_TIMEOUT_S")]
    pub stop_timeout_s: Option<u64>,
    /// Log lines as JSON [default: false]. A flag or a variable only: the log begins before the file is read.
    #[arg(long, env = "VIDAR_LOG_JSON")]
    #[serde(skip)]
    pub log_json: Option<bool>,
}

/// Limits of the compatible API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum KvsLimits {
    /// As the reference service publishes them.
    Published,
    /// Only those that keep the server itself from harm.
    None,
}

/// A rule of the reference service for media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum KvsRule {
    /// A fragment is shorter than 20 s.
    Duration,
    /// A fragment begins after the last frame of the one before.
    Timecodes,
    /// No more than 3 tracks.
    Tracks,
    /// Every track has a frame in every fragment.
    Frames,
    /// Clusters have no size in front.
    Sizes,
    /// One EBML header and one Segment.
    Headers,
    /// No tags called `AWS…` but those for the service.
    Tags,
    /// Pictures are made of fragments that ask for them by a tag, and of no others.
    Images,
}

/// What to do when space runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DiskPolicy {
    /// The oldest fragments of all streams go first.
    DeleteOldest,
    /// New media is refused.
    Refuse,
}

/// TLS of the port of the compatible API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvsTls {
    /// Plain HTTP.
    None,
    /// With a certificate of the server's own.
    Own,
    /// With that of these files.
    Files(CertFiles),
}

/// Settings with every default filled in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder that holds everything the server keeps.
    pub data_dir: PathBuf,
    /// Address of the HTTP port.
    pub http: SocketAddr,
    /// Address of the RTSP port.
    pub rtsp: SocketAddr,
    /// File of the key-encryption key, if it is not beside the data directory.
    pub key_file: Option<PathBuf>,
    /// Base URL that answers hand out, without a slash at its end.
    pub public_url: Option<String>,
    /// Address of the port of the compatible API.
    pub kvs: Option<SocketAddr>,
    /// URL that its clients reach it by.
    pub kvs_public_url: Option<String>,
    /// Whether it speaks TLS.
    pub kvs_tls: KvsTls,
    /// The region that signatures have to be made for.
    pub kvs_region: Option<String>,
    /// Account that ARNs name.
    pub kvs_account: String,
    /// By which the clock of who signs a request may be off.
    pub kvs_clock_tolerance: Duration,
    /// Fragments of a GetClip at most.
    pub kvs_clip_fragments: Option<usize>,
    /// Bytes of media of a GetClip at most.
    pub kvs_clip_bytes: Option<u64>,
    /// Its limits.
    pub kvs_limits: KvsLimits,
    /// Its rules that are kept.
    pub kvs_strict: Vec<KvsRule>,
    /// Where pictures go.
    pub image_targets: Vec<ImageTarget>,
    /// Where notifications go.
    pub topics: Vec<Topic>,
    /// Of a stream made by its first push.
    pub default_retention_hours: u32,
    /// Whether a push to an unknown stream creates it.
    pub create_streams: bool,
    /// After which a publisher may be replaced.
    pub publisher_silence: Duration,
    /// After which a silent push over HTTP ends.
    pub idle_timeout: Duration,
    /// After which a silent RTSP session ends.
    pub rtsp_timeout: Duration,
    /// Within which a request's head, a body of JSON, an RTSP message has to arrive.
    pub header_timeout: Duration,
    /// After which a connection is cut whose peer takes nothing of what is written to it.
    pub write_timeout: Duration,
    /// Longest fragment.
    pub fragment_duration_ms_max: u32,
    /// For samples on their way to the disk and to viewers.
    pub ingest_memory_bytes: u64,
    /// Of it, for viewers.
    pub live_memory_bytes: u64,
    /// At which a segment file is closed.
    pub segment_bytes: u64,
    /// Free space below which the policy applies.
    pub disk_policy_bytes: u64,
    /// Free space below which new media is refused.
    pub disk_refuse_bytes: u64,
    /// The policy.
    pub disk_policy: DiskPolicy,
    /// Media of all streams above which the oldest goes.
    pub retention_bytes: Option<u64>,
    /// That a verification reads in a second.
    pub verify_bytes_s: u64,
    /// Pictures that are decoded at the same time.
    pub image_workers: usize,
    /// For each port.
    pub connections_max: usize,
    /// Deadline of a stop.
    pub stop_timeout: Duration,
}

/// A day. Timers are not made for ages.
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);
/// The variables that are not settings of `serve`.
const OTHER_VARIABLES: [&str; 10] = [
    crate::keys::KEK_VARIABLE,
    "VIDAR_ROOT_ACCESS_KEY_ID",
    "VIDAR_ROOT_SECRET_ACCESS_KEY",
    "VIDAR_ENDPOINT",
    "VIDAR_ACCESS_KEY_ID",
    "VIDAR_SECRET_ACCESS_KEY",
    "VIDAR_CORPUS",
    "VIDAR_BIN",
    "VIDAR_TEST_BROWSER",
    "VIDAR_LOG",
];

impl ServeArgs {
    /// Merges flags and environment with the configuration file, and fills in defaults.
    ///
    /// # Errors
    /// If the file does not read, names an unknown key, or a value is out of range.
    pub fn settings(self) -> anyhow::Result<Settings> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => Self::default(),
        };
        let over = self.or(file);
        let Some(data_dir) = over.data_dir else {
            bail!("--data-dir is needed (or VIDAR_DATA_DIR, or data_dir in the file)")
        };
        let mib = |value: Option<u64>, default: u64| value.unwrap_or(default).saturating_mul(1 << 20);
        let seconds = |value: Option<u64>, default| Duration::from_secs(value.unwrap_or(default));
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ingest_memory_bytes = mib(over.ingest_memory_mib, 256);
        let settings = Settings {
            key_file: over.key_file,
            data_dir,
            http: over.http.unwrap_or_else(|| loopback(8080)),
            rtsp: over.rtsp.unwrap_or_else(|| loopback(8554)),
            public_url: over.public_url.map(|url| url.trim_end_matches('/').to_owned()),
            kvs_tls: kvs_tls(over.kvs, over.kvs_tls, over.kvs_tls_cert, over.kvs_tls_key)?,
            kvs: over.kvs,
            kvs_public_url: over.kvs_public_url,
            kvs_region: over.kvs_region,
            kvs_account: over.kvs_account.unwrap_or_else(|| "0".repeat(12)),
            kvs_clock_tolerance: seconds(over.kvs_clock_tolerance_s, 300),
            kvs_clip_fragments: over.kvs_clip_fragments,
            kvs_clip_bytes: over.kvs_clip_mib.map(|mib| mib.saturating_mul(1 << 20)),
            kvs_limits: over.kvs_limits.unwrap_or(KvsLimits::Published),
            kvs_strict: over.kvs_strict.unwrap_or_default(),
            image_targets: over.image_target.unwrap_or_default(),
            topics: over.notify.unwrap_or_default(),
            default_retention_hours: over.default_retention_hours.unwrap_or(168),
            create_streams: over.create_streams.unwrap_or(true),
            publisher_silence: seconds(over.publisher_silence_s, 10),
            idle_timeout: seconds(over.idle_timeout_s, 30),
            rtsp_timeout: seconds(over.rtsp_timeout_s, 60),
            header_timeout: seconds(over.header_timeout_s, 10),
            write_timeout: seconds(over.write_timeout_s, 60),
            fragment_duration_ms_max: over.fragment_duration_ms_max.unwrap_or(20_000),
            ingest_memory_bytes,
            live_memory_bytes: over.live_memory_mib.map_or(ingest_memory_bytes / 4, |mib| mib.saturating_mul(1 << 20)),
            segment_bytes: mib(over.segment_mib, 256),
            disk_policy_bytes: mib(over.disk_policy_mib, 1024),
            disk_refuse_bytes: mib(over.disk_refuse_mib, 256),
            disk_policy: over.disk_policy.unwrap_or(DiskPolicy::DeleteOldest),
            retention_bytes: over.retention_mib.map(|mib| mib.saturating_mul(1 << 20)),
            verify_bytes_s: mib(over.verify_mib_s, 32),
            image_workers: over.image_workers.unwrap_or(2),
            connections_max: over.connections_max.unwrap_or(4096),
            stop_timeout: seconds(over.stop_timeout_s, 10),
        };
        settings.check()?;
        Ok(settings)
    }

    fn or(self, file: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(file.data_dir),
            config: self.config,
            http: self.http.or(file.http),
            rtsp: self.rtsp.or(file.rtsp),
            key_file: self.key_file.or(file.key_file),
            public_url: self.public_url.or(file.public_url),
            kvs: self.kvs.or(file.kvs),
            kvs_public_url: self.kvs_public_url.or(file.kvs_public_url),
            kvs_tls: self.kvs_tls.or(file.kvs_tls),
            kvs_tls_cert: self.kvs_tls_cert.or(file.kvs_tls_cert),
            kvs_tls_key: self.kvs_tls_key.or(file.kvs_tls_key),
            kvs_region: self.kvs_region.or(file.kvs_region),
            kvs_account: self.kvs_account.or(file.kvs_account),
            kvs_clock_tolerance_s: self.kvs_clock_tolerance_s.or(file.kvs_clock_tolerance_s),
            kvs_clip_fragments: self.kvs_clip_fragments.or(file.kvs_clip_fragments),
            kvs_clip_mib: self.kvs_clip_mib.or(file.kvs_clip_mib),
            kvs_limits: self.kvs_limits.or(file.kvs_limits),
            kvs_strict: self.kvs_strict.or(file.kvs_strict),
            image_target: self.image_target.or(file.image_target),
            notify: self.notify.or(file.notify),
            default_retention_hours: self.default_retention_hours.or(file.default_retention_hours),
            create_streams: self.create_streams.or(file.create_streams),
            publisher_silence_s: self.publisher_silence_s.or(file.publisher_silence_s),
            idle_timeout_s: self.idle_timeout_s.or(file.idle_timeout_s),
            rtsp_timeout_s: self.rtsp_timeout_s.or(file.rtsp_timeout_s),
            header_timeout_s: self.header_timeout_s.or(file.header_timeout_s),
            write_timeout_s: self.write_timeout_s.or(file.write_timeout_s),
            fragment_duration_ms_max: self.fragment_duration_ms_max.or(file.fragment_duration_ms_max),
            ingest_memory_mib: self.ingest_memory_mib.or(file.ingest_memory_mib),
            live_memory_mib: self.live_memory_mib.or(file.live_memory_mib),
            segment_mib: self.segment_mib.or(file.segment_mib),
            disk_policy_mib: self.disk_policy_mib.or(file.disk_policy_mib),
            disk_refuse_mib: self.disk_refuse_mib.or(file.disk_refuse_mib),
            disk_policy: self.disk_policy.or(file.disk_policy),
            retention_mib: self.retention_mib.or(file.retention_mib),
            verify_mib_s: self.verify_mib_s.or(file.verify_mib_s),
            image_workers: self.image_workers.or(file.image_workers),
            connections_max: self.connections_max.or(file.connections_max),
            stop_timeout_s: self.stop_timeout_s.or(file.stop_timeout_s),
            log_json: self.log_json,
        }
    }
}

fn kvs_tls(
    kvs: Option<SocketAddr>,
    on: Option<bool>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
) -> anyhow::Result<KvsTls> {
    let is_loopback = kvs.is_none_or(|kvs| kvs.ip().is_loopback());
    match (cert, key) {
        (Some(_), Some(_)) if on == Some(false) => bail!("kvs_tls: false, but kvs_tls_cert is set"),
        (Some(cert), Some(key)) => Ok(KvsTls::Files(CertFiles { cert, key })),
        (None, None) if on.unwrap_or(!is_loopback) => Ok(KvsTls::Own),
        (None, None) => Ok(KvsTls::None),
        _ => bail!("kvs_tls_cert and kvs_tls_key: set both or none"),
    }
}

impl Settings {
    fn check(&self) -> anyhow::Result<()> {
        let in_range =
            |name: &str, good: bool, range: &str| if good { Ok(()) } else { bail!("{name}: expected {range}") };
        in_range("default_retention_hours", (1..=87_600).contains(&self.default_retention_hours), "1 to 87600")?;
        let is_region = |text: &String| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=32).contains(&text.len()) && text.bytes().all(plain)
        };
        in_range("kvs_region", self.kvs_region.as_ref().is_none_or(is_region), "a-z 0-9 and -")?;
        let account = self.kvs_account.len() == 12 && self.kvs_account.bytes().all(|byte| byte.is_ascii_digit());
        in_range("kvs_account", account, "12 digits")?;
        in_range("kvs_clock_tolerance_s", self.kvs_clock_tolerance <= TIMEOUT_MAX, "0 to 86400")?;
        in_range("kvs_clip_fragments", self.kvs_clip_fragments != Some(0), "1 at least")?;
        in_range("kvs_clip_mib", self.kvs_clip_bytes != Some(0), "1 at least")?;
        targets::check(&self.image_targets, &self.topics)?;
        in_range("fragment_duration_ms_max", (1..=20_000).contains(&self.fragment_duration_ms_max), "1 to 20000")?;
        in_range("segment_mib", (1 << 20..=2048 << 20).contains(&self.segment_bytes), "1 to 2048")?;
        in_range("ingest_memory_mib", self.ingest_memory_bytes >= 128 << 20, "128 at least")?;
        in_range("retention_mib", self.retention_bytes != Some(0), "1 at least")?;
        in_range("verify_mib_s", self.verify_bytes_s >= 1, "1 at least")?;
        for (name, timeout) in [
            ("rtsp_timeout_s", self.rtsp_timeout),
            ("header_timeout_s", self.header_timeout),
            ("write_timeout_s", self.write_timeout),
        ] {
            in_range(name, (Duration::from_secs(1)..=TIMEOUT_MAX).contains(&timeout), "1 to 86400")?;
        }
        let half = self.live_memory_bytes <= self.ingest_memory_bytes / 2;
        in_range("live_memory_mib", half, "at most half of ingest_memory_mib")?;
        in_range("image_workers", self.image_workers >= 1, "1 at least")?;
        in_range("connections_max", self.connections_max >= 1, "1 at least")?;
        let marks = self.disk_policy_bytes >= self.disk_refuse_bytes;
        in_range("disk_policy_mib", marks, "disk_refuse_mib at least")
    }
}

fn read_file(path: &Path) -> anyhow::Result<ServeArgs> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// Variables that look like settings and are none: a typing error that would go unnoticed.
#[must_use]
pub fn unknown_variables(known: &clap::Command) -> Vec<String> {
    let mut names: Vec<String> = OTHER_VARIABLES.map(str::to_owned).to_vec();
    collect_variables(known, &mut names);
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    set.filter(|name| name.starts_with("VIDAR_") && !names.contains(name)).collect()
}

fn collect_variables(command: &clap::Command, names: &mut Vec<String>) {
    let variables = command.get_arguments().filter_map(|arg| arg.get_env());
    names.extend(variables.filter_map(|name| name.to_str()).map(str::to_owned));
    command.get_subcommands().for_each(|sub| collect_variables(sub, names));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vidar.toml");
        std::fs::write(&path, "data_dir = '/a'\nhttp = '127.0.0.1:1'\ndisk_policy = 'refuse'\n").unwrap();
        let args = ServeArgs {
            config: Some(path.clone()),
            http: Some("127.0.0.1:2".parse().unwrap()),
            ..ServeArgs::default()
        };
        let settings = args.settings().unwrap();
        assert_eq!(settings.http.port(), 2);
        assert_eq!(settings.rtsp.port(), 8554);
        assert_eq!(settings.disk_policy, DiskPolicy::Refuse);

        std::fs::write(&path, "data_dir = '/a'\nhtpp = 1\n").unwrap();
        let error = ServeArgs { config: Some(path), ..ServeArgs::default() }.settings().unwrap_err();
        assert!(format!("{error:#}").contains("htpp"), "{error:#}");
    }

    #[test]
    fn off_loopback_the_compatible_api_speaks_tls_unless_told_not_to() {
        let tls = |kvs: &str, on, file: Option<&str>| {
            let (cert, key) = (file.map(PathBuf::from), file.map(PathBuf::from));
            kvs_tls(Some(kvs.parse().unwrap()), on, cert, key)
        };
        let (near, far) = ("127.0.0.1:1", "0.0.0.0:1");
        assert_eq!((tls(near, None, None).unwrap(), tls(far, None, None).unwrap()), (KvsTls::None, KvsTls::Own));
        let told = (tls(near, Some(true), None).unwrap(), tls(far, Some(false), None).unwrap());
        assert_eq!(told, (KvsTls::Own, KvsTls::None));
        let file = PathBuf::from("/f");
        let files = KvsTls::Files(CertFiles { cert: file.clone(), key: file });
        assert_eq!(tls(near, None, Some("/f")).unwrap(), files);
        assert!(tls(near, Some(false), Some("/f")).is_err());
    }

    #[test]
    fn values_out_of_range_are_named() {
        let args = |change: fn(&mut ServeArgs)| {
            let mut args = ServeArgs { data_dir: Some("/a".into()), ..ServeArgs::default() };
            change(&mut args);
            args.settings().unwrap_err().to_string()
        };
        assert!(args(|a| a.default_retention_hours = Some(0)).starts_with("default_retention_hours"));
        assert!(args(|a| a.fragment_duration_ms_max = Some(30_000)).starts_with("fragment_duration_ms_max"));
        assert!(args(|a| a.kvs_region = Some("us west".into())).starts_with("kvs_region"));
        assert!(args(|a| a.kvs_tls_cert = Some("/c".into())).starts_with("kvs_tls_cert"));
        assert!(args(|a| a.kvs_account = Some("1".into())).starts_with("kvs_account"));
        assert!(args(|a| a.kvs_clock_tolerance_s = Some(86_401)).starts_with("kvs_clock_tolerance_s"));
        assert!(args(|a| a.kvs_clip_fragments = Some(0)).starts_with("kvs_clip_fragments"));
        assert!(args(|a| a.kvs_clip_mib = Some(0)).starts_with("kvs_clip_mib"));
        assert!(args(|a| a.retention_mib = Some(0)).starts_with("retention_mib"));
        assert!(args(|a| a.rtsp_timeout_s = Some(0)).starts_with("rtsp_timeout_s"));
        assert!(args(|a| a.write_timeout_s = Some(u64::MAX)).starts_with("write_timeout_s"));
        assert!(args(|a| a.live_memory_mib = Some(129)).starts_with("live_memory_mib"));
        assert!(args(|a| a.disk_policy_mib = Some(1)).starts_with("disk_policy_mib"));
        assert!(ServeArgs::default().settings().unwrap_err().to_string().contains("--data-dir"));
    }
}
