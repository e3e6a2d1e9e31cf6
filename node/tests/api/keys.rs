//! Keys: the root shorthand, `/v1/kv`, and clear.

use super::server::{Setup, start, start_with};
use balsa_wire::kv::{ClearAnswer, DeleteAnswer, Item, PutAnswer};
use balsa_wire::percent;
use balsa_wire::problem::Code;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::sync::Arc;

#[tokio::test]
async fn the_four_lines_that_every_user_knows() {
    let server = start().await;
    let put = server.put("/exampleKey", "\"exampleValue\"").await;
    assert_eq!((put.status, put.text()), (200, r#"{"key":"exampleKey","revision":1}"#));
    assert_eq!(put.header("content-type"), Some("application/json"));
    let got = server.get("/exampleKey").await;
    let envelope =
        r#"{"key":"exampleKey","value":"exampleValue","revision":1,"create_revision":1,"version":1}"#;
    assert_eq!((got.status, got.text()), (200, envelope));
    let deleted = server.delete("/exampleKey").await;
    assert_eq!(
        (deleted.status, deleted.text()),
        (200, r#"{"key":"exampleKey","deleted":true,"revision":2}"#)
    );
    let again = server.delete("/exampleKey").await;
    assert_eq!(again.text(), r#"{"key":"exampleKey","deleted":false,"revision":2}"#);
    assert_eq!(server.get("/exampleKey").await.problem().code, Code::KeyNotFound);
    server.put("/a", "1").await;
    server.put("/b", "2").await;
    let cleared = server.send("POST", "/clear", &[], "").await;
    assert_eq!((cleared.status, cleared.text()), (200, r#"{"deleted":2,"revision":5}"#));
    let cleared: ClearAnswer = server.send("POST", "/clear", &[], "{}").await.json();
    assert_eq!(cleared, ClearAnswer { deleted: 0, revision: 5 });
}

#[tokio::test]
async fn curl_sends_a_form_type_and_the_root_does_not_mind() {
    let server = start().await;
    let form = &["content-type: application/x-www-form-urlencoded"];
    assert_eq!(server.send("PUT", "/a", form, r#"{"value":{"b":[1]}}"#).await.status, 200);
    assert_eq!(server.send("PUT", "/b", &[], r#"{"value":2}"#).await.status, 200);
    assert_eq!(server.get("/a").await.json::<Item>().value.unwrap().get(), r#"{"b":[1]}"#);
}

#[tokio::test]
async fn revisions_and_versions_count_as_the_contract_says() {
    let server = start().await;
    for (value, revision, version) in [("1", 1, 1), ("1", 2, 2), ("2", 3, 3)] {
        let put: PutAnswer = server.put("/v1/kv/a", value).await.json();
        assert_eq!(put.revision, revision);
        let item: Item = server.get("/a").await.json();
        assert_eq!((item.revision, item.create_revision, item.version), (revision, 1, version));
    }
    server.delete("/v1/kv/a").await;
    server.put("/a", "3").await;
    let item: Item = server.get("/v1/kv/a").await.json();
    assert_eq!((item.revision, item.create_revision, item.version), (5, 5, 1));
}

#[tokio::test]
async fn nothing_in_a_path_is_normalised() {
    let server = start().await;
    for key in ["/a", "a/", "a//b", ".", "a/./b", "a/../b", "v1/kv/x", "clear", "v1", "a+b", "a%2Fb"] {
        server.put(&format!("/v1/kv/{key}"), &format!("\"{key}\"")).await;
    }
    for key in ["/a", "a/", "a//b", ".", "a/./b", "a/../b", "v1/kv/x", "clear", "v1", "a+b"] {
        let item: Item = server.get(&format!("/v1/kv/{key}")).await.json();
        assert_eq!(item.key, key);
        assert_eq!(item.value.unwrap().get(), format!("\"{key}\""));
    }
    // Percent-encoded or not, it is the same key, at the root too.
    assert_eq!(server.get("/v1/kv/a/b").await.json::<Item>().value.unwrap().get(), "\"a%2Fb\"");
    assert_eq!(server.get("/a%2Fb").await.json::<Item>().key, "a/b");
    assert_eq!(server.get("/a%2F%2Fb").await.json::<Item>().key, "a//b");
    assert_eq!(server.get("/a/b").await.problem().code, Code::NoSuchRoute);
    assert!(server.get("/a/b").await.problem().detail.contains("/v1/kv/{key}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_key_survives() {
    let server = Arc::new(start().await);
    let runtime = tokio::runtime::Handle::current();
    let run = tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(ProptestConfig { cases: 64, ..ProptestConfig::default() });
        let keys = proptest::collection::vec(any::<char>(), 1..40).prop_map(String::from_iter);
        runner.run(&keys, |key| {
            runtime.block_on(async {
                let path = format!("/v1/kv/{}", percent::encode_path(&key));
                let put: PutAnswer = server.put(&path, "1").await.json();
                prop_assert_eq!(&put.key, &key);
                let target = format!("/v1/kv/{}", percent::encode_segment(&key));
                let item: Item = server.get(&target).await.json();
                prop_assert_eq!((&item.key, item.revision), (&key, put.revision));
                let deleted: DeleteAnswer = server.delete(&path).await.json();
                prop_assert!(deleted.deleted);
                Ok(())
            })
        })
    });
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn prev_tells_what_was_there() {
    let server = start().await;
    assert_eq!(server.put("/v1/kv/a?prev", "1").await.text(), r#"{"key":"a","revision":1,"prev":null}"#);
    let put = server.put("/a?prev=true", "2").await;
    let before = r#"{"key":"a","value":1,"revision":1,"create_revision":1,"version":1}"#;
    assert_eq!(put.text(), format!(r#"{{"key":"a","revision":2,"prev":{before}}}"#));
    let deleted: DeleteAnswer = server.delete("/v1/kv/a?prev").await.json();
    assert_eq!(deleted.prev.unwrap().value.unwrap().get(), "2");
    let absent = server.delete("/v1/kv/a?prev").await;
    assert_eq!(absent.text(), r#"{"key":"a","deleted":false,"revision":3,"prev":null}"#);
    assert_eq!(server.put("/a?prev=false", "3").await.text(), r#"{"key":"a","revision":4}"#);
}

#[tokio::test]
async fn keys_have_a_limit() {
    let server = start().await;
    let longest = "k".repeat(4096);
    for prefix in ["/", "/v1/kv/"] {
        assert_eq!(server.put(&format!("{prefix}{longest}"), "1").await.status, 200);
        let put = server.put(&format!("{prefix}{longest}k"), "1").await;
        let problem = put.problem();
        assert_eq!((put.status, problem.code, problem.limit_bytes), (400, Code::KeyTooLong, Some(4096)));
        assert!(problem.detail.contains("4097 bytes"), "{problem:?}");
    }
    // Bytes of UTF-8, not characters, and not the bytes of the path.
    assert_eq!(server.put(&format!("/v1/kv/{}", "%D0%BA".repeat(2048)), "1").await.status, 200);
    assert_eq!(server.put(&format!("/v1/kv/{}", "%D0%BA".repeat(2049)), "1").await.status, 400);
    for target in ["/v1/kv/", "/v1/kv/%", "/v1/kv/%FF", "/%zz"] {
        let put = server.put(target, "1").await;
        assert_eq!((put.status, put.problem().code), (400, Code::InvalidKey), "{target}");
        assert_eq!(server.get(target).await.problem().outcome, None);
    }
}

#[tokio::test]
async fn a_value_and_its_body_have_limits() {
    let mut setup = Setup::default();
    setup.limits.value_bytes = 100;
    let server = start_with(setup).await;
    let largest = format!("\"{}\"", "v".repeat(98));
    assert_eq!(server.put("/a", &largest).await.status, 200);
    assert_eq!(
        server.send("PUT", "/v1/kv/a", &["content-type: text/plain"], "v".repeat(100)).await.status,
        200
    );
    for size in [101, 2_000, 3_000_000] {
        let value = format!("\"{}\"", "v".repeat(size - 2));
        for answered in [
            server.put("/a", &value).await,
            server.put("/v1/kv/a", &value).await,
            server.send("PUT", "/v1/kv/a", &["content-type: text/plain"], "v".repeat(size)).await,
        ] {
            let problem = answered.problem();
            assert_eq!((answered.status, problem.code), (413, Code::TooLarge), "{size}");
            assert_eq!(problem.limit_bytes, Some(100));
            assert_eq!(problem.outcome, Some(balsa_wire::problem::Outcome::NotApplied));
        }
    }
    assert_eq!(server.get("/a").await.json::<Item>().revision, 2);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = start().await;
    server.put("/a", "[1,2]").await;
    for target in ["/a", "/v1/kv/a", "/v1/kv/a?raw", "/v1/kv/missing", "/livez", "/v1/cluster"] {
        let got = server.get(target).await;
        let head = server.send("HEAD", target, &[], "").await;
        assert!(head.body.is_empty());
        assert_eq!(head.status, got.status, "{target}");
        for name in ["content-type", "content-length", "etag", "vary", "balsa-revision"] {
            assert_eq!(head.header(name), got.header(name), "{target}: {name}");
        }
        assert_eq!(head.header("content-length"), Some(got.body.len().to_string().as_str()));
    }
}
