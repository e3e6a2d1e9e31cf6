//! Leases, the keys that end with them, and the queues of locks: what ends by itself.
//!
//! All of it is in memory, bounded by `StoreConfig`, and in rows of the small tables. The tables that readers may look at
//! ([`Table`]) are ordered maps that one writer changes while others walk them: who reads sees what is applied, perhaps a
//! little more than the published state. Nothing here changes a key: what a lease's end does to keys is gathered for the
//! caller, who writes it ([`crate::batch`]).
//!
//! Invariants: `order` holds each lease and each place that waits, once, under the time when it is due; a key is attached to
//! one lease at most, and `lease_of` is `table.keys` the other way round; of a lock's places the first one, and no other, is
//! held. An attachment at or below the last clear is void: the key was deleted, and nobody was asked.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use prost::Message;

use crate::command::{AcquireLock, Limit};
use crate::engine::EngineSnapshot;
use crate::error::StoreError;
use crate::reader::View;
use crate::replies::SideLayers;
use crate::rows::{self, TABLE_LEASE_KEYS, TABLE_LEASES, TABLE_LOCKS};

/// Limits, as in `StoreConfig`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseLimits {
    pub(crate) leases: usize,
    pub(crate) keys: usize,
    pub(crate) places: usize,
}

/// What a lease is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum LeaseKind {
    /// It was asked for.
    Granted = 0,
    /// For one key, which came with a time to live.
    OfKey = 1,
    /// For one lock.
    OfLock = 2,
}

/// A lease.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Lease {
    /// How long it lasts without a sign of life, in milliseconds of cluster time.
    #[prost(uint64, tag = "1")]
    pub(crate) ttl_ms: u64,
    /// When it is due, in milliseconds of cluster time.
    #[prost(uint64, tag = "2")]
    pub(crate) deadline_ms: u64,
    #[prost(enumeration = "LeaseKind", tag = "3")]
    pub(crate) kind: i32,
    /// It has ended, and has keys left that are still to be deleted.
    #[prost(bool, tag = "4")]
    pub(crate) ended: bool,
}

/// A place in a lock's queue.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Place {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) name: Bytes,
    #[prost(uint64, tag = "2")]
    pub(crate) lease: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) ttl_ms: u64,
    /// It leaves the queue then, in milliseconds of cluster time.
    #[prost(uint64, tag = "4")]
    pub(crate) wait_until_ms: u64,
    /// The key that shows it while it is held; empty: none.
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) value: Bytes,
    #[prost(bool, tag = "7")]
    pub(crate) held: bool,
}

impl Place {
    pub(crate) fn asked(asked: &AcquireLock, token: u64, now_ms: u64) -> Place {
        Place {
            name: asked.name.clone(),
            lease: if asked.lease == 0 { token } else { asked.lease },
            ttl_ms: asked.ttl_ms,
            wait_until_ms: now_ms.saturating_add(asked.wait_ms),
            key: asked.key.clone(),
            value: asked.value.clone(),
            held: false,
        }
    }

    /// Its lease is its own.
    pub(crate) fn owns_lease(&self, token: u64) -> bool {
        self.lease == token
    }
}

/// What readers may look at.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) leases: SkipMap<u64, Lease>,
    /// By lease and key: the revision at which it was attached.
    pub(crate) keys: SkipMap<(u64, Bytes), u64>,
    /// By name and token: in order of their queues.
    pub(crate) places: SkipMap<(Bytes, u64), Place>,
}

impl Table {
    /// The keys of a lease, those whose attachment is void left out.
    pub(crate) fn keys_of(&self, lease: u64, last_clear: u64) -> impl Iterator<Item = Bytes> + '_ {
        let of_lease =
            self.keys.range((lease, Bytes::new())..).take_while(move |entry| entry.key().0 == lease);
        of_lease.filter(move |entry| *entry.value() > last_clear).map(|entry| entry.key().1.clone())
    }

    /// The queue of a lock.
    pub(crate) fn queue<'a>(&'a self, name: &Bytes) -> impl Iterator<Item = (u64, Place)> + use<'a> {
        let (start, name) = ((name.clone(), 0), name.clone());
        let of_lock = self.places.range(start..).take_while(move |entry| entry.key().0 == name);
        of_lock.map(|entry| (entry.key().1, entry.value().clone()))
    }
}

/// What is due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A lease, by its number.
    Lease(u64),
    /// A place that waits, by its token.
    Wait(u64),
}

/// Leases and locks, as their one writer has them.
pub(crate) struct Leases {
    limits: LeaseLimits,
    pub(crate) table: Arc<Table>,
    lease_of: HashMap<Bytes, u64>,
    order: BTreeSet<(u64, Due)>,
    tokens_of: BTreeSet<(u64, u64)>,
    lock_of: HashMap<u64, Bytes>,
}

impl Leases {
    /// Reads all of it from the engine.
    pub(crate) fn open(engine: &dyn EngineSnapshot, limits: LeaseLimits) -> Result<Self, StoreError> {
        let mut open = Leases {
            limits,
            table: Arc::default(),
            lease_of: HashMap::new(),
            order: BTreeSet::new(),
            tokens_of: BTreeSet::new(),
            lock_of: HashMap::new(),
        };
        for row in rows_of(engine, TABLE_LEASES) {
            let (row_key, row) = row?;
            let number = rows::read_number(&row_key[1..])?;
            let lease: Lease = rows::decode(&row_key, row)?;
            open.order.insert((lease.deadline_ms, Due::Lease(number)));
            open.table.leases.insert(number, lease);
        }
        for row in rows_of(engine, TABLE_LEASE_KEYS) {
            let (row_key, row) = row?;
            let (lease, key) = (rows::read_number(&row_key[1..])?, row_key.slice(9..));
            open.table.keys.insert((lease, key.clone()), rows::read_number(&row)?);
            open.lease_of.insert(key, lease);
        }
        for row in rows_of(engine, TABLE_LOCKS) {
            let (row_key, row) = row?;
            let token = rows::read_number(&row_key[1..])?;
            open.note_place(token, rows::decode(&row_key, row)?);
        }
        Ok(open)
    }

    fn note_place(&mut self, token: u64, place: Place) {
        self.tokens_of.insert((place.lease, token));
        self.lock_of.insert(token, place.name.clone());
        if !place.held {
            self.order.insert((place.wait_until_ms, Due::Wait(token)));
        }
        self.table.places.insert((place.name.clone(), token), place);
    }

    /// Leases; of them, keys; places in queues.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.table.leases.len(), self.lease_of.len(), self.lock_of.len())
    }

    /// When the next thing is due, in milliseconds of cluster time.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.order.first().map(|(due_ms, _)| *due_ms)
    }

    /// What is due first, if that is by now.
    pub(crate) fn first_due(&self, now_ms: u64) -> Option<Due> {
        self.order.first().filter(|(due_ms, _)| *due_ms <= now_ms).map(|(_, due)| *due)
    }

    /// A lease that has not ended.
    pub(crate) fn living(&self, number: u64) -> Option<Lease> {
        self.table.leases.get(&number).map(|entry| entry.value().clone()).filter(|lease| !lease.ended)
    }

    /// A lease that keys and locks may be given: not one that a key has of its own, and that goes with it.
    pub(crate) fn usable(&self, number: u64) -> Option<Lease> {
        self.living(number).filter(|lease| lease.kind != LeaseKind::OfKey as i32)
    }

    /// Whether another lease, or another key of one, is within bounds.
    pub(crate) fn room_for_lease(&self) -> Result<(), Limit> {
        if self.table.leases.len() < self.limits.leases { Ok(()) } else { Err(Limit::Leases) }
    }

    /// Whether so many keys more are within bounds.
    pub(crate) fn room_for_keys(&self, keys: usize) -> Result<(), Limit> {
        if self.lease_of.len() + keys <= self.limits.keys { Ok(()) } else { Err(Limit::LeasedKeys) }
    }

    /// Whether another place is within bounds.
    pub(crate) fn room_for_place(&self) -> Result<(), Limit> {
        if self.lock_of.len() < self.limits.places { Ok(()) } else { Err(Limit::Locks) }
    }

    /// Begins a lease under a number that was never used.
    pub(crate) fn grant(
        &mut self,
        side: &mut SideLayers<'_>,
        now_ms: u64,
        number: u64,
        ttl_ms: u64,
        kind: LeaseKind,
    ) {
        let deadline_ms = now_ms.saturating_add(ttl_ms);
        self.put_lease(side, number, Lease { ttl_ms, deadline_ms, kind: kind as i32, ended: false }, true);
    }

    /// A sign of life; gives how long it lasts.
    pub(crate) fn keep(&mut self, side: &mut SideLayers<'_>, now_ms: u64, number: u64) -> Option<u64> {
        let lease = self.living(number)?;
        let ttl_ms = lease.ttl_ms;
        self.order.remove(&(lease.deadline_ms, Due::Lease(number)));
        self.put_lease(side, number, Lease { deadline_ms: now_ms.saturating_add(ttl_ms), ..lease }, false);
        Some(ttl_ms)
    }

    /// All that live last their whole time from now.
    pub(crate) fn renew_all(&mut self, side: &mut SideLayers<'_>, now_ms: u64) {
        let living: Vec<u64> = self.table.leases.iter().map(|entry| *entry.key()).collect();
        for number in living {
            self.keep(side, now_ms, number);
        }
    }

    /// It has ended, but for what is left of its keys: those are due at once.
    pub(crate) fn become_ended(&mut self, side: &mut SideLayers<'_>, number: u64) {
        let Some(lease) = self.table.leases.get(&number).map(|entry| entry.value().clone()) else { return };
        self.order.remove(&(lease.deadline_ms, Due::Lease(number)));
        self.put_lease(side, number, Lease { deadline_ms: 0, ended: true, ..lease }, false);
    }

    fn put_lease(&mut self, side: &mut SideLayers<'_>, number: u64, lease: Lease, is_new: bool) {
        side.put(rows::number_key(TABLE_LEASES, number), lease.encode_to_vec(), is_new);
        self.order.insert((lease.deadline_ms, Due::Lease(number)));
        self.table.leases.insert(number, lease);
    }

    /// Drops a lease that has no keys any more.
    pub(crate) fn drop_lease(&mut self, side: &mut SideLayers<'_>, number: u64) {
        if let Some(entry) = self.table.leases.remove(&number) {
            self.order.remove(&(entry.value().deadline_ms, Due::Lease(number)));
            side.delete(rows::number_key(TABLE_LEASES, number));
        }
    }

    /// The lease that a key ends with, unless the attachment is void.
    pub(crate) fn lease_of(&self, key: &Bytes, last_clear: u64) -> Option<u64> {
        let lease = *self.lease_of.get(key)?;
        let attached = self.table.keys.get(&(lease, key.clone()))?;
        (*attached.value() > last_clear).then_some(lease)
    }

    /// Keys and their attachments, void ones included.
    pub(crate) fn attached(&self, lease: u64, at_most: usize) -> Vec<(Bytes, u64)> {
        let of_lease = self.table.keys.range((lease, Bytes::new())..);
        let of_lease = of_lease.take_while(|entry| entry.key().0 == lease).take(at_most);
        of_lease.map(|entry| (entry.key().1.clone(), *entry.value())).collect()
    }

    /// No key ends with any lease.
    pub(crate) fn has_no_keys(&self) -> bool {
        self.lease_of.is_empty()
    }

    /// A key was set, to end with this lease (0: with none), or was deleted.
    pub(crate) fn note_change(
        &mut self,
        side: &mut SideLayers<'_>,
        key: &Bytes,
        lease: u64,
        revision: u64,
        last_clear: u64,
    ) {
        if self.lease_of.get(key).is_some_and(|old| *old != lease) {
            self.detach(side, key, last_clear);
        }
        if lease != 0 {
            self.attach(side, key, lease, revision);
        }
    }

    fn attach(&mut self, side: &mut SideLayers<'_>, key: &Bytes, lease: u64, revision: u64) {
        let row_key = rows::row_key(TABLE_LEASE_KEYS, &rows::lease_key(lease, key));
        // The row may be beneath: the key had this lease before.
        side.put(row_key, revision.to_be_bytes().to_vec(), false);
        // A copy of its own: that of the overlay would keep its neighbours alive.
        let key = Bytes::copy_from_slice(key);
        self.table.keys.insert((lease, key.clone()), revision);
        self.lease_of.insert(key, lease);
    }

    /// A key was set or deleted, or is no key of its lease any more. A lease that was there for this key alone goes, too.
    pub(crate) fn detach(&mut self, side: &mut SideLayers<'_>, key: &Bytes, last_clear: u64) {
        let Some(lease) = self.lease_of.remove(key) else { return };
        side.delete(rows::row_key(TABLE_LEASE_KEYS, &rows::lease_key(lease, key)));
        let attached = self.table.keys.remove(&(lease, key.clone()));
        let was_valid = attached.is_some_and(|entry| *entry.value() > last_clear);
        let of_key = self.living(lease).is_some_and(|lease| lease.kind == LeaseKind::OfKey as i32);
        let is_last =
            self.table.keys_of(lease, last_clear).next().is_none() && self.tokens_of(lease).is_empty();
        if was_valid && of_key && is_last {
            // Void attachments to it, if there are any, go with their keys' next change or never matter.
            for (void, _) in self.attached(lease, usize::MAX) {
                self.lease_of.remove(&void);
                self.table.keys.remove(&(lease, void.clone()));
                side.delete(rows::row_key(TABLE_LEASE_KEYS, &rows::lease_key(lease, &void)));
            }
            self.drop_lease(side, lease);
        }
    }

    /// The tokens of places that end with a lease.
    pub(crate) fn tokens_of(&self, lease: u64) -> Vec<u64> {
        self.tokens_of.range((lease, 0)..=(lease, u64::MAX)).map(|(_, token)| *token).collect()
    }

    /// Whether a place is the first of its queue.
    pub(crate) fn is_held(&self, token: u64) -> bool {
        let place = self.lock_of(token).and_then(|name| self.table.places.get(&(name, token)));
        place.is_some_and(|place| place.value().held)
    }

    /// The lock that a token is of.
    pub(crate) fn lock_of(&self, token: u64) -> Option<Bytes> {
        self.lock_of.get(&token).cloned()
    }

    /// Adds a place to a queue, at its end: tokens only grow.
    pub(crate) fn add_place(&mut self, side: &mut SideLayers<'_>, token: u64, place: Place) {
        side.put(rows::number_key(TABLE_LOCKS, token), place.encode_to_vec(), true);
        self.note_place(token, place);
    }

    /// The place has become the first.
    pub(crate) fn hold(&mut self, side: &mut SideLayers<'_>, token: u64, place: Place) {
        self.order.remove(&(place.wait_until_ms, Due::Wait(token)));
        let place = Place { held: true, ..place };
        side.put(rows::number_key(TABLE_LOCKS, token), place.encode_to_vec(), false);
        self.table.places.insert((place.name.clone(), token), place);
    }

    /// Removes a place from its queue.
    pub(crate) fn remove_place(&mut self, side: &mut SideLayers<'_>, token: u64) -> Option<Place> {
        let name = self.lock_of.remove(&token)?;
        let place = self.table.places.remove(&(name, token))?.value().clone();
        self.tokens_of.remove(&(place.lease, token));
        if !place.held {
            self.order.remove(&(place.wait_until_ms, Due::Wait(token)));
        }
        side.delete(rows::number_key(TABLE_LOCKS, token));
        Some(place)
    }

    /// Who holds a lock.
    pub(crate) fn holder(&self, name: &Bytes) -> Option<(u64, Place)> {
        self.table.queue(name).next()
    }
}

fn rows_of(engine: &dyn EngineSnapshot, table: u8) -> crate::engine::RowIter {
    engine.scan(Bound::Included(&[table]), Bound::Excluded(&[table + 1]))
}

/// A lease, as readers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its number.
    pub number: u64,
    /// How long it lasts without a sign of life, in milliseconds of cluster time.
    pub ttl_ms: u64,
    /// When it is due, in milliseconds of cluster time.
    pub deadline_ms: u64,
    /// What it is there for.
    pub kind: LeaseKind,
}

/// A place in a lock's queue, as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockInfo {
    /// Its token.
    pub token: u64,
    /// The lease that it ends with.
    pub lease: u64,
    /// Of that lease, in milliseconds of cluster time.
    pub ttl_ms: u64,
    /// The key that shows it, and its value; empty: none.
    pub shown: (Bytes, Bytes),
}

impl View {
    /// A lease that has not ended. As all that is said of leases and locks: as it is applied, perhaps a little newer than
    /// the rest of the view.
    pub fn lease(&self, number: u64) -> Option<LeaseInfo> {
        let entry = self.state.table.leases.get(&number)?;
        Some(info(number, entry.value())).filter(|_| !entry.value().ended)
    }

    /// Leases above a number, in order, at most so many.
    pub fn leases_above(&self, number: u64, at_most: usize) -> Vec<LeaseInfo> {
        let all = self.state.table.leases.range((Bound::Excluded(number), Bound::Unbounded));
        let living = all.filter(|entry| !entry.value().ended);
        living.take(at_most).map(|entry| info(*entry.key(), entry.value())).collect()
    }

    /// The keys that end with a lease, in order, at most so many.
    pub fn keys_of_lease(&self, number: u64, at_most: usize) -> Vec<Bytes> {
        self.state.table.keys_of(number, self.state.position.last_clear).take(at_most).collect()
    }

    /// The queue of a lock; the first place is held.
    pub fn lock(&self, name: &[u8]) -> impl Iterator<Item = LockInfo> + '_ {
        let queue = self.state.table.queue(&Bytes::copy_from_slice(name));
        queue.map(|(token, place)| LockInfo {
            token,
            lease: place.lease,
            ttl_ms: place.ttl_ms,
            shown: (place.key, place.value),
        })
    }

    /// Locks whose names are above one, in order, with their holders' tokens, at most so many.
    pub fn locks_above(&self, name: &[u8], at_most: usize) -> Vec<(Bytes, u64)> {
        let mut locks: Vec<(Bytes, u64)> = Vec::new();
        let above = (Bytes::copy_from_slice(name), u64::MAX);
        for entry in self.state.table.places.range((Bound::Excluded(above), Bound::Unbounded)) {
            let (name, token) = entry.key();
            if locks.last().is_some_and(|(last, _)| last == name) {
                continue;
            }
            if locks.len() == at_most {
                break;
            }
            locks.push((name.clone(), *token));
        }
        locks
    }
}

fn info(number: u64, lease: &Lease) -> LeaseInfo {
    LeaseInfo { number, ttl_ms: lease.ttl_ms, deadline_ms: lease.deadline_ms, kind: lease.kind() }
}
