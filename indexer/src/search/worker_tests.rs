//! Tests of the worker module.

use vidar_core::clock::SystemClock;
use vidar_core::log::LogEvent;

use super::*;
use crate::testing::{Fragment, run, stream};
use crate::timeline;

/// A worker that nobody runs; its partitions are of 100 fragments each.
fn worker() -> Worker {
    let timeline = Arc::new(Timeline::open(timeline::Options::new(None, [0; 32])).unwrap());
    let shared = Arc::new(Shared {
        catalog: Arc::new(Catalog::new(Arc::clone(&timeline))),
        timeline,
        fields: Arc::new(Fields::new()),
        queue: Queue::new(100),
        known: Known::default(),
        view: RwLock::default(),
        progress: Progress::default(),
    });
    let settings = Settings {
        home: Home::Memory,
        clock: SystemClock::shared(),
        commit_interval: Duration::from_secs(30),
        commit_documents: 10_000,
        partition_ms: 200_000,
    };
    Worker::open(shared, settings).unwrap()
}

fn observe(worker: &Worker, event: &LogEvent) {
    match event {
        LogEvent::Fragment { entry, facts } => worker.shared.timeline.add(entry, facts),
        LogEvent::Control(record) => worker.shared.catalog.apply(record),
    }
}

/// What three streams recorded one after the other, `len` fragments each.
fn observe_streams(worker: &Worker, len: u64) {
    for first in [1, 1001, 2001] {
        let (id, of) = (StreamId::new(), RunId::new());
        observe(worker, &stream(first, id, &format!("cam-{first}")));
        observe(worker, &run(first + 1, id, of, "rtsp", "10.0.0.7:5004"));
        (first + 2..first + 2 + len).for_each(|sequence| observe(worker, &Fragment::new(id, of, sequence).event()));
    }
}

#[test]
fn looking_at_everything_says_how_far_it_is() {
    let mut worker = worker();
    observe_streams(&worker, 20);
    worker.shared.progress.begin(worker.shared.timeline.entry_count());
    for (done, stream) in (1..).zip(worker.shared.catalog.known()) {
        assert!(worker.consider_stream(stream).is_ok());
        assert_eq!(worker.shared.progress.read(), CatchUp { fragments: 20 * done, fragments_total: 60 });
    }
    let shared = Arc::clone(&worker.shared);
    shared.queue.tell(|next| next.behind = true);
    assert!(shared.queue.is_behind());
    let batch = shared.queue.take(Duration::ZERO, None);
    assert!(worker.work(&batch).is_ok() && shared.queue.is_behind());
    shared.queue.done(&batch, true);
    assert!(!shared.queue.is_behind());
    assert_eq!(shared.progress.read(), CatchUp::default());
}

#[test]
fn looking_at_everything_keeps_the_documents_of_few_partitions_in_memory() {
    let mut worker = worker();
    observe_streams(&worker, 500);
    let keeping = |worker: &Worker| worker.partitions.values().filter(|partition| partition.keeps_stream()).count();
    assert!(worker.consider_everything().is_ok() && worker.commit().is_ok());
    assert_eq!(worker.partitions.len(), 3 * 6);
    assert_eq!(keeping(&worker), 0);
    for stream in worker.shared.catalog.known() {
        assert!(worker.consider_stream(stream).is_ok());
        assert_eq!(keeping(&worker), HELD_MAX, "of {}", worker.partitions.len());
    }
    assert!(worker.fresh.is_empty(), "all of it is held");
}
