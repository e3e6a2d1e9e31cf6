//! Who is refused, how it is counted, and that a newer stream takes over from an older one.

use crate::support::{Event, Node, RawStream, config, frame, hello, until};
use balsa_node::peer::{Refusal, Resolver};
use balsa_raft::NodeId;
use bytes::Bytes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mismatch_is_refused_by_name_and_counted() {
    let mut node = Node::start(2).await;
    let cases = [
        ("Balsa-Protocol", "7", 400, Refusal::Protocol, "peer protocol 1, not 7"),
        ("Balsa-Cluster", "1", 409, Refusal::Cluster, "of cluster ba15a, not 1"),
        ("Balsa-To", "3", 421, Refusal::Receiver, "this node is 2, not 3"),
        ("Balsa-From", "2", 400, Refusal::Itself, "this node itself"),
        ("Balsa-Incarnation", "x", 400, Refusal::Malformed, "balsa-incarnation"),
    ];
    for (name, value, status, refusal, words) in cases {
        for path in ["/peer/v1/stream", "/peer/v1/bulk"] {
            let mut headers = hello(1, 1);
            headers.iter_mut().filter(|(n, _)| *n == name).for_each(|(_, v)| *v = value.into());
            let mut stream = RawStream::open(node.address, path, &headers).await;
            assert_eq!(stream.status, status, "{name}: {value}");
            assert!(stream.head.contains(&format!("balsa-refused: {}", refusal.name())), "{}", stream.head);
            let text = stream.text().await;
            assert!(text.contains(words) && text.contains(refusal.name()), "{text}");
        }
        let refused = node.inbound.stats().refused;
        assert!(refused.contains(&(refusal, 2)), "{refusal:?} in {refused:?}");
    }
    assert_eq!(RawStream::open(node.address, "/elsewhere", &hello(1, 1)).await.status, 404);
    assert_eq!(node.inbound.stats().accepted, 0);
    assert_eq!(node.event_now(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_counts_its_refusals_and_is_accepted_once_they_end() {
    let (mut one, two) = (Node::start(1).await, Node::start(2).await);
    let identity = two.identity.send_replace(None);
    one.know(&[&two]);
    let refused = |node: &Node, reason| {
        let stats = node.hub.stats().remove(0);
        stats.message.refused.iter().any(|(r, count)| *r == reason && *count > 1)
    };
    until("refused as not ready", || refused(&one, Refusal::NotReady)).await;
    let mut foreign = identity.expect("it had one");
    foreign.cluster += 1;
    two.identity.send_replace(Some(foreign));
    until("refused for the cluster", || refused(&one, Refusal::Cluster)).await;
    foreign.cluster -= 1;
    foreign.node = NodeId(3);
    two.identity.send_replace(Some(foreign));
    until("refused for the receiver", || refused(&one, Refusal::Receiver)).await;
    assert_eq!(one.event_now(), None, "nothing was connected");
    assert!(!one.hub.send(two.id, vec![Bytes::from_static(b"lost")]));
    two.identity.send_replace(identity);
    assert_eq!(one.event().await, Event::Connected(two.id));
    assert!(one.hub.send(two.id, vec![Bytes::from_static(b"sent")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_removed_keeps_its_streams_until_it_is_let_go_and_is_then_told_why() {
    let (mut one, mut two) = (Node::start(1).await, Node::start(2).await);
    one.know(&[&two]);
    two.know(&[&one]);
    assert_eq!(one.event().await, Event::Connected(two.id));
    assert_eq!(two.event().await, Event::Connected(one.id));
    two.hub.set_removed([one.id]);
    assert!(one.hub.send(two.id, vec![Bytes::from_static(b"last words")]));
    assert_eq!(two.event().await, Event::Message(one.id, vec![Bytes::from_static(b"last words")]));

    two.hub.set_peers(vec![]);
    assert_eq!(two.event().await, Event::Disconnected(one.id));
    let told = [one.event().await, one.event().await];
    assert_eq!(told, [Event::Disconnected(two.id), Event::Removed(two.id)]);

    // A node of another cluster that listens there now has no say in it.
    let mut foreign = two.identity.borrow().expect("it has one");
    foreign.cluster += 1;
    two.identity.send_replace(Some(foreign));
    until("refused for the cluster", || {
        one.hub.stats()[0].message.refused.iter().any(|(reason, _)| *reason == Refusal::Cluster)
    })
    .await;
    while one.event_now().is_some() {}
    until("refused again and again", || {
        let refused = |(reason, count): &(Refusal, u64)| *reason == Refusal::Cluster && *count > 3;
        one.hub.stats()[0].message.refused.iter().any(refused)
    })
    .await;
    assert_eq!(one.event_now(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_else_that_answers_200_is_foreign() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let web = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
        }
    });
    let mut one = Node::start(1).await;
    one.hub.set_peers(vec![(NodeId(2), address)]);
    until("refused as foreign", || {
        one.hub.stats()[0].message.refused.iter().any(|(reason, _)| *reason == Refusal::Foreign)
    })
    .await;
    assert_eq!(one.event_now(), None);
    web.abort();
}

async fn delivered(node: &mut Node, text: &'static str) {
    assert_eq!(node.event().await, Event::Message(NodeId(1), vec![Bytes::from(text)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_stream_supersedes_an_older_one() {
    let mut node = Node::start(2).await;
    let path = "/peer/v1/stream";
    let mut first = RawStream::open(node.address, path, &hello(5, 10)).await;
    first.write(&frame(b"first")).await;
    delivered(&mut node, "first").await;
    // A reconnect of the same process.
    let mut second = RawStream::open(node.address, path, &hello(5, 11)).await;
    assert_eq!(second.status, 200);
    first.write(&frame(b"too late")).await;
    first.closed().await;
    second.write(&frame(b"second")).await;
    delivered(&mut node, "second").await;
    // The process restarted; its stream numbers begin again.
    let mut third = RawStream::open(node.address, path, &hello(6, 0)).await;
    second.closed().await;
    third.write(&frame(b"third")).await;
    delivered(&mut node, "third").await;
    // Requests that were slow on their way are older than what stands.
    for (incarnation, stream) in [(5, 12), (6, 0)] {
        let late = RawStream::open(node.address, path, &hello(incarnation, stream)).await;
        assert_eq!(late.status, 409);
    }
    third.write(&frame(b"still third")).await;
    delivered(&mut node, "still third").await;
    let stats = node.inbound.stats();
    assert_eq!((stats.accepted, stats.superseded), (3, 2));
    assert_eq!(stats.refused, [(Refusal::Superseded, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_inbox_is_not_delivered_once_superseded() {
    let mut node = Node::start(2).await;
    node.message_gate.send_replace(false);
    let path = "/peer/v1/stream";
    let mut first = RawStream::open(node.address, path, &hello(1, 1)).await;
    first.write(&frame(b"first")).await;
    node.hub.set_peers(vec![(NodeId(1), "127.0.0.1:1".into())]);
    until("the first frame waits", || node.hub.stats()[0].message.received_frames == 1).await;
    let mut second = RawStream::open(node.address, path, &hello(1, 2)).await;
    first.closed().await;
    second.write(&frame(b"second")).await;
    node.message_gate.send_replace(true);
    delivered(&mut node, "second").await;
    assert_eq!(node.event_now(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_incarnation_ends_both_lanes_of_the_old() {
    let node = Node::start_with(2, config(), Resolver::system()).await;
    let mut bulk = RawStream::open(node.address, "/peer/v1/bulk", &hello(1, 1)).await;
    let message = RawStream::open(node.address, "/peer/v1/stream", &hello(2, 1)).await;
    assert_eq!((bulk.status, message.status), (200, 200));
    bulk.closed().await;
    assert_eq!(RawStream::open(node.address, "/peer/v1/bulk", &hello(1, 2)).await.status, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_of_reconnects_nothing_old_arrives_after_something_new() {
    let mut node = Node::start(2).await;
    let streams: Vec<_> = (0..40_u64)
        .map(|stream| {
            let address = node.address;
            tokio::spawn(async move {
                let mut raw = RawStream::open(address, "/peer/v1/stream", &hello(1, stream)).await;
                for _ in 0..20 {
                    raw.write(&frame(&stream.to_le_bytes())).await;
                }
                if stream == 39 {
                    raw.write(&frame(b"the last")).await;
                }
                raw
            })
        })
        .collect();
    let mut newest = 0;
    'all: loop {
        let Event::Message(_, frames) = node.event().await else { continue };
        for payload in frames {
            let Ok(stream) = payload.as_ref().try_into().map(u64::from_le_bytes) else { break };
            if payload == "the last" {
                break 'all;
            }
            assert!(stream >= newest, "stream {stream} after {newest}");
            newest = stream;
        }
    }
    assert_eq!(newest, 39);
    for stream in streams {
        stream.await.unwrap();
    }
}
