//! Values: JSON byte for byte, raw bytes with their type, and how each is read.

use super::server::start;
use balsa_wire::kv::Item;
use balsa_wire::problem::Code;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::sync::Arc;

#[tokio::test]
async fn json_is_kept_byte_for_byte() {
    let server = start().await;
    for value in [
        "18446744073709551617",
        "1.0",
        "1e400",
        "0.1000",
        "-0",
        "null",
        "true",
        "{ \"b\" : 1,\t\"a\":2, \"b\":3 }",
        "\"\\u0041\\/\\ud83d\\ude00\"",
        "[]",
        "\"\"",
    ] {
        server.put("/v1/kv/a", value).await;
        let got = server.get("/v1/kv/a").await;
        assert_eq!(got.json::<Item>().value.unwrap().get(), value);
        let raw = server.get("/v1/kv/a?raw").await;
        assert_eq!((raw.text(), raw.header("content-type")), (value, Some("application/json")));
    }
}

/// Any JSON text, with white space and numbers that no float holds.
fn json() -> impl Strategy<Value = String> {
    let string = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<f64>().prop_filter("a JSON number", |n| n.is_finite()).prop_map(|n| format!("{n:?}")),
        (any::<u128>(), 0..400).prop_map(|(n, e)| format!("{n}e{e}")),
        any::<u128>().prop_map(|n| n.to_string()),
        string.clone(),
    ];
    let space = prop_oneof![Just(""), Just(" "), Just("\n\t ")];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        let member =
            (string.clone(), space.clone(), inner.clone()).prop_map(|(k, s, v)| format!("{k}{s}:{s}{v}"));
        prop_oneof![
            (proptest::collection::vec(inner, 0..8), space.clone())
                .prop_map(|(items, s)| format!("[{s}{}{s}]", items.join(&format!("{s},")))),
            (proptest::collection::vec(member, 0..8), space.clone())
                .prop_map(|(members, s)| format!("{{{s}{}{s}}}", members.join(&format!(",{s}")))),
        ]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_json_survives() {
    let server = Arc::new(start().await);
    let runtime = tokio::runtime::Handle::current();
    let run = tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(ProptestConfig { cases: 64, ..ProptestConfig::default() });
        runner.run(&json(), |value| {
            runtime.block_on(async {
                prop_assert_eq!(server.put("/a", &value).await.status, 200);
                let got = server.get("/a").await;
                let item: Item = got.json();
                let kept = item.value.unwrap();
                prop_assert_eq!(kept.get(), value.as_str());
                let raw = server.send("GET", "/a", &["accept: application/octet-stream"], "").await;
                prop_assert_eq!(raw.text(), value.as_str());
                Ok(())
            })
        })
    });
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn raw_bytes_keep_their_type() {
    let server = start().await;
    for (content_type, kept, bytes) in [
        (Some("text/plain; charset=utf-8"), "text/plain; charset=utf-8", &b"he said \"hi\"\n\x01"[..]),
        (Some("image/png"), "image/png", &b"\x89PNG\xff\x00"[..]),
        (None, "application/octet-stream", &b"{\"value\":1}"[..]),
        (None, "application/octet-stream", &b""[..]),
    ] {
        let header = content_type.map(|content_type| format!("content-type: {content_type}"));
        let headers: Vec<&str> = header.iter().map(String::as_str).collect();
        let put = server.send("PUT", "/v1/kv/a", &headers, bytes).await;
        assert_eq!(put.status, 200);
        for raw in [
            server.get("/v1/kv/a?raw").await,
            server.send("GET", "/v1/kv/a", &["accept: application/octet-stream"], "").await,
            server.get("/a?raw").await,
        ] {
            assert_eq!(raw.header("content-type"), Some(kept));
            assert_eq!(raw.body, bytes);
            // A page among the values must not act for whoever looks at it.
            assert_eq!(raw.header("content-security-policy"), Some("sandbox; default-src 'none'"));
            assert_eq!(raw.header("x-content-type-options"), Some("nosniff"));
        }
        let item: Item = server.get("/v1/kv/a").await.json();
        assert_eq!(item.content_type.as_deref(), Some(kept));
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                assert_eq!(serde_json::from_str::<String>(item.value.unwrap().get()).unwrap(), text);
                assert_eq!(item.value_base64, None);
            }
            Err(_) => {
                assert!(item.value.is_none());
                assert_eq!(item.value_base64.as_deref(), Some("iVBOR/8A"));
            }
        }
    }
}

#[tokio::test]
async fn a_form_is_told_what_to_do() {
    let server = start().await;
    for form in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let put = server.send("PUT", "/v1/kv/a", &[&format!("content-type: {form}")], "value=1").await;
        let problem = put.problem();
        assert_eq!((put.status, problem.code), (415, Code::UnsupportedMediaType));
        let line = "curl -X PUT -H 'Content-Type: application/json' -d '{\"value\": \"text\"}' http://HOST/v1/kv/KEY";
        assert!(problem.detail.contains(line), "{problem:?}");
    }
    for target in ["/a", "/v1/kv/a"] {
        let headers = &["content-type: application/json", "content-encoding: gzip"];
        assert_eq!(server.send("PUT", target, headers, "{\"value\":1}").await.status, 415);
    }
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn a_body_that_is_no_envelope_is_refused() {
    let server = start().await;
    for (body, code, says) in [
        ("", Code::InvalidJson, "EOF"),
        ("exampleValue", Code::InvalidJson, "expected value"),
        ("{\"value\":", Code::InvalidJson, "EOF"),
        ("{\"value\":1}}", Code::InvalidJson, "trailing"),
        ("{\"value\":1,}", Code::InvalidJson, "trailing comma"),
        ("{}", Code::InvalidJson, "missing field `value`"),
        ("[1]", Code::InvalidJson, "array"),
        ("{\"value\":1,\"value\":2}", Code::InvalidJson, "duplicate field `value`"),
        ("{\"value\":1,\"ttl\":\"3s\"}", Code::UnknownMember, "`ttl`"),
        ("{\"Value\":1}", Code::UnknownMember, "`Value`"),
    ] {
        for target in ["/a", "/v1/kv/a"] {
            let put = server.send("PUT", target, &["content-type: application/json"], body).await;
            let problem = put.problem();
            assert_eq!((put.status, problem.code), (400, code), "{body}");
            assert!(problem.detail.contains(says), "{body}: {}", problem.detail);
        }
    }
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn a_chunked_body_is_a_body() {
    let server = start().await;
    let request = b"PUT /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
        5\r\n{\"val\r\n4\r\nue\":\r\n3\r\n1 }\r\n0\r\n\r\n";
    let answered = super::client::send_bytes(server.address, request).await;
    assert!(answered.starts_with("HTTP/1.1 200 OK\r\n"), "{answered}");
    assert_eq!(server.get("/a").await.json::<Item>().value.unwrap().get(), "1");
}
