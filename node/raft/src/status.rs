//! What a node shows of itself. A copy: holding one holds up nothing.

use crate::membership::Membership;
use crate::types::{Index, NodeId, Term};
use std::sync::Arc;

/// A node's part in its term.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one; voters and learners alike.
    Follower,
    /// Asks whether it would be voted for.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// What a node knows of itself and, as leader, of its peers.
#[derive(Clone, Debug)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// For whom it voted in its term.
    pub vote: Option<NodeId>,
    /// The last index it knows to be committed.
    pub commit: Index,
    /// The last index that its driver has applied.
    pub applied: Index,
    /// The last index of its log.
    pub last: Index,
    /// The last index of its log that is durable.
    pub stable: Index,
    /// The first index that is still in its log; `last + 1` when none is.
    pub first: Index,
    /// What a leader knows of each peer, in order of identity; empty on others.
    pub peers: Vec<PeerStatus>,
    /// The effective membership.
    pub membership: Arc<Membership>,
    /// Whether that is joint.
    pub is_joint: bool,
    /// The target of a leadership transfer that is under way.
    pub transferring_to: Option<NodeId>,
    /// The shortest election timeout as links and disks have it now, in ticks.
    pub election_timeout_ticks: u32,
}

/// What a leader knows of one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub id: NodeId,
    /// Its log equals the leader's up to here, durably.
    pub matched: Index,
    /// The next index to send.
    pub next: Index,
    /// How it is being sent to.
    pub state: PeerState,
    /// Whether it was heard from since the last quorum check.
    pub active: bool,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum PeerState {
    /// One append at a time, to find where the logs match.
    Probe,
    /// Appends one after another, without waiting for answers.
    Replicate,
    /// Nothing but heartbeats: it needs a snapshot, and the driver sends that.
    Snapshot,
}

impl crate::Raft {
    /// As leader: what is known of one peer.
    pub fn peer_status(&self, id: NodeId) -> Option<PeerStatus> {
        let peer = self.leading()?.peers.get(&id).filter(|peer| peer.departing.is_none())?;
        let (matched, next, state, active) = (peer.matched, peer.next, peer.state(), peer.active);
        Some(PeerStatus { id, matched, next, state, active })
    }

    /// As leader: whether leadership is being handed over.
    pub fn is_transferring(&self) -> bool {
        self.leading().is_some_and(|leader| leader.transfer.is_some())
    }

    /// Whether a membership change is under way: uncommitted, or joint.
    pub fn is_changing_membership(&self) -> bool {
        self.log.membership().is_joint() || self.membership_index() > self.commit_index()
    }

    /// The last entry that [`crate::Ready::apply`] has handed out.
    pub fn handed_out_index(&self) -> Index {
        self.log.handed_out()
    }
}
