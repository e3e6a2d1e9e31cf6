//! From a disk to a running node: opens store and log, checks that they fit together, and makes engine and stages of them.
//!
//! Founding and joining prepare the disk ([`create`]); after that every start takes the same way ([`open`]).

use super::apply_stage::{ApplyStage, InstallingError, installing};
use super::log_stage::LogStage;
use super::snapshot_frame::{FrameError, to_meta};
use super::{EngineConfig, log_start};
use balsa_log::{Folder, Log, LogConfig, LogError, LogIdentity, OpenError};
use balsa_raft::membership::Membership;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Entry, EntryKind, HardState, Index, Raft, Restored, Term};
use balsa_store::engine::StateEngine;
use balsa_store::{Store, StoreConfig, StoreError, command};
use std::sync::Arc;

/// Why a disk cannot become a running node. Each says what a person can do.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The log refused.
    #[error("the log cannot be opened: {0}")]
    Log(#[from] OpenError),
    /// The log could not be written.
    #[error("the log cannot be written: {0}")]
    LogWrite(#[from] LogError),
    /// The store refused.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The store lost state that the log no longer holds.
    #[error(
        "the store ends at index {store}, but the log begins only behind {log}: state is missing. Restore this node's \
         data folder, or move it away so that the node joins again under a new identity"
    )]
    StateMissing {
        /// The store's applied index.
        store: Index,
        /// The log's start.
        log: Index,
    },
    /// The log lost entries that the store has applied.
    #[error(
        "the store has applied index {store}, but the log ends at {log}: entries are missing. Restore this node's data \
         folder, or move it away so that the node joins again under a new identity"
    )]
    LogMissing {
        /// The store's applied index.
        store: Index,
        /// The log's last index.
        log: Index,
    },
    /// A membership on disk cannot be read.
    #[error("a membership on disk cannot be read: {0}")]
    Membership(#[from] FrameError),
    /// What a snapshot's installation left cannot be read.
    #[error(transparent)]
    Installing(#[from] InstallingError),
    /// The core refused what was restored.
    #[error("log and store do not fit together: {0}")]
    Restore(#[from] balsa_raft::RestoreError),
}

/// What booting needs beside the disk.
#[derive(Clone)]
pub struct BootConfig {
    /// The engine's settings.
    pub engine: EngineConfig,
    /// The core's settings.
    pub raft: balsa_raft::Config,
    /// The log's settings.
    pub log: LogConfig,
    /// The store's settings.
    pub store: StoreConfig,
    /// See [`LogStage::new`], in bytes.
    pub disk_headroom_bytes: u64,
}

/// A node, ready to run.
pub struct Booted {
    /// The core.
    pub raft: Raft,
    /// *Persist*.
    pub log: LogStage,
    /// *Apply*.
    pub apply: ApplyStage,
    /// The newest cluster time in log and store, in ms.
    pub newest_stamp_ms: u64,
    /// What a crash left half-written at the log's end, in bytes.
    pub torn_tail_bytes: u64,
}

/// Makes the log of a node that founds or joins a cluster. The proposer's log begins with the first membership
/// ([`Raft::bootstrap_entry`]); all others begin empty and hear of it from the leader.
pub fn create(
    folder: &Folder,
    config: LogConfig,
    identity: LogIdentity,
    entries: Vec<Entry>,
) -> Result<(), BootError> {
    let blank =
        SnapshotMeta { index: Index::ZERO, term: Term(0), membership: Arc::new(Membership::default()) };
    let term = entries.first().map_or(Term(0), |entry| entry.term);
    Log::create(
        log_folder(folder),
        config,
        identity,
        log_start(&blank),
        HardState { term, vote: None },
        &entries,
    )?;
    Ok(())
}

/// Opens a disk that [`create`] prepared.
pub fn open(folder: &Folder, state: Arc<dyn StateEngine>, config: &BootConfig) -> Result<Booted, BootError> {
    let (mut log, recovered) = Log::open(log_folder(folder), config.log.clone(), identity(config))?;
    let store = Store::open(state, config.store.clone())?;
    let applied = Index(store.applied_index());
    let mut snapshot = to_meta(&recovered.start)?;
    let mut entries = recovered.entries;
    let mut hard_state = recovered.hard_state;

    // A snapshot's state was installed, and the crash came before the log began anew behind it (hazard 23).
    if let Some(meta) = installing(folder)?.filter(|meta| meta.index <= applied) {
        let covered = meta.index <= snapshot.index
            || entries.iter().any(|entry| (entry.index, entry.term) == (meta.index, meta.term));
        if !covered {
            hard_state.term = hard_state.term.max(meta.term);
            if hard_state.term != recovered.hard_state.term {
                hard_state.vote = None;
            }
            let start = log_start(&meta);
            log.append(&balsa_log::LogWrite {
                hard_state: Some(hard_state),
                entries: &[],
                reset: Some(&start),
            })?;
            log.sync()?;
            snapshot = meta;
            entries = Vec::new();
        }
    }

    if applied < snapshot.index {
        return Err(BootError::StateMissing { store: applied, log: snapshot.index });
    }
    let last = entries.last().map_or(snapshot.index, |entry| entry.index);
    if applied > last {
        return Err(BootError::LogMissing { store: applied, log: last });
    }
    let stamps = entries.iter().filter(|entry| entry.kind == EntryKind::Command);
    let newest_stamp_ms =
        stamps.map(|entry| command::stamp_of(&entry.data)).max().unwrap_or(0).max(store.time_ms());
    let raft = Raft::new(config.raft.clone(), Restored { hard_state, snapshot, entries, applied })?;
    Ok(Booted {
        raft,
        log: LogStage::new(log, log_folder(folder), config.disk_headroom_bytes / 2),
        apply: ApplyStage::new(store, folder.clone(), config.disk_headroom_bytes),
        newest_stamp_ms,
        torn_tail_bytes: recovered.torn_tail_bytes,
    })
}

/// Where the log lives within the data folder.
pub fn log_folder(folder: &Folder) -> Folder {
    Folder { disk: folder.disk.clone(), path: folder.path.join("log") }
}

fn identity(config: &BootConfig) -> LogIdentity {
    LogIdentity { cluster: config.engine.cluster.0, node: config.engine.id.0 }
}
