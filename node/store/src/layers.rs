//! One key looked up through the layers: active overlay, frozen overlay, engine.
//!
//! The invariant of the layers: a change of the active overlay is newer than any of the frozen one, and that newer than
//! any of the engine. So the first layer that has the key has its newest change.

use std::sync::Arc;

use bytes::Bytes;

use crate::command::Value;
use crate::engine::EngineSnapshot;
use crate::error::StoreError;
use crate::hot_rows::HotRows;
use crate::overlay::{Lineage, Overlay, OverlayRow};
use crate::rows::{self, ChangeAt, ChangeKind, HistoryRow, KeyRow, TABLE_HISTORY, TABLE_KEYS};

/// The layers of one state. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Layers {
    pub(crate) active: Arc<Overlay>,
    /// Being flushed.
    pub(crate) frozen: Option<Arc<Overlay>>,
    pub(crate) engine: Arc<HotRows>,
}

/// Whether values are wanted. Large ones lie elsewhere than the rest of their rows, and of many keys they would fill the
/// memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Values {
    /// They are.
    #[default]
    Wanted,
    /// They are not: those that are given are empty, and were not read.
    LeftOut,
}

/// A change of a key with its counters worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) deleted: bool,
    pub(crate) shared: bool,
    pub(crate) lease: u64,
    pub(crate) revision: u64,
    pub(crate) create_revision: u64,
    pub(crate) version: u64,
    pub(crate) content_type: Option<String>,
    pub(crate) value: Bytes,
}

impl Values {
    /// Wanted, or not.
    pub(crate) fn if_wanted(wanted: bool) -> Values {
        if wanted { Values::Wanted } else { Values::LeftOut }
    }

    fn of(self, value: Bytes) -> Bytes {
        match self {
            Values::Wanted => value,
            Values::LeftOut => Bytes::new(),
        }
    }
}

impl Resolved {
    /// Whether the key is there after this change and the clear at `last_clear`.
    pub(crate) fn is_live(&self, last_clear: u64) -> bool {
        !self.deleted && self.revision > last_clear
    }

    /// Which change it is.
    pub(crate) fn at(&self) -> ChangeAt {
        ChangeAt { revision: self.revision, shared: self.shared }
    }

    pub(crate) fn into_value(self) -> Value {
        Value {
            value: self.value,
            content_type: self.content_type,
            revision: self.revision,
            create_revision: self.create_revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

impl Layers {
    /// The newest change of `key` at or below `revision`, which must be a revision of the overlays: the engine gives
    /// its newest change whatever the bound.
    pub(crate) fn newest(
        &self,
        key: &[u8],
        revision: u64,
        values: Values,
    ) -> Result<Option<Resolved>, StoreError> {
        if let Some((revision, row)) = self.active.newest(key, revision) {
            let beneath = || self.newest_beneath(key);
            return resolve(revision, row, values, beneath).map(Some);
        }
        if let Some((revision, row)) = self.frozen.as_ref().and_then(|frozen| frozen.newest(key, revision)) {
            let beneath = || newest_in_engine(&*self.engine, key);
            return resolve(revision, row, values, beneath).map(Some);
        }
        self.newest_flushed(key, values)
    }

    /// The newest change of `key` that was flushed.
    pub(crate) fn newest_flushed(&self, key: &[u8], values: Values) -> Result<Option<Resolved>, StoreError> {
        let row_key = rows::row_key(TABLE_KEYS, key);
        let Some(row) = self.engine.get_hot(&row_key)? else { return Ok(None) };
        let row = rows::decode(&row_key, row)?;
        resolve_engine_row(&*self.engine, key, row, values).map(Some)
    }

    /// The newest change of `key` at or below `revision`, which must not be compacted; `None`: there is none, or only
    /// one that left nothing behind and is removed.
    pub(crate) fn at(
        &self,
        key: &[u8],
        revision: u64,
        values: Values,
    ) -> Result<Option<Resolved>, StoreError> {
        if let Some((revision, row)) = self.active.newest(key, revision) {
            return resolve(revision, row, values, || self.newest_beneath(key)).map(Some);
        }
        if let Some((revision, row)) = self.frozen.as_ref().and_then(|frozen| frozen.newest(key, revision)) {
            return resolve(revision, row, values, || newest_in_engine(&*self.engine, key)).map(Some);
        }
        match newest_in_engine(&*self.engine, key)? {
            None => Ok(None),
            Some(row) if row.revision <= revision => {
                resolve_engine_row(&*self.engine, key, row, values).map(Some)
            }
            Some(row) => change_before(&*self.engine, key, row.at(), revision, values),
        }
    }

    /// The newest clear at or below `revision`, which must not be compacted, when `last` is the newest of all; 0: none.
    pub(crate) fn clear_at(&self, last: u64, revision: u64) -> Result<u64, StoreError> {
        let mut clear = last;
        while clear > revision {
            let in_overlay = self
                .active
                .clear_at(clear)
                .or_else(|| self.frozen.as_ref().and_then(|frozen| frozen.clear_at(clear)));
            clear = match in_overlay {
                Some(change) => change.previous,
                None => {
                    history_row(&*self.engine, clear)?
                        .ok_or_else(|| {
                            StoreError::corrupt(format!("the clear at revision {clear} is missing"))
                        })?
                        .previous
                }
            };
        }
        Ok(clear)
    }

    /// The newest change of `key` beneath the active overlay, its value perhaps left out.
    pub(crate) fn newest_beneath(&self, key: &[u8]) -> Result<Option<KeyRow>, StoreError> {
        match self.frozen.as_ref().and_then(|frozen| frozen.newest(key, u64::MAX)) {
            Some((revision, row)) => {
                let row = resolve(revision, row, Values::Wanted, || newest_in_engine(&*self.engine, key))?;
                Ok(Some(KeyRow {
                    revision: row.revision,
                    create_revision: row.create_revision,
                    version: row.version,
                    deleted: row.deleted,
                    content_type: row.content_type,
                    value: Some(row.value),
                    lease: row.lease,
                    shared: row.shared,
                }))
            }
            None => newest_in_engine(&*self.engine, key),
        }
    }
}

/// The row of a key in the engine, its value perhaps left out.
pub(crate) fn newest_in_engine(
    engine: &dyn EngineSnapshot,
    key: &[u8],
) -> Result<Option<KeyRow>, StoreError> {
    let row_key = rows::row_key(TABLE_KEYS, key);
    engine.get(&row_key)?.map(|row| rows::decode(&row_key, row)).transpose()
}

/// Adds the value, if it is wanted, where it lies in the history row only.
pub(crate) fn resolve_engine_row(
    engine: &dyn EngineSnapshot,
    key: &[u8],
    row: KeyRow,
    values: Values,
) -> Result<Resolved, StoreError> {
    let value = match row.value {
        _ if row.deleted || values == Values::LeftOut => Bytes::new(),
        Some(value) => value,
        None => {
            change_row(engine, row.at(), key)?
                .ok_or_else(|| {
                    StoreError::corrupt(format!("the value at revision {} is missing", row.revision))
                })?
                .value
        }
    };
    Ok(Resolved {
        deleted: row.deleted,
        shared: row.shared,
        lease: row.lease,
        revision: row.revision,
        create_revision: row.create_revision,
        version: row.version,
        content_type: row.content_type,
        value,
    })
}

/// A change of a key.
pub(crate) fn change_row(
    engine: &dyn EngineSnapshot,
    at: ChangeAt,
    key: &[u8],
) -> Result<Option<HistoryRow>, StoreError> {
    let row_key = rows::history_key(at, key);
    engine.get(&row_key)?.map(|row| rows::decode(&row_key, row)).transpose()
}

/// The change at a revision that no other shares.
pub(crate) fn history_row(
    engine: &dyn EngineSnapshot,
    revision: u64,
) -> Result<Option<HistoryRow>, StoreError> {
    let row_key = rows::number_key(TABLE_HISTORY, revision);
    engine.get(&row_key)?.map(|row| rows::decode(&row_key, row)).transpose()
}

/// The newest change at or below `revision` of the key whose change at `from` is above that: down the chain.
fn change_before(
    engine: &dyn EngineSnapshot,
    key: &[u8],
    mut from: ChangeAt,
    revision: u64,
    values: Values,
) -> Result<Option<Resolved>, StoreError> {
    while from.revision > revision {
        // Only changes at or below the compacted revision are removed.
        let row = change_row(engine, from, key)?.ok_or_else(|| {
            StoreError::corrupt(format!("the change at revision {} is missing", from.revision))
        })?;
        from = row.before();
    }
    if from.revision == 0 {
        return Ok(None);
    }
    Ok(change_row(engine, from, key)?.map(|row| Resolved {
        deleted: row.kind == ChangeKind::Delete as i32,
        shared: from.shared,
        lease: row.lease,
        revision: from.revision,
        create_revision: row.create_revision,
        version: row.version,
        content_type: row.content_type,
        value: values.of(row.value),
    }))
}

/// Works out the counters of a change.
pub(crate) fn resolve(
    revision: u64,
    row: OverlayRow,
    values: Values,
    beneath: impl FnOnce() -> Result<Option<KeyRow>, StoreError>,
) -> Result<Resolved, StoreError> {
    let (create_revision, version) = match row.lineage {
        Lineage::Known { create_revision, version } => (create_revision, version),
        Lineage::Under { .. } => counters(row.lineage, beneath()?.as_ref()),
    };
    Ok(Resolved {
        deleted: row.deleted,
        shared: row.shared,
        lease: row.lease,
        revision,
        create_revision,
        version,
        content_type: row.content_type,
        value: values.of(row.value),
    })
}

/// `create_revision` and `version` of a change that lies on `beneath`.
pub(crate) fn counters(lineage: Lineage, beneath: Option<&KeyRow>) -> (u64, u64) {
    match lineage {
        Lineage::Known { create_revision, version } => (create_revision, version),
        Lineage::Under { first, delta, floor, .. } => match beneath {
            Some(base) if is_live(base, floor) => (base.create_revision, base.version + delta),
            _ => (first, delta),
        },
    }
}

/// Whether the key is there after this change and the clear at `last_clear`.
pub(crate) fn is_live(row: &KeyRow, last_clear: u64) -> bool {
    !row.deleted && row.revision > last_clear
}
