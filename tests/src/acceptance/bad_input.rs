//! `bad-input`: what no client should send, against a live cluster.
//!
//! Each gets a clear answer: the right status and code, a detail that names what was wrong and what would be right, and
//! on writes that nothing was applied. No node ends, the store does not change, memory stays bounded, and the cluster
//! serves afterwards.

use super::connections;
use super::verdict::{mib, thousands};
use crate::cluster::Cluster;
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, Connection};
use balsa_wire::kv::Item;
use balsa_wire::problem::{self, Code};
use std::time::Duration;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often each bad request is sent.
    pub rounds: u64,
    /// Idle connections held open at once.
    pub connections: usize,
}

/// The default limits, as the contract has them.
const KEY_BYTES_MAX: usize = 4_096;
const VALUE_BYTES_MAX: usize = 1 << 20;
/// How far a node's memory may grow under the repetition of bad requests, in bytes: buffers of a few requests of the
/// largest size, and what the allocator keeps.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// What is there before and must be there, unchanged, after.
const SENTINEL: &str = "/sentinel";

/// A request that must be refused.
#[derive(Debug)]
struct Case {
    name: &'static str,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    status: u16,
    code: Code,
    /// Words that the detail must have: what was wrong, and what would be right.
    says: &'static [&'static str],
}

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<String> {
    connections::raise_file_limit(options.connections as u64 + 1_000)?;
    let mut cluster = Cluster::start(3, &[]).await?;
    let outcome = all(&mut cluster, options).await;
    cluster.explain(outcome)
}

async fn all(cluster: &mut Cluster, options: &Options) -> Outcome<String> {
    cluster.ask_well(0, Ask::put(SENTINEL, "{\"value\":\"untouched\"}")).await?;
    cluster.wait_until_digests_agree().await?;
    let before = cluster.look(0).await?.map(|seen| seen.store.revision);

    let cases = cases();
    println!("{} requests, each of every node:", cases.len());
    for case in &cases {
        for node in 0..cluster.size() {
            let mut connection = Connection::new(cluster.address(node));
            let detail = case.check(&mut connection).await?;
            if node == 0 {
                println!("  {}: {} {}: {detail}", case.name, case.status, case.code.as_str());
            }
        }
    }
    println!("requests that do not end:");
    let halves = connections::halves(cluster.address(0)).await?;
    for half in &halves {
        println!("  {half}");
    }

    let growth = repeat(cluster, &cases, options.rounds).await?;
    let idle = connections::idle(cluster, options.connections).await?;
    let refused = connections::too_many().await?;

    for node in 0..cluster.size() {
        if let Some(status) = cluster.process(node).ended()? {
            return Err(Failure(format!("node {node} ended by itself ({status})")));
        }
        ensure(!cluster.process(node).said().contains("panicked"), || format!("node {node} panicked"))?;
    }
    cluster.wait_until_digests_agree().await?;
    // Every change adds one to the revision.
    let after = cluster.look(0).await?.map(|seen| seen.store.revision);
    ensure(before == after, || {
        format!("something was changed: the revision was {before:?}, and is {after:?}")
    })?;
    for node in 0..cluster.size() {
        let item: Item = cluster.ask_well(node, Ask::get(SENTINEL)).await?.json()?;
        let value = item.value.map(|value| value.get().to_string());
        ensure(value.as_deref() == Some("\"untouched\"") && item.version == 1, || {
            format!("it reads {value:?}")
        })?;
        cluster.ask_well(node, Ask::put(&format!("/after-{node}"), "{\"value\":1}")).await?;
    }
    cluster.wait_until_digests_agree().await?;
    Ok(format!(
        "{} bad requests and {} that do not end refused clearly, {growth}, {idle}, {refused}, no node ended, state untouched, still serves",
        cases.len(),
        halves.len(),
    ))
}

/// Sends every case again and again: memory must not grow with it.
async fn repeat(cluster: &mut Cluster, cases: &[Case], rounds: u64) -> Outcome<String> {
    let mut grown_most = 0;
    let mut sent = 0;
    for node in 0..cluster.size() {
        let mut connection = Connection::new(cluster.address(node));
        // The first rounds fill buffers that are kept.
        for _ in 0..rounds.div_ceil(5) {
            for case in cases {
                case.check(&mut connection).await?;
            }
        }
        let before = cluster.process(node).resident_bytes()?;
        for _ in 0..rounds {
            for case in cases {
                case.check(&mut connection).await?;
                sent += 1;
            }
        }
        let after = cluster.process(node).resident_bytes()?;
        println!("  node {node}: {} before, {} after {rounds} rounds of all", mib(before), mib(after));
        let grown = after.saturating_sub(before);
        ensure(grown <= GROWTH_BYTES_MAX, || {
            format!("node {node} grew by {} over {rounds} rounds of bad requests", mib(grown))
        })?;
        grown_most = grown_most.max(grown);
    }
    Ok(format!("{} more grew a node by {} at most", thousands(sent), mib(grown_most)))
}

impl Case {
    /// Sends it; gives the detail of the answer.
    async fn check(&self, connection: &mut Connection) -> Outcome<String> {
        let ask = Ask { method: self.method, path: &self.path, headers: &self.headers, body: &self.body };
        let answer = connection.send(ask, PATIENCE).await;
        let answer =
            answer.context(format!("have an answer to `{}` from {}", self.name, connection.address()))?;
        let wrong =
            |what: &str| Failure(format!("`{}`: {what}: {} {}", self.name, answer.status, answer.text()));
        let problem = answer.problem().map_err(|Failure(why)| wrong(&why))?;
        if (answer.status, problem.status, problem.code) != (self.status, self.status, self.code) {
            return Err(wrong(&format!("it must be {} {}", self.status, self.code.as_str())));
        }
        for word in self.says {
            if !problem.detail.contains(word) {
                return Err(wrong(&format!("its detail must say `{word}`")));
            }
        }
        let writes = !matches!(self.method, "GET" | "HEAD" | "PATCH");
        if writes && problem.outcome != Some(problem::Outcome::NotApplied) {
            return Err(wrong("a refused write must say that it was not applied"));
        }
        if self.status == 405 && answer.header("allow").is_none() {
            return Err(wrong("a 405 must say which methods are allowed"));
        }
        Ok(problem.detail)
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");
const OK_BODY: &str = "{\"value\":1}";

fn cases() -> Vec<Case> {
    let case = |name,
                method,
                path: &str,
                headers: &[(&'static str, &'static str)],
                body: &str,
                status,
                code,
                says| {
        Case {
            name,
            method,
            path: path.to_string(),
            headers: headers.to_vec(),
            body: body.to_string(),
            status,
            code,
            says,
        }
    };
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    let long_value = format!("{{\"value\":\"{}\"}}", "v".repeat(VALUE_BYTES_MAX - 1));
    let long_body = format!("{{\"value\":\"{}\"}}", "v".repeat(2 * VALUE_BYTES_MAX));
    let (at_root, in_full) = (format!("/{long_key}"), format!("/v1/kv/{long_key}"));
    let wide = format!("/v1/kv/{}", "%F0%9F%8C%B3".repeat(KEY_BYTES_MAX / 4 + 1));
    let long_id: &'static str = LONG_ID;
    vec![
        case(
            "key of 4,097 bytes at the root",
            "PUT",
            &at_root,
            &[JSON],
            OK_BODY,
            400,
            Code::KeyTooLong,
            &["4097", "4096"],
        ),
        case(
            "key of 4,097 bytes",
            "PUT",
            &in_full,
            &[JSON],
            OK_BODY,
            400,
            Code::KeyTooLong,
            &["4097", "4096"],
        ),
        case(
            "GET of a key of 4,097 bytes",
            "GET",
            &in_full,
            &[],
            "",
            400,
            Code::KeyTooLong,
            &["4097", "4096"],
        ),
        case(
            "key of 4,100 bytes in 1,025 characters",
            "DELETE",
            &wide,
            &[],
            "",
            400,
            Code::KeyTooLong,
            &["4100", "4096"],
        ),
        case("empty key", "PUT", "/v1/kv/", &[JSON], OK_BODY, 400, Code::InvalidKey, &["empty", "1 to 4096"]),
        case(
            "key that is not UTF-8",
            "PUT",
            "/v1/kv/%FF",
            &[JSON],
            OK_BODY,
            400,
            Code::InvalidKey,
            &["UTF-8"],
        ),
        case("key with a broken escape", "GET", "/v1/kv/a%2", &[], "", 400, Code::InvalidKey, &["%"]),
        case(
            "value of a byte over 1 MiB",
            "PUT",
            "/v1/kv/a",
            &[JSON],
            &long_value,
            413,
            Code::TooLarge,
            &["value", "1048576"],
        ),
        case(
            "raw value of 2 MiB",
            "PUT",
            "/v1/kv/a",
            &[],
            &long_body,
            413,
            Code::TooLarge,
            &["larger", "limit", "bytes"],
        ),
        case(
            "body of 2 MiB at the root",
            "PUT",
            "/a",
            &[JSON],
            &long_body,
            413,
            Code::TooLarge,
            &["larger", "limit", "bytes"],
        ),
        case(
            "broken JSON",
            "PUT",
            "/a",
            &[JSON],
            "{\"value\":",
            400,
            Code::InvalidJson,
            &["{\"value\": JSON}", "line 1 column 9"],
        ),
        case(
            "no JSON at all",
            "PUT",
            "/v1/kv/a",
            &[JSON],
            "value=1",
            400,
            Code::InvalidJson,
            &["{\"value\": JSON}"],
        ),
        case(
            "JSON with something behind",
            "PUT",
            "/a",
            &[JSON],
            "{\"value\":1} 2",
            400,
            Code::InvalidJson,
            &["trailing"],
        ),
        case(
            "JSON nested without end",
            "PUT",
            "/a",
            &[JSON],
            NESTED,
            400,
            Code::InvalidJson,
            &["{\"value\": JSON}", "EOF"],
        ),
        case(
            "JSON without the member",
            "PUT",
            "/a",
            &[JSON],
            "{}",
            400,
            Code::InvalidJson,
            &["missing field `value`"],
        ),
        case("empty body", "PUT", "/a", &[JSON], "", 400, Code::InvalidJson, &["{\"value\": JSON}"]),
        case(
            "unknown member",
            "PUT",
            "/a",
            &[JSON],
            "{\"value\":1,\"ttl\":2}",
            400,
            Code::UnknownMember,
            &["`ttl`", "{\"value\": JSON}"],
        ),
        case(
            "unknown member of a clear",
            "POST",
            "/clear",
            &[JSON],
            "{\"prefix\":\"a\"}",
            400,
            Code::UnknownMember,
            &["`prefix`"],
        ),
        case(
            "unknown parameter",
            "GET",
            "/v1/kv/a?foo=1",
            &[],
            "",
            400,
            Code::UnknownParameter,
            &["`foo`", "raw, consistency"],
        ),
        case(
            "unknown parameter of a write",
            "PUT",
            "/a?timeout=1",
            &[JSON],
            OK_BODY,
            400,
            Code::UnknownParameter,
            &["`timeout`", "prev"],
        ),
        case(
            "parameter given twice",
            "GET",
            "/a?raw&raw",
            &[],
            "",
            400,
            Code::InvalidParameter,
            &["`raw`", "twice"],
        ),
        case(
            "parameter with a wrong value",
            "GET",
            "/a?consistency=strong",
            &[],
            "",
            400,
            Code::InvalidParameter,
            &["`strong`", "linearizable or stale"],
        ),
        case(
            "wrong method on a key",
            "PATCH",
            "/a",
            &[],
            "",
            405,
            Code::MethodNotAllowed,
            &["PATCH", "GET, HEAD, PUT, DELETE"],
        ),
        case(
            "wrong method on a key in full",
            "POST",
            "/v1/kv/a",
            &[JSON],
            OK_BODY,
            405,
            Code::MethodNotAllowed,
            &["POST", "GET, HEAD, PUT, DELETE"],
        ),
        case(
            "wrong method on the cluster",
            "POST",
            "/v1/cluster",
            &[],
            "",
            405,
            Code::MethodNotAllowed,
            &["POST", "GET, HEAD"],
        ),
        case(
            "PUT of a reserved name",
            "PUT",
            "/metrics",
            &[JSON],
            OK_BODY,
            400,
            Code::ReservedName,
            &["`metrics`", "/v1/kv/metrics"],
        ),
        case(
            "DELETE of a reserved name",
            "DELETE",
            "/clear",
            &[],
            "",
            400,
            Code::ReservedName,
            &["`clear`", "/v1/kv/clear"],
        ),
        case(
            "PUT of a reserved name in disguise",
            "PUT",
            "/%76%31",
            &[JSON],
            OK_BODY,
            400,
            Code::ReservedName,
            &["`v1`", "/v1/kv/v1"],
        ),
        case(
            "form on /v1",
            "PUT",
            "/v1/kv/a",
            &[("content-type", "application/x-www-form-urlencoded")],
            OK_BODY,
            415,
            Code::UnsupportedMediaType,
            &["curl -X PUT -H 'Content-Type: application/json'"],
        ),
        case(
            "compressed body",
            "PUT",
            "/v1/kv/a",
            &[JSON, ("content-encoding", "gzip")],
            OK_BODY,
            415,
            Code::UnsupportedMediaType,
            &["Content-Encoding"],
        ),
        case(
            "foreign Origin",
            "POST",
            "/clear",
            &[("origin", "http://evil.example")],
            "",
            403,
            Code::CrossOrigin,
            &["http://evil.example"],
        ),
        case(
            "Origin null",
            "PUT",
            "/a",
            &[JSON, ("origin", "null")],
            OK_BODY,
            403,
            Code::CrossOrigin,
            &["null"],
        ),
        case(
            "Sec-Fetch-Site: cross-site",
            "DELETE",
            SENTINEL,
            &[("sec-fetch-site", "cross-site")],
            "",
            403,
            Code::CrossOrigin,
            &["another site"],
        ),
        case(
            "GET from a foreign page",
            "GET",
            SENTINEL,
            &[("origin", "http://localhost:8080")],
            "",
            403,
            Code::CrossOrigin,
            &["http://localhost:8080"],
        ),
        case(
            "weak condition",
            "PUT",
            SENTINEL,
            &[JSON, ("if-match", "W/\"1\"")],
            OK_BODY,
            400,
            Code::InvalidCondition,
            &["W/\"1\"", "one revision in quotes"],
        ),
        case(
            "list of conditions",
            "PUT",
            SENTINEL,
            &[JSON, ("if-match", "\"1\", \"2\"")],
            OK_BODY,
            400,
            Code::InvalidCondition,
            &["`\"1\", \"2\"`", "one revision in quotes"],
        ),
        case(
            "idempotency key of 256 characters",
            "PUT",
            "/a",
            &[JSON, ("idempotency-key", long_id)],
            OK_BODY,
            400,
            Code::InvalidHeader,
            &["255"],
        ),
        case(
            "session that is no number",
            "PUT",
            "/a",
            &[JSON, ("balsa-session", "one:2:3")],
            OK_BODY,
            400,
            Code::InvalidHeader,
            &["NUMBER:SEQ:LOWEST_UNFINISHED"],
        ),
        case(
            "session that never was",
            "PUT",
            "/a",
            &[JSON, ("balsa-session", "999999999:1:1")],
            OK_BODY,
            409,
            Code::SessionExpired,
            &["POST /v1/sessions"],
        ),
        case("path that leads nowhere", "GET", "/a/b", &[], "", 404, Code::NoSuchRoute, &["/v1/kv/"]),
        case(
            "member that does not exist",
            "DELETE",
            "/v1/cluster/members/123abc",
            &[],
            "",
            404,
            Code::NoSuchMember,
            &["123abc"],
        ),
    ]
}

/// One character more than an idempotency key may have.
const LONG_ID: &str = match std::str::from_utf8(&[b'i'; 256]) {
    Ok(text) => text,
    Err(_) => "",
};

/// Arrays in arrays, deeper than anybody means.
const NESTED: &str = match std::str::from_utf8(&NESTED_BYTES) {
    Ok(text) => text,
    Err(_) => "",
};
const NESTED_BYTES: [u8; 10_009] = {
    let mut bytes = [b'['; 10_009];
    let head = b"{\"value\":";
    let mut at = 0;
    while at < head.len() {
        bytes[at] = head[at];
        at += 1;
    }
    bytes
};
