//! What a leader proposes by itself: one at a time, and again where it was lost.

use super::levels::introduces;
use super::membership::Node;
use super::*;

const RAISED: Outlook = Outlook { feature_level: 2, due_ms: None, wants_compaction: None };

/// A leader of three whose store says this.
fn leading(outlook: Outlook) -> Node {
    let mut node = Node::leading(3);
    node.outlook = outlook;
    node.give(Event::Applied { index: node.engine.raft().last_index(), outlook });
    node
}

fn last(node: &Node) -> u64 {
    node.engine.raft().last_index().0
}

#[test]
fn what_is_due_is_proposed_once_until_that_is_applied() {
    let mut node = leading(Outlook { due_ms: Some(0), ..RAISED });
    let before = last(&node);
    for _ in 0..20 {
        node.now_ms += 100;
        node.give(Event::Tick);
        assert_eq!(last(&node), before + 1, "at {}", node.now_ms);
    }
    node.all_answer(&[2]);
    node.give(Event::Tick);
    assert_eq!(last(&node), before + 2, "there is more that is due");
}

#[test]
fn history_is_compacted_by_one_proposal_at_a_time() {
    let outlook = Outlook { wants_compaction: Some(5), ..RAISED };
    let mut node = leading(outlook);
    let first = last(&node);
    for _ in 0..5 {
        node.give(Event::Applied { index: Index(first - 1), outlook });
        assert_eq!(last(&node), first, "one is on its way");
    }
    node.all_answer(&[2]);
    assert_eq!(last(&node), first + 1, "there is still more than is wanted");
}

/// Where nobody writes, what waits for the lost entry would wait for ever.
#[test]
fn what_was_lost_with_its_term_is_proposed_again() {
    for outlook in [Outlook { due_ms: Some(0), ..RAISED }, Outlook::default()] {
        let mut node = leading(outlook);
        (2..=3).for_each(|id| introduces(&mut node, id, 2)); // the level may be raised, unless it is
        let (kept, term) = (node.engine.raft().last_index(), node.engine.raft().term());
        for _ in 0..5 {
            let command = Bytes::from_static(&[0; 9]);
            node.give(Event::Write { ticket: 7, command, repeatable: false, deadline_ms: u64::MAX });
        }
        node.give(Event::Tick);
        assert_eq!(last(&node), kept.0 + 6, "it is proposed");
        // Another leader, whose log is shorter, and then this one again.
        let noop = Entry { index: kept.next(), term: term.next(), kind: EntryKind::Noop, data: Bytes::new() };
        let body =
            Body::Append { prev_index: kept, prev_term: term, entries: vec![noop], commit: kept.next() };
        node.hears_in(term.next(), 2, body);
        node.hears(2, Body::TimeoutNow { last_index: kept.next() });
        node.hears(2, Body::VoteReply { granted: true });
        node.all_answer(&[2, 3]);
        assert!(node.engine.raft().is_leader() && last(&node) == kept.0 + 2, "{}", last(&node));
        node.give(Event::Tick);
        assert_eq!(last(&node), kept.0 + 3, "it is proposed again: {outlook:?}");
    }
}
