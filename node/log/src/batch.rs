//! A batch: the unit that is written and found valid as a whole. Pure: bytes in, values out.
//!
//! ```text
//! 0 magic u32 | 4 payload crc u32 | 8 salt u64 | 16 sequence u64 | 24 payload length u32 | 28 zero u32
//! 32 own offset u64 | 40 synced end: segment u64 | 48 synced end: offset u64 | 56 zero u32 | 60 header crc u32
//! 64 payload, then zeros up to a multiple of 512
//! ```
//! Little endian. The header's checksum covers the payload's, so together they cover all. They are two because a
//! header survives in its own sector when its payload is torn, and its synced end is evidence all the same.
//! Batches begin at multiples of a sector: no write ever touches a sector that holds durable data.

use crate::segment::{u32_at, u64_at};

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 64;
/// Where batches may begin: multiples of this, in bytes.
pub(crate) const ALIGN_BYTES: u64 = 512;

const MAGIC: u32 = u32::from_le_bytes(*b"BaTc");

/// A place in the log. Ordered as the log is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Position {
    /// A segment's sequence.
    pub(crate) segment: u64,
    /// Bytes from the beginning of its file.
    pub(crate) offset: u64,
}

/// What a batch says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchHeader {
    pub(crate) salt: u64,
    /// Rises by one from batch to batch through all segments, from 1.
    pub(crate) sequence: u64,
    /// Where it was written, in bytes from the beginning of its file.
    pub(crate) offset: u64,
    /// Everything before this was durable when the batch was written.
    pub(crate) synced: Position,
}

/// A valid header in an image of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FoundHeader {
    pub(crate) header: BatchHeader,
    payload_crc: u32,
    payload_bytes: usize,
}

impl FoundHeader {
    /// Where the next batch begins, in bytes.
    pub(crate) fn end(&self) -> u64 {
        (self.header.offset + (HEADER_BYTES + self.payload_bytes) as u64).next_multiple_of(ALIGN_BYTES)
    }

    /// The payload, where it is valid too.
    pub(crate) fn payload<'a>(&self, image: &'a [u8]) -> Option<&'a [u8]> {
        let begin = self.header.offset as usize + HEADER_BYTES;
        let payload = image.get(begin..begin.checked_add(self.payload_bytes)?)?;
        (crc32c::crc32c(payload) == self.payload_crc).then_some(payload)
    }
}

/// Makes a batch of `buffer`, which holds `HEADER_BYTES` of room and then the payload: fills in the header and pads.
pub(crate) fn seal(buffer: &mut Vec<u8>, header: &BatchHeader) {
    let payload_bytes = buffer.len() - HEADER_BYTES;
    assert!(payload_bytes <= u32::MAX as usize, "a batch of {payload_bytes} bytes");
    let payload_crc = crc32c::crc32c(&buffer[HEADER_BYTES..]);
    buffer[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    buffer[4..8].copy_from_slice(&payload_crc.to_le_bytes());
    buffer[8..16].copy_from_slice(&header.salt.to_le_bytes());
    buffer[16..24].copy_from_slice(&header.sequence.to_le_bytes());
    buffer[24..28].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    buffer[28..32].fill(0);
    buffer[32..40].copy_from_slice(&header.offset.to_le_bytes());
    buffer[40..48].copy_from_slice(&header.synced.segment.to_le_bytes());
    buffer[48..56].copy_from_slice(&header.synced.offset.to_le_bytes());
    buffer[56..60].fill(0);
    let header_crc = crc32c::crc32c(&buffer[..60]);
    buffer[60..64].copy_from_slice(&header_crc.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(ALIGN_BYTES as usize), 0);
}

/// The valid header of this segment's salt at `offset` of `image`, if there is one.
pub(crate) fn find(image: &[u8], offset: u64, salt: u64) -> Option<FoundHeader> {
    let begin = offset as usize;
    let bytes = image.get(begin..begin.checked_add(HEADER_BYTES)?)?;
    if u32_at(bytes, 0) != MAGIC || u64_at(bytes, 8) != salt || u64_at(bytes, 32) != offset {
        return None;
    }
    if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
        return None;
    }
    Some(FoundHeader {
        header: BatchHeader {
            salt,
            sequence: u64_at(bytes, 16),
            offset,
            synced: Position { segment: u64_at(bytes, 40), offset: u64_at(bytes, 48) },
        },
        payload_crc: u32_at(bytes, 4),
        payload_bytes: u32_at(bytes, 24) as usize,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Vec<u8> {
        let mut buffer = vec![0; HEADER_BYTES];
        buffer.extend_from_slice(b"payload");
        let synced = Position { segment: 2, offset: 4096 };
        seal(&mut buffer, &BatchHeader { salt: 5, sequence: 9, offset: 0, synced });
        buffer
    }

    #[test]
    fn roundtrip() {
        let image = sealed();
        assert_eq!(image.len(), 512);
        let found = find(&image, 0, 5).unwrap();
        assert_eq!(found.header.sequence, 9);
        assert_eq!(found.header.synced, Position { segment: 2, offset: 4096 });
        assert_eq!(found.payload(&image), Some(&b"payload"[..]));
        assert_eq!(found.end(), 512);
    }

    #[test]
    fn another_salt_offset_or_end_of_file_is_no_batch() {
        let image = sealed();
        assert_eq!(find(&image, 0, 6), None);
        let moved = [vec![0; 512], image.clone()].concat();
        assert_eq!(find(&moved, 512, 5), None);
        assert_eq!(find(&image, 512, 5), None);
        assert_eq!(find(&image, u64::MAX, 5), None);
        assert_eq!(find(&image[..66], 0, 5).unwrap().payload(&image[..66]), None);
    }

    #[test]
    fn any_flip_is_found() {
        for at in 0..HEADER_BYTES + 7 {
            let mut image = sealed();
            image[at] ^= 1;
            let payload = find(&image, 0, 5).and_then(|found| found.payload(&image).map(<[u8]>::to_vec));
            assert_eq!(payload, None, "flip at {at}");
        }
    }
}
