//! Laws that hold for any input: of quorums and of membership changes.

use balsa_raft::membership::DecodeError;
use balsa_raft::quorum::{VoteResult, has_quorum, joint_reached, joint_vote};
use balsa_raft::{Change, ChangeError, Membership, NodeId};
use bytes::Bytes;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn nodes(max: usize) -> impl Strategy<Value = BTreeSet<NodeId>> {
    btree_set((1..=8u64).prop_map(NodeId), 0..=max)
}

fn joint() -> impl Strategy<Value = Membership> {
    (nodes(7), nodes(7)).prop_map(|(voters, outgoing)| Membership {
        voters,
        outgoing,
        ..Membership::default()
    })
}

fn change() -> impl Strategy<Value = Change> {
    (0..3u8, 0..=8u64).prop_map(|(kind, id)| match kind {
        0 => Change::AddVoter(NodeId(id)),
        1 => Change::AddLearner(NodeId(id)),
        _ => Change::Remove(NodeId(id)),
    })
}

/// More than half, counted by hand.
fn majority_of(voters: &BTreeSet<NodeId>, yes: &BTreeSet<NodeId>) -> bool {
    voters.is_empty() || voters.intersection(yes).count() * 2 > voters.len()
}

fn quorum_of(membership: &Membership, yes: &BTreeSet<NodeId>) -> bool {
    majority_of(&membership.voters, yes) && majority_of(&membership.outgoing, yes)
}

/// All sets of nodes 1 to 8 that are a quorum.
fn quorums(membership: &Membership) -> Vec<BTreeSet<NodeId>> {
    let subsets = (0..256u64)
        .map(|mask| (0..8).filter(|bit| mask >> bit & 1 == 1).map(|bit| NodeId(bit + 1)).collect());
    subsets.filter(|set| quorum_of(membership, set)).collect()
}

proptest! {
    /// A vote is won when those who said yes are a quorum; lost when even all the outstanding ones would not
    /// make it one.
    #[test]
    fn votes_are_as_by_brute_force(membership in joint(), answers in vec(any::<Option<bool>>(), 8)) {
        let answer = |id: NodeId| answers[id.0 as usize - 1];
        let who = |wanted: &[Option<bool>]| (1..=8).map(NodeId).filter(|id| wanted.contains(&answer(*id))).collect();
        let (yes, possible): (BTreeSet<_>, BTreeSet<_>) = (who(&[Some(true)]), who(&[Some(true), None]));
        let expected = match (quorum_of(&membership, &yes), quorum_of(&membership, &possible)) {
            (true, _) => VoteResult::Won,
            (false, true) => VoteResult::Pending,
            (false, false) => VoteResult::Lost,
        };
        prop_assert_eq!(joint_vote(&membership, answer), expected);
        prop_assert_eq!(has_quorum(&membership, |id| yes.contains(&id)), quorum_of(&membership, &yes));
    }

    /// What a quorum has reached is the greatest value for which those that reached it are a quorum.
    #[test]
    fn what_a_quorum_reached_is_as_by_brute_force(membership in joint(), values in vec(0..6u64, 8)) {
        let value = |id: NodeId| values[id.0 as usize - 1];
        let at_least = |least: u64| (1..=8).map(NodeId).filter(|id| value(*id) >= least).collect();
        let expected = (0..6).rev().find(|least| quorum_of(&membership, &at_least(*least)));
        let unlimited = membership.voters.is_empty() && membership.outgoing.is_empty();
        prop_assert_eq!(joint_reached(&membership, value), if unlimited { None } else { expected });
    }

    /// Any quorum of a membership shares a node with any quorum of the one that follows it: no two leaders,
    /// nothing committed that a later leader lacks. Holds for each arrow: simple, entering joint, leaving it.
    #[test]
    fn successive_memberships_overlap(voters in nodes(5), changes in vec(change(), 1..6)) {
        prop_assume!(!voters.is_empty());
        let before = Membership::of_voters(voters);
        let mut steps = vec![before.clone()];
        if let Ok(next) = before.change(&changes, Bytes::from_static(b"names")) {
            prop_assert!(next.check());
            steps.push(next.clone());
            if next.is_joint() {
                prop_assert!(next.auto_leave);
                steps.push(next.leave_joint().expect("it is joint"));
            }
        }
        for pair in steps.windows(2) {
            for old in quorums(&pair[0]) {
                for new in quorums(&pair[1]) {
                    prop_assert!(!old.is_disjoint(&new), "{old:?} of {:?} and {new:?} of {:?}", pair[0], pair[1]);
                }
            }
        }
    }

    /// In the end everyone is what the last change about it says, however many steps it takes.
    #[test]
    fn a_change_ends_as_it_says(voters in nodes(5), changes in vec(change(), 0..6)) {
        prop_assume!(!voters.is_empty());
        let before = Membership::of_voters(voters);
        if let Ok(mut after) = before.change(&changes, Bytes::new()) {
            if after.is_joint() {
                after = after.leave_joint().expect("it is joint");
            }
            let last: BTreeMap<NodeId, Change> = changes.iter().map(|change| (change.node(), *change)).collect();
            for id in (1..=8).map(NodeId) {
                let (votes, learns) = match last.get(&id) {
                    None => (before.is_voter(id), false),
                    Some(Change::AddVoter(_)) => (true, false),
                    Some(Change::AddLearner(_)) => (false, true),
                    Some(Change::Remove(_)) => (false, false),
                };
                prop_assert_eq!((after.is_voter(id), after.is_learner(id)), (votes, learns), "node {}", id);
            }
        }
    }

    /// What was encoded is decoded again; anything shorter is refused, and nothing else panics.
    #[test]
    fn memberships_survive_encoding(voters in nodes(5), changes in vec(change(), 0..5), context in vec(any::<u8>(), 0..9)) {
        let before = Membership::of_voters(voters);
        let context = Bytes::from(context);
        if let Ok(membership) = before.change(&changes, context.clone()) {
            let bytes = membership.encode();
            prop_assert_eq!(Membership::decode(&bytes), Ok(membership));
            for length in 0..bytes.len() - context.len() {
                prop_assert!(Membership::decode(&bytes.slice(..length)).is_err());
            }
        }
    }

    #[test]
    fn decoding_is_total(bytes in vec(any::<u8>(), 0..64)) {
        if let Ok(membership) = Membership::decode(&Bytes::from(bytes)) {
            prop_assert!(membership.check());
        }
    }
}

/// Also where there are more voters than are counted without an allocation.
#[test]
fn any_number_of_voters_has_a_majority() {
    for count in 1..=20u64 {
        let membership = Membership::of_voters((1..=count).map(NodeId));
        let minority = count / 2;
        // One has reached 1, one 2, and so on.
        for reached in [|id: NodeId, _| id.0, |id: NodeId, count| count + 1 - id.0] {
            let held = joint_reached(&membership, |id| reached(id, count));
            assert_eq!(held, Some(count - minority), "of {count}");
        }
        assert!(!has_quorum(&membership, |id| id.0 <= minority), "{minority} of {count}");
        assert!(has_quorum(&membership, |id| id.0 <= minority + 1), "{} of {count}", minority + 1);
    }
}

#[test]
fn a_change_that_names_nobody_is_refused() {
    let before = Membership::of_voters([1, 2].map(NodeId));
    let change = |change| before.change(&[change], Bytes::new());
    let nobody = NodeId(0);
    for zero in [Change::AddVoter(nobody), Change::AddLearner(nobody), Change::Remove(nobody)] {
        assert_eq!(change(zero), Err(ChangeError::ZeroNode));
    }
    assert_eq!(change(Change::Remove(NodeId(3))), Err(ChangeError::UnknownMember(NodeId(3))));
}

#[test]
fn a_membership_that_contradicts_itself_is_refused() {
    let set = |ids: &[u64]| -> BTreeSet<NodeId> { ids.iter().copied().map(NodeId).collect() };
    let simple = Membership { voters: set(&[1, 2]), learners: set(&[3]), ..Membership::default() };
    let joint =
        Membership { outgoing: set(&[2, 4]), learners_next: set(&[4]), auto_leave: true, ..simple.clone() };
    let decoded = |membership: &Membership| Membership::decode(&membership.encode());
    for sound in [simple.clone(), joint.clone()] {
        assert_eq!(decoded(&sound), Ok(sound));
    }
    let cases = [
        ("a voter learns", Membership { learners: set(&[1]), ..simple.clone() }),
        ("an outgoing voter learns", Membership { learners: set(&[2]), voters: set(&[1]), ..joint.clone() }),
        ("one that did not vote is to learn", Membership { learners_next: set(&[5]), ..joint.clone() }),
        ("an incoming voter is to learn", Membership { learners_next: set(&[2]), ..joint }),
        ("one is to learn, without a joint phase", Membership { learners_next: set(&[4]), ..simple.clone() }),
        ("a joint phase that is none is left", Membership { auto_leave: true, ..simple }),
    ];
    for (case, membership) in cases {
        assert_eq!(decoded(&membership), Err(DecodeError::Inconsistent), "{case}");
    }
}
