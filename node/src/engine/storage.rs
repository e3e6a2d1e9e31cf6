//! Whether there is room: what each node says of its disk, and which writes a leader takes.
//!
//! A node whose disk has less left than the headroom is *low*, and tells the others. While a quorum is not, a leader goes on as
//! ever, but one that is low itself hands over. Without such a quorum, or once the store is as large as the quota allows,
//! writes that need room are refused, and what frees room goes on ([`command::needs_room`]): entries are taken down to half
//! of the headroom. Both end by themselves.

use super::Engine;
use super::event::Tickets;
use balsa_raft::NodeId;
use balsa_raft::quorum::{VoteResult, joint_vote};
use balsa_store::command;
use std::collections::BTreeSet;

/// Of so many nodes that are no members it is remembered at most.
const STRANGERS_MAX: usize = 64;

/// How much room there is, as the shell finds when it looks, which it does every second or so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// What is left on the disk, in bytes.
    pub free_bytes: u64,
    /// What the store takes on it, in bytes.
    pub store_bytes: u64,
}

/// What a node knows of the cluster's room.
#[derive(Debug, Default)]
pub(super) struct Storage {
    store_bytes: u64,
    /// This node's disk is low.
    is_low: bool,
    /// Others that said that theirs is: members, and at most [`STRANGERS_MAX`] that this node does not know as such yet.
    low: BTreeSet<NodeId>,
    /// Why a leader takes no writes that need room.
    full: Option<String>,
}

impl Storage {
    /// These are the other members.
    pub(super) fn keep(&mut self, members: &BTreeSet<NodeId>) {
        self.low.retain(|id| members.contains(id));
    }
}

impl<T: Tickets> Engine<T> {
    /// The shell has looked.
    pub(super) fn handle_space(&mut self, space: Space) {
        let headroom = self.config.disk_headroom_bytes;
        // A little more than it lacked, so that it does not come and go with each segment of the log.
        let enough = if self.storage.is_low { headroom.saturating_add(headroom / 8) } else { headroom };
        let is_low = space.free_bytes < enough;
        self.storage.store_bytes = space.store_bytes;
        if is_low != self.storage.is_low {
            self.storage.is_low = is_low;
            let free_bytes = space.free_bytes;
            match is_low {
                true => {
                    tracing::warn!(node = %self.config.id, free_bytes, headroom, "the disk is nearly full")
                }
                false => tracing::info!(node = %self.config.id, free_bytes, "the disk has room again"),
            }
            for peer in self.connected.clone() {
                self.introduce_to(peer);
            }
        }
        self.judge_storage();
    }

    /// Another node said how its disk is.
    pub(super) fn note_low_disk(&mut self, of: NodeId, is_low: bool) {
        let low = &mut self.storage.low;
        let has_place = self.directory.get(of).is_some() || low.len() < STRANGERS_MAX;
        let changed = if is_low && has_place { low.insert(of) } else { low.remove(&of) };
        if changed {
            self.judge_storage();
        }
    }

    /// The membership is another one, or the room is.
    pub(super) fn judge_storage(&mut self) {
        let membership = self.raft.membership();
        let has_room = |id| Some(!self.is_low_on_disk(id));
        let (quota, store) = (self.config.quota_bytes, self.storage.store_bytes);
        let full = if quota > 0 && store >= quota {
            Some(format!(
                "the store takes {store} bytes, the quota is {quota}: delete keys and compact the history"
            ))
        } else if joint_vote(membership, has_room) == VoteResult::Lost {
            let low: Vec<String> = membership
                .all_voters()
                .filter(|id| self.is_low_on_disk(*id))
                .map(|id| id.to_string())
                .collect();
            Some(format!("the disks of {} are nearly full: delete keys, or make room there", low.join(", ")))
        } else {
            None
        };
        if full.is_some() != self.storage.full.is_some() {
            self.status_changed = true;
            if self.raft.is_leader() {
                match &full {
                    Some(why) => {
                        tracing::warn!(node = %self.config.id, why, "writes that need room are refused")
                    }
                    None => tracing::info!(node = %self.config.id, "writes that need room are taken again"),
                }
            }
        }
        self.storage.full = full;
    }

    /// Whether a node's disk is low, as far as is known.
    pub(super) fn is_low_on_disk(&self, id: NodeId) -> bool {
        if id == self.config.id { self.storage.is_low } else { self.storage.low.contains(&id) }
    }

    /// Why writes that need room would be refused here, did this node lead.
    pub(super) fn storage_full(&self) -> Option<&str> {
        self.storage.full.as_deref()
    }

    /// As leader: why a command is refused, if it is.
    pub(super) fn lacks_room(&self, command: &[u8]) -> Option<String> {
        self.storage.full.as_ref().filter(|_| command::needs_room(command)).cloned()
    }

    /// As leader whose disk is low: hands over to the voter that is furthest of those with room.
    pub(super) fn maybe_leave_to_roomier(&mut self) {
        let leads = self.raft.is_leader() && self.stopping.is_none() && !self.raft.is_transferring();
        if !leads || !self.storage.is_low || self.storage.full.is_some() {
            return;
        }
        let others = self.other_members().into_iter();
        let fit = others.filter(|id| {
            self.raft.membership().is_voter(*id) && self.connected.contains(id) && self.is_alive(*id)
        });
        let roomier = fit.filter(|id| !self.is_low_on_disk(*id));
        let next = roomier.max_by_key(|id| self.raft.peer_status(*id).map(|peer| peer.matched));
        if next.is_some() && self.raft.transfer_leadership(next).is_ok() {
            tracing::info!(node = %self.config.id, to = next.map(tracing::field::display), "the disk is nearly full: another is to lead");
        }
    }
}
