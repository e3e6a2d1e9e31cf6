//! What an applied state means to whoever may lead with it.

use crate::position::FIRST_LEVEL;
use crate::store::Store;

/// What an applied state means to whoever may lead with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// The feature level at which the cluster is.
    pub feature_level: u32,
    /// When the next lease or wait is due, in milliseconds of cluster time: the leader should propose to end it then.
    pub due_ms: Option<u64>,
    /// History has grown beyond its bound: the leader should propose to compact up to this revision.
    pub wants_compaction: Option<u64>,
}

impl Default for Outlook {
    /// Of the state before the first entry.
    fn default() -> Self {
        Outlook { feature_level: FIRST_LEVEL, due_ms: None, wants_compaction: None }
    }
}

impl Store {
    /// What the applied state means to whoever may lead with it.
    pub fn outlook(&self) -> Outlook {
        Outlook {
            feature_level: self.position.level(),
            due_ms: self.leases.next_due_ms(),
            wants_compaction: self.wants_compaction(),
        }
    }
}
