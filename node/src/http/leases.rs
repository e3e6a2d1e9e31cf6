//! Leases: `/v1/leases` and `/v1/leases/{id}`.

use super::answer::Answer;
use super::body;
use super::call::{Asked, Call};
use super::cluster::to_json;
use super::history;
use super::kv::{freshness, refusal};
use super::problem::Failure;
use super::query::{self, Param};
use axum::body::Body;
use balsa_store::command::{Answer as Applied, GrantLease, KeepLease, Operation, RevokeLease};
use balsa_store::{LeaseInfo, View};
use balsa_wire::duration;
use balsa_wire::leases::{GrantLease as Grant, LeaseAnswer, LeaseState, LeasesAnswer, RevokeAnswer};

/// The shortest and the longest time to live, in milliseconds.
pub(super) const TTL_MS: std::ops::RangeInclusive<u64> = 100..=365 * 86_400_000;
/// Keys that one entry deletes at once.
const KEYS_MAX: u32 = 256;
/// Leases, or keys of one, that one answer lists.
const LIST_MAX: usize = 1_000;

/// What a read of a lease takes.
pub(super) const READ: &[Param] = &[Param::Consistency];
/// What the list takes.
pub(super) const LIST: &[Param] = &[Param::Consistency, Param::After];

/// Reads a time to live.
pub(super) fn ttl_ms(name: &'static str, text: &str) -> Result<u64, Failure> {
    duration::parse_ms(text).filter(|ms| TTL_MS.contains(ms)).ok_or_else(|| {
        Failure::Member(format!("`{name}` is `{text}`; it takes a number with ms, s, m or h, 100ms to 8760h"))
    })
}

/// `POST /v1/leases`.
pub(super) async fn grant(call: &Call<'_>, body: &mut Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    let Asked { body, request, admitted: _place } = call.read_write(body, body::SMALL_BYTES).await?;
    let Grant { ttl } = body::members(&body, "{\"ttl\": \"10s\"}")?;
    let operation = Operation::GrantLease(GrantLease { ttl_ms: ttl_ms("ttl", &ttl)? });
    let (applied, replayed) = call.write(request, operation).await?;
    lasts(applied, replayed)
}

/// `POST /v1/leases/{id}/keepalive`.
pub(super) async fn keep(call: &Call<'_>, id: &str, body: &mut Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    let operation = Operation::KeepLease(KeepLease { lease: number(id)? });
    let (applied, replayed) = call.write_without_body(body, operation).await?;
    lasts(applied, replayed)
}

fn lasts(applied: Applied, replayed: bool) -> Result<Answer, Failure> {
    let Applied::LeaseLasts(lasts) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut answer = to_json(&LeaseAnswer { lease: lasts.lease, ttl_ms: lasts.ttl_ms })?;
    answer.replayed = replayed;
    Ok(answer)
}

/// `DELETE /v1/leases/{id}`.
pub(super) async fn revoke(call: &Call<'_>, id: &str, body: &mut Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    let operation = Operation::RevokeLease(RevokeLease { lease: number(id)?, keys_max: KEYS_MAX });
    let (applied, replayed) = call.write_without_body(body, operation).await?;
    let Applied::LeaseEnded(ended) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut answer =
        to_json(&RevokeAnswer { lease: ended.lease, deleted: ended.deleted, revision: ended.revision })?;
    answer.revision = ended.revision;
    answer.replayed = replayed;
    Ok(answer)
}

/// `GET /v1/leases/{id}`.
pub(super) async fn get(call: &Call<'_>, id: &str) -> Result<Answer, Failure> {
    let query = query::parse(call.parts.uri.query(), READ)?;
    let lease = number(id)?;
    let age_ms = freshness(call, query.consistency).await?;
    let view = call.state.view();
    let found = view.lease(lease).ok_or(Failure::NoLease { lease, path: None })?;
    // Of very many keys that were cleared, each is passed over.
    let mut keys = history::read(call, move || Ok(view.keys_of_lease(lease, LIST_MAX + 1))).await?;
    let more = keys.len() > LIST_MAX;
    keys.truncate(LIST_MAX);
    let keys = keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
    let mut answer = to_json(&LeaseState { keys, more, ..state(call, &found) })?;
    answer.age_ms = age_ms;
    Ok(answer)
}

/// `GET /v1/leases`.
pub(super) async fn list(call: &Call<'_>) -> Result<Answer, Failure> {
    let query = query::parse(call.parts.uri.query(), LIST)?;
    let above = match query.after.as_deref() {
        None => 0,
        Some(text) => number(text)?,
    };
    let age_ms = freshness(call, query.consistency).await?;
    let mut found = call.state.view().leases_above(above, LIST_MAX + 1);
    let more = found.len() > LIST_MAX;
    found.truncate(LIST_MAX);
    let leases = found.iter().map(|lease| state(call, lease)).collect();
    let mut answer = to_json(&LeasesAnswer { leases, more })?;
    answer.age_ms = age_ms;
    Ok(answer)
}

fn state(call: &Call<'_>, lease: &LeaseInfo) -> LeaseState {
    LeaseState {
        lease: lease.number,
        ttl_ms: lease.ttl_ms,
        remaining_ms: remaining_ms(call, lease),
        keys: Vec::new(),
        more: false,
    }
}

/// What is left of a lease, as this node can tell.
fn remaining_ms(call: &Call<'_>, lease: &LeaseInfo) -> u64 {
    lease.deadline_ms.saturating_sub(call.state.handle.status().cluster_time_ms)
}

/// What is left of the lease that a key ends with.
pub(super) fn left_of(call: &Call<'_>, view: &View, lease: u64) -> Option<u64> {
    if lease == 0 {
        return None;
    }
    view.lease(lease).map(|lease| remaining_ms(call, &lease))
}

/// A lease's number, as paths and parameters have it.
pub(super) fn number(text: &str) -> Result<u64, Failure> {
    let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| valid && *number > 0);
    number.ok_or(Failure::Parameters("a lease is named by its number: decimal, from 1"))
}
