//! Ranges from their last key back.

use std::ops::Bound;

use bytes::Bytes;

use crate::engine::{EngineSnapshot, RowIter};
use crate::error::StoreError;
use crate::layers::{Layers, Resolved, Values};
use crate::reader::{Found, Moment};
use crate::rows::{self, TABLE_KEYS};

/// As `Walk`, back.
pub(crate) struct WalkBack<'a> {
    layers: &'a Layers,
    moment: Moment,
    values: Values,
    engine: RowIter,
    /// The engine's next key, not yet passed.
    in_engine: Option<Bytes>,
    start: Bound<Bytes>,
    before: Bound<Bytes>,
}

impl<'a> WalkBack<'a> {
    pub(crate) fn new(
        layers: &'a Layers,
        moment: Moment,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
        values: Values,
    ) -> Result<Self, StoreError> {
        let (row_start, row_end) = rows::range_of(TABLE_KEYS, start, end);
        let row_start = row_start.as_ref().map(|key| &key[..]);
        let mut engine = layers.engine.scan_back(row_start, row_end.as_ref().map(|key| &key[..]));
        let in_engine = next_key(&mut engine)?;
        let (start, before) = (start.map(Bytes::copy_from_slice), end.map(Bytes::copy_from_slice));
        Ok(WalkBack { layers, moment, values, engine, in_engine, start, before })
    }

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
