//! Operations on the cluster and the node.

use super::operation::Operation;
use crate::http::health;
use crate::http::route::Route;
use balsa_wire::problem::Code;
use serde_json::{Value, json};

/// All of them, in an order in which their examples work.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = vec![state(), transfer(), add(), promote(), remove(), backup()];
    all.extend([live("/livez", "live"), live("/healthz", "healthy"), ready(), metrics(), document()]);
    all
}

fn state() -> Operation {
    let member = json!({
        "id": "6fd1a3c09e1b7a55", "slot": 0, "membership": "voter", "leader": true,
        "peer_address": "127.0.0.1:3300", "client_address": "127.0.0.1:3000",
        "match_index": 57, "lag": 0, "health": "healthy", "version": "0.1.0", "feature_level": 2, "disk_low": false,
    });
    let example = json!({
        "cluster": "c0ffee00c0ffee00", "node": "6fd1a3c09e1b7a55", "slot": 0, "version": "0.1.0", "phase": "running",
        "waiting_for": null, "role": "leader", "term": 3, "leader": "6fd1a3c09e1b7a55",
        "leader_address": "127.0.0.1:3000", "leader_changes": 1, "first_index": 1, "last_index": 57,
        "commit_index": 57, "caught_up": true, "feature_level": 2,
        "store": { "applied_index": 57, "revision": 20, "digest": "00000000000000000000000000000000" },
        "members": [member],
    });
    Operation::new("GET", Route::Cluster, "Cluster", "getCluster", "Members, leader, indexes, health")
        .says("What this node knows; answers without a leader, too.")
        .answers("The cluster as this node sees it", "ClusterAnswer", example)
}

fn membership() -> Value {
    json!({ "cluster": "c0ffee00c0ffee00", "members": [{
        "id": "6fd1a3c09e1b7a55", "slot": 0, "membership": "voter",
        "peer_address": "127.0.0.1:3300", "client_address": "127.0.0.1:3000",
    }] })
}

fn change(operation: Operation) -> Operation {
    operation.changes().fails(&[Code::ChangeRefused, Code::MembershipBusy]).answers(
        "The membership that resulted",
        "MembershipAnswer",
        membership(),
    )
}

fn transfer() -> Operation {
    let operation = Operation::new(
        "POST",
        Route::TransferLeadership,
        "Cluster",
        "transferLeadership",
        "Hand leadership over",
    );
    change(operation.says("To the voter that is furthest, or to the one that is named."))
        .fails(&[Code::NoSuchMember])
        .body("TransferLeadership", false, &[("whoever is furthest", json!({}))])
}

fn add() -> Operation {
    let newcomer = json!({
        "id": "1f", "slot": 9, "peer_address": "127.0.0.1:9", "client_address": "127.0.0.1:9",
    });
    let operation =
        Operation::new("POST", Route::Members, "Cluster", "addMember", "Add a member, as a learner");
    change(operation.says("Nodes that are started with `--join` do this by themselves."))
        .body("AddMember", true, &[("newcomer", newcomer)])
        .with_links(json!({
            "promote": { "operationId": "promoteMember", "parameters": { "id": "$request.body#/id" } },
            "remove": { "operationId": "removeMember", "parameters": { "id": "$request.body#/id" } },
        }))
}

fn promote() -> Operation {
    change(Operation::new("POST", Route::Promote, "Cluster", "promoteMember", "Make a learner a voter"))
        .fails(&[Code::NoSuchMember])
        .body("Empty", false, &[])
}

fn remove() -> Operation {
    change(Operation::new("DELETE", Route::Member, "Cluster", "removeMember", "Remove a member"))
        .fails(&[Code::NoSuchMember])
}

fn backup() -> Operation {
    Operation::new(
        "GET",
        Route::Backup,
        "Backup",
        "backup",
        "All that the cluster holds, as one stream that proves itself whole",
    )
    .says(
        "A state that stands still, no older than the request. `balsa backup --verify` checks a file of it.",
    )
    .reads()
    .fails(&[Code::InvalidCondition, Code::InvalidHeader])
    .answers_with(
        200,
        "The stream; one that cannot go on breaks its connection",
        json!({ balsa_wire::backup::CONTENT_TYPE: { "schema": {} } }),
    )
    .with_headers(&["Balsa-Backup-Revision", "Content-Disposition"])
}

fn text(example: &str) -> Value {
    json!({ "text/plain; charset=utf-8": { "schema": { "type": "string" }, "example": example } })
}

fn live(path: &'static str, id: &'static str) -> Operation {
    Operation::new("GET", Route::Livez, "Health", id, "Does the node's engine turn?")
        .at(path)
        .fails(&[Code::NotAlive])
        .answers_with(200, "It does", text("alive\n"))
}

fn ready() -> Operation {
    let content = json!({
        "text/plain; charset=utf-8": { "schema": { "type": "string" }, "example": "ready\n" },
        "application/json": { "schema": super::operation::reference("schemas", "ReadyAnswer") },
    });
    Operation::new("GET", Route::Readyz, "Health", "ready", "Has a request a chance here?")
        .says("Caught up, and knowing a leader. What is not so is among the `checks` of the problem.")
        .query(health::READY)
        .fails(&[Code::NotReady])
        .answers_with(200, "It has", content)
}

fn metrics() -> Operation {
    let content = json!({ crate::metrics::CONTENT_TYPE: { "schema": { "type": "string" } } });
    Operation::new("GET", Route::Metrics, "Health", "metrics", "What the node measures, for Prometheus")
        .answers_with(200, "In Prometheus' text format", content)
}

fn document() -> Operation {
    let content = json!({ "application/json": { "schema": { "type": "object" } } });
    Operation::new("GET", Route::OpenApi, "Health", "openApi", "This document").answers_with(
        200,
        "OpenAPI 3.1",
        content,
    )
}
