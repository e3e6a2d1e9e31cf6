//! From a path to what it names: a pure function, and the one table of methods.
//!
//! Not axum's router: a key is the rest of the path with nothing normalised, names at the root are reserved by what
//! they say once decoded, a 405 needs the methods of its route, and metrics need a closed set of routes. One function
//! says all four.

use balsa_wire::percent::{self, DecodeError};
use std::borrow::Cow;

/// What is served: a closed set, the label of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// `/{key}`: the shorthand.
    RootKey,
    /// `/clear`.
    Clear,
    /// `/v1/kv/{key}`.
    KvKey,
    /// `/v1/kv`: a range.
    Kv,
    /// `/v1/txn`.
    Txn,
    /// `/v1/leases`.
    Leases,
    /// `/v1/leases/{id}`.
    Lease,
    /// `/v1/leases/{id}/keepalive`.
    KeepAlive,
    /// `/v1/locks`.
    Locks,
    /// `/v1/locks/{name}`.
    Lock,
    /// `/v1/sessions`.
    Sessions,
    /// `/v1/watch`.
    Watch,
    /// `/v1/compact`.
    Compact,
    /// `/v1/backup`.
    Backup,
    /// `/v1/cluster`.
    Cluster,
    /// `/v1/cluster/members`.
    Members,
    /// `/v1/cluster/members/{id}`.
    Member,
    /// `/v1/cluster/members/{id}/promote`.
    Promote,
    /// `/v1/cluster/transfer-leadership`.
    TransferLeadership,
    /// `/livez` and `/healthz`.
    Livez,
    /// `/readyz`.
    Readyz,
    /// `/metrics`.
    Metrics,
    /// `/openapi.json`.
    OpenApi,
    /// All else.
    Nothing,
}

impl Route {
    /// All routes, in the order of their discriminants.
    pub const ALL: [Route; 24] = [
        Route::RootKey,
        Route::Clear,
        Route::KvKey,
        Route::Kv,
        Route::Txn,
        Route::Leases,
        Route::Lease,
        Route::KeepAlive,
        Route::Locks,
        Route::Lock,
        Route::Sessions,
        Route::Watch,
        Route::Compact,
        Route::Backup,
        Route::Cluster,
        Route::Members,
        Route::Member,
        Route::Promote,
        Route::TransferLeadership,
        Route::Livez,
        Route::Readyz,
        Route::Metrics,
        Route::OpenApi,
        Route::Nothing,
    ];

    /// As a label.
    pub fn label(self) -> &'static str {
        match self {
            Route::RootKey => "/{key}",
            Route::Clear => "/clear",
            Route::KvKey => "/v1/kv/{key}",
            Route::Kv => "/v1/kv",
            Route::Txn => "/v1/txn",
            Route::Leases => "/v1/leases",
            Route::Lease => "/v1/leases/{id}",
            Route::KeepAlive => "/v1/leases/{id}/keepalive",
            Route::Locks => "/v1/locks",
            Route::Lock => "/v1/locks/{name}",
            Route::Sessions => "/v1/sessions",
            Route::Watch => "/v1/watch",
            Route::Compact => "/v1/compact",
            Route::Backup => "/v1/backup",
            Route::Cluster => "/v1/cluster",
            Route::Members => "/v1/cluster/members",
            Route::Member => "/v1/cluster/members/{id}",
            Route::Promote => "/v1/cluster/members/{id}/promote",
            Route::TransferLeadership => "/v1/cluster/transfer-leadership",
            Route::Livez => "/livez",
            Route::Readyz => "/readyz",
            Route::Metrics => "/metrics",
            Route::OpenApi => "/openapi.json",
            Route::Nothing => "none",
        }
    }

    /// The methods it takes, as the `Allow` header has them; the names of methods in metrics, too.
    pub fn allow(self) -> &'static str {
        match self {
            Route::RootKey | Route::KvKey => "GET, HEAD, PUT, DELETE",
            Route::Kv | Route::Lease => "GET, HEAD, DELETE",
            Route::Leases => "GET, HEAD, POST",
            Route::Locks => "GET, HEAD",
            Route::Lock => "GET, HEAD, POST, DELETE",
            Route::Txn | Route::KeepAlive => "POST",
            Route::Cluster | Route::Livez | Route::Readyz | Route::Metrics | Route::OpenApi => "GET, HEAD",
            Route::Watch | Route::Backup => "GET",
            Route::Clear
            | Route::Sessions
            | Route::Compact
            | Route::Members
            | Route::Promote
            | Route::TransferLeadership => "POST",
            Route::Member => "DELETE",
            Route::Nothing => "",
        }
    }
}

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// A key; not yet checked against the limits.
    Key {
        /// At the root, or with everything.
        route: Route,
        /// The key, decoded.
        key: Cow<'a, str>,
    },
    /// A name at the root that is served, or kept for what is to come, and is therefore no key.
    Reserved {
        /// What is served there; [`Route::Nothing`] where nothing is yet.
        route: Route,
        /// The name.
        name: &'static str,
    },
    /// A member of the cluster.
    Member {
        /// Itself, or its promotion.
        route: Route,
        /// Its identity as it was written.
        id: &'a str,
    },
    /// A lease.
    Lease {
        /// Itself, or a sign of life to it.
        route: Route,
        /// Its number as it was written.
        id: &'a str,
    },
    /// A lock; its name is not yet checked.
    Lock {
        /// Its name, decoded.
        name: Cow<'a, str>,
    },
    /// A place without a variable part.
    Fixed(Route),
}

impl Target<'_> {
    /// The route, for metrics and methods.
    pub fn route(&self) -> Route {
        match self {
            Target::Key { route, .. }
            | Target::Reserved { route, .. }
            | Target::Member { route, .. }
            | Target::Lease { route, .. } => *route,
            Target::Lock { .. } => Route::Lock,
            Target::Fixed(route) => *route,
        }
    }
}

/// The reserved names at the root and what they serve.
pub(super) const RESERVED: [(&str, Route); 9] = [
    ("v1", Route::Nothing),
    ("clear", Route::Clear),
    ("metrics", Route::Metrics),
    ("livez", Route::Livez),
    ("readyz", Route::Readyz),
    ("healthz", Route::Livez),
    ("ui", Route::Nothing),
    ("openapi.json", Route::OpenApi),
    ("favicon.ico", Route::Nothing),
];

/// Says what `path` names: the path of a request as it was sent, without its query.
pub fn target(path: &str) -> Result<Target<'_>, DecodeError> {
    let Some(rest) = path.strip_prefix('/') else {
        return Ok(Target::Fixed(Route::Nothing));
    };
    if let Some(below) = rest.strip_prefix("v1/") {
        if let Some(key) = below.strip_prefix("kv/") {
            return Ok(Target::Key { route: Route::KvKey, key: percent::decode(key)? });
        }
        if let Some(name) = below.strip_prefix("locks/") {
            return Ok(Target::Lock { name: percent::decode(name)? });
        }
        return Ok(below_v1(below));
    }
    if rest.is_empty() || rest.contains('/') {
        return Ok(Target::Fixed(Route::Nothing));
    }
    let key = percent::decode(rest)?;
    for (name, route) in RESERVED {
        if key == name {
            return Ok(Target::Reserved { route, name });
        }
    }
    Ok(Target::Key { route: Route::RootKey, key })
}

fn below_v1(below: &str) -> Target<'_> {
    let fixed = match below {
        "kv" => Route::Kv,
        "txn" => Route::Txn,
        "leases" => Route::Leases,
        "locks" => Route::Locks,
        "sessions" => Route::Sessions,
        "watch" => Route::Watch,
        "compact" => Route::Compact,
        "backup" => Route::Backup,
        "cluster" => Route::Cluster,
        "cluster/members" => Route::Members,
        "cluster/transfer-leadership" => Route::TransferLeadership,
        _ => Route::Nothing,
    };
    if fixed != Route::Nothing {
        return Target::Fixed(fixed);
    }
    if let Some(lease) = below.strip_prefix("leases/") {
        let (id, route) = match lease.strip_suffix("/keepalive") {
            Some(id) => (id, Route::KeepAlive),
            None => (lease, Route::Lease),
        };
        if id.is_empty() || id.contains('/') {
            return Target::Fixed(Route::Nothing);
        }
        return Target::Lease { route, id };
    }
    let Some(member) = below.strip_prefix("cluster/members/") else {
        return Target::Fixed(Route::Nothing);
    };
    let (id, route) = match member.strip_suffix("/promote") {
        Some(id) => (id, Route::Promote),
        None => (member, Route::Member),
    };
    if id.is_empty() || id.contains('/') {
        return Target::Fixed(Route::Nothing);
    }
    Target::Member { route, id }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(route: Route, key: &str) -> Result<Target<'_>, DecodeError> {
        Ok(Target::Key { route, key: key.into() })
    }

    #[test]
    fn paths() {
        use Route::*;
        for (path, expected) in [
            ("/a", key(RootKey, "a")),
            ("/a%2Fb", key(RootKey, "a/b")),
            ("/V1", key(RootKey, "V1")),
            ("/v1%2Fkv", key(RootKey, "v1/kv")),
            ("/.", key(RootKey, ".")),
            ("/a/b", Ok(Target::Fixed(Nothing))),
            ("/a/", Ok(Target::Fixed(Nothing))),
            ("//", Ok(Target::Fixed(Nothing))),
            ("/", Ok(Target::Fixed(Nothing))),
            ("", Ok(Target::Fixed(Nothing))),
            ("*", Ok(Target::Fixed(Nothing))),
            ("/v1", Ok(Target::Reserved { route: Nothing, name: "v1" })),
            ("/%76%31", Ok(Target::Reserved { route: Nothing, name: "v1" })),
            ("/metrics", Ok(Target::Reserved { route: Metrics, name: "metrics" })),
            ("/openapi.json", Ok(Target::Reserved { route: OpenApi, name: "openapi.json" })),
            ("/healthz", Ok(Target::Reserved { route: Livez, name: "healthz" })),
            ("/clear", Ok(Target::Reserved { route: Clear, name: "clear" })),
            ("/v1/kv/a", key(KvKey, "a")),
            ("/v1/kv/", key(KvKey, "")),
            ("/v1/kv//a//b/./../", key(KvKey, "/a//b/./../")),
            ("/v1/kv/a%2fb+c", key(KvKey, "a/b+c")),
            ("/v1/kv/v1", key(KvKey, "v1")),
            ("/v1/kv/%", Err(DecodeError::Malformed { at: 0 })),
            ("/%FF", Err(DecodeError::NotUtf8)),
            ("/v1/kv", Ok(Target::Fixed(Kv))),
            ("/v1/txn", Ok(Target::Fixed(Txn))),
            ("/v1/leases", Ok(Target::Fixed(Leases))),
            ("/v1/leases/7", Ok(Target::Lease { route: Lease, id: "7" })),
            ("/v1/leases/7/keepalive", Ok(Target::Lease { route: KeepAlive, id: "7" })),
            ("/v1/leases/", Ok(Target::Fixed(Nothing))),
            ("/v1/leases/7/other", Ok(Target::Fixed(Nothing))),
            ("/v1/locks", Ok(Target::Fixed(Locks))),
            ("/v1/locks/a/b%20c", Ok(Target::Lock { name: "a/b c".into() })),
            ("/v1/", Ok(Target::Fixed(Nothing))),
            ("/v1/nothing", Ok(Target::Fixed(Nothing))),
            ("/v1/sessions", Ok(Target::Fixed(Sessions))),
            ("/v1/sessions/", Ok(Target::Fixed(Nothing))),
            ("/v1/watch", Ok(Target::Fixed(Watch))),
            ("/v1/compact", Ok(Target::Fixed(Compact))),
            ("/v1/backup", Ok(Target::Fixed(Backup))),
            ("/v1/cluster", Ok(Target::Fixed(Cluster))),
            ("/v1/cluster/members", Ok(Target::Fixed(Members))),
            ("/v1/cluster/members/", Ok(Target::Fixed(Nothing))),
            ("/v1/cluster/members/1f", Ok(Target::Member { route: Member, id: "1f" })),
            ("/v1/cluster/members/1f/promote", Ok(Target::Member { route: Promote, id: "1f" })),
            ("/v1/cluster/members//promote", Ok(Target::Fixed(Nothing))),
            ("/v1/cluster/members/1f/other", Ok(Target::Fixed(Nothing))),
            ("/v1/cluster/transfer-leadership", Ok(Target::Fixed(TransferLeadership))),
        ] {
            assert_eq!(target(path), expected, "{path}");
        }
    }
}
