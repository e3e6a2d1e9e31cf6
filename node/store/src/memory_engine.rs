//! A [`StateEngine`] in memory, for the simulator and for tests.
//!
//! It keeps two images: what readers see, and what a disk would hold. [`MemoryEngine::crash`] falls back to the latter,
//! so that ingestion which was not persisted is lost. Images are shared copy on write; an ingestion under a held
//! snapshot copies the map, which is fine for the sizes that simulation has.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::engine::{Change, EngineSnapshot, Replacement, RowIter, StateEngine};
use crate::error::EngineError;

type Image = Arc<BTreeMap<Bytes, Bytes>>;

/// A [`StateEngine`] in memory with a simulated disk. Clones share the same disk.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    images: Arc<Mutex<Images>>,
}

#[derive(Default)]
struct Images {
    /// What readers see.
    visible: Image,
    /// What a crash leaves.
    durable: Image,
    /// Calls of `ingest`, `persist` and `finish` that still succeed before one fails; `None`: all do.
    calls_before_failure: Option<u64>,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses what was not persisted, as a power failure would, and forgets about a failure that was asked for.
    pub fn crash(&self) {
        let mut images = self.lock();
        images.visible = images.durable.clone();
        images.calls_before_failure = None;
    }

    /// Makes a writing call fail after so many that succeed, and all after it, until [`MemoryEngine::crash`].
    pub fn fail_after(&self, calls: u64) {
        self.lock().calls_before_failure = Some(calls);
    }

    fn lock(&self) -> MutexGuard<'_, Images> {
        // A panic under the lock cannot leave an image half written: they are replaced whole.
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Images {
    fn charge(&mut self, call: &'static str) -> Result<(), EngineError> {
        match &mut self.calls_before_failure {
            None => Ok(()),
            Some(0) => Err(EngineError { call, message: "injected failure".into() }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl StateEngine for MemoryEngine {
    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        Arc::new(MemorySnapshot { image: self.lock().visible.clone() })
    }

    fn ingest(&self, rows: &mut dyn Iterator<Item = Change>) -> Result<(), EngineError> {
        // Collected before the lock is taken: the rows may read a snapshot as they come.
        let rows: Vec<Change> = rows.collect();
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            panic!("ingested rows are not in ascending order: {:?} before {:?}", pair[0].0, pair[1].0);
        }
        let mut images = self.lock();
        images.charge("ingest")?;
        let image = Arc::make_mut(&mut images.visible);
        for (key, value) in rows {
            match value {
                Some(value) => image.insert(key, value),
                None => image.remove(&key),
            };
        }
        Ok(())
    }

    fn persist(&self) -> Result<(), EngineError> {
        let mut images = self.lock();
        images.charge("persist")?;
        images.durable = images.visible.clone();
        Ok(())
    }

    fn begin_replace(&self) -> Result<Box<dyn Replacement>, EngineError> {
        Ok(Box::new(MemoryReplacement { engine: self.clone(), staged: BTreeMap::new() }))
    }

    fn size_bytes(&self) -> u64 {
        self.lock().visible.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

struct MemorySnapshot {
    image: Image,
}

impl EngineSnapshot for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.image.get(key).cloned())
    }

    fn scan(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter {
        Box::new(MemoryScan::new(self.image.clone(), start, end, false))
    }

    fn scan_back(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter {
        Box::new(MemoryScan::new(self.image.clone(), start, end, true))
    }
}

/// A scan that owns its image, and therefore looks up each row by the bound that the last one set.
struct MemoryScan {
    image: Image,
    start: Bound<Bytes>,
    end: Bound<Bytes>,
    backwards: bool,
}

impl MemoryScan {
    fn new(image: Image, start: Bound<&[u8]>, end: Bound<&[u8]>, backwards: bool) -> Self {
        Self {
            image,
            start: start.map(Bytes::copy_from_slice),
            end: end.map(Bytes::copy_from_slice),
            backwards,
        }
    }

    /// `BTreeMap::range` panics on bounds that cross; here they are an empty scan.
    fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start >= end,
            _ => false,
        }
    }
}

impl Iterator for MemoryScan {
    type Item = Result<(Bytes, Bytes), EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_empty() {
            return None;
        }
        let mut range = self.image.range::<Bytes, _>((self.start.as_ref(), self.end.as_ref()));
        let (key, value) = if self.backwards { range.next_back()? } else { range.next()? };
        let row = (key.clone(), value.clone());
        if self.backwards {
            self.end = Bound::Excluded(row.0.clone());
        } else {
            self.start = Bound::Excluded(row.0.clone());
        }
        Some(Ok(row))
    }
}

struct MemoryReplacement {
    engine: MemoryEngine,
    staged: BTreeMap<Bytes, Bytes>,
}

impl Replacement for MemoryReplacement {
    fn add(&mut self, rows: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<(), EngineError> {
        self.staged.extend(rows);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), EngineError> {
        let mut images = self.engine.lock();
        images.charge("replace")?;
        images.visible = Arc::new(self.staged);
        images.durable = images.visible.clone();
        Ok(())
    }
}
