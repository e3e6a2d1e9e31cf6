//! What must hold of a cluster whatever happens to it: figure 3.2 of the Raft thesis, and what reads promise.

use super::State;
use balsa_raft::{Entry, HardState, Index, NodeId, Raft, ReadConfirmed, ReadId, Role, Status, Term};
use std::collections::BTreeMap;

/// All that was ever true.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Election safety: one leader a term.
    leaders: BTreeMap<Term, NodeId>,
    /// One durable vote a node and term.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// The term of each index that any node took for committed.
    committed: BTreeMap<Index, Term>,
    /// State-machine safety: one state an index.
    states: BTreeMap<Index, State>,
    /// What was committed anywhere when each read arrived.
    reads: BTreeMap<ReadId, Index>,
    /// Where each node's commit index was observed last.
    observed: BTreeMap<NodeId, Index>,
    pub reads_confirmed: usize,
}

impl Oracle {
    /// The greatest index that any node ever took for committed.
    pub fn max_committed(&self) -> Index {
        self.committed.keys().next_back().copied().unwrap_or_default()
    }

    /// How many terms had a leader.
    pub fn terms_led(&self) -> usize {
        self.leaders.len()
    }

    pub fn observe(&mut self, raft: &Raft, status: &Status) {
        if status.role == Role::Leader {
            let before = self.leaders.insert(status.term, status.id);
            match before {
                None => self.check_completeness(raft),
                Some(other) => assert_eq!(other, status.id, "two leaders of term {}", status.term),
            }
        }
        let seen = self.observed.insert(status.id, status.commit).unwrap_or_default();
        let from = if seen <= status.commit { seen } else { Index::ZERO };
        let from = from.max(status.first.prev());
        for index in from.0 + 1..=status.commit.0 {
            let index = Index(index);
            let Some(term) = raft.term_at(index) else { continue };
            let truth = *self.committed.entry(index).or_insert(term);
            assert_eq!(truth, term, "{} commits another entry {index}", status.id);
        }
    }

    /// Leader completeness: a new leader's log holds all that was ever committed.
    fn check_completeness(&self, raft: &Raft) {
        for (&index, &term) in self.committed.range(raft.first_index()..) {
            assert_eq!(raft.term_at(index), Some(term), "leader {} lacks committed {index}", raft.id());
        }
    }

    pub fn voted(&mut self, id: NodeId, hard_state: HardState) {
        if let Some(vote) = hard_state.vote {
            let before = *self.votes.entry((id, hard_state.term)).or_insert(vote);
            assert_eq!(before, vote, "{id} voted twice in term {}", hard_state.term);
        }
    }

    pub fn applied(&mut self, id: NodeId, entry: &Entry, state: State) {
        let truth = *self.states.entry(entry.index).or_insert(state);
        assert_eq!(truth, state, "{id} has another state at {}", entry.index);
    }

    pub fn read_arrived(&mut self, read: ReadId) {
        self.reads.insert(read, self.max_committed());
    }

    pub fn read_confirmed(&mut self, id: NodeId, read: ReadConfirmed) {
        let floor = self.reads.remove(&read.id).expect("a read is confirmed once");
        assert!(read.index >= floor, "{id} confirms {read:?}, though {floor} was committed when it arrived");
        self.reads_confirmed += 1;
    }

    /// Log matching: equal index and term mean equal logs up to there.
    pub fn check_log_matching<'a>(rafts: impl Iterator<Item = &'a Raft> + Clone) {
        for a in rafts.clone() {
            for b in rafts.clone().filter(|b| b.id() > a.id()) {
                let first = a.first_index().max(b.first_index()).0;
                let last = a.last_index().min(b.last_index()).0;
                let mut equal = false;
                for index in (first..=last).rev().map(Index) {
                    let same = a.term_at(index) == b.term_at(index);
                    assert!(
                        same || !equal,
                        "logs of {} and {} differ at {index} below a match",
                        a.id(),
                        b.id()
                    );
                    equal |= same;
                }
            }
        }
    }
}
