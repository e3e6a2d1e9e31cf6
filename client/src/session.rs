//! The writes of one session: which numbers are given out, and which of them are not finished.
//!
//! Pure bookkeeping (Raft thesis 6.3): a request's number never stands for another request, and
//! `LOWEST_UNFINISHED` never passes a number that may still be sent. A number is finished when its write has its final
//! outcome for the caller, unknown included: from then on the cluster refuses what may still be on its way.
//!
//! A [`Ticket`] that is dropped, by a caller that hung up too, finishes its number.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// A session that the cluster opened.
#[derive(Debug)]
pub struct Session {
    number: u64,
    // A std Mutex, since nothing awaits while it is held.
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    last: u64,
    unfinished: BTreeSet<u64>,
}

/// A write's place in its session.
#[derive(Debug)]
pub struct Ticket {
    session: Arc<Session>,
    sequence: u64,
}

impl Session {
    pub fn new(number: u64) -> Arc<Session> {
        Arc::new(Session { number, window: Mutex::default() })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn ticket(self: &Arc<Session>) -> Ticket {
        let sequence = self.with(|window| {
            window.last += 1;
            window.unfinished.insert(window.last);
            window.last
        });
        Ticket { session: Arc::clone(self), sequence }
    }

    // A panic elsewhere cannot leave the window half changed: each change is one step.
    fn with<T>(&self, change: impl FnOnce(&mut Window) -> T) -> T {
        change(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ticket {
    /// The `Balsa-Session` header of the next attempt.
    pub fn header(&self) -> String {
        let lowest = self.session.with(|window| window.unfinished.first().copied());
        let lowest = lowest.unwrap_or(self.sequence);
        assert!(lowest <= self.sequence, "{lowest} is unfinished above the live {}", self.sequence);
        format!("{}:{}:{lowest}", self.session.number, self.sequence)
    }

    pub fn session(&self) -> u64 {
        self.session.number
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.session.with(|window| window.unfinished.remove(&self.sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_unfinished_is_right_with_several_in_flight() {
        let session = Session::new(7);
        let (first, second, third) = (session.ticket(), session.ticket(), session.ticket());
        assert_eq!(first.header(), "7:1:1");
        assert_eq!(third.header(), "7:3:1");
        drop(second);
        assert_eq!(third.header(), "7:3:1", "the first is not finished");
        drop(first);
        assert_eq!(third.header(), "7:3:3");
        let fourth = session.ticket();
        assert_eq!(fourth.header(), "7:4:3");
        drop(third);
        assert_eq!(fourth.header(), "7:4:4", "a retry tells what is finished by then");
        drop(fourth);
        assert_eq!(session.ticket().header(), "7:5:5");
    }
}
