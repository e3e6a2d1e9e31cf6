//! A store driven beside its model, with crashes, flushes and snapshots between the entries.

#![allow(dead_code)] // Each test file uses its part.

use std::ops::Bound;
use std::sync::Arc;

use balsa_store::command::{
    self, Answer, Clear, Command, Compact, Condition, ConditionKind, Delete, IdempotencyKey, Nothing,
    OpenSession, Operation, Put, Reply, RequestId, SessionRequest, Value,
};
use balsa_store::command::{
    AcquireLock, DeleteRange, Expire, GrantLease, KeepLease, ReleaseLock, RevokeLease, Txn, TxnCondition,
    TxnOp, TxnOpKind, TxnPut, TxnRange, TxnTest, TxnValue,
};
use balsa_store::engine::StateEngine;
use balsa_store::model::Model;
use balsa_store::{
    Change, Changed, FlushJob, LeaseInfo, LeaseKind, LockStanding, MemoryEngine, Order, PastError, Scan,
    Store, StoreConfig, View,
};
use bytes::Bytes;
use proptest::prelude::*;

/// Small limits, so that short histories reach them.
pub(crate) fn small_config() -> StoreConfig {
    StoreConfig {
        overlay_bytes: 4 << 10,
        overlay_entries: 1000,
        history_revisions: 10,
        history_age_ms: 0,
        sweep_rows: 3,
        reply_ttl_ms: 1000,
        reply_limit: 4,
        session_ttl_ms: 800,
        session_limit: 3,
        session_reply_limit: 5,
        lease_limit: 6,
        leased_key_limit: 5,
        lock_limit: 6,
        lock_bytes_limit: 40,
    }
}

/// What happens to a store.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// An entry, so many milliseconds after the last. A session request names its session by its place among those that
    /// were ever opened.
    Apply {
        after_ms: u64,
        command: Command,
    },
    /// An entry that is no command.
    ApplyEmpty,
    Publish,
    /// Keep a view of what is published, and see that it stands still.
    Hold,
    /// Freeze the overlay, if no flush is under way.
    Rotate,
    /// Run the flush, and let the store know.
    Flush,
    /// Run the flush, and lose power before the store knows.
    FlushAndCrash,
    /// Lose power; a flush that is under way does not happen.
    Crash,
    /// Send the durable state to another node, which goes on from there in the place of this one.
    Transfer {
        chunk_bytes: usize,
    },
}

pub(crate) fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn command(operation: Operation) -> Command {
    Command { request: None, operation: Some(operation) }
}

pub(crate) fn put(key: &str, value: &str) -> Operation {
    Operation::Put(Put { key: text(key), value: text(value), ..Put::default() })
}

pub(crate) fn delete(key: &str) -> Operation {
    Operation::Delete(Delete { key: text(key), ..Delete::default() })
}

pub(crate) fn clear() -> Operation {
    Operation::Clear(Clear {})
}

pub(crate) fn compact(revision: u64) -> Operation {
    Operation::Compact(Compact { revision })
}

pub(crate) fn with_key(key: &str, fingerprint: &str, operation: Operation) -> Command {
    let id = IdempotencyKey { key: key.into(), fingerprint: text(fingerprint) };
    Command { request: Some(RequestId::Key(id)), operation: Some(operation) }
}

pub(crate) fn with_session(
    session: u64,
    sequence: u64,
    lowest_unfinished: u64,
    operation: Operation,
) -> Command {
    let id = SessionRequest { session, sequence, lowest_unfinished, fingerprint: text("f") };
    Command { request: Some(RequestId::Session(id)), operation: Some(operation) }
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a\0", "ab", "b", "b/c", "\u{10ffff}"]).prop_map(text)
}

fn any_value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => "[a-z]{0,8}".prop_map(|value| text(&value)),
        // Beyond what lies in a key row, and beyond what an arena chunk holds.
        1 => (1000usize..20_000, any::<u8>()).prop_map(|(len, byte)| Bytes::from(vec![byte; len])),
    ]
}

fn any_condition() -> impl Strategy<Value = Option<Condition>> {
    let kind = prop_oneof![
        (1u64..40).prop_map(ConditionKind::Revision),
        Just(ConditionKind::Exists(Nothing {})),
        Just(ConditionKind::Absent(Nothing {})),
    ];
    prop_oneof![3 => Just(None), 1 => kind.prop_map(|kind| Some(Condition { kind: Some(kind) }))]
}

/// A lease by its place among those that were granted (0: none), or a time to live.
fn any_end() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![
        6 => Just((0, 0)),
        2 => (1u64..5).prop_map(|lease| (lease, 0)),
        2 => (50u64..900).prop_map(|ttl_ms| (0, ttl_ms)),
    ]
}

fn any_name() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["lock", "lock/a"]).prop_map(text)
}

fn any_acquire() -> impl Strategy<Value = AcquireLock> {
    let wait_ms = prop_oneof![Just(0u64), 100u64..2000];
    let key = prop_oneof![Just(Bytes::new()), any_key()];
    (any_name(), prop_oneof![2 => Just(0u64), 1 => 1u64..5], 50u64..900, wait_ms, key).prop_map(
        |(name, lease, ttl_ms, wait_ms, key)| AcquireLock {
            name,
            lease,
            ttl_ms,
            wait_ms,
            key,
            value: text("held"),
        },
    )
}

fn any_txn() -> impl Strategy<Value = Txn> {
    let test = prop_oneof![
        (0u64..40).prop_map(TxnTest::Revision),
        (0u64..3).prop_map(TxnTest::Version),
        any::<bool>().prop_map(TxnTest::Exists),
        ("[a-z]{0,2}", any::<bool>())
            .prop_map(|(value, json)| TxnTest::Value(TxnValue { value: text(&value), json })),
    ];
    let of_key = (any_key(), test).prop_map(|(subject, test)| TxnCondition { subject, test: Some(test) });
    let of_lock = (any_name(), 1u64..5)
        .prop_map(|(subject, token)| TxnCondition { subject, test: Some(TxnTest::Lock(token)) });
    let condition = prop_oneof![4 => of_key, 1 => of_lock];
    let put = (any_key(), any_value(), prop_oneof![3 => Just(0u64), 1 => 1u64..5])
        .prop_map(|(key, value, lease)| TxnOpKind::Put(TxnPut { key, value, content_type: None, lease }));
    let range = (any_key(), prop::option::of(any_key()), 1u32..4)
        .prop_map(|(start, end, limit)| TxnOpKind::Range(TxnRange { start, end, limit }));
    let op = prop_oneof![
        4 => put,
        2 => any_key().prop_map(TxnOpKind::Delete),
        1 => any_key().prop_map(TxnOpKind::Get),
        1 => range,
    ];
    let op = op.prop_map(|kind| TxnOp { kind: Some(kind) }).boxed();
    let ops = || prop::collection::vec(op.clone(), 0..4);
    (prop::collection::vec(condition, 0..4), ops(), ops()).prop_map(|(conditions, then, otherwise)| Txn {
        conditions,
        then,
        otherwise,
    })
}

fn any_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (
            any_key(),
            any_value(),
            any_condition(),
            prop::bool::weighted(0.2),
            prop::option::of("[a-z]{3}/x"),
            any_end(),
        )
            .prop_map(|(key, value, condition, want_previous, content_type, (lease, ttl_ms))| {
                Operation::Put(Put { key, value, content_type, condition, want_previous, lease, ttl_ms })
            }),
        6 => any_txn().prop_map(Operation::Txn),
        2 => (any_key(), prop::option::of(any_key()), 1u32..4)
            .prop_map(|(start, end, limit)| Operation::DeleteRange(DeleteRange { start, end, limit })),
        3 => (50u64..900).prop_map(|ttl_ms| Operation::GrantLease(GrantLease { ttl_ms })),
        2 => (1u64..5).prop_map(|lease| Operation::KeepLease(KeepLease { lease })),
        2 => (1u64..5, 0u32..3).prop_map(|(lease, keys_max)| Operation::RevokeLease(RevokeLease { lease, keys_max })),
        5 => (1u32..4).prop_map(|limit| Operation::Expire(Expire { limit })),
        6 => any_acquire().prop_map(Operation::AcquireLock),
        4 => (any_name(), 1u64..5).prop_map(|(name, token)| Operation::ReleaseLock(ReleaseLock { name, token })),
        5 => (any_key(), any_condition(), prop::bool::weighted(0.3)).prop_map(|(key, condition, want_previous)| {
            Operation::Delete(Delete { key, condition, want_previous })
        }),
        2 => Just(Operation::Clear(Clear {})),
        2 => Just(Operation::OpenSession(OpenSession {})),
        2 => (0u64..60).prop_map(|revision| Operation::Compact(Compact { revision })),
        1 => (0u32..=2).prop_map(|level| Operation::SetFeatureLevel(command::SetFeatureLevel { level })),
    ]
}

fn any_request() -> impl Strategy<Value = Option<RequestId>> {
    let fingerprint = || prop::sample::select(vec!["f", "f", "f", "g"]).prop_map(text);
    let key = (prop::sample::select(vec!["k1", "k2", "k3", "k4", "k5", "k6"]), fingerprint())
        .prop_map(|(key, fingerprint)| RequestId::Key(IdempotencyKey { key: key.into(), fingerprint }));
    let session = (0u64..4, 1u64..8, 0u64..5, fingerprint()).prop_map(
        |(session, sequence, lowest_unfinished, fingerprint)| {
            RequestId::Session(SessionRequest { session, sequence, lowest_unfinished, fingerprint })
        },
    );
    prop_oneof![4 => Just(None), 3 => key.prop_map(Some), 3 => session.prop_map(Some)]
}

pub(crate) fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (0u64..120, any_request(), any_operation()).prop_map(|(after_ms, request, operation)| {
            Step::Apply { after_ms, command: Command { request, operation: Some(operation) } }
        }),
        // A long time without anything, so that everything expires.
        1 => any_operation().prop_map(|operation| Step::Apply { after_ms: 5000, command: command(operation) }),
        1 => Just(Step::ApplyEmpty),
        8 => Just(Step::Publish),
        2 => Just(Step::Hold),
        6 => Just(Step::Rotate),
        6 => Just(Step::Flush),
        1 => Just(Step::FlushAndCrash),
        1 => Just(Step::Crash),
        1 => prop::sample::select(vec![1usize, 300, 100_000]).prop_map(|chunk_bytes| Step::Transfer { chunk_bytes }),
    ]
}

/// Where a rig's state lies, and what a power failure does to it.
pub(crate) trait Disk {
    /// The engine as it is after start.
    fn open(&mut self) -> Arc<dyn StateEngine>;
    /// Power fails. All handles to the engine have been dropped.
    fn crash(&mut self);
    /// Another node, blank.
    fn blank(&mut self) -> Self;
}

pub(crate) struct MemoryDisk(pub(crate) MemoryEngine);

impl Disk for MemoryDisk {
    fn open(&mut self) -> Arc<dyn StateEngine> {
        Arc::new(self.0.clone())
    }

    fn crash(&mut self) {
        self.0.crash();
    }

    fn blank(&mut self) -> Self {
        MemoryDisk(MemoryEngine::new())
    }
}

/// A store beside its model, and beside another store that never flushes.
pub(crate) struct Rig<D: Disk> {
    config: StoreConfig,
    disk: D,
    log: Vec<Option<Bytes>>,
    pub(crate) store: Option<Store>,
    job: Option<FlushJob>,
    pub(crate) model: Model,
    published: Model,
    unflushed: Store,
    sessions: Vec<u64>,
    leases: Vec<u64>,
    tokens: Vec<u64>,
    held: Vec<(View, Model)>,
}

impl<D: Disk> Rig<D> {
    pub(crate) fn new(config: StoreConfig, mut disk: D) -> Self {
        let store = Store::open(disk.open(), config.clone()).unwrap();
        let model = Model::new(config.clone());
        let unflushed = Store::open(Arc::new(MemoryEngine::new()), config.clone()).unwrap();
        Rig {
            config,
            disk,
            log: Vec::new(),
            store: Some(store),
            job: None,
            published: model.clone(),
            model,
            unflushed,
            sessions: Vec::new(),
            leases: Vec::new(),
            tokens: Vec::new(),
            held: Vec::new(),
        }
    }

    pub(crate) fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Apply { after_ms, mut command } => {
                if let Some(RequestId::Session(id)) = &mut command.request {
                    // Place among the opened, or one that never was.
                    id.session = self.sessions.iter().rev().nth(id.session as usize).copied().unwrap_or(9999);
                }
                self.name_leases(&mut command);
                self.apply(after_ms, &command);
            }
            Step::ApplyEmpty => {
                self.log.push(None);
                let index = self.log.len() as u64;
                self.store().apply_empty(index);
                self.unflushed.apply_empty(index);
            }
            Step::Publish => {
                self.store().publish();
                self.published = self.model.clone();
            }
            Step::Hold => {
                let view = self.store().reader().view();
                self.held.push((view, self.published.clone()));
                if self.held.len() > 3 {
                    self.held.remove(0);
                }
            }
            Step::Rotate => {
                if self.job.is_none() {
                    self.job = self.store().force_rotate();
                }
            }
            Step::Flush => {
                if let Some(job) = self.job.take() {
                    let index = job.run().unwrap();
                    self.store().handle_flushed(index).unwrap();
                    assert_eq!(self.store().durable_index(), index);
                }
            }
            Step::FlushAndCrash => {
                if let Some(job) = self.job.take() {
                    job.run().unwrap();
                }
                self.crash();
            }
            Step::Crash => self.crash(),
            Step::Transfer { chunk_bytes } => self.transfer(chunk_bytes),
        }
        self.check_published();
    }

    /// Applies a command and compares everything that it gave.
    pub(crate) fn apply(&mut self, after_ms: u64, command: &Command) -> Reply {
        let time_ms = self.model.time_ms + after_ms;
        let entry = command::stamp(command::encode(command), time_ms);
        self.log.push(Some(entry.clone()));
        let index = self.log.len() as u64;
        let wanted = self.model.apply(index, time_ms, command);
        let reply = self.store().apply(index, &entry).unwrap();
        assert_eq!(reply, wanted, "entry {index}: {command:?}");
        let other = self.unflushed.apply(index, &entry).unwrap();
        assert_eq!(other, wanted, "entry {index} without flushes: {command:?}");
        match &reply.answer {
            Some(Answer::SessionOpened(opened)) if !reply.replayed => self.sessions.push(opened.session),
            Some(Answer::Put(_)) if !reply.replayed && gives_lease(command) => self.leases.push(index),
            Some(Answer::LeaseLasts(lasts)) => self.leases.push(lasts.lease),
            Some(Answer::LockPlace(place)) => {
                self.leases.push(place.lease);
                self.tokens.push(place.token);
            }
            _ => {}
        }
        self.check_applied();
        reply
    }

    /// Puts in place of small numbers the leases and tokens that were given last.
    fn name_leases(&self, command: &mut Command) {
        let newest = |of: &[u64], nth: u64| match nth {
            0 => 0,
            nth => of.iter().rev().nth(nth as usize - 1).copied().unwrap_or(9999),
        };
        let lease = |number: &mut u64| *number = newest(&self.leases, *number);
        let token = |number: &mut u64| *number = newest(&self.tokens, *number);
        match &mut command.operation {
            Some(Operation::Put(put)) => lease(&mut put.lease),
            Some(Operation::KeepLease(keep)) => lease(&mut keep.lease),
            Some(Operation::RevokeLease(revoke)) => lease(&mut revoke.lease),
            Some(Operation::AcquireLock(asked)) => lease(&mut asked.lease),
            Some(Operation::ReleaseLock(release)) => token(&mut release.token),
            Some(Operation::Txn(txn)) => {
                for condition in &mut txn.conditions {
                    if let Some(TxnTest::Lock(of_lock)) = &mut condition.test {
                        token(of_lock);
                    }
                }
                for op in txn.then.iter_mut().chain(&mut txn.otherwise) {
                    if let Some(TxnOpKind::Put(put)) = &mut op.kind {
                        lease(&mut put.lease);
                    }
                }
            }
            _ => {}
        }
    }

    /// All that is asked of a store without reading keys.
    fn check_applied(&self) {
        let store = self.store.as_ref().unwrap();
        let position = store.position();
        assert_eq!(position, self.unflushed.position());
        assert_eq!(position.revision, self.model.revision);
        assert_eq!(position.compacted, self.model.compacted);
        assert_eq!(store.time_ms(), self.model.time_ms);
        assert_eq!(store.feature_level(), self.model.feature_level);
        assert_eq!(store.applied_index(), self.log.len() as u64);
        check_leases(store, &self.model, self.published.cleared);
    }

    /// Readers see what was published, and nothing newer.
    fn check_published(&self) {
        check_view(&self.store.as_ref().unwrap().reader().view(), &self.published);
        for (view, model) in &self.held {
            check_view(view, model);
        }
    }

    fn crash(&mut self) {
        self.job = None;
        self.store = None;
        self.held.clear();
        self.disk.crash();
        let store = Store::open(self.disk.open(), self.config.clone()).unwrap();
        self.replay(store);
    }

    /// Applies the log above what the store has.
    fn replay(&mut self, mut store: Store) {
        for index in store.applied_index() as usize..self.log.len() {
            match &self.log[index] {
                Some(entry) => drop(store.apply(index as u64 + 1, entry).unwrap()),
                None => store.apply_empty(index as u64 + 1),
            }
        }
        store.publish();
        self.store = Some(store);
        self.published = self.model.clone();
        self.check_applied();
    }

    fn transfer(&mut self, chunk_bytes: usize) {
        let mut blank = self.disk.blank();
        let mut other = Store::open(blank.open(), self.config.clone()).unwrap();
        let mut source = self.store().begin_snapshot();
        if source.index() == 0 {
            return;
        }
        let mut sink = other.begin_install().unwrap();
        while let Some(chunk) = source.next_chunk(chunk_bytes).unwrap() {
            sink.add_chunk(&chunk).unwrap();
        }
        other.install_snapshot(sink.stage().unwrap()).unwrap();
        assert_eq!(other.position(), source.position());
        assert_eq!(other.durable_index(), source.index());
        self.job = None;
        self.held.clear();
        self.disk = blank;
        self.replay(other);
    }
}

fn gives_lease(command: &Command) -> bool {
    matches!(&command.operation, Some(Operation::Put(put)) if put.ttl_ms != 0)
}

/// Leases and locks, as they are applied; of clears, that which was published.
fn check_leases(store: &Store, model: &Model, cleared: u64) {
    let view = store.reader().view();
    let shown = |at: &LeaseInfo| (at.number, at.ttl_ms, at.deadline_ms, at.kind == LeaseKind::OfKey);
    let found: Vec<_> = view.leases_above(0, 100).iter().map(shown).collect();
    let living = model.leases.iter().filter(|(_, lease)| !lease.ended);
    let wanted: Vec<_> =
        living.map(|(number, lease)| (*number, lease.ttl_ms, lease.deadline_ms, lease.of_key)).collect();
    assert_eq!(found, wanted);
    let mut above = 0;
    for lease in wanted {
        let page = view.leases_above(above, 1);
        assert_eq!(page.iter().map(shown).collect::<Vec<_>>(), [lease], "above {above}");
        above = lease.0;
    }
    for (number, lease) in &model.leases {
        let valid = lease.keys.iter().filter(|(_, attached)| **attached > cleared);
        let wanted: Vec<Bytes> = valid.map(|(key, _)| key.clone()).collect();
        assert_eq!(view.keys_of_lease(*number, 100), wanted, "lease {number}");
        assert_eq!(view.lease(*number).is_some(), !lease.ended, "lease {number}");
    }
    let mut held = Vec::new();
    for name in ["lock", "lock/a"] {
        let queue: Vec<_> = view
            .lock(name.as_bytes())
            .map(|place| (place.token, place.lease, place.ttl_ms, place.shown))
            .collect();
        let wanted: Vec<_> = model.locks.get(name.as_bytes()).into_iter().flatten().collect();
        let wanted = wanted.into_iter().map(|(token, place)| {
            (*token, place.lease, place.ttl_ms, (place.key.clone(), place.value.clone()))
        });
        assert_eq!(queue, wanted.collect::<Vec<_>>(), "{name}");
        assert_eq!(view.lock_length(name.as_bytes()), queue.len() as u64, "{name}");
        for (at, (token, ..)) in queue.iter().enumerate() {
            let wanted = if at == 0 { LockStanding::Held } else { LockStanding::Waits };
            assert_eq!(view.lock_standing(&text(name), *token), wanted, "{name}");
        }
        assert_eq!(view.lock_standing(&text(name), 9999), LockStanding::Gone, "{name}");
        held.extend(queue.first().map(|(token, ..)| (text(name), *token)));
    }
    assert_eq!(view.locks_above(b"", 10), held);
    assert_eq!(view.locks_above(b"", 1), held[..held.len().min(1)]);
    held.retain(|(name, _)| name > "lock");
    assert_eq!(view.locks_above(b"lock", 10), held);
    let stats = store.stats();
    let keys: usize = model.leases.values().map(|lease| lease.keys.len()).sum();
    let places: usize = model.locks.values().map(|queue| queue.len()).sum();
    let wanted = (model.leases.len() as u64, keys as u64, places as u64);
    assert_eq!((stats.leases, stats.leased_keys, stats.lock_places), wanted);
    let first = model.leases.values().map(|lease| lease.deadline_ms).min();
    let wait =
        model.locks.values().flat_map(|queue| queue.values().skip(1)).map(|place| place.wait_until_ms).min();
    assert_eq!(store.outlook().due_ms, first.into_iter().chain(wait).min());
}

/// A view shows what the model has, by key and by range.
pub(crate) fn check_view(view: &View, model: &Model) {
    assert_eq!(view.revision(), model.revision);
    assert!(model.keys.values().all(|value| value.lease == 0 || model.leases.contains_key(&value.lease)));
    for key in ["a", "a\0", "ab", "b", "b/c", "\u{10ffff}", "never"] {
        assert_eq!(view.get(key.as_bytes()).unwrap().as_ref(), model.keys.get(key.as_bytes()), "{key:?}");
    }
    let wanted: Vec<(Bytes, Value)> = model.keys.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let all = view.range(Bound::Unbounded, Bound::Unbounded, 100, usize::MAX).unwrap();
    assert_eq!(all.items, wanted);
    assert!(!all.more);
    // In pages of two, from one page's last key to the next.
    let mut paged = Vec::new();
    let mut from = Bound::Unbounded;
    loop {
        let page =
            view.range(from.as_ref().map(|key: &Bytes| &key[..]), Bound::Unbounded, 2, usize::MAX).unwrap();
        paged.extend(page.items);
        match paged.last() {
            Some((last, _)) if page.more => from = Bound::Excluded(last.clone()),
            _ => break,
        }
    }
    assert_eq!(paged, wanted);
    let (start, end) = (&b"a\0"[..], &b"b"[..]);
    let part = view.range(Bound::Included(start), Bound::Excluded(end), 100, usize::MAX).unwrap();
    let wanted: Vec<_> = wanted.into_iter().filter(|(key, _)| &key[..] >= start && &key[..] < end).collect();
    assert_eq!(part.items, wanted);
    check_past(view, model);
}

/// A view shows the past that the model has, as far as it can be read.
fn check_past(view: &View, model: &Model) {
    let (oldest, newest) = (model.compacted, model.revision);
    assert_eq!(view.compacted_revision(), oldest);
    for revision in [oldest, oldest.midpoint(newest), newest.saturating_sub(1).max(oldest), newest] {
        let mut wanted = Vec::new();
        for key in ["a", "a\0", "ab", "b", "b/c", "\u{10ffff}", "never"] {
            let value = model.value_at(key.as_bytes(), revision);
            assert_eq!(
                view.get_at(key.as_bytes(), revision).unwrap().as_ref(),
                value,
                "{key:?} at {revision}"
            );
            wanted.extend(value.map(|value| (text(key), value.clone())));
        }
        let all =
            view.page_at(revision, Scan::new(Bound::Unbounded, Bound::Unbounded), 100, usize::MAX).unwrap();
        assert_eq!(all.items, wanted, "at {revision}");
        let mut back = Vec::new();
        let mut end = Bound::Unbounded;
        loop {
            let before = end.as_ref().map(|key: &Bytes| &key[..]);
            let scan = Scan { order: Order::Descending, ..Scan::new(Bound::Unbounded, before) };
            let page = view.page_at(revision, scan, 2, usize::MAX).unwrap();
            back.extend(page.items);
            match back.last() {
                Some((last, _)) if page.more => end = Bound::Excluded(last.clone()),
                _ => break,
            }
        }
        back.reverse();
        assert_eq!(back, wanted, "at {revision}, backwards");
        // A part of them, with its ends and without.
        let (first, last) = (&b"a\0"[..], &b"b"[..]);
        for with_ends in [true, false] {
            let (start, end) = match with_ends {
                true => (Bound::Included(first), Bound::Included(last)),
                false => (Bound::Excluded(first), Bound::Excluded(last)),
            };
            let is_in =
                |key: &[u8]| (first < key && key < last) || (with_ends && (key == first || key == last));
            let part: Vec<_> = wanted.iter().filter(|(key, _)| is_in(key)).cloned().collect();
            let scan = Scan::new(start, end);
            let page = view.page_at(revision, scan, 100, usize::MAX).unwrap();
            assert_eq!(page.items, part, "at {revision}, {with_ends}");
            let scan = Scan { order: Order::Descending, ..scan };
            let mut page = view.page_at(revision, scan, 100, usize::MAX).unwrap();
            page.items.reverse();
            assert_eq!(page.items, part, "at {revision}, {with_ends}, backwards");
        }
    }
    if oldest > 0 {
        let refused = view.get_at(b"a", oldest - 1);
        assert!(matches!(refused, Err(PastError::Compacted { oldest: at }) if at == oldest), "{refused:?}");
        let refused = view.changes(oldest - 1, |_| true, 10, 10);
        assert!(matches!(refused, Err(PastError::Compacted { .. })), "{refused:?}");
    }
    assert!(matches!(view.get_at(b"a", newest + 1), Err(PastError::Future { .. })));

    // All changes in pages of three, and those of one key in pages by bytes.
    for (only, rows_max, bytes_max) in [(None, 3, usize::MAX), (Some("a"), usize::MAX, 10)] {
        let wanted = |key: &[u8]| only.is_none_or(|only: &str| only.as_bytes() == key);
        let mut found = std::collections::BTreeMap::new();
        let mut after = oldest;
        while after < newest {
            let page = view.changes(after, wanted, rows_max, bytes_max).unwrap();
            assert!(page.through > after, "a page goes further");
            // All but the last revision fit.
            let before = page.items.iter().filter(|change| change.revision < page.through);
            let bytes: usize = before.clone().map(|change| bytes_of(&change.what)).sum();
            assert!(only.is_some() || before.count() < rows_max, "at most {rows_max}: {page:?}");
            assert!(bytes < bytes_max, "at most {bytes_max}: {page:?}");
            for Change { revision, what } in page.items {
                assert!(after < revision && revision <= page.through);
                match what {
                    Changed::Put { key, value } => drop(found.insert((revision, key), Some(value))),
                    Changed::Delete { key } => drop(found.insert((revision, key), None)),
                    Changed::Clear => {
                        let (start, end) = (Bound::Unbounded, Bound::Unbounded);
                        let there =
                            view.page_at(revision - 1, Scan::new(start, end), 100, usize::MAX).unwrap();
                        let gone = there.items.into_iter().filter(|(key, _)| wanted(key));
                        found.extend(gone.map(|(key, _)| ((revision, key), None)));
                    }
                }
            }
            after = page.through;
        }
        let mut changes = model.changes_above(oldest);
        changes.retain(|(_, key), _| wanted(key));
        assert_eq!(found, changes);
    }
}

/// What a change brings, in bytes.
fn bytes_of(what: &Changed) -> usize {
    match what {
        Changed::Put { key, value } => key.len() + value.value.len(),
        Changed::Delete { key } => key.len(),
        Changed::Clear => 0,
    }
}
