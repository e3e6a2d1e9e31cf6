//! What the node's offline repair prints for programs.

use serde::{Deserialize, Serialize};

/// What `balsa-node recover --json` says of a data folder while it changes nothing. A folder that cannot be judged, such as
/// one whose log is damaged, is an error instead.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "holds", rename_all = "snake_case")]
pub enum RecoveryLook {
    /// A member whose data can go on.
    Member(RecoveryAnswer),
    /// A recovery that was begun and has not ended, and what the folder held then.
    Begun(RecoveryAnswer),
    /// A restore that was begun and has not ended: it has no data of its own.
    Restoring,
    /// Nothing that could go on, for certain.
    Nothing {
        /// Why that is certain.
        why: String,
    },
}

/// What `balsa-node recover --json --yes` has done, and what it looks at before. Identities are hexadecimal.
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
    /// How often this data was recovered or restored: a higher one succeeds a lower one, whatever the terms say.
    #[serde(default)]
    pub generation: u64,
    /// The identities that vote, by the end of its log.
    #[serde(default)]
    pub voters: Vec<String>,
    /// In the middle of a change of them, those that voted before: a quorum is a majority of both.
    #[serde(default)]
    pub outgoing: Vec<String>,
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
