//! The one door to the disk. Everything Balsa itself writes (log, identity, snapshots) goes through [`Disk`] and
//! [`DiskFile`], so that tests can lose power, tear writes, flip bits and fail calls.
//!
//! [`RealDisk`] is the machine's; [`SimDisk`] is in memory, deterministic, and as unkind as a disk may be.

mod direct;
mod real;
pub mod sim;

pub use real::RealDisk;
pub use sim::SimDisk;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file system, as far as Balsa uses one.
pub trait Disk: Send + Sync + 'static {
    /// Creates `path` (it must not exist) for reading and writing. Its name is durable only after [`Disk::sync_dir`].
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens `path` (it must exist) for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The names in a folder, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether there is a file or folder at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Renames, replacing what is at `to`. Durable only after [`Disk::sync_dir`] of the folder(s).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable only after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it. Durable only after [`Disk::sync_dir`] of the folder that it was in; a
    /// crash may leave parts of it.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Creates a folder and its parents. Those that were missing are durable on return.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that can still be written.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. Positions are explicit; there is no cursor.
pub trait DiskFile: Send + Sync {
    /// Reads exactly `buf.len()` bytes at `offset`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`. Not durable before [`DiskFile::sync_data`].
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync. A failure is final: the caller stops, it never tries again (fsyncgate, ATC 2020).
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len_bytes(&self) -> io::Result<u64>;
    /// Sets the length; new bytes read as zero.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;
    /// Writes from here on are small, and each is soon synced: where the file system can, those of whole sectors go past
    /// its cache, so that they touch no sector beside their own and a sync finds nothing left to write. Only a hint:
    /// what is written, read and durable stays the same.
    fn prefer_direct(&mut self) {}
    /// Reserves blocks and zero-fills `[0, len_bytes)`, so that later writes change no metadata.
    fn allocate_zeroed(&self, len_bytes: u64) -> io::Result<()>;
}

/// A disk that is shared by its users.
pub type SharedDisk = Arc<dyn Disk>;

/// A folder on a disk.
#[derive(Clone)]
pub struct Folder {
    /// The disk.
    pub disk: SharedDisk,
    /// The folder's path.
    pub path: PathBuf,
}
