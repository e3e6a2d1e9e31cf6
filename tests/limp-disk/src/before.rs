//! What files held before they were written, kept until a sync has made the writing durable: with it the loss of power can
//! be played to a process that is killed.
//!
//! A killed process loses nothing that it has written: the system keeps it. So while the disk is told to, each write leaves
//! a record first, beside the file of orders (`.before`), and each sync says up to which record everything of its file is
//! durable. Whoever kills the process then takes back what was not (`tests/src/nemesis/power.rs`, which reads the records).
//!
//! A file is known by its inode and its birth, which stay when it is renamed, and are not another's when it is gone. What
//! is not recorded counts as durable at once: names, and space that is reserved (`fallocate`).
//!
//! ```text
//! record   [kind u8][inode u64][born_ns u64][offset u64][length u64][old bytes u32][new bytes u32][old][new]
//! ```
//! All little endian. `length`: of the file, before. Kinds: 1 a write at `offset`; 2 a change of length to `offset`, where
//! `old` is what it cuts off; 3 a sync, after which the file's records that begin before byte `offset` of this file are
//! durable.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

const WRITE: u8 = 1;
const LENGTH: u8 = 2;
const SYNC: u8 = 3;

/// The file of records, while records are kept, and how long it is. Held over a recorded call, so that the order of
/// records is the order of what happens.
static RECORDS: Mutex<Option<Records>> = Mutex::new(None);

/// The records, taken for one call.
pub(crate) type Taken = MutexGuard<'static, Option<Records>>;

#[derive(Debug)]
pub(crate) struct Records {
    file: File,
    bytes: u64,
}

/// Takes the records for a call, where they are kept; begins or ends the keeping.
pub(crate) fn take(keeps: bool, order: &Path) -> Option<Taken> {
    let mut records = RECORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if !keeps {
        *records = None;
        return None;
    }
    if records.is_none() {
        let path = order.with_extension("before");
        let file = own(|| File::options().create(true).append(true).open(&path));
        let bytes = file.metadata().map(|metadata| metadata.len()).unwrap_or_else(|error| unable(&error));
        *records = Some(Records { file, bytes });
    }
    Some(records)
}

impl Records {
    /// Records a write to come of `new` at `offset`; `None`: where the file stands.
    pub(crate) fn write(&mut self, fd: i32, offset: Option<u64>, new: &[u8]) {
        let file = again(fd);
        let length = own(|| file.metadata()).len();
        let offset = offset.unwrap_or_else(|| standing(fd).unwrap_or(length));
        let there = length.saturating_sub(offset).min(new.len() as u64);
        let old = read(&file, offset, there);
        self.add(WRITE, &file, offset, &old, new);
    }

    /// Records a change of length to come.
    pub(crate) fn length(&mut self, fd: i32, to: u64) {
        let file = again(fd);
        let length = own(|| file.metadata()).len();
        let old = read(&file, to, length.saturating_sub(to));
        self.add(LENGTH, &file, to, &old, &[]);
    }

    /// Where the next record begins.
    pub(crate) fn end(&self) -> u64 {
        self.bytes
    }

    /// Records that a sync which began at `upto` has succeeded.
    pub(crate) fn synced(&mut self, fd: i32, upto: u64) {
        self.add(SYNC, &again(fd), upto, &[], &[]);
    }

    fn add(&mut self, kind: u8, file: &File, offset: u64, old: &[u8], new: &[u8]) {
        let metadata = own(|| file.metadata());
        let born = own(|| metadata.created());
        let born = born.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let mut record = Vec::with_capacity(64 + old.len() + new.len());
        record.push(kind);
        for number in [metadata.ino(), born, offset, metadata.len()] {
            record.extend(number.to_le_bytes());
        }
        for part in [old, new] {
            record.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        record.extend_from_slice(old);
        record.extend_from_slice(new);
        own(|| super::write_past_this_library(self.file.as_raw_fd(), &record));
        self.bytes += record.len() as u64;
    }
}

/// The same file, open for reading whatever the caller opened it for.
fn again(fd: i32) -> File {
    own(|| File::open(format!("/proc/self/fd/{fd}")))
}

/// Where the next write without an offset goes; `None`: to the end.
fn standing(fd: i32) -> Option<u64> {
    const APPENDS: u64 = 0o2000;
    let info = own(|| std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")));
    let field = |name: &str, radix| {
        let text = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(text.trim(), radix).unwrap_or_else(|error| unable(&io::Error::other(error)))
    };
    (field("flags:", 8) & APPENDS == 0).then(|| field("pos:", 10))
}

fn read(file: &File, offset: u64, bytes: u64) -> Vec<u8> {
    let mut old = vec![0; usize::try_from(bytes).unwrap_or_default()];
    own(|| file.read_exact_at(&mut old, offset));
    old
}

/// A call of this library's own. Where it fails, nothing that the test says would be true: that ends the process.
fn own<T>(mut call: impl FnMut() -> io::Result<T>) -> T {
    call().unwrap_or_else(|error| unable(&error))
}

fn unable(error: &io::Error) -> ! {
    eprintln!("limp-disk cannot keep what files held before: {error}");
    std::process::abort()
}
