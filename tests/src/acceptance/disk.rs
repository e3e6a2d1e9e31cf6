//! The disk under a bar: whether it is one, and what is taken of it.
//!
//! A bar that measures speed or durability is worth nothing on a disk that is memory.

use crate::binary;
use crate::failure::{Context, Outcome, ensure};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What Linux calls file systems in memory: tmpfs and ramfs.
const IN_MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// Fails where the nodes' data would lie in memory.
pub fn require_real() -> Outcome<()> {
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

/// What a folder takes on the disk, in bytes. Files may go while it is looked at.
pub fn taken_bytes(folder: &Path) -> Outcome<u64> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let what = || format!("look at {}", folder.display());
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).context(what())? {
        let entry = entry.context(what())?;
        match entry.metadata() {
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error).context(what()),
            Ok(metadata) if metadata.is_dir() => match taken_bytes(&entry.path()) {
                Err(_) if !entry.path().exists() => {}
                below => bytes += below?,
            },
            Ok(metadata) => bytes += metadata.blocks() * 512,
        }
    }
    Ok(bytes)
}
