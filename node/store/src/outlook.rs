//! What an applied state means to whoever may lead with it.

use crate::position::FIRST_LEVEL;
use crate::store::Store;

/// What an applied state means to whoever may lead with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// The feature level at which the cluster is.
    pub feature_level: u32,
    /// History has grown beyond its bound: the leader should propose to compact up to this revision.
    pub wants_compaction: Option<u64>,
}

impl Default for Outlook {
    /// Of the state before the first entry.
    fn default() -> Self {
        Outlook { feature_level: FIRST_LEVEL, wants_compaction: None }
    }
}

impl Store {
    /// What the applied state means to whoever may lead with it.
    pub fn outlook(&self) -> Outlook {
        Outlook { feature_level: self.position.level(), wants_compaction: self.wants_compaction() }
    }
}
