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

/// POST. A retry may open another session, which expires unused: nothing is recorded, so no key is taken.
pub(super) async fn open(call: &Call<'_>, body: Body) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    request_id::refuse(&call.parts.headers)?;
    let _admitted = call.admit(body::size_max(&body, body::SMALL_BYTES))?;
    let body = call.read_body(body, body::SMALL_BYTES).await?;
    body::members::<Empty>(&body, "empty")?;
    let (applied, replayed) = call.write(None, Operation::OpenSession(OpenSession {})).await?;
    let Applied::SessionOpened(opened) = applied else {
        return Err(refusal(applied, replayed));
    };
    let mut json = Writer::with_capacity(40);
    Ok(Answer::json(json.raw("{\"session\":").number(opened.session).raw("}").finish()))
}
