//! `POST /v1/sessions`: opens a session, whose number the log gives.

use super::answer::Answer;
use super::body::{self, Empty};
use super::call::Call;
use super::json::Writer;
use super::kv::refusal;
use super::problem::Failure;
use super::query;
use super::request_id;
use axum::body::Body;
use balsa_store::command::{Answer as Applied, OpenSession, Operation};

/// POST.
pub(super) async fn open(call: &Call<'_>, body: &mut Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    let claim = request_id::claim(&call.parts.headers)?;
    let _admitted = call.admit(body::size_max(body, body::SMALL_BYTES))?;
    let body = call.read_body(body, body::SMALL_BYTES).await?;
    body::members::<Empty>(&body, "empty")?;
    let request = claim.map(|claim| claim.into_request_id(call.parts, &body));
    let (applied, replayed) = call.write(request, Operation::OpenSession(OpenSession {})).await?;
    let Applied::SessionOpened(opened) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut json = Writer::with_capacity(40);
    let mut answer = Answer::json(json.raw("{\"session\":").number(opened.session).raw("}").finish());
    answer.replayed = replayed;
    Ok(answer)
}
