//! `GET /v1/watch`: changes as server-sent events.
//!
//! A watch is a position in the store's revisions, and an answer that asks for what comes next whenever its connection takes
//! more (`relay`). A client that does not read is not waited for: its connection ends, and it goes on with
//! `Last-Event-ID`, from history.

use super::answer::Answer;
use super::call::Call;
use super::problem::Failure;
use super::query::{self, Param, Query};
use super::sse;
use super::state::Shared;
use crate::watch::{Cursor, Filter, Keys, Next, Registration};
use balsa_store::PastError;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Names the last event that the client has.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a watch takes.
pub(super) const PARAMS: &[Param] = &[Param::Key, Param::Prefix, Param::From, Param::Events, Param::Prev];

/// GET.
pub(super) async fn get(call: &Call<'_>) -> Result<Answer, Failure> {
    let query = query::parse(call.parts.uri.query(), PARAMS)?;
    call.refuse_conditions()?;
    let filter = filter(call, &query)?;
    let last_id = last_event_id(&call.parts.headers)?;
    let hub = call.state.hub.clone();
    let registration = hub.register(filter)?;
    // What it is told first must be true, and a node without a leader has nothing to say.
    call.confirm_read().await?;
    let view = call.state.view();
    let newest = view.revision();
    let after = match (query.from.map(|from| from - 1), last_id) {
        (None, None) => newest,
        (from, last_id) => from.max(last_id).unwrap_or(newest),
    };
    let oldest = view.compacted_revision();
    if after < oldest {
        return Err(Failure::Compacted { oldest });
    }
    let told = after.min(newest);
    let stream = Stream {
        state: Arc::clone(call.state),
        cursor: registration.cursor(after),
        registration,
        first: Some(sse::progress(told)),
        proofs_seen: None,
        told,
        has_ended: false,
    };
    let mut answer = Answer::new(StatusCode::OK);
    answer.content_type = Some(HeaderValue::from_static(sse::CONTENT_TYPE));
    answer.stream = Some(Pieces { working: Some(Box::pin(stream.next())) });
    answer.revision = newest;
    Ok(answer)
}

fn filter(call: &Call<'_>, query: &Query) -> Result<Filter, Failure> {
    let keys = match (&query.key, &query.prefix) {
        (Some(key), None) => {
            call.check_key(key)?;
            Keys::One(Bytes::copy_from_slice(key.as_bytes()))
        }
        (None, Some(prefix)) => {
            if !prefix.is_empty() {
                call.check_key(prefix)?;
            }
            Keys::Prefix(Bytes::copy_from_slice(prefix.as_bytes()))
        }
        _ => return Err(Failure::Parameters("a watch takes one of `key` and `prefix` (empty: all keys)")),
    };
    let (puts, deletes) = match query.events {
        None => (true, true),
        Some(query::Events::Puts) => (true, false),
        Some(query::Events::Deletes) => (false, true),
    };
    Ok(Filter { keys, puts, deletes, prev: query.prev })
}

/// The last revision that the client has.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = id.to_str().unwrap_or_default();
    if id.is_empty() {
        return Ok(None); // as a browser has it before the first event
    }
    match id.parse() {
        Ok(revision) if id.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(revision)),
        _ => Err(Failure::LastEventId),
    }
}

/// One watcher.
struct Stream {
    state: Arc<Shared>,
    registration: Registration,
    cursor: Cursor,
    /// What is said first.
    first: Option<Bytes>,
    /// Of the last progress that was told; `None`: none since the beginning.
    proofs_seen: Option<u64>,
    /// The newest number that was sent.
    told: u64,
    has_ended: bool,
}

impl Stream {
    /// What is sent next; `None`: the end.
    async fn next(mut self) -> (Stream, Option<Bytes>) {
        if let Some(first) = self.first.take() {
            self.proofs_seen = Some(self.registration.head().proofs);
            return (self, Some(first));
        }
        loop {
            if self.has_ended {
                return (self, None);
            }
            let head = self.registration.head();
            if let Some(why) = self.registration.ended(&head) {
                self.has_ended = true;
                return (self, Some(sse::comment(why)));
            }
            match self.registration.next(&mut self.cursor, &head) {
                Next::Revision(revision) => {
                    if revision.is_last {
                        self.told = revision.revision;
                    }
                    let with_prev = self.cursor.filter().prev;
                    self.state.metrics.watch_events.inc_by(revision.events.len() as u64);
                    let written = sse::revision(&revision, with_prev);
                    return (self, Some(written));
                }
                Next::Behind => {
                    let (cursor, read) = read_history(&self.state, self.cursor).await;
                    self.cursor = cursor;
                    match read {
                        Ok(()) => {}
                        Err(PastError::Compacted { oldest }) => {
                            self.has_ended = true;
                            return (self, Some(sse::compacted(oldest)));
                        }
                        Err(error) => {
                            tracing::error!(%error, "a watch ends: history cannot be read");
                            self.has_ended = true;
                            return (self, Some(sse::comment("history cannot be read")));
                        }
                    }
                }
                Next::Wait if self.proofs_seen != Some(head.proofs) => {
                    self.proofs_seen = Some(head.proofs);
                    // One that waits for a revision to come has got nothing yet.
                    let after = self.cursor.after();
                    let reached = if after > head.newest.1 { head.proven } else { after };
                    let said = if reached >= self.told { sse::progress(reached) } else { sse::comment("") };
                    self.told = self.told.max(reached);
                    return (self, Some(said));
                }
                Next::Wait => {
                    if !self.registration.changed().await {
                        self.has_ended = true;
                    }
                }
            }
        }
    }
}

/// Where the disk may be waited for.
async fn read_history(state: &Shared, mut cursor: Cursor) -> (Cursor, Result<(), PastError>) {
    let view = state.view();
    let _turn = state.past_reads.acquire().await; // never closed
    let reading = tokio::task::spawn_blocking(move || {
        let read = cursor.read_history(&view);
        (cursor, read)
    });
    match reading.await {
        Ok(read) => read,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

type Working = Pin<Box<dyn Future<Output = (Stream, Option<Bytes>)> + Send>>;

/// The pieces of an answer that does not end.
pub(super) struct Pieces {
    working: Option<Working>,
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces").finish_non_exhaustive()
    }
}

impl Pieces {
    /// The next piece; `None`: the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(working) = &mut self.working else { return Poll::Ready(None) };
        let Poll::Ready((stream, written)) = working.as_mut().poll(cx) else { return Poll::Pending };
        self.working = match &written {
            Some(_) => Some(Box::pin(stream.next())),
            None => None,
        };
        Poll::Ready(written)
    }
}
