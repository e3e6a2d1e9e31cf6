//! Feature levels: when a leader raises the cluster's, and what becomes of a write that needs more.

use super::membership::{Node, add, remove};
use super::*;
use crate::engine::message::Build;

pub(super) fn introduces(node: &mut Node, id: u64, feature_level: u32) {
    let build = Build { feature_level, ..BUILD.clone() };
    node.says(
        id,
        PeerMessage::Introduce {
            peer_address: format!("node-{}:3300", id - 1),
            build,
            is_low_on_disk: false,
        },
    );
}

/// A write that needs level 2, as its first byte says.
fn writes(node: &mut Node) {
    let deadline_ms = node.now_ms + 1_000;
    let command = Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 0]);
    node.give(Event::Write { ticket: 7, command, repeatable: true, deadline_ms });
}

fn level(node: &Node) -> u32 {
    node.engine.status().feature_level
}

/// The write's refusal: needed, reached, and by whom it is held back.
fn refusal(node: &Node) -> (u32, u32, &str) {
    match &node.writes[..] {
        [Err(WriteError::FeatureLevel { needed, level, held_by })] => (*needed, *level, held_by),
        other => panic!("{other:?}"),
    }
}

fn appended(node: &Node) -> bool {
    node.engine.raft().last_index() > node.engine.raft().commit_index()
}

#[test]
fn the_level_is_raised_once_all_members_reach_it_and_a_write_that_waits_goes_on() {
    let mut node = Node::leading(3);
    introduces(&mut node, 2, 2);
    node.pass(300, &[2, 3]);
    writes(&mut node);
    assert_eq!((level(&node), node.writes.len()), (1, 0), "3 has not said");
    introduces(&mut node, 3, 2);
    node.pass(300, &[2, 3]);
    assert_eq!(level(&node), 2);
    assert!(node.writes.is_empty(), "{:?}", node.writes);
    assert!(!appended(&node));
    node.pass(2_000, &[2, 3]);
    assert!(node.writes.is_empty(), "it is committed, and so not refused: {:?}", node.writes);
}

#[test]
fn a_leader_that_has_not_applied_its_log_does_not_raise_what_that_may_have_raised_already() {
    let mut node = Node::start(3);
    node.unapplied = Some(Vec::new());
    let mut node = node.takes_over(3);
    introduces(&mut node, 2, 2);
    introduces(&mut node, 3, 2);
    let last = node.engine.raft().last_index();
    node.pass(300, &[2, 3]);
    assert_eq!(node.engine.raft().last_index(), last);
    for (index, outlook) in node.unapplied.take().unwrap() {
        node.give(Event::Applied { index, outlook });
    }
    node.pass(300, &[2, 3]);
    assert_eq!(level(&node), 2);
}

#[test]
fn who_holds_the_level_back_is_named_at_once_and_no_more_after_its_upgrade() {
    let mut node = Node::leading(3);
    introduces(&mut node, 2, 2);
    introduces(&mut node, 3, 1);
    node.pass(300, &[2, 3]);
    writes(&mut node);
    let (needed, reached, held_by) = refusal(&node);
    assert_eq!((needed, reached), (2, 1));
    assert!(held_by.ends_with("in slot 2 reaches 1") && !held_by.contains("slot 1"), "{held_by}");
    node.give(Event::Disconnected(OTHER));
    node.give(Event::Connected(OTHER));
    introduces(&mut node, 3, 2);
    node.pass(300, &[2, 3]);
    assert_eq!(level(&node), 2);
}

#[test]
fn a_member_that_is_not_heard_holds_the_level_back_and_is_named_at_the_deadline() {
    let mut node = Node::leading(3);
    introduces(&mut node, 2, 2);
    node.pass(300, &[2]);
    writes(&mut node);
    node.pass(1_200, &[2]);
    let (_, _, held_by) = refusal(&node);
    assert!(held_by.ends_with("in slot 2 was not heard yet") && !held_by.contains("slot 1"), "{held_by}");
}

#[test]
fn one_that_has_left_says_nothing_for_itself() {
    let mut node = Node::leading(3);
    introduces(&mut node, 2, 2);
    introduces(&mut node, 3, 2);
    node.give(Event::Disconnected(OTHER)); // it may come back with an older build
    node.pass(300, &[2]);
    assert_eq!(level(&node), 1);
}

#[test]
fn one_whose_removal_may_yet_be_taken_back_counts_still() {
    let mut node = Node::leading(3);
    introduces(&mut node, 2, 2);
    introduces(&mut node, 3, 1);
    node.ask(1, remove(3));
    let last = node.engine.raft().last_index();
    node.give(Event::Tick);
    assert_eq!(node.engine.raft().last_index(), last, "the removal is not committed");
    node.all_answer(&[2]);
    node.pass(300, &[2]);
    assert_eq!(level(&node), 2);
}

#[test]
fn a_learner_counts_too() {
    let mut node = Node::leading(1);
    assert_eq!(level(&node), 1);
    node.ask(1, add(4, 3));
    node.pass(300, &[]);
    assert_eq!(level(&node), 1, "the learner was not heard");
    node.give(Event::Connected(NodeId(4)));
    introduces(&mut node, 4, 2);
    node.pass(300, &[4]);
    assert_eq!(level(&node), 2);
}

#[test]
fn a_node_that_is_told_so_holds_the_level_back() {
    let held = EngineConfig { feature_level: 1, ..config() };
    let mut node = Node::starting(1, held).takes_over(1);
    node.pass(300, &[]);
    writes(&mut node);
    assert_eq!(level(&node), 1);
    assert!(refusal(&node).2.ends_with("in slot 0 reaches 1"));
    node.give(Event::Connected(OTHER));
    let told = node.sent.iter().any(
        |(_, message)| matches!(message, PeerMessage::Introduce { build, .. } if build.feature_level == 1),
    );
    assert!(told, "{:?}", node.sent);
}

#[test]
fn a_follower_forwards_once_it_knows_of_the_level_and_a_leader_that_does_not_asks_it_to_try_again() {
    let mut node = Node::following(3);
    writes(&mut node);
    let forwarded = |node: &Node| {
        node.sent.iter().any(|(to, message)| *to == LEADER && matches!(message, PeerMessage::Forward { .. }))
    };
    assert!(!forwarded(&node));
    node.outlook = Outlook { feature_level: 2, ..Outlook::default() };
    node.give(Event::Applied { index: Index(1), outlook: node.outlook });
    assert!(forwarded(&node));

    let mut leader = Node::leading(3);
    let command = Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 0]);
    leader.says(3, PeerMessage::Forward { id: 9, command });
    let refused = PeerMessage::ForwardReply { id: 9, result: ForwardResult::Refused };
    assert!(leader.sent.contains(&(OTHER, refused)));
    assert!(!appended(&leader));
}
