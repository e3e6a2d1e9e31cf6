//! *Apply* and *respond*: carries committed entries into the store, in order, and says who gets which reply.
//!
//! The only writer of the store. It knows nothing of terms or votes; installing a snapshot takes its turn here, so that it
//! can never race an apply (hazard 25).

use super::event::{Committed, Origin, Tickets};
use super::handle::WriteError;
use super::message::{ForwardResult, PeerMessage};
use super::snapshot_frame::{FrameError, decode_meta, encode_meta};
use crate::durable_file;
use balsa_log::Folder;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{EntryKind, Index, NodeId};
use balsa_store::command::Reply;
use balsa_store::{ApplyError, FlushJob, Outlook, StagedSnapshot, Store, StoreError};
use std::collections::VecDeque;
use std::io;

/// The place in the log of the snapshot that was last installed (or was about to be), in the data folder.
const INSTALLING: &str = "installing.snapshot";

/// Every so many entries, all nodes publish the digest of their state, so that anybody can compare them (hazard 33). It is a
/// chain: states that went apart once differ at every later index.
pub const DIGEST_INTERVAL: u64 = 256;

/// The digest of the state at a multiple of [`DIGEST_INTERVAL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Where in the log.
    pub index: Index,
    /// The digest there.
    pub digest: u128,
}

/// The store and its single writer.
pub struct ApplyStage {
    store: Store,
    checkpoint: Option<Checkpoint>,
    folder: Folder,
    headroom_bytes: u64,
}

/// Why a snapshot was not installed. The node must stop.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Its place could not be recorded.
    #[error("{INSTALLING} cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far applying may reach.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Memory,
    Disk,
}

/// What applying a batch gave.
#[derive(Debug)]
pub struct Applied<T: Tickets> {
    /// Answers for this node's clients.
    pub answers: Vec<(T::Write, Result<Reply, WriteError>)>,
    /// Answers for clients of peers.
    pub messages: Vec<(NodeId, PeerMessage)>,
    /// Applied up to here.
    pub index: Index,
    /// What that means to a leader.
    pub outlook: Outlook,
}

impl ApplyStage {
    /// A stage over an open store; `folder` is the data folder. Snapshots are received only while the disk has more than
    /// `headroom_bytes` left: the rest is for what must go on.
    pub fn new(store: Store, folder: Folder, headroom_bytes: u64) -> ApplyStage {
        ApplyStage { store, checkpoint: None, folder, headroom_bytes }
    }

    /// Whether the disk has room for more of a snapshot.
    pub fn has_room(&self) -> bool {
        self.folder.disk.free_bytes(&self.folder.path).is_ok_and(|free| free > self.headroom_bytes)
    }

    /// The newest digest to compare with those of others, if one was passed since start.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The store, for flushing, snapshots and installing.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Applies entries and makes their effects visible to readers. After an error the node must stop.
    pub fn apply<T: Tickets>(
        &mut self,
        mut committed: VecDeque<Committed<T>>,
    ) -> Result<Applied<T>, ApplyError> {
        self.apply_from(&mut committed, Reach::Disk)
    }

    /// As [`ApplyStage::apply`], up to the first entry whose applying may read the disk; the rest stays in `committed`.
    pub fn apply_in_memory<T: Tickets>(
        &mut self,
        committed: &mut VecDeque<Committed<T>>,
    ) -> Result<Applied<T>, ApplyError> {
        self.apply_from(committed, Reach::Memory)
    }

    fn apply_from<T: Tickets>(
        &mut self,
        committed: &mut VecDeque<Committed<T>>,
        reach: Reach,
    ) -> Result<Applied<T>, ApplyError> {
        let mut answers = Vec::new();
        let mut messages = Vec::new();
        while let Some(Committed { entry, origin }) = committed.pop_front() {
            if entry.index.0 <= self.store.applied_index() {
                // A snapshot that was installed meanwhile holds its effect; its reply is not known here.
                match origin {
                    Some(Origin::Local(ticket)) => {
                        let error = WriteError::Unknown { why: "a snapshot took the place of the write" };
                        answers.push((ticket, Err(error)));
                    }
                    Some(Origin::Peer { node, id }) => {
                        messages
                            .push((node, PeerMessage::ForwardReply { id, result: ForwardResult::Unknown }));
                    }
                    None => {}
                }
                continue;
            }
            if entry.kind != EntryKind::Command {
                self.store.apply_empty(entry.index.0);
                self.maybe_note_digest(entry.index);
                continue;
            }
            let reply = match reach {
                Reach::Disk => self.store.apply(entry.index.0, &entry.data)?,
                Reach::Memory => match self.store.apply_in_memory(entry.index.0, &entry.data)? {
                    Some(reply) => reply,
                    None => {
                        committed.push_front(Committed { entry, origin });
                        break;
                    }
                },
            };
            self.maybe_note_digest(entry.index);
            match origin {
                Some(Origin::Local(ticket)) => answers.push((ticket, Ok(reply))),
                Some(Origin::Peer { node, id }) => {
                    messages.push((
                        node,
                        PeerMessage::ForwardReply { id, result: ForwardResult::Applied(reply) },
                    ));
                }
                None => {}
            }
        }
        self.store.publish();
        let index = Index(self.store.applied_index());
        Ok(Applied { answers, messages, index, outlook: self.store.outlook() })
    }

    fn maybe_note_digest(&mut self, index: Index) {
        if index.0.is_multiple_of(DIGEST_INTERVAL) {
            self.checkpoint = Some(Checkpoint { index, digest: self.store.position().digest });
        }
    }

    /// Puts a snapshot's state in place of the store's, durably, and says whether it did: one at or below what is applied
    /// is dropped (hazard 21). Its place in the log is recorded first, so that a crash before the log begins anew behind
    /// it is mended at the next start (hazard 23).
    pub fn install(&mut self, meta: &SnapshotMeta, staged: StagedSnapshot) -> Result<bool, InstallError> {
        if meta.index.0 <= self.store.applied_index() {
            return Ok(false);
        }
        durable_file::write(&self.folder, INSTALLING, &encode_meta(meta))?;
        self.store.install_snapshot(staged)?;
        Ok(true)
    }

    /// A flush to run elsewhere, where one is due.
    pub fn maybe_flush(&mut self) -> Option<FlushJob> {
        self.store.maybe_rotate()
    }
}

/// The place in the log of the snapshot that was last installed, or was about to be.
pub(super) fn installing(folder: &Folder) -> Result<Option<SnapshotMeta>, InstallingError> {
    match durable_file::read(folder, INSTALLING)? {
        Some(bytes) => Ok(Some(decode_meta(&bytes.into())?)),
        None => Ok(None),
    }
}

/// Why the record of an installation cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InstallingError {
    /// The disk failed.
    #[error("{INSTALLING} cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("{INSTALLING} is damaged: {0}")]
    Damaged(#[from] FrameError),
}
