//! Slow links and slow disks: a cluster elects and keeps a leader where the least election timeout is too short for
//! them, by stretching it, and not where it may not.

use balsa_raft::{
    Body, Config, Entry, Membership, Message, NodeId, PersistToken, Raft, Restored, Role, Term,
};
use std::collections::{BTreeMap, VecDeque};

const NODES: u64 = 3;

/// A world in which everything takes its time, in ticks.
struct World {
    nodes: BTreeMap<NodeId, Raft>,
    now: u64,
    link: u64,
    disk: u64,
    /// The leaders' words arrive only at multiples of this: a link that hiccups.
    hiccup: u64,
    network: VecDeque<(u64, Message)>,
    disks: VecDeque<(u64, NodeId, PersistToken, Vec<Message>)>,
}

impl World {
    fn new(link: u64, disk: u64, hiccup: u64, stretch: u32, seed: u64) -> World {
        let membership = Membership::of_voters((1..=NODES).map(NodeId));
        let node = |id: u64| {
            let entries: Vec<Entry> = vec![Raft::bootstrap_entry(&membership)];
            let mut restored = Restored::blank();
            restored.hard_state.term = Term(1);
            restored.entries = entries;
            let config =
                Config { election_stretch_max: stretch, ..Config::with_defaults(NodeId(id), seed ^ id) };
            (NodeId(id), Raft::new(config, restored).expect("a founded node"))
        };
        let nodes = (1..=NODES).map(node).collect();
        World { nodes, now: 0, link, disk, hiccup, network: VecDeque::new(), disks: VecDeque::new() }
    }

    fn send(&mut self, messages: Vec<Message>) {
        let arrives = (self.now + self.link).next_multiple_of(self.hiccup);
        self.network.extend(messages.into_iter().map(|message| (arrives, message)));
    }

    fn tick(&mut self) {
        self.now += 1;
        while let Some((_, message)) = self.network.pop_front_if(|(at, _)| *at <= self.now) {
            self.nodes.get_mut(&message.to).expect("a node").step(message);
        }
        while let Some((_, node, token, held)) = self.disks.pop_front_if(|(at, ..)| *at <= self.now) {
            self.nodes.get_mut(&node).expect("a node").handle_persisted(token);
            self.send(held);
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let raft = self.nodes.get_mut(&id).expect("a node");
            raft.tick();
            let ready = raft.take_ready();
            if let Some(last) = ready.apply.last() {
                raft.handle_applied(last.index);
            }
            if let Some(persist) = ready.persist {
                self.disks.push_back((self.now + self.disk, id, persist.token, persist.then_send));
            }
            self.send(ready.send);
        }
    }

    fn terms(&self) -> Vec<Term> {
        self.nodes.values().map(Raft::term).collect()
    }

    fn led(&self) -> bool {
        self.nodes.values().any(Raft::is_leader)
    }

    /// Whether, after `warm_up` ticks, somebody leads for so many more and nobody is elected.
    fn settles(&mut self, warm_up: u64, keeps: u64) -> bool {
        (0..warm_up).for_each(|_| self.tick());
        let terms = self.terms();
        if !self.led() {
            return false;
        }
        for number in 0..keeps {
            if number % 20 == 0 {
                for raft in self.nodes.values_mut().filter(|raft| raft.is_leader()) {
                    let _ = raft.propose(bytes::Bytes::from_static(b"x"));
                }
            }
            self.tick();
        }
        self.led() && self.terms() == terms
    }
}

/// Link, disk, hiccup.
const WORLDS: [(&str, u64, u64, u64); 4] = [
    ("slow links", 18, 0, 1),
    ("slow disks", 1, 25, 1),
    ("both", 10, 14, 1),
    ("a link that hiccups", 1, 0, 25),
];

#[test]
fn a_timeout_that_stretches_finds_a_leader_and_keeps_it() {
    for (name, link, disk, hiccup) in WORLDS {
        for seed in 1..=20 {
            let mut world = World::new(link, disk, hiccup, 8, seed);
            assert!(world.settles(3_000, 600), "{name}, seed {seed}: terms {:?}", world.terms());
        }
    }
}

#[test]
fn a_timeout_that_may_not_stretch_does_not() {
    for (name, link, disk, hiccup) in WORLDS {
        let settled =
            (1..=20).filter(|seed| World::new(link, disk, hiccup, 1, *seed).settles(3_000, 600)).count();
        assert!(settled < 10, "{name}: {settled} of 20 settled without adapting: these worlds prove nothing");
    }
}

/// An answer that comes after its asker has given up has it wait longer the next time: whatever the question was, and also when
/// the asker has moved on to the next term.
#[test]
fn a_late_answer_stretches_the_timeout() {
    fn step(raft: &mut Raft, term: u64, body: Body) {
        raft.step(Message { from: NodeId(2), to: NodeId(1), term: Term(term), body });
        if let Some(persist) = raft.take_ready().persist {
            raft.handle_persisted(persist.token);
        }
    }
    fn tick_until(raft: &mut Raft, role: Role) {
        while raft.role() != role {
            raft.tick();
        }
    }
    let least = Config::with_defaults(NodeId(1), 1).election_ticks;
    let candidate = || {
        let mut raft = World::new(1, 0, 1, 8, 1).nodes.remove(&NodeId(1)).expect("a node");
        tick_until(&mut raft, Role::PreCandidate);
        step(&mut raft, 2, Body::PreVoteReply { granted: true });
        assert_eq!((raft.role(), raft.status().election_timeout_ticks), (Role::Candidate, least));
        raft
    };
    let stretched = |raft: &Raft| raft.status().election_timeout_ticks == 2 * least;

    let mut raft = candidate();
    tick_until(&mut raft, Role::PreCandidate);
    step(&mut raft, 2, Body::VoteReply { granted: true });
    assert!(stretched(&raft), "a vote, in its term");

    let mut raft = candidate();
    tick_until(&mut raft, Role::PreCandidate);
    step(&mut raft, 3, Body::PreVoteReply { granted: true });
    step(&mut raft, 2, Body::VoteReply { granted: true });
    assert!(stretched(&raft), "a vote of the term before");

    let mut raft = candidate();
    step(&mut raft, 2, Body::VoteReply { granted: true });
    assert_eq!(raft.role(), Role::Leader);
    tick_until(&mut raft, Role::Follower);
    step(&mut raft, 2, Body::HeartbeatReply { context: 0 });
    assert!(stretched(&raft), "of a peer that was led");
}
