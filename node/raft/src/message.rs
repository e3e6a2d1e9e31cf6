//! What peers say to one another. One variant a meaning: no field means two things.

use crate::types::{Entry, Index, NodeId, Term};

/// A message between two nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The sender's term; for [`Body::PreVote`] (and its granted reply) the term it would campaign in.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// "Would you vote for me?" Changes nothing at the receiver (thesis 9.6).
    PreVote {
        /// The last entry of the candidate's log.
        last_index: Index,
        /// Its term.
        last_term: Term,
    },
    /// The answer to a pre-vote: granted at the term asked for, refused at the receiver's own term.
    PreVoteReply {
        /// Whether the receiver would vote.
        granted: bool,
    },
    /// "Vote for me."
    Vote {
        /// The last entry of the candidate's log.
        last_index: Index,
        /// Its term.
        last_term: Term,
        /// The leader itself asked for this election ([`Body::TimeoutNow`]): a living leader is no reason to
        /// refuse.
        transfer: bool,
    },
    /// The answer to a vote request. Leaves only after term and vote are durable.
    VoteReply {
        /// Whether the vote is the candidate's.
        granted: bool,
    },
    /// Replicates entries after (`prev_index`, `prev_term`); empty as a probe.
    Append {
        /// The entry before the first one here.
        prev_index: Index,
        /// Its term.
        prev_term: Term,
        /// Contiguous from `prev_index + 1`.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The follower's log equals the leader's up to `match_index`, durably.
    AppendAccepted {
        /// The last index this append verified.
        match_index: Index,
    },
    /// (`prev_index`, `prev_term`) of the append is not in the follower's log.
    AppendRejected {
        /// The `prev_index` that was rejected: tells which probe this answers.
        prev_index: Index,
        /// The highest index at which the follower may match: the last one at or before `prev_index` whose term is
        /// at most `prev_term`. The leader skips its own entries of later terms than `hint_term` likewise, so
        /// that logs that differ for long are brought together in a round trip a term.
        hint_index: Index,
        /// The follower's term at `hint_index`.
        hint_term: Term,
    },
    /// The leader is alive; confirms reads (thesis 6.4).
    Heartbeat {
        /// The leader's commit index, never beyond what the receiver has been verified to hold.
        commit: Index,
        /// The newest read context of the leader's term; 0 for none.
        context: u64,
    },
    /// The follower takes the receiver for the leader of `term`. Also sent, without a context, to a leader of a
    /// lower term, which learns from it that its reign is over.
    HeartbeatReply {
        /// The context of the heartbeat that this answers; 0 for none.
        context: u64,
    },
    /// "Campaign now": leadership transfer (thesis 3.10).
    TimeoutNow {
        /// The leader's last index: a target that lacks it ignores this.
        last_index: Index,
    },
    /// The follower has installed a snapshot: its log matches up to here, durably.
    SnapshotInstalled {
        /// The snapshot's index (or its commit index, if that was already beyond).
        match_index: Index,
    },
}
