//! The peer door: Raft over plain HTTP/1.1.
//!
//! For each directed pair of nodes there is one long-lived streaming POST whose request body carries framed binary
//! messages, and a second one, apart from the first, for bulk (snapshots, large catch-up), so that a gigabyte under
//! way never delays a heartbeat. The receiver answers 200 at once and keeps its response body open: a byte every
//! interval while it lives, the end of the body when it does not. Both sides so notice a broken connection at once.
//!
//! ```text
//!   engine thread        tokio, sender                      tokio, receiver             engine
//!   PeerHub::send ──► lane (bounded bytes) ──► POST body ──► decoder ──► Inbox::message ──► …
//!        false ◄── not connected / full        200 + keepalive ◄──┘   (waits: backpressure)
//! ```
//!
//! What this module deliberately does not know: Raft, terms, entries, membership, or what a frame means. Frames are
//! opaque bytes; losing some is allowed, and happens whenever a connection breaks: consensus asks no more of its network
//! (Raft thesis 3.3), and pipelines the better for frames that keep their order (10.2.2). What holds:
//!
//! - frames of one lane arrive in the order they were sent, each at most once, or not at all;
//! - what was accepted by an older stream of a node is never delivered once a newer one was accepted
//!   ([`Inbound`]);
//! - nothing is delivered from a node that named another cluster, another receiver or another protocol version
//!   (hazard 48: an address may be reused by a node of another cluster);
//! - every queue, connection count and frame is bounded ([`PeerConfig`]); a full queue drops and says so.
//!
//! Reading order: [`config`] (the bounds), [`frame`] (bytes on the wire), [`handshake`] (who may talk), [`hub`] (the
//! sending side), [`server`] (the receiving side).

pub mod config;
pub mod control;
pub mod frame;
pub mod handshake;
pub mod hub;
pub mod inbound;
pub mod server;
pub mod stats;

mod backoff;
mod body;
mod dial;
mod lane;

pub use config::{ConfigError, PeerConfig};
pub use control::{CallError, call_control};
pub use dial::Resolver;
pub use handshake::{LocalIdentity, Refusal};
pub use hub::{Closed, PeerHub};
pub use inbound::Inbound;
pub use server::serve_peers;
pub use stats::{InboundStats, LaneStats, PeerStats};

use balsa_raft::NodeId;
use bytes::Bytes;
use std::future::Future;

/// Where what peers say goes. Every method may wait; while it does, nothing more is read from that peer, and TCP
/// makes the sender wait. A future may be dropped unfinished when its stream breaks or is superseded: its frames
/// then count as lost.
pub trait Inbox: Clone + Send + Sync + 'static {
    /// Messages of one peer, in order: all whole frames that one read made available.
    fn message(&self, from: NodeId, frames: Vec<Bytes>) -> impl Future<Output = ()> + Send;

    /// Our outbound stream of messages to this peer stands: it accepted us, and what is sent from now on may arrive.
    fn connected(&self, peer: NodeId) -> impl Future<Output = ()> + Send;

    /// Our outbound stream of messages to this peer broke. Told at once, once for each [`Inbox::connected`], and before the
    /// next one. Silence counts as broken after [`PeerConfig::dead_peer_timeout_ms`].
    fn disconnected(&self, peer: NodeId) -> impl Future<Output = ()> + Send;

    /// A member of our cluster refuses our stream because we were removed from it: certain, and for good. May be told
    /// again and again.
    fn removed(&self, by: NodeId) -> impl Future<Output = ()> + Send;

    /// A unary request from anyone, before identities are known (founding, joining), and its reply.
    fn control(&self, payload: Bytes) -> impl Future<Output = Bytes> + Send;

    /// Bulk frames of one peer, in order among themselves; no order holds between them and messages.
    fn bulk(&self, from: NodeId, frames: Vec<Bytes>) -> impl Future<Output = ()> + Send;
}

/// Which of a pair's two streams.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum LaneKind {
    /// Consensus messages: small, urgent.
    Message,
    /// Snapshots and large catch-up: big, patient.
    Bulk,
}

impl LaneKind {
    /// Both, in order.
    pub const ALL: [LaneKind; 2] = [LaneKind::Message, LaneKind::Bulk];

    /// Its word in logs and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            LaneKind::Message => "message",
            LaneKind::Bulk => "bulk",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            LaneKind::Message => "/peer/v1/stream",
            LaneKind::Bulk => "/peer/v1/bulk",
        }
    }
}
