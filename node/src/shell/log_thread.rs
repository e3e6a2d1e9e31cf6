//! *Persist*: takes all jobs at hand, writes them as one, syncs once, tells the engine.

use super::flush_thread::StoreRoom;
use super::gauges::gauge;
use super::live::Live;
use crate::engine::log_stage::LogStage;
use crate::engine::{Event, LogJob};
use crate::metrics::Metrics;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// How often a write that did not fit on a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(100);
/// After this long without work the end of the log is marked, so that a later damage to it is never taken for a torn
/// write.
const IDLE: Duration = Duration::from_millis(50);

pub(super) fn run(
    mut stage: LogStage,
    jobs: &Receiver<LogJob>,
    events: &UnboundedSender<Event<Live>>,
    store: &StoreRoom,
    metrics: &Arc<Metrics>,
) -> Result<(), String> {
    let mut queue = VecDeque::new();
    let mut idle = false;
    let mut full = false;
    loop {
        let next = match (full, idle) {
            (true, _) => jobs.recv_timeout(FULL_RETRY),
            (false, true) => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (false, false) => jobs.recv_timeout(IDLE),
        };
        match next {
            Ok(job) => queue.push_back(job),
            Err(RecvTimeoutError::Timeout) if full => {}
            Err(RecvTimeoutError::Timeout) => {
                stage.idle().map_err(|error| format!("the log failed: {error}"))?;
                metrics.log_bytes.set(gauge(stage.size_bytes()));
                idle = true;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) if full => return Ok(()), // what waits was never acknowledged
            Err(RecvTimeoutError::Disconnected) => {
                return stage.idle().map_err(|error| format!("the log failed at the end: {error}"));
            }
        }
        idle = false;
        queue.extend(jobs.try_iter());
        let entries = queue.iter().map(LogJob::entries).sum::<usize>();
        let started = Instant::now();
        stage.set_takes_entries(!store.is_full());
        let progress = stage.run(&mut queue).map_err(|error| format!("the log failed: {error}"))?;
        if let Some(token) = progress.durable {
            metrics.fsync_seconds.observe(started.elapsed().as_secs_f64());
            metrics.append_batch_entries.observe(entries as f64);
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
