//! Transactions and ranges.

use crate::kv::{Item, present};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The body of `POST /v1/txn`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TxnRequest {
    /// All must hold for `then` to be done; none: they do.
    #[serde(default, rename = "if", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Done where they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Op>,
    /// Done where they do not.
    #[serde(default, rename = "else", skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<Op>,
}

/// A condition: of a key, with one of `revision`, `version`, `value`, `value_base64` and `exists`; or of a lock, with
/// `token`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The key.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key's revision is this one; 0: it is absent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The key's version is this one; 0: it is absent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The key has this JSON value, byte for byte.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub value: Option<Box<RawValue>>,
    /// The key has these raw bytes.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// The key is there, or is not.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// The lock.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// The lock is held under this token.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
}

/// An operation of a transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Reads a key.
    Get(KeyOp),
    /// Sets a key.
    Put(PutOp),
    /// Deletes a key.
    Delete(KeyOp),
    /// Reads a range.
    Range(RangeOp),
}

/// An operation that needs no more than its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyOp {
    /// The key.
    pub key: String,
}

/// Sets a key: to a JSON value, or to raw bytes with their type.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PutOp {
    /// The key.
    pub key: String,
    /// The JSON value.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = serde_json::Value))]
    pub value: Option<Box<RawValue>>,
    /// Raw bytes, in base64.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// The type of the raw bytes.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The lease that the key ends with.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
}

/// Reads a range: of a prefix, or from `start` up to and without `end`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RangeOp {
    /// Keys that begin with this.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The first key.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The first key beyond.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// At most so many items; `None`: as many as a page has.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The answer to `POST /v1/txn`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TxnAnswer {
    /// The conditions held: `then` was done, else `else`.
    pub succeeded: bool,
    /// The store's revision.
    pub revision: u64,
    /// One for each operation that was done.
    pub results: Vec<OpResult>,
}

/// What an operation gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OpResult {
    /// What the key had before the transaction; `None`: it was absent.
    Get(Option<Item>),
    /// The key was set.
    Put(KeyOp),
    /// The key is gone.
    Delete(Deleted),
    /// What was in the range before the transaction.
    Range(Items),
}

/// A key that was deleted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deleted {
    /// The key.
    pub key: String,
    /// Whether it was there.
    pub deleted: bool,
}

/// What a range within a transaction gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Items {
    /// In ascending order.
    pub items: Vec<Item>,
    /// There are more.
    pub more: bool,
}

/// The answer to `GET /v1/kv`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RangeAnswer {
    /// The items of this page; with `keys_only` they have no values.
    #[serde(default)]
    pub items: Vec<RangeItem>,
    /// With `count_only`: how many there are in this page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// There are more.
    pub more: bool,
    /// Where they begin: `cursor` of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The revision of all pages.
    pub revision: u64,
}

/// A key of a range; an [`Item`] but where only keys were asked for.
pub type RangeItem = Item;

/// The answer to `DELETE /v1/kv`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RangeDeleteAnswer {
    /// How many keys were there.
    pub deleted: u64,
    /// The store's revision; not a new one where nothing was deleted.
    pub revision: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_not_absent() {
        for text in [r#"{"key":"a","revision":null}"#, r#"{"key":null,"exists":true}"#] {
            assert!(serde_json::from_str::<Condition>(text).is_err(), "{text}");
        }
        let null: Condition = serde_json::from_str(r#"{"key":"a","value":null}"#).unwrap();
        assert_eq!(null.value.as_ref().map(|value| value.get()), Some("null"));
        assert!(serde_json::from_str::<PutOp>(r#"{"key":"a","value":1,"lease":null}"#).is_err());
        assert!(serde_json::from_str::<RangeOp>(r#"{"prefix":"a","limit":null}"#).is_err());
    }
}
