//! A server on port 0 with an engine that applies at once to the real store, and can be told to fail.

use super::client::{self, Answered};
use arc_swap::ArcSwap;
use balsa_node::engine::handle::{
    AdminError, AdminReply, AdminRequest, Handle, ReadError, Request, WriteError,
};
use balsa_node::engine::status::{ClusterId, MemberStatus, Phase, Role, Status};
use balsa_node::http::{ApiState, ConnectionLimits, Limits, Parts, serve};
use balsa_node::metrics::Metrics;
use balsa_node::watch::{Hub, HubConfig, Signal};
use balsa_raft::{Index, NodeId, Term};
use balsa_store::command::stamp;
use balsa_store::{MemoryEngine, Store, StoreConfig};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// How the engine treats the next requests.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mood {
    /// It applies.
    #[default]
    Works,
    /// It answers writes so.
    FailsWrites(WriteError),
    /// It answers reads so.
    FailsReads(ReadError),
    /// It answers changes of members so.
    FailsChanges(AdminError),
    /// It takes requests and holds them, unanswered.
    Holds,
    /// It is busy with the request it took last, and takes no other until its mood changes.
    Busy,
    /// It drops the requests.
    Drops,
}

/// What the test and the engine's thread share.
pub(crate) struct Engine {
    pub(crate) mood: Mutex<Mood>,
    pub(crate) status: Arc<ArcSwap<Status>>,
    pub(crate) changes: Mutex<Vec<AdminRequest>>,
    pub(crate) alive: AtomicBool,
    pub(crate) age_ms: AtomicU64,
    /// Cluster time, in milliseconds.
    pub(crate) time_ms: AtomicU64,
    /// Requests that were taken.
    pub(crate) taken: AtomicU64,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) served: tokio::task::JoinHandle<()>,
}

/// What a test may set.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) connections: ConnectionLimits,
    pub(crate) store: StoreConfig,
    pub(crate) queue: usize,
    pub(crate) watches: HubConfig,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            limits: Limits::default(),
            connections: ConnectionLimits::default(),
            store: StoreConfig::default(),
            queue: 1024,
            watches: HubConfig {
                watchers_max: 100,
                progress_interval: Duration::from_secs(60),
                progress_timeout: Duration::from_secs(5),
            },
        }
    }
}

pub(crate) fn status() -> Status {
    let member = |id: u64, slot: u32, active| MemberStatus {
        id: NodeId(id),
        slot,
        peer_address: format!("peer-{slot}:3300"),
        client_address: format!("client-{slot}:3000"),
        voter: true,
        match_index: Some(Index(90 + id)),
        active,
        version: None,
        is_low_on_disk: false,
        feature_level: Some(2),
    };
    Status {
        cluster: Some(ClusterId(0xC1)),
        node: Some(NodeId(1)),
        slot: 0,
        phase: Phase::Running,
        waiting_for: None,
        role: Role::Leader,
        term: Term(7),
        leader: Some(NodeId(1)),
        first_index: Index(1),
        last_index: Index(99),
        commit_index: Index(98),
        applied_index: Index(97),
        caught_up: true,
        feature_level: 2,
        cluster_time_ms: 5_000,
        storage_full: None,
        members: vec![member(1, 0, None), member(2, 1, Some(true)), member(0xAB, 2, Some(false))],
        leader_changes: 3,
    }
}

pub(crate) async fn start() -> Server {
    start_with(Setup::default()).await
}

pub(crate) async fn start_with(setup: Setup) -> Server {
    let engine = Arc::new(Engine {
        mood: Mutex::new(Mood::Works),
        status: Arc::new(ArcSwap::from_pointee(status())),
        changes: Mutex::new(Vec::new()),
        alive: AtomicBool::new(true),
        age_ms: AtomicU64::new(0),
        time_ms: AtomicU64::new(1),
        taken: AtomicU64::new(0),
    });
    let store = Store::open(Arc::new(MemoryEngine::new()), setup.store).unwrap();
    let reader = Arc::new(ArcSwap::from_pointee(store.reader()));
    let (requests, received) = mpsc::channel(setup.queue);
    let metrics = Arc::new(Metrics::new().unwrap());
    let (asked, told) = (Arc::clone(&engine), Arc::clone(&engine));
    let handle = Handle::new(requests, Arc::clone(&engine.status));
    let hub = Hub::new(setup.watches, Arc::clone(&reader), Arc::clone(&metrics));
    hub.start(handle.clone()).unwrap();
    let (turning, published) = (Arc::clone(&engine), Arc::clone(hub.published()));
    std::thread::spawn(move || turn(&turning, store, received, &published));
    let state = ApiState::new(Parts {
        handle,
        hub,
        reader,
        metrics: Arc::clone(&metrics),
        limits: setup.limits,
        alive: Box::new(move || asked.alive.load(Ordering::Relaxed)),
        applied_age: Box::new(move || Duration::from_millis(told.age_ms.load(Ordering::Relaxed))),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let spawn = Box::new(|connection| drop(tokio::spawn(connection)));
    let serving = serve(listener, state, setup.connections, spawn, async move {
        let _ = stopped.await;
    });
    let served = tokio::spawn(async move { serving.await.unwrap() });
    Server { address, engine, metrics, stop: Some(stop), served }
}

/// The engine's thread: what is proposed is applied at once.
fn turn(engine: &Engine, mut store: Store, mut requests: mpsc::Receiver<Request>, published: &Signal) {
    let mut held = Vec::new();
    while let Some(request) = requests.blocking_recv() {
        engine.taken.fetch_add(1, Ordering::SeqCst);
        while matches!(*engine.mood.lock().unwrap(), Mood::Busy) {
            std::thread::yield_now();
        }
        let mood = engine.mood.lock().unwrap().clone();
        match (mood, request) {
            (Mood::Holds, request) => held.push(request),
            (Mood::Drops, request) => drop(request),
            (Mood::FailsWrites(error), Request::Write { answer, .. }) => {
                let _ = answer.send(Err(error));
            }
            (Mood::FailsReads(error), Request::Read { answer, .. }) => {
                let _ = answer.send(Err(error));
            }
            (Mood::FailsChanges(error), Request::Admin { answer, .. }) => {
                let _ = answer.send(Err(error));
            }
            (_, Request::Write { command, answer, .. }) => {
                let entry = stamp(command, engine.time_ms.load(Ordering::Relaxed));
                let reply = store.apply(store.applied_index() + 1, &entry).unwrap();
                store.publish();
                published.published();
                let _ = answer.send(Ok(reply));
            }
            (_, Request::Read { answer, .. }) => {
                let _ = answer.send(Ok(()));
            }
            (_, Request::Backup { answer }) => {
                store.flush().unwrap();
                let _ = answer.send(store.begin_snapshot());
            }
            (_, Request::Admin { request, answer, .. }) => {
                engine.changes.lock().unwrap().push(request);
                let members = vec![(NodeId(0xAB), 2, "peer-2:3300".into(), "client-2:3000".into(), false)];
                let _ = answer.send(Ok(AdminReply { members, cluster: ClusterId(0xC1) }));
            }
        }
    }
}

impl Server {
    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[&str],
        body: impl Into<Bytes>,
    ) -> Answered {
        client::send(self.address, method, target, headers, body).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answered {
        self.send("GET", target, &[], "").await
    }

    /// PUTs JSON at the root or below `/v1/kv`.
    pub(crate) async fn put(&self, target: &str, value: &str) -> Answered {
        let body = format!("{{\"value\":{value}}}");
        self.send("PUT", target, &["content-type: application/json"], body).await
    }

    pub(crate) async fn delete(&self, target: &str) -> Answered {
        self.send("DELETE", target, &[], "").await
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        *self.engine.mood.lock().unwrap() = mood;
    }

    pub(crate) fn set_status(&self, change: impl FnOnce(&mut Status)) {
        let mut status = Status::clone(&self.engine.status.load());
        change(&mut status);
        self.engine.status.store(Arc::new(status));
    }

    /// Asks the server to stop.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    pub(crate) fn taken(&self) -> u64 {
        self.engine.taken.load(Ordering::SeqCst)
    }
}

/// Waits until `holds`, which something that runs will make true.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
