//! The past: `?revision=N` on reads of a key, and `POST /v1/compact`.

use super::answer::Answer;
use super::body;
use super::call::{Asked, Call};
use super::json::Writer;
use super::kv::refusal;
use super::problem::Failure;
use super::query;
use axum::body::Body;
use balsa_store::command::{Answer as Applied, Compact, Operation, Value};
use balsa_store::{PastError, View};
use balsa_wire::history::CompactRequest;

/// The value of a key at a revision, once that has come.
pub(super) async fn value_at(
    call: &Call<'_>,
    key: &str,
    revision: u64,
) -> Result<(View, Option<Value>), Failure> {
    let view = reached(call, revision).await?;
    let (past, key) = (view.clone(), key.to_owned());
    let found = read(call, move || past.get_at(key.as_bytes(), revision)).await?;
    Ok((view, found))
}

/// A state that has come to `revision`. Waits for it until the deadline.
pub(super) async fn reached(call: &Call<'_>, revision: u64) -> Result<View, Failure> {
    let reached = |view: View| (view.revision() >= revision).then_some(view);
    let view = call.wait_for(call.deadline(), reached).await;
    view.ok_or_else(|| Failure::FutureRevision { wanted: revision, newest: call.state.view().revision() })
}

/// Reads the past, which may wait for the disk, beside the threads that serve; so many at once.
pub(super) async fn read<T: Send + 'static>(
    call: &Call<'_>,
    read: impl FnOnce() -> Result<T, PastError> + Send + 'static,
) -> Result<T, Failure> {
    let deadline = tokio::time::Instant::from_std(call.deadline());
    let turn = tokio::time::timeout_at(deadline, call.state.past_reads.acquire()).await;
    let _turn = turn.map_err(|_| Failure::PastReads)?;
    let reading = tokio::task::spawn_blocking(read).await;
    let read = reading.map_err(|panicked| Failure::Store(panicked.to_string()))?;
    read.map_err(|error| match error {
        PastError::Compacted { oldest } => Failure::Compacted { oldest },
        PastError::Future { newest } => Failure::FutureRevision { wanted: newest + 1, newest },
        PastError::Store(error) => Failure::Store(error.to_string()),
    })
}

/// `POST /v1/compact`: forgets what is needed only for revisions below the one that is given.
pub(super) async fn compact(call: &Call<'_>, body: &mut Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    let Asked { body, request, admitted: _place } = call.read_write(body, body::SMALL_BYTES).await?;
    let CompactRequest { revision } = body::members(&body, "{\"revision\": N}")?;
    let (applied, replayed) = call.write(request, Operation::Compact(Compact { revision })).await?;
    let Applied::Compacted(done) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut json = Writer::with_capacity(40);
    let mut answer = Answer::json(json.raw("{\"oldest_revision\":").number(done.revision).raw("}").finish());
    answer.replayed = replayed;
    Ok(answer)
}
