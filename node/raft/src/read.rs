//! Reads that wait for a quorum to confirm this leader (Raft thesis 6.4).
//!
//! A read that arrives before the leader's term has committed anything waits for that first: until then the
//! leader does not know what is committed (hazard 29). All reads that arrived since the last Ready share one
//! context, a number that only this leader makes, rising within its term; it travels on heartbeats and comes
//! back on their replies. A reply to context `c` confirms every round up to `c`, and none that was begun
//! later (hazard 30).
//!
//! Does not know who voted, nor what a quorum is: it is told the greatest context that one has acknowledged.

use crate::ready::{ReadConfirmed, ReadId};
use crate::types::Index;
use std::collections::VecDeque;

/// The reads of one leader in one term.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadQueue {
    /// Arrived before an entry of the leader's term had committed.
    early: Vec<ReadId>,
    /// Arrived since the last round began.
    arrived: Vec<ReadConfirmed>,
    /// Rounds under way, oldest first, by context.
    rounds: VecDeque<(u64, Vec<ReadConfirmed>)>,
    /// The context of the newest round; 0 before the first.
    context: u64,
    /// Reads in all three.
    waiting: usize,
}

impl ReadQueue {
    /// How many reads wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The context of the newest round; 0 before the first.
    pub(crate) fn context(&self) -> u64 {
        self.context
    }

    /// A read arrived while `commit` was committed; `None` before an entry of the leader's term was.
    pub(crate) fn push(&mut self, id: ReadId, commit: Option<Index>) {
        self.waiting += 1;
        match commit {
            Some(index) => self.arrived.push(ReadConfirmed { id, index }),
            None => self.early.push(id),
        }
    }

    /// An entry of the leader's term has committed.
    pub(crate) fn release_early(&mut self, commit: Index) {
        self.arrived.extend(self.early.drain(..).map(|id| ReadConfirmed { id, index: commit }));
    }

    /// Begins a round for what has arrived, if anything has; its context is to be sent out.
    pub(crate) fn begin_round(&mut self) -> bool {
        if self.arrived.is_empty() {
            return false;
        }
        self.context += 1;
        self.rounds.push_back((self.context, std::mem::take(&mut self.arrived)));
        true
    }

    /// A quorum has acknowledged `context`: gives what that confirms.
    pub(crate) fn confirm(&mut self, context: u64, confirmed: &mut Vec<ReadConfirmed>) {
        while let Some((_, reads)) = self.rounds.pop_front_if(|(round, _)| *round <= context) {
            self.waiting -= reads.len();
            confirmed.extend(reads);
        }
    }

    /// Whether any round awaits acknowledgements.
    pub(crate) fn has_rounds(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Gives up on all.
    pub(crate) fn drop_all(self, dropped: &mut Vec<ReadId>) {
        dropped.extend(self.rounds.into_iter().flat_map(|(_, reads)| reads).map(|read| read.id));
        dropped.extend(self.arrived.into_iter().map(|read| read.id));
        dropped.extend(self.early);
    }
}
