//! Connections: how many, for how long, and how they end.

use super::client::{read_to_end, send_bytes};
use super::server::{Mood, Setup, eventually, start, start_with};
use balsa_node::http::ConnectionLimits;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn limits(change: impl FnOnce(&mut ConnectionLimits)) -> Setup {
    let mut connections = ConnectionLimits::default();
    change(&mut connections);
    Setup { connections, ..Setup::default() }
}

/// Reads one answer's head and body off a connection that stays open.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        text.push(stream.read_u8().await.unwrap());
        let so_far = String::from_utf8_lossy(&text);
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return so_far.into_owned();
            }
        }
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 404 "));
    }
    // Two at once are answered in order.
    let two = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\nGET /livez HTTP/1.1\r\nhost: h\r\n\r\n";
    stream.write_all(two).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 404 "));
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = start_with(limits(|limits| limits.connections = 2)).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    let second = TcpStream::connect(server.address).await.unwrap();
    eventually("two are open", || server.metrics.connections.get() == 2).await;
    let answered = send_bytes(server.address, b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(answered.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answered}");
    assert!(answered.contains("retry-after: 1\r\n"), "{answered}");
    assert!(answered.contains("\"code\":\"overloaded\""), "{answered}");
    drop((first, second));
    eventually("they are gone", || server.metrics.connections.get() == 0).await;
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_answered_and_closed() {
    let server = start_with(limits(|limits| limits.head_timeout = Duration::from_millis(100))).await;
    for half in ["G", "GET /a HTTP/1.1\r\nhost: h\r\n"] {
        let answered = send_bytes(server.address, half.as_bytes()).await;
        assert!(answered.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answered}");
        assert!(answered.contains("\"code\":\"request_timeout\""), "{answered}");
        for header in ["balsa-cluster: 00000000000000c1\r\n", "balsa-term: 7\r\n", "connection: close\r\n"] {
            assert!(answered.contains(header), "{header} is not in {answered}");
        }
    }
    // A second request's head on a kept connection, too.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 404 "));
    stream.write_all(b"GET /a").await.unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_body_that_does_not_end_is_answered() {
    let mut setup = Setup::default();
    setup.limits.request_timeout = Duration::from_millis(100);
    let server = start_with(setup).await;
    let half = b"PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{\"value\":";
    let answered = send_bytes(server.address, half).await;
    assert!(answered.starts_with("HTTP/1.1 408 "), "{answered}");
    assert!(answered.contains("\"outcome\":\"not_applied\""), "{answered}");
    // Cut short instead.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(half).await.unwrap();
    stream.shutdown().await.unwrap();
    let answered = read_to_end(&mut stream).await;
    assert!(answered.starts_with("HTTP/1.1 400 "), "{answered}");
    assert!(answered.contains("\"code\":\"incomplete_body\""), "{answered}");
    assert_eq!(server.taken(), 0);
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let server = start_with(limits(|limits| limits.idle_timeout = Duration::from_millis(100))).await;
    let mut never_used = TcpStream::connect(server.address).await.unwrap();
    let mut used = TcpStream::connect(server.address).await.unwrap();
    used.write_all(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut used).await.starts_with("HTTP/1.1 404 "));
    assert_eq!(read_to_end(&mut never_used).await, "");
    assert_eq!(read_to_end(&mut used).await, "");
    eventually("both are gone", || server.metrics.connections.get() == 0).await;
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_its_answer() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 11\r\n\r\n{\"value\":1}").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_begins_nothing() {
    let mut setup = limits(|limits| {
        limits.leave_time = Duration::ZERO;
        limits.drain_timeout = Duration::from_secs(30);
    });
    setup.limits.request_timeout = Duration::from_millis(300);
    let mut server = start_with(setup).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    server.set_mood(Mood::Holds);
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    eventually("one is in flight", || server.taken() == 1).await;
    server.stop();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "nothing listens any more");
    assert!(read_to_end(&mut busy).await.starts_with("HTTP/1.1 503 "), "the one in flight is answered");
    server.served.await.unwrap();
}

#[tokio::test]
async fn a_server_that_leaves_says_so_before_it_is_gone() {
    let mut server = start_with(limits(|limits| limits.leave_time = Duration::from_secs(60))).await;
    let request = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut kept = TcpStream::connect(server.address).await.unwrap();
    kept.write_all(request).await.unwrap();
    assert!(!read_answer(&mut kept).await.contains("connection: close"));
    server.stop();
    // Until the server has heard of it, connections are kept; then the answer comes with the end of its connection.
    loop {
        kept.write_all(request).await.unwrap();
        if read_answer(&mut kept).await.contains("connection: close\r\n") {
            break;
        }
    }
    assert_eq!(read_to_end(&mut kept).await, "");
    assert_eq!(server.get("/livez").await.header("connection"), Some("close"));
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let mut server = start_with(limits(|limits| limits.drain_timeout = Duration::from_millis(100))).await;
    server.set_mood(Mood::Holds);
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    eventually("one is in flight", || server.taken() == 1).await;
    server.stop();
    assert_eq!(read_to_end(&mut busy).await, "");
    server.served.await.unwrap();
}

#[tokio::test]
async fn who_asks_before_sending_is_told_before_sending() {
    let server = start().await;
    for (target, status) in [("/clear", "400"), ("/a?x", "400"), ("/v1/kv/a", "413")] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "PUT {target} HTTP/1.1\r\nhost: h\r\ncontent-length: 3000000\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answered = read_to_end(&mut stream).await;
        assert!(answered.starts_with(&format!("HTTP/1.1 {status} ")), "{answered}");
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = b"PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 11\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"value\":1}").await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
}
