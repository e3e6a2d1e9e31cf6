//! `GET /v1/backup`: all that this node's store holds, as one stream that proves itself whole ([`balsa_wire::backup`]).
//!
//! It is no older than the request: a read index is confirmed, the store has applied it, and what it has applied is
//! written out. From then on the state stands still in the store's engine, and a thread of its own reads it, in the
//! background, at a bounded pace, and no faster than the client takes it. A stream that cannot go on ends with its
//! connection, and never as if it were whole.

use super::answer::Answer;
use super::call::Call;
use super::problem::Failure;
use super::{query, request_id};
use crate::metrics::Metrics;
use crate::pace::Pace;
use axum::body::Body;
use balsa_store::SnapshotSource;
use balsa_wire::backup::{CONTENT_TYPE, Header, Writer};
use balsa_wire::header;
use bytes::Bytes;
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_DISPOSITION, HeaderName, HeaderValue};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Backups at once: each keeps files of the store that would otherwise go, and a thread.
const BACKUPS_MAX: usize = 2;
/// How long the store may take to write out what it has applied.
const FLUSH_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of one chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Parts of frames between the thread and the connection; full, the thread waits.
const PARTS: usize = 8;

const BACKUP_REVISION: HeaderName = HeaderName::from_static(header::BACKUP_REVISION);

/// The backups of a node.
#[derive(Debug)]
pub(super) struct Backups {
    places: Arc<Semaphore>,
    pace: Arc<Pace>,
}

impl Backups {
    pub(super) fn new(bytes_per_second: u64) -> Backups {
        Backups { places: Arc::new(Semaphore::new(BACKUPS_MAX)), pace: Arc::new(Pace::new(bytes_per_second)) }
    }
}

/// GET.
pub(super) async fn get(call: &Call<'_>) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    request_id::refuse(&call.parts.headers)?;
    let Ok(place) = Arc::clone(&call.state.backups.places).try_acquire_owned() else {
        return Err(Failure::TooManyBackups);
    };
    call.confirm_read().await?;
    let begun = tokio::time::timeout(FLUSH_PATIENCE, call.state.handle.begin_backup()).await;
    let source = begun.map_err(|_| Failure::BackupNotBegun)??;
    let header = describe(call, &source);
    let revision = header.revision;
    let name = format!("attachment; filename=\"balsa-{}-{revision}.backup\"", header.cluster);
    let thread = Thread {
        source,
        pace: Arc::clone(&call.state.backups.pace),
        metrics: Arc::clone(&call.state.metrics),
        _place: place,
    };
    let mut answer = Answer::text(CONTENT_TYPE, Bytes::new());
    answer.streamed = Some(thread.start(&header)?);
    answer.revision = revision;
    answer.more = vec![
        (BACKUP_REVISION, HeaderValue::from(revision)),
        (CONTENT_DISPOSITION, HeaderValue::try_from(name).map_err(|_| Failure::Misfit)?),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok(answer)
}

fn describe(call: &Call<'_>, source: &SnapshotSource) -> Header {
    let (status, position) = (call.state.handle.status(), source.position());
    Header {
        cluster: status.cluster.map_or_else(String::new, |id| id.to_string()),
        node: status.node.map_or_else(String::new, |id| id.to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: position.revision,
        index: position.applied_index,
        time_ms: position.time_ms,
        feature_level: position.level(),
        digest: format!("{:032x}", position.digest),
        keys: source.live_keys(),
    }
}

/// What a part of the stream is to its reader.
enum Part {
    More(Bytes),
    Last(Bytes),
}

/// Reads the state and hands it on.
struct Thread {
    source: SnapshotSource,
    pace: Arc<Pace>,
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
}

impl Thread {
    /// Starts it, and gives what it reads as a body.
    fn start(self, header: &Header) -> Result<Body, Failure> {
        let (parts, received) = mpsc::channel(PARTS);
        let (writer, first) = Writer::begin(header);
        let (revision, keys) = (header.revision, header.keys);
        self.metrics.backups_in_progress.inc();
        let metrics = Arc::clone(&self.metrics);
        let run = move || {
            let (started, metrics) = (Instant::now(), Arc::clone(&self.metrics));
            let outcome = self.run(writer, first.into(), &parts);
            let took_ms = started.elapsed().as_millis() as u64;
            match outcome {
                Ok(()) => {
                    metrics.backups_sent.inc();
                    tracing::info!(revision, keys, took_ms, "a backup was sent");
                }
                Err(reason) => {
                    metrics.backups_failed.inc();
                    tracing::warn!(revision, took_ms, reason, "a backup was not sent whole");
                }
            }
            metrics.backups_in_progress.dec();
        };
        match std::thread::Builder::new().name("balsa-backup".into()).spawn(run) {
            Ok(_) => Ok(Body::new(Parts { received, is_whole: false })),
            Err(error) => {
                metrics.backups_in_progress.dec();
                Err(Failure::Store(format!("the system refuses a thread: {error}")))
            }
        }
    }

    fn run(mut self, mut writer: Writer, first: Bytes, parts: &mpsc::Sender<Part>) -> Result<(), String> {
        balsa_store::give_way();
        let send = |part| parts.blocking_send(part).map_err(|_| "the client went away".to_owned());
        send(Part::More(first))?;
        while let Some(chunk) = self.source.next_chunk(CHUNK_BYTES).map_err(|error| error.to_string())? {
            std::thread::sleep(self.pace.reserve(chunk.len()).saturating_duration_since(Instant::now()));
            let head = Bytes::copy_from_slice(&writer.chunk(&chunk));
            self.metrics.backup_sent_bytes.inc_by((head.len() + chunk.len()) as u64);
            send(Part::More(head))?;
            send(Part::More(chunk))?;
        }
        send(Part::Last(writer.end().into()))
    }
}

/// The stream as a body: without its last part it ends in an error, which breaks the connection.
struct Parts {
    received: mpsc::Receiver<Part>,
    is_whole: bool,
}

/// The thread ended before the last part.
#[derive(Debug, thiserror::Error)]
#[error("the backup was cut off")]
struct CutOff;

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if self.is_whole {
            return Poll::Ready(None);
        }
        self.received.poll_recv(cx).map(|part| match part {
            Some(Part::More(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Part::Last(bytes)) => {
                self.is_whole = true;
                Some(Ok(Frame::data(bytes)))
            }
            None => Some(Err(CutOff)),
        })
    }
}
