//! What can be refused, one type an operation. Nothing here is about a disk or a network: the core has
//! neither.

use crate::config::ConfigError;
use crate::membership::{ChangeError, DecodeError};
use crate::types::{Index, NodeId, Term};
use thiserror::Error;

/// Why a proposal was not appended. It has not been, and will not be, applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ProposeError {
    /// Only a leader appends.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// `max_uncommitted_bytes` are waiting for a quorum: try again when some have committed.
    #[error("too many bytes are uncommitted")]
    Overloaded,
    /// Leadership is being handed over; done or aborted within an election timeout.
    #[error("leadership is being transferred")]
    Transferring,
}

/// Why a membership change was not appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MembershipError {
    /// Only a leader appends.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// An earlier change is uncommitted or joint, or no entry of the leader's term has committed yet (hazard
    /// 14).
    #[error("an earlier membership change is under way")]
    Busy,
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    Transferring,
    /// The changes give no valid membership.
    #[error(transparent)]
    Invalid(#[from] ChangeError),
}

/// Why a read was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ReadError {
    /// Only a leader confirms reads.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// `max_pending_reads` are waiting.
    #[error("too many reads are waiting")]
    Overloaded,
}

/// Why no leadership transfer began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TransferError {
    /// Only a leader hands over.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// A transfer to another node is under way.
    #[error("leadership is being transferred to {to}")]
    InProgress {
        /// Its target.
        to: NodeId,
    },
    /// The target is this leader, or does not vote.
    #[error("node {to} cannot take over: it is no other voter")]
    NotAVoter {
        /// The target asked for.
        to: NodeId,
    },
    /// No other voter has been heard from lately.
    #[error("no other voter is active")]
    NoTarget,
}

/// Why a node cannot start from what its driver read from disk. None of these is repaired by guessing.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RestoreError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log has a gap, or does not begin behind the snapshot.
    #[error("log entry {found} where {expected} was due")]
    NotContiguous {
        /// The index that was due.
        expected: Index,
        /// The index that was there.
        found: Index,
    },
    /// An entry's term is below the one before it, or above the hard state's.
    #[error(
        "log entry {index} has term {term} after term {before}, with the hard state at term {hard_state}"
    )]
    TermOutOfOrder {
        /// The entry.
        index: Index,
        /// Its term.
        term: Term,
        /// The term of the entry (or snapshot) before it.
        before: Term,
        /// The term of the hard state.
        hard_state: Term,
    },
    /// The state is older than the log's beginning, or newer than its end.
    #[error(
        "applied index {applied} is outside of the log, which is compacted up to {compacted} and ends at {last}"
    )]
    AppliedOutsideLog {
        /// The index that the state has applied.
        applied: Index,
        /// The snapshot's index.
        compacted: Index,
        /// The log's last index.
        last: Index,
    },
    /// A membership entry cannot be read.
    #[error("membership entry {index}: {source}")]
    Membership {
        /// The entry.
        index: Index,
        /// What is wrong with it.
        source: DecodeError,
    },
}
