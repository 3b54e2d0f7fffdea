//! Access keys through the binary: they rule HTTP, RTSP and signed URLs, and outlive the server.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{ID, SECRET, Vidar, start_in};
use serde_json::{Value, json};
use vidar_fixtures::path;

/// `vidar credentials`, as root.
fn credentials(vidar: &Vidar, args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_vidar"))
        .arg("credentials")
        .args(args)
        .args(["--json", "--endpoint", &format!("http://{}", vidar.http)])
        .env("VIDAR_ACCESS_KEY_ID", ID)
        .env("VIDAR_SECRET_ACCESS_KEY", SECRET)
        .output()
        .expect("vidar runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).expect("JSON") }
}

struct Key {
    id: String,
    secret: String,
}

fn create(vidar: &Vidar, args: &[&str]) -> Key {
    let made = credentials(vidar, &[&["create"], args].concat());
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    Key { id: text("access_key_id"), secret: text("secret_access_key") }
}

/// The status of a request with an `Authorization` of curl's making, and the body.
fn ask(vidar: &Vidar, user: &[&str], args: &[&str], path: &str) -> (u16, Value) {
    let url = format!("http://{}{path}", vidar.http);
    let output = common::run("curl", &[&["-sS", "-w", "\n%{http_code}"], user, args, &[&url]].concat());
    let text = String::from_utf8(output).expect("UTF-8");
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.parse().expect("a status"), serde_json::from_str(body).unwrap_or(Value::Null))
}

impl Key {
    fn pair(&self) -> String {
        format!("{}:{}", self.id, self.secret)
    }

    fn ask(&self, vidar: &Vidar, args: &[&str], path: &str) -> (u16, Value) {
        ask(vidar, &["-u", &self.pair()], args, path)
    }

    fn push(&self, vidar: &Vidar, stream: &str) -> u16 {
        self.ask(vidar, &["-T", clip().to_str().expect("UTF-8")], &format!("/v1/streams/{stream}/media")).0
    }

    /// ffmpeg's RTSP, by Digest. Whether it was let in.
    fn record(&self, vidar: &Vidar, stream: &str) -> bool {
        let url = format!("rtsp://{}@{}/{stream}", self.pair(), vidar.rtsp);
        let clip = clip();
        let args = ["-loglevel", "error", "-nostdin", "-i", clip.to_str().expect("UTF-8"), "-c", "copy", "-t", "1"];
        let ends = ["-f", "rtsp", "-rtsp_transport", "tcp", &url];
        Command::new("ffmpeg").args(args).args(ends).output().expect("ffmpeg runs").status.success()
    }
}

fn clip() -> std::path::PathBuf {
    path("h264_short_gop.mkv")
}

fn start(dir: &Path) -> Vidar {
    start_in(&dir.join("data"), &[])
}

#[test]
fn a_key_may_what_its_policy_says_in_every_protocol_and_outlives_the_server() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let mut vidar = start(own.path());
    let camera = create(&vidar, &["--name", "door", "--preset", "write", "--stream", "door-*"]);
    let player = create(&vidar, &["--preset", "read", "--stream", "door-*", "--days", "1"]);
    assert_eq!(
        (camera.push(&vidar, "door-1"), camera.push(&vidar, "yard"), player.push(&vidar, "door-1")),
        (200, 403, 403)
    );
    assert!(camera.record(&vidar, "door-2") && !camera.record(&vidar, "yard") && !player.record(&vidar, "door-2"));
    let clip = "/v1/streams/door-1/clip.mkv?start=0&end=4102444800";
    assert_eq!((player.ask(&vidar, &["-I"], clip).0, camera.ask(&vidar, &["-I"], clip).0), (200, 403));
    for path in ["/metrics", "/v1/keys", "/v1/credentials", "/v1/search?q=*", "/v1/streams/yard"] {
        assert_eq!(player.ask(&vidar, &[], path).0, 403, "{path}");
    }

    let sign = json!({"path_prefix": "/v1/streams/door-1", "expires_s": 600}).to_string();
    let (status, signed) = player.ask(&vidar, &["-d", &sign], "/v1/sign");
    assert_eq!(status, 200);
    let url = format!("{clip}&token={}", signed["token"].as_str().expect("a token"));
    assert_eq!(ask(&vidar, &[], &["-I"], &url).0, 200);

    vidar.terminate();
    let vidar = start(own.path());
    assert_eq!((camera.push(&vidar, "door-1"), player.ask(&vidar, &["-I"], clip).0), (200, 200));
    assert_eq!(ask(&vidar, &[], &["-I"], &url).0, 200);
    credentials(&vidar, &["disable", &player.id]);
    assert_eq!((player.ask(&vidar, &["-I"], clip).0, ask(&vidar, &[], &["-I"], &url).0), (401, 401));
    credentials(&vidar, &["enable", &player.id]);
    assert_eq!((player.ask(&vidar, &["-I"], clip).0, ask(&vidar, &[], &["-I"], &url).0), (200, 200));

    let list = credentials(&vidar, &["list"]);
    let shown = |id: &str| {
        let all = list["credentials"].as_array().expect("a list");
        all.iter().find(|key| key["access_key_id"] == id).expect("in the list").clone()
    };
    assert_eq!((&shown(&camera.id)["name"], &shown(&player.id)["state"]), (&json!("door"), &json!("active")));
    assert!(shown(&camera.id)["last_used"].is_string() && shown(&player.id)["expires"].is_string());
    assert!(!list.to_string().contains(&camera.secret), "a secret is listed");
    credentials(&vidar, &["delete", &camera.id]);
    assert_eq!(camera.push(&vidar, "door-1"), 401);
    assert!(!camera.record(&vidar, "door-2"));
    assert_eq!(credentials(&vidar, &["list"])["credentials"].as_array().map(Vec::len), Some(1));
}

#[test]
fn temporary_credentials_are_worth_less_than_those_that_asked() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let mut vidar = start(own.path());
    let player = create(&vidar, &["--preset", "read", "--stream", "door-*"]);
    for stream in ["door-1", "door-2"] {
        assert_eq!(vidar.push(stream, "", &clip()).0, 200);
    }
    let body = json!({"preset": "admin", "streams": ["door-1", "yard"]}).to_string();
    let (status, session) = player.ask(&vidar, &["-d", &body], "/v1/credentials/session");
    assert_eq!(status, 201);
    let text = |name: &str| session[name].as_str().expect("a text").to_owned();
    let (id, secret, token) = (text("access_key_id"), text("secret_access_key"), text("session_token"));
    let bearer = format!("Authorization: Bearer {id}:{secret}:{token}");
    let status = |vidar: &Vidar, args: &[&str], path: &str| ask(vidar, &["-H", &bearer], args, path).0;
    let sign = json!({"path_prefix": "/v1/streams/door-1", "expires_s": 600}).to_string();
    for (args, path, expected) in [
        (&[][..], "/v1/streams/door-1", 200),
        (&[], "/v1/streams/door-2", 403),
        (&[], "/v1/streams/yard", 403),
        (&["-X", "DELETE"], "/v1/streams/door-1", 403),
        (&["-X", "POST"], "/v1/credentials/session", 403),
        (&["-d", &sign], "/v1/sign", 403),
    ] {
        assert_eq!(status(&vidar, args, path), expected, "{path}");
    }
    let bare = ["-u", &format!("{id}:{secret}")];
    assert_eq!(ask(&vidar, &bare, &[], "/v1/streams/door-1").0, 401, "without its token");
    vidar.terminate();
    let vidar = start(own.path());
    assert_eq!(status(&vidar, &[], "/v1/streams/door-1"), 200, "nothing is kept of it");
    credentials(&vidar, &["delete", &player.id]);
    assert_eq!(status(&vidar, &[], "/v1/streams/door-1"), 401, "it ends with the key that asked");
    let log = vidar_log(vidar);
    for planted in [&secret, &token, &player.secret] {
        assert!(!log.contains(planted.as_str()), "a secret is in the log:\n{log}");
    }
}

#[test]
fn temporary_credentials_have_nothing_to_do_with_credentials_whoever_asked() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let start = |secret: &str| {
        let mut command = common::serve(&dir, &[]);
        command.env("VIDAR_ROOT_SECRET_ACCESS_KEY", secret);
        common::launch(command, &dir)
    };
    let mut vidar = start(SECRET);
    let key = create(&vidar, &["--preset", "read"]);
    let (status, session) = vidar.request(&["-X", "POST"], "/v1/credentials/session");
    assert_eq!(status, 201);
    let session: Value = serde_json::from_slice(&session).expect("JSON");
    let text = |name: &str| session[name].as_str().expect("a text").to_owned();
    let bearer = [text("access_key_id"), text("secret_access_key"), text("session_token")].join(":");
    let bearer = format!("Authorization: Bearer {bearer}");
    let status = |vidar: &Vidar, args: &[&str], path: &str| ask(vidar, &["-H", &bearer], args, path).0;
    assert_eq!(status(&vidar, &[], "/metrics"), 200, "all else is as the root pair's");
    let one = format!("/v1/credentials/{}", key.id);
    for (args, path) in [
        (&[][..], "/v1/credentials"),
        (&["-d", r#"{"preset": "admin"}"#], "/v1/credentials"),
        (&["-X", "PATCH", "-d", r#"{"preset": "admin"}"#], &one),
        (&["-X", "DELETE"], &one),
        (&["-X", "POST"], "/v1/credentials/session"),
    ] {
        assert_eq!(status(&vidar, args, path), 403, "{args:?} {path}");
    }
    assert_eq!(credentials(&vidar, &["list"])["credentials"].as_array().map(Vec::len), Some(1));
    let long = json!({"policy": {"statements": [{"effect": "allow", "actions": ["read"],
        "streams": vec!["x".repeat(200); 50]}]}});
    let (status_of_long, problem) = vidar.request(&["-d", &long.to_string()], "/v1/credentials/session");
    let problem: Value = serde_json::from_slice(&problem).expect("JSON");
    assert_eq!((status_of_long, &problem["field"]), (422, &json!("policy")));

    vidar.terminate();
    let mut vidar = start(SECRET);
    assert_eq!(status(&vidar, &[], "/metrics"), 200);
    vidar.terminate();
    let vidar = start("another-secret");
    assert_eq!(status(&vidar, &[], "/metrics"), 401, "they end with the secret of who asked");
}

#[test]
fn a_push_ends_with_its_key_and_is_shown_to_those_of_its_stream() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let vidar = start(own.path());
    let camera = create(&vidar, &["--preset", "write", "--stream", "door"]);
    let reader = create(&vidar, &["--preset", "read", "--stream", "door"]);
    let neighbour = create(&vidar, &["--preset", "write", "--stream", "yard"]);
    let push = "0190a5e0-0000-7000-8000-000000000001";
    let mut pushing = Command::new("curl")
        .args(["-sS", "-T", "-", "-u", &camera.pair(), "-H", &format!("Vidar-Push-Id: {push}")])
        .arg(format!("http://{}/v1/streams/door/media", vidar.http))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl runs");
    let media = std::fs::read(clip()).expect("a clip");
    let mut body = pushing.stdin.take().expect("a pipe");
    body.write_all(&media[..media.len() / 2]).expect("half of it is taken");
    let shown = format!("/v1/pushes/{push}");
    vidar.until("the push", |vidar| (camera.ask(vidar, &[], &shown).0 == 200).then_some(()));
    let statuses = [&camera, &reader, &neighbour].map(|key| key.ask(&vidar, &[], &shown).0);
    assert_eq!(statuses, [200, 200, 404]);

    credentials(&vidar, &["disable", &neighbour.id]);
    // Numbers of fragments have these digits, too.
    let refused = "\"status\":403";
    assert!(!vidar.json(&shown)["events"].to_string().contains(refused), "of another key");
    let jar = own.path().join("cookies");
    let jar = jar.to_str().expect("UTF-8");
    let page = ["-H", "Vidar-Console: 1", "-H", "Sec-Fetch-Site: same-origin", "-b", jar, "-c", jar];
    let secrets = json!({"access_key_id": camera.id, "secret_access_key": camera.secret}).to_string();
    assert_eq!(ask(&vidar, &page, &["-d", &secrets], "/v1/session").0, 201);
    assert_eq!(ask(&vidar, &page, &[], "/v1/streams").0, 200);

    credentials(&vidar, &["disable", &camera.id]);
    vidar.until("it to be refused", |vidar| vidar.json(&shown)["events"].to_string().contains(refused).then_some(()));
    // Whether it is still taken depends on when curl notices.
    let _ = body.write_all(&media[media.len() / 2..]);
    drop(body);
    let said = pushing.wait_with_output().expect("curl ends").stdout;
    assert!(String::from_utf8_lossy(&said).contains(refused), "{}", String::from_utf8_lossy(&said));
    assert_eq!(vidar.json("/v1/pushes?stream=door")["pushes"], json!([]));
    // Nobody asked with the session while its key was disabled: it ended all the same, before the push did.
    credentials(&vidar, &["enable", &camera.id]);
    assert_eq!(ask(&vidar, &page, &[], "/v1/streams").0, 401);
}

fn vidar_log(mut vidar: Vidar) -> String {
    vidar.terminate();
    vidar.whole_log()
}

#[test]
fn what_is_no_key_is_refused() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let vidar = start(own.path());
    for (body, status, field) in [
        ("{}", 422, "policy"),
        (r#"{"preset": "write", "policy": {"statements": []}}"#, 422, "policy"),
        (r#"{"policy": {"statements": []}}"#, 422, "policy"),
        (r#"{"preset": "read", "streams": ["a b"]}"#, 422, "policy"),
        (r#"{"streams": ["a"]}"#, 422, "streams"),
        (r#"{"preset": "read", "expires": "2020-01-01T00:00:00Z"}"#, 422, "expires"),
        (r#"{"preset": "read", "expires": "soon"}"#, 400, "expires"),
        (r#"{"preset": "read", "name": "a\u0007"}"#, 422, "name"),
    ] {
        let (got, body_text) = vidar.request(&["-d", body], "/v1/credentials");
        let problem: Value = serde_json::from_slice(&body_text).expect("JSON");
        assert_eq!((got, problem["field"].as_str()), (status, Some(field)), "{body}: {problem}");
    }
    for body in [r#"{"preset": "owner"}"#, r#"{"preset": "read", "x": 1}"#, "["] {
        assert_eq!(vidar.request(&["-d", body], "/v1/credentials").0, 400, "{body}");
    }
    for (args, path) in
        [(&["-X", "DELETE"][..], "/v1/credentials/none"), (&["-X", "PATCH", "-d", "{}"], "/v1/credentials/none")]
    {
        assert_eq!(vidar.request(args, path).0, 404, "{path}");
    }
    assert_eq!(vidar.request(&["-d", r#"{"duration_s": 59}"#], "/v1/credentials/session").0, 422);
    assert_eq!(vidar.json("/v1/credentials"), json!({"credentials": [], "next_token": null}));
}
