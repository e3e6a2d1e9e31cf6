//! What must always hold, whatever happens (figure 3.2 of the Raft thesis), as checks of one step against all that was
//! ever true.
//!
//! - *Election safety*: a term has at most one leader.
//! - *One vote*: a node votes at most once a term, on its disk and in what it says.
//! - *Log matching*: where two logs have an entry of the same index and term, they are equal up to there.
//! - *Leader completeness*: whoever leads a term has all that was committed in earlier terms.
//! - *State machine safety*: no two nodes commit different entries at an index.
//! - *Commit never regresses* while a node runs.
//! - *Every decision has its quorum, of both sets while joint*: a new leader's votes, and what a leader commits, are on
//!   the disks of a majority of each set of voters of its membership. So no two disjoint quorums decide.
//! - *A leader commits by entries of its own term* (thesis 3.6.2): what it commits ends with one.
//!
//! Knows facts, not cores.

use crate::site::Facts;
use balsa_raft::{Body, Index, Message, NodeId, Role, Term};
use std::collections::BTreeMap;

/// All that was ever true and that a property needs.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Truth {
    /// Who led each term.
    pub leaders: BTreeMap<Term, NodeId>,
    /// For whom each node voted in each term.
    pub votes: BTreeMap<(NodeId, Term), NodeId>,
    /// What was committed, from index 1: the entry, and the lowest term in which a node knew.
    pub committed: Vec<((Term, u64), Term)>,
}

/// One node's step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Whose.
    pub id: NodeId,
    /// Before it.
    pub before: &'a Facts,
    /// After it.
    pub after: &'a Facts,
    /// Whether it was a crash.
    pub crashed: bool,
}

impl Truth {
    /// Takes a step into account; says which property it breaks. `all` are all nodes' facts after the step, by identity
    /// from 1; `sent` what left with it.
    pub fn observe(&mut self, step: Step<'_>, all: &[&Facts], sent: &[&Message]) -> Result<(), String> {
        let Step { id, before, after, crashed } = step;
        if let Some(vote) = after.hard_state.vote {
            self.vote(id, after.hard_state.term, vote)?;
        }
        for message in sent {
            if let Body::VoteReply { granted: true } = message.body {
                self.vote(id, message.term, message.to)?;
            }
        }
        if !crashed && after.commit < before.commit {
            return Err(format!(
                "commit never regresses: node {id} from {} to {}",
                before.commit, after.commit
            ));
        }
        let leads = after.role == Role::Leader;
        if leads && (before.role != Role::Leader || before.term != after.term) {
            self.elected(id, after, all)?;
        }
        if after.commit > before.commit {
            if leads {
                let index = after.commit.0 as usize;
                if after.log.get(index - 1).is_none_or(|(term, _)| *term != after.term) {
                    return Err(format!(
                        "a leader commits by entries of its own term: {id} in term {} commits {index}, which is of another",
                        after.term
                    ));
                }
                let holds = |facts: &Facts| facts.durable.get(index - 1) == after.log.get(index - 1);
                check_quorums(after, all, holds).map_err(|set| {
                    format!("every decision has its quorum: node {id} commits {index} without a majority of {set:?}")
                })?;
            }
            self.commit(id, after)?;
        }
        Ok(())
    }

    fn vote(&mut self, id: NodeId, term: Term, vote: NodeId) -> Result<(), String> {
        let first = *self.votes.entry((id, term)).or_insert(vote);
        if first != vote {
            return Err(format!("one vote: node {id} votes for {first} and for {vote} in term {term}"));
        }
        Ok(())
    }

    fn elected(&mut self, id: NodeId, after: &Facts, all: &[&Facts]) -> Result<(), String> {
        let term = after.term;
        let first = *self.leaders.entry(term).or_insert(id);
        if first != id {
            return Err(format!("election safety: {first} and {id} lead term {term}"));
        }
        for (at, (entry, known_in)) in self.committed.iter().enumerate() {
            if *known_in < term && after.log.get(at) != Some(entry) {
                return Err(format!(
                    "leader completeness: {id}, leader of term {term}, lacks committed entry {}",
                    at + 1
                ));
            }
        }
        let voted = |voter: NodeId| self.votes.get(&(voter, term)) == Some(&id);
        check_voters(after, voted).map_err(|set| {
            format!("every decision has its quorum: {id} leads term {term} without a majority of {set:?}")
        })?;
        debug_assert!(all.len() >= after.membership.all_voters().count(), "a voter that does not exist");
        Ok(())
    }

    fn commit(&mut self, id: NodeId, after: &Facts) -> Result<(), String> {
        for at in 0..after.commit.0 as usize {
            let index = Index(at as u64 + 1);
            let Some(entry) = after.log.get(at).copied() else {
                return Err(format!("state machine safety: {id} commits {index} beyond its log"));
            };
            match self.committed.get_mut(at) {
                None => self.committed.push((entry, after.term)),
                Some((truth, _)) if *truth != entry => {
                    return Err(format!(
                        "state machine safety: {id} commits another entry {index}: of term {}, not {}",
                        entry.0, truth.0
                    ));
                }
                Some((_, known_in)) => *known_in = (*known_in).min(after.term),
            }
        }
        Ok(())
    }
}

/// Whether a majority of each set of voters holds; else, a set that lacks one.
fn check_quorums(leader: &Facts, all: &[&Facts], holds: impl Fn(&Facts) -> bool) -> Result<(), Vec<NodeId>> {
    check_voters(leader, |voter| all.get(voter.0 as usize - 1).is_some_and(|facts| holds(facts)))
}

fn check_voters(leader: &Facts, holds: impl Fn(NodeId) -> bool) -> Result<(), Vec<NodeId>> {
    for set in [&leader.membership.voters, &leader.membership.outgoing] {
        let held = set.iter().filter(|voter| holds(**voter)).count();
        if !set.is_empty() && held * 2 <= set.len() {
            return Err(set.iter().copied().collect());
        }
    }
    Ok(())
}

/// Log matching of two nodes.
pub fn check_log_matching(one: &Facts, other: &Facts) -> Result<(), String> {
    let common = one.log.len().min(other.log.len());
    let matching = (0..common).rev().find(|&at| one.log[at].0 == other.log[at].0);
    match matching {
        Some(last) if one.log[..=last] != other.log[..=last] => {
            Err(format!("log matching: logs that agree at {} differ before", last + 1))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balsa_raft::{HardState, Membership};

    fn facts(role: Role, term: u64, commit: u64, terms: &[u64]) -> Facts {
        let log: Vec<(Term, u64)> = terms.iter().map(|term| (Term(*term), 7)).collect();
        Facts {
            role,
            term: Term(term),
            commit: Index(commit),
            durable: log.clone(),
            log,
            hard_state: HardState { term: Term(term), vote: None },
            leader: None,
            membership: Membership::of_voters([1, 2, 3].map(NodeId)),
            is_writing: false,
        }
    }

    /// The first node takes a step beside two followers with these logs.
    fn step(truth: &mut Truth, before: &Facts, after: &Facts, others: [&Facts; 2]) -> String {
        let step = Step { id: NodeId(1), before, after, crashed: false };
        truth.observe(step, &[after, others[0], others[1]], &[]).err().unwrap_or_default()
    }

    #[test]
    fn each_property_can_fail() {
        let follower = facts(Role::Follower, 2, 1, &[1, 2]);
        let leader = |commit, terms: &[u64]| facts(Role::Leader, 2, commit, terms);
        let mut truth = Truth::default();
        let voted = |truth: &mut Truth, voters: &[u64]| {
            voters.iter().for_each(|voter| {
                truth.votes.insert((NodeId(*voter), Term(2)), NodeId(1));
            });
        };
        let others = [&follower, &follower];
        assert!(step(&mut truth, &follower, &leader(1, &[1, 2]), others).contains("has its quorum"));
        voted(&mut truth, &[1, 3]);
        truth.leaders.clear();
        assert_eq!(step(&mut truth, &follower, &leader(1, &[1, 2]), others), "");
        let (before, after) = (leader(1, &[1, 2]), leader(2, &[1, 2]));
        let empty = facts(Role::Follower, 2, 0, &[1]);
        assert!(step(&mut truth.clone(), &before, &after, [&empty, &empty]).contains("without a majority"));
        assert_eq!(step(&mut truth, &before, &after, [&follower, &empty]), "");
        assert!(step(&mut truth.clone(), &after, &before, others).contains("never regresses"));
        let other = facts(Role::Follower, 3, 2, &[1, 3]);
        assert!(step(&mut truth.clone(), &empty, &other, others).contains("state machine safety"));
        let old = facts(Role::Leader, 4, 2, &[1, 3]);
        assert!(
            step(&mut Truth::default(), &facts(Role::Leader, 4, 1, &[1, 3]), &old, others)
                .contains("own term")
        );
        let newer = facts(Role::Leader, 5, 2, &[1, 3]);
        assert!(step(&mut truth.clone(), &other, &newer, others).contains("leader completeness"));
        let mut twice = truth.clone();
        twice.leaders.insert(Term(2), NodeId(3));
        assert!(step(&mut twice, &follower, &before, others).contains("election safety"));
        let mut votes = follower.clone();
        votes.hard_state.vote = Some(NodeId(2));
        assert!(step(&mut truth, &follower, &votes, others).contains("one vote"));
        assert!(
            check_log_matching(
                &facts(Role::Follower, 2, 0, &[1, 2, 2]),
                &facts(Role::Follower, 2, 0, &[1, 1, 2])
            )
            .is_err()
        );
        assert!(
            check_log_matching(&facts(Role::Follower, 2, 0, &[1, 1]), &facts(Role::Follower, 2, 0, &[1, 2]))
                .is_ok()
        );
    }
}
