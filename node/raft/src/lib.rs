//! balsa-raft: the consensus core. A replicated log by the Raft algorithm, as a synchronous state machine
//! without input or output.
//!
//! It knows bytes, terms and indexes. It deliberately does not know keys, files, sockets, clocks or threads;
//! time comes in ticks and randomness as a seed, so equal inputs give equal outputs. Its name for a section
//! of Ongaro's dissertation, "Consensus: Bridging Theory and Practice" (2014), is *thesis*.
//!
//! # The algorithm
//! Time is divided into terms, each with at most one leader. The leader appends what is proposed to its log
//! and *replicates* it; what a quorum holds durably is *committed*, and every node *applies* it in order.
//! - **Elections.** A follower that hears from no leader for a random time asks whether it would be voted for
//!   (pre-vote), then asks for votes. A vote goes to the first who asks in a term and whose log is not behind
//!   the voter's; none is given while a leader is alive, unless that leader itself hands over. A quorum of
//!   votes makes a leader.
//! - **Commit.** A leader counts an entry as held by a peer when that says so, by itself when its own disk
//!   says so, and commits only entries of its own term; all before commit with them.
//! - **Safety.** Any two quorums share a node. Whoever is elected has therefore every entry that was
//!   committed before.
//! - **Reads** need no entry: a leader that a quorum acknowledges after the read arrived was still the leader
//!   then.
//! - **Membership** is itself an entry, effective as soon as it is appended; more than one voter changes by
//!   way of a joint phase in which the old and the new majority both decide everything.
//!
//! # The contract with the driver
//! Inputs are methods of [`Raft`]; each returns at once. After one or many, the driver takes a [`Ready`] and
//! ```text
//!   take_ready ─┬─ send      now
//!               ├─ persist   write in the order of tokens ──▶ then_send, handle_persisted(token)
//!               ├─ apply     in order ──────────────────────▶ handle_applied(index)
//!               └─ reads_confirmed, snapshots_wanted, ...
//! ```
//! What may leave before the disk has confirmed and what may not are different fields, so that no order has
//! to be remembered. Writes may be many at a time, and a completion confirms all before it. What fails on the
//! disk is not the core's: a driver that cannot write stops.
//!
//! Indexes relate so:
//! ```text
//!   compacted <= applied <= commit <= last        compacted <= stable <= last        applied <= stable
//! ```
//! `commit` may be beyond `stable`: a quorum may be durable without this node. What is handed out to apply is
//! both. A restarted node does not know what is committed beyond what its state has applied, until a leader
//! tells.
//!
//! **Snapshots.** A follower behind the compacted log is named in [`Ready::snapshots_wanted`]; the driver
//! streams a state to it, in the term of that Ready, and reports with [`Raft::handle_snapshot_sent`]. At the
//! receiver the driver asks [`Raft::offer_snapshot`], makes the state durable, and calls
//! [`Raft::install_snapshot`]. Only when that gives `true` does the new state replace the old one.
//!
//! **Founding.** Every founder writes [`Raft::bootstrap_entry`] and a hard state of term 1 without a vote; a
//! node that joins later starts blank ([`Restored::blank`]) and is proposed as a learner.
//!
//! # What may never happen
//! Two leaders of one term, a committed entry overwritten, terms or applied entries going back: where one of
//! these shows, or an invariant of a module fails, the core panics with the values. It must not go on, in
//! release neither.

// In the order in which a newcomer should read them.
pub mod types;

pub mod message;

pub mod quorum;

pub mod membership;

mod log;

mod progress;

mod read;

pub mod ready;

mod persist;

mod pace;

mod node;

mod role;

pub mod config;

pub mod status;

pub mod error;

mod random;

pub use config::{Config, ConfigError};
pub use error::{MembershipError, ProposeError, ReadError, RestoreError, TransferError};
pub use membership::{Change, ChangeError, Membership};
pub use message::{Body, Message};
pub use node::{Raft, Restored};
pub use ready::{Persist, PersistToken, ReadConfirmed, ReadId, Ready, SnapshotMeta};
pub use role::{SnapshotDecision, SnapshotOutcome};
pub use status::{PeerState, PeerStatus, Role, Status};
pub use types::{Entry, EntryKind, HardState, Index, NodeId, Term};
