//! The check that the production engine leaves out: whether its manifests are as they were written.
//!
//! Each keyspace of fjall has a folder with a manifest `vN`, which says which tables are in which level, and a file
//! `current`, which holds N (u64), the XXH3-128 of that manifest (u128) and the kind of checksum (u8, 0), little-endian.
//! The engine (lsm-tree 3.1) writes the checksum and does not read it: a flipped bit may put a table into another level,
//! and old values come back. Tables themselves it does check, block by block. What is damaged stops the node here
//! (hazards 28, 39); the test `torture` flips each byte and fails without this.

use std::path::Path;
use std::{fs, io};

use crate::error::EngineError;

/// Checks the manifest of each keyspace in the engine's folder. A folder that is not there yet has none.
pub(crate) fn check(folder: &Path) -> Result<(), EngineError> {
    let keyspaces = match fs::read_dir(folder.join("keyspaces")) {
        Ok(keyspaces) => keyspaces,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(folder, error.to_string())),
    };
    for keyspace in keyspaces {
        let keyspace = keyspace.map_err(|error| failed(folder, error.to_string()))?.path();
        check_keyspace(&keyspace).map_err(|why| failed(&keyspace, why))?;
    }
    Ok(())
}

fn check_keyspace(folder: &Path) -> Result<(), String> {
    let current = match fs::read(folder.join("current")) {
        Ok(current) => current,
        // A keyspace whose making was cut off: the engine makes it again, or takes it away.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("its file current cannot be read: {error}")),
    };
    let Some((number, checksum)) = parse(&current) else {
        return Err(format!("its file current is damaged: {}", current.escape_ascii()));
    };
    let manifest = fs::read(folder.join(format!("v{number}")))
        .map_err(|error| format!("its manifest v{number} cannot be read: {error}"))?;
    if xxhash_rust::xxh3::xxh3_128(&manifest) != checksum {
        return Err(format!("its manifest v{number} is damaged: the checksum does not match"));
    }
    Ok(())
}

fn parse(current: &[u8]) -> Option<(u64, u128)> {
    let (number, rest) = current.split_first_chunk::<8>()?;
    let (checksum, kind) = rest.split_first_chunk::<16>()?;
    (kind == [0]).then_some((u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
}

fn failed(folder: &Path, why: String) -> EngineError {
    EngineError { call: "check", message: format!("{}: {why}", folder.display()), no_room: false }
}
