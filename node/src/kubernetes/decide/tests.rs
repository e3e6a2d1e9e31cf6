//! Tables of what a StatefulSet says, and who goes.

use super::*;
use crate::engine::status::{ClusterId, Phase, Role};
use balsa_raft::{Index, Term};
use proptest::prelude::*;

fn set(replicas: u32) -> StatefulSet {
    StatefulSet { uid: "a".into(), replicas, first_ordinal: 0, being_deleted: false }
}

/// A member as in `2` (voter at slot 2), `2?` (silent voter), `2l` (learner), `2@80` (holds up to index 80). Its id is
/// its slot + 1; a second one at a slot is `2'`, with the id 10 higher.
fn member(text: &str) -> MemberStatus {
    let slot: u32 = text[..1].parse().unwrap();
    let matched = text.split_once('@').map_or(100, |(_, index)| index.parse().unwrap());
    MemberStatus {
        id: NodeId(u64::from(slot) + if text.contains('\'') { 11 } else { 1 }),
        slot,
        peer_address: String::new(),
        client_address: String::new(),
        voter: !text.contains('l'),
        match_index: Some(Index(matched)),
        active: Some(!text.contains('?')),
        version: None,
        feature_level: Some(2),
        is_low_on_disk: false,
    }
}

/// The view of the leader at slot `leader`.
fn status(members: &str, leader: u32) -> Status {
    Status {
        cluster: Some(ClusterId(1)),
        node: Some(NodeId(u64::from(leader) + 1)),
        slot: leader,
        phase: Phase::Running,
        waiting_for: None,
        role: Role::Leader,
        term: Term(1),
        leader: None,
        first_index: Index(1),
        last_index: Index(100),
        commit_index: Index(100),
        applied_index: Index(100),
        caught_up: true,
        feature_level: 2,
        cluster_time_ms: 5_000,
        storage_full: None,
        members: members.split_whitespace().map(member).collect(),
        leader_changes: 1,
    }
}

fn remove(slot: u32) -> Decision {
    Decision::Remove { id: NodeId(u64::from(slot) + 1), slot }
}

fn hand_over(slot: u32) -> Decision {
    Decision::HandOver { to: NodeId(u64::from(slot) + 1), slot }
}

#[test]
fn who_goes_next() {
    let nobody = Decision::Nobody;
    // members, leader's slot, replicas, what follows
    let table = [
        ("0 1 2", 0, 3, nobody(Reason::AllWanted)),
        ("0 1 2", 0, 5, nobody(Reason::AllWanted)),
        ("0 1 2 3 4", 0, 3, remove(4)),
        ("0 1 2 3", 0, 3, remove(3)),
        ("0 1 2 3 4", 2, 1, hand_over(0)),
        ("0 1 2 3 4", 0, 1, remove(4)),
        // A leader that goes hands over to one that stays, to the one that has most.
        ("0@90 1@95 2 3 4", 4, 3, hand_over(2)),
        ("0 1@95 2@95 3 4", 4, 3, hand_over(0)),
        ("0? 1? 2l 3 4", 4, 3, nobody(Reason::NobodyTakesOver)),
        ("0? 1 2 3 4", 3, 2, hand_over(1)),
        // Learners cost nothing, then the silent.
        ("0 1 2 3l 4", 0, 3, remove(3)),
        ("0 1 2 3? 4", 0, 3, remove(3)),
        ("0 1 2 3?l 4l", 0, 3, remove(3)),
        // Slot 0 lost its volume and has only a learner: it must vote before the others go.
        ("0l 1 2", 1, 1, nobody(Reason::NoVoterStays)),
        ("0? 0'l 1 2", 1, 1, nobody(Reason::NobodyTakesOver)),
        // Alone and not wanted: there is nobody to go on.
        ("3", 3, 3, nobody(Reason::NoVoterStays)),
        ("0", 0, 1, nobody(Reason::AllWanted)),
        ("", 0, 1, nobody(Reason::AllWanted)),
    ];
    for (members, leader, replicas, expected) in table {
        let decision = decide(&Seen::Found(set(replicas)), Some("a"), &status(members, leader));
        assert_eq!(decision, expected, "{members}, led by {leader}, {replicas} wanted");
    }
}

#[test]
fn what_says_nothing_removes_nobody() {
    let deleted = StatefulSet { being_deleted: true, ..set(1) };
    let table = [
        (Seen::Missing, Unsaid::Missing),
        (Seen::Unanswered("timeout".into()), Unsaid::Unanswered("timeout".into())),
        (Seen::Found(deleted.clone()), Unsaid::BeingDeleted),
        (Seen::Found(StatefulSet { replicas: 0, ..deleted }), Unsaid::BeingDeleted),
        (Seen::Found(set(0)), Unsaid::NoReplicas),
    ];
    for (seen, unsaid) in table {
        assert_eq!(seen.wants(0), Err(unsaid.clone()), "{seen:?}");
        let decision = decide(&seen, Some("a"), &status("0 1 2 3 4", 0));
        assert_eq!(decision, Decision::Nobody(Reason::Unsaid(unsaid)), "{seen:?}");
    }
}

#[test]
fn another_stateful_set_of_the_same_name_is_looked_at_twice() {
    let seen = Seen::Found(set(1));
    let status = status("0 1 2", 0);
    assert_eq!(decide(&seen, Some("b"), &status), Decision::Nobody(Reason::Replaced));
    assert_eq!(decide(&seen, Some("a"), &status), remove(2));
    assert_eq!(decide(&seen, None, &status), remove(2));
}

#[test]
fn ordinals_that_begin_elsewhere() {
    let seen = Seen::Found(StatefulSet { first_ordinal: 2, ..set(3) });
    for (slot, wanted) in [(0, false), (1, false), (2, true), (4, true), (5, false)] {
        assert_eq!(seen.wants(slot), Ok(wanted), "{slot}");
    }
    assert_eq!(decide(&seen, None, &status("1 2 3 4", 2)), remove(1));
}

proptest! {
    #[test]
    fn whoever_goes_is_not_wanted_and_whoever_takes_over_is(
        members in proptest::collection::vec((0u32..7, any::<bool>(), any::<bool>()), 0..7),
        leader in 0u32..7, replicas in 0u32..8, first_ordinal in 0u32..3,
    ) {
        let texts: Vec<String> = members.iter()
            .map(|(slot, silent, learner)| {
                format!("{slot}{}{}", if *silent { "?" } else { "" }, if *learner { "l" } else { "" })
            })
            .collect();
        let status = status(&texts.join(" "), leader);
        let seen = Seen::Found(StatefulSet { first_ordinal, ..set(replicas) });
        match decide(&seen, None, &status) {
            Decision::Remove { id, slot } => {
                prop_assert_eq!(seen.wants(slot), Ok(false));
                prop_assert_ne!(status.node, Some(id));
                prop_assert!(status.members.iter().any(|m| m.voter && seen.wants(m.slot) == Ok(true)));
            }
            Decision::HandOver { slot, .. } => {
                prop_assert_eq!(seen.wants(slot), Ok(true));
                prop_assert_eq!(seen.wants(leader), Ok(false));
            }
            Decision::Nobody(_) => {}
        }
    }
}
