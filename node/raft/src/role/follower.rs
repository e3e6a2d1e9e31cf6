//! Following: appends, votes, snapshots, and the loss of a leader.

use crate::message::{Body, Message};
use crate::node::Raft;
use crate::persist::After;
use crate::quorum::has_quorum;
use crate::ready::SnapshotMeta;
use crate::role::RoleState;
use crate::types::{Entry, HardState, Index, NodeId, Term};

/// Whether a snapshot that a leader offers is worth its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotDecision {
    /// Stream it, make its state durable, then call [`Raft::install_snapshot`].
    Wanted,
    /// It brings nothing new, or its sender no longer leads. The core answers the sender itself.
    Stale,
}

impl Raft {
    /// Follows, in this term or a higher one. Does not touch a vote of the same term.
    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.hard_state.term, "term {} to {term}", self.hard_state.term);
        if term > self.hard_state.term {
            self.hard_state = HardState { term, vote: None };
            self.hard_state_unsent = true;
        }
        // Only a leader's message or a granted vote puts an election off (hazard 9); one that led has no
        // timer to go on with.
        let led = matches!(self.role, RoleState::Leader(_));
        if led || leader.is_some() {
            self.reset_election_timer();
        }
        if let RoleState::Leader(leader) = std::mem::replace(&mut self.role, RoleState::Follower) {
            leader.reads.drop_all(&mut self.reads_dropped);
            self.snapshots_wanted.clear();
        }
        self.leader = leader;
    }

    /// The sender of an append, heartbeat or snapshot of our term leads it.
    pub(crate) fn follow(&mut self, from: NodeId) {
        let term = self.hard_state.term;
        assert!(!self.is_leader(), "{from} leads term {term}, as does this node, {}", self.config.id);
        if let Some(other) = self.leader {
            assert_eq!(other, from, "two leaders of term {term}");
        }
        let silent = self.heard.filter(|(of, _)| *of == term).map_or(0, |(_, at)| self.now - at);
        self.pace.was_silent(self.now, silent);
        self.heard = Some((term, self.now));
        // Whatever became of our connection, it is being heard.
        self.disconnected.remove(&from);
        self.become_follower(term, Some(from));
    }

    /// Whether there is a leader that this node must stand by: itself, or one heard from within the shortest
    /// election timeout, to which our connection holds.
    pub(crate) fn is_leader_alive(&self) -> bool {
        self.is_leader()
            || self.leader.is_some_and(|leader| {
                self.elapsed < self.pace.timeout() && !self.disconnected.contains(&leader)
            })
    }

    /// Our connection to `peer` broke. If it leads, an election need not wait for the timer (the contract,
    /// Peers). Report it after all messages that had arrived by then.
    pub fn handle_connection_lost(&mut self, peer: NodeId) {
        if self.is_leader() {
            return self.handle_unreachable(peer);
        }
        if self.leader == Some(peer) || self.log.membership().is_member(peer) {
            self.disconnected.insert(peer);
        }
        if self.leader == Some(peer) && self.may_campaign() {
            self.become_pre_candidate(true);
        }
    }

    /// We are connected to `peer` again.
    pub fn handle_connection_restored(&mut self, peer: NodeId) {
        self.disconnected.remove(&peer);
    }

    /// Nobody has led or campaigned since this node started, and it has reached those for whom `is_reachable` holds. Where
    /// they are a quorum, an election need not wait for the timer: if there is a leader, they know it, and refuse (thesis
    /// 9.6). To be reported with every connection that comes to stand, since answers may not have found their way before.
    pub fn maybe_hasten_first_election(&mut self, is_reachable: impl Fn(NodeId) -> bool) {
        let idle = matches!(self.role, RoleState::Follower | RoleState::PreCandidate(_));
        if idle
            && self.leader.is_none()
            && self.may_campaign()
            && has_quorum(self.log.membership(), |id| id == self.config.id || is_reachable(id))
        {
            self.become_pre_candidate(true);
        }
    }

    /// Someone asks whether we would vote for it. Nothing changes here, but for an own candidacy that gives
    /// way. Learners answer too: one that has not heard of its promotion must (hazard 17).
    pub(crate) fn handle_pre_vote(&mut self, from: NodeId, term: Term, last_index: Index, last_term: Term) {
        let open = term > self.hard_state.term || self.may_vote_for(from);
        let mut granted = open && !self.is_leader_alive() && self.log.is_up_to_date(last_index, last_term);
        // When a leader's connections break, all its followers ask at the same moment. Of equals the least
        // goes first, so that they do not split the vote; the timer of whoever gave way still runs.
        if let RoleState::PreCandidate(candidacy) = &self.role
            && granted
            && candidacy.hasty
        {
            let equal = (last_index, last_term) == (self.log.last(), self.log.last_term());
            if equal && self.config.id < from {
                granted = false;
                // It may have said no before it lost the leader, too.
                self.ask_pre_vote(from);
            } else {
                self.become_follower(self.hard_state.term, None);
            }
        }
        // A yes is for the term asked about; a no tells ours.
        let term = if granted { term } else { self.hard_state.term };
        let reply = Message { from: self.config.id, to: from, term, body: Body::PreVoteReply { granted } };
        self.send_message(After::Nothing, reply);
    }

    /// Someone asks for our vote in our term.
    pub(crate) fn handle_vote(&mut self, from: NodeId, last_index: Index, last_term: Term) {
        let granted = self.may_vote_for(from) && self.log.is_up_to_date(last_index, last_term);
        if granted {
            if self.hard_state.vote.is_none() {
                self.hard_state.vote = Some(from);
                self.hard_state_unsent = true;
            }
            self.become_follower(self.hard_state.term, None);
            self.reset_election_timer();
        }
        self.send(After::HardState, from, Body::VoteReply { granted });
    }

    /// One vote a term; none where the term has a leader already.
    fn may_vote_for(&self, candidate: NodeId) -> bool {
        match self.hard_state.vote {
            Some(vote) => vote == candidate && self.leader.is_none(),
            None => self.leader.is_none(),
        }
    }

    /// The leader replicates entries after (`prev_index`, `prev_term`).
    pub(crate) fn handle_append(
        &mut self,
        from: NodeId,
        (mut prev_index, mut prev_term): (Index, Term),
        mut entries: Vec<Entry>,
        commit: Index,
    ) {
        if !is_well_formed(prev_index, prev_term, &entries, self.hard_state.term) {
            return;
        }
        // What is committed here is in every leader's log: begin behind it.
        let committed = self.log.commit();
        if prev_index < committed {
            let known = (committed.0 - prev_index.0).min(entries.len() as u64) as usize;
            entries.drain(..known);
            prev_index = committed;
            prev_term = self.log.term_at(committed).unwrap_or(prev_term);
        }
        if !self.log.matches(prev_index, prev_term) {
            let reply = self.rejection(prev_index, prev_term);
            return self.send(After::HardState, from, reply);
        }
        let verified = Index(prev_index.0 + entries.len() as u64);
        self.append_unless_known(entries);
        // What lies beyond was not compared with the leader's log (hazard 6).
        self.log.commit_to(commit.min(verified));
        self.send(After::Log, from, Body::AppendAccepted { match_index: verified });
    }

    /// The leader is alive, and tells how far it has committed. A heartbeat that only brings news of a commit is
    /// not answered: the append that made it possible was, and the next heartbeat without news will be.
    pub(crate) fn handle_heartbeat(&mut self, from: NodeId, commit: Index, context: u64) {
        let news = self.log.commit_to(commit);
        let question = (self.hard_state.term, context);
        if !news || self.answered != question {
            self.answered = question;
            self.send(After::HardState, from, Body::HeartbeatReply { context });
        }
    }

    /// Appends what the log does not hold, truncating only where an entry really differs (hazard 5).
    fn append_unless_known(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            match self.log.term_at(entry.index) {
                Some(term) if term == entry.term => continue,
                Some(_) => self.truncate(entry.index),
                None => {}
            }
            self.membership_changed |= self.log.append(entry);
        }
    }

    fn truncate(&mut self, from: Index) {
        self.membership_changed |= self.log.truncate(from);
        self.pipeline.truncate(from);
    }

    /// Says where to look for a match instead: the leader's entries up to `prev_index` have terms of at most
    /// `prev_term`, so ours with higher terms cannot match.
    fn rejection(&self, prev_index: Index, prev_term: Term) -> Body {
        let hint = self.log.last_with_term_at_most(prev_index.min(self.log.last()), prev_term);
        let hint_index = hint.max(self.log.commit());
        let hint_term = self.log.term_at(hint_index).unwrap_or_default();
        Body::AppendRejected { prev_index, hint_index, hint_term }
    }

    /// The leader hands over: campaign at once, without asking first. A target that lacks part of the
    /// leader's log would lose, and a message that was overtaken by another leader is of another term (hazard
    /// 12).
    pub(crate) fn handle_timeout_now(&mut self, from: NodeId, last_index: Index) {
        if self.leader == Some(from) && self.log.last() >= last_index && self.may_campaign() {
            self.become_candidate(true);
        }
    }

    /// A peer that leads `term` offers a snapshot.
    pub fn offer_snapshot(&mut self, from: NodeId, term: Term, meta: &SnapshotMeta) -> SnapshotDecision {
        if term < self.hard_state.term {
            self.send(After::HardState, from, Body::HeartbeatReply { context: 0 });
            return SnapshotDecision::Stale;
        }
        if meta.term > term {
            // Taken after the sender had ceased to lead that term: whoever leads now will offer its own.
            return SnapshotDecision::Stale;
        }
        if term > self.hard_state.term {
            self.become_follower(term, Some(from));
        }
        self.follow(from);
        if self.log.matches(meta.index, meta.term) {
            self.log.commit_to(meta.index);
        }
        if meta.index <= self.log.commit() {
            let match_index = self.log.commit();
            self.send(After::Log, from, Body::SnapshotInstalled { match_index });
            return SnapshotDecision::Stale;
        }
        SnapshotDecision::Wanted
    }

    /// The state of a snapshot is durable: begin the log anew behind it. `false`: it is no longer wanted (we
    /// have committed as much by now, or lead); the driver drops that state and keeps its own.
    pub fn install_snapshot(&mut self, meta: SnapshotMeta) -> bool {
        if self.is_leader() || meta.index <= self.log.commit() || meta.term > self.hard_state.term {
            return false;
        }
        self.log.install_snapshot(&meta);
        self.pipeline.truncate(Index::ZERO);
        self.membership_changed = true;
        let match_index = meta.index;
        self.snapshot_unsent = Some(meta);
        if let Some(leader) = self.leader {
            self.send(After::Log, leader, Body::SnapshotInstalled { match_index });
        }
        true
    }
}

/// Whether entries follow one another and their terms make sense.
fn is_well_formed(prev_index: Index, prev_term: Term, entries: &[Entry], leader_term: Term) -> bool {
    let (mut index, mut term) = (prev_index, prev_term);
    for entry in entries {
        if entry.index != index.next() || entry.term < term {
            return false;
        }
        (index, term) = (entry.index, entry.term);
    }
    term <= leader_term
}
