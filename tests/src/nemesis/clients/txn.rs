//! Transactions: what clients ask, how the API says it, and what its answer tells of the parts.

use crate::failure::{Context, Failure, Outcome};
use crate::random::Random;
use balsa_check::history::Text;
use balsa_check::{Condition, Step, Txn};
use balsa_wire::txn::{self, KeyOp, Op, OpResult, PutOp, TxnAnswer, TxnRequest};
use serde_json::value::RawValue;

/// One on three different keys; `condition` is of the first. Several keys change in one instant, or others do.
pub(super) fn draw(
    keys: [Text; 3],
    condition: Option<Condition>,
    random: &mut Random,
    mut value: impl FnMut() -> Text,
) -> Txn {
    let [first, second, third] = keys;
    let mut then = vec![Step::Put { key: second.clone(), value: value() }];
    if random.chance(600) {
        then.push(Step::Put { key: first.clone(), value: value() });
    }
    then.push(match random.chance(500) {
        true => Step::Get { key: third.clone(), value: None },
        false => Step::Delete { key: third.clone(), deleted: None },
    });
    let otherwise = match random.below(3) {
        0 => vec![Step::Get { key: first.clone(), value: None }, Step::Get { key: third, value: None }],
        1 => vec![Step::Get { key: second, value: None }, Step::Put { key: third, value: value() }],
        _ => Vec::new(),
    };
    let conditions = condition.into_iter().map(|condition| (first.clone(), condition)).collect();
    Txn { conditions, then, otherwise, succeeded: None }
}

/// As the API has it.
pub(super) fn request(asked: &Txn) -> Outcome<TxnRequest> {
    let conditions = asked.conditions.iter().map(|(key, condition)| {
        let mut of_key = txn::Condition { key: Some(key.to_string()), ..txn::Condition::default() };
        match condition {
            Condition::Value(value) => of_key.value = Some(raw(value)?),
            Condition::Absent => of_key.exists = Some(false),
            Condition::Exists => of_key.exists = Some(true),
            Condition::Revision(revision) => of_key.revision = Some(*revision),
        }
        Ok(of_key)
    });
    Ok(TxnRequest {
        conditions: conditions.collect::<Outcome<_>>()?,
        then: ops(&asked.then)?,
        otherwise: ops(&asked.otherwise)?,
    })
}

fn ops(steps: &[Step]) -> Outcome<Vec<Op>> {
    let op = |step: &Step| {
        let key = step.key().to_string();
        Ok(match step {
            Step::Get { .. } => Op::Get(KeyOp { key }),
            Step::Delete { .. } => Op::Delete(KeyOp { key }),
            Step::Put { value, .. } => Op::Put(PutOp { key, value: Some(raw(value)?), ..PutOp::default() }),
        })
    };
    steps.iter().map(op).collect()
}

fn raw(value: &str) -> Outcome<Box<RawValue>> {
    RawValue::from_string(value.to_string()).context("write a value")
}

/// With what the answer tells.
pub(super) fn told(mut asked: Txn, answer: TxnAnswer) -> Outcome<Txn> {
    asked.succeeded = Some(answer.succeeded);
    let done = if answer.succeeded { &mut asked.then } else { &mut asked.otherwise };
    if done.len() != answer.results.len() {
        return Err(Failure(format!("{} results for {done:?}", answer.results.len())));
    }
    for (step, result) in done.iter_mut().zip(answer.results) {
        match (step, result) {
            (Step::Get { value, .. }, OpResult::Get(item)) => {
                *value = item.and_then(|item| item.value).map(|value| value.get().into());
            }
            (Step::Put { .. }, OpResult::Put(_)) => {}
            (Step::Delete { deleted, .. }, OpResult::Delete(told)) => *deleted = Some(told.deleted),
            (step, result) => return Err(Failure(format!("{step:?} was answered {result:?}"))),
        }
    }
    Ok(asked)
}
