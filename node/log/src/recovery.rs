//! Opening a log: which batches are valid, whether what follows them is a torn tail or damage, and the cut.
//!
//! The rule of damage (FAST'18, protocol-aware recovery; hazards 24, 28, 39 to 41). Batches are read in order as long
//! as each is valid and continues the one before. Where that ends is either the end of what was durable, or damage.
//! What follows decides: a later batch header that is valid tells up to where the log was durable when it was
//! written. If that lies beyond the place, acknowledged data is damaged, and the log does not open. Otherwise nothing
//! above the place was ever acknowledged, and it is zeroed, durably, so that no later crash can bring it back.
//!
//! Memory: one segment at a time, and the live entries.

use crate::batch::{self, Position};
use crate::config::{LogConfig, LogIdentity};
use crate::error::{Doing, LogError, OpenError};
use crate::files::Folder;
use crate::record::{Record, Records};
use crate::replay::Replay;
use crate::segment::{self, SegmentHeader};
use crate::segments::{Listing, Segment, Segments};
use crate::state::{LogStart, State};
use balsa_raft::{Entry, HardState};
use std::collections::VecDeque;

/// What the core starts with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Term and vote, as last persisted.
    pub hard_state: HardState,
    /// Where the log begins.
    pub start: LogStart,
    /// All entries behind `start`, contiguous.
    pub entries: Vec<Entry>,
    /// Bytes that were cut from the end because they had been written but never confirmed durable; 0 after a clean stop.
    pub torn_tail_bytes: u64,
}

/// What the writer goes on with.
pub(crate) struct Opened {
    pub(crate) segments: Segments,
    pub(crate) state: State,
    pub(crate) active: Segment,
    /// Where the next batch goes, in bytes from the beginning of the active segment.
    pub(crate) end: u64,
    pub(crate) next_batch: u64,
    /// The last batch is a marker that covers all before it.
    pub(crate) marked: bool,
    pub(crate) entries: Vec<Entry>,
    pub(crate) torn_tail_bytes: u64,
}

pub(crate) fn open(folder: Folder, config: LogConfig, identity: LogIdentity) -> Result<Opened, OpenError> {
    config.validate()?;
    let listing = Listing::read(&folder)?;
    if listing.live.is_empty() {
        return Err(OpenError::Missing(folder.path));
    }
    let mut segments = Segments { folder, config, identity, prepared: VecDeque::new(), spares: Vec::new() };
    let mut live = open_live(&segments, &listing)?;
    let synced = Position { segment: 0, offset: 0 };
    let mut scan = Scan { replay: None, next_batch: 0, marked: false, synced, image: Vec::new() };
    let (active, end) = scan.read_all(&live)?;
    let Some(replay) = &scan.replay else {
        return Err(damaged(&live[0], segment::HEADER_BYTES, "the oldest segment has no valid first batch"));
    };
    replay.finish().map_err(|why| damaged(&live[0], segment::HEADER_BYTES, why))?;
    let torn = scan.judge(&live, active, end)?;
    // Only now is it certain that the log may be changed.
    let torn_tail_bytes = torn.iter().map(|torn| torn.end - torn.begin).sum();
    for torn in torn {
        zero(&live[torn.at], torn.begin, torn.end)?;
    }
    let Scan { replay: Some(replay), next_batch, marked, synced, .. } = scan else {
        unreachable!("a replay that was there is gone")
    };

    segments.prepared = live.split_off(active + 1).into();
    clear_leftovers(&mut segments, &listing)?;
    let Some(active) = live.pop() else { unreachable!("{} of {} segments", active, listing.live.len()) };
    // What was read may be in the page cache only, beyond what the last batch knew to be durable.
    let unsynced = if synced.segment == active.header.sequence { synced.offset } else { 0 };
    write_again(&active, unsynced.max(segment::HEADER_BYTES), end)?;
    segments.sync_dir()?;
    Ok(Opened {
        segments,
        state: replay.state,
        active,
        end,
        next_batch,
        marked,
        entries: replay.entries.into(),
        torn_tail_bytes,
    })
}

fn damaged(segment: &Segment, offset: u64, why: impl Into<String>) -> OpenError {
    OpenError::Damaged { file: segment.path.clone(), offset, why: why.into() }
}

/// Opens every live segment and checks its header.
fn open_live(segments: &Segments, listing: &Listing) -> Result<Vec<Segment>, OpenError> {
    let mut live: Vec<Segment> = Vec::with_capacity(listing.live.len());
    for &sequence in &listing.live {
        let path = segments.path(&segment::live_name(sequence));
        if let Some(last) = live.last()
            && last.header.sequence + 1 != sequence
        {
            let why = format!("it follows segment {:x}: those between are missing", last.header.sequence);
            return Err(OpenError::Damaged { file: path, offset: 0, why });
        }
        let file = segments.folder.disk.open(&path).doing("open", &path)?;
        let len_bytes = file.len_bytes().doing("measure", &path)?;
        let mut bytes = vec![0; len_bytes.min(segment::HEADER_BYTES) as usize];
        file.read_exact_at(&mut bytes, 0).doing("read", &path)?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => header,
            Err(why) => return Err(OpenError::Damaged { file: path, offset: 0, why: why.into() }),
        };
        if header.version != segment::VERSION {
            let (found, supported) = (header.version, segment::VERSION);
            return Err(OpenError::Version { file: path, found, supported });
        }
        let LogIdentity { cluster, node } = segments.identity;
        if header.identity != segments.identity {
            let LogIdentity { cluster: found_cluster, node: found_node } = header.identity;
            return Err(OpenError::Identity { file: path, found_cluster, found_node, cluster, node });
        }
        if header.sequence != sequence {
            let why = format!("its header says that it is segment {:x}", header.sequence);
            return Err(OpenError::Damaged { file: path, offset: 0, why });
        }
        if header.len_bytes != len_bytes {
            let why = format!("the file has {len_bytes} bytes, it was made with {}", header.len_bytes);
            return Err(OpenError::Damaged { file: path, offset: len_bytes, why });
        }
        live.push(Segment { header, file, path });
    }
    Ok(live)
}

/// Files that are, by their name, not part of the log: unfinished ones go, spares are kept as far as wanted.
fn clear_leftovers(segments: &mut Segments, listing: &Listing) -> Result<(), LogError> {
    for &sequence in &listing.new {
        let path = segments.path(&segment::new_name(sequence));
        segments.folder.disk.remove(&path).doing("remove", &path)?;
    }
    for &sequence in &listing.spare {
        let path = segments.path(&segment::spare_name(sequence));
        let file = segments.folder.disk.open(&path).doing("open", &path)?;
        let len_bytes = file.len_bytes().doing("measure", &path)?;
        if len_bytes == segments.config.segment_bytes && segments.spares.len() < segments.spares_max() {
            segments.spares.push(sequence);
        } else {
            segments.folder.disk.remove(&path).doing("remove", &path)?;
        }
    }
    Ok(())
}

/// The state of reading batch after batch.
struct Scan {
    /// None before the first batch.
    replay: Option<Replay>,
    /// The sequence that continues the last batch.
    next_batch: u64,
    marked: bool,
    /// What was durable when the last batch was written.
    synced: Position,
    /// The segment that is being read.
    image: Vec<u8>,
}

impl Scan {
    fn load(&mut self, segment: &Segment) -> Result<(), LogError> {
        self.image.resize(segment.header.len_bytes as usize, 0);
        segment.file.read_exact_at(&mut self.image, 0).doing("read", &segment.path)
    }

    /// Replays every batch that continues the log, and returns where that ends: which segment, which byte.
    fn read_all(&mut self, live: &[Segment]) -> Result<(usize, u64), OpenError> {
        let mut at = 0;
        self.load(&live[at])?;
        let mut offset = self.read_segment(&live[at])?;
        while at + 1 < live.len() && self.replay.is_some() {
            self.load(&live[at + 1])?;
            let next_offset = self.read_segment(&live[at + 1])?;
            if next_offset == segment::HEADER_BYTES {
                break;
            }
            at += 1;
            offset = next_offset;
        }
        Ok((at, offset))
    }

    /// Replays the batches of one segment that continue the log, and returns where they end.
    fn read_segment(&mut self, segment: &Segment) -> Result<u64, OpenError> {
        let mut offset = segment::HEADER_BYTES;
        let image = std::mem::take(&mut self.image);
        while let Some(found) = batch::find(&image, offset, segment.header.salt)
            && let Some(payload) = found.payload(&image)
        {
            let first = offset == segment::HEADER_BYTES;
            if self.replay.is_some() && found.header.sequence != self.next_batch {
                break;
            }
            let here = Position { segment: segment.header.sequence, offset };
            if found.header.synced > here {
                return Err(damaged(
                    segment,
                    offset,
                    format!("a batch says that it was preceded by {here:?}"),
                ));
            }
            self.replay_batch(segment, payload, first).map_err(|why| damaged(segment, offset, why))?;
            self.next_batch = found.header.sequence + 1;
            self.synced = found.header.synced;
            offset = found.end();
        }
        self.image = image;
        Ok(offset)
    }

    fn replay_batch(&mut self, segment: &Segment, payload: &[u8], first: bool) -> Result<(), String> {
        self.marked = true;
        for (number, record) in Records::of(payload).enumerate() {
            let record = record?;
            let is_base = matches!(record, Record::Base(..));
            if is_base != (first && number == 0) {
                return Err(format!("record {number} of a batch is {record:?}"));
            }
            match &mut self.replay {
                Some(replay) => replay.apply(&record)?,
                None => self.replay = Some(Replay::begin(&record)?),
            }
            if is_base && let Some(replay) = &mut self.replay {
                replay.state.enter(segment.header.sequence, segment.header.len_bytes);
            }
            self.marked &= is_base || record == Record::Marker;
        }
        Ok(())
    }

    /// Decides between torn tail and damage, given where the valid batches end. Returns what is to be zeroed.
    fn judge(&mut self, live: &[Segment], active: usize, end: u64) -> Result<Vec<Torn>, OpenError> {
        let here = Position { segment: live[active].header.sequence, offset: end };
        let mut torn = Vec::new();
        for (at, segment) in live.iter().enumerate().skip(active) {
            self.load(segment)?;
            let begin = if at == active { end } else { segment::HEADER_BYTES };
            let mut torn_end = begin;
            for offset in (begin..segment.header.len_bytes).step_by(batch::ALIGN_BYTES as usize) {
                let Some(found) = batch::find(&self.image, offset, segment.header.salt) else { continue };
                if found.header.synced > here {
                    let why = format!(
                        "no valid batch begins here, yet batch {} at byte {offset} of {} was written when the log \
                         was durable beyond it",
                        found.header.sequence,
                        segment.path.display()
                    );
                    return Err(damaged(&live[active], end, why));
                }
                torn_end = torn_end.max(found.end().min(segment.header.len_bytes));
            }
            if torn_end > begin {
                torn.push(Torn { at, begin, end: torn_end });
            }
        }
        Ok(torn)
    }
}

/// A part of the torn tail.
struct Torn {
    /// Which live segment.
    at: usize,
    /// From where in it, in bytes.
    begin: u64,
    /// To where in it, in bytes.
    end: u64,
}

/// Writes a part of a segment once more as it is, and syncs. A process that was killed may never have synced it; or a sync
/// of it failed, after which a kernel takes the pages for clean, shows what was written, and has the next sync succeed
/// without writing anything (hazard 38, ATC 2020): a sync alone would prove nothing.
fn write_again(segment: &Segment, begin: u64, end: u64) -> Result<(), LogError> {
    let mut bytes = vec![0; end.saturating_sub(begin) as usize];
    segment.file.read_exact_at(&mut bytes, begin).doing("read", &segment.path)?;
    segment.file.write_all_at(&bytes, begin).doing("write", &segment.path)?;
    segment.file.sync_data().doing("sync", &segment.path)
}

fn zero(segment: &Segment, begin: u64, end: u64) -> Result<(), LogError> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut offset = begin;
    while offset < end {
        let bytes = (end - offset).min(ZEROS.len() as u64);
        segment.file.write_all_at(&ZEROS[..bytes as usize], offset).doing("write", &segment.path)?;
        offset += bytes;
    }
    segment.file.sync_data().doing("sync", &segment.path)
}
