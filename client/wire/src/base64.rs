//! Bytes in JSON: base64 (RFC 4648 section 4, padded).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes`, encoded, to `text`.
pub fn append(bytes: &[u8], text: &mut Vec<u8>) {
    text.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let six = (group >> (18 - 6 * at)) & 63;
            text.push(if at <= chunk.len() { ALPHABET[six as usize] } else { b'=' });
        }
    }
}

/// `bytes`, encoded.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    append(bytes, &mut text);
    text.into_iter().map(char::from).collect()
}

/// The bytes that `text` encodes; `None`: it is not base64 with its padding.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (at, group) in text.chunks_exact(4).enumerate() {
        let is_last = (at + 1) * 4 == text.len();
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || (padding > 0 && !is_last) {
            return None;
        }
        let mut bits = 0u32;
        for byte in &group[..4 - padding] {
            bits = bits << 6 | ALPHABET.iter().position(|letter| letter == byte)? as u32;
        }
        bits <<= 6 * padding;
        let three = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        if three[3 - padding..].iter().any(|rest| *rest != 0) {
            return None; // bits that stand for nothing
        }
        bytes.extend_from_slice(&three[..3 - padding]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        // RFC 4648 section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
        }
        assert_eq!(encode(&[0xFB, 0xFF, 0xFE]), "+//+");
    }
}
