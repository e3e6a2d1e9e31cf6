//! One operation of the document, and what all of them have.

use super::parameters;
use crate::http::query::Param;
use crate::http::route::Route;
use balsa_wire::problem::{CONTENT_TYPE, Code};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Problems that any request can meet.
const ANY: &[Code] = &[
    Code::UnknownParameter,
    Code::InvalidParameter,
    Code::CrossOrigin,
    Code::RequestTimeout,
    Code::Internal,
    Code::Overloaded,
];
/// Problems of whatever asks the engine.
const ASKED: &[Code] = &[Code::NoLeader, Code::Stopping, Code::Removed];
/// Problems of writes.
const WRITE: &[Code] = &[
    Code::InvalidCondition,
    Code::InvalidHeader,
    Code::InvalidJson,
    Code::UnknownMember,
    Code::IncompleteBody,
    Code::TooLarge,
    Code::OutcomeUnknown,
];
/// Problems of writes whose answers are recorded.
const RECORDED: &[Code] =
    &[Code::SessionExpired, Code::RequestMismatch, Code::Overwritten, Code::ReplyTableFull];

/// An answer that is not a problem.
struct Good {
    status: u16,
    description: String,
    headers: Vec<&'static str>,
    content: Value,
    links: Value,
}

/// An operation under construction.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) route: Route,
    /// Of routes with several paths: this one.
    pub(super) path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    good: Vec<Good>,
    codes: Vec<Code>,
}

impl Operation {
    /// One that every problem of any request can meet.
    pub(super) fn new(
        method: &'static str,
        route: Route,
        tag: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Operation {
        let path = route.label();
        Operation {
            method,
            route,
            path,
            id,
            tag,
            summary,
            description: "",
            parameters: parameters::of_path(path),
            body: None,
            good: Vec::new(),
            codes: ANY.to_vec(),
        }
    }

    /// At another path of its route.
    pub(super) fn at(mut self, path: &'static str) -> Operation {
        self.path = path;
        self
    }

    /// More than the summary says.
    pub(super) fn says(mut self, description: &'static str) -> Operation {
        self.description = description;
        self
    }

    /// It reads what a quorum has confirmed, unless it is asked for less.
    pub(super) fn reads(self) -> Operation {
        self.fails(ASKED).fails(&[Code::NotConfirmed])
    }

    /// It changes members or leader.
    pub(super) fn changes(self) -> Operation {
        self.fails(ASKED).fails(WRITE)
    }

    /// It is a write whose answer is recorded.
    pub(super) fn writes(mut self) -> Operation {
        for name in ["IdempotencyKey", "BalsaSession"] {
            self.parameters.push(reference("parameters", name));
        }
        self.changes().fails(RECORDED)
    }

    /// It needs room: it is refused where the storage is full.
    pub(super) fn needs_room(self) -> Operation {
        self.fails(&[Code::StorageFull])
    }

    /// The parameters that its handler reads.
    pub(super) fn query(mut self, params: &[Param]) -> Operation {
        self.parameters.extend(params.iter().map(|param| parameters::of_query(*param)));
        self
    }

    /// One of those takes less here.
    pub(super) fn where_it_takes(mut self, param: Param, schema: Value) -> Operation {
        let mut named = self.parameters.iter_mut().filter(|parameter| parameter["name"] == param.name());
        if let Some(parameter) = named.next() {
            parameter["schema"] = schema;
        }
        self
    }

    /// A header of the request that is described among the components.
    pub(super) fn header(mut self, name: &str) -> Operation {
        self.parameters.push(reference("parameters", name));
        self
    }

    /// A JSON body, with examples by name.
    pub(super) fn body(self, schema: &str, required: bool, examples: &[(&str, Value)]) -> Operation {
        let named: Map<String, Value> =
            examples.iter().map(|(name, value)| ((*name).to_owned(), json!({ "value": value }))).collect();
        let content = json!({
            "application/json": { "schema": reference("schemas", schema), "examples": named }
        });
        self.body_of(required, content)
    }

    /// A body of any kind.
    pub(super) fn body_of(mut self, required: bool, content: Value) -> Operation {
        self.body = Some(json!({ "required": required, "content": content }));
        self
    }

    /// A JSON answer.
    pub(super) fn answers(self, description: &str, schema: &str, example: Value) -> Operation {
        let content =
            json!({ "application/json": { "schema": reference("schemas", schema), "example": example } });
        self.answers_with(200, description, content)
    }

    /// An answer of any kind.
    pub(super) fn answers_with(mut self, status: u16, description: &str, content: Value) -> Operation {
        let description = description.to_owned();
        self.good.push(Good { status, description, headers: Vec::new(), content, links: Value::Null });
        self
    }

    /// Headers of the answer that was given last.
    pub(super) fn with_headers(mut self, names: &[&'static str]) -> Operation {
        if let Some(good) = self.good.last_mut() {
            good.headers.extend(names);
        }
        self
    }

    /// How to go on from the answer that was given last.
    pub(super) fn with_links(mut self, links: Value) -> Operation {
        if let Some(good) = self.good.last_mut() {
            good.links = links;
        }
        self
    }

    /// Problems that it can meet beside those of all.
    pub(super) fn fails(mut self, codes: &[Code]) -> Operation {
        self.codes.extend(codes);
        self
    }

    /// The codes of its problems.
    pub(super) fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// As the document has it. Answers that are problems go to `shared`, under a name that says what they are.
    pub(super) fn to_json(&self, shared: &mut Map<String, Value>) -> Value {
        let mut responses: Map<String, Value> = Map::new();
        for good in &self.good {
            let mut response = json!({ "description": good.description, "headers": headers(&good.headers) });
            for (name, value) in [("content", &good.content), ("links", &good.links)] {
                if !value.is_null() {
                    response[name] = value.clone();
                }
            }
            responses.insert(good.status.to_string(), response);
        }
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in Code::ALL.iter().filter(|code| self.codes.contains(code)) {
            by_status.entry(code.status()).or_default().push(*code);
        }
        for (status, codes) in by_status {
            let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
            let name = format!("{status}.{}", names.join("."));
            responses.insert(status.to_string(), reference("responses", &name));
            shared.entry(name).or_insert_with(|| problem(status, &codes));
        }
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "responses": responses,
        });
        if !self.description.is_empty() {
            operation["description"] = self.description.into();
        }
        if !self.parameters.is_empty() {
            operation["parameters"] = self.parameters.clone().into();
        }
        if let Some(body) = &self.body {
            operation["requestBody"] = body.clone();
        }
        operation
    }

    /// Its HEAD, where its route has one: the same answers without their bodies.
    pub(super) fn head(&self) -> Option<Value> {
        if self.method != "GET" || !self.route.allow().contains("HEAD") {
            return None;
        }
        let mut whole = self.to_json(&mut Map::new());
        let id = format!("head{}{}", self.id[..1].to_uppercase(), &self.id[1..]);
        whole["operationId"] = id.into();
        whole["summary"] = format!("{}: status and headers", self.summary).into();
        if let Some(responses) = whole["responses"].as_object_mut() {
            for (status, response) in responses.iter_mut() {
                let description = format!("As GET answers {status}, without the body");
                *response = json!({ "description": description, "headers": headers(&[]) });
            }
        }
        Some(whole)
    }
}

/// A reference to a component.
pub(super) fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn headers(more: &[&'static str]) -> Value {
    let every = ["Balsa-Cluster", "Balsa-Leader", "Balsa-Revision", "Balsa-Term"];
    let named = every.iter().chain(more).map(|name| ((*name).to_owned(), reference("headers", name)));
    Value::Object(named.collect())
}

fn problem(status: u16, codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let lines: Vec<String> =
        codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.title())).collect();
    let more: &[&'static str] = match status {
        503 => &["Retry-After"],
        _ => &[],
    };
    let schema = json!({
        "allOf": [
            reference("schemas", "Problem"),
            { "properties": { "status": { "const": status }, "code": { "enum": names } } },
        ]
    });
    json!({
        "description": lines.join(". "),
        "headers": headers(more),
        "content": { CONTENT_TYPE: { "schema": schema } },
    })
}
