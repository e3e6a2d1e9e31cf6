//! Snapshots, as far as the engine decides about them: when to begin, whether to take one, what becomes of the log. The
//! bytes themselves stream past it, from store to store.

use super::Engine;
use super::event::{Effect, Tickets};
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, NodeId, SnapshotDecision, SnapshotOutcome, Term};

impl<T: Tickets> Engine<T> {
    /// The store stands at `index` for a snapshot to this peer.
    pub(super) fn handle_snapshot_begun(&mut self, to: NodeId, index: Index) {
        match self.raft.snapshot_meta_at(index) {
            Some(meta) if self.raft.is_leader() => {
                let term = self.raft.term();
                self.effects.push(Effect::StreamSnapshot { to, term, meta });
            }
            _ => {
                self.raft.handle_snapshot_sent(to, SnapshotOutcome::Failed);
                self.effects.push(Effect::DropSnapshot { to });
            }
        }
    }

    /// The transfer ended.
    pub(super) fn handle_snapshot_sent(&mut self, to: NodeId, index: Option<Index>) {
        let outcome = index.map_or(SnapshotOutcome::Failed, |index| SnapshotOutcome::Done { index });
        self.raft.handle_snapshot_sent(to, outcome);
    }

    /// A leader offers a snapshot.
    pub(super) fn handle_snapshot_offered(&mut self, from: NodeId, term: Term, meta: SnapshotMeta) {
        self.told_commit = self.told_commit.max(meta.index);
        let accept = matches!(self.raft.offer_snapshot(from, term, &meta), SnapshotDecision::Wanted);
        self.effects.push(Effect::AcceptSnapshot { from, meta, accept });
    }

    /// The store holds a snapshot's state now, durably: the log begins anew behind it.
    pub(super) fn handle_snapshot_installed(&mut self, meta: SnapshotMeta, time_ms: u64) {
        self.clock.observe(time_ms); // the commands that carried its stamps will never be seen here
        let index = meta.index;
        if self.raft.install_snapshot(meta) {
            self.applied = self.applied.max(index);
            self.release_applied_reads();
            self.status_changed = true;
        }
    }
}
