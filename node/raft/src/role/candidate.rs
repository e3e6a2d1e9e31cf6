//! Elections from the asking side: pre-vote, then vote (Raft thesis 3.4, 9.6).
//!
//! A pre-vote asks whether a quorum would vote, and changes no one's term: a node that was cut off does not
//! depose a working leader when it returns. An own vote counts like any other's: once it is durable.

use crate::message::{Body, Message};
use crate::node::Raft;
use crate::persist::After;
use crate::quorum::{VoteResult, joint_vote};
use crate::role::RoleState;
use crate::types::{HardState, NodeId, Term};
use std::collections::BTreeMap;

/// The answers so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidacy {
    votes: BTreeMap<NodeId, bool>,
    /// A broken connection began it, not the timer: others are likely to have begun at the same moment.
    pub(crate) hasty: bool,
}

impl Raft {
    /// The election timer of all but leaders.
    pub(crate) fn tick_election(&mut self) {
        self.elapsed = self.elapsed.saturating_add(1);
        // A single voter has nobody to wait for.
        let alone = self.log.membership().all_voters().eq([self.config.id]);
        if self.elapsed < self.timeout && !(alone && matches!(self.role, RoleState::Follower)) {
            return;
        }
        if matches!(self.role, RoleState::Candidate(_)) {
            self.pace.gave_up();
        }
        if self.may_campaign() {
            self.become_pre_candidate(false);
        } else {
            // A learner, or one whose disk hangs, cannot help it, but does not claim to know a leader.
            self.leader = None;
        }
    }

    /// Whether this node may ask for votes: its disk could serve a leader, and it votes by the newest
    /// membership or by one that this may yet fall back to. A node that holds its own removal, uncommitted,
    /// may be the only one that can be elected: it campaigns, and does not count itself (thesis 4.2.2).
    pub(crate) fn may_campaign(&self) -> bool {
        self.log.is_possible_voter(self.config.id) && !self.is_disk_stalled()
    }

    /// Asks everyone whether they would vote for this node in the next term.
    pub(crate) fn become_pre_candidate(&mut self, hasty: bool) {
        self.leader = None;
        self.reset_election_timer();
        let votes = BTreeMap::from([(self.config.id, true)]);
        self.role = RoleState::PreCandidate(Candidacy { votes, hasty });
        for voter in self.other_voters() {
            self.ask_pre_vote(voter);
        }
        self.count_votes();
    }

    /// Asks one node whether it would vote for this one.
    pub(crate) fn ask_pre_vote(&mut self, to: NodeId) {
        let (last_index, last_term) = (self.log.last(), self.log.last_term());
        let (from, term) = (self.config.id, self.hard_state.term.next());
        self.send_message(
            After::Nothing,
            Message { from, to, term, body: Body::PreVote { last_index, last_term } },
        );
    }

    /// Enters the next term, votes for itself, and asks everyone to do so, too. `transfer`: the leader itself
    /// asked for it.
    pub(crate) fn become_candidate(&mut self, transfer: bool) {
        self.leader = None;
        self.reset_election_timer();
        let term = self.hard_state.term.next();
        self.hard_state = HardState { term, vote: Some(self.config.id) };
        self.hard_state_unsent = true;
        self.role = RoleState::Candidate(Candidacy::default());
        let (last_index, last_term) = (self.log.last(), self.log.last_term());
        for voter in self.other_voters() {
            self.send(After::HardState, voter, Body::Vote { last_index, last_term, transfer });
        }
    }

    fn other_voters(&self) -> Vec<NodeId> {
        self.log.membership().all_voters().filter(|&id| id != self.config.id).collect()
    }

    pub(crate) fn handle_pre_vote_reply(&mut self, from: NodeId, term: Term, granted: bool) {
        let asked = self.hard_state.term.next();
        // A yes carries the term that was asked for, a no the term of who answers; others are answers to
        // older questions.
        let current = if granted { term == asked } else { term == self.hard_state.term };
        if let RoleState::PreCandidate(candidacy) = &mut self.role
            && current
        {
            candidacy.votes.insert(from, granted);
            self.count_votes();
        }
    }

    pub(crate) fn handle_vote_reply(&mut self, from: NodeId, granted: bool) {
        if let RoleState::Candidate(candidacy) = &mut self.role {
            candidacy.votes.insert(from, granted);
            self.count_votes();
        } else {
            self.pace.late_answer(self.now);
        }
    }

    /// A write completed: if that made our vote for ourselves durable, it counts from now on (hazard 4).
    pub(crate) fn maybe_count_own_vote(&mut self) {
        let durable = !self.hard_state_unsent && self.pipeline.waits_for(After::HardState).is_none();
        if let RoleState::Candidate(candidacy) = &mut self.role
            && durable
            && candidacy.votes.insert(self.config.id, true).is_none()
        {
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let (RoleState::PreCandidate(candidacy) | RoleState::Candidate(candidacy)) = &self.role else {
            return;
        };
        let result = joint_vote(self.log.membership(), |id| candidacy.votes.get(&id).copied());
        match (result, &self.role) {
            (VoteResult::Pending, _) => {}
            (VoteResult::Lost, _) => self.become_follower(self.hard_state.term, None),
            (VoteResult::Won, RoleState::PreCandidate(_)) => self.become_candidate(false),
            (VoteResult::Won, _) => self.become_leader(),
        }
    }
}
