//! What the check says, and the choice between its two ways.

use crate::history::{History, Text};
use crate::{by_key, origin, replay};

/// What is true of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// An order exists.
    Linearizable {
        /// How it was found.
        how: How,
        /// How many operations were judged.
        operations: usize,
    },
    /// None exists.
    Violation(Box<Violation>),
    /// Nobody knows, and why.
    Undecided(String),
}

/// How an order was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// By the revisions that the answers told.
    Replay,
    /// By trying.
    Search {
        /// How many keys were searched apart.
        keys: usize,
    },
}

/// Why no order exists. Operations are named by their place in [`History::operations`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// In a sentence.
    pub why: String,
    /// The key it is about; `None`: all.
    pub key: Option<Text>,
    /// The longest order of a beginning that was found.
    pub order: Vec<usize>,
    /// What that leaves in the store.
    pub state: String,
    /// The operation that does not fit.
    pub misfit: usize,
}

/// Judges a history: by its revisions if every write that was answered tells one, else by search.
pub fn check(history: &History) -> Verdict {
    if !replay::is_possible(history) {
        return by_key::check(history);
    }
    // With many unknown writes a replay may give up before it meets what this sees at once.
    match origin::from_nowhere(history) {
        Some(violation) => Verdict::Violation(Box::new(violation)),
        None => replay::check(history),
    }
}
