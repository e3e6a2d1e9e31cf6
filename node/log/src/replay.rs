//! From records to what the core starts with. Pure: records in, [`Recovered`](crate::Recovered)'s parts out.
//!
//! Replay begins at a base record, with entries of which some may have been in segments that are gone. That is right
//! as long as the log itself says, by the end, that they are not needed. Truncations replay unconditionally
//! (hazard 24): an entry is live only if nothing after it says otherwise.

use crate::record::{EntryRef, Record};
use crate::state::State;
use balsa_raft::{Entry, Index};
use bytes::Bytes;
use std::collections::VecDeque;

pub(crate) struct Replay {
    pub(crate) state: State,
    /// The live entries above `missing` and above the start, contiguous, up to the last.
    pub(crate) entries: VecDeque<Entry>,
    /// Entries up to here are not at hand. 0: all are.
    missing: Index,
}

impl Replay {
    /// Begins with the oldest segment's first record.
    pub(crate) fn begin(first: &Record<'_>) -> Result<Replay, String> {
        let Record::Base(hard_state, start, last) = *first else {
            return Err(format!("the log begins with {first:?}, not with a base"));
        };
        if last < start.index {
            return Err(format!("a base with entries up to {last} behind {}", start.index));
        }
        let mut state = State::new(hard_state, start.to_owned());
        state.last = last;
        Ok(Replay { state, entries: VecDeque::new(), missing: last })
    }

    pub(crate) fn apply(&mut self, record: &Record<'_>) -> Result<(), String> {
        self.state.note(record)?;
        match *record {
            // Copied: a slice would pin the whole segment for as long as one of its entries lives.
            Record::Entry(EntryRef { index, term, kind, data }) => {
                self.entries.push_back(Entry { index, term, kind, data: Bytes::copy_from_slice(data) });
            }
            Record::Truncate(last) => {
                while self.entries.back().is_some_and(|entry| entry.index > last) {
                    self.entries.pop_back();
                }
                self.missing = self.missing.min(last);
            }
            Record::Reset(_) => {
                self.entries.clear();
                self.missing = Index::ZERO;
            }
            Record::Release(to) => {
                while self.entries.front().is_some_and(|entry| entry.index <= to.index) {
                    self.entries.pop_front();
                }
            }
            Record::HardState(_) | Record::Marker | Record::Base(..) => {}
        }
        Ok(())
    }

    /// Checks at the end that nothing that is needed is missing.
    pub(crate) fn finish(&self) -> Result<(), String> {
        if self.missing > self.state.start.index {
            return Err(format!(
                "entries {} ..= {} were in segments that are not there",
                self.state.start.index.next(),
                self.missing
            ));
        }
        let held = self.state.last.0 - self.state.start.index.0;
        assert_eq!(self.entries.len() as u64, held, "entries held, of {:?}", self.state);
        Ok(())
    }
}
