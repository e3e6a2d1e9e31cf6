//! A data folder whose data is given up, and kept for a person: the node that is started on it next is blank.
//!
//! For the members that a recovered cluster left behind: their disks belong to a cluster that is no more, and a node
//! would stop on them. Blank, they join the cluster that goes on.

use super::{RepairError, recover, under_way};
use crate::engine::boot;
use crate::life::identity::{self, Identity};
use crate::life::{FolderLock, set_aside as removal};
use balsa_log::{Folder, RealDisk};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sets the data in `path` aside, or says what it would set aside: the folder that keeps it. `None`: it is blank already.
pub fn set_aside(path: &Path, really: bool) -> Result<Option<PathBuf>, RepairError> {
    let _lock = FolderLock::try_take(path)?;
    let folder = Folder { disk: Arc::new(RealDisk), path: path.to_owned() };
    if under_way(&folder)? == Some("restore") {
        return Err(RepairError::Refused(
            "a restore into this folder was begun and has not ended: end it with `balsa-node restore --yes`, or empty the \
             folder"
                .to_owned(),
        ));
    }
    let Some(own) = identity::load(&folder)? else {
        return match balsa_log::Log::exists(&boot::log_folder(&folder)) {
            Ok(false) => Ok(None),
            _ => Err(RepairError::Refused(
                "this data folder holds a log but no identity.json: move it away by hand".to_owned(),
            )),
        };
    };
    let kept = removal::kept_in(&folder, own.node);
    if !really {
        return Ok(Some(kept.path));
    }
    // From here on the identity is never used again, whatever is cut off.
    let own = Identity { removed: true, ..own };
    identity::save(&folder, &own)?;
    if under_way(&folder)?.is_some() {
        // A recovery that was cut off is given up with the rest. Its record goes first: it must never call for its end on a
        // folder whose data is gone.
        folder.disk.create_dir_all(&kept.path)?;
        folder.disk.rename(&path.join(recover::FILE), &kept.path.join(recover::FILE))?;
        folder.disk.sync_dir(&kept.path)?;
        folder.disk.sync_dir(path)?;
    }
    removal::move_data(&folder, &own)?;
    identity::discard(&folder)?;
    Ok(Some(kept.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::status::ClusterId;
    use balsa_raft::NodeId;

    #[test]
    fn what_was_there_is_kept_and_the_folder_is_blank() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder { disk: Arc::new(RealDisk), path: home.path().into() };
        assert!(set_aside(home.path(), true).unwrap().is_none(), "there is nothing yet");
        let own = Identity {
            cluster: Some(ClusterId(7)),
            node: NodeId(0xa),
            slot: Some(2),
            founders: Vec::new(),
            proposer: false,
            founded: true,
            begun: true,
            removed: false,
        };
        identity::save(&folder, &own).unwrap();
        for part in ["log", "state"] {
            std::fs::create_dir(home.path().join(part)).unwrap();
        }
        let kept = home.path().join("removed-000000000000000a");
        assert_eq!(set_aside(home.path(), false).unwrap(), Some(kept.clone()));
        assert_eq!(identity::load(&folder).unwrap(), Some(own.clone()), "nothing was done");

        assert_eq!(set_aside(home.path(), true).unwrap(), Some(kept.clone()));
        assert_eq!(identity::load(&folder).unwrap(), None);
        assert!(kept.join("log").is_dir() && kept.join("state").is_dir());
        let aside = Folder { path: kept, ..folder.clone() };
        assert_eq!(identity::load(&aside).unwrap(), Some(Identity { removed: true, ..own }));
        assert!(set_aside(home.path(), true).unwrap().is_none(), "a second time there is nothing left");

        std::fs::write(home.path().join("restoring.json"), "{}").unwrap();
        let why = set_aside(home.path(), true).unwrap_err().to_string();
        assert!(
            why.contains("restore --yes"),
            "what a restore has put there is not taken for nothing: {why}"
        );
    }
}
