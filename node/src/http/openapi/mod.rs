//! `GET /openapi.json`: the document that describes the API to programs (OpenAPI 3.1).
//!
//! A test makes it from the code: paths and methods from the routes, parameters from the lists that handlers read
//! queries by, problems from [`balsa_wire::problem::Code`], schemas from the types of `balsa-wire`. The node serves the
//! bytes of `docs/openapi.json`, which the test proves to be what the code says; so it pays nothing for any of this.
//!
//! - `document`: the whole, and the test
//! - `operation`: one operation, and what all of them have
//! - `parameters`, `schemas`: the parts that operations name
//! - `keys`, `coordination`, `cluster`: the operations

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod coordination;
#[cfg(test)]
mod document;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod operation;
#[cfg(test)]
mod parameters;
#[cfg(test)]
mod schemas;

use super::answer::Answer;
use super::call::Call;
use super::problem::Failure;
use super::query;

/// As it is checked in.
const DOCUMENT: &[u8] = include_bytes!("../../../../docs/openapi.json");

/// GET and HEAD.
pub(super) fn get(call: &Call<'_>) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    Ok(Answer::text("application/json", DOCUMENT))
}
