//! Headers of our own on answers.

use crate::engine::status::{ClusterId, Status};
use balsa_raft::Term;
use balsa_wire::header;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

const CLUSTER: HeaderName = HeaderName::from_static(header::CLUSTER);
const REVISION: HeaderName = HeaderName::from_static(header::REVISION);
const TERM: HeaderName = HeaderName::from_static(header::TERM);
const LEADER: HeaderName = HeaderName::from_static(header::LEADER);
/// Names a stale read's age.
pub(super) const APPLIED_AGE_MS: HeaderName = HeaderName::from_static(header::APPLIED_AGE_MS);
/// Marks a recorded answer.
pub(super) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static(header::IDEMPOTENCY_REPLAYED);

/// What a status says in headers, made once for all answers until it changes.
#[derive(Debug, Default)]
pub(super) struct StatusHeaders {
    cluster: Option<ClusterId>,
    term: Term,
    leader: Option<String>,
    cluster_value: Option<HeaderValue>,
    term_value: Option<HeaderValue>,
    leader_value: Option<HeaderValue>,
}

impl StatusHeaders {
    /// Makes them.
    pub(super) fn of(status: &Status) -> StatusHeaders {
        let leader = status.leader_client_address();
        StatusHeaders {
            cluster: status.cluster,
            term: status.term,
            leader: leader.map(str::to_owned),
            cluster_value: status.cluster.and_then(|id| HeaderValue::try_from(id.to_string()).ok()),
            term_value: Some(HeaderValue::from(status.term.0)),
            // An address that no header can carry is left out: it is only a hint.
            leader_value: leader.and_then(|address| HeaderValue::from_str(address).ok()),
        }
    }

    /// Whether they still say what `status` says.
    pub(super) fn fits(&self, status: &Status) -> bool {
        self.term_value.is_some()
            && self.term == status.term
            && self.cluster == status.cluster
            && self.leader.as_deref() == status.leader_client_address()
    }

    /// Puts them, and the revision, on an answer.
    pub(super) fn put_on(&self, headers: &mut HeaderMap, revision: u64) {
        let values = [(CLUSTER, &self.cluster_value), (TERM, &self.term_value), (LEADER, &self.leader_value)];
        for (name, value) in values {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(REVISION, HeaderValue::from(revision));
    }
}
