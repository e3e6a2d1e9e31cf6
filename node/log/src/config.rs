//! What a log is told by its owner. Knows nothing of files.

use crate::error::LogError;
use crate::{batch, segment};

/// Settings of a log. They may differ from one opening to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Length of a new segment file, in bytes. The first one of a log may be longer.
    pub segment_bytes: u64,
    /// The largest payload of an entry, and the largest membership, in bytes.
    pub max_record_bytes: usize,
    /// How many retired segments are kept to be recycled, which is much cheaper than to zero-fill new ones.
    pub recycle_segments: usize,
    /// Mixed into the salt of each segment made from now on. Should be unpredictable to those who write values, so
    /// that no value can look like a batch; the simulator gives a seeded one. Any value is safe against accidents.
    pub salt: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { segment_bytes: 16 << 20, max_record_bytes: 4 << 20, recycle_segments: 4, salt: 0 }
    }
}

impl LogConfig {
    /// Checks that a batch with a base record and the largest entry fits into a segment.
    pub fn validate(&self) -> Result<(), LogError> {
        // A base record carries a membership, so the first batch of a segment may hold two large payloads.
        let needed = segment::HEADER_BYTES
            + (batch::HEADER_BYTES + 512) as u64
            + 2 * (self.max_record_bytes as u64 + 128);
        if self.segment_bytes < needed || self.max_record_bytes > (1 << 30) {
            return Err(LogError::Config(format!(
                "segment_bytes {} is too small for max_record_bytes {}: at least {needed} is needed (and records of at \
                 most 1 GiB)",
                self.segment_bytes, self.max_record_bytes
            )));
        }
        if !self.segment_bytes.is_multiple_of(batch::ALIGN_BYTES) {
            return Err(LogError::Config(format!(
                "segment_bytes {} is not a multiple of {}",
                self.segment_bytes,
                batch::ALIGN_BYTES
            )));
        }
        Ok(())
    }

    /// A batch is written out before it grows beyond this, so that its buffer stays small and segments fill up, in
    /// bytes. A larger record has a batch for itself.
    pub(crate) fn batch_bytes_max(&self) -> usize {
        (self.segment_bytes / 8).min(2 << 20) as usize
    }
}

/// Whose log it is. In the header of each segment; a log of another cluster or node does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster's id.
    pub cluster: u64,
    /// The node's id.
    pub node: u64,
}
