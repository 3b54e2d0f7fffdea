//! Tests of the client module.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A helper that is a shell script.
fn script(body: &str) -> (tempfile::TempDir, Helpers) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("helper");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let helpers = Helpers::new(path);
    (dir, helpers)
}

async fn start(helpers: &Helpers) -> Helper {
    loop {
        match helpers.start(Foreign::Flv) {
            Ok(helper) => return helper,
            // Another test was forking while the script was open for writing.
            Err(failure) if failure.detail.contains("Text file busy") => tokio::task::yield_now().await,
            Err(failure) => panic!("{failure:?}"),
        }
    }
}

async fn outcome(mut helper: Helper, input: usize) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    helper.feed(Bytes::from(vec![0; input]));
    loop {
        match helper.next().await? {
            Step::Event(event) => events.push(event),
            Step::Hungry => helper.close(),
            Step::End => return Ok(events),
        }
    }
}

#[tokio::test]
async fn much_input_and_much_output_do_not_wait_for_each_other() {
    // It says 1 MiB before it reads anything: a config of no tracks is 8 bytes.
    let (_dir, helpers) = script(
        r"i=0; c='\000\000\000\004\001\001\000\000'; while [ $i -lt 12 ]; do c=$c$c; i=$((i+1)); done
        i=0; while [ $i -lt 32 ]; do printf $c; i=$((i+1)); done
        cat >/dev/null; printf '\000\000\000\001\004'",
    );
    let events = outcome(start(&helpers).await, 4 << 20).await.unwrap();
    assert_eq!(events.len(), 32 * 4096);
}

#[tokio::test]
async fn a_helper_that_fails_is_an_error_of_the_input() {
    for (body, expected) in [
        ("exit 3", "exit status: 3"),
        ("kill -9 $$", "signal: 9"),
        ("cat >/dev/null", "exit status: 0"),
        (r"printf '\377\377\377\377'", "a message of at most"),
        (r"printf '\000\000\000\001\011'", "a kind of message"),
        (r"printf '\000\000\000\007\003\001\231\003bad'", "bad"),
    ] {
        let (_dir, helpers) = script(body);
        let failure = outcome(start(&helpers).await, 100_000).await.unwrap_err();
        assert!(failure.detail.contains(expected), "{body}: {failure:?}");
        assert!((400..500).contains(&failure.status), "{failure:?}");
    }
}

#[tokio::test]
async fn a_helper_that_hangs_is_given_up() {
    let (_dir, helpers) = script("exec tail -f /dev/null");
    let helpers = helpers.stalled_after(Duration::from_millis(50));
    // More than a pipe holds.
    let failure = outcome(start(&helpers).await, 1 << 20).await.unwrap_err();
    assert!(failure.detail.contains("did nothing"), "{failure:?}");
}

#[tokio::test]
async fn helpers_are_few_and_see_no_secrets() {
    let (_dir, helpers) = script("exec cat >/dev/null");
    let mut running = Vec::new();
    for _ in 0..HELPER_COUNT_MAX {
        running.push(start(&helpers).await);
    }
    let refused = helpers.start(Foreign::Flv).map(|_| ()).unwrap_err();
    assert_eq!(refused.status, 503);
    running.pop().unwrap().kill().await;
    running.push(start(&helpers).await);
    let command = helpers.command(Foreign::Ogg);
    let set: Vec<_> = command.as_std().get_envs().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    assert!(set.iter().all(|name| ENVIRONMENT.contains(&name.as_str()) || name == "MALLOC_ARENA_MAX"), "{set:?}");
}

#[tokio::test]
async fn no_such_executable() {
    let refused = Helpers::new("/nowhere/vidar").start(Foreign::Avi).map(|_| ()).unwrap_err();
    assert_eq!(refused.status, 503);
}
