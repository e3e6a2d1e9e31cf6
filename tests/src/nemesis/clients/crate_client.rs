//! A client by the client crate, which retries by itself.

use super::{DEADLINE, Told, txn};
use crate::failure::{Context, Failure, Outcome};
use balsa_check::{Condition, Kind};
use balsa_client::wire::problem::{Code, Outcome as Truth};
use balsa_client::{Client, ExactlyOnce, WriteError};
use serde_json::value::RawValue;

pub(super) struct CrateClient(Client);

impl CrateClient {
    pub(super) fn with_session(addresses: &[String]) -> Outcome<CrateClient> {
        CrateClient::new(addresses, ExactlyOnce::Session)
    }

    pub(super) fn with_keys(addresses: &[String]) -> Outcome<CrateClient> {
        CrateClient::new(addresses, ExactlyOnce::IdempotencyKey)
    }

    fn new(addresses: &[String], by: ExactlyOnce) -> Outcome<CrateClient> {
        let client = Client::builder().endpoints(addresses).timeout(DEADLINE).exactly_once(by).build();
        Ok(CrateClient(client.context("build a client")?))
    }

    pub(super) async fn ask(&mut self, kind: Kind, condition: Option<&Condition>) -> Outcome<Told> {
        match &kind {
            Kind::Get { key, .. } => match self.0.get(&**key).await {
                Ok(item) => {
                    let item =
                        item.map(|item| (item.value.map(|value| value.get().to_string()), item.revision));
                    Ok(Told::read(kind, item.map(|(value, revision)| (value.unwrap_or_default(), revision))))
                }
                Err(_) => Ok(Told::nothing(kind)),
            },
            Kind::Put { key, value } => {
                let value = RawValue::from_string(value.to_string()).context("write a value")?;
                let put = self.0.put(&**key, &*value);
                let answer = match condition {
                    Some(Condition::Revision(revision)) => put.if_revision(*revision),
                    Some(Condition::Absent) => put.if_absent(),
                    Some(Condition::Exists) => put.if_exists(),
                    _ => put,
                };
                told(kind, answer.await.map(|answer| answer.revision), |kind| kind)
            }
            Kind::Delete { key, .. } => {
                let delete = self.0.delete(&**key);
                let answer = match condition {
                    Some(Condition::Revision(revision)) => delete.if_revision(*revision),
                    Some(Condition::Exists) => delete.if_exists(),
                    _ => delete,
                };
                let answer = answer.await;
                let deleted = answer.as_ref().ok().map(|answer| answer.deleted);
                told(kind, answer.map(|answer| answer.revision), |kind| match kind {
                    Kind::Delete { key, .. } => Kind::Delete { key, deleted },
                    other => other,
                })
            }
            Kind::Clear { .. } => {
                let answer = self.0.clear().await;
                let deleted = answer.as_ref().ok().map(|answer| answer.deleted);
                told(kind, answer.map(|answer| answer.revision), |_| Kind::Clear { deleted })
            }
            Kind::Txn(asked) => {
                let answer = self.0.txn().request(txn::request(asked)?).await;
                let revision = answer.as_ref().map(|answer| answer.revision).map_err(Clone::clone);
                let done = answer.ok().map(|answer| txn::told(asked.clone(), answer)).transpose()?;
                told(kind, revision, |kind| done.map_or(kind, Kind::Txn))
            }
            Kind::Append { .. } => Err(Failure("Balsa has no append".into())),
        }
    }
}

fn told(kind: Kind, answer: Result<u64, WriteError>, with: impl FnOnce(Kind) -> Kind) -> Outcome<Told> {
    let error = match answer {
        Ok(revision) => return Ok(Told::wrote(with(kind), revision)),
        Err(error) => error,
    };
    match (error.outcome(), error.cause().code()) {
        (_, Some(Code::PreconditionFailed)) => Ok(Told::condition_failed(kind, error.current_revision())),
        // An answer that cannot be read, or one that says that the request is wrong: nothing that was asked here is.
        (Truth::Applied, _)
        | (_, Some(Code::RequestMismatch | Code::Internal | Code::InvalidJson | Code::InvalidCondition)) => {
            Err(Failure(format!("{kind:?} was answered: {error}")))
        }
        (Truth::NotApplied, _) => Ok(Told::nothing(kind)),
        (Truth::Unknown, _) => Ok(Told::doubt(kind)),
    }
}
