//! Removal of rows that compaction made unreadable, in slices.
//!
//! After compaction to `C` a read may ask for any revision from `C` on. So of each key its newest change at or below `C`
//! has to stay, if the key is there, and all changes above; the rest may go:
//! - a change at `r <= C` makes the one before it unreadable, and itself too if it is a deletion;
//! - a clear at `r <= C` makes every older change unreadable.
//!
//! The first is found by walking history in order of revision, the second by walking all keys once, for the newest clear
//! at or below `C`. Both remember in the meta row where they are. Only rows of the engine are looked at: what
//! is in the overlay comes into history with this flush, and is walked by a later one.

use std::ops::Bound;

use bytes::Bytes;

use crate::engine::EngineSnapshot;
use crate::error::StoreError;
use crate::layers;
use crate::position::{Durable, Sweep};
use crate::rows::{self, ChangeKind, HistoryRow, KeyRow, TABLE_HISTORY, TABLE_KEYS};

/// What to remove, and how far the removal is then.
pub(crate) struct Plan {
    pub(crate) done: Sweep,
    /// Keys of rows; in no order, perhaps twice, perhaps already gone.
    pub(crate) removed: Vec<Bytes>,
}

/// Looks at about so many rows.
pub(crate) fn plan(
    engine: &dyn EngineSnapshot,
    durable: &Durable,
    compacted: u64,
    rows_max: usize,
) -> Result<Plan, StoreError> {
    let mut plan = Plan { done: durable.sweep.clone(), removed: Vec::new() };
    // History above what the engine holds cannot be walked yet.
    let reachable = compacted.min(durable.position.revision);
    let walked =
        if plan.done.swept < reachable { plan.walk_history(engine, reachable, rows_max)? } else { 0 };
    plan.choose_clear(engine, durable.position.last_clear, reachable)?;
    if let Some((clear, cursor)) = plan.done.clear.take() {
        plan.walk_keys(engine, clear, cursor, rows_max.saturating_sub(walked).max(1))?;
        // There may be a newer one by now; that there is more to do must show.
        plan.choose_clear(engine, durable.position.last_clear, reachable)?;
    }
    Ok(plan)
}

/// The newest clear at or below `revision`; 0: none.
fn newest_clear(engine: &dyn EngineSnapshot, last_clear: u64, revision: u64) -> Result<u64, StoreError> {
    let mut clear = last_clear;
    while clear > revision {
        // Only a later clear at or below the compacted revision removes a clear, so those above are all there.
        clear = layers::history_row(engine, clear)?
            .ok_or_else(|| StoreError::corrupt(format!("the clear at revision {clear} is missing")))?
            .previous;
    }
    Ok(clear)
}

impl Plan {
    /// Sets out to remove what the newest clear at or below `reachable` killed. Not before all history up to there was
    /// walked: a change that is gone no longer names the one before it.
    fn choose_clear(
        &mut self,
        engine: &dyn EngineSnapshot,
        last_clear: u64,
        reachable: u64,
    ) -> Result<(), StoreError> {
        if self.done.clear.is_none() && self.done.swept == reachable {
            let clear = newest_clear(engine, last_clear, reachable)?;
            if clear > self.done.clear_swept {
                self.done.clear = Some((clear, Bytes::new()));
            }
        }
        Ok(())
    }

    fn walk_history(
        &mut self,
        engine: &dyn EngineSnapshot,
        up_to: u64,
        rows_max: usize,
    ) -> Result<usize, StoreError> {
        let start = rows::number_key(TABLE_HISTORY, self.done.swept + 1);
        let end = rows::number_key(TABLE_HISTORY, up_to + 1);
        let mut walked = 0;
        for row in engine.scan(Bound::Included(&start), Bound::Excluded(&end)) {
            let (row_key, row) = row?;
            let revision = rows::read_number(&row_key[1..])?;
            // A revision that several keys share is walked whole.
            if walked >= rows_max && revision > self.done.swept {
                return Ok(walked);
            }
            walked += 1;
            let row: HistoryRow = rows::decode(&row_key, row)?;
            if row.previous > 0 {
                self.removed.push(rows::history_key(row.before(), &row.key));
            }
            if row.kind == ChangeKind::Delete as i32 {
                self.removed.push(row_key);
                let newest = layers::newest_in_engine(engine, &row.key)?;
                if newest.is_some_and(|newest| newest.revision == revision) {
                    self.removed.push(rows::row_key(TABLE_KEYS, &row.key));
                }
            }
            self.done.swept = revision;
        }
        self.done.swept = up_to;
        Ok(walked)
    }

    fn walk_keys(
        &mut self,
        engine: &dyn EngineSnapshot,
        clear: u64,
        cursor: Bytes,
        rows_max: usize,
    ) -> Result<(), StoreError> {
        let start = rows::row_key(TABLE_KEYS, &cursor);
        let end = [TABLE_KEYS + 1];
        for (walked, row) in engine.scan(Bound::Included(&start), Bound::Excluded(&end)).enumerate() {
            let (row_key, row) = row?;
            if walked == rows_max {
                self.done.clear = Some((clear, row_key.slice(1..)));
                return Ok(());
            }
            let row: KeyRow = rows::decode(&row_key, row)?;
            if row.revision < clear {
                self.removed.push(rows::history_key(row.at(), &row_key[1..]));
                self.removed.push(row_key);
            }
        }
        self.done.clear_swept = clear;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::command::{
        self, Clear, Command, Compact, Delete, Operation, Put, Txn, TxnOp, TxnOpKind, TxnPut,
    };
    use crate::engine::StateEngine;
    use crate::{MemoryEngine, Store, StoreConfig};

    /// What a history is made of.
    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, bool),
        /// Two keys at one revision.
        Both(u8, u8),
        Delete(u8),
        Clear,
        /// To a share of the revision, in percent.
        Compact(u64),
        Flush,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            10 => (0u8..5, prop::bool::weighted(0.2)).prop_map(|(key, large)| Step::Put(key, large)),
            3 => (0u8..5, 0u8..4).prop_map(|(key, other)| Step::Both(key, if other < key { other } else { other + 1 })),
            4 => (0u8..5).prop_map(Step::Delete),
            1 => Just(Step::Clear),
            1 => (0u64..=100).prop_map(Step::Compact),
            4 => Just(Step::Flush),
        ]
    }

    /// All changes that ever were, as the rows of history should say them.
    #[derive(Default)]
    struct Past {
        rows: BTreeMap<(u64, Bytes), HistoryRow>,
        shared: BTreeSet<u64>,
        newest: BTreeMap<u8, u64>,
        live: BTreeMap<u8, (u64, u64)>,
        clear: u64,
    }

    impl Past {
        fn put(&mut self, revision: u64, key: u8, value: &Bytes) {
            let (create_revision, version) = self.live.get(&key).copied().unwrap_or((revision, 0));
            self.live.insert(key, (create_revision, version + 1));
            let row = HistoryRow {
                kind: ChangeKind::Put as i32,
                key: Bytes::from(vec![key]),
                create_revision,
                version: version + 1,
                previous: self.newest.insert(key, revision).unwrap_or(0),
                content_type: None,
                value: value.clone(),
                ..HistoryRow::default()
            };
            self.insert(revision, row);
        }

        fn insert(&mut self, revision: u64, mut row: HistoryRow) {
            row.previous_shared = self.shared.contains(&row.previous);
            self.rows.insert((revision, row.key.clone()), row);
        }

        fn delete(&mut self, revision: u64, key: u8) {
            let Some((create_revision, version)) = self.live.remove(&key) else { return };
            let row = HistoryRow {
                kind: ChangeKind::Delete as i32,
                key: Bytes::from(vec![key]),
                create_revision,
                version: version + 1,
                previous: self.newest.insert(key, revision).unwrap_or(0),
                ..HistoryRow::default()
            };
            self.insert(revision, row);
        }

        fn clear(&mut self, revision: u64) {
            if self.live.is_empty() {
                return;
            }
            let row = HistoryRow {
                kind: ChangeKind::Clear as i32,
                create_revision: self.live.len() as u64,
                previous: std::mem::replace(&mut self.clear, revision),
                ..HistoryRow::default()
            };
            self.live.clear();
            self.insert(revision, row);
        }

        /// Revisions that a read at `compacted` or later may need.
        fn readable(&self, compacted: u64) -> BTreeSet<(u64, Bytes)> {
            let clear = self.clears().filter(|clear| *clear <= compacted).max().unwrap_or(0);
            let mut newest: BTreeMap<&[u8], u64> = BTreeMap::new();
            for ((revision, _), row) in self.rows.range(..(compacted + 1, Bytes::new())) {
                match ChangeKind::try_from(row.kind) {
                    Ok(ChangeKind::Put) if *revision > clear => drop(newest.insert(&row.key, *revision)),
                    Ok(ChangeKind::Delete) => drop(newest.remove(&row.key[..])),
                    _ => {}
                }
            }
            let newest = newest.into_iter().map(|(key, revision)| (revision, Bytes::copy_from_slice(key)));
            let above = self.rows.range((compacted + 1, Bytes::new())..).map(|(at, _)| at.clone());
            newest.chain(above).chain((clear > 0).then_some((clear, Bytes::new()))).collect()
        }

        fn clears(&self) -> impl Iterator<Item = u64> {
            let is_clear = |row: &HistoryRow| row.kind == ChangeKind::Clear as i32;
            self.rows.iter().filter(move |(_, row)| is_clear(row)).map(|((revision, _), _)| *revision)
        }
    }

    fn flush(store: &mut Store) -> bool {
        let Some(job) = store.force_rotate() else { return false };
        let index = job.run().unwrap();
        store.handle_flushed(index).unwrap();
        true
    }

    /// The rows of the engine are right, those that are readable are there, and no others.
    fn check(engine: &MemoryEngine, past: &Past, compacted: u64) {
        let snapshot = engine.snapshot();
        let (start, end) = ([TABLE_HISTORY], [TABLE_HISTORY + 1]);
        let mut found = BTreeSet::new();
        for row in snapshot.scan(Bound::Included(&start), Bound::Excluded(&end)) {
            let (row_key, row) = row.unwrap();
            let revision = rows::read_number(&row_key[1..]).unwrap();
            let row: HistoryRow = rows::decode(&row_key, row).unwrap();
            // A deletion that is gone from both tables is not known to the change after it.
            let at = (revision, row.key.clone());
            assert_eq!(row_key.len() > 9, past.shared.contains(&revision));
            let mut wanted = past.rows[&at].clone();
            if row.previous == 0 && wanted.previous <= compacted {
                (wanted.previous, wanted.previous_shared) = (0, false);
            }
            assert_eq!(row, wanted, "revision {revision}");
            found.insert(at);
        }
        let readable = past.readable(compacted);
        // A key that died by a clear, and was set again above the compacted revision before the walk over the keys came
        // by, leaves its dead change until the new one is walked over.
        let mut late = readable.clone();
        let above = past.rows.range((compacted + 1, Bytes::new())..);
        late.extend(above.map(|(_, row)| (row.previous, row.key.clone())));
        assert!(found.is_superset(&readable) && found.is_subset(&late), "{found:?}, wanted are {readable:?}");

        // A key has a row as long as any change of it is readable.
        let (start, end) = ([TABLE_KEYS], [TABLE_KEYS + 1]);
        let keys = snapshot.scan(Bound::Included(&start), Bound::Excluded(&end));
        let keys: BTreeSet<Bytes> = keys.map(|row| row.unwrap().0.slice(1..)).collect();
        let readable = readable.into_iter().map(|(_, key)| key);
        assert_eq!(keys, readable.filter(|key| !key.is_empty()).collect::<BTreeSet<_>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_readable_stays_and_the_rest_goes(steps in prop::collection::vec(any_step(), 1..120)) {
            let engine = MemoryEngine::new();
            let config = StoreConfig { sweep_rows: 2, ..StoreConfig::default() };
            let mut store = Store::open(Arc::new(engine.clone()), config).unwrap();
            let mut past = Past::default();
            for step in steps {
                let revision = store.position().revision;
                let operation = match step {
                    Step::Put(key, large) => {
                        let value = Bytes::from(vec![key; if large { 3000 } else { 3 }]);
                        past.put(revision + 1, key, &value);
                        Operation::Put(Put { key: Bytes::from(vec![key]), value, ..Put::default() })
                    }
                    Step::Both(key, other) => {
                        let value = Bytes::from(vec![key; 3]);
                        past.shared.insert(revision + 1);
                        let put = |key: u8| {
                            let put = TxnPut { key: Bytes::from(vec![key]), value: value.clone(), ..TxnPut::default() };
                            TxnOp { kind: Some(TxnOpKind::Put(put)) }
                        };
                        let then = vec![put(key), put(other)];
                        past.put(revision + 1, key, &value);
                        past.put(revision + 1, other, &value);
                        Operation::Txn(Txn { then, ..Txn::default() })
                    }
                    Step::Delete(key) => {
                        past.delete(revision + 1, key);
                        Operation::Delete(Delete { key: Bytes::from(vec![key]), ..Delete::default() })
                    }
                    Step::Clear => {
                        past.clear(revision + 1);
                        Operation::Clear(Clear {})
                    }
                    Step::Compact(percent) => {
                        Operation::Compact(Compact { revision: revision * percent / 100 })
                    }
                    Step::Flush => {
                        flush(&mut store);
                        continue;
                    }
                };
                let entry = command::encode(&Command { request: None, operation: Some(operation) });
                store.apply(store.applied_index() + 1, &entry).unwrap();
            }
            while flush(&mut store) {}
            check(&engine, &past, store.position().compacted);
            let all = Operation::Compact(Compact { revision: u64::MAX });
            let entry = command::encode(&Command { request: None, operation: Some(all) });
            store.apply(store.applied_index() + 1, &entry).unwrap();
            while flush(&mut store) {}
            check(&engine, &past, store.position().compacted);
        }
    }
}
