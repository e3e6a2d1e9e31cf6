//! Writes on their way: what may be said of one that did not go through, and that none is lost.

use super::membership::Node;
use super::*;

/// The next term after the node's own.
fn next(node: &Node) -> Term {
    node.engine.raft().term().next()
}

fn writes(node: &mut Node) {
    let command = Bytes::from_static(&[0; 9]);
    node.give(Event::Write { ticket: 7, command, repeatable: true, deadline_ms: 1_000_000 });
}

/// No-ops of this term from one index to another, all committed.
fn commits(prev: (Index, Term), to: Index, term: Term) -> Body {
    let entries = (prev.0.0 + 1..=to.0).map(|index| Entry {
        index: Index(index),
        term,
        kind: EntryKind::Noop,
        data: Bytes::new(),
    });
    Body::Append { prev_index: prev.0, prev_term: prev.1, entries: entries.collect(), commit: to }
}

/// What was said of a write that `OTHER` forwarded.
fn replied(node: &Node, of: u64) -> Vec<&ForwardResult> {
    let mut results = Vec::new();
    for (to, message) in &node.sent {
        match message {
            PeerMessage::ForwardReply { id, result } if *id == of && *to == OTHER => results.push(result),
            _ => {}
        }
    }
    results
}

#[test]
fn what_lost_its_index_was_not_applied() {
    let mut node = Node::leading(3);
    let (last, term) = (node.engine.raft().last_index(), node.engine.raft().term());
    writes(&mut node);
    node.says(3, PeerMessage::Forward { id: 9, command: Bytes::from_static(&[0; 9]) });
    let then = next(&node);
    node.hears_in(then, 2, commits((last, term), Index(last.0 + 1), then));
    assert_eq!(node.writes, [Err(WriteError::Overwritten)]);
    assert!(replied(&node, 9).is_empty(), "its index is not committed");
    node.hears_in(then, 2, commits((Index(last.0 + 1), then), Index(last.0 + 2), then));
    assert_eq!(replied(&node, 9), [&ForwardResult::Refused]);
}

/// The entry there may be the very one.
#[test]
fn what_a_snapshot_passed_by_may_have_been_applied() {
    let mut node = Node::leading(3);
    let last = node.engine.raft().last_index();
    writes(&mut node);
    node.says(3, PeerMessage::Forward { id: 9, command: Bytes::from_static(&[0; 9]) });
    let (then, at) = (next(&node), Index(last.0 + 5));
    node.hears_in(then, 2, Body::Heartbeat { commit: Index(1), context: 0 });
    let meta = SnapshotMeta { index: at, term: then, membership: Arc::new(membership()) };
    node.give(Event::SnapshotInstalled { meta, time_ms: 1, outlook: Outlook::default() });
    node.hears_in(then, 2, commits((at, then), at.next(), then));
    assert!(matches!(node.writes[..], [Err(WriteError::Unknown { .. })]), "{:?}", node.writes);
    assert_eq!(replied(&node, 9), [&ForwardResult::Unknown]);
}

#[test]
fn a_later_attempt_that_lost_its_index_says_nothing_of_the_first() {
    let mut node = Node::following(3);
    writes(&mut node);
    node.give(Event::Disconnected(LEADER)); // it may have arrived there
    node.hears(2, Body::Heartbeat { commit: Index(0), context: 0 });
    node.hears(2, Body::TimeoutNow { last_index: Index(1) });
    node.hears(2, Body::VoteReply { granted: true });
    let (last, then) = (node.engine.raft().last_index(), next(&node));
    assert!(node.engine.raft().is_leader() && last == Index(3), "a no-op and the write: {last}");
    let first = node.engine.raft().term_at(Index(1)).unwrap();
    node.hears_in(then, 3, commits((Index(1), first), last, then));
    assert!(matches!(node.writes[..], [Err(WriteError::Unknown { .. })]), "{:?}", node.writes);
}

#[test]
fn what_certainly_did_not_leave_is_sent_again_whatever_it_is() {
    let mut engine = connected();
    let id = forwarded_id(&write(&mut engine, false)).unwrap();
    let message = PeerMessage::Forward { id, command: Bytes::new() };
    engine.handle(1, Event::NotSent { to: LEADER, message });
    let again = forwarded_id(&engine.finish()).expect("another attempt");
    assert!(again != id);
    let reply = PeerMessage::ForwardReply { id: again, result: ForwardResult::Overloaded };
    engine.handle(2, Event::Message { from: LEADER, message: reply });
    assert!(matches!(answers(engine.finish())[..], [WriteError::Overloaded { .. }]));
}

#[test]
fn writes_have_a_bound_and_their_places_come_back() {
    let mut engine = follower();
    let bound = config().max_writes;
    for round in 0..2 {
        let mut refused = 0;
        for _ in 0..=bound {
            refused += answers(write(&mut engine, true)).len();
        }
        assert_eq!(refused, 1, "so many wait, and no more");
        engine.handle(100 + round, Event::Tick);
        assert_eq!(answers(engine.finish()), vec![WriteError::NoLeader; bound]);
    }
}

#[test]
fn what_met_its_deadline_after_it_was_proposed_or_forwarded_is_unknown() {
    let mut leading = Node::leading(3);
    let mut following = Node::following(3);
    for node in [&mut leading, &mut following] {
        writes(node);
        node.now_ms = 999_999;
        node.give(Event::Tick);
        assert!(node.writes.is_empty(), "{:?}", node.writes);
        node.now_ms = 1_000_000;
        node.give(Event::Tick);
        assert!(matches!(node.writes[..], [Err(WriteError::Unknown { .. })]), "{:?}", node.writes);
    }
}
