//! A [`StateEngine`] in memory, for the simulator and for tests.
//!
//! It keeps two images: what readers see, and what a disk would hold. [`MemoryEngine::crash`] falls back to the latter,
//! so that ingestion which was not persisted is lost. Images are shared copy on write, leaf by leaf, so that neither a
//! held snapshot nor a persisted image makes an ingestion copy more than what it changes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::engine::{Change, EngineSnapshot, Replacement, RowIter, StateEngine};
use crate::error::EngineError;

/// A leaf with more rows than this is split.
const LEAF_ROWS_MAX: usize = 64;

type Leaf = BTreeMap<Bytes, Bytes>;

/// Rows in leaves that images share until one of them writes. Each leaf is named by a key that is not above its first row
/// and above all rows of the leaf before; there is always a leaf for the empty key.
#[derive(Clone)]
struct Image {
    leaves: BTreeMap<Bytes, Arc<Leaf>>,
    /// Keys and values.
    bytes: u64,
}

fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

impl Default for Image {
    fn default() -> Self {
        Image { leaves: BTreeMap::from([(Bytes::new(), Arc::default())]), bytes: 0 }
    }
}

impl Image {
    fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let (_, leaf) = self.leaves.range::<[u8], _>(up_to(key)).next_back()?;
        leaf.get(key)
    }

    fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        let Some((_, leaf)) = self.leaves.range_mut::<[u8], _>(up_to(&key)).next_back() else { return };
        let leaf = Arc::make_mut(leaf);
        let key_bytes = key.len() as u64;
        let before = match value {
            Some(value) => {
                self.bytes += key_bytes + value.len() as u64;
                leaf.insert(key, value)
            }
            None => leaf.remove(&key),
        };
        self.bytes -= before.map_or(0, |before| key_bytes + before.len() as u64);
        if leaf.len() > LEAF_ROWS_MAX
            && let Some(middle) = leaf.keys().nth(LEAF_ROWS_MAX / 2).cloned()
        {
            let upper = leaf.split_off(&middle);
            self.leaves.insert(middle, Arc::new(upper));
        }
    }

    /// Forgets leaves that hold nothing.
    fn trim(&mut self) {
        self.leaves.retain(|name, leaf| name.is_empty() || !leaf.is_empty());
    }

    /// The first row within bounds that do not cross.
    fn first(&self, start: &Bound<Bytes>, end: &Bound<Bytes>) -> Option<(Bytes, Bytes)> {
        let from = match start {
            Bound::Included(key) | Bound::Excluded(key) => key.as_ref(),
            Bound::Unbounded => &[],
        };
        let (name, _) = self.leaves.range::<[u8], _>(up_to(from)).next_back()?;
        let bounds = (start.as_ref(), end.as_ref());
        let mut leaves = self.leaves.range::<Bytes, _>(name..).map(|(_, leaf)| leaf);
        leaves.find_map(|leaf| leaf.range::<Bytes, _>(bounds).next()).map(|(k, v)| (k.clone(), v.clone()))
    }

    /// The last row within bounds that do not cross.
    fn last(&self, start: &Bound<Bytes>, end: &Bound<Bytes>) -> Option<(Bytes, Bytes)> {
        let bounds = (start.as_ref(), end.as_ref());
        let upper = match end {
            Bound::Included(key) | Bound::Excluded(key) => Bound::Included(key),
            Bound::Unbounded => Bound::Unbounded,
        };
        let leaves = self.leaves.range::<Bytes, _>((Bound::Unbounded, upper)).rev().map(|(_, leaf)| leaf);
        for leaf in leaves {
            if let Some((key, value)) = leaf.range::<Bytes, _>(bounds).next_back() {
                return Some((key.clone(), value.clone()));
            }
        }
        None
    }
}

/// A [`StateEngine`] in memory with a simulated disk. Clones share the same disk.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    images: Arc<Mutex<Images>>,
}

#[derive(Default)]
struct Images {
    /// What readers see.
    visible: Arc<Image>,
    /// What a crash leaves.
    durable: Arc<Image>,
    /// Calls of `ingest`, `persist` and `finish` that still succeed before one fails; `None`: all do.
    calls_before_failure: Option<u64>,
    /// There is no room for what is to be written.
    is_full: bool,
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

    /// Lets nothing more be written for want of room, or gives the room back.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Forgets about a failure that was asked for and has not come.
    pub fn heal(&self) {
        self.lock().calls_before_failure = None;
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
            Some(0) => Err(EngineError { call, message: "injected failure".into(), no_room: false }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn take_room(&self, call: &'static str) -> Result<(), EngineError> {
        if self.is_full {
            return Err(EngineError { call, message: "no room is left".into(), no_room: true });
        }
        Ok(())
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
        images.take_room("ingest")?;
        let image = Arc::make_mut(&mut images.visible);
        for (key, value) in rows {
            image.put(key, value);
        }
        image.trim();
        Ok(())
    }

    fn persist(&self) -> Result<(), EngineError> {
        let mut images = self.lock();
        images.charge("persist")?;
        images.durable = images.visible.clone();
        Ok(())
    }

    fn begin_replace(&self) -> Result<Box<dyn Replacement>, EngineError> {
        self.lock().take_room("begin to replace")?;
        Ok(Box::new(MemoryReplacement { engine: self.clone(), staged: BTreeMap::new() }))
    }

    fn size_bytes(&self) -> u64 {
        self.lock().visible.bytes
    }

    /// Without bound: what does not fit is found out by trying ([`MemoryEngine::set_full`]).
    fn free_bytes(&self) -> Result<u64, EngineError> {
        Ok(u64::MAX)
    }
}

struct MemorySnapshot {
    image: Arc<Image>,
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
    image: Arc<Image>,
    start: Bound<Bytes>,
    end: Bound<Bytes>,
    backwards: bool,
}

impl MemoryScan {
    fn new(image: Arc<Image>, start: Bound<&[u8]>, end: Bound<&[u8]>, backwards: bool) -> Self {
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
        let row = match self.backwards {
            true => self.image.last(&self.start, &self.end)?,
            false => self.image.first(&self.start, &self.end)?,
        };
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
        let mut image = Image::default();
        for (key, value) in self.staged {
            image.put(key, Some(value));
        }
        images.visible = Arc::new(image);
        images.durable = images.visible.clone();
        Ok(())
    }
}
