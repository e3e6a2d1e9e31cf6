//! Nodes with an inbox that writes down what it is told, and raw streams that misbehave.

use balsa_node::peer::{Inbound, Inbox, LocalIdentity, PeerConfig, PeerHub, Resolver, serve_peers};
use balsa_raft::NodeId;
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) const CLUSTER: u64 = 0xba15a;

/// What an inbox was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Message(NodeId, Vec<Bytes>),
    Bulk(NodeId, Vec<Bytes>),
    Connected(NodeId),
    Disconnected(NodeId),
    Removed(NodeId),
}

#[derive(Clone)]
pub(crate) struct RecordingInbox {
    events: mpsc::UnboundedSender<Event>,
    message_gate: watch::Receiver<bool>,
    bulk_gate: watch::Receiver<bool>,
    goodbye_gate: watch::Receiver<bool>,
}

impl RecordingInbox {
    fn tell(&self, event: Event) {
        // A test that no longer looks is normal.
        let _ = self.events.send(event);
    }
}

async fn pass(gate: &watch::Receiver<bool>) {
    // A gate that is gone with its test holds nobody up.
    let _ = gate.clone().wait_for(|open| *open).await;
}

impl Inbox for RecordingInbox {
    async fn message(&self, from: NodeId, frames: Vec<Bytes>) {
        pass(&self.message_gate).await;
        self.tell(Event::Message(from, frames));
    }

    async fn connected(&self, peer: NodeId) {
        self.tell(Event::Connected(peer));
    }

    async fn disconnected(&self, peer: NodeId) {
        pass(&self.goodbye_gate).await;
        self.tell(Event::Disconnected(peer));
    }

    async fn removed(&self, by: NodeId) {
        self.tell(Event::Removed(by));
    }

    async fn control(&self, payload: Bytes) -> Bytes {
        Bytes::from([b"re: ".as_slice(), &payload].concat())
    }

    async fn bulk(&self, from: NodeId, frames: Vec<Bytes>) {
        pass(&self.bulk_gate).await;
        self.tell(Event::Bulk(from, frames));
    }
}

/// Timings for tests: quick to notice, never slow to try again.
pub(crate) fn config() -> PeerConfig {
    PeerConfig {
        backoff_min_ms: 2,
        backoff_max_ms: 20,
        refused_backoff_ms: 20,
        keepalive_interval_ms: 50,
        // Far above what a busy machine takes; tests of silence set their own.
        dead_peer_timeout_ms: 10_000,
        connect_timeout_ms: 10_000,
        ..PeerConfig::default()
    }
}

/// A listening node, with a hub once it was given one.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) inbound: Inbound,
    pub(crate) identity: watch::Sender<Option<LocalIdentity>>,
    pub(crate) message_gate: watch::Sender<bool>,
    pub(crate) bulk_gate: watch::Sender<bool>,
    pub(crate) goodbye_gate: watch::Sender<bool>,
    pub(crate) hub: PeerHub,
    inbox: RecordingInbox,
    config: PeerConfig,
    events: mpsc::UnboundedReceiver<Event>,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Node {
    pub(crate) async fn start(id: u64) -> Node {
        Node::start_with(id, config(), Resolver::system()).await
    }

    pub(crate) async fn start_with(id: u64, config: PeerConfig, resolver: Resolver) -> Node {
        config.validate().expect("a valid configuration");
        let local = LocalIdentity { cluster: CLUSTER, node: NodeId(id), incarnation: 1 };
        let (events, receiver) = mpsc::unbounded_channel();
        let (message_gate, message_gate_receiver) = watch::channel(true);
        let (bulk_gate, bulk_gate_receiver) = watch::channel(true);
        let (goodbye_gate, goodbye_gate_receiver) = watch::channel(true);
        let inbox = RecordingInbox {
            events,
            message_gate: message_gate_receiver,
            bulk_gate: bulk_gate_receiver,
            goodbye_gate: goodbye_gate_receiver,
        };
        let inbound = Inbound::default();
        let hub = PeerHub::start_with_resolver(
            config.clone(),
            local,
            inbox.clone(),
            inbound.clone(),
            Handle::current(),
            resolver,
        );
        let mut node = Node {
            id: NodeId(id),
            address: ([127, 0, 0, 1], 0).into(),
            inbound,
            identity: watch::Sender::new(Some(local)),
            message_gate,
            bulk_gate,
            goodbye_gate,
            hub,
            inbox,
            config,
            events: receiver,
            server: None,
        };
        node.listen().await;
        node
    }

    /// Listens again, on the port it had.
    pub(crate) async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is free");
        self.address = listener.local_addr().expect("a bound socket");
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve_peers(
            listener,
            self.config.clone(),
            self.identity.subscribe(),
            self.inbox.clone(),
            self.inbound.clone(),
            async move { _ = stopped.await },
        ));
        self.server = Some((stop, server));
    }

    /// Stops listening; every inbound connection is gone afterwards.
    pub(crate) async fn stop_listening(&mut self) {
        let (stop, server) = self.server.take().expect("it listens");
        stop.send(()).expect("the server runs");
        server.await.expect("the server did not panic");
    }

    /// Peers with these nodes.
    pub(crate) fn know(&self, others: &[&Node]) {
        self.hub.set_peers(others.iter().map(|node| (node.id, node.address.to_string())).collect());
    }

    pub(crate) async fn event(&mut self) -> Event {
        within(self.events.recv()).await.expect("the inbox lives")
    }

    /// What was told already.
    pub(crate) fn event_now(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// The next message frames until there are `count`, with the number of batches they came in.
    pub(crate) async fn messages(&mut self, from: NodeId, count: usize) -> (Vec<Bytes>, usize) {
        let (mut all, mut batches) = (Vec::new(), 0);
        while all.len() < count {
            if let Event::Message(sender, frames) = self.event().await {
                assert_eq!(sender, from);
                batches += 1;
                all.extend(frames);
            }
        }
        (all, batches)
    }

    /// Waits for both lanes to a peer.
    pub(crate) async fn connected_to(&self, peer: NodeId) {
        until("both lanes are connected", || {
            self.hub.stats().iter().any(|s| s.node == peer && s.message.connected && s.bulk.connected)
        })
        .await;
    }
}

/// Fails the test if `future` takes absurdly long.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens within 20 s")
}

/// Looks until the condition holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let look = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), look).await.is_err() {
        panic!("not within 20 s: {what}");
    }
}

/// An address at which nobody listens for as long as this is held: one that is only free may be somebody's in a moment.
pub(crate) struct Nobody(TcpSocket);

impl Nobody {
    pub(crate) fn home() -> Nobody {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Nobody(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

/// A stream spoken by hand.
pub(crate) struct RawStream {
    pub(crate) socket: TcpStream,
    pub(crate) status: u16,
    pub(crate) head: String,
}

/// The headers of a good stream from node 1 to node 2; tests spoil them.
pub(crate) fn hello(incarnation: u64, stream: u64) -> Vec<(&'static str, String)> {
    vec![
        ("Balsa-Protocol", "1".into()),
        ("Balsa-Cluster", format!("{CLUSTER:x}")),
        ("Balsa-From", "1".into()),
        ("Balsa-To", "2".into()),
        ("Balsa-Incarnation", incarnation.to_string()),
        ("Balsa-Stream", stream.to_string()),
    ]
}

impl RawStream {
    /// Opens a stream with these headers and reads the head of the answer.
    pub(crate) async fn open(to: SocketAddr, path: &str, headers: &[(&str, String)]) -> RawStream {
        let mut socket = TcpStream::connect(to).await.expect("somebody listens");
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        socket.write_all(head.as_bytes()).await.expect("it reads the request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            match within(socket.read_u8()).await {
                Ok(byte) => answer.push(byte),
                // Superseded before it was answered, say: status 0.
                Err(_) => break,
            }
        }
        let head = String::from_utf8(answer).expect("text");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        RawStream { socket, status, head }
    }

    /// Writes an HTTP chunk of these bytes; a connection that was closed is fine.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        let _ = self.socket.write_all(&chunk).await;
    }

    /// Reads until the other side closes.
    pub(crate) async fn closed(&mut self) {
        let mut buffer = [0; 1024];
        while let Ok(1..) = within(self.socket.read(&mut buffer)).await {}
    }

    /// What follows the head, up to the end.
    pub(crate) async fn text(&mut self) -> String {
        let mut text = Vec::new();
        let _ = within(self.socket.read_to_end(&mut text)).await;
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A message frame, as on the wire.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
    bytes.extend([1, 1, 0, 0]);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), payload);
    bytes.extend(checksum.to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// `count` payloads of `size` bytes that begin with their number.
pub(crate) fn numbered(count: usize, size: usize) -> Vec<Bytes> {
    (0..count)
        .map(|number| {
            let mut payload = vec![number as u8; size];
            payload[..8].copy_from_slice(&(number as u64).to_le_bytes());
            Bytes::from(payload)
        })
        .collect()
}
