//! What the driver must do, ordered by type: what may leave at once, what must be persisted and what may
//! leave only after that, what may be applied.

use crate::membership::Membership;
use crate::message::Message;
use crate::types::{Entry, HardState, Index, NodeId, Term};
use std::sync::Arc;

/// The outcome of the inputs since the last one was taken. Empty parts ask for nothing.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Ready {
    /// Send now; these promise nothing that the disk could still forget.
    pub send: Vec<Message>,
    /// Write to the log, in the order of tokens; then report with [`crate::Raft::handle_persisted`].
    pub persist: Option<Persist>,
    /// Committed entries to apply, in order. Contiguous from one Ready to the next.
    pub apply: Vec<Entry>,
    /// Reads that a quorum has confirmed: serve them from a state that has applied `index` at least.
    pub reads_confirmed: Vec<ReadConfirmed>,
    /// Reads that will not be confirmed here (leadership was lost): ask again elsewhere.
    pub reads_dropped: Vec<ReadId>,
    /// Followers that need a snapshot: stream them one, then report with
    /// [`crate::Raft::handle_snapshot_sent`].
    pub snapshots_wanted: Vec<NodeId>,
    /// Role, leader or term changed.
    pub role_changed: bool,
    /// The effective membership changed (appended, rolled back, or restored by a snapshot).
    pub membership_changed: bool,
}

impl Ready {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty()
            && self.persist.is_none()
            && self.apply.is_empty()
            && self.reads_confirmed.is_empty()
            && self.reads_dropped.is_empty()
            && self.snapshots_wanted.is_empty()
            && !self.role_changed
            && !self.membership_changed
    }
}

/// One write to the log. The messages inside depend on it: they leave after it is durable, not before.
#[derive(Clone, Debug)]
pub struct Persist {
    /// Names this write in [`crate::Raft::handle_persisted`]; rises by one.
    pub token: PersistToken,
    /// Term and vote, where they changed.
    pub hard_state: Option<HardState>,
    /// Entries to append. Where the log already holds an entry at or beyond the first index, it is truncated
    /// there.
    pub entries: Vec<Entry>,
    /// The log begins anew behind this snapshot, whose state the driver has already made durable: all entries
    /// at or below go, and those above as well (the core hands over what is to be kept in `entries`).
    pub snapshot: Option<SnapshotMeta>,
    /// Send once this is durable.
    pub then_send: Vec<Message>,
}

/// Names a write to the log. A completion of one confirms all before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct PersistToken(pub u64);

/// Where a snapshot stands in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotMeta {
    /// The last entry whose effect it holds.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The membership effective at `index`.
    pub membership: Arc<Membership>,
}

/// A read's name, chosen by the driver; one for a whole batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct ReadId(pub u64);

/// A quorum of current voters acknowledged this leader after the read arrived (thesis 6.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadConfirmed {
    /// Which read.
    pub id: ReadId,
    /// The commit index when it arrived.
    pub index: Index,
}
