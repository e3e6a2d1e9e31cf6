//! What a batch is made of: one byte of kind, then fixed fields, little endian, then bytes with their length before
//! them. Pure: bytes in, values out.
//!
//! A kind that this code does not know is an error, never skipped (hazard 49).

use crate::segment::{u32_at, u64_at};
use balsa_raft::{Entry, EntryKind, HardState, Index, NodeId, Term};

/// A record, borrowed from the batch it was read from or from the caller who writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Record<'a> {
    /// Term and vote from here on.
    HardState(HardState),
    /// The entry after the last.
    Entry(EntryRef<'a>),
    /// Entries above this index are gone.
    Truncate(Index),
    /// All entries are gone; the log goes on behind this.
    Reset(StartRef<'a>),
    /// Entries up to here are not needed any more.
    Release(StartRef<'a>),
    /// Says nothing; its batch header says up to where the log was durable.
    Marker,
    /// First in every segment: the sum of all records before.
    Base(HardState, StartRef<'a>, Index),
}

/// An entry, its payload borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryRef<'a> {
    pub(crate) index: Index,
    pub(crate) term: Term,
    pub(crate) kind: EntryKind,
    pub(crate) data: &'a [u8],
}

impl<'a> EntryRef<'a> {
    pub(crate) fn of(entry: &'a Entry) -> EntryRef<'a> {
        EntryRef { index: entry.index, term: entry.term, kind: entry.kind, data: &entry.data }
    }
}

/// A [`crate::LogStart`], its membership borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StartRef<'a> {
    pub(crate) index: Index,
    pub(crate) term: Term,
    pub(crate) membership: &'a [u8],
}

const HARD_STATE: u8 = 1;
const ENTRY: u8 = 2;
const TRUNCATE: u8 = 3;
const RESET: u8 = 4;
const RELEASE: u8 = 5;
const MARKER: u8 = 6;
const BASE: u8 = 7;

impl Record<'_> {
    /// Its size when encoded, in bytes.
    pub(crate) fn encoded_bytes(&self) -> usize {
        1 + match self {
            Record::HardState(_) => 16,
            Record::Entry(entry) => 21 + entry.data.len(),
            Record::Truncate(_) => 8,
            Record::Reset(start) | Record::Release(start) => 20 + start.membership.len(),
            Record::Marker => 0,
            Record::Base(_, start, _) => 16 + 20 + start.membership.len() + 8,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Record::HardState(hard_state) => {
                out.push(HARD_STATE);
                put_hard_state(out, hard_state);
            }
            Record::Entry(EntryRef { index, term, kind, data }) => {
                out.push(ENTRY);
                put_u64(out, index.0);
                put_u64(out, term.0);
                out.push(match kind {
                    EntryKind::Noop => 0,
                    EntryKind::Command => 1,
                    EntryKind::Membership => 2,
                });
                put_bytes(out, data);
            }
            Record::Truncate(last) => {
                out.push(TRUNCATE);
                put_u64(out, last.0);
            }
            Record::Reset(start) => {
                out.push(RESET);
                put_start(out, start);
            }
            Record::Release(start) => {
                out.push(RELEASE);
                put_start(out, start);
            }
            Record::Marker => out.push(MARKER),
            Record::Base(hard_state, start, last) => {
                out.push(BASE);
                put_hard_state(out, hard_state);
                put_start(out, start);
                put_u64(out, last.0);
            }
        }
    }
}

fn put_u64(out: &mut Vec<u8>, word: u64) {
    out.extend_from_slice(&word.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    assert!(bytes.len() <= u32::MAX as usize, "a record of {} bytes", bytes.len());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A vote for nobody is 0, which is nobody's id.
fn put_hard_state(out: &mut Vec<u8>, hard_state: HardState) {
    put_u64(out, hard_state.term.0);
    put_u64(out, hard_state.vote.map_or(0, |node| node.0));
}

fn put_start(out: &mut Vec<u8>, start: StartRef<'_>) {
    put_u64(out, start.index.0);
    put_u64(out, start.term.0);
    put_bytes(out, start.membership);
}

/// Takes a payload apart, record by record.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(crate) fn of(payload: &'a [u8]) -> Self {
        Records { rest: payload }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let Some((head, rest)) = self.rest.split_at_checked(bytes) else {
            return Err(format!("a record wants {bytes} bytes more, its batch has {}", self.rest.len()));
        };
        self.rest = rest;
        Ok(head)
    }

    fn take_u64(&mut self) -> Result<u64, String> {
        Ok(u64_at(self.take(8)?, 0))
    }

    fn take_bytes(&mut self) -> Result<&'a [u8], String> {
        let bytes = u32_at(self.take(4)?, 0);
        self.take(bytes as usize)
    }

    fn take_hard_state(&mut self) -> Result<HardState, String> {
        let term = Term(self.take_u64()?);
        let vote = self.take_u64()?;
        Ok(HardState { term, vote: (vote != 0).then_some(NodeId(vote)) })
    }

    fn take_start(&mut self) -> Result<StartRef<'a>, String> {
        Ok(StartRef {
            index: Index(self.take_u64()?),
            term: Term(self.take_u64()?),
            membership: self.take_bytes()?,
        })
    }

    fn take_record(&mut self) -> Result<Record<'a>, String> {
        Ok(match self.take(1)?[0] {
            HARD_STATE => Record::HardState(self.take_hard_state()?),
            ENTRY => Record::Entry(EntryRef {
                index: Index(self.take_u64()?),
                term: Term(self.take_u64()?),
                kind: match self.take(1)?[0] {
                    0 => EntryKind::Noop,
                    1 => EntryKind::Command,
                    2 => EntryKind::Membership,
                    kind => return Err(format!("an entry of the unknown kind {kind}")),
                },
                data: self.take_bytes()?,
            }),
            TRUNCATE => Record::Truncate(Index(self.take_u64()?)),
            RESET => Record::Reset(self.take_start()?),
            RELEASE => Record::Release(self.take_start()?),
            MARKER => Record::Marker,
            BASE => Record::Base(self.take_hard_state()?, self.take_start()?, Index(self.take_u64()?)),
            kind => return Err(format!("a record of the unknown kind {kind}")),
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.take_record();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record<'static>> {
        let start = StartRef { index: Index(4), term: Term(2), membership: b"members" };
        let hard_state = HardState { term: Term(7), vote: Some(NodeId(3)) };
        vec![
            Record::HardState(hard_state),
            Record::HardState(HardState { term: Term(8), vote: None }),
            Record::Entry(EntryRef { index: Index(5), term: Term(8), kind: EntryKind::Noop, data: b"" }),
            Record::Entry(EntryRef {
                index: Index(6),
                term: Term(8),
                kind: EntryKind::Command,
                data: b"put",
            }),
            Record::Entry(EntryRef {
                index: Index(7),
                term: Term(8),
                kind: EntryKind::Membership,
                data: b"m",
            }),
            Record::Truncate(Index(5)),
            Record::Reset(start),
            Record::Release(start),
            Record::Marker,
            Record::Base(hard_state, start, Index(9)),
        ]
    }

    #[test]
    fn roundtrip_and_size() {
        let mut bytes = Vec::new();
        for record in samples() {
            let before = bytes.len();
            record.encode(&mut bytes);
            assert_eq!(bytes.len() - before, record.encoded_bytes(), "{record:?}");
        }
        let read: Result<Vec<_>, _> = Records::of(&bytes).collect();
        assert_eq!(read.unwrap(), samples());
    }

    #[test]
    fn a_cut_record_and_an_unknown_kind_are_errors() {
        for record in samples() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            for cut in 1..bytes.len() {
                assert!(Records::of(&bytes[..cut]).any(|r| r.is_err()), "{record:?} cut at {cut}");
            }
        }
        assert!(Records::of(&[200]).any(|r| r.is_err()));
        assert_eq!(Records::of(&[200, 1, 1]).count(), 1);
    }
}
