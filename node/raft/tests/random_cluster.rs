//! A cluster under a random, seeded life: messages are lost, repeated and reordered, disks complete late and
//! forget on a crash what was not durable, members come and go. Nothing may ever contradict the oracles; once
//! all faults end, the cluster must elect a leader, commit, and agree. `BALSA_RAFT_SEED` replays one seed,
//! `BALSA_RAFT_SEEDS` runs so many.

mod harness;

use balsa_raft::{Change, Config, Index, Membership, NodeId, ReadId, SnapshotOutcome};
use harness::oracle::Oracle;
use harness::{Cluster, Disk};
use std::collections::BTreeSet;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

struct Life {
    random: Random,
    cluster: Cluster,
    ids: Vec<NodeId>,
    reads: u64,
    proposals: u64,
    /// Percent of messages lost and repeated, and of steps that are disk, crash and membership events.
    loss: usize,
    repeat: usize,
    crashes: usize,
    changes: usize,
    /// Percent of ticks beyond the usual, and of completions that a disk keeps back.
    haste: usize,
    laziness: usize,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut random = Random(seed);
        let founders = [1, 3, 3, 5][random.below(4)];
        let spare = 2;
        let config = Config {
            max_append_bytes: [40, 100, 1 << 20][random.below(3)],
            max_inflight_appends: [1, 2, 16][random.below(3)],
            gather_appends: [true, false][random.below(2)],
            max_inflight_bytes: [64, 1 << 20][random.below(2)],
            max_apply_bytes: [64, 1 << 20][random.below(2)],
            ..Config::with_defaults(NodeId(1), random.next())
        };
        let membership = Membership::of_voters((1..=founders).map(NodeId));
        let mut cluster = Cluster::founded(config, &membership);
        cluster.eager_apply = false;
        cluster.eager_install = false;
        for id in founders + 1..=founders + spare {
            cluster.add(NodeId(id), Disk::blank());
        }
        let ids = (1..=founders + spare).map(NodeId).collect();
        let loss = [0, 5, 30][random.below(3)];
        let repeat = [0, 10, 30][random.below(3)];
        let (haste, laziness) = ([0, 5, 15, 30][random.below(4)], [0, 50, 80][random.below(3)]);
        let crashes = [0, 1, 4][random.below(3)];
        let changes = [0, 2, 5][random.below(3)];
        Life { random, cluster, ids, reads: 0, proposals: 0, loss, repeat, crashes, changes, haste, laziness }
    }

    fn any(&mut self) -> NodeId {
        self.ids[self.random.below(self.ids.len())]
    }

    /// Mostly a leader, sometimes not.
    fn likely_leader(&mut self) -> NodeId {
        match self.cluster.leader() {
            Some(leader) if self.random.percent(90) => leader,
            _ => self.any(),
        }
    }

    fn step(&mut self) {
        if self.random.percent(self.haste) {
            let id = self.any();
            self.cluster.input(id, |raft| raft.tick());
            return;
        }
        match self.random.below(100) {
            0..45 => self.some_message(),
            45..65 => {
                let id = self.any();
                let count = 1 + self.random.below(3);
                if !self.random.percent(self.laziness) {
                    self.cluster.persist(id, count);
                }
            }
            65..75 => {
                let id = self.any();
                self.cluster.input(id, |raft| raft.tick());
            }
            75..83 => {
                self.proposals += 1;
                let (id, text) = (self.likely_leader(), format!("value {}", self.proposals));
                self.cluster.propose(id, &text);
            }
            83..87 => {
                self.reads += 1;
                let (id, read) = (self.likely_leader(), ReadId(self.reads));
                self.cluster.read(id, read);
            }
            87..92 => self.report_applied(),
            92 => self.checkpoint(),
            93 => {
                let (id, peer) = (self.any(), self.any());
                match self.random.below(3) {
                    0 => self.cluster.input(id, |raft| raft.handle_connection_lost(peer)),
                    1 => self.cluster.input(id, |raft| raft.handle_connection_restored(peer)),
                    _ => self.cluster.input(id, |raft| raft.handle_unreachable(peer)),
                };
            }
            94 => self.some_snapshot(),
            97 if self.random.percent(50) => {
                let id = self.likely_leader();
                if self.random.percent(20) {
                    self.cluster.input(id, |raft| raft.transfer_leadership(None).ok());
                }
            }
            95..97 if self.random.percent(self.changes * 20) => self.change_membership(),
            97 if self.random.percent(self.crashes * 25) => {
                let id = self.any();
                let (writes, entries) = (self.random.below(3), self.random.below(2));
                self.cluster.crash(id, writes, entries);
            }
            98 => {
                let id = self.any();
                self.cluster.restart(id);
            }
            99 if self.random.percent(20) => self.partition(),
            _ => {}
        }
    }

    fn some_message(&mut self) {
        if self.cluster.network.is_empty() {
            return;
        }
        // Mostly in order, sometimes any.
        let len = self.cluster.network.len();
        let at = if self.random.percent(70) { 0 } else { self.random.below(len) };
        if self.random.percent(self.loss) {
            self.cluster.network.remove(at);
            return;
        }
        if self.random.percent(self.repeat) {
            let copy = self.cluster.network[at].clone();
            self.cluster.network.push_back(copy);
        }
        self.cluster.deliver(at);
        // A network holds only so much.
        while self.cluster.network.len() > 400 {
            let at = self.random.below(400);
            self.cluster.network.remove(at);
        }
    }

    fn report_applied(&mut self) {
        let id = self.any();
        let applied = self.cluster.node(id).state.applied;
        self.cluster.input(id, |raft| raft.handle_applied(applied));
    }

    fn checkpoint(&mut self) {
        let id = self.any();
        self.cluster.checkpoint(id);
        if self.random.percent(50) {
            let to =
                Index(self.cluster.node(id).disk.state.applied.0.saturating_sub(self.random.below(4) as u64));
            self.cluster.compact(id, to);
        }
    }

    fn some_snapshot(&mut self) {
        let id = self.any();
        if self.random.percent(50) {
            self.cluster.finish_install(id);
            return;
        }
        let wanted = self.cluster.snapshots_wanted.len();
        if wanted == 0 {
            return;
        }
        let (from, to, term) = self.cluster.snapshots_wanted[self.random.below(wanted)];
        if self.random.percent(20) {
            self.cluster.snapshots_wanted.retain(|&wanted| wanted != (from, to, term));
            self.cluster.input(from, |raft| raft.handle_snapshot_sent(to, SnapshotOutcome::Failed));
        } else {
            self.cluster.snapshot(from, to, term);
        }
    }

    fn change_membership(&mut self) {
        let id = self.likely_leader();
        let changes: Vec<Change> = (0..1 + self.random.below(3))
            .map(|_| {
                let node = self.any();
                match self.random.below(4) {
                    0 => Change::Remove(node),
                    1 => Change::AddLearner(node),
                    _ => Change::AddVoter(node),
                }
            })
            .collect();
        self.cluster.change(id, &changes, "");
    }

    fn partition(&mut self) {
        if self.random.percent(50) {
            self.cluster.cut.clear();
            return;
        }
        let (a, b) = (self.any(), self.any());
        self.cluster.cut.insert((a, b));
        if self.random.percent(50) {
            self.cluster.cut.insert((b, a));
        }
    }

    /// All faults end: there must be a leader, and what it proposes must be applied by every member.
    fn heal(&mut self) {
        self.cluster.cut.clear();
        for &id in &self.ids.clone() {
            self.cluster.restart(id);
            self.cluster.finish_install(id);
            for &peer in &self.ids.clone() {
                self.cluster.input(id, |raft| raft.handle_connection_restored(peer));
            }
        }
        let mut goal = None;
        for round in 0..2_000 {
            for &id in &self.ids.clone() {
                self.cluster.input(id, |raft| raft.tick());
            }
            self.cluster.settle();
            for (from, to, term) in self.cluster.snapshots_wanted.clone() {
                self.cluster.snapshot(from, to, term);
                self.cluster.finish_install(to);
            }
            for &id in &self.ids.clone() {
                let applied = self.cluster.node(id).state.applied;
                self.cluster.input(id, |raft| raft.handle_applied(applied));
            }
            self.cluster.settle();
            if let Some(leader) = self.cluster.leader() {
                if (goal.is_none() || round % 100 == 99)
                    && let Some(Ok((_, index))) = self.cluster.propose(leader, &format!("last {round}"))
                {
                    goal = Some(index);
                }
                let raft = self.cluster.raft(leader).expect("a leader runs");
                let members: BTreeSet<NodeId> = raft.membership().members();
                if let Some(goal) = goal
                    && !raft.membership().is_joint()
                    && members.iter().all(|&id| self.cluster.node(id).state.applied >= goal)
                {
                    return;
                }
            }
        }
        for node in self.cluster.nodes.values() {
            println!("{:?}", node.raft.as_ref().map(|raft| raft.status()));
        }
        panic!("no progress after healing");
    }
}

fn live(seed: u64, steps: usize) -> (usize, Index, usize) {
    let mut life = Life::new(seed);
    for step in 0..steps {
        life.step();
        if step % 64 == 0 {
            Oracle::check_log_matching(life.cluster.nodes.values().filter_map(|node| node.raft.as_ref()));
        }
    }
    life.heal();
    Oracle::check_log_matching(life.cluster.nodes.values().filter_map(|node| node.raft.as_ref()));
    let oracle = &life.cluster.oracle;
    (oracle.terms_led(), oracle.max_committed(), oracle.reads_confirmed)
}

#[test]
fn nothing_contradicts_the_oracles() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("BALSA_RAFT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BALSA_RAFT_SEEDS").unwrap_or(300),
    };
    let (mut terms, mut committed, mut reads) = (0, 0, 0);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| live(seed, 4_000));
        match result {
            Ok((led, index, confirmed)) => {
                terms += led;
                committed += index.0;
                reads += confirmed;
            }
            Err(panic) => {
                println!("failed with BALSA_RAFT_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{terms} terms led, {committed} entries committed, {reads} reads confirmed");
    assert!(terms > 0 && committed > 0, "a test in which nothing happened");
}

#[test]
fn one_seed_gives_one_life() {
    assert_eq!(live(7, 4_000), live(7, 4_000));
}
