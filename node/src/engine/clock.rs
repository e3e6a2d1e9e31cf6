//! Cluster time: milliseconds since founding, stamped on every command by the leader.
//!
//! It advances by the leader's monotonic clock alone, continues from the newest stamp in the log, and stands still while
//! there is no leader. It never runs backwards in the log.

/// The clock of one node.
#[derive(Debug, Default)]
pub struct ClusterClock {
    /// The newest stamp seen in the log, committed or not, or given here.
    newest_ms: u64,
    /// Own monotonic time when that was seen.
    seen_ms: u64,
    /// The newest stamp that is in the log: a leader to come goes on from there.
    logged_ms: u64,
    /// While leading: (own monotonic time, cluster time) when leadership began.
    leading_since: Option<(u64, u64)>,
}

impl ClusterClock {
    /// A stamp was seen in the log.
    pub fn observe(&mut self, now_ms: u64, stamp_ms: u64) {
        self.logged_ms = self.logged_ms.max(stamp_ms);
        self.advance(now_ms, stamp_ms);
    }

    fn advance(&mut self, now_ms: u64, stamp_ms: u64) {
        if stamp_ms > self.newest_ms {
            (self.newest_ms, self.seen_ms) = (stamp_ms, now_ms);
        }
    }

    /// About what cluster time is now, for people: as a leader has it, or what it would have if it had not been deposed.
    pub fn estimate(&self, now_ms: u64) -> u64 {
        match self.leading_since {
            Some((since, base)) => self.newest_ms.max(base + now_ms.saturating_sub(since)),
            None => self.newest_ms + now_ms.saturating_sub(self.seen_ms),
        }
    }

    /// This node leads from now on.
    pub fn start_leading(&mut self, now_ms: u64) {
        self.leading_since = Some((now_ms, self.newest_ms));
    }

    /// This node does not lead.
    pub fn stop_leading(&mut self) {
        self.leading_since = None;
    }

    /// The stamp for a command proposed now.
    pub fn stamp(&mut self, now_ms: u64) -> u64 {
        if let Some((since, base)) = self.leading_since {
            self.advance(now_ms, base + now_ms.saturating_sub(since));
        }
        self.newest_ms
    }

    /// How much of cluster time the log does not know of yet, in ms: it is lost if this leader is.
    pub fn unlogged_ms(&mut self, now_ms: u64) -> u64 {
        self.stamp(now_ms).saturating_sub(self.logged_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_from_the_log_and_stands_still_without_a_leader() {
        let mut clock = ClusterClock::default();
        clock.observe(8_900, 500);
        assert_eq!(clock.estimate(9_000), 600);
        assert_eq!(clock.stamp(9_000), 500);
        clock.start_leading(10_000);
        assert_eq!(clock.stamp(10_250), 750);
        assert_eq!(clock.unlogged_ms(10_260), 260);
        clock.observe(10_260, 750);
        assert_eq!(clock.unlogged_ms(10_270), 20);
        assert_eq!(clock.estimate(10_350), 850);
        clock.stop_leading();
        assert_eq!(clock.stamp(90_000), 770);
        clock.observe(90_000, 2_000);
        clock.start_leading(100_000);
        assert_eq!(clock.stamp(99_000), 2_000, "a clock that jumps back does not turn cluster time back");
        assert_eq!(clock.stamp(100_001), 2_001);
    }
}
