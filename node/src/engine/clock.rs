//! Cluster time: milliseconds since founding, stamped on every command by the leader.
//!
//! It advances by the leader's monotonic clock alone, continues from the newest stamp in the log, and stands still while
//! there is no leader. It never runs backwards in the log.

/// The clock of one node.
#[derive(Debug, Default)]
pub struct ClusterClock {
    /// The newest stamp seen in the log, committed or not.
    newest_ms: u64,
    /// While leading: (own monotonic time, cluster time) when leadership began.
    leading_since: Option<(u64, u64)>,
}

impl ClusterClock {
    /// A stamp was seen in the log.
    pub fn observe(&mut self, stamp_ms: u64) {
        self.newest_ms = self.newest_ms.max(stamp_ms);
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
            self.observe(base + now_ms.saturating_sub(since));
        }
        self.newest_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_from_the_log_and_stands_still_without_a_leader() {
        let mut clock = ClusterClock::default();
        clock.observe(500);
        assert_eq!(clock.stamp(9_000), 500);
        clock.start_leading(10_000);
        assert_eq!(clock.stamp(10_250), 750);
        clock.stop_leading();
        assert_eq!(clock.stamp(90_000), 750);
        clock.observe(2_000);
        clock.start_leading(100_000);
        assert_eq!(clock.stamp(99_000), 2_000, "a clock that jumps back does not turn cluster time back");
        assert_eq!(clock.stamp(100_001), 2_001);
    }
}
