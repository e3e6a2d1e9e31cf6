//! A backup as bytes: what `GET /v1/backup` streams, `balsa backup` checks and keeps, `balsa-node restore` takes.
//!
//! ```text
//! magic (8)  format (4)          then frames: checksum (8)  kind (1)  length (4)  payload (length)
//! header     one, first          what the backup is of, as JSON ([`Header`])
//! chunks     any number          what the store made of its state; nothing here looks into them
//! end        one, last           chunks (8)  bytes (8): how many there were, and their length in all
//! ```
//! Numbers are little endian. A frame's checksum is the xxh3 of all of it that follows, with the checksum of the frame
//! before as its seed, and that of magic and format before the first: so no frame can be damaged, lost, moved or taken
//! from another backup, and a backup without its end is cut off, whatever it looks like.
//!
//! Pure: bytes come from and go to wherever the caller has them.

use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The content type of a backup.
pub const CONTENT_TYPE: &str = "application/octet-stream";
/// The format that this build writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"balsa-bk";
const START_BYTES: usize = 12;
const HEAD_BYTES: usize = 13;
const END_BYTES: usize = 16;

const KIND_HEADER: u8 = 1;
const KIND_CHUNK: u8 = 2;
const KIND_END: u8 = 3;

/// The longest frame that is taken for one, in bytes: a row of the store, with much room.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// What is reserved for a frame before it has arrived, in bytes: its length may be damaged.
const RESERVED_BYTES_MAX: usize = 1 << 20;

/// What a backup is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// The cluster, in hexadecimal digits.
    pub cluster: String,
    /// The node that gave it, in hexadecimal digits.
    pub node: String,
    /// The version of that node.
    pub version: String,
    /// The revision of the state.
    pub revision: u64,
    /// The last entry that is in it.
    pub index: u64,
    /// Cluster time, in milliseconds.
    pub time_ms: u64,
    /// The cluster's feature level: who restores it must reach that.
    pub feature_level: u32,
    /// The digest of the state at `index`, in hexadecimal digits: that of every member there.
    pub digest: String,
    /// How many keys there are.
    pub keys: u64,
}

/// What `balsa backup` prints for programs of a backup that is whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupAnswer {
    /// What it is of.
    #[serde(flatten)]
    pub backup: Header,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// How much a whole backup holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Chunks.
    pub chunks: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Writes a backup, frame by frame.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    checksum: u64,
    totals: Totals,
}

impl Writer {
    /// Begins one, and gives what comes first.
    pub fn begin(header: &Header) -> (Writer, Vec<u8>) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        let mut writer = Writer { checksum: xxh3_64(&bytes), totals: Totals::default() };
        // Strings and numbers always serialise.
        let header = serde_json::to_vec(header).unwrap_or_default();
        bytes.extend_from_slice(&writer.head(KIND_HEADER, &header));
        bytes.extend_from_slice(&header);
        (writer, bytes)
    }

    /// What comes before this chunk.
    ///
    /// # Panics
    /// If it is longer than a frame may be.
    pub fn chunk(&mut self, chunk: &[u8]) -> [u8; HEAD_BYTES] {
        self.totals.chunks += 1;
        self.totals.bytes += chunk.len() as u64;
        self.head(KIND_CHUNK, chunk)
    }

    /// What comes last.
    pub fn end(mut self) -> Vec<u8> {
        let mut payload = [0; END_BYTES];
        payload[..8].copy_from_slice(&self.totals.chunks.to_le_bytes());
        payload[8..].copy_from_slice(&self.totals.bytes.to_le_bytes());
        let mut bytes = self.head(KIND_END, &payload).to_vec();
        bytes.extend_from_slice(&payload);
        bytes
    }

    fn head(&mut self, kind: u8, payload: &[u8]) -> [u8; HEAD_BYTES] {
        assert!(payload.len() <= FRAME_BYTES_MAX, "a frame of {} bytes", payload.len());
        let mut head = [0; HEAD_BYTES];
        head[8] = kind;
        head[9..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        self.checksum = checksum(self.checksum, &head, payload);
        head[..8].copy_from_slice(&self.checksum.to_le_bytes());
        head
    }
}

fn checksum(seed: u64, head: &[u8], payload: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(seed);
    hash.update(&head[8..]);
    hash.update(payload);
    hash.digest()
}

/// A part of a backup that arrived whole and undamaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// What it is of.
    Header(Header),
    /// A chunk of the state.
    Chunk(Vec<u8>),
    /// All has arrived.
    End(Totals),
}

/// Why bytes are not a backup, or not a whole one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackupError {
    /// They begin with something else.
    NotABackup,
    /// A later build wrote it.
    NewerFormat {
        /// The format met.
        found: u32,
    },
    /// A frame is not what was written.
    Damaged {
        /// Where the frame begins, in bytes.
        at: u64,
        /// Which check failed.
        what: &'static str,
    },
    /// It ends before its end.
    Cut {
        /// How many bytes there are.
        at: u64,
    },
    /// Something follows its end.
    TooLong {
        /// Where it ends, in bytes.
        at: u64,
    },
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::NotABackup => write!(f, "this is no backup of Balsa"),
            BackupError::NewerFormat { found } => {
                write!(
                    f,
                    "the backup has format {found}, this build reads {FORMAT}: use the build that wrote it"
                )
            }
            BackupError::Damaged { at, what } => {
                write!(f, "the backup is damaged in the part that begins at byte {at}: {what}")
            }
            BackupError::Cut { at } => write!(f, "the backup is cut off at byte {at}: its end is missing"),
            BackupError::TooLong { at } => write!(f, "the backup ends at byte {at}, and more follows"),
        }
    }
}

impl std::error::Error for BackupError {}

/// Reads a backup from bytes as they come, and checks each frame.
#[derive(Debug)]
pub struct Reader {
    stage: Stage,
    /// What of the present part has arrived.
    part: Vec<u8>,
    /// How long that part is.
    wanted: usize,
    /// Of the frame before.
    checksum: u64,
    /// Where the present frame begins.
    frame_at: u64,
    /// Bytes taken in all.
    taken: u64,
    totals: Totals,
    has_header: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Start,
    Head,
    Payload { head: [u8; HEAD_BYTES] },
    Ended,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            stage: Stage::Start,
            part: Vec::new(),
            wanted: START_BYTES,
            checksum: 0,
            frame_at: 0,
            taken: 0,
            totals: Totals::default(),
            has_header: false,
        }
    }
}

impl Reader {
    /// Takes bytes from the front of `input` up to the next piece that they complete; `None`: they are used up. After an
    /// error the reader is of no more use.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Piece>, BackupError> {
        loop {
            if self.stage == Stage::Ended {
                return if input.is_empty() {
                    Ok(None)
                } else {
                    Err(BackupError::TooLong { at: self.taken })
                };
            }
            let take = input.len().min(self.wanted - self.part.len());
            let (taken, rest) = input.split_at(take);
            self.part.extend_from_slice(taken);
            self.taken += take as u64;
            *input = rest;
            if self.part.len() < self.wanted {
                return Ok(None);
            }
            if let Some(piece) = self.complete()? {
                return Ok(Some(piece));
            }
        }
    }

    /// Takes bytes and checks what they complete; gives what the backup is of, where its header is among that.
    pub fn check(&mut self, mut input: &[u8]) -> Result<Option<Header>, BackupError> {
        let mut header = None;
        while let Some(piece) = self.take(&mut input)? {
            if let Piece::Header(arrived) = piece {
                header = Some(arrived);
            }
        }
        Ok(header)
    }

    /// How many bytes were taken so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// That the end has come; to be asked when there are no more bytes.
    pub fn finish(&self) -> Result<Totals, BackupError> {
        match self.stage {
            Stage::Ended => Ok(self.totals),
            Stage::Start if !MAGIC.starts_with(&self.part[..self.part.len().min(MAGIC.len())]) => {
                Err(BackupError::NotABackup)
            }
            _ => Err(BackupError::Cut { at: self.taken }),
        }
    }

    /// The present part is there.
    fn complete(&mut self) -> Result<Option<Piece>, BackupError> {
        let part = std::mem::take(&mut self.part);
        match self.stage {
            Stage::Start => {
                let (magic, format) = part.split_at(MAGIC.len());
                if magic != MAGIC {
                    return Err(BackupError::NotABackup);
                }
                match number(format) as u32 {
                    FORMAT => {}
                    0 => return Err(BackupError::NotABackup),
                    found => return Err(BackupError::NewerFormat { found }),
                }
                self.checksum = xxh3_64(&part);
                self.expect_head();
                Ok(None)
            }
            Stage::Head => {
                let length = number(&part[9..]) as usize;
                if length > FRAME_BYTES_MAX {
                    return Err(self.damaged("no part is that long"));
                }
                let mut head = [0; HEAD_BYTES];
                head.copy_from_slice(&part);
                self.stage = Stage::Payload { head };
                self.wanted = length;
                self.part.reserve(length.min(RESERVED_BYTES_MAX));
                Ok(None)
            }
            Stage::Payload { head } => {
                let expected = number(&head[..8]);
                if checksum(self.checksum, &head, &part) != expected {
                    return Err(self.damaged("its checksum does not match"));
                }
                self.checksum = expected;
                let piece = self.read(head[8], part)?;
                if !matches!(piece, Piece::End(_)) {
                    self.expect_head();
                }
                Ok(Some(piece))
            }
            Stage::Ended => Ok(None),
        }
    }

    fn expect_head(&mut self) {
        self.stage = Stage::Head;
        self.wanted = HEAD_BYTES;
        self.frame_at = self.taken;
    }

    fn read(&mut self, kind: u8, payload: Vec<u8>) -> Result<Piece, BackupError> {
        match kind {
            KIND_HEADER if !self.has_header => {
                self.has_header = true;
                let header = serde_json::from_slice(&payload);
                Ok(Piece::Header(header.map_err(|_| self.damaged("its header does not say what it is of"))?))
            }
            KIND_CHUNK if self.has_header => {
                self.totals.chunks += 1;
                self.totals.bytes += payload.len() as u64;
                Ok(Piece::Chunk(payload))
            }
            KIND_END if self.has_header => {
                let sent = match payload.len() {
                    END_BYTES => Totals { chunks: number(&payload[..8]), bytes: number(&payload[8..]) },
                    _ => return Err(self.damaged("its end has another length")),
                };
                if sent != self.totals {
                    return Err(self.damaged("its end counts other chunks than there are"));
                }
                self.stage = Stage::Ended;
                Ok(Piece::End(sent))
            }
            _ => Err(self.damaged("no such part belongs there")),
        }
    }

    fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { at: self.frame_at, what }
    }
}

/// Up to eight bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            cluster: "000000000000000c".into(),
            node: "000000000000000d".into(),
            version: "1.0.0".into(),
            revision: 7,
            index: 9,
            time_ms: 11,
            feature_level: 1,
            digest: "ab".into(),
            keys: 3,
        }
    }

    fn backup(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut writer, mut bytes) = Writer::begin(&header());
        for chunk in chunks {
            bytes.extend_from_slice(&writer.chunk(chunk));
            bytes.extend_from_slice(chunk);
        }
        bytes.extend_from_slice(&writer.end());
        bytes
    }

    fn read(bytes: &[u8], step: usize) -> Result<Vec<Piece>, BackupError> {
        let mut reader = Reader::default();
        let mut pieces = Vec::new();
        for mut input in bytes.chunks(step.max(1)) {
            while let Some(piece) = reader.take(&mut input)? {
                pieces.push(piece);
            }
        }
        reader.finish().map(|_| pieces)
    }

    #[test]
    fn what_was_written_is_read_however_it_comes() {
        let bytes = backup(&[b"one", b"", b"three"]);
        let expected = vec![
            Piece::Header(header()),
            Piece::Chunk(b"one".to_vec()),
            Piece::Chunk(Vec::new()),
            Piece::Chunk(b"three".to_vec()),
            Piece::End(Totals { chunks: 3, bytes: 8 }),
        ];
        for step in [1, 2, 7, 13, 64, bytes.len()] {
            assert_eq!(read(&bytes, step), Ok(expected.clone()), "{step} bytes at a time");
        }
    }

    #[test]
    fn each_flipped_bit_is_noticed() {
        let good = backup(&[b"one", b"two"]);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                assert!(read(&bytes, 64).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn each_cut_is_noticed() {
        let good = backup(&[b"one", b"two"]);
        for end in 0..good.len() {
            let error = read(&good[..end], 64).unwrap_err();
            assert_eq!(error, BackupError::Cut { at: end as u64 }, "{end} bytes");
        }
        let longer = [&good[..], b"x"].concat();
        assert_eq!(read(&longer, 64), Err(BackupError::TooLong { at: good.len() as u64 }));
    }

    #[test]
    fn frames_cannot_be_lost_moved_or_taken_from_another() {
        let frames = |bytes: &[u8]| {
            let start = bytes.len() - (HEAD_BYTES + END_BYTES) - 2 * (HEAD_BYTES + 3);
            let (one, two) = (start + HEAD_BYTES + 3, start + 2 * (HEAD_BYTES + 3));
            [&bytes[..start], &bytes[start..one], &bytes[one..two], &bytes[two..]].map(<[u8]>::to_vec)
        };
        let [begin, one, two, end] = frames(&backup(&[b"one", b"two"]));
        let [_, _, other, _] = frames(&backup(&[b"ONE", b"two"]));
        for parts in [[&begin, &two, &one, &end], [&begin, &one, &other, &end], [&begin, &one, &end, &two]] {
            assert!(read(&parts.map(Vec::as_slice).concat(), 64).is_err());
        }
        assert!(read(&[&begin[..], &one, &end].concat(), 64).is_err());
        assert!(read(&[&begin[..], &one, &two, &end].concat(), 64).is_ok());
    }

    #[test]
    fn what_is_no_backup_is_told_from_a_newer_one() {
        assert_eq!(read(b"{\"key\":\"value\"}", 64), Err(BackupError::NotABackup));
        assert_eq!(read(b"{}", 64), Err(BackupError::NotABackup));
        let mut newer = backup(&[]);
        newer[8] = 2;
        assert_eq!(read(&newer, 64), Err(BackupError::NewerFormat { found: 2 }));
    }
}
