//! balsa-raft: the consensus core.

pub mod config;
pub mod error;
mod log;
pub mod membership;
pub mod message;
mod node;
mod persist;
mod progress;
pub mod quorum;
mod random;
mod read;
pub mod ready;
mod role;
pub mod status;
pub mod types;

pub use config::{Config, ConfigError};
pub use error::{MembershipError, ProposeError, ReadError, RestoreError, TransferError};
pub use membership::{Change, ChangeError, Membership};
pub use message::{Body, Message};
pub use node::{Raft, Restored};
pub use ready::{Persist, PersistToken, ReadConfirmed, ReadId, Ready, SnapshotMeta};
pub use role::{SnapshotDecision, SnapshotOutcome};
pub use status::{PeerState, PeerStatus, Role, Status};
pub use types::{Entry, EntryKind, HardState, Index, NodeId, Term};
