//! Nothing grows without end, and nothing that arrives can do harm.

use crate::support::{Event, Node, RawStream, config, frame, hello, numbered, until, within};
use balsa_node::peer::{PeerConfig, Resolver};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATH: &str = "/peer/v1/stream";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_fills_a_bounded_queue_and_loses_nothing_that_was_accepted() {
    let small = PeerConfig {
        message_queue_bytes_max: 1 << 20,
        bulk_queue_bytes_max: 1 << 20,
        frame_bytes_max: 1 << 20,
        ..config()
    };
    let one = Node::start_with(1, small.clone(), Resolver::system()).await;
    let mut two = Node::start_with(2, small, Resolver::system()).await;
    two.message_gate.send_replace(false);
    two.bulk_gate.send_replace(false);
    one.know(&[&two]);
    one.connected_to(two.id).await;
    // Sockets hold some megabytes; then the queue fills, and stays full.
    let (mut accepted, mut refused, mut number) = (Vec::new(), 0, 0_u64);
    until("the queue is full for good", {
        let accepted = std::cell::RefCell::new(&mut accepted);
        let refused = std::cell::RefCell::new(&mut refused);
        let number = std::cell::RefCell::new(&mut number);
        let (hub, to) = (&one.hub, two.id);
        move || {
            for _ in 0..64 {
                let mut payload = vec![0; 16 << 10];
                payload[..8].copy_from_slice(&number.borrow().to_le_bytes());
                **number.borrow_mut() += 1;
                let payload = Bytes::from(payload);
                if hub.send(to, vec![payload.clone()]) {
                    accepted.borrow_mut().push(payload);
                    **refused.borrow_mut() = 0;
                } else {
                    **refused.borrow_mut() += 1;
                }
                assert!(hub.stats()[0].message.queue_bytes <= 1 << 20);
            }
            **refused.borrow() > 2_000
        }
    })
    .await;
    assert!(one.hub.stats()[0].message.dropped_frames > 2_000);
    // The bulk lane waits instead.
    let mut sent = 0;
    let stuck = loop {
        let mut send = Box::pin(one.hub.send_bulk(two.id, Bytes::from(vec![0; 1 << 19])));
        let patience = std::time::Duration::from_millis(500);
        match tokio::time::timeout(patience, &mut send).await {
            Ok(result) => result.expect("a bulk stream"),
            Err(_) => break send,
        }
        sent += 1;
        assert!(sent < 100, "50 MB went nowhere");
    };
    assert!(one.hub.stats()[0].bulk.queue_bytes <= 1 << 20);
    two.message_gate.send_replace(true);
    two.bulk_gate.send_replace(true);
    within(stuck).await.expect("there is room now");
    let (received, _) = two.messages(one.id, accepted.len()).await;
    assert!(received == accepted, "frames differ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_sender_that_waits_is_told_when_the_stream_breaks() {
    let (mut one, mut two) = (Node::start(1).await, Node::start(2).await);
    two.bulk_gate.send_replace(false);
    one.know(&[&two]);
    one.connected_to(two.id).await;
    assert_eq!(one.event().await, Event::Connected(two.id));
    let (hub, to) = (std::sync::Arc::new(one.hub), two.id);
    let pumping = hub.clone();
    let pump =
        tokio::spawn(
            async move { while pumping.send_bulk(to, Bytes::from(vec![0; 1 << 20])).await.is_ok() {} },
        );
    until("the bulk queue is full", || hub.stats()[0].bulk.queue_bytes > 7 << 20).await;
    two.stop_listening().await;
    within(pump).await.unwrap();
    assert_eq!(hub.stats()[0].bulk.queue_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_a_frame_or_too_much_at_once_is_not_taken() {
    let small = PeerConfig {
        message_queue_bytes_max: 10_000,
        bulk_queue_bytes_max: 10_000,
        frame_bytes_max: 8_000,
        ..config()
    };
    let one = Node::start_with(1, small.clone(), Resolver::system()).await;
    let mut two = Node::start_with(2, small, Resolver::system()).await;
    one.know(&[&two]);
    one.connected_to(two.id).await;
    assert!(!one.hub.send(two.id, vec![Bytes::from(vec![0; 8_001])]));
    assert!(!one.hub.send(two.id, numbered(11, 1_000)), "all or none");
    assert!(within(one.hub.send_bulk(two.id, Bytes::from(vec![0; 8_001]))).await.is_err());
    assert!(one.hub.send(two.id, vec![Bytes::from(vec![1; 8_000])]));
    assert_eq!(two.messages(one.id, 1).await.0, [vec![1; 8_000]]);
    let stats = one.hub.stats().remove(0);
    assert_eq!((stats.message.dropped_frames, stats.bulk.dropped_frames), (12, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_frames_close_the_stream_and_are_counted() {
    let mut node = Node::start(2).await;
    let mut too_large = frame(b"x");
    too_large[..4].copy_from_slice(&(9_u32 << 20).to_le_bytes());
    let mut damaged = frame(b"some payload");
    damaged[15] ^= 4;
    let mut unknown = frame(b"x");
    unknown[5] = 77;
    let garbage = b"GET / HTTP/1.1\r\nHost: there\r\n\r\n".to_vec();
    for (stream, bytes) in [too_large, damaged, unknown, garbage].into_iter().enumerate() {
        let mut raw = RawStream::open(node.address, PATH, &hello(1, stream as u64)).await;
        raw.write(&frame(b"good")).await;
        assert_eq!(node.messages(balsa_raft::NodeId(1), 1).await.0, ["good"]);
        raw.write(&bytes).await;
        raw.closed().await;
    }
    // Not even chunks of HTTP.
    let mut raw = RawStream::open(node.address, PATH, &hello(1, 9)).await;
    raw.socket.write_all(b"not a chunk\r\n").await.unwrap();
    raw.closed().await;
    // Half a frame, and the end.
    let mut raw = RawStream::open(node.address, PATH, &hello(1, 10)).await;
    raw.write(&frame(b"cut off")[..14]).await;
    drop(raw);
    until("all are closed", || node.inbound.stats().connections == 0).await;
    let stats = node.inbound.stats();
    assert_eq!(stats.frames_too_large, 1);
    assert_eq!(stats.frames_damaged, 1);
    assert_eq!(stats.frames_unknown, 2);
    assert_eq!(node.event_now(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_cut_anywhere_are_put_together() {
    let mut node = Node::start(2).await;
    let mut raw = RawStream::open(node.address, PATH, &hello(1, 1)).await;
    let payloads = numbered(20, 37);
    let bytes: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
    for piece in bytes.chunks(11) {
        raw.write(piece).await;
    }
    assert_eq!(node.messages(balsa_raft::NodeId(1), 20).await.0, payloads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_are_closed_and_idle_ones_make_room() {
    let few = PeerConfig { inbound_connections_max: 3, request_timeout_ms: 300, ..config() };
    let node = Node::start_with(2, few, Resolver::system()).await;
    let mut stream = RawStream::open(node.address, PATH, &hello(1, 1)).await;
    assert_eq!(stream.status, 200);
    let idle =
        [TcpStream::connect(node.address).await.unwrap(), TcpStream::connect(node.address).await.unwrap()];
    until("they are open", || node.inbound.stats().connections == 3).await;
    let mut beyond = TcpStream::connect(node.address).await.unwrap();
    let read = within(beyond.read(&mut [0; 8])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(node.inbound.stats().over_limit, 1);
    // Those that ask for nothing are closed in time; the stream is not.
    for mut socket in idle {
        let mut rest = Vec::new();
        let _ = within(socket.read_to_end(&mut rest)).await;
    }
    until("there is room", || node.inbound.stats().connections == 1).await;
    stream.write(&frame(b"lives")).await;
    assert_eq!(RawStream::open(node.address, "/peer/v1/bulk", &hello(1, 1)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_none_are_answered_or_closed() {
    let mut node = Node::start(2).await;
    let endless_header = format!("POST {PATH} HTTP/1.1\r\nX: {}", "y".repeat(1 << 20));
    let many_headers = format!("POST {PATH} HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    let requests = [
        "\0\u{1}\u{2}\u{ff}garbage",
        "\r\n\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST /peer/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /peer/v1/stream HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /peer/v1/control HTTP/1.1\r\nBalsa-Protocol: 1\r\nContent-Length: 99999999999\r\n\r\n",
        "POST /peer/v1/control HTTP/1.1\r\nBalsa-Protocol: 1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &endless_header,
        &many_headers,
    ];
    for request in requests {
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        // It may be closed before the whole was written.
        let _ = socket.write_all(request.as_bytes()).await;
        let _ = socket.shutdown().await;
        let _ = within(socket.read_to_end(&mut Vec::new())).await;
    }
    until("all are closed", || node.inbound.stats().connections == 0).await;
    assert_eq!((node.inbound.stats().accepted, node.event_now()), (0, None));
}
