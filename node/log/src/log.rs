//! The log as its owner sees it. See the crate's documentation for the way of a write and its invariants.

use crate::batch;
use crate::config::{LogConfig, LogIdentity};
use crate::error::{Doing, LogError, OpenError};
use crate::files::Folder;
use crate::record::{EntryRef, Record};
use crate::recovery::{self, Recovered};
use crate::segment;
use crate::segments::{Listing, Purpose, Segments};
use crate::state::{LogStart, State};
use crate::writer::{BATCH_OVERHEAD_BYTES, Writer};
use balsa_raft::{Entry, HardState, Index};
use std::collections::VecDeque;

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
/// Dropping it writes nothing: what was not synced is lost, as in a crash.
pub struct Log {
    writer: Writer,
    /// The batch that is a marker, if one was written.
    marker: Option<u64>,
    /// Segments may have become unneeded; looked at after the next sync.
    retire_wanted: bool,
}

impl Log {
    /// Makes a log in a folder that holds none (and need not exist). A crash in the middle leaves a folder in which
    /// [`Log::exists`] is false, and `create` can be called again. Durable, and marked, on return.
    ///
    /// # Panics
    /// If the entries do not follow `start`.
    pub fn create(
        folder: Folder,
        config: LogConfig,
        identity: LogIdentity,
        start: LogStart,
        hard_state: HardState,
        entries: &[Entry],
    ) -> Result<Log, LogError> {
        config.validate()?;
        check_sizes(&config, entries, Some(&start))?;
        folder.disk.create_dir_all(&folder.path).doing("create", &folder.path)?;
        if !Listing::read(&folder)?.live.is_empty() {
            return Err(LogError::Exists(folder.path));
        }
        let mut state = State::new(hard_state, start);
        let len_bytes = config.segment_bytes.max(first_segment_bytes(&config, &state, entries));
        state.enter(1, len_bytes);
        let mut segments =
            Segments { folder, config, identity, prepared: VecDeque::new(), spares: Vec::new() };
        segments.make_reserve()?;
        let active = segments.make(1, len_bytes, Purpose::Entries)?;
        let writer = Writer::new(segments, state, active, segment::HEADER_BYTES, 1);
        let mut log = Log { writer, marker: None, retire_wanted: false };
        // All in one segment that has no name yet: a log with a part of this is never there.
        for entry in entries {
            log.writer.push(&Record::Entry(EntryRef::of(entry)))?;
        }
        log.mark()?;
        let extents = log.writer.state.extents.len();
        assert_eq!(extents, 1, "segments of a log that begins with {} entries", entries.len());
        log.writer.publish_active()?;
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
        check_base(&opened.segments.config, &opened.state)?;
        let recovered = Recovered {
            hard_state: opened.state.hard_state,
            start: opened.state.start.clone(),
            entries: opened.entries,
            torn_tail_bytes: opened.torn_tail_bytes,
        };
        let writer = Writer::new(opened.segments, opened.state, opened.active, opened.end, opened.next_batch);
        let marker = opened.marked.then(|| writer.last_batch());
        let mut log = Log { writer, marker, retire_wanted: false };
        log.writer.retire()?;
        // A full disk must not keep a node from starting: without a reserve it takes no entries, but all else.
        match log.writer.segments.make_reserve() {
            Ok(()) => log.mark()?,
            Err(LogError::Full { .. }) if log.ready_bytes() >= MARKER_BYTES_MAX => log.mark()?,
            Err(LogError::Full { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok((log, recovered))
    }

    /// Takes a write. Nothing is durable before [`Log::sync`] returns; several appends before it share one fsync.
    /// [`LogError::TooLarge`] and [`LogError::Full`] leave the log as it was. Only writes with entries are refused by
    /// a full disk: a vote, a release, a reset go into a reserve.
    ///
    /// # Panics
    /// If the entries are not contiguous, leave a gap behind the last one, or lie at or below the start; if the term
    /// falls, or the vote in a term changes: the core never asks for that.
    pub fn append(&mut self, write: &LogWrite<'_>) -> Result<(), LogError> {
        self.writer.check()?;
        let LogWrite { hard_state, reset, entries } = *write;
        check_sizes(&self.writer.segments.config, entries, reset)?;
        let before = [hard_state.map(Record::HardState), reset.map(|start| Record::Reset(start.borrow()))];
        let last = reset.map_or(self.last_index(), |start| start.index);
        let truncate = entries.first().filter(|first| first.index <= last);
        let records = before
            .into_iter()
            .flatten()
            .chain(truncate.map(|first| Record::Truncate(first.index.prev())))
            .chain(entries.iter().map(|entry| Record::Entry(EntryRef::of(entry))));
        if !entries.is_empty() {
            let membership_bytes = reset.map_or(0, |start| start.membership.len());
            self.writer.make_room(membership_bytes, records.clone().map(|record| record.encoded_bytes()))?;
        }
        self.retire_wanted |= reset.is_some();
        for record in records {
            self.writer.push(&record)?;
        }
        Ok(())
    }

    /// Writes what was appended, and makes it durable. A failure is final: nothing is known of what was appended
    /// since the last success, and every later call fails.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.writer.check()?;
        self.writer.sync()?;
        if self.retire_wanted {
            self.retire_wanted = false;
            self.writer.retire()?;
        }
        Ok(())
    }

    /// Makes everything durable and says so in the log: whatever is damaged later, it is known to be damage and not a
    /// torn tail. For idle moments, and before the process ends. Does nothing if that was the last thing done.
    pub fn mark(&mut self) -> Result<(), LogError> {
        self.sync()?;
        if self.marker != Some(self.writer.last_batch()) {
            self.writer.push(&Record::Marker)?;
            self.sync()?;
            self.marker = Some(self.writer.last_batch());
        }
        Ok(())
    }

    /// Gives up the entries up to `to.index`, whose effect must be durable elsewhere. Syncs, and so makes all that was
    /// appended durable; then recycles or removes the segments that are not needed any more.
    /// Does nothing if the log begins there or later already.
    ///
    /// # Panics
    /// If `to` lies beyond the last entry.
    pub fn release(&mut self, to: &LogStart) -> Result<(), LogError> {
        self.writer.check()?;
        if to.index <= self.start().index {
            return Ok(());
        }
        check_sizes(&self.writer.segments.config, &[], Some(to))?;
        self.writer.push(&Record::Release(to.borrow()))?;
        self.retire_wanted = true;
        self.sync()
    }

    /// Makes the next segment ahead of need, and returns whether there was anything to do. For idle moments: without
    /// it, the write that fills a segment waits for a new one to be zero-filled (tens of ms) or recycled (few).
    /// [`LogError::Full`] leaves the log as it was, and can be tried again.
    pub fn prepare_next_segment(&mut self) -> Result<bool, LogError> {
        self.writer.check()?;
        let wanted = self.writer.segments.prepared.is_empty();
        if wanted {
            self.writer.prepare(Purpose::Entries)?;
        }
        Ok(wanted)
    }

    /// Bytes of batches that the log holds, those not needed any more but not yet retired included.
    pub fn size_bytes(&self) -> u64 {
        let extents = &self.writer.state.extents;
        let full = extents.iter().take(extents.len().saturating_sub(1)).map(|extent| extent.len_bytes);
        full.sum::<u64>() + self.writer.active_bytes()
    }

    /// Bytes that the log's files take on the disk, prepared and spare ones included.
    pub fn disk_bytes(&self) -> u64 {
        let live = self.writer.state.extents.iter().map(|extent| extent.len_bytes);
        live.sum::<u64>() + self.writer.segments.idle_bytes()
    }

    /// Bytes that can be written before a new segment is needed, and with it space on the disk unless a spare beyond
    /// the reserve is at hand. A node that keeps a reserve for deletes looks at this.
    pub fn ready_bytes(&self) -> u64 {
        self.writer.ready_bytes()
    }

    /// Why the log takes no more writes, if that is so.
    pub fn failure(&self) -> Option<&str> {
        self.writer.failure()
    }

    /// Where the log begins.
    pub fn start(&self) -> &LogStart {
        &self.writer.state.start
    }

    /// The index of the first entry in the log, or, if it holds none, of the next one.
    pub fn first_index(&self) -> Index {
        self.start().index.next()
    }

    /// The index of the last entry, appended but not necessarily durable; the start's if there is none.
    pub fn last_index(&self) -> Index {
        self.writer.state.last
    }

    /// Term and vote, appended but not necessarily durable.
    pub fn hard_state(&self) -> HardState {
        self.writer.state.hard_state
    }
}

fn check_sizes(config: &LogConfig, entries: &[Entry], start: Option<&LogStart>) -> Result<(), LogError> {
    let max = config.max_record_bytes;
    let sizes = entries.iter().map(|entry| entry.data.len()).chain(start.map(|start| start.membership.len()));
    match sizes.max() {
        Some(bytes) if bytes > max => Err(LogError::TooLarge { bytes, max }),
        _ => Ok(()),
    }
}

/// Every segment begins with a base record, and must have room for any record behind it.
fn check_base(config: &LogConfig, state: &State) -> Result<(), LogError> {
    let needed = segment::HEADER_BYTES
        + (state.base().encoded_bytes() + config.max_record_bytes + 2 * BATCH_OVERHEAD_BYTES) as u64;
    if config.segment_bytes < needed {
        return Err(LogError::Config(format!(
            "segment_bytes {} is too small for the membership of {} bytes in this log: at least {needed} is needed",
            config.segment_bytes,
            state.start.membership.len()
        )));
    }
    Ok(())
}

/// How long the first segment must be to hold all that a log begins with, in bytes: founding is one rename.
fn first_segment_bytes(config: &LogConfig, state: &State, entries: &[Entry]) -> u64 {
    let entries_bytes = entries.iter().map(|e| Record::Entry(EntryRef::of(e)).encoded_bytes()).sum::<usize>();
    let records_bytes = entries_bytes + state.base().encoded_bytes() + Record::Marker.encoded_bytes();
    // Any two batches that follow each other hold more than the largest one may.
    let batches = 3 + 2 * records_bytes / config.batch_bytes_max();
    let bytes = records_bytes + batches * BATCH_OVERHEAD_BYTES;
    segment::HEADER_BYTES + (bytes as u64).next_multiple_of(segment::HEADER_BYTES)
}
