//! Where records go: into a batch, into the active segment, into the next one. Keeps the books of what is durable.
//!
//! Knows neither when to sync nor what a write asks for; [`crate::Log`] does. Invariant: a segment is left only after
//! all of it is durable, so that only the last one with batches can have a torn tail.

use crate::batch::{self, BatchHeader, Position};
use crate::error::{Doing, LogError};
use crate::record::Record;
use crate::segment;
use crate::segments::{Purpose, Segment, Segments};
use crate::state::State;

/// A buffer larger than this is given back after use, in bytes.
const BUFFER_BYTES_KEPT: usize = 1 << 20;
/// What a batch may cost beyond its records, in bytes.
pub(crate) const BATCH_OVERHEAD_BYTES: usize = batch::HEADER_BYTES + batch::ALIGN_BYTES as usize;

pub(crate) struct Writer {
    pub(crate) segments: Segments,
    /// The sum of everything that was pushed.
    pub(crate) state: State,
    active: Segment,
    /// Where the next batch goes, in bytes from the beginning of the active segment.
    end: u64,
    /// Everything before is durable.
    synced: Position,
    /// Written since the last sync.
    dirty: bool,
    /// The batch that is being made: empty, or room for a header and then records.
    buffer: Vec<u8>,
    next_batch: u64,
    /// Why nothing is written any more.
    failure: Option<String>,
}

impl Writer {
    /// Goes on at `end` of the active segment; all before is durable.
    pub(crate) fn new(
        segments: Segments,
        state: State,
        mut active: Segment,
        end: u64,
        next_batch: u64,
    ) -> Writer {
        active.file.prefer_direct();
        let synced = Position { segment: active.header.sequence, offset: end };
        let (dirty, buffer, failure) = (false, Vec::new(), None);
        Writer { segments, state, active, end, synced, dirty, buffer, next_batch, failure }
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(crate) fn check(&self) -> Result<(), LogError> {
        match &self.failure {
            Some(why) => Err(LogError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    /// The sequence of the last batch that was written.
    pub(crate) fn last_batch(&self) -> u64 {
        self.next_batch - 1
    }

    /// Bytes of the active segment up to the end of what was pushed.
    pub(crate) fn active_bytes(&self) -> u64 {
        self.end + self.buffer.len() as u64
    }

    /// Bytes that fit behind what was pushed into segments that are there.
    pub(crate) fn ready_bytes(&self) -> u64 {
        let prepared = self.segments.prepared.iter().map(Segment::capacity_bytes);
        self.active_bytes_left() + prepared.sum::<u64>()
    }

    fn active_bytes_left(&self) -> u64 {
        self.active.header.len_bytes.saturating_sub(self.active_bytes())
    }

    /// Adds a record to the batch that is being made, or to the next one if it does not fit.
    ///
    /// # Panics
    /// If the record cannot follow those before.
    pub(crate) fn push(&mut self, record: &Record<'_>) -> Result<(), LogError> {
        let bytes = record.encoded_bytes();
        self.begin_batch();
        if self.buffer.len() > batch::HEADER_BYTES
            && self.buffer.len() + bytes > self.segments.config.batch_bytes_max()
        {
            self.write_out()?;
            self.begin_batch();
        }
        while !self.fits(bytes) {
            self.write_out()?;
            let counted = !matches!(record, Record::Entry(_)) || !self.segments.prepared.is_empty();
            debug_assert!(counted, "no room was made for an entry of {bytes} bytes");
            self.roll()?;
            self.begin_batch();
        }
        record.encode(&mut self.buffer);
        if let Err(why) = self.state.note(record) {
            panic!("the log was asked for what cannot be: {why}");
        }
        Ok(())
    }

    fn begin_batch(&mut self) {
        if self.buffer.is_empty() {
            self.buffer.resize(batch::HEADER_BYTES, 0);
            if self.end == segment::HEADER_BYTES {
                self.state.base().encode(&mut self.buffer);
            }
        }
    }

    fn fits(&self, bytes: usize) -> bool {
        let batch_bytes = ((self.buffer.len() + bytes) as u64).next_multiple_of(batch::ALIGN_BYTES);
        self.end + batch_bytes <= self.active.header.len_bytes
    }

    /// Writes what was pushed and makes it durable.
    pub(crate) fn sync(&mut self) -> Result<(), LogError> {
        self.write_out()?;
        self.sync_active()
    }

    /// Writes the batch that is being made, if it holds anything. Not durable yet.
    fn write_out(&mut self) -> Result<(), LogError> {
        if self.buffer.len() <= batch::HEADER_BYTES {
            self.buffer.clear();
            return Ok(());
        }
        let header = BatchHeader {
            salt: self.active.header.salt,
            sequence: self.next_batch,
            offset: self.end,
            synced: self.synced,
        };
        batch::seal(&mut self.buffer, &header);
        let bytes = self.buffer.len() as u64;
        assert!(self.end + bytes <= self.active.header.len_bytes, "{bytes} bytes at {} do not fit", self.end);
        let written = self.active.file.write_all_at(&self.buffer, self.end).doing("write", &self.active.path);
        self.final_if_failed(written)?;
        self.end += bytes;
        self.next_batch += 1;
        self.dirty = true;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), LogError> {
        if self.dirty {
            let synced = self.active.file.sync_data().doing("sync", &self.active.path);
            self.final_if_failed(synced)?;
            self.dirty = false;
            self.synced = Position { segment: self.active.header.sequence, offset: self.end };
        }
        Ok(())
    }

    /// Makes the active segment, under a name that is not part of the log yet, part of it.
    pub(crate) fn publish_active(&mut self) -> Result<(), LogError> {
        let published = self.segments.publish(&mut self.active);
        self.final_if_failed(published)
    }

    /// Goes on in the next segment, once all of this one is durable: recovery relies on it.
    fn roll(&mut self) -> Result<(), LogError> {
        self.sync_active()?;
        if self.segments.prepared.is_empty() {
            // For entries there is one already (see `make_room`); the rest have a reserve. When that is used up as
            // well, part of a write may have been taken, so this is not the clean refusal that `Full` is.
            let prepared = self.prepare(Purpose::Control).map_err(|error| match error {
                LogError::Full { path, source } => LogError::Io { doing: "allocate", path, source },
                error => error,
            });
            self.final_if_failed(prepared)?;
        }
        let Some(mut next) = self.segments.prepared.pop_front() else {
            unreachable!("no segment is prepared behind {:x}", self.active.header.sequence)
        };
        self.state.enter(next.header.sequence, next.header.len_bytes);
        next.file.prefer_direct();
        self.active = next;
        self.end = segment::HEADER_BYTES;
        Ok(())
    }

    /// Prepares as many segments as records of these sizes need, in bytes, before any of them is pushed, so that a
    /// full disk refuses all or nothing. Counts as `push` does, rounding up. `memberships_bytes`: the size of the
    /// membership that a base record among them may have to carry.
    pub(crate) fn make_room(
        &mut self,
        membership_bytes: usize,
        records_bytes: impl Iterator<Item = usize>,
    ) -> Result<(), LogError> {
        let reserved = self.segments.make_reserve();
        self.final_if_failed(reserved)?;
        let base_bytes = self.state.base().encoded_bytes() + membership_bytes;
        let slack_bytes = (base_bytes + 2 * BATCH_OVERHEAD_BYTES) as u64;
        let batch_bytes_max = self.segments.config.batch_bytes_max();
        let mut left = self.active_bytes_left().saturating_sub(slack_bytes);
        let mut batch_bytes = batch::HEADER_BYTES + base_bytes + self.buffer.len();
        let mut prepared = 0;
        for record_bytes in records_bytes {
            let mut bytes = record_bytes;
            batch_bytes += record_bytes;
            if batch_bytes > batch_bytes_max {
                bytes += BATCH_OVERHEAD_BYTES;
                batch_bytes = batch::HEADER_BYTES + base_bytes + record_bytes;
            }
            while bytes as u64 > left {
                if prepared == self.segments.prepared.len() {
                    self.prepare(Purpose::Entries)?;
                }
                left = self.segments.prepared[prepared].capacity_bytes().saturating_sub(slack_bytes);
                batch_bytes = batch::HEADER_BYTES + base_bytes + record_bytes;
                prepared += 1;
            }
            left -= bytes as u64;
        }
        Ok(())
    }

    /// Adds a segment to those that are prepared.
    pub(crate) fn prepare(&mut self, purpose: Purpose) -> Result<(), LogError> {
        let sequence = self.segments.next_sequence(&self.active);
        let made = self.segments.make(sequence, self.segments.config.segment_bytes, purpose);
        let mut segment = self.final_if_failed(made)?;
        let published = self.segments.publish(&mut segment);
        self.final_if_failed(published)?;
        self.segments.prepared.push_back(segment);
        Ok(())
    }

    /// Takes segments that nothing needs out of the log. Everything that was pushed is durable when this is called.
    pub(crate) fn retire(&mut self) -> Result<(), LogError> {
        assert!(self.buffer.is_empty() && !self.dirty, "segments retire before a sync");
        while let Some(extent) = self.state.removable() {
            let retired = self.segments.retire(extent.sequence, extent.len_bytes);
            self.final_if_failed(retired)?;
            self.state.extents.pop_front();
        }
        Ok(())
    }

    /// Remembers a failure, unless it is one that leaves everything as it was.
    fn final_if_failed<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(error) = &result
            && !matches!(error, LogError::Full { .. })
        {
            self.failure = Some(error.to_string());
        }
        result
    }
}
