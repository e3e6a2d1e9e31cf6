//! Locks: `/v1/locks` and `/v1/locks/{name}`, whose names may hold slashes.
//!
//! Whoever waits has a place in the lock's queue, which the log gave, and looks at this node's state whenever that is
//! published until the place is the first. The place ends with its time to wait, whatever becomes of this node; a retry
//! that is recognised waits on for the same place.

use super::answer::Answer;
use super::body;
use super::call::{Asked, Call};
use super::cluster::to_json;
use super::kv::{freshness, refusal};
use super::leases::ttl_ms;
use super::problem::Failure;
use super::query::{self, Param};
use crate::engine::handle::WriteError;
use axum::body::Body;
use balsa_store::command::{AcquireLock, Answer as Applied, LockPlace, Operation, ReleaseLock};
use balsa_store::{LockStanding, View};
use balsa_wire::duration;
use balsa_wire::leases::{
    AcquireLock as Acquire, HeldLock, LockAnswer, LockHolder, LockState, LocksAnswer, ReleaseAnswer,
};
use bytes::Bytes;
use std::time::Duration;

/// How long a lock lasts without a sign of life, unless it is said, in milliseconds.
const TTL_MS: u64 = 10_000;
/// The longest wait, in milliseconds.
pub(super) const WAIT_MS_MAX: u64 = 600_000;
/// What is told where a place could not be given up.
const PLACE_KEPT: &str = "the time to wait for the lock is over, and the place in its queue could not be given up: it ends by \
                          itself, but may hold the lock for a while before";
/// Locks that one answer lists.
const LIST_MAX: usize = 1_000;

/// What a read of a lock takes.
pub(super) const READ: &[Param] = &[Param::Consistency];
/// What the list takes.
pub(super) const LIST: &[Param] = &[Param::Consistency, Param::After];
/// What a release takes.
pub(super) const RELEASE: &[Param] = &[Param::Token];

/// POST.
pub(super) async fn acquire(call: &Call<'_>, name: &str, body: &mut Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    call.check_key(name)?;
    let bytes_max = call.state.limits.value_bytes + body::SMALL_BYTES;
    let Asked { body, request, admitted } = call.read_write(body, bytes_max).await?;
    let expected = "{\"ttl\"?: \"10s\", \"wait\"?: \"30s\", \"lease\"?: N, \"key\"?: KEY, \"value\"?: JSON}";
    let asked: Acquire = body::members(&body, expected)?;
    let command = to_command(call, name, &asked)?;
    let wait = Duration::from_millis(command.wait_ms);
    let (applied, replayed) = call.write(request, Operation::AcquireLock(command)).await?;
    drop(admitted); // who waits is bounded by the places of the queue
    let Applied::LockPlace(place) = applied else {
        return Err(refusal(applied, replayed));
    };
    if place.ahead > 0 {
        wait_for(call, name, &place, wait).await?;
    }
    let LockPlace { token, lease, ttl_ms, .. } = place;
    let mut answer = to_json(&LockAnswer { name: name.to_owned(), token, lease, ttl_ms })?;
    answer.replayed = replayed;
    Ok(answer)
}

fn to_command(call: &Call<'_>, name: &str, asked: &Acquire) -> Result<AcquireLock, Failure> {
    let member = |why: &str| Failure::Member(why.to_owned());
    if asked.lease.is_some() && asked.ttl.is_some() {
        return Err(member("`ttl` is that of the lease; give one of `ttl` and `lease`"));
    }
    if asked.lease == Some(0) {
        return Err(member("`lease` is 0; leases have numbers from 1"));
    }
    let wait_ms = match asked.wait.as_deref() {
        None => 0,
        Some(text) => duration::parse_ms(text).filter(|ms| *ms <= WAIT_MS_MAX).ok_or_else(|| {
            Failure::Member(format!("`wait` is `{text}`; it takes a number with ms, s or m, up to 10m"))
        })?,
    };
    if let Some(key) = &asked.key {
        call.check_key(key)?;
    } else if asked.value.is_some() {
        return Err(member("`value` is for `key`, which is missing"));
    }
    let value = asked.value.as_ref().map_or("null", |value| value.get());
    Ok(AcquireLock {
        name: Bytes::copy_from_slice(name.as_bytes()),
        lease: asked.lease.unwrap_or_default(),
        ttl_ms: asked.ttl.as_deref().map_or(Ok(TTL_MS), |ttl| ttl_ms("ttl", ttl))?,
        wait_ms,
        key: asked.key.as_ref().map(|key| Bytes::copy_from_slice(key.as_bytes())).unwrap_or_default(),
        value: match asked.key {
            Some(_) => Bytes::copy_from_slice(value.as_bytes()),
            None => Bytes::new(),
        },
    })
}

/// Waits until the place is the first of its queue. One that met its deadline is given up.
async fn wait_for(call: &Call<'_>, name: &str, place: &LockPlace, wait: Duration) -> Result<(), Failure> {
    let (name, token) = (Bytes::copy_from_slice(name.as_bytes()), place.token);
    let look = |view: View| match view.lock_standing(&name, token) {
        LockStanding::Held => Some(Ok(())),
        // Not there yet, or not any more.
        LockStanding::Gone if view.applied_index() >= token => Some(Err(Failure::LockLost)),
        LockStanding::Waits | LockStanding::Gone => None,
    };
    if let Some(waited) = call.wait_for(call.started + wait, look).await {
        return waited;
    }
    // Whatever becomes of this, the place was taken: it may still come to hold the lock.
    let release = ReleaseLock { name: name.clone(), token };
    match call.write_late(Operation::ReleaseLock(release)).await {
        Ok(()) => Err(Failure::LockBusy),
        Err(_) => Err(WriteError::Unknown { why: PLACE_KEPT }.into()),
    }
}

/// `DELETE ?token=N`.
pub(super) async fn release(call: &Call<'_>, name: &str, body: &mut Body) -> Result<Answer, Failure> {
    let query = query::parse(call.parts.uri.query(), RELEASE)?;
    call.refuse_conditions()?;
    call.check_key(name)?;
    let Some(token) = query.token else {
        return Err(Failure::Parameters("a lock is released with its token: ?token=N"));
    };
    let release = ReleaseLock { name: Bytes::copy_from_slice(name.as_bytes()), token };
    let (applied, replayed) = call.write_without_body(body, Operation::ReleaseLock(release)).await?;
    let Applied::LockReleased(done) = applied else {
        return Err(refusal(applied, replayed));
    };
    let (released, revision) = (done.released, done.revision);
    let mut answer = to_json(&ReleaseAnswer { name: name.to_owned(), released, revision })?;
    answer.revision = done.revision;
    answer.replayed = replayed;
    Ok(answer)
}

/// GET of one.
pub(super) async fn get(call: &Call<'_>, name: &str) -> Result<Answer, Failure> {
    let query = query::parse(call.parts.uri.query(), READ)?;
    call.check_key(name)?;
    let age_ms = freshness(call, query.consistency).await?;
    let view = call.state.view();
    let holder = view.lock(name.as_bytes()).next().map(|place| LockHolder {
        token: place.token,
        lease: place.lease,
        ttl_ms: place.ttl_ms,
        key: (!place.shown.0.is_empty()).then(|| String::from_utf8_lossy(&place.shown.0).into_owned()),
    });
    let waiting = view.lock_length(name.as_bytes()).saturating_sub(1);
    let mut answer = to_json(&LockState { name: name.to_owned(), holder, waiting })?;
    answer.age_ms = age_ms;
    Ok(answer)
}

/// GET of all.
pub(super) async fn list(call: &Call<'_>) -> Result<Answer, Failure> {
    let query = query::parse(call.parts.uri.query(), LIST)?;
    let age_ms = freshness(call, query.consistency).await?;
    let above = query.after.unwrap_or_default();
    let mut found = call.state.view().locks_above(above.as_bytes(), LIST_MAX + 1);
    let more = found.len() > LIST_MAX;
    found.truncate(LIST_MAX);
    let held = |(name, token): &(Bytes, u64)| HeldLock {
        name: String::from_utf8_lossy(name).into_owned(),
        token: *token,
    };
    let mut answer = to_json(&LocksAnswer { locks: found.iter().map(held).collect(), more })?;
    answer.age_ms = age_ms;
    Ok(answer)
}
