//! Disks that limp: what a node's disk is told, while the node runs and knows nothing of it.
//!
//! The node is the very binary that ships; a library that is loaded with it (`tests/limp-disk`) takes the place of the C
//! library's functions that sync and write. Where it cannot be built or loaded, the run says so and fails: a test that
//! believed its disk to be slow would prove nothing.

use crate::binary;
use crate::failure::{Context, Outcome};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A node's disk.
#[derive(Debug, Clone)]
pub struct LimpDisk {
    file: PathBuf,
}

/// Error numbers of Linux, the same on all its processors.
const EIO: u32 = 5;
const ENOSPC: u32 = 28;

impl LimpDisk {
    /// The disk with the data folder `data` of a process that was started with [`environment`].
    pub fn of(data: &Path) -> LimpDisk {
        LimpDisk { file: data.with_extension("disk") }
    }

    /// From now on every sync takes `stall` longer.
    pub fn stall(&self, stall: Duration) -> Outcome<()> {
        self.tell(&format!("sync_stall_ms {}\n", stall.as_millis()))
    }

    /// From now on one sync in `every` takes `stall` longer.
    pub fn stall_sometimes(&self, stall: Duration, every: u32) -> Outcome<()> {
        self.tell(&format!("sync_stall_ms {}\nsync_stall_every {every}\n", stall.as_millis()))
    }

    /// From now on every sync fails with an I/O error.
    pub fn fail_syncs(&self) -> Outcome<()> {
        self.tell(&format!("sync_fails {EIO}\n"))
    }

    /// From now on every write fails: there is no space left.
    pub fn fill(&self) -> Outcome<()> {
        self.tell(&format!("write_fails {ENOSPC}\n"))
    }

    /// From now on every write fails with an I/O error.
    pub fn fail_writes(&self) -> Outcome<()> {
        self.tell(&format!("write_fails {EIO}\n"))
    }

    /// From now on what files held before a write is kept until it is synced, so that power can be lost
    /// ([`LimpDisk::records`]).
    pub fn keep_before(&self) -> Outcome<()> {
        self.tell("keeps_before 1\n")
    }

    /// Where that is kept; see [`crate::nemesis::power`].
    pub fn records(&self) -> PathBuf {
        self.file.with_extension("before")
    }

    /// From now on the wall clock of the process is off by so much.
    pub fn shift_wall_clock(&self, ms: i64) -> Outcome<()> {
        self.tell(&format!("wall_clock_ms {ms}\n"))
    }

    /// From now on the disk is sound; a stall under way goes on to its end.
    pub fn heal(&self) -> Outcome<()> {
        self.tell("")
    }

    fn tell(&self, order: &str) -> Outcome<()> {
        // Whole or not at all: the process may look at any time.
        let draft = self.file.with_extension("disk-draft");
        std::fs::write(&draft, order).context(format!("write {}", draft.display()))?;
        std::fs::rename(&draft, &self.file).context(format!("put {} in place", self.file.display()))
    }
}

/// What a process on `data` is started with, so that its disk can be told something.
pub fn environment(data: &Path) -> Outcome<Vec<(String, PathBuf)>> {
    let library = binary::limp_disk()?;
    Ok(vec![("LD_PRELOAD".into(), library), ("BALSA_LIMP_DISK".into(), LimpDisk::of(data).file)])
}
