//! Tests of checks beside a running store.

use vidar_core::clock::SystemClock;
use vidar_core::control::Control;
use vidar_indexer::IndexOptions;
use vidar_storage::StoreOptions;
use vidar_storage::backend::fs::FsIo;

use super::*;

#[tokio::test]
async fn one_check_at_a_time_which_waits_as_it_must_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let options = StoreOptions::new(dir.path().join("data"));
        let io = Arc::new(FsIo::new(&options.data_dir));
        Store::open(options, io, SystemClock::shared(), Vec::new()).unwrap().0
    };
    // A closed file.
    let store = open();
    store.control(Control::Key { stream: None, version: 1, event: "created".into() }).await.unwrap();
    store.close().await.unwrap();
    let store = open();
    let index = Index::open(IndexOptions::in_memory(SystemClock::shared())).unwrap();
    let verifier = |bytes_per_s| Verifier::new(store.clone(), Arc::clone(&index), SystemClock::shared(), bytes_per_s);

    // At a byte a second it would take an hour.
    let slow = verifier(1);
    assert_eq!(slow.show()["state"], "idle");
    assert!(slow.begin(Depth::Decrypt).unwrap());
    assert!(!slow.begin(Depth::Checksum).unwrap(), "a second one beside it");
    assert_eq!(slow.show()["state"], "running");
    slow.stop();
    ended(&slow).await;
    assert_eq!((&slow.show()["state"], slow.stats().runs), (&"stopped".into(), 1));

    let quick = verifier(u64::MAX);
    for runs in 1..3 {
        assert!(quick.begin(Depth::Decrypt).unwrap());
        ended(&quick).await;
        let shown = quick.show();
        assert_eq!((&shown["state"], &shown["files"], &shown["records"]), (&"done".into(), &1.into(), &1.into()));
        assert_eq!(shown["done_bytes"], shown["total_bytes"]);
        assert_eq!((&shown["findings_total"], quick.stats().runs), (&0.into(), runs));
    }
    assert!(quick.stats().bytes > 0);
}

async fn ended(verifier: &Verifier) {
    while verifier.show()["state"] == "running" {
        tokio::task::yield_now().await;
    }
}
