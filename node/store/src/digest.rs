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
