//! The frames of a snapshot's transfer, on the bulk streams: the sender asks where the receiver is and sends the store's
//! own self-checking chunks; the receiver says from where on it wants them.
//!
//! ```text
//! sender    Ask ──────────────▶ receiver     what is to come, and: where are you?
//!           ◀────────────── Wanted           from this chunk on
//!           Chunk Chunk … ────▶              in order
//!           ◀────────────── Wanted           one was damaged or missing: go back
//!           ◀────────────── Installed        its state is in place (or was there already)
//!           ◀────────────── Refused          not this, or not any more
//! ```
//! After a break the sender asks again. A transfer is named by its `id`: the same one means the same bytes, chunk for chunk,
//! so that the receiver goes on with what it has.

use balsa_log::LogStart;
use balsa_raft::membership::Membership;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, Term};
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

/// What a sender offers, and which of its questions this is.
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    /// Names the stream of chunks; never used again, by no sender, for another.
    pub id: u64,
    /// Rises with each question about the same transfer; comes back with the answer.
    pub ask: u32,
    /// What the snapshot is.
    pub meta: SnapshotMeta,
}

/// One frame.
#[derive(Clone, PartialEq, Debug)]
pub enum SnapshotFrame {
    /// A snapshot is offered: where is the receiver with it?
    Ask {
        /// The sender's term.
        term: Term,
        /// What is offered.
        offer: Offer,
    },
    /// A chunk.
    Chunk {
        /// Which transfer.
        id: u64,
        /// From 0.
        sequence: u32,
        /// As the store made it.
        data: Bytes,
    },
    /// The receiver's answer; all others are answers, too.
    Answer(Answer),
}

/// What a receiver says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Send from this chunk on.
    Wanted {
        /// Which transfer.
        id: u64,
        /// The newest question that the receiver has heard.
        ask: u32,
        /// The chunk, from 0.
        sequence: u32,
    },
    /// The snapshot's state, or a later one, is in place.
    Installed {
        /// Which transfer.
        id: u64,
    },
    /// It is not wanted, or cannot be taken.
    Refused {
        /// Which transfer.
        id: u64,
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
            SnapshotFrame::Ask { term, offer } => wire::Kind::Ask(wire::Ask {
                term: term.0,
                start: Some(to_wire(&super::log_start(&offer.meta))),
                id: offer.id,
                ask: offer.ask,
            }),
            SnapshotFrame::Chunk { id, sequence, data } => {
                wire::Kind::Chunk(wire::Chunk { id: *id, sequence: *sequence, data: data.clone() })
            }
            SnapshotFrame::Answer(Answer::Wanted { id, ask, sequence }) => {
                wire::Kind::Wanted(wire::Wanted { id: *id, ask: *ask, sequence: *sequence })
            }
            SnapshotFrame::Answer(Answer::Installed { id }) => wire::Kind::Installed(*id),
            SnapshotFrame::Answer(Answer::Refused { id }) => wire::Kind::Refused(*id),
        };
        wire::Frame { kind: Some(kind) }.encode_to_vec().into()
    }

    /// Decodes it; a chunk's data shares the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<SnapshotFrame, FrameError> {
        let frame = wire::Frame::decode(bytes).map_err(|error| FrameError(error.to_string()))?;
        match frame.kind {
            Some(wire::Kind::Ask(wire::Ask { term, start: Some(start), id, ask })) => {
                Ok(SnapshotFrame::Ask {
                    term: Term(term),
                    offer: Offer { id, ask, meta: to_meta(&from_wire(start))? },
                })
            }
            Some(wire::Kind::Chunk(wire::Chunk { id, sequence, data })) => {
                Ok(SnapshotFrame::Chunk { id, sequence, data })
            }
            Some(wire::Kind::Wanted(wire::Wanted { id, ask, sequence })) => {
                Ok(SnapshotFrame::Answer(Answer::Wanted { id, ask, sequence }))
            }
            Some(wire::Kind::Installed(id)) => Ok(SnapshotFrame::Answer(Answer::Installed { id })),
            Some(wire::Kind::Refused(id)) => Ok(SnapshotFrame::Answer(Answer::Refused { id })),
            Some(wire::Kind::Ask(wire::Ask { start: None, .. })) | None => {
                Err(FrameError("unknown kind".into()))
            }
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

fn to_wire(start: &LogStart) -> wire::Start {
    wire::Start { index: start.index.0, term: start.term.0, membership: start.membership.clone() }
}

fn from_wire(start: wire::Start) -> LogStart {
    LogStart { index: Index(start.index), term: Term(start.term), membership: start.membership }
}

/// The encoding. Tags 1 and 2 were those of a transfer that could not go on after a break.
mod wire {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Frame {
        #[prost(oneof = "Kind", tags = "3, 4, 5, 6, 7")]
        pub kind: Option<Kind>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "3")]
        Ask(Ask),
        #[prost(message, tag = "4")]
        Chunk(Chunk),
        #[prost(message, tag = "5")]
        Wanted(Wanted),
        #[prost(uint64, tag = "6")]
        Installed(u64),
        #[prost(uint64, tag = "7")]
        Refused(u64),
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Ask {
        #[prost(uint64, tag = "1")]
        pub term: u64,
        #[prost(message, optional, tag = "2")]
        pub start: Option<Start>,
        #[prost(uint64, tag = "3")]
        pub id: u64,
        #[prost(uint32, tag = "4")]
        pub ask: u32,
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
        pub id: u64,
        #[prost(uint32, tag = "2")]
        pub sequence: u32,
        #[prost(bytes = "bytes", tag = "3")]
        pub data: Bytes,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Wanted {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint32, tag = "2")]
        pub ask: u32,
        #[prost(uint32, tag = "3")]
        pub sequence: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balsa_raft::NodeId;

    #[test]
    fn frames_come_back_as_they_were_and_others_are_refused() {
        let membership = Membership { voters: [NodeId(3)].into(), ..Membership::default() };
        let meta = SnapshotMeta { index: Index(7), term: Term(2), membership: Arc::new(membership) };
        assert_eq!(decode_meta(&encode_meta(&meta)).unwrap(), meta);
        for frame in [
            SnapshotFrame::Ask { term: Term(4), offer: Offer { id: 9, ask: 2, meta } },
            SnapshotFrame::Chunk { id: 9, sequence: 5, data: Bytes::from_static(b"rows") },
            SnapshotFrame::Answer(Answer::Wanted { id: 9, ask: 2, sequence: 0 }),
            SnapshotFrame::Answer(Answer::Installed { id: 0 }),
            SnapshotFrame::Answer(Answer::Refused { id: u64::MAX }),
        ] {
            assert_eq!(SnapshotFrame::decode(frame.encode()).unwrap(), frame);
        }
        for bytes in [&b""[..], b"\x0a\x00", b"\x1a\x00", b"\xff\xff\xff"] {
            assert!(SnapshotFrame::decode(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }
}
