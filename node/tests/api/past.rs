//! The past: reads at a revision, and compaction.

use super::server::{Setup, start, start_with};
use balsa_node::http::Limits;
use balsa_wire::history::CompactAnswer;
use balsa_wire::kv::Item;
use balsa_wire::problem::{Code, Outcome};
use std::time::Duration;

#[tokio::test]
async fn a_key_as_it_was() {
    let server = start().await;
    server.put("/v1/kv/a", "1").await;
    server.put("/v1/kv/b", "2").await;
    server.put("/v1/kv/a", "3").await;
    server.delete("/v1/kv/a").await;

    let got = server.get("/v1/kv/a?revision=2").await;
    let item: Item = got.json();
    assert_eq!((item.value.unwrap().get(), item.revision, item.version), ("1", 1, 1));
    assert_eq!((got.header("etag"), got.header("balsa-revision")), (Some("\"1\""), Some("4")));
    assert_eq!(server.get("/a?revision=3&raw").await.text(), "3");
    assert_eq!(server.get("/v1/kv/a?revision=3&consistency=stale").await.json::<Item>().version, 2);
    let gone = server.get("/v1/kv/a?revision=4").await.problem();
    assert_eq!((gone.status, gone.code), (404, Code::KeyNotFound));
    let never = server.get("/v1/kv/b?revision=1").await.problem();
    assert_eq!((never.status, never.code), (404, Code::KeyNotFound));
    assert_eq!(server.get("/v1/kv/a?revision=0").await.problem().code, Code::InvalidParameter);
    let put = server.send("PUT", "/v1/kv/a?revision=1", &[], "x").await.problem();
    assert_eq!((put.status, put.code), (400, Code::UnknownParameter));
}

#[tokio::test]
async fn a_revision_to_come_is_waited_for() {
    let server = std::sync::Arc::new(start().await);
    server.put("/v1/kv/a", "1").await;
    let asked = std::sync::Arc::clone(&server);
    let waiting = tokio::spawn(async move { asked.get("/v1/kv/a?revision=3").await });
    server.put("/v1/kv/a", "2").await;
    server.put("/v1/kv/b", "3").await;
    let item: Item = waiting.await.unwrap().json();
    assert_eq!((item.value.unwrap().get(), item.revision), ("2", 2));
}

#[tokio::test]
async fn a_revision_that_does_not_come_is_a_404_of_its_own() {
    let limits = Limits { request_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start_with(Setup { limits, ..Setup::default() }).await;
    server.put("/v1/kv/a", "1").await;
    let problem = server.get("/v1/kv/a?revision=2").await.problem();
    assert_eq!((problem.status, problem.code, problem.outcome), (404, Code::FutureRevision, None));
}

#[tokio::test]
async fn compaction_forgets_what_is_older() {
    let server = start().await;
    for value in ["1", "2", "3"] {
        server.put("/v1/kv/a", value).await;
    }
    let json = ["content-type: application/json"];
    let done = server.send("POST", "/v1/compact", &json, "{\"revision\":2}").await;
    assert_eq!((done.status, done.json::<CompactAnswer>().oldest_revision), (200, 2));
    let problem = server.get("/v1/kv/a?revision=1").await.problem();
    assert_eq!((problem.status, problem.code, problem.oldest_revision), (410, Code::Compacted, Some(2)));
    assert_eq!(server.get("/v1/kv/a?revision=2").await.json::<Item>().value.unwrap().get(), "2");

    // Never back, and never beyond what there is.
    for (asked, oldest) in [(1, 2), (99, 3)] {
        let body = format!("{{\"revision\":{asked}}}");
        let done = server.send("POST", "/v1/compact", &[], body).await;
        assert_eq!(done.json::<CompactAnswer>().oldest_revision, oldest);
    }
    for body in ["", "{}", "{\"revision\":-1}", "{\"revision\":1,\"x\":1}"] {
        let problem = server.send("POST", "/v1/compact", &[], body).await.problem();
        assert_eq!((problem.status, problem.outcome), (400, Some(Outcome::NotApplied)), "{body}");
    }
    assert_eq!(server.get("/v1/compact").await.problem().status, 405);
}

#[tokio::test]
async fn a_compaction_may_be_asked_for_again() {
    let server = start().await;
    server.put("/v1/kv/a", "1").await;
    let once = ["idempotency-key: c"];
    let first = server.send("POST", "/v1/compact", &once, "{\"revision\":1}").await;
    let again = server.send("POST", "/v1/compact", &once, "{\"revision\":1}").await;
    assert_eq!((first.status, first.text()), (again.status, again.text()));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}
