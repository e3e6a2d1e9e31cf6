//! How far long work is, on standard error, where that is a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often it is told.
const INTERVAL: Duration = Duration::from_millis(250);

/// Of reading so many bytes.
pub(super) struct Progress {
    is_seen: bool,
    whole_bytes: u64,
    next: Instant,
}

impl Progress {
    pub(super) fn of(whole_bytes: u64) -> Progress {
        Progress { is_seen: std::io::stderr().is_terminal(), whole_bytes, next: Instant::now() + INTERVAL }
    }

    /// Tells that so many are done, if it is time to.
    pub(super) fn show(&mut self, bytes: u64) {
        if self.is_seen && Instant::now() >= self.next {
            self.next = Instant::now() + INTERVAL;
            let _ = write!(std::io::stderr(), "\r{} of {} MiB", bytes >> 20, self.whole_bytes >> 20);
        }
    }
}

impl Drop for Progress {
    /// Leaves nothing behind.
    fn drop(&mut self) {
        if self.is_seen {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
