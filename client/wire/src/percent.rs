//! Percent-coding of keys in paths and of query components (RFC 3986 section 2.1).
//!
//! `+` is `+`, never a space; nothing is normalised. Decoding what was encoded gives the same key.

use std::borrow::Cow;

/// Why a piece of a path or query is not a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// A `%` that two hexadecimal digits do not follow.
    Malformed {
        /// Where, in bytes from the start.
        at: usize,
    },
    /// The decoded bytes are not UTF-8.
    NotUtf8,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DecodeError::Malformed { at } => {
                write!(f, "the % at byte {at} is not followed by two hexadecimal digits (a % itself is %25)")
            }
            DecodeError::NotUtf8 => write!(f, "it is not UTF-8"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Decodes `text`; borrows where there is nothing to decode.
pub fn decode(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    let bytes = text.as_bytes();
    let Some(first) = bytes.iter().position(|b| *b == b'%') else {
        return Ok(Cow::Borrowed(text));
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut at = first;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let high = bytes.get(at + 1).copied().and_then(hex_value);
            let low = bytes.get(at + 2).copied().and_then(hex_value);
            let (Some(high), Some(low)) = (high, low) else {
                return Err(DecodeError::Malformed { at });
            };
            decoded.push(high << 4 | low);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| DecodeError::NotUtf8)
}

/// Encodes `key` as one segment of a path (`/{key}`): slashes too.
pub fn encode_segment(key: &str) -> String {
    encode(key, is_unreserved)
}

/// Encodes `key` as the rest of a path (`/v1/kv/{key}`): slashes stay.
///
/// Except in a key with a `.` or `..` between its slashes: URL libraries would take those as "here" and "up" and
/// rewrite the path, even percent-encoded, so there the slashes are encoded. The keys `.` and `..` themselves have
/// no form that survives such a library.
pub fn encode_path(key: &str) -> String {
    if key.split('/').any(|segment| segment == "." || segment == "..") {
        encode_segment(key)
    } else {
        encode(key, |b| is_unreserved(b) || b == b'/')
    }
}

fn encode(key: &str, stays: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(key.len());
    for byte in key.bytes() {
        if stays(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

const HEX: [u8; 16] = *b"0123456789ABCDEF";

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        for (text, expected) in [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("a+b", Ok("a+b")),
            ("a%20b", Ok("a b")),
            ("a%2Fb%2fc", Ok("a/b/c")),
            ("//./..", Ok("//./..")),
            ("%D0%BA", Ok("к")),
            ("к", Ok("к")),
            ("%25", Ok("%")),
            ("%2525", Ok("%25")),
            ("%00", Ok("\0")),
            ("%", Err(DecodeError::Malformed { at: 0 })),
            ("a%4", Err(DecodeError::Malformed { at: 1 })),
            ("a%zz", Err(DecodeError::Malformed { at: 1 })),
            ("%20%+1", Err(DecodeError::Malformed { at: 3 })),
            ("%FF", Err(DecodeError::NotUtf8)),
            ("%C0%80", Err(DecodeError::NotUtf8)),
        ] {
            assert_eq!(decode(text).as_deref(), expected.as_ref().map(|t| *t), "{text:?}");
        }
    }

    #[test]
    fn encodes() {
        for (key, segment, path) in [
            ("plain", "plain", "plain"),
            ("a/b", "a%2Fb", "a/b"),
            ("//", "%2F%2F", "//"),
            ("a b+c%", "a%20b%2Bc%25", "a%20b%2Bc%25"),
            ("a?b#c", "a%3Fb%23c", "a%3Fb%23c"),
            ("к", "%D0%BA", "%D0%BA"),
            ("a/../b", "a%2F..%2Fb", "a%2F..%2Fb"),
            ("...", "...", "..."),
        ] {
            assert_eq!(encode_segment(key), segment);
            assert_eq!(encode_path(key), path);
        }
    }

    #[test]
    fn every_character_survives() {
        let key: String = (0..=0x2_FFFF).filter_map(char::from_u32).collect();
        assert_eq!(decode(&encode_segment(&key)).unwrap(), key);
        assert_eq!(decode(&encode_path(&key)).unwrap(), key);
    }
}
