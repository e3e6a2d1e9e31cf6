//! Asking a running cluster to take this node in, over its client API: `POST /v1/cluster/members`.

use balsa_raft::NodeId;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::net::TcpStream;

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
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Asks once; the error is a sentence for a person.
pub(super) async fn ask(url: &str, request: &JoinRequest<'_>) -> Result<JoinReply, String> {
    let address = host_and_port(url)?;
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    tokio::time::timeout(TIMEOUT, post(&address, body))
        .await
        .map_err(|_| format!("{url} did not answer in time"))?
}

async fn post(address: &str, body: Vec<u8>) -> Result<JoinReply, String> {
    let say = |error: &dyn std::fmt::Display| format!("http://{address}: {error}");
    let stream = TcpStream::connect(address).await.map_err(|error| say(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| say(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::post("/v1/cluster/members")
        .header(header::HOST, address)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| say(&error))?;
    let response = sender.send_request(request).await.map_err(|error| say(&error))?;
    let status = response.status();
    let bytes =
        Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| say(&error))?;
    driver.abort();
    let bytes = bytes.to_bytes();
    if status != StatusCode::OK {
        return Err(say(&format!("{status}: {}", String::from_utf8_lossy(&bytes))));
    }
    serde_json::from_slice(&bytes).map_err(|error| say(&format!("its answer is not understood: {error}")))
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
