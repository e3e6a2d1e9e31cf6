//! The log in memory, and how far it is stable, committed and applied.
//!
//! Holds every entry since the compaction point; the driver bounds it by compacting. Also holds the history
//! of memberships within it, since a membership is effective as soon as its entry is appended and is rolled
//! back when that is truncated (Raft thesis 4.1, hazard 15).
//!
//! Invariants, asserted by [`Log::check`] after every input:
//! ```text
//! compacted <= applied <= handed_out <= commit <= last
//! compacted <= stable <= last,   handed_out <= stable,   stable < unsent <= last + 1
//! ```
//! `commit` may be beyond `stable`, on a follower and on a leader alike: a quorum may be durable without this
//! node. Such entries are not handed out yet: a state must never be ahead of the log that would have to
//! explain it after a crash.
//!
//! Does not know who leads, nor what a quorum is.

use crate::membership::{DecodeError, Membership};
use crate::ready::SnapshotMeta;
use crate::types::{Entry, EntryKind, Index, NodeId, Term};
use std::collections::VecDeque;
use std::sync::Arc;

/// The log of one node.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The entry that compaction ended with; (0, 0) initially.
    compacted: (Index, Term),
    /// Contiguous from `compacted + 1`.
    entries: VecDeque<Entry>,
    /// The sum of their sizes.
    bytes: usize,
    /// Each membership with the index that made it effective, ascending. The first is the one effective at
    /// `compacted`.
    memberships: VecDeque<(Index, Arc<Membership>)>,
    commit: Index,
    applied: Index,
    /// Up to here, entries were given to the driver to apply.
    handed_out: Index,
    /// The sizes of those that it has not reported applied.
    handed_out_bytes: usize,
    /// Durable up to here, in this very content.
    stable: Index,
    /// The first index that is not part of any persist yet.
    unsent: Index,
}

impl Log {
    /// The log as read from disk: all of it is durable, nothing beyond `applied` is known to be committed.
    pub(crate) fn new(
        snapshot: SnapshotMeta,
        entries: Vec<Entry>,
        applied: Index,
    ) -> Result<Log, (Index, DecodeError)> {
        let last = Index(snapshot.index.0 + entries.len() as u64);
        let mut log = Log {
            compacted: (snapshot.index, snapshot.term),
            entries: VecDeque::new(),
            bytes: 0,
            memberships: VecDeque::from([(snapshot.index, snapshot.membership)]),
            commit: applied,
            applied,
            handed_out: applied,
            handed_out_bytes: 0,
            stable: last,
            unsent: last.next(),
        };
        for entry in &entries {
            if entry.kind == EntryKind::Membership {
                let membership = Membership::decode(&entry.data).map_err(|error| (entry.index, error))?;
                log.memberships.push_back((entry.index, Arc::new(membership)));
            }
            log.bytes += entry.size_bytes();
        }
        log.entries = entries.into();
        Ok(log)
    }

    pub(crate) fn compacted(&self) -> Index {
        self.compacted.0
    }

    pub(crate) fn first(&self) -> Index {
        self.compacted.0.next()
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.compacted.0.0 + self.entries.len() as u64)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.entries.back().map_or(self.compacted.1, |entry| entry.term)
    }

    pub(crate) fn commit(&self) -> Index {
        self.commit
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    pub(crate) fn stable(&self) -> Index {
        self.stable
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The effective membership: that of the newest membership entry, committed or not.
    pub(crate) fn membership(&self) -> &Arc<Membership> {
        &self.newest_membership().1
    }

    /// The index that made it effective.
    pub(crate) fn membership_index(&self) -> Index {
        self.newest_membership().0
    }

    /// Whether the node votes by the committed membership or by any that follows it.
    pub(crate) fn is_possible_voter(&self, id: NodeId) -> bool {
        for (at, membership) in self.memberships.iter().rev() {
            if membership.is_voter(id) {
                return true;
            }
            if *at <= self.commit {
                return false;
            }
        }
        false
    }

    fn newest_membership(&self) -> &(Index, Arc<Membership>) {
        let newest = self.memberships.back();
        newest.unwrap_or_else(|| panic!("the log at {:?} has lost its memberships", self.compacted))
    }

    /// The term at `index`; `None` when that is compacted or beyond the end.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.compacted.0 {
            return Some(self.compacted.1);
        }
        self.entries.get(self.position(index)?).map(|entry| entry.term)
    }

    /// Whether the log holds this entry.
    pub(crate) fn matches(&self, index: Index, term: Term) -> bool {
        self.term_at(index) == Some(term)
    }

    /// Where a snapshot at `index` would stand.
    pub(crate) fn snapshot_meta_at(&self, index: Index) -> Option<SnapshotMeta> {
        let term = self.term_at(index)?;
        let newest = self.memberships.iter().rev().find(|(at, _)| *at <= index)?;
        Some(SnapshotMeta { index, term, membership: Arc::clone(&newest.1) })
    }

    /// Whether a candidate whose log ends so may lead us: the later last term, then the longer log (thesis
    /// 3.6.1).
    pub(crate) fn is_up_to_date(&self, last_index: Index, last_term: Term) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last())
    }

    /// The greatest index at or below `index` whose term is at most `term`: what lies between cannot match a
    /// log whose entry at `index` has that term. Terms never fall along a log, so this is a binary search.
    /// Not below the compaction point, unless `index` is.
    pub(crate) fn last_with_term_at_most(&self, index: Index, term: Term) -> Index {
        if index <= self.compacted.0 {
            return index;
        }
        let not_above = self.entries.partition_point(|entry| entry.term <= term) as u64;
        index.min(Index(self.compacted.0.0 + not_above))
    }

    /// Appends the entry that follows the last one; tells whether it made another membership effective.
    pub(crate) fn append(&mut self, entry: Entry) -> bool {
        assert_eq!(entry.index, self.last().next(), "appended out of order");
        assert!(entry.term >= self.last_term(), "appended {entry:?} after term {}", self.last_term());
        let changes_membership = entry.kind == EntryKind::Membership;
        if changes_membership {
            // Written by a version this node does not know: it must not go on as if it were not there (hazard
            // 49).
            let membership = Membership::decode(&entry.data).unwrap_or_else(|error| {
                panic!("membership entry {} at term {}: {error}", entry.index, entry.term)
            });
            self.memberships.push_back((entry.index, Arc::new(membership)));
        }
        self.bytes += entry.size_bytes();
        self.entries.push_back(entry);
        changes_membership
    }

    /// Drops all entries from `from` on. They must not be committed (hazard 5). Tells whether that rolled a
    /// membership back.
    pub(crate) fn truncate(&mut self, from: Index) -> bool {
        assert!(from > self.commit, "truncation from {from} at or below commit {}", self.commit);
        assert!(from <= self.last(), "truncation from {from} beyond the end {}", self.last());
        let keep = (from.0 - self.first().0) as usize;
        while self.entries.len() > keep {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry.size_bytes();
            }
        }
        let memberships = self.memberships.len();
        while self.memberships.len() > 1 && self.membership_index() >= from {
            self.memberships.pop_back();
        }
        self.stable = self.stable.min(from.prev());
        self.unsent = self.unsent.min(from);
        self.memberships.len() != memberships
    }

    /// Advances the commit index; never back, never beyond the end.
    pub(crate) fn commit_to(&mut self, index: Index) -> bool {
        let index = index.min(self.last());
        let advances = index > self.commit;
        if advances {
            self.commit = index;
        }
        advances
    }

    /// A persist has made everything up to `index` durable, in today's content.
    pub(crate) fn stable_to(&mut self, index: Index) {
        assert!(index < self.unsent, "stable at {index}, sent up to {}", self.unsent.prev());
        self.stable = self.stable.max(index);
    }

    /// The entries that no persist holds yet; from now on, one does.
    pub(crate) fn take_unsent(&mut self) -> Vec<Entry> {
        let entries = match self.position(self.unsent) {
            Some(from) => self.entries.range(from..).cloned().collect(),
            None => Vec::new(),
        };
        self.unsent = self.last().next();
        entries
    }

    /// The last entry handed out to be applied.
    pub(crate) fn handed_out(&self) -> Index {
        self.handed_out
    }

    /// Committed, stable entries to apply, within the budget of bytes outstanding; one is given whatever its
    /// size.
    pub(crate) fn take_apply(&mut self, max_bytes: usize) -> Vec<Entry> {
        let until = self.commit.min(self.stable);
        let mut entries = Vec::new();
        while self.handed_out < until && self.handed_out_bytes < max_bytes {
            let Some(entry) = self.get(self.handed_out.next()) else { break };
            let bytes = entry.size_bytes();
            if self.handed_out_bytes > 0 && self.handed_out_bytes + bytes > max_bytes {
                break;
            }
            entries.push(entry.clone());
            self.handed_out_bytes += bytes;
            self.handed_out = self.handed_out.next();
        }
        entries
    }

    /// The driver has applied up to `index`. Reports from before a snapshot was installed change nothing.
    pub(crate) fn applied_to(&mut self, index: Index) {
        assert!(index <= self.handed_out, "applied {index}, handed out up to {}", self.handed_out);
        while self.applied < index {
            self.applied = self.applied.next();
            self.handed_out_bytes -= self.get(self.applied).map_or(0, Entry::size_bytes);
        }
    }

    /// Drops the entries up to `to`.
    pub(crate) fn compact(&mut self, to: Index) {
        assert!(to <= self.applied, "compaction to {to} beyond applied {}", self.applied);
        while self.compacted.0 < to {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.size_bytes();
            self.compacted = (entry.index, entry.term);
        }
        while self.memberships.get(1).is_some_and(|(at, _)| *at <= self.compacted.0) {
            self.memberships.pop_front();
        }
    }

    /// Begins anew behind a snapshot. What follows it is kept only where the log holds the snapshot's own
    /// entry: anything else may conflict with it (hazard 22). The whole suffix becomes part of the next
    /// persist.
    pub(crate) fn install_snapshot(&mut self, meta: &SnapshotMeta) {
        assert!(meta.index > self.commit, "snapshot at {} behind commit {}", meta.index, self.commit);
        let keeps = self.matches(meta.index, meta.term);
        let drop = if keeps { (meta.index.0 - self.compacted.0.0) as usize } else { self.entries.len() };
        self.entries.drain(..drop);
        self.bytes = self.entries.iter().map(Entry::size_bytes).sum();
        self.memberships.retain(|(at, _)| keeps && *at > meta.index);
        self.memberships.push_front((meta.index, Arc::clone(&meta.membership)));
        self.compacted = (meta.index, meta.term);
        self.commit = meta.index;
        self.applied = meta.index;
        self.handed_out = meta.index;
        self.handed_out_bytes = 0;
        // The state is durable already; its entries need not be.
        self.stable = meta.index;
        self.unsent = meta.index.next();
    }

    /// Clones of the entries from `from` on, up to a budget; at least one where there is one.
    pub(crate) fn entries_from(&self, from: Index, max_bytes: usize) -> (Vec<Entry>, usize) {
        let Some(start) = self.position(from) else { return (Vec::new(), 0) };
        let (mut bytes, mut count) = (0, 0);
        for entry in self.entries.range(start..) {
            let size = entry.size_bytes();
            if count > 0 && bytes + size > max_bytes {
                break;
            }
            bytes += size;
            count += 1;
        }
        (self.entries.range(start..start + count).cloned().collect(), bytes)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.position(index)?)
    }

    /// Where `index` is in `entries`; `None` when it is compacted or beyond the end.
    fn position(&self, index: Index) -> Option<usize> {
        let offset = index.0.checked_sub(self.first().0)? as usize;
        (offset < self.entries.len()).then_some(offset)
    }

    /// Asserts the invariants of the module.
    pub(crate) fn check(&self) {
        let (compacted, last) = (self.compacted.0, self.last());
        let applies = compacted <= self.applied
            && self.applied <= self.handed_out
            && self.handed_out <= self.commit
            && self.handed_out <= self.stable
            && self.commit <= last;
        let persists = compacted <= self.stable && self.stable < self.unsent && self.unsent <= last.next();
        assert!(
            applies && persists,
            "log out of order: compacted {compacted}, applied {}, handed out {}, stable {}, unsent {}, commit {}, last {last}",
            self.applied,
            self.handed_out,
            self.stable,
            self.unsent,
            self.commit,
        );
    }
}

#[cfg(test)]
mod tests;
