//! What was sent arrives: in order, in batches, on two lanes that do not wait for each other.

use crate::support::{Event, Node, numbered, until, within};
use balsa_node::peer::call_control;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

async fn pair() -> (Node, Node) {
    let (sender, receiver) = (Node::start(1).await, Node::start(2).await);
    sender.know(&[&receiver]);
    sender.connected_to(receiver.id).await;
    (sender, receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_small_frames_arrive_in_order_and_in_few_batches() {
    let (sender, mut receiver) = pair().await;
    let frames = numbered(1_000, 256);
    for chunk in frames.chunks(10) {
        assert!(sender.hub.send(receiver.id, chunk.to_vec()));
    }
    let (received, batches) = receiver.messages(sender.id, frames.len()).await;
    assert_eq!(received, frames);
    assert!(batches <= 100, "{batches} batches for 100 sends");
    let stats = sender.hub.stats().remove(0);
    assert_eq!((stats.message.sent_frames, stats.message.sent_bytes), (1_000, 256_000));
    assert_eq!(stats.message.dropped_frames, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_and_empty_frames_arrive_in_order() {
    let (sender, mut receiver) = pair().await;
    let mut frames = numbered(24, 1 << 20);
    frames.insert(3, Bytes::new());
    frames.insert(9, Bytes::from_static(b"small"));
    frames.push(Bytes::from(vec![1; 8 << 20]));
    for frame in &frames {
        until("there is room", || sender.hub.stats()[0].message.queue_bytes < 8 << 20).await;
        assert!(sender.hub.send(receiver.id, vec![frame.clone()]));
    }
    let (received, _) = receiver.messages(sender.id, frames.len()).await;
    assert!(received == frames, "frames differ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_and_both_lanes_at_once() {
    let (mut one, mut two) = (Node::start(1).await, Node::start(2).await);
    one.know(&[&two]);
    two.know(&[&one]);
    one.connected_to(two.id).await;
    two.connected_to(one.id).await;
    let frames = numbered(300, 5_000);
    for (from, to) in [(&one, &two), (&two, &one)] {
        assert!(from.hub.send(to.id, frames.clone()));
        for frame in &frames {
            within(from.hub.send_bulk(to.id, frame.clone())).await.expect("a bulk stream");
        }
    }
    let (one_id, two_id) = (one.id, two.id);
    for (node, peer) in [(&mut one, two_id), (&mut two, one_id)] {
        let (mut messages, mut bulk) = (Vec::new(), Vec::new());
        while messages.len() < frames.len() || bulk.len() < frames.len() {
            match node.event().await {
                Event::Message(from, batch) => {
                    assert_eq!(from, peer);
                    messages.extend(batch);
                }
                Event::Bulk(from, batch) => {
                    assert_eq!(from, peer);
                    bulk.extend(batch);
                }
                Event::Connected(connected) => assert_eq!(connected, peer),
                Event::Disconnected(_) | Event::Removed(_) => panic!("nothing broke"),
            }
        }
        assert_eq!((&messages, &bulk), (&frames, &frames));
        let stats = node.hub.stats().remove(0);
        assert_eq!((stats.message.received_frames, stats.bulk.received_bytes), (300, 300 * 5_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_under_way_does_not_hold_up_messages() {
    let (sender, mut receiver) = pair().await;
    let big = Bytes::from(vec![9; 1 << 20]);
    // Bulk without end, first against an inbox that takes it, then against one that does not.
    let hub = Arc::new(sender.hub);
    let (pumping, to) = (hub.clone(), receiver.id);
    let pump = tokio::spawn(async move { while pumping.send_bulk(to, big.clone()).await.is_ok() {} });
    for blocked in [false, true] {
        receiver.bulk_gate.send_replace(!blocked);
        if blocked {
            until("the bulk queue is full", || hub.stats()[0].bulk.queue_bytes > 7 << 20).await;
        }
        let (mut number, mut bulk_batches) = (0_u64, 0);
        while number < 200 || (!blocked && bulk_batches < 20) {
            let payload = Bytes::copy_from_slice(&number.to_le_bytes());
            assert!(hub.send(receiver.id, vec![payload.clone()]));
            number += 1;
            loop {
                match receiver.event().await {
                    Event::Message(_, frames) => break assert_eq!(frames.concat(), payload),
                    Event::Bulk(..) => bulk_batches += 1,
                    Event::Connected(_) | Event::Disconnected(_) | Event::Removed(_) => (),
                }
            }
        }
    }
    pump.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_call_is_answered_before_identities_are_known() {
    let node = Node::start(2).await;
    node.identity.send_replace(None);
    let address = node.address.to_string();
    let reply = call_control(&address, Bytes::from_static(b"who is there"), Duration::from_secs(20)).await;
    assert_eq!(reply.expect("a reply"), "re: who is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_call_says_why_it_got_no_reply() {
    let mut node = Node::start(2).await;
    let address = node.address.to_string();
    let too_large = Bytes::from(vec![0; 2 << 20]);
    let error = call_control(&address, too_large, Duration::from_secs(20)).await.unwrap_err();
    assert!(error.to_string().contains(&address), "{error}");
    node.stop_listening().await;
    let error = call_control(&address, Bytes::new(), Duration::from_secs(20)).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot reach {address}: ")), "{error}");
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let error = call_control(&address, Bytes::new(), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{address} did not answer within 50 ms"));
}
