//! The files of a log: made, published, recycled, removed. Knows headers and names, not what batches mean.
//!
//! The order in which names change is what makes a crash at any point harmless:
//! - a segment is made under a name that is not part of the log (`.new`, or the `.spare` it is recycled from) and
//!   gets its live name only after its header is durable;
//! - a segment that retires loses its live name, durably, before its content is touched and before the next one
//!   does, so live sequences never have a gap;
//! - nothing is ever removed that has a live name and is not known, from a durable record, to be unneeded.

use crate::config::{LogConfig, LogIdentity};
use crate::error::{Doing, LogError};
use crate::files::{DiskFile, Folder};
use crate::segment::{self, FileName, SegmentHeader};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// How many spares are kept for records that a full disk must not stop: a release cannot free space without room to
/// be written in (hazard 43).
const RESERVE_SEGMENTS: usize = 1;

/// What a segment is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// For entries, or ahead of need: the reserve is not touched.
    Entries,
    /// For a vote, a release, a reset, a marker.
    Control,
}

/// An open segment.
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
}

impl Segment {
    /// Bytes for batches.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.header.len_bytes.saturating_sub(segment::HEADER_BYTES)
    }
}

/// What is in the log's folder, by sequence, each in order.
#[derive(Default, Debug)]
pub(crate) struct Listing {
    pub(crate) live: Vec<u64>,
    pub(crate) new: Vec<u64>,
    pub(crate) spare: Vec<u64>,
}

impl Listing {
    /// An absent folder is an empty one.
    pub(crate) fn read(folder: &Folder) -> Result<Listing, LogError> {
        let mut listing = Listing::default();
        if !folder.disk.exists(&folder.path).doing("look for", &folder.path)? {
            return Ok(listing);
        }
        for name in folder.disk.list(&folder.path).doing("list", &folder.path)? {
            match segment::parse_name(&name) {
                FileName::Live(sequence) => listing.live.push(sequence),
                FileName::New(sequence) => listing.new.push(sequence),
                FileName::Spare(sequence) => listing.spare.push(sequence),
                FileName::Other => {}
            }
        }
        listing.live.sort_unstable();
        Ok(listing)
    }
}

/// The folder, and the segments in it that hold no batches.
pub(crate) struct Segments {
    pub(crate) folder: Folder,
    pub(crate) config: LogConfig,
    pub(crate) identity: LogIdentity,
    /// Published ahead of need, in order of sequence.
    pub(crate) prepared: VecDeque<Segment>,
    /// Retired, of the length that new ones have; by the sequence in their name.
    pub(crate) spares: Vec<u64>,
}

impl Segments {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path.join(name)
    }

    /// Makes a segment that is not part of the log yet. A failure leaves the log as it was.
    /// The last spare is the reserve: only for records that free space, or that a full disk must not stop.
    pub(crate) fn make(
        &mut self,
        sequence: u64,
        len_bytes: u64,
        purpose: Purpose,
    ) -> Result<Segment, LogError> {
        let kept = match purpose {
            Purpose::Entries => RESERVE_SEGMENTS,
            Purpose::Control => 0,
        };
        if self.spares.len() > kept
            && len_bytes == self.config.segment_bytes
            && let Some(spare) = self.spares.pop()
        {
            let path = self.path(&segment::spare_name(spare));
            let file = self.folder.disk.open(&path).doing("open", &path)?;
            return self.write_header(file, path, sequence, len_bytes);
        }
        let path = self.path(&segment::new_name(sequence));
        let file = self.allocate(&path, len_bytes)?;
        self.write_header(file, path, sequence, len_bytes)
    }

    /// Makes sure that there is a reserve. A failure leaves the log as it was.
    pub(crate) fn make_reserve(&mut self) -> Result<(), LogError> {
        if self.spares.len() < RESERVE_SEGMENTS {
            // No segment has this sequence, so no retiring one ever takes this name.
            let path = self.path(&segment::spare_name(0));
            let file = self.allocate(&path, self.config.segment_bytes)?;
            // Else a power loss could take it away just when the disk is full.
            file.sync_data().doing("sync", &path)?;
            self.sync_dir()?;
            self.spares.push(0);
        }
        Ok(())
    }

    fn allocate(&self, path: &Path, len_bytes: u64) -> Result<Box<dyn DiskFile>, LogError> {
        let disk = &self.folder.disk;
        if disk.exists(path).doing("look for", path)? {
            disk.remove(path).doing("remove", path)?;
        }
        let file = disk.create(path).map_err(|source| full_or_failed("create", path, source))?;
        if let Err(source) = file.allocate_zeroed(len_bytes) {
            drop(file);
            // To give the space back at once. If that fails, the next start does it: the file is not part of the log.
            let _ = disk.remove(path);
            return Err(full_or_failed("allocate", path, source));
        }
        Ok(file)
    }

    fn write_header(
        &self,
        file: Box<dyn DiskFile>,
        path: PathBuf,
        sequence: u64,
        len_bytes: u64,
    ) -> Result<Segment, LogError> {
        let header = SegmentHeader::new(self.identity, sequence, len_bytes, self.config.salt);
        file.write_all_at(&header.encode(), 0).doing("write", &path)?;
        Ok(Segment { header, file, path })
    }

    /// Makes a segment durable, then part of the log. A failure is final.
    pub(crate) fn publish(&self, segment: &mut Segment) -> Result<(), LogError> {
        segment.file.sync_data().doing("sync", &segment.path)?;
        let live = self.path(&segment::live_name(segment.header.sequence));
        self.folder.disk.rename(&segment.path, &live).doing("rename", &segment.path)?;
        segment.path = live;
        self.sync_dir()
    }

    pub(crate) fn sync_dir(&self) -> Result<(), LogError> {
        self.folder.disk.sync_dir(&self.folder.path).doing("sync", &self.folder.path)
    }

    /// Takes the oldest segment out of the log. A failure is final.
    pub(crate) fn retire(&mut self, sequence: u64, len_bytes: u64) -> Result<(), LogError> {
        let live = self.path(&segment::live_name(sequence));
        if len_bytes == self.config.segment_bytes && self.spares.len() < self.spares_max() {
            let spare = self.path(&segment::spare_name(sequence));
            self.folder.disk.rename(&live, &spare).doing("rename", &live)?;
            self.sync_dir()?;
            self.spares.push(sequence);
        } else {
            self.folder.disk.remove(&live).doing("remove", &live)?;
            self.sync_dir()?;
        }
        Ok(())
    }

    /// How many retired segments are worth keeping.
    pub(crate) fn spares_max(&self) -> usize {
        self.config.recycle_segments + RESERVE_SEGMENTS
    }

    /// The sequence of the segment behind those that there are.
    pub(crate) fn next_sequence(&self, active: &Segment) -> u64 {
        self.prepared.back().unwrap_or(active).header.sequence + 1
    }

    /// Bytes in segments that hold no batches.
    pub(crate) fn idle_bytes(&self) -> u64 {
        let prepared: u64 = self.prepared.iter().map(|segment| segment.header.len_bytes).sum();
        prepared + self.spares.len() as u64 * self.config.segment_bytes
    }
}

fn full_or_failed(doing: &'static str, path: &Path, source: io::Error) -> LogError {
    let path = path.to_path_buf();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => LogError::Full { path, source },
        _ => LogError::Io { doing, path, source },
    }
}
