//! The rows that the store keeps in its engine, and nothing about when they are written.
//!
//! One ordered map holds all tables, told apart by the first byte of the key, so that one ingestion changes all of them
//! at once. In order:
//!
//! | key | row | meaning |
//! | --- | --- | --- |
//! | `d` key | [`KeyRow`] | the newest change of a key, deletions included until compaction |
//! | `h` revision | [`HistoryRow`] | a change, in order of revision: what watches stream and reads of the past walk |
//! | `h` revision, key | [`HistoryRow`] | likewise, one of several keys that changed at one revision |
//! | `i` key | [`ReplyRow`] | a recorded reply, by idempotency key |
//! | `j` key | `Reply` | its body, where it is large |
//! | `k` lease, key | revision | a key that ends with a lease, and since which change |
//! | `l` lease | `Lease` | a lease |
//! | `m` | [`MetaRow`] | where in the log all of this is |
//! | `o` token | `Place` | a place in the queue of a lock |
//! | `s` session | [`SessionRow`] | an open session |
//! | `t` session, sequence | [`ReplyRow`] | a recorded reply of a session |
//! | `u` session, sequence | `Reply` | its body, where it is large |
//!
//! The newest row lies under the plain key, not under key and revision, because then both a read and the merge at a
//! flush are point lookups that a bloom filter answers for absent keys. The past of a key is a chain: each change
//! names the revision of the one before it ([`HistoryRow::previous`]).
//!
//! Numbers in keys are big endian, so that they sort.

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::command::Reply;
use crate::error::StoreError;

/// Format of the tables. Another format needs another number.
pub(crate) const FORMAT: u32 = 1;

/// A value beyond this lies in its history row only.
pub(crate) const INLINE_VALUE_BYTES_MAX: usize = 1024;

/// A reply beyond this has a row of its own, so that opening need not read it.
pub(crate) const INLINE_REPLY_BYTES_MAX: usize = 256;

/// Table of newest rows.
pub(crate) const TABLE_KEYS: u8 = b'd';
/// Table of changes.
pub(crate) const TABLE_HISTORY: u8 = b'h';
/// Table of replies by idempotency key.
pub(crate) const TABLE_REPLIES: u8 = b'i';
/// Table of their bodies.
pub(crate) const TABLE_REPLY_BODIES: u8 = b'j';
/// Table of leases.
pub(crate) const TABLE_LEASES: u8 = b'l';
/// Table of keys by lease.
pub(crate) const TABLE_LEASE_KEYS: u8 = b'k';
/// Table of places in the queues of locks, by token.
pub(crate) const TABLE_LOCKS: u8 = b'o';
/// Table of sessions.
pub(crate) const TABLE_SESSIONS: u8 = b's';
/// Table of replies by session and sequence.
pub(crate) const TABLE_SESSION_REPLIES: u8 = b't';
/// Table of their bodies.
pub(crate) const TABLE_SESSION_BODIES: u8 = b'u';
/// Key of the meta row.
pub(crate) const META_KEY: &[u8] = b"m";

/// Where a reply of a table lies, and its body.
pub(crate) const fn body_table(table: u8) -> u8 {
    if table == TABLE_REPLIES { TABLE_REPLY_BODIES } else { TABLE_SESSION_BODIES }
}

/// `table` and `key`.
pub(crate) fn row_key(table: u8, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(1 + key.len());
    row.put_u8(table);
    row.put_slice(key);
    row.freeze()
}

/// A range of a table's rows, that of keys from `start` to `end`.
pub(crate) fn range_of(table: u8, start: Bound<&[u8]>, end: Bound<&[u8]>) -> (Bound<Bytes>, Bound<Bytes>) {
    let row = |bound: Bound<&[u8]>| bound.map(|key| row_key(table, key));
    let start = match start {
        Bound::Unbounded => Bound::Included(row_key(table, &[])),
        bound => row(bound),
    };
    let end = match end {
        Bound::Unbounded => Bound::Excluded(row_key(table + 1, &[])),
        bound => row(bound),
    };
    (start, end)
}

/// `table` and a number.
pub(crate) fn number_key(table: u8, number: u64) -> Bytes {
    row_key(table, &number.to_be_bytes())
}

/// Where the change of a key lies in history. A revision that several keys share has a row for each.
pub(crate) fn history_key(at: ChangeAt, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(9 + key.len());
    row.put_u8(TABLE_HISTORY);
    row.put_u64(at.revision);
    if at.shared {
        row.put_slice(key);
    }
    row.freeze()
}

/// A lease and a key that ends with it, without the table.
pub(crate) fn lease_key(lease: u64, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(8 + key.len());
    row.put_u64(lease);
    row.put_slice(key);
    row.freeze()
}

/// Which change of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ChangeAt {
    /// Its revision.
    pub(crate) revision: u64,
    /// Other keys changed at that revision, too.
    pub(crate) shared: bool,
}

/// A session and a sequence, without the table.
pub(crate) fn session_key(session: u64, sequence: u64) -> [u8; 16] {
    ((u128::from(session) << 64) | u128::from(sequence)).to_be_bytes()
}

/// The number at the start of `bytes`.
pub(crate) fn read_number(bytes: &[u8]) -> Result<u64, StoreError> {
    let head = bytes.first_chunk::<8>().ok_or_else(|| StoreError::corrupt("a row key is too short"))?;
    Ok(u64::from_be_bytes(*head))
}

/// The newest change of a key.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyRow {
    /// Revision of the change.
    #[prost(uint64, tag = "1")]
    pub(crate) revision: u64,
    /// Revision of the creation.
    #[prost(uint64, tag = "2")]
    pub(crate) create_revision: u64,
    /// Changes since the creation.
    #[prost(uint64, tag = "3")]
    pub(crate) version: u64,
    /// The change is a deletion.
    #[prost(bool, tag = "4")]
    pub(crate) deleted: bool,
    /// As in `command::Value`.
    #[prost(string, optional, tag = "5")]
    pub(crate) content_type: Option<String>,
    /// The value; absent where it lies in the history row only.
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub(crate) value: Option<Bytes>,
    /// The lease that the key ends with; 0: none.
    #[prost(uint64, tag = "7")]
    pub(crate) lease: u64,
    /// As in [`ChangeAt`].
    #[prost(bool, tag = "8")]
    pub(crate) shared: bool,
}

/// What kind of change a history row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ChangeKind {
    /// A key was set.
    Put = 0,
    /// A key was deleted.
    Delete = 1,
    /// All keys were deleted.
    Clear = 2,
}

/// A change.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HistoryRow {
    /// Its kind.
    #[prost(enumeration = "ChangeKind", tag = "1")]
    pub(crate) kind: i32,
    /// The key; empty for a clear.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) key: Bytes,
    /// As in [`KeyRow`]. For a clear: how many keys there were.
    #[prost(uint64, tag = "3")]
    pub(crate) create_revision: u64,
    /// As in [`KeyRow`].
    #[prost(uint64, tag = "4")]
    pub(crate) version: u64,
    /// Revision of the key's change before this one, even where that was deleted or cleared; of the clear before, for a
    /// clear. 0: none. The row it names may have been compacted away.
    #[prost(uint64, tag = "5")]
    pub(crate) previous: u64,
    /// As in `command::Value`.
    #[prost(string, optional, tag = "6")]
    pub(crate) content_type: Option<String>,
    /// The value.
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) value: Bytes,
    /// As in [`KeyRow`].
    #[prost(uint64, tag = "8")]
    pub(crate) lease: u64,
    /// Other keys changed at [`HistoryRow::previous`], too.
    #[prost(bool, tag = "9")]
    pub(crate) previous_shared: bool,
}

impl KeyRow {
    /// Which change it is.
    pub(crate) fn at(&self) -> ChangeAt {
        ChangeAt { revision: self.revision, shared: self.shared }
    }
}

impl HistoryRow {
    /// The key's change before; revision 0: none.
    pub(crate) fn before(&self) -> ChangeAt {
        ChangeAt { revision: self.previous, shared: self.previous_shared }
    }
}

/// A recorded reply.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReplyRow {
    /// Of the request.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) fingerprint: Bytes,
    /// Cluster time of the entry that was answered, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub(crate) recorded_ms: u64,
    /// The reply; absent where it has a row of its own.
    #[prost(message, optional, tag = "3")]
    pub(crate) reply: Option<Reply>,
}

/// An open session.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SessionRow {
    /// Cluster time of its last request, in milliseconds.
    #[prost(uint64, tag = "1")]
    pub(crate) used_ms: u64,
    /// Highest lowest-unfinished seen.
    #[prost(uint64, tag = "2")]
    pub(crate) lowest_unfinished: u64,
}

/// Where in the log the rows are, and what belongs to all of them.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MetaRow {
    /// [`FORMAT`].
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    /// The last entry that is in.
    #[prost(uint64, tag = "2")]
    pub(crate) applied_index: u64,
    /// The store's revision.
    #[prost(uint64, tag = "3")]
    pub(crate) revision: u64,
    /// The digest, 16 bytes little endian.
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) digest: Bytes,
    /// Cluster time, in milliseconds.
    #[prost(uint64, tag = "5")]
    pub(crate) time_ms: u64,
    /// The oldest readable revision.
    #[prost(uint64, tag = "6")]
    pub(crate) compacted: u64,
    /// Revision of the last clear; rows below are dead.
    #[prost(uint64, tag = "7")]
    pub(crate) last_clear: u64,
    /// The feature level.
    #[prost(uint32, tag = "8")]
    pub(crate) feature_level: u32,
    /// Keys that are there.
    #[prost(uint64, tag = "9")]
    pub(crate) live_keys: u64,
    /// History is swept up to here.
    #[prost(uint64, tag = "10")]
    pub(crate) swept: u64,
    /// Rows that died by this clear, or one before it, are gone.
    #[prost(uint64, tag = "11")]
    pub(crate) clear_swept: u64,
    /// The clear whose dead rows are being removed; 0: none.
    #[prost(uint64, tag = "12")]
    pub(crate) clear_target: u64,
    /// Next key row that is to be looked at.
    #[prost(bytes = "bytes", tag = "13")]
    pub(crate) clear_cursor: Bytes,
}

/// Decodes a row, naming its key where it does not decode.
pub(crate) fn decode<M: Message + Default>(key: &[u8], row: Bytes) -> Result<M, StoreError> {
    M::decode(row).map_err(|error| StoreError::corrupt(format!("row {}: {error}", key.escape_ascii())))
}
