//! What becomes of the data of a node that was removed from its cluster: it is set aside, and the disk begins anew.
//!
//! ```text
//! data/identity.json        (removed) ──copied──▶ data/removed-ID/identity.json
//! data/log, data/state      ────────────moved───▶ data/removed-ID/…
//! data/identity.json        replaced by a new identity that asks to be taken in, and founds nothing
//! data/removed-OTHER        what was set aside before is deleted: at most one is kept
//! ```
//! In this order: a crash leaves an identity that says *removed* until all has been moved, and the next start does the
//! rest. All that a removed member held and that was ever acknowledged is held by the members; what is kept is for a
//! person who wants to look. It is deleted when the node is removed a second time, lest a volume that scaling takes out
//! and in again and again fills up.

use super::identity::{self, Identity, IdentityError};
use crate::engine::boot;
use balsa_log::Folder;
use balsa_raft::NodeId;

/// What the names of set-aside folders begin with; the removed identity follows.
pub const PREFIX: &str = "removed-";
/// What moves, beside the log.
const STATE: &str = "state";

/// Sets the data of `removed` aside; gives the identity under which the disk asks to be taken in again.
pub fn set_aside(folder: &Folder, removed: &Identity, new_id: u64) -> Result<Identity, IdentityError> {
    move_data(folder, removed)?;
    let (disk, kept) = (&folder.disk, kept_in(folder, removed.node));
    let own = Identity {
        cluster: removed.cluster,
        node: NodeId(new_id),
        slot: None,
        founders: Vec::new(),
        proposer: false,
        founded: true,
        begun: false,
        removed: false,
    };
    identity::save(folder, &own)?;
    for older in disk.list(&folder.path)?.iter().filter(|older| older.starts_with(PREFIX)) {
        let older = folder.path.join(older);
        if older != kept.path {
            disk.remove_dir_all(&older)?;
        }
    }
    disk.sync_dir(&folder.path)?;
    tracing::warn!(
        removed = %removed.node, new = %own.node, kept_in = %kept.path.display(),
        "this disk's identity was removed from its cluster: its data is set aside, and it joins under a new identity"
    );
    Ok(own)
}

/// Where the data of a removed member is kept.
pub fn kept_in(folder: &Folder, removed: NodeId) -> Folder {
    Folder { disk: folder.disk.clone(), path: folder.path.join(format!("{PREFIX}{:016x}", removed.0)) }
}

/// Moves log and state of `removed` there, with a copy of its identity; what was moved already stays.
pub fn move_data(folder: &Folder, removed: &Identity) -> Result<(), IdentityError> {
    assert!(removed.removed, "the data of a member is set aside: {removed:?}");
    let (disk, kept) = (&folder.disk, kept_in(folder, removed.node));
    disk.create_dir_all(&kept.path)?;
    identity::save(&kept, removed)?;
    for from in [boot::log_folder(folder).path, folder.path.join(STATE)] {
        if let (true, Some(file_name)) = (disk.exists(&from)?, from.file_name()) {
            disk.rename(&from, &kept.path.join(file_name))?;
        }
    }
    disk.sync_dir(&kept.path)?;
    disk.sync_dir(&folder.path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::status::ClusterId;
    use balsa_log::{Disk, RealDisk};
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    fn removed(node: u64) -> Identity {
        Identity {
            cluster: Some(ClusterId(7)),
            node: NodeId(node),
            slot: Some(2),
            founders: Vec::new(),
            proposer: false,
            founded: true,
            begun: true,
            removed: true,
        }
    }

    fn names(path: &Path) -> Vec<String> {
        RealDisk.list(path).unwrap()
    }

    #[test]
    fn data_is_kept_once_and_the_disk_asks_to_be_taken_in_under_another_identity() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder { disk: Arc::new(RealDisk), path: home.path().into() };
        for node in [0xa, 0xb] {
            identity::save(&folder, &removed(node)).unwrap();
            for part in ["log", "state"] {
                fs::create_dir(home.path().join(part)).unwrap();
                fs::write(home.path().join(part).join("file"), node.to_string()).unwrap();
            }
            let own = set_aside(&folder, &removed(node), node + 100).unwrap();
            assert_eq!(identity::load(&folder).unwrap(), Some(own.clone()));
            assert_eq!((own.node, own.cluster), (NodeId(node + 100), Some(ClusterId(7))));
            assert!(own.founders.is_empty() && !own.removed && !own.begun, "it joins, and founds nothing");
            let kept = format!("removed-{node:016x}");
            assert_eq!(
                names(home.path()),
                ["identity.json".to_string(), kept.clone()],
                "only the newest is kept"
            );
            assert_eq!(names(&home.path().join(&kept)), ["identity.json", "log", "state"]);
            let file = fs::read_to_string(home.path().join(&kept).join("log/file")).unwrap();
            assert_eq!(file, node.to_string());
        }
    }

    #[test]
    fn a_crash_at_any_step_is_made_good_at_the_next_start() {
        // What a crash may leave behind: some parts moved, the identity still the removed one.
        for moved in 0..3 {
            let home = tempfile::tempdir().unwrap();
            let folder = Folder { disk: Arc::new(RealDisk), path: home.path().into() };
            identity::save(&folder, &removed(0xa)).unwrap();
            let kept = home.path().join(format!("removed-{:016x}", 0xa));
            fs::create_dir(&kept).unwrap();
            for (at, part) in ["log", "state"].into_iter().enumerate() {
                let place = if at < moved { kept.join(part) } else { home.path().join(part) };
                fs::create_dir(&place).unwrap();
                fs::write(place.join("file"), "x").unwrap();
            }
            set_aside(&folder, &removed(0xa), 5).unwrap();
            assert_eq!(names(&kept), ["identity.json", "log", "state"], "{moved} moved before");
            assert_eq!(identity::load(&folder).unwrap().map(|own| own.node), Some(NodeId(5)));
        }
    }

    #[test]
    #[should_panic(expected = "the data of a member is set aside")]
    fn the_data_of_a_member_is_never_touched() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder { disk: Arc::new(RealDisk), path: home.path().into() };
        let _ = set_aside(&folder, &Identity { removed: false, ..removed(1) }, 5);
    }
}
