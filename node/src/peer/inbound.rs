//! What the receiving side keeps across connections: which stream of a node is the newest, who dialled us, counters.
//!
//! One value is shared by [`super::serve_peers`] and [`super::PeerHub`], so that a peer that just dialled us, and is
//! evidently alive, is dialled at once, and where it came from. Invariant: of the streams of one node and lane at most one delivers; a newer one
//! (by incarnation, then by the sender's stream number) cancels the older and delivers only once that has stopped.

use super::LaneKind;
use super::frame::FrameError;
use super::handshake::{Hello, Refusal};
use super::stats::{InboundStats, ReceivedCounters, RefusalCounters};
use balsa_raft::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedMutexGuard, watch};

/// For how many senders frames are counted one by one; those of more are not.
const SENDERS_MAX: usize = 256;

/// The shared state of the receiving side; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Inbound(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    // A std Mutex: nothing awaits while it is held, and it is taken once a stream, not once a frame.
    state: Mutex<State>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct State {
    /// Bounded by the number of inbound connections: an entry lives as long as its stream.
    sessions: BTreeMap<(NodeId, LaneKind), Session>,
    senders: BTreeMap<NodeId, Sender>,
    /// Nodes that were removed from the cluster. Bounded by whoever sets it.
    removed: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Session {
    /// Its incarnation and stream number: later is newer.
    age: (u64, u64),
    superseded: bool,
    cancel: Arc<Notify>,
    delivering: Arc<tokio::sync::Mutex<()>>,
}

/// That a node dialled us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Arrival {
    /// Grows with each time.
    pub(super) count: u64,
    /// Where it came from the last time.
    pub(super) from: Option<IpAddr>,
}

#[derive(Debug, Default)]
struct Sender {
    arrivals: watch::Sender<Arrival>,
    received: [Arc<ReceivedCounters>; 2],
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    accepted: AtomicU64,
    pub(super) refused: RefusalCounters,
    pub(super) over_limit: AtomicU64,
    frames_too_large: AtomicU64,
    frames_damaged: AtomicU64,
    frames_unknown: AtomicU64,
    pub(super) silent: AtomicU64,
    superseded: AtomicU64,
}

impl Counters {
    pub(super) fn count_broken(&self, error: FrameError) {
        let counter = match error {
            FrameError::TooLarge { .. } => &self.frames_too_large,
            FrameError::Checksum => &self.frames_damaged,
            FrameError::Unknown { .. } => &self.frames_unknown,
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// The right of an accepted stream to deliver; given back when dropped.
#[derive(Debug)]
pub(super) struct Admission {
    inbound: Inbound,
    pub(super) from: NodeId,
    pub(super) lane: LaneKind,
    age: (u64, u64),
    /// Told when a newer stream took over, or its sender is no peer any more.
    pub(super) cancel: Arc<Notify>,
    delivering: Arc<tokio::sync::Mutex<()>>,
    pub(super) received: Arc<ReceivedCounters>,
}

impl Inbound {
    /// The counters.
    pub fn stats(&self) -> InboundStats {
        let counters = &self.0.counters;
        InboundStats {
            connections: counters.connections.load(Relaxed),
            accepted: counters.accepted.load(Relaxed),
            refused: counters.refused.snapshot(),
            over_limit: counters.over_limit.load(Relaxed),
            frames_too_large: counters.frames_too_large.load(Relaxed),
            frames_damaged: counters.frames_damaged.load(Relaxed),
            frames_unknown: counters.frames_unknown.load(Relaxed),
            silent: counters.silent.load(Relaxed),
            superseded: counters.superseded.load(Relaxed),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn connection(&self) -> OpenConnection {
        self.0.counters.connections.fetch_add(1, Relaxed);
        OpenConnection(self.clone())
    }

    /// Admits a stream that came from this address, superseding an older one of the same node; an older one than what
    /// stands is refused.
    pub(super) fn admit(
        &self,
        hello: &Hello,
        lane: LaneKind,
        from: IpAddr,
    ) -> Result<Admission, (Refusal, String)> {
        let age = (hello.incarnation, hello.stream);
        let mut state = self.lock();
        for other in LaneKind::ALL {
            let Some(session) = state.sessions.get(&(hello.from, other)) else { continue };
            // Stream numbers are compared within a lane; incarnations across both.
            let newer = if other == lane { session.age >= age } else { session.age.0 > age.0 };
            if newer {
                let text = format!("a newer stream of {} stands: {:?}, not {age:?}", hello.from, session.age);
                return Err((Refusal::Superseded, text));
            }
        }
        for other in LaneKind::ALL {
            let Some(session) = state.sessions.get_mut(&(hello.from, other)) else { continue };
            if !session.superseded && (other == lane || session.age.0 < age.0) {
                session.superseded = true;
                session.cancel.notify_one();
                self.0.counters.superseded.fetch_add(1, Relaxed);
            }
        }
        // A session that may still deliver is in the map, and with it what the new one has to wait for.
        let older = state.sessions.get(&(hello.from, lane));
        let delivering = older.map(|session| session.delivering.clone()).unwrap_or_default();
        let cancel = Arc::new(Notify::new());
        let session =
            Session { age, superseded: false, cancel: cancel.clone(), delivering: delivering.clone() };
        state.sessions.insert((hello.from, lane), session);
        let received = match state.sender(hello.from) {
            Some(sender) => {
                sender.arrivals.send_modify(|arrival| {
                    *arrival = Arrival { count: arrival.count + 1, from: Some(from) };
                });
                sender.received[lane as usize].clone()
            }
            None => Arc::default(),
        };
        self.0.counters.accepted.fetch_add(1, Relaxed);
        Ok(Admission { inbound: self.clone(), from: hello.from, lane, age, cancel, delivering, received })
    }

    /// Changes each time this node dials us and is accepted.
    pub(super) fn arrivals(&self, node: NodeId) -> watch::Receiver<Arrival> {
        let mut state = self.lock();
        // The hub's own peers are few and always get an entry.
        state.senders.entry(node).or_default().arrivals.subscribe()
    }

    /// Frames and bytes received from this node on this lane.
    pub(super) fn received(&self, node: NodeId, lane: LaneKind) -> (u64, u64) {
        let state = self.lock();
        state.senders.get(&node).map_or((0, 0), |sender| {
            let received = &sender.received[lane as usize];
            (received.frames.load(Relaxed), received.bytes.load(Relaxed))
        })
    }

    /// A node is no longer a peer: forgets its counters, and ends its streams. It may open others.
    pub(super) fn forget(&self, node: NodeId) {
        let mut state = self.lock();
        state.senders.remove(&node);
        for lane in LaneKind::ALL {
            if let Some(session) = state.sessions.get_mut(&(node, lane))
                && !std::mem::replace(&mut session.superseded, true)
            {
                session.cancel.notify_one();
            }
        }
    }

    /// Streams of these nodes are refused from now on; those that stand are ended by [`Inbound::forget`].
    pub(super) fn set_removed(&self, nodes: BTreeSet<NodeId>) {
        self.lock().removed = nodes;
    }

    pub(super) fn was_removed(&self, node: NodeId) -> bool {
        self.lock().removed.contains(&node)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sender(&mut self, node: NodeId) -> Option<&Sender> {
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&node) {
            return None;
        }
        Some(self.senders.entry(node).or_default())
    }
}

impl Admission {
    /// Waits until the stream before this one has stopped delivering; this one may while the guard lives.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.delivering.clone().lock_owned().await
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.inbound.lock();
        let key = (self.from, self.lane);
        if state.sessions.get(&key).is_some_and(|session| session.age == self.age) {
            state.sessions.remove(&key);
        }
    }
}

/// An open inbound connection.
#[derive(Debug)]
pub(super) struct OpenConnection(Inbound);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.counters().connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::net::Ipv4Addr;
    use std::pin::pin;
    use std::task::{Context, Waker};

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn admit(inbound: &Inbound, lane: LaneKind, incarnation: u64, stream: u64) -> Result<Admission, Refusal> {
        let hello = Hello { cluster: 1, from: NodeId(1), to: NodeId(2), incarnation, stream };
        inbound.admit(&hello, lane, HOME).map_err(|(refusal, _)| refusal)
    }

    fn is_ready<F: Future>(future: F) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn a_newer_stream_waits_until_the_older_has_stopped_delivering() {
        let inbound = Inbound::default();
        let first = admit(&inbound, LaneKind::Message, 1, 1).unwrap();
        let delivering = first.turn().await;
        let second = admit(&inbound, LaneKind::Message, 1, 2).unwrap();
        let third = admit(&inbound, LaneKind::Message, 1, 3).unwrap();
        assert!(is_ready(first.cancel.notified()) && is_ready(second.cancel.notified()));
        // The second never delivered; the third still waits for the first.
        drop(second);
        assert!(!is_ready(third.turn()));
        drop(delivering);
        drop(first);
        assert!(is_ready(third.turn()));
        assert!(!is_ready(third.cancel.notified()));
        assert_eq!(inbound.stats().superseded, 2);
    }

    #[tokio::test]
    async fn a_new_incarnation_on_one_lane_cancels_the_other_which_is_still_waited_for() {
        let inbound = Inbound::default();
        let old_bulk = admit(&inbound, LaneKind::Bulk, 1, 9).unwrap();
        let delivering = old_bulk.turn().await;
        let message = admit(&inbound, LaneKind::Message, 2, 1).unwrap();
        assert!(is_ready(old_bulk.cancel.notified()));
        assert!(is_ready(message.turn()), "no order holds between lanes");
        let bulk = admit(&inbound, LaneKind::Bulk, 2, 2).unwrap();
        assert!(!is_ready(bulk.turn()));
        drop(delivering);
        assert!(is_ready(bulk.turn()));
        assert_eq!(inbound.stats().superseded, 1, "counted once");
    }

    #[test]
    fn older_streams_are_refused_for_as_long_as_a_newer_one_stands() {
        let inbound = Inbound::default();
        let standing = admit(&inbound, LaneKind::Message, 5, 5).unwrap();
        for (lane, incarnation, stream) in
            [(LaneKind::Message, 5, 4), (LaneKind::Message, 5, 5), (LaneKind::Bulk, 4, 9)]
        {
            let refusal = admit(&inbound, lane, incarnation, stream).unwrap_err();
            assert_eq!(refusal, Refusal::Superseded, "{lane:?} {incarnation} {stream}");
        }
        assert!(admit(&inbound, LaneKind::Bulk, 5, 1).is_ok(), "stream numbers count within a lane");
        drop(standing);
        assert!(admit(&inbound, LaneKind::Message, 4, 4).is_ok(), "nothing is remembered without bound");
        assert!(inbound.lock().sessions.is_empty());
    }

    #[test]
    fn counters_of_senders_are_bounded_but_peers_always_have_theirs() {
        let inbound = Inbound::default();
        for from in 0..2 * SENDERS_MAX as u64 {
            let hello = Hello { cluster: 1, from: NodeId(from), to: NodeId(2), incarnation: 1, stream: 1 };
            inbound.admit(&hello, LaneKind::Message, HOME).unwrap();
        }
        assert_eq!(inbound.lock().senders.len(), SENDERS_MAX);
        let peer = NodeId(u64::MAX);
        let arrivals = inbound.arrivals(peer);
        let hello = Hello { cluster: 1, from: peer, to: NodeId(2), incarnation: 1, stream: 1 };
        let admission = inbound.admit(&hello, LaneKind::Message, HOME).unwrap();
        assert!(arrivals.has_changed().unwrap());
        assert_eq!(*arrivals.borrow(), Arrival { count: 1, from: Some(HOME) });
        admission.received.count(&[bytes::Bytes::from_static(b"four")]);
        assert_eq!(inbound.received(peer, LaneKind::Message), (1, 4));
        inbound.forget(peer);
        assert_eq!(inbound.received(peer, LaneKind::Message), (0, 0));
    }
}
