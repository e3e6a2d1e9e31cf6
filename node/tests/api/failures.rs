//! What the engine says no to, and what happens when it says nothing.

use super::server::{Mood, Setup, eventually, start, start_with};
use balsa_node::engine::handle::{AdminError, ReadError, WriteError};
use balsa_raft::NodeId;
use balsa_wire::problem::{Code, Outcome};
use std::time::Duration;

#[tokio::test]
async fn every_failure_of_a_write_says_what_became_of_it() {
    let server = start().await;
    for (error, status, code, outcome) in [
        (WriteError::NoLeader, 503, Code::NoLeader, Outcome::NotApplied),
        (WriteError::Overloaded { what: "proposals" }, 503, Code::Overloaded, Outcome::NotApplied),
        (WriteError::Overwritten, 503, Code::Overwritten, Outcome::NotApplied),
        (WriteError::Stopping, 503, Code::Stopping, Outcome::NotApplied),
        (WriteError::Unknown { why: "deposed" }, 504, Code::OutcomeUnknown, Outcome::Unknown),
    ] {
        server.set_mood(Mood::FailsWrites(error));
        for (method, target, body) in [
            ("PUT", "/a", "{\"value\":1}"),
            ("DELETE", "/v1/kv/a", ""),
            ("POST", "/clear", ""),
            ("POST", "/v1/sessions", ""),
        ] {
            let answered = server.send(method, target, &[], body).await;
            let problem = answered.problem();
            assert_eq!((answered.status, problem.code), (status, code), "{method} {target}");
            assert_eq!(problem.outcome, Some(outcome));
        }
    }
}

#[tokio::test]
async fn every_failure_of_a_read_is_a_503_without_an_outcome() {
    let server = start().await;
    for (error, code) in [
        (ReadError::NoLeader, Code::NoLeader),
        (ReadError::NotConfirmed, Code::NotConfirmed),
        (ReadError::Overloaded { what: "reads" }, Code::Overloaded),
        (ReadError::Stopping, Code::Stopping),
    ] {
        server.set_mood(Mood::FailsReads(error));
        let answered = server.get("/a").await;
        let problem = answered.problem();
        assert_eq!((answered.status, problem.code, problem.outcome), (503, code, None));
        // A stale read asks nobody.
        assert_eq!(server.get("/a?consistency=stale").await.status, 404);
    }
}

#[tokio::test]
async fn every_failure_of_a_change() {
    let server = start().await;
    for (error, status, code, outcome) in [
        (AdminError::Refused("quorum".into()), 409, Code::ChangeRefused, Outcome::NotApplied),
        (AdminError::NoSuchMember(NodeId(9)), 404, Code::NoSuchMember, Outcome::NotApplied),
        (AdminError::Busy, 409, Code::MembershipBusy, Outcome::NotApplied),
        (AdminError::NoLeader, 503, Code::NoLeader, Outcome::NotApplied),
        (AdminError::Overloaded { what: "changes" }, 503, Code::Overloaded, Outcome::NotApplied),
        (AdminError::Stopping, 503, Code::Stopping, Outcome::NotApplied),
        (AdminError::Unknown { why: "deposed" }, 504, Code::OutcomeUnknown, Outcome::Unknown),
    ] {
        server.set_mood(Mood::FailsChanges(error));
        let answered = server.delete("/v1/cluster/members/9").await;
        let problem = answered.problem();
        assert_eq!((answered.status, problem.code, problem.outcome), (status, code, Some(outcome)));
    }
}

#[tokio::test]
async fn an_engine_that_drops_a_request_leaves_a_write_unknown() {
    let server = start().await;
    server.set_mood(Mood::Drops);
    let put = server.put("/a", "1").await;
    assert_eq!((put.status, put.problem().outcome), (504, Some(Outcome::Unknown)));
    assert_eq!(server.get("/a").await.status, 503);
    assert_eq!(server.delete("/v1/cluster/members/9").await.problem().outcome, Some(Outcome::Unknown));
}

#[tokio::test]
async fn an_engine_that_hangs_is_answered_for() {
    let mut setup = Setup::default();
    setup.limits.request_timeout = Duration::from_millis(50);
    let server = start_with(setup).await;
    server.set_mood(Mood::Holds);
    let (put, got) = tokio::join!(server.put("/a", "1"), server.get("/a"));
    assert_eq!((put.status, put.problem().outcome), (504, Some(Outcome::Unknown)));
    assert_eq!((got.status, got.problem().code), (503, Code::NotConfirmed));
}

#[tokio::test]
async fn too_many_writes_are_refused_at_once() {
    let mut setup = Setup::default();
    setup.limits.writes_in_flight = 1;
    setup.limits.request_timeout = Duration::from_secs(1);
    let server = start_with(setup).await;
    server.set_mood(Mood::Holds);
    let (held, ()) = tokio::join!(server.put("/a", "1"), async {
        eventually("one is in flight", || server.taken() == 1).await;
        for refused in [server.put("/b", "1").await, server.delete("/b").await] {
            let problem = refused.problem();
            assert_eq!((refused.status, problem.code), (503, Code::Overloaded));
            assert_eq!(problem.outcome, Some(Outcome::NotApplied));
        }
        server.set_mood(Mood::Works);
        // Reads have no share in it.
        assert_eq!(server.get("/a").await.status, 404);
    });
    assert_eq!(held.status, 504);
    assert_eq!(server.put("/b", "1").await.status, 200);
    let metrics = server.get("/metrics").await;
    let line = "balsa_rejected_total{reason=\"writes_in_flight\"} 2";
    assert!(metrics.text().contains(line), "{}", metrics.text());
    assert!(metrics.text().contains("\nbalsa_writes_in_flight 0\n"));
    assert!(metrics.text().contains("\nbalsa_write_bytes_in_flight 0\n"));
}

#[tokio::test]
async fn too_many_bytes_are_refused_before_they_are_read() {
    let mut setup = Setup::default();
    setup.limits.write_bytes_in_flight = 100;
    let server = start_with(setup).await;
    assert_eq!(server.put("/a", "1").await.status, 200);
    let refused = server.put("/a", &format!("\"{}\"", "v".repeat(100))).await;
    assert_eq!((refused.status, refused.problem().code), (503, Code::Overloaded));
    assert_eq!(server.taken(), 1);
}

#[tokio::test]
async fn a_full_queue_is_overload() {
    let server = start_with(Setup { queue: 1, ..Setup::default() }).await;
    server.set_mood(Mood::Busy);
    let first = tokio::spawn(super::client::send(server.address, "GET", "/a", &[], ""));
    eventually("the engine has taken one", || server.taken() == 1).await;
    // Of two more, one waits in the queue and the other finds it full.
    let mut second = tokio::spawn(super::client::send(server.address, "GET", "/a", &[], ""));
    let mut third = tokio::spawn(super::client::send(server.address, "GET", "/a", &[], ""));
    let (refused, waits) = tokio::select! {
        refused = &mut second => (refused.unwrap(), third),
        refused = &mut third => (refused.unwrap(), second),
    };
    assert_eq!((refused.status, refused.problem().code), (503, Code::Overloaded));
    server.set_mood(Mood::Works);
    assert_eq!((first.await.unwrap().status, waits.await.unwrap().status), (404, 404));
}
