//! Sessions: the same promise as the reply table for clients that write a lot (thesis 6.3).
//!
//! A session holds replies only to what its client has not yet confirmed: each request says below which number all are
//! answered. A request that the session has forgotten, or whose session is gone, is refused: it may have been applied.
//! A session ends when it was not used for a while of log time.
//!
//! Invariants: a session has no reply below its lowest unfinished number; `order` holds each session once, under the
//! time of its last use; `replies` is the sum over all sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use prost::Message;

use crate::command::{Reply, SessionRequest};
use crate::engine::EngineSnapshot;
use crate::error::StoreError;
use crate::replies::{Admission, EXPIRED_PER_ENTRY, SideLayers};
use crate::rows::{self, SessionRow, TABLE_SESSION_REPLIES, TABLE_SESSIONS};

/// Limits, as in `StoreConfig`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLimits {
    pub(crate) ttl_ms: u64,
    pub(crate) sessions: usize,
    pub(crate) replies: usize,
}

/// The open sessions.
pub(crate) struct Sessions {
    limits: SessionLimits,
    sessions: BTreeMap<u64, Session>,
    /// Time of last use, and number.
    order: BTreeSet<(u64, u64)>,
    /// Recorded replies over all.
    replies: usize,
}

struct Session {
    used_ms: u64,
    lowest_unfinished: u64,
    /// Sequence numbers with a recorded reply.
    recorded: BTreeSet<u64>,
}

impl Sessions {
    /// Reads the sessions from the engine.
    pub(crate) fn open(engine: &dyn EngineSnapshot, limits: SessionLimits) -> Result<Self, StoreError> {
        let mut open = Self { limits, sessions: BTreeMap::new(), order: BTreeSet::new(), replies: 0 };
        let end = [TABLE_SESSIONS + 1];
        for row in engine.scan(Bound::Included(&[TABLE_SESSIONS]), Bound::Excluded(&end)) {
            let (row_key, row) = row?;
            let number = rows::read_number(&row_key[1..])?;
            let row: SessionRow = rows::decode(&row_key, row)?;
            open.order.insert((row.used_ms, number));
            open.sessions.insert(
                number,
                Session {
                    used_ms: row.used_ms,
                    lowest_unfinished: row.lowest_unfinished,
                    recorded: BTreeSet::new(),
                },
            );
        }
        let end = [TABLE_SESSION_REPLIES + 1];
        for row in engine.scan(Bound::Included(&[TABLE_SESSION_REPLIES]), Bound::Excluded(&end)) {
            let (row_key, _) = row?;
            let number = rows::read_number(&row_key[1..])?;
            let sequence = rows::read_number(&row_key[9..])?;
            let session = open
                .sessions
                .get_mut(&number)
                .ok_or_else(|| StoreError::corrupt(format!("a reply of session {number}, which is gone")))?;
            session.recorded.insert(sequence);
            open.replies += 1;
        }
        Ok(open)
    }

    /// Sessions in memory, those expired and not yet dropped included.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Recorded replies over all sessions.
    pub(crate) fn replies(&self) -> usize {
        self.replies
    }

    /// Drops some of what has expired.
    pub(crate) fn expire(&mut self, side: &mut SideLayers<'_>, now_ms: u64) -> Result<(), StoreError> {
        let enough = self.replies.saturating_sub(EXPIRED_PER_ENTRY);
        for _ in 0..EXPIRED_PER_ENTRY {
            if !self.expire_one(side, now_ms)? || self.replies <= enough {
                break;
            }
        }
        Ok(())
    }

    /// Whether there is something to drop.
    pub(crate) fn has_expired(&self, now_ms: u64) -> bool {
        self.order.first().is_some_and(|(used_ms, _)| self.is_expired(*used_ms, now_ms))
    }

    fn expire_one(&mut self, side: &mut SideLayers<'_>, now_ms: u64) -> Result<bool, StoreError> {
        match self.order.first() {
            Some(&(used_ms, number)) if self.is_expired(used_ms, now_ms) => {
                self.drop_session(side, number)?
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn is_expired(&self, used_ms: u64, now_ms: u64) -> bool {
        used_ms.saturating_add(self.limits.ttl_ms) <= now_ms
    }

    fn drop_session(&mut self, side: &mut SideLayers<'_>, number: u64) -> Result<(), StoreError> {
        let Some(session) = self.sessions.remove(&number) else { return Ok(()) };
        self.order.remove(&(session.used_ms, number));
        self.replies -= session.recorded.len();
        for sequence in session.recorded {
            side.forget(TABLE_SESSION_REPLIES, &rows::session_key(number, sequence))?;
        }
        side.delete(rows::number_key(TABLE_SESSIONS, number));
        Ok(())
    }

    /// Opens a session under a number that was never used, or says that there are too many.
    pub(crate) fn open_session(
        &mut self,
        side: &mut SideLayers<'_>,
        now_ms: u64,
        number: u64,
    ) -> Result<bool, StoreError> {
        while self.sessions.len() >= self.limits.sessions {
            if !self.expire_one(side, now_ms)? {
                return Ok(false);
            }
        }
        let session = Session { used_ms: now_ms, lowest_unfinished: 0, recorded: BTreeSet::new() };
        put_session(side, number, &session, true);
        self.sessions.insert(number, session);
        self.order.insert((now_ms, number));
        Ok(true)
    }

    /// What a request of a session is at this time. Any request keeps its session alive.
    pub(crate) fn admit(
        &mut self,
        side: &mut SideLayers<'_>,
        now_ms: u64,
        request: &SessionRequest,
    ) -> Result<Admission, StoreError> {
        let number = request.session;
        let Some(used_ms) = self.sessions.get(&number).map(|session| session.used_ms) else {
            return Ok(Admission::Expired);
        };
        if self.is_expired(used_ms, now_ms) {
            self.drop_session(side, number)?;
            return Ok(Admission::Expired);
        }
        self.touch(side, now_ms, number, request.lowest_unfinished)?;
        let session = &self.sessions[&number];
        if request.sequence < session.lowest_unfinished {
            return Ok(Admission::Expired);
        }
        if session.recorded.contains(&request.sequence) {
            let key = rows::session_key(number, request.sequence);
            return Ok(Admission::of(side.recorded(TABLE_SESSION_REPLIES, &key)?, &request.fingerprint));
        }
        while self.replies >= self.limits.replies {
            if !self.expire_one(side, now_ms)? {
                return Ok(Admission::Full);
            }
        }
        Ok(Admission::New)
    }

    /// Notes the use of a session, and forgets what its client has confirmed.
    fn touch(
        &mut self,
        side: &mut SideLayers<'_>,
        now_ms: u64,
        number: u64,
        lowest_unfinished: u64,
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get_mut(&number) else { return Ok(()) };
        self.order.remove(&(session.used_ms, number));
        self.order.insert((now_ms, number));
        session.used_ms = now_ms;
        if lowest_unfinished > session.lowest_unfinished {
            session.lowest_unfinished = lowest_unfinished;
            let kept = session.recorded.split_off(&lowest_unfinished);
            for sequence in std::mem::replace(&mut session.recorded, kept) {
                self.replies -= 1;
                side.forget(TABLE_SESSION_REPLIES, &rows::session_key(number, sequence))?;
            }
        }
        put_session(side, number, session, false);
        Ok(())
    }

    /// Records the reply to a request that was admitted as new.
    pub(crate) fn record(
        &mut self,
        side: &mut SideLayers<'_>,
        now_ms: u64,
        request: &SessionRequest,
        reply: &Reply,
    ) {
        let Some(session) = self.sessions.get_mut(&request.session) else { return };
        session.recorded.insert(request.sequence);
        self.replies += 1;
        let key = rows::session_key(request.session, request.sequence);
        let fingerprint: &Bytes = &request.fingerprint;
        side.record(TABLE_SESSION_REPLIES, &key, fingerprint, now_ms, reply);
    }
}

fn put_session(side: &mut SideLayers<'_>, number: u64, session: &Session, absent_beneath: bool) {
    let row = SessionRow { used_ms: session.used_ms, lowest_unfinished: session.lowest_unfinished };
    side.put(rows::number_key(TABLE_SESSIONS, number), row.encode_to_vec(), absent_beneath);
}
