//! Ranges from their last key back.

use std::ops::Bound;

use bytes::Bytes;

use crate::engine::RowIter;
use crate::error::StoreError;
use crate::history::PastError;
use crate::layers::{Layers, Resolved, Values};
use crate::reader::{Count, Found, Moment, Page, View};
use crate::rows::{self, TABLE_KEYS};

impl View {
    /// As [`View::range_at`], in descending order. Go on with `Bound::Excluded` of the last key as the end.
    pub fn range_back_at(
        &self,
        revision: u64,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Page, PastError> {
        let walk = self.walk_back(revision, start, end, Values::Wanted)?;
        Ok(Page::gather(walk, limit, bytes_max)?)
    }

    /// As [`View::keys_at`], in descending order.
    pub fn keys_back_at(
        &self,
        revision: u64,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Page, PastError> {
        let walk = self.walk_back(revision, start, end, Values::LeftOut)?;
        Ok(Page::gather(walk, limit, bytes_max)?)
    }

    /// As [`View::count_at`], in descending order.
    pub fn count_back_at(
        &self,
        revision: u64,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Count, PastError> {
        let walk = self.walk_back(revision, start, end, Values::LeftOut)?;
        Ok(Count::of(walk, limit)?)
    }

    fn walk_back(
        &self,
        revision: u64,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        values: Values,
    ) -> Result<WalkBack<'_>, PastError> {
        let moment = self.moment(revision)?;
        let layers = &self.state.layers;
        let (row_start, row_end) = rows::range_of(TABLE_KEYS, start, end);
        let row_start = row_start.as_ref().map(|key| &key[..]);
        let mut engine = layers.engine.scan_back(row_start, row_end.as_ref().map(|key| &key[..]));
        let in_engine = next_key(&mut engine)?;
        let (start, before) = (start.map(Bytes::copy_from_slice), end.map(Bytes::copy_from_slice));
        Ok(WalkBack { layers, moment, values, engine, in_engine, start, before })
    }
}

/// As `Walk`, back.
struct WalkBack<'a> {
    layers: &'a Layers,
    moment: Moment,
    values: Values,
    engine: RowIter,
    /// The engine's next key, not yet passed.
    in_engine: Option<Bytes>,
    start: Bound<Bytes>,
    before: Bound<Bytes>,
}

impl WalkBack<'_> {
    fn next_found(&mut self) -> Result<Option<(Bytes, Resolved)>, StoreError> {
        loop {
            let end = self.before.as_ref().map(|key| &key[..]);
            let in_active = self.layers.active.last_before(end);
            let in_frozen = self.layers.frozen.as_ref().and_then(|frozen| frozen.last_before(end));
            let last = [&in_active, &in_frozen, &self.in_engine].into_iter().flatten().max();
            let Some(key) = last.cloned() else { return Ok(None) };
            let is_over = match &self.start {
                Bound::Included(start) => key < start,
                Bound::Excluded(start) => key <= start,
                Bound::Unbounded => false,
            };
            if is_over {
                return Ok(None);
            }
            if self.in_engine.as_ref() == Some(&key) {
                self.in_engine = next_key(&mut self.engine)?;
            }
            let found = self.layers.at(&key, self.moment.revision, self.values)?;
            self.before = Bound::Excluded(key.clone());
            if let Some(row) = found.filter(|row| row.is_live(self.moment.clear)) {
                return Ok(Some((key, row)));
            }
        }
    }
}

impl Iterator for WalkBack<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        self.next_found().transpose()
    }
}

fn next_key(rows: &mut RowIter) -> Result<Option<Bytes>, StoreError> {
    match rows.next() {
        None => Ok(None),
        Some(Ok((row_key, _))) => Ok(Some(row_key.slice(1..))),
        Some(Err(error)) => Err(error.into()),
    }
}
