//! The frames of a snapshot's transfer, on the bulk stream: what it is, then the store's own self-checking chunks.

use balsa_log::LogStart;
use balsa_raft::membership::Membership;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, Term};
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

/// One frame.
#[derive(Clone, PartialEq, Debug)]
pub enum SnapshotFrame {
    /// A transfer begins; one that was under way from the same peer is over.
    Begin {
        /// The sender's term.
        term: Term,
        /// What the snapshot is.
        meta: SnapshotMeta,
    },
    /// A chunk, in order.
    Chunk {
        /// The snapshot's index.
        index: Index,
        /// From 0.
        sequence: u64,
        /// As the store made it.
        data: Bytes,
        /// There are no more.
        last: bool,
    },
}

/// Bytes that are not a frame.
#[derive(Debug, thiserror::Error)]
#[error("malformed snapshot frame: {0}")]
pub struct FrameError(String);

impl SnapshotFrame {
    /// Encodes it.
    pub fn encode(&self) -> Bytes {
        let kind = match self {
            SnapshotFrame::Begin { term, meta } => {
                wire::Kind::Begin(wire::Begin { term: term.0, start: Some(to_wire(&super::log_start(meta))) })
            }
            SnapshotFrame::Chunk { index, sequence, data, last } => wire::Kind::Chunk(wire::Chunk {
                index: index.0,
                sequence: *sequence,
                data: data.clone(),
                last: *last,
            }),
        };
        wire::Frame { kind: Some(kind) }.encode_to_vec().into()
    }

    /// Decodes it; a chunk's data shares the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<SnapshotFrame, FrameError> {
        let frame = wire::Frame::decode(bytes).map_err(|error| FrameError(error.to_string()))?;
        match frame.kind {
            Some(wire::Kind::Begin(wire::Begin { term, start: Some(start) })) => {
                Ok(SnapshotFrame::Begin { term: Term(term), meta: to_meta(&from_wire(start))? })
            }
            Some(wire::Kind::Chunk(chunk)) => Ok(SnapshotFrame::Chunk {
                index: Index(chunk.index),
                sequence: chunk.sequence,
                data: chunk.data,
                last: chunk.last,
            }),
            _ => Err(FrameError("unknown kind".into())),
        }
    }
}

/// A snapshot's place as bytes: what the store keeps beside a state that it installed.
pub fn encode_meta(meta: &SnapshotMeta) -> Bytes {
    to_wire(&super::log_start(meta)).encode_to_vec().into()
}

/// The reverse of [`encode_meta`].
pub fn decode_meta(bytes: &Bytes) -> Result<SnapshotMeta, FrameError> {
    let start = wire::Start::decode(bytes.clone()).map_err(|error| FrameError(error.to_string()))?;
    to_meta(&from_wire(start))
}

/// A log's start, read as a snapshot's place.
pub fn to_meta(start: &LogStart) -> Result<SnapshotMeta, FrameError> {
    let membership = Membership::decode(&start.membership).map_err(|error| FrameError(error.to_string()))?;
    Ok(SnapshotMeta { index: start.index, term: start.term, membership: Arc::new(membership) })
}

/// Puts the frames of transfers in order: what a receiver has to do with each.
#[derive(Debug, Default)]
pub struct Transfer {
    receiving: Option<(SnapshotMeta, u64)>,
}

/// What to do with a frame.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Ask the engine whether to take this; drop what was being received.
    Offer(Term, SnapshotMeta),
    /// Feed this chunk to the store.
    Feed(Bytes),
    /// Feed this chunk, then install the state.
    FeedLast(Bytes, SnapshotMeta),
    /// It belongs to no transfer that is under way.
    Ignore,
}

impl Transfer {
    /// The engine takes what was offered.
    pub fn accept(&mut self, meta: SnapshotMeta) {
        self.receiving = Some((meta, 0));
    }

    /// Nothing is being received any more.
    pub fn abandon(&mut self) {
        self.receiving = None;
    }

    /// Takes a frame.
    pub fn step(&mut self, frame: SnapshotFrame) -> Step {
        match frame {
            SnapshotFrame::Begin { term, meta } => {
                self.receiving = None;
                Step::Offer(term, meta)
            }
            SnapshotFrame::Chunk { index, sequence, data, last } => match self.receiving.take() {
                Some((meta, next)) if meta.index == index && sequence == next => {
                    if last {
                        Step::FeedLast(data, meta)
                    } else {
                        self.receiving = Some((meta, next + 1));
                        Step::Feed(data)
                    }
                }
                _ => Step::Ignore, // a frame was lost: the whole transfer is
            },
        }
    }
}

fn to_wire(start: &LogStart) -> wire::Start {
    wire::Start { index: start.index.0, term: start.term.0, membership: start.membership.clone() }
}

fn from_wire(start: wire::Start) -> LogStart {
    LogStart { index: Index(start.index), term: Term(start.term), membership: start.membership }
}

/// The encoding.
mod wire {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Frame {
        #[prost(oneof = "Kind", tags = "1, 2")]
        pub kind: Option<Kind>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "1")]
        Begin(Begin),
        #[prost(message, tag = "2")]
        Chunk(Chunk),
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Begin {
        #[prost(uint64, tag = "1")]
        pub term: u64,
        #[prost(message, optional, tag = "2")]
        pub start: Option<Start>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Start {
        #[prost(uint64, tag = "1")]
        pub index: u64,
        #[prost(uint64, tag = "2")]
        pub term: u64,
        #[prost(bytes = "bytes", tag = "3")]
        pub membership: Bytes,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Chunk {
        #[prost(uint64, tag = "1")]
        pub index: u64,
        #[prost(uint64, tag = "2")]
        pub sequence: u64,
        #[prost(bytes = "bytes", tag = "3")]
        pub data: Bytes,
        #[prost(bool, tag = "4")]
        pub last: bool,
    }
}
