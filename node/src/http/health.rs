//! `/livez`, `/readyz` and `/metrics`: for probes and scrapers.
//!
//! Alive means that the engine turns, nothing more: a node that waits for its peers is alive. Ready means that a
//! request has a chance here: caught up, and knowing a leader.

use super::answer::Answer;
use super::call::Call;
use super::problem::Failure;
use super::query::{self, Param};
use crate::engine::status::{Phase, Status};
use crate::metrics;
use balsa_wire::cluster::{Check, ReadyAnswer};

const TEXT: &str = "text/plain; charset=utf-8";

/// What `/readyz` takes.
pub(super) const READY: &[Param] = &[Param::Verbose];

/// `GET /livez`.
pub(super) fn live(call: &Call<'_>) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    if (call.state.alive)() { Ok(Answer::text(TEXT, "alive\n")) } else { Err(Failure::NotAlive) }
}

/// `GET /readyz`.
pub(super) fn ready(call: &Call<'_>) -> Result<Answer, Failure> {
    let query = query::parse(call.parts.uri.query(), READY)?;
    let checks = checks(&call.state.handle.status(), call.state.metrics.flush_waits.get() != 0);
    if !checks.iter().all(|check| check.ok) {
        return Err(Failure::NotReady(checks));
    }
    if !query.verbose {
        return Ok(Answer::text(TEXT, "ready\n"));
    }
    serde_json::to_vec(&ReadyAnswer { ready: true, checks }).map(Answer::json).map_err(|_| Failure::Misfit)
}

/// `GET /metrics`.
pub(super) fn metrics(call: &Call<'_>) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    let text = call.state.metrics.render().map_err(|error| Failure::Metrics(error.to_string()))?;
    Ok(Answer::text(metrics::CONTENT_TYPE, text))
}

fn checks(status: &Status, flush_waits: bool) -> Vec<Check> {
    let check = |name: &str, ok: bool, detail: String| Check { name: name.to_owned(), ok, detail };
    let waiting = status.waiting_for.clone();
    let phase = match status.phase {
        Phase::Founding => waiting.unwrap_or_else(|| "waits to found a cluster with its peers".to_owned()),
        Phase::Joining => waiting.unwrap_or_else(|| "waits for a cluster to take it in".to_owned()),
        Phase::Removed => {
            format!("waits for {}", waiting.unwrap_or_else(|| "its end: it was removed".to_owned()))
        }
        Phase::Stopping => "is stopping".to_owned(),
        Phase::Running => "is a member".to_owned(),
    };
    let leader = match (status.leader, status.leader_client_address()) {
        (Some(id), Some(address)) => format!("the leader is {id} at {address}"),
        (Some(id), None) => format!("the leader is {id}"),
        (None, _) => format!("no leader is known in term {}", status.term),
    };
    let behind = status.commit_index.0.saturating_sub(status.applied_index.0);
    let caught_up = if status.caught_up {
        format!("has caught up; {behind} entries are committed and not yet applied")
    } else {
        format!("has not caught up since it started; {behind} entries are committed and not yet applied")
    };
    let disk = match flush_waits {
        true => "the store waits for room on the disk",
        false => "the store has room on the disk",
    };
    vec![
        check("member", status.phase == Phase::Running, phase),
        check("leader", status.leader.is_some(), leader),
        check("caught_up", status.caught_up, caught_up),
        check("disk", !flush_waits, disk.to_owned()),
    ]
}
