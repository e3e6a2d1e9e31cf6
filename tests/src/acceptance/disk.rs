//! Where the data of a bar lies.

use crate::failure::{Context, Outcome, ensure};
use std::path::Path;

/// What the system calls tmpfs (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Fails where a folder lies in memory: what is measured there says nothing of a disk.
pub fn ensure_real(folder: &Path) -> Outcome<()> {
    let found = rustix::fs::statfs(folder).context(format!("look at the disk of {}", folder.display()))?;
    ensure(found.f_type as u64 & 0xffff_ffff != TMPFS_MAGIC, || {
        format!("{} is on tmpfs: a bar needs a real disk", folder.display())
    })
}
