//! The writer. See the crate's documentation for the way of a write and its invariants.

use crate::batch::{self, BatchHeader, Position};
use crate::config::{LogConfig, LogIdentity};
use crate::error::{Doing, LogError, OpenError};
use crate::files::Folder;
use crate::record::{EntryRef, Record};
use crate::recovery::{self, Recovered};
use crate::segment;
use crate::segments::{Listing, Purpose, Segment, Segments};
use crate::state::{LogStart, State};
use balsa_raft::{Entry, HardState, Index};
use std::collections::VecDeque;

/// A buffer larger than this is given back after use, in bytes.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Room that a marker surely fits in where it needs no new segment, in bytes.
const MARKER_BYTES_MAX: u64 = batch::ALIGN_BYTES;

/// One write: what the core wants persisted, in this order. Empty parts ask for nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogWrite<'a> {
    /// Term and vote, where they changed.
    pub hard_state: Option<HardState>,
    /// The log begins anew behind this: all entries go. Its snapshot must be durable already.
    pub reset: Option<&'a LogStart>,
    /// Entries to append, contiguous. Where the log holds an entry at or beyond the first index, it is truncated there.
    pub entries: &'a [Entry],
}

/// A write-ahead log that is open for appending. It has one owner, who calls it from a thread that may block.
pub struct Log {
    segments: Segments,
    state: State,
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
    /// The last batch is a marker that covers all before it.
    marked: bool,
    /// Segments may have become unneeded; looked at after the next sync.
    retire_wanted: bool,
    poisoned: Option<String>,
}

impl Log {
    /// Makes a log in a folder that holds none (and need not exist). A crash in the middle leaves a folder in which
    /// [`Log::exists`] is false, and `create` can be called again. Durable, and marked, on return.
    pub fn create(
        folder: Folder,
        config: LogConfig,
        identity: LogIdentity,
        start: LogStart,
        hard_state: HardState,
        entries: &[Entry],
    ) -> Result<Log, LogError> {
        config.validate()?;
        folder.disk.create_dir_all(&folder.path).doing("create", &folder.path)?;
        if !Listing::read(&folder)?.live.is_empty() {
            return Err(LogError::Exists(folder.path));
        }
        let state = State::new(hard_state, start);
        let len_bytes = config.segment_bytes.max(first_segment_bytes(&config, &state, entries));
        let mut segments =
            Segments { folder, config, identity, prepared: VecDeque::new(), spares: Vec::new() };
        segments.make_reserve()?;
        let active = segments.make(1, len_bytes, Purpose::Entries)?;
        let synced = Position { segment: 1, offset: segment::HEADER_BYTES };
        let mut log = Log::new(segments, state, active, synced, 1, false);
        log.state.enter(1, len_bytes);
        log.append(&LogWrite { entries, ..LogWrite::default() })?;
        log.mark()?;
        log.segments.publish(&mut log.active)?;
        Ok(log)
    }

    /// Whether there is a log in the folder.
    pub fn exists(folder: &Folder) -> Result<bool, LogError> {
        Ok(!Listing::read(folder)?.live.is_empty())
    }

    /// Opens the log, and returns what it holds. What is returned is durable.
    pub fn open(
        folder: Folder,
        config: LogConfig,
        identity: LogIdentity,
    ) -> Result<(Log, Recovered), OpenError> {
        let opened = recovery::open(folder, config, identity)?;
        let recovered = Recovered {
            hard_state: opened.state.hard_state,
            start: opened.state.start.clone(),
            entries: opened.entries,
            torn_tail_bytes: opened.torn_tail_bytes,
        };
        let synced = Position { segment: opened.active.header.sequence, offset: opened.end };
        let mut log =
            Log::new(opened.segments, opened.state, opened.active, synced, opened.next_batch, opened.marked);
        log.retire()?;
        // A full disk must not keep a node from starting: without a reserve it takes no entries, but all else.
        match log.segments.make_reserve() {
            Ok(()) => log.mark()?,
            Err(LogError::Full { .. }) if log.ready_bytes() >= MARKER_BYTES_MAX => log.mark()?,
            Err(LogError::Full { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok((log, recovered))
    }

    fn new(
        segments: Segments,
        state: State,
        active: Segment,
        synced: Position,
        next_batch: u64,
        marked: bool,
    ) -> Log {
        Log {
            segments,
            state,
            active,
            end: synced.offset,
            synced,
            dirty: false,
            buffer: Vec::new(),
            next_batch,
            marked,
            retire_wanted: false,
            poisoned: None,
        }
    }

    /// Takes a write. Nothing is durable before [`Log::sync`] returns; several appends before it share one fsync.
    /// [`LogError::TooLarge`] and [`LogError::Full`] leave the log as it was. Only entries are refused by a full disk:
    /// a vote, a release, a reset go into a reserve.
    ///
    /// # Panics
    /// If the entries are not contiguous, leave a gap behind the last one, or lie at or below the start: the core
    /// never asks for that.
    pub fn append(&mut self, write: &LogWrite<'_>) -> Result<(), LogError> {
        self.check()?;
        let max = self.segments.config.max_record_bytes;
        let payloads = write.entries.iter().map(|entry| entry.data.len());
        if let Some(bytes) =
            payloads.chain(write.reset.map(|start| start.membership.len())).find(|&b| b > max)
        {
            return Err(LogError::TooLarge { bytes, max });
        }
        if !write.entries.is_empty() {
            let reserved = self.segments.make_reserve();
            self.final_if_failed(reserved)?;
            self.make_room(write)?;
        }
        if let Some(hard_state) = write.hard_state {
            self.push(&Record::HardState(hard_state))?;
        }
        if let Some(start) = write.reset {
            self.push(&Record::Reset(start.borrow()))?;
            self.retire_wanted = true;
        }
        if let Some(first) = write.entries.first()
            && first.index <= self.state.last
        {
            self.push(&Record::Truncate(first.index.prev()))?;
        }
        for entry in write.entries {
            self.push(&Record::Entry(EntryRef::of(entry)))?;
        }
        Ok(())
    }

    /// Writes what was appended, and makes it durable. A failure is final: nothing is known of what was appended
    /// since the last success, and every later call fails.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check()?;
        self.write_out()?;
        if self.dirty {
            let synced = self.active.file.sync_data().doing("sync", &self.active.path);
            self.final_if_failed(synced)?;
            self.dirty = false;
            self.synced = self.position();
        }
        if self.retire_wanted {
            self.retire()?;
        }
        Ok(())
    }

    /// Makes everything durable and says so in the log: whatever is damaged later, it is known to be damage and not a
    /// torn tail. For idle moments, and before the process ends. Does nothing if that was the last thing done.
    pub fn mark(&mut self) -> Result<(), LogError> {
        self.sync()?;
        if self.marked {
            return Ok(());
        }
        self.push(&Record::Marker)?;
        self.sync()?;
        self.marked = true;
        Ok(())
    }

    /// Gives up the entries up to `to.index`, whose effect must be durable elsewhere. Syncs, and so makes all that was
    /// appended durable; then recycles or removes the segments that are not needed any more.
    /// Does nothing if the log begins there or later already.
    ///
    /// # Panics
    /// If `to` lies beyond the last entry.
    pub fn release(&mut self, to: &LogStart) -> Result<(), LogError> {
        self.check()?;
        if to.index <= self.state.start.index {
            return Ok(());
        }
        let (bytes, max) = (to.membership.len(), self.segments.config.max_record_bytes);
        if bytes > max {
            return Err(LogError::TooLarge { bytes, max });
        }
        self.push(&Record::Release(to.borrow()))?;
        self.retire_wanted = true;
        self.sync()
    }

    /// Makes the next segment ahead of need, and returns whether there was anything to do. For idle moments: without
    /// it, the write that fills a segment waits for a new one to be zero-filled (tens of ms) or recycled (few).
    /// [`LogError::Full`] leaves the log as it was, and can be tried again.
    pub fn prepare_next_segment(&mut self) -> Result<bool, LogError> {
        self.check()?;
        if !self.segments.prepared.is_empty() {
            return Ok(false);
        }
        self.prepare(Purpose::Entries)?;
        Ok(true)
    }

    /// Bytes of batches that the log holds, those not needed any more but not yet retired included.
    pub fn size_bytes(&self) -> u64 {
        let active = self.active.header.sequence;
        let full = self.state.extents.iter().filter(|extent| extent.sequence != active);
        full.map(|extent| extent.len_bytes).sum::<u64>() + self.end + self.buffer.len() as u64
    }

    /// Bytes that the log's files take on the disk, prepared and spare ones included.
    pub fn disk_bytes(&self) -> u64 {
        self.state.extents.iter().map(|extent| extent.len_bytes).sum::<u64>() + self.segments.idle_bytes()
    }

    /// Bytes that can be written before a new segment is needed, and with it space on the disk unless a spare beyond
    /// the reserve is at hand. A node that keeps a reserve for deletes looks at this.
    pub fn ready_bytes(&self) -> u64 {
        let prepared =
            self.segments.prepared.iter().map(|segment| segment.header.len_bytes - segment::HEADER_BYTES);
        prepared.sum::<u64>()
            + (self.active.header.len_bytes - self.end).saturating_sub(self.buffer.len() as u64)
    }

    /// Why the log takes no more writes, if that is so.
    pub fn failure(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Where the log begins.
    pub fn start(&self) -> &LogStart {
        &self.state.start
    }

    /// The index of the first entry in the log, or, if it holds none, of the next one.
    pub fn first_index(&self) -> Index {
        self.state.start.index.next()
    }

    /// The index of the last entry, appended but not necessarily durable; the start's if there is none.
    pub fn last_index(&self) -> Index {
        self.state.last
    }

    /// Term and vote, appended but not necessarily durable.
    pub fn hard_state(&self) -> HardState {
        self.state.hard_state
    }

    fn position(&self) -> Position {
        Position { segment: self.active.header.sequence, offset: self.end }
    }

    fn check(&self) -> Result<(), LogError> {
        match &self.poisoned {
            Some(why) => Err(LogError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    fn final_if_failed<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(error) = &result
            && !matches!(error, LogError::Full { .. })
        {
            self.poisoned = Some(error.to_string());
        }
        result
    }

    /// Adds a record to the batch that is being made, or to the next one if it does not fit.
    fn push(&mut self, record: &Record<'_>) -> Result<(), LogError> {
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

    /// Prepares as many segments as a write needs before any of it is taken, so that a full disk refuses all or
    /// nothing. Counts as `push` does, rounding up.
    fn make_room(&mut self, write: &LogWrite<'_>) -> Result<(), LogError> {
        const BATCH_OVERHEAD_BYTES: u64 = batch::HEADER_BYTES as u64 + batch::ALIGN_BYTES;
        let membership =
            write.reset.map_or(0, |start| start.membership.len()).max(self.state.start.membership.len());
        let base_bytes = (self.state.base().encoded_bytes() + membership) as u64;
        let control =
            [write.hard_state.map(Record::HardState), write.reset.map(|start| Record::Reset(start.borrow()))];
        let control_bytes = control.iter().flatten().map(Record::encoded_bytes).sum::<usize>()
            + Record::Truncate(Index::ZERO).encoded_bytes();
        let records = write.entries.iter().map(|entry| Record::Entry(EntryRef::of(entry)).encoded_bytes());

        let begun = |bytes: usize| batch::HEADER_BYTES + base_bytes as usize + bytes;

        let mut left = (self.active.header.len_bytes - self.end)
            .saturating_sub(self.buffer.len() as u64 + 2 * BATCH_OVERHEAD_BYTES + base_bytes);
        let mut batch_bytes = begun(self.buffer.len());
        let mut prepared = 0;
        for record_bytes in std::iter::once(control_bytes).chain(records) {
            let mut bytes = record_bytes as u64;
            batch_bytes += record_bytes;
            if batch_bytes > self.segments.config.batch_bytes_max() {
                bytes += BATCH_OVERHEAD_BYTES;
                batch_bytes = begun(record_bytes);
            }
            while bytes > left {
                if prepared == self.segments.prepared.len() {
                    self.prepare(Purpose::Entries)?;
                }
                let room = self.segments.prepared[prepared].header.len_bytes - segment::HEADER_BYTES;
                left = room.saturating_sub(2 * BATCH_OVERHEAD_BYTES + base_bytes);
                batch_bytes = begun(record_bytes);
                prepared += 1;
            }
            left -= bytes;
        }
        Ok(())
    }

    /// Adds a segment to those that are prepared.
    fn prepare(&mut self, purpose: Purpose) -> Result<(), LogError> {
        let sequence = self.segments.next_sequence(&self.active);
        let made = self.segments.make(sequence, self.segments.config.segment_bytes, purpose);
        let mut segment = self.final_if_failed(made)?;
        let published = self.segments.publish(&mut segment);
        self.final_if_failed(published)?;
        self.segments.prepared.push_back(segment);
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
        self.marked = false;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    /// Goes on in the next segment, once all of this one is durable: recovery relies on it.
    fn roll(&mut self) -> Result<(), LogError> {
        if self.dirty {
            let synced = self.active.file.sync_data().doing("sync", &self.active.path);
            self.final_if_failed(synced)?;
            self.dirty = false;
            self.synced = self.position();
        }
        if self.segments.prepared.is_empty() {
            // For entries there is one already (see `make_room`); the rest have a reserve, and when that is used up
            // as well, part of a write may have been taken.
            let prepared = self.prepare(Purpose::Control).map_err(|error| match error {
                LogError::Full { path, source } => LogError::Io { doing: "allocate", path, source },
                error => error,
            });
            self.final_if_failed(prepared)?;
        }
        let Some(next) = self.segments.prepared.pop_front() else {
            unreachable!("no segment is prepared behind {:x}", self.active.header.sequence)
        };
        self.state.enter(next.header.sequence, next.header.len_bytes);
        self.active = next;
        self.end = segment::HEADER_BYTES;
        Ok(())
    }

    /// Takes segments that nothing needs out of the log. All records are durable when this is called.
    fn retire(&mut self) -> Result<(), LogError> {
        self.retire_wanted = false;
        while let Some(extent) = self.state.removable() {
            let retired = self.segments.retire(extent.sequence, extent.len_bytes);
            self.final_if_failed(retired)?;
            self.state.extents.pop_front();
        }
        Ok(())
    }
}

/// How long the first segment must be to hold all that a log begins with, in bytes: founding is one rename.
fn first_segment_bytes(config: &LogConfig, state: &State, entries: &[Entry]) -> u64 {
    let records = entries.iter().map(|e| Record::Entry(EntryRef::of(e)).encoded_bytes()).sum::<usize>()
        + state.base().encoded_bytes()
        + Record::Marker.encoded_bytes();
    // Any two batches that follow each other hold more than the largest one may.
    let batches = 3 + 2 * records / config.batch_bytes_max();
    let bytes = records + batches * (batch::HEADER_BYTES + batch::ALIGN_BYTES as usize);
    segment::HEADER_BYTES + (bytes as u64).next_multiple_of(segment::HEADER_BYTES)
}
