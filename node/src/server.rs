//! One node as a process: doors open, data folder locked, membership found, engine started, signals obeyed.
//!
//! The doors open first, so that probes and people are told what a node waits for; nothing is served before the engine
//! runs. At the end the order is turned around: leadership is handed over, requests under way are answered, then all
//! threads end.
//!
//! A node that learns that it was removed records that first of all. Where its disk has just returned to a cluster that
//! went on without it, it ends its life here and begins another one, under a new identity ([`life::set_aside`]). Where it
//! ran when it was removed, somebody meant it to go: it stays, not ready, until it is stopped; started again, it joins. In
//! a StatefulSet that wants its Pod it begins anew at once: nobody would start it again there.

use crate::config::Config;
use crate::engine::boot::{self, BootConfig, BootError};
use crate::engine::handle::{AdminError, AdminRequest, Handle, ReadError, Request, WriteError};
use crate::engine::status::{Phase, Role, Status};
use crate::engine::storage::Space;
use crate::http::{self, ApiState};
use crate::kubernetes;
use crate::life::identity::{self, Identity, IdentityError};
use crate::life::incarnation;
use crate::life::{self, ControlCall, FolderLock, LockError, Member};
use crate::metrics::Metrics;
use crate::peer::{Inbound, Inbox, LocalIdentity, PeerHub, serve_peers};
use crate::shell::{self, EventLoop, Fatal, Inputs, Wiring};
use crate::watch::Hub;
use arc_swap::ArcSwap;
use balsa_log::{Folder, RealDisk};
use balsa_raft::{Index, NodeId, Term};
use balsa_store::engine::StateEngine;
use balsa_store::{FjallEngine, MemoryEngine, Reader, Store, StoreConfig, StoreError};
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Clients' requests that wait for the engine's next turn; more are refused.
const REQUEST_QUEUE: usize = 16_384;
/// Batches of peers' messages that wait for the engine's next turn; more push back on the connections.
const INPUT_QUEUE: usize = 4_096;
/// Bytes of a snapshot that were received and are not in the store yet.
const BULK_ROOM_BYTES: usize = 8 << 20;
/// Founding questions that wait to be answered.
const CONTROL_QUEUE: usize = 64;
/// The engine counts as alive while it turned within this time.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);
/// How often a held data folder is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(200);
/// How often the transport's counters and the disk's room are brought to the metrics.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// How often a node looks whether the cluster knows its addresses, until it does.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

/// Why a node ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A door cannot be opened.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which address.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The data folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its contents.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The record of its starts.
    #[error("this start cannot be told from earlier ones: {0}")]
    Incarnation(std::io::Error),
    /// Its place in the cluster.
    #[error("{0}")]
    Member(String),
    /// The node cannot go on.
    #[error("{0}")]
    Fatal(String),
    /// The system refused a thread, a file or a number.
    #[error("the system refused: {0}")]
    System(String),
}

/// The doors' ends of what the engine's side will read.
#[derive(Clone)]
struct Door {
    inputs: mpsc::Sender<Inputs>,
    control: mpsc::Sender<ControlCall>,
    /// In bytes; see [`shell::Room`].
    bulk_room: Arc<Semaphore>,
}

impl Inbox for Door {
    async fn message(&self, from: NodeId, frames: Vec<Bytes>) {
        let _ = self.inputs.send(Inputs::Messages(from, frames)).await; // closed: the node stops
    }

    async fn connected(&self, peer: NodeId) {
        let _ = self.inputs.send(Inputs::Connected(peer)).await;
    }

    async fn disconnected(&self, peer: NodeId) {
        let _ = self.inputs.send(Inputs::Disconnected(peer)).await;
    }

    async fn removed(&self, by: NodeId) {
        let _ = self.inputs.send(Inputs::ToldRemoved(by)).await;
    }

    async fn control(&self, payload: Bytes) -> Bytes {
        let (reply_to, reply) = oneshot::channel();
        if self.control.send((payload, reply_to)).await.is_err() {
            return Bytes::new();
        }
        reply.await.unwrap_or_default()
    }

    async fn bulk(&self, from: NodeId, frames: Vec<Bytes>) {
        let bytes = frames.iter().map(Bytes::len).sum::<usize>().min(BULK_ROOM_BYTES);
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(room) = self.bulk_room.clone().acquire_many_owned(wanted).await else { return };
        let _ = self.inputs.send(Inputs::Bulk(from, frames, Arc::new(room))).await;
    }
}

/// How a node's life ended.
enum End {
    /// It was told to stop.
    Stopped,
    /// Its disk came back to a cluster that had removed it: another life begins.
    Returned,
}

/// Runs a node until `shutdown` resolves or it cannot go on.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    let mut shutdown = std::pin::pin!(shutdown);
    while let End::Returned = live(&config, shutdown.as_mut()).await? {}
    Ok(())
}

/// One life: from open doors to closed ones.
async fn live(
    config: &Config,
    mut shutdown: std::pin::Pin<&mut impl Future<Output = ()>>,
) -> Result<End, ServeError> {
    if let Err(error) = http::raise_open_files_limit() {
        tracing::warn!(%error, "the limit of open files stays as it is: fewer connections than the settings allow");
    }
    let epoch = Instant::now();
    let fatal = Fatal::default();
    let refused = |error: std::io::Error| ServeError::System(error.to_string());
    let mut event_loop = EventLoop::start(fatal.clone()).map_err(refused)?;
    let peer_runtime = event_loop.handle().clone();
    let (client_runtime, spawn): (_, http::Spawn) = match config.door_threads() {
        0 => {
            let guests = event_loop.guests();
            (peer_runtime.clone(), Box::new(move |connection| guests.spawn(connection)))
        }
        _ => (tokio::runtime::Handle::current(), Box::new(|connection| drop(tokio::spawn(connection)))),
    };
    let clients = listen(&client_runtime, config.listen).await?;
    let peers = listen(&peer_runtime, config.peer_listen).await?;
    let metrics = Arc::new(Metrics::new().map_err(|error| ServeError::System(error.to_string()))?);
    let status = Arc::new(ArcSwap::from_pointee(before_membership(config, "the lock of the data folder")));
    let (requests, mut waiting_requests) = mpsc::channel(REQUEST_QUEUE);
    let (inputs, waiting_inputs) = mpsc::channel(INPUT_QUEUE);
    let (control, mut calls) = mpsc::channel(CONTROL_QUEUE);
    let door = Door { inputs: inputs.clone(), control, bulk_room: Arc::new(Semaphore::new(BULK_ROOM_BYTES)) };
    let (local, local_seen) = watch::channel(None);
    let (stop_clients, clients_stopped) = watch::channel(false);
    let (stop_peers, peers_stopped) = watch::channel(false);
    let reader = Arc::new(ArcSwap::from_pointee(empty_reader()?));
    let running_now = Arc::new(AtomicBool::new(false));
    let (turned_ms, fresh_ms) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));

    let api_handle = Handle::new(requests, status.clone());
    let hub = Hub::new(config.watches(), reader.clone(), metrics.clone());
    hub.start(api_handle.clone()).map_err(refused)?;
    let published = hub.published().clone();
    let api = ApiState::new(http::Parts {
        handle: api_handle.clone(),
        hub,
        reader: reader.clone(),
        metrics: metrics.clone(),
        limits: config.limits(),
        alive: alive_probe(epoch, turned_ms.clone(), running_now.clone()),
        applied_age: age_probe(epoch, fresh_ms.clone()),
    });
    let api_door = client_runtime.spawn(http::serve(
        clients,
        api,
        config.connection_limits(),
        spawn,
        resolves(clients_stopped),
    ));
    let inbound = Inbound::default();
    let peer_config = config.peer();
    let stopped = resolves(peers_stopped);
    let peer_door =
        serve_peers(peers, peer_config.clone(), local_seen, door.clone(), inbound.clone(), stopped);
    let peer_door = peer_runtime.spawn(peer_door);
    tracing::info!(clients = %config.listen, peers = %config.peer_listen, data = %config.data.display(), "doors open");

    // Until the engine runs, requests are refused and founding questions answered.
    let becoming = async {
        let lock = take_lock(&config.data).await?;
        write_pid(&config.data).map_err(|error| ServeError::System(error.to_string()))?;
        let folder = Folder { disk: Arc::new(RealDisk), path: config.data.clone() };
        let settings = config.membership();
        let lobby = watch::Sender::new(None);
        let mut waits = lobby.subscribe();
        let member = tokio::select! {
            member = life::become_member(&folder, &settings, &mut calls, &lobby) => member,
            () = async { while waits.changed().await.is_ok() {
                let waiting_for = waits.borrow_and_update().clone().unwrap_or_default();
                status.store(Arc::new(before_membership(config, &waiting_for)));
            } } => unreachable!("the lobby outlives the wait"),
        };
        let member = member.map_err(|error| ServeError::Member(error.to_string()))?;
        Ok::<_, ServeError>((lock, folder, settings, member))
    };
    let (lock, folder, settings, member) = tokio::select! {
        became = becoming => became?,
        () = refuse_all(&mut waiting_requests) => return Ok(End::Stopped),
        () = &mut shutdown => return Ok(End::Stopped),
    };

    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_us = u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX);
    let incarnation = incarnation::next(&folder, now_us).map_err(ServeError::Incarnation)?;
    let boot_config = config.boot(&member, incarnation);
    let booted = open(config, &folder, &boot_config).await?;
    if booted.torn_tail_bytes > 0 {
        tracing::info!(bytes = booted.torn_tail_bytes, "the log ended in a write that a crash had cut off");
    }
    reader.store(Arc::new(booted.apply.store().reader()));
    let local_identity = LocalIdentity { cluster: member.cluster.0, node: member.node, incarnation };
    let counted = inbound.clone();
    let hub = PeerHub::start(peer_config, local_identity, door, inbound, peer_runtime);
    let hub = Arc::new(hub);
    hub.set_peers(member.peers.clone());
    local.send_replace(Some(local_identity));
    let answering =
        tokio::spawn(answer_control(calls, folder.clone(), member.slot, settings.client_address.clone()));
    let (removed, mut told_removed) = mpsc::unbounded_channel();
    let wiring = Wiring {
        requests: waiting_requests,
        inputs: waiting_inputs,
        status: status.clone(),
        turned_ms,
        fresh_ms,
        epoch,
        hub: hub.clone(),
        metrics: metrics.clone(),
        published,
        removed,
        fatal: fatal.clone(),
        tick: config.tick(),
        runtime: tokio::runtime::Handle::current(),
        snapshots: config.snapshots(incarnation),
    };
    let engine_config = boot_config.engine.clone();
    let state_engine = booted.apply.store().engine();
    let mut running = shell::start(booted, engine_config, wiring, &mut event_loop).map_err(refused)?;
    running_now.store(true, Ordering::Relaxed);
    tracing::info!(cluster = %member.cluster, node = %member.node, slot = member.slot, "the engine runs");
    let (own_cluster, own_slot) = (member.cluster, member.slot);
    tokio::spawn(finish_founding(folder.clone(), member));
    metrics.disk_headroom_bytes.set(i64::try_from(config.disk_headroom_bytes).unwrap_or(i64::MAX));
    let counting = tokio::spawn(count(hub.clone(), counted, metrics.clone()));
    let measuring = tokio::spawn(measure_space(folder.clone(), state_engine, inputs.clone(), metrics));
    let addresses = (settings.peer_address.clone(), settings.client_address.clone());
    let announcing = tokio::spawn(announce(api_handle.clone(), addresses));
    let kubernetes_api = settings.kubernetes.clone();
    let following =
        kubernetes_api.clone().map(|api| tokio::spawn(kubernetes::follow(api, api_handle.clone())));

    let outcome = tokio::select! {
        reason = fatal.reported() => Err(ServeError::Fatal(reason)),
        () = shutdown => Ok(End::Stopped),
        why = life::among_strangers(own_cluster, own_slot, &settings, &api_handle) => Err(ServeError::Member(why)),
        why = life::given_up(own_cluster, kubernetes_api.as_ref()) => Err(ServeError::Member(why)),
        recorded = returned(&folder, &mut told_removed, kubernetes_api.as_ref(), own_slot) => recorded.map(|()| End::Returned),
    };
    if outcome.is_ok() {
        tracing::info!("stopping: leadership is handed over, requests under way are answered");
        let _ = inputs.send(Inputs::Stop).await;
        let patience = Duration::from_millis(config.handover_timeout_ms + 1_000);
        let _ = tokio::time::timeout(patience, &mut running.handed_over).await;
    }
    stop_clients.send_replace(true);
    if outcome.is_ok() {
        // Peers are heard until the last client has its answer: those of forwarded requests come from the leader.
        let _ = tokio::time::timeout(Duration::from_millis(config.drain_timeout_ms + 1_000), api_door).await;
        stop_peers.send_replace(true);
        let _ = inputs.send(Inputs::Halt).await;
        let _ = tokio::task::spawn_blocking(move || running.join()).await;
    }
    stop_peers.send_replace(true);
    let _ = peer_door.await; // another life needs its address
    answering.abort();
    announcing.abort();
    if let Some(following) = following {
        following.abort();
    }
    counting.abort();
    measuring.abort();
    drop(hub);
    drop(lock);
    outcome
}

/// Records a removal as soon as it is known; resolves where this disk is to begin anew: it has just returned, or its Pod
/// is wanted all the same.
async fn returned(
    folder: &Folder,
    told: &mut mpsc::UnboundedReceiver<bool>,
    kubernetes_api: Option<&kubernetes::Api>,
    slot: u32,
) -> Result<(), ServeError> {
    while let Some(returned) = told.recv().await {
        record_removal(folder).map_err(|error| ServeError::Member(error.to_string()))?;
        if returned {
            return Ok(());
        }
        if let Some(api) = kubernetes_api {
            kubernetes::wanted_again(api, slot).await;
            return Ok(());
        }
    }
    std::future::pending().await // the engine has ended, and said why
}

fn record_removal(folder: &Folder) -> Result<(), IdentityError> {
    match identity::load(folder)? {
        Some(recorded) => identity::save(folder, &Identity { removed: true, ..recorded }),
        None => Ok(()),
    }
}

/// Opens a door that `runtime` serves.
async fn listen(runtime: &tokio::runtime::Handle, address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |error| ServeError::Listen { address: address.to_string(), error };
    let bound = runtime.spawn(TcpListener::bind(address)).await;
    bound.map_err(|error| ServeError::System(error.to_string()))?.map_err(failed)
}

/// What is told of a node that is no member yet.
fn before_membership(config: &Config, waiting_for: &str) -> Status {
    Status {
        cluster: None,
        node: None,
        slot: config.slot.unwrap_or_default(),
        phase: if config.join.is_some() { Phase::Joining } else { Phase::Founding },
        waiting_for: Some(waiting_for.to_string()),
        role: Role::Follower,
        term: Term(0),
        leader: None,
        first_index: Index::ZERO,
        last_index: Index::ZERO,
        commit_index: Index::ZERO,
        applied_index: Index::ZERO,
        caught_up: false,
        feature_level: balsa_store::FIRST_LEVEL,
        cluster_time_ms: 0,
        storage_full: None,
        members: Vec::new(),
        leader_changes: 0,
    }
}

/// What is read before there is a store: nothing.
fn empty_reader() -> Result<Reader, ServeError> {
    let store = Store::open(Arc::new(MemoryEngine::new()), StoreConfig::default());
    Ok(store.map_err(BootError::Store)?.reader())
}

async fn take_lock(folder: &Path) -> Result<FolderLock, ServeError> {
    let mut told = false;
    loop {
        match FolderLock::try_take(folder) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(data = %folder.display(), "another process holds the data folder: waiting for it to end");
                }
                tokio::time::sleep(LOCK_INTERVAL).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn write_pid(folder: &Path) -> std::io::Result<()> {
    std::fs::write(folder.join("balsa.pid"), format!("{}\n", std::process::id()))
}

/// Opening replays the log and reads the store: not on the runtime's workers.
async fn open(
    config: &Config,
    folder: &Folder,
    boot_config: &BootConfig,
) -> Result<boot::Booted, ServeError> {
    let state_folder = config.data.join("state");
    let (folder, boot_config) = (folder.clone(), boot_config.clone());
    let opening = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let state = FjallEngine::open(&state_folder).map_err(StoreError::from)?;
        let store_ms = started.elapsed().as_millis() as u64;
        let booted = boot::open(&folder, Arc::new(state), &boot_config)?;
        let replay_ms = started.elapsed().as_millis() as u64 - store_ms;
        tracing::info!(store_ms, replay_ms, applied = %booted.raft.applied_index(), last = %booted.raft.last_index(), "store and log are open");
        Ok::<_, BootError>(booted)
    });
    Ok(opening.await.map_err(|error| ServeError::System(error.to_string()))??)
}

/// Refuses requests until dropped.
async fn refuse_all(requests: &mut mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Write { answer, .. } => drop(answer.send(Err(WriteError::NoLeader))),
            Request::Read { answer, .. } => drop(answer.send(Err(ReadError::NoLeader))),
            Request::Admin { answer, .. } => drop(answer.send(Err(AdminError::NoLeader))),
            Request::Backup { answer } => drop(answer), // nobody asks: its read is not confirmed
        }
    }
}

/// As a member: answers founders who ask again.
async fn answer_control(
    mut calls: mpsc::Receiver<ControlCall>,
    folder: Folder,
    slot: u32,
    client_address: String,
) {
    while let Some((question, reply_to)) = calls.recv().await {
        let answer = match identity::load(&folder) {
            Ok(Some(identity)) => life::answer_as_member(&identity, slot, &client_address, &question),
            _ => Bytes::new(),
        };
        let _ = reply_to.send(answer);
    }
}

/// As proposer: tells the others to begin, and remembers when all have.
async fn finish_founding(folder: Folder, member: Member) {
    if member.to_begin.is_empty() {
        return;
    }
    life::tell_to_begin(member.cluster, member.to_begin).await;
    if let Ok(Some(recorded)) = identity::load(&folder)
        && let Err(error) = identity::save(&folder, &Identity { founded: true, ..recorded })
    {
        tracing::warn!(%error, "the end of the founding is not recorded: the others are told again at the next start");
    }
}

/// Brings to the metrics what the transport counts.
async fn count(hub: Arc<PeerHub>, inbound: Inbound, metrics: Arc<Metrics>) {
    loop {
        shell::set_transport(&metrics, &hub.stats(), &inbound.stats());
        tokio::time::sleep(COUNT_INTERVAL).await;
    }
}

/// Tells the engine and the metrics how much room there is.
async fn measure_space(
    folder: Folder,
    state_engine: Arc<dyn StateEngine>,
    inputs: mpsc::Sender<Inputs>,
    metrics: Arc<Metrics>,
) {
    let gauge = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    loop {
        let (folder, state_engine) = (folder.clone(), state_engine.clone());
        // A disk that hangs holds up this thread alone.
        let measured = tokio::task::spawn_blocking(move || {
            let free_bytes = folder.disk.free_bytes(&folder.path).ok()?;
            Some(Space { free_bytes, store_bytes: state_engine.size_bytes() })
        });
        if let Ok(Some(space)) = measured.await {
            metrics.disk_available_bytes.set(gauge(space.free_bytes));
            metrics.store_bytes.set(gauge(space.store_bytes));
            let _ = inputs.send(Inputs::Space(space)).await; // closed: the node stops
        }
        tokio::time::sleep(COUNT_INTERVAL).await;
    }
}

fn alive_probe(epoch: Instant, turned_ms: Arc<AtomicU64>, running: Arc<AtomicBool>) -> http::Probe<bool> {
    Box::new(move || !running.load(Ordering::Relaxed) || age(epoch, &turned_ms) < ALIVE_WITHIN)
}

fn age_probe(epoch: Instant, fresh_ms: Arc<AtomicU64>) -> http::Probe<Duration> {
    Box::new(move || age(epoch, &fresh_ms))
}

fn age(epoch: Instant, at_ms: &AtomicU64) -> Duration {
    epoch.elapsed().saturating_sub(Duration::from_millis(at_ms.load(Ordering::Relaxed)))
}

/// Resolves once the doors are to close.
async fn resolves(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Tells the cluster where this node is to be found, where the cluster has recorded something else.
async fn announce(handle: Handle, (peer_address, client_address): (String, String)) {
    loop {
        let status = handle.status();
        if let (Some(id), Some(_)) = (status.node, status.leader)
            && let Some(own) = status.members.iter().find(|member| member.id == id)
        {
            if own.peer_address == peer_address && own.client_address == client_address {
                return;
            }
            let (peer_address, client_address) = (peer_address.clone(), client_address.clone());
            let request = AdminRequest::AddMember { id, slot: Some(own.slot), peer_address, client_address };
            if let Err(error) = handle.admin(request, Instant::now() + ANNOUNCE_INTERVAL).await {
                tracing::debug!(%error, "this node's addresses are not recorded yet");
            }
        }
        tokio::time::sleep(ANNOUNCE_INTERVAL).await;
    }
}
