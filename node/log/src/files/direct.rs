//! Writes past the page cache (`O_DIRECT`, open(2)).
//!
//! A small write through the cache costs a page of it, and its sync a walk through the kernel's write-back; on an NVMe or
//! virtio disk that is about a third of the whole. It also writes the page's other sectors again, which were durable.

use super::real;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Offsets and lengths are multiples of this, in bytes; most disks want no more.
const SECTOR_BYTES: usize = 512;
/// Addresses in memory are multiples of this, in bytes: as much as any disk wants.
const MEMORY_ALIGN_BYTES: usize = 4096;
/// What goes in one write, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// A second way to a file that is open already.
pub(super) struct Direct {
    file: File,
    /// Memory that the disk can read from: room for a piece, wherever it begins to be aligned.
    memory: Mutex<Vec<u8>>,
    /// The disk wants larger pieces than sectors of 512 bytes: never tried again.
    refused: AtomicBool,
}

impl Direct {
    /// The same file once more; `None` where its file system has no such way.
    pub(super) fn reopen(file: &File) -> Option<Direct> {
        let flags = OFlags::DIRECT.bits().cast_signed();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path).ok()?;
        Some(Direct { file, memory: Mutex::default(), refused: AtomicBool::new(false) })
    }

    /// Writes all of `bytes` at `offset`; false: it cannot be done this way, and nothing was written.
    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        let whole_sectors =
            bytes.len().is_multiple_of(SECTOR_BYTES) && offset.is_multiple_of(SECTOR_BYTES as u64);
        if !whole_sectors || self.refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let room = bytes.len().min(PIECE_BYTES) + MEMORY_ALIGN_BYTES;
        if memory.len() < room {
            memory.resize(room, 0);
        }
        let start = memory.as_ptr().align_offset(MEMORY_ALIGN_BYTES);
        for (piece, at) in bytes.chunks(PIECE_BYTES).zip((offset..).step_by(PIECE_BYTES)) {
            let aligned = &mut memory[start..start + piece.len()];
            aligned.copy_from_slice(piece);
            match self.file.write_all_at(aligned, at) {
                Ok(()) => {}
                Err(error) if at == offset && real::is(&error, Errno::INVAL) => {
                    self.refused.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
