//! Keys: `/{key}` and `/v1/kv/{key}`, and `POST /clear`.
//!
//! A read asks the engine only "may I?", then looks at the store's published state; a write is a command to the engine
//! and an answer made from its reply. This module knows no rule of either.

use super::answer::Answer;
use super::body::{self, BodyError, Dialect};
use super::call::Call;
use super::conditions;
use super::history;
use super::json::Writer;
use super::leases;
use super::problem::Failure;
use super::query::{self, Consistency, Param};
use super::request_id;
use crate::engine::handle::ReadError;
use crate::engine::status::Phase;
use axum::body::Body;
use balsa_store::command::{self, Answer as Applied, Clear, Delete, Operation, Put, Value};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};

/// What reads of a key take.
pub(super) const READ: &[Param] = &[Param::Raw, Param::Consistency, Param::Revision];
/// What a PUT takes.
pub(super) const WRITE: &[Param] = &[Param::Prev, Param::Ttl, Param::Lease];
/// What a DELETE takes.
pub(super) const DELETE: &[Param] = &[Param::Prev];

/// GET and HEAD.
pub(super) async fn get(call: &Call<'_>, key: &str) -> Result<Answer, Failure> {
    call.check_key(key)?;
    let query = query::parse(call.parts.uri.query(), READ)?;
    let known = conditions::of_read(&call.parts.headers)?;
    let age_ms = freshness(call, query.consistency).await?;
    let (view, found) = match query.revision {
        None => {
            let view = call.state.view();
            let found = call.state.reads.get(&view, key).await?;
            (view, found)
        }
        Some(revision) => history::value_at(call, key, revision).await?,
    };
    let Some(value) = found else {
        let revision = query.revision.unwrap_or_else(|| view.revision());
        return Err(Failure::KeyNotFound { revision, age_ms });
    };
    let raw = query.raw || accepts_raw(&call.parts.headers);
    let mut answer = if known == Some(value.revision) {
        Answer::new(StatusCode::NOT_MODIFIED)
    } else if raw {
        raw_answer(&value)
    } else {
        let mut json = Writer::with_capacity(key.len() + value.value.len() + 128);
        json.item(key, &value);
        if let Some(left_ms) = leases::left_of(call, &view, value.lease) {
            json.reopen().raw(",\"ttl_ms\":").number(left_ms).raw("}");
        }
        Answer::json(json.finish())
    };
    answer.revision = view.revision();
    answer.etag = Some(value.revision);
    answer.vary_accept = true;
    answer.age_ms = age_ms;
    Ok(answer)
}

/// Waits until this node may answer a read; gives how old a stale answer may be, in milliseconds.
pub(super) async fn freshness(call: &Call<'_>, consistency: Consistency) -> Result<Option<u64>, Failure> {
    match consistency {
        Consistency::Linearizable => {
            call.confirm_read().await?;
            Ok(None)
        }
        Consistency::Stale => {
            let status = call.state.handle.status();
            if status.cluster.is_none() {
                return Err(ReadError::NoLeader.into()); // a blank node's empty store is nobody's state
            }
            if status.phase == Phase::Removed {
                call.confirm_read().await?; // is refused, and says by whom it is answered
            }
            Ok(Some(u64::try_from((call.state.applied_age)().as_millis()).unwrap_or(u64::MAX)))
        }
    }
}

/// PUT.
pub(super) async fn put(
    call: &Call<'_>,
    dialect: Dialect,
    key: &str,
    body: &mut Body,
) -> Result<Answer, Failure> {
    call.check_key(key)?;
    let query = query::parse(call.parts.uri.query(), WRITE)?;
    let condition = conditions::of_write(&call.parts.headers)?;
    if query.ttl.is_some() && query.lease.is_some() {
        return Err(Failure::Parameters("ttl gives the key a lease of its own; give one of ttl and lease"));
    }
    let ttl_ms = query.ttl.as_deref().map_or(Ok(0), |ttl| leases::ttl_ms("ttl", ttl))?;
    let claim = request_id::claim(&call.parts.headers)?;
    let format = body::format(dialect, &call.parts.headers)?;
    let value_bytes_max = call.state.limits.value_bytes;
    let body_bytes_max = format.body_bytes_max(value_bytes_max);

    let _admitted = call.admit(body::size_max(body, body_bytes_max))?;
    let body = call.read_body(body, body_bytes_max).await.map_err(|failure| match failure {
        // What its sender can go by is the limit of values.
        Failure::Body(BodyError::TooLarge { .. }) => too_large(value_bytes_max),
        failure => failure,
    })?;
    let request = claim.map(|claim| claim.into_request_id(call.parts, &body));
    let new = body::value(format, &body, value_bytes_max)?;
    let put = Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: new.value,
        content_type: new.content_type,
        condition,
        want_previous: query.prev,
        lease: query.lease.unwrap_or_default(),
        ttl_ms,
    };
    let (applied, replayed) = call.write(request, Operation::Put(put)).await?;
    let Applied::Put(done) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut json = Writer::with_capacity(key.len() + 48);
    json.raw("{\"key\":").string(key).raw(",\"revision\":").number(done.revision);
    write_previous(&mut json, query.prev, key, done.previous.as_ref());
    let mut answer = Answer::json(json.raw("}").finish());
    answer.revision = done.revision;
    answer.etag = Some(done.revision);
    answer.replayed = replayed;
    Ok(answer)
}

/// DELETE.
pub(super) async fn delete(call: &Call<'_>, key: &str, body: &mut Body) -> Result<Answer, Failure> {
    call.check_key(key)?;
    let query = query::parse(call.parts.uri.query(), DELETE)?;
    let condition = conditions::of_write(&call.parts.headers)?;
    let delete = Delete { key: Bytes::copy_from_slice(key.as_bytes()), condition, want_previous: query.prev };
    let (applied, replayed) = call.write_without_body(body, Operation::Delete(delete)).await?;
    let Applied::Delete(done) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut json = Writer::with_capacity(key.len() + 64);
    json.raw("{\"key\":").string(key);
    json.raw(if done.deleted { ",\"deleted\":true" } else { ",\"deleted\":false" });
    json.raw(",\"revision\":").number(done.revision);
    write_previous(&mut json, query.prev, key, done.previous.as_ref());
    let mut answer = Answer::json(json.raw("}").finish());
    answer.revision = done.revision;
    answer.replayed = replayed;
    Ok(answer)
}

/// `POST /clear`.
pub(super) async fn clear(call: &Call<'_>, body: &mut Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    let (applied, replayed) = call.write_without_body(body, Operation::Clear(Clear {})).await?;
    let Applied::Clear(done) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut json = Writer::with_capacity(64);
    json.raw("{\"deleted\":").number(done.deleted).raw(",\"revision\":").number(done.revision).raw("}");
    let mut answer = Answer::json(json.finish());
    answer.revision = done.revision;
    answer.replayed = replayed;
    Ok(answer)
}

/// What an applied command that is not the one hoped for means.
pub(super) fn refusal(applied: Applied, replayed: bool) -> Failure {
    match applied {
        Applied::PreconditionFailed(command::PreconditionFailed { current_revision }) => {
            Failure::PreconditionFailed { current_revision, replayed }
        }
        Applied::SessionExpired(_) => Failure::SessionExpired,
        Applied::RequestMismatch(_) => Failure::RequestMismatch,
        Applied::ReplyTableFull(_) => Failure::ReplyTableFull,
        Applied::TxnRefused(command::TxnRefused { path, why }) => Failure::Txn { path, why },
        Applied::NoLease(command::NoLease { lease, path }) => {
            Failure::NoLease { lease, path: (!path.is_empty()).then_some(path) }
        }
        Applied::LockBusy(_) => Failure::LockBusy,
        Applied::LimitMet(met) => Failure::TableFull {
            what: match met.limit() {
                command::Limit::Leases => "leases",
                command::Limit::LeasedKeys => "keys that end with leases",
                command::Limit::Locks => "places in queues of locks",
            },
        },
        Applied::Txn(_)
        | Applied::RangeDeleted(_)
        | Applied::LeaseLasts(_)
        | Applied::LeaseEnded(_)
        | Applied::Expired(_)
        | Applied::LockPlace(_)
        | Applied::LockReleased(_)
        | Applied::Put(_)
        | Applied::Delete(_)
        | Applied::Clear(_)
        | Applied::SessionOpened(_)
        | Applied::Compacted(_)
        | Applied::FeatureLevel(_) => Failure::Misfit,
    }
}

fn too_large(limit_bytes: usize) -> Failure {
    BodyError::TooLarge { what: "value", limit_bytes }.into()
}

fn write_previous(json: &mut Writer, asked: bool, key: &str, previous: Option<&Value>) {
    match previous {
        _ if !asked => {}
        None => {
            json.raw(",\"prev\":null");
        }
        Some(previous) => {
            json.raw(",\"prev\":").item(key, previous);
        }
    }
}

fn raw_answer(value: &Value) -> Answer {
    let mut answer = Answer::new(StatusCode::OK);
    answer.content_type = match &value.content_type {
        None => Some(HeaderValue::from_static("application/json")),
        // It came in a header; one that no header can carry any more is left out.
        Some(content_type) => HeaderValue::from_str(content_type).ok(),
    };
    answer.body = value.value.clone();
    answer.user_content = true;
    answer
}

/// Whether `Accept` wants bytes rather than the envelope: `application/octet-stream` named, with a weight above that
/// of `application/json` where that is named too (RFC 9110 section 12.5.1).
fn accepts_raw(headers: &HeaderMap) -> bool {
    let weight_of = |wanted: &str| {
        let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = ranges.flat_map(|value| value.split(','));
        ranges.filter_map(|range| weight(range, wanted)).max().unwrap_or(0)
    };
    headers.contains_key(ACCEPT) && weight_of("application/octet-stream") > weight_of("application/json")
}

/// The weight of a media range in thousandths, if it names `wanted`.
fn weight(range: &str, wanted: &str) -> Option<u32> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(wanted) {
        return None;
    }
    let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight: f32 = q.map_or(Some(1.0), |q| q.parse().ok())?;
    Some((weight.clamp(0.0, 1.0) * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept() {
        for (accept, raw) in [
            (None, false),
            (Some("*/*"), false),
            (Some("application/json"), false),
            (Some("application/octet-stream"), true),
            (Some("Application/Octet-Stream"), true),
            (Some("application/octet-stream, */*"), true),
            (Some("application/octet-stream, application/json"), false),
            (Some("application/octet-stream, application/json;q=0.5"), true),
            (Some("application/json, application/octet-stream;q=0.5"), false),
            (Some("application/octet-stream;q=0"), false),
            (Some("text/html, application/octet-stream ; q=0.1"), true),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(accepts_raw(&headers), raw, "{accept:?}");
        }
    }
}
