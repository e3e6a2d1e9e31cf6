//! Repair of a data folder that no process runs on: `balsa-node recover`, `restore` and `set-aside`; and `clear-aside`, which
//! deletes what the others kept.
//!
//! For a person (or the deploy tooling) who knows what no node can know: that the quorum is lost for good, or that a backup
//! is to live again. Each says first what it would do, and does it only when told to; each can be cut off at any moment and
//! run again.

mod backup_file;
mod clear_aside;
mod heir;
mod incoming;
mod progress;
mod recover;
mod restore;
mod set_aside;

pub use clear_aside::clear_aside;
pub use incoming::Incoming;
pub(crate) use incoming::sweep;
pub use recover::{Recovery, recover};
pub use restore::{Restoration, restore};
pub use set_aside::set_aside;

use crate::engine::boot::BootError;
use crate::life::LockError;
use crate::life::identity::IdentityError;
use balsa_log::{Folder, LogError};
use balsa_store::{ApplyError, StoreError};
use balsa_wire::backup::BackupError;

/// The command whose work on this folder was begun and has not ended; no node may start on it.
pub(crate) fn under_way(folder: &Folder) -> std::io::Result<Option<&'static str>> {
    for (file, command) in [(recover::FILE, "recover"), (restore::FILE, "restore")] {
        if folder.disk.exists(&folder.path.join(file))? {
            return Ok(Some(command));
        }
    }
    Ok(None)
}

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
    /// The backup is none, or is damaged.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// What is in the backup cannot be taken.
    #[error("the backup cannot be taken: {0}")]
    Contents(StoreError),
    /// The backup cannot be read.
    #[error("{path} cannot be read: {error}")]
    BackupFile {
        /// The file.
        path: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// The folder holds nothing that could be recovered, for certain.
    #[error("{0}: there is nothing to recover")]
    Nothing(&'static str),
    /// A recovery has chosen this folder already.
    #[error("a recovery of this folder was begun and has not ended: say --yes")]
    Begun(Box<Recovery>),
    /// A restore works on this folder already.
    #[error("a restore into this data folder was begun and has not ended: there is nothing to recover")]
    Restoring,
    /// There is nothing to repair, or it must not be.
    #[error("{0}")]
    Refused(String),
}
