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
    if plan.done.clear.is_none() {
        let clear = newest_clear(engine, durable.position.last_clear, reachable)?;
        if clear > plan.done.clear_swept {
            plan.done.clear = Some((clear, Bytes::new()));
        }
    }
    if let Some((clear, cursor)) = plan.done.clear.take() {
        plan.walk_keys(engine, clear, cursor, rows_max.saturating_sub(walked).max(1))?;
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
    fn walk_history(
        &mut self,
        engine: &dyn EngineSnapshot,
        up_to: u64,
        rows_max: usize,
    ) -> Result<usize, StoreError> {
        let start = rows::number_key(TABLE_HISTORY, self.done.swept);
        let end = rows::number_key(TABLE_HISTORY, up_to);
        let mut walked = 0;
        for row in engine.scan(Bound::Excluded(&start), Bound::Included(&end)) {
            if walked == rows_max {
                return Ok(walked);
            }
            walked += 1;
            let (row_key, row) = row?;
            let revision = rows::read_number(&row_key[1..])?;
            let row: HistoryRow = rows::decode(&row_key, row)?;
            if row.previous > 0 {
                self.removed.push(rows::number_key(TABLE_HISTORY, row.previous));
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
                self.removed.push(rows::number_key(TABLE_HISTORY, row.revision));
                self.removed.push(row_key);
            }
        }
        self.done.clear_swept = clear;
        Ok(())
    }
}
