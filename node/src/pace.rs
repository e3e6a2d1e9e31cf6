//! A pace that all who move bytes share: what is sent beside the node's work leaves room for that.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many bytes a second, over all who ask.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When the next bytes may leave. A std Mutex, since nothing awaits while it is held.
    next: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Pace {
        Pace { bytes_per_second, next: Mutex::new(Instant::now()) }
    }

    /// When so many bytes may leave; those who ask later wait for them.
    pub(crate) fn reserve(&self, bytes: usize) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (*next).max(Instant::now());
        *next = at + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1) as f64);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_ask_share_it() {
        let pace = Pace::new(1_000);
        let first = pace.reserve(500);
        let second = pace.reserve(1);
        assert!(second >= first + Duration::from_millis(500));
    }
}
