//! Leading: the clock, the answers of peers, and what commits.
//!
//! The leader counts itself only up to what its own disk has confirmed (hazard 4), and counts only entries of
//! its own term; all before commit with them (thesis 3.6.2, hazard 1). It steps down when it has not heard
//! from a quorum for an election timeout, when its disk has stalled that long (hazard 13), and when an entry
//! that removes it has committed (thesis 4.2.2); in the latter two cases it names a successor.

use crate::message::Body;
use crate::node::Raft;
use crate::persist::After;
use crate::progress::Progress;
use crate::quorum::{has_quorum, joint_reached};
use crate::read::ReadQueue;
use crate::role::RoleState;
use crate::types::{Entry, EntryKind, Index, NodeId, Term};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a leader keeps for its term.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    /// Everyone it replicates to: the other members, and those that leave.
    pub(crate) peers: BTreeMap<NodeId, Progress>,
    pub(crate) reads: ReadQueue,
    pub(crate) transfer: Option<Transfer>,
    /// The first entry of its term, a no-op.
    pub(crate) term_start: Index,
    /// The sizes of the entries of its term that are not committed.
    pub(crate) uncommitted_bytes: usize,
    /// Heartbeats to all are due with the next Ready.
    pub(crate) heartbeat_due: bool,
    /// Its removal has committed: it steps down once the next Ready has told the others.
    pub(crate) retires: bool,
    ticks_since_heartbeat: u32,
    ticks_since_quorum_check: u32,
}

/// A leadership transfer under way (thesis 3.10).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    /// The target was told; repeated with each heartbeat.
    pub(crate) asked: bool,
    ticks: u32,
}

impl Transfer {
    pub(crate) fn new(to: NodeId) -> Transfer {
        Transfer { to, asked: false, ticks: 0 }
    }
}

impl Raft {
    /// A quorum voted for this node.
    pub(crate) fn become_leader(&mut self) {
        let next = self.log.last().next();
        self.leader = Some(self.config.id);
        self.role = RoleState::Leader(Box::new(Leader {
            peers: BTreeMap::new(),
            reads: ReadQueue::default(),
            transfer: None,
            term_start: next,
            uncommitted_bytes: 0,
            heartbeat_due: false,
            retires: false,
            ticks_since_heartbeat: 0,
            ticks_since_quorum_check: 0,
        }));
        self.update_peers(next, false);
        self.append_as_leader(EntryKind::Noop, Bytes::new());
    }

    /// Appends an entry of this term.
    pub(crate) fn append_as_leader(&mut self, kind: EntryKind, data: Bytes) -> (Term, Index) {
        let RoleState::Leader(leader) = &mut self.role else {
            unreachable!("{} appends as leader, being {:?}", self.config.id, self.role)
        };
        let (term, index) = (self.hard_state.term, self.log.last().next());
        let entry = Entry { index, term, kind, data };
        leader.uncommitted_bytes += entry.size_bytes();
        if self.log.append(entry) {
            self.membership_changed = true;
            self.update_peers(index, true);
        }
        (term, index)
    }

    /// Makes the peers those of the effective membership. New ones begin at `next`; those that are no longer
    /// members are served until they know (see [`Progress::departing`]).
    fn update_peers(&mut self, next: Index, active: bool) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let (me, at) = (self.config.id, self.log.membership_index());
        let members = self.log.membership().members();
        for &id in members.iter().filter(|&&id| id != me) {
            let peer = leader.peers.entry(id).or_insert_with(|| Progress::new(next, active, self.now));
            peer.departing = None;
        }
        for (id, peer) in &mut leader.peers {
            if !members.contains(id) && peer.departing.is_none() {
                peer.departing = Some(at);
            }
        }
        if leader.transfer.is_some_and(|transfer| !self.log.membership().is_voter(transfer.to)) {
            leader.transfer = None;
        }
    }

    /// The clock of a leader.
    pub(crate) fn tick_leader(&mut self) {
        if self.is_disk_stalled() {
            // The others need not find out by waiting.
            return self.retire();
        }
        let RoleState::Leader(leader) = &mut self.role else { return };
        leader.ticks_since_heartbeat += 1;
        if leader.ticks_since_heartbeat >= self.config.heartbeat_ticks {
            leader.ticks_since_heartbeat = 0;
            leader.heartbeat_due = true;
            if let Some(transfer) = &mut leader.transfer {
                transfer.asked = false;
            }
        }
        if let Some(transfer) = &mut leader.transfer {
            transfer.ticks += 1;
            if transfer.ticks >= self.pace.timeout() {
                leader.transfer = None;
            }
        }
        leader.ticks_since_quorum_check += 1;
        let mut heard = true;
        if leader.ticks_since_quorum_check >= self.pace.timeout() {
            leader.ticks_since_quorum_check = 0;
            let (me, peers) = (self.config.id, &leader.peers);
            heard = has_quorum(self.log.membership(), |id| {
                id == me || peers.get(&id).is_some_and(|peer| peer.active)
            });
            // Who leaves and is silent need not be told.
            let commit = self.log.commit();
            leader
                .peers
                .retain(|_, peer| peer.active || peer.departing.is_none_or(|removed_at| removed_at > commit));
            leader.peers.values_mut().for_each(|peer| peer.active = false);
        }
        if !heard {
            self.pace.gave_up();
            self.become_follower(self.hard_state.term, None);
        }
    }

    /// A peer holds the log durably up to `index`.
    pub(crate) fn handle_accepted(&mut self, from: NodeId, index: Index) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        assert!(index <= self.log.last(), "{from} holds {index}, beyond this leader's {}", self.log.last());
        self.pace.was_silent(self.now, peer.heard(self.now));
        peer.accepted(index, self.log.compacted(), self.now);
        self.maybe_commit();
    }

    /// A peer lacks what an append builds upon.
    pub(crate) fn handle_rejected(&mut self, from: NodeId, prev_index: Index, hint: (Index, Term)) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        self.pace.was_silent(self.now, peer.heard(self.now));
        if peer.is_current_rejection(prev_index) {
            // The peer's entries up to the hint have terms of at most the hint's: ours with higher terms
            // cannot match.
            let (hint_index, hint_term) = hint;
            let candidate = self.log.last_with_term_at_most(hint_index.min(prev_index.prev()), hint_term);
            peer.become_probe(candidate.next());
        }
    }

    /// A peer takes this node for the leader of the term.
    pub(crate) fn handle_heartbeat_reply(&mut self, from: NodeId, context: u64) {
        let RoleState::Leader(leader) = &mut self.role else { return self.pace.late_answer(self.now) };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        self.pace.was_silent(self.now, peer.heard(self.now));
        peer.alive(self.now, self.config.heartbeat_ticks);
        if context > peer.context && context <= leader.reads.context() {
            peer.context = context;
            self.confirm_reads();
        }
    }

    /// Confirms the reads whose context a quorum of current voters has acknowledged.
    pub(crate) fn confirm_reads(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        if !leader.reads.has_rounds() {
            return;
        }
        let (me, peers) = (self.config.id, &leader.peers);
        let acknowledged = joint_reached(self.log.membership(), |id| {
            if id == me { u64::MAX } else { peers.get(&id).map_or(0, |peer| peer.context) }
        });
        leader.reads.confirm(acknowledged.unwrap_or(0), &mut self.reads_confirmed);
    }

    /// Commits what a quorum holds durably, if it is of this term.
    pub(crate) fn maybe_commit(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else { return };
        let (me, peers, stable) = (self.config.id, &leader.peers, self.log.stable());
        let held = joint_reached(self.log.membership(), |id| {
            if id == me { stable } else { peers.get(&id).map_or(Index::ZERO, |peer| peer.matched) }
        });
        let Some(held) = held else { return };
        let before = self.log.commit();
        if held < leader.term_start || !self.log.commit_to(held) {
            return;
        }
        let commit = self.log.commit();
        let mut index = before.max(leader.term_start.prev()).next();
        while index <= commit {
            leader.uncommitted_bytes -= self.log.get(index).map_or(0, Entry::size_bytes);
            index = index.next();
        }
        leader.reads.release_early(commit);
        self.handle_membership_committed();
    }

    /// Ends a joint phase whose entry has committed; retires when this leader's own removal has.
    fn handle_membership_committed(&mut self) {
        if self.log.membership_index() > self.log.commit() {
            return;
        }
        let membership = self.log.membership();
        if membership.is_joint() {
            if membership.auto_leave
                && let Ok(left) = membership.leave_joint()
            {
                self.append_as_leader(EntryKind::Membership, left.encode());
            }
            return;
        }
        let removed = !membership.is_voter(self.config.id);
        if let RoleState::Leader(leader) = &mut self.role {
            leader.retires |= removed;
        }
    }

    /// Nothing reaches `peer` at present: find out where it is, once it shows life.
    pub fn handle_unreachable(&mut self, peer: NodeId) {
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peers.get_mut(&peer)
        {
            peer.unreachable();
        }
    }

    /// Leaves leadership to whoever is best placed: it has nothing to lead any more, or cannot. Should that one be
    /// gone, the others find out by themselves.
    pub(crate) fn retire(&mut self) {
        if let Some(to) = self.best_successor().or_else(|| self.furthest_voter(|_| true)) {
            self.send(After::HardState, to, Body::TimeoutNow { last_index: self.log.commit() });
        }
        self.become_follower(self.hard_state.term, None);
    }

    /// Of the voters that were heard from within an election timeout, the one that holds most of the log; of equals, the
    /// least.
    pub(crate) fn best_successor(&self) -> Option<NodeId> {
        self.furthest_voter(|peer| peer.active || peer.heard_within(self.pace.timeout(), self.now))
    }

    fn furthest_voter(&self, which: impl Fn(&Progress) -> bool) -> Option<NodeId> {
        let leader = self.leading()?;
        let voters =
            leader.peers.iter().filter(|(id, peer)| which(peer) && self.log.membership().is_voter(**id));
        voters.max_by_key(|(id, peer)| (peer.matched, std::cmp::Reverse(**id))).map(|(&id, _)| id)
    }
}
