//! Small worlds, explored to the end: every order in which messages arrive or are lost, disks complete,
//! timers run out and a node crashes, within a budget of such events. The oracles watch each step. What
//! differs in time alone (ticks, timers) counts as the same state.
//!
//! Exploration is breadth-first, so a failure is found by the shortest way; the way is printed. A limit of
//! states keeps the test quick; `BALSA_RAFT_STATES` raises it.

mod harness;

use balsa_raft::{Body, Change, Config, Membership, Message, NodeId, ReadId, Role};
use harness::Cluster;
use harness::oracle::Oracle;
use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What may still happen.
#[derive(Clone, Copy, Debug, Hash)]
struct Budget {
    timeouts: usize,
    /// Connections to the leader that break.
    losses: usize,
    transfers: usize,
    proposals: usize,
    crashes: usize,
    reads: usize,
    changes: usize,
    /// A message stays in flight after its delivery.
    copies: usize,
}

/// One event.
#[derive(Clone, Copy, Debug)]
enum Action {
    Deliver(usize),
    DeliverCopy(usize),
    Persist(NodeId),
    Timeout(NodeId),
    Lose(NodeId, NodeId),
    Transfer(NodeId, NodeId),
    Propose(NodeId),
    Read(NodeId),
    Change(NodeId),
    Crash(NodeId),
}

#[derive(Clone)]
struct World {
    cluster: Cluster,
    budget: Budget,
    /// Disks complete at once: one dimension less.
    fast_disks: bool,
}

impl World {
    fn actions(&self) -> Vec<Action> {
        let mut actions: Vec<Action> = (0..self.cluster.network.len()).map(Action::Deliver).collect();
        if self.budget.copies > 0 {
            actions.extend((0..self.cluster.network.len()).map(Action::DeliverCopy));
        }
        for node in self.cluster.nodes.values() {
            let Some(raft) = &node.raft else { continue };
            let leads = raft.is_leader();
            let mut may = |allowed: bool, action| actions.extend(allowed.then_some(action));
            may(!node.pending.is_empty(), Action::Persist(node.id));
            may(!leads && self.budget.timeouts > 0, Action::Timeout(node.id));
            if let Some(leader) = raft.leader().filter(|leader| *leader != node.id && self.budget.losses > 0)
            {
                may(true, Action::Lose(node.id, leader));
            }
            for &to in raft.membership().voters.iter().filter(|to| **to != node.id) {
                may(leads && self.budget.transfers > 0, Action::Transfer(node.id, to));
            }
            may(leads && self.budget.proposals > 0, Action::Propose(node.id));
            may(leads && self.budget.reads > 0, Action::Read(node.id));
            may(leads && self.budget.changes > 0, Action::Change(node.id));
            may(self.budget.crashes > 0, Action::Crash(node.id));
        }
        actions
    }

    fn act(&mut self, action: Action, change: &[Change]) {
        match action {
            Action::Deliver(at) => {
                self.cluster.deliver(at);
            }
            Action::DeliverCopy(at) => {
                self.budget.copies -= 1;
                let message = self.cluster.network[at].clone();
                self.cluster.network.push_back(message);
                self.cluster.deliver(at);
            }
            Action::Persist(id) => self.cluster.persist(id, 1),
            Action::Timeout(id) => {
                self.budget.timeouts -= 1;
                let before = self.cluster.raft(id).map(|raft| (raft.role(), raft.term()));
                for _ in 0..3 * self.cluster.config.election_ticks {
                    self.cluster.input(id, |raft| raft.tick());
                    let now = self.cluster.raft(id).map(|raft| (raft.role(), raft.term()));
                    if now != before && now.is_some_and(|(role, _)| role != Role::Follower) {
                        break;
                    }
                }
            }
            Action::Lose(id, leader) => {
                self.budget.losses -= 1;
                self.cluster.input(id, |raft| raft.handle_connection_lost(leader));
            }
            Action::Transfer(id, to) => {
                self.budget.transfers -= 1;
                self.cluster.input(id, |raft| raft.transfer_leadership(Some(to)).ok());
            }
            Action::Propose(id) => {
                self.budget.proposals -= 1;
                self.cluster.propose(id, &format!("value {}", self.budget.proposals));
            }
            Action::Read(id) => {
                self.budget.reads -= 1;
                self.cluster.read(id, ReadId(self.budget.reads as u64));
            }
            Action::Change(id) => {
                self.budget.changes -= 1;
                self.cluster.change(id, change, "");
            }
            Action::Crash(id) => {
                self.budget.crashes -= 1;
                self.cluster.crash(id, 0, 0);
                self.cluster.restart(id);
            }
        }
        if self.fast_disks {
            for id in self.cluster.nodes.keys().copied().collect::<Vec<_>>() {
                while !self.cluster.node(id).pending.is_empty() {
                    self.cluster.persist(id, usize::MAX);
                }
            }
        }
        self.forget_the_dead();
        self.cluster.events.clear();
        Oracle::check_log_matching(self.cluster.nodes.values().filter_map(|node| node.raft.as_ref()));
    }

    /// Drops what can never matter again: answers of a term that its receiver has durably left, and copies.
    fn forget_the_dead(&mut self) {
        let nodes = &self.cluster.nodes;
        let mut kept: VecDeque<Message> = VecDeque::new();
        for message in self.cluster.network.drain(..) {
            let dead = nodes.get(&message.to).is_none_or(|node| match message.body {
                Body::PreVote { .. } | Body::Vote { .. } | Body::Append { .. } | Body::Heartbeat { .. } => {
                    false
                }
                // A yes to a pre-vote is of the term after the asker's.
                Body::PreVoteReply { granted: true } => message.term <= node.disk.hard_state.term,
                _ => message.term < node.disk.hard_state.term,
            });
            if !dead && !kept.contains(&message) {
                kept.push_back(message);
            }
        }
        self.cluster.network = kept;
    }

    /// A digest of all but time and chance.
    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.budget.hash(&mut hasher);
        let mut text = String::new();
        for node in self.cluster.nodes.values() {
            let _ = write!(text, "{:?}{:?}{:?}", node.raft, node.disk, node.pending);
        }
        let _ = write!(text, "{:?}", self.cluster.oracle);
        without_time(&text).hash(&mut hasher);
        let mut messages: Vec<String> =
            self.cluster.network.iter().map(|message| format!("{message:?}")).collect();
        messages.sort();
        messages.hash(&mut hasher);
        hasher.finish()
    }
}

/// The text without the numbers that tell of time and chance.
fn without_time(text: &str) -> String {
    const NAMES: [&str; 9] = [
        " now: ",
        " elapsed: ",
        " timeout: ",
        " moved_at: ",
        " since: ",
        " ticks_since_heartbeat: ",
        " ticks_since_quorum_check: ",
        " seed: ",
        "SplitMix(",
    ];
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find([' ', 'S']) {
        let (before, from) = rest.split_at(at);
        kept.push_str(before);
        match NAMES.iter().find(|name| from.starts_with(**name)) {
            Some(name) => rest = from[name.len()..].trim_start_matches(|c: char| c.is_ascii_digit()),
            None => {
                kept.push_str(&from[..1]);
                rest = &from[1..];
            }
        }
    }
    kept.push_str(rest);
    kept
}

/// Explores all that can follow; gives how many states there were, and whether that was all.
fn explore(start: World, change: &[Change]) -> (usize, bool) {
    let limit = std::env::var("BALSA_RAFT_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000);
    let mut seen = HashSet::from([start.digest()]);
    // How each state was reached: the state before it, and the event.
    let mut ways: Vec<(usize, Option<Action>)> = vec![(0, None)];
    let mut frontier = VecDeque::from([(0, start)]);
    while let Some((at, world)) = frontier.pop_front() {
        for action in world.actions() {
            let mut next = world.clone();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| next.act(action, change))) {
                let mut way = vec![action];
                let mut before = at;
                while let (earlier, Some(action)) = ways[before] {
                    way.push(action);
                    before = earlier;
                }
                way.reverse();
                println!("reached by {way:?}");
                std::panic::resume_unwind(panic);
            }
            if seen.insert(next.digest()) {
                ways.push((at, Some(action)));
                frontier.push_back((ways.len() - 1, next));
            }
        }
        if seen.len() >= limit {
            return (seen.len(), false);
        }
    }
    (seen.len(), true)
}

fn config() -> Config {
    Config { election_ticks: 4, heartbeat_ticks: 1, ..Config::with_defaults(NodeId(1), 1) }
}

const NOTHING: Budget = Budget {
    timeouts: 0,
    losses: 0,
    transfers: 0,
    proposals: 0,
    crashes: 0,
    reads: 0,
    changes: 0,
    copies: 0,
};

/// A cluster of three that node 1 leads, with all settled.
fn led(budget: Budget, fast_disks: bool) -> World {
    let membership = Membership::of_voters((1..=3).map(NodeId));
    let mut cluster = Cluster::founded(config(), &membership);
    while cluster.leader().is_none() {
        cluster.input(NodeId(1), |raft| raft.tick());
        cluster.settle();
    }
    World { cluster, budget, fast_disks }
}

fn report(name: &str, (states, all): (usize, bool)) {
    println!("{name}: {states} states{}", if all { ", all there are" } else { ", then the limit" });
    assert!(states > 100, "{name}: hardly anything happened");
}

#[test]
fn an_election_on_slow_disks() {
    let membership = Membership::of_voters((1..=3).map(NodeId));
    let cluster = Cluster::founded(config(), &membership);
    let budget = Budget { timeouts: 1, ..NOTHING };
    report("election", explore(World { cluster, budget, fast_disks: false }, &[]));
}

#[test]
fn two_followers_that_lose_their_leader() {
    report("losses", explore(led(Budget { losses: 2, ..NOTHING }, true), &[]));
    report("loss and proposal", explore(led(Budget { losses: 1, proposals: 1, ..NOTHING }, true), &[]));
}

#[test]
fn a_transfer_and_a_crash() {
    report("transfer", explore(led(Budget { transfers: 1, ..NOTHING }, false), &[]));
    report("transfer and crash", explore(led(Budget { transfers: 1, crashes: 1, ..NOTHING }, true), &[]));
}

#[test]
fn a_transfer_and_a_proposal() {
    report(
        "transfer and proposal",
        explore(led(Budget { transfers: 1, proposals: 1, ..NOTHING }, false), &[]),
    );
}

#[test]
fn a_transfer_and_a_read() {
    report("transfer and read", explore(led(Budget { transfers: 1, reads: 1, ..NOTHING }, true), &[]));
}

#[test]
fn a_removal_and_a_transfer() {
    let removal = [Change::Remove(NodeId(1))];
    report("removal", explore(led(Budget { changes: 1, transfers: 1, ..NOTHING }, true), &removal));
}

#[test]
fn a_joint_change() {
    let change = [Change::Remove(NodeId(1)), Change::AddLearner(NodeId(2))];
    report("joint change", explore(led(Budget { changes: 1, ..NOTHING }, true), &change));
}

#[test]
fn a_joint_change_and_a_transfer() {
    let change = [Change::Remove(NodeId(1)), Change::AddLearner(NodeId(2))];
    report(
        "joint change and transfer",
        explore(led(Budget { changes: 1, transfers: 1, ..NOTHING }, true), &change),
    );
}
