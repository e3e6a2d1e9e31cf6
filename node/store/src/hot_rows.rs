//! A snapshot of the engine that remembers the rows of keys that are read again and again: to find one in the engine takes
//! several blocks, their checks, and a search in each.
//!
//! What is remembered is of this one snapshot, which never changes, and goes with it: nothing ever has to be taken out, and
//! nothing can be out of date. The next flush brings another snapshot, which begins with nothing.

use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::engine::{EngineSnapshot, RowIter};
use crate::error::EngineError;
use crate::rows::TABLE_KEYS;

/// Memory for the rows of one snapshot. Seldom are there two at once.
const BYTES_MAX: u64 = 8 << 20;
/// What a row takes beside its bytes, about.
const ROW_BYTES: usize = 128;
/// How many rows there is room for at first.
const ROWS_EXPECTED: usize = 1024;

/// The rows of an engine at one moment, some of them in memory.
pub(crate) struct HotRows {
    engine: Arc<dyn EngineSnapshot>,
    /// By the engine's key; `None`: there is no such row. Many snapshots are never asked, and need no room.
    rows: OnceLock<Cache<Bytes, Option<Bytes>, Weight>>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Bytes, Option<Bytes>> for Weight {
    fn weight(&self, key: &Bytes, row: &Option<Bytes>) -> u64 {
        (ROW_BYTES + key.len() + row.as_ref().map_or(0, Bytes::len)) as u64
    }
}

impl HotRows {
    pub(crate) fn of(engine: Arc<dyn EngineSnapshot>) -> Arc<HotRows> {
        Arc::new(HotRows { engine, rows: OnceLock::new() })
    }

    /// The rows without those in memory, for what goes through many once.
    pub(crate) fn all(&self) -> Arc<dyn EngineSnapshot> {
        Arc::clone(&self.engine)
    }
}

impl EngineSnapshot for HotRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if key.first() != Some(&TABLE_KEYS) {
            return self.engine.get(key);
        }
        let rows = self.rows.get_or_init(|| Cache::with_weighter(ROWS_EXPECTED, BYTES_MAX, Weight));
        if let Some(row) = rows.get(key) {
            return Ok(row);
        }
        // A copy: what the engine gives may be a part of a block, which would be kept whole.
        let row = self.engine.get(key)?.map(|row| Bytes::copy_from_slice(&row));
        rows.insert(Bytes::copy_from_slice(key), row.clone());
        Ok(row)
    }

    fn scan(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter {
        self.engine.scan(start, end)
    }

    fn scan_back(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter {
        self.engine.scan_back(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{TABLE_HISTORY, row_key};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Has a row for each key but those that end in `x`, and counts how often it is asked.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl EngineSnapshot for Counting {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok((key.last() != Some(&b'x')).then(|| Bytes::from([key, &[0; 1000]].concat())))
        }

        fn scan(&self, _: Bound<&[u8]>, _: Bound<&[u8]>) -> RowIter {
            Box::new(std::iter::empty())
        }

        fn scan_back(&self, _: Bound<&[u8]>, _: Bound<&[u8]>) -> RowIter {
            Box::new(std::iter::empty())
        }
    }

    #[test]
    fn the_engine_is_asked_once_for_a_key_that_is_there_and_for_one_that_is_not() {
        let engine = Arc::new(Counting::default());
        let hot = HotRows::of(engine.clone());
        for key in ["a", "x"] {
            let key = row_key(TABLE_KEYS, key.as_bytes());
            let first = hot.get(&key).unwrap();
            assert_eq!(first.is_some(), !key.ends_with(b"x"));
            assert_eq!(hot.get(&key).unwrap(), first);
        }
        assert_eq!(engine.0.load(Ordering::Relaxed), 2);
        let change = row_key(TABLE_HISTORY, b"1");
        hot.get(&change).unwrap();
        hot.get(&change).unwrap();
        assert_eq!(engine.0.load(Ordering::Relaxed), 4, "other rows are not kept");
    }

    #[test]
    fn it_keeps_no_more_than_it_may_whatever_is_asked_for() {
        let hot = HotRows::of(Arc::new(Counting::default()));
        for number in 0..3 * BYTES_MAX / 1000 {
            let key = row_key(TABLE_KEYS, number.to_string().as_bytes());
            assert_eq!(hot.get(&key).unwrap().unwrap().len(), key.len() + 1000);
        }
        let kept = hot.rows.get().unwrap().weight();
        assert!(kept > BYTES_MAX / 2 && kept <= BYTES_MAX, "{kept} bytes");
    }
}
