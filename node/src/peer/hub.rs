//! The sending side: who our peers are, and the way to each of them.

use super::dial::{Dialer, LastAnswer, Resolver};
use super::lane::Lane;
use super::{Inbound, Inbox, LaneKind, LocalIdentity, PeerConfig, PeerStats};
use arc_swap::ArcSwap;
use balsa_raft::NodeId;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// There is no stream to this peer: it is unknown, not connected, or its connection broke while the frame waited (or the
/// frame is larger than any may be).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no bulk stream to the peer")]
pub struct Closed;

/// Keeps two streams to each peer, dialling for as long as it is one. Dropping the hub ends all of them.
pub struct PeerHub {
    /// What senders read without a lock; sorted by id.
    routes: ArcSwap<Vec<Route>>,
    /// What [`PeerHub::set_peers`] changes. A std Mutex: nothing awaits while it is held.
    peers: Mutex<Peers>,
    inbound: Inbound,
    config: Arc<PeerConfig>,
    local: LocalIdentity,
    spawn: Box<dyn Fn(Target) -> [Dialling; 2] + Send + Sync>,
}

/// The task that dials for one lane.
type Dialling = JoinHandle<()>;

#[derive(Default)]
struct Peers {
    current: BTreeMap<NodeId, Peer>,
    /// Dropped peers whose dialers have not ended. One that comes back is dialled after them, so that a goodbye of the
    /// old streams is never told after the welcome of the new.
    leaving: BTreeMap<NodeId, [Dialling; 2]>,
}

#[derive(Clone)]
struct Route {
    node: NodeId,
    message: Arc<Lane>,
    bulk: Arc<Lane>,
}

struct Peer {
    route: Route,
    /// Dropped when the peer is: its dialers then say goodbye and end.
    address: watch::Sender<String>,
    tasks: [Dialling; 2],
}

struct Target {
    route: Route,
    address: watch::Receiver<String>,
    leaving: Option<[Dialling; 2]>,
}

impl PeerHub {
    /// Starts with no peers. `inbound` is the one given to [`super::serve_peers`]; `config` passed
    /// [`PeerConfig::validate`].
    pub fn start(
        config: PeerConfig,
        local: LocalIdentity,
        inbox: impl Inbox,
        inbound: Inbound,
        runtime: Handle,
    ) -> PeerHub {
        PeerHub::start_with_resolver(config, local, inbox, inbound, runtime, Resolver::system())
    }

    /// As [`PeerHub::start`], with another way to look up names.
    pub fn start_with_resolver(
        config: PeerConfig,
        local: LocalIdentity,
        inbox: impl Inbox,
        inbound: Inbound,
        runtime: Handle,
        resolver: Resolver,
    ) -> PeerHub {
        let config = Arc::new(config);
        let spawn = {
            let (config, inbound) = (config.clone(), inbound.clone());
            move |target: Target| {
                let last_answer = LastAnswer::default();
                let Route { node, message, bulk } = target.route;
                let [message_before, bulk_before] =
                    target.leaving.map_or([None, None], |tasks| tasks.map(Some));
                [(message, message_before), (bulk, bulk_before)].map(|(lane, before)| {
                    let dialer = Dialer {
                        config: config.clone(),
                        local,
                        node,
                        lane,
                        inbox: inbox.clone(),
                        resolver: resolver.clone(),
                        last_answer: last_answer.clone(),
                    };
                    let (address, arrivals) = (target.address.clone(), inbound.arrivals(node));
                    runtime.spawn(async move {
                        if let Some(before) = before {
                            // However it ended, it has.
                            let _ = before.await;
                        }
                        dialer.run(address, arrivals).await;
                    })
                })
            }
        };
        PeerHub {
            routes: ArcSwap::default(),
            peers: Mutex::default(),
            inbound,
            config,
            local,
            spawn: Box::new(spawn),
        }
    }

    /// Makes these, with their addresses (`host:port`), the peers: dials new ones, drops the others, moves those whose
    /// address changed. The node itself may be among them, and is passed over.
    pub fn set_peers(&self, wanted: Vec<(NodeId, String)>) {
        let mut wanted: BTreeMap<NodeId, String> = wanted.into_iter().collect();
        wanted.remove(&self.local.node);
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let Peers { current, leaving } = &mut *peers;
        leaving.retain(|_, tasks| !tasks.iter().all(JoinHandle::is_finished));
        for (node, peer) in current.extract_if(.., |node, _| !wanted.contains_key(node)) {
            self.inbound.forget(node);
            leaving.insert(node, peer.tasks);
        }
        let mut arriving = Vec::new();
        for (node, address) in wanted {
            if let Some(peer) = current.get(&node) {
                peer.address.send_if_modified(|current| {
                    let changed = *current != address;
                    *current = address;
                    changed
                });
                continue;
            }
            let lane = |kind, bytes_max| Arc::new(Lane::new(kind, bytes_max, self.config.frame_bytes_max));
            let route = Route {
                node,
                message: lane(LaneKind::Message, self.config.message_queue_bytes_max),
                bulk: lane(LaneKind::Bulk, self.config.bulk_queue_bytes_max),
            };
            arriving.push((route, address));
        }
        // Before the first of them can be told to be connected.
        let staying = current.values().map(|peer| &peer.route);
        let mut routes: Vec<Route> =
            staying.chain(arriving.iter().map(|(route, _)| route)).cloned().collect();
        routes.sort_unstable_by_key(|route| route.node);
        self.routes.store(Arc::new(routes));
        for (route, address) in arriving {
            let (address, receiver) = watch::channel(address);
            let leaving = leaving.remove(&route.node);
            let tasks = (self.spawn)(Target { route: route.clone(), address: receiver, leaving });
            current.insert(route.node, Peer { route, address, tasks });
        }
    }

    /// Refuses the streams of these nodes from now on, and tells them that they were removed from the cluster. Those that
    /// are peers still keep the streams that stand.
    pub fn set_removed(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.inbound.set_removed(nodes.into_iter().collect());
    }

    /// Queues messages for a peer, all or none, in order. Never waits; may be called from any thread. False: it is no
    /// peer, not connected, its queue is full, or a frame is too large; the frames are dropped and counted.
    pub fn send(&self, to: NodeId, frames: Vec<Bytes>) -> bool {
        let routes = self.routes.load();
        let Ok(at) = routes.binary_search_by_key(&to, |route| route.node) else { return false };
        routes[at].message.push(frames).is_ok()
    }

    /// Queues a bulk frame for a peer, waiting for room. `Ok` says that it was queued, not that it arrived.
    pub fn send_bulk(
        &self,
        to: NodeId,
        frame: Bytes,
    ) -> impl Future<Output = Result<(), Closed>> + Send + 'static + use<> {
        let routes = self.routes.load();
        let found = routes.binary_search_by_key(&to, |route| route.node);
        let lane = found.ok().map(|at| routes[at].bulk.clone());
        async move {
            match lane {
                Some(lane) => lane.push_waiting(frame).await.map_err(|_| Closed),
                None => Err(Closed),
            }
        }
    }

    /// Queues a bulk frame for a peer, where there is room now. Never waits; may be called from any thread. False: it is
    /// dropped and counted, as by [`PeerHub::send`].
    pub fn offer_bulk(&self, to: NodeId, frame: Bytes) -> bool {
        let routes = self.routes.load();
        let Ok(at) = routes.binary_search_by_key(&to, |route| route.node) else { return false };
        routes[at].bulk.push(vec![frame]).is_ok()
    }

    /// Each peer's counters and state, sorted by id.
    pub fn stats(&self) -> Vec<PeerStats> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let lane_stats = |node, lane: &Lane| {
            let mut stats = lane.stats();
            (stats.received_frames, stats.received_bytes) = self.inbound.received(node, lane.kind);
            stats
        };
        peers
            .current
            .iter()
            .map(|(&node, peer)| PeerStats {
                node,
                address: peer.address.borrow().clone(),
                message: lane_stats(node, &peer.route.message),
                bulk: lane_stats(node, &peer.route.bulk),
            })
            .collect()
    }
}

impl Drop for PeerHub {
    fn drop(&mut self) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let Peers { current, leaving } = std::mem::take(&mut *peers);
        // The engine is gone: nobody is left to be told, and telling could wait for ever.
        let tasks = current.into_values().map(|peer| peer.tasks).chain(leaving.into_values());
        tasks.flatten().for_each(|task| task.abort());
    }
}

impl fmt::Debug for PeerHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<NodeId> = self.routes.load().iter().map(|route| route.node).collect();
        f.debug_struct("PeerHub").field("peers", &nodes).finish_non_exhaustive()
    }
}
