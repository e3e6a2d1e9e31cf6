//! What a call that failed tells its caller.
//!
//! A write's error is one of three truths: it was not applied, it was, or nobody here knows. The client never guesses:
//! what it cannot prove is [`WriteError::Unknown`].

use balsa_wire::problem::{Code, Outcome, Problem};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Cause {
    /// A node said so.
    #[error("{} ({})", .0.detail, .0.code.as_str())]
    Problem(Box<Problem>),
    /// A node did not answer, or its answer broke off.
    #[error("no answer from {endpoint}: {error}")]
    NoAnswer {
        /// Who was asked.
        endpoint: String,
        /// What happened to the connection.
        error: String,
    },
    /// Something answered that is not a node, or a node that this build does not understand.
    #[error("{endpoint} answered what a node does not: {what}")]
    Foreign {
        /// Who was asked.
        endpoint: String,
        /// What it answered.
        what: String,
    },
    /// The deadline passed before anything was answered.
    #[error("no answer before the deadline")]
    Deadline,
    /// It cannot be asked at all, and was not sent.
    #[error("{0}")]
    Invalid(String),
}

impl Cause {
    /// The node's problem document, where there is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Cause::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// The problem's stable code, where there is one.
    pub fn code(&self) -> Option<Code> {
        self.problem().map(|problem| problem.code)
    }
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the read failed: {cause}")]
pub struct ReadError {
    /// What happened last.
    pub cause: Cause,
}

/// What became of a write that was not answered with success.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WriteError {
    /// It had no effect, and never will.
    #[error("not applied: {0}")]
    NotApplied(Cause),
    /// It took effect, but its answer could not be read.
    #[error("applied, but its answer is lost: {0}")]
    Applied(Cause),
    /// It may have taken effect. With a session it was retried until the deadline, so this is rare; a read tells.
    #[error("it is unknown whether it was applied: {0}")]
    Unknown(Cause),
}

impl WriteError {
    /// Which of the three.
    pub fn outcome(&self) -> Outcome {
        match self {
            WriteError::NotApplied(_) => Outcome::NotApplied,
            WriteError::Applied(_) => Outcome::Applied,
            WriteError::Unknown(_) => Outcome::Unknown,
        }
    }

    /// What happened last.
    pub fn cause(&self) -> &Cause {
        match self {
            WriteError::NotApplied(cause) | WriteError::Applied(cause) | WriteError::Unknown(cause) => cause,
        }
    }

    /// Where a condition did not hold: the key's revision, 0 where it is absent.
    pub fn current_revision(&self) -> Option<u64> {
        self.cause().problem().and_then(|problem| problem.current_revision)
    }

    pub(crate) fn of(outcome: Outcome, cause: Cause) -> WriteError {
        match outcome {
            Outcome::NotApplied => WriteError::NotApplied(cause),
            Outcome::Applied => WriteError::Applied(cause),
            Outcome::Unknown => WriteError::Unknown(cause),
        }
    }
}

/// Why no client could be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No endpoint was given.
    #[error(
        "there is no endpoint; one or more are needed, as in http://127.0.0.1:3000,http://127.0.0.1:3001"
    )]
    NoEndpoint,
    /// One that is not an endpoint.
    #[error("`{0}` is not an endpoint; it takes http://HOST:PORT or HOST:PORT")]
    Endpoint(String),
    /// The HTTP library could not start.
    #[error("the HTTP client could not start: {0}")]
    Http(String),
}
