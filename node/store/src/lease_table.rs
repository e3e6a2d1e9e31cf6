//! Leases and locks as readers may look at them while their one writer changes them.
//!
//! Ordered maps that are walked without a lock. Putting an entry in the place of another would take it away for a moment: so
//! what changes within an entry is a number that is set in place, and whoever looks for what is there finds it.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;

use crate::command::AcquireLock;
use crate::reader::View;

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
        // Copies of its own: those of the entry would keep all that came with it alive.
        let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        Place {
            name: own(&asked.name),
            lease: if asked.lease == 0 { token } else { asked.lease },
            ttl_ms: asked.ttl_ms,
            wait_until_ms: now_ms.saturating_add(asked.wait_ms),
            key: own(&asked.key),
            value: own(&asked.value),
            held: false,
        }
    }

    /// What it keeps in memory of what was asked, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.name.len() + self.key.len() + self.value.len()
    }

    /// Its lease is its own.
    pub(crate) fn owns_lease(&self, token: u64) -> bool {
        self.lease == token
    }
}

/// A lease in the table.
pub(crate) struct LeaseEntry {
    ttl_ms: u64,
    kind: LeaseKind,
    deadline_ms: AtomicU64,
    ended: AtomicBool,
}

impl LeaseEntry {
    fn new(lease: &Lease) -> LeaseEntry {
        LeaseEntry {
            ttl_ms: lease.ttl_ms,
            kind: lease.kind(),
            deadline_ms: AtomicU64::new(lease.deadline_ms),
            ended: AtomicBool::new(lease.ended),
        }
    }

    /// The lease as it is now.
    pub(crate) fn lease(&self) -> Lease {
        Lease {
            ttl_ms: self.ttl_ms,
            deadline_ms: self.deadline_ms.load(Ordering::Relaxed),
            kind: self.kind as i32,
            ended: self.ended.load(Ordering::Relaxed),
        }
    }
}

/// A place in the table.
pub(crate) struct PlaceEntry {
    place: Place,
    held: AtomicBool,
}

impl PlaceEntry {
    /// The place as it is now.
    pub(crate) fn place(&self) -> Place {
        Place { held: self.held.load(Ordering::Relaxed), ..self.place.clone() }
    }
}

/// What readers may look at.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) leases: SkipMap<u64, LeaseEntry>,
    /// By lease and key: the revision at which it was attached.
    pub(crate) keys: SkipMap<(u64, Bytes), AtomicU64>,
    /// By name and token: in order of their queues.
    pub(crate) places: SkipMap<(Bytes, u64), PlaceEntry>,
    /// How many places each queue has; none for those without.
    lengths: SkipMap<Bytes, AtomicU64>,
}

impl Table {
    /// A lease as it is now.
    pub(crate) fn lease(&self, number: u64) -> Option<Lease> {
        self.leases.get(&number).map(|entry| entry.value().lease())
    }

    /// A lease is new, or has changed; what it is there for and how long it lasts never do.
    pub(crate) fn set_lease(&self, number: u64, lease: &Lease) {
        match self.leases.get(&number) {
            Some(entry) => {
                entry.value().deadline_ms.store(lease.deadline_ms, Ordering::Relaxed);
                entry.value().ended.store(lease.ended, Ordering::Relaxed);
            }
            None => drop(self.leases.insert(number, LeaseEntry::new(lease))),
        }
    }

    /// A key is attached to a lease, anew perhaps.
    pub(crate) fn attach(&self, lease: u64, key: Bytes, revision: u64) {
        let at = (lease, key);
        match self.keys.get(&at) {
            Some(entry) => entry.value().store(revision, Ordering::Relaxed),
            None => drop(self.keys.insert(at, AtomicU64::new(revision))),
        }
    }

    /// When a key was attached to a lease, if it is.
    pub(crate) fn attached(&self, lease: u64, key: &Bytes) -> Option<u64> {
        self.keys.get(&(lease, key.clone())).map(|entry| entry.value().load(Ordering::Relaxed))
    }

    /// A key is attached no more; gives since when it was.
    pub(crate) fn detach(&self, lease: u64, key: &Bytes) -> Option<u64> {
        self.keys.remove(&(lease, key.clone())).map(|entry| entry.value().load(Ordering::Relaxed))
    }

    /// The keys of a lease and when they were attached, in order.
    pub(crate) fn attachments(&self, lease: u64) -> impl Iterator<Item = (Bytes, u64)> + '_ {
        let of_lease =
            self.keys.range((lease, Bytes::new())..).take_while(move |entry| entry.key().0 == lease);
        of_lease.map(|entry| (entry.key().1.clone(), entry.value().load(Ordering::Relaxed)))
    }

    /// The keys of a lease, those whose attachment is void left out.
    pub(crate) fn keys_of(&self, lease: u64, last_clear: u64) -> impl Iterator<Item = Bytes> + '_ {
        self.attachments(lease).filter(move |(_, attached)| *attached > last_clear).map(|(key, _)| key)
    }

    /// A place is new.
    pub(crate) fn add_place(&self, token: u64, place: Place) {
        let name = place.name.clone();
        let entry = PlaceEntry { held: AtomicBool::new(place.held), place };
        self.places.insert((name.clone(), token), entry);
        match self.lengths.get(&name) {
            Some(length) => drop(length.value().fetch_add(1, Ordering::Relaxed)),
            None => drop(self.lengths.insert(name, AtomicU64::new(1))),
        }
    }

    /// A place has become the first of its queue.
    pub(crate) fn hold(&self, name: &Bytes, token: u64) {
        if let Some(entry) = self.places.get(&(name.clone(), token)) {
            entry.value().held.store(true, Ordering::Relaxed);
        }
    }

    /// A place is gone.
    pub(crate) fn remove_place(&self, name: Bytes, token: u64) -> Option<Place> {
        let removed = self.places.remove(&(name.clone(), token))?.value().place();
        if let Some(length) = self.lengths.get(&name)
            && length.value().fetch_sub(1, Ordering::Relaxed) == 1
        {
            length.remove();
        }
        Some(removed)
    }

    /// The queue of a lock.
    pub(crate) fn queue<'a>(&'a self, name: &Bytes) -> impl Iterator<Item = (u64, Place)> + use<'a> {
        let (start, name) = ((name.clone(), 0), name.clone());
        let of_lock = self.places.range(start..).take_while(move |entry| entry.key().0 == name);
        of_lock.map(|entry| (entry.key().1, entry.value().place()))
    }

    /// How many places the queue of a lock has.
    pub(crate) fn queue_length(&self, name: &Bytes) -> u64 {
        self.lengths.get(name).map_or(0, |length| length.value().load(Ordering::Relaxed))
    }
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

/// Where a place stands in the queue of its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockStanding {
    /// It is the first.
    Held,
    /// Others are before it.
    Waits,
    /// It is not there: it was given up, or never asked for.
    Gone,
}

impl View {
    /// A lease that has not ended. As all that is said of leases and locks: as it is applied, perhaps a little newer than
    /// the rest of the view.
    pub fn lease(&self, number: u64) -> Option<LeaseInfo> {
        let lease = self.state.table.lease(number)?;
        (!lease.ended).then(|| info(number, &lease))
    }

    /// Leases above a number, in order, at most so many.
    pub fn leases_above(&self, number: u64, at_most: usize) -> Vec<LeaseInfo> {
        let all = self.state.table.leases.range((Bound::Excluded(number), Bound::Unbounded));
        let living = all.map(|entry| (*entry.key(), entry.value().lease())).filter(|(_, lease)| !lease.ended);
        living.take(at_most).map(|(number, lease)| info(number, &lease)).collect()
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

    /// How many places the queue of a lock has.
    pub fn lock_length(&self, name: &[u8]) -> u64 {
        self.state.table.queue_length(&Bytes::copy_from_slice(name))
    }

    /// Where a place stands in the queue of its lock.
    pub fn lock_standing(&self, name: &Bytes, token: u64) -> LockStanding {
        let table = &self.state.table;
        let first = table.places.range((name.clone(), 0)..=(name.clone(), u64::MAX)).next();
        match first {
            Some(first) if first.key().1 == token => LockStanding::Held,
            _ if table.places.contains_key(&(name.clone(), token)) => LockStanding::Waits,
            _ => LockStanding::Gone,
        }
    }

    /// Locks whose names are above one, in order, with their holders' tokens, at most so many.
    pub fn locks_above(&self, name: &[u8], at_most: usize) -> Vec<(Bytes, u64)> {
        let mut locks: Vec<(Bytes, u64)> = Vec::new();
        let mut above = Bytes::copy_from_slice(name);
        while locks.len() < at_most {
            let next = self.state.table.places.lower_bound(Bound::Excluded(&(above, u64::MAX)));
            let Some((name, token)) = next.map(|entry| entry.key().clone()) else { break };
            above = name.clone();
            locks.push((name, token));
        }
        locks
    }
}

fn info(number: u64, lease: &Lease) -> LeaseInfo {
    LeaseInfo { number, ttl_ms: lease.ttl_ms, deadline_ms: lease.deadline_ms, kind: lease.kind() }
}
