//! A client by plain HTTP, which goes to any node.

use super::{DEADLINE, Told, txn};
use crate::failure::{Context, Failure, Outcome};
use crate::http::{Answer, Ask, Connection, NoAnswer};
use crate::random::Random;
use balsa_check::{Condition, Kind, Operation, Outcome as Known};
use balsa_wire::header::IDEMPOTENCY_KEY;
use balsa_wire::kv::{ClearAnswer, DeleteAnswer, Item, PutAnswer};
use balsa_wire::problem::{Code, Outcome as Truth, Problem};
use balsa_wire::txn::TxnAnswer;
use std::time::{Duration, Instant};

/// How long one answer is waited for: by whoever asks again, and by whoever does not.
const ATTEMPT: Duration = Duration::from_secs(2);
const ONLY_ATTEMPT: Duration = Duration::from_secs(6);
/// Pauses between attempts, doubled from the least to the most.
const PAUSE_MS: (u64, u64) = (5, 200);

pub(super) struct HttpClient {
    connections: Vec<Connection>,
    /// Sends a request again, with an idempotency key, until its outcome is known.
    sends_again: bool,
    random: Random,
    /// Makes idempotency keys its own.
    name: u64,
    asked: u64,
}

/// What one attempt says, or all of them.
pub(super) enum Attempt<T> {
    Told(T),
    NotApplied,
    Unknown,
}

/// A request, the same at every attempt.
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: String,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl HttpClient {
    pub(super) fn new(addresses: &[String], sends_again: bool, mut random: Random) -> HttpClient {
        let connections = addresses.iter().map(Connection::new).collect();
        let name = random.draw();
        HttpClient { connections, sends_again, random, name, asked: 0 }
    }

    pub(super) fn sends_again(&self) -> bool {
        self.sends_again
    }

    pub(super) async fn ask(&mut self, kind: Kind, condition: Option<&Condition>) -> Outcome<Told> {
        let request = request(&kind, condition, self.random.chance(500))?;
        Ok(match self.settle(request, |answer| read(answer, &kind)).await? {
            Attempt::Told(told) => told,
            Attempt::NotApplied => Told::nothing(kind),
            Attempt::Unknown => Told::doubt(kind),
        })
    }

    /// Asks until an answer says what became of it, or time is over.
    pub(super) async fn settle<T>(
        &mut self,
        mut request: Request,
        read: impl Fn(&Answer) -> Outcome<Attempt<T>>,
    ) -> Outcome<Attempt<T>> {
        if self.sends_again {
            self.asked += 1;
            request.headers.push((IDEMPOTENCY_KEY, format!("{:x}-{}", self.name, self.asked)));
        }
        let patience = if self.sends_again { ATTEMPT } else { ONLY_ATTEMPT };
        let began = Instant::now();
        let mut in_doubt = false;
        let mut pause_ms = PAUSE_MS.0;
        loop {
            let node = self.random.below(self.connections.len() as u64) as usize;
            match attempt(&mut self.connections[node], &request, &read, patience).await? {
                Attempt::Told(told) => return Ok(Attempt::Told(told)),
                Attempt::Unknown => in_doubt = true,
                Attempt::NotApplied => {}
            }
            // Where nothing tells a second request from the first, only what was surely not applied is sent again.
            if began.elapsed() > DEADLINE || (in_doubt && !self.sends_again) {
                return Ok(if in_doubt { Attempt::Unknown } else { Attempt::NotApplied });
            }
            tokio::time::sleep(Duration::from_millis(pause_ms + self.random.below(pause_ms))).await;
            pause_ms = (2 * pause_ms).min(PAUSE_MS.1);
        }
    }
}

/// `shorthand`: at the root, where that can say it.
fn request(kind: &Kind, condition: Option<&Condition>, shorthand: bool) -> Outcome<Request> {
    let mut headers = vec![("content-type", "application/json".to_string())];
    match condition {
        None => {}
        Some(Condition::Revision(revision)) => headers.push(("if-match", format!("\"{revision}\""))),
        Some(Condition::Exists) => headers.push(("if-match", "*".to_string())),
        Some(Condition::Absent) => headers.push(("if-none-match", "*".to_string())),
        Some(Condition::Value(_)) => return Err(Failure("HTTP has no condition on a value".into())),
    }
    let folder = if shorthand && condition.is_none() { "" } else { "/v1/kv" };
    let path = |key: &str| format!("{folder}/{key}");
    let (method, path, body) = match kind {
        Kind::Get { key, .. } => ("GET", path(key), String::new()),
        Kind::Put { key, value } => ("PUT", path(key), format!("{{\"value\":{value}}}")),
        Kind::Delete { key, .. } => ("DELETE", path(key), String::new()),
        Kind::Clear { .. } => ("POST", "/clear".to_string(), String::new()),
        Kind::Txn(asked) => {
            let body = serde_json::to_string(&txn::request(asked)?).context("write a transaction")?;
            ("POST", "/v1/txn".to_string(), body)
        }
        Kind::Append { .. } => return Err(Failure("Balsa has no append".into())),
    };
    if method == "GET" {
        headers.clear();
    }
    Ok(Request { method, path, body, headers })
}

async fn attempt<T>(
    connection: &mut Connection,
    request: &Request,
    read: impl Fn(&Answer) -> Outcome<Attempt<T>>,
    patience: Duration,
) -> Outcome<Attempt<T>> {
    let headers: Vec<(&str, &str)> =
        request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let ask = Ask { method: request.method, path: &request.path, headers: &headers, body: &request.body };
    match connection.send(ask, patience).await {
        Ok(answer) => read(&answer),
        Err(NoAnswer::NotSent(_)) => Ok(Attempt::NotApplied),
        Err(NoAnswer::Broke(_) | NoAnswer::Late) => Ok(Attempt::Unknown),
    }
}

fn read(answer: &Answer, kind: &Kind) -> Outcome<Attempt<Told>> {
    let kind = kind.clone();
    if answer.is_success() {
        return Ok(Attempt::Told(match kind {
            Kind::Get { .. } => {
                let item: Item = answer.json()?;
                let value = item.value.map(|value| value.get().to_string()).unwrap_or_default();
                Told::read(kind, Some((value, item.revision)))
            }
            Kind::Put { .. } | Kind::Append { .. } => Told::wrote(kind, answer.json::<PutAnswer>()?.revision),
            Kind::Delete { key, .. } => {
                let answer: DeleteAnswer = answer.json()?;
                Told::wrote(Kind::Delete { key, deleted: Some(answer.deleted) }, answer.revision)
            }
            Kind::Clear { .. } => {
                let answer: ClearAnswer = answer.json()?;
                Told::wrote(Kind::Clear { deleted: Some(answer.deleted) }, answer.revision)
            }
            Kind::Txn(asked) => {
                let answer: TxnAnswer = answer.json()?;
                let revision = answer.revision;
                Told::wrote(Kind::Txn(txn::told(asked, answer)?), revision)
            }
        }));
    }
    let problem: Problem = answer.problem()?;
    match (answer.status, problem.code, problem.outcome) {
        (404, Code::KeyNotFound, _) if matches!(kind, Kind::Get { .. }) => {
            Ok(Attempt::Told(Told::read(kind, None)))
        }
        (412, _, _) => Ok(Attempt::Told(Told::condition_failed(kind, problem.current_revision))),
        (503 | 504, _, None) if matches!(kind, Kind::Get { .. }) => Ok(Attempt::NotApplied),
        _ => trouble(answer, problem.outcome)
            .ok_or_else(|| Failure(format!("{kind:?} was answered {} {}", answer.status, answer.text()))),
    }
}

/// What a cluster in trouble says of a write.
pub(super) fn trouble<T>(answer: &Answer, outcome: Option<Truth>) -> Option<Attempt<T>> {
    match (answer.status, outcome) {
        (503 | 507, Some(Truth::NotApplied)) => Some(Attempt::NotApplied),
        (504, Some(Truth::Unknown)) => Some(Attempt::Unknown),
        _ => None,
    }
}

/// Reads a key linearizably at one node, which must answer; `began` is what the time in the history counts from.
pub async fn read_at(address: &str, client: u64, key: &str, began: Instant) -> Outcome<Operation> {
    let kind = Kind::Get { key: key.into(), value: None };
    let request = request(&kind, None, false)?;
    let call_ns = began.elapsed().as_nanos() as u64;
    let read_it = |answer: &Answer| read(answer, &kind);
    let read = attempt(&mut Connection::new(address), &request, read_it, DEADLINE).await;
    let Attempt::Told(Told { kind, key_revision, .. }) = read.context(format!("read {key} at {address}"))?
    else {
        return Err(Failure(format!(
            "{address} does not answer a read of {key}, though nothing is wrong any more"
        )));
    };
    let return_ns = Some(began.elapsed().as_nanos() as u64);
    Ok(Operation {
        client,
        kind,
        condition: None,
        call_ns,
        return_ns,
        outcome: Known::Ok,
        revision: None,
        key_revision,
    })
}
