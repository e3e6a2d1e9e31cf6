//! Answers about keys and sessions.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A key with its value and counters: the answer to a GET, and the previous value under `?prev`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: String,
    /// The JSON value, byte for byte; a raw value that is UTF-8 as a JSON string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
}

/// The answer to a PUT.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
pub struct ClearAnswer {
    /// How many keys there were.
    pub deleted: u64,
    /// The store's revision; not a new one where there were no keys.
    pub revision: u64,
}

/// The answer to `POST /v1/sessions`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionAnswer {
    /// The session's number, for the `Balsa-Session` header.
    pub session: u64,
}
