//! Majorities, and joint majorities: who has won a vote, and what a quorum has acknowledged.
//!
//! Pure functions of a set of voters and what is known of each. They do not know what is counted: the leader
//! asks them about match indexes, about read contexts and about who was heard from; a candidate asks about
//! votes. While a membership is joint, both majorities must agree, for every question alike (Raft thesis
//! 4.3).
//!
//! An empty set of voters agrees to anything: that is what makes a membership that is not joint the special
//! case of one whose outgoing set is empty.

use crate::membership::Membership;
use crate::types::NodeId;
use std::collections::BTreeSet;

/// How a vote stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoteResult {
    /// Too few answers to tell.
    Pending,
    /// A quorum said yes.
    Won,
    /// A quorum can no longer say yes.
    Lost,
}

/// The smallest number of voters that is more than half of `voters`.
pub fn majority_size(voters: usize) -> usize {
    voters / 2 + 1
}

/// How a vote among `voters` stands; `vote` gives each one's answer, `None` while it is outstanding.
pub fn majority_vote(voters: &BTreeSet<NodeId>, vote: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
    if voters.is_empty() {
        return VoteResult::Won;
    }
    let needed = majority_size(voters.len());
    let (mut yes, mut outstanding) = (0, 0);
    for &voter in voters {
        match vote(voter) {
            Some(true) => yes += 1,
            Some(false) => {}
            None => outstanding += 1,
        }
    }
    if yes >= needed {
        VoteResult::Won
    } else if yes + outstanding >= needed {
        VoteResult::Pending
    } else {
        VoteResult::Lost
    }
}

/// How a vote stands under `membership`: won when both majorities are, lost when either is.
pub fn joint_vote(membership: &Membership, vote: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
    use VoteResult::{Lost, Pending, Won};
    match (majority_vote(&membership.voters, &vote), majority_vote(&membership.outgoing, &vote)) {
        (Won, Won) => Won,
        (Lost, _) | (_, Lost) => Lost,
        _ => Pending,
    }
}

/// The greatest value that a majority of `voters` has reached; `None` where there are no voters to limit it.
pub fn majority_reached<T: Ord + Copy>(
    voters: &BTreeSet<NodeId>,
    reached: impl Fn(NodeId) -> T,
) -> Option<T> {
    // Asked at every acknowledgement: up to this many voters it costs no allocation.
    const SMALL: usize = 9;
    let count = voters.len();
    let mut small = [None; SMALL];
    let mut large = Vec::new();
    let values = if count <= SMALL {
        &mut small[..count]
    } else {
        large.resize(count, None);
        &mut large[..]
    };
    for (slot, &voter) in values.iter_mut().zip(voters) {
        *slot = Some(reached(voter));
    }
    values.sort_unstable();
    // A majority has reached what the (n - majority)-th smallest has.
    values.get(count.checked_sub(majority_size(count))?).copied().flatten()
}

/// The greatest value that a quorum of `membership` has reached: the lower one of the two majorities' while
/// joint.
pub fn joint_reached<T: Ord + Copy>(membership: &Membership, reached: impl Fn(NodeId) -> T) -> Option<T> {
    match (majority_reached(&membership.voters, &reached), majority_reached(&membership.outgoing, &reached)) {
        (Some(incoming), Some(outgoing)) => Some(incoming.min(outgoing)),
        (one, other) => one.or(other),
    }
}

/// Whether the nodes that `present` names hold a quorum of `membership`.
pub fn has_quorum(membership: &Membership, present: impl Fn(NodeId) -> bool) -> bool {
    joint_vote(membership, |id| Some(present(id))) == VoteResult::Won
}
