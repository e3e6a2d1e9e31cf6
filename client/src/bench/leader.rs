//! Who leads the servers, and in which term: where that is the same before and after a load, nobody else led in between.

use super::connection::Connection;
use super::requests::{Kind, Prepared};
use super::{Failure, Target};
use balsa_wire::cluster::{ClusterAnswer, Role};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{HeaderMap, Method, Uri};
use serde::Deserialize;

/// What the servers say.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// The newest term that any of them knows.
    pub(super) term: u64,
    /// Which of the endpoints leads; the first, where none does.
    pub(super) leader: usize,
}

/// Asks all of `target`'s servers; at [`Kind::Baseline`] there is nothing to ask.
pub(super) async fn look(target: &Target) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    for (at, address) in target.endpoints.iter().enumerate() {
        let (method, path, body) = match target.kind {
            Kind::Baseline => continue,
            Kind::Balsa => (Method::GET, "/v1/cluster", ""),
            Kind::Etcd => (Method::POST, "/v3/maintenance/status", "{}"),
        };
        let failed = |why: String| Failure(format!("cannot learn the term of {address}: {why}"));
        let mut headers = HeaderMap::new();
        let host = HeaderValue::try_from(address).map_err(|error| failed(error.to_string()))?;
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let uri = Uri::from_static(path);
        let request = Prepared { method, uri, headers, body: body.into(), answer_bytes_min: 0 };
        let mut connection = Connection::open(address).await.map_err(|error| failed(error.to_string()))?;
        let answer = connection.exchange(&request).await.map_err(|error| failed(error.to_string()))?;
        let (term, leads) = of_answer(target.kind, &answer.body)
            .map_err(|error| failed(format!("{error} in {}", String::from_utf8_lossy(&answer.body))))?;
        seen.term = seen.term.max(term);
        if leads {
            seen.leader = at;
        }
    }
    Ok(seen)
}

/// The gateway writes 64-bit numbers as strings, as protobuf's JSON does.
#[derive(Deserialize)]
struct EtcdStatus {
    header: EtcdHeader,
    /// Left out while there is none.
    #[serde(default)]
    leader: String,
    #[serde(rename = "raftTerm")]
    raft_term: String,
}

#[derive(Deserialize)]
struct EtcdHeader {
    member_id: String,
}

/// Its term, and whether it leads.
fn of_answer(kind: Kind, body: &[u8]) -> Result<(u64, bool), String> {
    match kind {
        Kind::Baseline => Ok((0, false)),
        Kind::Balsa => {
            let seen: ClusterAnswer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            Ok((seen.term, seen.role == Role::Leader))
        }
        Kind::Etcd => {
            let status: EtcdStatus = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            let term = status.raft_term.parse();
            let term = term.map_err(|_| format!("`{}` is no term", status.raft_term))?;
            Ok((term, status.leader == status.header.member_id))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_and_leaders_are_found() {
        let etcd =
            br#"{"header":{"member_id":"1","raft_term":"4"},"version":"3.6.1","leader":"9","raftTerm":"4"}"#;
        assert_eq!(of_answer(Kind::Etcd, etcd), Ok((4, false)));
        let leading = br#"{"header":{"member_id":"9"},"leader":"9","raftTerm":"4"}"#;
        assert_eq!(of_answer(Kind::Etcd, leading), Ok((4, true)));
        assert!(of_answer(Kind::Etcd, b"{}").is_err());
        assert!(of_answer(Kind::Balsa, b"{}").is_err());
    }
}
