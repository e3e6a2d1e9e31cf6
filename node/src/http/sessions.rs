//! `POST /v1/sessions`: opens a session, whose number the log gives.

use super::answer::Answer;
use super::call::Call;
use super::json::Writer;
use super::kv::refusal;
use super::problem::Failure;
use super::query;
use axum::body::Body;
use balsa_store::command::{Answer as Applied, OpenSession, Operation};

/// POST.
pub(super) async fn open(call: &Call<'_>, body: &mut Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    let (applied, replayed) = call.write_without_body(body, Operation::OpenSession(OpenSession {})).await?;
    let Applied::SessionOpened(opened) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut json = Writer::with_capacity(40);
    let mut answer = Answer::json(json.raw("{\"session\":").number(opened.session).raw("}").finish());
    answer.replayed = replayed;
    Ok(answer)
}
