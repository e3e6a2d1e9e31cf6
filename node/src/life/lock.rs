//! The exclusive lock on the data folder, held for the life of the process: never two processes writing one folder.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// The lock. It goes with the process, however that ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another process holds the data folder")]
    Held,
    /// The disk failed.
    #[error("the data folder cannot be locked: {0}")]
    Io(#[from] io::Error),
}

impl FolderLock {
    /// Takes the lock, or says that it is held. Creates the folder where it is missing.
    pub fn try_take(folder: &Path) -> Result<FolderLock, LockError> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held),
            Err(error) => Err(LockError::Io(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::try_take(folder.path()).unwrap();
        assert!(matches!(FolderLock::try_take(folder.path()), Err(LockError::Held)));
        drop(first);
        FolderLock::try_take(folder.path()).unwrap();
    }
}
