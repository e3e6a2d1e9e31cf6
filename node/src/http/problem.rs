//! From what went wrong to what the client is told: the one match from errors to problem documents.
//!
//! Every error of every door ends here, so that status, code, outcome and the words are decided once. `outcome` is
//! told on writes only; for each failure it says what is true of a write that met it.

use super::answer::Answer;
use super::body::BodyError;
use super::conditions::ConditionError;
use super::origin::OriginError;
use super::query::QueryError;
use super::request_id::RequestIdError;
use crate::engine::handle::{AdminError, ReadError, WriteError};
use crate::metrics::Rejected;
use crate::watch::TooManyWatchers;
use balsa_wire::cluster::Check;
use balsa_wire::percent::DecodeError;
use balsa_wire::problem::{CONTENT_TYPE, Code, Outcome, Problem};
use hyper::StatusCode;
use hyper::header::HeaderValue;

/// Everything that can keep a request from its answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The path cannot be decoded.
    #[error("the path cannot be decoded: {0}")]
    Path(DecodeError),
    /// The key is empty.
    #[error("the key is empty; a key has 1 to {limit_bytes} bytes")]
    KeyEmpty {
        /// The limit.
        limit_bytes: usize,
    },
    /// The key is over the limit.
    #[error("the key has {bytes} bytes; the limit is {limit_bytes}")]
    KeyTooLong {
        /// What it has.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A name that is no key at the root.
    #[error("`{name}` is reserved at the root; every key works at /v1/kv/{{key}}, this one as /v1/kv/{name}")]
    ReservedName {
        /// The name.
        name: &'static str,
    },
    /// Its query.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Its conditions.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// What should make it safe to retry.
    #[error(transparent)]
    RequestId(#[from] RequestIdError),
    /// Its body.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A member of the body, or a part of the path, that says something impossible.
    #[error("{0}")]
    Member(String),
    /// Where it comes from.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Nothing is there.
    #[error("{0}")]
    NoSuchRoute(String),
    /// The method does not fit.
    #[error("{method} is not allowed here; allowed: {allow}")]
    Method {
        /// As it was sent.
        method: String,
        /// As the `Allow` header has them.
        allow: &'static str,
    },
    /// The key is absent.
    #[error("the key does not exist at revision {revision}")]
    KeyNotFound {
        /// The store's revision when it was looked for.
        revision: u64,
        /// On a stale read: how old that may be, in milliseconds.
        age_ms: Option<u64>,
    },
    /// What is asked for is compacted.
    #[error("this revision is compacted; the oldest that can be read is {oldest}")]
    Compacted {
        /// The oldest readable revision.
        oldest: u64,
    },
    /// What is asked for did not come before the deadline.
    #[error("revision {wanted} has not come yet; the newest is {newest}")]
    FutureRevision {
        /// What was asked for.
        wanted: u64,
        /// The store's revision.
        newest: u64,
    },
    /// Parameters that do not go together.
    #[error("{0}")]
    Parameters(&'static str),
    /// `Last-Event-ID`.
    #[error("Last-Event-ID takes a revision, as an event's id tells it")]
    LastEventId,
    /// There are too many watchers.
    #[error(transparent)]
    TooManyWatchers(#[from] TooManyWatchers),
    /// Too many look into the past.
    #[error("too many reads of the past are under way on this node")]
    PastReads,
    /// As many backups as the node gives at once are under way.
    #[error("as many backups as this node gives at once are under way")]
    TooManyBackups,
    /// The store did not write out what the backup is to hold.
    #[error("the store did not write out its state in time")]
    BackupNotBegun,
    /// The condition did not hold.
    #[error("{}", describe_current(*current_revision))]
    PreconditionFailed {
        /// The key's revision; 0: absent.
        current_revision: u64,
        /// It is the recorded answer of an earlier, equal request.
        replayed: bool,
    },
    /// A part of a transaction is wrong.
    #[error("{path}: {why}")]
    Txn {
        /// The part, as a path into the request.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such lease.
    #[error("there is no lease {lease}: it has ended, or never was")]
    NoLease {
        /// Its number.
        lease: u64,
        /// In a transaction: the part that names it.
        path: Option<String>,
    },
    /// Another holds the lock.
    #[error("the lock is held by another; `wait` says how long to wait for it")]
    LockBusy,
    /// The place in the lock's queue is gone.
    #[error(
        "the place in the lock's queue is gone: it was released, or its lease or its time to wait has ended"
    )]
    LockLost,
    /// A table of the cluster is full.
    #[error("the cluster has as many {what} as it takes")]
    TableFull {
        /// Of what.
        what: &'static str,
    },
    /// The session, or its memory of this request, is gone.
    #[error("the session has expired, or has forgotten this request; open another with POST /v1/sessions")]
    SessionExpired,
    /// The key or number stands for another request.
    #[error("this Idempotency-Key or session number was used for a request that differs from this one")]
    RequestMismatch,
    /// No place for another recorded reply.
    #[error("the table of recorded replies is full; none is evicted before its time")]
    ReplyTableFull,
    /// A bound of this door is met.
    #[error("too many writes are in flight on this node")]
    InFlight(Rejected),
    /// The engine did not take or finish a write.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The engine did not confirm a read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine did not make a change.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The engine did not answer even after the deadline.
    #[error("the node did not answer in time")]
    Hangs,
    /// The head of a request did not end in time.
    #[error("the head of the request did not arrive in time")]
    Head,
    /// There are too many connections.
    #[error("this node has as many client connections as it takes")]
    TooManyConnections,
    /// `/livez`.
    #[error("the engine has not turned lately")]
    NotAlive,
    /// `/readyz`.
    #[error("{}", describe_checks(.0))]
    NotReady(Vec<Check>),
    /// The store could not be read.
    #[error("the store could not be read: {0}")]
    Store(String),
    /// The engine's answer does not fit the request.
    #[error("the engine gave an answer that does not fit the request")]
    Misfit,
    /// The metrics could not be written.
    #[error("the metrics could not be written: {0}")]
    Metrics(String),
}

/// The code, with which goes the status, and the truth about a write.
struct Verdict {
    code: Code,
    outcome: Outcome,
}

impl Failure {
    fn verdict(&self) -> Verdict {
        let not_applied = |code| Verdict { code, outcome: Outcome::NotApplied };
        let unknown = |code| Verdict { code, outcome: Outcome::Unknown };
        match self {
            Failure::Path(_) | Failure::KeyEmpty { .. } => not_applied(Code::InvalidKey),
            Failure::KeyTooLong { .. } => not_applied(Code::KeyTooLong),
            Failure::ReservedName { .. } => not_applied(Code::ReservedName),
            Failure::Query(QueryError::Unknown { .. }) => not_applied(Code::UnknownParameter),
            Failure::Query(
                QueryError::Twice { .. } | QueryError::Value { .. } | QueryError::Malformed(_),
            ) => not_applied(Code::InvalidParameter),
            Failure::Condition(_) => not_applied(Code::InvalidCondition),
            Failure::RequestId(_) => not_applied(Code::InvalidHeader),
            Failure::Body(error) => match error {
                BodyError::TooLarge { .. } => not_applied(Code::TooLarge),
                BodyError::Incomplete => not_applied(Code::IncompleteBody),
                BodyError::Late { .. } => not_applied(Code::RequestTimeout),
                BodyError::Json { .. } => not_applied(Code::InvalidJson),
                BodyError::UnknownMember { .. } => not_applied(Code::UnknownMember),
                BodyError::Form | BodyError::Encoded => not_applied(Code::UnsupportedMediaType),
                BodyError::ContentType => not_applied(Code::InvalidHeader),
            },
            Failure::Member(_) => not_applied(Code::InvalidJson),
            Failure::Origin(_) => not_applied(Code::CrossOrigin),
            Failure::NoSuchRoute(_) => not_applied(Code::NoSuchRoute),
            Failure::Method { .. } => not_applied(Code::MethodNotAllowed),
            Failure::KeyNotFound { .. } => not_applied(Code::KeyNotFound),
            Failure::Compacted { .. } => not_applied(Code::Compacted),
            Failure::FutureRevision { .. } => not_applied(Code::FutureRevision),
            Failure::Parameters(_) => not_applied(Code::InvalidParameter),
            Failure::LastEventId => not_applied(Code::InvalidHeader),
            Failure::TooManyWatchers(_)
            | Failure::PastReads
            | Failure::TooManyBackups
            | Failure::BackupNotBegun => not_applied(Code::Overloaded),
            Failure::PreconditionFailed { .. } => not_applied(Code::PreconditionFailed),
            Failure::Txn { .. } => not_applied(Code::InvalidTxn),
            Failure::NoLease { .. } => not_applied(Code::LeaseNotFound),
            Failure::LockBusy => not_applied(Code::LockBusy),
            Failure::LockLost => not_applied(Code::LockLost),
            Failure::TableFull { .. } => not_applied(Code::TableFull),
            Failure::SessionExpired => not_applied(Code::SessionExpired),
            Failure::RequestMismatch => not_applied(Code::RequestMismatch),
            Failure::ReplyTableFull => not_applied(Code::ReplyTableFull),
            Failure::InFlight(_) => not_applied(Code::Overloaded),
            Failure::Write(error) => match error {
                WriteError::NoLeader => not_applied(Code::NoLeader),
                WriteError::Overloaded { .. } => not_applied(Code::Overloaded),
                WriteError::FeatureLevel { .. } => not_applied(Code::FeatureLevel),
                WriteError::StorageFull { .. } => not_applied(Code::StorageFull),
                WriteError::Overwritten => not_applied(Code::Overwritten),
                WriteError::Stopping => not_applied(Code::Stopping),
                WriteError::Removed { .. } => not_applied(Code::Removed),
                WriteError::Unknown { .. } => unknown(Code::OutcomeUnknown),
            },
            Failure::Read(error) => match error {
                ReadError::NoLeader => not_applied(Code::NoLeader),
                ReadError::NotConfirmed => not_applied(Code::NotConfirmed),
                ReadError::Overloaded { .. } => not_applied(Code::Overloaded),
                ReadError::Stopping => not_applied(Code::Stopping),
                ReadError::Removed { .. } => not_applied(Code::Removed),
            },
            Failure::Admin(error) => match error {
                AdminError::Refused(_) => not_applied(Code::ChangeRefused),
                AdminError::NoSuchMember(_) => not_applied(Code::NoSuchMember),
                AdminError::Busy => not_applied(Code::MembershipBusy),
                AdminError::NoLeader => not_applied(Code::NoLeader),
                AdminError::Overloaded { .. } => not_applied(Code::Overloaded),
                AdminError::Stopping => not_applied(Code::Stopping),
                AdminError::Removed { .. } => not_applied(Code::Removed),
                AdminError::Unknown { .. } => unknown(Code::OutcomeUnknown),
            },
            Failure::Head => not_applied(Code::RequestTimeout),
            Failure::TooManyConnections => not_applied(Code::Overloaded),
            Failure::Hangs => unknown(Code::OutcomeUnknown),
            Failure::NotAlive => not_applied(Code::NotAlive),
            Failure::NotReady(_) => not_applied(Code::NotReady),
            Failure::Misfit => unknown(Code::Internal),
            Failure::Store(_) | Failure::Metrics(_) => not_applied(Code::Internal),
        }
    }

    /// Under which reason the failure counts as turned away, if it does.
    pub(super) fn rejected(&self) -> Option<Rejected> {
        match self {
            Failure::InFlight(reason) => Some(*reason),
            Failure::Origin(_) => Some(Rejected::CrossOrigin),
            Failure::ReplyTableFull | Failure::TableFull { .. } => Some(Rejected::ReplyTable),
            Failure::TooManyWatchers(_) => Some(Rejected::Watchers),
            Failure::PastReads => Some(Rejected::PastReads),
            Failure::TooManyBackups => Some(Rejected::Backups),
            Failure::Body(BodyError::TooLarge { .. }) => Some(Rejected::TooLarge),
            Failure::Body(BodyError::Late { .. }) => Some(Rejected::Timeout),
            Failure::Write(WriteError::StorageFull { .. }) => Some(Rejected::Storage),
            Failure::Write(WriteError::Overloaded { .. })
            | Failure::Read(ReadError::Overloaded { .. })
            | Failure::Admin(AdminError::Overloaded { .. }) => Some(Rejected::EngineQueue),
            _ => None,
        }
    }

    /// The problem document; `write`: the request would have changed something.
    pub fn problem(&self, write: bool) -> Problem {
        let Verdict { code, outcome } = self.verdict();
        Problem {
            kind: format!("urn:balsa:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: self.to_string(),
            code,
            outcome: write.then_some(outcome),
            current_revision: None,
            path: None,
            oldest_revision: None,
            limit_bytes: None,
            checks: Vec::new(),
        }
    }

    /// The problem document's answer.
    pub(super) fn answer(self, write: bool) -> Answer {
        let mut problem = self.problem(write);
        // Every code has a status that is one.
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = Answer::new(status);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.retry_after = true;
        }
        match self {
            Failure::PreconditionFailed { current_revision, replayed } => {
                problem.current_revision = Some(current_revision);
                answer.replayed = replayed;
            }
            Failure::Compacted { oldest } => problem.oldest_revision = Some(oldest),
            Failure::Txn { path, .. } | Failure::NoLease { path: Some(path), .. } => {
                problem.path = Some(path)
            }
            Failure::KeyTooLong { limit_bytes, .. }
            | Failure::KeyEmpty { limit_bytes }
            | Failure::Body(BodyError::TooLarge { limit_bytes, .. }) => {
                problem.limit_bytes = Some(limit_bytes as u64);
            }
            Failure::KeyNotFound { revision, age_ms } => {
                answer.revision = revision;
                answer.age_ms = age_ms;
                answer.vary_accept = true;
            }
            Failure::Method { allow, .. } => answer.allow = Some(allow),
            Failure::NotReady(checks) => problem.checks = checks,
            _ => {}
        }
        // Strings, numbers and closed enums always serialise; an empty document is still a truthful status.
        answer.body = serde_json::to_vec(&problem).unwrap_or_default().into();
        answer.content_type = Some(HeaderValue::from_static(CONTENT_TYPE));
        answer
    }
}

fn describe_current(current_revision: u64) -> String {
    match current_revision {
        0 => "the condition does not hold: the key does not exist".to_owned(),
        revision => format!("the condition does not hold: the key's revision is {revision}"),
    }
}

fn describe_checks(checks: &[Check]) -> String {
    let failed: Vec<&str> = checks.iter().filter(|c| !c.ok).map(|c| c.detail.as_str()).collect();
    format!("not ready: {}", failed.join("; "))
}
