//! Writing JSON straight into bytes: the answers of the hot paths, without trees and without a serializer's errors.

use balsa_store::command::Value;

/// A JSON text under construction.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty text with room for `capacity` bytes.
    pub(super) fn with_capacity(capacity: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(capacity) }
    }

    /// Punctuation and member names, as they are.
    pub(super) fn raw(&mut self, text: &str) -> &mut Writer {
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    /// A number.
    pub(super) fn number(&mut self, number: u64) -> &mut Writer {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.bytes.extend_from_slice(&digits[at..]);
        self
    }

    /// A string with its quotes (RFC 8259 section 7).
    pub(super) fn string(&mut self, text: &str) -> &mut Writer {
        self.bytes.push(b'"');
        let bytes = text.as_bytes();
        let mut from = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let short = match byte {
                b'"' => b'"',
                b'\\' => b'\\',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0x00..=0x1F => 0,
                _ => continue,
            };
            self.bytes.extend_from_slice(&bytes[from..at]);
            from = at + 1;
            if short != 0 {
                self.bytes.extend_from_slice(&[b'\\', short]);
            } else {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                self.bytes.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        self.bytes.extend_from_slice(&bytes[from..]);
        self.bytes.push(b'"');
        self
    }

    /// `bytes` in base64 with its quotes (RFC 4648 section 4, padded).
    pub(super) fn base64(&mut self, bytes: &[u8]) -> &mut Writer {
        self.bytes.push(b'"');
        balsa_wire::base64::append(bytes, &mut self.bytes);
        self.bytes.push(b'"');
        self
    }

    /// The envelope of a key and its value, as [`balsa_wire::kv::Item`] reads it.
    pub(super) fn item(&mut self, key: &str, value: &Value) -> &mut Writer {
        self.raw("{\"key\":").string(key);
        match &value.content_type {
            // A JSON value was checked when it came, and is kept byte for byte.
            None => {
                self.raw(",\"value\":");
                self.bytes.extend_from_slice(&value.value);
            }
            Some(content_type) => {
                match std::str::from_utf8(&value.value) {
                    Ok(text) => self.raw(",\"value\":").string(text),
                    Err(_) => self.raw(",\"value_base64\":").base64(&value.value),
                };
                self.raw(",\"content_type\":").string(content_type);
            }
        }
        self.standing(value)
    }

    /// As [`Writer::item`], without the value.
    pub(super) fn key_item(&mut self, key: &str, value: &Value) -> &mut Writer {
        self.raw("{\"key\":").string(key);
        self.standing(value)
    }

    /// What an item says of its key beside the value; the end of it.
    fn standing(&mut self, value: &Value) -> &mut Writer {
        self.raw(",\"revision\":").number(value.revision);
        self.raw(",\"create_revision\":").number(value.create_revision);
        self.raw(",\"version\":").number(value.version);
        if value.lease != 0 {
            self.raw(",\"lease\":").number(value.lease);
        }
        self.raw("}")
    }

    /// Takes the closing brace of the object back, to add members.
    pub(super) fn reopen(&mut self) -> &mut Writer {
        if self.bytes.last() == Some(&b'}') {
            self.bytes.pop();
        }
        self
    }

    /// The text.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balsa_wire::kv::Item;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Writer) -> &mut Writer) -> String {
        String::from_utf8(write(&mut Writer::with_capacity(0)).finish()).unwrap()
    }

    #[test]
    fn numbers() {
        for n in [0, 9, 10, 12345, u64::MAX] {
            assert_eq!(written(|w| w.number(n)), n.to_string());
        }
    }

    #[test]
    fn base64_vectors() {
        // RFC 4648 section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(written(|w| w.base64(bytes.as_bytes())), format!("\"{text}\""));
        }
        assert_eq!(written(|w| w.base64(&[0xFB, 0xFF, 0xFE])), "\"+//+\"");
    }

    proptest! {
        #[test]
        fn strings_are_as_serde_writes_and_reads_them(text in any::<String>(), control in 0u8..0x80) {
            for text in [text.as_str(), char::from(control).encode_utf8(&mut [0; 4])] {
                let written = written(|w| w.string(text));
                prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
            }
        }

        #[test]
        fn a_raw_value_survives_the_envelope(
            key in any::<String>(),
            value in proptest::collection::vec(any::<u8>(), 0..64),
            revision in 1..u64::MAX,
        ) {
            let content_type = Some("text/plain".to_owned());
            let value = Value { value: Bytes::from(value), content_type, revision, create_revision: 1, version: 2, lease: 0 };
            let item: Item = serde_json::from_str(&written(|w| w.item(&key, &value))).unwrap();
            prop_assert_eq!(item.key, key);
            prop_assert_eq!(item.revision, revision);
            prop_assert_eq!((item.create_revision, item.version), (1, 2));
            prop_assert_eq!(item.content_type.as_deref(), Some("text/plain"));
            match std::str::from_utf8(&value.value) {
                Ok(text) => {
                    prop_assert_eq!(serde_json::from_str::<String>(item.value.unwrap().get()).unwrap(), text);
                }
                Err(_) => prop_assert_eq!(
                    format!("\"{}\"", item.value_base64.unwrap()),
                    written(|w| w.base64(&value.value))
                ),
            }
        }
    }
}
