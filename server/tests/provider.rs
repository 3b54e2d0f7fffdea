//! A key provider that falls silent, refuses, and comes back, under a server that records.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use vidar_server::credentials::RootPair;
use vidar_server::serve::{Server, store_options};
use vidar_server::settings::ServeArgs;
use vidar_storage::Secret;
use vidar_storage::crypto::kek::{KekError, KekProvider, KeyFile};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Refusing,
    Silent,
}

/// A key file behind a service of moods.
#[derive(Debug)]
struct Service {
    file: KeyFile,
    mood: Mutex<Mood>,
    changed: Condvar,
}

impl Service {
    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.changed.notify_all();
    }

    fn ask(&self) -> Result<&KeyFile, KekError> {
        let mood = self.changed.wait_while(self.mood.lock().unwrap(), |mood| *mood == Mood::Silent).unwrap();
        match *mood {
            Mood::Refusing => Err(KekError::Unavailable { place: self.place(), detail: "come back later".into() }),
            Mood::Well | Mood::Silent => Ok(&self.file),
        }
    }
}

impl KekProvider for Service {
    fn place(&self) -> String {
        "the key service".into()
    }

    fn prepare(&self) -> Result<(), KekError> {
        self.ask()?.prepare()
    }

    fn wrap(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError> {
        self.ask()?.wrap(context, secret)
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Secret, KekError> {
        self.ask()?.unwrap(context, wrapped)
    }

    fn rotate(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError> {
        self.ask()?.rotate(context, secret)
    }

    fn settle(&self, context: &[u8], wrapped: &[u8]) -> Result<(), KekError> {
        self.ask()?.settle(context, wrapped)
    }
}

struct Client {
    address: SocketAddr,
    pair: RootPair,
}

impl Client {
    /// Head and body of the answer.
    fn ask(&self, args: &[&str], path: &str) -> String {
        let user = format!("{}:{}", self.pair.access_key_id, self.pair.secret.as_str());
        let url = format!("http://{}/v1/{path}", self.address);
        let output =
            Command::new("curl").args(["-sS", "-i", "-H", "Expect:", "-u", &user]).args(args).arg(url).output();
        String::from_utf8_lossy(&output.unwrap().stdout).to_lowercase()
    }

    fn status(&self, args: &[&str], path: &str) -> String {
        self.ask(args, path).split(' ').nth(1).unwrap_or_default().to_owned()
    }

    fn push(&self, stream: &str, day: u32) -> String {
        let clip = vidar_fixtures::path("h264_short_gop.mkv");
        let path = format!("streams/{stream}/media?start=2026-01-{day:02}T00:00:00Z");
        self.status(&["-T", clip.to_str().unwrap()], &path)
    }

    fn rotate(&self, what: &str) -> String {
        self.ask(&["-H", "content-type: application/json", "-d", what], "keys/rotate")
    }

    fn plays(&self, stream: &str) -> bool {
        self.status(&[], &format!("streams/{stream}/fragments?limit=1")) == "200"
            && self.status(&["-o", "/dev/null", "-w", "x %{http_code} "], &format!("streams/{stream}/clip.mkv"))
                == "200"
    }
}

/// Until it answers well: calls that hung may be on their way back.
fn in_the_end(what: &str, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ask() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_provider_is_away_recording_goes_on_and_what_needs_it_is_503() {
    let own = tempfile::tempdir().unwrap();
    let args = ServeArgs {
        data_dir: Some(own.path().join("data")),
        http: Some("127.0.0.1:0".parse().unwrap()),
        rtsp: Some("127.0.0.1:0".parse().unwrap()),
        segment_mib: Some(16),
        disk_policy_mib: Some(2),
        disk_refuse_mib: Some(1),
        ..ServeArgs::default()
    };
    let settings = args.settings().unwrap();
    let file = KeyFile::beside(&settings.data_dir);
    let service = Arc::new(Service { file, mood: Mutex::new(Mood::Well), changed: Condvar::new() });
    let mut options = store_options(&settings).unwrap();
    options.kek = Arc::clone(&service) as _;
    options.kek_timeout = Duration::from_millis(200);
    let data_dir = settings.data_dir.clone();
    let server = Server::over(options, settings).await.unwrap();
    let pair = match RootPair::read(&data_dir.join("root-credentials")) {
        Ok(pair) => pair,
        Err(error) => panic!("{error:#}"),
    };
    let client = Client { address: server.http_address().unwrap(), pair };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));

    assert_eq!(client.push("cam", 1), "200");
    for (day, mood) in [(2, Mood::Refusing), (3, Mood::Silent)] {
        service.set(mood);
        let new = format!("new-{day}");
        for refused in [client.ask(&["-X", "DELETE"], "streams/cam"), client.rotate(r#"{"kek":true}"#)] {
            assert!(
                refused.starts_with("http/1.1 503") && refused.contains("\r\nretry-after: "),
                "{mood:?}: {refused}"
            );
            assert!(refused.contains("the key service does not answer"), "{mood:?}: {refused}");
        }
        assert_eq!((client.push("cam", day), client.push(&new, day)), ("200".into(), "200".into()), "{mood:?}");
        assert!(client.rotate(r#"{"stream":"cam"}"#).starts_with("http/1.1 200"), "{mood:?}");
        assert!(client.plays("cam") && client.plays(&new), "{mood:?}");
    }
    service.set(Mood::Well);
    in_the_end("the key is rotated", || client.rotate(r#"{"kek":true}"#).starts_with("http/1.1 200"));
    in_the_end("the stream is deleted", || client.status(&["-X", "DELETE"], "streams/cam") == "204");
    assert_eq!(client.status(&[], "streams/cam"), "404");
    assert_eq!(client.push("cam", 4), "200");
    assert!(client.plays("cam") && client.plays("new-2") && client.plays("new-3"));
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}
