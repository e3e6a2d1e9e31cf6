//! A snapshot of the engine, and with it some rows of keys that were read: to find one in the engine takes several blocks,
//! their checks, and a search in each.
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

/// Memory for the rows of one snapshot, about. There are two at once: those of the one before are freed by the next flush.
const BYTES_MAX: u64 = 6 << 20;
/// What a row takes beside its bytes, about.
const ROW_BYTES: usize = 200;
/// How many rows there is room for at first.
const ROWS_EXPECTED: usize = 1024;

/// The rows of an engine at one moment. What goes through many of them once reads them as from any other snapshot; one that
/// may be wanted again is read with [`HotRows::get_hot`].
pub(crate) struct HotRows {
    engine: Arc<dyn EngineSnapshot>,
    remembered: Remembered,
}

/// Rows by the engine's key; `None`: there is no such row. Many snapshots are never asked, and need no room.
pub(crate) type Remembered = Arc<OnceLock<Cache<Bytes, Option<Bytes>, Weight>>>;

#[derive(Clone)]
pub(crate) struct Weight;

impl Weighter<Bytes, Option<Bytes>> for Weight {
    fn weight(&self, key: &Bytes, row: &Option<Bytes>) -> u64 {
        (ROW_BYTES + key.len() + row.as_ref().map_or(0, Bytes::len)) as u64
    }
}

impl HotRows {
    pub(crate) fn of(engine: Arc<dyn EngineSnapshot>) -> Arc<HotRows> {
        Arc::new(HotRows { engine, remembered: Remembered::default() })
    }

    /// The value of a key, which is remembered: it is likely to be wanted again.
    pub(crate) fn get_hot(&self, key: &Bytes) -> Result<Option<Bytes>, EngineError> {
        let rows = self.remembered.get_or_init(|| Cache::with_weighter(ROWS_EXPECTED, BYTES_MAX, Weight));
        if let Some(row) = rows.get(key) {
            return Ok(row);
        }
        // A copy: what the engine gives may be a part of a block, which would be kept whole.
        let row = self.engine.get(key)?.map(|row| Bytes::copy_from_slice(&row));
        rows.insert(key.clone(), row.clone());
        Ok(row)
    }

    /// The snapshot alone, for who keeps it long.
    pub(crate) fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        Arc::clone(&self.engine)
    }

    /// What is remembered, for who frees it: that takes a while.
    pub(crate) fn remembered(&self) -> Remembered {
        Arc::clone(&self.remembered)
    }
}

impl EngineSnapshot for HotRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.engine.get(key)
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
    use crate::rows::{TABLE_KEYS, row_key};
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
            let first = hot.get_hot(&key).unwrap();
            assert_eq!(first.is_some(), !key.ends_with(b"x"));
            assert_eq!(hot.get_hot(&key).unwrap(), first);
        }
        assert_eq!(engine.0.load(Ordering::Relaxed), 2);
        let once = row_key(TABLE_KEYS, b"b");
        hot.get(&once).unwrap();
        hot.get_hot(&once).unwrap();
        assert_eq!(engine.0.load(Ordering::Relaxed), 4, "what is read once is not kept");
    }

    #[test]
    fn it_keeps_no_more_than_it_may_whatever_is_asked_for() {
        let hot = HotRows::of(Arc::new(Counting::default()));
        for number in 0..3 * BYTES_MAX / 1000 {
            let key = row_key(TABLE_KEYS, number.to_string().as_bytes());
            assert_eq!(hot.get_hot(&key).unwrap().unwrap().len(), key.len() + 1000);
        }
        let kept = hot.remembered.get().unwrap().weight();
        assert!(kept > BYTES_MAX / 2 && kept <= BYTES_MAX, "{kept} bytes");
    }
}
