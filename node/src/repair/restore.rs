//! A backup lives again, as a new cluster of one in a blank data folder; others join that.
//!
//! ```text
//! the backup         all of it checked; until then nothing is touched
//! restoring.json     which backup, ids of the new cluster, where its numbers begin; while it is there, no node starts
//! store              the backup's state, then the leap, both durable
//! log                new, begins behind the leap with a membership of one
//! identity.json      the new one
//! restoring.json     removed
//! ```
//! In this order. What is left to do is read from the disk ([`next_step`], pure), so that a run that was cut off is ended
//! by the next, with the same backup.

use super::heir::{Heir, Leap, Place};
use super::{RepairError, backup_file, under_way};
use crate::config::Config;
use crate::engine::status::ClusterId;
use crate::life::FolderLock;
use crate::life::identity;
use balsa_log::{Folder, RealDisk};
use balsa_raft::{NodeId, Term};
use balsa_store::{SnapshotSink, Succession};
use balsa_wire::backup::Header;
use balsa_wire::repair::RestorationAnswer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The record of a restore that was begun.
pub(super) const FILE: &str = "restoring.json";
/// The term in which the new cluster's log begins: it has no other to stay above.
const FIRST_TERM: Term = Term(1);

/// A restore on record: it was begun and has not ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Begun {
    backup: Header,
    #[serde(flatten)]
    heir: Heir,
    leap: Leap,
}

/// What a restore starts from, and comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restoration {
    /// What the backup is of.
    pub backup: Header,
    /// Its length, in bytes.
    pub bytes: u64,
    /// At which revision the new cluster begins.
    pub new_revision: u64,
    /// The new cluster and its node; `None`: nothing was done yet.
    pub new: Option<(ClusterId, NodeId)>,
}

impl Restoration {
    /// The same for programs.
    pub fn to_answer(&self) -> RestorationAnswer {
        RestorationAnswer {
            backup: self.backup.clone(),
            bytes: self.bytes,
            new_revision: self.new_revision,
            new_cluster: self.new.map(|(cluster, _)| cluster.to_string()),
            new_node: self.new.map(|(_, node)| node.to_string()),
        }
    }
}

impl fmt::Display for Restoration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Restoration { backup, bytes, new_revision, new } = self;
        writeln!(f, "backup        of cluster {}, node {}", backup.cluster, backup.node)?;
        writeln!(
            f,
            "state         revision {}, index {}, {} keys",
            backup.revision, backup.index, backup.keys
        )?;
        writeln!(f, "digest        {}", backup.digest)?;
        writeln!(f, "undamaged     {bytes} bytes")?;
        match new {
            Some((cluster, node)) => write!(
                f,
                "restored as   cluster {cluster}, node {node}, a cluster of one at revision {new_revision}"
            ),
            None => write!(
                f,
                "Nothing was done. It would become a new cluster of one, at revision {new_revision}. Say --yes to do it."
            ),
        }
    }
}

/// What of a restore is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Facts {
    /// The store holds the backup's state.
    installed: bool,
    /// The store has leapt.
    leapt: bool,
    /// There is a log.
    has_log: bool,
    /// The identity is the new one.
    named: bool,
}

/// What is left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Install,
    Leap,
    MakeLog,
    Name,
    End,
}

fn next_step(facts: Facts) -> Step {
    match facts {
        Facts { installed: false, .. } => Step::Install,
        Facts { leapt: false, .. } => Step::Leap,
        Facts { has_log: false, .. } => Step::MakeLog,
        Facts { named: false, .. } => Step::Name,
        Facts { named: true, .. } => Step::End,
    }
}

/// Restores the backup in `file` into the blank data folder of `config`, or says what it would do. A backup that is not
/// whole and undamaged, or that this build does not reach, is refused before anything is touched.
pub fn restore(config: &Config, file: &Path, really: bool) -> Result<Restoration, RepairError> {
    let (backup, bytes) = backup_file::read_into(file, &mut SnapshotSink::checking())?;
    let Some(to) = Succession::of(backup.index, backup.revision) else {
        return Err(RepairError::Refused("the backup's revisions are too large to leap once more".into()));
    };
    let found = Restoration { backup, bytes, new_revision: to.revision, new: None };
    if !really && !config.data.exists() {
        return Ok(found);
    }
    let _lock = FolderLock::try_take(&config.data)?;
    let folder = Folder { disk: Arc::new(RealDisk), path: config.data.clone() };
    let work = Work { place: Place { config, folder, file: FILE }, file };
    match work.place.begun::<Begun>()? {
        None => {
            work.refuse_what_is_not_blank()?;
            if !really {
                return Ok(found);
            }
            work.begin(&found.backup, to)?;
        }
        Some(begun) if begun.backup != found.backup => {
            return Err(RepairError::Refused(format!(
                "a restore of another backup into this folder was begun, of cluster {} at revision {}: end that one, or \
                 empty the folder",
                begun.backup.cluster, begun.backup.revision
            )));
        }
        Some(_) if !really => {
            return Err(RepairError::Refused(
                "a restore into this folder was begun and has not ended: say --yes".into(),
            ));
        }
        Some(_) => {}
    }
    while let Some(begun) = work.place.begun::<Begun>()? {
        if work.take_step(&begun)? == Step::End {
            return Ok(Restoration { new: Some(begun.heir.names()), ..found });
        }
    }
    Err(RepairError::Refused(format!("{FILE} vanished while it was worked on")))
}

/// Refuses a folder into which no restore can go: one that is not blank, where none was begun.
pub(super) fn refuse_where_it_must_not_be(config: &Config) -> Result<(), RepairError> {
    let folder = Folder { disk: Arc::new(RealDisk), path: config.data.clone() };
    let work = Work { place: Place { config, folder, file: FILE }, file: Path::new("") };
    match work.place.begun::<Begun>()? {
        Some(_) => Ok(()),
        None => work.refuse_what_is_not_blank(),
    }
}

struct Work<'a> {
    place: Place<'a>,
    /// The backup.
    file: &'a Path,
}

impl Work<'_> {
    fn refuse_what_is_not_blank(&self) -> Result<(), RepairError> {
        let Folder { disk, path } = &self.place.folder;
        let blank = identity::load(&self.place.folder)?.is_none()
            && !self.place.has_log()?
            && !disk.exists(&path.join("state"))?
            && under_way(&self.place.folder)?.is_none();
        match blank {
            true => Ok(()),
            false => Err(RepairError::Refused(
                "this data folder is not blank: restore into another one, or set it aside first (balsa-node set-aside)"
                    .into(),
            )),
        }
    }

    fn begin(&self, backup: &Header, to: Succession) -> Result<(), RepairError> {
        let config = self.place.config;
        let heir = Heir::mint(config.founding_slot(), config.peer_address(), config.client_address());
        self.place.record(&Begun { backup: backup.clone(), heir, leap: Leap::new(to, FIRST_TERM) })
    }

    fn facts(&self, begun: &Begun) -> Result<Facts, RepairError> {
        let (place, heir) = (&self.place, &begun.heir);
        let leapt = heir.has_leapt(place, begun.leap)?;
        Ok(Facts {
            installed: leapt || place.open_store()?.applied_index() == begun.backup.index,
            leapt,
            has_log: place.has_log()?,
            named: heir.is_named(place)?,
        })
    }

    fn take_step(&self, begun: &Begun) -> Result<Step, RepairError> {
        let step = next_step(self.facts(begun)?);
        match step {
            Step::Install => self.install(begun)?,
            Step::Leap => begun.heir.leap(&self.place, begun.leap)?,
            Step::MakeLog => begun.heir.make_log(&self.place, begun.leap)?,
            Step::Name => begun.heir.name(&self.place)?,
            Step::End => self.place.forget()?,
        }
        Ok(step)
    }

    fn install(&self, begun: &Begun) -> Result<(), RepairError> {
        let mut store = self.place.open_store()?;
        let mut sink = store.begin_install()?;
        let (backup, _) = backup_file::read_into(self.file, &mut sink)?;
        if backup != begun.backup {
            return Err(RepairError::Refused("the backup was changed while it was being restored".into()));
        }
        Ok(store.install_snapshot(sink.stage()?)?)
    }
}

#[cfg(test)]
mod tests;
