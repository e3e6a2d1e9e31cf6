//! A segment file's name and header. Pure: bytes in, values out.
//!
//! The header has a page (4 KiB) of its own, so that no batch write ever touches it.

use crate::config::LogIdentity;

/// Where batches begin, in bytes.
pub(crate) const HEADER_BYTES: u64 = 4096;
/// The format that this code writes and reads.
pub(crate) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"BALSALOG";
const ENCODED_BYTES: usize = 64;

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) identity: LogIdentity,
    /// Position in the log, from 1, without gaps.
    pub(crate) sequence: u64,
    /// The file's length, which never changes: a shorter file has lost something.
    pub(crate) len_bytes: u64,
    /// Repeated in every batch of this segment; what a recycled file held before carries another.
    pub(crate) salt: u64,
}

impl SegmentHeader {
    pub(crate) fn new(identity: LogIdentity, sequence: u64, len_bytes: u64, seed: u64) -> SegmentHeader {
        let salt =
            [identity.cluster, identity.node, sequence].into_iter().fold(seed, |hash, word| mix(hash ^ word));
        SegmentHeader { version: VERSION, identity, sequence, len_bytes, salt }
    }

    /// `HEADER_BYTES` bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for word in [self.identity.cluster, self.identity.node, self.sequence, self.len_bytes, self.salt] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.resize(HEADER_BYTES as usize, 0);
        out
    }

    /// The header at the beginning of `bytes`, or what is wrong with it. Any version decodes: the layout stays.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, &'static str> {
        let Some(bytes) = bytes.get(..ENCODED_BYTES) else { return Err("the file is shorter than a header") };
        if bytes[..8] != MAGIC {
            return Err("the segment header has no magic");
        }
        if crc32c::crc32c(&bytes[..56]) != u32_at(bytes, 56) {
            return Err("the segment header's checksum is wrong");
        }
        Ok(SegmentHeader {
            version: u32_at(bytes, 8),
            identity: LogIdentity { cluster: u64_at(bytes, 16), node: u64_at(bytes, 24) },
            sequence: u64_at(bytes, 32),
            len_bytes: u64_at(bytes, 40),
            salt: u64_at(bytes, 48),
        })
    }
}

/// `NNNNNNNNNNNNNNNN.log`, in hex: names sort as sequences do.
pub(crate) fn live_name(sequence: u64) -> String {
    format!("{sequence:016x}.log")
}

/// The name of a segment that is being made.
pub(crate) fn new_name(sequence: u64) -> String {
    format!("{sequence:016x}.new")
}

/// The name of a retired segment.
pub(crate) fn spare_name(sequence: u64) -> String {
    format!("{sequence:016x}.spare")
}

/// What a file in the log's folder is, by its name alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileName {
    Live(u64),
    New(u64),
    Spare(u64),
    /// Not ours: left alone.
    Other,
}

pub(crate) fn parse_name(name: &str) -> FileName {
    let Some((digits, kind)) = name.split_once('.') else { return FileName::Other };
    let ours = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match (u64::from_str_radix(digits, 16), kind) {
        (Ok(sequence), "log") if ours => FileName::Live(sequence),
        (Ok(sequence), "new") if ours => FileName::New(sequence),
        (Ok(sequence), "spare") if ours => FileName::Spare(sequence),
        _ => FileName::Other,
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// splitmix64's finaliser.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_roundtrips_and_any_flip_is_found() {
        let header = SegmentHeader::new(LogIdentity { cluster: 7, node: 9 }, 3, 8192, 11);
        let bytes = header.encode();
        assert_eq!(bytes.len() as u64, HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for at in 0..60 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            assert!(SegmentHeader::decode(&bytes).is_err(), "flip at {at}");
        }
        assert!(SegmentHeader::decode(&bytes[..40]).is_err());
    }

    #[test]
    fn salts_differ_by_sequence_and_seed() {
        let identity = LogIdentity { cluster: 7, node: 9 };
        let salt = |sequence, seed| SegmentHeader::new(identity, sequence, 8192, seed).salt;
        assert_ne!(salt(1, 0), salt(2, 0));
        assert_ne!(salt(1, 0), salt(1, 1));
    }

    #[test]
    fn names() {
        assert_eq!(parse_name(&live_name(0x1f)), FileName::Live(0x1f));
        assert_eq!(parse_name(&new_name(2)), FileName::New(2));
        assert_eq!(parse_name(&spare_name(2)), FileName::Spare(2));
        for other in
            ["x", "1.log", "000000000000001F.log", "0000000000000001.log.bak", "+000000000000001.log"]
        {
            assert_eq!(parse_name(other), FileName::Other, "{other}");
        }
    }
}
