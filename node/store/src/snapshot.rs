//! Snapshots: the rows of the durable state as a stream of chunks, and back.
//!
//! A chunk checks itself, and says its place; the last says so and carries totals. Nothing of a snapshot takes effect
//! before all of it has arrived and was checked, and then all of it does at once. How chunks travel is not known here.
//!
//! A chunk is `checksum (8) format (1) kind (1) sequence (4) payload`, numbers little endian, the checksum an xxh3 over
//! all that follows it. The payload of rows is `key length (4) value length (4) key value` again and again; that of the
//! last chunk is `index (8) rows (8) bytes (8) chain (8)`, where `chain` hashes the checksums of all chunks before.

use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::engine::{EngineSnapshot, Replacement, RowIter};
use crate::error::{EngineError, StoreError};
use crate::position::{Durable, Position};
use crate::rows::META_KEY;

const FORMAT: u8 = 1;
const KIND_ROWS: u8 = 0;
const KIND_LAST: u8 = 1;
const HEADER_BYTES: usize = 14;
const TOTALS_BYTES: usize = 32;

/// Received rows are given to the engine in portions of about this size.
const STAGE_BYTES: usize = 16 << 20;

/// Totals of a snapshot, as both sides count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Totals {
    rows: u64,
    bytes: u64,
    chain: u64,
}

impl Totals {
    fn add_row(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        self.bytes += (key.len() + value.len()) as u64;
    }

    fn add_chunk(&mut self, checksum: u64) {
        let mut chain = [0; 16];
        chain[..8].copy_from_slice(&self.chain.to_le_bytes());
        chain[8..].copy_from_slice(&checksum.to_le_bytes());
        self.chain = xxh3_64(&chain);
    }
}

/// A snapshot that is being sent.
pub struct SnapshotSource {
    engine: Arc<dyn EngineSnapshot>,
    position: Position,
    live_keys: u64,
    rows: Peekable<RowIter>,
    totals: Totals,
    is_done: bool,
    /// Where each chunk that was made began: its first row, if it has any, and the totals before it.
    starts: Vec<(Option<Bytes>, Totals)>,
}

impl std::fmt::Debug for SnapshotSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotSource").field("position", &self.position).finish_non_exhaustive()
    }
}

impl SnapshotSource {
    pub(crate) fn new(engine: Arc<dyn EngineSnapshot>, durable: &Durable) -> Self {
        let rows = engine.scan(Bound::Unbounded, Bound::Unbounded).peekable();
        Self {
            engine,
            position: durable.position,
            live_keys: durable.live_keys,
            rows,
            totals: Totals::default(),
            is_done: false,
            starts: Vec::new(),
        }
    }

    /// The last entry in the snapshot.
    pub fn index(&self) -> u64 {
        self.position.applied_index
    }

    /// The number of the chunk that is made next, counted from 0.
    pub fn next_sequence(&self) -> u32 {
        self.starts.len() as u32
    }

    /// The state that the snapshot is of.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many keys there are in it.
    pub fn live_keys(&self) -> u64 {
        self.live_keys
    }

    /// The next chunk, of at most so many bytes unless a single row is larger; `None` after the last.
    pub fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, StoreError> {
        if self.is_done {
            return Ok(None);
        }
        let mut payload = BytesMut::new();
        let before = self.totals;
        let mut first = None;
        loop {
            match self.rows.peek() {
                None => break,
                Some(Ok((key, value))) => {
                    let size = 8 + key.len() + value.len();
                    if !payload.is_empty() && HEADER_BYTES + payload.len() + size > bytes_max {
                        break;
                    }
                    if first.is_none() {
                        first = Some(key.clone());
                    }
                    payload.put_u32_le(key.len() as u32);
                    payload.put_u32_le(value.len() as u32);
                    payload.put_slice(key);
                    payload.put_slice(value);
                    self.totals.add_row(key, value);
                    self.rows.next();
                }
                Some(Err(error)) => return Err(error.clone().into()),
            }
        }
        let sequence = self.starts.len() as u32;
        self.starts.push((first, before));
        if !payload.is_empty() {
            return Ok(Some(self.seal(KIND_ROWS, sequence, &payload)));
        }
        self.is_done = true;
        payload.put_u64_le(self.position.applied_index);
        payload.put_u64_le(self.totals.rows);
        payload.put_u64_le(self.totals.bytes);
        payload.put_u64_le(self.totals.chain);
        Ok(Some(self.seal(KIND_LAST, sequence, &payload)))
    }

    /// Goes back to a chunk that was made before, so that the receiver gets on from where it is
    /// ([`SnapshotSink::wanted_sequence`]). Refused where that was never made.
    pub fn resume_at(&mut self, sequence: u32) -> Result<(), StoreError> {
        let made = self.starts.len();
        let index = sequence as usize;
        if index > made {
            return Err(refused(format!("number {sequence} is wanted, {made} were made")));
        }
        if let Some((first, totals)) = self.starts.get(index).cloned() {
            let rows: RowIter = match first {
                Some(key) => self.engine.scan(Bound::Included(&key), Bound::Unbounded),
                None => Box::new(std::iter::empty()),
            };
            self.rows = rows.peekable();
            self.totals = totals;
            self.is_done = false;
            self.starts.truncate(index);
        }
        Ok(())
    }

    fn seal(&mut self, kind: u8, sequence: u32, payload: &[u8]) -> Bytes {
        let mut chunk = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        chunk.put_u64_le(0);
        chunk.put_u8(FORMAT);
        chunk.put_u8(kind);
        chunk.put_u32_le(sequence);
        chunk.put_slice(payload);
        let checksum = xxh3_64(&chunk[8..]);
        chunk[..8].copy_from_slice(&checksum.to_le_bytes());
        self.totals.add_chunk(checksum);
        chunk.freeze()
    }
}

/// A snapshot that is being received. Dropping it discards what has arrived.
pub struct SnapshotSink {
    replacement: Box<dyn Replacement>,
    sequence: u32,
    totals: Totals,
    /// Arrived and not yet given to the engine.
    pending: Vec<(Bytes, Bytes)>,
    pending_bytes: usize,
    meta: Option<Bytes>,
    /// From the last chunk.
    index: Option<u64>,
}

impl SnapshotSink {
    pub(crate) fn new(replacement: Box<dyn Replacement>) -> Self {
        Self {
            replacement,
            sequence: 0,
            totals: Totals::default(),
            pending: Vec::new(),
            pending_bytes: 0,
            meta: None,
            index: None,
        }
    }

    /// One that checks what arrives, as any other, and keeps none of it.
    pub fn checking() -> Self {
        Self::new(Box::new(Discarded))
    }

    /// The number of the chunk that is wanted next, counted from 0.
    pub fn wanted_sequence(&self) -> u32 {
        self.sequence
    }

    /// The state that arrived, and how many keys there are in it; `None`: the last chunk has not arrived.
    pub fn arrived(&self) -> Result<Option<(Position, u64)>, StoreError> {
        if !self.is_complete() {
            return Ok(None);
        }
        let durable = Durable::read(self.meta.clone())?;
        Ok(Some((durable.position, durable.live_keys)))
    }

    /// The last chunk has arrived.
    pub fn is_complete(&self) -> bool {
        self.index.is_some()
    }

    /// Takes the next chunk. One that is damaged, repeated or early is refused with [`StoreError::BadChunk`], and
    /// changes nothing.
    pub fn add_chunk(&mut self, chunk: &Bytes) -> Result<(), StoreError> {
        let (checksum, kind, payload) = self.check(chunk)?;
        match kind {
            KIND_ROWS => {
                let mut totals = self.totals;
                let rows = read_rows(payload, &mut totals)?;
                self.totals = totals;
                for (key, value) in rows {
                    if key == META_KEY {
                        self.meta = Some(value.clone());
                    }
                    self.pending_bytes += key.len() + value.len();
                    self.pending.push((key, value));
                }
                if self.pending_bytes >= STAGE_BYTES {
                    self.stage_pending()?;
                }
            }
            KIND_LAST => self.index = Some(self.read_last(payload)?),
            kind => return Err(refused(format!("kind {kind} is not known"))),
        }
        self.totals.add_chunk(checksum);
        self.sequence += 1;
        Ok(())
    }

    fn check(&self, chunk: &Bytes) -> Result<(u64, u8, Bytes), StoreError> {
        if chunk.len() < HEADER_BYTES {
            return Err(refused(format!("{} bytes are less than a header", chunk.len())));
        }
        let mut header = chunk.slice(..HEADER_BYTES);
        let checksum = header.get_u64_le();
        if checksum != xxh3_64(&chunk[8..]) {
            return Err(refused("its checksum does not match".into()));
        }
        let (format, kind, sequence) = (header.get_u8(), header.get_u8(), header.get_u32_le());
        if format != FORMAT {
            return Err(StoreError::UnknownFormat { found: u32::from(format), known: u32::from(FORMAT) });
        }
        if sequence != self.sequence || self.is_complete() {
            return Err(refused(format!("number {sequence} came where {} was wanted", self.sequence)));
        }
        Ok((checksum, kind, chunk.slice(HEADER_BYTES..)))
    }

    fn read_last(&self, mut payload: Bytes) -> Result<u64, StoreError> {
        if payload.len() != TOTALS_BYTES {
            return Err(refused(format!("totals of {} bytes", payload.len())));
        }
        let index = payload.get_u64_le();
        let totals =
            Totals { rows: payload.get_u64_le(), bytes: payload.get_u64_le(), chain: payload.get_u64_le() };
        if totals != self.totals {
            return Err(refused(format!("{:?} arrived, {totals:?} were sent", self.totals)));
        }
        // Format and feature level of the image are checked here, before it could take the place of a good one.
        let applied = Durable::read(self.meta.clone())?.position.applied_index;
        if applied != index {
            return Err(refused(format!("rows at index {applied} in a snapshot at {index}")));
        }
        Ok(index)
    }

    fn stage_pending(&mut self) -> Result<(), StoreError> {
        self.pending_bytes = 0;
        Ok(self.replacement.add(&mut std::mem::take(&mut self.pending).into_iter())?)
    }

    /// Ends the staging; there must be no more to come.
    pub fn stage(mut self) -> Result<StagedSnapshot, StoreError> {
        let index = self.index.ok_or_else(|| refused("the last chunk has not arrived".into()))?;
        self.stage_pending()?;
        Ok(StagedSnapshot { replacement: self.replacement, index })
    }
}

/// An image that nobody wants.
struct Discarded;

impl Replacement for Discarded {
    fn add(&mut self, rows: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<(), EngineError> {
        rows.for_each(drop);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), EngineError> {
        let message = "it was only checked".to_owned();
        Err(EngineError { call: "put a snapshot in place", message, no_room: false })
    }
}

fn read_rows(mut payload: Bytes, totals: &mut Totals) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let mut rows = Vec::new();
    while payload.has_remaining() {
        let short = || refused("a row is cut off".into());
        if payload.len() < 8 {
            return Err(short());
        }
        let (key_len, value_len) = (payload.get_u32_le() as usize, payload.get_u32_le() as usize);
        if payload.len() < key_len + value_len {
            return Err(short());
        }
        let (key, value) = (payload.split_to(key_len), payload.split_to(value_len));
        totals.add_row(&key, &value);
        rows.push((key, value));
    }
    Ok(rows)
}

fn refused(reason: String) -> StoreError {
    StoreError::BadChunk { reason }
}

/// A snapshot that has arrived whole, for `Store::install_snapshot`.
pub struct StagedSnapshot {
    replacement: Box<dyn Replacement>,
    index: u64,
}

impl StagedSnapshot {
    /// The last entry in the snapshot.
    pub fn index(&self) -> u64 {
        self.index
    }

    pub(crate) fn finish(self) -> Result<(), StoreError> {
        Ok(self.replacement.finish()?)
    }
}
