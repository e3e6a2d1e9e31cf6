//! What can go wrong, by operation.

use std::io;
use std::path::PathBuf;

/// Why a write to the log failed. Except where a variant says otherwise, the log is unusable from then on: the node
/// stops, and finds out what is durable by opening the log again.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A call to the disk failed. Never retried: after a failed fsync the page cache lies (fsyncgate, ATC 2020).
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is full. Nothing was changed, the log goes on: release what is not needed, and try again.
    #[error("the disk is full: cannot allocate {}: {source}", path.display())]
    Full {
        /// What could not be allocated.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier call failed with this message.
    #[error("the log failed earlier and takes no more writes: {0}")]
    Poisoned(String),
    /// There is a log in the folder already. Nothing was changed.
    #[error("there is a log in {} already", .0.display())]
    Exists(PathBuf),
    /// A payload is larger than the log takes. Nothing was changed, the log goes on.
    #[error("a payload of {bytes} bytes is larger than max_record_bytes {max}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The largest that the log takes, in bytes.
        max: usize,
    },
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
}

/// Why a log did not open. Nothing was changed, except where the log proved that it may be.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no log in the folder.
    #[error("there is no log in {}", .0.display())]
    Missing(PathBuf),
    /// What was durable, and may have been acknowledged, cannot be read any more.
    #[error(
        "{} is damaged at byte {offset}: {why}. This node cannot know what it promised and does not start. \
         Restore this node's disk as it was, or wipe its data folder so that it rejoins under a new identity",
        file.display()
    )]
    Damaged {
        /// Which segment.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What was found there.
        why: String,
    },
    /// The log belongs to another cluster or node.
    #[error(
        "{} belongs to node {found_node:x} of cluster {found_cluster:x}, not to node {node:x} of cluster {cluster:x}: \
         give this node its own data folder",
        file.display()
    )]
    Identity {
        /// Which segment.
        file: PathBuf,
        /// The cluster that its header names.
        found_cluster: u64,
        /// The node that its header names.
        found_node: u64,
        /// The cluster that was expected.
        cluster: u64,
        /// The node that was expected.
        node: u64,
    },
    /// A newer Balsa wrote the log.
    #[error("{} is of format version {found}, this Balsa reads {supported}: run the newer Balsa", file.display())]
    Version {
        /// Which segment.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this code reads.
        supported: u32,
    },
    /// A call to the disk failed, or a setting is wrong.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Adds what was tried, and on what, to an error of the disk.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &std::path::Path) -> Result<T, LogError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &std::path::Path) -> Result<T, LogError> {
        self.map_err(|source| LogError::Io { doing, path: path.to_path_buf(), source })
    }
}
