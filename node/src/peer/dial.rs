//! One dialer a peer and lane: resolve, connect, shake hands, carry the lane for as long as the stream stands, and again.
//!
//! Names are resolved at every dial, for ever (hazard 47); a failed lookup falls back to the address that last accepted. A
//! peer that dialled us is looked for where it came from first: its name may lead to where it was before for as long as
//! somebody remembers that, and name servers remember for half a minute.
//! Waits between dials are jittered and grow (hazard 46), are long after a refusal, and end at once when the peer dials
//! us. Transitions are logged once, not every attempt.

use super::backoff::{Backoff, jitter};
use super::body::LaneBody;
use super::control::host_header;
use super::handshake::{CLUSTER, Hello, PROTOCOL, REFUSED, Refusal, hex};
use super::inbound::Arrival;
use super::lane::Lane;
use super::{Inbox, LaneKind, LocalIdentity, PeerConfig};
use balsa_raft::NodeId;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// How much of a refusal's text is read, in bytes.
const REFUSAL_TEXT_BYTES_MAX: usize = 4 << 10;

type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// How names become addresses.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String) -> Lookup + Send + Sync>);

impl Resolver {
    /// The system's.
    pub fn system() -> Resolver {
        Resolver::new(|address| async move { crate::resolve::resolve(&address).await })
    }

    /// Any function from `host:port` to addresses.
    pub fn new<F, R>(lookup: F) -> Resolver
    where
        F: Fn(String) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Resolver(Arc::new(move |address| Box::pin(lookup(address))))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The address that last accepted us, with the name it was found by.
#[derive(Clone, Debug, Default)]
pub(super) struct LastAnswer(Arc<Mutex<Option<(String, SocketAddr)>>>);

impl LastAnswer {
    fn get(&self, name: &str) -> Option<SocketAddr> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(of, _)| of == name).map(|&(_, address)| address)
    }

    fn set(&self, name: &str, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.to_owned(), address));
    }
}

pub(super) struct Dialer<I> {
    pub(super) config: Arc<PeerConfig>,
    pub(super) local: LocalIdentity,
    pub(super) node: NodeId,
    pub(super) lane: Arc<Lane>,
    pub(super) inbox: I,
    pub(super) resolver: Resolver,
    pub(super) last_answer: LastAnswer,
}

/// How a dial ended.
#[derive(Debug)]
enum End {
    /// Nobody was reached, or not in time.
    Failed(String),
    /// Somebody refused.
    Refused(Refusal, String),
    /// The stream stood, and broke.
    Broke { stood_for: Duration, why: String },
}

/// Closes the lane however the stream ends, even if its task is aborted.
struct CloseOnDrop<'a>(&'a Lane);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<I: Inbox> Dialer<I> {
    /// Dials until `address` is dropped.
    pub(super) async fn run(
        self,
        mut address: watch::Receiver<String>,
        mut arrivals: watch::Receiver<Arrival>,
    ) {
        let mut backoff = Backoff::new(self.config.backoff_min_ms, self.config.backoff_max_ms);
        let mut troubled = false;
        let mut followed = 0;
        loop {
            let name = address.borrow_and_update().clone();
            let Arrival { count, from } = *arrivals.borrow_and_update();
            // Once for each time that it came: where it was then says nothing of where it is when that stream broke.
            let came_from = from.filter(|_| count > followed);
            followed = count;
            let mut told = false;
            // The stream, if it stands, is dropped with the dial, and its lane is closed.
            let end = tokio::select! {
                end = self.dial(&name, came_from, &mut told) => Some(end),
                _ = address.changed() => None,
            };
            if told {
                self.inbox.disconnected(self.node).await;
            }
            let Some(end) = end else {
                if address.has_changed().is_err() {
                    return;
                }
                continue;
            };
            self.log(&name, &end, &mut troubled);
            if let (End::Refused(Refusal::Removed, _), LaneKind::Message) = (&end, self.lane.kind) {
                self.inbox.removed(self.node).await;
            }
            let wait = self.wait_after(&end, &mut backoff);
            tokio::select! {
                () = sleep(wait) => (),
                () = changed_or_never(&mut arrivals) => (),
                gone = address.changed() => if gone.is_err() { return },
            }
        }
    }

    fn wait_after(&self, end: &End, backoff: &mut Backoff) -> Duration {
        let random = getrandom::u64().unwrap_or_default();
        match end {
            End::Refused(refusal, _) if !refusal.is_passing() => {
                jitter(self.config.refused_backoff_ms, random)
            }
            End::Broke { stood_for, .. }
                if stood_for.as_millis() >= u128::from(self.config.backoff_max_ms) =>
            {
                backoff.reset();
                backoff.next(random)
            }
            End::Failed(_) | End::Refused(..) | End::Broke { .. } => backoff.next(random),
        }
    }

    /// At transitions only: the first trouble after a stream stood, not each of the attempts that follow.
    fn log(&self, name: &str, end: &End, troubled: &mut bool) {
        let (peer, lane) = (self.node, self.lane.kind.name());
        let first = !std::mem::replace(troubled, !matches!(end, End::Broke { .. }));
        match end {
            End::Broke { stood_for, why } => {
                info!(%peer, lane, name, why, stood_for_ms = stood_for.as_millis() as u64, "peer stream broke");
            }
            End::Refused(refusal, text) if first => {
                warn!(%peer, lane, name, reason = refusal.name(), text, "peer refused the stream");
            }
            End::Failed(why) if first => info!(%peer, lane, name, why, "peer cannot be reached"),
            End::Refused(_, why) | End::Failed(why) => debug!(%peer, lane, name, why, "peer still away"),
        }
    }

    async fn dial(&self, name: &str, came_from: Option<IpAddr>, told: &mut bool) -> End {
        if let Some(address) = came_from.and_then(|ip| Some(SocketAddr::new(ip, port(name)?)))
            && let end @ End::Broke { .. } = self.carry(name, address, told).await
        {
            return end; // else its name knows better
        }
        let addresses = match self.resolve(name).await {
            Ok(addresses) => addresses,
            Err(why) => {
                self.lane.counters.failed_dials.fetch_add(1, Relaxed);
                return End::Failed(why);
            }
        };
        let (mut failed, mut refused) = (None, None);
        for address in addresses {
            match self.carry(name, address, told).await {
                end @ End::Broke { .. } => return end,
                End::Failed(why) => failed = Some(End::Failed(why)),
                End::Refused(refusal, text) => {
                    self.lane.counters.refused.count(refusal);
                    refused = Some(End::Refused(refusal, text));
                }
            }
        }
        if failed.is_some() {
            self.lane.counters.failed_dials.fetch_add(1, Relaxed);
        }
        // The long wait of a refusal only where nobody else might still answer.
        failed.or(refused).unwrap_or_else(|| End::Failed(format!("{name} has no addresses")))
    }

    /// The addresses of the name now, or the one that last accepted us if it cannot be looked up.
    async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, String> {
        let limit_ms = self.config.connect_timeout_ms;
        let found = match timeout(Duration::from_millis(limit_ms), (self.resolver.0)(name.to_owned())).await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(format!("{name} has no addresses")),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(format!("cannot look up {name}: {error}")),
            Err(_) => Err(format!("cannot look up {name} within {limit_ms} ms")),
        };
        found.or_else(|why| self.last_answer.get(name).map(|address| vec![address]).ok_or(why))
    }

    /// One connection from beginning to end.
    async fn carry(&self, name: &str, address: SocketAddr, told: &mut bool) -> End {
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        };
        let stream = match timeout(limit, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return End::Failed(format!("{address}: {error}")),
            Err(_) => {
                return End::Failed(format!("{address}: no connection within {} ms", limit.as_millis()));
            }
        };
        let _close = CloseOnDrop(&self.lane);
        let (sender, connection) = match http1::handshake(TokioIo::new(stream)).await {
            Ok(halves) => halves,
            Err(error) => return End::Failed(format!("{address}: {error}")),
        };
        let mut talk = pin!(self.talk(sender, name, address, told));
        // Both in this one task: no hand-over between threads on the way of a message.
        tokio::select! {
            biased;
            end = &mut talk => return end,
            _ = connection => (),
        }
        // The connection ended; what it received before, a refusal say, is still there for the talk to end with.
        self.lane.close();
        talk.await
    }

    async fn talk(
        &self,
        mut sender: http1::SendRequest<LaneBody>,
        name: &str,
        address: SocketAddr,
        told: &mut bool,
    ) -> End {
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        let response = match timeout(limit, sender.send_request(self.request(name))).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return End::Failed(format!("{address}: {error}")),
            Err(_) => return End::Failed(format!("{address}: no answer within {} ms", limit.as_millis())),
        };
        let is_ours = response.headers().contains_key(PROTOCOL);
        if response.status() != StatusCode::OK || !is_ours {
            return refusal(response, self.local.cluster, limit).await;
        }
        let since = Instant::now();
        self.last_answer.set(name, address);
        self.lane.open();
        info!(peer = %self.node, lane = self.lane.kind.name(), name, %address, "peer stream stands");
        if self.lane.kind == LaneKind::Message {
            self.inbox.connected(self.node).await;
            *told = true;
        }
        let why = self.listen(response.into_body()).await;
        End::Broke { stood_for: since.elapsed(), why }
    }

    fn request(&self, name: &str) -> Request<LaneBody> {
        // Stream numbers only have to grow within a process: across processes incarnations do.
        static STREAMS: AtomicU64 = AtomicU64::new(0);
        let keepalive = Duration::from_millis(self.config.keepalive_interval_ms);
        let mut request = Request::new(LaneBody::new(self.lane.clone(), keepalive));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(self.lane.kind.path());
        let headers = request.headers_mut();
        let hello = Hello {
            cluster: self.local.cluster,
            from: self.local.node,
            to: self.node,
            incarnation: self.local.incarnation,
            stream: STREAMS.fetch_add(1, Relaxed),
        };
        hello.write(headers);
        headers.insert(HOST, host_header(name));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        request
    }

    /// Reads the receiver's signs of life until they end; says why they did.
    async fn listen(&self, mut body: Incoming) -> String {
        let silence = Duration::from_millis(self.config.dead_peer_timeout_ms);
        let mut watchdog = pin!(sleep(silence));
        loop {
            tokio::select! {
                frame = body.frame() => match frame {
                    Some(Ok(_)) => watchdog.as_mut().reset(Instant::now() + silence),
                    Some(Err(error)) => return error.to_string(),
                    None => return "closed by the receiver".into(),
                },
                () = &mut watchdog => return format!("silent for {} ms", silence.as_millis()),
            }
        }
    }
}

/// Of `host:port`.
fn port(name: &str) -> Option<u16> {
    name.rsplit_once(':')?.1.parse().ok()
}

async fn refusal(response: Response<Incoming>, cluster: u64, limit: Duration) -> End {
    let status = response.status();
    let named = response.headers().get(REFUSED).and_then(|name| Refusal::from_name(name.as_bytes()));
    // So much follows from this one that it counts only from our own cluster.
    let of_cluster = response.headers().get(CLUSTER).is_some_and(|of| *of == hex(cluster));
    let named = named.filter(|refusal| *refusal != Refusal::Removed || of_cluster);
    let body = Limited::new(response.into_body(), REFUSAL_TEXT_BYTES_MAX).collect();
    let text = match timeout(limit, body).await {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Ok(Err(_)) | Err(_) => String::new(),
    };
    End::Refused(named.unwrap_or(Refusal::Foreign), format!("{status}: {text}"))
}

/// As long as their owner lives; then never, so that the other waits decide.
async fn changed_or_never(arrivals: &mut watch::Receiver<Arrival>) {
    if arrivals.changed().await.is_err() {
        std::future::pending().await
    }
}
