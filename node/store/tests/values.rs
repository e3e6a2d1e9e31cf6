//! What is asked for without values reads none of them: of many large ones they would fill a node's memory, and a deletion
//! of them that of all nodes at once.

mod common;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use balsa_store::command::{
    Answer, Condition, ConditionKind, Delete, DeleteRange, Expire, GrantLease, Nothing, Operation, Put, Txn,
    TxnCondition, TxnOp, TxnOpKind, TxnTest,
};
use balsa_store::engine::{Change, EngineSnapshot, Replacement, RowIter, StateEngine};
use balsa_store::{EngineError, MemoryEngine, Order, Scan, Store, StoreConfig, Values, command};
use bytes::Bytes;
use common::{command, text};

const VALUE_BYTES: usize = 10_000;

/// Counts what is read of rows, in bytes.
#[derive(Clone, Default)]
struct Counting {
    engine: MemoryEngine,
    read: Arc<AtomicUsize>,
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
        self.engine.begin_replace()
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
        self.read.fetch_add(row.as_ref().map_or(0, Bytes::len), Ordering::Relaxed);
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
        let entry = command::stamp(command::encode(&command(operation)), self.now_ms);
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
