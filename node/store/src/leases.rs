//! Leases, the keys that end with them, and the queues of locks: what ends by itself.
//!
//! All of it is in memory, bounded by `StoreConfig`, and in rows of the small tables. Readers may look at a part of it
//! ([`Table`]) while the one writer changes it: who reads sees what is applied, perhaps a little more than the published
//! state. Nothing here changes a key: what a lease's end does to keys is gathered for the
//! caller, who writes it ([`crate::batch`]).
//!
//! Invariants: `order` holds each lease and each place that waits, once, under the time when it is due; a key is attached to
//! one lease at most, and `lease_of` is `table.keys` the other way round; of a lock's places the first one, and no other, is
//! held. An attachment at or below the last clear is void: the key was deleted, and nobody was asked.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::command::Limit;
use crate::engine::EngineSnapshot;
use crate::error::StoreError;
use crate::lease_table::{Lease, LeaseKind, Place, Table};
use crate::replies::SideLayers;
use crate::rows::{self, TABLE_LEASE_KEYS, TABLE_LEASES, TABLE_LOCKS};

/// Limits, as in `StoreConfig`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseLimits {
    pub(crate) leases: usize,
    pub(crate) keys: usize,
    pub(crate) places: usize,
    pub(crate) place_bytes: usize,
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
    /// Of all places.
    place_bytes: usize,
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
            place_bytes: 0,
        };
        for row in rows_of(engine, TABLE_LEASES) {
            let (row_key, row) = row?;
            let number = rows::read_number(&row_key[1..])?;
            let lease: Lease = rows::decode(&row_key, row)?;
            open.order.insert((lease.deadline_ms, Due::Lease(number)));
            open.table.set_lease(number, &lease);
        }
        for row in rows_of(engine, TABLE_LEASE_KEYS) {
            let (row_key, row) = row?;
            let (lease, key) = (rows::read_number(&row_key[1..])?, row_key.slice(9..));
            open.table.attach(lease, key.clone(), rows::read_number(&row)?);
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
        self.place_bytes += place.bytes();
        self.table.add_place(token, place);
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
        self.table.lease(number).filter(|lease| !lease.ended)
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
    pub(crate) fn room_for_place(&self, place: &Place) -> Result<(), Limit> {
        let fits = self.place_bytes + place.bytes() <= self.limits.place_bytes;
        if fits && self.lock_of.len() < self.limits.places { Ok(()) } else { Err(Limit::Locks) }
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
        let Some(lease) = self.table.lease(number) else { return };
        self.order.remove(&(lease.deadline_ms, Due::Lease(number)));
        self.put_lease(side, number, Lease { deadline_ms: 0, ended: true, ..lease }, false);
    }

    fn put_lease(&mut self, side: &mut SideLayers<'_>, number: u64, lease: Lease, is_new: bool) {
        side.put(rows::number_key(TABLE_LEASES, number), lease.encode_to_vec(), is_new);
        self.order.insert((lease.deadline_ms, Due::Lease(number)));
        self.table.set_lease(number, &lease);
    }

    /// Drops a lease that has no keys any more.
    pub(crate) fn drop_lease(&mut self, side: &mut SideLayers<'_>, number: u64) {
        if let Some(entry) = self.table.leases.remove(&number) {
            self.order.remove(&(entry.value().lease().deadline_ms, Due::Lease(number)));
            side.delete(rows::number_key(TABLE_LEASES, number));
        }
    }

    /// The lease that a key ends with, unless the attachment is void.
    pub(crate) fn lease_of(&self, key: &Bytes, last_clear: u64) -> Option<u64> {
        let lease = *self.lease_of.get(key)?;
        (self.table.attached(lease, key)? > last_clear).then_some(lease)
    }

    /// Keys and their attachments, void ones included.
    pub(crate) fn attached(&self, lease: u64, at_most: usize) -> Vec<(Bytes, u64)> {
        self.table.attachments(lease).take(at_most).collect()
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
        self.table.attach(lease, key.clone(), revision);
        self.lease_of.insert(key, lease);
    }

    /// A key was set or deleted, or is no key of its lease any more. A lease that was there for this key alone goes, too.
    pub(crate) fn detach(&mut self, side: &mut SideLayers<'_>, key: &Bytes, last_clear: u64) {
        let Some(lease) = self.lease_of.remove(key) else { return };
        side.delete(rows::row_key(TABLE_LEASE_KEYS, &rows::lease_key(lease, key)));
        let was_valid = self.table.detach(lease, key).is_some_and(|attached| attached > last_clear);
        let of_key = self.living(lease).is_some_and(|lease| lease.kind == LeaseKind::OfKey as i32);
        // Others may have very many void attachments, which are walked over here.
        if !was_valid || !of_key {
            return;
        }
        if self.table.keys_of(lease, last_clear).next().is_none() && self.tokens_of(lease).is_empty() {
            // Void attachments to it, if there are any, go with their keys' next change or never matter.
            for (void, _) in self.attached(lease, usize::MAX) {
                self.lease_of.remove(&void);
                self.table.detach(lease, &void);
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
        place.is_some_and(|place| place.value().place().held)
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
        self.table.hold(&place.name, token);
    }

    /// Removes a place from its queue.
    pub(crate) fn remove_place(&mut self, side: &mut SideLayers<'_>, token: u64) -> Option<Place> {
        let name = self.lock_of.remove(&token)?;
        let place = self.table.remove_place(name, token)?;
        self.place_bytes -= place.bytes();
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
