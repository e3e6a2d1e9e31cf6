//! The end of leases and of waits for locks: as leader, proposes it when cluster time has come.
//!
//! What is due is told by the store after each batch ([`balsa_store::Outlook`]); what ends is decided where the entry is
//! applied, by the time stamped on it and by the signs of life that came before it in the log. So a leader that was deposed
//! ends nothing: its entry is not committed, or it is, and then it stands before all that the next leader took. The next
//! leader's time goes on from the newest stamp in its log: what was left of a lease then is left of it still. So that this
//! stamp is never old, a leader without writes proposes the same entry now and then, while there is anything to end.
//!
//! Never early; late by a tick, a commit, and what ends before it: [`SLICE`] leases and keys a tick, 12,800 a second as the
//! tick is by default. So most of the time is left for writes, however many leases end at once. A change of leader adds the
//! time without one, and at most [`UNLOGGED_MS`] of the time before.

use super::Engine;
use super::event::Tickets;
use balsa_raft::Index;
use balsa_store::command::{Expire, Operation};

/// Leases that end with one entry, and keys that are deleted with them.
const SLICE: u32 = 128;

/// How much of cluster time may be unknown to the log while something is to end, in ms.
const UNLOGGED_MS: u64 = 1_000;

/// The entry that ends what is due, on its way; one at a time.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    proposed: Option<Index>,
}

impl<T: Tickets> Engine<T> {
    /// More was applied.
    pub(super) fn note_expired(&mut self) {
        self.expiry.proposed = self.expiry.proposed.filter(|proposed| *proposed > self.applied);
    }

    /// Another term, or another leader: what was proposed may be lost.
    pub(super) fn forget_expiry(&mut self) {
        self.expiry.proposed = None;
    }

    /// As leader: proposes to end what is due, or to have the time in the log.
    pub(super) fn maybe_expire(&mut self) {
        if !self.raft.is_leader() || self.expiry.proposed.is_some() {
            return;
        }
        let Some(due_ms) = self.outlook().due_ms else { return };
        let now_ms = self.now_ms;
        if self.clock.stamp(now_ms) >= due_ms || self.clock.unlogged_ms(now_ms) >= UNLOGGED_MS {
            self.expiry.proposed = self.propose_own(Operation::Expire(Expire { limit: SLICE }));
        }
    }
}
