//! The HTTP API: a door of the node. It turns requests into questions to the engine and looks at the store's
//! published state; it knows neither Raft nor how keys are kept.
//!
//! In reading order:
//! - [`serve`](mod@serve), `activity`, `relay`: connections, their bounds and their end; answers that do not end
//! - `door`: every request comes through here
//! - [`route`]: from a path to what it names
//! - `kv`, `range`, `txn`, `leases`, `locks`, `history`, `watch`, `sessions`, `backup`, `cluster`, `health`: the handlers,
//!   one file a resource
//! - [`query`], [`conditions`], [`request_id`], [`body`], [`origin`]: reading requests; pure but for bodies
//! - [`problem`]: the one match from errors to problem documents
//! - `openapi`: the document that describes all this to programs
//! - `answer`, `headers`, `json`, `sse`: writing answers
//! - `state`, `in_flight`, `reads`, `call`: what requests share
//!
//! Invariants: a request that this module refuses was never proposed; what a request asks for and is not supported is
//! refused, never ignored; no request waits on a lock, or starts a task but for a read of the past or of a range, and
//! one that would wait for a slow disk; a backup has a thread of its own.

mod activity;
mod answer;
mod backup;
pub mod body;
mod call;
mod cluster;
pub mod conditions;
mod door;
mod headers;
mod health;
mod history;
mod in_flight;
mod json;
mod kv;
mod leases;
mod locks;
mod openapi;
pub mod origin;
pub mod problem;
pub mod query;
mod range;
mod reads;
mod relay;
pub mod request_id;
pub mod route;
pub mod serve;
mod sessions;
mod sse;
mod state;
mod txn;
mod watch;

pub use route::Route;
pub use serve::{ConnectionLimits, Spawn, raise_open_files_limit, serve};
pub use state::{ApiState, Limits, Parts, Probe};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use hyper::Request;

/// The API as a service. All paths come through one door (see [`route`] for why); what has its own place, as a web
/// console, can be merged before it.
pub fn router(state: ApiState) -> Router {
    let door = |State(state): State<ApiState>, request: Request<Body>| door::answer(state, request);
    Router::new().fallback(door).with_state(state)
}
