//! What repair and removal kept aside is deleted: a Pod has no shell to do it with.

use super::{RepairError, recover, under_way};
use crate::life::set_aside;
use balsa_log::{Disk, Folder, RealDisk};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Deletes what was set aside in `path`, or says what it would delete. Nothing of it is used by any node, so one may run
/// there; but an unfinished recovery needs what it moved.
pub fn clear_aside(path: &Path, really: bool) -> Result<Vec<PathBuf>, RepairError> {
    let disk = RealDisk;
    if !disk.exists(path)? {
        return Err(RepairError::Refused(format!("there is no folder {}: give --data", path.display())));
    }
    if let Some(command) = under_way(&Folder { disk: Arc::new(RealDisk), path: path.to_owned() })? {
        return Err(RepairError::Refused(format!(
            "{command} was begun here and has not ended: end it first, with `balsa-node {command} --yes`"
        )));
    }
    let is_aside =
        |name: &&String| [set_aside::PREFIX, recover::PREFIX].iter().any(|prefix| name.starts_with(prefix));
    let kept: Vec<PathBuf> = disk.list(path)?.iter().filter(is_aside).map(|name| path.join(name)).collect();
    if really {
        for kept in &kept {
            disk.remove_dir_all(kept)?;
        }
        disk.sync_dir(path)?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_was_kept_aside_goes_and_only_when_told() {
        let home = tempfile::tempdir().unwrap();
        let names = ["log", "recovered-000000000000000a", "removed-000000000000000b", "state"];
        for name in names {
            fs::create_dir(home.path().join(name)).unwrap();
            fs::write(home.path().join(name).join("file"), "x").unwrap();
        }
        let there = || RealDisk.list(home.path()).unwrap();
        assert_eq!(clear_aside(home.path(), false).unwrap().len(), 2);
        assert_eq!(there(), names);

        fs::write(home.path().join(recover::FILE), "{}").unwrap();
        let why = clear_aside(home.path(), true).unwrap_err().to_string();
        assert!(why.contains("recover was begun"), "{why}");
        fs::remove_file(home.path().join(recover::FILE)).unwrap();
        assert_eq!(there(), names);

        let gone = clear_aside(home.path(), true).unwrap();
        assert_eq!(gone, [home.path().join(names[1]), home.path().join(names[2])]);
        assert_eq!(there(), ["log", "state"]);
        assert!(clear_aside(home.path(), true).unwrap().is_empty());
        assert!(clear_aside(&home.path().join("nowhere"), true).is_err());
    }
}
