//! What engines say to one another, and how it is encoded.
//!
//! The consensus messages of [`balsa_raft`] travel as they are; beside them go the talk of followers that pass
//! requests on to the leader. A frame is a protobuf message; one of a kind that this build does not know is refused by
//! [`decode`] and the connection that carried it is closed: it is never skipped.

mod wire;

use super::handle::{AdminReply, AdminRequest};
use super::status::ClusterId;
use balsa_raft::message::{Body, Message};
use balsa_raft::{Entry, EntryKind, Index, NodeId, Term};
use balsa_store::FEATURE_LEVEL;
use balsa_store::command::Reply;
use bytes::Bytes;
use prost::Message as _;
use std::sync::LazyLock;

/// A message between two engines.
#[derive(Clone, PartialEq, Debug)]
pub enum PeerMessage {
    /// Consensus.
    Raft(Message),
    /// A follower asks the leader to propose a command.
    Forward {
        /// Names the request between these two nodes.
        id: u64,
        /// The command, time not stamped.
        command: Bytes,
    },
    /// What became of it.
    ForwardReply {
        /// Which request.
        id: u64,
        /// Its outcome.
        result: ForwardResult,
    },
    /// A follower asks the leader to confirm a read.
    ReadIndex {
        /// Names the batch of reads.
        id: u64,
    },
    /// The index that a confirmed read must see, or `None`: not the leader, ask again.
    ReadIndexReply {
        /// Which batch.
        id: u64,
        /// The commit index when the request arrived.
        index: Option<Index>,
    },
    /// A follower passes an operator's request on.
    Admin {
        /// Names the request between these two nodes.
        id: u64,
        /// What is asked.
        request: AdminRequest,
    },
    /// Where the sender is to be found, and what it runs: the first word on each of its connections. A node that is far
    /// behind may know only members that are gone, and could not answer the leader.
    Introduce {
        /// `host:port`, for peers; empty where the sender does not know it yet.
        peer_address: String,
        /// What it runs.
        build: Build,
        /// Its disk is nearly full. Said again whenever that changes.
        is_low_on_disk: bool,
    },
    /// What the leader knows of each member.
    Standing {
        /// The members, itself among them.
        members: Vec<MemberStanding>,
    },
    /// What became of it.
    AdminReply {
        /// Which request.
        id: u64,
        /// Its outcome.
        result: AdminResult,
    },
}

/// What a node runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Build {
    /// Its software version.
    pub version: String,
    /// The highest feature level that it understands; 0: it did not say.
    pub feature_level: u32,
}

/// What this node runs.
pub static BUILD: LazyLock<Build> =
    LazyLock::new(|| Build { version: env!("CARGO_PKG_VERSION").to_string(), feature_level: FEATURE_LEVEL });

/// What a leader knows of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberStanding {
    /// The member.
    pub id: NodeId,
    /// The last entry that it is known to hold durably.
    pub matched: Index,
    /// It was heard from lately.
    pub alive: bool,
}

/// The outcome of a forwarded write.
#[derive(Clone, PartialEq, Debug)]
pub enum ForwardResult {
    /// Applied, with this reply.
    Applied(Reply),
    /// Not applied: the receiver does not lead, or its entry was overwritten. Safe to ask again.
    Refused,
    /// Not applied: the leader's queues are full.
    Overloaded,
    /// Not applied: it needs room, and there is none; why.
    StorageFull(String),
    /// It may or may not have been applied.
    Unknown,
}

/// The outcome of a forwarded operator's request.
#[derive(Clone, PartialEq, Debug)]
pub enum AdminResult {
    /// Done.
    Done(AdminReply),
    /// The receiver does not lead: ask again elsewhere.
    NotLeader,
    /// It cannot be done, and why.
    Refused(String),
    /// No such member.
    NoSuchMember(NodeId),
    /// Another change is under way.
    Busy,
    /// It may or may not have been done.
    Unknown,
}

/// Bytes that are not a message this build understands.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not a frame of ours.
    #[error("malformed peer message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// From a newer build, or damaged.
    #[error("peer message of an unknown kind: this build is too old for the sender")]
    UnknownKind,
}

/// Encodes a message.
pub fn encode(message: &PeerMessage) -> Bytes {
    wire::Frame { kind: Some(to_wire(message)) }.encode_to_vec().into()
}

/// Decodes a message; payloads share the memory of `bytes`.
pub fn decode(bytes: Bytes) -> Result<PeerMessage, MessageError> {
    from_wire(wire::Frame::decode(bytes)?.kind.ok_or(MessageError::UnknownKind)?)
}

fn to_wire(message: &PeerMessage) -> wire::Kind {
    match message {
        PeerMessage::Raft(message) => wire::Kind::Raft(raft_to_wire(message)),
        PeerMessage::Forward { id, command } => {
            wire::Kind::Forward(wire::Forward { id: *id, command: command.clone() })
        }
        PeerMessage::ForwardReply { id, result } => wire::Kind::ForwardReply(wire::ForwardReply {
            id: *id,
            result: Some(match result {
                ForwardResult::Applied(reply) => wire::ForwardOutcome::Applied(reply.clone()),
                ForwardResult::Refused => wire::ForwardOutcome::Refused(true),
                ForwardResult::Overloaded => wire::ForwardOutcome::Overloaded(true),
                ForwardResult::StorageFull(why) => wire::ForwardOutcome::StorageFull(why.clone()),
                ForwardResult::Unknown => wire::ForwardOutcome::Unknown(true),
            }),
        }),
        PeerMessage::Introduce { peer_address, build, is_low_on_disk } => {
            wire::Kind::Introduce(wire::Introduce {
                peer_address: peer_address.clone(),
                version: build.version.clone(),
                feature_level: build.feature_level,
                is_low_on_disk: *is_low_on_disk,
            })
        }
        PeerMessage::Standing { members } => wire::Kind::Standing(wire::Standing {
            members: members
                .iter()
                .map(|m| wire::MemberStanding { id: m.id.0, matched: m.matched.0, alive: m.alive })
                .collect(),
        }),
        PeerMessage::ReadIndex { id } => wire::Kind::ReadIndex(wire::ReadIndex { id: *id }),
        PeerMessage::ReadIndexReply { id, index } => {
            wire::Kind::ReadIndexReply(wire::ReadIndexReply { id: *id, index: index.map(|i| i.0) })
        }
        PeerMessage::Admin { id, request } => {
            wire::Kind::Admin(wire::Admin { id: *id, request: Some(admin_to_wire(request)) })
        }
        PeerMessage::AdminReply { id, result } => wire::Kind::AdminReply(wire::AdminReply {
            id: *id,
            result: Some(match result {
                AdminResult::Done(reply) => wire::AdminOutcome::Done(wire::AdminDone {
                    cluster: reply.cluster.0,
                    members: reply
                        .members
                        .iter()
                        .map(|(id, slot, peer, client, voter)| wire::AdminMember {
                            id: id.0,
                            slot: *slot,
                            peer_address: peer.clone(),
                            client_address: client.clone(),
                            voter: *voter,
                        })
                        .collect(),
                }),
                AdminResult::NotLeader => wire::AdminOutcome::NotLeader(true),
                AdminResult::Refused(why) => wire::AdminOutcome::Refused(why.clone()),
                AdminResult::NoSuchMember(id) => wire::AdminOutcome::NoSuchMember(id.0),
                AdminResult::Busy => wire::AdminOutcome::Busy(true),
                AdminResult::Unknown => wire::AdminOutcome::Unknown(true),
            }),
        }),
    }
}

fn from_wire(kind: wire::Kind) -> Result<PeerMessage, MessageError> {
    Ok(match kind {
        wire::Kind::Raft(message) => PeerMessage::Raft(raft_from_wire(message)?),
        wire::Kind::Forward(m) => PeerMessage::Forward { id: m.id, command: m.command },
        wire::Kind::ForwardReply(m) => PeerMessage::ForwardReply {
            id: m.id,
            result: match m.result.ok_or(MessageError::UnknownKind)? {
                wire::ForwardOutcome::Applied(reply) => ForwardResult::Applied(reply),
                wire::ForwardOutcome::Refused(_) => ForwardResult::Refused,
                wire::ForwardOutcome::Overloaded(_) => ForwardResult::Overloaded,
                wire::ForwardOutcome::StorageFull(why) => ForwardResult::StorageFull(why),
                wire::ForwardOutcome::Unknown(_) => ForwardResult::Unknown,
            },
        },
        wire::Kind::IntroduceByAddress(peer_address) => {
            PeerMessage::Introduce { peer_address, build: Build::default(), is_low_on_disk: false }
        }
        wire::Kind::Introduce(m) => PeerMessage::Introduce {
            peer_address: m.peer_address,
            build: Build { version: m.version, feature_level: m.feature_level },
            is_low_on_disk: m.is_low_on_disk,
        },
        wire::Kind::Standing(m) => PeerMessage::Standing {
            members: (m.members.into_iter())
                .map(|m| MemberStanding { id: NodeId(m.id), matched: Index(m.matched), alive: m.alive })
                .collect(),
        },
        wire::Kind::ReadIndex(m) => PeerMessage::ReadIndex { id: m.id },
        wire::Kind::ReadIndexReply(m) => PeerMessage::ReadIndexReply { id: m.id, index: m.index.map(Index) },
        wire::Kind::Admin(m) => PeerMessage::Admin {
            id: m.id,
            request: admin_from_wire(m.request.ok_or(MessageError::UnknownKind)?),
        },
        wire::Kind::AdminReply(m) => PeerMessage::AdminReply {
            id: m.id,
            result: match m.result.ok_or(MessageError::UnknownKind)? {
                wire::AdminOutcome::Done(done) => AdminResult::Done(AdminReply {
                    cluster: ClusterId(done.cluster),
                    members: done
                        .members
                        .into_iter()
                        .map(|m| (NodeId(m.id), m.slot, m.peer_address, m.client_address, m.voter))
                        .collect(),
                }),
                wire::AdminOutcome::NotLeader(_) => AdminResult::NotLeader,
                wire::AdminOutcome::Refused(why) => AdminResult::Refused(why),
                wire::AdminOutcome::NoSuchMember(id) => AdminResult::NoSuchMember(NodeId(id)),
                wire::AdminOutcome::Busy(_) => AdminResult::Busy,
                wire::AdminOutcome::Unknown(_) => AdminResult::Unknown,
            },
        },
    })
}

fn admin_to_wire(request: &AdminRequest) -> wire::AdminAsk {
    match request {
        AdminRequest::AddMember { id, slot, peer_address, client_address } => {
            wire::AdminAsk::AddMember(wire::AddMember {
                id: id.0,
                slot: *slot,
                peer_address: peer_address.clone(),
                client_address: client_address.clone(),
            })
        }
        AdminRequest::Promote { id } => wire::AdminAsk::Promote(id.0),
        AdminRequest::Remove { id } => wire::AdminAsk::Remove(id.0),
        AdminRequest::TransferLeadership { to } => {
            wire::AdminAsk::TransferLeadership(wire::Transfer { to: to.map(|id| id.0) })
        }
    }
}

fn admin_from_wire(request: wire::AdminAsk) -> AdminRequest {
    match request {
        wire::AdminAsk::AddMember(m) => AdminRequest::AddMember {
            id: NodeId(m.id),
            slot: m.slot,
            peer_address: m.peer_address,
            client_address: m.client_address,
        },
        wire::AdminAsk::Promote(id) => AdminRequest::Promote { id: NodeId(id) },
        wire::AdminAsk::Remove(id) => AdminRequest::Remove { id: NodeId(id) },
        wire::AdminAsk::TransferLeadership(m) => AdminRequest::TransferLeadership { to: m.to.map(NodeId) },
    }
}

fn raft_to_wire(message: &Message) -> wire::Raft {
    let body = match &message.body {
        Body::PreVote { last_index, last_term } => wire::RaftBody::PreVote(wire::LastEntry {
            index: last_index.0,
            term: last_term.0,
            transfer: false,
        }),
        Body::PreVoteReply { granted } => wire::RaftBody::PreVoteReply(*granted),
        Body::Vote { last_index, last_term, transfer } => wire::RaftBody::Vote(wire::LastEntry {
            index: last_index.0,
            term: last_term.0,
            transfer: *transfer,
        }),
        Body::VoteReply { granted } => wire::RaftBody::VoteReply(*granted),
        Body::Append { prev_index, prev_term, entries, commit } => wire::RaftBody::Append(wire::Append {
            prev_index: prev_index.0,
            prev_term: prev_term.0,
            commit: commit.0,
            entries: entries.iter().map(entry_to_wire).collect(),
        }),
        Body::AppendAccepted { match_index } => wire::RaftBody::AppendAccepted(match_index.0),
        Body::AppendRejected { prev_index, hint_index, hint_term } => {
            wire::RaftBody::AppendRejected(wire::AppendRejected {
                prev_index: prev_index.0,
                hint_index: hint_index.0,
                hint_term: hint_term.0,
            })
        }
        Body::Heartbeat { commit, context } => {
            wire::RaftBody::Heartbeat(wire::Heartbeat { commit: commit.0, context: *context })
        }
        Body::HeartbeatReply { context } => wire::RaftBody::HeartbeatReply(*context),
        Body::TimeoutNow { last_index } => wire::RaftBody::TimeoutNow(last_index.0),
        Body::SnapshotInstalled { match_index } => wire::RaftBody::SnapshotInstalled(match_index.0),
    };
    wire::Raft { from: message.from.0, to: message.to.0, term: message.term.0, body: Some(body) }
}

fn raft_from_wire(message: wire::Raft) -> Result<Message, MessageError> {
    let body = match message.body.ok_or(MessageError::UnknownKind)? {
        wire::RaftBody::PreVote(m) => Body::PreVote { last_index: Index(m.index), last_term: Term(m.term) },
        wire::RaftBody::PreVoteReply(granted) => Body::PreVoteReply { granted },
        wire::RaftBody::Vote(m) => {
            Body::Vote { last_index: Index(m.index), last_term: Term(m.term), transfer: m.transfer }
        }
        wire::RaftBody::VoteReply(granted) => Body::VoteReply { granted },
        wire::RaftBody::Append(m) => append_from_wire(m)?,
        wire::RaftBody::AppendAccepted(index) => Body::AppendAccepted { match_index: Index(index) },
        wire::RaftBody::AppendRejected(m) => Body::AppendRejected {
            prev_index: Index(m.prev_index),
            hint_index: Index(m.hint_index),
            hint_term: Term(m.hint_term),
        },
        wire::RaftBody::Heartbeat(m) => Body::Heartbeat { commit: Index(m.commit), context: m.context },
        wire::RaftBody::HeartbeatReply(context) => Body::HeartbeatReply { context },
        wire::RaftBody::TimeoutNow(index) => Body::TimeoutNow { last_index: Index(index) },
        wire::RaftBody::SnapshotInstalled(index) => Body::SnapshotInstalled { match_index: Index(index) },
    };
    Ok(Message { from: NodeId(message.from), to: NodeId(message.to), term: Term(message.term), body })
}

fn append_from_wire(append: wire::Append) -> Result<Body, MessageError> {
    let mut entries = Vec::with_capacity(append.entries.len());
    for (offset, entry) in append.entries.into_iter().enumerate() {
        let kind = match entry.kind {
            0 => EntryKind::Noop,
            1 => EntryKind::Command,
            2 => EntryKind::Membership,
            _ => return Err(MessageError::UnknownKind),
        };
        let index = Index(append.prev_index.saturating_add(1 + offset as u64));
        entries.push(Entry { index, term: Term(entry.term), kind, data: entry.data });
    }
    Ok(Body::Append {
        prev_index: Index(append.prev_index),
        prev_term: Term(append.prev_term),
        entries,
        commit: Index(append.commit),
    })
}

fn entry_to_wire(entry: &Entry) -> wire::Entry {
    let kind = match entry.kind {
        EntryKind::Noop => 0,
        EntryKind::Command => 1,
        EntryKind::Membership => 2,
    };
    wire::Entry { term: entry.term.0, kind, data: entry.data.clone() }
}

#[cfg(test)]
mod tests;
