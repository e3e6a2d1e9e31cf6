//! The first election after a start: as soon as a quorum is in reach, and never against a leader that lives.

use balsa_raft::message::{Body, Message};
use balsa_raft::{Config, HardState, Membership, NodeId, Raft, Restored, Role, Term};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);

fn started() -> Raft {
    started_in(Membership::of_voters([ME, OTHER, THIRD]))
}

fn started_in(membership: Membership) -> Raft {
    let restored = Restored {
        hard_state: HardState { term: Term(4), vote: Some(THIRD) },
        entries: vec![Raft::bootstrap_entry(&membership)],
        ..Restored::blank()
    };
    Raft::new(Config::with_defaults(ME, 1), restored).unwrap()
}

fn asks_pre_votes(raft: &mut Raft) -> usize {
    let ready = raft.take_ready();
    ready.send.iter().filter(|message| matches!(message.body, Body::PreVote { .. })).count()
}

#[test]
fn it_waits_for_a_quorum_in_reach_and_not_for_the_timer() {
    let mut raft = started();
    raft.maybe_hasten_first_election(|_| false);
    assert_eq!((raft.role(), asks_pre_votes(&mut raft)), (Role::Follower, 0));
    raft.maybe_hasten_first_election(|id| id == OTHER);
    assert_eq!((raft.role(), asks_pre_votes(&mut raft)), (Role::PreCandidate, 2));
    assert_eq!(raft.term(), Term(4), "asking changes nobody's term");
    // The answers were lost: with the next connection it asks again.
    raft.maybe_hasten_first_election(|_| true);
    assert_eq!(asks_pre_votes(&mut raft), 2);
    let body = Body::PreVoteReply { granted: true };
    raft.step(Message { from: OTHER, to: ME, term: Term(5), body });
    assert_eq!((raft.role(), raft.term()), (Role::Candidate, Term(5)));
}

#[test]
fn it_asks_nobody_where_a_leader_is_known() {
    let mut raft = started();
    let body = Body::Heartbeat { commit: balsa_raft::Index(0), context: 0 };
    raft.step(Message { from: THIRD, to: ME, term: Term(4), body });
    raft.maybe_hasten_first_election(|_| true);
    assert_eq!((raft.role(), raft.leader()), (Role::Follower, Some(THIRD)));
    assert_eq!(asks_pre_votes(&mut raft), 0);
}

#[test]
fn one_that_has_asked_for_votes_waits_for_them() {
    let mut raft = started();
    raft.maybe_hasten_first_election(|_| true);
    raft.step(Message { from: OTHER, to: ME, term: Term(5), body: Body::PreVoteReply { granted: true } });
    raft.maybe_hasten_first_election(|_| true);
    assert_eq!((raft.role(), raft.term()), (Role::Candidate, Term(5)));
}

#[test]
fn a_learner_asks_nobody() {
    let voters = [OTHER, THIRD].into();
    let mut raft = started_in(Membership { voters, learners: [ME].into(), ..Membership::default() });
    raft.maybe_hasten_first_election(|_| true);
    assert_eq!((raft.role(), asks_pre_votes(&mut raft)), (Role::Follower, 0));
}
