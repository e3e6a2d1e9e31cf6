//! What a run was like: so that a run which never reached a situation does not count as proof about it.

use super::faults::KINDS;
use std::collections::BTreeMap;
use std::fmt;

/// Situations that a long run must have met, beside all kinds of faults. Others are counted where they occur.
pub const SITUATIONS: [&str; 54] = [
    "election won",
    "election won while joint",
    "joint phase",
    "leader down while joint",
    "transfer done",
    "handed over before stopping",
    "restarted as a newer build",
    "feature level raised",
    "write forwarded",
    "write overwritten",
    "write arrived late",
    "write waits for a full disk",
    "flush waits for a full disk",
    "writes to the log in one",
    "precondition failed",
    "client retry",
    "client timeout",
    "outcome unknown",
    "given up, not applied",
    "retry met its first effect",
    "reply replayed",
    "reply table full",
    "session expired",
    "stale read",
    "read not confirmed",
    "message lost",
    "torn tail",
    "power lost in a write",
    "killed in a write",
    "down just after a vote",
    "down just after an acknowledgement",
    "all down just after an answer",
    "stopped for a failed call",
    "refused to start on a rotten disk",
    "snapshot begun",
    "snapshot cut off",
    "snapshot resumed",
    "snapshot chunk not taken",
    "snapshot installed",
    "down in an installation",
    "node taken in",
    "node joined and votes",
    "member removed",
    "removed node set its disk aside",
    "removed node returned and was told",
    "disk wiped",
    "only a quorum healed",
    "read of the past",
    "watch event",
    "watch read history",
    "watch resumed",
    "watch progress proven",
    "watch compacted",
    "watch ended without a leader",
];

/// A run's figures.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// The seed that replays it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Operations that clients completed.
    pub operations: u64,
    /// Faults that struck, by kind.
    pub faults: [u64; KINDS.len()],
    /// Situations that occurred.
    pub situations: BTreeMap<&'static str, u64>,
    /// The trace's hash.
    pub trace: u128,
    /// The trace's lines, where they were kept.
    pub timeline: Vec<String>,
    /// What was violated, if anything.
    pub violation: Option<String>,
}

impl Report {
    /// All faults.
    pub fn faults_total(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Counts a situation.
    pub fn saw(&mut self, situation: &'static str) {
        self.saw_times(situation, 1);
    }

    /// Counts a situation so many times.
    pub fn saw_times(&mut self, situation: &'static str, times: u64) {
        *self.situations.entry(situation).or_default() += times;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Report) {
        self.operations += other.operations;
        for (sum, count) in self.faults.iter_mut().zip(other.faults) {
            *sum += count;
        }
        for (situation, count) in &other.situations {
            *self.situations.entry(situation).or_default() += count;
        }
    }

    /// Faults and situations as a table, those that never occurred included.
    pub fn coverage(&self) -> String {
        use fmt::Write;
        let mut text = String::new();
        for (kind, count) in KINDS.iter().zip(self.faults) {
            let _ = writeln!(text, "  fault      {kind:<36} {count:>9}");
        }
        let mut situations = self.situations.clone();
        for situation in SITUATIONS {
            situations.entry(situation).or_default();
        }
        for (situation, count) in &situations {
            let _ = writeln!(text, "  situation  {situation:<36} {count:>9}");
        }
        text
    }

    /// Faults and situations that occurred less often than that.
    pub fn rarer_than(&self, least: u64) -> Vec<&'static str> {
        let faults = KINDS.iter().zip(self.faults).filter(|(_, count)| *count < least).map(|(kind, _)| *kind);
        let count = |situation: &str| self.situations.get(situation).copied().unwrap_or_default();
        faults.chain(SITUATIONS.into_iter().filter(|situation| count(situation) < least)).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {:<12} {} nodes {:>6} operations {:>4} faults  trace {:032x}",
            self.seed,
            self.nodes,
            self.operations,
            self.faults_total(),
            self.trace
        )?;
        if let Some(violation) = &self.violation {
            write!(f, "\n  VIOLATION: {violation}")?;
        }
        Ok(())
    }
}
