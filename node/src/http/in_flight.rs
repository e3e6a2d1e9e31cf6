//! How many writes, and how many bytes of them, are in flight at once: taken, not yet answered.
//!
//! A write that would go over either bound is refused before its body is read: it never waits, so that an overloaded
//! node answers at once and holds no memory for what it will not do. Two counters, no lock.
//!
//! Invariant: the counters are what the live [`Admitted`] hold, or for a moment more (two that race for the last
//! place may both be refused), never less.

use crate::metrics::{Metrics, Rejected};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bounds and what is taken of them.
#[derive(Debug)]
pub(super) struct InFlight {
    writes: AtomicUsize,
    bytes: AtomicUsize,
    writes_max: usize,
    bytes_max: usize,
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
        InFlight { writes: AtomicUsize::new(0), bytes: AtomicUsize::new(0), writes_max, bytes_max, metrics }
    }

    /// Takes a place for a write whose body has at most `bytes`, or says which bound is met.
    pub(super) fn admit(&self, bytes: usize) -> Result<Admitted<'_>, Rejected> {
        if self.writes.fetch_add(1, Ordering::Relaxed) >= self.writes_max {
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
