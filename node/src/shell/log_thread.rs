//! *Persist*: the log's single writer and the two ways to it.
//!
//! The long way is a thread, for a sync may take any time: it takes all jobs at hand, writes them as one, syncs once, tells
//! the engine. A follower with nothing else to do persists a small job in the engine's own turn instead
//! ([`LogLane::try_persist`]): that takes two wake-ups off the way of a lone write. While the disk is slow all go the long way,
//! and a leader's always do: its silence would cost an election (hazard 45).

#[cfg(test)]
mod tests;

use super::flush_thread::StoreRoom;
use super::gauges::gauge;
use super::live::Live;
use crate::engine::log_stage::{LogStage, Progress};
use crate::engine::{Event, LogJob};
use crate::metrics::Metrics;
use balsa_raft::ready::PersistToken;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// How often a write that did not fit on a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(100);
/// After this long without work the end of the log is marked, so that a later damage to it is never taken for a torn
/// write.
const IDLE: Duration = Duration::from_millis(50);
/// A job is small, and may go the short way, with no more bytes of entries than this.
const SMALL_BYTES: usize = 16 << 10;
/// A sync that takes longer has met a slow disk.
const SLOW: Duration = Duration::from_millis(10);
/// How long the short way is left alone afterwards.
const AWAY: Duration = Duration::from_secs(10);

/// Work for the thread.
pub(super) enum Work {
    /// For the log.
    Job(LogJob),
    /// Nothing has come by the short way for a while: mark the end of the log.
    Settle,
}

/// Both ways to the log's writer.
pub(super) struct LogLane {
    work: Sender<Work>,
    /// Jobs that are queued or under way.
    pending: Arc<AtomicUsize>,
    writer: Arc<Mutex<Writer>>,
    /// The last write by the short way, unless the thread has heard of it.
    unsettled: Option<Instant>,
}

impl LogLane {
    /// A lane to `writer`, and the thread's end of it.
    pub(super) fn new(writer: Writer) -> (LogLane, LogThread) {
        let (work, queued) = std::sync::mpsc::channel();
        let (pending, writer) = (Arc::<AtomicUsize>::default(), Arc::new(Mutex::new(writer)));
        let thread = LogThread { work: queued, pending: pending.clone(), writer: writer.clone() };
        (LogLane { work, pending, writer, unsettled: None }, thread)
    }

    /// Queues a job for the thread.
    pub(super) fn send(&mut self, job: LogJob) {
        self.unsettled = None; // the thread marks the end by itself
        self.pending.fetch_add(1, Ordering::Relaxed);
        let _ = self.work.send(Work::Job(job)); // the thread is gone only when all stops
    }

    /// Persists a job here and now and gives its token, where that is soon done; else gives the job to the thread, which will
    /// tell. Blocks for one sync of a disk that was quick of late.
    pub(super) fn try_persist(&mut self, job: LogJob) -> Result<Option<PersistToken>, String> {
        let mut jobs = VecDeque::from([job]);
        let token = match self.quick_writer(&jobs[0]) {
            Some(mut writer) => writer.run(&mut jobs)?.durable,
            None => None,
        };
        match jobs.pop_front() {
            Some(job) => self.send(job), // also where the disk is full: the thread tries again
            None => self.unsettled = Some(Instant::now()),
        }
        Ok(token)
    }

    /// The writer, where nothing is under way and it will have done the job soon.
    fn quick_writer(&self, job: &LogJob) -> Option<MutexGuard<'_, Writer>> {
        let small = matches!(job, LogJob::Persist { reset: None, .. }) && job.bytes() <= SMALL_BYTES;
        if !small || self.pending.load(Ordering::Acquire) > 0 {
            return None;
        }
        let writer = self.writer.try_lock().ok()?;
        let quick = writer.is_quick(Instant::now()) && writer.stage.ready_bytes() >= 2 * SMALL_BYTES as u64;
        quick.then_some(writer)
    }

    /// To be called now and then: lets the thread mark the end of the log once nothing has come for a while.
    pub(super) fn tick(&mut self) {
        if self.unsettled.take_if(|last| last.elapsed() >= IDLE).is_some() {
            let _ = self.work.send(Work::Settle);
        }
    }
}

/// The log's single writer.
pub(super) struct Writer {
    stage: LogStage,
    store: StoreRoom,
    metrics: Arc<Metrics>,
    slow_until: Option<Instant>,
}

impl Writer {
    /// A writer of a log whose disk has shown nothing yet.
    pub(super) fn new(stage: LogStage, store: StoreRoom, metrics: Arc<Metrics>) -> Writer {
        Writer { stage, store, metrics, slow_until: None }
    }

    fn run(&mut self, jobs: &mut VecDeque<LogJob>) -> Result<Progress, String> {
        let entries = jobs.iter().map(LogJob::entries).sum::<usize>();
        let started = Instant::now();
        self.stage.set_takes_entries(!self.store.is_full());
        let progress = self.stage.run(jobs).map_err(|error| format!("the log failed: {error}"))?;
        if progress.durable.is_some() {
            let took = started.elapsed();
            self.note(started + took, took);
            self.metrics.fsync_seconds.observe(took.as_secs_f64());
            self.metrics.append_batch_entries.observe(entries as f64);
        }
        Ok(progress)
    }

    /// A write and its sync, which ended `now`, took so long.
    fn note(&mut self, now: Instant, took: Duration) {
        if took > SLOW {
            self.slow_until = Some(now + AWAY);
        }
    }

    fn is_quick(&self, now: Instant) -> bool {
        self.slow_until.is_none_or(|until| now >= until)
    }

    fn idle(&mut self) -> Result<(), String> {
        self.stage.idle().map_err(|error| format!("the log failed: {error}"))?;
        self.metrics.log_bytes.set(gauge(self.stage.size_bytes()));
        Ok(())
    }
}

/// The thread's end of a lane.
pub(super) struct LogThread {
    work: Receiver<Work>,
    pending: Arc<AtomicUsize>,
    writer: Arc<Mutex<Writer>>,
}

impl LogThread {
    /// Persists what comes until nothing can come any more.
    pub(super) fn run(self, events: &UnboundedSender<Event<Live>>) -> Result<(), String> {
        let mut queue = VecDeque::new();
        let mut idle = false;
        let mut full = false;
        loop {
            let next = match (full, idle) {
                (true, _) => self.work.recv_timeout(FULL_RETRY),
                (false, true) => self.work.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (false, false) => self.work.recv_timeout(IDLE),
            };
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            match next {
                Ok(Work::Job(job)) => queue.push_back(job),
                Err(RecvTimeoutError::Timeout) | Ok(Work::Settle) if full => {}
                Err(RecvTimeoutError::Timeout) | Ok(Work::Settle) => {
                    writer.idle()?;
                    idle = true;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) if full => return Ok(()), // what waits was never acknowledged
                Err(RecvTimeoutError::Disconnected) => return writer.idle(),
            }
            idle = false;
            queue.extend(self.work.try_iter().filter_map(|work| match work {
                Work::Job(job) => Some(job),
                Work::Settle => None, // it will be idle soon enough
            }));
            let before = queue.len();
            let progress = writer.run(&mut queue)?;
            drop(writer);
            self.pending.fetch_sub(before - queue.len(), Ordering::Release);
            if let Some(token) = progress.durable {
                let _ = events.send(Event::Persisted(token)); // the engine is gone only when all stops
            }
            if progress.full != full {
                full = progress.full;
                if full {
                    tracing::error!(
                        "the disk is full: nothing more is acknowledged here until there is room again"
                    );
                } else {
                    tracing::info!("there is room on the disk again");
                }
            }
        }
    }
}
