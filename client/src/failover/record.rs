//! What is noted of each operation.

use balsa_wire::problem::Outcome;
use std::time::{Duration, Instant};

/// How a write ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Wrote {
    /// Acknowledged, at this revision.
    Acknowledged { revision: u64 },
    /// An error, with its truth and its words.
    Failed { outcome: Outcome, why: String },
}

/// A write.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) key: String,
    /// The value, a JSON number.
    pub(super) value: u64,
    pub(super) wrote: Wrote,
    /// When its outcome was there.
    pub(super) ended: Instant,
    pub(super) took: Duration,
}

/// A read of a key that was acknowledged before.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) found: Found,
    pub(super) took: Duration,
}

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// What was written.
    Right,
    /// Something else: a violation.
    Wrong(String),
    /// An error.
    Failed(String),
}

/// All operations of the load.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) writes: Vec<Write>,
    pub(super) reads: Vec<Read>,
}
