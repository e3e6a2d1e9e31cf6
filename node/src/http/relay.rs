//! Answers that do not end: their head is hyper's, and what follows leaves the connection without it.
//!
//! A connection in hyper's hands keeps buffers for requests that never come, 16 KiB and more; ten thousand watchers would
//! pay for nothing else. So once the head has left, the connection is taken out of hyper's hands, and the pieces are
//! written as chunks (RFC 9112 section 7.1) right here. Nothing more is read from it but its end.

use super::watch::Pieces;
use axum::body::Body;
use axum::response::Response;
use bytes::{Buf, Bytes};
use hyper::body::Frame;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes that are written at once, about.
const WRITE_BYTES: usize = 32 << 10;
/// Pieces that are written at once.
const WRITE_PIECES: usize = 64;

/// The pieces on their way from an answer to its connection. A response can carry only what can be cloned.
#[derive(Clone)]
struct Handover(Arc<Mutex<Option<Pieces>>>);

/// How far the head of an endless answer is.
#[derive(Default, Debug)]
pub(super) struct HeadOut(AtomicU8);

const WRITTEN: u8 = 1;
const FLUSHED: u8 = 2;

impl HeadOut {
    /// The connection's bytes have been flushed.
    pub(super) fn flushed(&self) {
        let _ = self.0.compare_exchange(WRITTEN, FLUSHED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the head has left.
    pub(super) fn is_out(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FLUSHED
    }
}

/// In place of the body: hyper asks for it once the head is written, and waits for ever.
struct NoBody(Arc<HeadOut>);

impl hyper::body::Body for NoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.0.store(WRITTEN, Ordering::Relaxed);
        Poll::Pending
    }
}

/// A response whose pieces the connection is to take with [`take`].
pub(super) fn response(pieces: Pieces) -> Response {
    // Of no known length: an empty one would be told as such.
    let mut response = Response::new(Body::new(NoBody(Arc::default())));
    response.extensions_mut().insert(Handover(Arc::new(Mutex::new(Some(pieces)))));
    response
}

/// The pieces of a response, if it is one that does not end; `head` tells when its head has left.
pub(super) fn take(response: &mut Response, head: &Arc<HeadOut>) -> Option<Pieces> {
    let Handover(pieces) = response.extensions_mut().remove()?;
    *response.body_mut() = Body::new(NoBody(Arc::clone(head)));
    pieces.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Sends pieces until they end, the client goes, or it takes nothing for `patience`. `is_chunked`: the head said so.
pub(super) async fn send(stream: &mut TcpStream, mut pieces: Pieces, is_chunked: bool, patience: Duration) {
    let (mut reader, mut writer) = stream.split();
    let mut scratch = [0; 64];
    loop {
        let (written, has_ended) = tokio::select! {
            biased;
            gathered = gather(&mut pieces) => gathered,
            read = reader.read(&mut scratch) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => continue, // it has nothing to say here
            },
        };
        let writing = async {
            if !written.is_empty() && is_chunked {
                let size = format!("{:x}\r\n", written.len());
                let mut chunk = Buf::chain(size.as_bytes(), written).chain(&b"\r\n"[..]);
                writer.write_all_buf(&mut chunk).await?;
            } else {
                writer.write_all(&written).await?;
            }
            if has_ended {
                if is_chunked {
                    writer.write_all(b"0\r\n\r\n").await?;
                }
                writer.shutdown().await?;
            }
            std::io::Result::Ok(())
        };
        // Whoever does not read is told by the end of the connection, and goes on from what it has.
        if !matches!(timeout(patience, writing).await, Ok(Ok(()))) || has_ended {
            return;
        }
    }
}

/// The next piece, with all that are ready behind it; and whether there will be no more.
async fn gather(pieces: &mut Pieces) -> (Bytes, bool) {
    let mut ready: Vec<Bytes> = Vec::new();
    let has_ended = poll_fn(|cx| {
        let mut bytes = 0;
        while ready.len() < WRITE_PIECES && bytes < WRITE_BYTES {
            match pieces.poll_next(cx) {
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Pending if ready.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Some(piece)) => {
                    bytes += piece.len();
                    ready.push(piece);
                }
            }
        }
        Poll::Ready(false)
    })
    .await;
    // One alone is shared by all who get it.
    let written = if ready.len() == 1 { ready.swap_remove(0) } else { ready.concat().into() };
    (written, has_ended)
}
