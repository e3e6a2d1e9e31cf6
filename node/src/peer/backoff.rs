//! How long to wait before the next dial: exponential, jittered. Pure; randomness is an input.

use std::time::Duration;

/// The growing wait between dials of one peer (hazard 46: reconnect storms).
#[derive(Debug)]
pub(super) struct Backoff {
    min_ms: u64,
    max_ms: u64,
    next_ms: u64,
}

impl Backoff {
    pub(super) fn new(min_ms: u64, max_ms: u64) -> Backoff {
        Backoff { min_ms, max_ms, next_ms: min_ms }
    }

    /// After a connection that stood for a while: start again from the shortest wait.
    pub(super) fn reset(&mut self) {
        self.next_ms = self.min_ms;
    }

    /// The wait before the next dial, between a half and the whole of the current step, which then doubles.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let step = self.next_ms;
        self.next_ms = step.saturating_mul(2).min(self.max_ms);
        jitter(step, random)
    }
}

/// Between a half and the whole of `step_ms`.
pub(super) fn jitter(step_ms: u64, random: u64) -> Duration {
    let half_us = step_ms.saturating_mul(500);
    Duration::from_micros(half_us + random % (half_us + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_min_to_max_and_starts_again() {
        let mut backoff = Backoff::new(20, 100);
        let whole: Vec<u128> = (0..5).map(|_| backoff.next(10_000_u64.pow(0) - 1).as_millis()).collect();
        assert_eq!(whole, [10, 20, 40, 50, 50], "with no jitter, the halves of 20, 40, 80, 100, 100");
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 10);
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        for random in [0, 1, 7, u64::MAX / 3, u64::MAX] {
            let wait = jitter(20, random);
            assert!((10_000..=20_000).contains(&wait.as_micros()), "{wait:?} for {random}");
        }
    }
}
