//! Frames: how opaque payloads are laid into a byte stream and taken out again. Pure; knows no sockets.
//!
//! ```text
//! [payload length u32 LE][kind u8][version u8][reserved u16 = 0][crc32c u32 LE][payload]
//! ```
//!
//! The checksum covers the eight bytes before it and the payload, so that a damaged length is found as well. What
//! holds: a decoder takes no memory for a length above its limit, never more than [`GROW_BYTES`] ahead of what has
//! arrived, and after an error gives nothing more.

use super::LaneKind;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// The size of a frame's header in bytes.
pub const HEADER_BYTES: usize = 12;
/// The version of the frame layout.
pub const FRAME_VERSION: u8 = 1;
/// How far ahead of the bytes that have arrived the decoder takes memory, in bytes.
pub const GROW_BYTES: usize = 1 << 20;

/// Payloads up to this size are copied beside their header (one contiguous write); larger ones are chained as they
/// are.
const COPY_BYTES_MAX: usize = 4 << 10;
/// Received payloads from this size on are views of the read buffer; smaller ones are copied out, since a few hundred
/// bytes kept in a log cache would otherwise pin a whole read buffer.
const SHARE_BYTES_MIN: usize = 64 << 10;

const KIND_KEEPALIVE: u8 = 0;

fn kind_of(lane: LaneKind) -> u8 {
    match lane {
        LaneKind::Message => 1,
        LaneKind::Bulk => 2,
    }
}

/// Why a byte stream is not one of frames; the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// A payload above the limit.
    #[error("a frame of {length} bytes, above the limit of {max}")]
    TooLarge {
        /// As the header says, in bytes.
        length: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The checksum does not match.
    #[error("a frame with a wrong checksum")]
    Checksum,
    /// A layout, kind or reserved field that this node does not know.
    #[error("a frame of kind {kind}, version {version}, which this stream does not carry")]
    Unknown {
        /// The kind byte.
        kind: u8,
        /// The version byte.
        version: u8,
    },
}

/// Frames ready to be written: headers and small payloads in shared buffers, large payloads as they came.
#[derive(Debug, Default)]
pub struct FrameBatch {
    segments: VecDeque<Bytes>,
    remaining: usize,
}

impl FrameBatch {
    /// Lays out the payloads, in order.
    pub fn new(lane: LaneKind, payloads: impl IntoIterator<Item = Bytes>) -> FrameBatch {
        let mut batch = FrameBatch::default();
        let mut small = BytesMut::new();
        for payload in payloads {
            small.put_slice(&header(kind_of(lane), &payload));
            if payload.len() <= COPY_BYTES_MAX {
                small.put_slice(&payload);
            } else {
                batch.push(small.split().freeze());
                batch.push(payload);
            }
        }
        batch.push(small.freeze());
        batch
    }

    /// The frame that only says "I live".
    pub fn keepalive() -> FrameBatch {
        let mut batch = FrameBatch::default();
        batch.push(Bytes::copy_from_slice(&header(KIND_KEEPALIVE, &[])));
        batch
    }

    fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.remaining += segment.len();
            self.segments.push_back(segment);
        }
    }
}

fn header(kind: u8, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    assert!(length < u32::MAX, "a payload of {} bytes passed the queue's limit", payload.len());
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = kind;
    header[5] = FRAME_VERSION;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), payload);
    header[8..].copy_from_slice(&checksum.to_le_bytes());
    header
}

impl Buf for FrameBatch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.segments.front().map_or(&[], |segment| segment.as_ref())
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.len().min(self.segments.len());
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            *slice = IoSlice::new(segment);
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advance by {count} beyond {}", self.remaining);
        self.remaining -= count;
        while let Some(front) = self.segments.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.segments.pop_front();
        }
    }
}

/// Takes frames out of a byte stream that arrives in pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    kind: u8,
    frame_bytes_max: usize,
    /// The beginning of a frame whose rest has not arrived; never a whole frame.
    partial: BytesMut,
    failed: Option<FrameError>,
}

#[derive(Clone, Copy)]
struct Header {
    kind: u8,
    length: usize,
    checksum: u32,
}

impl Decoder {
    /// For the stream of one lane, with the limit of a payload in bytes.
    pub fn new(lane: LaneKind, frame_bytes_max: usize) -> Decoder {
        Decoder { kind: kind_of(lane), frame_bytes_max, partial: BytesMut::new(), failed: None }
    }

    /// Takes a piece of the stream and appends the payloads of the frames it completes; keepalives are swallowed.
    pub fn feed(&mut self, piece: Bytes, payloads: &mut Vec<Bytes>) -> Result<(), FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.try_feed(piece, payloads).inspect_err(|error| {
            self.failed = Some(*error);
            self.partial = BytesMut::new();
        })
    }

    /// How much memory the beginning of an unfinished frame holds, in bytes.
    pub fn buffered_bytes(&self) -> usize {
        self.partial.capacity()
    }

    fn try_feed(&mut self, mut piece: Bytes, payloads: &mut Vec<Bytes>) -> Result<(), FrameError> {
        if !self.partial.is_empty() && !self.complete_partial(&mut piece, payloads)? {
            return Ok(());
        }
        while piece.len() >= HEADER_BYTES {
            let header = self.parse(&piece)?;
            let end = HEADER_BYTES + header.length;
            if piece.len() < end {
                break;
            }
            let frame = piece.split_to(end);
            verify(&frame, header)?;
            if header.kind != KIND_KEEPALIVE {
                payloads.push(if header.length >= SHARE_BYTES_MIN {
                    frame.slice(HEADER_BYTES..)
                } else {
                    Bytes::copy_from_slice(&frame[HEADER_BYTES..])
                });
            }
        }
        if !piece.is_empty() {
            self.append(&mut piece, HEADER_BYTES);
            if self.partial.len() >= HEADER_BYTES {
                let end = HEADER_BYTES + self.parse(&self.partial)?.length;
                self.append(&mut piece, end);
            }
        }
        Ok(())
    }

    /// Adds to the unfinished frame; true if it is finished and delivered.
    fn complete_partial(&mut self, piece: &mut Bytes, payloads: &mut Vec<Bytes>) -> Result<bool, FrameError> {
        self.append(piece, HEADER_BYTES);
        if self.partial.len() < HEADER_BYTES {
            return Ok(false);
        }
        let header = self.parse(&self.partial)?;
        let end = HEADER_BYTES + header.length;
        self.append(piece, end);
        if self.partial.len() < end {
            return Ok(false);
        }
        let frame = std::mem::take(&mut self.partial).freeze();
        verify(&frame, header)?;
        if header.kind != KIND_KEEPALIVE {
            payloads.push(frame.slice(HEADER_BYTES..));
        }
        Ok(true)
    }

    /// Moves bytes from `piece` until the unfinished frame has `end` bytes or the piece is empty.
    fn append(&mut self, piece: &mut Bytes, end: usize) {
        let missing = end.saturating_sub(self.partial.len());
        let take = missing.min(piece.len());
        // Exactly what is missing where that is little; at most a step ahead of what arrived where it is much.
        self.partial.reserve(missing.min(take + GROW_BYTES));
        self.partial.put_slice(&piece.split_to(take));
    }

    fn parse(&self, bytes: &[u8]) -> Result<Header, FrameError> {
        let mut bytes = &bytes[..HEADER_BYTES];
        let length = bytes.get_u32_le() as usize;
        let (kind, version, reserved) = (bytes.get_u8(), bytes.get_u8(), bytes.get_u16_le());
        let known = kind == self.kind || (kind == KIND_KEEPALIVE && length == 0);
        if !known || version != FRAME_VERSION || reserved != 0 {
            return Err(FrameError::Unknown { kind, version });
        }
        if length > self.frame_bytes_max {
            return Err(FrameError::TooLarge { length, max: self.frame_bytes_max });
        }
        Ok(Header { kind, length, checksum: bytes.get_u32_le() })
    }
}

fn verify(frame: &[u8], header: Header) -> Result<(), FrameError> {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&frame[..8]), &frame[HEADER_BYTES..]);
    if checksum == header.checksum { Ok(()) } else { Err(FrameError::Checksum) }
}

#[cfg(test)]
mod tests;
