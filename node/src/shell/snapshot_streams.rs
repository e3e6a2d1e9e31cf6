//! Snapshots on the wire: one task streams a snapshot to a peer, chunk by chunk, at the pace of its connection.

use super::live::Live;
use crate::engine::Event;
use crate::engine::snapshot_frame::SnapshotFrame;
use crate::peer::PeerHub;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, NodeId, Term};
use balsa_store::SnapshotSource;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 256 * 1024;

/// Snapshots that were begun and not yet streamed, by peer. The lock is held only to put and to take.
#[derive(Clone, Default)]
pub(super) struct Streams {
    begun: Arc<Mutex<BTreeMap<NodeId, SnapshotSource>>>,
}

impl Streams {
    pub(super) fn put(&self, to: NodeId, source: SnapshotSource) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(to, source);
    }

    pub(super) fn take(&self, to: NodeId) -> Option<SnapshotSource> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&to)
    }
}

/// Streams `source` to a peer and reports how it ended.
pub(super) async fn stream(
    hub: Arc<PeerHub>,
    to: NodeId,
    term: Term,
    meta: SnapshotMeta,
    source: Option<SnapshotSource>,
    events: UnboundedSender<Event<Live>>,
) {
    let index = meta.index;
    tracing::info!(peer = %to, %index, "a snapshot is being sent");
    let outcome = match source {
        Some(source) => send_chunks(&hub, to, term, meta, source).await,
        None => Err("it was given up before it was sent".to_string()),
    };
    match &outcome {
        Ok(chunks) => tracing::info!(peer = %to, %index, chunks, "a snapshot was sent"),
        Err(reason) => tracing::warn!(peer = %to, %index, reason, "a snapshot was not sent whole"),
    }
    let _ = events.send(Event::SnapshotSent { to, index: outcome.is_ok().then_some(index) });
}

async fn send_chunks(
    hub: &PeerHub,
    to: NodeId,
    term: Term,
    meta: SnapshotMeta,
    mut source: SnapshotSource,
) -> Result<u64, String> {
    let index: Index = meta.index;
    let begin = SnapshotFrame::Begin { term, meta };
    hub.send_bulk(to, begin.encode()).await.map_err(|error| error.to_string())?;
    let mut next = read_chunk(&mut source).await?;
    let mut sequence = 0;
    while let Some(data) = next {
        next = read_chunk(&mut source).await?;
        let frame = SnapshotFrame::Chunk { index, sequence, data, last: next.is_none() };
        hub.send_bulk(to, frame.encode()).await.map_err(|error| error.to_string())?;
        sequence += 1;
    }
    Ok(sequence)
}

/// Reading the store may touch the disk: it must not hold up the runtime's other tasks.
async fn read_chunk(source: &mut SnapshotSource) -> Result<Option<bytes::Bytes>, String> {
    tokio::task::block_in_place(|| source.next_chunk(CHUNK_BYTES)).map_err(|error| error.to_string())
}
