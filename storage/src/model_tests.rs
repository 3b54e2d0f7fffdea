//! Random histories against a model: append, parts, expire, delete, failing disks, power cuts, reopening.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use vidar_core::ids::FragmentNumber;
use vidar_core::time::UnixMs;

use super::*;
use crate::backend::fault::{Fault, FaultyIo, Op};
use crate::backend::memory::MemoryIo;
use crate::testing::{Opened, Source, media, open_with, options, read_back, source_kept};
use crate::{Depth, verify_on};

#[derive(Debug, Clone)]
enum Step {
    /// So many fragments of such a length at the same time.
    Append {
        source: usize,
        count: u8,
        len: usize,
    },
    /// A fragment in parts, closed or not.
    Parts {
        source: usize,
        count: u16,
        closed: bool,
    },
    /// All but the newest so many go.
    Expire {
        source: usize,
        keep: usize,
    },
    Delete {
        source: usize,
    },
    /// The nth write, sync or file fails.
    Fail {
        op: u8,
        after: u32,
        torn: usize,
    },
    Reopen,
    /// The power fails; the seed decides what survives.
    PowerCut {
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0..200_usize, 3000..9000_usize, 60_000..140_000_usize];
    prop_oneof![
        6 => (0..3_usize, 1..5_u8, len).prop_map(|(source, count, len)| Step::Append { source, count, len }),
        2 => (0..3_usize, 1..4_u16, any::<bool>()).prop_map(|(source, count, closed)| Step::Parts { source, count, closed }),
        2 => (0..3_usize, 0..4_usize).prop_map(|(source, keep)| Step::Expire { source, keep }),
        1 => (0..3_usize).prop_map(|source| Step::Delete { source }),
        1 => (0..3_u8, 0..3_u32, 0..20_000_usize).prop_map(|(op, after, torn)| Step::Fail { op, after, torn }),
        1 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
    ]
}

struct World {
    memory: MemoryIo,
    io: FaultyIo,
    opened: Opened,
    sources: Vec<Source>,
    /// What was answered, by stream and number.
    model: BTreeMap<(StreamId, FragmentNumber), Bytes>,
    /// Parts that were answered and never closed.
    open_parts: BTreeMap<(StreamId, FragmentNumber), Bytes>,
    seed: u64,
}

impl World {
    async fn new() -> Self {
        let memory = MemoryIo::new();
        let io = FaultyIo::new(Arc::new(memory.clone()));
        let opened = open_with(options(), &io);
        let mut sources = Vec::new();
        for hours in [1, 48, 8760] {
            sources.push(source_kept(&opened.store, hours).await);
        }
        Self { memory, io, opened, sources, model: BTreeMap::new(), open_parts: BTreeMap::new(), seed: 0 }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { source, count, len } => self.append(source, count, len).await,
            Step::Parts { source, count, closed } => self.parts(source, count, closed).await,
            Step::Expire { source, keep } => self.expire(source, keep).await,
            Step::Delete { source } => self.delete(source).await,
            Step::Fail { op, after, torn } => {
                let op = [Op::Write, Op::Sync, Op::Create][usize::from(op)];
                let fault = Fault { op, after, times: 1, error: ErrorKind::Other, torn_bytes: torn };
                self.io.fail(fault);
            }
            Step::Reopen => {
                let _ = self.opened.store.close().await;
                self.reopen().await;
            }
            Step::PowerCut { mut seed } => {
                self.memory.power_cut(|| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    seed >> 63 == 1
                });
                self.reopen().await;
            }
        }
    }

    async fn append(&mut self, source: usize, count: u8, len: usize) {
        let (from, store) = (self.sources[source], self.opened.store.clone());
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..count {
            self.seed += 1;
            let (number, media) = (store.next_number(UnixMs(5)), media(self.seed, len));
            let (fragment, store) = (from.fragment(number, &media), store.clone());
            set.spawn(async move { (number, media, store.append(fragment).await) });
        }
        for (number, media, answer) in set.join_all().await {
            if answer.is_ok() {
                self.model.insert((from.stream, number), media);
            }
        }
    }

    async fn parts(&mut self, source: usize, count: u16, closed: bool) {
        let (from, store) = (self.sources[source], self.opened.store.clone());
        let number = store.next_number(UnixMs(5));
        let mut all = Vec::new();
        for index in 0..count {
            self.seed += 1;
            let part = media(self.seed, 20_000);
            if store.append(from.part(number, index, &part)).await.is_err() {
                return;
            }
            all.extend(part);
            self.open_parts.insert((from.stream, number), all.clone().into());
        }
        self.seed += 1;
        let rest = media(self.seed, 100);
        if closed && store.append(from.close(number, count, 20_000, &rest)).await.is_ok() {
            all.extend(rest);
            self.open_parts.remove(&(from.stream, number));
            self.model.insert((from.stream, number), all.into());
        }
    }

    async fn expire(&mut self, source: usize, keep: usize) {
        let stream = self.sources[source].stream;
        let numbers: Vec<_> = self.model.keys().filter(|(of, _)| *of == stream).map(|(_, number)| *number).collect();
        let Some(floor) = numbers.len().checked_sub(keep + 1).map(|at| numbers[at]) else { return };
        let entries = self.opened.seen.entries();
        let gone = entries.into_iter().filter(|entry| entry.meta.stream == stream && entry.meta.number < floor);
        if self.opened.store.expire(stream, floor, 0, 0, gone.collect()).await.is_ok() {
            let keep = |name: &(StreamId, FragmentNumber)| name.0 != stream || name.1 >= floor;
            self.model.retain(|name, _| keep(name));
            self.open_parts.retain(|name, _| keep(name));
        }
    }

    async fn delete(&mut self, index: usize) {
        let stream = self.sources[index].stream;
        let entries = self.opened.seen.entries().into_iter().filter(|entry| entry.meta.stream == stream);
        if self.opened.store.delete_stream(stream, UnixMs(1), entries.collect()).await.is_ok() {
            self.model.retain(|name, _| name.0 != stream);
            self.open_parts.retain(|name, _| name.0 != stream);
            // The faults that are planned may hit the first tries.
            let name = loop {
                let stream = StreamId::new();
                if self.opened.store.create_stream_key(stream).await.is_ok() {
                    break stream;
                }
            };
            let config = self.opened.store.put_config(name, &crate::testing::config("one")).await.unwrap();
            self.sources[index] = Source { stream: name, config, ..self.sources[index] };
        }
    }

    async fn reopen(&mut self) {
        // Another disk under the same data: plans for the old one are void.
        self.io = FaultyIo::new(Arc::new(self.memory.clone()));
        self.opened = open_with(options(), &self.io);
        let report = &self.opened.report;
        assert_eq!(report.damage, [], "a crash is no damage");
        for (name, media) in std::mem::take(&mut self.open_parts) {
            // Closed as incomplete, with at least what was answered.
            let entry = self.opened.seen.entry(name.1).expect("recovered");
            assert_eq!(&read_back(&self.opened.store, &entry).await[..media.len()], &media[..]);
            let all = read_back(&self.opened.store, &entry).await;
            self.model.insert(name, all);
        }
        for from in &mut self.sources {
            from.config = self.opened.store.put_config(from.stream, &crate::testing::config("one")).await.unwrap();
        }
        self.check().await;
    }

    /// Everything answered reads back exactly; nothing that was let go is there.
    async fn check(&self) {
        let entries = self.opened.seen.entries();
        for ((stream, number), media) in &self.model {
            let entry = self.opened.seen.entry(*number).unwrap_or_else(|| panic!("{number} was answered"));
            assert_eq!(entry.meta.stream, *stream);
            assert_eq!(&read_back(&self.opened.store, &entry).await, media);
            assert_eq!(*self.opened.store.config(&entry).await.unwrap(), crate::testing::config("one"));
        }
        let mut numbers: Vec<_> = entries.iter().map(|entry| entry.meta.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), entries.len(), "each fragment once");
    }

    /// The last word: a clean stop, a verification, and one more start that finds exactly the model.
    async fn finish(mut self) {
        let _ = self.opened.store.close().await;
        self.reopen().await;
        let expected: Vec<_> = self.model.keys().copied().collect();
        let mut found: Vec<_> =
            self.opened.seen.entries().iter().map(|entry| (entry.meta.stream, entry.meta.number)).collect();
        found.sort_unstable();
        for name in &expected {
            assert!(found.binary_search(name).is_ok());
        }
        self.opened.store.close().await.unwrap();
        let report = verify_on(&options(), Arc::new(self.memory.clone()), Depth::Decrypt, &mut |_| {}).unwrap();
        assert_eq!((report.damage, report.unclosed), (Vec::new(), 0));
    }
}

/// `PROPTEST_CASES` asks for longer runs.
fn config() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { ProptestConfig { cases: 48, ..default } }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn any_history_keeps_what_was_answered(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.step(step).await;
            }
            world.finish().await;
        });
    }
}
