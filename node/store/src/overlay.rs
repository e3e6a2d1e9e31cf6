//! The overlay: changes that were applied and are not yet flushed, in memory and in order.
//!
//! One writer inserts, any number of readers walk it without a lock. Rows are never changed or removed; a reader bounds
//! its walk by a revision and so sees a state that stands still. The whole overlay is dropped once it is flushed.
//!
//! A plain PUT must not read the engine, so its row may not know what lies beneath ([`Lineage::Under`]); the counters
//! are then worked out by whoever looks, and for good at the flush. An overlay lies on the frozen one if there is one,
//! and on the engine; what is beneath it changes place as flushes end, but not content.
//!
//! Beside the rows by key stands the order of the changes by revision, for who reads history.
//!
//! Values and keys are copied into chunks of the overlay's own, so that a small value does not keep a large network
//! buffer alive and [`Overlay`] bytes are honest.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Bound;

use bytes::{Bytes, BytesMut};
use crossbeam_skiplist::SkipMap;

use crate::store::ClearChange;

/// What a row costs beside its key and value: the node, its tower, its place in the index and in the order.
pub(crate) const ROW_BYTES: usize = 370;

/// Small keys and values are cut from chunks of this size.
const CHUNK_BYTES: usize = 64 << 10;

/// What is this large gets an allocation of its own.
const LARGE_BYTES: usize = 8 << 10;

/// The newest change of each key of an overlay, for the writer alone: a walk of the ordered map costs a cache miss a
/// level, a plain PUT would do two of them. Its order is never used.
pub(crate) type NewestIndex = HashMap<Bytes, Newest>;

/// What a plain PUT has to know of the change before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newest {
    pub(crate) revision: u64,
    pub(crate) deleted: bool,
    pub(crate) lineage: Lineage,
}

/// Changes by key, newest first, and in order of revision.
#[derive(Default)]
pub(crate) struct Overlay {
    rows: SkipMap<OverlayKey, OverlayRow>,
    /// In order of revision; pushed after the row.
    order: boxcar::Vec<Ordered>,
}

/// A change in order of revision.
#[derive(Debug, Clone)]
pub(crate) enum Ordered {
    /// Of a key: the row is under both.
    Key {
        /// Which.
        key: Bytes,
        /// Of the change.
        revision: u64,
    },
    /// Of all keys.
    Clear(ClearChange),
}

impl Ordered {
    /// Of the change.
    pub(crate) fn revision(&self) -> u64 {
        match self {
            Ordered::Key { revision, .. } => *revision,
            Ordered::Clear(clear) => clear.revision,
        }
    }
}

/// A key and the revision of its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverlayKey {
    /// See [`head`].
    head: u128,
    pub(crate) key: Bytes,
    pub(crate) revision: u64,
}

/// A change.
#[derive(Debug, Clone)]
pub(crate) struct OverlayRow {
    /// The key was deleted; else it was set.
    pub(crate) deleted: bool,
    pub(crate) lineage: Lineage,
    /// Revision of the key's change before, dead or not; `None`: not known, beneath.
    pub(crate) previous: Option<u64>,
    pub(crate) content_type: Option<String>,
    pub(crate) value: Bytes,
}

/// `create_revision` and `version`, or what is known of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lineage {
    /// They are known.
    Known { create_revision: u64, version: u64 },
    /// The overlay holds all changes of the key since `first`, which were `delta` PUTs, and what is beneath is not known.
    /// Where the key is there beneath (and not dead by the clear at `floor`) they continue its counters; else the key
    /// was created at `first`.
    Under {
        first: u64,
        delta: u64,
        floor: u64,
        /// This row added one to the count of keys on the guess that the key was not there.
        guessed_new: bool,
    },
}

impl Overlay {
    /// Adds a change. Revisions only grow.
    pub(crate) fn insert(&self, key: Bytes, revision: u64, row: OverlayRow) {
        self.rows.insert(OverlayKey { head: head(&key), key: key.clone(), revision }, row);
        self.order.push(Ordered::Key { key, revision });
    }

    /// Adds a clear. Revisions only grow.
    pub(crate) fn insert_clear(&self, clear: ClearChange) {
        self.order.push(Ordered::Clear(clear));
    }

    /// The changes above `after`, in order of revision. Those that are made meanwhile may be among them.
    pub(crate) fn changes_above(&self, after: u64) -> impl Iterator<Item = &Ordered> + '_ {
        let (mut low, mut high) = (0, self.order.count());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.order.get(middle) {
                Some(change) if change.revision() <= after => low = middle + 1,
                _ => high = middle,
            }
        }
        (low..).map_while(|at| self.order.get(at))
    }

    /// The revision of its first change, if it has any.
    pub(crate) fn first_revision(&self) -> Option<u64> {
        self.order.get(0).map(Ordered::revision)
    }

    /// The clear at a revision, if that is one of this overlay's.
    pub(crate) fn clear_at(&self, revision: u64) -> Option<ClearChange> {
        match self.changes_above(revision.checked_sub(1)?).next()? {
            Ordered::Clear(clear) if clear.revision == revision => Some(*clear),
            _ => None,
        }
    }

    /// The newest change of `key` at or below `revision`.
    pub(crate) fn newest(&self, key: &[u8], revision: u64) -> Option<(u64, OverlayRow)> {
        let probe: &dyn Probe = &Place::new(key, revision);
        let entry = self.rows.lower_bound(Bound::Included(probe))?;
        (entry.key().key == key).then(|| (entry.key().revision, entry.value().clone()))
    }

    /// The first key at or above `start` that has a change at or below `revision`, and that change.
    pub(crate) fn first_from(&self, start: Bound<&[u8]>, revision: u64) -> Option<(Bytes, u64, OverlayRow)> {
        let (start, bound) = match start {
            Bound::Included(key) => (key, u64::MAX),
            Bound::Excluded(key) => (key, 0),
            Bound::Unbounded => (&[][..], u64::MAX),
        };
        let probe: &dyn Probe = &Place::new(start, bound);
        let mut entry = self.rows.lower_bound(Bound::Excluded(probe))?;
        // A change above the bound is passed over; the next entry is an older one of the same key, or another key.
        while entry.key().revision > revision {
            entry = entry.next()?;
        }
        Some((entry.key().key.clone(), entry.key().revision, entry.value().clone()))
    }

    /// All changes, by key, and newest first within a key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (OverlayKey, OverlayRow)> + '_ {
        self.rows.iter().map(|entry| (entry.key().clone(), entry.value().clone()))
    }
}

/// The first bytes of a key, as a number that keeps their order: most comparisons of a walk end there, and need not fetch the
/// key itself.
fn head(key: &[u8]) -> u128 {
    let mut bytes = [0; HEAD_BYTES];
    let count = key.len().min(HEAD_BYTES);
    bytes[..count].copy_from_slice(&key[..count]);
    u128::from_be_bytes(bytes)
}

const HEAD_BYTES: usize = size_of::<u128>();

/// Where a change is in the order: by key, newest first within a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    head: u128,
    key: &'a [u8],
    revision: u64,
}

impl<'a> Place<'a> {
    fn new(key: &'a [u8], revision: u64) -> Place<'a> {
        Place { head: head(key), key, revision }
    }
}

impl Ord for Place<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let keys = || match self.key.len().max(other.key.len()) <= HEAD_BYTES {
            true => self.key.len().cmp(&other.key.len()), // they differ in zeros at the end, if at all
            false => self.key.cmp(other.key),
        };
        self.head.cmp(&other.head).then_with(keys).then_with(|| other.revision.cmp(&self.revision))
    }
}

impl PartialOrd for Place<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl OverlayKey {
    fn place(&self) -> Place<'_> {
        Place { head: self.head, key: &self.key, revision: self.revision }
    }
}

impl Ord for OverlayKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for OverlayKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What has a place, so that a lookup need not own its key.
pub(crate) trait Probe {
    fn place(&self) -> Place<'_>;
}

impl Probe for OverlayKey {
    fn place(&self) -> Place<'_> {
        self.place()
    }
}

impl Probe for Place<'_> {
    fn place(&self) -> Place<'_> {
        *self
    }
}

impl Ord for dyn Probe + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for dyn Probe + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Probe + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for dyn Probe + '_ {}

impl<'a> Borrow<dyn Probe + 'a> for OverlayKey {
    fn borrow(&self) -> &(dyn Probe + 'a) {
        self
    }
}

/// Cuts small byte strings from chunks.
#[derive(Default)]
pub(crate) struct Arena {
    chunk: BytesMut,
}

impl Arena {
    /// A copy of `bytes` that keeps nothing else alive but its neighbours in the overlay.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() >= LARGE_BYTES {
            return Bytes::copy_from_slice(bytes);
        }
        if self.chunk.capacity() < bytes.len() {
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES);
        }
        self.chunk.extend_from_slice(bytes);
        self.chunk.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &'static str) -> OverlayRow {
        OverlayRow {
            deleted: false,
            lineage: Lineage::Known { create_revision: 1, version: 1 },
            previous: Some(0),
            content_type: None,
            value: Bytes::from_static(value.as_bytes()),
        }
    }

    #[test]
    fn a_lookup_finds_the_newest_change_at_or_below_its_revision() {
        let overlay = Overlay::default();
        for (key, revision) in [("a", 1), ("b", 2), ("a", 3), ("ab", 4), ("a", 5)] {
            overlay.insert(Bytes::from_static(key.as_bytes()), revision, put("v"));
        }
        let newest = |key: &str, at| overlay.newest(key.as_bytes(), at).map(|(revision, _)| revision);
        assert_eq!(newest("a", 9), Some(5));
        assert_eq!(newest("a", 4), Some(3));
        assert_eq!(newest("a", 0), None);
        assert_eq!(newest("ab", 3), None);
        assert_eq!(newest("b", u64::MAX), Some(2));
        assert_eq!(newest("c", u64::MAX), None);

        let first = |start, at| overlay.first_from(start, at).map(|(key, revision, _)| (key, revision));
        assert_eq!(first(Bound::Unbounded, 9), Some((Bytes::from("a"), 5)));
        assert_eq!(first(Bound::Included(&b"a"[..]), 3), Some((Bytes::from("a"), 3)));
        assert_eq!(first(Bound::Excluded(&b"a"[..]), 3), Some((Bytes::from("b"), 2)));
        assert_eq!(first(Bound::Excluded(&b"a"[..]), 9), Some((Bytes::from("ab"), 4)));
        assert_eq!(first(Bound::Excluded(&b"b"[..]), 9), None);
    }

    #[test]
    fn places_are_in_the_order_of_their_keys_and_newest_first() {
        let keys: [&[u8]; 12] = [
            b"",
            b"\0",
            b"a",
            b"a\0",
            b"a\0\0",
            b"a123456789abcde",
            b"a123456789abcde\0",
            b"a123456789abcde\0\0",
            b"a123456789abcdef",
            b"a123456789abcdef\0",
            b"a123456789abcdefg",
            b"b",
        ];
        let all = || keys.iter().flat_map(|key| [2, 1].map(|revision| (*key, revision)));
        assert!(keys.is_sorted());
        for (at, one) in all().enumerate() {
            for (other_at, other) in all().enumerate() {
                let (place, other_place) = (Place::new(one.0, one.1), Place::new(other.0, other.1));
                assert_eq!(place.cmp(&other_place), at.cmp(&other_at), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn an_arena_gives_back_what_went_in() {
        let mut arena = Arena::default();
        let texts: Vec<Vec<u8>> = (0..2000usize).map(|n| vec![n as u8; n * 7 % 9000]).collect();
        let copies: Vec<Bytes> = texts.iter().map(|text| arena.copy(text)).collect();
        assert!(copies.iter().zip(&texts).all(|(copy, text)| copy == text));
    }
}
