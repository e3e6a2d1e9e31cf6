//! Rows of the small tables (replies and sessions) that changed and are not yet flushed.
//!
//! Only the writer and the flush look at them, so a plain map does. A row that was made and dropped within one overlay
//! never reaches the engine.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;

/// What a changed row costs beside its key and value.
const ROW_BYTES: usize = 120;

/// Changed rows by the engine's key.
#[derive(Default)]
pub(crate) struct SideRows {
    rows: HashMap<Bytes, SideRow>,
    bytes: usize,
}

struct SideRow {
    /// `None`: deleted.
    value: Option<Bytes>,
    /// No layer beneath has this key, so that deleting it leaves nothing to delete.
    fresh: bool,
}

impl SideRows {
    /// The row if it changed here: `Some(None)` is a row that was deleted.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.rows.get(key).map(|row| row.value.clone())
    }

    /// Sets a row; `absent_beneath` if the caller knows that the layers beneath do not have it.
    pub(crate) fn put(&mut self, key: Bytes, value: Bytes, absent_beneath: bool) {
        self.bytes += value.len();
        match self.rows.entry(key) {
            Entry::Occupied(mut entry) => {
                let row = entry.get_mut();
                self.bytes -= row.value.as_ref().map_or(0, Bytes::len);
                row.value = Some(value);
            }
            Entry::Vacant(entry) => {
                self.bytes += entry.key().len() + ROW_BYTES;
                entry.insert(SideRow { value: Some(value), fresh: absent_beneath });
            }
        }
    }

    /// Deletes a row.
    pub(crate) fn delete(&mut self, key: Bytes) {
        match self.rows.entry(key) {
            Entry::Occupied(mut entry) => {
                self.bytes -= entry.get().value.as_ref().map_or(0, Bytes::len);
                if entry.get().fresh {
                    self.bytes -= entry.key().len() + ROW_BYTES;
                    entry.remove();
                } else {
                    entry.get_mut().value = None;
                }
            }
            Entry::Vacant(entry) => {
                self.bytes += entry.key().len() + ROW_BYTES;
                entry.insert(SideRow { value: None, fresh: false });
            }
        }
    }

    /// Memory used, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All changed rows, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        self.rows.iter().map(|(key, row)| (key, &row.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_made_and_dropped_leaves_nothing() {
        let mut side = SideRows::default();
        side.put(Bytes::from("new"), Bytes::from("1"), true);
        side.put(Bytes::from("new"), Bytes::from("22"), false);
        assert_eq!(side.get(b"new"), Some(Some(Bytes::from("22"))));
        side.delete(Bytes::from("new"));
        assert_eq!((side.get(b"new"), side.bytes()), (None, 0));

        side.put(Bytes::from("old"), Bytes::from("1"), false);
        side.delete(Bytes::from("old"));
        side.put(Bytes::from("old"), Bytes::from("2"), true);
        side.delete(Bytes::from("old"));
        assert_eq!(side.get(b"old"), Some(None), "a layer beneath may have it");

        side.delete(Bytes::from("older"));
        side.put(Bytes::from("older"), Bytes::from("2"), true);
        side.delete(Bytes::from("older"));
        assert_eq!(side.get(b"older"), Some(None), "a layer beneath has it");
    }
}
