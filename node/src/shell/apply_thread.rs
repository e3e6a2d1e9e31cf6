//! *Apply* and *respond*: the single writer of the store, and the flushes that run beside it.

use super::gauges;
use super::live::{Live, Room};
use super::snapshot_streams::Streams;
use crate::engine::apply_stage::ApplyStage;
use crate::engine::snapshot_frame::{Answer, Offer, SnapshotFrame};
use crate::engine::snapshot_receive::{Incoming, Taken};
use crate::engine::{Event, Origin, message};
use crate::metrics::{Metrics, SnapshotEvent};
use crate::peer::PeerHub;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Entry, Index, NodeId};
use balsa_store::{FlushJob, StagedSnapshot};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// Work for the store's single writer, in order.
pub(super) enum ApplyJob {
    /// Apply these, answer those.
    Apply { entries: Vec<Entry>, origins: Vec<Option<Origin<Live>>> },
    /// A flush ended: the state up to here is durable.
    Flushed(u64),
    /// Begin a snapshot for a peer.
    BeginSnapshot { to: NodeId },
    /// Begin to receive one, in place of what is being received, or go on with it.
    ReceiveSnapshot { from: NodeId, offer: Offer },
    /// A chunk of one.
    SnapshotChunk { from: NodeId, id: u64, sequence: u32, data: Bytes, _room: Room },
    /// End.
    Halt,
}

pub(super) struct ApplyThread {
    pub(super) stage: ApplyStage,
    pub(super) jobs: Receiver<ApplyJob>,
    pub(super) flushes: Sender<FlushJob>,
    pub(super) events: UnboundedSender<Event<Live>>,
    pub(super) hub: Arc<PeerHub>,
    pub(super) streams: Streams,
    pub(super) metrics: Arc<Metrics>,
    pub(super) incoming: Incoming,
    pub(super) postponed: VecDeque<ApplyJob>,
}

impl ApplyThread {
    pub(super) fn run(mut self) -> Result<(), String> {
        loop {
            // While both overlays are full, only the end of the flush matters: the rest waits, bounded by what the
            // engine hands out.
            let job = match self.postponed.pop_front() {
                Some(job) => job,
                None => match self.jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return Ok(()),
                },
            };
            if matches!(job, ApplyJob::Halt) {
                return Ok(());
            }
            self.wait_for_room(&job)?;
            self.carry_out(job)?;
        }
    }

    fn wait_for_room(&mut self, job: &ApplyJob) -> Result<(), String> {
        if !matches!(job, ApplyJob::Apply { .. }) {
            return Ok(());
        }
        while self.stage.store().must_wait() {
            match self.jobs.recv() {
                Ok(flushed @ ApplyJob::Flushed(_)) => self.carry_out(flushed)?,
                Ok(other) => self.postponed.push_back(other),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, job: ApplyJob) -> Result<(), String> {
        match job {
            ApplyJob::Apply { entries, origins } => self.apply(entries, origins)?,
            ApplyJob::Flushed(index) => {
                let done = self.stage.store_mut().handle_flushed(index);
                done.map_err(|error| format!("a flush of the store failed: {error}"))?;
                self.tell(Event::Flushed(Index(index)));
                self.maybe_flush();
            }
            ApplyJob::BeginSnapshot { to } => {
                let index = self.streams.begin(to, || self.stage.store().begin_snapshot());
                self.tell(Event::SnapshotBegun { to, index });
            }
            ApplyJob::ReceiveSnapshot { from, offer: Offer { id, .. } }
            | ApplyJob::SnapshotChunk { from, id, .. }
                if !self.stage.has_room() =>
            {
                tracing::warn!(peer = %from, "the disk is too full to receive a snapshot");
                let answer = self.incoming.refuse(id);
                self.answer(from, answer);
            }
            ApplyJob::ReceiveSnapshot { from, offer } => {
                let begun = self.incoming.begin(self.stage.store(), from, offer);
                let answer = begun.map_err(|error| format!("a snapshot cannot be received: {error}"))?;
                self.answer(from, answer);
            }
            ApplyJob::SnapshotChunk { from, id, sequence, data, _room } => {
                match self.incoming.take(from, id, sequence, &data) {
                    Taken::Added => self.metrics.snapshot_received_bytes.inc_by(data.len() as u64),
                    Taken::Ignored => {}
                    Taken::Not(answer, reason) => {
                        tracing::warn!(peer = %from, reason, ?answer, "a snapshot's chunk was not taken");
                        self.answer(from, answer);
                    }
                    Taken::Whole(staged, meta) => {
                        self.metrics.snapshot_received_bytes.inc_by(data.len() as u64);
                        self.install(staged, meta)?;
                        self.answer(from, Answer::Installed { id });
                    }
                }
            }
            ApplyJob::Halt => {}
        }
        self.publish_stats();
        Ok(())
    }

    /// Tells a sender; lost, it asks again.
    fn answer(&self, to: NodeId, answer: Answer) {
        self.hub.offer_bulk(to, SnapshotFrame::Answer(answer).encode());
    }

    fn apply(&mut self, entries: Vec<Entry>, origins: Vec<Option<Origin<Live>>>) -> Result<(), String> {
        let started = Instant::now();
        let applied = self.stage.apply(entries, origins).map_err(|error| format!("apply failed: {error}"))?;
        for (answer, reply) in applied.answers {
            let _ = answer.send(reply); // a client that hung up is normal
        }
        self.incoming.handle_applied(applied.index);
        self.tell(Event::Applied { index: applied.index, wants_compaction: applied.wants_compaction });
        let mut by_peer: BTreeMap<NodeId, Vec<Bytes>> = BTreeMap::new();
        for (to, reply) in applied.messages {
            by_peer.entry(to).or_default().push(message::encode(&reply));
        }
        for (to, frames) in by_peer {
            self.hub.send(to, frames); // lost: the peer's own deadline, or its broken connection, tells its client
        }
        self.metrics.apply_seconds.observe(started.elapsed().as_secs_f64());
        self.maybe_flush();
        Ok(())
    }

    fn install(&mut self, staged: StagedSnapshot, meta: SnapshotMeta) -> Result<(), String> {
        let installed = self.stage.install(&meta, staged);
        if installed.map_err(|error| format!("a snapshot cannot be installed: {error}"))? {
            self.metrics.snapshot(SnapshotEvent::Received);
            tracing::info!(index = %meta.index, "a snapshot was installed");
            self.tell(Event::SnapshotInstalled { meta, time_ms: self.stage.store().time_ms() });
        }
        Ok(())
    }

    fn maybe_flush(&mut self) {
        if let Some(job) = self.stage.maybe_flush() {
            let _ = self.flushes.send(job);
        }
    }

    fn publish_stats(&self) {
        let store = self.stage.store();
        gauges::set_store(&self.metrics, &store.position(), &store.stats());
        if let Some(checkpoint) = self.stage.checkpoint() {
            gauges::set_digest(&self.metrics, checkpoint);
        }
        self.metrics.snapshots_in.set(i64::from(self.incoming.is_under_way()));
    }

    fn tell(&self, event: Event<Live>) {
        let _ = self.events.send(event); // the engine is gone only when all stops
    }
}

/// Runs flushes, one after the other.
pub(super) fn run_flushes(jobs: &Receiver<FlushJob>, done: &Sender<ApplyJob>) -> Result<(), String> {
    for job in jobs {
        let index = job.run().map_err(|error| format!("a flush of the store failed: {error}"))?;
        let _ = done.send(ApplyJob::Flushed(index));
    }
    Ok(())
}
