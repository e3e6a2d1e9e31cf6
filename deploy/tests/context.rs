//! The door to Kubernetes, against an API server that holds one installation.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use balsa_deploy::Failure;
use balsa_deploy::context::Context;
use balsa_deploy::scale;
use balsa_deploy::status::diagnose;
use kube::{Client, Config};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server was asked to change: content type and patch.
type Patches = Arc<Mutex<Vec<(String, Value)>>>;

struct Cluster {
    context: Context,
    patches: Patches,
}

async fn start(name: &str) -> Cluster {
    let patches = Patches::default();
    let routes = Router::new()
        .route("/apis/apps/v1/namespaces/ns/statefulsets/{name}", get(stateful_set).patch(patch))
        .route("/api/v1/namespaces/ns/pods", get(async || pods().to_string()))
        .route("/api/v1/namespaces/ns/persistentvolumeclaims", get(async || claims().to_string()))
        .route("/api/v1/namespaces/ns/configmaps/{name}", get(async || mark().to_string()))
        .route("/api/v1/namespaces/ns/pods/{pod}/proxy/v1/cluster", get(node))
        .with_state(patches.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let config = Config::new(format!("http://{address}").parse().unwrap());
    let client = Client::try_from(config).unwrap();
    let context = Context::new(client, "ns".into(), name.into(), 3000);
    Cluster { context, patches }
}

async fn stateful_set(Path(name): Path<String>) -> (StatusCode, String) {
    if name != "kv" {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "not found", "reason": "NotFound", "code": 404});
        return (StatusCode::NOT_FOUND, status.to_string());
    }
    let container = json!({"name": "balsa", "image": "balsa:1"});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "kv", "generation": 4},
        "spec": {
            "replicas": 3, "serviceName": "kv-headless", "selector": {},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}},
            "template": {"spec": {"containers": [container]}},
        },
        "status": {"replicas": 3, "updateRevision": "kv-7", "observedGeneration": 4},
    });
    (StatusCode::OK, set.to_string())
}

async fn patch(State(patches): State<Patches>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let kind = headers["content-type"].to_str().unwrap().to_owned();
    patches.lock().unwrap().push((kind, serde_json::from_slice(&body).unwrap()));
    stateful_set(Path("kv".into())).await
}

fn pods() -> Value {
    let pod = |name: &str, owner: &str| {
        json!({
            "metadata": {
                "name": name, "labels": {"controller-revision-hash": "kv-7"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": owner, "uid": "u"}],
            },
            "spec": {"nodeName": "node-1", "containers": [{"name": "balsa", "image": "balsa:1"}]},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    {"name": "balsa", "image": "balsa:1", "imageID": "", "ready": true, "restartCount": 2},
                ],
            },
        })
    };
    let mut broken = pod("kv-2", "kv");
    broken["status"] = json!({
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{
            "name": "balsa", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        }],
    });
    let items = [pod("kv-0", "kv"), pod("kv-1", "kv"), broken, pod("kv-other-0", "kv-other")];
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})
}

fn claims() -> Value {
    let claim = |name: &str| json!({"metadata": {"name": name}, "status": {"phase": "Bound", "capacity": {"storage": "8Gi"}}});
    let items = [claim("data-kv-0"), claim("data-kv-4"), claim("data-kv-other-0"), claim("unrelated")];
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaimList", "metadata": {}, "items": items})
}

fn mark() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kv-founding"}, "data": {"cluster": "c1"}})
}

async fn node(Path(pod): Path<String>) -> (StatusCode, String) {
    let Some(slot) = pod.strip_prefix("kv-").and_then(|rest| rest.strip_suffix(":3000")) else {
        return (StatusCode::NOT_FOUND, String::new());
    };
    let slot: u32 = slot.parse().unwrap();
    if slot == 2 {
        return (StatusCode::SERVICE_UNAVAILABLE, "no endpoints".into());
    }
    let member = |slot: u32, health: &str| {
        json!({
            "id": format!("{:016x}", slot + 1), "slot": slot, "membership": "voter", "leader": slot == 0,
            "peer_address": "p:1", "client_address": "c:1", "match_index": 9, "lag": 0, "health": health,
            "version": "0.1.0",
        })
    };
    let answer = json!({
        "cluster": "c1", "node": format!("{:016x}", slot + 1), "slot": slot, "version": "0.1.0", "phase": "running",
        "waiting_for": null, "role": if slot == 0 { "leader" } else { "follower" }, "term": 3,
        "leader": "0000000000000001", "leader_address": "c:1", "leader_changes": 1, "first_index": 1,
        "last_index": 9, "commit_index": 9, "caught_up": true,
        "store": {"applied_index": 9, "revision": 5, "digest": "d"},
        "members": [member(0, "healthy"), member(1, "healthy"), member(2, "unreachable")],
    });
    (StatusCode::OK, answer.to_string())
}

#[tokio::test]
async fn an_installation_is_seen_as_it_is_and_nothing_of_its_neighbours() {
    let cluster = start("kv").await;
    let seen = cluster.context.observe().await.unwrap();
    let set = seen.set.clone().unwrap();
    assert_eq!((set.replicas, set.partition, set.is_current), (3, 2, true));
    assert_eq!((set.image.as_str(), set.revision.as_str()), ("balsa:1", "kv-7"));
    assert_eq!(seen.pods.iter().map(|pod| pod.ordinal).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(seen.pods[0].restarts, 2);
    assert_eq!(seen.pods[2].trouble.as_deref(), Some("ImagePullBackOff no such image"));
    assert!(seen.pods[2].told.is_none() && !seen.pods[2].ready);
    let claims: Vec<(u32, &str)> =
        seen.claims.iter().map(|claim| (claim.ordinal, claim.name.as_str())).collect();
    assert_eq!(claims, [(0, "data-kv-0"), (4, "data-kv-4")]);
    assert_eq!(seen.mark.as_deref(), Some("c1"));
    assert_eq!(seen.leader().map(|told| told.slot), Some(0));
    let said = diagnose(&seen).to_string();
    assert!(said.contains("does not hear slot 2") && said.contains("ImagePullBackOff"), "{said}");

    let nobody = start("other").await;
    assert_eq!(nobody.context.observe().await.unwrap().set, None);
}

#[tokio::test]
async fn what_is_refused_changes_nothing_and_what_is_done_is_one_patch() {
    let cluster = start("kv").await;
    let seen = cluster.context.observe().await.unwrap();
    assert!(scale::plan(&seen, 1).is_ok(), "the one that would stay is well");
    let plan = scale::plan(&seen, 5).unwrap();
    let Failure(why) = scale::execute(&cluster.context, &plan, Duration::from_millis(100)).await.unwrap_err();
    assert!(why.contains("in vain for the 5 members"), "{why}");
    cluster.context.set_image("balsa:2", 3).await.unwrap();
    let patches = cluster.patches.lock().unwrap();
    assert_eq!(patches[0], ("application/merge-patch+json".into(), json!({"spec": {"replicas": 5}})));
    assert_eq!(patches[1].0, "application/strategic-merge-patch+json");
    assert_eq!(patches[1].1["spec"]["template"]["spec"]["containers"][0]["image"], "balsa:2");
    assert_eq!(patches[1].1["spec"]["updateStrategy"]["rollingUpdate"]["partition"], 3);
    assert_eq!(patches.len(), 2);
}
