//! Idempotency keys and sessions.

use super::server::{Setup, start, start_with};
use balsa_wire::kv::{Item, SessionAnswer};
use balsa_wire::problem::{Code, Outcome};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn a_retry_gets_the_first_answer_again() {
    let server = start().await;
    let writes: &[(&str, &str, &[&str], &str)] = &[
        ("PUT", "/v1/kv/a?prev", &["content-type: application/json"], "{\"value\":1}"),
        ("PUT", "/v1/kv/a?prev", &["content-type: application/json", "if-match: \"9\""], "{\"value\":2}"),
        ("PUT", "/b", &[], "{\"value\":1}"),
        ("DELETE", "/v1/kv/a?prev", &[], ""),
        ("DELETE", "/v1/kv/absent", &[], ""),
        ("POST", "/clear", &[], ""),
        ("POST", "/v1/sessions", &[], ""),
    ];
    for (at, (method, target, headers, body)) in writes.iter().enumerate() {
        let key = format!("idempotency-key: key-{at}");
        let mut headers = headers.to_vec();
        headers.push(&key);
        let first = server.send(method, target, &headers, *body).await;
        assert_eq!(first.header("idempotency-replayed"), None, "{target}");
        for _ in 0..2 {
            let again = server.send(method, target, &headers, *body).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body), "{target}");
            assert_eq!(again.header("etag"), first.header("etag"));
            assert_eq!(again.header("idempotency-replayed"), Some("true"), "{target}");
        }
    }
    assert_eq!(server.put("/x", "1").await.text(), r#"{"key":"x","revision":5}"#);
}

#[tokio::test]
async fn the_same_key_with_another_request_is_refused() {
    let server = start().await;
    let send = async |method: &'static str, target: &'static str, more: &[&str], body: &'static str| {
        let headers = [&["idempotency-key: k"], more].concat();
        server.send(method, target, &headers, body).await
    };
    assert_eq!(send("PUT", "/a", &[], "{\"value\":1}").await.status, 200);
    for answered in [
        send("PUT", "/a", &[], "{\"value\":2}").await,
        send("PUT", "/b", &[], "{\"value\":1}").await,
        send("PUT", "/a?prev", &[], "{\"value\":1}").await,
        send("PUT", "/a", &["if-match: *"], "{\"value\":1}").await,
        send("PUT", "/a", &["content-type: application/json"], "{\"value\":1}").await,
        send("DELETE", "/a", &[], "").await,
        send("POST", "/clear", &[], "").await,
    ] {
        let problem = answered.problem();
        assert_eq!((answered.status, problem.code), (422, Code::RequestMismatch));
        assert_eq!(problem.outcome, Some(Outcome::NotApplied));
    }
    assert_eq!(server.get("/a").await.json::<Item>().version, 1);
}

#[tokio::test]
async fn a_key_or_session_that_is_none_is_refused() {
    let server = start().await;
    let long = format!("idempotency-key: {}", "k".repeat(256));
    for headers in [
        &["idempotency-key: a b"][..],
        &[long.as_str()],
        &["idempotency-key: a", "idempotency-key: b"],
        &["idempotency-key: a", "balsa-session: 1:1:1"],
        &["balsa-session: 1:1"],
        &["balsa-session: 1:2:3"],
        &["balsa-session: x:1:1"],
    ] {
        for (method, target, body) in [
            ("PUT", "/a", "{\"value\":1}"),
            ("DELETE", "/a", ""),
            ("POST", "/clear", ""),
            ("POST", "/v1/sessions", ""),
        ] {
            let answered = server.send(method, target, headers, body).await;
            assert_eq!((answered.status, answered.problem().code), (400, Code::InvalidHeader), "{headers:?}");
        }
    }
    // What is not recorded does not take a key; what changes nothing does not mind one.
    let transfer = server.send("POST", "/v1/cluster/transfer-leadership", &["idempotency-key: a"], "").await;
    assert_eq!(transfer.problem().code, Code::InvalidHeader);
    assert_eq!(server.send("GET", "/livez", &["idempotency-key: a"], "").await.status, 200);
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn a_full_table_refuses_and_forgets_nothing() {
    let mut setup = Setup::default();
    setup.store.reply_limit = 1;
    let server = start_with(setup).await;
    assert_eq!(server.send("PUT", "/a", &["idempotency-key: k1"], "{\"value\":1}").await.status, 200);
    let full = server.send("PUT", "/a", &["idempotency-key: k2"], "{\"value\":2}").await;
    let problem = full.problem();
    assert_eq!((full.status, problem.code), (503, Code::ReplyTableFull));
    assert_eq!(problem.outcome, Some(Outcome::NotApplied));
    let again = server.send("PUT", "/a", &["idempotency-key: k1"], "{\"value\":1}").await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(server.put("/a", "3").await.status, 200);
}

#[tokio::test]
async fn a_session_answers_retries_until_it_expires() {
    let server = start().await;
    let opened: SessionAnswer = server.send("POST", "/v1/sessions", &[], "{}").await.json();
    let put = async |place: &str, value: &str| {
        let session = format!("balsa-session: {}:{place}", opened.session);
        server.send("PUT", "/a", &[session.as_str()], format!("{{\"value\":{value}}}")).await
    };
    let first = put("1:1", "1").await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
    let again = put("1:1", "1").await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(again.body, first.body);
    assert_eq!(put("1:1", "2").await.status, 422);
    assert_eq!(put("2:2", "2").await.status, 200);
    // The first was said to be finished: it is forgotten, and must not be applied again.
    let forgotten = put("1:1", "1").await;
    assert_eq!((forgotten.status, forgotten.problem().code), (409, Code::SessionExpired));
    server.engine.time_ms.store(10_000_000, Ordering::Relaxed);
    let expired = put("3:3", "3").await;
    let problem = expired.problem();
    assert_eq!((expired.status, problem.code), (409, Code::SessionExpired));
    assert_eq!(problem.outcome, Some(Outcome::NotApplied));
    assert_eq!(server.get("/a").await.json::<Item>().version, 2);
}
