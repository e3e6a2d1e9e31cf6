//! The embedded engine as the store sees it: an ordered map from bytes to bytes that lies on a disk.
//!
//! It knows neither keys nor revisions nor Raft. What the store asks of it:
//! - **One write path.** Sorted rows go in by [`StateEngine::ingest`], all or none, and are durable once
//!   [`StateEngine::persist`] has returned. Nothing is written any other way, so no journal is needed: the consensus log
//!   is the journal.
//! - **Consistent reads.** An [`EngineSnapshot`] shows the rows as they were when it was taken, for as long as it is
//!   held, whatever is ingested, compacted or replaced since.
//! - **Replacement.** [`StateEngine::begin_replace`] stages another image; at its end it takes the place of all rows at
//!   once and durably.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::EngineError;

/// A row to be written: `None` deletes the key.
pub type Change = (Bytes, Option<Bytes>);

/// Rows in order of their keys. Owns its view: it may outlive the snapshot it came from.
pub type RowIter = Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + Send>;

/// An ordered map from bytes to bytes on a disk.
pub trait StateEngine: Send + Sync + 'static {
    /// The rows as they are now.
    fn snapshot(&self) -> Arc<dyn EngineSnapshot>;

    /// Writes rows, in strictly ascending order of their keys, all or none. Visible to later snapshots at return.
    /// One call at a time. A failure for want of room ([`EngineError::no_room`]) leaves all as it was.
    fn ingest(&self, rows: &mut dyn Iterator<Item = Change>) -> Result<(), EngineError>;

    /// Makes what was ingested durable.
    fn persist(&self) -> Result<(), EngineError>;

    /// Starts to stage an image that is to take the place of all rows. An earlier one that was not finished is dropped.
    fn begin_replace(&self) -> Result<Box<dyn Replacement>, EngineError>;

    /// Bytes on disk, approximately.
    fn size_bytes(&self) -> u64;

    /// Bytes that the disk has left.
    fn free_bytes(&self) -> Result<u64, EngineError>;
}

/// The rows of an engine at one moment.
pub trait EngineSnapshot: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Rows in ascending order.
    fn scan(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter;

    /// Rows in descending order.
    fn scan_back(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter;
}

/// An image that is being staged.
pub trait Replacement: Send {
    /// Adds rows, in ascending order and above all those added before.
    fn add(&mut self, rows: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<(), EngineError>;

    /// Puts the staged image in the place of all rows, atomically; durable at return. Dropping instead discards it.
    fn finish(self: Box<Self>) -> Result<(), EngineError>;
}
