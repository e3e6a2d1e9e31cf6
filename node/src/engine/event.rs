//! What goes into the engine and what comes out. The engine itself touches nothing: the shell (tokio, threads, files) or
//! the simulator brings events and carries effects out.

use super::handle::{AdminError, AdminReply, AdminRequest, ReadError, WriteError};
use super::message::PeerMessage;
use super::snapshot_frame::Offer;
use super::storage::Space;
use balsa_log::LogStart;
use balsa_raft::ready::{PersistToken, SnapshotMeta};
use balsa_raft::{Entry, HardState, Index, NodeId, Term};
use balsa_store::Outlook;
use balsa_store::command::Reply;
use bytes::Bytes;
use std::fmt;

/// How the shell finds whom to answer: channels in production, numbers in the simulator.
pub trait Tickets: 'static {
    /// Whoever waits for a write.
    type Write: Send;
    /// Whoever waits for a read to be confirmed.
    type Read: Send;
    /// Whoever waits for a change of membership or leader.
    type Admin: Send;
}

/// An input. Every one comes with the time: milliseconds of a monotonic clock of this process.
#[derive(Debug)]
pub enum Event<T: Tickets> {
    /// `tick_ms` have passed.
    Tick,
    /// A client's write.
    Write {
        /// Whom to answer.
        ticket: T::Write,
        /// The command, time not stamped.
        command: Bytes,
        /// A second proposal of it is harmless (it carries a request id).
        repeatable: bool,
        /// Answer by then, in ms of the engine's clock.
        deadline_ms: u64,
    },
    /// A client's read.
    Read {
        /// Whom to answer.
        ticket: T::Read,
        /// Answer by then.
        deadline_ms: u64,
    },
    /// An operator's request.
    Admin {
        /// Whom to answer.
        ticket: T::Admin,
        /// What is asked.
        request: AdminRequest,
        /// Answer by then.
        deadline_ms: u64,
    },
    /// A peer says something.
    Message {
        /// The peer, as its connection proved it.
        from: NodeId,
        /// What it says.
        message: PeerMessage,
    },
    /// This node's stream to the peer stands.
    Connected(NodeId),
    /// It broke.
    Disconnected(NodeId),
    /// A member refuses this node's stream because the committed membership there says that this node was removed.
    ToldRemoved {
        /// The member.
        by: NodeId,
    },
    /// A message could not be queued for its receiver: it certainly did not leave.
    NotSent {
        /// The receiver.
        to: NodeId,
        /// What was to be sent.
        message: PeerMessage,
    },
    /// The log has made this write, and all before it, durable.
    Persisted(PersistToken),
    /// The store has applied up to here, and readers see it.
    Applied {
        /// The last entry applied.
        index: Index,
        /// What that means to a leader.
        outlook: Outlook,
    },
    /// The store's state up to here is durable: the log is not needed for it any more.
    Flushed(Index),
    /// A snapshot for a peer was begun; it holds the state at this index.
    SnapshotBegun {
        /// The peer.
        to: NodeId,
        /// The state's index.
        index: Index,
    },
    /// The transfer to a peer ended.
    SnapshotSent {
        /// The peer.
        to: NodeId,
        /// The snapshot's index, or `None` where the transfer broke.
        index: Option<Index>,
    },
    /// A peer wants to send a snapshot.
    SnapshotOffered {
        /// The peer.
        from: NodeId,
        /// Its term.
        term: Term,
        /// What it offers.
        offer: Offer,
    },
    /// A snapshot was received whole, and its state is in the store, durably.
    SnapshotInstalled {
        /// What it is.
        meta: SnapshotMeta,
        /// The cluster time of its state, in ms.
        time_ms: u64,
        /// What the state means to a leader.
        outlook: Outlook,
    },
    /// How much room there is.
    Space(Space),
    /// Hand over and stop.
    Stop,
}

/// An output, to be carried out in order.
#[derive(Debug)]
pub enum Effect<T: Tickets> {
    /// Send to a peer. May be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// What to say.
        message: PeerMessage,
    },
    /// Write to the log.
    Log(LogJob),
    /// Apply these entries, which are contiguous, to the store, then answer those who wait.
    Apply(Vec<Committed<T>>),
    /// Answer a write.
    AnswerWrite(T::Write, Result<Reply, WriteError>),
    /// Answer a read: the store may be read now, or may not.
    AnswerRead(T::Read, Result<(), ReadError>),
    /// Answer an operator.
    AnswerAdmin(T::Admin, Result<AdminReply, AdminError>),
    /// Keep connections to these peers and to no others.
    SetPeers(Vec<(NodeId, String)>),
    /// Refuse the streams of these nodes, and tell them why: they were removed, and that is committed.
    SetRemoved(Vec<NodeId>),
    /// This node was removed from the cluster, for certain. Record it before the identity could be used again.
    Removed {
        /// It was so before this process heard of a leader: its disk returns to a cluster that went on without it.
        returned: bool,
    },
    /// Begin a snapshot of the store for a peer, or take up the one that is on its way there.
    BeginSnapshot {
        /// The peer.
        to: NodeId,
    },
    /// Stream the snapshot that was begun.
    StreamSnapshot {
        /// The peer.
        to: NodeId,
        /// This node's term.
        term: Term,
        /// What the snapshot is.
        meta: SnapshotMeta,
    },
    /// The snapshot that was begun is of no use any more, be it on its way or not.
    DropSnapshot {
        /// The peer.
        to: NodeId,
    },
    /// Whether to receive the snapshot that a peer offered, or to go on with it; if so, install its state and report
    /// [`Event::SnapshotInstalled`].
    AnswerOffer {
        /// The peer.
        from: NodeId,
        /// What it offered.
        offer: Offer,
        /// What to make of it.
        decision: OfferDecision,
    },
    /// Leadership is with somebody else (or with nobody): the shell may drain and stop.
    HandedOver,
}

/// What becomes of an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OfferDecision {
    /// Take it.
    Accept,
    /// This node holds as much already: tell the sender that it is done.
    Held,
    /// Its sender does not lead.
    Refuse,
}

/// Work for the log, in order.
#[derive(Debug, Clone)]
pub enum LogJob {
    /// Append; durable when [`Event::Persisted`] says so.
    Persist {
        /// Names the write.
        token: PersistToken,
        /// Term and vote, where they changed.
        hard_state: Option<HardState>,
        /// The log begins anew behind a snapshot.
        reset: Option<LogStart>,
        /// Entries; those at or beyond the first index that the log holds go.
        entries: Vec<Entry>,
    },
    /// The prefix up to here is not needed any more.
    Release(LogStart),
}

impl LogJob {
    /// How many entries it appends.
    pub fn entries(&self) -> usize {
        match self {
            LogJob::Persist { entries, .. } => entries.len(),
            LogJob::Release(_) => 0,
        }
    }

    /// The size of the entries that it appends, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            LogJob::Persist { entries, .. } => entries.iter().map(Entry::size_bytes).sum(),
            LogJob::Release(_) => 0,
        }
    }
}

/// A committed entry.
pub struct Committed<T: Tickets> {
    /// The entry.
    pub entry: Entry,
    /// Who waits for it.
    pub origin: Option<Origin<T>>,
}

// Derived, it would lack the bound that `Origin` has.
impl<T: Tickets> fmt::Debug for Committed<T>
where
    Origin<T>: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Committed { entry, origin } = self;
        f.debug_struct("Committed").field("entry", entry).field("origin", origin).finish()
    }
}

/// Who waits for an entry.
#[derive(Debug)]
pub enum Origin<T: Tickets> {
    /// A client of this node.
    Local(T::Write),
    /// A client of a peer, which forwarded its write.
    Peer {
        /// The peer.
        node: NodeId,
        /// The peer's name for the request.
        id: u64,
    },
}
