//! What is refused before anything is asked of the engine: routes, methods, names, parameters, origins.

use super::client::send_bytes;
use super::server::start;
use balsa_wire::problem::{Code, Outcome};

#[tokio::test]
async fn reserved_names_are_no_keys_at_the_root() {
    let server = start().await;
    for name in ["v1", "clear", "metrics", "livez", "readyz", "healthz", "ui", "openapi.json", "favicon.ico"]
    {
        for method in ["PUT", "DELETE"] {
            let body = if method == "PUT" { "{\"value\":1}" } else { "" };
            for target in [format!("/{name}"), format!("/%{:02x}{}", name.as_bytes()[0], &name[1..])] {
                let answered = server.send(method, &target, &[], body).await;
                let problem = answered.problem();
                assert_eq!((answered.status, problem.code), (400, Code::ReservedName), "{method} {target}");
                assert!(problem.detail.contains("/v1/kv/{key}"), "{problem:?}");
                assert_eq!(problem.outcome, Some(Outcome::NotApplied));
            }
        }
        assert_eq!(server.put(&format!("/v1/kv/{name}"), "1").await.status, 200);
        assert_eq!(server.get(&format!("/v1/kv/{name}")).await.status, 200);
    }
    for target in ["/v1", "/ui", "/favicon.ico"] {
        assert_eq!(server.get(target).await.problem().code, Code::NoSuchRoute, "{target}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let server = start().await;
    let key = "GET, HEAD, PUT, DELETE";
    for (method, target, allow) in [
        ("POST", "/a", key),
        ("PATCH", "/v1/kv/a", key),
        ("OPTIONS", "/a", key),
        ("BREW", "/a", key),
        ("GET", "/clear", "POST"),
        ("GET", "/v1/sessions", "POST"),
        ("PUT", "/v1/cluster", "GET, HEAD"),
        ("GET", "/v1/cluster/members", "POST"),
        ("GET", "/v1/cluster/members/1", "DELETE"),
        ("GET", "/v1/cluster/members/1/promote", "POST"),
        ("GET", "/v1/cluster/transfer-leadership", "POST"),
        ("POST", "/livez", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
    ] {
        let answered = server.send(method, target, &[], "").await;
        assert_eq!((answered.status, answered.header("allow")), (405, Some(allow)), "{method} {target}");
        assert_eq!(answered.problem().code, Code::MethodNotAllowed);
    }
}

#[tokio::test]
async fn unknown_parameters_are_named() {
    let server = start().await;
    for (method, target, says) in [
        ("GET", "/a?foo=1", "`foo`"),
        ("GET", "/a?prev", "`prev`"),
        ("PUT", "/a?raw", "`raw`"),
        ("DELETE", "/v1/kv/a?x%20y", "`x y`"),
        ("POST", "/clear?all", "`all`"),
        ("POST", "/v1/sessions?ttl=1", "`ttl`"),
        ("PUT", "/v1/kv/a?revision=1", "`revision`"),
        ("POST", "/v1/compact?x", "`x`"),
        ("GET", "/v1/cluster?x", "`x`"),
        ("POST", "/v1/cluster/transfer-leadership?x", "`x`"),
        ("GET", "/livez?verbose", "`verbose`"),
        ("GET", "/readyz?x", "`x`"),
        ("GET", "/metrics?x", "`x`"),
    ] {
        let body = if method == "PUT" { "{\"value\":1}" } else { "" };
        let answered = server.send(method, target, &[], body).await;
        let problem = answered.problem();
        assert_eq!((answered.status, problem.code), (400, Code::UnknownParameter), "{target}");
        assert!(problem.detail.contains(says), "{target}: {}", problem.detail);
    }
    for target in ["/a?raw=maybe", "/a?consistency=lease", "/a?raw&raw", "/a?consistency=%"] {
        assert_eq!(server.get(target).await.problem().code, Code::InvalidParameter, "{target}");
    }
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn bodies_with_members_that_nobody_asked_for_are_refused() {
    let server = start().await;
    for (method, target) in [("DELETE", "/a"), ("POST", "/clear"), ("POST", "/v1/sessions")] {
        let answered = server.send(method, target, &[], "{\"prefix\":\"a\"}").await;
        assert_eq!((answered.status, answered.problem().code), (400, Code::UnknownMember), "{target}");
        assert!(answered.problem().detail.contains("`prefix`"));
        let answered = server.send(method, target, &[], "x".repeat(20_000)).await;
        assert_eq!((answered.status, answered.problem().code), (413, Code::TooLarge), "{target}");
    }
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn a_refusal_is_read_even_by_who_is_still_sending() {
    let server = start().await;
    let large = format!("{{\"value\":\"{}\"}}", "v".repeat(4_000_000));
    for (method, target, status) in [
        ("PUT", "/clear", 400),
        ("PUT", "/a?x", 400),
        ("PATCH", "/a", 405),
        ("POST", "/no/route", 404),
        ("PUT", "/a", 413),
    ] {
        let answered = server.send(method, target, &[], large.clone()).await;
        assert_eq!(answered.status, status, "{target}");
        answered.problem();
    }
}

#[tokio::test]
async fn there_is_nothing_at_other_paths() {
    let server = start().await;
    for target in
        ["/", "//", "/a/", "/v1/", "/v1/txn/", "/v1/nothing", "/v1/cluster/", "/v1/cluster/members//promote"]
    {
        for method in ["GET", "PUT", "POST", "DELETE"] {
            let answered = server.send(method, target, &[], "").await;
            let problem = answered.problem();
            assert_eq!((answered.status, problem.code), (404, Code::NoSuchRoute), "{method} {target}");
            assert_eq!(problem.outcome.is_some(), method != "GET");
        }
    }
}

#[tokio::test]
async fn web_pages_of_others_are_refused() {
    let server = start().await;
    let own = format!("origin: http://{}", server.address);
    let elsewhere = [
        &["origin: http://evil.example"][..],
        &["origin: null"],
        &["origin: http://localhost"],
        &["sec-fetch-site: cross-site"],
        &[&own, "sec-fetch-site: cross-site"],
    ];
    for headers in elsewhere {
        for (method, target) in [
            ("POST", "/clear"),
            ("GET", "/a"),
            ("PUT", "/v1/kv/a"),
            ("GET", "/v1/cluster"),
            ("GET", "/metrics"),
        ] {
            let answered = server.send(method, target, headers, "").await;
            assert_eq!((answered.status, answered.problem().code), (403, Code::CrossOrigin), "{headers:?}");
        }
    }
    assert_eq!(server.taken(), 0);
    for headers in [&[own.as_str(), "sec-fetch-site: same-origin"][..], &["sec-fetch-site: none"], &[]] {
        assert_eq!(server.send("POST", "/clear", headers, "").await.status, 200);
    }
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_closed() {
    let server = start().await;
    for (bytes, status) in [
        (&b"nonsense\r\n\r\n"[..], "400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "400"),
        (b"PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n", "400"),
        (b"GET /\xff HTTP/1.1\r\nhost: h\r\n\r\n", "400"),
    ] {
        let answered = send_bytes(server.address, bytes).await;
        assert!(answered.starts_with(&format!("HTTP/1.1 {status} ")), "{answered}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: h\r\n\r\n", "a".repeat(70_000));
    let answered = send_bytes(server.address, long.as_bytes()).await;
    assert!(answered.starts_with("HTTP/1.1 414 "), "{answered}");
    let many = format!("GET /a HTTP/1.1\r\nhost: h\r\n{}\r\n", "x: y\r\n".repeat(200));
    let answered = send_bytes(server.address, many.as_bytes()).await;
    assert!(answered.starts_with("HTTP/1.1 431 "), "{answered}");
    assert_eq!(server.get("/livez").await.status, 200);
}
