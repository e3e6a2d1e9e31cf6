//! How many writes, and how many bytes of them, are in flight at once: taken, not yet answered.
//!
//! A write that would go over either bound is refused before its body is read: it never waits, so that an overloaded
//! node answers at once and holds no memory for what it will not do. Two counters, no lock.
//!
//! How many may be in flight follows from how long they take (additive increase, multiplicative decrease, as TCP does
//! it): where more come than the cluster can take, the queue would grow until all answers come too late for those who wait,
//! and goodput would collapse. So while writes take longer than [`SLOW`] fewer are let in, though never fewer than
//! [`WRITES_LEAST`]: a slow disk alone refuses nothing to a few hundred clients.
//!
//! Invariant: the counters are what the live [`Admitted`] hold, or for a moment more (two that race for the last
//! place may both be refused), never less.

use crate::metrics::{Metrics, Rejected};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A write that takes longer has waited for others.
const SLOW: Duration = Duration::from_millis(500);
/// So many may be in flight however long they take.
const WRITES_LEAST: usize = 1_024;

/// The bounds and what is taken of them.
#[derive(Debug)]
pub(super) struct InFlight {
    writes: AtomicUsize,
    bytes: AtomicUsize,
    writes_max: usize,
    bytes_max: usize,
    /// At most `writes_max`.
    writes_now_max: AtomicUsize,
    opened: Instant,
    /// When `writes_now_max` was last lowered, in milliseconds after `opened`.
    lowered_ms: AtomicU64,
    metrics: Arc<Metrics>,
}

/// A write's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    of: &'a InFlight,
    bytes: usize,
}

impl InFlight {
    pub(super) fn new(writes_max: usize, bytes_max: usize, metrics: Arc<Metrics>) -> InFlight {
        InFlight {
            writes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            writes_max,
            bytes_max,
            writes_now_max: AtomicUsize::new(writes_max),
            opened: Instant::now(),
            lowered_ms: AtomicU64::new(0),
            metrics,
        }
    }

    /// A write has taken so long.
    pub(super) fn took(&self, took: Duration) {
        let max = self.writes_now_max.load(Ordering::Relaxed);
        if took < SLOW {
            if max < self.writes_max {
                self.writes_now_max.store(max + 1, Ordering::Relaxed);
            }
            return;
        }
        let now_ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let lowered_ms = self.lowered_ms.load(Ordering::Relaxed);
        // Once for all that were in flight together.
        if now_ms.saturating_sub(lowered_ms) >= SLOW.as_millis() as u64 {
            self.lowered_ms.store(now_ms, Ordering::Relaxed);
            let in_flight = self.writes.load(Ordering::Relaxed).min(max);
            let lowered = (in_flight - in_flight / 4).max(WRITES_LEAST.min(self.writes_max));
            self.writes_now_max.store(lowered.min(max), Ordering::Relaxed);
        }
    }

    /// Takes a place for a write whose body has at most `bytes`, or says which bound is met.
    pub(super) fn admit(&self, bytes: usize) -> Result<Admitted<'_>, Rejected> {
        if self.writes.fetch_add(1, Ordering::Relaxed) >= self.writes_now_max.load(Ordering::Relaxed) {
            self.writes.fetch_sub(1, Ordering::Relaxed);
            return Err(Rejected::WritesInFlight);
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.writes.fetch_sub(1, Ordering::Relaxed);
            return Err(Rejected::BytesInFlight);
        }
        self.metrics.writes_in_flight.inc();
        self.metrics.write_bytes_in_flight.add(gauge(bytes));
        Ok(Admitted { of: self, bytes })
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.of.writes.fetch_sub(1, Ordering::Relaxed);
        self.of.metrics.writes_in_flight.dec();
        self.of.metrics.write_bytes_in_flight.sub(gauge(self.bytes));
    }
}

fn gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_writes_take_long_fewer_are_let_in_and_more_again_when_they_do_not() {
        let mut in_flight = InFlight::new(2_000, 100, Arc::new(Metrics::new().unwrap()));
        // It was opened a while ago.
        in_flight.opened = Instant::now().checked_sub(10 * SLOW).unwrap();
        let let_in = |in_flight: &InFlight| {
            let mut places = Vec::new();
            while let Ok(place) = in_flight.admit(0) {
                places.push(place);
            }
            places.len()
        };
        assert_eq!(let_in(&in_flight), 2_000);
        let places: Vec<_> = (0..1_600).map(|_| in_flight.admit(0).unwrap()).collect();
        in_flight.took(SLOW);
        in_flight.took(SLOW); // in flight beside it
        drop(places);
        assert_eq!(let_in(&in_flight), 1_200);
        (0..50).for_each(|_| in_flight.took(Duration::ZERO));
        assert_eq!(let_in(&in_flight), 1_250);
        (0..5_000).for_each(|_| in_flight.took(Duration::ZERO));
        assert_eq!(let_in(&in_flight), 2_000);
        // Few in flight, and a slow disk.
        let places: Vec<_> = (0..20).map(|_| in_flight.admit(0).unwrap()).collect();
        in_flight.lowered_ms.store(0, Ordering::Relaxed);
        in_flight.took(SLOW);
        drop(places);
        assert_eq!(let_in(&in_flight), WRITES_LEAST);
    }

    #[test]
    fn both_bounds_hold_and_places_come_back() {
        let in_flight = InFlight::new(2, 100, Arc::new(Metrics::new().unwrap()));
        let first = in_flight.admit(60).unwrap();
        assert_eq!(in_flight.admit(41).unwrap_err(), Rejected::BytesInFlight);
        let second = in_flight.admit(40).unwrap();
        assert_eq!(in_flight.admit(0).unwrap_err(), Rejected::WritesInFlight);
        drop(first);
        let third = in_flight.admit(60).unwrap();
        drop((second, third));
        assert_eq!(in_flight.writes.load(Ordering::Relaxed), 0);
        assert_eq!(in_flight.bytes.load(Ordering::Relaxed), 0);
    }
}
