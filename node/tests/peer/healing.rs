//! What breaks is told at once and heals by itself: restarts, moved addresses, lost names, silence.

use crate::support::{Event, Nobody, Node, RawStream, config, frame, hello, until, within};
use balsa_node::peer::{PeerConfig, Resolver};
use balsa_raft::NodeId;
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;
use tokio::net::TcpListener;

async fn message_arrives(from: &Node, to: &mut Node, text: &'static str) {
    assert!(from.hub.send(to.id, vec![Bytes::from(text)]));
    assert_eq!(to.messages(from.id, 1).await.0, [text]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_receiver_is_told_of_and_found_again() {
    let (mut one, mut two) = (Node::start(1).await, Node::start(2).await);
    one.know(&[&two]);
    for round in 0..3 {
        assert_eq!(one.event().await, Event::Connected(two.id));
        one.connected_to(two.id).await;
        message_arrives(&one, &mut two, "hello").await;
        assert_eq!(one.hub.stats()[0].message.connects, round + 1);
        two.stop_listening().await;
        assert_eq!(one.event().await, Event::Disconnected(two.id));
        assert!(!one.hub.send(two.id, vec![Bytes::from_static(b"lost")]));
        two.listen().await;
    }
    let stats = one.hub.stats().remove(0);
    assert_eq!(stats.message.dropped_frames, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moved_is_followed_and_one_that_left_is_dropped() {
    let (mut one, mut old, mut new) = (Node::start(1).await, Node::start(2).await, Node::start(2).await);
    one.know(&[&old]);
    assert_eq!(one.event().await, Event::Connected(old.id));
    message_arrives(&one, &mut old, "old").await;
    // The same again changes nothing.
    one.know(&[&old]);
    message_arrives(&one, &mut old, "still old").await;
    one.know(&[&new]);
    assert_eq!(one.event().await, Event::Disconnected(old.id));
    assert_eq!(one.event().await, Event::Connected(new.id));
    message_arrives(&one, &mut new, "new").await;
    assert_eq!(one.hub.stats()[0].address, new.address.to_string());
    // Where nobody is: nothing may be taken for a stream that is gone.
    one.hub.set_peers(vec![(new.id, "127.0.0.1:1".into())]);
    assert_eq!(one.event().await, Event::Disconnected(new.id));
    assert!(!one.hub.send(new.id, vec![Bytes::from_static(b"nowhere")]));
    one.know(&[&new]);
    assert_eq!(one.event().await, Event::Connected(new.id));
    message_arrives(&one, &mut new, "back").await;
    one.know(&[]);
    assert_eq!(one.event().await, Event::Disconnected(new.id));
    assert!(!one.hub.send(new.id, vec![Bytes::from_static(b"gone")]));
    assert!(within(one.hub.send_bulk(new.id, Bytes::new())).await.is_err());
    assert!(one.hub.stats().is_empty());
    until("its connections are gone", || new.inbound.stats().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_lookup_falls_back_to_the_address_that_last_answered() {
    let mut two = Node::start(2).await;
    let broken = Arc::new(AtomicBool::new(false));
    let resolver = {
        let (broken, address) = (broken.clone(), two.address);
        Resolver::new(move |name| {
            assert_eq!(name, "two.example:3300");
            let failed = broken.load(SeqCst);
            async move { if failed { Err(io::Error::other("no such name")) } else { Ok(vec![address]) } }
        })
    };
    let mut one = Node::start_with(1, config(), resolver).await;
    one.hub.set_peers(vec![(two.id, "two.example:3300".into())]);
    assert_eq!(one.event().await, Event::Connected(two.id));
    broken.store(true, SeqCst);
    two.stop_listening().await;
    assert_eq!(one.event().await, Event::Disconnected(two.id));
    two.listen().await;
    assert_eq!(one.event().await, Event::Connected(two.id));
    message_arrives(&one, &mut two, "found").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_addresses_of_a_name_are_tried() {
    let (mut two, three) = (Node::start(2).await, Node::start(3).await);
    let nobody = Nobody::home();
    let dead = nobody.address();
    // Nobody, another node, and the right one.
    let addresses: Vec<SocketAddr> = vec![dead, three.address, two.address];
    let resolver = Resolver::new(move |_| std::future::ready(Ok(addresses.clone())));
    let mut one = Node::start_with(1, config(), resolver).await;
    one.hub.set_peers(vec![(two.id, "peers.example:3300".into())]);
    assert_eq!(one.event().await, Event::Connected(two.id));
    message_arrives(&one, &mut two, "third time").await;
    assert_eq!(three.inbound.stats().accepted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dials_us_is_dialled_at_once() {
    let patient = PeerConfig {
        backoff_min_ms: 600_000,
        backoff_max_ms: 600_000,
        refused_backoff_ms: 600_000,
        ..config()
    };
    let mut one = Node::start_with(1, patient, Resolver::system()).await;
    let mut two = Node::start(2).await;
    two.stop_listening().await;
    one.know(&[&two]);
    until("the dial failed", || {
        let stats = one.hub.stats().remove(0);
        stats.message.failed_dials == 1 && stats.bulk.failed_dials == 1
    })
    .await;
    two.listen().await;
    two.know(&[&one]);
    assert_eq!(one.event().await, Event::Connected(two.id));
    one.connected_to(two.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moved_is_dialled_where_it_came_from_while_its_name_is_behind() {
    let nobody = Nobody::home();
    let dead = nobody.address();
    let behind = Resolver::new(move |_| std::future::ready(Ok(vec![dead])));
    let mut one = Node::start_with(1, config(), behind).await;
    let mut two = Node::start(2).await;
    one.hub.set_peers(vec![(two.id, format!("two.example:{}", two.address.port()))]);
    until("its name leads nowhere", || one.hub.stats()[0].message.failed_dials > 0).await;
    two.know(&[&one]);
    assert_eq!(one.event().await, Event::Connected(two.id));
    message_arrives(&one, &mut two, "found").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_on_either_side_ends_a_stream() {
    let impatient = PeerConfig { keepalive_interval_ms: 20, dead_peer_timeout_ms: 150, ..config() };
    // A receiver that accepts and then says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mute = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut sockets = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_exact(&mut [0; 100]).await.unwrap();
            let head = b"HTTP/1.1 200 OK\r\nBalsa-Protocol: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
            socket.write_all(head).await.unwrap();
            sockets.push(socket);
        }
    });
    let mut two = Node::start_with(2, impatient, Resolver::system()).await;
    two.hub.set_peers(vec![(NodeId(9), address.to_string())]);
    let connected = two.event().await;
    let since = Instant::now();
    assert_eq!(connected, Event::Connected(NodeId(9)));
    assert_eq!(two.event().await, Event::Disconnected(NodeId(9)));
    assert!(since.elapsed().as_millis() >= 100, "after {:?}", since.elapsed());
    // A sender that opened a stream and then says nothing.
    let mut silent = RawStream::open(two.address, "/peer/v1/stream", &hello(1, 1)).await;
    assert_eq!(silent.status, 200);
    silent.closed().await;
    until("counted as silent", || two.inbound.stats().silent == 1).await;
    mute.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_streams_live_on_by_keepalives() {
    let impatient = PeerConfig { keepalive_interval_ms: 20, dead_peer_timeout_ms: 2_000, ..config() };
    let mut one = Node::start_with(1, impatient.clone(), Resolver::system()).await;
    let mut two = Node::start_with(2, impatient, Resolver::system()).await;
    one.know(&[&two]);
    assert_eq!(one.event().await, Event::Connected(two.id));
    // An inbox that takes longer than the peer may be silent: slow is not dead, on either side.
    two.message_gate.send_replace(false);
    assert!(one.hub.send(two.id, vec![Bytes::from_static(b"slow")]));
    let since = Instant::now();
    until("twice the silence that would end a stream", || since.elapsed().as_millis() >= 4_000).await;
    assert_eq!(one.event_now(), None, "nothing broke");
    two.message_gate.send_replace(true);
    assert_eq!(two.messages(one.id, 1).await.0, ["slow"]);
    message_arrives(&one, &mut two, "and on").await;
    assert_eq!(two.inbound.stats().silent, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_hub_leaves_no_connection() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    one.know(&[&two]);
    one.connected_to(two.id).await;
    drop(one);
    until("its connections are gone", || two.inbound.stats().connections == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_and_response_run_at_the_same_time() {
    use tokio::io::AsyncReadExt;
    let lively = PeerConfig { keepalive_interval_ms: 5, ..config() };
    let mut node = Node::start_with(2, lively, Resolver::system()).await;
    let mut raw = RawStream::open(node.address, "/peer/v1/stream", &hello(1, 1)).await;
    let (mut signs_of_life, mut sent) = (0, 0_u64);
    while signs_of_life < 10 || sent < 10 {
        raw.write(&frame(&sent.to_le_bytes())).await;
        sent += 1;
        node.messages(NodeId(1), 1).await;
        let mut chunk = [0; 6];
        within(raw.socket.read_exact(&mut chunk)).await.unwrap();
        assert_eq!(&chunk, b"1\r\n.\r\n");
        signs_of_life += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_leaves_and_comes_back_is_told_of_in_that_order() {
    let (mut one, two) = (Node::start(1).await, Node::start(2).await);
    for _ in 0..50 {
        one.know(&[&two]);
        assert_eq!(one.event().await, Event::Connected(two.id));
        one.connected_to(two.id).await;
        // An inbox that takes its time with the goodbye; the bulk lane, which has none, is back meanwhile.
        one.goodbye_gate.send_replace(false);
        one.know(&[]);
        one.know(&[&two]);
        until("the bulk lane is back", || one.hub.stats()[0].bulk.connected).await;
        assert_eq!(one.event_now(), None);
        one.goodbye_gate.send_replace(true);
        assert_eq!(one.event().await, Event::Disconnected(two.id));
        assert_eq!(one.event().await, Event::Connected(two.id));
        assert!(one.hub.send(two.id, vec![Bytes::from_static(b"routed")]));
        one.know(&[]);
        assert_eq!(one.event().await, Event::Disconnected(two.id));
    }
}
