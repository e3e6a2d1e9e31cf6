//! Clients' requests, given whole to the API's router over a store that applies at once: any method, target, headers, body.

use super::mutate;
use crate::random::Random;
use balsa_node::engine::handle::{AdminError, Handle, Request as EngineRequest};
use balsa_node::engine::status::{ClusterId, Phase, Role, Status};
use balsa_node::http::{ApiState, Limits, Parts, router};
use balsa_node::metrics::Metrics;
use balsa_node::watch::{Hub, HubConfig};
use balsa_raft::{Index, NodeId, Term};
use balsa_store::command::stamp;
use balsa_store::{MemoryEngine, Store, StoreConfig};
use balsa_wire::problem::Problem;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What an answer may hold at most, in bytes: metrics are the longest.
const ANSWER_BYTES_MAX: usize = 256 << 10;

const METHODS: [&str; 7] = ["GET", "PUT", "DELETE", "POST", "HEAD", "PATCH", "put"];

const TARGETS: [&str; 16] = [
    "/key",
    "/v1/kv/key",
    "/v1/kv//a/./b%2Fc%00",
    "/v1/kv/key?prev",
    "/v1/kv/key?raw&consistency=stale",
    "/key?consistency=linearizable",
    "/clear",
    "/v1/sessions",
    "/v1/cluster",
    "/v1/cluster/members",
    "/v1/cluster/members/00000000000000ab",
    "/v1/cluster/members/ab/promote",
    "/v1/cluster/transfer-leadership",
    "/readyz?verbose",
    "/metrics",
    "/v1/kv/%E2%82%AC?ttl=30s&x=+%2b",
];

const HEADERS: [(&str, &str); 15] = [
    ("content-type", "application/json"),
    ("content-type", "text/plain; charset=utf-8"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("accept", "application/octet-stream"),
    ("if-match", "\"1\""),
    ("if-match", "*"),
    ("if-none-match", "*"),
    ("if-none-match", "\"1\""),
    ("idempotency-key", "order-17"),
    ("balsa-session", "1:3:2"),
    ("balsa-session", "18446744073709551615:0:0"),
    ("origin", "http://localhost:3000"),
    ("sec-fetch-site", "cross-site"),
    ("host", "localhost:3000"),
    ("content-length", "18446744073709551615"),
];

const BODIES: [&str; 7] = [
    "",
    "{}",
    r#"{"value":{"a":[1,2.5e300,"\u00e9\ud83d\ude00",null,true]}}"#,
    r#"{"value":123456789012345678901234567890}"#,
    r#"{"id":"ab","slot":3,"peer_address":"h:3300","client_address":"h:3000"}"#,
    r#"{"to":"00000000000000ab"}"#,
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Up to four requests to a node of their own.
pub(super) fn requests() -> Box<dyn FnMut(&mut Random)> {
    Box::new(|random| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let service = TowerToHyperService::new(router(node()));
            for _ in 0..random.between(1, 5) {
                let Some(request) = request(random) else { continue };
                let is_head = request.method() == Method::HEAD;
                let shown = format!("{request:?}");
                let answer = service.call(request).await.expect("the router cannot fail");
                judge(answer, is_head, &shown).await;
            }
        });
    })
}

/// The API over a store of its own.
fn node() -> ApiState {
    let mut store =
        Store::open(Arc::new(MemoryEngine::new()), StoreConfig::default()).expect("an empty engine");
    let reader = Arc::new(arc_swap::ArcSwap::from_pointee(store.reader()));
    let (requests, mut received) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(request) = received.recv().await {
            match request {
                EngineRequest::Write { command, answer, .. } => {
                    let entry = stamp(command, 1);
                    let reply =
                        store.apply(store.applied_index() + 1, &entry).expect("what the API made of it");
                    store.publish();
                    let _ = answer.send(Ok(reply));
                }
                EngineRequest::Read { answer, .. } => drop(answer.send(Ok(()))),
                EngineRequest::Admin { answer, .. } => drop(answer.send(Err(AdminError::Busy))),
                EngineRequest::Backup { answer } => {
                    store.flush().expect("an engine in memory");
                    let _ = answer.send(store.begin_snapshot());
                }
            }
        }
    });
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    // No place for watchers: an answer that does not end cannot be judged.
    let (progress_interval, progress_timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    let watches = HubConfig { watchers_max: 0, progress_interval, progress_timeout };
    ApiState::new(Parts {
        handle: Handle::new(requests, Arc::new(arc_swap::ArcSwap::from_pointee(status()))),
        hub: Hub::new(watches, Arc::clone(&reader), Arc::clone(&metrics)),
        reader,
        metrics,
        limits: Limits { value_bytes: 16 << 10, ..Limits::default() },
        alive: Box::new(|| true),
        applied_age: Box::new(|| Duration::ZERO),
    })
}

fn status() -> Status {
    Status {
        cluster: Some(ClusterId(0xC1)),
        node: Some(NodeId(1)),
        slot: 0,
        phase: Phase::Running,
        waiting_for: None,
        role: Role::Leader,
        term: Term(7),
        leader: Some(NodeId(1)),
        first_index: Index(1),
        last_index: Index(99),
        commit_index: Index(98),
        applied_index: Index(97),
        caught_up: true,
        storage_full: None,
        members: Vec::new(),
        leader_changes: 3,
        feature_level: balsa_store::FEATURE_LEVEL,
        cluster_time_ms: 77,
    }
}

/// A request in which each part is as it should be, or bent; none where HTTP itself would not carry it.
fn request(random: &mut Random) -> Option<Request<Full<Bytes>>> {
    let part = |random: &mut Random, of: &[&str], bent_per_mille| {
        if random.chance(bent_per_mille) {
            let seeds: Vec<Vec<u8>> = of.iter().map(|text| text.as_bytes().to_vec()).collect();
            mutate::bytes(random, &seeds)
        } else {
            random.pick(of).as_bytes().to_vec()
        }
    };
    let method = Method::from_bytes(&part(random, &METHODS, 20)).ok()?;
    let target = Uri::try_from(part(random, &TARGETS, 400)).ok()?;
    let body = part(random, &BODIES, 400);
    let mut request = Request::new(Full::new(Bytes::from(body)));
    (*request.method_mut(), *request.uri_mut()) = (method, target);
    for _ in 0..random.below(4) {
        let (name, value) = *random.pick(&HEADERS);
        let value = part(random, &[value], 300);
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(&value).ok()?);
    }
    Some(request)
}

/// An answer is never a failure of the server's own, and an error says which one.
async fn judge<B>(answer: Response<B>, is_head: bool, shown: &str)
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a body in memory").to_bytes();
    assert!(status != StatusCode::INTERNAL_SERVER_ERROR, "{shown} gave {status}: {body:?}");
    assert!(body.len() <= ANSWER_BYTES_MAX, "{shown} gave {} bytes", body.len());
    if status.as_u16() >= 400 && !is_head {
        let problem: Result<Problem, _> = serde_json::from_slice(&body);
        assert!(
            problem.is_ok_and(|problem| problem.status == status.as_u16()),
            "{shown} gave {status}: {body:?}"
        );
    }
}
