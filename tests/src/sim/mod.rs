//! Deterministic simulation: N production nodes (engine, log, store) on simulated clock, network and disk.
//!
//! One thread, one seed; the same seed gives the same trace, byte for byte. A run is an *hour* of simulated time in which
//! clients work and faults strike; oracles watch throughout, and at the end everything heals and must make progress.
//!
//! ```text
//!   clients  ──► world (clock, queue of events) ──► node: engine, log stage, apply stage
//!   operator ──►   │        ▲                          │
//!   faults   ──►   │        │                          │
//!                  ▼        └── network, disks ◄───────┘
//!               oracle: what was committed, what was answered, who led, who voted
//! ```
//!
//! What it does not simulate: HTTP and the framing of peers' messages (their tests are beside them); how a process founds,
//! joins and learns that it was removed (`node/src/life`; here the operator does it in a thin way); and the embedded engine,
//! in whose place stands one in memory that loses what was not made durable. Nodes of different feature levels are all of
//! one build. How to read what it prints: `docs/simulation.md`.
//!
//! Modules in reading order: [`trace`], [`node`], [`network`], [`clients`], [`faults`], [`oracle`], [`world`].

pub mod clients;
pub mod faults;
pub mod network;
pub mod node;
pub mod oracle;
pub mod report;
pub mod trace;
pub mod watchers;
pub mod world;

pub use report::Report;
pub use world::{Options, run_hour};

/// A moment, in microseconds of simulated time.
pub type Micros = u64;

/// One simulated second.
pub const SECOND: Micros = 1_000_000;

/// One simulated millisecond.
pub const MILLI: Micros = 1_000;
