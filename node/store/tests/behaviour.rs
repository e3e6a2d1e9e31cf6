//! Single rules of the store, one a test.

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use balsa_store::command::{
    self, AcquireLock, Answer, Command, Condition, ConditionKind, DeleteRange, Expire, GrantLease, KeepLease,
    Nothing, OpenSession, Operation, Put, ReleaseLock, Reply, RevokeLease, SetFeatureLevel, Txn, TxnOp,
    TxnOpKind,
};
use balsa_store::engine::StateEngine;
use balsa_store::{ApplyError, FEATURE_LEVEL, MemoryEngine, Scan, Store, StoreConfig, StoreError};
use bytes::Bytes;
use common::{clear, command, compact, delete, put, small_config, text, with_key, with_session};

struct Bench {
    engine: MemoryEngine,
    store: Store,
    config: StoreConfig,
}

impl Bench {
    fn new(config: StoreConfig) -> Self {
        let engine = MemoryEngine::new();
        let store = Store::open(Arc::new(engine.clone()), config.clone()).unwrap();
        Bench { engine, store, config }
    }

    fn apply(&mut self, time_ms: u64, command: &Command) -> Answer {
        self.reply(time_ms, command).answer.unwrap()
    }

    fn reply(&mut self, time_ms: u64, command: &Command) -> Reply {
        let entry = command::stamp(command::encode(command), time_ms);
        self.store.apply(self.store.applied_index() + 1, &entry).unwrap()
    }

    fn do_all(&mut self, operations: impl IntoIterator<Item = Operation>) {
        for operation in operations {
            self.apply(0, &command(operation));
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let job = self.store.force_rotate().expect("there is something to flush");
        let index = job.run()?;
        self.store.handle_flushed(index)
    }

    /// How many rows the engine has of each table.
    fn rows(&self) -> BTreeMap<char, usize> {
        let mut rows = BTreeMap::new();
        for row in self.engine.snapshot().scan(Bound::Unbounded, Bound::Unbounded) {
            *rows.entry(char::from(row.unwrap().0[0])).or_default() += 1;
        }
        rows
    }

    fn reopen(&mut self) {
        self.store = Store::open(Arc::new(self.engine.clone()), self.config.clone()).unwrap();
    }
}

fn deleted(answer: Answer) -> u64 {
    match answer {
        Answer::Clear(done) => done.deleted,
        other => panic!("{other:?} is not the answer to a clear"),
    }
}

#[test]
fn a_clear_counts_what_plain_puts_did_not_look_at() {
    let mut bench = Bench::new(StoreConfig::default());
    bench.do_all((0..10).map(|n| put(&format!("k{n}"), "v")));
    bench.flush().unwrap();
    // Some are there, some new; one is deleted, one deleted and set again. Two layers of it.
    bench.do_all((5..15).map(|n| put(&format!("k{n}"), "w")));
    bench.do_all([delete("k7"), delete("k14"), put("k14", "x"), delete("k0")]);
    let job = bench.store.force_rotate().unwrap();
    bench.do_all((12..20).map(|n| put(&format!("k{n}"), "w")));
    assert_eq!(deleted(bench.apply(0, &command(clear()))), 18);
    assert_eq!(deleted(bench.apply(0, &command(clear()))), 0, "an empty store is not cleared");
    bench.do_all([put("k1", "v"), put("k1", "v"), put("new", "v")]);
    let index = job.run().unwrap();
    bench.store.handle_flushed(index).unwrap();
    bench.flush().unwrap();
    assert_eq!(bench.store.stats().live_keys, 2);
    assert_eq!(deleted(bench.apply(0, &command(clear()))), 2);
}

#[test]
fn readers_see_what_was_published_only() {
    let mut bench = Bench::new(StoreConfig::default());
    let reader = bench.store.reader();
    bench.do_all([put("a", "1")]);
    assert_eq!(reader.view().get(b"a").unwrap(), None);
    bench.store.publish();
    bench.do_all([put("a", "2"), put("b", "2")]);
    // Neither a flush, nor another one, shows what was not published.
    for _ in 0..2 {
        bench.flush().unwrap();
        assert_eq!(reader.view().get(b"a").unwrap().unwrap().value, text("1"));
        assert_eq!(reader.view().get(b"b").unwrap(), None);
        assert_eq!((reader.view().revision(), reader.view().applied_index()), (1, 1));
        bench.do_all([put("a", "3")]);
    }
    bench.store.publish();
    assert_eq!(reader.view().get(b"a").unwrap().unwrap().version, 4);
}

#[test]
fn both_overlays_full_is_a_reason_to_wait() {
    let mut bench = Bench::new(small_config());
    let put_until = |bench: &mut Bench, is_enough: fn(&Store) -> bool| {
        for _ in 0..100 {
            if is_enough(&bench.store) {
                return;
            }
            bench.do_all([put("a", "0123456789")]);
        }
        panic!("100 puts were not enough");
    };
    put_until(&mut bench, |store| store.stats().overlay_bytes >= 4 << 10);
    assert!(!bench.store.must_wait());
    let job = bench.store.maybe_rotate().expect("the overlay is full");
    assert!(bench.store.maybe_rotate().is_none(), "one flush at a time");
    put_until(&mut bench, Store::must_wait);
    assert!(bench.store.stats().overlay_bytes < 10 << 10);
    assert!(bench.store.force_rotate().is_none(), "one flush at a time");
    let index = job.run().unwrap();
    bench.store.handle_flushed(index).unwrap();
    assert!(!bench.store.must_wait());
    assert!(bench.store.maybe_rotate().is_some());
}

#[test]
fn a_reply_is_kept_for_its_time_and_no_longer() {
    let mut bench = Bench::new(small_config());
    let once = with_key("k", "f", put("a", "1"));
    let first = bench.reply(100, &once);
    for time_ms in [100, 1099] {
        let again = bench.reply(time_ms, &once);
        assert_eq!(again, Reply { replayed: true, ..first.clone() });
        assert_eq!(
            bench.apply(time_ms, &with_key("k", "g", put("a", "1"))),
            Answer::RequestMismatch(Nothing {})
        );
    }
    assert_eq!(bench.store.position().revision, 1);
    assert!(!bench.reply(1100, &once).replayed, "its time is over");
    assert_eq!(bench.store.position().revision, 2);
    assert!(bench.reply(0, &once).replayed);
    assert_eq!(bench.store.time_ms(), 1100, "time does not run backwards");
}

#[test]
fn what_has_expired_is_gone_although_it_is_dropped_in_slices() {
    let many =
        StoreConfig { reply_limit: 300, session_limit: 300, session_reply_limit: 300, ..small_config() };
    let mut bench = Bench::new(many);
    let request = |n: u64| with_key(&format!("k{n}"), "f", put("a", "1"));
    for n in 0..300 {
        assert!(matches!(bench.apply(0, &request(n)), Answer::Put(_)));
    }
    let open = command(Operation::OpenSession(OpenSession {}));
    let first = bench.store.applied_index() + 1;
    for n in 0..300 {
        assert!(matches!(bench.apply(0, &open), Answer::SessionOpened(_)));
        assert!(matches!(bench.apply(0, &with_session(first + 2 * n, 1, 1, put("a", "1"))), Answer::Put(_)));
    }
    bench.flush().unwrap();
    // The last of many that expire at the same time.
    let last = with_session(first + 2 * 299, 1, 1, put("a", "1"));
    assert_eq!(bench.apply(1000, &last), Answer::SessionExpired(Nothing {}));
    assert!(!bench.reply(1000, &request(299)).replayed);
    assert!(matches!(bench.apply(1000, &open), Answer::SessionOpened(_)));
    // None is left in the end, in memory or in the engine.
    for _ in 0..10 {
        bench.apply(5000, &command(put("a", "1")));
    }
    bench.flush().unwrap();
    for _ in 0..2 {
        let stats = bench.store.stats();
        assert_eq!((stats.reply_entries, stats.sessions, stats.session_replies), (0, 0, 0));
        bench.reopen();
    }
}

#[test]
fn a_full_reply_table_refuses_and_forgets_nothing() {
    let mut bench = Bench::new(small_config());
    let request = |n: u64| with_key(&format!("k{n}"), "f", put("a", &n.to_string()));
    for n in 0..4 {
        assert!(matches!(bench.apply(n * 10, &request(n)), Answer::Put(_)));
    }
    assert_eq!(bench.apply(900, &request(4)), Answer::ReplyTableFull(Nothing {}));
    assert_eq!(bench.store.position().revision, 4, "a refused request is not applied");
    assert!((0..4).all(|n| bench.reply(900, &request(n)).replayed));
    assert!(matches!(bench.apply(900, &command(put("a", "plain"))), Answer::Put(_)), "others go on");
    assert!(matches!(bench.apply(1000, &request(4)), Answer::Put(_)), "the first has expired");
    assert_eq!(bench.apply(1000, &request(5)), Answer::ReplyTableFull(Nothing {}));
}

#[test]
fn replies_and_sessions_outlive_a_restart() {
    let mut bench = Bench::new(small_config());
    let Answer::SessionOpened(opened) = bench.apply(0, &command(Operation::OpenSession(OpenSession {})))
    else {
        panic!("no session was opened")
    };
    let large = "x".repeat(5000);
    bench.do_all([put("a", &large)]);
    let mut want_previous = put("a", &large);
    if let Operation::Put(put) = &mut want_previous {
        put.want_previous = true;
    }
    let by_key = with_key("k", "f", want_previous.clone());
    let by_session = with_session(opened.session, 1, 1, want_previous);
    let replies = [bench.reply(1, &by_key), bench.reply(1, &by_session)];
    bench.flush().unwrap();
    bench.reopen();
    for (request, reply) in [by_key, by_session].iter().zip(replies) {
        assert_eq!(bench.reply(2, request), Reply { replayed: true, ..reply });
    }
    let stats = bench.store.stats();
    assert_eq!((stats.reply_entries, stats.sessions, stats.session_replies), (1, 1, 1));
    // Replies that carry a large value have rows of their own.
    assert_eq!(bench.rows().into_keys().collect::<String>(), "dhijmstu");
    // What has expired leaves no rows behind.
    bench.apply(10_000, &command(put("a", "3")));
    bench.flush().unwrap();
    assert_eq!(bench.rows().into_keys().collect::<String>(), "dhm");
    bench.reopen();
    let stats = bench.store.stats();
    assert_eq!((stats.reply_entries, stats.sessions, stats.session_replies), (0, 0, 0));
}

#[test]
fn a_session_refuses_what_it_has_forgotten() {
    let mut bench = Bench::new(small_config());
    let open = command(Operation::OpenSession(OpenSession {}));
    let Answer::SessionOpened(opened) = bench.apply(0, &open) else { panic!("no session was opened") };
    let request = |sequence, lowest| with_session(opened.session, sequence, lowest, put("a", "1"));
    for sequence in 1..=3 {
        assert!(matches!(bench.apply(0, &request(sequence, 1)), Answer::Put(_)));
    }
    assert!(bench.reply(0, &request(2, 1)).replayed);
    assert!(matches!(bench.apply(0, &request(4, 3)), Answer::Put(_)));
    for sequence in [1, 2] {
        assert_eq!(bench.apply(0, &request(sequence, 1)), Answer::SessionExpired(Nothing {}));
    }
    assert!(bench.reply(700, &request(3, 1)).replayed);
    assert!(matches!(bench.apply(1499, &request(5, 3)), Answer::Put(_)), "use keeps it alive");
    assert_eq!(bench.apply(2299, &request(6, 3)), Answer::SessionExpired(Nothing {}));
    assert_eq!(bench.apply(2299, &request(6, 3)), Answer::SessionExpired(Nothing {}));
    assert_eq!(bench.store.position().revision, 5);
    // So many sessions, and no more.
    assert!((0..3).all(|_| matches!(bench.apply(2300, &open), Answer::SessionOpened(_))));
    assert_eq!(bench.apply(2300, &open), Answer::ReplyTableFull(Nothing {}));
}

#[test]
fn what_is_not_known_stops_the_node() {
    let mut bench = Bench::new(StoreConfig::default());
    let encoded = command::encode(&command(put("a", "1")));
    let mut newer = encoded.to_vec();
    newer[0] = u8::try_from(FEATURE_LEVEL + 1).unwrap();
    // Tag 99 of the command, an empty message: an operation of a newer build.
    let unknown_operation = [&encoded[..9], &[0x9a, 0x06, 0x00]].concat();
    for entry in [newer, unknown_operation, encoded[..5].to_vec(), [&encoded[..9], &[0xff]].concat()] {
        let error = bench.store.apply(1, &Bytes::from(entry.clone())).unwrap_err();
        assert!(matches!(error, ApplyError::Undecodable { index: 1, .. }), "{entry:?}: {error}");
    }
    let mut condition = put("a", "1");
    if let Operation::Put(put) = &mut condition {
        put.condition = Some(command::Condition { kind: None });
    }
    let error = bench.store.apply(1, &command::encode(&command(condition))).unwrap_err();
    assert!(matches!(error, ApplyError::Unknown { index: 1, .. }), "{error}");
    let level = FEATURE_LEVEL + 1;
    let raise = command(Operation::SetFeatureLevel(SetFeatureLevel { level }));
    let error = bench.store.apply(1, &command::encode(&raise)).unwrap_err();
    assert!(matches!(error, ApplyError::FeatureLevel { level: at, .. } if at == level), "{error}");
    assert_eq!(bench.store.applied_index(), 0);
}

#[test]
#[should_panic(expected = "entry 3 is applied after entry 1")]
fn an_entry_is_never_skipped() {
    let mut bench = Bench::new(StoreConfig::default());
    bench.store.apply_empty(1);
    bench.store.apply_empty(3);
}

#[test]
fn compaction_is_wanted_with_some_slack_and_never_goes_back() {
    let mut bench = Bench::new(small_config());
    bench.do_all((0..12).map(|n| put("a", &n.to_string())));
    assert_eq!(bench.store.wants_compaction(), None);
    bench.do_all([put("a", "one more")]);
    assert_eq!(bench.store.wants_compaction(), Some(3));
    let compacted = |answer| match answer {
        Answer::Compacted(compacted) => compacted.revision,
        other => panic!("{other:?} is not the answer to a compaction"),
    };
    assert_eq!(compacted(bench.apply(0, &command(compact(3)))), 3);
    assert_eq!(bench.store.wants_compaction(), None);
    assert_eq!(compacted(bench.apply(0, &command(compact(1)))), 3);
    assert_eq!(compacted(bench.apply(0, &command(compact(1000)))), 13);
    assert_eq!(bench.store.position().revision, 13);
}

#[test]
fn a_flush_that_fails_leaves_the_engine_as_it_was() {
    for calls in 0..2 {
        let mut bench = Bench::new(StoreConfig::default());
        bench.do_all([put("a", "1")]);
        bench.flush().unwrap();
        bench.do_all([put("a", "2"), put("b", "2")]);
        bench.engine.fail_after(calls);
        assert!(matches!(bench.flush(), Err(StoreError::Engine(_))));
        bench.engine.crash();
        bench.reopen();
        assert_eq!(bench.store.applied_index(), 1);
        let view = bench.store.reader().view();
        assert_eq!(view.get(b"a").unwrap().unwrap().value, text("1"));
        assert_eq!(view.get(b"b").unwrap(), None);
    }
}

#[test]
fn a_snapshot_is_taken_whole_or_not_at_all() {
    let mut bench = Bench::new(StoreConfig::default());
    bench.do_all((0..100).map(|n| put(&format!("k{n}"), &"v".repeat(n))));
    bench.flush().unwrap();
    bench.do_all([put("later", "v")]);
    let mut source = bench.store.begin_snapshot();
    assert_eq!(source.index(), 100);
    let mut chunks = Vec::new();
    while let Some(chunk) = source.next_chunk(600).unwrap() {
        // What is written, flushed and cleared meanwhile does not show.
        bench.do_all([put("k1", "changed"), clear()]);
        bench.flush().unwrap();
        chunks.push(chunk);
    }
    assert!(chunks.len() > 10 && chunks.iter().all(|chunk| chunk.len() <= 600));

    let mut other = Bench::new(StoreConfig::default());
    other.do_all([put("old", "v"), put("k3", "old")]);
    other.flush().unwrap();
    other.store.publish();
    let reader = other.store.reader();
    let old = reader.view();
    let mut sink = other.store.begin_install().unwrap();
    let refused = |result: Result<(), StoreError>| matches!(result, Err(StoreError::BadChunk { .. }));
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!(sink.wanted_sequence() as usize, number);
        for bit in [0, 80, chunk.len() * 8 - 1] {
            let mut damaged = chunk.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(sink.add_chunk(&damaged.into())), "chunk {number} with bit {bit} flipped");
        }
        assert!(refused(sink.add_chunk(&chunk.slice(..chunk.len() / 2))));
        if let Some(next) = chunks.get(number + 1) {
            assert!(refused(sink.add_chunk(next)), "a chunk came early");
        }
        assert!(!sink.is_complete());
        sink.add_chunk(chunk).unwrap();
        assert!(refused(sink.add_chunk(chunk)), "a chunk came twice");
    }
    assert!(sink.is_complete());
    // The connection broke: chunks come again, from the middle, and are the same.
    for middle in [7, chunks.len() - 1, 0] {
        source.resume_at(middle as u32).unwrap();
        for chunk in &chunks[middle..] {
            assert_eq!(source.next_chunk(600).unwrap().as_ref(), Some(chunk), "from {middle}");
        }
        assert_eq!(source.next_chunk(600).unwrap(), None);
    }
    assert!(refused(source.resume_at(chunks.len() as u32 + 1)));
    let staged = sink.stage().unwrap();
    assert_eq!(old.get(b"k3").unwrap(), reader.view().get(b"k3").unwrap(), "nothing happened yet");
    // A flush that was to run on the old state does nothing, and its end is passed over.
    other.do_all([put("k3", "newer")]);
    let job = other.store.force_rotate().unwrap();
    other.store.install_snapshot(staged).unwrap();
    assert!(!other.store.is_flushing());
    let index = job.run().unwrap();
    other.store.handle_flushed(index).unwrap();

    assert_eq!(old.get(b"old").unwrap().unwrap().value, text("v"), "a view that is held stands still");
    let view = reader.view();
    assert_eq!((view.applied_index(), view.digest()), (100, source.position().digest));
    assert_eq!(view.get(b"old").unwrap(), None);
    assert_eq!(view.get(b"k3").unwrap().unwrap().value, text("vvv"));
    other.engine.crash();
    other.reopen();
    assert_eq!(other.store.position(), source.position());

    // It may not go backwards, nor leave a part out.
    let mut sink = other.store.begin_install().unwrap();
    chunks.iter().for_each(|chunk| sink.add_chunk(chunk).unwrap());
    let stale = other.store.install_snapshot(sink.stage().unwrap());
    assert!(matches!(stale, Err(StoreError::StaleSnapshot { snapshot: 100, applied: 100 })));
    let mut sink = other.store.begin_install().unwrap();
    sink.add_chunk(&chunks[0]).unwrap();
    assert!(matches!(sink.stage(), Err(StoreError::BadChunk { .. })));
    assert_eq!(other.store.applied_index(), 100);
}

#[test]
fn an_idle_log_can_be_let_go() {
    let mut bench = Bench::new(StoreConfig::default());
    (1..=5).for_each(|index| bench.store.apply_empty(index));
    bench.flush().unwrap();
    assert_eq!(bench.store.durable_index(), 5);
    assert!(bench.store.force_rotate().is_none(), "there is nothing new");
    bench.reopen();
    assert_eq!(bench.store.applied_index(), 5);

    // Entries that leave nothing in the overlay are a reason to flush too, once there are many.
    let mut bench = Bench::new(small_config());
    bench.do_all((1..1000).map(|_| delete("absent")));
    assert!(bench.store.maybe_rotate().is_none());
    bench.do_all([delete("absent")]);
    assert_eq!(bench.store.maybe_rotate().map(|job| job.index()), Some(1000));
}

#[test]
fn what_was_done_is_not_done_again_whatever_it_was() {
    let mut bench = Bench::new(StoreConfig::default());
    let text = |of: &'static str| Bytes::from_static(of.as_bytes());
    let lock = AcquireLock { name: text("lock"), ttl_ms: 900, wait_ms: 900, ..AcquireLock::default() };
    let absent = Condition { kind: Some(ConditionKind::Absent(Nothing {})) };
    let Answer::LeaseLasts(lasts) =
        bench.apply(0, &command(Operation::GrantLease(GrantLease { ttl_ms: 900 })))
    else {
        panic!("no lease was granted")
    };
    let lease = lasts.lease;
    let token = lease + 1;
    bench.do_all([Operation::AcquireLock(lock.clone()), put("a", "0"), put("b", "0")]);
    let operations = [
        put("a", "1"),
        Operation::Put(Put { key: text("a"), condition: Some(absent), ..Put::default() }),
        Operation::Put(Put { key: text("leased"), lease, ..Put::default() }),
        Operation::Put(Put { key: text("timed"), ttl_ms: 900, ..Put::default() }),
        delete("a"),
        delete("a"),
        Operation::Txn(Txn {
            then: vec![TxnOp { kind: Some(TxnOpKind::Delete(text("b"))) }],
            ..Txn::default()
        }),
        Operation::DeleteRange(DeleteRange { start: text("t"), end: None, limit: 9 }),
        Operation::GrantLease(GrantLease { ttl_ms: 900 }),
        Operation::KeepLease(KeepLease { lease }),
        Operation::AcquireLock(lock),
        Operation::ReleaseLock(ReleaseLock { name: text("lock"), token }),
        Operation::Expire(Expire { limit: 9 }),
        Operation::RevokeLease(RevokeLease { lease, keys_max: 9 }),
        put("c", "1"),
        clear(),
        compact(1),
        Operation::SetFeatureLevel(SetFeatureLevel { level: 2 }),
        Operation::OpenSession(OpenSession {}),
    ];
    for (at, operation) in operations.into_iter().enumerate() {
        let once = with_key(&format!("k{at}"), "f", operation);
        let first = bench.reply(1, &once);
        assert!(!first.replayed, "{once:?}");
        let (stats, revision) = (bench.store.stats(), bench.store.position().revision);
        let again = bench.reply(2, &once);
        assert_eq!(again, Reply { replayed: true, ..first }, "{once:?}");
        assert_eq!((bench.store.stats(), bench.store.position().revision), (stats, revision), "{once:?}");
    }
}

#[test]
fn what_was_refused_is_decided_anew() {
    let mut bench = Bench::new(StoreConfig { lease_limit: 2, ..StoreConfig::default() });
    let text = |of: &'static str| Bytes::from_static(of.as_bytes());
    let lock =
        Operation::AcquireLock(AcquireLock { name: text("lock"), ttl_ms: 900, ..AcquireLock::default() });
    bench.do_all([lock.clone(), Operation::GrantLease(GrantLease { ttl_ms: 900 })]);
    let twice = TxnOp { kind: Some(TxnOpKind::Delete(text("a"))) };
    let refused = [
        lock,
        Operation::GrantLease(GrantLease { ttl_ms: 900 }),
        Operation::KeepLease(KeepLease { lease: 9_999 }),
        Operation::Txn(Txn { then: vec![twice.clone(), twice], ..Txn::default() }),
    ];
    let requests: Vec<Command> =
        (0..).zip(refused).map(|(at, operation)| with_key(&format!("k{at}"), "f", operation)).collect();
    for _ in 0..2 {
        for request in &requests {
            let reply = bench.reply(0, request);
            assert!(!reply.replayed && reply.answer.as_ref().unwrap().is_refusal(), "{reply:?}");
        }
    }
    assert_eq!(bench.store.stats().reply_entries, 0);
    bench.do_all([
        Operation::ReleaseLock(ReleaseLock { name: text("lock"), token: 1 }),
        Operation::RevokeLease(RevokeLease { lease: 2, keys_max: 9 }),
    ]);
    assert!(matches!(bench.apply(0, &requests[0]), Answer::LockPlace(_)));
    assert!(matches!(bench.apply(0, &requests[1]), Answer::LeaseLasts(_)));
}

#[test]
fn all_that_an_overlay_holds_counts_until_it_is_flushed() {
    let long = "x".repeat(4_000);
    let value = Bytes::from(long.clone());
    let key = text("a");
    let commands = [
        command(put(&long, "1")),
        command(put("a", &long)),
        command(Operation::Put(Put { key: key.clone(), content_type: Some(long.clone()), ..Put::default() })),
        command(Operation::AcquireLock(AcquireLock { name: key.clone(), value, ..AcquireLock::default() })),
        with_key("k", &long, delete("absent")),
    ];
    for command in commands {
        let mut bench = Bench::new(StoreConfig { overlay_bytes: 4_000, ..StoreConfig::default() });
        assert!(bench.store.maybe_rotate().is_none());
        bench.apply(0, &command);
        assert!(bench.store.stats().overlay_bytes >= 4_000);
        let job = bench.store.maybe_rotate().expect("it is full");
        assert!(bench.store.stats().overlay_bytes >= 4_000, "it is in memory still");
        let index = job.run().unwrap();
        bench.store.handle_flushed(index).unwrap();
        assert_eq!(bench.store.stats().overlay_bytes, 0);
    }
    // A reply that carries the value before it.
    let mut bench = Bench::new(StoreConfig::default());
    bench.apply(0, &command(put("a", &long)));
    let before = bench.store.stats().overlay_bytes;
    let previous = Operation::Put(Put { key, want_previous: true, ..Put::default() });
    bench.apply(0, &with_key("k", "f", previous));
    assert!(bench.store.stats().overlay_bytes >= before + 4_000);
}

#[test]
fn history_is_removed_as_fast_as_it_comes_however_little_a_flush_looks_at() {
    let mut bench = Bench::new(StoreConfig { sweep_rows: 1, ..StoreConfig::default() });
    for round in 0..50 {
        bench.do_all((0..20).map(|n| put("a", &n.to_string())));
        bench.apply(0, &command(compact(u64::MAX)));
        bench.flush().unwrap();
        assert!(bench.rows()[&'h'] <= 60, "{:?} after {round} rounds", bench.rows());
    }
}

#[test]
fn rows_that_became_unreadable_are_a_reason_to_flush_until_they_are_gone() {
    let mut bench = Bench::new(small_config());
    let flush = |bench: &mut Bench, job: balsa_store::FlushJob| {
        let index = job.run().unwrap();
        bench.store.handle_flushed(index).unwrap();
    };
    bench.do_all((0..9).map(|n| put("a", &n.to_string())));
    bench.flush().unwrap();
    assert!(bench.store.rotate_to_sweep().is_none() && bench.store.maybe_rotate().is_none());
    bench.apply(0, &command(compact(9)));
    assert!(bench.store.maybe_rotate().is_none(), "it can wait");
    let job = bench.store.rotate_to_sweep().expect("there is something to remove");
    flush(&mut bench, job);
    let mut slices = 1;
    while let Some(job) = bench.store.maybe_rotate() {
        flush(&mut bench, job);
        slices += 1;
    }
    assert_eq!((slices, bench.rows()[&'h']), (3, 1), "three rows a slice");
    assert!(bench.store.rotate_to_sweep().is_none());
    bench.apply(0, &command(clear()));
    assert!(bench.store.rotate_to_sweep().is_some());
}

#[test]
fn what_is_too_old_is_wanted_compacted_and_not_again_once_it_is() {
    let mut bench = Bench::new(StoreConfig { history_age_ms: 1_000, ..small_config() });
    for (time_ms, wanted) in [(0, None), (500, None), (999, None), (1_000, Some(1))] {
        bench.apply(time_ms, &command(put("a", "1")));
        assert_eq!(bench.store.wants_compaction(), wanted, "at {time_ms}");
    }
    bench.apply(1_000, &command(compact(1)));
    assert_eq!(bench.store.wants_compaction(), None, "that is done");
    bench.apply(1_500, &command(delete("absent")));
    assert_eq!(bench.store.wants_compaction(), Some(2));
    assert_eq!(bench.store.outlook().wants_compaction, Some(2));
}

#[test]
fn a_page_ends_with_about_so_many_bytes() {
    let mut bench = Bench::new(StoreConfig::default());
    bench.do_all((0..10).map(|n| put(&format!("k{n}"), &"v".repeat(98))));
    bench.store.publish();
    let view = bench.store.reader().view();
    let all = Scan::new(Bound::Unbounded, Bound::Unbounded);
    for (bytes_max, items) in [(1, 1), (100, 1), (101, 2), (300, 3), (999, 10), (10_000, 10)] {
        let page = view.range(Bound::Unbounded, Bound::Unbounded, 100, bytes_max).unwrap();
        assert_eq!((page.items.len(), page.more), (items, items < 10), "{bytes_max} bytes");
        assert_eq!(view.page_at(5, all, 100, bytes_max).unwrap().items.len(), items.min(5));
        let keys = view.keys(Bound::Unbounded, Bound::Unbounded, 100, bytes_max).unwrap();
        assert_eq!(
            keys.items.len(),
            bytes_max.div_ceil(2).min(10),
            "values do not count where there are none"
        );
    }
}

#[test]
fn chunks_of_two_snapshots_do_not_make_one() {
    let sender = |value: &str| {
        let mut bench = Bench::new(StoreConfig::default());
        bench.do_all((0..20).map(|n| put(&format!("k{n}"), value)));
        bench.flush().unwrap();
        let mut source = bench.store.begin_snapshot();
        std::iter::from_fn(|| source.next_chunk(400).unwrap()).collect::<Vec<_>>()
    };
    // As many rows and bytes, and each chunk is sound.
    let (one, other) = (sender("1"), sender("2"));
    assert!(one.len() == other.len() && one.len() > 3);
    let receiver = Bench::new(StoreConfig::default());
    let mut sink = receiver.store.begin_install().unwrap();
    let (last, rows) = other.split_last().unwrap();
    for chunk in one[..1].iter().chain(&rows[1..]) {
        sink.add_chunk(chunk).unwrap();
    }
    assert!(matches!(sink.add_chunk(last), Err(StoreError::BadChunk { .. })));
    assert!(matches!(sink.stage(), Err(StoreError::BadChunk { .. })));
}
