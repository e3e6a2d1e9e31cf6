//! What happened, as lines; their hash tells whether two runs were the same.

use super::Micros;
use std::fmt;
use xxhash_rust::xxh3::Xxh3;

/// A run's trace.
pub struct Trace {
    hash: Xxh3,
    lines: u64,
    kept: Option<Vec<String>>,
    line: String,
}

impl Trace {
    /// `keep`: the lines themselves, not only their hash.
    pub fn new(keep: bool) -> Trace {
        Trace { hash: Xxh3::new(), lines: 0, kept: keep.then(Vec::new), line: String::new() }
    }

    /// Something happened.
    pub fn line(&mut self, at: Micros, what: fmt::Arguments<'_>) {
        use fmt::Write;
        self.line.clear();
        let _ = writeln!(self.line, "{:>6}.{:06} {what}", at / 1_000_000, at % 1_000_000);
        self.hash.update(self.line.as_bytes());
        self.lines += 1;
        if let Some(kept) = &mut self.kept {
            kept.push(self.line.clone());
        }
    }

    /// Something small happened, often: it counts for the hash alone.
    pub fn mark(&mut self, at: Micros, what: u64) {
        self.hash.update(&at.to_le_bytes());
        self.hash.update(&what.to_le_bytes());
    }

    /// The hash of all of it.
    pub fn digest(&self) -> u128 {
        self.hash.digest128()
    }

    /// How many lines there were.
    pub fn len(&self) -> u64 {
        self.lines
    }

    /// Nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// The lines, where they were kept.
    pub fn kept(&self) -> &[String] {
        self.kept.as_deref().unwrap_or_default()
    }
}
