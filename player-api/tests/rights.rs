//! What a key that may not do everything gets.

mod support;

use http::Method;
use support::{Archive, READER};

async fn archive() -> Archive {
    let archive = Archive::new();
    for name in ["lobby-1", "lobby-2", "yard"] {
        let made = archive.send(Method::POST, "/v1/streams", &format!("{{\"name\": \"{name}\"}}")).await;
        assert_eq!(made.status, 201);
    }
    archive
}

#[tokio::test]
async fn a_reader_sees_and_reads_its_streams_and_changes_none() {
    let archive = archive().await;
    for (method, uri, body, status) in [
        (Method::GET, "/v1/streams/lobby-1", "", 200),
        (Method::GET, "/v1/streams/lobby%2D1", "", 200),
        (Method::GET, "/v1/streams/lobby-1/fragments", "", 200),
        (Method::GET, "/v1/streams/lobby-9", "", 404),
        (Method::GET, "/v1/streams/yard", "", 403),
        (Method::GET, "/v1/streams/yard/fragments", "", 403),
        (Method::GET, "/v1/streams/y%61rd/fragments", "", 403),
        (Method::GET, "/v1/streams/nowhere", "", 403),
        (Method::GET, "/v1/search?q=*", "", 403),
        (Method::GET, "/v1/search/aggregate?by=stream", "", 403),
        (Method::PATCH, "/v1/streams/lobby-1", "{}", 403),
        (Method::DELETE, "/v1/streams/lobby-1", "", 403),
        (Method::POST, "/v1/streams", r#"{"name": "lobby-3"}"#, 403),
        (Method::POST, "/v1/sign", r#"{"path_prefix": "/v1/streams/lobby-1", "expires_s": 60}"#, 200),
        (Method::POST, "/v1/sign", r#"{"path_prefix": "/v1/streams/yard", "expires_s": 60}"#, 403),
        (Method::POST, "/v1/sign", r#"{"path_prefix": "/v1/streams/yard/hls", "expires_s": 60}"#, 403),
    ] {
        let answer = archive.send_as(READER, method.clone(), uri, body).await;
        assert_eq!(answer.status, status, "{method} {uri}: {}", answer.text());
    }
    assert_eq!(archive.get("/v1/streams/lobby-1").await.status, 200, "it was not deleted");
}

#[tokio::test]
async fn a_list_has_what_its_reader_may_see_on_pages_of_its_own() {
    let archive = archive().await;
    let names = |answer: &support::Answer| -> Vec<String> {
        let streams = answer.json()["streams"].as_array().expect("streams").clone();
        streams.iter().map(|stream| stream["name"].as_str().expect("a name").to_owned()).collect()
    };
    let all = archive.send_as(READER, Method::GET, "/v1/streams", "").await;
    assert_eq!(names(&all), ["lobby-1", "lobby-2"]);
    let first = archive.send_as(READER, Method::GET, "/v1/streams?limit=1", "").await;
    let token = first.json()["next_token"].as_str().expect("another page").to_owned();
    let last = archive.send_as(READER, Method::GET, &format!("/v1/streams?limit=1&next_token={token}"), "").await;
    assert_eq!((names(&first), names(&last)), (vec!["lobby-1".to_owned()], vec!["lobby-2".to_owned()]));
    assert!(last.json()["next_token"].is_null(), "a page of streams that it may not see");
    assert_eq!(names(&archive.get("/v1/streams").await), ["lobby-1", "lobby-2", "yard"]);
}
