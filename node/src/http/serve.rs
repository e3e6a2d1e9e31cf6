//! Connections: how many, for how long, and how they end.
//!
//! Hyper speaks HTTP; this module bounds it. Each connection is one task. What it is busy with (waiting for a request,
//! reading a head, answering) is noted beside it as bytes move, and looked at now and then, so that a request sets no
//! timer of the connection.
//!
//! Invariants:
//! - At most `connections` are open; one more is answered 503 and closed, never left waiting in the backlog.
//! - A connection without a request ends after `idle_timeout`; a head that does not end is answered 408.
//! - After `shutdown`, each answer closes its connection; after `leave_time` no request is begun, and those in flight
//!   have `drain_timeout` to finish.

use super::activity::{Activity, Doing, Watched};
use super::problem::Failure;
use super::relay;
use super::state::{ApiState, Shared};
use super::watch::Pieces;
use crate::metrics::Rejected;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Version};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// The largest head of a request, in bytes: the longest key, percent-encoded, and much room for headers.
const HEAD_BYTES_MAX: usize = 128 * 1024;

/// How many connections may be told that there are too many, at once; beyond, they are closed without a word.
const REFUSALS_MAX: usize = 128;

/// How long the farewell to a connection may take.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// How long to wait before accepting again when the system has no file or memory left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections; beyond, a connection is answered 503 and closed.
    pub connections: usize,
    /// From a request's first byte to the end of its head; noticed within half as much again.
    pub head_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long, once the node stops, requests are still taken, with an answer that closes their connection: a client
    /// that learns of it from an answer loses nothing, one whose idle connection is cut as it sends cannot know.
    pub leave_time: Duration,
    /// How long after that requests in flight may take to finish.
    pub drain_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            connections: 16_384,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            leave_time: Duration::from_millis(250),
            drain_timeout: Duration::from_secs(6),
        }
    }
}

/// Gives the task of a connection a place to run.
pub type Spawn = Box<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// What connections are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Go on.
    Serving,
    /// Finish what is in flight, begin nothing.
    Draining,
    /// End now.
    Closing,
}

/// Serves the API on `listener` until `shutdown` is ready and requests in flight are done.
pub async fn serve(
    listener: TcpListener,
    state: ApiState,
    limits: ConnectionLimits,
    spawn: Spawn,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let places_max = u32::try_from(limits.connections).unwrap_or(u32::MAX).min(1 << 24);
    let (stage, stage_seen) = watch::channel(Stage::Serving);
    let reception = Reception {
        listener,
        shared: Arc::clone(&state.0),
        router: super::router(state),
        limits: Arc::new(limits),
        spawn,
        stage: stage_seen,
        places: Arc::new(Semaphore::new(places_max as usize)),
        refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
    };
    tokio::select! {
        () = shutdown => {}
        never = reception.accept() => match never {},
    }
    reception.shared.is_leaving.store(true, Ordering::Relaxed);
    reception.shared.hub.close();
    let _ = timeout(reception.limits.leave_time, reception.accept()).await;

    let Reception { listener, limits, places, .. } = reception;
    drop(listener);
    stage.send_replace(Stage::Draining);
    if timeout(limits.drain_timeout, places.acquire_many(places_max)).await.is_err() {
        let left = places_max as usize - places.available_permits();
        tracing::warn!(connections = left, "requests did not finish in time; their connections are closed");
        stage.send_replace(Stage::Closing);
        // They end at their next turn; a turn is never long.
        let _ = timeout(FAREWELL_TIME, places.acquire_many(places_max)).await;
    }
    Ok(())
}

/// Where connections come in.
struct Reception {
    listener: TcpListener,
    shared: Arc<Shared>,
    router: Router,
    limits: Arc<ConnectionLimits>,
    spawn: Spawn,
    stage: watch::Receiver<Stage>,
    /// One a connection.
    places: Arc<Semaphore>,
    /// One a connection that is told that there is no place.
    refusals: Arc<Semaphore>,
}

impl Reception {
    /// Gives each connection a task, or turns it away, until dropped.
    async fn accept(&self) -> Infallible {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if is_of_the_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "a client's connection cannot be accepted");
                    self.shared.metrics.reject(Rejected::Connections);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                self.shared.metrics.reject(Rejected::Connections);
                if let Ok(turn) = Arc::clone(&self.refusals).try_acquire_owned() {
                    (self.spawn)(Box::pin(refuse(stream, Arc::clone(&self.shared), turn)));
                }
                continue;
            };
            let connection = Connection {
                stream,
                router: self.router.clone(),
                limits: Arc::clone(&self.limits),
                stage: self.stage.clone(),
                shared: Arc::clone(&self.shared),
                _place: place,
            };
            (self.spawn)(Box::pin(connection.run()));
        }
    }
}

/// A connection that is served.
struct Connection {
    stream: TcpStream,
    router: Router,
    limits: Arc<ConnectionLimits>,
    stage: watch::Receiver<Stage>,
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
}

/// Why a connection is looked at.
enum Look {
    /// Hyper has ended it; how, is the client's affair.
    Ended,
    /// The head of an answer that does not end has left.
    HeadOut,
    /// It is time to see what it is busy with.
    Time,
    /// The server wants something else.
    Stage,
}

impl Connection {
    async fn run(mut self) {
        self.shared.metrics.connections.inc();
        if self.waits_for_first_byte().await {
            // Apart and boxed, so that a connection that never says anything costs little, nor one whose answer does not end.
            let endless = Box::pin(self.speak()).await;
            if let Some((pieces, is_chunked)) = endless {
                self.relay(pieces, is_chunked).await;
            }
        }
        self.shared.metrics.connections.dec();
    }

    /// Whether the client begins to speak before the connection is idle for too long, or the server stops.
    async fn waits_for_first_byte(&mut self) -> bool {
        let mut first = [0];
        tokio::select! {
            biased;
            peeked = self.stream.peek(&mut first) => matches!(peeked, Ok(1)),
            () = tokio::time::sleep(self.limits.idle_timeout) => false,
            _ = self.stage.changed() => false,
        }
    }

    /// Sends an answer that does not end, until it does, or the server has waited long enough for that.
    async fn relay(&mut self, pieces: Pieces, is_chunked: bool) {
        let patience = self.limits.idle_timeout;
        let (stream, stage) = (&mut self.stream, &mut self.stage);
        tokio::select! {
            () = relay::send(stream, pieces, is_chunked, patience) => {}
            _ = stage.wait_for(|stage| *stage == Stage::Closing) => {}
        }
    }

    /// Answers requests. Gives what is to follow, once the head of an answer that does not end has left.
    async fn speak(&mut self) -> Option<(Pieces, bool)> {
        // Answers are written whole: waiting to fill a packet would only delay them. Failing is harmless.
        let _ = self.stream.set_nodelay(true);
        let activity = Arc::new(Activity::new());
        let io = TokioIo::new(Watched::new(&mut self.stream, Arc::clone(&activity)));
        let router = TowerToHyperService::new(self.router.clone());
        let endless = Mutex::new(None);
        let service = service_fn(|request: Request<Incoming>| {
            activity.set(Doing::Answering);
            let is_chunked = request.version() != Version::HTTP_10;
            let answering = router.call(request);
            let (activity, endless) = (&activity, &endless);
            async move {
                let mut answered = answering.await;
                if let Ok(response) = &mut answered
                    && let Some(pieces) = relay::take(response, activity.head())
                {
                    *endless.lock().unwrap_or_else(PoisonError::into_inner) = Some((pieces, is_chunked));
                }
                activity.set(Doing::Waiting);
                answered
            }
        });
        let mut http = http1::Builder::new();
        // A client that closes its sending side still wants its answer. No timer of hyper's: one a request costs.
        http.half_close(true).max_buf_size(HEAD_BYTES_MAX).header_read_timeout(None);
        let mut talk = http.serve_connection(io, service);

        // The server may have begun to stop before the first byte came.
        self.stage.mark_changed();
        let every = self.limits.head_timeout.min(self.limits.idle_timeout) / 2;
        let mut next = pin!(sleep_until(Instant::now() + every));
        let mut told = false;
        loop {
            let look = tokio::select! {
                biased;
                _ = &mut talk => Look::Ended,
                () = poll_fn(|_| if activity.head().is_out() { Poll::Ready(()) } else { Poll::Pending }) => Look::HeadOut,
                () = &mut next => Look::Time,
                changed = self.stage.changed() => if changed.is_ok() { Look::Stage } else { Look::Ended },
            };
            match look {
                Look::Ended => return None,
                Look::HeadOut => {
                    drop(talk);
                    return endless.into_inner().unwrap_or_else(PoisonError::into_inner);
                }
                Look::Stage => match *self.stage.borrow_and_update() {
                    Stage::Serving => {}
                    Stage::Draining => std::pin::Pin::new(&mut talk).graceful_shutdown(),
                    Stage::Closing => return None,
                },
                Look::Time => {
                    let (doing, since) = activity.get();
                    match doing {
                        Doing::Answering => {}
                        Doing::Waiting if since < self.limits.idle_timeout => {}
                        Doing::Waiting if told => return None,
                        Doing::Waiting => {
                            told = true;
                            std::pin::Pin::new(&mut talk).graceful_shutdown();
                        }
                        Doing::ReadingHead if since < self.limits.head_timeout => {}
                        Doing::ReadingHead => {
                            drop(talk);
                            self.shared.metrics.reject(Rejected::Timeout);
                            farewell(&mut self.stream, &self.shared, Failure::Head).await;
                            return None;
                        }
                    }
                    next.as_mut().reset(Instant::now() + every);
                }
            }
        }
    }
}

/// Tells a connection that there are too many.
async fn refuse(mut stream: TcpStream, shared: Arc<Shared>, _turn: OwnedSemaphorePermit) {
    farewell(&mut stream, &shared, Failure::TooManyConnections).await;
}

/// Writes a last answer, and takes what the client still sends for a moment, so that it reads the answer rather than
/// that the connection broke.
async fn farewell(stream: &mut TcpStream, shared: &Shared, why: Failure) {
    let answer = why.answer(true);
    let bytes = shared.with_status(|status, revision| answer.into_farewell(status, revision));
    let talking = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether the client hears it is its affair.
    let _ = timeout(FAREWELL_TIME, talking).await;
}

/// Whether accepting failed for one connection only; anything else is the system being out of something.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Raises the process's limit of open files as far as it may, and tells what it is now: each connection takes one.
pub fn raise_open_files_limit() -> io::Result<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(limit.current.unwrap_or(u64::MAX))
}
