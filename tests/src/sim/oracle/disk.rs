//! What each node's disk holds, as its log stage reported it, and what the node may therefore say.
//!
//! The core's own idea of what is durable is not asked: the jobs that the log stage finished are. A node that
//! acknowledges, votes or commits beyond them is caught when the message leaves, and not only when the power fails at that
//! moment; whether the log told the truth is seen at the next start.

use super::Violation;
use super::violated;
use balsa_node::engine::LogJob;
use balsa_raft::membership::Membership;
use balsa_raft::message::{Body, Message};
use balsa_raft::{HardState, Index, NodeId, Raft, Term};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One node's disk.
#[derive(Debug, Default, Clone)]
struct Durable {
    hard_state: HardState,
    /// The log reaches up to here; 0 at first.
    last: u64,
    /// What it has said that it holds, and in which term; lowered where a leader made it truncate.
    promised: Option<(u64, Term)>,
}

/// All disks, all votes.
#[derive(Debug, Default)]
pub struct Disks {
    nodes: BTreeMap<NodeId, Durable>,
    votes: HashMap<(NodeId, Term), NodeId>,
}

impl Disks {
    /// A node starts: all that it ever promised must be on its disk.
    pub fn starts(&mut self, raft: &Raft) -> Result<(), Violation> {
        let (node, last) = (raft.id(), raft.last_index().0);
        let hard_state = HardState { term: raft.term(), vote: raft.status().vote };
        let known = self.nodes.entry(node).or_default();
        let before = known.hard_state;
        if hard_state.term < before.term {
            violated!(
                "durability: {node} starts in term {}, and {} was durable",
                hard_state.term,
                before.term
            );
        }
        if hard_state.term == before.term && before.vote.is_some() && hard_state.vote != before.vote {
            violated!("durability: {node} forgot its vote for {:?} in term {}", before.vote, before.term);
        }
        if let Some((promised, term)) = known.promised {
            let held = raft.term_at(Index(promised));
            let compacted = Index(promised) < raft.first_index();
            if last < promised || (held != Some(term) && !compacted) {
                violated!(
                    "durability: {node} acknowledged {promised} of term {term} and starts with a log up to {last} ({held:?} there)"
                );
            }
        }
        (known.hard_state, known.last) = (hard_state, last);
        Ok(())
    }

    /// A job was given to a node's log: what it truncates is not promised any more.
    pub fn begins(&mut self, node: NodeId, job: &LogJob) {
        let LogJob::Persist { reset, entries, .. } = job else { return };
        match (entries.first(), reset) {
            (Some(first), _) => self.keeps(node, first.index.0 - 1),
            (None, Some(reset)) => self.keeps(node, reset.index.0),
            (None, None) => {}
        }
    }

    /// What a node holds beyond `index` gives way to a leader's log or snapshot.
    pub fn keeps(&mut self, node: NodeId, index: u64) {
        let known = self.nodes.entry(node).or_default();
        known.promised = known.promised.filter(|(promised, _)| *promised <= index);
    }

    /// A job is durable, says the log stage.
    pub fn ends(&mut self, node: NodeId, job: &LogJob) {
        let LogJob::Persist { hard_state, reset, entries, .. } = job else { return };
        let known = self.nodes.entry(node).or_default();
        if let Some(hard_state) = hard_state {
            known.hard_state = *hard_state;
        }
        if let Some(reset) = reset {
            known.last = reset.index.0;
        }
        if let Some(last) = entries.last() {
            known.last = last.index.0;
        }
    }

    /// A message leaves its sender. Gives whether it is a granted vote.
    pub fn sends(&mut self, sender: &Raft, message: &Message) -> Result<bool, Violation> {
        let (node, term) = (message.from, message.term);
        let known = self.nodes.entry(node).or_default();
        let ahead = term > known.hard_state.term;
        match message.body {
            Body::PreVote { .. } | Body::PreVoteReply { .. } => return Ok(false),
            _ if ahead => violated!(
                "durability: {node} says {:?} in term {term}; on its disk is term {}",
                message.body,
                known.hard_state.term
            ),
            Body::Vote { .. } => self.votes(node, term, node)?,
            Body::VoteReply { granted: true } => {
                self.votes(node, term, message.to)?;
                return Ok(true);
            }
            Body::AppendAccepted { match_index } | Body::SnapshotInstalled { match_index } => {
                if match_index.0 > known.last {
                    violated!(
                        "durability: {node} acknowledges {match_index}; on its disk is the log up to {}",
                        known.last
                    );
                }
                let further = known.promised.is_none_or(|(promised, _)| promised < match_index.0);
                if let Some(held) = sender.term_at(match_index).filter(|_| further) {
                    known.promised = Some((match_index.0, held));
                }
            }
            _ => {}
        }
        Ok(false)
    }

    fn votes(&mut self, voter: NodeId, term: Term, candidate: NodeId) -> Result<(), Violation> {
        let durable = self.nodes.get(&voter).map(|known| known.hard_state).unwrap_or_default();
        if durable.term == term && durable.vote != Some(candidate) {
            violated!("durability: {voter} votes for {candidate} in term {term}; on its disk is {durable:?}");
        }
        let earlier = *self.votes.entry((voter, term)).or_insert(candidate);
        if earlier != candidate {
            violated!("{voter} voted for {earlier} and for {candidate} in term {term}");
        }
        Ok(())
    }

    /// A node has become leader: a quorum, of both sets of voters while they are two, must have voted for it.
    pub fn elected(&self, leader: NodeId, term: Term, membership: &Membership) -> Result<(), Violation> {
        let voted = |voter: &NodeId| {
            let own = self.nodes.get(voter).map(|known| known.hard_state);
            self.votes.get(&(*voter, term)) == Some(&leader)
                || (*voter == leader && own == Some(HardState { term, vote: Some(leader) }))
        };
        match missing_quorum(membership, voted) {
            None => Ok(()),
            Some(set) => violated!("{leader} leads term {term} without a quorum's votes of {set:?}"),
        }
    }

    /// A leader has committed up to `index`: a quorum must hold that durably, and it must be of the leader's own term.
    /// `before`: the membership as the turn began; one that the turn appended, behind what it committed, had no say.
    pub fn committed(&self, raft: &Raft, index: Index, before: &Membership) -> Result<(), Violation> {
        let (leader, term) = (raft.id(), raft.term());
        if raft.term_at(index).is_some_and(|of| of != term) {
            violated!(
                "{leader} leads term {term} and commits {index}, an entry of an earlier term, by itself"
            );
        }
        let holds = |voter: &NodeId| self.nodes.get(voter).is_some_and(|known| known.last >= index.0);
        match missing_quorum(before, holds) {
            None => Ok(()),
            Some(set) => violated!("{leader} commits {index}, and no quorum of {set:?} has it on disk"),
        }
    }
}

/// A set of voters of which `present` names no majority.
fn missing_quorum(membership: &Membership, present: impl Fn(&NodeId) -> bool) -> Option<&BTreeSet<NodeId>> {
    let sets = [&membership.voters, &membership.outgoing];
    sets.into_iter()
        .find(|set| !set.is_empty() && set.iter().filter(|id| present(id)).count() <= set.len() / 2)
}
