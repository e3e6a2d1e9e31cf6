//! What is to go wrong, and what has been called.

use std::io;
use std::path::Path;

/// A kind of call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum OpKind {
    /// [`Disk::create`](crate::Disk::create).
    Create,
    /// [`Disk::open`](crate::Disk::open).
    Open,
    /// [`Disk::list`](crate::Disk::list).
    List,
    /// [`Disk::exists`](crate::Disk::exists).
    Exists,
    /// [`Disk::rename`](crate::Disk::rename).
    Rename,
    /// [`Disk::remove`](crate::Disk::remove).
    Remove,
    /// [`Disk::create_dir_all`](crate::Disk::create_dir_all).
    CreateDir,
    /// [`Disk::sync_dir`](crate::Disk::sync_dir).
    SyncDir,
    /// [`Disk::free_bytes`](crate::Disk::free_bytes).
    FreeBytes,
    /// [`DiskFile::read_exact_at`](crate::DiskFile::read_exact_at).
    Read,
    /// [`DiskFile::write_all_at`](crate::DiskFile::write_all_at).
    Write,
    /// [`DiskFile::sync_data`](crate::DiskFile::sync_data).
    Sync,
    /// [`DiskFile::len_bytes`](crate::DiskFile::len_bytes).
    Len,
    /// [`DiskFile::set_len`](crate::DiskFile::set_len).
    SetLen,
    /// [`DiskFile::allocate_zeroed`](crate::DiskFile::allocate_zeroed).
    Allocate,
}

/// A call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// What it does.
    pub kind: OpKind,
    /// To what; the source of a rename.
    pub path: &'a Path,
    /// How many bytes it reads, writes or allocates; 0 for the others.
    pub bytes: usize,
    /// Its number on this disk, from 1.
    pub number: u64,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// It fails and has no effect; a sync that fails loses what it covered.
    Fail(io::ErrorKind),
    /// A write fails after this many bytes. Other calls fail without effect.
    Tear(usize),
}

/// How many calls there were, failed ones included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// All calls.
    pub total: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes of writes.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// fdatasyncs.
    pub syncs: u64,
    /// fsyncs of folders.
    pub dir_syncs: u64,
}

type Hook = Box<dyn FnMut(&Op<'_>) -> Fault + Send>;

#[derive(Default)]
pub(super) struct Faults {
    pub(super) counters: Counters,
    pub(super) halt_at: Option<u64>,
    pub(super) fail_at: Option<u64>,
    pub(super) hook: Option<Hook>,
    /// The process got no further: all calls fail.
    pub(super) halted: bool,
    /// How much of the write that just failed is to be done all the same.
    pub(super) torn_bytes: Option<usize>,
}

impl Faults {
    /// Counts a call, and fails it if that is wanted.
    pub(super) fn before(&mut self, kind: OpKind, path: &Path, bytes: usize) -> io::Result<()> {
        let counters = &mut self.counters;
        counters.total += 1;
        match kind {
            OpKind::Write => {
                counters.writes += 1;
                counters.written_bytes += bytes as u64;
            }
            OpKind::Read => counters.reads += 1,
            OpKind::Sync => counters.syncs += 1,
            OpKind::SyncDir => counters.dir_syncs += 1,
            _ => {}
        }
        let number = counters.total;
        if self.halt_at.is_some_and(|at| number >= at) {
            self.halt_at = None;
            self.halted = true;
        }
        if self.halted {
            return Err(io::Error::other("the process got no further"));
        }
        if self.fail_at == Some(number) {
            self.fail_at = None;
            return Err(io::Error::other("a fault at this call"));
        }
        let Some(hook) = &mut self.hook else { return Ok(()) };
        match hook(&Op { kind, path, bytes, number }) {
            Fault::None => Ok(()),
            Fault::Fail(error) => Err(error.into()),
            Fault::Tear(bytes) => {
                self.torn_bytes = Some(bytes);
                Err(io::Error::other("a fault in the middle of this call"))
            }
        }
    }
}

/// A small generator of random numbers (splitmix64): deterministic, for simulations only.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> SplitMix {
        SplitMix(seed)
    }

    /// The next number, uniform over all 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0. (The bias is of no matter here.)
    pub fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0, "a number below 0");
        self.next_u64() % limit
    }
}
