//! Repair of a data folder that no process runs on: `balsa-node recover` and `balsa-node set-aside`.
//!
//! For a person (or the deploy tooling) who knows what no node can know: that the quorum is lost for good. Each says
//! first what it would do, and does it only when told to; each can be cut off at any moment and run again.

mod recover;
mod set_aside;

pub(crate) use recover::is_under_way;
pub use recover::{Recovery, recover};
pub use set_aside::set_aside;

use crate::engine::boot::BootError;
use crate::life::LockError;
use crate::life::identity::IdentityError;
use balsa_log::LogError;
use balsa_store::{ApplyError, StoreError};

/// Why a data folder was not repaired. Each says what a person can do.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A process runs on it.
    #[error("{0}: stop the node first")]
    Lock(#[from] LockError),
    /// Its identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its log or store.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Its log could not be written.
    #[error("the log cannot be written: {0}")]
    LogWrite(#[from] LogError),
    /// Its store could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What its log holds cannot be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The disk failed.
    #[error("the data folder cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// There is nothing to repair, or it must not be.
    #[error("{0}")]
    Refused(String),
}
