//! Several keys that change at one revision: what transactions, range deletions and the ends of leases come to.
//!
//! What is to be written is gathered by key, so that each key changes once, and then written at once. A deletion of what
//! is absent is nothing; where nothing is left, there is no revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::command::{
    AcquireLock, Answer, DeleteRange, Expire, Expired, GrantLease, KeepLease, LeaseEnded, LeaseLasts, Limit,
    LimitMet, LockBusy, LockPlace, LockReleased, NoLease, RangeDeleted, ReleaseLock, RevokeLease,
};
use crate::error::StoreError;
use crate::layers::{Resolved, Values};
use crate::lease_table::{LeaseKind, Place};
use crate::leases::Due;
use crate::overlay::{Lineage, OverlayRow};
use crate::store::Store;

/// What is to become of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Staged {
    /// It is set.
    Put { value: Bytes, content_type: Option<String>, lease: u64 },
    /// It is deleted.
    Delete,
}

/// What is to become of keys.
pub(crate) type Staging = BTreeMap<Bytes, Staged>;

/// Splits a store into its small tables and its leases.
macro_rules! side_and_leases {
    ($store:expr) => {
        (
            $crate::replies::SideLayers {
                active: &mut $store.active.side,
                frozen: $store.frozen.as_ref().map(|frozen| &frozen.side),
                engine: &*$store.layers.engine,
            },
            &mut $store.leases,
        )
    };
}
pub(crate) use side_and_leases;

impl Store {
    /// Writes what was gathered, at one revision; gives the keys that were there and are deleted.
    pub(crate) fn write_staged(&mut self, staged: Staging) -> Result<BTreeSet<Bytes>, StoreError> {
        let last_clear = self.position.last_clear;
        let mut changes = Vec::with_capacity(staged.len());
        for (key, change) in staged {
            let current = self.current(&key, Values::LeftOut)?;
            let is_live = current.as_ref().is_some_and(|row| row.is_live(last_clear));
            if is_live || change != Staged::Delete {
                changes.push((key, change, current, is_live));
            }
        }
        // What gets a lease comes first: one that is there for a key alone goes with its last key.
        changes.sort_by_key(|(_, change, ..)| !matches!(change, Staged::Put { lease, .. } if *lease != 0));
        let shared = changes.len() > 1;
        let mut deleted = BTreeSet::new();
        let revision = self.position.revision + u64::from(!changes.is_empty());
        for (key, change, current, is_live) in changes {
            let previous = Some(current.as_ref().map(Resolved::at).unwrap_or_default());
            let (create_revision, version) = match &current {
                Some(row) if is_live => (row.create_revision, row.version + 1),
                _ => (revision, 1),
            };
            let lineage = Lineage::Known { create_revision, version };
            let row = match change {
                Staged::Put { value, content_type, lease } => {
                    self.active.tally.delta += i64::from(!is_live);
                    let value = self.active.arena.copy(&value);
                    OverlayRow { deleted: false, lineage, previous, shared, lease, content_type, value }
                }
                Staged::Delete => {
                    self.active.tally.delta -= 1;
                    deleted.insert(key.clone());
                    let (content_type, value) = (None, Bytes::new());
                    OverlayRow { deleted: true, lineage, previous, shared, lease: 0, content_type, value }
                }
            };
            self.insert_at(revision, &key, row);
        }
        Ok(deleted)
    }

    pub(crate) fn delete_range(&mut self, range: &DeleteRange) -> Result<Answer, StoreError> {
        let (keys, next) = self.keys_in(&range.start, range.end.as_ref(), range.limit as usize)?;
        let deleted = self.write_staged(keys.into_iter().map(|key| (key, Staged::Delete)).collect())?;
        let (deleted, revision) = (deleted.len() as u64, self.position.revision);
        Ok(Answer::RangeDeleted(RangeDeleted { deleted, next, revision }))
    }

    pub(crate) fn grant_lease(&mut self, index: u64, grant: &GrantLease) -> Answer {
        if let Err(limit) = self.leases.room_for_lease() {
            return met(limit);
        }
        let now_ms = self.position.time_ms;
        let (mut side, leases) = side_and_leases!(self);
        leases.grant(&mut side, now_ms, index, grant.ttl_ms, LeaseKind::Granted);
        Answer::LeaseLasts(LeaseLasts { lease: index, ttl_ms: grant.ttl_ms })
    }

    pub(crate) fn keep_lease(&mut self, keep: &KeepLease) -> Answer {
        let (now_ms, lease) = (self.position.time_ms, keep.lease);
        let (mut side, leases) = side_and_leases!(self);
        match leases.keep(&mut side, now_ms, lease) {
            Some(ttl_ms) => Answer::LeaseLasts(LeaseLasts { lease, ttl_ms }),
            None => no_lease(lease),
        }
    }

    pub(crate) fn revoke_lease(&mut self, revoke: &RevokeLease) -> Result<Answer, StoreError> {
        let lease = revoke.lease;
        if self.leases.living(lease).is_none() {
            return Ok(no_lease(lease));
        }
        let mut staged = Staging::new();
        self.end_lease(lease, &mut (revoke.keys_max as usize), &mut staged);
        let deleted = self.write_staged(staged)?.len() as u64;
        Ok(Answer::LeaseEnded(LeaseEnded { lease, deleted, revision: self.position.revision }))
    }

    /// Ends what is due by the time of the entry, in order.
    pub(crate) fn expire_due(&mut self, expire: &Expire) -> Result<Answer, StoreError> {
        let now_ms = self.position.time_ms;
        let limit = expire.limit as usize;
        let (mut staged, mut room, mut ended) = (Staging::new(), limit, 0);
        while ended < limit {
            match self.leases.first_due(now_ms) {
                None => break,
                Some(Due::Wait(token)) => self.give_up_place(token, &mut staged),
                Some(Due::Lease(lease)) => {
                    if !self.end_lease(lease, &mut room, &mut staged) {
                        break;
                    }
                }
            }
            ended += 1;
        }
        let deleted = self.write_staged(staged)?.len() as u64;
        let (ended, revision) = (ended as u64, self.position.revision);
        Ok(Answer::Expired(Expired { ended, deleted, revision }))
    }

    /// Ends a lease with its keys and places, as far as there is room for them. Gives whether it is gone.
    fn end_lease(&mut self, lease: u64, room: &mut usize, staged: &mut Staging) -> bool {
        let last_clear = self.position.last_clear;
        let mut attached = self.leases.attached(lease, room.saturating_add(1));
        let is_whole = attached.len() <= *room;
        attached.truncate(*room);
        *room -= attached.len();
        for (key, revision) in attached {
            if revision > last_clear {
                // What is about to be set ends with the lease that it gets then.
                match staged.get(&key) {
                    Some(Staged::Put { lease: next, .. }) if *next != lease => {}
                    _ => drop(staged.insert(key, Staged::Delete)),
                }
            } else {
                let (mut side, leases) = side_and_leases!(self);
                leases.detach(&mut side, &key, last_clear);
            }
        }
        let (mut side, leases) = side_and_leases!(self);
        if is_whole {
            leases.drop_lease(&mut side, lease);
        } else {
            leases.become_ended(&mut side, lease);
        }
        // Its locks are free at once, however many keys are left.
        self.give_up_places_of(lease, staged);
        is_whole
    }

    /// Gives up all places that end with a lease: first those that wait, so that none of them is next.
    fn give_up_places_of(&mut self, lease: u64, staged: &mut Staging) {
        let tokens = self.leases.tokens_of(lease).into_iter();
        let (held, waiting): (Vec<u64>, Vec<u64>) = tokens.partition(|token| self.leases.is_held(*token));
        for token in waiting.into_iter().chain(held) {
            self.give_up_place(token, staged);
        }
    }

    pub(crate) fn acquire_lock(&mut self, index: u64, asked: &AcquireLock) -> Result<Answer, StoreError> {
        let ttl_ms = match asked.lease {
            0 => asked.ttl_ms,
            lease => match self.leases.usable(lease) {
                Some(lease) => lease.ttl_ms,
                None => return Ok(no_lease(lease)),
            },
        };
        let ahead = self.leases.table.queue_length(&asked.name);
        if let (0, Some((token, _))) = (asked.wait_ms, self.leases.holder(&asked.name)) {
            return Ok(Answer::LockBusy(LockBusy { token }));
        }
        let place = Place { ttl_ms, ..Place::asked(asked, index, self.position.time_ms) };
        if let Err(limit) = self.leases.room_for_place(&place) {
            return Ok(met(limit));
        }
        let lease = place.lease;
        let (mut side, leases) = side_and_leases!(self);
        leases.add_place(&mut side, index, place.clone());
        let mut staged = Staging::new();
        if ahead == 0 {
            self.hold_lock(index, place, &mut staged);
        }
        self.write_staged(staged)?;
        let revision = self.position.revision;
        Ok(Answer::LockPlace(LockPlace { token: index, lease, ttl_ms, ahead, revision }))
    }

    pub(crate) fn release_lock(&mut self, release: &ReleaseLock) -> Result<Answer, StoreError> {
        let token = release.token;
        let released = self.leases.lock_of(token).is_some_and(|name| name == release.name);
        let held = released && self.leases.holder(&release.name).is_some_and(|(first, _)| first == token);
        let mut staged = Staging::new();
        if released {
            self.give_up_place(token, &mut staged);
        }
        self.write_staged(staged)?;
        Ok(Answer::LockReleased(LockReleased { released, held, revision: self.position.revision }))
    }

    /// Removes a place; if it was held, the next one is.
    fn give_up_place(&mut self, token: u64, staged: &mut Staging) {
        let (mut side, leases) = side_and_leases!(self);
        let Some(place) = leases.remove_place(&mut side, token) else { return };
        if !place.held {
            return;
        }
        if !place.key.is_empty() && self.is_shown(&place, staged) {
            staged.insert(place.key.clone(), Staged::Delete);
        }
        if place.owns_lease(token) && self.leases.living(token).is_some() {
            self.end_own_lease(token, &place, staged);
            self.give_up_places_of(token, staged);
        }
        if let Some((next, place)) = self.leases.holder(&place.name).filter(|(_, next)| !next.held) {
            self.hold_lock(next, place, staged);
        }
    }

    /// Ends the lease that a lock had of its own: at once, where it has no keys but the one that shows the lock.
    fn end_own_lease(&mut self, lease: u64, place: &Place, staged: &mut Staging) {
        let last_clear = self.position.last_clear;
        let attached = self.leases.attached(lease, 2);
        let has_others = attached.iter().any(|(key, _)| *key != place.key);
        let (mut side, leases) = side_and_leases!(self);
        if !has_others {
            // What is about to be deleted is detached then.
            if !attached.is_empty() && !matches!(staged.get(&place.key), Some(Staged::Delete)) {
                leases.detach(&mut side, &place.key, last_clear);
            }
            leases.drop_lease(&mut side, lease);
        } else {
            leases.become_ended(&mut side, lease);
        }
    }

    /// Whether the key that shows a lock shows this place, as far as has been written or is about to be.
    fn is_shown(&self, place: &Place, staged: &Staging) -> bool {
        match staged.get(&place.key) {
            Some(Staged::Put { lease, .. }) => *lease == place.lease,
            Some(Staged::Delete) => false,
            None => self.leases.lease_of(&place.key, self.position.last_clear) == Some(place.lease),
        }
    }

    /// The place is the first of its queue: the lock is its own.
    fn hold_lock(&mut self, token: u64, place: Place, staged: &mut Staging) {
        let now_ms = self.position.time_ms;
        let (mut side, leases) = side_and_leases!(self);
        if place.owns_lease(token) {
            leases.grant(&mut side, now_ms, token, place.ttl_ms, LeaseKind::OfLock);
        }
        leases.hold(&mut side, token, place.clone());
        if !place.key.is_empty() {
            let Place { key, value, lease, .. } = place;
            staged.insert(key, Staged::Put { value, content_type: None, lease });
        }
    }
}

pub(crate) fn met(limit: Limit) -> Answer {
    Answer::LimitMet(LimitMet { limit: limit as i32 })
}

pub(crate) fn no_lease(lease: u64) -> Answer {
    Answer::NoLease(NoLease { lease, path: String::new() })
}
