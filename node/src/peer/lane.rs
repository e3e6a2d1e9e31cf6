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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;

    const FRAME: usize = 1_000;

    fn frames(count: usize) -> Vec<Bytes> {
        (0..count).map(|number| Bytes::from(vec![number as u8; FRAME])).collect()
    }

    fn lane(frames: usize) -> Lane {
        let lane = Lane::new(LaneKind::Bulk, frames * (FRAME + FRAME_COST_BYTES), 10 * FRAME);
        lane.open();
        lane
    }

    fn take(lane: &Lane, bytes_max: usize) -> Option<Vec<Bytes>> {
        match lane.poll_take(&mut Context::from_waker(Waker::noop()), bytes_max) {
            Poll::Ready(frames) => Some(frames.into()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_closed_lane_takes_nothing_and_drops_what_waited() {
        let lane = lane(4);
        lane.push(frames(3)).unwrap();
        assert!(lane.stats().connected && lane.stats().queue_bytes > 3 * FRAME);
        lane.close();
        assert_eq!(lane.push(frames(2)), Err(Rejected::NotConnected));
        let stats = lane.stats();
        assert_eq!((stats.connected, stats.queue_bytes, stats.dropped_frames), (false, 0, 5));
        lane.open();
        assert_eq!(take(&lane, usize::MAX), None);
    }

    #[test]
    fn all_or_none_up_to_the_bound_and_a_single_large_frame_when_nothing_waits() {
        let lane = lane(3);
        lane.push(frames(2)).unwrap();
        assert_eq!(lane.push(frames(2)), Err(Rejected::Full));
        lane.push(frames(1)).unwrap();
        assert_eq!(take(&lane, usize::MAX).unwrap().len(), 3);
        let large = vec![Bytes::from(vec![0; 10 * FRAME])];
        lane.push(large.clone()).unwrap();
        assert_eq!(lane.push(large.clone()), Err(Rejected::Full));
        assert_eq!(take(&lane, usize::MAX), Some(large));
        assert_eq!(lane.push(vec![Bytes::from(vec![0; 10 * FRAME + 1])]), Err(Rejected::TooLarge));
    }

    #[test]
    fn empty_frames_are_bounded_too() {
        let lane = lane(3);
        let mut taken = 0;
        while lane.push(vec![Bytes::new()]).is_ok() {
            taken += 1;
            assert!(taken < 1_000, "without end");
        }
    }

    #[test]
    fn frames_leave_in_order_in_steps_of_at_least_one() {
        let lane = lane(5);
        lane.push(frames(5)).unwrap();
        let steps = [take(&lane, 1), take(&lane, 1_500), take(&lane, usize::MAX), take(&lane, 1)];
        let sizes = steps.each_ref().map(|step| step.as_ref().map_or(0, Vec::len));
        assert_eq!(sizes, [1, 2, 2, 0]);
        assert_eq!(steps.into_iter().flatten().flatten().collect::<Vec<_>>(), frames(5));
        assert_eq!(lane.stats().queue_bytes, 0);
    }

    #[test]
    fn who_waits_for_room_goes_on_when_there_is_some_and_ends_with_the_stream() {
        let cx = &mut Context::from_waker(Waker::noop());
        let lane = lane(1);
        lane.push(frames(1)).unwrap();
        let mut first = pin!(lane.push_waiting(Bytes::from_static(b"first")));
        let mut second = pin!(lane.push_waiting(Bytes::from(vec![2; FRAME])));
        assert!(first.as_mut().poll(cx).is_pending() && second.as_mut().poll(cx).is_pending());
        take(&lane, usize::MAX);
        assert_eq!(first.as_mut().poll(cx), Poll::Ready(Ok(())));
        assert!(second.as_mut().poll(cx).is_pending());
        // A new stream: what waited for the old one must not slip into it.
        lane.close();
        lane.open();
        assert_eq!(second.as_mut().poll(cx), Poll::Ready(Err(Rejected::NotConnected)));
        assert_eq!(take(&lane, usize::MAX), None);
    }
}
