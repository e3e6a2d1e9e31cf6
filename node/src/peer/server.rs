//! The receiving side: accepts streams of peers and control calls, and delivers to the [`Inbox`].
//!
//! A connection, its decoder and the delivery run in one task, so that a message crosses no threads between the socket
//! and the inbox. While the inbox has no room nothing more is read, but the receiver's signs of life go on: slow is not
//! dead.

use super::body::AliveBody;
use super::control;
use super::frame::{Decoder, FrameError};
use super::handshake::{CLUSTER, Hello, REFUSED, Refusal, check_protocol, hex, write_protocol};
use super::inbound::Admission;
use super::{Inbound, Inbox, LaneKind, LocalIdentity, PeerConfig};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// The largest control request, in bytes: founding and joining need little.
const CONTROL_BYTES_MAX: usize = 1 << 20;
/// How much is gathered into one delivery, in bytes, before the inbox is asked again.
const GATHER_BYTES: usize = 1 << 20;
/// The wait after the system could not accept (out of descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Answer = Response<Either<AliveBody, Full<Bytes>>>;

/// Serves peers until `shutdown` resolves; then every connection is dropped (nothing of theirs is promised).
///
/// Until `identity` holds one, streams are refused as not ready, and control calls are answered. `inbound` is shared with
/// the [`super::PeerHub`].
pub async fn serve_peers<I: Inbox>(
    listener: TcpListener,
    config: PeerConfig,
    identity: watch::Receiver<Option<LocalIdentity>>,
    inbox: I,
    inbound: Inbound,
    shutdown: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(config.inbound_connections_max));
    let server = Arc::new(Server { config, identity, inbox, inbound });
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => match slots.clone().try_acquire_owned() {
                Ok(slot) => {
                    let server = server.clone();
                    connections.spawn(async move {
                        let _slot = slot;
                        let _open = server.inbound.connection();
                        server.connection(stream, from.ip().to_canonical()).await;
                    });
                }
                Err(_) => _ = server.inbound.counters().over_limit.fetch_add(1, Relaxed),
            },
            Err(error) => {
                warn!(%error, "cannot accept a peer connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

struct Server<I> {
    config: PeerConfig,
    identity: watch::Receiver<Option<LocalIdentity>>,
    inbox: I,
    inbound: Inbound,
}

/// An accepted stream on its way from the request's handler to the task that delivers it.
struct Accepted {
    admission: Admission,
    body: Incoming,
}

/// Why a stream ended.
enum End {
    Closed,
    Superseded,
    Silent,
    Broken(FrameError),
}

impl<I: Inbox> Server<I> {
    async fn connection(&self, stream: TcpStream, from: IpAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "a peer connection broke at once");
            return;
        }
        let (hand_over, mut accepted) = mpsc::channel(1);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(self.config.request_timeout_ms))
            .keep_alive(false)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(|request| self.answer(request, from, hand_over.clone())),
            );
        let mut connection = pin!(connection);
        let stream = tokio::select! {
            biased;
            Some(stream) = accepted.recv() => stream,
            _ = &mut connection => return,
        };
        let (from, lane) = (stream.admission.from, stream.admission.lane.name());
        debug!(peer = %from, lane, "accepted a peer's stream");
        let counters = self.inbound.counters();
        match self.receive(connection, stream).await {
            End::Closed => debug!(peer = %from, lane, "a peer's stream ended"),
            End::Superseded => {
                debug!(peer = %from, lane, "a newer stream took over, or it is no peer any more")
            }
            End::Silent => {
                counters.silent.fetch_add(1, Relaxed);
                info!(peer = %from, lane, "a peer's stream fell silent and was closed");
            }
            End::Broken(error) => {
                counters.count_broken(error);
                warn!(peer = %from, lane, %error, "a peer's stream was damaged and was closed");
            }
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        from: IpAddr,
        hand_over: mpsc::Sender<Accepted>,
    ) -> Result<Answer, Infallible> {
        let answer = match (request.method(), request.uri().path()) {
            (&Method::POST, control::PATH) => self.control(request).await,
            (&Method::POST, path) => match LaneKind::ALL.into_iter().find(|lane| lane.path() == path) {
                Some(lane) => self.stream(lane, request, from, &hand_over),
                None => Ok(not_found()),
            },
            _ => Ok(not_found()),
        };
        Ok(answer.unwrap_or_else(|(refusal, text)| {
            self.inbound.counters().refused.count(refusal);
            debug!(reason = refusal.name(), text, "refused a peer");
            let mut answer = refused(refusal, &text);
            if let Some(local) = *self.identity.borrow() {
                answer.headers_mut().insert(CLUSTER, hex(local.cluster));
            }
            answer
        }))
    }

    fn stream(
        &self,
        lane: LaneKind,
        request: Request<Incoming>,
        from: IpAddr,
        hand_over: &mpsc::Sender<Accepted>,
    ) -> Result<Answer, (Refusal, String)> {
        let local = *self.identity.borrow();
        let hello = Hello::check(request.headers(), local, |node| self.inbound.was_removed(node))?;
        let admission = self.inbound.admit(&hello, lane, from)?;
        let accepted = Accepted { admission, body: request.into_body() };
        hand_over
            .try_send(accepted)
            .map_err(|_| (Refusal::Malformed, "a second stream on one connection".to_owned()))?;
        let keepalive = Duration::from_millis(self.config.keepalive_interval_ms);
        let mut answer = Response::new(Either::Left(AliveBody::new(keepalive)));
        write_protocol(answer.headers_mut());
        Ok(answer)
    }

    async fn control(&self, request: Request<Incoming>) -> Result<Answer, (Refusal, String)> {
        check_protocol(request.headers())?;
        let limit_ms = self.config.request_timeout_ms;
        let body = Limited::new(request.into_body(), CONTROL_BYTES_MAX).collect();
        let payload = match timeout(Duration::from_millis(limit_ms), body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return Err((Refusal::Malformed, format!("cannot read the request: {error}"))),
            Err(_) => return Err((Refusal::Malformed, format!("no whole request within {limit_ms} ms"))),
        };
        let reply = self.inbox.control(payload).await;
        let mut answer = Response::new(Either::Right(Full::new(reply)));
        write_protocol(answer.headers_mut());
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        Ok(answer)
    }

    /// Delivers a stream's frames until it ends, running its connection meanwhile.
    async fn receive<C>(&self, mut connection: Pin<&mut C>, accepted: Accepted) -> End
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let Accepted { admission, body } = accepted;
        let mut superseded = pin!(admission.cancel.notified());
        let _turn = tokio::select! {
            biased;
            () = &mut superseded => return End::Superseded,
            turn = admission.turn() => turn,
            _ = connection.as_mut() => return End::Closed,
        };
        let mut gather = Gather::new(body, Decoder::new(admission.lane, self.config.frame_bytes_max));
        let silence = Duration::from_millis(self.config.dead_peer_timeout_ms);
        let mut last = Instant::now();
        let mut watchdog = pin!(sleep(silence));
        loop {
            let gathered = tokio::select! {
                biased;
                () = &mut superseded => return End::Superseded,
                gathered = poll_fn(|cx| gather.poll(connection.as_mut(), cx)) => gathered,
                () = &mut watchdog => {
                    if last.elapsed() >= silence {
                        return End::Silent;
                    }
                    watchdog.as_mut().reset(last + silence);
                    continue;
                }
            };
            let frames = match gathered {
                Ok(frames) => frames,
                Err(end) => return end,
            };
            if !frames.is_empty() {
                admission.received.count(&frames);
                tokio::select! {
                    biased;
                    () = &mut superseded => return End::Superseded,
                    () = self.deliver(&admission, frames) => (),
                    _ = connection.as_mut(), if !gather.connection_ended => return End::Closed,
                }
            }
            // The time the inbox took is not the peer's silence.
            last = Instant::now();
        }
    }

    async fn deliver(&self, admission: &Admission, frames: Vec<Bytes>) {
        match admission.lane {
            LaneKind::Message => self.inbox.message(admission.from, frames).await,
            LaneKind::Bulk => self.inbox.bulk(admission.from, frames).await,
        }
    }
}

/// Takes whole frames out of everything that a connection has to give now.
struct Gather {
    body: Incoming,
    decoder: Decoder,
    body_ended: bool,
    connection_ended: bool,
}

impl Gather {
    fn new(body: Incoming, decoder: Decoder) -> Gather {
        Gather { body, decoder, body_ended: false, connection_ended: false }
    }

    /// Ready whenever anything arrived, be it without a whole frame.
    fn poll<C>(&mut self, mut connection: Pin<&mut C>, cx: &mut Context<'_>) -> Poll<Result<Vec<Bytes>, End>>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut frames = Vec::new();
        let mut arrived_bytes = 0;
        while !self.body_ended && arrived_bytes < GATHER_BYTES {
            // The body gives a piece at a time, and the connection the next one only when it is polled again.
            self.connection_ended = self.connection_ended || connection.as_mut().poll(cx).is_ready();
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    arrived_bytes += piece.len();
                    if let Err(error) = self.decoder.feed(piece, &mut frames) {
                        return Poll::Ready(Err(End::Broken(error)));
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => self.body_ended = true,
                Poll::Pending => break,
            }
        }
        if arrived_bytes > 0 {
            Poll::Ready(Ok(frames))
        } else if self.body_ended || self.connection_ended {
            Poll::Ready(Err(End::Closed))
        } else {
            Poll::Pending
        }
    }
}

fn refused(refusal: Refusal, text: &str) -> Answer {
    let mut answer = problem(refusal.status(), refusal.name(), text);
    answer.headers_mut().insert(REFUSED, HeaderValue::from_static(refusal.name()));
    answer
}

fn not_found() -> Answer {
    problem(
        StatusCode::NOT_FOUND,
        "not_found",
        "peers use POST on /peer/v1/stream, /peer/v1/bulk, /peer/v1/control",
    )
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Answer {
    let body = serde_json::json!({
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    let mut answer = Response::new(Either::Right(Full::from(body.to_string())));
    *answer.status_mut() = status;
    write_protocol(answer.headers_mut());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}
