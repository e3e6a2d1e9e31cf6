//! The store's overlay to disk, beside its writer: one flush after the other.
//!
//! A disk without room is no failure. The overlay stays in memory, which is bounded: the log takes no more entries meanwhile
//! ([`StoreRoom`]), as when it has no room itself, so that a leader hands over; and the flush is tried again.

use super::apply_thread::{ApplyJob, ApplyQueue};
use crate::metrics::Metrics;
use balsa_store::FlushJob;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How often a flush that did not fit on a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// Whether the store's overlay waits for room on the disk. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct StoreRoom {
    is_full: Arc<AtomicBool>,
}

impl StoreRoom {
    /// It waits.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    fn set(&self, is_full: bool, metrics: &Metrics) {
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            metrics.flush_waits.set(i64::from(is_full));
            if !is_full {
                tracing::info!("there is room on the disk for the store again");
            }
        }
    }
}

/// Runs flushes until the apply thread is gone.
pub(super) fn run(
    jobs: &Receiver<FlushJob>,
    done: &ApplyQueue,
    room: &StoreRoom,
    metrics: &Metrics,
) -> Result<(), String> {
    while let Ok(job) = jobs.recv() {
        let index = loop {
            match job.run() {
                Ok(index) => break index,
                Err(error) if error.is_no_room() => {
                    if !room.is_full() {
                        tracing::error!(
                            %error,
                            "the disk has no room for what the store holds in memory: nothing more is acknowledged here until \
                             there is"
                        );
                    }
                    room.set(true, metrics);
                }
                Err(error) => return Err(format!("a flush of the store failed: {error}")),
            }
            // One flush at a time: nothing comes but the end.
            if let Err(RecvTimeoutError::Disconnected) = jobs.recv_timeout(FULL_RETRY) {
                return Ok(()); // what was not flushed is in the log
            }
        };
        room.set(false, metrics);
        done.send(ApplyJob::Flushed(index));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use balsa_store::command::{self, Command, Operation, Put};
    use balsa_store::{MemoryEngine, Store, StoreConfig};
    use std::sync::mpsc::channel;

    /// A store that holds one key, and does not flush by itself.
    fn store(engine: &MemoryEngine) -> Store {
        let mut store = Store::open(Arc::new(engine.clone()), StoreConfig::default()).unwrap();
        let put = Put { key: "key".into(), value: "value".into(), ..Put::default() };
        let entry = command::encode(&Command { request: None, operation: Some(Operation::Put(put)) });
        store.apply(1, &entry).unwrap();
        store
    }

    #[test]
    fn a_flush_without_room_is_told_of_waits_and_goes_on_when_there_is_room() {
        let (engine, room, metrics) =
            (MemoryEngine::new(), StoreRoom::default(), Arc::new(Metrics::new().unwrap()));
        let mut store = store(&engine);
        engine.set_full(true);
        let (flushes, jobs) = channel();
        let (done, told) = ApplyQueue::unbound();
        flushes.send(store.force_rotate().unwrap()).unwrap();
        let thread = std::thread::spawn({
            let (room, metrics) = (room.clone(), metrics.clone());
            move || run(&jobs, &done, &room, &metrics)
        });
        let began = std::time::Instant::now();
        while metrics.flush_waits.get() == 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "nobody says that the flush waits");
            std::thread::yield_now();
        }
        assert!(room.is_full() && !thread.is_finished());
        assert_eq!(store.durable_index(), 0);

        engine.set_full(false);
        let Ok(ApplyJob::Flushed(index)) = told.recv_timeout(Duration::from_secs(10)) else {
            panic!("no end of the flush is told")
        };
        store.handle_flushed(index).unwrap();
        assert_eq!(store.durable_index(), 1);
        assert!(!room.is_full());
        assert_eq!(metrics.flush_waits.get(), 0);
        drop(flushes);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_flush_that_waits_for_room_keeps_nobody_from_stopping() {
        let engine = MemoryEngine::new();
        let mut store = store(&engine);
        engine.set_full(true);
        let (flushes, jobs) = channel();
        let (done, _told) = ApplyQueue::unbound();
        flushes.send(store.force_rotate().unwrap()).unwrap();
        drop(flushes);
        run(&jobs, &done, &StoreRoom::default(), &Metrics::new().unwrap()).unwrap();
    }

    #[test]
    fn any_other_failure_of_a_flush_is_final() {
        let engine = MemoryEngine::new();
        let mut store = store(&engine);
        engine.fail_after(0);
        let (flushes, jobs) = channel();
        let (done, _told) = ApplyQueue::unbound();
        flushes.send(store.force_rotate().unwrap()).unwrap();
        let ended = run(&jobs, &done, &StoreRoom::default(), &Metrics::new().unwrap());
        assert!(ended.unwrap_err().contains("a flush of the store failed"));
    }
}
