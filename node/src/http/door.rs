//! Every request comes through here: where it comes from, what it names, which handler, and what every answer has.

use super::answer::Answer;
use super::body::{self, BodyError, Dialect};
use super::call::Call;
use super::origin;
use super::problem::Failure;
use super::route::{self, Route, Target};
use super::state::{ApiState, Shared};
use super::{backup, cluster, health, history, kv, leases, locks, openapi, range, sessions, txn, watch};
use crate::metrics;
use axum::body::Body;
use axum::response::Response;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Answers a request. Never fails: what goes wrong is a problem document.
pub(super) async fn answer(ApiState(state): ApiState, request: Request<Body>) -> Response {
    let started = Instant::now();
    let (parts, mut body) = request.into_parts();
    let target = route::target(parts.uri.path());
    let route = target.as_ref().map_or(Route::Nothing, Target::route);
    let answered = match target {
        Ok(target) => {
            let call = Call { state: &state, parts: &parts, started };
            dispatch(&call, target, &mut body).await
        }
        Err(error) => Err(Failure::Path(error)),
    };
    let answer = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            // A body that was late, or ended early, is not waited for again.
            if !matches!(failure, Failure::Body(BodyError::Late { .. } | BodyError::Incomplete)) {
                body::drain(&mut body, &parts.headers).await;
            }
            refuse(&state, &parts, failure)
        }
    };
    state.metrics.observe_http(route, method_label(&parts), answer.status.as_u16(), started.elapsed());
    let mut response = state.with_status(|status, revision| answer.into_response(status, revision));
    if state.is_leaving.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn refuse(state: &Shared, parts: &Parts, failure: Failure) -> Answer {
    if let Some(reason) = failure.rejected() {
        state.metrics.reject(reason);
    }
    let read_only = parts.method == Method::GET || parts.method == Method::HEAD;
    let why = failure.to_string();
    let answer = failure.answer(!read_only);
    if answer.status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(method = %parts.method, path = parts.uri.path(), why, "a request failed inside the node");
    }
    answer
}

async fn dispatch(call: &Call<'_>, target: Target<'_>, body: &mut Body) -> Result<Answer, Failure> {
    origin::check(&call.parts.headers)?;
    let method = &call.parts.method;
    let get = method == Method::GET || method == Method::HEAD;
    match target {
        Target::Key { route, key } => {
            let dialect = if route == Route::RootKey { Dialect::Root } else { Dialect::Full };
            match *method {
                _ if get => kv::get(call, &key).await,
                Method::PUT => kv::put(call, dialect, &key, body).await,
                Method::DELETE => kv::delete(call, &key, body).await,
                _ => Err(wrong_method(call, route)),
            }
        }
        Target::Reserved { name, .. } if *method == Method::PUT || *method == Method::DELETE => {
            Err(Failure::ReservedName { name })
        }
        Target::Reserved { route, .. } | Target::Fixed(route) => match route {
            Route::Clear if *method == Method::POST => kv::clear(call, body).await,
            Route::Kv if get => range::get(call).await,
            Route::Kv if *method == Method::DELETE => range::delete(call, body).await,
            Route::Txn if *method == Method::POST => txn::post(call, body).await,
            Route::Leases if get => leases::list(call).await,
            Route::Leases if *method == Method::POST => leases::grant(call, body).await,
            Route::Locks if get => locks::list(call).await,
            Route::Sessions if *method == Method::POST => sessions::open(call, body).await,
            Route::Watch if *method == Method::GET => watch::get(call).await,
            Route::Compact if *method == Method::POST => history::compact(call, body).await,
            Route::Backup if *method == Method::GET => backup::get(call).await,
            Route::Cluster if get => cluster::get(call),
            Route::Members if *method == Method::POST => cluster::add_member(call, body).await,
            Route::TransferLeadership if *method == Method::POST => {
                cluster::transfer_leadership(call, body).await
            }
            Route::Livez if get => health::live(call),
            Route::Readyz if get => health::ready(call),
            Route::Metrics if get => health::metrics(call),
            Route::OpenApi if get => openapi::get(call),
            Route::Nothing => Err(nothing_at(call.parts.uri.path())),
            _ => Err(wrong_method(call, route)),
        },
        Target::Lease { route, id } => match route {
            Route::Lease if get => leases::get(call, id).await,
            Route::Lease if *method == Method::DELETE => leases::revoke(call, id, body).await,
            Route::KeepAlive if *method == Method::POST => leases::keep(call, id, body).await,
            _ => Err(wrong_method(call, route)),
        },
        Target::Lock { name } => match *method {
            _ if get => locks::get(call, &name).await,
            Method::POST => locks::acquire(call, &name, body).await,
            Method::DELETE => locks::release(call, &name, body).await,
            _ => Err(wrong_method(call, Route::Lock)),
        },
        Target::Member { route, id } => match route {
            Route::Member if *method == Method::DELETE => cluster::remove(call, id, body).await,
            Route::Promote if *method == Method::POST => cluster::promote(call, id, body).await,
            _ => Err(wrong_method(call, route)),
        },
    }
}

fn wrong_method(call: &Call<'_>, route: Route) -> Failure {
    Failure::Method { method: call.parts.method.to_string(), allow: route.allow() }
}

/// Says what might have been meant.
fn nothing_at(path: &str) -> Failure {
    let key = path.trim_start_matches('/');
    let hint = if key.is_empty() {
        "there is nothing here; keys are at /{key} and /v1/kv/{key}, the cluster at /v1/cluster".to_owned()
    } else if path.starts_with("/v1/") || !key.contains('/') {
        "there is nothing here".to_owned()
    } else {
        "a key at the root is one path segment; keys with slashes are at /v1/kv/{key}".to_owned()
    };
    Failure::NoSuchRoute(hint)
}

fn method_label(parts: &Parts) -> metrics::Method {
    match parts.method {
        Method::GET => metrics::Method::Get,
        Method::HEAD => metrics::Method::Head,
        Method::PUT => metrics::Method::Put,
        Method::POST => metrics::Method::Post,
        Method::DELETE => metrics::Method::Delete,
        _ => metrics::Method::Other,
    }
}
