//! What the engine is told in production, and whom it answers.

use crate::engine::Tickets;
use crate::engine::handle::{AdminError, AdminReply, ReadError, WriteError};
use crate::engine::storage::Space;
use balsa_raft::NodeId;
use balsa_store::command::Reply;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Answers go to channels.
#[derive(Debug)]
pub struct Live;

impl Tickets for Live {
    type Write = oneshot::Sender<Result<Reply, WriteError>>;
    type Read = oneshot::Sender<Result<(), ReadError>>;
    type Admin = oneshot::Sender<Result<AdminReply, AdminError>>;
}

/// The room that received bytes take until the store has them: given back when the last holder is gone. So a sender
/// that is faster than this node's disk is held up at its connection, and nothing piles up in between.
pub type Room = Arc<OwnedSemaphorePermit>;

/// What peers and the process tell the engine.
#[derive(Debug)]
pub enum Inputs {
    /// Frames of a peer, in order.
    Messages(NodeId, Vec<Bytes>),
    /// Frames of a snapshot's transfer.
    Bulk(NodeId, Vec<Bytes>, Room),
    /// This node's stream to the peer stands.
    Connected(NodeId),
    /// It broke.
    Disconnected(NodeId),
    /// A member says that this node was removed.
    ToldRemoved(NodeId),
    /// How much room there is.
    Space(Space),
    /// Hand leadership over; [`super::Running::handed_over`] tells when that is done. Requests are still served.
    Stop,
    /// End all threads.
    Halt,
}
