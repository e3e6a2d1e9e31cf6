//! Watches: the store's changes, in order, to whoever asked for them.
//!
//! ```text
//! store ──publish──▶ signal ──▶ hub: feed ──one batch for all──▶ ring ──▶ cursor of each watcher ──▶ its door
//!   └──────────────────────── history, for cursors that the ring has left behind ─────────▲
//! ```
//!
//! In reading order: [`filter`], what a watcher wants; [`event`], what it gets; [`cursor`], how one watcher walks, pure
//! and the same in the simulator; [`feed`] and [`ring`], the newest changes made ready once for all; [`hub`], the thread
//! that feeds, proves progress and ends what must end; [`signal`], how it learns that there is more.
//!
//! What this module does not know: HTTP, how events are written, and Raft.
//!
//! Invariants: a watcher has no queue, only a position, so a slow one costs nothing but its connection; whatever way a
//! revision comes (ring or history), a cursor gives it once, whole and in order; while nobody watches, a write pays one
//! load of a counter.

pub mod cursor;
pub mod event;
pub mod feed;
pub mod filter;
pub mod hub;
pub mod ring;
pub mod signal;
#[cfg(test)]
mod tests;

pub use cursor::{Cursor, Next, Revision};
pub use event::{Event, What};
pub use feed::{Fed, Feed};
pub use filter::{Filter, Interests, Keys};
pub use hub::{Head, Hub, HubConfig, Registration, TooManyWatchers};
pub use ring::Ring;
pub use signal::Signal;
