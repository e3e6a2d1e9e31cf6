//! Asking a running cluster to take this node in, over its client API: `POST /v1/cluster/members`.

use crate::http_call;
use balsa_raft::NodeId;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a cluster is asked.
#[derive(Serialize)]
pub(super) struct JoinRequest<'a> {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slot: Option<u32>,
    pub(super) peer_address: &'a str,
    pub(super) client_address: &'a str,
}

/// What it answers, as far as a joining node needs it.
#[derive(Deserialize)]
pub(super) struct JoinReply {
    pub(super) cluster: String,
    pub(super) members: Vec<JoinedMember>,
}

#[derive(Deserialize)]
pub(super) struct JoinedMember {
    pub(super) id: String,
    pub(super) slot: u32,
    pub(super) peer_address: String,
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks once; the error is a sentence for a person.
pub(super) async fn ask(url: &str, request: &JoinRequest<'_>) -> Result<JoinReply, String> {
    let address = host_and_port(url)?;
    let json = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let (status, body) =
        http_call::call(Method::POST, &address, "/v1/cluster/members", json, TIMEOUT).await?;
    if status != StatusCode::OK {
        return Err(format!("{url} answers {status}: {}", String::from_utf8_lossy(&body)));
    }
    serde_json::from_slice(&body).map_err(|error| format!("the answer of {url} is not understood: {error}"))
}

/// `http://host:port/…`, or `host:port`.
fn host_and_port(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let address = rest.split('/').next().unwrap_or(rest);
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address.to_string()),
        _ => Err(format!("'{url}' is not a URL like http://host:3000")),
    }
}

/// An id as the API writes it.
pub(super) fn id_text(id: NodeId) -> String {
    format!("{:016x}", id.0)
}

/// The reverse of [`id_text`].
pub(super) fn parse_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("'{text}' is not a hexadecimal id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_a_url() {
        assert_eq!(host_and_port("http://a.b:3000/").unwrap(), "a.b:3000");
        assert_eq!(host_and_port("[::1]:3000").unwrap(), "[::1]:3000");
        for wrong in ["http://", "http://host", "host:port", ":3000"] {
            assert!(host_and_port(wrong).unwrap_err().contains("http://host:3000"), "{wrong}");
        }
    }
}
