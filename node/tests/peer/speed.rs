//! How long a small frame takes there and back, and how much goes through. Printed (`--nocapture`), not judged:
//! machines differ.

use crate::support::{Event, Node, numbered, until};
use balsa_node::peer::{Inbound, Inbox, LocalIdentity, PeerHub, serve_peers};
use balsa_raft::NodeId;
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Sends back what it gets, as the engine of a follower would.
#[derive(Clone, Default)]
struct Echo(Arc<OnceLock<Arc<PeerHub>>>);

impl Inbox for Echo {
    async fn message(&self, from: NodeId, frames: Vec<Bytes>) {
        if let Some(hub) = self.0.get() {
            hub.send(from, frames);
        }
    }
    async fn connected(&self, _: NodeId) {}
    async fn disconnected(&self, _: NodeId) {}
    async fn removed(&self, _: NodeId) {}
    async fn control(&self, payload: Bytes) -> Bytes {
        payload
    }
    async fn bulk(&self, _: NodeId, _: Vec<Bytes>) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_frame_there_and_back() {
    let mut one = Node::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let local = LocalIdentity { cluster: crate::support::CLUSTER, node: NodeId(2), incarnation: 1 };
    let (echo, inbound, config) = (Echo::default(), Inbound::default(), crate::support::config());
    let runtime = tokio::runtime::Handle::current();
    let hub = PeerHub::start(config.clone(), local, echo.clone(), inbound.clone(), runtime);
    let hub = Arc::new(hub);
    hub.set_peers(vec![(one.id, one.address.to_string())]);
    assert!(echo.0.set(hub.clone()).is_ok());
    let (_identity, identity) = watch::channel(Some(local));
    let server = tokio::spawn(serve_peers(listener, config, identity, echo, inbound, std::future::pending()));
    one.hub.set_peers(vec![(NodeId(2), address)]);
    one.connected_to(NodeId(2)).await;
    until("it is connected back", || hub.stats()[0].message.connected).await;
    let payload = Bytes::from(vec![5; 300]);
    let mut trips_us = Vec::new();
    for _ in 0..2_000 {
        let since = Instant::now();
        assert!(one.hub.send(NodeId(2), vec![payload.clone()]));
        assert_eq!(one.messages(NodeId(2), 1).await.0.concat(), payload);
        trips_us.push(since.elapsed().as_micros());
    }
    trips_us.sort_unstable();
    let (median, p99) = (trips_us[trips_us.len() / 2], trips_us[trips_us.len() * 99 / 100]);
    println!("300 bytes there and back: median {median} us, p99 {p99} us");
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_small_frames_and_of_large_ones() {
    let (one, mut two) = (Node::start(1).await, Node::start(2).await);
    one.know(&[&two]);
    one.connected_to(two.id).await;
    let frames = numbered(20, 300);
    let since = Instant::now();
    let (mut sent, mut received, mut batches) = (0, 0, 0);
    while received < 100_000 {
        while sent < 100_000 && one.hub.send(two.id, frames.clone()) {
            sent += frames.len();
        }
        if let Event::Message(_, batch) = two.event().await {
            (received, batches) = (received + batch.len(), batches + 1);
        }
    }
    let seconds = since.elapsed().as_secs_f64();
    println!("frames of 300 bytes: {:.0} a second, {batches} batches", received as f64 / seconds);
    assert_eq!((sent, received), (100_000, 100_000));
    let large = numbered(1, 1 << 20).remove(0);
    let since = Instant::now();
    for _ in 0..128 {
        one.hub.send_bulk(two.id, large.clone()).await.expect("a bulk stream");
    }
    let mut received = 0;
    while received < 128 {
        if let Event::Bulk(_, batch) = two.event().await {
            received += batch.len();
        }
    }
    println!("frames of 1 MiB: {:.0} MiB a second", 128.0 / since.elapsed().as_secs_f64());
}
