//! How long to wait for others, by what links and disks have shown.
//!
//! An election timeout that suits a rack elects without a cause where links are slow or a shared disk has a bad hour, and
//! elects for ever where a vote takes longer than a candidate waits. So a node stretches its own timeout, from its least
//! ([`crate::Config::election_ticks`]) to a bound ([`crate::Config::election_stretch_max`]), by three things that it sees:
//! - *silence*: how long a leader that lives, or a follower, has left this node without a word. The longest of late counts: one pause
//!   too long is one election too many.
//! - *disk*: how long its own log takes to persist: a leader steps down when that takes an election timeout, and a vote
//!   waits for it. What is usual counts: a disk that stalled once is not waited for the next time (hazard 13).
//! - *late answers*: to a candidate or leader that had given up. It waits twice as long next time.
//!
//! What is longer than the bound cannot be waited for, and is not tried. Each node adapts on its own and tells nobody.
//! That is safe: nothing here depends on others' timeouts (there are no leases; reads are confirmed by a quorum).
//!
//! Knows only ticks; deterministic.

use std::collections::VecDeque;

/// A timeout is so many times what was seen: one that is just met will be missed.
const MARGIN: u32 = 2;
/// Time is looked at in windows of so many of the least election timeout.
const WINDOW_TIMEOUTS: u64 = 2;
/// Silences and late answers of so many windows back still count.
const WINDOWS_REMEMBERED: u64 = 32;
/// What a disk usually does is taken from so many windows in which it did anything.
const WINDOWS_OF_DISK: usize = 8;

/// The longest of each window, oldest first.
#[derive(Clone, Debug, Default)]
struct Windows(VecDeque<(u64, u32)>);

impl Windows {
    fn record(&mut self, window: u64, ticks: u32, keep: usize) {
        match self.0.back_mut() {
            Some((newest, longest)) if *newest == window => *longest = ticks.max(*longest),
            _ => self.0.push_back((window, ticks)),
        }
        while self.0.len() > keep {
            self.0.pop_front();
        }
    }

    fn longest_since(&self, window: u64) -> u32 {
        self.0.iter().filter(|(at, _)| *at >= window).map(|(_, ticks)| *ticks).max().unwrap_or(0)
    }

    /// The lower median.
    fn usual(&self) -> u32 {
        let mut longest: Vec<u32> = self.0.iter().map(|(_, ticks)| *ticks).collect();
        longest.sort_unstable();
        longest.len().checked_sub(1).map_or(0, |last| longest[last / 2])
    }
}

/// What a node has seen, and what follows.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    least: u32,
    most: u32,
    /// Silences, and what late answers would have needed, in ticks with the margin.
    waits: Windows,
    /// Writes to the log, in ticks.
    disk: Windows,
    /// This node stopped waiting for answers, and none has come late since.
    gave_up: bool,
    /// See [`Pace::timeout`].
    timeout: u32,
}

impl Pace {
    /// Nothing seen yet.
    pub(crate) fn new(least: u32, stretch_max: u32) -> Pace {
        Pace {
            least,
            most: least.saturating_mul(stretch_max),
            waits: Windows::default(),
            disk: Windows::default(),
            gave_up: false,
            timeout: least,
        }
    }

    /// The shortest election timeout now, in ticks: `least <= timeout <= most`.
    pub(crate) fn timeout(&self) -> u32 {
        self.timeout
    }

    /// A leader that is still followed, or a peer that is still led, was silent for so long, until now.
    pub(crate) fn was_silent(&mut self, now: u64, ticks: u64) {
        self.gave_up = false;
        if ticks > 1 {
            self.wait(now, ticks);
        } else {
            self.adapt(now);
        }
    }

    /// A write to the log took so long.
    pub(crate) fn persisted(&mut self, now: u64, ticks: u64) {
        if ticks <= u64::from(self.most) {
            let window = self.window(now);
            self.disk.record(window, u32::try_from(ticks).unwrap_or(self.most), WINDOWS_OF_DISK);
            self.adapt(now);
        }
    }

    /// This node asked, and stopped waiting.
    pub(crate) fn gave_up(&mut self) {
        self.gave_up = true;
    }

    /// An answer came to a question of which this node may have despaired.
    pub(crate) fn late_answer(&mut self, now: u64) {
        if std::mem::take(&mut self.gave_up) {
            self.wait(now, u64::from(self.timeout));
        }
    }

    fn wait(&mut self, now: u64, ticks: u64) {
        if ticks <= u64::from(self.most) {
            let needed = u32::try_from(ticks).unwrap_or(self.most).saturating_mul(MARGIN);
            let window = self.window(now);
            self.waits.record(window, needed, WINDOWS_REMEMBERED as usize);
        }
        self.adapt(now);
    }

    fn window(&self, now: u64) -> u64 {
        now / (WINDOW_TIMEOUTS * u64::from(self.least))
    }

    fn adapt(&mut self, now: u64) {
        let since = (self.window(now) + 1).saturating_sub(WINDOWS_REMEMBERED);
        let needed = self.waits.longest_since(since).max(self.disk.usual().saturating_mul(MARGIN));
        self.timeout = needed.clamp(self.least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u32 = 10;
    const MOST: u32 = 80;
    const WINDOW: u64 = WINDOW_TIMEOUTS * LEAST as u64;

    fn pace() -> Pace {
        Pace::new(LEAST, MOST / LEAST)
    }

    #[test]
    fn where_all_is_quick_the_timeout_stays_at_its_least() {
        let mut pace = pace();
        for now in 0..1_000 {
            pace.was_silent(now, 2);
            pace.persisted(now, 1);
        }
        assert_eq!(pace.timeout(), LEAST);
    }

    #[test]
    fn one_silence_is_remembered_for_a_while_and_then_forgotten() {
        let mut pace = pace();
        pace.was_silent(0, 9);
        assert_eq!(pace.timeout(), 18);
        pace.was_silent(WINDOW * (WINDOWS_REMEMBERED - 1), 2);
        assert_eq!(pace.timeout(), 18);
        pace.was_silent(WINDOW * WINDOWS_REMEMBERED, 2);
        assert_eq!(pace.timeout(), LEAST);
    }

    #[test]
    fn what_is_beyond_the_bound_is_not_waited_for() {
        let mut pace = pace();
        pace.was_silent(0, u64::from(MOST) + 1);
        pace.persisted(0, u64::from(MOST) + 1);
        assert_eq!(pace.timeout(), LEAST);
        pace.was_silent(0, u64::from(MOST));
        assert_eq!(pace.timeout(), MOST);
    }

    #[test]
    fn a_disk_that_stalled_once_changes_nothing_and_one_that_is_slow_does() {
        let mut pace = pace();
        pace.persisted(0, 1);
        pace.persisted(WINDOW, 30);
        pace.persisted(2 * WINDOW, 1);
        assert_eq!(pace.timeout(), LEAST);
        for window in 3..8 {
            pace.persisted(window * WINDOW, 15);
        }
        assert_eq!(pace.timeout(), 30);
        // Sound again: it takes as long to believe that.
        for window in 8..13 {
            pace.persisted(window * WINDOW, 1);
        }
        assert_eq!(pace.timeout(), LEAST);
    }

    #[test]
    fn an_answer_counts_as_late_once_and_only_after_giving_up() {
        let mut pace = pace();
        pace.late_answer(0);
        assert_eq!(pace.timeout(), LEAST);
        pace.gave_up();
        pace.late_answer(1);
        pace.late_answer(1);
        assert_eq!(pace.timeout(), 2 * LEAST);
        for now in 2..10 {
            pace.gave_up();
            pace.late_answer(now);
        }
        assert_eq!(pace.timeout(), MOST);
    }

    #[test]
    fn after_a_word_in_time_no_answer_is_late() {
        let mut pace = pace();
        pace.gave_up();
        pace.was_silent(1, 1);
        pace.late_answer(2);
        assert_eq!(pace.timeout(), LEAST);
    }
}
