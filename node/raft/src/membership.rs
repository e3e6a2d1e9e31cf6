//! Who votes, who learns, and how that changes.

use crate::types::NodeId;
use bytes::Bytes;
use std::collections::BTreeSet;

/// A membership: one set of voters, or two while joint (thesis 4.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// The (incoming) voters.
    pub voters: BTreeSet<NodeId>,
    /// The outgoing voters; empty unless joint.
    pub outgoing: BTreeSet<NodeId>,
    /// Members that replicate but do not vote. Disjoint from the voters.
    pub learners: BTreeSet<NodeId>,
    /// Outgoing voters that become learners when the joint phase ends.
    pub learners_next: BTreeSet<NodeId>,
    /// The leader ends the joint phase by itself once it has committed.
    pub auto_leave: bool,
    /// Opaque to the core: what the driver records about each member (names, addresses).
    pub context: Bytes,
}

/// One step of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Makes a node a voter (a new one, or a learner).
    AddVoter(NodeId),
    /// Makes a node a learner (a new one, or a voter).
    AddLearner(NodeId),
    /// Removes a member.
    Remove(NodeId),
}
