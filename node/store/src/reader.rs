//! Reading: published states of the store, from any thread, and no writer is ever waited for.
//!
//! A [`View`] stands still for as long as it is held: it bounds its walk of the overlays by its revision, and holds the
//! engine's snapshot that belongs to them. Holding one for long keeps that overlay and that snapshot in memory.

use std::ops::Bound;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::command::Value;
use crate::engine::{EngineSnapshot, RowIter};
use crate::error::StoreError;
use crate::layers::{self, Layers, Resolved, Values};
use crate::lease_table::Table;
use crate::leases::Leases;
use crate::position::Position;
use crate::rows::{self, KeyRow, TABLE_KEYS};

/// Figures of the store, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes of memory in the overlays, about.
    pub overlay_bytes: u64,
    /// Idempotency keys that are kept.
    pub reply_entries: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Recorded replies over all sessions.
    pub session_replies: u64,
    /// Leases.
    pub leases: u64,
    /// Keys that end with leases.
    pub leased_keys: u64,
    /// Places in the queues of locks, over all locks: held, and waited for.
    pub lock_places: u64,
    /// Keys that are there. A guess between flushes: a plain PUT does not look whether its key was there.
    pub live_keys: u64,
    /// Flushes that ended since the store was opened.
    pub flushes: u64,
    /// The log below may be truncated: the last entry that is durable in the engine.
    pub durable_index: u64,
}

/// A published state.
pub(crate) struct Published {
    pub(crate) layers: Layers,
    pub(crate) position: Position,
    pub(crate) stats: Stats,
    pub(crate) table: Arc<Table>,
}

/// A handle for readers. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(crate) published: Arc<ArcSwap<Published>>,
}

impl Reader {
    /// The newest published state.
    pub fn view(&self) -> View {
        View { state: self.published.load_full() }
    }
}

/// A published state, which stands still.
#[derive(Clone)]
pub struct View {
    pub(crate) state: Arc<Published>,
}

impl View {
    /// A state that the writer has before it is published.
    pub(crate) fn of(layers: Layers, position: Position, leases: &Leases) -> View {
        let table = Arc::clone(&leases.table);
        View { state: Arc::new(Published { layers, position, stats: Stats::default(), table }) }
    }

    /// The store's revision.
    pub fn revision(&self) -> u64 {
        self.state.position.revision
    }

    /// The last entry in this state.
    pub fn applied_index(&self) -> u64 {
        self.state.position.applied_index
    }

    /// The digest at [`View::applied_index`].
    pub fn digest(&self) -> u128 {
        self.state.position.digest
    }

    /// The oldest readable revision; 0: all.
    pub fn compacted_revision(&self) -> u64 {
        self.state.position.compacted
    }

    /// Everything about the state as a whole.
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        self.state.stats
    }

    /// The value of a key; `None`: it is not there.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        let found = self.state.layers.newest(key, self.revision(), Values::Wanted)?;
        Ok(found.filter(|row| row.is_live(self.state.position.last_clear)).map(Resolved::into_value))
    }

    /// Keys from `start` to `end` with their values, in ascending order, at most so many and about so many bytes of keys
    /// and values (one item may go beyond). Go on with `Bound::Excluded` of the last key; a page that is not full is
    /// the last.
    pub fn range(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        Page::gather(self.walk(start, end, Values::Wanted), limit, bytes_max)
    }

    /// As [`View::range`], without values: they are empty, and were not read.
    pub fn keys(
        &self,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        Page::gather(self.walk(start, end, Values::LeftOut), limit, bytes_max)
    }

    fn walk(&self, start: Bound<&[u8]>, end: Bound<&[u8]>, values: Values) -> Walk<'_> {
        let moment = Moment { revision: self.revision(), clear: self.state.position.last_clear };
        Walk::new(&self.state, moment, start, end, values)
    }
}

/// Which keys are there: those whose newest change up to a revision is above the newest clear up to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) revision: u64,
    /// 0: none.
    pub(crate) clear: u64,
}

/// A page of a range.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Keys and values, in ascending order of the keys.
    pub items: Vec<(Bytes, Value)>,
    /// There are more.
    pub more: bool,
}

/// How many keys a range has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// So many were counted.
    pub keys: usize,
    /// The last of them.
    pub last: Option<Bytes>,
    /// There are more.
    pub more: bool,
}

/// A key that is there.
pub(crate) type Found = Result<(Bytes, Resolved), StoreError>;

impl Page {
    /// What is found, at most so many keys and about so many bytes.
    pub(crate) fn gather(
        found: impl Iterator<Item = Found>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        let mut page = Page { items: Vec::new(), more: false };
        let mut bytes = 0;
        for found in found {
            let (key, row) = found?;
            if page.items.len() == limit || bytes >= bytes_max {
                page.more = true;
                break;
            }
            bytes += key.len() + row.value.len();
            page.items.push((key, row.into_value()));
        }
        Ok(page)
    }
}

impl Count {
    /// Of what is found, at most so many.
    pub(crate) fn of(found: impl Iterator<Item = Found>, limit: usize) -> Result<Count, StoreError> {
        let mut count = Count { keys: 0, last: None, more: false };
        for found in found {
            let (key, _) = found?;
            if count.keys == limit {
                count.more = true;
                break;
            }
            count.keys += 1;
            count.last = Some(key);
        }
        Ok(count)
    }
}

/// A walk over the keys that are there at a moment: the layers merged, the upper one of equal keys taken.
pub(crate) struct Walk<'a> {
    state: &'a Published,
    moment: Moment,
    values: Values,
    engine: RowIter,
    /// The engine's next row, not yet passed.
    engine_next: Option<(Bytes, Bytes)>,
    from: Bound<Bytes>,
    end: Bound<Bytes>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        state: &'a Published,
        moment: Moment,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        values: Values,
    ) -> Self {
        let (row_start, row_end) = rows::range_of(TABLE_KEYS, start, end);
        Self {
            state,
            moment,
            values,
            engine: state
                .layers
                .engine
                .scan(row_start.as_ref().map(|key| &key[..]), row_end.as_ref().map(|key| &key[..])),
            engine_next: None,
            from: start.map(Bytes::copy_from_slice),
            end: end.map(Bytes::copy_from_slice),
        }
    }

    /// The next live key.
    fn next_found(&mut self) -> Result<Option<(Bytes, Resolved)>, StoreError> {
        loop {
            let Some((key, row)) = self.next_change()? else { return Ok(None) };
            self.from = Bound::Excluded(key.clone());
            if let Some(row) = row.filter(|row| row.is_live(self.moment.clear)) {
                return Ok(Some((key, row)));
            }
        }
    }

    /// The next key that any layer has, and its newest change; `None` where that is plainly dead.
    fn next_change(&mut self) -> Result<Option<(Bytes, Option<Resolved>)>, StoreError> {
        let layers = &self.state.layers;
        let from = self.from.as_ref().map(|key| &key[..]);
        let Moment { revision, clear } = self.moment;
        while self.engine_next.as_ref().is_none_or(|(key, _)| is_before(&key[1..], &self.from)) {
            self.engine_next = self.engine.next().transpose()?;
            if self.engine_next.is_none() {
                break;
            }
        }
        let active = layers.active.first_from(from, revision).map(|(key, ..)| key);
        let frozen =
            layers.frozen.as_ref().and_then(|frozen| frozen.first_from(from, revision)).map(|(key, ..)| key);
        let engine = self.engine_next.as_ref().map(|(key, _)| key.slice(1..));
        let Some(key) = [&active, &frozen, &engine].into_iter().flatten().min().cloned() else {
            return Ok(None);
        };
        let in_bounds = match &self.end {
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
            Bound::Unbounded => true,
        };
        if !in_bounds {
            return Ok(None);
        }
        if active.as_ref() == Some(&key) || frozen.as_ref() == Some(&key) {
            return Ok(Some((key.clone(), layers.at(&key, revision, self.values)?)));
        }
        let Some((row_key, row)) = self.engine_next.take() else { return Ok(None) };
        let row: KeyRow = rows::decode(&row_key, row)?;
        if row.revision > revision {
            return Ok(Some((key.clone(), layers.at(&key, revision, self.values)?)));
        }
        if !layers::is_live(&row, clear) {
            return Ok(Some((key, None)));
        }
        let row = layers::resolve_engine_row(&*layers.engine, &key, row, self.values)?;
        Ok(Some((key, Some(row))))
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        self.next_found().transpose()
    }
}

/// Whether `key` was passed already.
fn is_before(key: &[u8], from: &Bound<Bytes>) -> bool {
    match from {
        Bound::Included(from) => key < from,
        Bound::Excluded(from) => key <= from,
        Bound::Unbounded => false,
    }
}
