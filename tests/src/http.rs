//! A small HTTP client that says what it knows: not sent, or sent and left guessing.
//!
//! One [`Connection`] is one TCP connection with keep-alive, dialled when needed. It does not retry, follow or decode:
//! who asks decides. Paths go out byte for byte.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::{Context, Failure, Outcome, ensure};
use balsa_wire::problem::Problem;
use serde::de::DeserializeOwned;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The request never left.
    #[error("cannot connect: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("the connection broke: {0}")]
    Broke(String),
    /// It may have arrived, and may yet be answered.
    #[error("no answer in time")]
    Late,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The answer, which must be 2xx; `what` was asked.
    pub fn well(self, what: &str) -> Outcome<Answer> {
        ensure(self.is_success(), || format!("{what} was answered {} {}", self.status, self.text()))?;
        Ok(self)
    }

    /// The body, for a person.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, where it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Outcome<T> {
        serde_json::from_slice(&self.body).context(format!("read the answer {} {}", self.status, self.text()))
    }

    /// The body as a problem document.
    pub fn problem(&self) -> Outcome<Problem> {
        match self.header("content-type") {
            Some(balsa_wire::problem::CONTENT_TYPE) => self.json(),
            other => {
                Err(Failure(format!("no problem document but {other:?}: {} {}", self.status, self.text())))
            }
        }
    }
}

/// A request to be.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The method.
    pub method: &'a str,
    /// The path with its query, as it goes out.
    pub path: &'a str,
    /// Headers beside `Host`.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a str,
}

impl<'a> Ask<'a> {
    /// A GET.
    pub fn get(path: &'a str) -> Ask<'a> {
        Ask { method: "GET", path, headers: &[], body: "" }
    }

    /// A PUT of JSON.
    pub fn put(path: &'a str, body: &'a str) -> Ask<'a> {
        Ask { method: "PUT", path, headers: &[("content-type", "application/json")], body }
    }
}

fn broke(error: hyper::Error) -> NoAnswer {
    NoAnswer::Broke(error.to_string())
}

/// A connection to one node.
#[derive(Debug)]
pub struct Connection {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// One that is dialled when it is first needed; `address` is `host:port`.
    pub fn new(address: impl Into<String>) -> Connection {
        Connection { address: address.into(), sender: None }
    }

    /// Where it goes.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends one request and waits for all of its answer. After a failure the next request dials anew.
    pub async fn send(&mut self, ask: Ask<'_>, patience: Duration) -> Result<Answer, NoAnswer> {
        let mut sent = false;
        let outcome = timeout(patience, self.exchange(ask, &mut sent)).await.unwrap_or_else(|_| {
            Err(if sent { NoAnswer::Late } else { NoAnswer::NotSent("no connection in time".to_string()) })
        });
        if outcome.is_err() {
            self.sender = None;
        }
        outcome
    }

    async fn exchange(&mut self, ask: Ask<'_>, sent: &mut bool) -> Result<Answer, NoAnswer> {
        let (parts, body) = self.ask(ask, sent).await?.into_parts();
        let body = body.collect().await.map_err(broke)?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    async fn ask(&mut self, ask: Ask<'_>, sent: &mut bool) -> Result<Response<Incoming>, NoAnswer> {
        let mut request = Request::builder().method(ask.method).uri(ask.path).header("host", &self.address);
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(ask.body.as_bytes()));
        let request = request.body(body).map_err(|error| NoAnswer::NotSent(error.to_string()))?;
        let sender = self.dial().await?;
        *sent = true;
        sender.send_request(request).await.map_err(broke)
    }

    async fn dial(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, NoAnswer> {
        let usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let not_sent = |error: &dyn std::fmt::Display| NoAnswer::NotSent(error.to_string());
            let stream = TcpStream::connect(&self.address).await.map_err(|error| not_sent(&error))?;
            let _ = stream.set_nodelay(true); // only slower without
            let (sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|error| not_sent(&error))?;
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        self.sender.as_mut().ok_or_else(|| NoAnswer::NotSent("no connection".to_string()))
    }
}

/// An answer that does not end: its head, and a body that comes piece by piece.
#[derive(Debug)]
pub struct Endless {
    /// Its status.
    pub status: u16,
    body: Incoming,
}

impl Endless {
    /// Asks for one, on a connection of its own.
    pub async fn open(address: &str, ask: Ask<'_>, patience: Duration) -> Result<Endless, NoAnswer> {
        let mut connection = Connection::new(address);
        let asked = timeout(patience, connection.ask(ask, &mut false)).await.unwrap_or(Err(NoAnswer::Late));
        let (parts, body) = asked?.into_parts();
        Ok(Endless { status: parts.status.as_u16(), body })
    }

    /// The next piece; `None` where it has ended, or nothing came in this time.
    pub async fn next(&mut self, patience: Duration) -> Option<Bytes> {
        loop {
            let frame = timeout(patience, self.body.frame()).await.ok()??.ok()?;
            if let Ok(piece) = frame.into_data() {
                return Some(piece);
            }
        }
    }
}

/// One request on a connection of its own.
pub async fn send(address: &str, ask: Ask<'_>, patience: Duration) -> Result<Answer, NoAnswer> {
    Connection::new(address).send(ask, patience).await
}
