//! The past: compaction, and the events of watches.

use crate::kv::Item;
use serde::{Deserialize, Serialize};

/// The body of `POST /v1/compact`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompactRequest {
    /// The oldest revision that shall stay readable; one beyond the newest means the newest.
    pub revision: u64,
}

/// Its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompactAnswer {
    /// The oldest revision that can be read.
    pub oldest_revision: u64,
}

/// What the data of an event `put` holds beside the key as it is since ([`Item`]), where it was asked for.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Previous {
    /// What the key was before; `None`: it was not there.
    #[serde(default)]
    pub prev: Option<Item>,
}

/// The data of an event `delete`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeleteEvent {
    /// The key.
    pub key: String,
    /// The store's revision after it.
    pub revision: u64,
    /// Where it was asked for: what it was before.
    #[serde(default)]
    pub prev: Option<Item>,
}

/// The data of an event `progress`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProgressEvent {
    /// The watcher has got all up to this revision.
    pub revision: u64,
}

/// The data of an event `compacted`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompactedEvent {
    /// The oldest revision that can be read.
    pub oldest_revision: u64,
}
