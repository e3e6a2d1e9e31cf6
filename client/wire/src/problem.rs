//! Errors: RFC 9457 problem documents with a stable code and, on writes, what became of the write.

use crate::cluster::Check;
use serde::{Deserialize, Serialize};

/// The content type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// A problem document.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
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
    ($($(#[$doc:meta])* $name:ident = $text:literal, $title:literal;)*) => {
        /// The kinds of problems. New ones may come; none changes its meaning.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
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
    /// 400: the key is empty, not UTF-8 or wrongly percent-encoded.
    InvalidKey = "invalid_key", "The key is not valid";
    /// 400: the key is over the limit.
    KeyTooLong = "key_too_long", "The key is too long";
    /// 400: a name at the root that is not a key.
    ReservedName = "reserved_name", "The name is reserved at the root";
    /// 400: the body is not the JSON it should be.
    InvalidJson = "invalid_json", "The body is not valid";
    /// 400: a JSON member that is not known here.
    UnknownMember = "unknown_member", "The body has an unknown member";
    /// 400: a query parameter that is not known here.
    UnknownParameter = "unknown_parameter", "Unknown query parameter";
    /// 400: a query parameter with a value that is not valid, or given twice.
    InvalidParameter = "invalid_parameter", "Invalid query parameter";
    /// 400: a condition that is not supported.
    InvalidCondition = "invalid_condition", "The condition is not supported";
    /// 400: a header with a value that is not valid.
    InvalidHeader = "invalid_header", "Invalid header";
    /// 400: the body ended early or could not be read.
    IncompleteBody = "incomplete_body", "The body is incomplete";
    /// 403: the request comes from a web page of another origin.
    CrossOrigin = "cross_origin", "Requests from other web pages are refused";
    /// 404: nothing is served at this path.
    NoSuchRoute = "no_such_route", "There is nothing at this path";
    /// 404: the key is absent.
    KeyNotFound = "key_not_found", "The key does not exist";
    /// 404: the revision that was asked for has not come yet.
    FutureRevision = "future_revision", "The revision has not come yet";
    /// 404: there is no such member.
    NoSuchMember = "no_such_member", "The member does not exist";
    /// 405: see the `Allow` header.
    MethodNotAllowed = "method_not_allowed", "The method is not allowed here";
    /// 408: the request did not arrive in time.
    RequestTimeout = "request_timeout", "The request did not arrive in time";
    /// 409: the session has expired, or has forgotten this request.
    SessionExpired = "session_expired", "The session has expired";
    /// 409: another membership change is under way.
    MembershipBusy = "membership_busy", "Another membership change is under way";
    /// 409: the change cannot be made.
    ChangeRefused = "change_refused", "The change cannot be made";
    /// 410: the revision is compacted.
    Compacted = "compacted", "The revision is compacted";
    /// 412: the condition did not hold.
    PreconditionFailed = "precondition_failed", "The condition does not hold";
    /// 413: the value or the body is over the limit.
    TooLarge = "too_large", "The body is too large";
    /// 415: the content type does not fit here.
    UnsupportedMediaType = "unsupported_media_type", "The content type is not supported here";
    /// 422: the idempotency key or session number was used for another request.
    RequestMismatch = "request_mismatch", "The idempotency key was used for another request";
    /// 500: the node broke.
    Internal = "internal", "The node failed";
    /// 503: a bound of this node is met.
    Overloaded = "overloaded", "The node is overloaded";
    /// 503: no leader was found in time.
    NoLeader = "no_leader", "There is no leader";
    /// 503: a quorum did not confirm the read in time.
    NotConfirmed = "not_confirmed", "The read was not confirmed in time";
    /// 503: another leader's entry took the write's place.
    Overwritten = "overwritten", "The write lost against another leader's";
    /// 503: too many recorded replies.
    ReplyTableFull = "reply_table_full", "The reply table is full";
    /// 503: the cluster's feature level does not allow it yet; members with an older build hold it back.
    FeatureLevel = "feature_level", "The cluster's feature level is too low";
    /// 503: the node is stopping.
    Stopping = "stopping", "The node is stopping";
    /// 503: the node was removed from the cluster; other members serve.
    Removed = "removed", "The node was removed from the cluster";
    /// 503: the node is not ready for requests.
    NotReady = "not_ready", "The node is not ready";
    /// 503: the node does not turn.
    NotAlive = "not_alive", "The node hangs";
    /// 504: what became of the write is not known.
    OutcomeUnknown = "outcome_unknown", "The outcome is unknown";
    /// 507: the quota or the disk is full.
    StorageFull = "storage_full", "The storage is full";
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
