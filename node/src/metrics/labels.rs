//! The closed sets that labels come from; each in the order of its discriminants.

/// Request methods as a label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// PUT.
    Put,
    /// POST.
    Post,
    /// DELETE.
    Delete,
    /// Any other.
    Other,
}

impl Method {
    pub(super) const ALL: [Method; 6] =
        [Method::Get, Method::Head, Method::Put, Method::Post, Method::Delete, Method::Other];

    pub(super) fn label(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Delete => "DELETE",
            Method::Other => "other",
        }
    }
}

/// Why a request or a connection was turned away without being tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// The connection bound is met.
    Connections,
    /// Too many writes are in flight.
    WritesInFlight,
    /// Too many bytes of writes are in flight.
    BytesInFlight,
    /// The engine's queue is full.
    EngineQueue,
    /// The body is over its limit.
    TooLarge,
    /// The request did not arrive in time.
    Timeout,
    /// A web page of another origin.
    CrossOrigin,
    /// The reply table is full.
    ReplyTable,
    /// Too many watchers.
    Watchers,
    /// Too many reads of the past are under way.
    PastReads,
    /// Too many backups are under way.
    Backups,
    /// There is no room for it.
    Storage,
}

impl Rejected {
    pub(super) const ALL: [Rejected; 12] = [
        Rejected::Connections,
        Rejected::WritesInFlight,
        Rejected::BytesInFlight,
        Rejected::EngineQueue,
        Rejected::TooLarge,
        Rejected::Timeout,
        Rejected::CrossOrigin,
        Rejected::ReplyTable,
        Rejected::Watchers,
        Rejected::PastReads,
        Rejected::Backups,
        Rejected::Storage,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Rejected::Connections => "connections",
            Rejected::WritesInFlight => "writes_in_flight",
            Rejected::BytesInFlight => "bytes_in_flight",
            Rejected::EngineQueue => "engine_queue",
            Rejected::TooLarge => "too_large",
            Rejected::Timeout => "timeout",
            Rejected::CrossOrigin => "cross_origin",
            Rejected::ReplyTable => "reply_table",
            Rejected::Watchers => "watchers",
            Rejected::PastReads => "past_reads",
            Rejected::Backups => "backups",
            Rejected::Storage => "storage",
        }
    }
}

/// A node's role as a label; see [`set_role`](super::Metrics::set_role).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleLabel {
    /// Follows and votes.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Replicates, does not vote.
    Learner,
}

impl RoleLabel {
    pub(super) const ALL: [(RoleLabel, &'static str); 4] = [
        (RoleLabel::Follower, "follower"),
        (RoleLabel::Candidate, "candidate"),
        (RoleLabel::Leader, "leader"),
        (RoleLabel::Learner, "learner"),
    ];
}

/// What happened to a snapshot; see [`snapshot`](super::Metrics::snapshot).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotEvent {
    /// A peer has it.
    Sent,
    /// This node got one and installed it.
    Received,
    /// One to a peer went on where its connection had broken.
    Resumed,
    /// One to a peer was given up.
    Failed,
}

impl SnapshotEvent {
    pub(super) const ALL: [(SnapshotEvent, &'static str); 4] = [
        (SnapshotEvent::Sent, "sent"),
        (SnapshotEvent::Received, "received"),
        (SnapshotEvent::Resumed, "resumed"),
        (SnapshotEvent::Failed, "failed"),
    ];
}
