//! The words of the algorithm: nodes, terms, indexes, entries, and what a node must remember across a crash.

use bytes::Bytes;
use std::fmt;

/// A node's identity, minted once on its disk and never reused. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A leader's reign; there is at most one leader a term. 0 before the first election.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// A position in the log. The first entry has index 1; 0 means "before the first".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Index(pub u64);

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Index {
    /// Before the first entry.
    pub const ZERO: Index = Index(0);

    /// The index after this one.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; the one before 0 is 0.
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

macro_rules! print_as_number {
    ($name:ident, $format:literal) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}
print_as_number!(NodeId, "{:x}");
print_as_number!(Term, "{}");
print_as_number!(Index, "{}");

/// What an entry is to the core. What the bytes of a command mean, only the store knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum EntryKind {
    /// Appended by every new leader: what commits first in its term, and with it all before (thesis 3.6.2,
    /// 6.4).
    Noop,
    /// Opaque bytes for the state machine.
    Command,
    /// A membership; `data` is [`crate::membership::Membership`] as encoded by the core. Effective on append.
    Membership,
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its position.
    pub index: Index,
    /// The term of the leader that appended it.
    pub term: Term,
    /// What it is.
    pub kind: EntryKind,
    /// Its payload, shared and never copied on the way to log, peers and store.
    pub data: Bytes,
}

impl Entry {
    /// What an entry costs in queues, messages and the log beyond its payload, in bytes; budgets count it.
    pub const OVERHEAD_BYTES: usize = 32;

    /// Its size against every budget in bytes.
    pub fn size_bytes(&self) -> usize {
        Self::OVERHEAD_BYTES + self.data.len()
    }
}

/// What must be durable before a message that depends on it may leave (thesis 3.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardState {
    /// The highest term seen.
    pub term: Term,
    /// For whom this node voted in `term`.
    pub vote: Option<NodeId>,
}
