//! What the records add up to, without the entries themselves: what the writer keeps in memory, what a base record
//! repeats, and what replay ends with. One set of rules for both, so that they cannot differ. Pure.
//!
//! Invariants: `start.index <= last`; entries `start.index + 1 ..= last` are in the log; the term never falls, and a
//! term has one vote (Raft thesis 3.4): whoever asks for less has forgotten a promise.

use crate::record::{Record, StartRef};
use balsa_raft::{HardState, Index, Term};
use bytes::Bytes;
use std::collections::VecDeque;

/// Where the log begins: the last entry that is *not* in it, because a snapshot or checkpoint holds its effect.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogStart {
    /// That entry's index; 0 for a log that begins with entry 1.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The membership effective at `index`, as encoded by the core; opaque here.
    pub membership: Bytes,
}

impl LogStart {
    pub(crate) fn borrow(&self) -> StartRef<'_> {
        StartRef { index: self.index, term: self.term, membership: &self.membership }
    }
}

impl StartRef<'_> {
    pub(crate) fn to_owned(self) -> LogStart {
        LogStart { index: self.index, term: self.term, membership: Bytes::copy_from_slice(self.membership) }
    }
}

/// What a segment still holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) sequence: u64,
    /// The file's length in bytes.
    pub(crate) len_bytes: u64,
    /// No entry above this in it is live. 0: none at all.
    pub(crate) highest: Index,
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) hard_state: HardState,
    pub(crate) start: LogStart,
    pub(crate) last: Index,
    /// Oldest first; the last one is the active segment.
    pub(crate) extents: VecDeque<Extent>,
}

impl State {
    pub(crate) fn new(hard_state: HardState, start: LogStart) -> State {
        State { hard_state, last: start.index, start, extents: VecDeque::new() }
    }

    /// The record that a new segment begins with.
    pub(crate) fn base(&self) -> Record<'_> {
        Record::Base(self.hard_state, self.start.borrow(), self.last)
    }

    /// From here on records are in this segment.
    pub(crate) fn enter(&mut self, sequence: u64, len_bytes: u64) {
        self.extents.push_back(Extent { sequence, len_bytes, highest: Index::ZERO });
    }

    /// The oldest segment, if nothing in it is needed any more.
    pub(crate) fn removable(&self) -> Option<Extent> {
        let front = self.extents.front()?;
        (self.extents.len() > 1 && front.highest <= self.start.index).then_some(*front)
    }

    /// Adds a record, or says why it cannot follow those before.
    pub(crate) fn note(&mut self, record: &Record<'_>) -> Result<(), String> {
        match *record {
            Record::HardState(next) => {
                let HardState { term, vote } = self.hard_state;
                if next.term < term || (next.term == term && vote.is_some() && next.vote != vote) {
                    return Err(format!("{next:?} follows {:?}", self.hard_state));
                }
                self.hard_state = next;
            }
            Record::Entry(entry) => {
                if entry.index != self.last.next() {
                    return Err(format!("entry {} follows entry {}", entry.index, self.last));
                }
                self.last = entry.index;
                if let Some(active) = self.extents.back_mut() {
                    active.highest = entry.index;
                }
            }
            Record::Truncate(last) => {
                if last < self.start.index || last > self.last {
                    return Err(format!(
                        "a truncation to {last} of {} ..= {}",
                        self.start.index.next(),
                        self.last
                    ));
                }
                self.last = last;
                for extent in &mut self.extents {
                    extent.highest = extent.highest.min(last);
                }
            }
            Record::Reset(start) => {
                self.start = start.to_owned();
                self.last = start.index;
                for extent in &mut self.extents {
                    extent.highest = Index::ZERO;
                }
            }
            Record::Release(to) => {
                if to.index < self.start.index || to.index > self.last {
                    return Err(format!(
                        "a release to {} of {} ..= {}",
                        to.index,
                        self.start.index.next(),
                        self.last
                    ));
                }
                self.start = to.to_owned();
            }
            Record::Marker => {}
            Record::Base(..) if self.base() == *record => {}
            Record::Base(..) => return Err(format!("{record:?} does not sum up {:?}", self.base())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EntryRef;
    use balsa_raft::{EntryKind, NodeId};

    fn entry(index: u64) -> Record<'static> {
        Record::Entry(EntryRef { index: Index(index), term: Term(1), kind: EntryKind::Noop, data: b"" })
    }

    fn to(index: u64) -> StartRef<'static> {
        StartRef { index: Index(index), term: Term(1), membership: b"m" }
    }

    /// Entries 4 to 6 in segment 1, 7 to 9 in segment 2; segment 3 is active.
    fn state() -> State {
        let mut state = State::new(HardState::default(), to(3).to_owned());
        for segment in 1..=2 {
            state.enter(segment, 8192);
            (1..=3).for_each(|n| state.note(&entry(3 * segment + n)).unwrap());
        }
        state.enter(3, 8192);
        state
    }

    #[test]
    fn what_cannot_follow_is_refused() {
        let base = state();
        let other = Record::Base(HardState::default(), to(3), Index(8));
        for record in [
            entry(9),
            entry(11),
            Record::Truncate(Index(2)),
            Record::Truncate(Index(10)),
            Record::Release(to(2)),
            Record::Release(to(10)),
            other,
        ] {
            assert!(base.clone().note(&record).is_err(), "{record:?}");
        }
        for record in
            [entry(10), Record::Truncate(Index(3)), Record::Release(to(9)), base.base(), Record::Reset(to(1))]
        {
            base.clone().note(&record).unwrap();
        }
    }

    #[test]
    fn a_term_never_falls_and_has_one_vote() {
        let voted =
            |term, vote: u64| HardState { term: Term(term), vote: (vote != 0).then_some(NodeId(vote)) };
        let follows =
            |before, after| State::new(before, LogStart::default()).note(&Record::HardState(after)).is_ok();
        assert!(follows(voted(2, 0), voted(2, 7)) && follows(voted(2, 7), voted(2, 7)));
        assert!(follows(voted(2, 7), voted(3, 0)) && follows(voted(2, 7), voted(3, 8)));
        assert!(!follows(voted(2, 7), voted(2, 8)) && !follows(voted(2, 7), voted(2, 0)));
        assert!(!follows(voted(2, 7), voted(1, 7)));
    }

    #[test]
    fn a_segment_is_removable_once_no_live_entry_is_in_it() {
        let removable = |records: &[Record<'_>]| {
            let mut state = state();
            records.iter().for_each(|record| state.note(record).unwrap());
            let mut sequences = Vec::new();
            while let Some(extent) = state.removable() {
                sequences.push(extent.sequence);
                state.extents.pop_front();
            }
            sequences
        };
        assert_eq!(removable(&[]), []);
        assert_eq!(removable(&[Record::Release(to(5))]), []);
        assert_eq!(removable(&[Record::Release(to(6))]), [1]);
        assert_eq!(removable(&[Record::Release(to(9))]), [1, 2]);
        assert_eq!(removable(&[Record::Truncate(Index(4)), Record::Release(to(4))]), [1, 2]);
        assert_eq!(removable(&[Record::Reset(to(1))]), [1, 2]);
    }
}
