//! Leases and locks: what ends by itself.

use bytes::Bytes;

/// Grants a lease; its number is the entry's index.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GrantLease {
    /// How long it lasts without a sign of life, in milliseconds of cluster time.
    #[prost(uint64, tag = "1")]
    pub ttl_ms: u64,
}

/// A sign of life: the lease lasts its whole time from now.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeepLease {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub lease: u64,
}

/// Ends a lease, with its keys and locks.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RevokeLease {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub lease: u64,
    /// Deletes at most so many keys now; those that are left go with the next [`Expire`].
    #[prost(uint32, tag = "2")]
    pub keys_max: u32,
}

/// Ends what is due at the time of the entry. A sign of life that came before it in the log counts, however late.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Expire {
    /// At most so many leases and waits, and as many keys.
    #[prost(uint32, tag = "1")]
    pub limit: u32,
}

/// Asks for a lock: whoever asked first has it. Its token is the entry's index.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AcquireLock {
    /// The lock's name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// The lease that it ends with; 0: one of its own, with the token as its number, from when the lock is held.
    #[prost(uint64, tag = "2")]
    pub lease: u64,
    /// Of the lease of its own, in milliseconds of cluster time.
    #[prost(uint64, tag = "3")]
    pub ttl_ms: u64,
    /// How long it stays in the queue, in milliseconds of cluster time; 0: it has to have the lock at once.
    #[prost(uint64, tag = "4")]
    pub wait_ms: u64,
    /// A key that shows who holds the lock; empty: none.
    #[prost(bytes = "bytes", tag = "5")]
    pub key: Bytes,
    /// The value of that key, JSON.
    #[prost(bytes = "bytes", tag = "6")]
    pub value: Bytes,
}

/// Gives a lock up, or a place in its queue.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReleaseLock {
    /// The lock's name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// As it was given.
    #[prost(uint64, tag = "2")]
    pub token: u64,
}

/// A lease lasts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseLasts {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub lease: u64,
    /// From now on, without a sign of life, in milliseconds of cluster time.
    #[prost(uint64, tag = "2")]
    pub ttl_ms: u64,
}

/// A lease has ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseEnded {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub lease: u64,
    /// Keys that were deleted with it so far.
    #[prost(uint64, tag = "2")]
    pub deleted: u64,
    /// The store's revision.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
}

/// There is no such lease: it has ended, or never was.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NoLease {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub lease: u64,
    /// In a transaction: the part that names it, as a path into the request; else empty.
    #[prost(string, tag = "2")]
    pub path: String,
}

/// What was due has ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Expired {
    /// Leases and waits that ended.
    #[prost(uint64, tag = "1")]
    pub ended: u64,
    /// Keys that were deleted with them.
    #[prost(uint64, tag = "2")]
    pub deleted: u64,
    /// The store's revision.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
}

/// A place in a lock's queue; the first holds it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LockPlace {
    /// The token.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// The lease that it ends with.
    #[prost(uint64, tag = "2")]
    pub lease: u64,
    /// Of that lease, in milliseconds of cluster time.
    #[prost(uint64, tag = "3")]
    pub ttl_ms: u64,
    /// How many are before it; 0: the lock is held.
    #[prost(uint64, tag = "4")]
    pub ahead: u64,
    /// The store's revision.
    #[prost(uint64, tag = "5")]
    pub revision: u64,
}

/// The lock is held by another, and was not to be waited for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LockBusy {
    /// The holder's token.
    #[prost(uint64, tag = "1")]
    pub token: u64,
}

/// A place in a lock's queue was given up.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LockReleased {
    /// It was there.
    #[prost(bool, tag = "1")]
    pub released: bool,
    /// It was the first: the lock was held.
    #[prost(bool, tag = "2")]
    pub held: bool,
    /// The store's revision.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
}

/// A bound is met; nothing was done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LimitMet {
    /// Which.
    #[prost(enumeration = "Limit", tag = "1")]
    pub limit: i32,
}

/// Bounds of what ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Limit {
    /// Leases.
    Leases = 0,
    /// Keys that end with leases.
    LeasedKeys = 1,
    /// Places in queues of locks, over all locks.
    Locks = 2,
}
