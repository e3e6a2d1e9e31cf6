//! Errors: RFC 9457 problem documents with a stable code and, on writes, what became of the write.

use crate::cluster::Check;
use serde::{Deserialize, Serialize};

/// The content type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// A problem document.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI that names the kind: `urn:balsa:problem:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time and what would be right, for a person.
    pub detail: String,
    /// The kind, for a program.
    pub code: Code,
    /// On writes: what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// On [`Code::PreconditionFailed`]: the key's revision; 0: the key is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<u64>,
    /// On transactions: the part that is to blame, as a path into the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// On [`Code::Compacted`]: the oldest revision that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_revision: Option<u64>,
    /// The bound that was met, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// On [`Code::NotReady`]: what was checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// What became of a write that was answered with an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It had no effect and never will.
    NotApplied,
    /// It took effect.
    Applied,
    /// It may take effect, or have taken it.
    Unknown,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $text:literal, $title:literal;)*) => {
        /// The kinds of problems. New ones may come; none changes its meaning.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
            /// One that this build does not know: go by the status.
            #[serde(other, rename = "other")]
            Other,
        }

        impl Code {
            /// Every code that a node may send.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// As it is written in documents.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Code::$name => $text,)*
                    Code::Other => "other",
                }
            }

            /// The HTTP status that it goes with; 0: not known here.
            pub fn status(self) -> u16 {
                match self {
                    $(Code::$name => $status,)*
                    Code::Other => 0,
                }
            }

            /// In words, the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self {
                    $(Code::$name => $title,)*
                    Code::Other => "Another problem",
                }
            }
        }
    };
}

codes! {
    /// The key is empty, not UTF-8 or wrongly percent-encoded.
    InvalidKey = 400, "invalid_key", "The key is not valid";
    /// The key is over the limit.
    KeyTooLong = 400, "key_too_long", "The key is too long";
    /// A name at the root that is not a key.
    ReservedName = 400, "reserved_name", "The name is reserved at the root";
    /// The body is not the JSON it should be.
    InvalidJson = 400, "invalid_json", "The body is not valid";
    /// A JSON member that is not known here.
    UnknownMember = 400, "unknown_member", "The body has an unknown member";
    /// A query parameter that is not known here.
    UnknownParameter = 400, "unknown_parameter", "Unknown query parameter";
    /// A parameter of the path or the query with a value that is not valid, or given twice.
    InvalidParameter = 400, "invalid_parameter", "Invalid parameter";
    /// A transaction with a part that is not valid; `path` says which.
    InvalidTxn = 400, "invalid_txn", "The transaction is not valid";
    /// A condition that is not supported.
    InvalidCondition = 400, "invalid_condition", "The condition is not supported";
    /// A header with a value that is not valid.
    InvalidHeader = 400, "invalid_header", "Invalid header";
    /// The body ended early or could not be read.
    IncompleteBody = 400, "incomplete_body", "The body is incomplete";
    /// The request comes from a web page of another origin.
    CrossOrigin = 403, "cross_origin", "Requests from other web pages are refused";
    /// Nothing is served at this path.
    NoSuchRoute = 404, "no_such_route", "There is nothing at this path";
    /// The key is absent.
    KeyNotFound = 404, "key_not_found", "The key does not exist";
    /// There is no such lease: it has ended, or never was.
    LeaseNotFound = 404, "lease_not_found", "The lease does not exist";
    /// The revision that was asked for has not come yet.
    FutureRevision = 404, "future_revision", "The revision has not come yet";
    /// There is no such member.
    NoSuchMember = 404, "no_such_member", "The member does not exist";
    /// See the `Allow` header.
    MethodNotAllowed = 405, "method_not_allowed", "The method is not allowed here";
    /// The request did not arrive in time.
    RequestTimeout = 408, "request_timeout", "The request did not arrive in time";
    /// The session has expired, or has forgotten this request.
    SessionExpired = 409, "session_expired", "The session has expired";
    /// Another holds the lock, and did so for as long as was to be waited.
    LockBusy = 409, "lock_busy", "The lock is held by another";
    /// The place in the lock's queue is gone: it was released, or its lease or its time to wait has ended.
    LockLost = 409, "lock_lost", "The place in the lock's queue is gone";
    /// Another membership change is under way.
    MembershipBusy = 409, "membership_busy", "Another membership change is under way";
    /// The change cannot be made.
    ChangeRefused = 409, "change_refused", "The change cannot be made";
    /// The revision is compacted.
    Compacted = 410, "compacted", "The revision is compacted";
    /// The condition did not hold.
    PreconditionFailed = 412, "precondition_failed", "The condition does not hold";
    /// The value or the body is over the limit.
    TooLarge = 413, "too_large", "The body is too large";
    /// The content type does not fit here.
    UnsupportedMediaType = 415, "unsupported_media_type", "The content type is not supported here";
    /// The idempotency key or session number was used for another request.
    RequestMismatch = 422, "request_mismatch", "The idempotency key was used for another request";
    /// The node broke.
    Internal = 500, "internal", "The node failed";
    /// A bound of this node is met.
    Overloaded = 503, "overloaded", "The node is overloaded";
    /// No leader was found in time.
    NoLeader = 503, "no_leader", "There is no leader";
    /// A quorum did not confirm the read in time.
    NotConfirmed = 503, "not_confirmed", "The read was not confirmed in time";
    /// Another leader's entry took the write's place.
    Overwritten = 503, "overwritten", "The write lost against another leader's";
    /// Too many recorded replies.
    ReplyTableFull = 503, "reply_table_full", "The reply table is full";
    /// There are too many leases, keys with leases, or places in queues of locks.
    TableFull = 503, "table_full", "A table of the cluster is full";
    /// The cluster's feature level does not allow it yet; members with an older build hold it back.
    FeatureLevel = 503, "feature_level", "The cluster's feature level is too low";
    /// The node is stopping.
    Stopping = 503, "stopping", "The node is stopping";
    /// The node was removed from the cluster; other members serve.
    Removed = 503, "removed", "The node was removed from the cluster";
    /// The node is not ready for requests.
    NotReady = 503, "not_ready", "The node is not ready";
    /// The node does not turn.
    NotAlive = 503, "not_alive", "The node hangs";
    /// What became of the write is not known.
    OutcomeUnknown = 504, "outcome_unknown", "The outcome is unknown";
    /// The quota or the disk is full.
    StorageFull = 507, "storage_full", "The storage is full";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_they_say_and_unknown_ones_are_read() {
        for code in Code::ALL {
            let written = serde_json::to_string(code).unwrap();
            assert_eq!(written, format!("\"{}\"", code.as_str()));
            assert_eq!(serde_json::from_str::<Code>(&written).unwrap(), *code);
        }
        assert_eq!(serde_json::from_str::<Code>("\"from_the_future\"").unwrap(), Code::Other);
    }

    #[test]
    fn a_problem_leaves_out_what_it_does_not_have() {
        let problem = Problem {
            kind: "urn:balsa:problem:key_not_found".into(),
            title: Code::KeyNotFound.title().into(),
            status: 404,
            detail: "no key a".into(),
            code: Code::KeyNotFound,
            outcome: None,
            current_revision: None,
            path: None,
            oldest_revision: None,
            limit_bytes: None,
            checks: Vec::new(),
        };
        let written = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            written,
            r#"{"type":"urn:balsa:problem:key_not_found","title":"The key does not exist","status":404,"detail":"no key a","code":"key_not_found"}"#
        );
        assert_eq!(serde_json::from_str::<Problem>(&written).unwrap(), problem);
    }
}
