//! The incremental digest of the state: a chained hash over what each command did.
//!
//! Two nodes that applied the same entries to the same state have the same digest, whatever was flushed when; a node
//! whose apply went another way (a clock, a hash order, a bug) has another one for ever after. It covers index, time,
//! operation, key, value and reply. It knows nothing of rows, so the format on disk may change without it.

use prost::Message;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::command::{Answer, Operation, Reply, Value};

/// Gives the digest after a command was applied. `scratch` is only there to save an allocation.
pub(crate) fn advance(
    scratch: &mut Vec<u8>,
    digest: u128,
    index: u64,
    time_ms: u64,
    operation: &Operation,
    reply: &Reply,
) -> u128 {
    scratch.clear();
    scratch.extend_from_slice(&digest.to_le_bytes());
    number(scratch, index);
    number(scratch, time_ms);
    add_operation(scratch, operation);
    add_reply(scratch, reply);
    xxh3_128(scratch)
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// As it is encoded, which is the same everywhere.
fn message(out: &mut Vec<u8>, tag: u8, message: &impl Message) {
    out.push(tag);
    number(out, xxh3_64(&message.encode_to_vec()));
}

/// Only what an applied command can change: a condition shows in the reply.
fn add_operation(out: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Put(put) => {
            out.push(1);
            number(out, xxh3_64(&put.key));
            number(out, xxh3_64(&put.value));
            number(out, put.content_type.as_ref().map_or(0, |name| xxh3_64(name.as_bytes())));
            if put.lease != 0 || put.ttl_ms != 0 {
                number(out, put.lease);
                number(out, put.ttl_ms);
            }
        }
        Operation::Delete(delete) => {
            out.push(2);
            number(out, xxh3_64(&delete.key));
        }
        Operation::Clear(_) => out.push(3),
        Operation::OpenSession(_) => out.push(4),
        Operation::Compact(_) => out.push(5),
        Operation::SetFeatureLevel(_) => out.push(6),
        Operation::Txn(txn) => message(out, 20, txn),
        Operation::DeleteRange(range) => message(out, 21, range),
        Operation::GrantLease(grant) => message(out, 22, grant),
        Operation::KeepLease(keep) => message(out, 23, keep),
        Operation::RevokeLease(revoke) => message(out, 24, revoke),
        Operation::Expire(expire) => message(out, 25, expire),
        Operation::AcquireLock(asked) => message(out, 26, asked),
        Operation::ReleaseLock(release) => message(out, 27, release),
    }
}

fn add_reply(out: &mut Vec<u8>, reply: &Reply) {
    out.push(u8::from(reply.replayed));
    match &reply.answer {
        None => out.push(0),
        Some(Answer::Put(done)) => {
            out.push(1);
            number(out, done.revision);
            add_value(out, done.previous.as_ref());
        }
        Some(Answer::Delete(done)) => {
            out.push(2);
            out.push(u8::from(done.deleted));
            number(out, done.revision);
            add_value(out, done.previous.as_ref());
        }
        Some(Answer::Clear(done)) => {
            out.push(3);
            number(out, done.deleted);
            number(out, done.revision);
        }
        Some(Answer::PreconditionFailed(failed)) => {
            out.push(4);
            number(out, failed.current_revision);
        }
        Some(Answer::SessionOpened(opened)) => {
            out.push(5);
            number(out, opened.session);
        }
        Some(Answer::SessionExpired(_)) => out.push(6),
        Some(Answer::RequestMismatch(_)) => out.push(7),
        Some(Answer::ReplyTableFull(_)) => out.push(8),
        Some(Answer::Compacted(compact)) => {
            out.push(9);
            number(out, compact.revision);
        }
        Some(Answer::FeatureLevel(set)) => {
            out.push(10);
            number(out, u64::from(set.level));
        }
        Some(Answer::Txn(done)) => message(out, 20, done),
        Some(Answer::RangeDeleted(done)) => message(out, 21, done),
        Some(Answer::LeaseLasts(lasts)) => message(out, 22, lasts),
        Some(Answer::LeaseEnded(ended)) => message(out, 23, ended),
        Some(Answer::NoLease(none)) => message(out, 24, none),
        Some(Answer::Expired(expired)) => message(out, 25, expired),
        Some(Answer::LockPlace(place)) => message(out, 26, place),
        Some(Answer::LockBusy(busy)) => message(out, 27, busy),
        Some(Answer::LockReleased(released)) => message(out, 28, released),
        Some(Answer::TxnRefused(refused)) => message(out, 29, refused),
        Some(Answer::LimitMet(met)) => message(out, 30, met),
    }
}

/// The bytes of a previous value went into the digest when it was set; its counters say which one it is.
fn add_value(out: &mut Vec<u8>, value: Option<&Value>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            number(out, value.revision);
            number(out, value.create_revision);
            number(out, value.version);
            number(out, value.value.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;
    use crate::command::*;

    fn digest(before: u128, index: u64, time_ms: u64, operation: &Operation, reply: &Reply) -> u128 {
        advance(&mut vec![9; 3], before, index, time_ms, operation, reply)
    }

    fn answered(answer: Answer) -> Reply {
        Reply { answer: Some(answer), replayed: false }
    }

    /// No two of them differ in nothing but what they were made for.
    fn operations() -> Vec<Operation> {
        let text = Bytes::from_static;
        let put = Put { key: text(b"a"), value: text(b"1"), ..Put::default() };
        let asked = AcquireLock { name: text(b"a"), ..AcquireLock::default() };
        let range = DeleteRange { start: text(b"a"), ..DeleteRange::default() };
        let get = TxnOp { kind: Some(TxnOpKind::Get(text(b"a"))) };
        let condition = TxnCondition { subject: text(b"a"), test: Some(TxnTest::Version(1)) };
        vec![
            Operation::Put(Put { key: text(b"b"), ..put.clone() }),
            Operation::Put(Put { value: text(b"2"), ..put.clone() }),
            Operation::Put(Put { content_type: Some("x/y".into()), ..put.clone() }),
            Operation::Put(Put { lease: 1, ..put.clone() }),
            Operation::Put(Put { lease: 2, ..put.clone() }),
            Operation::Put(Put { ttl_ms: 1, ..put.clone() }),
            Operation::Put(Put { ttl_ms: 2, ..put.clone() }),
            Operation::Put(put),
            Operation::Delete(Delete { key: text(b"a"), ..Delete::default() }),
            Operation::Delete(Delete { key: text(b"b"), ..Delete::default() }),
            Operation::Clear(Clear {}),
            Operation::OpenSession(OpenSession {}),
            Operation::Compact(Compact { revision: 1 }),
            Operation::SetFeatureLevel(SetFeatureLevel { level: 1 }),
            Operation::Txn(Txn::default()),
            Operation::Txn(Txn { conditions: vec![condition], ..Txn::default() }),
            Operation::Txn(Txn { then: vec![get.clone()], ..Txn::default() }),
            Operation::Txn(Txn { otherwise: vec![get], ..Txn::default() }),
            Operation::DeleteRange(DeleteRange { start: text(b"b"), ..range.clone() }),
            Operation::DeleteRange(DeleteRange { end: Some(text(b"c")), ..range.clone() }),
            Operation::DeleteRange(DeleteRange { limit: 1, ..range.clone() }),
            Operation::DeleteRange(range),
            Operation::GrantLease(GrantLease { ttl_ms: 1 }),
            Operation::GrantLease(GrantLease { ttl_ms: 2 }),
            Operation::KeepLease(KeepLease { lease: 1 }),
            Operation::KeepLease(KeepLease { lease: 2 }),
            Operation::RevokeLease(RevokeLease { lease: 1, keys_max: 1 }),
            Operation::RevokeLease(RevokeLease { lease: 2, keys_max: 1 }),
            Operation::RevokeLease(RevokeLease { lease: 1, keys_max: 2 }),
            Operation::Expire(Expire { limit: 1 }),
            Operation::Expire(Expire { limit: 2 }),
            Operation::AcquireLock(AcquireLock { name: text(b"b"), ..asked.clone() }),
            Operation::AcquireLock(AcquireLock { lease: 1, ..asked.clone() }),
            Operation::AcquireLock(AcquireLock { ttl_ms: 1, ..asked.clone() }),
            Operation::AcquireLock(AcquireLock { wait_ms: 1, ..asked.clone() }),
            Operation::AcquireLock(AcquireLock { key: text(b"a"), ..asked.clone() }),
            Operation::AcquireLock(AcquireLock { value: text(b"a"), ..asked.clone() }),
            Operation::AcquireLock(asked),
            Operation::ReleaseLock(ReleaseLock { name: text(b"a"), token: 1 }),
            Operation::ReleaseLock(ReleaseLock { name: text(b"b"), token: 1 }),
            Operation::ReleaseLock(ReleaseLock { name: text(b"a"), token: 2 }),
        ]
    }

    fn answers() -> Vec<Answer> {
        let value =
            Value { value: "1".into(), revision: 1, create_revision: 1, version: 1, ..Value::default() };
        let values = [
            None,
            Some(Value { value: "22".into(), ..value.clone() }),
            Some(Value { revision: 2, ..value.clone() }),
            Some(Value { create_revision: 2, ..value.clone() }),
            Some(Value { version: 2, ..value.clone() }),
            Some(value),
        ];
        let puts =
            values.iter().map(|previous| Answer::Put(PutDone { revision: 1, previous: previous.clone() }));
        let deletes = values.iter().map(|previous| {
            Answer::Delete(DeleteDone { deleted: true, revision: 1, previous: previous.clone() })
        });
        let mut answers: Vec<Answer> = puts.chain(deletes).collect();
        answers.extend([
            Answer::Put(PutDone { revision: 2, previous: None }),
            Answer::Delete(DeleteDone { deleted: true, revision: 2, previous: None }),
            Answer::Delete(DeleteDone { deleted: false, revision: 1, previous: None }),
            Answer::SessionExpired(Nothing {}),
            Answer::RequestMismatch(Nothing {}),
            Answer::ReplyTableFull(Nothing {}),
        ]);
        // Each of the others with one number after the other changed.
        for number in [1, 2] {
            answers.extend([
                Answer::Clear(ClearDone { deleted: number, revision: 9 }),
                Answer::Clear(ClearDone { deleted: 9, revision: number }),
                Answer::PreconditionFailed(PreconditionFailed { current_revision: number }),
                Answer::SessionOpened(SessionOpened { session: number }),
                Answer::Compacted(Compact { revision: number }),
                Answer::FeatureLevel(SetFeatureLevel { level: number as u32 }),
                Answer::Txn(TxnDone { succeeded: number == 1, revision: 9, results: vec![] }),
                Answer::Txn(TxnDone { succeeded: true, revision: number, results: vec![] }),
                Answer::Txn(TxnDone {
                    succeeded: true,
                    revision: 8,
                    results: vec![TxnResult { kind: Some(TxnResultKind::Delete(number == 1)) }],
                }),
                Answer::RangeDeleted(RangeDeleted { deleted: number, next: None, revision: 9 }),
                Answer::RangeDeleted(RangeDeleted { deleted: 9, next: None, revision: number }),
                Answer::RangeDeleted(RangeDeleted {
                    deleted: 9,
                    next: Some(vec![number as u8].into()),
                    revision: 9,
                }),
                Answer::LeaseLasts(LeaseLasts { lease: number, ttl_ms: 9 }),
                Answer::LeaseLasts(LeaseLasts { lease: 9, ttl_ms: number }),
                Answer::LeaseEnded(LeaseEnded { lease: number, deleted: 9, revision: 9 }),
                Answer::LeaseEnded(LeaseEnded { lease: 9, deleted: number, revision: 9 }),
                Answer::LeaseEnded(LeaseEnded { lease: 9, deleted: 9, revision: number }),
                Answer::NoLease(NoLease { lease: number, path: String::new() }),
                Answer::NoLease(NoLease { lease: 9, path: number.to_string() }),
                Answer::Expired(Expired { ended: number, deleted: 9, revision: 9 }),
                Answer::Expired(Expired { ended: 9, deleted: number, revision: 9 }),
                Answer::Expired(Expired { ended: 9, deleted: 9, revision: number }),
                Answer::LockBusy(LockBusy { token: number }),
                Answer::LockReleased(LockReleased { released: true, held: number == 1, revision: 9 }),
                Answer::LockReleased(LockReleased { released: number == 1, held: false, revision: 8 }),
                Answer::LockReleased(LockReleased { released: true, held: true, revision: number }),
                Answer::TxnRefused(TxnRefused { path: number.to_string(), why: String::new() }),
                Answer::TxnRefused(TxnRefused { path: String::new(), why: number.to_string() }),
                Answer::LimitMet(LimitMet { limit: number as i32 }),
            ]);
            let place = LockPlace { token: 9, lease: 9, ttl_ms: 9, ahead: 9, revision: 9 };
            answers.extend([
                Answer::LockPlace(LockPlace { token: number, ..place }),
                Answer::LockPlace(LockPlace { lease: number, ..place }),
                Answer::LockPlace(LockPlace { ttl_ms: number, ..place }),
                Answer::LockPlace(LockPlace { ahead: number, ..place }),
                Answer::LockPlace(LockPlace { revision: number, ..place }),
            ]);
        }
        answers
    }

    /// What is left out here may go another way on one node, and no digest tells.
    #[test]
    fn nothing_that_a_command_did_is_left_out() {
        let (operation, reply) = (Operation::Clear(Clear {}), Reply { answer: None, replayed: false });
        let mut seen: BTreeMap<u128, String> = BTreeMap::new();
        let mut note = |digest, of: String| {
            if let Some(other) = seen.insert(digest, of.clone()) {
                panic!("{of} has the digest of {other}");
            }
        };
        note(digest(1, 1, 1, &operation, &reply), "the base".into());
        note(digest(2, 1, 1, &operation, &reply), "another state before".into());
        note(digest(1, 2, 1, &operation, &reply), "another index".into());
        note(digest(1, 1, 2, &operation, &reply), "another time".into());
        let replayed = Reply { replayed: true, ..reply.clone() };
        note(digest(1, 1, 1, &operation, &replayed), "a replay".into());
        for operation in operations() {
            note(digest(5, 1, 1, &operation, &reply), format!("{operation:?}"));
        }
        for answer in answers() {
            note(digest(6, 1, 1, &operation, &answered(answer.clone())), format!("{answer:?}"));
        }
    }
}
