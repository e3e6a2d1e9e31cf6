//! What each operation does to the keyspace.
//!
//! Determinism is the point: what is read here is the applied state through its layers, and nothing else.

use crate::batch::{met, no_lease, side_and_leases};
use crate::command::{
    Answer, ClearDone, Compact, Condition, ConditionKind, Delete, DeleteDone, Nothing, Operation,
    PreconditionFailed, Put, PutDone, Reply, SessionOpened, SetFeatureLevel,
};
use crate::error::{ApplyError, StoreError};
use crate::flush;
use crate::layers::{Resolved, Values};
use crate::lease_table::LeaseKind;
use crate::overlay::{Lineage, Newest, OverlayRow, ROW_BYTES};
use crate::position::FEATURE_LEVEL;
use crate::replies::SideLayers;
use crate::rows::ChangeAt;
use crate::store::{ClearChange, Store};

impl Reply {
    /// Whether a retry gets this reply again. A refusal is decided anew each time.
    pub(crate) fn is_recorded(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_refusal())
    }
}

impl Put {
    /// Applying it needs nothing of what was there before.
    pub(crate) fn is_plain(&self) -> bool {
        self.condition.is_none() && !self.want_previous
    }
}

impl Store {
    pub(crate) fn apply_operation(&mut self, index: u64, operation: &Operation) -> Result<Reply, ApplyError> {
        let condition = match operation {
            Operation::Put(put) => put.condition.as_ref(),
            Operation::Delete(delete) => delete.condition.as_ref(),
            _ => None,
        };
        if condition.is_some_and(|condition| condition.kind.is_none()) {
            return Err(ApplyError::Unknown { index, what: "a condition" });
        }
        match operation {
            Operation::SetFeatureLevel(SetFeatureLevel { level }) if *level > FEATURE_LEVEL => {
                return Err(ApplyError::FeatureLevel { index, level: *level, known: FEATURE_LEVEL });
            }
            _ => {}
        }
        let answer = match operation {
            Operation::Put(put) => self.put(index, put),
            Operation::Delete(delete) => self.delete(delete),
            Operation::Clear(_) => self.clear(),
            Operation::OpenSession(_) => self.open_session(index),
            Operation::Compact(compact) => Ok(self.compact(compact)),
            Operation::SetFeatureLevel(set) => Ok(self.set_feature_level(set)),
            Operation::Txn(txn) => self.run_txn(txn),
            Operation::DeleteRange(range) => self.delete_range(range),
            Operation::GrantLease(grant) => Ok(self.grant_lease(index, grant)),
            Operation::KeepLease(keep) => Ok(self.keep_lease(keep)),
            Operation::RevokeLease(revoke) => self.revoke_lease(revoke),
            Operation::Expire(expire) => self.expire_due(expire),
            Operation::AcquireLock(asked) => self.acquire_lock(index, asked),
            Operation::ReleaseLock(release) => self.release_lock(release),
        };
        let answer = answer.map_err(|source| ApplyError::Store { index, source })?;
        Ok(Reply { answer: Some(answer), replayed: false })
    }

    /// The key as it is now, dead or not.
    pub(crate) fn current(&self, key: &[u8], values: Values) -> Result<Option<Resolved>, StoreError> {
        let frozen = self.frozen.as_ref().is_some_and(|frozen| frozen.index.contains_key(key));
        if frozen || self.active.index.contains_key(key) {
            self.layers.newest(key, u64::MAX, values)
        } else {
            self.layers.newest_flushed(key, values)
        }
    }

    fn put(&mut self, index: u64, put: &Put) -> Result<Answer, StoreError> {
        if put.is_plain() {
            return Ok(match self.lease_for_put(index, put) {
                Ok(lease) => Answer::Put(PutDone { revision: self.put_plain(put, lease), previous: None }),
                Err(refused) => refused,
            });
        }
        let current = self.current(&put.key, Values::if_wanted(put.want_previous))?;
        let last_change = current.as_ref().map(Resolved::at).unwrap_or_default();
        let current = current.filter(|row| row.is_live(self.position.last_clear));
        if let Some(failed) = unmet(put.condition.as_ref(), current.as_ref()) {
            return Ok(failed);
        }
        let lease = match self.lease_for_put(index, put) {
            Ok(lease) => lease,
            Err(refused) => return Ok(refused),
        };
        let revision = self.position.revision + 1;
        let lineage = match &current {
            Some(row) => Lineage::Known { create_revision: row.create_revision, version: row.version + 1 },
            None => Lineage::Known { create_revision: revision, version: 1 },
        };
        self.active.tally.delta += i64::from(current.is_none());
        self.insert_put(put, lease, lineage, Some(last_change));
        let previous = current.filter(|_| put.want_previous).map(Resolved::into_value);
        Ok(Answer::Put(PutDone { revision, previous }))
    }

    /// The lease that the key of a PUT is to end with, 0: none; or why there is none.
    fn lease_for_put(&mut self, index: u64, put: &Put) -> Result<u64, Answer> {
        if put.lease == 0 && put.ttl_ms == 0 {
            return Ok(0);
        }
        self.leases.room_for_keys(1).map_err(met)?;
        if put.ttl_ms == 0 {
            return if self.leases.usable(put.lease).is_some() {
                Ok(put.lease)
            } else {
                Err(no_lease(put.lease))
            };
        }
        self.leases.room_for_lease().map_err(met)?;
        let now_ms = self.position.time_ms;
        let (mut side, leases) = side_and_leases!(self);
        leases.grant(&mut side, now_ms, index, put.ttl_ms, LeaseKind::OfKey);
        Ok(index)
    }

    /// Reads only the indexes of the overlays.
    fn put_plain(&mut self, put: &Put, lease: u64) -> u64 {
        let revision = self.position.revision + 1;
        let last_clear = self.position.last_clear;
        let created = Lineage::Known { create_revision: revision, version: 1 };
        let on_top = |newest: &Newest| match newest.lineage {
            _ if newest.deleted || newest.revision <= last_clear => (created, 1),
            Lineage::Known { create_revision, version } => {
                (Lineage::Known { create_revision, version: version + 1 }, 0)
            }
            // The caller says what it is under.
            under @ Lineage::Under { .. } => (under, 0),
        };
        let (lineage, previous, delta) = if let Some(newest) = self.active.index.get(&put.key) {
            let (lineage, delta) = on_top(newest);
            let lineage = match lineage {
                Lineage::Under { first, delta, floor, .. } => {
                    Lineage::Under { first, delta: delta + 1, floor, guessed_new: false }
                }
                known => known,
            };
            (lineage, Some(newest.at()), delta)
        } else {
            let under =
                |guessed_new| Lineage::Under { first: revision, delta: 1, floor: last_clear, guessed_new };
            match self.frozen.as_ref().and_then(|frozen| frozen.index.get(&put.key)) {
                Some(newest) => {
                    let (lineage, delta) = on_top(newest);
                    let lineage = match lineage {
                        Lineage::Under { .. } => under(false),
                        known => known,
                    };
                    (lineage, Some(newest.at()), delta)
                }
                // Nothing in the engine is alive: no need to guess.
                None if self.durable.live_keys == 0 || self.durable.position.revision <= last_clear => {
                    (created, None, 1)
                }
                None => (under(true), None, 1),
            }
        };
        self.active.tally.delta += delta;
        self.insert_put(put, lease, lineage, previous);
        revision
    }

    fn insert_put(&mut self, put: &Put, lease: u64, lineage: Lineage, previous: Option<ChangeAt>) {
        let row = OverlayRow {
            deleted: false,
            lineage,
            previous,
            shared: false,
            lease,
            content_type: put.content_type.clone(),
            value: self.active.arena.copy(&put.value),
        };
        self.insert(&put.key, row);
    }

    /// Adds a change under the next revision.
    fn insert(&mut self, key: &[u8], row: OverlayRow) {
        self.insert_at(self.position.revision + 1, key, row);
    }

    /// Adds a change under a revision, which is the present one or the next.
    pub(crate) fn insert_at(&mut self, revision: u64, key: &[u8], row: OverlayRow) {
        self.position.revision = revision;
        self.active.changes += 1;
        self.active.row_bytes +=
            ROW_BYTES + key.len() + row.value.len() + row.content_type.as_ref().map_or(0, String::len);
        let key = self.active.arena.copy(key);
        if matches!(row.lineage, Lineage::Under { guessed_new: true, .. }) {
            self.active.guesses.push(key.clone());
        }
        if row.lease != 0 || !self.leases.has_no_keys() {
            let last_clear = self.position.last_clear;
            let (mut side, leases) = side_and_leases!(self);
            leases.note_change(&mut side, &key, row.lease, revision, last_clear);
        }
        let newest = Newest { revision, deleted: row.deleted, shared: row.shared, lineage: row.lineage };
        self.active.index.insert(key.clone(), newest);
        self.layers.active.insert(key, revision, row);
    }

    fn delete(&mut self, delete: &Delete) -> Result<Answer, StoreError> {
        let current = self.current(&delete.key, Values::if_wanted(delete.want_previous))?;
        let current = current.filter(|row| row.is_live(self.position.last_clear));
        if let Some(failed) = unmet(delete.condition.as_ref(), current.as_ref()) {
            return Ok(failed);
        }
        let Some(row) = current else {
            let revision = self.position.revision;
            return Ok(Answer::Delete(DeleteDone { deleted: false, revision, previous: None }));
        };
        self.active.tally.delta -= 1;
        self.insert(
            &delete.key,
            OverlayRow {
                deleted: true,
                lineage: Lineage::Known { create_revision: row.create_revision, version: row.version + 1 },
                previous: Some(row.at()),
                shared: false,
                lease: 0,
                content_type: None,
                value: bytes::Bytes::new(),
            },
        );
        let revision = self.position.revision;
        let previous = delete.want_previous.then(|| row.into_value());
        Ok(Answer::Delete(DeleteDone { deleted: true, revision, previous }))
    }

    /// One row, however many keys there are: what is older is dead. Only the count may need looking: once for each key
    /// that plain PUTs set since the last flush without looking.
    fn clear(&mut self) -> Result<Answer, StoreError> {
        let deleted = self.count_live_keys()?;
        if deleted > 0 {
            let previous = self.position.last_clear;
            self.position.revision += 1;
            let revision = self.position.revision;
            self.position.last_clear = revision;
            let clear = ClearChange { revision, deleted, previous };
            self.active.clears.push(clear);
            self.layers.active.insert_clear(clear);
            self.active.changes += 1;
            self.active.row_bytes += ROW_BYTES;
            self.active.tally.restart();
        }
        Ok(Answer::Clear(ClearDone { deleted, revision: self.position.revision }))
    }

    /// How many keys there are, exactly.
    fn count_live_keys(&self) -> Result<u64, StoreError> {
        let tally = self.active.tally;
        if tally.is_restarted() {
            return Ok(tally.apply_to(0, 0));
        }
        // No clear lies in either overlay, so it is the same for all guesses.
        let floor = self.position.last_clear;
        let beneath = match &self.frozen {
            None => self.durable.live_keys,
            Some(frozen) => frozen.count_live_keys(&*self.layers.engine, self.durable.live_keys, floor)?,
        };
        let wrong = flush::wrong_guesses(&self.active.guesses, floor, |key| self.layers.newest_beneath(key))?;
        Ok(tally.apply_to(beneath, wrong))
    }

    /// As [`Store::count_live_keys`], but taking guesses for right.
    pub(crate) fn guess_live_keys(&self) -> u64 {
        let frozen = self.frozen.as_ref().map(|frozen| frozen.tally).unwrap_or_default();
        self.active.tally.apply_to(frozen.apply_to(self.durable.live_keys, 0), 0)
    }

    fn open_session(&mut self, index: u64) -> Result<Answer, StoreError> {
        let mut side = SideLayers {
            active: &mut self.active.side,
            frozen: self.frozen.as_ref().map(|frozen| &frozen.side),
            engine: &*self.layers.engine,
        };
        // The entry's index: never used before, and the same on every node.
        let opened = self.sessions.open_session(&mut side, self.position.time_ms, index)?;
        Ok(if opened {
            Answer::SessionOpened(SessionOpened { session: index })
        } else {
            Answer::ReplyTableFull(Nothing {})
        })
    }

    fn compact(&mut self, compact: &Compact) -> Answer {
        let revision = compact.revision.min(self.position.revision).max(self.position.compacted);
        self.position.compacted = revision;
        Answer::Compacted(Compact { revision })
    }

    fn set_feature_level(&mut self, set: &SetFeatureLevel) -> Answer {
        let level = set.level.max(self.position.feature_level);
        self.position.feature_level = level;
        Answer::FeatureLevel(SetFeatureLevel { level })
    }
}

/// The answer where the condition does not hold.
fn unmet(condition: Option<&Condition>, current: Option<&Resolved>) -> Option<Answer> {
    let holds = match condition.and_then(|condition| condition.kind.as_ref()) {
        None => true,
        Some(ConditionKind::Revision(revision)) => current.is_some_and(|row| row.revision == *revision),
        Some(ConditionKind::Exists(_)) => current.is_some(),
        Some(ConditionKind::Absent(_)) => current.is_none(),
    };
    let current_revision = current.map_or(0, |row| row.revision);
    (!holds).then_some(Answer::PreconditionFailed(PreconditionFailed { current_revision }))
}
