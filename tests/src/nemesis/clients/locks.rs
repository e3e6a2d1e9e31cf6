//! Clients that compete for a lock, and write what only its holder may write: each write names the token that its client
//! was given. Some are too slow, and hold it no longer when they write; some never release it.

use super::http_client::{Attempt, HttpClient, Request, trouble};
use super::{Known, Shared};
use crate::failure::{Context, Failure, Outcome};
use crate::http::Answer;
use crate::random::Random;
use balsa_check::locks::{Fenced, Held};
use balsa_check::{Kind, Operation};
use balsa_wire::leases::{AcquireLock, LockAnswer};
use balsa_wire::txn::{Condition, Op, PutOp, TxnAnswer, TxnRequest};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The key that only the lock's holder may write.
pub(super) const FENCED: &str = "fenced";
const LOCK: &str = "nemesis/lock";
/// A lock lasts so long without a sign of life; who is slow writes later than that.
const TTL_MS: u64 = 700;
const SLOW_MS: (u64, u64) = (500, 1_500);
/// Between two holds.
const PAUSE_MS: (u64, u64) = (20, 400);

/// What one client was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) held: Vec<Held>,
    pub(super) fenced: Vec<Fenced>,
    /// The same writes as operations of the history.
    pub(super) operations: Vec<Operation>,
}

pub(super) struct LockClient {
    pub(super) number: u64,
    pub(super) http: HttpClient,
    pub(super) random: Random,
    pub(super) shared: Arc<Shared>,
}

impl LockClient {
    pub(super) async fn work(mut self) -> Outcome<Told> {
        let mut told = Told::default();
        while !self.shared.stop.load(Ordering::Relaxed) {
            if let Err(failure) = self.hold(&mut told).await {
                self.shared.failed.store(true, Ordering::Relaxed);
                return Err(failure);
            }
            self.pause(PAUSE_MS).await;
        }
        Ok(told)
    }

    async fn pause(&mut self, (least, most): (u64, u64)) {
        tokio::time::sleep(Duration::from_millis(self.random.between(least, most))).await;
    }

    /// Gets the lock, if it can, writes a few times, and releases it or does not.
    async fn hold(&mut self, told: &mut Told) -> Outcome<()> {
        let asked = AcquireLock {
            ttl: Some(format!("{TTL_MS}ms")),
            wait: Some("1s".to_string()),
            ..AcquireLock::default()
        };
        let path = format!("/v1/locks/{LOCK}");
        let call_ns = self.shared.now_ns();
        let place = self.http.settle(post(path, &asked)?, read::<LockAnswer>).await?;
        let Attempt::Told(Some(LockAnswer { token, .. })) = place else { return Ok(()) };
        told.held.push(Held { token, call_ns, return_ns: self.shared.now_ns() });
        for nth in 0..self.random.below(5) {
            if self.random.chance(200) {
                self.pause(SLOW_MS).await;
            }
            if !self.write(token, nth, told).await? {
                break;
            }
        }
        if self.random.chance(700) {
            let path = format!("/v1/locks/{LOCK}?token={token}");
            let release = Request { method: "DELETE", path, body: String::new(), headers: Vec::new() };
            self.http.settle(release, read::<serde_json::Value>).await?;
        }
        Ok(())
    }

    /// Writes as the holder of a token; gives whether it was held.
    async fn write(&mut self, token: u64, nth: u64, told: &mut Told) -> Outcome<bool> {
        let value = format!("\"{token}-{nth}\"");
        let raw = RawValue::from_string(value.clone()).context("write a value")?;
        let put = PutOp { key: FENCED.to_string(), value: Some(raw), ..PutOp::default() };
        let of_lock = Condition { lock: Some(LOCK.to_string()), token: Some(token), ..Condition::default() };
        let asked =
            TxnRequest { conditions: vec![of_lock], then: vec![Op::Put(put)], ..TxnRequest::default() };
        let call_ns = self.shared.now_ns();
        let answer = self.http.settle(post("/v1/txn".to_string(), &asked)?, read::<TxnAnswer>).await?;
        let (outcome, revision) = match answer {
            Attempt::Told(Some(answer)) if answer.succeeded => (Known::Ok, Some(answer.revision)),
            Attempt::Told(_) | Attempt::NotApplied => (Known::NotApplied, None),
            Attempt::Unknown => (Known::Unknown, None),
        };
        told.fenced.extend(revision.map(|revision| Fenced { token, revision }));
        told.operations.push(Operation {
            client: self.number,
            kind: Kind::Put { key: FENCED.into(), value: value.into() },
            condition: None,
            call_ns,
            return_ns: Some(self.shared.now_ns()),
            outcome,
            revision,
            key_revision: None,
        });
        Ok(outcome != Known::NotApplied)
    }
}

fn post(path: String, body: &impl Serialize) -> Outcome<Request> {
    let body = serde_json::to_string(body).context("write a request")?;
    let headers = vec![("content-type", "application/json".to_string())];
    Ok(Request { method: "POST", path, body, headers })
}

/// `None`: the lock is another's.
fn read<T: serde::de::DeserializeOwned>(answer: &Answer) -> Outcome<Attempt<Option<T>>> {
    if answer.is_success() {
        return Ok(Attempt::Told(Some(answer.json()?)));
    }
    if answer.status == 409 {
        return Ok(Attempt::Told(None));
    }
    trouble(answer, answer.problem()?.outcome)
        .ok_or_else(|| Failure(format!("a lock's client was answered {} {}", answer.status, answer.text())))
}
