//! A snapshot on its way out: what its sender says next, and what it makes of the receiver's answers.
//!
//! Pure: how frames travel, how fast, and how long somebody who does not answer is waited for, others decide. The source is
//! kept through any number of breaks and goes back to whichever chunk the receiver wants, so that nothing that it holds is
//! sent again.
//!
//! Invariants: chunks leave only after an answer to the newest question; a receiver that wants the same chunk again and
//! again, without a break, ends the transfer.

use super::snapshot_frame::{Answer, Offer, SnapshotFrame};
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, Term};
use balsa_store::{SnapshotSource, StoreError};

/// So often in a row a receiver may want the same chunk: it arrives damaged each time.
const SAME_CHUNK_MAX: u32 = 8;

/// A snapshot that is being sent.
pub struct Outgoing {
    id: u64,
    source: SnapshotSource,
    term: Term,
    meta: Option<SnapshotMeta>,
    ask: u32,
    phase: Phase,
    /// The chunk that was wanted last.
    wanted: Option<u32>,
    /// How often in a row it was wanted again, without a break.
    again: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The receiver has not said yet where it is.
    Asking,
    Streaming,
    /// All of it has left.
    Sent,
}

/// What an answer means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// Chunks go on from where the receiver is.
    GoOn {
        /// After a loss, behind what the receiver kept.
        resumed: bool,
    },
    /// Nothing new.
    Nothing,
    /// The receiver has the state.
    Installed,
    /// It cannot be, and why.
    Over(&'static str),
}

impl Outgoing {
    /// One that was just begun; `id` is no other's.
    pub fn new(id: u64, source: SnapshotSource) -> Outgoing {
        Outgoing {
            id,
            source,
            term: Term(0),
            meta: None,
            ask: 0,
            phase: Phase::Asking,
            wanted: None,
            again: 0,
        }
    }

    /// The index of the state.
    pub fn index(&self) -> Index {
        Index(self.source.index())
    }

    /// It is to be sent, in this term.
    pub fn start(&mut self, term: Term, meta: SnapshotMeta) {
        assert_eq!(meta.index, self.index(), "a snapshot is sent as another");
        self.term = term;
        self.meta = Some(meta);
        self.phase = Phase::Asking;
    }

    /// The connection broke, or frames may have been lost: where the receiver is must be asked again.
    pub fn broken(&mut self) {
        self.phase = Phase::Asking;
    }

    /// Whether there is a chunk to send.
    pub fn is_streaming(&self) -> bool {
        self.phase == Phase::Streaming
    }

    /// The question where the receiver is; `None` before [`Outgoing::start`].
    pub fn ask(&mut self) -> Option<SnapshotFrame> {
        let meta = self.meta.clone()?;
        self.ask += 1;
        Some(SnapshotFrame::Ask { term: self.term, offer: Offer { id: self.id, ask: self.ask, meta } })
    }

    /// The next chunk, of about so many bytes; `None` while none is to be sent.
    pub fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<SnapshotFrame>, StoreError> {
        if self.phase != Phase::Streaming {
            return Ok(None);
        }
        let sequence = self.source.next_sequence();
        let Some(data) = self.source.next_chunk(bytes_max)? else {
            self.phase = Phase::Sent;
            return Ok(None);
        };
        Ok(Some(SnapshotFrame::Chunk { id: self.id, sequence, data }))
    }

    /// The receiver answered.
    pub fn handle(&mut self, answer: Answer) -> Result<Heard, StoreError> {
        match answer {
            Answer::Wanted { id, ask, sequence } if (id, ask) == (self.id, self.ask) => {
                if sequence > self.source.next_sequence() {
                    return Ok(Heard::Over("the receiver wants what was never made"));
                }
                let asked = self.phase == Phase::Asking;
                // What a break took says nothing of the chunk.
                self.again = if asked || self.wanted != Some(sequence) { 0 } else { self.again + 1 };
                self.wanted = Some(sequence);
                if self.again >= SAME_CHUNK_MAX {
                    return Ok(Heard::Over("the same chunk is wanted again and again"));
                }
                let resumed = sequence > 0 && (asked || sequence < self.source.next_sequence());
                self.source.resume_at(sequence)?;
                self.phase = Phase::Streaming;
                Ok(Heard::GoOn { resumed })
            }
            Answer::Installed { id } if id == self.id => Ok(Heard::Installed),
            Answer::Refused { id } if id == self.id => Ok(Heard::Over("the receiver does not want it")),
            Answer::Wanted { .. } | Answer::Installed { .. } | Answer::Refused { .. } => Ok(Heard::Nothing),
        }
    }
}
