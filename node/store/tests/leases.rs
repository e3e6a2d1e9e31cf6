//! Leases, locks and transactions, as they are meant: a few histories by hand.

mod common;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use balsa_store::command::{
    self, AcquireLock, Answer, Clear, Command, Compact, Delete, DeleteRange, Expire, GrantLease, KeepLease,
    LockPlace, OpenSession, Operation, Put, ReleaseLock, RevokeLease, SetFeatureLevel, Txn, TxnCondition,
    TxnOp, TxnOpKind, TxnPut, TxnRange, TxnRefused, TxnResultKind, TxnTest,
};
use balsa_store::{LockStanding, MemoryEngine, Store, StoreConfig};
use bytes::Bytes;
use common::{command, put, text};

struct Bench {
    engine: MemoryEngine,
    store: Store,
    now_ms: u64,
}

impl Bench {
    fn new() -> Bench {
        let engine = MemoryEngine::new();
        let store = Store::open(Arc::new(engine.clone()), StoreConfig::default()).unwrap();
        Bench { engine, store, now_ms: 0 }
    }

    fn apply(&mut self, operation: Operation) -> Answer {
        let entry = command::stamp(command::encode(&command(operation)), self.now_ms);
        let reply = self.store.apply(self.store.applied_index() + 1, &entry).unwrap();
        self.store.publish();
        reply.answer.unwrap()
    }

    /// Time passes, and what is due ends.
    fn pass(&mut self, ms: u64) -> (u64, u64) {
        self.now_ms += ms;
        match self.apply(Operation::Expire(Expire { limit: 100 })) {
            Answer::Expired(expired) => (expired.ended, expired.deleted),
            other => panic!("{other:?}"),
        }
    }

    fn grant(&mut self, ttl_ms: u64) -> u64 {
        match self.apply(Operation::GrantLease(GrantLease { ttl_ms })) {
            Answer::LeaseLasts(lasts) => lasts.lease,
            other => panic!("{other:?}"),
        }
    }

    fn put_leased(&mut self, key: &str, lease: u64, ttl_ms: u64) -> Answer {
        self.apply(Operation::Put(Put { key: text(key), value: text("1"), lease, ttl_ms, ..Put::default() }))
    }

    fn acquire(&mut self, asked: AcquireLock) -> LockPlace {
        match self.apply(Operation::AcquireLock(asked)) {
            Answer::LockPlace(place) => place,
            other => panic!("{other:?}"),
        }
    }

    fn queue(&self, name: &str) -> Vec<u64> {
        self.store.reader().view().lock(name.as_bytes()).map(|place| place.token).collect()
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        self.store.reader().view().get(key.as_bytes()).unwrap().map(|value| value.value)
    }

    fn flush(&mut self) {
        self.store.flush().unwrap();
    }

    /// As after a restart, from what was flushed.
    fn reopen(&mut self) {
        self.flush();
        self.store = Store::open(Arc::new(self.engine.clone()), StoreConfig::default()).unwrap();
    }
}

fn asks(name: &str, wait_ms: u64) -> AcquireLock {
    AcquireLock { name: text(name), ttl_ms: 1_000, wait_ms, ..AcquireLock::default() }
}

#[test]
fn a_lease_ends_with_its_keys_when_it_is_due_and_not_before() {
    let mut bench = Bench::new();
    let lease = bench.grant(1_000);
    bench.put_leased("a", lease, 0);
    bench.put_leased("b", lease, 0);
    bench.put_leased("c", 0, 5_000);
    assert_eq!(bench.pass(999), (0, 0));
    bench.apply(Operation::KeepLease(KeepLease { lease }));
    assert_eq!(bench.pass(999), (0, 0), "the sign of life gave it its whole time");
    bench.reopen();
    let before = bench.store.position().revision;
    assert_eq!(bench.pass(1), (1, 2));
    assert_eq!(bench.store.position().revision, before + 1, "its keys go at one revision");
    assert_eq!((bench.value("a"), bench.value("c")), (None, Some(text("1"))));
    let late = bench.apply(Operation::KeepLease(KeepLease { lease }));
    assert!(matches!(late, Answer::NoLease(_)), "{late:?}");
    let late = bench.put_leased("a", lease, 0);
    assert!(matches!(late, Answer::NoLease(_)), "{late:?}");
}

#[test]
fn a_put_without_a_lease_drops_the_old_one_and_a_time_to_live_goes_with_its_key() {
    let mut bench = Bench::new();
    bench.put_leased("a", 0, 1_000);
    assert_eq!(bench.store.stats().leases, 1);
    bench.apply(put("a", "2"));
    assert_eq!(bench.store.stats().leases, 0);
    assert_eq!(bench.pass(2_000), (0, 0));
    assert_eq!(bench.value("a"), Some(text("2")));
    assert_eq!(bench.store.outlook().due_ms, None);
}

#[test]
fn a_revoked_lease_is_gone_at_once_however_many_keys_it_has() {
    let mut bench = Bench::new();
    let lease = bench.grant(60_000);
    for n in 0..5 {
        bench.put_leased(&format!("k{n}"), lease, 0);
    }
    bench.flush();
    let revoked = bench.apply(Operation::RevokeLease(RevokeLease { lease, keys_max: 2 }));
    assert!(matches!(&revoked, Answer::LeaseEnded(ended) if ended.deleted == 2), "{revoked:?}");
    assert!(bench.store.reader().view().lease(lease).is_none());
    assert_eq!(bench.store.outlook().due_ms, Some(0), "the rest is due");
    bench.reopen();
    assert_eq!(bench.pass(1), (1, 3));
    assert_eq!(bench.store.stats().leased_keys, 0);
}

#[test]
fn locks_are_fair_and_their_tokens_rise() {
    let mut bench = Bench::new();
    let first = bench.acquire(asks("lock", 0));
    assert_eq!((first.ahead, first.lease), (0, first.token));
    let busy = bench.apply(Operation::AcquireLock(asks("lock", 0)));
    assert!(matches!(&busy, Answer::LockBusy(busy) if busy.token == first.token), "{busy:?}");
    let second = bench.acquire(asks("lock", 10_000));
    let third = bench.acquire(asks("lock", 10_000));
    assert_eq!((second.ahead, third.ahead), (1, 2));
    assert_eq!(bench.queue("lock"), [first.token, second.token, third.token]);
    let release = |token| Operation::ReleaseLock(ReleaseLock { name: text("lock"), token });
    let released = bench.apply(release(first.token));
    assert!(matches!(&released, Answer::LockReleased(done) if done.released && done.held), "{released:?}");
    assert_eq!(bench.queue("lock"), [second.token, third.token]);
    bench.reopen();
    assert_eq!(bench.pass(1_000), (1, 0), "the second died");
    assert_eq!(bench.queue("lock"), [third.token]);
    let again = bench.apply(release(second.token));
    assert!(matches!(&again, Answer::LockReleased(done) if !done.released), "{again:?}");
    assert_eq!(bench.store.stats().leases, 1);
}

#[test]
fn a_wait_ends_when_its_time_is_over() {
    let mut bench = Bench::new();
    let holder = bench.grant(60_000);
    bench.acquire(AcquireLock { lease: holder, ..asks("lock", 0) });
    let waits = bench.acquire(asks("lock", 500));
    assert_eq!(bench.pass(499), (0, 0));
    assert_eq!(bench.pass(1), (1, 0));
    assert!(!bench.queue("lock").contains(&waits.token));
    assert_eq!(bench.store.stats().leases, 1, "a lease of its own would have begun with the lock");
}

#[test]
fn who_holds_a_lock_can_be_seen_and_watched() {
    let mut bench = Bench::new();
    let shown = |value: &str| AcquireLock { key: text("leader"), value: text(value), ..asks("lock", 5_000) };
    let first = bench.acquire(shown("1"));
    bench.acquire(shown("2"));
    assert_eq!(bench.value("leader"), Some(text("1")));
    let before = bench.store.position().revision;
    bench.apply(Operation::ReleaseLock(ReleaseLock { name: text("lock"), token: first.token }));
    assert_eq!(bench.value("leader"), Some(text("2")));
    assert_eq!(bench.store.position().revision, before + 1, "handed on at one revision");
    bench.pass(1_000);
    assert_eq!(bench.value("leader"), None);
}

#[test]
fn who_waits_under_the_lease_of_a_lock_that_is_released_does_not_get_one_that_never_ends() {
    let mut bench = Bench::new();
    let first = bench.acquire(asks("lock", 0));
    let under = bench.acquire(AcquireLock { lease: first.lease, ..asks("lock", 5_000) });
    let other = bench.acquire(asks("lock", 5_000));
    bench.apply(Operation::ReleaseLock(ReleaseLock { name: text("lock"), token: first.token }));
    assert_eq!(bench.queue("lock"), [other.token], "{under:?} went with its lease");
}

#[test]
fn a_transaction_writes_all_at_one_revision_or_nothing() {
    let mut bench = Bench::new();
    bench.apply(put("a", "1"));
    bench.flush();
    let lock = bench.acquire(asks("lock", 0));
    let set = |key: &str| TxnOp {
        kind: Some(TxnOpKind::Put(TxnPut { key: text(key), value: text("2"), ..TxnPut::default() })),
    };
    let fenced = |token| Txn {
        conditions: vec![TxnCondition { subject: text("lock"), test: Some(TxnTest::Lock(token)) }],
        then: vec![set("a"), set("b"), TxnOp { kind: Some(TxnOpKind::Get(text("a"))) }],
        otherwise: vec![],
    };
    let before = bench.store.position().revision;
    let done = bench.apply(Operation::Txn(fenced(lock.token)));
    let Answer::Txn(done) = done else { panic!("{done:?}") };
    assert!(done.succeeded && done.revision == before + 1, "{done:?}");
    let view = bench.store.reader().view();
    let (a, b) = (view.get(b"a").unwrap().unwrap(), view.get(b"b").unwrap().unwrap());
    assert_eq!((a.revision, a.version, b.revision, b.version), (before + 1, 2, before + 1, 1));
    bench.pass(1_000);
    let done = bench.apply(Operation::Txn(fenced(lock.token)));
    assert!(matches!(&done, Answer::Txn(done) if !done.succeeded && done.revision == before + 1), "{done:?}");

    let twice = Txn { then: vec![set("a"), set("a")], ..Txn::default() };
    let refused = bench.apply(Operation::Txn(twice));
    assert!(matches!(&refused, Answer::TxnRefused(refused) if refused.path == "/then/1"), "{refused:?}");
}

#[test]
fn a_transaction_goes_on_only_where_all_of_its_conditions_hold() {
    let mut bench = Bench::new();
    bench.apply(put("a", "1"));
    let exists = |exists| TxnCondition { subject: text("a"), test: Some(TxnTest::Exists(exists)) };
    for conditions in [[true, true], [true, false], [false, true], [false, false]] {
        let txn = Txn { conditions: conditions.map(exists).into(), ..Txn::default() };
        let Answer::Txn(done) = bench.apply(Operation::Txn(txn)) else { panic!() };
        assert_eq!(done.succeeded, conditions == [true, true], "{conditions:?}");
    }
}

#[test]
fn a_transaction_whose_reads_give_too_much_is_refused_and_does_nothing() {
    let mut bench = Bench::new();
    for key in ["k0", "k1", "k2"] {
        let value = Bytes::from(vec![b'v'; 700_000]);
        bench.apply(Operation::Put(Put { key: text(key), value, ..Put::default() }));
    }
    let before = bench.store.position().revision;
    let op = |kind| TxnOp { kind: Some(kind) };
    let get = |key| op(TxnOpKind::Get(text(key)));
    let range = |key, limit| op(TxnOpKind::Range(TxnRange { start: text(key), end: None, limit }));
    let set = || op(TxnOpKind::Put(TxnPut { key: text("a"), ..TxnPut::default() }));
    for reads in [vec![get("k0"), get("k1"), get("k2")], vec![get("k0"), range("k2", 9), range("k1", 1)]] {
        let then = [vec![set()], reads].concat();
        let refused = bench.apply(Operation::Txn(Txn { then, ..Txn::default() }));
        assert!(
            matches!(&refused, Answer::TxnRefused(TxnRefused { path, .. }) if path == "/then/3"),
            "{refused:?}"
        );
    }
    assert_eq!((bench.value("a"), bench.store.position().revision), (None, before));
    let then = vec![set(), get("k0"), range("k2", 9)];
    assert!(matches!(bench.apply(Operation::Txn(Txn { then, ..Txn::default() })), Answer::Txn(_)));
}

#[test]
fn a_read_of_a_range_gives_one_item_at_least_and_a_thousand_at_most() {
    let mut bench = Bench::new();
    for number in 0..1_001 {
        bench.apply(put(&format!("k{number:04}"), "1"));
    }
    for (limit, wanted) in [(0, 1), (1, 1), (1_000, 1_000), (5_000, 1_000)] {
        let range = TxnOpKind::Range(TxnRange { start: text("k"), end: None, limit });
        let then = vec![TxnOp { kind: Some(range) }];
        let Answer::Txn(done) = bench.apply(Operation::Txn(Txn { then, ..Txn::default() })) else { panic!() };
        let Some(TxnResultKind::Range(found)) = &done.results[0].kind else { panic!("{done:?}") };
        assert_eq!((found.items.len(), found.more), (wanted, true), "limit {limit}");
    }
}

#[test]
fn recovery_gives_leases_their_whole_time() {
    let mut bench = Bench::new();
    let lease = bench.grant(1_000);
    bench.put_leased("a", lease, 0);
    bench.now_ms = 900;
    bench.apply(put("b", "1"));
    bench.flush();
    let to = bench.store.succession().unwrap();
    bench.store.succeed(to).unwrap();
    bench.reopen();
    assert_eq!(bench.pass(999), (0, 0));
    assert_eq!(bench.pass(1), (1, 1));
}

#[test]
fn old_clients_commands_are_of_the_first_level() {
    let level = |operation| {
        command::level_of(&command::encode(&Command { request: None, operation: Some(operation) }))
    };
    assert_eq!(level(put("a", "1")), 1);
    assert_eq!(level(Operation::Put(Put { ttl_ms: 1, ..Put::default() })), 2);
    assert_eq!(level(Operation::Put(Put { lease: 1, ..Put::default() })), 2);
    assert_eq!(level(Operation::Txn(Txn::default())), 2);
}

/// A build that does not know the level would pass over them; what frees room is taken where there is none.
#[test]
fn each_command_says_its_level_and_whether_it_needs_room() {
    let op = |kind| TxnOp { kind: Some(kind) };
    let set = || vec![op(TxnOpKind::Put(TxnPut::default()))];
    let gone = || vec![op(TxnOpKind::Delete(Bytes::new())), op(TxnOpKind::Get(Bytes::new()))];
    let table = [
        (Operation::Put(Put::default()), 1, true),
        (Operation::Put(Put { lease: 1, ..Put::default() }), 2, true),
        (Operation::Put(Put { ttl_ms: 1, ..Put::default() }), 2, true),
        (Operation::Delete(Delete::default()), 1, false),
        (Operation::Clear(Clear {}), 1, false),
        (Operation::OpenSession(OpenSession {}), 1, true),
        (Operation::Compact(Compact::default()), 1, false),
        (Operation::SetFeatureLevel(SetFeatureLevel::default()), 1, false),
        (Operation::Txn(Txn { then: gone(), otherwise: gone(), ..Txn::default() }), 2, false),
        (Operation::Txn(Txn { then: set(), otherwise: gone(), ..Txn::default() }), 2, true),
        (Operation::Txn(Txn { then: gone(), otherwise: set(), ..Txn::default() }), 2, true),
        (Operation::DeleteRange(DeleteRange::default()), 2, false),
        (Operation::GrantLease(GrantLease::default()), 2, true),
        (Operation::KeepLease(KeepLease::default()), 2, false),
        (Operation::RevokeLease(RevokeLease::default()), 2, false),
        (Operation::Expire(Expire::default()), 2, false),
        (Operation::AcquireLock(AcquireLock::default()), 2, true),
        (Operation::ReleaseLock(ReleaseLock::default()), 2, false),
    ];
    for (operation, level, needs_room) in table {
        let encoded = command::encode(&Command { request: None, operation: Some(operation.clone()) });
        let found = (command::level_of(&encoded), command::needs_room(&encoded));
        assert_eq!(found, (level, needs_room), "{operation:?}");
    }
    assert!(!command::needs_room(b"no command"));
}

#[test]
fn a_leased_key_keeps_nothing_of_the_overlay_alive() {
    let mut bench = Bench::new();
    let lease = bench.grant(1_000);
    bench.put_leased("a", lease, 0);
    let view = bench.store.reader().view();
    let in_overlay = view.range(Bound::Unbounded, Bound::Unbounded, 1, usize::MAX).unwrap().items.remove(0).0;
    let leased = view.keys_of_lease(lease, 1).remove(0);
    assert!(leased == in_overlay && leased.as_ptr() != in_overlay.as_ptr());
}

#[test]
fn the_lease_that_a_key_has_of_its_own_is_given_to_no_other() {
    let mut bench = Bench::new();
    bench.put_leased("a", 0, 1_000);
    let lease = bench.store.applied_index();
    let refused = bench.put_leased("b", lease, 0);
    assert!(matches!(refused, Answer::NoLease(_)), "{refused:?}");
}

#[test]
fn a_key_that_a_lock_shows_stays_where_a_lease_that_it_had_ends_with_the_same_entry() {
    let mut bench = Bench::new();
    let shown = |value: &str| AcquireLock {
        name: text("leader"),
        ttl_ms: 100,
        wait_ms: 10_000,
        key: text("leader"),
        value: text(value),
        ..AcquireLock::default()
    };
    bench.acquire(shown("a"));
    let next = bench.acquire(AcquireLock { ttl_ms: 1_000, ..shown("b") });
    let lease = bench.grant(200);
    bench.put_leased("leader", lease, 0);
    bench.pass(300);
    assert_eq!(bench.queue("leader"), [next.token]);
    assert_eq!(bench.value("leader"), Some(text("b")), "who leads is shown");
    bench.pass(1_000);
    assert_eq!(bench.value("leader"), None);
}

#[test]
fn what_changes_is_there_at_every_look() {
    let mut bench = Bench::new();
    let lease = bench.grant(10_000);
    bench.put_leased("leased", lease, 0);
    let lock = |value: &'static str| AcquireLock {
        name: text("lock"),
        ttl_ms: 10_000,
        wait_ms: 10_000,
        key: text("shown"),
        value: text(value),
        ..AcquireLock::default()
    };
    let (reader, is_over) = (bench.store.reader(), AtomicBool::new(false));
    let waiting = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Over(&is_over);
            for _ in 0..20_000 {
                bench.apply(Operation::KeepLease(KeepLease { lease }));
                bench.put_leased("leased", lease, 0);
                let first = bench.acquire(lock("first"));
                let next = bench.acquire(lock("next"));
                waiting.store(next.token, Ordering::SeqCst);
                let release = |token| Operation::ReleaseLock(ReleaseLock { name: text("lock"), token });
                bench.apply(release(first.token));
                waiting.store(0, Ordering::SeqCst);
                bench.apply(release(next.token));
            }
        });
        while !is_over.load(Ordering::SeqCst) {
            let view = reader.view();
            assert!(view.lease(lease).is_some(), "a lease is not there while it is kept alive");
            assert_eq!(view.keys_of_lease(lease, 9), [text("leased")], "a key is not there while it is set");
            let token = waiting.load(Ordering::SeqCst);
            let standing = view.lock_standing(&text("lock"), token);
            let is_there =
                token == 0 || waiting.load(Ordering::SeqCst) != token || standing != LockStanding::Gone;
            assert!(is_there, "a place is not there while it comes to hold the lock");
        }
    });
}

/// Says so when it is dropped, be it by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn places_are_bounded_in_bytes_and_keep_nothing_of_their_entries_alive() {
    let mut bench = Bench::new();
    let value = Bytes::from(vec![b'1'; 1 << 20]);
    let asked = |number: u32| AcquireLock {
        name: text(&format!("lock-{number}")),
        ttl_ms: 1_000,
        key: text("shown"),
        value: value.clone(),
        ..AcquireLock::default()
    };
    let answers: Vec<Answer> =
        (0..64).map(|number| bench.apply(Operation::AcquireLock(asked(number)))).collect();
    assert!(answers[..63].iter().all(|answer| matches!(answer, Answer::LockPlace(_))));
    assert!(matches!(answers[63], Answer::LimitMet(_)), "{:?}", answers[63]);
    let kept = bench.store.reader().view().lock(b"lock-0").next().unwrap().shown.1;
    assert!(kept == value && kept.as_ptr() != value.as_ptr());
    bench.pass(1_000);
    assert!(matches!(bench.apply(Operation::AcquireLock(asked(64))), Answer::LockPlace(_)));
}

#[test]
fn neither_the_length_of_a_queue_nor_keys_that_were_cleared_cost_those_that_come_after() {
    const MANY: u32 = 20_000;
    let mut bench = Bench::new();
    let mut seconds = |what: &mut dyn FnMut(&mut Bench, u32)| {
        let started = Instant::now();
        (0..MANY).for_each(|number| what(&mut bench, number));
        started.elapsed().as_secs_f64()
    };
    let lock = |name: String| {
        Operation::AcquireLock(AcquireLock {
            name: text(&name),
            ttl_ms: 1_000_000,
            wait_ms: 1_000_000,
            ..AcquireLock::default()
        })
    };
    let apart = seconds(&mut |bench, number| drop(bench.apply(lock(format!("lock-{number}")))));
    let one_queue = seconds(&mut |bench, _| drop(bench.apply(lock("lock".to_owned()))));
    assert!(one_queue < 20.0 * apart, "{apart} s for locks apart, {one_queue} s for one queue");

    let mut lease = 0;
    let set = seconds(&mut |bench, number| {
        if lease == 0 {
            lease = bench.grant(1_000_000);
        }
        bench.put_leased(&format!("key-{number}"), lease, 0);
        if number + 1 == MANY {
            bench.apply(Operation::Clear(command::Clear {}));
        }
    });
    let set_again = seconds(&mut |bench, number| drop(bench.put_leased(&format!("key-{number}"), 0, 0)));
    assert!(set_again < 20.0 * set, "{set} s with a lease, {set_again} s without after a clear");
}
