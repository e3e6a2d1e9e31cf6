//! A bar that measures speed or durability is worth nothing on a disk that is memory.

use crate::binary;
use crate::failure::{Context, Outcome, ensure};

/// What Linux calls file systems in memory: tmpfs and ramfs.
const IN_MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// Fails where the nodes' data would lie in memory.
pub fn require() -> Outcome<()> {
    let folder = binary::scratch()?;
    let kind = rustix::fs::statfs(&folder).context(format!("look at {}", folder.display()))?.f_type;
    let in_memory = IN_MEMORY.iter().find(|(magic, _)| u64::try_from(kind).is_ok_and(|kind| kind == *magic));
    ensure(in_memory.is_none(), || {
        format!(
            "{} is on {}: the figures would mean nothing; set CARGO_TARGET_DIR to a folder on a real disk",
            folder.display(),
            in_memory.map_or("", |(_, name)| name)
        )
    })
}
