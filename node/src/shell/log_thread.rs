//! *Persist*: takes all jobs at hand, writes them as one, syncs once, tells the engine.

use super::engine_thread::Live;
use super::gauges::gauge;
use crate::engine::log_stage::LogStage;
use crate::engine::{Event, LogJob};
use crate::metrics::Metrics;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// After this long without work the end of the log is marked, so that a later damage to it is never taken for a torn
/// write.
const IDLE: Duration = Duration::from_millis(50);

pub(super) fn run(
    mut stage: LogStage,
    jobs: &Receiver<LogJob>,
    events: &UnboundedSender<Event<Live>>,
    metrics: &Arc<Metrics>,
) -> Result<(), String> {
    let mut batch = Vec::new();
    let mut idle = false;
    loop {
        let first = if idle {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(IDLE)
        };
        match first {
            Ok(job) => batch.push(job),
            Err(RecvTimeoutError::Timeout) => {
                stage.idle().map_err(|error| format!("the log failed: {error}"))?;
                metrics.log_bytes.set(gauge(stage.size_bytes()));
                idle = true;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => {
                return stage.idle().map_err(|error| format!("the log failed at the end: {error}"));
            }
        }
        idle = false;
        batch.extend(jobs.try_iter());
        let started = Instant::now();
        let durable = stage.run(&batch).map_err(|error| format!("the log failed: {error}"))?;
        if let Some(token) = durable {
            metrics.fsync_seconds.observe(started.elapsed().as_secs_f64());
            let _ = events.send(Event::Persisted(token)); // the engine is gone only when all stops
        }
        batch.clear();
    }
}
