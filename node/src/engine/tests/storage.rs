//! What a leader takes, and who leads, where disks are nearly full or the store has met its quota.

use super::membership::Node;
use super::*;
use crate::engine::storage::Space;
use balsa_store::command::{Command, Delete, Put};

const HEADROOM: u64 = 1_000;
const QUOTA: u64 = 5_000;
const ROOM: Space = Space { free_bytes: 10 * HEADROOM, store_bytes: 0 };
const LOW: Space = Space { free_bytes: HEADROOM - 1, ..ROOM };

fn leading() -> Node {
    let config = EngineConfig { disk_headroom_bytes: HEADROOM, quota_bytes: QUOTA, ..config() };
    let mut node = Node::starting(3, config).takes_over(3);
    node.give(Event::Space(ROOM));
    node
}

fn put() -> Bytes {
    let put = Put { key: "key".into(), value: "value".into(), ..Put::default() };
    command::encode(&Command { request: None, operation: Some(Operation::Put(put)) })
}

fn delete() -> Bytes {
    let delete = Delete { key: "key".into(), ..Delete::default() };
    command::encode(&Command { request: None, operation: Some(Operation::Delete(delete)) })
}

fn writes(node: &mut Node, command: Bytes) {
    node.give(Event::Write { ticket: 7, command, repeatable: true, deadline_ms: node.now_ms + 1_000 });
}

/// A peer says how its disk is.
fn says(node: &mut Node, id: u64, is_low_on_disk: bool) {
    let peer_address = format!("node-{}:3300", id - 1);
    node.says(id, PeerMessage::Introduce { peer_address, build: BUILD.clone(), is_low_on_disk });
}

/// Takes out why the one write was refused.
fn refusal(node: &mut Node) -> Option<String> {
    match std::mem::take(&mut node.writes).pop() {
        Some(Err(WriteError::StorageFull { why })) => Some(why),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn appended(node: &Node) -> bool {
    node.engine.raft().last_index() > node.engine.raft().commit_index()
}

fn handed_to(node: &Node) -> Option<NodeId> {
    node.sent.iter().find_map(|(to, message)| match message {
        PeerMessage::Raft(Message { body: Body::TimeoutNow { .. }, .. }) => Some(*to),
        _ => None,
    })
}

#[test]
fn while_a_quorum_has_room_all_is_taken_and_a_leader_without_hands_over_to_one_with() {
    let mut node = leading();
    says(&mut node, 2, true);
    node.pass(300, &[2, 3]);
    writes(&mut node, put());
    assert!(appended(&node) && refusal(&mut node).is_none());
    assert_eq!(handed_to(&node), None, "its own disk has room");

    node.give(Event::Space(LOW));
    node.pass(300, &[2, 3]);
    assert_eq!(handed_to(&node), None, "two of three are low: nobody can do better");
    says(&mut node, 2, false);
    node.pass(300, &[2, 3]);
    assert!(handed_to(&node).is_some());
}

#[test]
fn without_a_quorum_that_has_room_what_needs_some_is_refused_and_what_frees_some_is_taken() {
    let mut node = leading();
    says(&mut node, 2, true);
    says(&mut node, 3, true);
    writes(&mut node, put());
    let why = refusal(&mut node).unwrap();
    assert!(why.contains(&LEADER.to_string()) && why.contains(&OTHER.to_string()), "{why}");
    assert!(node.engine.status().storage_full.is_some());
    assert!(node.engine.status().members[1].is_low_on_disk);
    assert!(!appended(&node));

    node.says(3, PeerMessage::Forward { id: 9, command: put() });
    let told = node.sent.iter().any(|(to, message)| {
        let full = |result: &ForwardResult| matches!(result, ForwardResult::StorageFull(_));
        *to == OTHER && matches!(message, PeerMessage::ForwardReply { id: 9, result } if full(result))
    });
    assert!(told, "{:?}", node.sent);

    writes(&mut node, delete());
    assert!(appended(&node) && refusal(&mut node).is_none());

    // It ends by itself.
    says(&mut node, 3, false);
    writes(&mut node, put());
    assert!(refusal(&mut node).is_none());
}

#[test]
fn the_quota_is_met_by_the_stores_size_and_clears_itself() {
    let mut node = leading();
    node.give(Event::Space(Space { store_bytes: QUOTA, ..ROOM }));
    writes(&mut node, put());
    assert!(refusal(&mut node).unwrap().contains("quota is 5000"));
    writes(&mut node, delete());
    assert!(appended(&node));
    node.give(Event::Space(Space { store_bytes: QUOTA - 1, ..ROOM }));
    writes(&mut node, put());
    assert!(refusal(&mut node).is_none());
}

#[test]
fn a_node_tells_all_others_when_its_disk_is_low_and_when_it_is_no_more() {
    let mut node = leading();
    let told = |node: &mut Node| {
        let low = |(to, message)| match message {
            PeerMessage::Introduce { is_low_on_disk, .. } => Some((to, is_low_on_disk)),
            _ => None,
        };
        std::mem::take(&mut node.sent).into_iter().filter_map(low).collect::<Vec<_>>()
    };
    told(&mut node);
    node.give(Event::Space(LOW));
    assert_eq!(told(&mut node), [(LEADER, true), (OTHER, true)]);
    node.give(Event::Space(Space { free_bytes: HEADROOM, ..ROOM }));
    assert_eq!(told(&mut node), [], "hardly more than it lacked");
    node.give(Event::Space(ROOM));
    assert_eq!(told(&mut node), [(LEADER, false), (OTHER, false)]);
}

#[test]
fn a_follower_passes_on_why_there_is_no_room() {
    let mut engine = connected();
    let id = forwarded_id(&write(&mut engine, true)).unwrap();
    let result = ForwardResult::StorageFull("the disks are full".into());
    engine.handle(1, Event::Message { from: LEADER, message: PeerMessage::ForwardReply { id, result } });
    let refused = answers(engine.finish());
    assert_eq!(refused, [WriteError::StorageFull { why: "the disks are full".into() }]);
}
