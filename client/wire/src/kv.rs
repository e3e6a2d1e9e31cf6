//! Answers about keys and sessions.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A key with its value and counters: the answer to a GET, and the previous value under `?prev`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Item {
    /// The key.
    pub key: String,
    /// The JSON value, byte for byte (`null` too is a value); a raw value that is UTF-8 as a JSON string.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub value: Option<Box<RawValue>>,
    /// A raw value that is not UTF-8, in base64 (RFC 4648 section 4, padded).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// The type of a raw value; absent: the value is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The revision of the key's last change; its `ETag`.
    pub revision: u64,
    /// The revision of its creation.
    pub create_revision: u64,
    /// Changes since its creation, from 1.
    pub version: u64,
    /// The lease that it ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// On a GET: what is left of that lease, as the answering node knows, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

impl Item {
    /// The JSON value as a Rust value. A raw value that is UTF-8 reads as a JSON string; one that is not is an error.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match &self.value {
            Some(value) => serde_json::from_str(value.get()),
            None => Err(serde::de::Error::custom("the value is raw bytes, not JSON")),
        }
    }
}

/// The answer to a PUT.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PutAnswer {
    /// The key.
    pub key: String,
    /// The store's revision with this write, now also the key's.
    pub revision: u64,
    /// Under `?prev`: what was there before. Not asked for and not there both read as `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<Item>,
}

/// The answer to a DELETE.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeleteAnswer {
    /// The key.
    pub key: String,
    /// Whether it was there.
    pub deleted: bool,
    /// The store's revision; not a new one where nothing was deleted.
    pub revision: u64,
    /// Under `?prev`: what was there before. Not asked for and not there both read as `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<Item>,
}

/// The answer to `POST /clear`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClearAnswer {
    /// How many keys there were.
    pub deleted: u64,
    /// The store's revision; not a new one where there were no keys.
    pub revision: u64,
}

/// The answer to `POST /v1/sessions`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionAnswer {
    /// The session's number, for the `Balsa-Session` header.
    pub session: u64,
}

/// A member that is there has a value: `null` is one where any JSON is, and none elsewhere.
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_a_value() {
        let text = r#"{"key":"a","value":null,"revision":2,"create_revision":1,"version":2}"#;
        let item: Item = serde_json::from_str(text).unwrap();
        assert_eq!(item.value.as_ref().map(|value| value.get()), Some("null"));
        assert_eq!(serde_json::to_string(&item).unwrap(), text);
        let raw = r#"{"key":"a","value_base64":"/w==","content_type":"x/y","revision":1,"create_revision":1,"version":1}"#;
        let item: Item = serde_json::from_str(raw).unwrap();
        assert!(item.value.is_none());
        assert_eq!(serde_json::to_string(&item).unwrap(), raw);
    }

    #[test]
    fn a_previous_value_may_be_absent_or_null() {
        for text in [r#"{"key":"a","revision":1}"#, r#"{"key":"a","revision":1,"prev":null}"#] {
            assert!(serde_json::from_str::<PutAnswer>(text).unwrap().prev.is_none());
        }
    }
}
