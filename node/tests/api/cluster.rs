//! What a node tells of itself and its cluster, and changes of members.

use super::server::start;
use balsa_node::engine::handle::AdminRequest;
use balsa_node::engine::status::{Phase, Role};
use balsa_raft::NodeId;
use balsa_wire::cluster as wire;
use balsa_wire::cluster::{ClusterAnswer, Health, MembershipAnswer, MembershipKind, ReadyAnswer};
use balsa_wire::problem::{Code, Outcome};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn every_answer_says_where_it_comes_from() {
    let server = start().await;
    server.put("/a", "1").await;
    for (method, target) in [
        ("GET", "/a"),
        ("GET", "/absent"),
        ("POST", "/a"),
        ("PUT", "/v1"),
        ("GET", "/v1/cluster"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("POST", "/v1/sessions"),
    ] {
        let answered = server.send(method, target, &[], "").await;
        assert_eq!(answered.header("balsa-cluster"), Some("00000000000000c1"), "{target}");
        assert_eq!(answered.header("balsa-revision"), Some("1"));
        assert_eq!(answered.header("balsa-term"), Some("7"));
        assert_eq!(answered.header("balsa-leader"), Some("client-0:3000"));
    }
    server.set_status(|status| {
        status.term = balsa_raft::Term(8);
        status.leader = None;
    });
    let answered = server.get("/a").await;
    assert_eq!((answered.header("balsa-term"), answered.header("balsa-leader")), (Some("8"), None));
    server.set_status(|status| status.leader = Some(NodeId(2)));
    assert_eq!(server.put("/a", "2").await.header("balsa-leader"), Some("client-1:3000"));
    assert_eq!(server.get("/a").await.header("balsa-revision"), Some("2"));
}

#[tokio::test]
async fn the_cluster_is_described() {
    let server = start().await;
    server.put("/a", "1").await;
    let answer: ClusterAnswer = server.get("/v1/cluster").await.json();
    assert_eq!(answer.cluster.as_deref(), Some("00000000000000c1"));
    assert_eq!((answer.node.as_deref(), answer.leader.as_deref()), (Some("1"), Some("1")));
    assert_eq!(answer.leader_address.as_deref(), Some("client-0:3000"));
    assert_eq!((answer.role, answer.phase), (wire::Role::Leader, wire::Phase::Running));
    assert_eq!((answer.slot, answer.term, answer.leader_changes), (0, 7, 3));
    assert_eq!((answer.first_index, answer.last_index, answer.commit_index), (1, 99, 98));
    assert_eq!((answer.store.applied_index, answer.store.revision), (1, 1));
    assert_eq!(answer.store.digest.len(), 32);
    assert_ne!(answer.store.digest, "0".repeat(32));
    let told: Vec<_> =
        answer.members.iter().map(|m| (m.id.as_str(), m.slot, m.health, m.lag, m.leader)).collect();
    assert_eq!(
        told,
        [
            ("1", 0, Health::Healthy, Some(8), true),
            ("2", 1, Health::Healthy, Some(7), false),
            ("ab", 2, Health::Unreachable, Some(0), false)
        ]
    );
    assert_eq!(answer.members[0].version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(answer.members[2].membership, MembershipKind::Voter);
}

#[tokio::test]
async fn the_cluster_is_described_without_a_leader_and_before_there_is_one() {
    let server = start().await;
    server.set_status(|status| {
        status.leader = None;
        status.role = Role::Candidate;
        for member in &mut status.members {
            (member.match_index, member.active) = (None, None);
        }
    });
    let text = server.get("/v1/cluster").await;
    assert!(text.text().contains("\"leader\":null"), "{}", text.text());
    let answer: ClusterAnswer = text.json();
    assert_eq!(answer.members[1].health, Health::Unknown);
    assert_eq!(answer.members[0].health, Health::Healthy, "a node can tell of itself");

    server.set_status(|status| {
        status.cluster = None;
        status.node = None;
        status.phase = Phase::Founding;
        status.waiting_for = Some("2 of 3 peers".into());
        status.members.clear();
    });
    let answered = server.get("/v1/cluster").await;
    assert_eq!(answered.header("balsa-cluster"), None);
    let answer: ClusterAnswer = answered.json();
    assert_eq!((answer.cluster, answer.node), (None, None));
    assert_eq!(answer.waiting_for.as_deref(), Some("2 of 3 peers"));
    // A blank node's empty store is nobody's state.
    assert_eq!(server.get("/a?consistency=stale").await.problem().code, Code::NoLeader);
}

#[tokio::test]
async fn stale_reads_tell_their_age() {
    let server = start().await;
    server.put("/a", "1").await;
    server.engine.age_ms.store(1234, Ordering::Relaxed);
    let stale = server.get("/a?consistency=stale").await;
    assert_eq!((stale.status, stale.header("balsa-applied-age-ms")), (200, Some("1234")));
    let absent = server.get("/absent?consistency=stale").await;
    assert_eq!((absent.status, absent.header("balsa-applied-age-ms")), (404, Some("1234")));
    assert_eq!(server.taken(), 1);
    let confirmed = server.get("/a?consistency=linearizable").await;
    assert_eq!((confirmed.status, confirmed.header("balsa-applied-age-ms")), (200, None));
    assert_eq!(server.taken(), 2);
}

#[tokio::test]
async fn changes_reach_the_engine() {
    let server = start().await;
    let add = r#"{"id":"00ab","slot":2,"peer_address":"peer-2:3300","client_address":"client-2:3000"}"#;
    let added = server.send("POST", "/v1/cluster/members", &["content-type: application/json"], add).await;
    let answer: MembershipAnswer = added.json();
    assert_eq!((added.status, answer.cluster.as_str()), (200, "00000000000000c1"));
    assert_eq!(
        (answer.members[0].id.as_str(), answer.members[0].membership),
        ("ab", MembershipKind::Learner)
    );
    for (method, target, body) in [
        ("POST", "/v1/cluster/members/ab/promote", ""),
        ("DELETE", "/v1/cluster/members/AB", ""),
        ("POST", "/v1/cluster/transfer-leadership", ""),
        ("POST", "/v1/cluster/transfer-leadership", "{\"to\":\"2\"}"),
    ] {
        assert_eq!(server.send(method, target, &[], body).await.status, 200, "{target}");
    }
    let id = NodeId(0xAB);
    let expected = [
        AdminRequest::AddMember {
            id,
            slot: Some(2),
            peer_address: "peer-2:3300".into(),
            client_address: "client-2:3000".into(),
        },
        AdminRequest::Promote { id },
        AdminRequest::Remove { id },
        AdminRequest::TransferLeadership { to: None },
        AdminRequest::TransferLeadership { to: Some(NodeId(2)) },
    ];
    assert_eq!(*server.engine.changes.lock().unwrap(), expected);
}

#[tokio::test]
async fn changes_that_make_no_sense_do_not() {
    let server = start().await;
    let add = |id: &str, peer: &str, more: &str| {
        format!(r#"{{"id":"{id}","peer_address":"{peer}","client_address":"c:1"{more}}}"#)
    };
    for (method, target, body, code, says) in [
        ("POST", "/v1/cluster/members", "".to_owned(), Code::InvalidJson, "missing field `id`"),
        ("POST", "/v1/cluster/members", add("0", "p:1", ""), Code::InvalidJson, "`id` is `0`"),
        ("POST", "/v1/cluster/members", add("xyz", "p:1", ""), Code::InvalidJson, "`id` is `xyz`"),
        ("POST", "/v1/cluster/members", add("1", "p", ""), Code::InvalidJson, "`peer_address` is `p`"),
        ("POST", "/v1/cluster/members", add("1", "p:1", ",\"slot\":-1"), Code::InvalidJson, "-1"),
        ("POST", "/v1/cluster/members", add("1", "p:1", ",\"role\":1"), Code::UnknownMember, "`role`"),
        (
            "POST",
            "/v1/cluster/members/xyz/promote",
            "".to_owned(),
            Code::InvalidParameter,
            "16 hexadecimal digits",
        ),
        ("DELETE", "/v1/cluster/members/0", "".to_owned(), Code::InvalidParameter, "digits, not 0"),
        (
            "POST",
            "/v1/cluster/transfer-leadership",
            "{\"to\":\"\"}".to_owned(),
            Code::InvalidJson,
            "`to` is ``",
        ),
        ("POST", "/v1/cluster/transfer-leadership", "{\"from\":1}".to_owned(), Code::UnknownMember, "`from`"),
    ] {
        let answered = server.send(method, target, &[], body).await;
        let problem = answered.problem();
        assert_eq!((answered.status, problem.code), (400, code), "{target}: {problem:?}");
        assert!(problem.detail.contains(says), "{target}: {}", problem.detail);
        assert_eq!(problem.outcome, Some(Outcome::NotApplied));
    }
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn alive_is_that_the_engine_turns() {
    let server = start().await;
    for target in ["/livez", "/healthz"] {
        assert_eq!((server.get(target).await.status, server.get(target).await.text()), (200, "alive\n"));
    }
    // A node without a leader is alive.
    server.set_status(|status| status.leader = None);
    assert_eq!(server.get("/livez").await.status, 200);
    server.engine.alive.store(false, Ordering::Relaxed);
    let hangs = server.get("/livez").await;
    assert_eq!((hangs.status, hangs.problem().code), (503, Code::NotAlive));
}

#[tokio::test]
async fn ready_is_caught_up_with_a_leader() {
    let server = start().await;
    assert_eq!((server.get("/readyz").await.status, server.get("/readyz").await.text()), (200, "ready\n"));
    let verbose: ReadyAnswer = server.get("/readyz?verbose").await.json();
    assert!(verbose.ready && verbose.checks.iter().all(|check| check.ok));
    assert!(verbose.checks.iter().any(|check| check.detail == "the leader is 1 at client-0:3000"));
    for (at, says) in
        ["no leader is known in term 7", "has not caught up", "waits for 2 peers"].iter().enumerate()
    {
        server.set_status(|status| *status = super::server::status());
        server.set_status(|status| match at {
            0 => status.leader = None,
            1 => status.caught_up = false,
            _ => {
                status.phase = Phase::Founding;
                status.waiting_for = Some("waits for 2 peers".into());
            }
        });
        for target in ["/readyz", "/readyz?verbose"] {
            let answered = server.get(target).await;
            let problem = answered.problem();
            assert_eq!((answered.status, problem.code), (503, Code::NotReady));
            assert!(problem.detail.contains(says), "{}", problem.detail);
            assert_eq!(problem.checks.iter().filter(|check| !check.ok).count(), 1);
        }
    }
}

#[tokio::test]
async fn metrics_count_by_route() {
    let server = start().await;
    server.put("/a", "1").await;
    server.get("/v1/kv/a").await;
    server.get("/v1/kv/b").await;
    server.get("/no/route").await;
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
    for line in [
        r#"balsa_http_requests_total{method="PUT",route="/{key}",status="2xx"} 1"#,
        r#"balsa_http_requests_total{method="GET",route="/v1/kv/{key}",status="2xx"} 1"#,
        r#"balsa_http_requests_total{method="GET",route="/v1/kv/{key}",status="4xx"} 1"#,
        r#"balsa_http_requests_total{method="other",route="none",status="4xx"} 1"#,
        r#"balsa_http_request_duration_seconds_count{method="PUT",route="/{key}"} 1"#,
    ] {
        assert!(metrics.text().lines().any(|l| l == line), "{line} is not in\n{}", metrics.text());
    }
}
