//! The examples of the document, sent to a node: each must be answered as the document says.
//!
//! What is named by an answer (a lease, a lock's token, a member) comes by the document's own links.

use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, send};
use balsa_wire::percent::encode_segment;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// An operation of the document.
struct Operation<'a> {
    path: &'a str,
    method: String,
    says: &'a Value,
}

/// Sends all of them; gives how many requests that were.
pub(super) async fn run(address: &str, document: &Value) -> Outcome<u64> {
    let mut operations = Vec::new();
    for (path, methods) in members(&document["paths"]) {
        for (method, says) in members(methods) {
            operations.push(Operation { path, method: method.to_uppercase(), says });
        }
    }
    operations.sort_by_key(|operation| (turn(operation), operation.path));
    let mut linked: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut sent = 0;
    for operation in &operations {
        let explain = |Failure(why)| Failure(format!("{} {}: {why}", operation.method, operation.path));
        sent += operation.send_all(address, document, &mut linked).await.map_err(explain)?;
    }
    Ok(sent)
}

/// So that what an example reads was written before, and is not deleted yet.
fn turn(operation: &Operation<'_>) -> u32 {
    match (operation.method.as_str(), operation.path) {
        (_, "/clear") => 9,
        ("PUT", _) => 0,
        ("POST", path) if path.contains("{id}") => 2,
        ("POST", _) => 1,
        ("DELETE", path) if path.contains("{key}") => 4,
        ("DELETE", "/v1/kv") => 5,
        ("DELETE", _) => 6,
        _ => 3,
    }
}

impl Operation<'_> {
    async fn send_all(
        &self,
        address: &str,
        document: &Value,
        linked: &mut BTreeMap<(String, String), String>,
    ) -> Outcome<u64> {
        // What is linked to a GET is what its HEAD takes, too.
        let of = if self.method == "HEAD" { &document["paths"][self.path]["get"] } else { self.says };
        let id = of["operationId"].as_str().unwrap_or_default();
        let (mut path, mut query) = (self.path.to_owned(), Vec::new());
        for parameter in self.says["parameters"].as_array().into_iter().flatten() {
            let parameter = resolve(document, parameter);
            let name = parameter["name"].as_str().unwrap_or_default();
            let link = linked.get(&(id.to_owned(), name.to_owned())).cloned();
            let Some(value) = link.or_else(|| parameter.get("example").map(text)) else {
                ensure(parameter["required"] != true, || {
                    format!("`{name}` has neither an example nor a link")
                })?;
                continue;
            };
            match parameter["in"].as_str() {
                Some("path") => path = path.replace(&format!("{{{name}}}"), &encode_segment(&value)),
                Some("query") => query.push(format!("{name}={}", encode_segment(&value))),
                _ => {}
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        let body = &self.says["requestBody"]["content"]["application/json"]["examples"];
        let bodies: Vec<Value> = members(body).map(|(_, example)| example["value"].clone()).collect();
        let mut sent = 0;
        for body in bodies.iter().map(Some).chain(bodies.is_empty().then_some(None)) {
            self.send(address, document, &path, body, linked).await?;
            sent += 1;
        }
        Ok(sent)
    }

    async fn send(
        &self,
        address: &str,
        document: &Value,
        path: &str,
        body: Option<&Value>,
        linked: &mut BTreeMap<(String, String), String>,
    ) -> Outcome<()> {
        let written = body.map(Value::to_string).unwrap_or_default();
        let headers: &[(&str, &str)] =
            if body.is_some() { &[("content-type", "application/json")] } else { &[] };
        let ask = Ask { method: &self.method, path, headers, body: &written };
        if self.says["responses"]["200"]["content"].get("text/event-stream").is_some() {
            return first_event(address, path).await;
        }
        let answer = send(address, ask, PATIENCE).await.context(format!("send {path} {written}"))?;
        let status = answer.status.to_string();
        let says = resolve(document, &self.says["responses"][&status]);
        let what = || format!("{path} {written} was answered {status} {}", answer.text());
        ensure(says.is_object(), || format!("{}, which the document does not have", what()))?;
        // A learner that has nothing yet is no voter to be: that is what its example shows.
        let refused = self.says["operationId"] == "promoteMember" && status == "409";
        ensure(answer.is_success() || refused, what)?;
        if let Some(content) = says.get("content") {
            let is = answer.header("content-type").unwrap_or_default();
            let is_there = members(content).any(|(kind, _)| kind == is || kind == "*/*");
            ensure(is_there, || format!("{path} has the type `{is}`, which the document does not have"))?;
        }
        for (_, link) in members(&says["links"]) {
            let to = link["operationId"].as_str().unwrap_or_default();
            for (name, place) in members(&link["parameters"]) {
                let value = match place.as_str().and_then(|place| place.split_once('#')) {
                    Some(("$response.body", pointer)) => answer.json::<Value>()?.pointer(pointer).map(text),
                    Some(("$request.body", pointer)) => body.and_then(|body| body.pointer(pointer)).map(text),
                    _ => None,
                };
                let value = value.ok_or_else(|| Failure(format!("the link to `{to}` has no `{name}`")))?;
                linked.insert((to.to_owned(), name.clone()), value);
            }
        }
        Ok(())
    }
}

/// Of an answer that does not end, what comes first.
async fn first_event(address: &str, path: &str) -> Outcome<()> {
    let reading = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
        let (mut said, mut more) = (Vec::new(), [0; 4096]);
        loop {
            match stream.read(&mut more).await? {
                0 => break,
                bytes => said.extend_from_slice(&more[..bytes]),
            }
            if said.windows(2).any(|two| two == b"\n\n") {
                break;
            }
        }
        std::io::Result::Ok(String::from_utf8_lossy(&said).into_owned())
    };
    let said = tokio::time::timeout(PATIENCE, reading).await.context(format!("hear of {path} in time"))?;
    let said = said.context(format!("read {path}"))?;
    let is_well =
        said.starts_with("HTTP/1.1 200") && said.contains("text/event-stream") && said.contains("event: ");
    ensure(is_well, || format!("{path} was answered {said}"))
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// What a reference refers to.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference =
        value.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

/// As it stands in a path or query.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
