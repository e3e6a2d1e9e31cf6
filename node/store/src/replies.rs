//! The reply table: what makes a write with an idempotency key happen once.
//!
//! Everything here follows from the log alone. A reply is kept for a fixed time of log time and never dropped earlier;
//! a full table refuses new keys instead. Memory holds the keys and when they were recorded; the replies, which may
//! carry previous values, are rows of the overlay and the engine.
//!
//! Removal of what has expired is spread over entries, and invisible: a lookup looks at the time, and a table that is
//! full drops what has expired before it refuses.

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::command::Reply;
use crate::engine::EngineSnapshot;
use crate::error::StoreError;
use crate::rows::{self, INLINE_REPLY_BYTES_MAX, ReplyRow, TABLE_REPLIES};
use crate::side::SideRows;

/// Expired replies that are dropped with one entry.
pub(crate) const EXPIRED_PER_ENTRY: usize = 64;

/// The small tables through their layers.
pub(crate) struct SideLayers<'a> {
    pub(crate) active: &'a mut SideRows,
    pub(crate) frozen: Option<&'a SideRows>,
    pub(crate) engine: &'a dyn EngineSnapshot,
}

impl SideLayers<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(changed) = self.active.get(key).or_else(|| self.frozen.and_then(|frozen| frozen.get(key)))
        {
            return Ok(changed);
        }
        Ok(self.engine.get(key)?)
    }

    /// Records a reply that the table does not have.
    pub(crate) fn record(&mut self, table: u8, key: &[u8], fingerprint: &Bytes, now_ms: u64, reply: &Reply) {
        let row_key = rows::row_key(table, key);
        let mut row =
            ReplyRow { fingerprint: fingerprint.clone(), recorded_ms: now_ms, reply: Some(reply.clone()) };
        if reply.encoded_len() > INLINE_REPLY_BYTES_MAX {
            row.reply = None;
            let body_key = rows::row_key(rows::body_table(table), key);
            self.active.put(body_key, Bytes::from(reply.encode_to_vec()), true);
        }
        self.active.put(row_key, Bytes::from(row.encode_to_vec()), true);
    }

    /// Reads a reply that the table has, and the fingerprint of its request.
    pub(crate) fn recorded(&self, table: u8, key: &[u8]) -> Result<(Bytes, Reply), StoreError> {
        let missing = || StoreError::corrupt(format!("the reply to {} is missing", key.escape_ascii()));
        let row_key = rows::row_key(table, key);
        let row: ReplyRow = rows::decode(&row_key, self.get(&row_key)?.ok_or_else(missing)?)?;
        let reply = match row.reply {
            Some(reply) => reply,
            None => {
                let body_key = rows::row_key(rows::body_table(table), key);
                rows::decode(&body_key, self.get(&body_key)?.ok_or_else(missing)?)?
            }
        };
        Ok((row.fingerprint, reply))
    }

    /// Forgets a reply that the table has.
    pub(crate) fn forget(&mut self, table: u8, key: &[u8]) -> Result<(), StoreError> {
        let row_key = rows::row_key(table, key);
        let row = self.get(&row_key)?;
        let has_body = match row {
            Some(row) => rows::decode::<ReplyRow>(&row_key, row)?.reply.is_none(),
            None => {
                return Err(StoreError::corrupt(format!("the reply to {} is missing", key.escape_ascii())));
            }
        };
        self.active.delete(row_key);
        if has_body {
            self.active.delete(rows::row_key(rows::body_table(table), key));
        }
        Ok(())
    }

    /// Sets a row of the session table.
    pub(crate) fn put(&mut self, key: Bytes, row: Vec<u8>, absent_beneath: bool) {
        self.active.put(key, Bytes::from(row), absent_beneath);
    }

    /// Deletes a row of the session table.
    pub(crate) fn delete(&mut self, key: Bytes) {
        self.active.delete(key);
    }
}

/// What a request with an id is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Admission {
    /// Not seen before, or no longer known: to be applied, and its reply recorded.
    New,
    /// Seen before: this was the reply.
    Replay(Reply),
    /// The id was used for another request.
    Mismatch,
    /// Not seen before, and there is no room to record its reply.
    Full,
    /// The session, or this request of it, is forgotten.
    Expired,
}

impl Admission {
    /// A recorded reply, if it is to this request.
    pub(crate) fn of(recorded: (Bytes, Reply), fingerprint: &Bytes) -> Self {
        let (recorded_fingerprint, reply) = recorded;
        if recorded_fingerprint == fingerprint { Admission::Replay(reply) } else { Admission::Mismatch }
    }
}

/// Idempotency keys that are kept, and when they were recorded.
pub(crate) struct Replies {
    ttl_ms: u64,
    limit: usize,
    recorded_ms: HashMap<Arc<[u8]>, u64>,
    /// By time, which never runs backwards in the log.
    order: VecDeque<(u64, Arc<[u8]>)>,
}

impl Replies {
    /// Reads the table's keys from the engine.
    pub(crate) fn open(engine: &dyn EngineSnapshot, ttl_ms: u64, limit: usize) -> Result<Self, StoreError> {
        let mut order = Vec::new();
        let end = [TABLE_REPLIES + 1];
        for row in engine.scan(Bound::Included(&[TABLE_REPLIES]), Bound::Excluded(&end)) {
            let (row_key, row) = row?;
            let row: ReplyRow = rows::decode(&row_key, row)?;
            order.push((row.recorded_ms, Arc::from(&row_key[1..])));
        }
        order.sort_by_key(|(recorded_ms, _)| *recorded_ms);
        let recorded_ms = order.iter().map(|(ms, key)| (Arc::clone(key), *ms)).collect();
        Ok(Self { ttl_ms, limit, recorded_ms, order: order.into() })
    }

    /// Entries in memory, those expired and not yet dropped included.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Drops some of what has expired.
    pub(crate) fn expire(&mut self, side: &mut SideLayers<'_>, now_ms: u64) -> Result<(), StoreError> {
        for _ in 0..EXPIRED_PER_ENTRY {
            if !self.expire_one(side, now_ms)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether there is something to drop.
    pub(crate) fn has_expired(&self, now_ms: u64) -> bool {
        self.order.front().is_some_and(|(recorded_ms, _)| self.is_expired(*recorded_ms, now_ms))
    }

    fn expire_one(&mut self, side: &mut SideLayers<'_>, now_ms: u64) -> Result<bool, StoreError> {
        if !self.has_expired(now_ms) {
            return Ok(false);
        }
        if let Some((_, key)) = self.order.pop_front() {
            self.drop_key(side, &key)?;
        }
        Ok(true)
    }

    fn drop_key(&mut self, side: &mut SideLayers<'_>, key: &[u8]) -> Result<(), StoreError> {
        self.recorded_ms.remove(key);
        side.forget(TABLE_REPLIES, key)
    }

    fn is_expired(&self, recorded_ms: u64, now_ms: u64) -> bool {
        recorded_ms.saturating_add(self.ttl_ms) <= now_ms
    }

    /// What a request with this key is at this time.
    pub(crate) fn admit(
        &mut self,
        side: &mut SideLayers<'_>,
        now_ms: u64,
        key: &str,
        fingerprint: &Bytes,
    ) -> Result<Admission, StoreError> {
        if let Some(recorded_ms) = self.recorded_ms.get(key.as_bytes()) {
            if !self.is_expired(*recorded_ms, now_ms) {
                return Ok(Admission::of(side.recorded(TABLE_REPLIES, key.as_bytes())?, fingerprint));
            }
            // Expired and not yet dropped. All before it in the order has expired too.
            while self.recorded_ms.contains_key(key.as_bytes()) {
                let dropped = self.expire_one(side, now_ms)?;
                assert!(dropped, "an expired reply is not in the order of expiry at {now_ms} ms");
            }
        }
        while self.order.len() >= self.limit {
            if !self.expire_one(side, now_ms)? {
                return Ok(Admission::Full);
            }
        }
        Ok(Admission::New)
    }

    /// Records the reply to a request that was admitted as new.
    pub(crate) fn record(
        &mut self,
        side: &mut SideLayers<'_>,
        now_ms: u64,
        key: &str,
        fingerprint: &Bytes,
        reply: &Reply,
    ) {
        side.record(TABLE_REPLIES, key.as_bytes(), fingerprint, now_ms, reply);
        let key: Arc<[u8]> = Arc::from(key.as_bytes());
        self.recorded_ms.insert(Arc::clone(&key), now_ms);
        self.order.push_back((now_ms, key));
    }
}
