//! The control call: one request, one reply, before identities are known (founding, joining).

use super::handshake;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

pub(super) const PATH: &str = "/peer/v1/control";
/// The largest reply that is read, in bytes.
const REPLY_BYTES_MAX: usize = 8 << 20;

/// Why a control call got no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The address did not resolve, or nobody answered there. The request was not seen.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// The address that was called.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke in between. The request may have been seen.
    #[error("the connection to {address} broke: {source}")]
    Broken {
        /// The address that was called.
        address: String,
        /// What broke.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was refused.
    #[error("{address} refused with {status}: {text}")]
    Refused {
        /// The address that was called.
        address: String,
        /// The HTTP status.
        status: u16,
        /// The answer's beginning.
        text: String,
    },
    /// The time was over. The request may have been seen.
    #[error("{address} did not answer within {timeout_ms} ms")]
    TimedOut {
        /// The address that was called.
        address: String,
        /// The time it was given, in milliseconds.
        timeout_ms: u128,
    },
}

/// Asks the node at `address` (`host:port`) and waits for its reply, at most for `timeout`. All addresses of the name are
/// tried in turn.
pub async fn call_control(address: &str, payload: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
    match tokio::time::timeout(timeout, call(address, payload, timeout)).await {
        Ok(result) => result,
        Err(_) => Err(CallError::TimedOut { address: address.to_owned(), timeout_ms: timeout.as_millis() }),
    }
}

async fn call(address: &str, payload: Bytes, limit: Duration) -> Result<Bytes, CallError> {
    let stream = connect(address, limit)
        .await
        .map_err(|source| CallError::Unreachable { address: address.to_owned(), source })?;
    let broken =
        |source: hyper::Error| CallError::Broken { address: address.to_owned(), source: source.into() };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let mut request = Request::new(Full::new(payload));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(PATH);
        let headers = request.headers_mut();
        handshake::write_protocol(headers);
        headers.insert(HOST, host_header(address));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), REPLY_BYTES_MAX).collect().await;
        let body = body.map_err(|source| {
            let too_large = source.is::<LengthLimitError>();
            let source =
                if too_large { format!("a reply above {REPLY_BYTES_MAX} bytes").into() } else { source };
            CallError::Broken { address: address.to_owned(), source }
        })?;
        let body = body.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned();
        Err(CallError::Refused { address: address.to_owned(), status: status.as_u16(), text })
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        // The connection ends before the exchange only when it broke; the exchange then says how.
        _ = connection => exchange.await,
    }
}

/// Tries all addresses of the name; each has an equal share of the time, so that a dead one leaves some to the others.
async fn connect(address: &str, limit: Duration) -> io::Result<TcpStream> {
    let found: Vec<SocketAddr> = crate::resolve::resolve(address).await?;
    let share = limit / u32::try_from(found.len()).unwrap_or(u32::MAX).max(1);
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
    for candidate in found {
        match tokio::time::timeout(share, TcpStream::connect(candidate)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// The address as a Host header; a name that cannot be one is left out of it.
pub(super) fn host_header(address: &str) -> HeaderValue {
    HeaderValue::from_str(address).unwrap_or_else(|_| HeaderValue::from_static("balsa"))
}
