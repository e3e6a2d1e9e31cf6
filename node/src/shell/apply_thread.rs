//! *Apply* and *respond*: the single writer of the store, the two ways to it, and the flushes that run beside it.
//!
//! What touches memory alone (plain PUTs, most writes) the engine's thread applies itself, while nothing else is under way:
//! [`ApplyLane::try_apply`]. All else waits its turn for the apply thread, for it may read the disk. The order of entries
//! holds because the short way is taken only when the long one is empty.

#[cfg(test)]
mod tests;

use super::backups::WaitingBackups;
use super::gauges;
use super::live::{Live, Room};
use super::snapshot_streams::Streams;
use crate::engine::apply_stage::{Applied, ApplyStage};
use crate::engine::snapshot_frame::{Answer, Offer, SnapshotFrame};
use crate::engine::snapshot_receive::{Incoming, Taken};
use crate::engine::{Committed, Event, message};
use crate::metrics::{Metrics, SnapshotEvent};
use crate::peer::PeerHub;
use crate::watch::Signal;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, NodeId};
use balsa_store::{FlushJob, SnapshotSource, StagedSnapshot};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// Work for the store's single writer, in order.
pub(super) enum ApplyJob {
    /// Apply these, answer who waits for them.
    Apply(VecDeque<Committed<Live>>),
    /// A flush ended: the state up to here is durable.
    Flushed(u64),
    /// Begin to remove what has become unreadable, if there is such.
    Sweep,
    /// Begin a snapshot for a peer.
    BeginSnapshot { to: NodeId },
    /// Begin a backup of what is applied.
    BeginBackup { answer: oneshot::Sender<SnapshotSource> },
    /// Begin to receive one, in place of what is being received, or go on with it.
    ReceiveSnapshot { from: NodeId, offer: Offer },
    /// A chunk of one.
    SnapshotChunk { from: NodeId, id: u64, sequence: u32, data: Bytes, _room: Room },
    /// End.
    Halt,
}

/// The long way to the store's writer. Clones are the same one.
#[derive(Clone)]
pub(super) struct ApplyQueue {
    jobs: Sender<ApplyJob>,
    /// Jobs that are queued or under way.
    pending: Arc<AtomicUsize>,
}

impl ApplyQueue {
    /// One without a lane, and where its jobs come out.
    #[cfg(test)]
    pub(super) fn unbound() -> (ApplyQueue, Receiver<ApplyJob>) {
        let (jobs, queued) = std::sync::mpsc::channel();
        (ApplyQueue { jobs, pending: Arc::default() }, queued)
    }

    /// Queues a job for the thread.
    pub(super) fn send(&self, job: ApplyJob) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        let _ = self.jobs.send(job); // the apply thread is gone only when all stops
    }
}

/// Both ways to the store's single writer. Clones are the same ones.
#[derive(Clone)]
pub(super) struct ApplyLane {
    queue: ApplyQueue,
    writer: Arc<Mutex<Writer>>,
}

impl ApplyLane {
    /// A lane to `writer`, and where its queued jobs come out.
    pub(super) fn new(writer: Writer) -> (ApplyLane, Receiver<ApplyJob>) {
        let (jobs, queued) = std::sync::mpsc::channel();
        let queue = ApplyQueue { jobs, pending: Arc::default() };
        (ApplyLane { queue, writer: Arc::new(Mutex::new(writer)) }, queued)
    }

    /// The long way alone.
    pub(super) fn queue(&self) -> &ApplyQueue {
        &self.queue
    }

    /// Queues a job for the thread.
    pub(super) fn send(&self, job: ApplyJob) {
        self.queue.send(job);
    }

    /// Applies from the front what memory is enough for, if nothing is under way, and leaves the rest. Never blocks.
    pub(super) fn try_apply(
        &self,
        committed: &mut VecDeque<Committed<Live>>,
    ) -> Result<Option<Applied<Live>>, String> {
        if self.queue.pending.load(Ordering::Acquire) > 0 {
            return Ok(None);
        }
        let Ok(mut writer) = self.writer.try_lock() else { return Ok(None) };
        if writer.stage.store().must_wait() || writer.incoming.is_under_way() {
            return Ok(None);
        }
        let started = Instant::now();
        let applied = writer.stage.apply_in_memory(committed).map_err(apply_failed)?;
        writer.applied(started);
        writer.publish_stats();
        Ok(Some(applied))
    }

    /// Runs the apply thread until it is told to halt.
    pub(super) fn run(&self, jobs: &Receiver<ApplyJob>) -> Result<(), String> {
        // While both overlays are full, only the end of the flush matters: the rest waits, bounded by what the engine
        // hands out.
        let mut postponed = VecDeque::new();
        loop {
            let job = match postponed.pop_front() {
                Some(job) => job,
                None => match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return Ok(()),
                },
            };
            if matches!(job, ApplyJob::Halt) {
                return Ok(());
            }
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            while matches!(job, ApplyJob::Apply(_)) && writer.stage.store().must_wait() {
                match jobs.recv() {
                    Ok(flushed @ ApplyJob::Flushed(_)) => {
                        writer.carry_out(flushed)?;
                        self.queue.pending.fetch_sub(1, Ordering::Release);
                    }
                    // A flush that failed never ends. What was not applied is in the log.
                    Ok(ApplyJob::Halt) | Err(_) => return Ok(()),
                    Ok(other) => postponed.push_back(other),
                }
            }
            writer.carry_out(job)?;
            drop(writer);
            self.queue.pending.fetch_sub(1, Ordering::Release);
        }
    }
}

/// The store's single writer.
pub(super) struct Writer {
    pub(super) stage: ApplyStage,
    pub(super) flushes: Sender<FlushJob>,
    pub(super) events: UnboundedSender<Event<Live>>,
    pub(super) hub: Arc<PeerHub>,
    pub(super) streams: Streams,
    pub(super) metrics: Arc<Metrics>,
    /// Told of each state that is published.
    pub(super) published: Arc<Signal>,
    pub(super) incoming: Incoming,
    pub(super) backups: WaitingBackups,
}

impl Writer {
    fn carry_out(&mut self, job: ApplyJob) -> Result<(), String> {
        match job {
            ApplyJob::Apply(committed) => self.apply(committed)?,
            ApplyJob::Flushed(index) => {
                let done = self.stage.store_mut().handle_flushed(index);
                done.map_err(|error| format!("a flush of the store failed: {error}"))?;
                self.tell(Event::Flushed(Index(index)));
                self.maybe_flush();
            }
            ApplyJob::Sweep => {
                if let Some(job) = self.stage.store_mut().rotate_to_sweep() {
                    let _ = self.flushes.send(job);
                }
            }
            ApplyJob::BeginSnapshot { to } => {
                let index = self.streams.begin(to, || self.stage.store().begin_snapshot());
                self.tell(Event::SnapshotBegun { to, index });
            }
            ApplyJob::BeginBackup { answer } => {
                self.backups.add(self.stage.store(), answer);
                self.maybe_flush();
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
                let id = offer.id;
                let answer = match self.incoming.begin(self.stage.store(), from, offer) {
                    Ok(answer) => answer,
                    Err(error) if error.is_no_room() => {
                        tracing::warn!(peer = %from, %error, "a snapshot cannot be received");
                        self.incoming.refuse(id)
                    }
                    Err(error) => return Err(format!("a snapshot cannot be received: {error}")),
                };
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

    fn apply(&mut self, committed: VecDeque<Committed<Live>>) -> Result<(), String> {
        let started = Instant::now();
        let applied = self.stage.apply(committed).map_err(apply_failed)?;
        for (answer, reply) in applied.answers {
            let _ = answer.send(reply); // a client that hung up is normal
        }
        self.incoming.handle_applied(applied.index);
        self.tell(Event::Applied { index: applied.index, outlook: applied.outlook });
        let mut by_peer: BTreeMap<NodeId, Vec<Bytes>> = BTreeMap::new();
        for (to, reply) in applied.messages {
            by_peer.entry(to).or_default().push(message::encode(&reply));
        }
        for (to, frames) in by_peer {
            self.hub.send(to, frames); // lost: the peer's own deadline, or its broken connection, tells its client
        }
        self.applied(started);
        Ok(())
    }

    /// A batch that was begun at `started` is applied.
    fn applied(&mut self, started: Instant) {
        self.published.published();
        self.metrics.apply_seconds.observe(started.elapsed().as_secs_f64());
        self.maybe_flush();
    }

    fn install(&mut self, staged: StagedSnapshot, meta: SnapshotMeta) -> Result<(), String> {
        let installed = self.stage.install(&meta, staged);
        if installed.map_err(|error| format!("a snapshot cannot be installed: {error}"))? {
            self.published.published();
            self.metrics.snapshot(SnapshotEvent::Received);
            tracing::info!(index = %meta.index, "a snapshot was installed");
            let store = self.stage.store();
            self.tell(Event::SnapshotInstalled { meta, time_ms: store.time_ms(), outlook: store.outlook() });
            self.maybe_flush();
        }
        Ok(())
    }

    fn maybe_flush(&mut self) {
        let for_backups = self.backups.go_on(self.stage.store_mut());
        if let Some(job) = for_backups.or_else(|| self.stage.maybe_flush()) {
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

fn apply_failed(error: balsa_store::ApplyError) -> String {
    format!("apply failed: {error}")
}
