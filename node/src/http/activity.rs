//! What a connection is busy with, seen from the bytes that move and the requests that begin and end.
//!
//! Only the connection's own task writes here; atomics are for the compiler, not for other threads.

use super::relay::HeadOut;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection is busy with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    /// Nothing: it waits for a request, or for the client to take the last answer.
    Waiting = 0,
    /// A request has begun, its head has not ended.
    ReadingHead = 1,
    /// A request is being answered.
    Answering = 2,
}

/// What a connection is busy with, and since when.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    doing: AtomicU8,
    /// Milliseconds after `opened`.
    since_ms: AtomicU64,
    /// Of an answer that does not end.
    head: Arc<HeadOut>,
}

impl Activity {
    /// Waiting, from now.
    pub(super) fn new() -> Activity {
        Activity {
            opened: Instant::now(),
            doing: AtomicU8::new(0),
            since_ms: AtomicU64::new(0),
            head: Arc::default(),
        }
    }

    /// How far the head of an answer that does not end is.
    pub(super) fn head(&self) -> &Arc<HeadOut> {
        &self.head
    }

    /// It does this from now.
    pub(super) fn set(&self, doing: Doing) {
        self.doing.store(doing as u8, Ordering::Relaxed);
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// What it does, and for how long.
    pub(super) fn get(&self) -> (Doing, Duration) {
        let doing = match self.doing.load(Ordering::Relaxed) {
            0 => Doing::Waiting,
            1 => Doing::ReadingHead,
            _ => Doing::Answering,
        };
        let since_ms = self.now_ms().saturating_sub(self.since_ms.load(Ordering::Relaxed));
        (doing, Duration::from_millis(since_ms))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn received(&self) {
        if self.doing.load(Ordering::Relaxed) == Doing::Waiting as u8 {
            self.set(Doing::ReadingHead);
        }
    }

    fn sent(&self) {
        // A client that takes its answer slowly is not idle.
        if self.doing.load(Ordering::Relaxed) == Doing::Waiting as u8 {
            self.set(Doing::Waiting);
        }
    }
}

/// A stream that notes in an [`Activity`] when bytes move.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Watched<S> {
        Watched { stream, activity }
    }

    fn noted(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(wrote, Poll::Ready(Ok(bytes)) if bytes > 0) {
            self.activity.sent();
        }
        wrote
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noted(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.activity.head.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_a_request_only_while_waiting() {
        let activity = Activity::new();
        activity.sent();
        assert_eq!(activity.get().0, Doing::Waiting);
        activity.received();
        assert_eq!(activity.get().0, Doing::ReadingHead);
        activity.set(Doing::Answering);
        activity.received();
        activity.sent();
        assert_eq!(activity.get().0, Doing::Answering);
        activity.set(Doing::Waiting);
        assert_eq!(activity.get().0, Doing::Waiting);
    }
}
