//! The newest changes, made ready once for all watchers: a ring of batches, written by one thread, read by all.
//!
//! A batch is known by its number; one without changes may come to reach further. A reader that comes too late finds another in its place, or none, and turns to
//! history; it never waits, and never keeps a writer.

use super::event::Event;
use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// Batches that the ring holds at most.
const BATCHES_MAX: usize = 256;

/// Changes that were made ready together.
#[derive(Debug)]
pub struct Batch {
    /// Its number; they rise by one.
    pub seq: u64,
    /// It holds all that is wanted of the revisions above this,
    pub after: u64,
    /// up to this.
    pub through: u64,
    /// What was wanted: see [`Interests::generation`](super::Interests::generation).
    pub generation: u64,
    /// The changes, in order.
    pub items: Vec<Item>,
}

/// A change in a batch.
#[derive(Debug)]
pub enum Item {
    /// Of a key.
    Event(Arc<Event>),
    /// All keys were deleted, at this revision: which ones there were, history knows.
    Clear(u64),
    /// So much was there before in what changed at this revision that history has to be asked for it, piece by piece.
    Large(u64),
}

impl Item {
    /// Of the change.
    pub fn revision(&self) -> u64 {
        match self {
            Item::Event(event) => event.revision,
            Item::Clear(revision) | Item::Large(revision) => *revision,
        }
    }

    /// Memory, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Item::Event(event) => event.bytes(),
            Item::Clear(_) | Item::Large(_) => 0,
        }
    }
}

/// The ring.
#[derive(Debug)]
pub struct Ring {
    slots: Box<[ArcSwapOption<Batch>]>,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring::new(BATCHES_MAX)
    }
}

impl Ring {
    /// A ring for so many batches.
    pub fn new(batches: usize) -> Ring {
        Ring { slots: (0..batches).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// The batch of this number, if it is still there.
    pub fn get(&self, seq: u64) -> Option<Arc<Batch>> {
        self.slot(seq).load_full().filter(|batch| batch.seq == seq)
    }

    /// The number of the batch that goes on behind `after`, when the newest is `newest`; `None`: it is not there.
    pub fn seek(&self, newest: u64, after: u64) -> Option<u64> {
        let oldest = newest.saturating_sub(self.slots.len() as u64 - 1);
        for seq in (oldest..=newest).rev() {
            let batch = self.get(seq)?;
            if batch.after <= after {
                return (after < batch.through).then_some(seq);
            }
        }
        None
    }

    pub(super) fn put(&self, batch: Batch) {
        self.slot(batch.seq).store(Some(Arc::new(batch)));
    }

    pub(super) fn drop_one(&self, seq: u64) {
        self.slot(seq).store(None);
    }

    fn slot(&self, seq: u64) -> &ArcSwapOption<Batch> {
        &self.slots[seq as usize % self.slots.len()]
    }
}
