//! How long a small frame takes there and back. Printed (`--nocapture`), not judged: machines differ.

use crate::support::Node;
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
    crate::support::until("it is connected back", || hub.stats()[0].message.connected).await;
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
