//! What can go wrong in the store. Every one of these is fatal to the node unless it says otherwise: a state that
//! cannot be read or written may not be guessed, and an entry that cannot be applied may not be skipped.

use crate::command::DecodeError;

/// A call of the embedded engine failed. Never retried, for the engine may have lost what it had not synced; but where the
/// disk had no room, all that was begun is given up, and the call may be made again from the start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state engine failed to {call}: {message}")]
pub struct EngineError {
    /// What it was asked to do, as a verb.
    pub call: &'static str,
    /// What it said.
    pub message: String,
    /// The disk had no room. Nothing has changed.
    pub no_room: bool,
}

/// Why the state could not be read, written or replaced.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The embedded engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A row of the engine is not what this build (or any) would have written there.
    #[error("the state is damaged: {what}")]
    Corrupt {
        /// Which row, and what is wrong with it.
        what: String,
    },
    /// The engine's image was written by a build with another format.
    #[error("the state has format {found}, this build reads {known}: use the build that wrote it")]
    UnknownFormat {
        /// The format met.
        found: u32,
        /// The format of this build.
        known: u32,
    },
    /// The state needs a feature level that this build does not reach.
    #[error("the state has feature level {found}, this build reaches {known}: upgrade this node")]
    FeatureLevel {
        /// The level met.
        found: u32,
        /// The highest level of this build.
        known: u32,
    },
    /// Not fatal: the snapshot is not newer than what is applied, and was not installed.
    #[error("a snapshot at index {snapshot} is not newer than the applied index {applied}")]
    StaleSnapshot {
        /// Index of the snapshot.
        snapshot: u64,
        /// What the store has applied.
        applied: u64,
    },
    /// Not fatal: the chunk was refused, the installation may go on with the right one.
    #[error("a snapshot chunk was refused: {reason}")]
    BadChunk {
        /// Which check failed.
        reason: String,
    },
}

impl StoreError {
    /// Not fatal: the disk had no room, and nothing has changed. The call may be made again once there is room.
    pub fn is_no_room(&self) -> bool {
        matches!(self, StoreError::Engine(EngineError { no_room: true, .. }))
    }

    /// A row that does not decode, or that has to be there and is not.
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        StoreError::Corrupt { what: what.into() }
    }
}

/// Why an entry could not be applied. Always fatal to the node: it must not skip what the others apply.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The entry is not a command of this build.
    #[error("entry {index} cannot be applied: {source}")]
    Undecodable {
        /// The entry.
        index: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The command holds a condition, or a request id, that this build does not know.
    #[error("entry {index} holds {what} that this build does not know: upgrade this node")]
    Unknown {
        /// The entry.
        index: u64,
        /// What is not known.
        what: &'static str,
    },
    /// The command raises the feature level above this build.
    #[error(
        "entry {index} raises the feature level to {level}, this build reaches {known}: upgrade this node"
    )]
    FeatureLevel {
        /// The entry.
        index: u64,
        /// The level it asks for.
        level: u32,
        /// The highest level of this build.
        known: u32,
    },
    /// The state could not be read.
    #[error("entry {index} cannot be applied: {source}")]
    Store {
        /// The entry.
        index: u64,
        /// Why.
        source: StoreError,
    },
}
