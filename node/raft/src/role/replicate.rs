//! What a leader sends, built once per Ready: appends, heartbeats, and the wish to be succeeded.
//!
//! One append a peer carries all that was proposed since the last Ready. Where [`crate::Config::gather_appends`] says so, what
//! comes while such an append is unanswered is gathered for the next one, for a tick at most: fewer and larger writes to
//! each disk. (As Minshall's variant of Nagle's algorithm does with segments.) A commit index travels with the next
//! append; a peer that has nothing in flight, and so no next append in sight, is told at once by a heartbeat.
//! A read round is a heartbeat as well: what it confirms, it also brings.

use crate::log::Log;
use crate::message::Body;
use crate::node::Raft;
use crate::persist::After;
use crate::progress::{Progress, Sending, Window};
use crate::role::RoleState;
use crate::status::PeerState;
use crate::types::{Index, NodeId};

/// How the sending of a snapshot ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotOutcome {
    /// The peer has all of it.
    Done {
        /// The snapshot's index.
        index: Index,
    },
    /// It did not arrive, or there was none to send.
    Failed,
}

impl Raft {
    /// Queues all that a leader owes its peers.
    pub(crate) fn prepare_leader_messages(&mut self) {
        let config = &self.config;
        let window =
            Window { max_messages: config.max_inflight_appends, max_bytes: config.max_inflight_bytes };
        let (max_append_bytes, gathers) = (config.max_append_bytes, config.gather_appends);
        let RoleState::Leader(leader) = &mut self.role else { return };

        let new_round = leader.reads.begin_round();
        let heartbeat_due = std::mem::take(&mut leader.heartbeat_due);
        let (context, commit) = (leader.reads.context(), self.log.commit());
        let mut messages: Vec<(NodeId, Body)> = Vec::new();
        for (&id, peer) in &mut leader.peers {
            if needs_snapshot(peer, &self.log, window, self.now) {
                // One that does not answer could not take it either.
                if peer.active {
                    peer.become_snapshot();
                    self.snapshots_wanted.push(id);
                }
            } else {
                while let Some(body) = next_append(peer, &self.log, window, max_append_bytes, self.now) {
                    messages.push((id, body));
                    if gathers && peer.next > self.log.last() {
                        peer.gather(self.now);
                    }
                }
            }
            let verified = commit.min(peer.matched);
            let asks_reads = new_round && self.log.membership().is_voter(id);
            if heartbeat_due || asks_reads || (peer.is_idle() && peer.commit_told < verified) {
                peer.commit_told = peer.commit_told.max(verified);
                messages.push((id, Body::Heartbeat { commit: verified, context }));
            }
        }
        // Who leaves has seen the entry that removes it, and that it is committed.
        leader
            .peers
            .retain(|_, peer| peer.departing.is_none_or(|at| at > peer.matched || at > peer.commit_told));

        if let Some(transfer) = &mut leader.transfer
            && !transfer.asked
            && leader.peers.get(&transfer.to).is_some_and(|peer| peer.matched == self.log.last())
        {
            transfer.asked = true;
            messages.push((transfer.to, Body::TimeoutNow { last_index: self.log.last() }));
        }
        let retires = leader.retires;
        for (to, body) in messages {
            self.send(After::HardState, to, body);
        }
        if new_round {
            // A single voter is its own quorum.
            self.confirm_reads();
        }
        if retires {
            self.retire();
        }
    }

    /// The sending of a snapshot that was wanted has ended.
    pub fn handle_snapshot_sent(&mut self, peer: NodeId, outcome: SnapshotOutcome) {
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peers.get_mut(&peer)
        {
            match outcome {
                SnapshotOutcome::Done { index } => peer.snapshot_sent(index.min(self.log.last()), self.now),
                SnapshotOutcome::Failed => peer.snapshot_failed(self.now),
            }
        }
    }
}

/// Whether what the peer should be sent now was compacted.
fn needs_snapshot(peer: &Progress, log: &Log, window: Window, now: u64) -> bool {
    peer.state() != PeerState::Snapshot
        && peer.next <= log.compacted()
        && peer.sending(log.last(), window, now) != Sending::Nothing
}

/// The next append for a peer, if one is due.
fn next_append(peer: &mut Progress, log: &Log, window: Window, max_bytes: usize, now: u64) -> Option<Body> {
    let sending = peer.sending(log.last(), window, now);
    if sending == Sending::Nothing {
        return None;
    }
    let prev_index = peer.next.prev();
    let prev_term = log.term_at(prev_index)?;
    let (entries, bytes) = match sending {
        Sending::Entries => log.entries_from(peer.next, max_bytes),
        Sending::Empty | Sending::Nothing => (Vec::new(), 0),
    };
    let last = Index(prev_index.0 + entries.len() as u64);
    peer.sent(last, bytes, log.commit(), now);
    Some(Body::Append { prev_index, prev_term, entries, commit: log.commit() })
}
