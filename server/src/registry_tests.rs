//! Tests of the registry.

use futures::FutureExt;
use vidar_core::clock::ManualClock;
use vidar_core::log::LogObserver;
use vidar_core::time::UnixMs;
use vidar_indexer::IndexOptions;
use vidar_storage::StoreOptions;
use vidar_storage::backend::memory::MemoryIo;

use super::*;

fn name(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

#[tokio::test]
async fn first_pushes_of_one_name_make_one_stream_and_those_of_others_do_not_wait_for_them() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new(UnixMs(0)));
    let index = Index::open(IndexOptions::in_memory(clock.clone())).unwrap();
    let observers: Vec<Arc<dyn LogObserver>> = vec![Arc::clone(&index) as _];
    let options = StoreOptions::new(dir.path().join("data"));
    let store = Store::open(options, Arc::new(MemoryIo::new()), clock.clone(), observers).unwrap().0;
    let registry = Registry::new(index, store, clock, 100, true);
    let (busy, other) = (name("cam-0"), name("cam-1"));
    let change = registry.changes.begin(&busy).await;
    let mut waits = registry.ensure(&busy);
    assert!((&mut waits).now_or_never().is_none());
    registry.ensure(&other).await.unwrap();
    assert_eq!(registry.list().len(), 1);
    drop(change);
    let (one, same, other_again) = tokio::join!(waits, registry.ensure(&busy), registry.ensure(&other));
    assert_eq!(one.unwrap().stream, same.unwrap().stream);
    other_again.unwrap();
    assert_eq!(registry.list().len(), 2);
}
