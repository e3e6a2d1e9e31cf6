//! Snapshots, as far as the engine decides about them: when to begin, whether to take one, what becomes of the log. The
//! bytes themselves stream past it, from store to store.
//!
//! A peer that gets a snapshot goes on from the log behind it, and so must find that there: else it would need another
//! snapshot, and so for ever (hazard 27). So the log keeps what peers that live still need ([`Engine::needed_of_log`]), up to
//! [`super::EngineConfig::log_hold_bytes`]; beyond that it is released all the same, since memory is bounded first of all.

use super::Engine;
use super::event::{Effect, OfferDecision, Tickets};
use super::snapshot_frame::Offer;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, NodeId, PeerState, SnapshotDecision, SnapshotOutcome, Term};
use balsa_store::Outlook;
use std::collections::BTreeMap;

/// Snapshots on their way out, by peer; empty where this node does not lead.
#[derive(Debug, Default)]
pub(super) struct SnapshotsOut {
    by_peer: BTreeMap<NodeId, Out>,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    /// Known once it was begun. The peer will go on from the log behind it.
    index: Option<Index>,
    /// All of it is there; the peer's own word for it may be on its way.
    arrived: bool,
}

impl SnapshotsOut {
    fn under_way(&self) -> usize {
        self.by_peer.values().filter(|out| !out.arrived).count()
    }
}

impl<T: Tickets> Engine<T> {
    /// The core wants a snapshot sent. One beyond the bound has to wait: the core asks again when the peer shows life.
    pub(super) fn begin_snapshot(&mut self, to: NodeId) {
        if self.snapshots_out.under_way() >= self.config.max_snapshots {
            self.raft.handle_snapshot_sent(to, SnapshotOutcome::Failed);
            return;
        }
        self.snapshots_out.by_peer.insert(to, Out { index: None, arrived: false });
        self.effects.push(Effect::BeginSnapshot { to });
    }

    /// The store stands at `index` for a snapshot to this peer.
    pub(super) fn handle_snapshot_begun(&mut self, to: NodeId, index: Index) {
        match (self.raft.snapshot_meta_at(index), self.snapshots_out.by_peer.get_mut(&to)) {
            (Some(meta), Some(out)) if self.raft.is_leader() => {
                out.index = Some(index);
                let term = self.raft.term();
                self.effects.push(Effect::StreamSnapshot { to, term, meta });
            }
            _ => {
                self.snapshots_out.by_peer.remove(&to);
                self.raft.handle_snapshot_sent(to, SnapshotOutcome::Failed);
                self.effects.push(Effect::DropSnapshot { to });
            }
        }
    }

    /// The transfer ended.
    pub(super) fn handle_snapshot_sent(&mut self, to: NodeId, index: Option<Index>) {
        match index {
            Some(index) => {
                if let Some(out) = self.snapshots_out.by_peer.get_mut(&to) {
                    out.arrived = true;
                }
                self.raft.handle_snapshot_sent(to, SnapshotOutcome::Done { index });
            }
            None => {
                self.snapshots_out.by_peer.remove(&to);
                self.raft.handle_snapshot_sent(to, SnapshotOutcome::Failed);
            }
        }
    }

    /// Snapshots that are for nobody any more: this node leads no longer (whoever receives one goes on with it until the
    /// next leader offers its own), or the peer was removed.
    pub(super) fn give_up_snapshots(&mut self) {
        if !self.raft.is_leader() {
            self.snapshots_out.by_peer.clear();
            return;
        }
        let members = self.other_members();
        for (to, _) in self.snapshots_out.by_peer.extract_if(.., |to, _| !members.contains(to)) {
            self.effects.push(Effect::DropSnapshot { to });
        }
    }

    /// Up to where the log may go without a peer that lives having to ask for a snapshot, or for another one; `None`: as far
    /// as this node itself is concerned.
    pub(super) fn needed_of_log(&mut self) -> Option<Index> {
        if self.raft.log_bytes() > self.config.log_hold_bytes || !self.raft.is_leader() {
            return None;
        }
        let peers: Vec<_> =
            self.other_members().into_iter().filter_map(|id| self.raft.peer_status(id)).collect();
        self.snapshots_out.by_peer.retain(|id, out| {
            let awaits = |peer: &balsa_raft::PeerStatus| peer.id == *id && peer.state == PeerState::Snapshot;
            !out.arrived || peers.iter().any(awaits)
        });
        let needed = peers.iter().filter_map(|peer| match self.snapshots_out.by_peer.get(&peer.id) {
            Some(out) => out.index,
            None if self.is_alive(peer.id) && peer.state != PeerState::Snapshot => Some(peer.matched),
            None => None,
        });
        needed.filter(|index| *index > Index::ZERO).min()
    }

    /// A leader offers a snapshot.
    pub(super) fn handle_snapshot_offered(&mut self, from: NodeId, term: Term, offer: Offer) {
        self.told_commit = self.told_commit.max(offer.meta.index);
        let decision = match self.raft.offer_snapshot(from, term, &offer.meta) {
            SnapshotDecision::Wanted => OfferDecision::Accept,
            SnapshotDecision::Stale if offer.meta.index <= self.raft.commit_index() => OfferDecision::Held,
            SnapshotDecision::Stale => OfferDecision::Refuse,
        };
        self.effects.push(Effect::AnswerOffer { from, offer, decision });
    }

    /// The store holds a snapshot's state now, durably: the log begins anew behind it.
    pub(super) fn handle_snapshot_installed(&mut self, meta: SnapshotMeta, time_ms: u64, outlook: Outlook) {
        self.clock.observe(self.now_ms, time_ms); // the commands that carried its stamps will never be seen here
        let index = meta.index;
        if self.raft.install_snapshot(meta) {
            self.applied = self.applied.max(index);
            self.note_outlook(outlook);
            self.note_expired();
            self.release_applied_reads();
            self.status_changed = true;
        }
    }
}
