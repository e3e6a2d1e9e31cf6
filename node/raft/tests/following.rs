//! A follower's answers to its leader, and to those who would lead beside it.

use balsa_raft::message::{Body, Message};
use balsa_raft::{
    Config, Entry, EntryKind, HardState, Index, Membership, NodeId, Raft, Restored, Role, Term,
};

const ME: NodeId = NodeId(1);
const LEADER: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);

fn started(membership: &Membership) -> Raft {
    let restored = Restored {
        hard_state: HardState { term: Term(2), vote: None },
        entries: vec![Raft::bootstrap_entry(membership)],
        ..Restored::blank()
    };
    Raft::new(Config { election_stretch_max: 8, ..Config::with_defaults(ME, 1) }, restored).unwrap()
}

fn three() -> Membership {
    Membership::of_voters([ME, LEADER, THIRD])
}

/// Gives a message; tells what is answered, once the disk has confirmed what the answer needs.
fn answers(raft: &mut Raft, from: NodeId, term: u64, body: Body) -> Vec<Body> {
    raft.step(Message { from, to: ME, term: Term(term), body });
    let mut ready = raft.take_ready();
    if let Some(persist) = ready.persist {
        raft.handle_persisted(persist.token);
        ready.send.extend(persist.then_send);
    }
    ready.send.into_iter().map(|message| message.body).collect()
}

/// A read waits for each: news of a commit does not take the place of an answer.
#[test]
fn a_question_is_answered_whatever_comes_with_it() {
    let mut raft = started(&three());
    let entry =
        |index| Entry { index: Index(index), term: Term(2), kind: EntryKind::Noop, data: Default::default() };
    let (entries, prev) = ((2..=5).map(entry).collect(), (Index(1), Term(1)));
    let append = Body::Append { prev_index: prev.0, prev_term: prev.1, entries, commit: Index(1) };
    answers(&mut raft, LEADER, 2, append);
    let mut ask = |from, term, commit, context| {
        answers(&mut raft, from, term, Body::Heartbeat { commit: Index(commit), context })
    };
    let answer = |context| [Body::HeartbeatReply { context }];
    assert_eq!(ask(LEADER, 2, 2, 1), answer(1));
    assert_eq!(ask(LEADER, 2, 3, 1), [], "news alone");
    assert_eq!(ask(LEADER, 2, 4, 2), answer(2));
    // Contexts begin anew with each leader.
    assert_eq!(ask(THIRD, 3, 5, 2), answer(2));
}

#[test]
fn whoever_follows_a_leader_votes_for_nobody_in_its_term() {
    for (vote, candidate) in [(None, THIRD), (Some(LEADER), LEADER)] {
        let mut raft = started(&three());
        if vote.is_some() {
            let asks = Body::Vote { last_index: Index(1), last_term: Term(1), transfer: false };
            assert_eq!(answers(&mut raft, LEADER, 2, asks), [Body::VoteReply { granted: true }]);
        }
        answers(&mut raft, LEADER, 2, Body::Heartbeat { commit: Index(1), context: 0 });
        let asks = Body::Vote { last_index: Index(1), last_term: Term(1), transfer: true };
        assert_eq!(answers(&mut raft, candidate, 2, asks), [Body::VoteReply { granted: false }]);
        assert_eq!((raft.leader(), raft.status().vote), (Some(LEADER), vote));
    }
}

#[test]
fn a_learner_takes_over_from_nobody() {
    let voters = [LEADER, THIRD].into();
    let mut raft = started(&Membership { voters, learners: [ME].into(), ..Membership::default() });
    answers(&mut raft, LEADER, 2, Body::Heartbeat { commit: Index(1), context: 0 });
    assert_eq!(answers(&mut raft, LEADER, 2, Body::TimeoutNow { last_index: Index(1) }), []);
    assert_eq!((raft.role(), raft.term()), (Role::Follower, Term(2)));
}

/// A leader that pauses is waited for the next time. One that is gone is not: else each would be missed later than the one
/// before.
#[test]
fn only_the_silence_of_a_leader_that_lives_stretches_the_timeout() {
    for (next, term, stretched) in [(LEADER, 2, true), (THIRD, 3, false)] {
        let mut raft = started(&three());
        let least = raft.status().election_timeout_ticks;
        let heartbeat = || Body::Heartbeat { commit: Index(1), context: 0 };
        answers(&mut raft, LEADER, 2, heartbeat());
        (0..least - 1).for_each(|_| raft.tick());
        answers(&mut raft, next, term, heartbeat());
        assert_eq!(raft.status().election_timeout_ticks > least, stretched, "{next} in term {term}");
    }
}
