//! balsa-store: the keyspace and its persistence.
//!
//! The store turns log entries into replies and a state that can be read. It knows keys, revisions, replies and
//! sessions; it does not know Raft: an index is only a number that goes up by one.
//!
//! ```text
//! entry ──apply──▶ active overlay ──rotate──▶ frozen overlay ──flush job──▶ engine (on disk)
//!                     │                            │                          │
//!                     └────────────── publish: a View over all three ─────────┘
//! ```
//!
//! Modules in reading order: [`command`] is what entries and replies are; [`model`] says what they mean, in the
//! simplest way; [`store`](Store) does the same at speed; [`engine`] is what it stands on.
//!
//! What this crate never does: read a clock, draw a random number, let the order of a hash map show, answer from a
//! state that was not published, or skip an entry.

pub mod command;
pub mod model;

mod ages;
mod apply;
mod batch;
mod store;
mod txn;

mod config;
mod error;
mod outlook;
mod position;

mod digest;
mod layers;
mod lease_table;
mod leases;
mod overlay;
mod replies;
mod rows;
mod sessions;
mod side;

mod flush;
mod history;
mod hot_rows;
mod reader;
mod snapshot;
mod succession;
mod sweep;
mod walk_back;

mod background;
pub mod engine;
mod fjall_compaction;
mod fjall_engine;
mod fjall_manifest;
mod memory_engine;

pub use background::give_way;
pub use config::StoreConfig;
pub use error::{ApplyError, EngineError, StoreError};
pub use fjall_engine::FjallEngine;
pub use flush::FlushJob;
pub use history::{Change, Changed, Changes, Order, PastError, Scan};
pub use layers::Values;
pub use lease_table::{LeaseInfo, LeaseKind, LockInfo, LockStanding};
pub use memory_engine::MemoryEngine;
pub use outlook::Outlook;
pub use position::{FEATURE_LEVEL, FIRST_LEVEL, Position};
pub use reader::{Count, Page, Reader, Stats, View};
pub use snapshot::{SnapshotSink, SnapshotSource, StagedSnapshot};
pub use store::Store;
pub use succession::{SUCCESSION_STEP, Succession};
