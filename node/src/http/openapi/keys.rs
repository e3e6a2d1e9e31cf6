//! Operations on keys, ranges, transactions and the past.

use super::operation::{Operation, reference};
use crate::http::route::Route;
use crate::http::{kv, range, watch};
use balsa_wire::problem::Code;
use serde_json::{Value, json};

/// All of them, in an order in which their examples work.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = vec![put(Route::RootKey), get(Route::RootKey), delete(Route::RootKey)];
    all.extend([put(Route::KvKey), get(Route::KvKey), get_range(), watch(), txn(), delete(Route::KvKey)]);
    all.extend([delete_range(), clear(), compact()]);
    all
}

const KEY: &[Code] = &[Code::InvalidKey, Code::KeyTooLong];
const PAST: &[Code] = &[Code::FutureRevision, Code::Compacted];

/// What holds at the root, or under `/v1/kv`.
fn id(route: Route, root: &'static str, full: &'static str) -> &'static str {
    if route == Route::RootKey { root } else { full }
}

fn item() -> Value {
    json!({ "key": "app/config", "value": { "color": "blue" }, "revision": 17, "create_revision": 3, "version": 2 })
}

fn put(route: Route) -> Operation {
    let operation = Operation::new("PUT", route, "Keys", id(route, "putRootKey", "putKey"), "Write a key")
        .query(kv::WRITE)
        .header("IfMatch")
        .header("IfAbsent")
        .writes()
        .needs_room()
        .fails(KEY)
        .fails(&[
            Code::PreconditionFailed,
            Code::UnsupportedMediaType,
            Code::LeaseNotFound,
            Code::TableFull,
            Code::FeatureLevel,
        ]);
    let operation = match route {
        Route::RootKey => operation
            .says("The body is JSON whatever its `Content-Type`. `PUT` of a reserved name is a 400.")
            .fails(&[Code::ReservedName])
            .body("NewValue", true, &[("text", json!({ "value": "exampleValue" }))]),
        _ => operation
            .says(
                "JSON comes in an envelope and is kept byte for byte. A body of any other type, or of none, is stored as it \
                 is, with its type; a form is a 415. `If-Match` and `If-None-Match` do not go together, nor do `ttl` and \
                 `lease`, nor `Idempotency-Key` and `Balsa-Session`.",
            )
            .body_of(
                true,
                json!({
                    "application/json": {
                        "schema": reference("schemas", "NewValue"),
                        "examples": { "json": { "value": { "value": { "color": "blue" } } } },
                    },
                    "application/octet-stream": { "schema": {} },
                    "text/plain": { "schema": { "type": "string" } },
                }),
            ),
    };
    operation
        .answers("Written", "PutAnswer", json!({ "key": "app/config", "revision": 17 }))
        .with_headers(&["ETag", "Idempotency-Replayed"])
}

fn get(route: Route) -> Operation {
    let operation = Operation::new("GET", route, "Keys", id(route, "getRootKey", "getKey"), "Read a key")
        .query(kv::READ)
        .header("IfChanged")
        .reads()
        .fails(KEY)
        .fails(PAST)
        .fails(&[Code::KeyNotFound, Code::InvalidCondition])
        .answers_with(
            200,
            "The key; under `raw` its bytes, with the type under which they came",
            json!({
                "application/json": { "schema": {}, "example": item() },
                "*/*": { "schema": {} },
            }),
        )
        .with_headers(&["ETag", "Vary", "Balsa-Applied-Age-Ms"])
        .answers_with(304, "It has the revision that was named", Value::Null)
        .with_headers(&["ETag", "Vary", "Balsa-Applied-Age-Ms"]);
    match route {
        Route::RootKey => operation
            .says(
                "`Accept: application/octet-stream` asks for the bytes, too. A reserved name is a route of its own: where that \
                 one is not read, a 405, and where there is none yet, a 404.",
            )
            .fails(&[Code::MethodNotAllowed, Code::NoSuchRoute]),
        _ => operation.says("`Accept: application/octet-stream` asks for the bytes, too."),
    }
}

fn delete(route: Route) -> Operation {
    let operation =
        Operation::new("DELETE", route, "Keys", id(route, "deleteRootKey", "deleteKey"), "Delete a key")
            .says("Deleting what is absent is no error.")
            .query(kv::DELETE)
            .header("IfMatch")
            .header("IfAbsent")
            .writes()
            .fails(KEY)
            .fails(&[Code::PreconditionFailed])
            .answers(
                "It is not there (any more)",
                "DeleteAnswer",
                json!({ "key": "app/config", "deleted": true, "revision": 18 }),
            )
            .with_headers(&["Idempotency-Replayed"]);
    match route {
        Route::RootKey => operation.fails(&[Code::ReservedName]),
        _ => operation,
    }
}

fn get_range() -> Operation {
    Operation::new("GET", Route::Kv, "Ranges", "getRange", "Read many keys in order, page by page")
        .says("All pages are of one revision. `prefix`, or `start` and `end`, or neither: all keys.")
        .query(range::READ)
        .reads()
        .fails(PAST)
        .fails(&[Code::InvalidCondition])
        .answers(
            "A page: at most 1,000 items or 4 MiB",
            "RangeAnswer",
            json!({ "items": [item()], "more": false, "revision": 18 }),
        )
        .with_headers(&["Balsa-Applied-Age-Ms"])
}

fn delete_range() -> Operation {
    Operation::new("DELETE", Route::Kv, "Ranges", "deleteRange", "Delete many keys")
        .says(
            "In slices of 1,000 keys, each at a revision of its own. A `prefix`, or `start` and `end`, or, for every key, \
             `all` alone.",
        )
        .query(range::DELETE)
        .writes()
        .fails(&[Code::FeatureLevel])
        .answers("They are gone", "RangeDeleteAnswer", json!({ "deleted": 2, "revision": 19 }))
        .with_headers(&["Idempotency-Replayed"])
}

fn clear() -> Operation {
    Operation::new("POST", Route::Clear, "Keys", "clear", "Delete every key")
        .says("Keys only: never leases, locks or recorded answers.")
        .body("Empty", false, &[])
        .writes()
        .answers("No key is left", "ClearAnswer", json!({ "deleted": 3, "revision": 20 }))
        .with_headers(&["Idempotency-Replayed"])
}

fn txn() -> Operation {
    let moves = json!({
        "if": [{ "key": "app/config", "exists": true }],
        "then": [
            { "put": { "key": "app/config", "value": 4 } },
            { "put": { "key": "app/raw", "value_base64": "aGk=", "content_type": "text/plain" } },
            { "delete": { "key": "app/old" } },
            { "range": { "prefix": "app/", "limit": 10 } },
        ],
        "else": [{ "get": { "key": "app/config" } }],
    });
    Operation::new("POST", Route::Txn, "Transactions", "txn", "Do several things at one revision, or others, or nothing")
        .says(
            "If all conditions of `if` hold, `then` is done, else `else`. Conditions and reads see the state before the \
             transaction. Each key is written once. At most 128 conditions, and 128 operations in each branch.",
        )
        .body("TxnRequest", false, &[("move", moves)])
        .writes()
        .needs_room()
        .fails(&[Code::InvalidTxn, Code::LeaseNotFound, Code::TableFull, Code::FeatureLevel])
        .answers(
            "Done; one result for each operation of the branch that was",
            "TxnAnswer",
            json!({ "succeeded": true, "revision": 19, "results": [{ "put": { "key": "app/config" } }] }),
        )
        .with_headers(&["Idempotency-Replayed"])
}

fn watch() -> Operation {
    Operation::new("GET", Route::Watch, "Watch", "watch", "Changes as they come, as server-sent events")
        .says(
            "Events `put` (an `Item`, with `prev`), `delete` (a `DeleteEvent`), `progress` (a `ProgressEvent`: all up to there \
             was told) and `compacted` (a `CompactedEvent`, the last). Those of one revision follow one another, and only the \
             last carries `id: REVISION`; go on with `Last-Event-ID`. One of `key` and `prefix` is given.",
        )
        .query(watch::PARAMS)
        .header("LastEventId")
        .reads()
        .fails(KEY)
        .fails(&[Code::Compacted, Code::InvalidCondition, Code::InvalidHeader])
        .answers_with(
            200,
            "A stream that does not end by itself",
            json!({ "text/event-stream": {
                "schema": {},
                "example": "event: progress\ndata: {\"revision\":17}\n\n",
            } }),
        )
}

fn compact() -> Operation {
    Operation::new(
        "POST",
        Route::Compact,
        "The past",
        "compact",
        "Forget what is needed only below a revision",
    )
    .body("CompactRequest", true, &[("all but one", json!({ "revision": 1 }))])
    .writes()
    .answers(
        "Below the revision that is told, nothing can be read",
        "CompactAnswer",
        json!({ "oldest_revision": 1 }),
    )
    .with_headers(&["Idempotency-Replayed"])
}
