//! What the transport counts. Counters only grow; labels come from closed sets.

use super::handshake::Refusal;
use balsa_raft::NodeId;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The state of one lane to one peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaneStats {
    /// Whether our stream to it stands.
    pub connected: bool,
    /// What waits for it in memory, in bytes.
    pub queue_bytes: usize,
    /// Frames handed to its connection.
    pub sent_frames: u64,
    /// Their payloads in bytes.
    pub sent_bytes: u64,
    /// Frames not sent: not connected, queue full, too large, or waiting when the connection broke.
    pub dropped_frames: u64,
    /// How often a stream to it was accepted; all but the first are reconnects.
    pub connects: u64,
    /// Dials that reached nobody.
    pub failed_dials: u64,
    /// Dials it refused, by reason; only reasons that occurred.
    pub refused: Vec<(Refusal, u64)>,
    /// Frames received from it.
    pub received_frames: u64,
    /// Their payloads in bytes.
    pub received_bytes: u64,
}

/// The state of both lanes to and from one peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStats {
    /// The peer.
    pub node: NodeId,
    /// Where it is dialled, `host:port`.
    pub address: String,
    /// The consensus messages' lane.
    pub message: LaneStats,
    /// The bulk lane.
    pub bulk: LaneStats,
}

/// What the receiving side counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InboundStats {
    /// Connections open now.
    pub connections: u64,
    /// Streams accepted.
    pub accepted: u64,
    /// Streams and calls refused, by reason; only reasons that occurred.
    pub refused: Vec<(Refusal, u64)>,
    /// Connections closed on arrival since too many were open.
    pub over_limit: u64,
    /// Streams closed since a frame was larger than allowed.
    pub frames_too_large: u64,
    /// Streams closed since a frame's checksum was wrong.
    pub frames_damaged: u64,
    /// Streams closed since a frame was of an unknown kind or version.
    pub frames_unknown: u64,
    /// Streams closed since nothing arrived for too long.
    pub silent: u64,
    /// Streams closed since the same node opened a newer one.
    pub superseded: u64,
}

/// A counter by [`Refusal`].
#[derive(Debug, Default)]
pub(super) struct RefusalCounters([AtomicU64; Refusal::ALL.len()]);

impl RefusalCounters {
    pub(super) fn count(&self, refusal: Refusal) {
        self.0[refusal.index()].fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self) -> Vec<(Refusal, u64)> {
        let counts = Refusal::ALL.map(|refusal| (refusal, self.0[refusal.index()].load(Relaxed)));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// Frames received from one peer on one lane.
#[derive(Debug, Default)]
pub(super) struct ReceivedCounters {
    pub(super) frames: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl ReceivedCounters {
    pub(super) fn count(&self, frames: &[bytes::Bytes]) {
        self.frames.fetch_add(frames.len() as u64, Relaxed);
        self.bytes.fetch_add(frames.iter().map(|frame| frame.len() as u64).sum(), Relaxed);
    }
}
