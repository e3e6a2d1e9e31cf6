//! balsa-log: the write-ahead log of the consensus core.
//!
//! What the core calls *durable* (term, vote, entries; Raft thesis 3.8) is durable because [`Log::sync`] returned
//! `Ok`. The log knows indexes and terms; it knows neither keys nor members (a membership is bytes to it), has no
//! thread, no clock and no randomness, and never reads an entry back except when it is opened.
//!
//! ```text
//! folder/0000000000000007.log    oldest segment: its first batch begins with a Base, the state to start replay from
//!        0000000000000008.log    active segment: batches up to the end of the log, then zeros or recycled bytes
//!        0000000000000009.log    prepared: a header, no batch yet
//!        0000000000000003.spare  retired, to be recycled; the last one is a reserve for releases and votes
//!        000000000000000a.new    being made, not part of the log
//! ```
//! `append` encodes into one buffer; `sync` writes it as one checksummed batch and calls fdatasync once, however
//! many appends there were (group commit). A batch header tells up to where the log was durable when it was written:
//! damage below any such *synced end* is damage to acknowledged data and refuses to open, what lies above is a torn
//! tail and is cut (FAST'18, protocol-aware recovery).
//!
//! ```
//! use balsa_log::{Folder, Log, LogConfig, LogIdentity, LogStart, LogWrite, SimDisk};
//! use balsa_raft::{Entry, EntryKind, HardState, Index, Term};
//!
//! let folder = Folder { disk: SimDisk::new().shared(), path: "/node/log".into() };
//! let (config, identity) = (LogConfig::default(), LogIdentity { cluster: 7, node: 9 });
//! let (start, hard_state) = (LogStart::default(), HardState::default());
//! let mut log = Log::create(folder.clone(), config.clone(), identity, start, hard_state, &[])?;
//!
//! let entry = Entry { index: Index(1), term: Term(1), kind: EntryKind::Noop, data: Default::default() };
//! let hard_state = Some(HardState { term: Term(1), vote: None });
//! log.append(&LogWrite { hard_state, entries: &[entry.clone()], ..LogWrite::default() })?;
//! log.sync()?; // only now may the core count on it
//! drop(log);
//!
//! let (_, recovered) = Log::open(folder, config, identity)?;
//! assert_eq!(recovered.entries, [entry]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants, in order of their making: a segment's name appears only after its header is durable; a segment is
//! left only after all of it is durable; segments disappear from the front, one at a time, only after a durable
//! record says that nothing in them is needed.
//!
//! Modules in reading order: [`files`] (the disk, real or simulated), `config`, `segment`, `batch` and `record` (the
//! format), `state` and `replay` (what records mean), `recovery` (opening), `segments` (making and retiring files),
//! `writer`, [`Log`].

mod batch;
mod config;
mod error;
pub mod files;
mod log;
mod record;
mod recovery;
mod replay;
mod segment;
mod segments;
mod state;
mod writer;

pub use config::{LogConfig, LogIdentity};
pub use error::{LogError, OpenError};
pub use files::{Disk, DiskFile, Folder, RealDisk, SharedDisk, SimDisk};
pub use log::{Log, LogWrite};
pub use recovery::Recovered;
pub use state::LogStart;
