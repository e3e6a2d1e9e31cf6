//! What a run was like: so that a run which never reached a situation does not count as proof about it.

use super::faults::KINDS;
use std::collections::BTreeMap;
use std::fmt;

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

    /// Faults and situations as a table.
    pub fn coverage(&self) -> String {
        use fmt::Write;
        let mut text = String::new();
        for (kind, count) in KINDS.iter().zip(self.faults) {
            let _ = writeln!(text, "  fault      {kind:<28} {count:>9}");
        }
        for (situation, count) in &self.situations {
            let _ = writeln!(text, "  situation  {situation:<28} {count:>9}");
        }
        text
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
