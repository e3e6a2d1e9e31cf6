//! Writes past the page cache (`O_DIRECT`, open(2)).
//!
//! A small write through the cache costs a page of it, and its sync a walk through the kernel's write-back; on an NVMe or
//! virtio disk that is about a third of the whole. It also writes the page's other sectors again, which were durable.

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

    /// Writes all of `bytes` at `offset`; false: it cannot be done this way, and all of it is to be written in another.
    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        self.write_pieces(bytes, offset, |piece, at| self.file.write_all_at(piece, at))
    }

    /// Brings `bytes` to where the disk can read them, piece by piece, each of which `write` writes.
    fn write_pieces(
        &self,
        bytes: &[u8],
        offset: u64,
        mut write: impl FnMut(&[u8], u64) -> io::Result<()>,
    ) -> io::Result<bool> {
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
            match write(aligned, at) {
                Ok(()) => {}
                // Any piece may be the first that is none of the disk's sectors.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    self.refused.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_large_sectors_refuses_once_wherever_it_first_can() {
        const DISK_SECTOR_BYTES: u64 = 4096;
        let file = tempfile::tempfile().unwrap();
        for (bytes, offset, tried) in [(512, 4096, 1), (4096, 512, 1), (PIECE_BYTES + 512, 8192, 2)] {
            let direct = Direct {
                file: file.try_clone().unwrap(),
                memory: Mutex::default(),
                refused: AtomicBool::new(false),
            };
            let mut tries = 0;
            let mut write = |piece: &[u8], at: u64| {
                tries += 1;
                let fits = at.is_multiple_of(DISK_SECTOR_BYTES)
                    && (piece.len() as u64).is_multiple_of(DISK_SECTOR_BYTES);
                if fits { Ok(()) } else { Err(Errno::INVAL.into()) }
            };
            let bytes = vec![7; bytes];
            assert!(!direct.write_pieces(&bytes, offset, &mut write).unwrap());
            assert!(!direct.write_pieces(&bytes, offset, &mut write).unwrap(), "it is not tried again");
            assert_eq!(tries, tried);
        }
    }

    #[test]
    fn all_pieces_go_where_they_belong_from_aligned_memory() {
        let file = tempfile::tempfile().unwrap();
        let direct = Direct { file, memory: Mutex::default(), refused: AtomicBool::new(false) };
        // Odd lengths and places go another way.
        for (bytes, offset) in [(SECTOR_BYTES - 1, 0), (SECTOR_BYTES, 1)] {
            let write = |_: &[u8], _| panic!("{bytes} bytes at {offset} are no sectors");
            assert!(!direct.write_pieces(&vec![7; bytes], offset, write).unwrap());
        }
        let offset = 3 * SECTOR_BYTES;
        let bytes: Vec<u8> =
            (0..2 * PIECE_BYTES + SECTOR_BYTES).map(|at| (at / SECTOR_BYTES % 251) as u8).collect();
        let mut disk = vec![0; offset + bytes.len()];
        let write = |piece: &[u8], at| {
            assert_eq!(piece.as_ptr().align_offset(MEMORY_ALIGN_BYTES), 0);
            disk[at as usize..][..piece.len()].copy_from_slice(piece);
            Ok(())
        };
        assert!(direct.write_pieces(&bytes, offset as u64, write).unwrap());
        assert!(disk[offset..] == bytes);
    }

    #[test]
    fn other_failures_are_told() {
        let file = tempfile::tempfile().unwrap();
        let direct = Direct { file, memory: Mutex::default(), refused: AtomicBool::new(false) };
        let failed = direct.write_pieces(&[7; 512], 0, |_, _| Err(Errno::IO.into())).unwrap_err();
        assert_eq!(Errno::from_io_error(&failed), Some(Errno::IO));
    }
}
