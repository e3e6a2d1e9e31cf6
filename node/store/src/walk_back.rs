//! Ranges from their last key back.

use std::ops::Bound;

use bytes::Bytes;

use crate::history::PastError;
use crate::layers::Resolved;
use crate::reader::{Page, View};
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
        let moment = self.moment(revision)?;
        let layers = &self.state.layers;
        let (row_start, row_end) = rows::range_of(TABLE_KEYS, start, end);
        let row_start = row_start.as_ref().map(|key| &key[..]);
        let mut engine = layers.engine.scan_back(row_start, row_end.as_ref().map(|key| &key[..]));
        let mut in_engine = next_key(&mut engine)?;
        let mut before = end.map(Bytes::copy_from_slice);
        let mut page = Page { items: Vec::new(), more: false };
        let mut bytes = 0;
        loop {
            let end = before.as_ref().map(|key| &key[..]);
            let in_active = layers.active.last_before(end);
            let in_frozen = layers.frozen.as_ref().and_then(|frozen| frozen.last_before(end));
            let Some(key) = [&in_active, &in_frozen, &in_engine].into_iter().flatten().max().cloned() else {
                return Ok(page);
            };
            let is_over = match start {
                Bound::Included(start) => key < start,
                Bound::Excluded(start) => key <= start,
                Bound::Unbounded => false,
            };
            if is_over {
                return Ok(page);
            }
            if in_engine.as_ref() == Some(&key) {
                in_engine = next_key(&mut engine)?;
            }
            let found = layers.at(&key, revision)?.filter(|row| row.is_live(moment.clear));
            before = Bound::Excluded(key.clone());
            if let Some(row) = found {
                if page.items.len() == limit || bytes >= bytes_max {
                    page.more = true;
                    return Ok(page);
                }
                bytes += key.len() + row.value.len();
                page.items.push((key, Resolved::into_value(row)));
            }
        }
    }
}

fn next_key(rows: &mut crate::engine::RowIter) -> Result<Option<Bytes>, PastError> {
    match rows.next() {
        None => Ok(None),
        Some(Ok((row_key, _))) => Ok(Some(row_key.slice(1..))),
        Some(Err(error)) => Err(PastError::Store(error.into())),
    }
}
