//! A Kubernetes API server as a node sees it: one StatefulSet, one ConfigMap, and moods.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use tempfile::TempDir;

/// What is true now.
#[derive(Clone, Debug)]
pub(crate) struct Now {
    pub(crate) replicas: u32,
    pub(crate) being_deleted: bool,
    pub(crate) missing: bool,
    /// Answers nothing but 503.
    pub(crate) silent: bool,
    /// The data of the ConfigMap.
    pub(crate) mark: Option<Value>,
    version: u64,
    /// How often the StatefulSet was asked for.
    pub(crate) looks: u64,
}

/// The server.
pub(crate) struct ApiServer {
    state: Arc<Mutex<Now>>,
    pub(crate) url: String,
    /// The account's folder.
    pub(crate) account: TempDir,
}

const TOKEN: &str = "a-token";

impl ApiServer {
    pub(crate) async fn start(replicas: u32) -> ApiServer {
        let state = Now {
            replicas,
            being_deleted: false,
            missing: false,
            silent: false,
            mark: None,
            version: 1,
            looks: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let routes = Router::new()
            .route("/apis/apps/v1/namespaces/ns/statefulsets/kv", get(stateful_set))
            .route("/api/v1/namespaces/ns/configmaps/kv-founding", get(mark).patch(leave_mark))
            .with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let account = tempfile::tempdir().unwrap();
        std::fs::write(account.path().join("token"), TOKEN).unwrap();
        std::fs::write(account.path().join("namespace"), "ns\n").unwrap();
        ApiServer { state, url, account }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Now> {
        self.state.lock().unwrap()
    }

    /// What a node is told of it.
    pub(crate) fn arguments(&self) -> [&str; 6] {
        let account = self.account.path().to_str().unwrap();
        ["--kubernetes-stateful-set", "kv", "--kubernetes-api", &self.url, "--kubernetes-account", account]
    }
}

type Shared = State<Arc<Mutex<Now>>>;
type Answer = (StatusCode, String);

fn status(code: StatusCode, message: &str) -> Answer {
    (code, json!({"kind": "Status", "message": message}).to_string())
}

/// Refuses as the server does.
fn refused(state: &Now, headers: &HeaderMap) -> Option<Answer> {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok());
    if token != Some(&format!("Bearer {TOKEN}")) {
        return Some(status(StatusCode::UNAUTHORIZED, "who are you?"));
    }
    state.silent.then(|| status(StatusCode::SERVICE_UNAVAILABLE, "not now"))
}

async fn stateful_set(State(state): Shared, headers: HeaderMap) -> Answer {
    let mut state = state.lock().unwrap();
    state.looks += 1;
    if let Some(refusal) = refused(&state, &headers) {
        return refusal;
    }
    if state.missing {
        return status(StatusCode::NOT_FOUND, "statefulsets.apps \"kv\" not found");
    }
    let mut metadata = json!({"name": "kv", "uid": "the-first"});
    if state.being_deleted {
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    (StatusCode::OK, json!({"metadata": metadata, "spec": {"replicas": state.replicas}}).to_string())
}

fn config_map(state: &Now) -> Answer {
    let mut object = json!({"metadata": {"resourceVersion": state.version.to_string()}});
    if let Some(data) = &state.mark {
        object["data"] = data.clone();
    }
    (StatusCode::OK, object.to_string())
}

async fn mark(State(state): Shared, headers: HeaderMap) -> Answer {
    let state = state.lock().unwrap();
    refused(&state, &headers).unwrap_or_else(|| config_map(&state))
}

async fn leave_mark(State(state): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let mut state = state.lock().unwrap();
    if let Some(refusal) = refused(&state, &headers) {
        return refusal;
    }
    assert_eq!(headers["content-type"], "application/merge-patch+json");
    let patch: Value = serde_json::from_slice(&body).unwrap();
    if patch["metadata"]["resourceVersion"].as_str() != Some(&*state.version.to_string()) {
        return status(StatusCode::CONFLICT, "the object has been modified");
    }
    state.mark = Some(patch["data"].clone());
    state.version += 1;
    config_map(&state)
}
