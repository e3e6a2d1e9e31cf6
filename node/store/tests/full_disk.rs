//! A disk without room: a flush waits for it and nothing is lost, in memory or on the disk (hazard 43).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use balsa_store::command::{self, Command, Operation, Put};
use balsa_store::engine::{Change, EngineSnapshot, Replacement, StateEngine};
use balsa_store::{EngineError, MemoryEngine, Store, StoreConfig};
use bytes::Bytes;

fn put(store: &mut Store, key: &str, value: &str) {
    let put =
        Put { key: Bytes::from(key.to_owned()), value: Bytes::from(value.to_owned()), ..Put::default() };
    let entry = command::encode(&Command { request: None, operation: Some(Operation::Put(put)) });
    store.apply(store.applied_index() + 1, &entry).unwrap();
    store.publish();
}

fn get(store: &Store, key: &str) -> Option<Bytes> {
    store.reader().view().get(key.as_bytes()).unwrap().map(|found| found.value)
}

fn open(engine: &MemoryEngine) -> Store {
    let config = StoreConfig { overlay_bytes: 1_000, ..StoreConfig::default() };
    Store::open(Arc::new(engine.clone()), config).unwrap()
}

#[test]
fn a_flush_without_room_keeps_all_and_goes_on_when_there_is_room() {
    let engine = MemoryEngine::new();
    let mut store = open(&engine);
    put(&mut store, "key", "old");
    let job = store.force_rotate().unwrap();
    engine.set_full(true);
    for _ in 0..3 {
        assert!(job.run().unwrap_err().is_no_room());
    }
    assert_eq!(store.durable_index(), 0);
    assert_eq!(get(&store, "key").as_deref(), Some(&b"old"[..]));

    // What is applied meanwhile has a bound, and no second flush begins.
    while !store.must_wait() {
        let next = format!("key-{}", store.applied_index());
        put(&mut store, &next, "new");
    }
    assert!(store.maybe_rotate().is_none());

    engine.set_full(false);
    let index = job.run().unwrap();
    store.handle_flushed(index).unwrap();
    assert_eq!(store.durable_index(), 1);
    assert!(!store.must_wait());
    assert_eq!(get(&store, "key").as_deref(), Some(&b"old"[..]));
    assert_eq!(get(&store, "key-1").as_deref(), Some(&b"new"[..]));
    engine.crash();
    assert_eq!(get(&open(&engine), "key").as_deref(), Some(&b"old"[..]));
}

#[test]
fn a_snapshot_takes_the_place_of_a_flush_that_waits_for_room() {
    let mut sender = open(&MemoryEngine::new());
    for number in 0..10 {
        put(&mut sender, "key", &number.to_string());
    }
    let index = sender.force_rotate().unwrap().run().unwrap();
    sender.handle_flushed(index).unwrap();

    let engine = MemoryEngine::new();
    let mut store = open(&engine);
    put(&mut store, "gone", "old");
    let job = store.force_rotate().unwrap();
    engine.set_full(true);
    assert!(job.run().unwrap_err().is_no_room());
    assert!(store.begin_install().is_err_and(|error| error.is_no_room()), "a snapshot finds no room either");

    engine.set_full(false);
    let (mut source, mut sink) = (sender.begin_snapshot(), store.begin_install().unwrap());
    while let Some(chunk) = source.next_chunk(1_000).unwrap() {
        sink.add_chunk(&chunk).unwrap();
    }
    store.install_snapshot(sink.stage().unwrap()).unwrap();
    let flushed = job.run().unwrap();
    store.handle_flushed(flushed).unwrap();
    assert_eq!((store.applied_index(), store.durable_index()), (10, 10));
    assert_eq!(get(&store, "gone"), None);
    assert_eq!(get(&store, "key").as_deref(), Some(&b"9"[..]));
}

/// An engine on a disk with so much left, which counts what is tried.
#[derive(Clone, Default)]
struct Narrow {
    engine: MemoryEngine,
    free: Arc<AtomicU64>,
    tried: Arc<AtomicU64>,
}

impl StateEngine for Narrow {
    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        self.engine.snapshot()
    }

    fn ingest(&self, rows: &mut dyn Iterator<Item = Change>) -> Result<(), EngineError> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        self.engine.ingest(rows)
    }

    fn persist(&self) -> Result<(), EngineError> {
        self.engine.persist()
    }

    fn begin_replace(&self) -> Result<Box<dyn Replacement>, EngineError> {
        self.engine.begin_replace()
    }

    fn size_bytes(&self) -> u64 {
        self.engine.size_bytes()
    }

    fn free_bytes(&self) -> Result<u64, EngineError> {
        Ok(self.free.load(Ordering::Relaxed))
    }
}

/// Each try would leave files behind.
#[test]
fn a_flush_that_may_not_fit_is_not_tried() {
    let engine = Narrow::default();
    let mut store = Store::open(Arc::new(engine.clone()), StoreConfig::default()).unwrap();
    for number in 0..20 {
        put(&mut store, &format!("key-{number}"), &"v".repeat(100_000));
    }
    let twice = 2 * store.stats().overlay_bytes; // with its key and with its history
    let job = store.force_rotate().unwrap();
    for free in [0, twice / 2, twice] {
        engine.free.store(free, Ordering::Relaxed);
        assert!(job.run().unwrap_err().is_no_room(), "{free} bytes are left");
    }
    assert_eq!(engine.tried.load(Ordering::Relaxed), 0);
    engine.free.store(twice + (2 << 20), Ordering::Relaxed);
    assert_eq!(job.run().unwrap(), 20);
}
