//! Leases and locks.

use crate::kv::present;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The body of `POST /v1/leases`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GrantLease {
    /// How long it lasts without a sign of life, as in `10s`.
    pub ttl: String,
}

/// A lease that lasts: the answer to a grant and to a sign of life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseAnswer {
    /// Its number.
    pub lease: u64,
    /// How long it lasts from now on without a sign of life, in milliseconds.
    pub ttl_ms: u64,
}

/// The answer to `GET /v1/leases/{id}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseState {
    /// Its number.
    pub lease: u64,
    /// How long it lasts without a sign of life, in milliseconds.
    pub ttl_ms: u64,
    /// What is left of that, as the answering node knows, in milliseconds.
    pub remaining_ms: u64,
    /// The keys that end with it; in a list of leases: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// There are more keys.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// The answer to `GET /v1/leases`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeasesAnswer {
    /// In order of their numbers.
    pub leases: Vec<LeaseState>,
    /// There are more: ask with `after` the last number.
    pub more: bool,
}

/// The answer to `DELETE /v1/leases/{id}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevokeAnswer {
    /// Its number.
    pub lease: u64,
    /// Keys that were deleted with it so far; the rest follows at once.
    pub deleted: u64,
    /// The store's revision.
    pub revision: u64,
}

/// The body of `POST /v1/locks/{name}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AcquireLock {
    /// How long the lock lasts without a sign of life, as in `10s`; `None`: 10 s, or as the lease does.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// A lease that the lock ends with; `None`: one of its own.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// How long to wait for it, as in `30s`; `None`: not at all.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// A key that shows who holds the lock.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The value of that key.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub value: Option<Box<RawValue>>,
}

/// A lock that is held.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockAnswer {
    /// Its name.
    pub name: String,
    /// The fencing token: higher than that of any holder before.
    pub token: u64,
    /// The lease that it ends with.
    pub lease: u64,
    /// How long it lasts without a sign of life to the lease, in milliseconds.
    pub ttl_ms: u64,
}

/// The answer to `DELETE /v1/locks/{name}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseAnswer {
    /// Its name.
    pub name: String,
    /// Whether the lock was held, or waited for, under this token.
    pub released: bool,
    /// The store's revision.
    pub revision: u64,
}

/// The answer to `GET /v1/locks/{name}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockState {
    /// Its name.
    pub name: String,
    /// Who holds it; `None`: nobody.
    pub holder: Option<LockHolder>,
    /// How many wait for it.
    pub waiting: u64,
}

/// Who holds a lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LockHolder {
    /// The fencing token.
    pub token: u64,
    /// The lease that it ends with.
    pub lease: u64,
    /// How long it lasts without a sign of life, in milliseconds.
    pub ttl_ms: u64,
    /// The key that shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The answer to `GET /v1/locks`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LocksAnswer {
    /// Locks that are held, in order of their names.
    pub locks: Vec<HeldLock>,
    /// There are more: ask with `after` the last name.
    pub more: bool,
}

/// A lock that is held.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldLock {
    /// Its name.
    pub name: String,
    /// Its holder's token.
    pub token: u64,
}
