//! What the log carries for the store: commands, and the replies that applying them gives.
//!
//! A command is encoded as one byte for the feature level that it needs ([`Operation::required_level`]), the cluster time
//! in milliseconds (8 bytes, little endian; stamped by the leader when it proposes) and a protobuf message. A node that
//! meets a level or an operation it does not know stops (it must never skip one, nor a part of one that is new). Replies
//! are kept in the reply tables, so their encoding is part of the format on disk too.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::position::{FEATURE_LEVEL, FIRST_LEVEL};

mod leases;
mod txn;

pub use leases::*;
pub use txn::*;

/// Level and time stamp.
const HEADER_BYTES: usize = 9;

/// Encodes a command for the log, its time not yet stamped.
pub fn encode(command: &Command) -> Bytes {
    let mut buffer = BytesMut::with_capacity(HEADER_BYTES + command.encoded_len());
    let level = command.operation.as_ref().map_or(FIRST_LEVEL, Operation::required_level);
    buffer.put_u8(u8::try_from(level).unwrap_or(u8::MAX));
    buffer.put_u64_le(0);
    command.encode_raw(&mut buffer);
    buffer.freeze()
}

/// Stamps an encoded command with the cluster time, in milliseconds since founding, which never runs backwards in
/// the log. In place where the bytes are not shared.
pub fn stamp(encoded: Bytes, time_ms: u64) -> Bytes {
    let mut buffer = encoded.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    buffer[1..HEADER_BYTES].copy_from_slice(&time_ms.to_le_bytes());
    buffer.freeze()
}

/// The cluster time stamped on an encoded command, in milliseconds; 0 where the bytes are no command.
pub fn stamp_of(encoded: &[u8]) -> u64 {
    match encoded.get(1..HEADER_BYTES) {
        Some(stamp) => u64::from_le_bytes(std::array::from_fn(|i| stamp[i])),
        None => 0,
    }
}

/// The feature level that an encoded command needs; 0 where the bytes are no command.
pub fn level_of(encoded: &[u8]) -> u32 {
    encoded.first().copied().unwrap_or_default().into()
}

/// Whether an encoded command makes the store larger: not so what deletes, ends or compacts, and what is no command.
pub fn needs_room(encoded: &[u8]) -> bool {
    let command = encoded.get(HEADER_BYTES..).and_then(|command| Command::decode(command).ok());
    command.and_then(|command| command.operation).is_some_and(|operation| operation.needs_room())
}

/// Decodes what [`encode`] and [`stamp`] made. The values inside share the memory of `encoded`.
pub fn decode(encoded: &Bytes) -> Result<(u64, Command), DecodeError> {
    if encoded.len() < HEADER_BYTES {
        return Err(DecodeError::Short { len: encoded.len() });
    }
    let level = level_of(encoded);
    if !(FIRST_LEVEL..=FEATURE_LEVEL).contains(&level) {
        return Err(DecodeError::UnknownLevel { level, known: FEATURE_LEVEL });
    }
    let mut time = [0; 8];
    time.copy_from_slice(&encoded[1..HEADER_BYTES]);
    let command = Command::decode(encoded.slice(HEADER_BYTES..))?;
    if command.operation.is_none() {
        return Err(DecodeError::UnknownOperation);
    }
    Ok((u64::from_le_bytes(time), command))
}

/// Why bytes are not a command that this build can apply. The node stops: it must not skip what others apply.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Less than a header.
    #[error("a command of {len} bytes is shorter than its header")]
    Short {
        /// Its length.
        len: usize,
    },
    /// Written by a newer build.
    #[error("the command needs feature level {level}, this build reaches {known}: upgrade this node")]
    UnknownLevel {
        /// The level met.
        level: u32,
        /// The highest level of this build.
        known: u32,
    },
    /// Written by a newer build.
    #[error("the command holds an operation that this build does not know: upgrade this node")]
    UnknownOperation,
    /// Not a command at all.
    #[error("the command is malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// One write, as proposed. Everything that applying depends on travels inside: there is no clock at apply.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// Makes a retry safe.
    #[prost(oneof = "RequestId", tags = "2, 3")]
    pub request: Option<RequestId>,
    /// What to do. `None` after decoding: an operation this build does not know.
    #[prost(oneof = "Operation", tags = "10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25, 26, 27")]
    pub operation: Option<Operation>,
}

/// How a retry is recognised.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum RequestId {
    /// `Idempotency-Key`.
    #[prost(message, tag = "2")]
    Key(IdempotencyKey),
    /// `Balsa-Session`.
    #[prost(message, tag = "3")]
    Session(SessionRequest),
}

/// An idempotency key and what it was first used for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IdempotencyKey {
    /// 1 to 255 bytes of visible ASCII.
    #[prost(string, tag = "1")]
    pub key: String,
    /// A hash of the request (method, target, body, conditions): another request under the same key is refused.
    #[prost(bytes = "bytes", tag = "2")]
    pub fingerprint: Bytes,
}

/// A request within a session (thesis 6.3).
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionRequest {
    /// The session's number, from [`Answer::SessionOpened`].
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// The request's number within the session, from 1.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// All below have been answered; their replies may be forgotten.
    #[prost(uint64, tag = "3")]
    pub lowest_unfinished: u64,
    /// As in [`IdempotencyKey::fingerprint`].
    #[prost(bytes = "bytes", tag = "4")]
    pub fingerprint: Bytes,
}

/// The operations.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Operation {
    /// Sets a key.
    #[prost(message, tag = "10")]
    Put(Put),
    /// Deletes a key.
    #[prost(message, tag = "11")]
    Delete(Delete),
    /// Deletes all keys (never sessions or replies).
    #[prost(message, tag = "12")]
    Clear(Clear),
    /// Opens a session.
    #[prost(message, tag = "13")]
    OpenSession(OpenSession),
    /// Forgets history below a revision.
    #[prost(message, tag = "14")]
    Compact(Compact),
    /// Raises the feature level.
    #[prost(message, tag = "15")]
    SetFeatureLevel(SetFeatureLevel),
    /// Reads and writes several keys at once.
    #[prost(message, tag = "20")]
    Txn(Txn),
    /// Deletes keys of a range.
    #[prost(message, tag = "21")]
    DeleteRange(DeleteRange),
    /// Grants a lease.
    #[prost(message, tag = "22")]
    GrantLease(GrantLease),
    /// Keeps a lease alive.
    #[prost(message, tag = "23")]
    KeepLease(KeepLease),
    /// Ends a lease.
    #[prost(message, tag = "24")]
    RevokeLease(RevokeLease),
    /// Ends what is due.
    #[prost(message, tag = "25")]
    Expire(Expire),
    /// Asks for a lock.
    #[prost(message, tag = "26")]
    AcquireLock(AcquireLock),
    /// Gives a lock up.
    #[prost(message, tag = "27")]
    ReleaseLock(ReleaseLock),
}

impl Operation {
    fn needs_room(&self) -> bool {
        match self {
            Operation::Put(_)
            | Operation::OpenSession(_)
            | Operation::GrantLease(_)
            | Operation::AcquireLock(_) => true,
            Operation::Txn(txn) => txn.puts(),
            Operation::Delete(_)
            | Operation::Clear(_)
            | Operation::Compact(_)
            | Operation::SetFeatureLevel(_)
            | Operation::DeleteRange(_)
            | Operation::KeepLease(_)
            | Operation::RevokeLease(_)
            | Operation::Expire(_)
            | Operation::ReleaseLock(_) => false,
        }
    }

    /// The lowest feature level of a cluster that may have this in its log. What is new in an old operation counts, too: a
    /// build that does not know it would pass over it.
    pub fn required_level(&self) -> u32 {
        match self {
            Operation::Put(put) if put.lease != 0 || put.ttl_ms != 0 => 2,
            Operation::Txn(_)
            | Operation::DeleteRange(_)
            | Operation::GrantLease(_)
            | Operation::KeepLease(_)
            | Operation::RevokeLease(_)
            | Operation::Expire(_)
            | Operation::AcquireLock(_)
            | Operation::ReleaseLock(_) => 2,
            Operation::Put(_)
            | Operation::Delete(_)
            | Operation::Clear(_)
            | Operation::OpenSession(_)
            | Operation::Compact(_)
            | Operation::SetFeatureLevel(_) => FIRST_LEVEL,
        }
    }
}

/// Sets a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    /// 1 to 4,096 bytes of UTF-8.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value, byte for byte.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// `None`: the value is JSON. Else the content type it came with.
    #[prost(string, optional, tag = "3")]
    pub content_type: Option<String>,
    /// Only then.
    #[prost(message, optional, tag = "4")]
    pub condition: Option<Condition>,
    /// The reply carries the previous value.
    #[prost(bool, tag = "5")]
    pub want_previous: bool,
    /// The lease that the key ends with; 0: none, or one of its own.
    #[prost(uint64, tag = "6")]
    pub lease: u64,
    /// The key ends with a lease of its own, which lasts so long in milliseconds of cluster time; 0: it does not.
    #[prost(uint64, tag = "7")]
    pub ttl_ms: u64,
}

/// Deletes a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Delete {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Only then.
    #[prost(message, optional, tag = "2")]
    pub condition: Option<Condition>,
    /// The reply carries the previous value.
    #[prost(bool, tag = "3")]
    pub want_previous: bool,
}

/// `If-Match` and `If-None-Match`. The revision is that of the key's last change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Condition {
    /// `None` after decoding: a condition this build does not know.
    #[prost(oneof = "ConditionKind", tags = "1, 2, 3")]
    pub kind: Option<ConditionKind>,
}

/// What a condition asks.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ConditionKind {
    /// The key is there with this revision.
    #[prost(uint64, tag = "1")]
    Revision(u64),
    /// The key is there.
    #[prost(message, tag = "2")]
    Exists(Nothing),
    /// The key is not there.
    #[prost(message, tag = "3")]
    Absent(Nothing),
}

/// An empty message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Nothing {}

/// Deletes all keys.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Clear {}

/// Opens a session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenSession {}

/// Forgets history: what is needed only to read revisions below `revision`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compact {
    /// The oldest revision that stays readable.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
}

/// Raises the feature level.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetFeatureLevel {
    /// The new level; a node whose build does not reach it stops.
    #[prost(uint32, tag = "1")]
    pub level: u32,
}

/// What applying a command gave.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// The answer. `None` after decoding: one this build does not know.
    #[prost(
        oneof = "Answer",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30"
    )]
    pub answer: Option<Answer>,
    /// It is the recorded answer of an earlier, equal request. Never stored.
    #[prost(bool, tag = "15")]
    pub replayed: bool,
}

/// The answers. All are recorded in the reply tables but refusals ([`Answer::is_refusal`]), which are decided anew each
/// time.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Answer {
    /// The key was set.
    #[prost(message, tag = "1")]
    Put(PutDone),
    /// The key is not there (any more).
    #[prost(message, tag = "2")]
    Delete(DeleteDone),
    /// All keys are gone.
    #[prost(message, tag = "3")]
    Clear(ClearDone),
    /// The condition did not hold; nothing was changed.
    #[prost(message, tag = "4")]
    PreconditionFailed(PreconditionFailed),
    /// A session was opened.
    #[prost(message, tag = "5")]
    SessionOpened(SessionOpened),
    /// The log has expired this session, or forgotten this request of it: refused, not applied.
    #[prost(message, tag = "6")]
    SessionExpired(Nothing),
    /// The idempotency key (or sequence) was used for another request: refused.
    #[prost(message, tag = "7")]
    RequestMismatch(Nothing),
    /// The reply table is full: refused, nothing was evicted.
    #[prost(message, tag = "8")]
    ReplyTableFull(Nothing),
    /// History is compacted up to here.
    #[prost(message, tag = "9")]
    Compacted(Compact),
    /// The feature level is now this.
    #[prost(message, tag = "10")]
    FeatureLevel(SetFeatureLevel),
    /// The transaction was done, the one way or the other.
    #[prost(message, tag = "20")]
    Txn(TxnDone),
    /// Keys of the range are gone.
    #[prost(message, tag = "21")]
    RangeDeleted(RangeDeleted),
    /// The lease lasts.
    #[prost(message, tag = "22")]
    LeaseLasts(LeaseLasts),
    /// The lease has ended.
    #[prost(message, tag = "23")]
    LeaseEnded(LeaseEnded),
    /// There is no such lease: refused.
    #[prost(message, tag = "24")]
    NoLease(NoLease),
    /// What was due has ended.
    #[prost(message, tag = "25")]
    Expired(Expired),
    /// A place in the lock's queue.
    #[prost(message, tag = "26")]
    LockPlace(LockPlace),
    /// Another holds the lock: refused.
    #[prost(message, tag = "27")]
    LockBusy(LockBusy),
    /// The place was given up.
    #[prost(message, tag = "28")]
    LockReleased(LockReleased),
    /// The transaction makes no sense, or would read too much: refused.
    #[prost(message, tag = "29")]
    TxnRefused(TxnRefused),
    /// A bound is met: refused.
    #[prost(message, tag = "30")]
    LimitMet(LimitMet),
}

impl Answer {
    /// Nothing was done, and a retry is decided anew.
    pub fn is_refusal(&self) -> bool {
        match self {
            Answer::SessionExpired(_)
            | Answer::RequestMismatch(_)
            | Answer::ReplyTableFull(_)
            | Answer::NoLease(_)
            | Answer::LockBusy(_)
            | Answer::TxnRefused(_)
            | Answer::LimitMet(_) => true,
            Answer::Put(_)
            | Answer::Delete(_)
            | Answer::Clear(_)
            | Answer::PreconditionFailed(_)
            | Answer::SessionOpened(_)
            | Answer::Compacted(_)
            | Answer::FeatureLevel(_)
            | Answer::Txn(_)
            | Answer::RangeDeleted(_)
            | Answer::LeaseLasts(_)
            | Answer::LeaseEnded(_)
            | Answer::Expired(_)
            | Answer::LockPlace(_)
            | Answer::LockReleased(_) => false,
        }
    }
}

/// A key's value and its counters, in replies.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// The value, byte for byte.
    #[prost(bytes = "bytes", tag = "1")]
    pub value: Bytes,
    /// `None`: the value is JSON. Else its content type.
    #[prost(string, optional, tag = "2")]
    pub content_type: Option<String>,
    /// The revision of its last change.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    /// The revision of its creation.
    #[prost(uint64, tag = "4")]
    pub create_revision: u64,
    /// Changes since its creation, from 1.
    #[prost(uint64, tag = "5")]
    pub version: u64,
    /// The lease that the key ends with; 0: none.
    #[prost(uint64, tag = "6")]
    pub lease: u64,
}

/// The key was set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutDone {
    /// The store's revision, which is the key's.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// What was there before, if asked for and there.
    #[prost(message, optional, tag = "2")]
    pub previous: Option<Value>,
}

/// The key is gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteDone {
    /// It was there.
    #[prost(bool, tag = "1")]
    pub deleted: bool,
    /// The store's revision.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// What was there before, if asked for and there.
    #[prost(message, optional, tag = "3")]
    pub previous: Option<Value>,
}

/// All keys are gone.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClearDone {
    /// How many there were.
    #[prost(uint64, tag = "1")]
    pub deleted: u64,
    /// The store's revision.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
}

/// The condition did not hold.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PreconditionFailed {
    /// The key's revision; 0: absent.
    #[prost(uint64, tag = "1")]
    pub current_revision: u64,
}

/// A session was opened.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionOpened {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub session: u64,
}
