//! What the logs hold: log matching, and memberships that follow the log.
//!
//! Every entry that any node ever gave to its log is remembered by (index, term), with what stood before it. Raft's log
//! matching says that there is one entry of that name, and one history before it (thesis 3.5).

use super::{Violation, violated};
use balsa_raft::membership::Membership;
use balsa_raft::{Entry, EntryKind, Index, NodeId, Raft, Term};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// All entries that were ever appended.
#[derive(Debug, Default)]
pub struct Logs {
    /// By (index, term): a hash of the entry, and the term of the one before it.
    entries: HashMap<(Index, Term), (u64, Option<Term>)>,
    /// Membership entries.
    memberships: BTreeMap<(Index, Term), Bytes>,
}

impl Logs {
    /// A node gives entries to its log; `before`: the term of the entry before the first of them, where it knows that.
    pub fn appends(
        &mut self,
        node: NodeId,
        before: Option<Term>,
        entries: &[Entry],
    ) -> Result<(), Violation> {
        let mut before = before;
        for entry in entries {
            let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&entry.data, entry.kind as u64);
            let name = (entry.index, entry.term);
            let known = *self.entries.entry(name).or_insert((hash, before));
            let same_history = known.1.is_none() || before.is_none() || known.1 == before;
            if known.0 != hash || !same_history {
                violated!(
                    "log matching: {node} appends another entry of term {} at {}, or one with another past ({before:?} against {:?})",
                    entry.term,
                    entry.index,
                    known.1
                );
            }
            if entry.kind == EntryKind::Membership {
                self.memberships.insert(name, entry.data.clone());
            }
            before = Some(entry.term);
        }
        Ok(())
    }

    /// A node's membership is that of the newest membership entry that its log holds, committed or not.
    pub fn membership_is_right(&self, raft: &Raft) -> Result<(), Violation> {
        let effective = raft.membership_index();
        let newer = self.memberships.range((effective.next(), Term(0))..);
        for ((index, term), _) in newer.take_while(|((index, _), _)| *index <= raft.last_index()) {
            if raft.term_at(*index) == Some(*term) {
                violated!(
                    "{} ignores the membership at {index} and goes by the one at {effective}",
                    raft.id()
                );
            }
        }
        if effective < raft.first_index() {
            return Ok(()); // it came with a snapshot, or is the first one
        }
        let known = raft.term_at(effective).and_then(|term| self.memberships.get(&(effective, term)));
        match known.map(Membership::decode) {
            Some(Ok(membership)) if membership == **raft.membership() => Ok(()),
            Some(_) => violated!("{} goes by another membership than its log's at {effective}", raft.id()),
            None => {
                violated!("{} goes by a membership at {effective} that its log does not hold", raft.id())
            }
        }
    }
}
