//! Settings of the store.

/// Settings of the store.
///
/// Those marked *replicated* decide what applying an entry gives. They must be equal on every node of a cluster and
/// over its life; the node passes the defaults, tests pass smaller ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Bytes that the active overlay may hold before it is rotated and flushed. As many again may be held by the one
    /// that is being flushed. Default 16 MiB.
    pub overlay_bytes: usize,
    /// Entries after which the overlay is flushed although it is not full: some add nothing to it, and yet the log has to
    /// keep them, and a restart to apply them, until a flush. Default 200,000.
    pub overlay_entries: u64,
    /// Revisions of history that the leader keeps by proposing compaction. Default 100,000.
    pub history_revisions: u64,
    /// How long the leader keeps a revision of history, in milliseconds of log time, by proposing compaction; 0: however
    /// old. Default 0.
    pub history_age_ms: u64,
    /// Rows that one flush looks at, at least, to remove what compaction has made unreadable. Default 10,000.
    pub sweep_rows: usize,
    /// *Replicated.* How long the reply to an idempotency key is kept, in milliseconds of log time. Default 600,000.
    pub reply_ttl_ms: u64,
    /// *Replicated.* Live idempotency keys; a new one beyond them is refused. Default 100,000.
    pub reply_limit: usize,
    /// *Replicated.* How long a session may be idle, in milliseconds of log time. Default 600,000.
    pub session_ttl_ms: u64,
    /// *Replicated.* Open sessions; one more is refused. Default 10,000.
    pub session_limit: usize,
    /// *Replicated.* Recorded replies over all sessions; a new request beyond them is refused. Default 100,000.
    pub session_reply_limit: usize,
    /// *Replicated.* Leases; one more is refused. Default 2,000,000.
    pub lease_limit: usize,
    /// *Replicated.* Keys that end with leases; one more is refused. Default 1,000,000.
    pub leased_key_limit: usize,
    /// *Replicated.* Places in the queues of locks, over all locks; one more is refused. Default 100,000.
    pub lock_limit: usize,
    /// *Replicated.* Bytes of names, keys and values of all these places; one more is refused. Default 64 MiB.
    pub lock_bytes_limit: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            overlay_bytes: 16 << 20,
            overlay_entries: 200_000,
            history_revisions: 100_000,
            history_age_ms: 0,
            sweep_rows: 10_000,
            reply_ttl_ms: 600_000,
            reply_limit: 100_000,
            session_ttl_ms: 600_000,
            session_limit: 10_000,
            session_reply_limit: 100_000,
            lease_limit: 2_000_000,
            leased_key_limit: 1_000_000,
            lock_limit: 100_000,
            lock_bytes_limit: 64 << 20,
        }
    }
}
