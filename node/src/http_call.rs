//! One HTTP request to another node's client API, for a node that joins and for `dev`. Users have the client crate.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::fmt::Display;
use std::time::Duration;
use tokio::net::TcpStream;

const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Asks `address` (`host:port`); the error is a sentence for a person.
pub(crate) async fn call(
    method: Method,
    address: &str,
    path: &str,
    json: Vec<u8>,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), String> {
    let say = |error: &dyn Display| format!("http://{address}{path}: {error}");
    let exchange = async {
        let found = crate::resolve::resolve(address).await.map_err(|error| say(&error))?;
        let stream = TcpStream::connect(&found[..]).await.map_err(|error| say(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| say(&error))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(json)))
            .map_err(|error| say(&error))?;
        let response = sender.send_request(request).await.map_err(|error| say(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        driver.abort();
        Ok((status, body.map_err(|error| say(&error))?.to_bytes()))
    };
    tokio::time::timeout(timeout, exchange).await.map_err(|_| say(&"no answer in time"))?
}
