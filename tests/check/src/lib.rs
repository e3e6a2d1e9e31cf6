//! balsa-check: is a recorded history linearizable? That is: can every operation be given one instant between its call
//! and its answer, so that a single store doing one operation after another would have answered the same (Herlihy and
//! Wing, 1990)?
//!
//! Two ways to find out:
//! - [`replay`]: where every answer tells a revision, the order is known. The history is replayed in that order, and the
//!   order in real time must agree. Linear in the history, and it judges what touches many keys, too.
//! - [`search`]: without revisions an order must be found, after Wing and Gong (1993) with the memory of Lowe (2017), key
//!   by key: a history is linearizable if it is so for each key (Herlihy and Wing's locality).
//!
//! Before a replay, [`origin`] looks for values that nobody wrote.
//!
//! An operation whose outcome is unknown may have happened at any time after its call, or never.
//!
//! And what a watcher gets of a history, [`watch`] judges; what holders of a lock did, [`locks`].
//!
//! It knows nothing of Balsa but the meaning of its operations: no network, no clock, no files. [`check`] is all that most
//! need; what it finds wrong, [`picture`] draws.

// In the order in which a newcomer should read them.
pub mod history;

pub mod json_lines;

pub mod foreign;

pub mod model;

pub mod origin;

pub mod search;

pub mod by_key;

pub mod replay;

pub mod verdict;

pub mod watch;

pub mod locks;

pub mod picture;

pub mod generate;

pub use history::{Condition, History, Kind, Operation, Outcome, Step, Txn};
pub use verdict::{Verdict, Violation, check};
