//! Transactions and range deletions: several writes under one revision.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Nothing, Value};

/// Conditions, operations in each branch: no more of any.
pub const TXN_OPS_MAX: usize = 128;

/// Keys and values that the reads of one transaction may give, in bytes, about: its answer is kept for retries.
pub const TXN_RESULT_BYTES_MAX: usize = 2 << 20;

/// The most items that one read of a range gives.
pub const TXN_RANGE_ITEMS_MAX: u32 = 1000;

/// A transaction: if all conditions hold `then`, else `otherwise`, at one revision.
///
/// Conditions and reads see the state before it; so no read depends on a write of the same transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Txn {
    /// All must hold; none: they do.
    #[prost(message, repeated, tag = "1")]
    pub conditions: Vec<TxnCondition>,
    /// Done if they hold.
    #[prost(message, repeated, tag = "2")]
    pub then: Vec<TxnOp>,
    /// Done if they do not.
    #[prost(message, repeated, tag = "3")]
    pub otherwise: Vec<TxnOp>,
}

impl Txn {
    /// Whether either branch sets a key.
    pub(super) fn puts(&self) -> bool {
        let ops = self.then.iter().chain(&self.otherwise);
        ops.into_iter().any(|op| matches!(op.kind, Some(TxnOpKind::Put(_))))
    }
}

/// A condition of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnCondition {
    /// Of a key; or the name of a lock.
    #[prost(bytes = "bytes", tag = "1")]
    pub subject: Bytes,
    /// What is asked. `None` after decoding: a test this build does not know.
    #[prost(oneof = "TxnTest", tags = "2, 3, 4, 5, 6")]
    pub test: Option<TxnTest>,
}

/// What a condition asks.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum TxnTest {
    /// The key's last change has this revision; 0: the key is absent.
    #[prost(uint64, tag = "2")]
    Revision(u64),
    /// The key has changed so often since it was created; 0: it is absent.
    #[prost(uint64, tag = "3")]
    Version(u64),
    /// The key has this value, byte for byte.
    #[prost(message, tag = "4")]
    Value(TxnValue),
    /// The key is there, or is not.
    #[prost(bool, tag = "5")]
    Exists(bool),
    /// The lock is held under this token.
    #[prost(uint64, tag = "6")]
    Lock(u64),
}

/// A value to compare with.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnValue {
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub value: Bytes,
    /// It must be a JSON value; else it must be a raw one, of whatever type.
    #[prost(bool, tag = "2")]
    pub json: bool,
}

/// An operation of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnOp {
    /// Which. `None` after decoding: one this build does not know.
    #[prost(oneof = "TxnOpKind", tags = "1, 2, 3, 4")]
    pub kind: Option<TxnOpKind>,
}

/// The operations of a transaction.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum TxnOpKind {
    /// Reads a key.
    #[prost(bytes = "bytes", tag = "1")]
    Get(Bytes),
    /// Sets a key.
    #[prost(message, tag = "2")]
    Put(TxnPut),
    /// Deletes a key.
    #[prost(bytes = "bytes", tag = "3")]
    Delete(Bytes),
    /// Reads a range.
    #[prost(message, tag = "4")]
    Range(TxnRange),
}

/// Sets a key within a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnPut {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value, byte for byte.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// As in `Put`.
    #[prost(string, optional, tag = "3")]
    pub content_type: Option<String>,
    /// The lease that the key ends with; 0: none.
    #[prost(uint64, tag = "4")]
    pub lease: u64,
}

/// Reads a range within a transaction, in ascending order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnRange {
    /// First key.
    #[prost(bytes = "bytes", tag = "1")]
    pub start: Bytes,
    /// First key beyond; `None`: to the last.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub end: Option<Bytes>,
    /// At most so many, 1 to [`TXN_RANGE_ITEMS_MAX`].
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

/// Deletes keys from `start` on, at most so many, at one revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRange {
    /// First key.
    #[prost(bytes = "bytes", tag = "1")]
    pub start: Bytes,
    /// First key beyond; `None`: to the last.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub end: Option<Bytes>,
    /// At most so many.
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

/// Keys of a range are gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeDeleted {
    /// How many.
    #[prost(uint64, tag = "1")]
    pub deleted: u64,
    /// The next key of the range, which is still there.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub next: Option<Bytes>,
    /// The store's revision.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
}

/// A transaction was done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnDone {
    /// The conditions held.
    #[prost(bool, tag = "1")]
    pub succeeded: bool,
    /// The store's revision.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// One for each operation that was done.
    #[prost(message, repeated, tag = "3")]
    pub results: Vec<TxnResult>,
}

/// What an operation of a transaction gave.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnResult {
    /// By kind. `None` after decoding: one this build does not know.
    #[prost(oneof = "TxnResultKind", tags = "1, 2, 3, 4")]
    pub kind: Option<TxnResultKind>,
}

/// What operations give.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum TxnResultKind {
    /// What the key had.
    #[prost(message, tag = "1")]
    Get(TxnGot),
    /// The key was set.
    #[prost(message, tag = "2")]
    Put(Nothing),
    /// Whether the key was there.
    #[prost(bool, tag = "3")]
    Delete(bool),
    /// What was in the range.
    #[prost(message, tag = "4")]
    Range(TxnItems),
}

/// What a key had.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnGot {
    /// `None`: it was not there.
    #[prost(message, optional, tag = "1")]
    pub value: Option<Value>,
}

/// What was in a range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnItems {
    /// In ascending order.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<TxnItem>,
    /// There are more.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// A key and what it had.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnItem {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// What it had.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Value>,
}

/// A transaction that was not done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnRefused {
    /// The part that is to blame, as a path into the request: `/then/2/put/key`.
    #[prost(string, tag = "1")]
    pub path: String,
    /// What is wrong with it.
    #[prost(string, tag = "2")]
    pub why: String,
}

impl Txn {
    /// What no state could make right: too many parts, a key written twice, a part that says nothing.
    pub fn check(&self) -> Result<(), TxnRefused> {
        let refused = |path: String, why: &str| Err(TxnRefused { path, why: why.to_owned() });
        if self.conditions.len() > TXN_OPS_MAX {
            return refused("/if".into(), "there are more than 128 conditions");
        }
        if let Some(at) = self.conditions.iter().position(|condition| condition.test.is_none()) {
            return refused(format!("/if/{at}"), "the condition asks nothing that is known here");
        }
        for (branch, ops) in [("then", &self.then), ("else", &self.otherwise)] {
            if ops.len() > TXN_OPS_MAX {
                return refused(format!("/{branch}"), "there are more than 128 operations");
            }
            let mut written = BTreeSet::new();
            for (at, op) in ops.iter().enumerate() {
                let key = match &op.kind {
                    None => {
                        return refused(format!("/{branch}/{at}"), "the operation is not known here");
                    }
                    Some(TxnOpKind::Put(put)) => &put.key,
                    Some(TxnOpKind::Delete(key)) => key,
                    Some(TxnOpKind::Get(_) | TxnOpKind::Range(_)) => continue,
                };
                if !written.insert(key) {
                    return refused(format!("/{branch}/{at}"), "it writes a key that is written before");
                }
            }
        }
        Ok(())
    }
}
