//! Watchers against the model: whatever way changes reach them, each gets what it wants, once, whole and in order.

use super::{Cursor, Fed, Feed, Filter, Interests, Keys, Next, Ring, What};
use balsa_store::command::{self, Clear, Command, Compact, Delete, DeleteRange, Operation, Put, Value};
use balsa_store::model::Model;
use balsa_store::{MemoryEngine, PastError, Store, StoreConfig};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const KEYS: [&str; 5] = ["a", "a/1", "a/2", "b", "\u{10ffff}"];

#[derive(Clone, Debug)]
enum Step {
    Apply(Operation),
    Publish,
    Flush,
    /// The feed takes a batch.
    Feed,
    /// Somebody begins to watch; from a share of all revisions, in percent (beyond 100: from what is to come).
    Watch(Filter, u64),
    /// One of them goes on by so many steps.
    Walk(usize, usize),
    /// One of them goes.
    Leave(usize),
    /// The feed sleeps, and begins anew.
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = || prop::sample::select(KEYS.to_vec()).prop_map(|key| Bytes::from_static(key.as_bytes()));
    let put = (key(), "[a-z]{0,3}")
        .prop_map(|(key, value)| Operation::Put(Put { key, value: Bytes::from(value), ..Put::default() }));
    let delete = key().prop_map(|key| Operation::Delete(Delete { key, ..Delete::default() }));
    let compact = (0u64..40).prop_map(|revision| Operation::Compact(Compact { revision }));
    let keys = prop_oneof![
        key().prop_map(Keys::One),
        prop::sample::select(vec!["", "a", "a/", "b"])
            .prop_map(|of| Keys::Prefix(Bytes::from_static(of.as_bytes()))),
    ];
    let kinds = prop::sample::select(vec![(true, true), (true, true), (true, false), (false, true)]);
    let filter = (keys, kinds, any::<bool>()).prop_map(|(keys, (puts, deletes), prev)| Filter {
        keys,
        puts,
        deletes,
        prev,
    });
    prop_oneof![
        20 => put.prop_map(Step::Apply),
        6 => delete.prop_map(Step::Apply),
        2 => Just(Step::Apply(Operation::Clear(Clear {}))),
        1 => compact.prop_map(Step::Apply),
        10 => Just(Step::Publish),
        4 => Just(Step::Flush),
        8 => Just(Step::Feed),
        6 => (filter, 0u64..=120).prop_map(|(filter, share)| Step::Watch(filter, share)),
        20 => (0usize..4, 1usize..5).prop_map(|(who, steps)| Step::Walk(who, steps)),
        1 => (0usize..4).prop_map(Step::Leave),
        1 => Just(Step::Restart),
    ]
}

type Got = Vec<((u64, Bytes), Option<Value>, Option<Option<Value>>)>;

struct Watcher {
    cursor: Cursor,
    filter: Filter,
    began_after: u64,
    got: Got,
    /// All that ever changed, before compaction forgot it.
    expected: Got,
    is_over: bool,
}

struct World {
    store: Store,
    model: Model,
    published: u64,
    ring: Ring,
    feed: Feed,
    interests: Interests,
    watchers: Vec<Watcher>,
    /// All changes ever.
    changes: BTreeMap<(u64, Bytes), (Option<Value>, Option<Value>)>,
}

impl World {
    fn new() -> World {
        let config = StoreConfig { sweep_rows: 2, ..StoreConfig::default() };
        World {
            store: Store::open(Arc::new(MemoryEngine::new()), config.clone()).unwrap(),
            model: Model::new(config),
            published: 0,
            ring: Ring::new(3),
            feed: Feed::default(),
            interests: Interests::default(),
            watchers: Vec::new(),
            changes: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(operation) => {
                let command = Command { request: None, operation: Some(operation) };
                let index = self.store.applied_index() + 1;
                let before = self.model.clone();
                self.model.apply(index, 0, &command);
                self.store.apply(index, &command::encode(&command)).unwrap();
                for ((revision, key), value) in self.model.changes_above(before.revision) {
                    let was = before.keys.get(&key).cloned();
                    self.changes.insert((revision, key), (value, was));
                }
            }
            Step::Publish => {
                self.store.publish();
                self.published = self.model.revision;
            }
            Step::Flush => {
                if let Some(job) = self.store.force_rotate() {
                    let index = job.run().unwrap();
                    self.store.handle_flushed(index).unwrap();
                }
            }
            Step::Feed => {
                self.follow();
            }
            Step::Restart => self.feed.restart(&self.store.reader().view()),
            Step::Watch(filter, share) => {
                let after = self.published * share / 100;
                if self.watchers.len() >= 4 || after < self.store.reader().view().compacted_revision() {
                    return;
                }
                let generation = self.interests.add(&filter);
                let cursor = Cursor::new(filter.clone(), after, generation);
                let (got, expected) = (Vec::new(), Vec::new());
                self.watchers.push(Watcher {
                    cursor,
                    filter,
                    began_after: after,
                    got,
                    expected,
                    is_over: false,
                });
            }
            Step::Walk(who, steps) => {
                for _ in 0..steps {
                    self.walk(who);
                }
            }
            Step::Leave(who) => {
                if who < self.watchers.len() {
                    let watcher = self.watchers.swap_remove(who);
                    self.interests.remove(&watcher.filter);
                }
            }
        }
    }

    fn follow(&mut self) -> bool {
        let fed = self.feed.follow(&self.ring, &self.store.reader().view(), &self.interests).unwrap();
        fed != Fed::Nothing
    }

    /// Whether there was anything.
    fn walk(&mut self, who: usize) -> bool {
        let view = self.store.reader().view();
        let Some(watcher) = self.watchers.get_mut(who).filter(|watcher| !watcher.is_over) else {
            return false;
        };
        match watcher.cursor.next(&self.ring, self.feed.head()) {
            Next::Wait => return false,
            Next::Behind => match watcher.cursor.read_history(&view) {
                Ok(()) => {}
                Err(PastError::Compacted { oldest }) => {
                    assert!(watcher.cursor.after() < oldest, "only what is gone is refused");
                    watcher.is_over = true;
                }
                Err(error) => panic!("{error}"),
            },
            Next::Revision(revision) => {
                assert!(!revision.events.is_empty() && revision.is_last);
                for event in revision.events {
                    assert_eq!(event.revision, revision.revision);
                    let value = match &event.what {
                        What::Put(value) => Some(value.clone()),
                        What::Delete => None,
                    };
                    let prev = if watcher.filter.prev { event.prev.clone() } else { None };
                    watcher.got.push(((event.revision, event.key.clone()), value, prev));
                }
            }
        }
        true
    }

    fn check(&mut self) {
        let changes = &self.changes;
        for watcher in &mut self.watchers {
            let Filter { keys, puts, deletes, prev } = watcher.filter.clone();
            let through = watcher.cursor.after();
            let wanted = changes.iter().filter(|((revision, key), (value, _))| {
                let in_time = *revision > watcher.began_after && *revision <= through;
                in_time && keys.contain(key) && if value.is_some() { puts } else { deletes }
            });
            watcher.expected = wanted
                .map(|(at, (value, was))| (at.clone(), value.clone(), prev.then(|| was.clone())))
                .collect();
            assert_eq!(watcher.got, watcher.expected, "{:?} up to {through}", watcher.filter);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_watcher_gets_what_it_wants(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        world.step(Step::Publish);
        while world.follow() {}
        for who in 0..world.watchers.len() {
            while world.walk(who) {}
            let watcher = &world.watchers[who];
            prop_assert!(watcher.is_over || watcher.cursor.after() >= world.published);
        }
        world.check();
    }
}

#[test]
fn a_clear_of_very_many_keys_comes_in_pieces_and_none_is_told_twice() {
    let mut world = World::new();
    for n in 0..1_000 {
        let put =
            Put { key: Bytes::from(format!("k/{n:04}")), value: Bytes::from_static(b"1"), ..Put::default() };
        world.step(Step::Apply(Operation::Put(put)));
    }
    world.step(Step::Apply(Operation::Clear(Clear {})));
    world.step(Step::Publish);
    let filter =
        Filter { keys: Keys::Prefix(Bytes::from_static(b"k/")), puts: false, deletes: true, prev: true };
    let generation = world.interests.add(&filter);
    while world.follow() {}
    let mut cursor = Cursor::new(filter, 900, generation);
    let (mut keys, mut pieces) = (Vec::new(), Vec::new());
    loop {
        match cursor.next(&world.ring, world.feed.head()) {
            Next::Wait => break,
            Next::Behind => cursor.read_history(&world.store.reader().view()).unwrap(),
            Next::Revision(revision) => {
                assert_eq!(revision.revision, 1_001);
                pieces.push(revision.is_last);
                assert!(revision.events.iter().all(|event| matches!(event.prev, Some(Some(_)))));
                keys.extend(revision.events.iter().map(|event| event.key.clone()));
                assert_eq!(cursor.after() == 1_001, revision.is_last);
            }
        }
    }
    assert_eq!(pieces, [false, false, false, true]);
    assert_eq!(keys, (0..1_000).map(|n| Bytes::from(format!("k/{n:04}"))).collect::<Vec<_>>());
}

/// Whether at one revision or at many.
#[test]
fn what_was_there_before_is_read_piece_by_piece() {
    const KEYS: usize = 40;
    let mut world = World::new();
    let filter =
        Filter { keys: Keys::Prefix(Bytes::from_static(b"k/")), puts: false, deletes: true, prev: true };
    let all: Vec<Bytes> = (0..KEYS).map(|n| Bytes::from(format!("k/{n:02}"))).collect();
    let put = |key: &Bytes| {
        let put = Put { key: key.clone(), value: Bytes::from(vec![b'1'; 256 << 10]), ..Put::default() };
        Step::Apply(Operation::Put(put))
    };
    let delete_range = DeleteRange { start: Bytes::from_static(b"k/"), end: None, limit: 1_000 };
    all.iter().for_each(|key| world.step(put(key)));
    world.step(Step::Apply(Operation::DeleteRange(delete_range)));
    all.iter().for_each(|key| world.step(put(key)));
    all.iter().for_each(|key| {
        world.step(Step::Apply(Operation::Delete(Delete { key: key.clone(), ..Delete::default() })))
    });
    world.step(Step::Publish);
    let generation = world.interests.add(&filter);
    let mut cursor = Cursor::new(filter, 0, generation);
    while world.follow() {
        let newest = world.ring.get(world.feed.head().0).unwrap();
        let memory: usize = newest.items.iter().map(|item| item.bytes()).sum();
        assert!(memory <= 5 << 20, "a batch takes {memory} bytes");
    }
    let (mut told, mut lasts) = (Vec::new(), 0);
    loop {
        match cursor.next(&world.ring, world.feed.head()) {
            Next::Wait => break,
            Next::Behind => cursor.read_history(&world.store.reader().view()).unwrap(),
            Next::Revision(revision) => {
                let memory: usize = revision.events.iter().map(|event| event.bytes()).sum();
                assert!(memory <= 1 << 20, "a piece takes {memory} bytes");
                assert!(revision.events.iter().all(|event| matches!(event.prev, Some(Some(_)))));
                told.extend(revision.events.iter().map(|event| event.key.clone()));
                lasts += usize::from(revision.is_last);
            }
        }
    }
    assert_eq!(told, [all.clone(), all].concat());
    assert_eq!(lasts, 1 + KEYS);
}

#[test]
fn who_sleeps_while_other_keys_change_is_not_left_behind() {
    let mut world = World::new();
    let filter =
        |key| Filter { keys: Keys::One(Bytes::from_static(key)), puts: true, deletes: true, prev: false };
    let put = |world: &mut World, key: &'static [u8]| {
        let (key, value) = (Bytes::from_static(key), Bytes::from_static(b"1"));
        world.step(Step::Apply(Operation::Put(Put { key, value, ..Put::default() })));
        world.step(Step::Publish);
        world.feed.follow(&world.ring, &world.store.reader().view(), &world.interests).unwrap()
    };
    let generation = world.interests.add(&filter(b"cold"));
    let mut cursor = Cursor::new(filter(b"cold"), 0, generation);
    for _ in 0..1_000 {
        assert_eq!(put(&mut world, b"hot"), Fed::Quiet);
    }
    assert_eq!(put(&mut world, b"cold"), Fed::News);
    for _ in 0..1_000 {
        assert_eq!(put(&mut world, b"hot"), Fed::Quiet);
    }
    // From the ring, of three batches, and without a look at history.
    let Next::Revision(revision) = cursor.next(&world.ring, world.feed.head()) else { panic!("left behind") };
    assert_eq!((revision.revision, revision.events.len()), (1_001, 1));
    assert!(matches!(cursor.next(&world.ring, world.feed.head()), Next::Wait));
    assert_eq!(cursor.after(), 2_001);
    // One that is where such a batch has ended until now goes on as that does.
    assert_eq!(put(&mut world, b"hot"), Fed::Quiet);
    assert!(matches!(cursor.next(&world.ring, world.feed.head()), Next::Wait));
    assert_eq!(cursor.after(), 2_002);
    // Somebody who wants what was quiet so far turns to history for what is past.
    let generation = world.interests.add(&filter(b"hot"));
    let mut other = Cursor::new(filter(b"hot"), 2_001, generation);
    assert!(matches!(other.next(&world.ring, world.feed.head()), Next::Behind));
    assert_eq!(put(&mut world, b"hot"), Fed::News);
}
