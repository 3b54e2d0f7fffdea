//! What may not be seen: a server that logs everything there is to log, and what must not be in it.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{ID, PATIENCE, SECRET, Vidar, ffmpeg, launch, serve};
use vidar_storage::crypto::kek::{KekProvider, KeyFile};
use vidar_storage::{OpenError, StoreOptions};

const WRONG: &str = "planted-wrong-password";
const DIGEST: &str = "feedfacefeedfacefeedfacefeedface";

/// The ways in which bytes could be written into a line.
fn forms(bytes: &[u8]) -> Vec<String> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{bytes:?}");
    vec![hex.to_uppercase(), hex, list.trim_matches(['[', ']']).to_owned(), STANDARD.encode(bytes)]
}

/// The digits of the key in its file.
fn kek(dir: &Path) -> String {
    let text = fs::read_to_string(dir.with_extension("key")).expect("a key file");
    text.split(' ').nth(1).expect("a key").to_owned()
}

/// What the key opens: the secret of the keyring (docs/formats/keyring.md), and the index key.
fn inner_keys(dir: &Path) -> Vec<String> {
    let ring = fs::read(dir.join("keyring.a")).expect("a keyring");
    let context = [b"secret", &ring[32..48]].concat();
    let secret = KeyFile::beside(dir).unwrap(&context, &ring[48..128]).expect("it opens");
    let mut all = forms(secret.bytes());
    let taken = vidar_storage::replay_with(
        &StoreOptions::new(dir),
        |key| {
            all.extend(forms(key.bytes()));
            Ok::<_, OpenError>(Vec::new())
        },
        &mut |_| {},
    );
    taken.expect("the log is read");
    all
}

fn say(address: &str, text: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.write_all(text.as_bytes()).expect("sent");
    let mut answer = [0; 4096];
    let len = socket.read(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..len]).into_owned()
}

/// What clients do that carries secrets. Answers a token that opens, and one that does not.
fn use_everything(server: &Vidar) -> [String; 2] {
    let clip = vidar_fixtures::path("bbb.mkv");
    let json = ["-H", "content-type: application/json", "-d"];
    let post = |body: &str, path: &str| server.request(&[&json[..], &[body]].concat(), path);
    assert_eq!(server.push("cam", "?start=2026-01-01T00:00:00Z", &clip).0, 200);
    assert_eq!(server.push("gone", "?start=2026-01-01T00:00:00Z", &clip).0, 200);
    let rtsp = server.rtsp_url("rtsp");
    ffmpeg(&["-i", clip.to_str().expect("UTF-8"), "-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", &rtsp]);

    let play = "/v1/streams/cam/clip.mp4?start=2020-01-01T00:00:00Z&end=2030-01-01T00:00:00Z";
    assert_eq!(server.request(&[], play).0, 200);
    let bearer = |secret: &str| format!("Bearer {ID}:{secret}");
    for (path, authorization, status) in [
        ("/v1/streams", bearer(SECRET), 200),
        ("/v1/streams", bearer(WRONG), 401),
        ("/v1/streams/cam/media", format!("Basic {}", STANDARD.encode(format!("{ID}:{WRONG}"))), 401),
        ("/v1/keys", format!("Digest username=\"{ID}\", response=\"{DIGEST}\""), 401),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\r\n");
        let answer = say(&server.http, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    for authorization in [
        format!("Digest username=\"{ID}\", realm=\"vidar\", nonce=\"x\", uri=\"/cam\", response=\"{DIGEST}\""),
        format!("Basic {}", STANDARD.encode(format!("{ID}:{WRONG}"))),
    ] {
        let uri = format!("rtsp://{ID}:{WRONG}@{}/cam", server.rtsp);
        let request = format!("ANNOUNCE {uri} RTSP/1.0\r\nCSeq: 1\r\nAuthorization: {authorization}\r\n\r\n");
        let answer = say(&server.rtsp, &request);
        assert!(answer.starts_with("RTSP/1.0 4"), "{answer}");
    }

    let (status, body) = post(r#"{"path_prefix":"/v1/streams/cam","expires_s":3600}"#, "/v1/sign");
    let signed: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(status, 200);
    let token = signed["token"].as_str().expect("a token").to_owned();
    let mut bad = token.clone();
    bad.replace_range(20..24, if &bad[20..24] == "AAAA" { "BBBB" } else { "AAAA" });
    for (token, status) in [(&token, 200), (&bad, 401)] {
        for path in ["hls/index.m3u8?start=2020-01-01T00:00:00Z&end=2030-01-01T00:00:00Z", "fragments?limit=1"] {
            let request = format!("GET /v1/streams/cam/{path}&token={token} HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer = say(&server.http, &request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        }
    }
    assert_eq!(post(r#"{"stream":"cam"}"#, "/v1/keys/rotate").0, 200);
    assert_eq!(post(r#"{"kek":true}"#, "/v1/keys/rotate").0, 200);
    assert_eq!(server.request(&["-X", "DELETE"], "/v1/streams/gone").0, 204);
    assert_eq!(server.request(&[], play).0, 200);
    [token, bad]
}

/// Access keys, temporary credentials, signatures over the compatible API. What of it is secret.
fn use_keys(server: &mut Vidar) -> Vec<String> {
    let line = server.wait_log("the compatible API listens");
    let url = line.split_once("url=").expect("a URL").1.split_whitespace().next().expect("a URL");
    let url = format!("{}/listStreams", url.trim_matches('"'));
    let made = |user: &[&str], body: &str, path: &str| -> serde_json::Value {
        let to = format!("http://{}{path}", server.http);
        serde_json::from_slice(&common::run("curl", &[&["-sS", "-d", body], user, &[&to]].concat())).expect("JSON")
    };
    let text = |value: &serde_json::Value, name: &str| value[name].as_str().expect("a text").to_owned();
    let pair =
        |value: &serde_json::Value| format!("{}:{}", text(value, "access_key_id"), text(value, "secret_access_key"));
    let root = format!("{ID}:{SECRET}");
    let key = made(&["-u", &root], r#"{"preset":"admin"}"#, "/v1/credentials");
    let session = made(&["-u", &pair(&key)], "{}", "/v1/credentials/session");
    let token = text(&session, "session_token");
    let bearer = format!("Authorization: Bearer {}:{token}", pair(&session));
    made(&["-H", &bearer], "{}", "/v1/credentials");
    let with_token = format!("X-Amz-Security-Token: {token}");
    let cert = server.dir.join("kvs-cert.pem");
    let mut secrets = vec![text(&key, "secret_access_key"), text(&session, "secret_access_key"), token.clone()];
    for (user, more, status) in [
        (root, vec![], "200"),
        (pair(&key), vec![], "200"),
        (pair(&session), vec!["-H", &with_token], "200"),
        (pair(&session), vec![], "403"),
        (format!("{ID}:{WRONG}"), vec![], "403"),
    ] {
        let args = ["-sS", "-v", "--cacert", cert.to_str().expect("UTF-8"), "-o", "/dev/null", "-w", "%{http_code}"];
        let sign = ["--aws-sigv4", "aws:amz:us-west-2:kinesisvideo", "-u", &user, "-d", "{}", &url];
        let output = std::process::Command::new("curl").args(args).args(more).args(sign).output().expect("curl runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), status, "{user}");
        let sent = String::from_utf8_lossy(&output.stderr).into_owned();
        let signature = sent.split_once("Signature=").expect("a signature").1;
        secrets.push(signature[..64].to_owned());
    }
    let tls = fs::read_to_string(server.dir.join("kvs-key.pem")).expect("a key");
    secrets.extend(tls.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
    let presigned =
        format!("{url}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={DIGEST}&X-Amz-Security-Token={DIGEST}");
    common::run("curl", &["-sS", "--cacert", cert.to_str().expect("UTF-8"), "-d", "{}", &presigned]);
    secrets
}

#[test]
fn whatever_is_logged_no_secret_is_in_it() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let (dir, printed) = (own.path().join("data"), own.path().join("stdout"));
    let start = |own_pair: bool| {
        let mut command = serve(&dir, &["--kvs", "127.0.0.1:0", "--kvs-tls", "true"]);
        command.env("VIDAR_LOG", "trace").stdout(File::create(&printed).expect("a file"));
        if own_pair {
            command.env_remove("VIDAR_ROOT_ACCESS_KEY_ID").env_remove("VIDAR_ROOT_SECRET_ACCESS_KEY");
        }
        launch(command, &dir)
    };
    // A pair that the server makes is shown once, at its first start.
    let mut log = String::new();
    for times in [1, 0] {
        let mut server = start(true);
        assert_eq!(server.terminate(), Some(0));
        log += &server.whole_log();
        let secret = vidar_server::credentials::RootPair::read(&dir.join("root-credentials")).expect("a pair").secret;
        assert_eq!(fs::read_to_string(&printed).expect("text").matches(secret.as_str()).count(), times);
        assert!(!log.contains(secret.as_str()));
    }

    let first_kek = kek(&dir);
    let mut needles = inner_keys(&dir);
    let mut server = start(false);
    let tokens = use_everything(&server);
    needles.extend(use_keys(&mut server));
    assert_eq!(server.terminate(), Some(0));
    log += &server.whole_log();
    log += &fs::read_to_string(&printed).expect("text");
    needles.extend(inner_keys(&dir));
    needles.extend([first_kek, kek(&dir), SECRET.to_owned(), WRONG.to_owned(), DIGEST.to_owned()]);
    needles.extend([SECRET, WRONG].map(|secret| STANDARD.encode(format!("{ID}:{secret}"))));
    needles.extend(tokens);
    needles.extend(["Authorization", "Basic ", "Bearer ", "response=\"", "AWS4-HMAC-SHA256"].map(str::to_owned));
    assert!(log.contains(" TRACE ") && log.contains("stream deleted") && log.contains("rotated"), "{log}");
    for needle in needles {
        let line = log.lines().find(|line| line.to_lowercase().contains(&needle.to_lowercase()));
        assert_eq!(line, None, "{needle}");
    }
}
