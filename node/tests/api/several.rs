//! Ranges, transactions, leases and locks.

use super::server::{Server, start};
use balsa_wire::leases::{
    LeaseAnswer, LeaseState, LeasesAnswer, LockAnswer, LockState, LocksAnswer, ReleaseAnswer,
};
use balsa_wire::problem::{Code, Outcome};
use balsa_wire::txn::{OpResult, RangeAnswer, RangeDeleteAnswer, TxnAnswer};

const JSON: &str = "content-type: application/json";

async fn page(server: &Server, query: &str) -> RangeAnswer {
    let answered = server.get(&format!("/v1/kv?{query}")).await;
    assert_eq!(answered.status, 200, "{query}: {answered:?}");
    answered.json()
}

fn keys(page: &RangeAnswer) -> Vec<&str> {
    page.items.iter().map(|item| item.key.as_str()).collect()
}

async fn fill(server: &Server) {
    for key in ["a/1", "a/2", "a/3", "b", "é"] {
        server.put(&format!("/v1/kv/{key}"), "1").await;
    }
}

#[tokio::test]
async fn ranges_in_both_orders_page_by_page_at_one_revision() {
    let server = start().await;
    fill(&server).await;
    assert_eq!(keys(&page(&server, "").await), ["a/1", "a/2", "a/3", "b", "é"]);
    assert_eq!(keys(&page(&server, "prefix=a/").await), ["a/1", "a/2", "a/3"]);
    assert_eq!(keys(&page(&server, "start=a/2&end=b").await), ["a/2", "a/3"]);
    assert_eq!(keys(&page(&server, "start=b&order=desc").await), ["é", "b"]);
    let counted = page(&server, "prefix=a/&count_only").await;
    assert_eq!((counted.count, counted.more, counted.revision), (Some(3), false, 5));
    let bare = server.get("/v1/kv?prefix=b&keys_only").await;
    let wanted =
        r#"{"items":[{"key":"b","revision":4,"create_revision":4,"version":1}],"more":false,"revision":5}"#;
    assert_eq!(bare.text(), wanted);

    for order in ["asc", "desc"] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = page(&server, &format!("order={order}&limit=2{cursor}")).await;
            found.extend(keys(&page).into_iter().map(str::to_owned));
            // What is written meanwhile is of a later revision.
            server.put(&format!("/v1/kv/a/{order}-{}", found.len()), "2").await;
            match page.cursor {
                Some(text) => cursor = format!("&cursor={text}"),
                None => break,
            }
        }
        if order == "desc" {
            found.reverse();
            found.retain(|key| !key.contains("asc"));
        }
        assert_eq!(found, ["a/1", "a/2", "a/3", "b", "é"], "{order}");
    }
}

#[tokio::test]
async fn ranges_that_make_no_sense_are_refused() {
    let server = start().await;
    fill(&server).await;
    for query in [
        "prefix=a&start=b",
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=x",
        "cursor=3.6",
        "cursor=3.61&revision=4",
        "order=up",
        "keys_only&count_only",
        "foo=1",
    ] {
        let answered = server.get(&format!("/v1/kv?{query}")).await;
        assert_eq!(answered.status, 400, "{query}: {answered:?}");
    }
    for query in ["", "?prefix=", "?start=a", "?prefix=a&all=true"] {
        let answered = server.delete(&format!("/v1/kv{query}")).await;
        let wanted = if query == "?start=a" { 200 } else { 400 };
        assert_eq!(answered.status, wanted, "{query}: {answered:?}");
    }
    assert_eq!(server.send("POST", "/v1/kv", &[], "").await.status, 405);
}

#[tokio::test]
async fn a_range_is_deleted_in_slices_and_a_retry_goes_through_them_again() {
    let server = start().await;
    for n in 0..1_100 {
        server.put(&format!("/v1/kv/many/{n:04}"), "1").await;
    }
    server.put("/v1/kv/other", "1").await;
    let delete = || server.send("DELETE", "/v1/kv?prefix=many/", &["idempotency-key: k"], "");
    let first = delete().await;
    let done: RangeDeleteAnswer = first.json();
    assert_eq!((done.deleted, done.revision), (1_100, 1_103), "two slices");
    let again = delete().await;
    assert_eq!((again.text(), again.header("idempotency-replayed")), (first.text(), Some("true")));
    assert_eq!(keys(&page(&server, "").await), ["other"]);
    let all: RangeDeleteAnswer = server.delete("/v1/kv?all=true").await.json();
    assert_eq!(all.deleted, 1);
}

async fn txn(server: &Server, body: &str) -> TxnAnswer {
    let answered = server.send("POST", "/v1/txn", &[JSON], body.to_owned()).await;
    assert_eq!(answered.status, 200, "{answered:?}");
    answered.json()
}

#[tokio::test]
async fn a_transaction_reads_and_writes_at_one_revision() {
    let server = start().await;
    server.put("/v1/kv/a", "{\"n\":1}").await;
    let body = r#"{"if":[{"key":"a","value":{"n":1}},{"key":"b","exists":false},{"key":"a","version":1},{"key":"a","revision":1}],
        "then":[{"get":{"key":"a"}},{"put":{"key":"a","value":2}},{"put":{"key":"b","value_base64":"/w==","content_type":"x/y"}},
                {"delete":{"key":"c"}},{"range":{"prefix":"a"}}],
        "else":[{"get":{"key":"b"}}]}"#;
    let done = txn(&server, body).await;
    assert!(done.succeeded && done.revision == 2, "{done:?}");
    match &done.results[..] {
        [
            OpResult::Get(Some(a)),
            OpResult::Put(put),
            OpResult::Put(_),
            OpResult::Delete(gone),
            OpResult::Range(found),
        ] => {
            assert_eq!((a.revision, put.key.as_str(), gone.deleted), (1, "a", false));
            assert_eq!(found.items.len(), 1, "as it was before");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.get("/v1/kv/b?raw").await.body[..], [0xFF]);
    let again = txn(&server, body).await;
    assert!(!again.succeeded && again.revision == 2, "{again:?}");
    assert!(matches!(&again.results[..], [OpResult::Get(Some(b))] if b.revision == 2), "{again:?}");
    let empty = txn(&server, "{}").await;
    assert!(empty.succeeded && empty.results.is_empty());
}

#[tokio::test]
async fn what_is_wrong_with_a_transaction_is_named_by_its_path() {
    let server = start().await;
    let long = "k".repeat(5_000);
    let ops: Vec<String> = (0..129).map(|n| format!(r#"{{"delete":{{"key":"k{n}"}}}}"#)).collect();
    for (body, path) in [
        (r#"{"if":[{"key":"a"}]}"#.to_owned(), "/if/0"),
        (r#"{"if":[{"key":"a","revision":1,"version":1}]}"#.to_owned(), "/if/0"),
        (r#"{"if":[{"key":"a","foo":1}]}"#.to_owned(), "/if/0"),
        (r#"{"if":[{"lock":"l"}]}"#.to_owned(), "/if/0"),
        (r#"{"if":[{"key":"","revision":1}]}"#.to_owned(), "/if/0/key"),
        (r#"{"then":[{"get":{"key":"a"}},{"move":{"key":"a"}}]}"#.to_owned(), "/then/1"),
        (r#"{"then":[{"put":{"key":"a","value":1}},{"delete":{"key":"a"}}]}"#.to_owned(), "/then/1"),
        (r#"{"then":[{"put":{"key":"a"}}]}"#.to_owned(), "/then/0/put"),
        (r#"{"then":[{"put":{"key":"a","value_base64":"!"}}]}"#.to_owned(), "/then/0/put/value_base64"),
        (r#"{"else":[{"range":{"prefix":"a","end":"b"}}]}"#.to_owned(), "/else/0/range"),
        (r#"{"else":[{"range":{"prefix":"a","limit":0}}]}"#.to_owned(), "/else/0/range/limit"),
        (format!(r#"{{"then":[{{"get":{{"key":"{long}"}}}}]}}"#), "/then/0/get/key"),
        (format!(r#"{{"then":[{}]}}"#, ops.join(",")), "/then"),
    ] {
        let problem = server.send("POST", "/v1/txn", &[JSON], body.clone()).await.problem();
        let found = (problem.code, problem.path.as_deref(), problem.outcome);
        assert_eq!(found, (Code::InvalidTxn, Some(path), Some(Outcome::NotApplied)), "{body}: {problem:?}");
    }
    let no_lease = r#"{"then":[{"put":{"key":"a","value":1,"lease":7}}]}"#;
    let problem = server.send("POST", "/v1/txn", &[JSON], no_lease).await.problem();
    assert_eq!((problem.code, problem.path.as_deref()), (Code::LeaseNotFound, Some("/then/0/put/lease")));
    assert_eq!(
        server.send("POST", "/v1/txn", &[JSON], r#"{"when":[]}"#).await.problem().code,
        Code::UnknownMember
    );
}

#[tokio::test]
async fn leases_are_granted_kept_shown_and_revoked() {
    let server = start().await;
    let granted: LeaseAnswer = server.send("POST", "/v1/leases", &[], r#"{"ttl":"10s"}"#).await.json();
    let (lease, ttl_ms) = (granted.lease, granted.ttl_ms);
    assert_eq!(ttl_ms, 10_000);
    let put = server.put(&format!("/v1/kv/a?lease={lease}"), "1").await;
    assert_eq!(put.status, 200, "{put:?}");
    server.put("/v1/kv/b?ttl=1m", "1").await;
    let state: LeaseState = server.get(&format!("/v1/leases/{lease}")).await.json();
    assert_eq!((state.keys, state.ttl_ms, state.more), (vec!["a".to_owned()], 10_000, false));
    let item = server.get("/v1/kv/a").await;
    // The engine of these tests has its log at 1 ms and says that it is 5 s by now.
    assert!(item.text().ends_with(&format!(r#","lease":{lease},"ttl_ms":5001}}"#)), "{}", item.text());
    let all: LeasesAnswer = server.get("/v1/leases").await.json();
    assert_eq!((all.leases.len(), all.more), (2, false));
    let kept: LeaseAnswer =
        server.send("POST", &format!("/v1/leases/{lease}/keepalive"), &[], "").await.json();
    assert_eq!(kept, granted);
    assert_eq!(server.delete(&format!("/v1/leases/{lease}")).await.status, 200);
    assert_eq!(server.get("/v1/kv/a").await.status, 404);
    for (method, target) in [("GET", ""), ("DELETE", ""), ("POST", "/keepalive")] {
        let problem = server.send(method, &format!("/v1/leases/{lease}{target}"), &[], "").await.problem();
        assert_eq!(problem.code, Code::LeaseNotFound, "{method}");
    }
    let late = server.put(&format!("/v1/kv/a?lease={lease}"), "1").await.problem();
    assert_eq!((late.code, late.outcome), (Code::LeaseNotFound, Some(Outcome::NotApplied)));
    for target in ["/v1/kv/a?ttl=10", "/v1/kv/a?ttl=1ms", "/v1/kv/a?lease=0", "/v1/kv/a?lease=1&ttl=1s"] {
        assert_eq!(server.put(target, "1").await.status, 400, "{target}");
    }
    assert_eq!(server.send("POST", "/v1/leases", &[], "{}").await.status, 400);
    assert_eq!(server.get("/v1/leases/x").await.status, 400);
}

#[tokio::test]
async fn locks_are_got_waited_for_and_released() {
    let server = start().await;
    let acquire = |body: &'static str| server.send("POST", "/v1/locks/jobs/a", &[], body);
    let first: LockAnswer = acquire(r#"{"ttl":"5s","key":"leader","value":"one"}"#).await.json();
    assert_eq!((first.name.as_str(), first.lease, first.ttl_ms), ("jobs/a", first.token, 5_000));
    let busy = acquire("").await.problem();
    assert_eq!((busy.code, busy.outcome), (Code::LockBusy, Some(Outcome::NotApplied)));
    assert_eq!(acquire(r#"{"wait":"30ms"}"#).await.problem().code, Code::LockBusy);
    let state: LockState = server.get("/v1/locks/jobs/a").await.json();
    let holder = state.holder.unwrap();
    assert_eq!((holder.token, holder.key.as_deref(), state.waiting), (first.token, Some("leader"), 0));
    let all: LocksAnswer = server.get("/v1/locks").await.json();
    assert_eq!(all.locks.len(), 1);

    let waiting = acquire(r#"{"wait":"20s","key":"leader","value":"two"}"#);
    let release = async {
        loop {
            let state: LockState = server.get("/v1/locks/jobs/a").await.json();
            if state.waiting == 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
        server.delete(&format!("/v1/locks/jobs/a?token={}", first.token)).await.json::<ReleaseAnswer>()
    };
    let (second, released) = tokio::join!(waiting, release);
    assert!(released.released);
    let second: LockAnswer = second.json();
    assert!(second.token > first.token);
    assert!(server.get("/v1/kv/leader").await.text().contains("\"two\""));
    let late: ReleaseAnswer = server.delete(&format!("/v1/locks/jobs/a?token={}", first.token)).await.json();
    assert!(!late.released);

    let fenced = |token: u64| {
        format!(
            r#"{{"if":[{{"lock":"jobs/a","token":{token}}}],"then":[{{"put":{{"key":"x","value":1}}}}]}}"#
        )
    };
    assert!(!txn(&server, &fenced(first.token)).await.succeeded);
    assert!(txn(&server, &fenced(second.token)).await.succeeded);
    server.delete(&format!("/v1/leases/{}", second.lease)).await;
    let state: LockState = server.get("/v1/locks/jobs/a").await.json();
    assert!(state.holder.is_none());
    assert_eq!(server.get("/v1/kv/leader").await.status, 404);

    for body in
        [r#"{"wait":"1h"}"#, r#"{"lease":0}"#, r#"{"ttl":"1s","lease":1}"#, r#"{"value":1}"#, r#"{"key":""}"#]
    {
        assert_eq!(acquire(body).await.status, 400, "{body}");
    }
    assert_eq!(acquire(r#"{"lease":999}"#).await.problem().code, Code::LeaseNotFound);
    assert_eq!(server.delete("/v1/locks/jobs/a").await.status, 400);
    assert_eq!(server.get("/v1/locks/").await.status, 400);
}
