//! A lane: the bounded queue between those who send to one peer and the one connection that carries it there.
//!
//! Invariants: frames wait only while the lane is open (its stream was accepted), at most `bytes_max` of them, a single
//! larger frame excepted; frames leave in the order they came; closing drops and counts what waits.

use super::LaneKind;
use super::stats::{LaneStats, RefusalCounters};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// What a waiting frame costs beyond its payload, in bytes: so that empty frames are bounded, too.
const FRAME_COST_BYTES: usize = 48;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) kind: LaneKind,
    bytes_max: usize,
    frame_bytes_max: usize,
    // A std Mutex: it is held for a few moves, never across an await.
    queue: Mutex<Queue>,
    room: Notify,
    pub(super) counters: LaneCounters,
}

#[derive(Debug, Default)]
struct Queue {
    open: bool,
    /// Grows with each opening: a frame that waits for room belongs to the stream it began to wait for.
    generation: u64,
    frames: VecDeque<Bytes>,
    cost_bytes: usize,
    /// The connection's task, while it waits for frames.
    carrier: Option<Waker>,
}

#[derive(Debug, Default)]
pub(super) struct LaneCounters {
    sent_frames: AtomicU64,
    sent_bytes: AtomicU64,
    dropped_frames: AtomicU64,
    connects: AtomicU64,
    pub(super) failed_dials: AtomicU64,
    pub(super) refused: RefusalCounters,
}

/// Why frames were not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejected {
    NotConnected,
    Full,
    TooLarge,
}

fn cost(frame: &Bytes) -> usize {
    frame.len() + FRAME_COST_BYTES
}

impl Lane {
    pub(super) fn new(kind: LaneKind, bytes_max: usize, frame_bytes_max: usize) -> Lane {
        Lane {
            kind,
            bytes_max,
            frame_bytes_max,
            queue: Mutex::default(),
            room: Notify::new(),
            counters: LaneCounters::default(),
        }
    }

    /// Takes all of the frames or none. Never waits.
    pub(super) fn push(&self, frames: Vec<Bytes>) -> Result<(), Rejected> {
        let count = frames.len();
        self.offer(frames, None).map_err(|(rejected, _)| {
            self.count_dropped(count);
            rejected
        })
    }

    /// Waits for room, as long as the stream that stands now does.
    pub(super) async fn push_waiting(&self, frame: Bytes) -> Result<(), Rejected> {
        let generation = self.lock().generation;
        let mut frames = vec![frame];
        loop {
            // Registered before looking, so that room made in between is not missed.
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            match self.offer(frames, Some(generation)) {
                Ok(()) => return Ok(()),
                Err((Rejected::Full, given_back)) => frames = given_back,
                Err((rejected, _)) => {
                    self.count_dropped(1);
                    return Err(rejected);
                }
            }
            room.await;
        }
    }

    fn offer(&self, frames: Vec<Bytes>, generation: Option<u64>) -> Result<(), (Rejected, Vec<Bytes>)> {
        let added: usize = frames.iter().map(cost).sum();
        let mut queue = self.lock();
        if !queue.open || generation.is_some_and(|generation| generation != queue.generation) {
            return Err((Rejected::NotConnected, frames));
        }
        if frames.iter().any(|frame| frame.len() > self.frame_bytes_max) {
            return Err((Rejected::TooLarge, frames));
        }
        let alone = queue.frames.is_empty() && frames.len() == 1;
        if queue.cost_bytes + added > self.bytes_max && !alone {
            return Err((Rejected::Full, frames));
        }
        queue.frames.extend(frames);
        queue.cost_bytes += added;
        let carrier = queue.carrier.take();
        drop(queue);
        if let Some(carrier) = carrier {
            carrier.wake();
        }
        Ok(())
    }

    fn count_dropped(&self, frames: usize) {
        self.counters.dropped_frames.fetch_add(frames as u64, Relaxed);
    }

    /// The stream was accepted: frames may come.
    pub(super) fn open(&self) {
        self.counters.connects.fetch_add(1, Relaxed);
        let mut queue = self.lock();
        queue.open = true;
        queue.generation += 1;
    }

    /// The stream broke: what waits is dropped. True if the lane was open.
    pub(super) fn close(&self) -> bool {
        let (was_open, dropped) = {
            let mut queue = self.lock();
            queue.cost_bytes = 0;
            queue.carrier = None;
            (std::mem::take(&mut queue.open), std::mem::take(&mut queue.frames))
        };
        self.count_dropped(dropped.len());
        self.room.notify_waiters();
        was_open
    }

    /// What waits, up to about `bytes_max` bytes but at least one frame; pending while nothing does.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<VecDeque<Bytes>> {
        let taken = {
            let mut queue = self.lock();
            if queue.frames.is_empty() {
                match &queue.carrier {
                    Some(carrier) if carrier.will_wake(cx.waker()) => (),
                    _ => queue.carrier = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            queue.take(bytes_max)
        };
        let bytes: usize = taken.iter().map(Bytes::len).sum();
        self.counters.sent_frames.fetch_add(taken.len() as u64, Relaxed);
        self.counters.sent_bytes.fetch_add(bytes as u64, Relaxed);
        self.room.notify_waiters();
        Poll::Ready(taken)
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().open
    }

    pub(super) fn stats(&self) -> LaneStats {
        let (connected, queue_bytes) = {
            let queue = self.lock();
            (queue.open, queue.cost_bytes)
        };
        let counters = &self.counters;
        LaneStats {
            connected,
            queue_bytes,
            sent_frames: counters.sent_frames.load(Relaxed),
            sent_bytes: counters.sent_bytes.load(Relaxed),
            dropped_frames: counters.dropped_frames.load(Relaxed),
            connects: counters.connects.load(Relaxed),
            failed_dials: counters.failed_dials.load(Relaxed),
            refused: counters.refused.snapshot(),
            received_frames: 0,
            received_bytes: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn take(&mut self, bytes_max: usize) -> VecDeque<Bytes> {
        if self.cost_bytes <= bytes_max {
            self.cost_bytes = 0;
            return std::mem::take(&mut self.frames);
        }
        let mut taken = VecDeque::new();
        let mut taken_bytes = 0;
        while let Some(frame) = self.frames.pop_front() {
            self.cost_bytes -= cost(&frame);
            taken_bytes += cost(&frame);
            taken.push_back(frame);
            if taken_bytes >= bytes_max {
                break;
            }
        }
        taken
    }
}
