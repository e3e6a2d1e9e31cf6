//! A state goes on as that of a new cluster of one: what recovery and restoring have in common.
//!
//! Whatever the state comes from, its numbers leap far above all that the old cluster can have used
//! ([`balsa_store::Succession`]), the log begins anew behind that leap with a membership of one, and the folder gets an
//! identity that nobody ever had. Which of that is done already is asked of the disk, step by step, so that a run that was
//! cut off is ended by the next.

use super::RepairError;
use crate::config::Config;
use crate::durable_file;
use crate::engine;
use crate::engine::boot::{self, BootError};
use crate::engine::directory::{Directory, Member};
use crate::engine::status::ClusterId;
use crate::life::identity::{self, Identity, hex_id};
use crate::life::mint_id;
use balsa_log::{Folder, Log, LogIdentity};
use balsa_raft::membership::Membership;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{HardState, Index, NodeId, Term};
use balsa_store::{FjallEngine, Store, StoreError, Succession};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The new cluster and its one node: chosen once, and on record before anything is done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Heir {
    #[serde(with = "hex_id")]
    pub(super) new_cluster: u64,
    #[serde(with = "hex_id")]
    pub(super) new_node: u64,
    pub(super) slot: u32,
    pub(super) peer_address: String,
    pub(super) client_address: String,
}

/// From the old cluster's numbers to the new one's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Leap {
    pub(super) applied_index: u64,
    pub(super) revision: u64,
    pub(super) term: u64,
}

impl Leap {
    pub(super) fn new(to: Succession, term: Term) -> Leap {
        Leap { applied_index: to.applied_index, revision: to.revision, term: term.0 }
    }
}

impl Heir {
    /// One with identities that nobody ever had.
    pub(super) fn mint(slot: u32, peer_address: String, client_address: String) -> Heir {
        Heir { new_cluster: mint_id(), new_node: mint_id(), slot, peer_address, client_address }
    }

    /// As people see it.
    pub(super) fn names(&self) -> (ClusterId, NodeId) {
        (ClusterId(self.new_cluster), NodeId(self.new_node))
    }

    /// Whether the store has leapt.
    pub(super) fn has_leapt(&self, place: &Place<'_>, leap: Leap) -> Result<bool, RepairError> {
        Ok(place.open_store()?.applied_index() == leap.applied_index)
    }

    /// Lets the store leap; durable at return.
    pub(super) fn leap(&self, place: &Place<'_>, leap: Leap) -> Result<(), RepairError> {
        let to = Succession { applied_index: leap.applied_index, revision: leap.revision };
        Ok(place.open_store()?.succeed(to)?)
    }

    /// Makes the log that begins behind the leap.
    pub(super) fn make_log(&self, place: &Place<'_>, leap: Leap) -> Result<(), RepairError> {
        let mut directory = Directory::default();
        directory.put(Member {
            id: self.new_node,
            slot: self.slot,
            peer_address: self.peer_address.clone(),
            client_address: self.client_address.clone(),
            promote: false,
        });
        let voters = [NodeId(self.new_node)].into();
        let membership = Membership { voters, context: directory.to_context(), ..Membership::default() };
        let term = Term(leap.term);
        let start = SnapshotMeta { index: Index(leap.applied_index), term, membership: Arc::new(membership) };
        let names = LogIdentity { cluster: self.new_cluster, node: self.new_node };
        let log = boot::log_folder(&place.folder);
        let hard_state = HardState { term, vote: None };
        Log::create(log, place.config.log(), names, engine::log_start(&start), hard_state, &[])?;
        Ok(())
    }

    /// Whether the folder has the new identity.
    pub(super) fn is_named(&self, place: &Place<'_>) -> Result<bool, RepairError> {
        Ok(identity::load(&place.folder)?.is_some_and(|own| own.node.0 == self.new_node))
    }

    /// Gives the folder the new identity.
    pub(super) fn name(&self, place: &Place<'_>) -> Result<(), RepairError> {
        let (cluster, node) = self.names();
        let own = Identity {
            cluster: Some(cluster),
            node,
            slot: Some(self.slot),
            founders: Vec::new(),
            proposer: false,
            founded: true,
            begun: true,
            removed: false,
        };
        Ok(identity::save(&place.folder, &own)?)
    }
}

/// A data folder that is worked on, and what is on record of that in one file: while it is there, no node starts.
pub(super) struct Place<'a> {
    pub(super) config: &'a Config,
    pub(super) folder: Folder,
    pub(super) file: &'static str,
}

impl Place<'_> {
    /// What was begun, and has not ended.
    pub(super) fn begun<T: DeserializeOwned>(&self) -> Result<Option<T>, RepairError> {
        let Some(bytes) = durable_file::read(&self.folder, self.file)? else { return Ok(None) };
        let damaged = |error| RepairError::Refused(format!("{} is damaged: {error}", self.file));
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Records it; durable at return.
    pub(super) fn record<T: Serialize>(&self, begun: &T) -> Result<(), RepairError> {
        let bytes = serde_json::to_vec(begun).map_err(std::io::Error::other)?;
        Ok(durable_file::write(&self.folder, self.file, &bytes)?)
    }

    /// It has ended.
    pub(super) fn forget(&self) -> Result<(), RepairError> {
        self.folder.disk.remove(&self.folder.path.join(self.file))?;
        Ok(self.folder.disk.sync_dir(&self.folder.path)?)
    }

    pub(super) fn has_log(&self) -> Result<bool, RepairError> {
        Ok(Log::exists(&boot::log_folder(&self.folder)).map_err(BootError::from)?)
    }

    pub(super) fn open_store(&self) -> Result<Store, RepairError> {
        let engine = FjallEngine::open(&self.folder.path.join("state")).map_err(StoreError::from)?;
        Ok(Store::open(Arc::new(engine), self.config.store())?)
    }
}
