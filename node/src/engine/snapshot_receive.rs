//! A snapshot on its way in: which chunks are taken, and what the sender is told.
//!
//! It belongs to the store's single writer, so that staging and installing never race an apply (hazard 25). What has
//! arrived stays through any number of broken connections, until the same transfer goes on, another one takes its place, or
//! the process ends: what a process that ended had staged is removed at the next start. One at a time, so that what lies
//! staged on the disk is bounded by one image.
//!
//! Does not know whether a snapshot is wanted: the core decides that before [`Incoming::begin`].

use super::snapshot_frame::{Answer, Offer};
use balsa_raft::NodeId;
use balsa_raft::ready::SnapshotMeta;
use balsa_store::{SnapshotSink, StagedSnapshot, Store, StoreError};
use bytes::Bytes;

/// What is being received, if anything is.
#[derive(Default)]
pub struct Incoming {
    transfer: Option<Transfer>,
}

struct Transfer {
    from: NodeId,
    id: u64,
    ask: u32,
    meta: SnapshotMeta,
    sink: SnapshotSink,
    /// The sender was told which chunk is wanted, and that has not come yet.
    told: bool,
}

/// What became of a chunk.
pub enum Taken {
    /// It was added.
    Added,
    /// It says nothing new.
    Ignored,
    /// It was not added, and this is to be said.
    Not(Answer, String),
    /// It was the last one: install this, and say [`Answer::Installed`].
    Whole(StagedSnapshot, SnapshotMeta),
}

impl Incoming {
    /// The core takes what was offered: goes on where the transfer was, or begins it; gives what to say.
    pub fn begin(&mut self, store: &Store, from: NodeId, offer: Offer) -> Result<Answer, StoreError> {
        let Offer { id, ask, meta } = offer;
        match &mut self.transfer {
            Some(transfer) if (transfer.from, transfer.id) == (from, id) && transfer.meta == meta => {
                transfer.ask = ask;
                transfer.told = true;
                Ok(transfer.wanted())
            }
            _ => {
                self.transfer = None; // before the next one is begun: what it staged goes
                let sink = store.begin_install()?;
                let transfer = Transfer { from, id, ask, meta, sink, told: true };
                let wanted = transfer.wanted();
                self.transfer = Some(transfer);
                Ok(wanted)
            }
        }
    }

    /// Whether something is being received.
    pub fn is_under_way(&self) -> bool {
        self.transfer.is_some()
    }

    /// A chunk came.
    pub fn take(&mut self, from: NodeId, id: u64, sequence: u32, data: &Bytes) -> Taken {
        let Some(transfer) = self.transfer.as_mut().filter(|t| (t.from, t.id) == (from, id)) else {
            return Taken::Not(Answer::Refused { id }, "nothing like it is being received".to_string());
        };
        let wanted = transfer.sink.wanted_sequence();
        if sequence < wanted || (sequence > wanted && transfer.told) {
            return Taken::Ignored; // sent again, or sent before the sender heard what is wanted
        }
        if sequence > wanted {
            transfer.told = true;
            return Taken::Not(transfer.wanted(), format!("chunk {sequence} came where {wanted} was wanted"));
        }
        match transfer.sink.add_chunk(data) {
            Ok(()) => transfer.told = false,
            Err(error @ StoreError::BadChunk { .. }) => {
                transfer.told = true;
                return Taken::Not(transfer.wanted(), error.to_string());
            }
            Err(error) => return self.give_up(id, &error),
        }
        if !transfer.sink.is_complete() {
            return Taken::Added;
        }
        match self.transfer.take().map(|transfer| (transfer.sink.stage(), transfer.meta)) {
            Some((Ok(staged), meta)) => Taken::Whole(staged, meta),
            Some((Err(error), _)) => self.give_up(id, &error),
            None => Taken::Ignored,
        }
    }

    /// The store could not take it, for want of space say: what it staged is removed, and the node goes on without.
    fn give_up(&mut self, id: u64, error: &StoreError) -> Taken {
        self.transfer = None;
        Taken::Not(Answer::Refused { id }, error.to_string())
    }
}

impl Transfer {
    fn wanted(&self) -> Answer {
        Answer::Wanted { id: self.id, ask: self.ask, sequence: self.sink.wanted_sequence() }
    }
}
