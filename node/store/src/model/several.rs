//! What changes several keys at once: transactions, range deletions, the ends of leases; and leases and locks themselves.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Model;
use crate::command::{
    AcquireLock, Answer, Expired, LeaseEnded, LeaseLasts, Limit, LimitMet, LockBusy, LockPlace, LockReleased,
    NoLease, Operation, RangeDeleted, TXN_RESULT_BYTES_MAX, Txn, TxnDone, TxnGot, TxnItem, TxnItems,
    TxnOpKind, TxnRefused, TxnResultKind, TxnTest, Value,
};
use crate::txn::{results, value_holds};

/// A lease.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelLease {
    /// In milliseconds of cluster time.
    pub ttl_ms: u64,
    /// When it is due, in milliseconds of cluster time.
    pub deadline_ms: u64,
    /// It goes with its last key.
    pub of_key: bool,
    /// Only keys are left of it.
    pub ended: bool,
    /// Keys, and when they were attached. A clear after that made it void.
    pub keys: BTreeMap<Bytes, u64>,
}

/// A place in a lock's queue.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelPlace {
    /// The lease that it ends with.
    pub lease: u64,
    /// Of that lease.
    pub ttl_ms: u64,
    /// It leaves the queue then.
    pub wait_until_ms: u64,
    /// What shows it.
    pub key: Bytes,
    /// What that has.
    pub value: Bytes,
    /// It is the first.
    pub held: bool,
}

/// What a key gets: value, content type, lease; or that it goes.
type New = Option<(Bytes, Option<String>, u64)>;

impl Model {
    pub(super) fn operate_several(&mut self, index: u64, operation: &Operation) -> Answer {
        match operation {
            Operation::Txn(txn) => self.txn(txn),
            Operation::DeleteRange(range) => {
                let in_range = |key: &&Bytes| range.end.as_ref().is_none_or(|end| *key < end);
                let keys: Vec<Bytes> = self
                    .keys
                    .range(range.start.clone()..)
                    .map(|(key, _)| key)
                    .take_while(in_range)
                    .cloned()
                    .collect();
                let next = keys.get(range.limit as usize).cloned();
                let news = keys.into_iter().take(range.limit as usize).map(|key| (key, None)).collect();
                let deleted = self.write(news).len() as u64;
                Answer::RangeDeleted(RangeDeleted { deleted, next, revision: self.revision })
            }
            Operation::GrantLease(grant) => match self.begin_lease(index, grant.ttl_ms, false) {
                Ok(()) => Answer::LeaseLasts(LeaseLasts { lease: index, ttl_ms: grant.ttl_ms }),
                Err(limit) => met(limit),
            },
            Operation::KeepLease(keep) => {
                let now_ms = self.time_ms;
                match self.leases.get_mut(&keep.lease).filter(|lease| !lease.ended) {
                    Some(lease) => {
                        lease.deadline_ms = now_ms + lease.ttl_ms;
                        Answer::LeaseLasts(LeaseLasts { lease: keep.lease, ttl_ms: lease.ttl_ms })
                    }
                    None => no_lease(keep.lease, ""),
                }
            }
            Operation::RevokeLease(revoke) => {
                if !self.lives(revoke.lease) {
                    return no_lease(revoke.lease, "");
                }
                let mut news = BTreeMap::new();
                self.end_lease(revoke.lease, &mut (revoke.keys_max as usize), &mut news);
                let deleted = self.write(news).len() as u64;
                Answer::LeaseEnded(LeaseEnded { lease: revoke.lease, deleted, revision: self.revision })
            }
            Operation::Expire(expire) => {
                let (mut news, mut room, mut ended) = (BTreeMap::new(), expire.limit as usize, 0);
                while ended < u64::from(expire.limit) {
                    match self.first_due() {
                        None => break,
                        Some((is_wait, number)) if is_wait => self.leave_queue(number, &mut news),
                        Some((_, lease)) => {
                            if !self.end_lease(lease, &mut room, &mut news) {
                                break;
                            }
                        }
                    }
                    ended += 1;
                }
                let deleted = self.write(news).len() as u64;
                Answer::Expired(Expired { ended, deleted, revision: self.revision })
            }
            Operation::AcquireLock(asked) => self.acquire(index, asked),
            Operation::ReleaseLock(release) => {
                let queue = self.locks.get(&release.name);
                let released = queue.is_some_and(|queue| queue.contains_key(&release.token));
                let held = released && self.holder(&release.name) == Some(release.token);
                let mut news = BTreeMap::new();
                if released {
                    self.leave_queue(release.token, &mut news);
                }
                self.write(news);
                Answer::LockReleased(LockReleased { released, held, revision: self.revision })
            }
            other => panic!("{other:?} changes one thing"),
        }
    }

    /// What is due first: whether it is a wait, and its number.
    fn first_due(&self) -> Option<(bool, u64)> {
        let leases = self.leases.iter().map(|(number, lease)| (lease.deadline_ms, false, *number));
        let waits = self.locks.values().flat_map(|queue| queue.iter().skip(1));
        let waits = waits.map(|(token, place)| (place.wait_until_ms, true, *token));
        let first = leases.chain(waits).min().filter(|(due_ms, ..)| *due_ms <= self.time_ms);
        first.map(|(_, is_wait, number)| (is_wait, number))
    }

    fn lives(&self, lease: u64) -> bool {
        self.leases.get(&lease).is_some_and(|lease| !lease.ended)
    }

    fn usable(&self, lease: u64) -> bool {
        self.leases.get(&lease).is_some_and(|lease| !lease.ended && !lease.of_key)
    }

    pub(super) fn room_for_keys(&self, more: usize) -> Result<(), Limit> {
        let keys: usize = self.leases.values().map(|lease| lease.keys.len()).sum();
        if keys + more <= self.config.leased_key_limit { Ok(()) } else { Err(Limit::LeasedKeys) }
    }

    pub(super) fn begin_lease(&mut self, number: u64, ttl_ms: u64, of_key: bool) -> Result<(), Limit> {
        if self.leases.len() >= self.config.lease_limit {
            return Err(Limit::Leases);
        }
        self.start_lease(number, ttl_ms, of_key);
        Ok(())
    }

    fn start_lease(&mut self, number: u64, ttl_ms: u64, of_key: bool) {
        let deadline_ms = self.time_ms + ttl_ms;
        let lease = ModelLease { ttl_ms, deadline_ms, of_key, ended: false, keys: BTreeMap::new() };
        self.leases.insert(number, lease);
    }

    /// The lease for a PUT, or why there is none.
    pub(super) fn lease_for_put(&mut self, index: u64, lease: u64, ttl_ms: u64) -> Result<u64, Answer> {
        if lease == 0 && ttl_ms == 0 {
            return Ok(0);
        }
        self.room_for_keys(1).map_err(met)?;
        if ttl_ms != 0 {
            return self.begin_lease(index, ttl_ms, true).map(|()| index).map_err(met);
        }
        if self.usable(lease) { Ok(lease) } else { Err(no_lease(lease, "")) }
    }

    /// The key has changed: it is attached to this lease (0: none) and to no other.
    pub(super) fn attach(&mut self, key: &Bytes, lease: u64) {
        let holder =
            self.leases.iter().find(|(_, lease)| lease.keys.contains_key(key)).map(|(number, _)| *number);
        if let Some(old) = holder.filter(|old| *old != lease) {
            let cleared = self.cleared;
            let of_old = self.leases.get_mut(&old).map(|old| {
                let was_valid = old.keys.remove(key).is_some_and(|attached| attached > cleared);
                was_valid
                    && old.of_key
                    && !old.ended
                    && old.keys.values().all(|attached| *attached <= cleared)
            });
            if of_old == Some(true) && self.places().all(|(_, place)| place.lease != old) {
                self.leases.remove(&old);
            }
        }
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.insert(key.clone(), self.revision);
        }
    }

    /// Writes all at one revision; gives the keys that were there and are gone.
    fn write(&mut self, news: BTreeMap<Bytes, New>) -> Vec<Bytes> {
        let mut news: Vec<(Bytes, New)> =
            news.into_iter().filter(|(key, new)| new.is_some() || self.keys.contains_key(key)).collect();
        news.sort_by_key(|(_, new)| !matches!(new, Some((_, _, lease)) if *lease != 0));
        self.revision += u64::from(!news.is_empty());
        let mut gone = Vec::new();
        for (key, new) in news {
            match new {
                Some((value, content_type, lease)) => self.set(&key, value, content_type, lease),
                None => {
                    self.unset(&key);
                    gone.push(key);
                }
            }
        }
        gone
    }

    /// Ends a lease as far as there is room; gives whether it is gone.
    fn end_lease(&mut self, number: u64, room: &mut usize, news: &mut BTreeMap<Bytes, New>) -> bool {
        let Some(lease) = self.leases.get_mut(&number) else { return true };
        let is_whole = lease.keys.len() <= *room;
        let going: Vec<(Bytes, u64)> =
            lease.keys.iter().take(*room).map(|(key, at)| (key.clone(), *at)).collect();
        *room -= going.len();
        for (key, attached) in going {
            let goes_on = matches!(news.get(&key), Some(Some((_, _, next))) if *next != number);
            if attached > self.cleared && !goes_on {
                news.insert(key, None);
            } else if attached <= self.cleared {
                lease.keys.remove(&key);
            }
        }
        lease.ended = true;
        lease.deadline_ms = 0;
        if is_whole {
            self.leases.remove(&number);
        }
        self.leave_queues(number, news);
        is_whole
    }

    /// What ends with a lease leaves its queues, first what waits.
    fn leave_queues(&mut self, lease: u64, news: &mut BTreeMap<Bytes, New>) {
        let mut places: Vec<(bool, u64)> = self
            .places()
            .filter(|(_, place)| place.lease == lease)
            .map(|(token, place)| (place.held, token))
            .collect();
        places.sort_unstable();
        for (_, token) in places {
            self.leave_queue(token, news);
        }
    }

    /// All places, in order of their tokens.
    fn places(&self) -> impl Iterator<Item = (u64, ModelPlace)> + use<> {
        let all = self.locks.values().flatten().map(|(token, place)| (*token, place.clone()));
        all.collect::<BTreeMap<_, _>>().into_iter()
    }

    fn holder(&self, name: &Bytes) -> Option<u64> {
        self.locks.get(name)?.keys().next().copied()
    }

    fn acquire(&mut self, index: u64, asked: &AcquireLock) -> Answer {
        let ttl_ms = match asked.lease {
            0 => asked.ttl_ms,
            lease if self.usable(lease) => self.leases[&lease].ttl_ms,
            lease => return no_lease(lease, ""),
        };
        let queue = self.locks.get(&asked.name);
        let ahead = queue.map_or(0, BTreeMap::len) as u64;
        if let (0, Some(token)) = (asked.wait_ms, self.holder(&asked.name)) {
            return Answer::LockBusy(LockBusy { token });
        }
        let asked_bytes = asked.name.len() + asked.key.len() + asked.value.len();
        let bytes = |(name, queue): (&Bytes, &BTreeMap<u64, ModelPlace>)| {
            queue.values().map(|place| name.len() + place.key.len() + place.value.len()).sum::<usize>()
        };
        let bytes: usize = self.locks.iter().map(bytes).sum();
        if self.places().count() >= self.config.lock_limit
            || bytes + asked_bytes > self.config.lock_bytes_limit
        {
            return met(Limit::Locks);
        }
        let lease = if asked.lease == 0 { index } else { asked.lease };
        let wait_until_ms = self.time_ms + asked.wait_ms;
        let (key, value) = (asked.key.clone(), asked.value.clone());
        let place = ModelPlace { lease, ttl_ms, wait_until_ms, key, value, held: false };
        self.locks.entry(asked.name.clone()).or_default().insert(index, place);
        let mut news = BTreeMap::new();
        if ahead == 0 {
            self.hold(&asked.name, index, &mut news);
        }
        self.write(news);
        Answer::LockPlace(LockPlace { token: index, lease, ttl_ms, ahead, revision: self.revision })
    }

    fn hold(&mut self, name: &Bytes, token: u64, news: &mut BTreeMap<Bytes, New>) {
        let Some(place) = self.locks.get_mut(name).and_then(|queue| queue.get_mut(&token)) else { return };
        place.held = true;
        let place = place.clone();
        if place.lease == token {
            self.start_lease(token, place.ttl_ms, false);
        }
        if !place.key.is_empty() {
            news.insert(place.key, Some((place.value, None, place.lease)));
        }
    }

    fn leave_queue(&mut self, token: u64, news: &mut BTreeMap<Bytes, New>) {
        let found = self.locks.iter().find(|(_, queue)| queue.contains_key(&token));
        let Some(name) = found.map(|(name, _)| name.clone()) else { return };
        let queue = self.locks.entry(name.clone()).or_default();
        let Some(place) = queue.remove(&token) else { return };
        if queue.is_empty() {
            self.locks.remove(&name);
        }
        if !place.held {
            return;
        }
        let is_shown = match news.get(&place.key) {
            Some(Some((_, _, lease))) => *lease == place.lease,
            Some(None) => false,
            None => {
                let attached = self.leases.get(&place.lease).and_then(|lease| lease.keys.get(&place.key));
                attached.is_some_and(|attached| *attached > self.cleared)
            }
        };
        if is_shown && !place.key.is_empty() {
            news.insert(place.key.clone(), None);
        }
        if place.lease == token && self.lives(token) {
            let (mut is_empty, goes) = (false, matches!(news.get(&place.key), Some(None)));
            if let Some(lease) = self.leases.get_mut(&token) {
                is_empty = lease.keys.keys().all(|key| *key == place.key);
                lease.ended = true;
                lease.deadline_ms = 0;
                if is_empty && !goes {
                    lease.keys.remove(&place.key);
                }
            }
            if is_empty {
                self.leases.remove(&token);
            }
            self.leave_queues(token, news);
        }
        let next = self.locks.get(&name).and_then(|queue| queue.iter().next());
        if let Some(next) = next.filter(|(_, place)| !place.held).map(|(token, _)| *token) {
            self.hold(&name, next, news);
        }
    }

    fn txn(&mut self, txn: &Txn) -> Answer {
        if let Err(refused) = txn.check() {
            return Answer::TxnRefused(refused);
        }
        let holds = |condition: &crate::command::TxnCondition| match &condition.test {
            Some(TxnTest::Lock(token)) => self.holder(&condition.subject) == Some(*token),
            Some(test) => value_holds(test, self.keys.get(&condition.subject)),
            None => false,
        };
        let succeeded = txn.conditions.iter().all(holds);
        let (branch, ops) = if succeeded { ("then", &txn.then) } else { ("else", &txn.otherwise) };
        let (mut bytes, mut reads) = (0, BTreeMap::new());
        for (at, op) in ops.iter().enumerate() {
            let read = match &op.kind {
                Some(TxnOpKind::Get(key)) => {
                    let value = self.keys.get(key).cloned();
                    bytes += key.len() + value.as_ref().map_or(0, |value| value.value.len());
                    TxnResultKind::Get(TxnGot { value })
                }
                Some(TxnOpKind::Range(range)) => {
                    let room = (TXN_RESULT_BYTES_MAX + 1).saturating_sub(bytes);
                    let mut found = TxnItems::default();
                    let mut size = 0;
                    for (key, value) in self.keys.range(range.start.clone()..) {
                        if range.end.as_ref().is_some_and(|end| key >= end) {
                            break;
                        }
                        if found.items.len() == range.limit.clamp(1, 1000) as usize || size >= room {
                            found.more = true;
                            break;
                        }
                        size += key.len() + value.value.len();
                        found.items.push(TxnItem { key: key.clone(), value: Some(value.clone()) });
                    }
                    bytes += size;
                    TxnResultKind::Range(found)
                }
                _ => continue,
            };
            if bytes > TXN_RESULT_BYTES_MAX {
                let why = format!("the reads up to here give more than {TXN_RESULT_BYTES_MAX} bytes");
                return Answer::TxnRefused(TxnRefused { path: format!("/{branch}/{at}"), why });
            }
            reads.insert(at, read);
        }
        let mut news: BTreeMap<Bytes, New> = BTreeMap::new();
        for (at, op) in ops.iter().enumerate() {
            match &op.kind {
                Some(TxnOpKind::Put(put)) => {
                    if put.lease != 0 && !self.usable(put.lease) {
                        return no_lease(put.lease, &format!("/{branch}/{at}/put/lease"));
                    }
                    let new = (put.value.clone(), put.content_type.clone(), put.lease);
                    news.insert(put.key.clone(), Some(new));
                }
                Some(TxnOpKind::Delete(key)) => drop(news.insert(key.clone(), None)),
                _ => {}
            }
        }
        let leased = news.values().flatten().filter(|(_, _, lease)| *lease != 0).count();
        if let Err(limit) = self.room_for_keys(leased) {
            return met(limit);
        }
        let gone = self.write(news);
        let results = results(ops, reads, |key| gone.contains(key));
        Answer::Txn(TxnDone { succeeded, revision: self.revision, results })
    }

    /// What a lock's holder and waiters are, in order of the queue; the model's leases that live.
    pub fn lock(&self, name: &Bytes) -> Vec<u64> {
        self.locks.get(name).map(|queue| queue.keys().copied().collect()).unwrap_or_default()
    }
}

fn met(limit: Limit) -> Answer {
    Answer::LimitMet(LimitMet { limit: limit as i32 })
}

fn no_lease(lease: u64, path: &str) -> Answer {
    Answer::NoLease(NoLease { lease, path: path.to_owned() })
}

impl Model {
    fn value(&self, key: &Bytes) -> Option<&Value> {
        self.keys.get(key)
    }

    /// Sets a key at the present revision.
    pub(super) fn set(&mut self, key: &Bytes, value: Bytes, content_type: Option<String>, lease: u64) {
        let current = self.value(key);
        let value = Value {
            value,
            content_type,
            revision: self.revision,
            create_revision: current.map_or(self.revision, |value| value.create_revision),
            version: current.map_or(1, |value| value.version + 1),
            lease,
        };
        self.remember(key, Some(value.clone()));
        self.keys.insert(key.clone(), value);
        self.attach(key, lease);
    }

    /// Deletes a key at the present revision.
    pub(super) fn unset(&mut self, key: &Bytes) {
        self.keys.remove(key);
        self.remember(key, None);
        self.attach(key, 0);
    }
}
