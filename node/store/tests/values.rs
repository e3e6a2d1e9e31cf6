//! What is asked for without values reads none of them: of many large ones they would fill a node's memory, and a deletion
//! of them that of all nodes at once.

mod common;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use balsa_store::command::{
    Answer, Clear, Command, Condition, ConditionKind, Delete, DeleteRange, Expire, GrantLease, KeepLease,
    Nothing, OpenSession, Operation, Put, Txn, TxnCondition, TxnOp, TxnOpKind, TxnTest,
};
use balsa_store::engine::{Change, EngineSnapshot, Replacement, RowIter, StateEngine};
use balsa_store::{EngineError, MemoryEngine, Order, Scan, Store, StoreConfig, Values, command};
use bytes::Bytes;
use common::{command, text, with_key};

const VALUE_BYTES: usize = 10_000;

/// Counts what is read of rows, and how much is staged at once, in bytes.
#[derive(Clone, Default)]
struct Counting {
    engine: MemoryEngine,
    read: Arc<AtomicUsize>,
    staged: Arc<AtomicUsize>,
}

struct CountingReplacement {
    replacement: Box<dyn Replacement>,
    staged: Arc<AtomicUsize>,
}

impl Replacement for CountingReplacement {
    fn add(&mut self, rows: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<(), EngineError> {
        let mut bytes = 0;
        let added = self.replacement.add(&mut rows.inspect(|(key, value)| bytes += key.len() + value.len()));
        self.staged.fetch_max(bytes, Ordering::Relaxed);
        added
    }

    fn finish(self: Box<Self>) -> Result<(), EngineError> {
        self.replacement.finish()
    }
}

struct CountingSnapshot {
    snapshot: Arc<dyn EngineSnapshot>,
    read: Arc<AtomicUsize>,
}

impl StateEngine for Counting {
    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        Arc::new(CountingSnapshot { snapshot: self.engine.snapshot(), read: Arc::clone(&self.read) })
    }

    fn ingest(&self, rows: &mut dyn Iterator<Item = Change>) -> Result<(), EngineError> {
        self.engine.ingest(rows)
    }

    fn persist(&self) -> Result<(), EngineError> {
        self.engine.persist()
    }

    fn begin_replace(&self) -> Result<Box<dyn Replacement>, EngineError> {
        let replacement = self.engine.begin_replace()?;
        Ok(Box::new(CountingReplacement { replacement, staged: Arc::clone(&self.staged) }))
    }

    fn size_bytes(&self) -> u64 {
        self.engine.size_bytes()
    }

    fn free_bytes(&self) -> Result<u64, EngineError> {
        self.engine.free_bytes()
    }
}

impl EngineSnapshot for CountingSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let row = self.snapshot.get(key)?;
        self.read.fetch_add(key.len() + row.as_ref().map_or(0, Bytes::len), Ordering::Relaxed);
        Ok(row)
    }

    fn scan(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter {
        self.counted(self.snapshot.scan(start, end))
    }

    fn scan_back(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter {
        self.counted(self.snapshot.scan_back(start, end))
    }
}

impl CountingSnapshot {
    fn counted(&self, rows: RowIter) -> RowIter {
        let read = Arc::clone(&self.read);
        Box::new(rows.inspect(move |row| {
            read.fetch_add(row.as_ref().map_or(0, |(key, value)| key.len() + value.len()), Ordering::Relaxed);
        }))
    }
}

struct Bench {
    store: Store,
    read: Arc<AtomicUsize>,
    now_ms: u64,
}

impl Bench {
    /// Twenty keys with large values, on disk; all end with one lease if that is asked for.
    fn new(leased: bool) -> Bench {
        let engine = Counting::default();
        let read = Arc::clone(&engine.read);
        let store = Store::open(Arc::new(engine), StoreConfig::default()).unwrap();
        let mut bench = Bench { store, read, now_ms: 0 };
        bench.apply(Operation::GrantLease(GrantLease { ttl_ms: 1_000 }));
        for key in 0..20 {
            let (key, value) = (text(&format!("k{key:02}")), Bytes::from(vec![b'v'; VALUE_BYTES]));
            let lease = u64::from(leased);
            bench.apply(Operation::Put(Put { key, value, lease, ..Put::default() }));
        }
        bench.store.flush().unwrap();
        bench.read.store(0, Ordering::Relaxed);
        bench
    }

    fn apply(&mut self, operation: Operation) -> Answer {
        self.apply_command(&command(operation))
    }

    fn apply_command(&mut self, command: &Command) -> Answer {
        let entry = command::stamp(command::encode(command), self.now_ms);
        let reply = self.store.apply(self.store.applied_index() + 1, &entry).unwrap();
        self.store.publish();
        reply.answer.unwrap()
    }

    /// What was read since the last time holds none of the values.
    fn check(&self, what: &str) {
        let read = self.read.swap(0, Ordering::Relaxed);
        assert!(read < VALUE_BYTES, "{what} read {read} bytes");
    }
}

#[test]
fn counts_and_lists_of_keys_read_no_values() {
    let bench = Bench::new(false);
    let view = bench.store.reader().view();
    for (revision, keys) in [(20, 20), (10, 10)] {
        let all = Scan::new(Bound::Unbounded, Bound::Unbounded);
        let back = Scan { order: Order::Descending, ..all };
        let count = view.count_at(revision, all, 100).unwrap();
        assert_eq!((count.keys, count.more), (keys, false));
        let count = view.count_at(revision, all, 5).unwrap();
        assert_eq!((count.keys, count.last, count.more), (5, Some(text("k04")), true));
        let count = view.count_at(revision, back, keys - 1).unwrap();
        assert_eq!((count.keys, count.last, count.more), (keys - 1, Some(text("k01")), true));
        if revision < 20 {
            continue; // a key of which there are later changes is found down their chain
        }
        bench.check("a count");
        let page = view.page_at(revision, Scan { values: Values::LeftOut, ..all }, 3, usize::MAX).unwrap();
        let items: Vec<_> = page.items.iter().map(|(key, value)| (&key[..], value.revision)).collect();
        assert_eq!(items, [(&b"k00"[..], 1), (b"k01", 2), (b"k02", 3)]);
        let page = view.page_at(revision, Scan { values: Values::LeftOut, ..back }, 1, usize::MAX).unwrap();
        assert_eq!((page.items[0].0.clone(), page.more), (text("k19"), true));
        bench.check("a list of keys");
    }
}

#[test]
fn deletions_and_conditions_read_no_values() {
    let mut bench = Bench::new(false);
    let exists = || Some(Condition { kind: Some(ConditionKind::Exists(Nothing {})) });
    let key = text("k00");
    bench.apply(Operation::Delete(Delete { key: key.clone(), condition: exists(), want_previous: false }));
    bench.check("a deletion");
    let put = Put { key: text("k01"), value: text("1"), condition: exists(), ..Put::default() };
    bench.apply(Operation::Put(put));
    bench.check("a PUT with a condition");
    let condition = TxnCondition { subject: text("k02"), test: Some(TxnTest::Exists(true)) };
    let then = vec![TxnOp { kind: Some(TxnOpKind::Delete(text("k02"))) }];
    bench.apply(Operation::Txn(Txn { conditions: vec![condition], then, ..Txn::default() }));
    bench.check("a transaction");
    let range = DeleteRange { start: text("k"), end: None, limit: 100 };
    let Answer::RangeDeleted(done) = bench.apply(Operation::DeleteRange(range)) else { panic!() };
    assert_eq!((done.deleted, done.next), (18, None));
    bench.check("the deletion of a range");
}

#[test]
fn the_end_of_a_lease_reads_no_values_of_its_keys() {
    let mut bench = Bench::new(true);
    bench.now_ms = 1_000;
    let Answer::Expired(expired) = bench.apply(Operation::Expire(Expire { limit: 100 })) else { panic!() };
    assert_eq!((expired.ended, expired.deleted), (1, 20));
    bench.check("the end of a lease");
}

/// Where memory is not enough nothing is done: a leader's turn must not wait for a disk.
#[test]
fn what_is_applied_in_memory_looks_at_no_disk() {
    let mut bench = Bench::new(true);
    let mut apply = |time_ms, command: &Command| {
        let entry = command::stamp(command::encode(command), time_ms);
        let index = bench.store.applied_index() + 1;
        let reply = bench.store.apply_in_memory(index, &entry).unwrap();
        assert_eq!(bench.read.swap(0, Ordering::Relaxed), 0, "{command:?}");
        assert_eq!(bench.store.applied_index() == index, reply.is_some(), "{command:?}");
        reply.is_some()
    };
    let put = || Put { key: text("k00"), value: text("1"), ..Put::default() };
    let exists = || Some(Condition { kind: Some(ConditionKind::Exists(Nothing {})) });
    for (operation, in_memory) in [
        (Operation::Put(put()), true),
        (Operation::Put(Put { key: text("new"), ..put() }), true),
        (Operation::Put(Put { lease: 1, ..put() }), true),
        (Operation::Put(Put { ttl_ms: 500, ..put() }), true),
        (Operation::GrantLease(GrantLease { ttl_ms: 1 }), true),
        (Operation::KeepLease(KeepLease { lease: 1 }), true),
        (Operation::Put(Put { want_previous: true, ..put() }), false),
        (Operation::Put(Put { condition: exists(), ..put() }), false),
        (Operation::Delete(Delete { key: text("k00"), ..Delete::default() }), false),
        (Operation::Clear(Clear {}), false),
        (Operation::Expire(Expire { limit: 1 }), false),
    ] {
        assert_eq!(apply(0, &command(operation.clone())), in_memory, "{operation:?}");
    }
    assert!(!apply(0, &with_key("key", "f", Operation::Put(put()))));

    // Nor what would have to drop what has expired.
    for of_session in [false, true] {
        let mut bench = Bench::new(false);
        let request = if of_session {
            command(Operation::OpenSession(OpenSession {}))
        } else {
            with_key("key", "f", Operation::Put(put()))
        };
        bench.apply_command(&request);
        bench.store.flush().unwrap();
        let entry = |time_ms| command::stamp(command::encode(&command(Operation::Put(put()))), time_ms);
        let next = bench.store.applied_index() + 1;
        assert!(bench.store.apply_in_memory(next, &entry(600_000)).unwrap().is_none());
        assert!(bench.store.apply_in_memory(next, &entry(599_999)).unwrap().is_some());
    }
}

#[test]
fn a_snapshot_that_arrives_goes_to_the_disk_in_portions() {
    let mut sender = Bench::new(false);
    for number in 0..30 {
        let (key, value) = (text(&format!("large{number}")), Bytes::from(vec![b'v'; 1 << 20]));
        sender.apply(Operation::Put(Put { key, value, ..Put::default() }));
    }
    sender.store.flush().unwrap();
    let engine = Counting::default();
    let mut receiver = Store::open(Arc::new(engine.clone()), StoreConfig::default()).unwrap();
    let (mut source, mut sink) = (sender.store.begin_snapshot(), receiver.begin_install().unwrap());
    while let Some(chunk) = source.next_chunk(256 << 10).unwrap() {
        sink.add_chunk(&chunk).unwrap();
    }
    receiver.install_snapshot(sink.stage().unwrap()).unwrap();
    assert_eq!(receiver.position(), sender.store.position());
    let staged = engine.staged.load(Ordering::Relaxed);
    assert!((15 << 20..18 << 20).contains(&staged), "{staged} bytes at once");
}
