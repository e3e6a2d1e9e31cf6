//! Both engines against an ordered map: ingestion, snapshots that are held, replacement, reopening.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use balsa_store::engine::{EngineSnapshot, StateEngine};
use balsa_store::{FjallEngine, MemoryEngine};
use bytes::Bytes;
use proptest::prelude::*;

type Map = BTreeMap<Bytes, Bytes>;
type KeyBound = Bound<&'static [u8]>;

#[derive(Debug, Clone)]
enum Step {
    Ingest(BTreeMap<Bytes, Option<Bytes>>),
    Hold,
    /// Stage in portions, and finish or drop.
    Replace(Map, bool),
    Reopen,
}

fn any_key() -> impl Strategy<Value = Bytes> {
    (0u8..4, 0u8..40).prop_map(|(first, second)| Bytes::from(vec![first, second]))
}

fn any_value() -> impl Strategy<Value = Bytes> {
    prop_oneof![9 => 0usize..50, 1 => 4000usize..9000].prop_map(|len| Bytes::from(vec![len as u8; len]))
}

fn any_step() -> impl Strategy<Value = Step> {
    let changes = prop::collection::btree_map(any_key(), prop::option::weighted(0.7, any_value()), 0..40);
    let image = prop::collection::btree_map(any_key(), any_value(), 0..40);
    prop_oneof![
        20 => changes.prop_map(Step::Ingest),
        3 => Just(Step::Hold),
        1 => (image, any::<bool>()).prop_map(|(image, finish)| Step::Replace(image, finish)),
        1 => Just(Step::Reopen),
    ]
}

/// Bounds that cross are an empty scan.
fn bounds() -> Vec<(KeyBound, KeyBound)> {
    let (low, high) = (&[0, 30][..], &[2, 5][..]);
    vec![
        (Bound::Unbounded, Bound::Unbounded),
        (Bound::Included(low), Bound::Excluded(high)),
        (Bound::Excluded(low), Bound::Included(high)),
        (Bound::Included(low), Bound::Included(low)),
        (Bound::Included(high), Bound::Excluded(low)),
        (Bound::Excluded(low), Bound::Excluded(low)),
        (Bound::Unbounded, Bound::Included(low)),
    ]
}

fn check(snapshot: &dyn EngineSnapshot, wanted: &Map) {
    for (start, end) in bounds() {
        let is_in = |key: &[u8]| {
            (match start {
                Bound::Included(start) => key >= start,
                Bound::Excluded(start) => key > start,
                Bound::Unbounded => true,
            }) && (match end {
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
                Bound::Unbounded => true,
            })
        };
        let rows: Map =
            wanted.iter().filter(|(key, _)| is_in(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let scanned: Vec<_> = snapshot.scan(start, end).map(Result::unwrap).collect();
        assert_eq!(scanned, rows.clone().into_iter().collect::<Vec<_>>(), "{start:?} {end:?}");
        let scanned: Vec<_> = snapshot.scan_back(start, end).map(Result::unwrap).collect();
        assert_eq!(scanned, rows.into_iter().rev().collect::<Vec<_>>(), "{start:?} {end:?} back");
    }
    for first in 0..4 {
        for second in [0, 7, 39, 40] {
            let key = [first, second];
            assert_eq!(snapshot.get(&key).unwrap().as_ref(), wanted.get(&key[..]), "{key:?}");
        }
    }
}

fn run(steps: Vec<Step>, mut open: impl FnMut() -> Arc<dyn StateEngine>) {
    let mut engine = open();
    let mut map = Map::new();
    let mut held: Vec<(Arc<dyn EngineSnapshot>, Map)> = Vec::new();
    for step in steps {
        match step {
            Step::Ingest(changes) => {
                engine.ingest(&mut changes.clone().into_iter()).unwrap();
                engine.persist().unwrap();
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(map.insert(key, value)),
                        None => drop(map.remove(&key)),
                    }
                }
            }
            Step::Hold => {
                held.push((engine.snapshot(), map.clone()));
                if held.len() > 3 {
                    held.remove(0);
                }
            }
            Step::Replace(image, finish) => {
                let mut replacement = engine.begin_replace().unwrap();
                let (first, rest): (Vec<_>, Vec<_>) =
                    image.clone().into_iter().partition(|(key, _)| key[0] < 2);
                replacement.add(&mut first.into_iter()).unwrap();
                replacement.add(&mut rest.into_iter()).unwrap();
                check(&*engine.snapshot(), &map);
                if finish {
                    replacement.finish().unwrap();
                    map = image;
                }
            }
            Step::Reopen => {
                // A folder is open once: snapshots hold it too.
                held.clear();
                drop(engine);
                engine = open();
            }
        }
        check(&*engine.snapshot(), &map);
        for (snapshot, map) in &held {
            check(&**snapshot, map);
        }
    }
}

fn open_folder(folder: &Path) -> Arc<dyn StateEngine> {
    Arc::new(FjallEngine::open(folder).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_engine_is_an_ordered_map(steps in prop::collection::vec(any_step(), 1..40)) {
        let engine = MemoryEngine::new();
        run(steps, || {
            engine.crash();
            Arc::new(engine.clone())
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_engine_is_an_ordered_map(steps in prop::collection::vec(any_step(), 20..80)) {
        let folder = tempfile::tempdir().unwrap();
        run(steps, || open_folder(folder.path()));
    }
}

#[test]
fn a_held_snapshot_outlives_compactions() {
    let folder = tempfile::tempdir().unwrap();
    let engine = open_folder(folder.path());
    let row =
        |n: u32, round: u32| (Bytes::from(n.to_be_bytes().to_vec()), Bytes::from(vec![round as u8; 200]));
    let is_there = |n: u32, round: u32| !(n + round).is_multiple_of(3);
    let ingest = |round: u32| {
        let rows = (0..500).filter(|n| is_there(*n, round)).map(|n| row(n, round));
        // Every third is deleted.
        let mut changes: BTreeMap<Bytes, Option<Bytes>> = (0..500).map(|n| (row(n, 0).0, None)).collect();
        changes.extend(rows.map(|(key, value)| (key, Some(value))));
        engine.ingest(&mut changes.into_iter()).unwrap();
    };
    let read = |snapshot: &dyn EngineSnapshot| -> Vec<(Bytes, Bytes)> {
        snapshot.scan(Bound::Unbounded, Bound::Unbounded).map(Result::unwrap).collect()
    };
    ingest(1);
    let early = engine.snapshot();
    let wanted = read(&*early);
    for round in 2..60 {
        ingest(round);
        assert_eq!(read(&*early), wanted, "after round {round}");
        assert_eq!(read(&*engine.snapshot()).len(), (0..500).filter(|n| is_there(*n, round)).count());
    }
}

#[test]
fn a_folder_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let engine = FjallEngine::open(folder.path()).unwrap();
    let error = FjallEngine::open(folder.path()).err().expect("the folder is locked");
    assert_eq!(error.call, "open");
    drop(engine);
    FjallEngine::open(folder.path()).unwrap();
}

#[test]
fn the_room_of_removed_rows_comes_back_where_nothing_is_written_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let engine = FjallEngine::open(folder.path()).unwrap();
    let key = |number: u64| Bytes::from(format!("{number:08}"));
    // Noise, which does not compress.
    let value = |number: u64| {
        let words =
            (0..64_u64).flat_map(|at| (number * 64 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Bytes::from_iter(words)
    };
    engine.ingest(&mut (0..4_000).map(|number| (key(number), Some(value(number))))).unwrap();
    engine.persist().unwrap();
    let full = engine.size_bytes();
    assert!(full > 1_000_000, "{full}");
    engine.ingest(&mut (0..4_000).map(|number| (key(number), None))).unwrap();
    engine.persist().unwrap();
    let began = std::time::Instant::now();
    while engine.size_bytes() > full / 10 {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(30),
            "{} of {full} bytes",
            engine.size_bytes()
        );
        std::thread::yield_now();
    }
    assert!(engine.snapshot().scan(Bound::Unbounded, Bound::Unbounded).next().is_none());
}
