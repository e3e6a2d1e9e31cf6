//! What the node's offline repair prints for programs.

use serde::{Deserialize, Serialize};

/// The answer of `balsa-node recover --json`. Identities are hexadecimal.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RecoveryAnswer {
    /// The cluster that lost its quorum.
    pub cluster: String,
    /// The member whose data this is.
    pub node: String,
    /// Its slot.
    pub slot: u32,
    /// The term of its last entry: of several survivors, the highest term, then index, has most.
    pub last_term: u64,
    /// The index of its last entry.
    pub last_index: u64,
    /// The revision of its state.
    pub revision: u64,
    /// The cluster that it goes on as; `None`: nothing was done.
    pub new_cluster: Option<String>,
    /// The identity that it goes on under.
    pub new_node: Option<String>,
}

/// The answer of `balsa-node restore --json`. Identities are hexadecimal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestorationAnswer {
    /// What the backup is of.
    pub backup: crate::backup::Header,
    /// Its length, in bytes.
    pub bytes: u64,
    /// At which revision the new cluster begins.
    pub new_revision: u64,
    /// The new cluster; `None`: nothing was done.
    pub new_cluster: Option<String>,
    /// Its node.
    pub new_node: Option<String>,
}
