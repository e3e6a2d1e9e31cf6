//! Which term the servers are in: where it is the same before and after a load, nobody else led in between.

use super::connection::Connection;
use super::requests::{Kind, Prepared};
use super::{Failure, Target};
use balsa_wire::cluster::ClusterAnswer;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{HeaderMap, Method, Uri};
use serde::Deserialize;

/// The newest term that any of `target`'s servers knows; none has one at [`Kind::Baseline`].
pub(super) async fn term(target: &Target) -> Result<u64, Failure> {
    let mut newest = 0;
    for address in &target.endpoints {
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
        let found = of_answer(target.kind, &answer.body)
            .map_err(|error| failed(format!("{error} in {}", String::from_utf8_lossy(&answer.body))))?;
        newest = newest.max(found);
    }
    Ok(newest)
}

/// The gateway writes 64-bit numbers as strings, as protobuf's JSON does.
#[derive(Deserialize)]
struct EtcdStatus {
    #[serde(rename = "raftTerm")]
    raft_term: String,
}

fn of_answer(kind: Kind, body: &[u8]) -> Result<u64, String> {
    match kind {
        Kind::Baseline => Ok(0),
        Kind::Balsa => {
            let seen: ClusterAnswer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            Ok(seen.term)
        }
        Kind::Etcd => {
            let status: EtcdStatus = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            status.raft_term.parse().map_err(|_| format!("`{}` is no term", status.raft_term))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_found() {
        let etcd =
            br#"{"header":{"member_id":"1","raft_term":"4"},"version":"3.6.1","leader":"9","raftTerm":"4"}"#;
        assert_eq!(of_answer(Kind::Etcd, etcd), Ok(4));
        assert!(of_answer(Kind::Etcd, b"{}").is_err());
        assert!(of_answer(Kind::Balsa, b"{}").is_err());
    }
}
