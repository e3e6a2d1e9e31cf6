//! The past: the state at an earlier revision, and changes in order.
//!
//! It is read from three places, oldest first: history rows of the engine, the frozen overlay, the active one. What
//! compaction has made unreadable is refused, never guessed: of older changes some rows are still there, others not.
//!
//! All of it may read the disk, and a key that changed often costs a row a change: not for threads that must not wait.

use std::ops::Bound;

use bytes::Bytes;

use crate::command::Value;
use crate::engine::EngineSnapshot;
use crate::error::StoreError;
use crate::layers::{self, Resolved, Values};
use crate::overlay::{Ordered, Overlay};
use crate::reader::{Count, Found, Moment, Page, View, Walk};
use crate::rows::{self, ChangeKind, HistoryRow, KeyRow, TABLE_HISTORY};
use crate::walk_back::WalkBack;

/// Why the past could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// Compaction made it unreadable.
    #[error("the revision is compacted; the oldest that can be read is {oldest}")]
    Compacted {
        /// The oldest readable revision.
        oldest: u64,
    },
    /// It has not come yet.
    #[error("the revision has not come yet; the newest is {newest}")]
    Future {
        /// The store's revision.
        newest: u64,
    },
    /// The state could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The store's revision after it.
    pub revision: u64,
    /// What changed.
    pub what: Changed,
}

/// What a change did.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// A key was set.
    Put {
        /// The key.
        key: Bytes,
        /// What it has since.
        value: Value,
    },
    /// A key was deleted.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// All keys that were there were deleted: those of [`View::page_at`] at the revision before.
    Clear,
}

/// In which order keys are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// From the first key on.
    #[default]
    Ascending,
    /// From the last key back.
    Descending,
}

/// Which keys are given, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The first key.
    pub start: Bound<&'a [u8]>,
    /// The last one.
    pub end: Bound<&'a [u8]>,
    /// In this order.
    pub order: Order,
    /// With their values or without.
    pub values: Values,
}

impl<'a> Scan<'a> {
    /// From `start` to `end`, in ascending order, with values.
    pub fn new(start: Bound<&'a [u8]>, end: Bound<&'a [u8]>) -> Scan<'a> {
        Scan { start, end, order: Order::default(), values: Values::default() }
    }
}

/// Changes in order of revision, whole revisions only.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// Those that were wanted, and all clears.
    pub items: Vec<Change>,
    /// All up to this revision were looked at.
    pub through: u64,
}

impl View {
    /// The value of a key at a revision; `None`: it was not there.
    pub fn get_at(&self, key: &[u8], revision: u64) -> Result<Option<Value>, PastError> {
        let moment = self.moment(revision)?;
        let found = self.state.layers.at(key, revision, Values::Wanted)?;
        Ok(found.filter(|row| row.is_live(moment.clear)).map(Resolved::into_value))
    }

    /// Keys at a revision with their values, at most so many and about so many bytes of keys and values (one item may go
    /// beyond). Go on with `Bound::Excluded` of the last key, as the start or, in descending order, as the end.
    pub fn page_at(
        &self,
        revision: u64,
        scan: Scan<'_>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Page, PastError> {
        Ok(Page::gather(self.found_at(revision, scan)?, limit, bytes_max)?)
    }

    /// How many keys there are at a revision, at most so many.
    pub fn count_at(&self, revision: u64, scan: Scan<'_>, limit: usize) -> Result<Count, PastError> {
        Ok(Count::of(self.found_at(revision, Scan { values: Values::LeftOut, ..scan })?, limit)?)
    }

    fn found_at(
        &self,
        revision: u64,
        scan: Scan<'_>,
    ) -> Result<Box<dyn Iterator<Item = Found> + '_>, PastError> {
        let (moment, Scan { start, end, order, values }) = (self.moment(revision)?, scan);
        Ok(match order {
            Order::Ascending => Box::new(Walk::new(&self.state, moment, start, end, values)),
            Order::Descending => Box::new(WalkBack::new(&self.state.layers, moment, start, end, values)?),
        })
    }

    /// The changes above `after`, of keys that are `wanted`. Looks at about `rows_max` changes, and stops once it has
    /// about `bytes_max` bytes; the last revision is finished.
    pub fn changes(
        &self,
        after: u64,
        wanted: impl Fn(&[u8]) -> bool,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Changes, PastError> {
        self.check_readable(after)?;
        let newest = self.revision();
        if after == newest {
            return Ok(Changes { items: Vec::new(), through: newest });
        }
        let mut page =
            Gather { items: Vec::new(), wanted, rows: 0, bytes: 0, rows_max, bytes_max, through: after };
        let layers = &self.state.layers;
        let engine = &*layers.engine;

        // Whoever follows closely needs nothing of the disk.
        let in_memory = layers.frozen.as_ref().and_then(|frozen| frozen.first_revision());
        let in_memory = in_memory.or_else(|| layers.active.first_revision());
        if in_memory.is_none_or(|first| first > after + 1) && !page.add_flushed(engine, after)? {
            return Ok(page.finish());
        }
        if let Some(frozen) = &layers.frozen {
            let beneath = |key: &[u8]| layers::newest_in_engine(engine, key);
            if !page.add_overlay(frozen, newest, beneath)? {
                return Ok(page.finish());
            }
        }
        if page.add_overlay(&layers.active, newest, |key| layers.newest_beneath(key))? {
            page.through = newest;
        }
        Ok(page.finish())
    }

    /// Whether what came after a revision, and the state at it, can be read.
    fn check_readable(&self, revision: u64) -> Result<(), PastError> {
        let (oldest, newest) = (self.compacted_revision(), self.revision());
        if revision < oldest {
            return Err(PastError::Compacted { oldest });
        }
        if revision > newest {
            return Err(PastError::Future { newest });
        }
        Ok(())
    }

    fn moment(&self, revision: u64) -> Result<Moment, PastError> {
        self.check_readable(revision)?;
        let clear = self.state.layers.clear_at(self.state.position.last_clear, revision)?;
        Ok(Moment { revision, clear })
    }
}

/// A page of changes as it fills.
struct Gather<W> {
    items: Vec<Change>,
    wanted: W,
    rows: usize,
    bytes: usize,
    rows_max: usize,
    bytes_max: usize,
    /// The last revision that was looked at.
    through: u64,
}

impl<W: Fn(&[u8]) -> bool> Gather<W> {
    /// Whether the page ends before this revision, which comes next.
    fn is_full_before(&self, revision: u64) -> bool {
        let is_full = self.rows >= self.rows_max.max(1) || self.bytes >= self.bytes_max;
        is_full && revision > self.through
    }

    /// An empty key stands for all.
    fn add(
        &mut self,
        revision: u64,
        key: &[u8],
        change: impl FnOnce() -> Result<Changed, StoreError>,
    ) -> Result<(), StoreError> {
        self.rows += 1;
        self.through = revision;
        if key.is_empty() || (self.wanted)(key) {
            let what = change()?;
            self.bytes += key.len();
            if let Changed::Put { value, .. } = &what {
                self.bytes += value.value.len();
            }
            self.items.push(Change { revision, what });
        }
        Ok(())
    }

    /// Adds what was flushed above `after`. Whether there is room for more.
    fn add_flushed(&mut self, engine: &dyn EngineSnapshot, after: u64) -> Result<bool, StoreError> {
        let start = rows::number_key(TABLE_HISTORY, after + 1);
        for row in engine.scan(Bound::Included(&start), Bound::Excluded(&[TABLE_HISTORY + 1])) {
            let (row_key, row) = row?;
            let revision = rows::read_number(&row_key[1..])?;
            if self.is_full_before(revision) {
                return Ok(false);
            }
            let row: HistoryRow = rows::decode(&row_key, row)?;
            self.add(revision, &row.key.clone(), || changed(revision, row))?;
        }
        Ok(true)
    }

    /// Adds what an overlay has above that. Whether there is room for more.
    fn add_overlay(
        &mut self,
        overlay: &Overlay,
        newest: u64,
        beneath: impl Fn(&[u8]) -> Result<Option<KeyRow>, StoreError>,
    ) -> Result<bool, StoreError> {
        for ordered in overlay.changes_above(self.through) {
            let revision = ordered.revision();
            if revision > newest {
                break;
            }
            if self.is_full_before(revision) {
                return Ok(false);
            }
            match ordered {
                Ordered::Clear(_) => self.add(revision, &[], || Ok(Changed::Clear))?,
                Ordered::Key { key, .. } => self.add(revision, key, || {
                    let (_, row) = overlay
                        .newest(key, revision)
                        .ok_or_else(|| StoreError::corrupt(format!("revision {revision} has no row")))?;
                    let row = layers::resolve(revision, row, Values::Wanted, || beneath(key))?;
                    Ok(match row.deleted {
                        true => Changed::Delete { key: key.clone() },
                        false => Changed::Put { key: key.clone(), value: row.into_value() },
                    })
                })?,
            }
        }
        Ok(true)
    }

    fn finish(self) -> Changes {
        Changes { items: self.items, through: self.through }
    }
}

fn changed(revision: u64, row: HistoryRow) -> Result<Changed, StoreError> {
    let HistoryRow { key, content_type, value, create_revision, version, lease, .. } = row;
    match ChangeKind::try_from(row.kind) {
        Ok(ChangeKind::Put) => {
            let value = Value { value, content_type, revision, create_revision, version, lease };
            Ok(Changed::Put { key, value })
        }
        Ok(ChangeKind::Delete) => Ok(Changed::Delete { key }),
        Ok(ChangeKind::Clear) => Ok(Changed::Clear),
        Err(_) => {
            Err(StoreError::corrupt(format!("the change at revision {revision} is of an unknown kind")))
        }
    }
}
