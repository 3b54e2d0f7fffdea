//! Signing in by a browser, through the binary: the cookie, its rights, its end, and requests that others forge.

mod common;

use std::process::Command;

use common::{ID, SECRET, Vidar, start, start_with};
use serde_json::{Value, json};

/// What a page of the console sends with every request.
const PAGE: &[&str] = &["-H", "Vidar-Console: 1", "-H", "Sec-Fetch-Site: same-origin"];

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    }

    /// As a browser keeps it.
    fn cookie(&self) -> String {
        let set = self.header("set-cookie").expect("a cookie");
        let name = set.split(';').next().expect("a pair").split_once('=').expect("a name").1;
        format!("Cookie: vidar-session={name}")
    }
}

/// curl without credentials.
fn ask(vidar: &Vidar, args: &[&str], path: &str) -> Answer {
    let url = format!("http://{}{path}", vidar.http);
    let output = Command::new("curl").args(["-sS", "-i", "--max-time", "60"]).args(args).arg(url).output();
    let text = String::from_utf8(output.expect("curl runs").stdout).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    Answer { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
}

fn sign_in(vidar: &Vidar, args: &[&str], id: &str, secret: &str) -> Answer {
    let body = json!({"access_key_id": id, "secret_access_key": secret}).to_string();
    ask(vidar, &[args, &["-d", &body]].concat(), "/v1/session")
}

/// Makes a key that may read `door-*`; its id and secret.
fn reader(vidar: &Vidar) -> (String, String) {
    let (status, body) =
        vidar.request(&["-d", r#"{"name": "r", "preset": "read", "streams": ["door-*"]}"#], "/v1/credentials");
    assert_eq!(status, 201);
    let key: Value = serde_json::from_slice(&body).expect("JSON");
    let text = |name: &str| key[name].as_str().expect("a text").to_owned();
    (text("access_key_id"), text("secret_access_key"))
}

#[test]
fn a_session_has_the_rights_of_its_key_until_it_is_signed_out() {
    let vidar = start();
    let answer = sign_in(&vidar, PAGE, ID, SECRET);
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!((answer.body["access_key_id"].as_str(), answer.header("cache-control")), (Some(ID), Some("no-store")));
    let set = answer.header("set-cookie").expect("a cookie");
    let (name, flags) = set.split_once(';').expect("flags");
    assert_eq!(flags, " Path=/; Max-Age=604800; HttpOnly; SameSite=Strict");
    assert_eq!(name.len(), "vidar-session=".len() + 43, "256 bits: {name}");
    let port: u16 = vidar.rtsp.rsplit(':').next().expect("a port").parse().expect("a number");
    assert_eq!((&answer.body["rtsp_port"], &answer.body["kvs_url"]), (&json!(port), &Value::Null));
    assert!(!answer.head.contains(SECRET) && !answer.body.to_string().contains(SECRET));

    let cookie = answer.cookie();
    let root = &[&["-H", cookie.as_str()], PAGE].concat()[..];
    assert_eq!(ask(&vidar, root, "/metrics").status, 200);
    assert_eq!(ask(&vidar, &[root, &["-d", r#"{"name": "door-1"}"#]].concat(), "/v1/streams").status, 201);
    assert_eq!(ask(&vidar, root, "/v1/session").body["may_all"].as_array().map(Vec::len), Some(8));
    // As an <img> or a link does.
    let plain = ask(&vidar, &["-H", &cookie], "/v1/streams");
    assert_eq!((plain.status, plain.body["streams"][0]["name"].as_str()), (200, Some("door-1")));

    let (id, secret) = reader(&vidar);
    let answer = sign_in(&vidar, PAGE, &id, &secret);
    assert_eq!((&answer.body["may_some"], &answer.body["may_all"]), (&json!(["list", "read"]), &json!([])));
    let other = answer.cookie();
    assert_ne!(other, cookie);
    let reader = &[&["-H", other.as_str()], PAGE].concat()[..];
    let status = |args: &[&str], path: &str| ask(&vidar, &[reader, args].concat(), path).status;
    assert_eq!((status(&[], "/v1/streams/door-1"), status(&[], "/v1/streams/yard")), (200, 403));
    assert_eq!((status(&["-X", "DELETE"], "/v1/streams/door-1"), status(&[], "/metrics")), (403, 403));

    let out = ask(&vidar, &[root, &["-X", "DELETE"]].concat(), "/v1/session");
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").expect("a cookie").starts_with("vidar-session=; Path=/; Max-Age=0;"));
    assert_eq!((ask(&vidar, root, "/metrics").status, ask(&vidar, root, "/v1/session").status), (401, 404));
    assert_eq!(status(&[], "/v1/streams/door-1"), 200, "one session ends, not all");
}

#[test]
fn what_another_site_makes_a_browser_send_is_refused() {
    let vidar = start();
    let cookie = sign_in(&vidar, PAGE, ID, SECRET).cookie();
    let make = |headers: &[&str]| {
        let mut args = vec!["-d", r#"{"name": "forged"}"#, "-H", &cookie];
        headers.iter().for_each(|header| args.extend(["-H", *header]));
        ask(&vidar, &args, "/v1/streams").status
    };
    let own = format!("Origin: http://{}", vidar.http);
    for headers in [
        &[][..],
        &["Sec-Fetch-Site: same-origin"],
        &["Vidar-Console: 1"],
        &["Vidar-Console: 1", "Sec-Fetch-Site: cross-site"],
        &["Vidar-Console: 1", "Sec-Fetch-Site: same-site", &own],
        &["Vidar-Console: 1", "Origin: http://evil.example"],
        &["Vidar-Console: 1", "Origin: null"],
        &[&own],
    ] {
        assert_eq!(make(headers), 403, "{headers:?}");
    }
    assert_eq!(vidar.json("/v1/streams")["streams"], json!([]), "nothing was made");
    for site in ["cross-site", "same-site"] {
        assert_eq!(ask(&vidar, &["-H", &cookie, "-H", &format!("Sec-Fetch-Site: {site}")], "/v1/streams").status, 403);
    }
    assert_eq!(make(&["Vidar-Console: 1", &own]), 201);
    // Nor does it sign somebody in or out.
    assert_eq!(sign_in(&vidar, &[], ID, SECRET).status, 403);
    assert_eq!(ask(&vidar, &["-X", "DELETE", "-H", &cookie], "/v1/session").status, 403);
    assert_eq!(ask(&vidar, &["-H", &cookie], "/v1/streams").status, 200);
    // No leave for a header of ours.
    let asks =
        ["-X", "OPTIONS", "-H", "Origin: http://evil.example", "-H", "Access-Control-Request-Headers: vidar-console"];
    for path in ["/v1/session", "/v1/streams"] {
        let answer = ask(&vidar, &asks, path);
        let allowed = answer.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
        assert!(!allowed.contains("vidar-console") && !allowed.contains('*'), "{path}: {allowed}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[test]
fn a_wrong_secret_is_refused_and_soon_no_more_are_looked_at() {
    let vidar = start();
    for (id, secret) in [(ID, "wrong"), ("nobody", SECRET), (ID, ""), ("", "")] {
        let answer = sign_in(&vidar, PAGE, id, secret);
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "{id} {secret}");
    }
    // Right ones do not count.
    assert!((0..12).all(|_| sign_in(&vidar, PAGE, ID, SECRET).status == 201));
    let limited = (0..20).find(|_| sign_in(&vidar, PAGE, ID, "wrong").status == 429);
    assert!(limited.is_some_and(|count| count >= 5), "{limited:?}");
    assert_eq!(sign_in(&vidar, PAGE, ID, SECRET).status, 429, "not even the right one");
    for body in ["", "{", r#"{"access_key_id": "a"}"#, r#"{"access_key_id": "a", "secret_access_key": "b", "c": 1}"#] {
        assert_eq!(ask(&vidar, &[PAGE, &["-d", body, "-X", "POST"]].concat(), "/v1/session").status, 400, "{body}");
    }
}

#[test]
fn a_session_ends_with_its_key() {
    let vidar = start();
    let (id, secret) = reader(&vidar);
    let cookie = sign_in(&vidar, PAGE, &id, &secret).cookie();
    let reader = &[&["-H", cookie.as_str()], PAGE].concat()[..];
    assert_eq!(ask(&vidar, reader, "/v1/streams").status, 200);
    let enable = |on: &str| vidar.request(&["-X", "PATCH", "-d", on], &format!("/v1/credentials/{id}")).0;
    assert_eq!(enable(r#"{"enabled": false}"#), 200);
    let refused = ask(&vidar, reader, "/v1/streams");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Session realm=\"vidar\"")));
    assert_eq!(enable(r#"{"enabled": true}"#), 200);
    assert_eq!(ask(&vidar, reader, "/v1/streams").status, 401, "it does not come back");
    let cookie = sign_in(&vidar, PAGE, &id, &secret).cookie();
    assert_eq!(ask(&vidar, &["-H", &cookie], "/v1/streams").status, 200);
    assert_eq!(vidar.request(&["-X", "DELETE"], &format!("/v1/credentials/{id}")).0, 204);
    assert_eq!(ask(&vidar, &["-H", &cookie], "/v1/streams").status, 401);
}

#[test]
fn over_tls_the_cookie_is_for_tls_only_and_pages_keep_other_content_out() {
    let vidar = start_with(&["--public-url", "https://vidar.example"]);
    let set = sign_in(&vidar, PAGE, ID, SECRET).header("set-cookie").expect("a cookie").to_owned();
    assert!(set.ends_with("; HttpOnly; SameSite=Strict; Secure"), "{set}");
    let page = ask(&vidar, &[], "/console/");
    let policy = page.header("content-security-policy").expect("a policy");
    for part in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert_eq!((page.status, page.header("x-content-type-options")), (200, Some("nosniff")));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    // The script of the page, if the console is built in; else the page says how to build it.
    let text = String::from_utf8(vidar.request(&[], "/console/").1).expect("UTF-8");
    match text.split_once("src=\"/console/assets/") {
        Some((_, rest)) => {
            let name = rest.split('"').next().expect("a name");
            let script = ask(&vidar, &[], &format!("/console/assets/{name}"));
            assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
            assert_eq!(script.header("cache-control"), Some("public, max-age=31536000, immutable"));
            assert_eq!(script.header("content-security-policy"), Some(policy));
        }
        None => assert!(text.contains("scripts/web"), "{text}"),
    }
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    for path in ["/console/assets/none.js", "/console/index.html", "/console/../v1/streams"] {
        assert_eq!(ask(&vidar, &["--path-as-is"], path).status, 404, "{path}");
    }
    assert_eq!(ask(&vidar, &[], "/").header("location"), Some("/console/"));
    assert_eq!(ask(&vidar, &[], "/healthz").header("content-security-policy"), None);
}
