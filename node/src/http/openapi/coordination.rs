//! Operations on leases, locks and sessions.

use super::operation::Operation;
use super::parameters::number;
use crate::http::query::Param;
use crate::http::route::Route;
use crate::http::{leases, locks};
use balsa_wire::problem::Code;
use serde_json::{Value, json};

/// All of them, in an order in which their examples work.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = vec![session(), grant(), list_leases(), get_lease(), keep(), revoke()];
    all.extend([acquire(), list_locks(), get_lock(), release()]);
    all
}

fn session() -> Operation {
    Operation::new("POST", Route::Sessions, "Exactly once", "openSession", "Open a session")
        .says("For clients that write a lot: `Balsa-Session` makes their writes safe to send again.")
        .body("Empty", false, &[])
        .writes()
        .needs_room()
        .answers("It is open", "SessionAnswer", json!({ "session": 12 }))
        .with_headers(&["Idempotency-Replayed"])
}

/// From an answer that names a lease to what can be done with it.
fn with_lease() -> Value {
    let by_lease = |id: &str| json!({ "operationId": id, "parameters": { "id": "$response.body#/lease" } });
    json!({
        "keep": by_lease("keepLease"),
        "look": by_lease("getLease"),
        "revoke": by_lease("revokeLease"),
    })
}

fn lease_answer() -> Value {
    json!({ "lease": 23, "ttl_ms": 60_000 })
}

fn grant() -> Operation {
    Operation::new("POST", Route::Leases, "Leases", "grantLease", "Grant a lease")
        .says("What ends with it is deleted when no sign of life comes for its time to live: 100ms to 8760h.")
        .body("GrantLease", true, &[("a minute", json!({ "ttl": "1m" }))])
        .writes()
        .needs_room()
        .fails(&[Code::TableFull, Code::FeatureLevel])
        .answers("It is granted", "LeaseAnswer", lease_answer())
        .with_headers(&["Idempotency-Replayed"])
        .with_links(with_lease())
}

fn list_leases() -> Operation {
    Operation::new("GET", Route::Leases, "Leases", "listLeases", "List leases")
        .says("In order of their numbers, 1,000 at a time: go on with `after`.")
        .query(leases::LIST)
        .where_it_takes(Param::After, number())
        .reads()
        .answers(
            "Without their keys",
            "LeasesAnswer",
            json!({ "leases": [{ "lease": 23, "ttl_ms": 60_000, "remaining_ms": 59_000 }], "more": false }),
        )
        .with_headers(&["Balsa-Applied-Age-Ms"])
}

fn get_lease() -> Operation {
    Operation::new("GET", Route::Lease, "Leases", "getLease", "What is left of a lease, and its keys")
        .query(leases::READ)
        .reads()
        .fails(&[Code::LeaseNotFound])
        .answers(
            "With 1,000 of its keys at most",
            "LeaseState",
            json!({ "lease": 23, "ttl_ms": 60_000, "remaining_ms": 59_000, "keys": ["service/a"] }),
        )
        .with_headers(&["Balsa-Applied-Age-Ms"])
}

fn keep() -> Operation {
    Operation::new("POST", Route::KeepAlive, "Leases", "keepLease", "Give a lease a sign of life")
        .body("Empty", false, &[])
        .writes()
        .fails(&[Code::LeaseNotFound, Code::FeatureLevel])
        .answers("It lasts its whole time from now on", "LeaseAnswer", lease_answer())
        .with_headers(&["Idempotency-Replayed"])
}

fn revoke() -> Operation {
    Operation::new("DELETE", Route::Lease, "Leases", "revokeLease", "End a lease, with its keys and locks")
        .writes()
        .fails(&[Code::LeaseNotFound, Code::FeatureLevel])
        .answers("It has ended", "RevokeAnswer", json!({ "lease": 23, "deleted": 1, "revision": 20 }))
        .with_headers(&["Idempotency-Replayed"])
}

fn acquire() -> Operation {
    let waiting = json!({ "ttl": "1m", "wait": "5s", "key": "jobs/leader", "value": "me" });
    Operation::new("POST", Route::Lock, "Locks", "acquireLock", "Get a lock, or wait for it")
        .says(
            "Who asked first gets it first. Send `token` along with what the lock protects: it rises from holder to holder. \
             The lock ends with its lease, which signs of life keep. With `key` its holder is shown there: an election.",
        )
        .body("AcquireLock", false, &[("waiting", waiting)])
        .writes()
        .needs_room()
        .fails(&[
            Code::InvalidKey,
            Code::KeyTooLong,
            Code::LockBusy,
            Code::LockLost,
            Code::LeaseNotFound,
            Code::TableFull,
            Code::FeatureLevel,
        ])
        .answers(
            "It is held",
            "LockAnswer",
            json!({ "name": "jobs/nightly", "token": 31, "lease": 31, "ttl_ms": 60_000 }),
        )
        .with_headers(&["Idempotency-Replayed"])
        .with_links(json!({
            "keep": { "operationId": "keepLease", "parameters": { "id": "$response.body#/lease" } },
            "release": {
                "operationId": "releaseLock",
                "parameters": { "name": "$response.body#/name", "token": "$response.body#/token" },
            },
        }))
}

fn list_locks() -> Operation {
    Operation::new("GET", Route::Locks, "Locks", "listLocks", "List locks that are held")
        .says("In order of their names, 1,000 at a time: go on with `after`.")
        .query(locks::LIST)
        .reads()
        .answers(
            "With their holders' tokens",
            "LocksAnswer",
            json!({ "locks": [{ "name": "jobs/nightly", "token": 31 }], "more": false }),
        )
        .with_headers(&["Balsa-Applied-Age-Ms"])
}

fn get_lock() -> Operation {
    Operation::new("GET", Route::Lock, "Locks", "getLock", "Who holds a lock, and how many wait")
        .query(locks::READ)
        .reads()
        .fails(&[Code::InvalidKey, Code::KeyTooLong])
        .answers(
            "One that nobody holds has no holder",
            "LockState",
            json!({ "name": "jobs/nightly", "holder": { "token": 31, "lease": 31, "ttl_ms": 60_000 }, "waiting": 0 }),
        )
        .with_headers(&["Balsa-Applied-Age-Ms"])
}

fn release() -> Operation {
    Operation::new("DELETE", Route::Lock, "Locks", "releaseLock", "Release a lock, or a place in its queue")
        .query(locks::RELEASE)
        .writes()
        .fails(&[Code::InvalidKey, Code::KeyTooLong, Code::FeatureLevel])
        .answers(
            "It is not held under this token (any more)",
            "ReleaseAnswer",
            json!({ "name": "jobs/nightly", "released": true, "revision": 20 }),
        )
        .with_headers(&["Idempotency-Replayed"])
}
