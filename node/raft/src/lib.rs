//! balsa-raft
pub mod types;
pub mod membership;
pub mod message;
pub mod ready;
pub use types::{Entry, EntryKind, HardState, Index, NodeId, Term};
