//! One connection of the generator: HTTP/1.1 by hyper, kept alive, one request at a time, no task of its own.

use super::requests::Prepared;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use tokio::net::TcpStream;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the connection ended")]
    Ended,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// A connection that stands.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Connection, NoAnswer> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Connection { sender, driver: Box::pin(driver) })
    }

    /// Sends one request and waits for its whole answer.
    pub(super) async fn exchange(&mut self, prepared: &Prepared) -> Result<Answer, NoAnswer> {
        let Connection { sender, driver } = self;
        let mut request = Request::new(Full::new(prepared.body.clone()));
        *request.method_mut() = prepared.method.clone();
        *request.uri_mut() = prepared.uri.clone();
        *request.headers_mut() = prepared.headers.clone();
        let mut answering = pin!(async {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            Ok(Answer { status, body: whole(response.into_body()).await? })
        });
        // Both halves of hyper's connection in this one task: no wake-up leads from one to the other.
        poll_fn(|cx| {
            if let Poll::Ready(answered) = answering.as_mut().poll(cx) {
                return Poll::Ready(answered);
            }
            let ended = driver.as_mut().poll(cx);
            match (answering.as_mut().poll(cx), ended) {
                (Poll::Pending, Poll::Ready(ended)) => Poll::Ready(Err(match ended {
                    Ok(()) => NoAnswer::Ended,
                    Err(error) => error.into(),
                })),
                (answered, _) => answered,
            }
        })
        .await
    }
}

/// A body that comes in one piece is not copied.
async fn whole(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut first = Bytes::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if !first.is_empty() {
            let rest = body.collect().await?.to_bytes();
            return Ok([first, data, rest].concat().into());
        }
        first = data;
    }
    Ok(first)
}
