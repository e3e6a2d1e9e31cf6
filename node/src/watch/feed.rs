//! The writer of the ring: follows the store's published states and makes their changes ready.

use super::event::{Event, What};
use super::filter::{Interests, Wanted};
use super::ring::{Batch, Item, Ring};
use balsa_store::{Change, Changed, PastError, View};
use std::collections::VecDeque;
use std::sync::Arc;

/// Changes of a batch, at most (its last revision is finished).
const ROWS_MAX: usize = 1_000;
/// Bytes of the changes of a batch, at most (likewise).
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Memory of a batch, at most, with what was there before (its last event is finished).
const BATCH_MEMORY_MAX: usize = 4 << 20;
/// Memory of the ring, at most, about: what is older goes.
const RING_BYTES_MAX: usize = 16 << 20;

/// What a look at the store gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fed {
    /// It has nothing new.
    Nothing,
    /// Changes that nobody wants: no watcher need wake for them.
    Quiet,
    /// Something that watchers must look at.
    News,
}

/// Follows the store.
#[derive(Debug, Default)]
pub struct Feed {
    /// The newest batch.
    seq: u64,
    /// All up to here is in the ring, or is older than it.
    through: u64,
    /// Number and memory of what is in the ring, oldest first.
    held: VecDeque<(u64, usize)>,
    held_bytes: usize,
}

impl Feed {
    /// The newest batch, and up to where it reaches.
    pub fn head(&self) -> (u64, u64) {
        (self.seq, self.through)
    }

    /// Begins at a state: what is older comes from history.
    pub fn restart(&mut self, view: &View) {
        self.through = view.revision();
    }

    /// Puts the next batch of changes into the ring. Those that nobody wants take one place together: a watcher that sleeps
    /// over them finds what comes behind.
    pub fn follow(&mut self, ring: &Ring, view: &View, interests: &Interests) -> Result<Fed, PastError> {
        if view.revision() <= self.through {
            return Ok(Fed::Nothing);
        }
        let wanted = |key: &[u8]| interests.wanted(key) > Wanted::No;
        let changes = match view.changes(self.through, wanted, ROWS_MAX, BATCH_BYTES_MAX) {
            // The store has leapt, as by a snapshot: whoever misses something turns to history, and is told there.
            Err(PastError::Compacted { .. }) => {
                self.restart(view);
                return Ok(Fed::News);
            }
            changes => changes?,
        };
        let (after, generation) = (self.through, interests.generation());
        self.through = changes.through;
        let mut bytes = 0;
        let mut items: Vec<Item> = Vec::with_capacity(changes.items.len());
        for Change { revision, what } in changes.items {
            match items.last() {
                Some(Item::Large(large)) if *large == revision => continue,
                Some(last) if bytes > BATCH_MEMORY_MAX && last.revision() < revision => {
                    self.through = revision - 1;
                    break;
                }
                _ => {}
            }
            let (key, what) = match what {
                Changed::Put { key, value } => (key, What::Put(value)),
                Changed::Delete { key } => (key, What::Delete),
                Changed::Clear => {
                    items.push(Item::Clear(revision));
                    continue;
                }
            };
            let prev = match interests.wanted(&key) {
                Wanted::WithPrev => Some(view.get_at(&key, revision - 1)?),
                _ => None,
            };
            let event = Event::new(revision, key, what, prev);
            bytes += event.bytes();
            items.push(Item::Event(Arc::new(event)));
            let first = items.partition_point(|item| item.revision() < revision);
            if bytes > BATCH_MEMORY_MAX && items.len() - first > 1 {
                bytes -= items.drain(first..).map(|item| item.bytes()).sum::<usize>();
                items.push(Item::Large(revision));
            }
        }
        let fed = if items.is_empty() { Fed::Quiet } else { Fed::News };
        let goes_on = |last: &Arc<Batch>| {
            last.items.is_empty() && last.through == after && last.generation == generation
        };
        if fed == Fed::Quiet
            && let Some(last) = ring.get(self.seq).filter(goes_on)
        {
            ring.put(Batch { seq: self.seq, after: last.after, through: self.through, generation, items });
            return Ok(fed);
        }
        self.seq += 1;
        ring.put(Batch { seq: self.seq, after, through: self.through, generation, items });
        self.hold(ring, bytes);
        Ok(fed)
    }

    /// Bounds the ring.
    fn hold(&mut self, ring: &Ring, bytes: usize) {
        self.held.push_back((self.seq, bytes));
        self.held_bytes += bytes;
        while self.held_bytes > RING_BYTES_MAX && self.held.len() > 1 {
            if let Some((seq, bytes)) = self.held.pop_front() {
                self.held_bytes -= bytes;
                if ring.get(seq).is_some() {
                    ring.drop_one(seq);
                }
            }
        }
        // Those that newer ones have taken the place of.
        while self.held.front().is_some_and(|(seq, _)| ring.get(*seq).is_none()) {
            if let Some((_, bytes)) = self.held.pop_front() {
                self.held_bytes -= bytes;
            }
        }
    }
}
