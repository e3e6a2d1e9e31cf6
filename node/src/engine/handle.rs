//! How the doors reach the engine: a bounded queue in, one answer out.

use super::status::Status;
use arc_swap::ArcSwap;
use balsa_raft::NodeId;
use balsa_store::SnapshotSource;
use balsa_store::command::{self, Command, Reply};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// A request to the engine.
#[derive(Debug)]
pub enum Request {
    /// Propose a command; answered once it was applied (or is known not to be, or may have been).
    Write {
        /// From [`command::encode`], time not stamped.
        command: Bytes,
        /// It carries an idempotency key or a session: a second proposal of it is harmless.
        repeatable: bool,
        /// After this the answer is [`WriteError::Unknown`] or a refusal.
        deadline: Instant,
        /// Where the answer goes. A dropped receiver is normal: the client hung up.
        answer: oneshot::Sender<Result<Reply, WriteError>>,
    },
    /// Confirm that a read which starts now may be served from this node's store, and wait until its store is there.
    Read {
        /// After this the answer is a refusal.
        deadline: Instant,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<(), ReadError>>,
    },
    /// Change the membership or the leader.
    Admin {
        /// What to do.
        request: AdminRequest,
        /// After this the answer is a refusal or [`AdminError::Unknown`].
        deadline: Instant,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<AdminReply, AdminError>>,
    },
    /// Write out all that the store has applied, then begin to read that.
    Backup {
        /// Where the state goes. Dropped: the node stops, or has no state yet.
        answer: oneshot::Sender<SnapshotSource>,
    },
}

/// What an operator (or a joining node) can ask of a cluster.
#[derive(Clone, PartialEq, Debug)]
pub enum AdminRequest {
    /// Take a new node in, as a learner that is promoted by the leader once it has caught up.
    AddMember {
        /// Its identity, minted on its disk.
        id: NodeId,
        /// Its slot; `None`: the lowest free one.
        slot: Option<u32>,
        /// Where peers reach it.
        peer_address: String,
        /// Where clients reach it.
        client_address: String,
    },
    /// Make a learner a voter now.
    Promote {
        /// Which.
        id: NodeId,
    },
    /// Remove a member.
    Remove {
        /// Which.
        id: NodeId,
    },
    /// Hand leadership over; `None`: to the voter that is furthest.
    TransferLeadership {
        /// To whom.
        to: Option<NodeId>,
    },
}

/// The answer to an [`AdminRequest`]; the new state is in the status of the leader.
#[derive(Clone, PartialEq, Debug)]
pub struct AdminReply {
    /// The membership that resulted: id, slot, peer address, client address, voter.
    pub members: Vec<(NodeId, u32, String, String, bool)>,
    /// The cluster.
    pub cluster: super::status::ClusterId,
}

/// Why a write was not answered with a reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// No leader was found before the deadline. Not applied.
    #[error("no leader")]
    NoLeader,
    /// A queue is full. Not applied.
    #[error("overloaded: {what}")]
    Overloaded {
        /// Which bound was met.
        what: &'static str,
    },
    /// The cluster's feature level does not allow it yet. Not applied.
    #[error("this needs feature level {needed} and the cluster is at {level}: {held_by}")]
    FeatureLevel {
        /// What it needs.
        needed: u32,
        /// At which level the cluster is.
        level: u32,
        /// Which members hold it back.
        held_by: String,
    },
    /// It needs room, and there is none. Not applied.
    #[error("there is no room for it: {why}")]
    StorageFull {
        /// Whose disk is full, or what the quota is.
        why: String,
    },
    /// The entry was overwritten by another leader's. Not applied.
    #[error("the write lost against another leader's")]
    Overwritten,
    /// It may or may not have been applied.
    #[error("the outcome is unknown: {why}")]
    Unknown {
        /// What broke.
        why: &'static str,
    },
    /// This node stops. Not applied.
    #[error("the node is stopping")]
    Stopping,
    /// This node was removed from the cluster. Not applied.
    #[error("this node was removed from the cluster; ask {ask}")]
    Removed {
        /// Client addresses of members.
        ask: String,
    },
}

/// Why a read was not confirmed. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// No leader was found before the deadline.
    #[error("no leader")]
    NoLeader,
    /// A leader was asked, but no quorum confirmed it in time.
    #[error("not confirmed by a quorum in time")]
    NotConfirmed,
    /// A queue is full.
    #[error("overloaded: {what}")]
    Overloaded {
        /// Which bound was met.
        what: &'static str,
    },
    /// This node stops.
    #[error("the node is stopping")]
    Stopping,
    /// This node was removed from the cluster.
    #[error("this node was removed from the cluster; ask {ask}")]
    Removed {
        /// Client addresses of members.
        ask: String,
    },
}

/// Why an [`AdminRequest`] failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdminError {
    /// It cannot be done, and why. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// No such member.
    #[error("no member {0}")]
    NoSuchMember(NodeId),
    /// Another change is under way; ask again.
    #[error("another membership change is under way")]
    Busy,
    /// No leader was found before the deadline. Nothing was changed.
    #[error("no leader")]
    NoLeader,
    /// It may or may not have been done.
    #[error("the outcome is unknown: {why}")]
    Unknown {
        /// What broke.
        why: &'static str,
    },
    /// A queue is full. Nothing was changed.
    #[error("overloaded: {what}")]
    Overloaded {
        /// Which bound was met.
        what: &'static str,
    },
    /// This node stops. Nothing was changed.
    #[error("the node is stopping")]
    Stopping,
    /// This node was removed from the cluster.
    #[error("this node was removed from the cluster; ask {ask}")]
    Removed {
        /// Client addresses of members.
        ask: String,
    },
}

/// A door's end of the engine. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    status: Arc<ArcSwap<Status>>,
}

impl Handle {
    /// Joins the two ends.
    pub fn new(requests: mpsc::Sender<Request>, status: Arc<ArcSwap<Status>>) -> Handle {
        Handle { requests, status }
    }

    /// Proposes `command` and waits until it was applied.
    pub async fn write(&self, command: &Command, deadline: Instant) -> Result<Reply, WriteError> {
        let (answer, answered) = oneshot::channel();
        let repeatable = command.request.is_some();
        let request = Request::Write { command: command::encode(command), repeatable, deadline, answer };
        match self.requests.try_send(request) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(WriteError::Overloaded { what: "engine queue" });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(WriteError::Stopping),
        }
        answered
            .await
            .unwrap_or(Err(WriteError::Unknown { why: "the node stopped while the write was under way" }))
    }

    /// Waits until a read that starts now may be served from this node's store.
    pub async fn confirm_read(&self, deadline: Instant) -> Result<(), ReadError> {
        let (answer, answered) = oneshot::channel();
        match self.requests.try_send(Request::Read { deadline, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(ReadError::Overloaded { what: "engine queue" });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ReadError::Stopping),
        }
        answered.await.unwrap_or(Err(ReadError::Stopping))
    }

    /// Waits until all that the store has applied by now is written out; gives that state, which stands still.
    pub async fn begin_backup(&self) -> Result<SnapshotSource, ReadError> {
        let (answer, answered) = oneshot::channel();
        match self.requests.try_send(Request::Backup { answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(ReadError::Overloaded { what: "engine queue" });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ReadError::Stopping),
        }
        answered.await.map_err(|_| ReadError::Stopping)
    }

    /// Changes the membership or the leader.
    pub async fn admin(&self, request: AdminRequest, deadline: Instant) -> Result<AdminReply, AdminError> {
        let (answer, answered) = oneshot::channel();
        match self.requests.try_send(Request::Admin { request, deadline, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(AdminError::Overloaded { what: "engine queue" });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(AdminError::Stopping),
        }
        answered
            .await
            .unwrap_or(Err(AdminError::Unknown { why: "the node stopped while the change was under way" }))
    }

    /// The engine's newest state.
    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }
}
