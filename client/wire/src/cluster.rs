//! The cluster's state, and requests to change its members.
//!
//! Identities are hexadecimal strings: they use all 64 bits, which JSON numbers do not carry safely.

use crate::kv::present;
use serde::{Deserialize, Serialize};

/// The answer to `GET /v1/cluster`: what the answering node knows, whether or not there is a leader.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterAnswer {
    /// The cluster; `None` before founding or joining.
    pub cluster: Option<String>,
    /// The answering node; `None` before founding or joining.
    pub node: Option<String>,
    /// Its slot.
    pub slot: u32,
    /// Its software version.
    pub version: String,
    /// Where it stands in its life.
    pub phase: Phase,
    /// A sentence about what it waits for, if it waits.
    pub waiting_for: Option<String>,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader it knows.
    pub leader: Option<String>,
    /// The leader's client address, `host:port`.
    pub leader_address: Option<String>,
    /// Leader changes it has seen since it started.
    pub leader_changes: u64,
    /// The oldest entry in its log.
    pub first_index: u64,
    /// The newest entry in its log.
    pub last_index: u64,
    /// Committed up to here.
    pub commit_index: u64,
    /// Whether it has applied what was committed when it first heard of its leader.
    pub caught_up: bool,
    /// The cluster's feature level, as far as it has applied; 0: it did not say.
    #[serde(default)]
    pub feature_level: u32,
    /// Why it would refuse writes that need room, did it lead; absent: it would not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_full: Option<String>,
    /// Its store.
    pub store: StoreState,
    /// The members, by slot.
    pub members: Vec<Member>,
}

/// The state of a node's store, all of one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreState {
    /// Applied up to this index.
    pub applied_index: u64,
    /// The store's revision.
    pub revision: u64,
    /// A digest of all that was applied, refused commands included, 32 hexadecimal digits: equal on all nodes at equal
    /// `applied_index`.
    pub digest: String,
}

/// A member as the cluster records it, and what the answering node knows of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Member {
    /// Its identity.
    pub id: String,
    /// Its slot: the stable name under which it is replaced.
    pub slot: u32,
    /// Whether it votes.
    pub membership: MembershipKind,
    /// Whether it leads, as far as the answering node knows.
    pub leader: bool,
    /// Where peers reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
    /// The newest entry it is known to hold durably, as the leader knows or has told the answering node lately.
    pub match_index: Option<u64>,
    /// How many entries that is behind the answering node's log.
    pub lag: Option<u64>,
    /// Whether it answers.
    pub health: Health,
    /// The software version it last told.
    pub version: Option<String>,
    /// The feature level to which it goes, as it last told.
    #[serde(default)]
    pub feature_level: Option<u32>,
    /// Its disk is nearly full, as it last told.
    #[serde(default)]
    pub disk_low: bool,
}

/// Where a node stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits to found a cluster with its peers.
    Founding,
    /// Asks a running cluster to take it in.
    Joining,
    /// A member of a cluster.
    Running,
    /// Was removed from the cluster: it serves nothing, and joins anew when it is started again.
    Removed,
    /// Hands over, drains and stops.
    Stopping,
    /// One that this build does not know.
    #[serde(other)]
    Other,
}

/// A node's role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Follows and votes.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Replicates, does not vote.
    Learner,
    /// One that this build does not know.
    #[serde(other)]
    Other,
}

/// Whether a member votes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MembershipKind {
    /// Votes.
    Voter,
    /// Replicates, does not vote.
    Learner,
    /// One that this build does not know.
    #[serde(other)]
    Other,
}

/// Whether a member answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It answered the leader within an election timeout, as that knows or has told lately, or is the answering node.
    Healthy,
    /// It did not.
    Unreachable,
    /// The answering node has not heard of it: there is no leader that it knows of.
    Unknown,
    /// One that this build does not know.
    #[serde(other)]
    Other,
}

/// The body of `POST /v1/cluster/members`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    /// The new node's identity, minted on its disk: up to 16 hexadecimal digits, not 0.
    pub id: String,
    /// Its slot; `None`: the lowest free one.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Where peers reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
}

/// The body of `POST /v1/cluster/transfer-leadership`; an empty body is as an empty object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TransferLeadership {
    /// To whom; `None`: the voter that is furthest.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The answer to a change of members or leader.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MembershipAnswer {
    /// The cluster.
    pub cluster: String,
    /// The membership that resulted, by slot.
    pub members: Vec<MemberAddress>,
}

/// A member in a [`MembershipAnswer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemberAddress {
    /// Its identity.
    pub id: String,
    /// Its slot.
    pub slot: u32,
    /// Whether it votes.
    pub membership: MembershipKind,
    /// Where peers reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
}

/// The answer to `GET /readyz?verbose`, and the `checks` of its problem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadyAnswer {
    /// Whether all checks hold.
    pub ready: bool,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// One thing that readiness depends on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// What was found, for a person.
    pub detail: String,
}
