//! What the disk is told: lines of a name and a number.
//!
//! | line | meaning |
//! | --- | --- |
//! | `sync_stall_ms 150` | a sync takes that much longer |
//! | `sync_stall_every 3` | but only every third one; not given: each |
//! | `sync_fails 5` | a sync fails with this error number (5: EIO), without having synced |
//! | `write_fails 28` | a write to a file fails with this error number (28: ENOSPC), without having written |
//! | `keeps_before 1` | what files held before they were written is kept, until they are synced (`before`) |
//! | `wall_clock_ms -3600000` | not the disk: the wall clock is off by that much. Time that only grows stays as it is |
//!
//! A file that is being replaced may be seen empty: nothing is ordered then. A line that makes no sense is a mistake of
//! whoever wrote the test, and ends the process.

use std::ffi::c_int;
use std::time::Duration;

/// What the disk does, from now until it is told otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Order {
    /// A sync takes so much longer.
    pub(crate) sync_stall: Duration,
    /// One in so many does; at least 1.
    pub(crate) sync_stall_every: u64,
    /// Syncs fail with this.
    pub(crate) sync_fails: Option<c_int>,
    /// Writes fail with this.
    pub(crate) write_fails: Option<c_int>,
    /// What files held before is kept.
    pub(crate) keeps_before: bool,
    /// The wall clock is off by that much, in milliseconds.
    pub(crate) wall_clock_ms: i64,
}

impl Default for Order {
    fn default() -> Order {
        Order {
            sync_stall: Duration::ZERO,
            sync_stall_every: 1,
            sync_fails: None,
            write_fails: None,
            keeps_before: false,
            wall_clock_ms: 0,
        }
    }
}

impl Order {
    /// Reads the file's text.
    pub(crate) fn read(text: &str) -> Order {
        let mut order = Order::default();
        for line in text.lines() {
            let parsed =
                line.split_once(' ').and_then(|(name, number)| Some((name, number.parse::<i64>().ok()?)));
            let errno = |number: i64| c_int::try_from(number).ok();
            match parsed {
                Some(("sync_stall_ms", ms @ 0..)) => order.sync_stall = Duration::from_millis(ms as u64),
                Some(("sync_stall_every", count @ 1..)) => order.sync_stall_every = count as u64,
                Some(("sync_fails", number)) => order.sync_fails = errno(number),
                Some(("write_fails", number)) => order.write_fails = errno(number),
                Some(("keeps_before", number)) => order.keeps_before = number != 0,
                Some(("wall_clock_ms", ms)) => order.wall_clock_ms = ms,
                _ => panic!("a limping disk cannot be told `{line}`"),
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_read() {
        let text = "sync_stall_ms 150\nsync_stall_every 3\nsync_fails 5\nwrite_fails 28\nkeeps_before 1\nwall_clock_ms -7\n";
        let order = Order {
            sync_stall: Duration::from_millis(150),
            sync_stall_every: 3,
            sync_fails: Some(5),
            write_fails: Some(28),
            keeps_before: true,
            wall_clock_ms: -7,
        };
        assert_eq!(Order::read(text), order);
    }

    #[test]
    fn an_empty_order_is_a_sound_disk() {
        assert_eq!(Order::read(""), Order::default());
    }

    #[test]
    #[should_panic(expected = "cannot be told `sync_stall_every 0`")]
    fn an_order_that_makes_no_sense_is_refused() {
        Order::read("sync_stall_every 0");
    }
}
