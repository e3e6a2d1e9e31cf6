//! Names of the headers that are our own, in lower case, as HTTP libraries want them.

/// The cluster's identity, on every answer of a member.
pub const CLUSTER: &str = "balsa-cluster";
/// The revision that the answering node has applied, at least that of the answer.
pub const REVISION: &str = "balsa-revision";
/// The term of the answering node.
pub const TERM: &str = "balsa-term";
/// The leader's client address, `host:port`: a hint.
pub const LEADER: &str = "balsa-leader";
/// How old the state may be that a stale read was answered from, in milliseconds.
pub const APPLIED_AGE_MS: &str = "balsa-applied-age-ms";
/// `NUMBER:SEQ:LOWEST_UNFINISHED`: the request's place in a session.
pub const SESSION: &str = "balsa-session";
/// 1 to 255 visible ASCII characters that make a write safe to retry.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// `true`: the answer is the recorded one of an earlier, equal request.
pub const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";
/// On a backup: the revision of the state that it holds.
pub const BACKUP_REVISION: &str = "balsa-backup-revision";
