//! Parameters of paths and queries, headers of requests and answers.

use super::schemas::{duration_pattern, key};
use crate::http::leases::TTL_MS;
use crate::http::query::Param;
use crate::http::watch::LAST_EVENT_ID;
use balsa_wire::header;
use serde_json::{Value, json};

/// The longest number that is taken: 2^64 - 1.
const NUMBER_MAX: u64 = u64::MAX;

/// The parameters of a path, by what it names in braces.
pub(super) fn of_path(path: &str) -> Vec<Value> {
    let is_member = path.contains("/members/");
    let (name, description, schema, example) = if path.contains("{key}") {
        let description = "The key, percent-encoded; nothing is normalised. At the root it is one segment of the path, and not a reserved \
                           name; under `/v1/kv/` it is the rest of the path, slashes included. At most 4,096 bytes of UTF-8.";
        let schema = if path == "/{key}" { root_key() } else { key() };
        let example = if path == "/{key}" { "exampleKey" } else { "app/config" };
        ("key", description, schema, Some(example))
    } else if path.contains("{name}") {
        let description = "The lock's name, percent-encoded, slashes included. At most 4,096 bytes of UTF-8.";
        ("name", description, key(), Some("jobs/nightly"))
    } else if is_member {
        let schema = json!({ "type": "string", "pattern": "^(?!0+$)[0-9a-fA-F]{1,16}$" });
        ("id", "The member's identity, in hexadecimal digits.", schema, None)
    } else if path.contains("{id}") {
        ("id", "The lease's number.", number(), None)
    } else {
        return Vec::new();
    };
    let mut parameter = json!({
        "name": name, "in": "path", "required": true, "description": description, "schema": schema,
    });
    if let Some(example) = example {
        parameter["example"] = example.into();
    }
    vec![parameter]
}

/// A key that the root takes.
fn root_key() -> Value {
    let mut schema = key();
    let reserved: Vec<&str> = crate::http::route::RESERVED.iter().map(|(name, _)| *name).collect();
    schema["not"] = json!({ "enum": reserved });
    schema
}

/// A number, from 1.
pub(super) fn number() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": NUMBER_MAX })
}

/// A parameter of a query.
pub(super) fn of_query(param: Param) -> Value {
    let flag = || json!({ "type": "boolean" });
    let text = || json!({ "type": "string" });
    let (schema, description) = match param {
        Param::Prev => (flag(), "The answer carries what was there before."),
        Param::Raw => (flag(), "The value's bytes, with their type, instead of the envelope."),
        Param::Consistency => (
            json!({ "enum": ["linearizable", "stale"], "default": "linearizable" }),
            "`linearizable`: confirmed by a quorum. `stale`: what this node has, with its age in `Balsa-Applied-Age-Ms`.",
        ),
        Param::Revision => {
            (number(), "The state at that revision. One to come is waited for until the request's deadline.")
        }
        Param::Key => (key(), "What is watched: one key. One of `key` and `prefix` is given."),
        Param::Prefix => (
            text(),
            "All keys that begin so; empty: all keys. Goes with neither `start` and `end` nor `key`.",
        ),
        Param::From => (
            number(),
            "From this revision on, itself included; not given: from now on. One to come is waited for.",
        ),
        Param::Events => (json!({ "enum": ["put", "delete"] }), "Only these."),
        Param::Start => (text(), "The first key."),
        Param::End => (text(), "The first key beyond."),
        Param::Limit => (
            json!({ "type": "integer", "minimum": 1, "maximum": 100_000 }),
            "At most so many items: 1 to 1,000; with `count_only` 1 to 100,000.",
        ),
        Param::Cursor => (
            json!({ "type": "string", "pattern": "^[0-9]{1,19}\\.([0-9a-f]{2})*$" }),
            "Where the page before ended, as its answer says. All else stays as it was for that page.",
        ),
        Param::Order => (json!({ "enum": ["asc", "desc"], "default": "asc" }), "Of the keys."),
        Param::KeysOnly => (flag(), "Without values. Does not go with `count_only`."),
        Param::CountOnly => (flag(), "How many, and nothing else."),
        Param::All => (flag(), "You mean every key: for a range that is everything, and only for that."),
        Param::Ttl => (
            json!({ "type": "string", "pattern": duration_pattern(*TTL_MS.start(), *TTL_MS.end()) }),
            "The key ends after so long: a number with ms, s, m or h, 100ms to 8760h. Does not go with `lease`.",
        ),
        Param::Lease => (number(), "The key ends with this lease."),
        Param::Token => (number(), "Under which the lock is held, or waited for."),
        Param::After => (text(), "The last name or number of the page before."),
        Param::Verbose => (flag(), "What was checked, in JSON."),
    };
    let mut parameter =
        json!({ "name": param.name(), "in": "query", "description": description, "schema": schema });
    if parameter["schema"]["type"] == "boolean" {
        // `?prev` is as `?prev=true`.
        parameter["allowEmptyValue"] = true.into();
    }
    if param == Param::Prefix {
        parameter["example"] = "app/".into();
    }
    if param == Param::Token {
        parameter["required"] = true.into();
    }
    parameter
}

/// Headers of requests, under the names by which operations refer to them.
pub(super) fn of_requests() -> Value {
    let one = |name: &str, description: &str, pattern: &str| {
        let schema = json!({ "type": "string", "pattern": pattern });
        json!({ "name": name, "in": "header", "description": description, "schema": schema })
    };
    json!({
        "IdempotencyKey": one(
            "Idempotency-Key",
            "Makes the write safe to send again: applied once, the first answer comes again with `Idempotency-Replayed`. \
             Kept for 10 minutes. 1 to 255 visible ASCII characters.",
            "^[!-~]{1,255}$",
        ),
        "BalsaSession": one(
            "Balsa-Session",
            "`NUMBER:SEQ:LOWEST_UNFINISHED`: does the same within a session, in place of `Idempotency-Key`. `SEQ` counts \
             the session's requests from 1; `LOWEST_UNFINISHED`, from 1 to `SEQ`, is the lowest that has no answer yet.",
            "^[0-9]{1,19}:[1-9][0-9]{0,18}:[1-9][0-9]{0,18}$",
        ),
        "IfMatch": one(
            "If-Match",
            "Only where the key's revision is this one, in quotes; `*`: only where the key is there.",
            "^(\"[1-9][0-9]{0,18}\"|\\*)$",
        ),
        "IfAbsent": one("If-None-Match", "`*`: only where the key is absent. Does not go with `If-Match`.", "^\\*$"),
        "IfChanged": one(
            "If-None-Match",
            "The revision that the asker has, in quotes: 304 where it is still the key's.",
            "^\"[1-9][0-9]{0,18}\"$",
        ),
        "LastEventId": one(
            LAST_EVENT_ID.as_str(),
            "The last revision that the client has; the watch goes on after it. Where `from` is given, too, the later one \
             counts.",
            "^[0-9]{0,19}$",
        ),
    })
}

/// Headers of answers.
pub(super) fn of_answers() -> Value {
    let one = |description: &str, schema: Value| json!({ "description": description, "schema": schema });
    let number = || json!({ "type": "integer", "minimum": 0 });
    let text = || json!({ "type": "string" });
    let mut headers = json!({
        "ETag": one("The key's revision, in quotes.", json!({ "type": "string", "pattern": "^\"[1-9][0-9]*\"$" })),
        "Vary": one("The representation is chosen by `Accept`.", json!({ "const": "Accept" })),
        "Retry-After": one("Seconds after which to ask again.", number()),
        "Content-Disposition": one("A name for the file.", text()),
    });
    for (name, description, schema) in [
        (header::CLUSTER, "The cluster's identity; a blank node has none yet.", text()),
        (header::LEADER, "The leader's client address, `host:port`: a hint.", text()),
        (header::REVISION, "The revision that the node has applied, at least that of the answer.", number()),
        (header::TERM, "The node's term.", number()),
        (header::APPLIED_AGE_MS, "On a stale read: how old the state may be, in milliseconds.", number()),
        (header::BACKUP_REVISION, "The revision of the state in the backup.", number()),
        (
            header::IDEMPOTENCY_REPLAYED,
            "The answer is the recorded one of an earlier, equal request.",
            json!({ "const": "true" }),
        ),
    ] {
        headers[title_case(name)] = one(description, schema);
    }
    for name in ["Balsa-Revision", "Balsa-Term"] {
        headers[name]["required"] = true.into();
    }
    headers
}

/// As people write headers.
fn title_case(name: &str) -> String {
    let parts = name.split('-').map(|part| format!("{}{}", part[..1].to_uppercase(), &part[1..]));
    parts.collect::<Vec<_>>().join("-")
}
