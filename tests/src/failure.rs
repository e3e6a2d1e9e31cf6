//! What ends a run on real processes: a sentence for a person.

use std::fmt;

/// Why a run cannot go on, or what it found.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure(pub String);

/// A run's step.
pub type Outcome<T> = Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// Tests unwrap outcomes: the sentence is what they should print.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Adds what was tried to what went wrong.
pub trait Context<T> {
    /// `what`: what was tried, as a sentence goes on from "cannot".
    fn context(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| Failure(format!("cannot {what}: {error}")))
    }
}

/// Fails with a sentence unless `holds`.
pub fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Outcome<()> {
    if holds { Ok(()) } else { Err(Failure(sentence())) }
}
