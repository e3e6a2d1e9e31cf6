//! Conditions on writes and reads.

use super::server::start;
use balsa_wire::kv::Item;
use balsa_wire::problem::{Code, Outcome};

#[tokio::test]
async fn writes_under_conditions() {
    let server = start().await;
    // Each line: method, condition, status, current revision told with a 412.
    let steps: &[(&str, &str, u16, Option<u64>)] = &[
        ("PUT", "if-match: *", 412, Some(0)),
        ("PUT", "if-match: \"1\"", 412, Some(0)),
        ("DELETE", "if-match: *", 412, Some(0)),
        ("PUT", "if-none-match: *", 200, None),
        ("PUT", "if-none-match: *", 412, Some(1)),
        ("PUT", "if-match: \"7\"", 412, Some(1)),
        ("PUT", "if-match: \"1\"", 200, None),
        ("PUT", "if-match: *", 200, None),
        ("DELETE", "if-match: \"1\"", 412, Some(3)),
        ("DELETE", "if-none-match: *", 412, Some(3)),
        ("DELETE", "if-match: \"3\"", 200, None),
        ("DELETE", "if-none-match: *", 200, None),
    ];
    for (at, (method, condition, status, current)) in steps.iter().enumerate() {
        let headers = &["content-type: application/json", condition];
        let body = if *method == "PUT" { "{\"value\":1}" } else { "" };
        let answered = server.send(method, "/v1/kv/a", headers, body).await;
        assert_eq!(answered.status, *status, "step {at}: {answered:?}");
        if *status == 412 {
            let problem = answered.problem();
            assert_eq!(problem.code, Code::PreconditionFailed);
            assert_eq!(problem.outcome, Some(Outcome::NotApplied));
            assert_eq!(problem.current_revision, *current, "step {at}");
        }
    }
}

#[tokio::test]
async fn conditions_that_are_not_supported_are_refused() {
    let server = start().await;
    server.put("/a", "1").await;
    let taken = server.taken();
    for (method, condition) in [
        ("PUT", &["if-match: W/\"1\""][..]),
        ("PUT", &["if-match: \"1\", \"2\""]),
        ("PUT", &["if-match: 1"]),
        ("PUT", &["if-match: \"1\"", "if-match: \"1\""]),
        ("PUT", &["if-match: \"1\"", "if-none-match: *"]),
        ("PUT", &["if-none-match: \"1\""]),
        ("DELETE", &["if-unmodified-since: Sat, 29 Oct 1994 19:43:31 GMT"]),
        ("GET", &["if-match: \"1\""]),
        ("GET", &["if-none-match: *"]),
        ("GET", &["if-none-match: W/\"1\""]),
        ("GET", &["if-none-match: \"1\", \"2\""]),
        ("GET", &["if-modified-since: Sat, 29 Oct 1994 19:43:31 GMT"]),
    ] {
        let body = if method == "PUT" { "{\"value\":1}" } else { "" };
        for target in ["/a", "/v1/kv/a"] {
            let answered = server.send(method, target, condition, body).await;
            let problem = answered.problem();
            assert_eq!((answered.status, problem.code), (400, Code::InvalidCondition), "{condition:?}");
            assert_eq!(problem.outcome.is_some(), method != "GET");
        }
    }
    let answered = server.send("POST", "/clear", &["if-match: \"1\""], "").await;
    assert_eq!(answered.problem().code, Code::InvalidCondition);
    assert_eq!(server.taken(), taken);
}

#[tokio::test]
async fn an_etag_names_the_state_whatever_the_representation() {
    let server = start().await;
    let put = server.put("/v1/kv/a", "1").await;
    assert_eq!(put.header("etag"), Some("\"1\""));
    server.put("/v1/kv/other", "1").await;
    for target in ["/a", "/v1/kv/a", "/v1/kv/a?raw"] {
        let got = server.get(target).await;
        assert_eq!((got.header("etag"), got.header("vary")), (Some("\"1\""), Some("Accept")));
        for method in ["GET", "HEAD"] {
            let same = server.send(method, target, &["if-none-match: \"1\""], "").await;
            assert_eq!(same.status, 304);
            assert!(same.body.is_empty());
            assert_eq!((same.header("etag"), same.header("vary")), (Some("\"1\""), Some("Accept")));
            assert_eq!(same.header("balsa-revision"), Some("2"));
            assert_eq!(server.send(method, target, &["if-none-match: \"2\""], "").await.status, 200);
        }
    }
    // What a reader saw is what a writer may match.
    let got = server.get("/a").await;
    let condition = format!("if-match: {}", got.header("etag").unwrap());
    assert_eq!(server.send("PUT", "/a", &[&condition], "{\"value\":2}").await.status, 200);
    assert_eq!(server.get("/a").await.json::<Item>().version, 2);
    let absent = server.send("GET", "/absent", &["if-none-match: \"1\""], "").await;
    assert_eq!((absent.status, absent.header("etag")), (404, None));
}
