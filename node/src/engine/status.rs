//! What the engine publishes about itself: read by doors, metrics and tests, written by the engine alone.

use balsa_raft::{Index, NodeId, Term};
use std::fmt;

/// A cluster's identity, minted at founding. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a node stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// A blank disk that waits to found a cluster with its peers.
    Founding,
    /// A blank disk that asks a running cluster to take it in.
    Joining,
    /// A member (or a learner) of a cluster.
    Running,
    /// Was removed from the cluster while it ran: it serves nothing, and joins anew when it is started again.
    Removed,
    /// Hands over, drains and stops.
    Stopping,
}

/// A node's role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Follows, votes.
    Follower,
    /// Asks for votes (or for pre-votes).
    Candidate,
    /// Leads.
    Leader,
    /// Replicates, does not vote.
    Learner,
}

/// A member, as the cluster's membership records it, and what this node knows of its state.
#[derive(Clone, PartialEq, Debug)]
pub struct MemberStatus {
    /// Its identity.
    pub id: NodeId,
    /// Its slot: the stable name under which it is replaced.
    pub slot: u32,
    /// Where peers reach it (`host:port`).
    pub peer_address: String,
    /// Where clients reach it (`host:port`): a hint.
    pub client_address: String,
    /// Votes.
    pub voter: bool,
    /// The last index it is known to hold durably: as the leader knows, or has told lately.
    pub match_index: Option<Index>,
    /// Whether it answers the leader, as that knows or has told lately.
    pub active: Option<bool>,
    /// The software version it last told, if any.
    pub version: Option<String>,
    /// The feature level to which it goes, as it last told.
    pub feature_level: Option<u32>,
    /// Its disk is nearly full, as it last told.
    pub is_low_on_disk: bool,
}

/// The engine's state at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// The cluster; `None` before founding or joining.
    pub cluster: Option<ClusterId>,
    /// This node; `None` before founding or joining.
    pub node: Option<NodeId>,
    /// This node's slot.
    pub slot: u32,
    /// Where it stands.
    pub phase: Phase,
    /// A sentence for a person about what the node waits for, if it waits.
    pub waiting_for: Option<String>,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// The oldest entry still in the log.
    pub first_index: Index,
    /// The newest entry in the log.
    pub last_index: Index,
    /// Committed up to here.
    pub commit_index: Index,
    /// Applied up to here.
    pub applied_index: Index,
    /// Caught up since start: this node has applied what was committed when it first heard of its leader.
    pub caught_up: bool,
    /// The cluster's feature level, as far as this node has applied.
    pub feature_level: u32,
    /// Cluster time: as the leader has it, or about what it must be by now, in ms.
    pub cluster_time_ms: u64,
    /// Why writes that need room are refused, if they are.
    pub storage_full: Option<String>,
    /// The members, by slot.
    pub members: Vec<MemberStatus>,
    /// Leader changes seen since start.
    pub leader_changes: u64,
}

impl Status {
    /// The client address of the leader, if known.
    pub fn leader_client_address(&self) -> Option<&str> {
        let leader = self.leader?;
        self.members.iter().find(|m| m.id == leader).map(|m| m.client_address.as_str())
    }
}
