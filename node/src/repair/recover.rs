//! The quorum is lost for good: one member's data goes on as a new cluster of one, and others join that.
//!
//! All that this member's log holds is applied, also what it does not know to be committed: an acknowledged write is on
//! a majority, and a survivor that has it may not know more. What only the lost members had is lost. The new cluster has
//! another id, its node another identity, and its revisions begin far above ([`balsa_store::Succession`]): nobody can
//! take one for the other, and a lost member that comes back is a stranger.
//!
//! ```text
//! recovering.json    ids of the new cluster, chosen once; while it is there, no node starts on this folder
//! store              all of the log applied, then the leap, both durable
//! log, identity.json ──moved, copied──▶ recovered-ID/   for a person who wants to look
//! log                new, begins behind the leap with a membership of one
//! identity.json      the new one
//! recovering.json    removed
//! ```
//! In this order. What is left to do is read from the disk ([`next_step`], pure), so that a run that was cut off is
//! ended by the next.

use super::heir::{Heir, Leap, Place};
use super::{RepairError, under_way};
use crate::config::Config;
use crate::engine::boot::{self, BootError};
use crate::engine::directory::{Directory, Member};
use crate::engine::status::ClusterId;
use crate::life::FolderLock;
use crate::life::identity::{self, hex_id};
use balsa_log::{Folder, Log, LogIdentity, RealDisk, Recovered};
use balsa_raft::membership::Membership;
use balsa_raft::{EntryKind, Index, NodeId, Term};
use balsa_store::{SUCCESSION_STEP, Store};
use balsa_wire::repair::RecoveryAnswer;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The record of a recovery that was begun.
pub(super) const FILE: &str = "recovering.json";
/// What the names of folders begin with that keep a recovered member's old log; its identity follows.
pub(super) const PREFIX: &str = "recovered-";

/// A recovery on record: it was begun and has not ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Begun {
    #[serde(with = "hex_id")]
    old_cluster: u64,
    #[serde(with = "hex_id")]
    old_node: u64,
    #[serde(flatten)]
    heir: Heir,
    /// Term and index of the last entry that was there.
    #[serde(default)]
    last: (u64, u64),
    /// Who voted.
    #[serde(default)]
    voters: Vec<u64>,
    /// Known once all of the log is applied.
    leap: Option<Leap>,
}

/// What a recovery starts from, and comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// The cluster that lost its quorum.
    pub old_cluster: ClusterId,
    /// The member whose data goes on.
    pub old_node: NodeId,
    /// Its slot.
    pub slot: u32,
    /// Its last entry: of several survivors, the one with the highest term, then index, has most.
    pub last: (Term, Index),
    /// The revision of its state, before the rest of its log is applied.
    pub revision: u64,
    /// Who votes, by the end of its log.
    pub voters: Vec<NodeId>,
    /// Who voted before, in the middle of a change of that.
    pub outgoing: Vec<NodeId>,
    /// The other members of its cluster, as slot and address: they are given up.
    pub others: Vec<(u32, String)>,
    /// The new cluster and its node; `None`: nothing was done yet.
    pub new: Option<(ClusterId, NodeId)>,
}

impl Recovery {
    /// The same for programs.
    pub fn to_answer(&self) -> RecoveryAnswer {
        RecoveryAnswer {
            cluster: self.old_cluster.to_string(),
            node: self.old_node.to_string(),
            slot: self.slot,
            last_term: self.last.0.0,
            last_index: self.last.1.0,
            revision: self.revision,
            generation: self.last.1.0 / SUCCESSION_STEP,
            voters: self.voters.iter().map(ToString::to_string).collect(),
            outgoing: self.outgoing.iter().map(ToString::to_string).collect(),
            new_cluster: self.new.map(|(cluster, _)| cluster.to_string()),
            new_node: self.new.map(|(_, node)| node.to_string()),
        }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Recovery { old_cluster, old_node, slot, last: (term, index), revision, others, new, .. } = self;
        writeln!(f, "cluster       {old_cluster}")?;
        writeln!(f, "member        {old_node}, slot {slot}")?;
        writeln!(f, "last entry    term {term}, index {index}, state at revision {revision}")?;
        for (slot, address) in others {
            writeln!(f, "given up      slot {slot} at {address}")?;
        }
        match new {
            Some((cluster, node)) => {
                write!(f, "goes on as    cluster {cluster}, node {node}, a cluster of one")
            }
            None => write!(
                f,
                "Nothing was done. Recover the survivor whose last entry has the highest term, then index, and only if no \
                 quorum can come back: what only the others have is lost. Say --yes to do it."
            ),
        }
    }
}

/// What of a recovery is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Facts {
    /// The leap is on record.
    leap_known: bool,
    /// The store has leapt.
    leapt: bool,
    /// The old log was moved away.
    log_moved: bool,
    /// There is a log.
    has_log: bool,
    /// The identity is the new one.
    renamed: bool,
}

/// What is left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    ApplyLog,
    Leap,
    MoveLog,
    MakeLog,
    Rename,
    End,
}

fn next_step(facts: Facts) -> Step {
    match facts {
        Facts { leap_known: false, .. } => Step::ApplyLog,
        Facts { leapt: false, .. } => Step::Leap,
        Facts { log_moved: false, .. } => Step::MoveLog,
        Facts { has_log: false, .. } => Step::MakeLog,
        Facts { renamed: false, .. } => Step::Rename,
        Facts { renamed: true, .. } => Step::End,
    }
}

/// Recovers the member in the data folder of `config`, or says what it would do. A recovery that begins takes `new_cluster` as
/// the new cluster's id, where one is given.
pub fn recover(config: &Config, really: bool, new_cluster: Option<u64>) -> Result<Recovery, RepairError> {
    let _lock = FolderLock::try_take(&config.data)?;
    let folder = Folder { disk: Arc::new(RealDisk), path: config.data.clone() };
    let work = Work(Place { config, folder, file: FILE });
    let begun = work.begun()?;
    if let (Some(begun), false) = (&begun, really) {
        return Err(RepairError::Begun(Box::new(work.left_of(begun))));
    }
    if begun.is_none() {
        let (found, member) = work.look()?;
        if !really {
            return Ok(found);
        }
        work.begin(&found, member, new_cluster)?;
    }
    while let Some(begun) = work.begun()? {
        if work.take_step(&begun)? == Step::End {
            return Ok(work.done(&begun));
        }
    }
    Err(RepairError::Refused(format!("{FILE} vanished while it was worked on")))
}

struct Work<'a>(Place<'a>);

impl Work<'_> {
    fn begun(&self) -> Result<Option<Begun>, RepairError> {
        self.0.begun()
    }

    /// What is here, before anything was done, and how the cluster knows this node.
    fn look(&self) -> Result<(Recovery, Member), RepairError> {
        if under_way(&self.0.folder)?.is_some() {
            return Err(RepairError::Restoring);
        }
        let Some(own) = identity::load(&self.0.folder)? else {
            return Err(match self.0.has_log()? {
                false => RepairError::Nothing("this data folder holds no identity"),
                true => RepairError::Refused(
                    "this data folder holds a log but no identity.json, which says whose log it is"
                        .to_owned(),
                ),
            });
        };
        let Some(old_cluster) = own.cluster.filter(|_| own.begun) else {
            return Err(RepairError::Nothing("this node was never a member of a cluster"));
        };
        if own.removed {
            return Err(RepairError::Nothing(
                "this member was removed from its cluster, and its state is an old one",
            ));
        }
        let recovered = self.open_log(LogIdentity { cluster: old_cluster.0, node: own.node.0 })?;
        let (membership, directory) = last_membership(&recovered)?;
        let Some(member) = directory.get(own.node).cloned() else {
            return Err(RepairError::Nothing("this node's log does not know it as a member"));
        };
        let last = recovered
            .entries
            .last()
            .map_or((recovered.start.term, recovered.start.index), |entry| (entry.term, entry.index));
        let store = self.open_store_of(&recovered)?;
        let others = directory.members.iter().filter(|other| other.id != own.node.0);
        let found = Recovery {
            old_cluster,
            old_node: own.node,
            slot: member.slot,
            last,
            revision: store.position().revision,
            voters: membership.voters.iter().copied().collect(),
            outgoing: membership.outgoing.iter().copied().collect(),
            others: others.map(|other| (other.slot, other.peer_address.clone())).collect(),
            new: None,
        };
        Ok((found, member))
    }

    fn begin(&self, found: &Recovery, member: Member, new_cluster: Option<u64>) -> Result<(), RepairError> {
        let Member { peer_address, client_address, .. } = member;
        let mut heir = Heir::mint(found.slot, peer_address, client_address);
        heir.new_cluster = new_cluster.unwrap_or(heir.new_cluster);
        self.0.record(&Begun {
            old_cluster: found.old_cluster.0,
            old_node: found.old_node.0,
            heir,
            voters: found.voters.iter().map(|voter| voter.0).collect(),
            last: (found.last.0.0, found.last.1.0),
            leap: None,
        })
    }

    fn facts(&self, begun: &Begun) -> Result<Facts, RepairError> {
        let (place, heir) = (&self.0, &begun.heir);
        Ok(Facts {
            leap_known: begun.leap.is_some(),
            leapt: begun.leap.map_or(Ok(false), |leap| heir.has_leapt(place, leap))?,
            log_moved: place.folder.disk.exists(&self.aside(begun).join("log"))?,
            has_log: place.has_log()?,
            renamed: heir.is_named(place)?,
        })
    }

    fn take_step(&self, begun: &Begun) -> Result<Step, RepairError> {
        let step = next_step(self.facts(begun)?);
        match (step, begun.leap) {
            (Step::ApplyLog, _) | (_, None) => self.apply_log(begun)?,
            (Step::Leap, Some(leap)) => begun.heir.leap(&self.0, leap)?,
            (Step::MoveLog, _) => self.move_log(begun)?,
            (Step::MakeLog, Some(leap)) => begun.heir.make_log(&self.0, leap)?,
            (Step::Rename, _) => begun.heir.name(&self.0)?,
            (Step::End, _) => self.0.forget()?,
        }
        Ok(step)
    }

    fn apply_log(&self, begun: &Begun) -> Result<(), RepairError> {
        let recovered = self.open_log(LogIdentity { cluster: begun.old_cluster, node: begun.old_node })?;
        let mut store = self.open_store_of(&recovered)?;
        for entry in &recovered.entries {
            match entry.kind {
                _ if entry.index.0 <= store.applied_index() => {}
                EntryKind::Command => drop(store.apply(entry.index.0, &entry.data)?),
                _ => store.apply_empty(entry.index.0),
            }
            if let Some(job) = store.maybe_rotate() {
                let index = job.run()?;
                store.handle_flushed(index)?;
            }
        }
        store.flush()?;
        let to = store.succession().ok_or_else(|| {
            RepairError::Refused(
                "its revisions are too large to leap once more: restore a backup instead".into(),
            )
        })?;
        let leap = Leap::new(to, Term(recovered.hard_state.term.0 + 1));
        self.0.record(&Begun { leap: Some(leap), ..begun.clone() })
    }

    fn move_log(&self, begun: &Begun) -> Result<(), RepairError> {
        let (disk, aside) = (&self.0.folder.disk, self.aside(begun));
        disk.create_dir_all(&aside)?;
        if let Some(own) = identity::load(&self.0.folder)? {
            identity::save(&Folder { disk: disk.clone(), path: aside.clone() }, &own)?;
        }
        disk.rename(&boot::log_folder(&self.0.folder).path, &aside.join("log"))?;
        disk.sync_dir(&aside)?;
        disk.sync_dir(&self.0.folder.path)?;
        Ok(())
    }

    fn aside(&self, begun: &Begun) -> std::path::PathBuf {
        self.0.folder.path.join(format!("{PREFIX}{:016x}", begun.old_node))
    }

    fn open_log(&self, names: LogIdentity) -> Result<Recovered, RepairError> {
        let opened = Log::open(boot::log_folder(&self.0.folder), self.0.config.log(), names);
        Ok(opened.map(|(_, recovered)| recovered).map_err(BootError::from)?)
    }

    /// The store, which must hold all that the log has let go of.
    fn open_store_of(&self, recovered: &Recovered) -> Result<Store, RepairError> {
        let store = self.0.open_store()?;
        if store.applied_index() < recovered.start.index.0 {
            let (store, log) = (Index(store.applied_index()), recovered.start.index);
            return Err(BootError::StateMissing { store, log }.into());
        }
        Ok(store)
    }

    /// What the folder held when its recovery was begun.
    fn left_of(&self, begun: &Begun) -> Recovery {
        Recovery {
            old_cluster: ClusterId(begun.old_cluster),
            old_node: NodeId(begun.old_node),
            slot: begun.heir.slot,
            last: (Term(begun.last.0), Index(begun.last.1)),
            revision: 0,
            voters: begun.voters.iter().copied().map(NodeId).collect(),
            outgoing: Vec::new(),
            others: Vec::new(),
            new: Some(begun.heir.names()),
        }
    }

    fn done(&self, begun: &Begun) -> Recovery {
        let leap = begun.leap.map_or((0, 0, 0), |leap| (leap.term, leap.applied_index, leap.revision));
        Recovery {
            old_cluster: ClusterId(begun.old_cluster),
            old_node: NodeId(begun.old_node),
            slot: begun.heir.slot,
            last: (Term(leap.0), Index(leap.1)),
            revision: leap.2,
            voters: vec![NodeId(begun.heir.new_node)],
            outgoing: Vec::new(),
            others: Vec::new(),
            new: Some(begun.heir.names()),
        }
    }
}

/// The members as the end of the log has them: a change that is in it counts, committed or not.
fn last_membership(recovered: &Recovered) -> Result<(Membership, Directory), RepairError> {
    let entries = recovered.entries.iter().rev();
    let last = entries.filter(|entry| entry.kind == EntryKind::Membership).map(|entry| &entry.data).next();
    let encoded = last.unwrap_or(&recovered.start.membership);
    let damaged = |error: &dyn fmt::Display| {
        RepairError::Refused(format!("the membership in the log is damaged: {error}"))
    };
    let membership = Membership::decode(encoded).map_err(|error| damaged(&error))?;
    let directory = Directory::from_context(&membership.context).map_err(|error| damaged(&error))?;
    Ok((membership, directory))
}

#[cfg(test)]
mod tests;
