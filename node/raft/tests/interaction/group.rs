//! A group of our nodes that takes the steps of etcd's.
//!
//! etcd's nodes persist within a step unless their storage is asynchronous; so do ours here. Scripts that switch the check
//! of a quorum off expect votes while a leader is alive: a vote is then delivered as one that the leader asked for.
//! Scripts that switch pre-votes off expect none: a campaign then begins with the pre-vote granted.
//!
//! What etcd has and ours have not, an adapter can only stand in for: an entry that etcd appends where ours need none (a
//! refused change, leaving a joint phase of one voter) becomes an empty command; a follower that is to forget its leader
//! is made to wait until it need not stand by it any more; a timer that is set runs out at its tick. When a leader that was
//! removed steps down it asks a successor to campaign, which etcd's does not: that message is lost. A joint phase that etcd's
//! leader is told to leave later (`transition=explicit`) is left by ours at once; but nobody hears of it until then.

use super::harness::{Cluster, Disk, State};
use super::script::{Command, Known, Members};
use balsa_raft::{
    Body, Change, Config, EntryKind, HardState, Index, Membership, Message, NodeId, PeerState, Role,
    SnapshotMeta, SnapshotOutcome, Term,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A snapshot on its way: from, to, the sender's term, and what it holds.
type Snapshot = (NodeId, NodeId, Term, SnapshotMeta, State);

/// The group.
#[derive(Default)]
pub(crate) struct Group {
    cluster: Option<Cluster>,
    pre_vote: bool,
    check_quorum: bool,
    asynchronous: bool,
    snapshots: Vec<Snapshot>,
    /// A timer that was set: the node, and the ticks that are left.
    timer: Option<(NodeId, u32)>,
    transfers: bool,
    /// A change was proposed, and all has not come to rest since.
    changing: bool,
    /// The leader keeps to itself that it leaves a joint phase, until it is told to.
    stays_joint: bool,
    /// What it keeps.
    kept: VecDeque<Message>,
    /// Their terms and ours.
    terms: BTreeMap<u64, u64>,
}

impl Group {
    /// How many nodes it has.
    pub(crate) fn size(&self) -> usize {
        self.cluster.as_ref().map_or(0, |cluster| cluster.nodes.len())
    }

    /// Whether a membership change was proposed, and all has not come to rest since. Then different nodes may count: etcd's
    /// memberships are effective when they are applied, ours when they are appended (hazard 15).
    pub(crate) fn is_changing(&self) -> bool {
        self.changing
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("nodes were added")
    }

    fn ids(&self, named: &[u64]) -> Vec<NodeId> {
        let all = || self.cluster.iter().flat_map(|cluster| cluster.nodes.keys().copied()).collect();
        if named.is_empty() { all() } else { named.iter().copied().map(NodeId).collect() }
    }

    /// Takes one step.
    pub(crate) fn command(&mut self, command: &Command<'_>) {
        let nodes = command.nodes();
        let ids = self.ids(&nodes);
        let node = || NodeId(nodes[0]);
        match command.words[0] {
            "log-level" | "raft-state" | "status" | "raft-log" | "process-apply-thread" => {}
            "add-nodes" => self.add(command),
            "campaign" => self.campaign(node()),
            "propose" => {
                let data = Bytes::copy_from_slice(command.words[2].as_bytes());
                self.cluster().input_only(node(), |raft| raft.propose(data).ok());
            }
            "propose-conf-change" => self.change(node(), command),
            "process-ready" => ids.iter().for_each(|id| self.process(*id)),
            "process-append-thread" => ids.iter().for_each(|id| self.cluster().persist(*id, 1)),
            "stabilize" => {
                self.stabilize(&ids);
                self.changing &= !nodes.is_empty();
            }
            "deliver-msgs" => {
                let named = self.ids(&nodes);
                let dropped = command.numbers("drop");
                let to = if nodes.is_empty() && !dropped.is_empty() { Vec::new() } else { named };
                self.deliver(&to, command.option("type"));
                self.drop_to(&dropped);
            }
            "tick-heartbeat" => self.tick(node(), 1),
            "tick-election" => self.tick(node(), ELECTION_TICKS),
            "set-randomized-election-timeout" => {
                let [ticks] = command.numbers("timeout")[..] else { panic!("no timeout") };
                self.timer = Some((node(), ticks as u32));
            }
            "report-unreachable" => {
                let peer = NodeId(nodes[1]);
                self.cluster().input_only(node(), |raft| raft.handle_unreachable(peer));
            }
            "forget-leader" => self.forget_leader(node()),
            "transfer-leadership" => {
                self.transfers = true;
                let (from, to) = (command.numbers("from")[0], command.numbers("to")[0]);
                self.cluster()
                    .input_only(NodeId(from), |raft| raft.transfer_leadership(Some(NodeId(to))).ok());
            }
            "compact" => {
                let to = Index(nodes[1]);
                self.cluster().checkpoint(node());
                self.cluster().compact(node(), to);
            }
            "send-snapshot" => self.send_snapshot(NodeId(nodes[0]), NodeId(nodes[1])),
            other => panic!("unknown command {other}"),
        }
    }

    fn add(&mut self, command: &Command<'_>) {
        let count = command.nodes()[0];
        let set = |name: &str| command.numbers(name).into_iter().map(NodeId).collect();
        let membership =
            Membership { voters: set("voters"), learners: set("learners"), ..Membership::default() };
        if self.cluster.is_none() {
            let on = |name: &str| command.option(name) == Some("true");
            (self.pre_vote, self.check_quorum) = (on("prevote"), on("checkquorum"));
            self.asynchronous = on("async-storage-writes");
            let mut config = Config {
                election_ticks: ELECTION_TICKS,
                heartbeat_ticks: 1,
                ..Config::with_defaults(NodeId(1), 1)
            };
            if let [inflight] = command.numbers("inflight")[..] {
                config.max_inflight_appends = inflight as usize;
            }
            self.cluster = Some(Cluster::new(config));
        }
        let cluster = self.cluster();
        for _ in 0..count {
            let id = NodeId(cluster.nodes.len() as u64 + 1);
            let disk = if membership.voters.is_empty() {
                Disk::blank()
            } else {
                let index = Index(command.numbers("index")[0]);
                let meta = SnapshotMeta { index, term: Term(1), membership: Arc::new(membership.clone()) };
                Disk {
                    hard_state: HardState { term: Term(1), vote: None },
                    snapshot: meta.clone(),
                    state: State { applied: index, digest: 0 },
                    state_meta: meta,
                    ..Disk::blank()
                }
            };
            cluster.add(id, disk);
        }
    }

    fn campaign(&mut self, id: NodeId) {
        let pre_vote = self.pre_vote;
        let cluster = self.cluster();
        let Some(raft) = cluster.raft(id) else { return };
        let (term, leader) = (raft.term(), raft.leader());
        if raft.is_leader() {
            return;
        }
        let message = |from: NodeId, term: Term, body: Body| Message { from, to: id, term, body };
        match leader {
            Some(leader) if !pre_vote => {
                let body = Body::TimeoutNow { last_index: Index::ZERO };
                cluster.input_only(id, |raft| raft.step(message(leader, term, body)));
            }
            _ => {
                let voters = raft.membership().voters.clone();
                for _ in 0..3 * ELECTION_TICKS {
                    let role = cluster.raft(id).map(balsa_raft::Raft::role);
                    if role == Some(Role::PreCandidate) {
                        break;
                    }
                    cluster.input_only(id, |raft| raft.tick());
                }
                if !pre_vote {
                    for voter in voters.into_iter().filter(|voter| *voter != id) {
                        let body = Body::PreVoteReply { granted: true };
                        cluster.input_only(id, |raft| raft.step(message(voter, term.next(), body)));
                    }
                }
            }
        }
    }

    fn change(&mut self, id: NodeId, command: &Command<'_>) {
        let changes: Vec<Change> = command
            .input
            .iter()
            .flat_map(|line| line.split_whitespace())
            .filter_map(|word| {
                let node = NodeId(word.get(1..)?.parse().ok()?);
                match word.as_bytes()[0] {
                    b'v' => Some(Change::AddVoter(node)),
                    b'l' => Some(Change::AddLearner(node)),
                    b'r' => Some(Change::Remove(node)),
                    _ => None,
                }
            })
            .collect();
        let refused = command.output.iter().any(|line| line.contains("ignoring conf change"));
        // A joint phase for one voter, which ours do without: they have no entry that leaves it, either.
        let leaves_at_once = command.option("transition") == Some("implicit") && changes.len() == 1;
        self.changing = true;
        let explicit = command.option("transition") == Some("explicit");
        if changes.is_empty() && std::mem::take(&mut self.stays_joint) {
            let mut kept = std::mem::take(&mut self.kept);
            self.cluster().network.append(&mut kept);
            return;
        }
        let cluster = self.cluster();
        if refused || changes.is_empty() {
            cluster.input_only(id, |raft| raft.propose(Bytes::new()).ok());
            return;
        }
        cluster.input_only(id, |raft| raft.propose_membership(&changes, Bytes::new()).ok());
        if leaves_at_once {
            cluster.input_only(id, |raft| raft.propose(Bytes::new()).ok());
        }
        let is_joint = cluster.raft(id).is_some_and(|raft| raft.membership().is_joint());
        self.stays_joint = explicit && is_joint;
    }

    /// The node does all it has to; without asynchronous storage, durably.
    fn process(&mut self, id: NodeId) {
        let asynchronous = self.asynchronous;
        let cluster = self.cluster();
        cluster.drain(id);
        while !asynchronous && !cluster.node(id).pending.is_empty() {
            cluster.persist(id, usize::MAX);
        }
    }

    fn stabilize(&mut self, ids: &[NodeId]) {
        for _ in 0..1_000 {
            let before = format!("{:?}", self.cluster);
            for id in ids {
                self.process(*id);
                while !self.cluster().node(*id).pending.is_empty() {
                    self.cluster().persist(*id, usize::MAX);
                }
            }
            self.deliver(ids, None);
            if format!("{:?}", self.cluster) == before {
                return;
            }
        }
        panic!("the group does not come to rest");
    }

    /// What is on its way to these nodes arrives.
    fn deliver(&mut self, to: &[NodeId], kind: Option<&str>) {
        let rewrites = !self.check_quorum;
        let present = std::mem::take(&mut self.cluster().network);
        for mut message in present {
            if self.stays_joint && leaves_joint(&message) {
                self.kept.push_back(message);
                continue;
            }
            let wanted =
                kind.is_none_or(|kind| kind == "MsgApp" && matches!(message.body, Body::Append { .. }));
            if !to.contains(&message.to) || !wanted || !self.cluster().nodes.contains_key(&message.to) {
                self.cluster().network.push_back(message);
                continue;
            }
            match &mut message.body {
                Body::Vote { transfer, .. } => *transfer = rewrites,
                Body::PreVote { .. } if rewrites => self.forget_leader(message.to),
                Body::TimeoutNow { .. } if !self.transfers => continue,
                _ => {}
            }
            self.cluster().input_only(message.to, |raft| raft.step(message));
        }
        if kind.is_some() {
            return;
        }
        for (from, receiver, term) in self.cluster().snapshots_wanted.clone() {
            if to.contains(&receiver) && self.cluster().nodes.contains_key(&receiver) {
                self.cluster().snapshot(from, receiver, term);
            }
        }
        let (arrive, stay) =
            std::mem::take(&mut self.snapshots).into_iter().partition(|one| to.contains(&one.1));
        self.snapshots = stay;
        let arrive: Vec<Snapshot> = arrive;
        for (from, receiver, term, meta, state) in arrive {
            self.cluster().install(from, receiver, term, meta, state);
        }
    }

    fn drop_to(&mut self, dropped: &[u64]) {
        let lost = |to: NodeId| dropped.contains(&to.0);
        let cluster = self.cluster();
        cluster.network.retain(|message| !lost(message.to));
        let wanted = std::mem::take(&mut cluster.snapshots_wanted);
        for (from, to, term) in wanted {
            if lost(to) {
                cluster.input_only(from, |raft| raft.handle_snapshot_sent(to, SnapshotOutcome::Failed));
            } else {
                cluster.snapshots_wanted.push((from, to, term));
            }
        }
        self.snapshots.retain(|one| !lost(one.1));
    }

    fn tick(&mut self, id: NodeId, ticks: u32) {
        for _ in 0..ticks {
            if self.cluster().raft(id).is_some_and(balsa_raft::Raft::is_leader) {
                // Each heartbeat is sent, whatever becomes of the leader at the next tick.
                self.cluster().input(id, |raft| raft.tick());
            } else {
                self.cluster().input_only(id, |raft| raft.tick());
            }
            if let Some((node, left)) = &mut self.timer
                && *node == id
            {
                *left -= 1;
                if *left == 0 {
                    self.timer = None;
                    self.campaign(id);
                }
            }
        }
    }

    /// Lets time pass until the node need not stand by its leader any more, but does not campaign yet.
    fn forget_leader(&mut self, id: NodeId) {
        let cluster = self.cluster();
        let Some(raft) = cluster.raft(id) else { return };
        let (Some(leader), term) = (raft.leader().filter(|leader| *leader != id), raft.term()) else {
            return;
        };
        for _ in 0..100 {
            let mut trial = cluster.raft(id).expect("a running node").clone();
            (0..ELECTION_TICKS).for_each(|_| trial.tick());
            if trial.role() == Role::Follower {
                cluster.input_only(id, |raft| *raft = trial);
                return;
            }
            // Its timer would have run out: a heartbeat sets it anew.
            let body = Body::Heartbeat { commit: Index::ZERO, context: 0 };
            cluster.input_only(id, |raft| raft.step(Message { from: leader, to: id, term, body }));
        }
        panic!("the timer of {id} always runs out first");
    }

    fn send_snapshot(&mut self, from: NodeId, to: NodeId) {
        let cluster = self.cluster();
        let state = cluster.node(from).state;
        let Some(raft) = cluster.raft(from) else { return };
        if let Some(meta) = raft.snapshot_meta_at(state.applied) {
            let term = raft.term();
            self.snapshots.push((from, to, term, meta, state));
        }
    }

    /// Compares a node with what is known of etcd's.
    pub(crate) fn compare(&mut self, node: u64, known: &Known) -> Result<usize, String> {
        let Some(raft) = self.cluster.as_ref().and_then(|cluster| cluster.raft(NodeId(node))) else {
            return Ok(0);
        };
        let (leads, term, commit) = (raft.is_leader(), raft.term().0, raft.commit_index().0);
        let mut compared = 0;
        if let Some((theirs, their_term)) = known.role {
            if leads != theirs {
                return Err(format!("node {node} {} lead, etcd's {}", does(leads), does(theirs)));
            }
            self.compare_terms(node, their_term, term)?;
            compared += 2;
        }
        if let Some(theirs) = known.commit {
            if commit != theirs {
                return Err(format!("node {node} has committed up to {commit}, etcd's up to {theirs}"));
            }
            compared += 1;
        }
        if let Some(members) = &known.members {
            compared += self.compare_members(node, members)?;
        }
        Ok(compared)
    }

    /// Compares a node's membership with what etcd's has applied, where that is not joint: ours leaves sooner.
    fn compare_members(&self, node: u64, known: &Members) -> Result<usize, String> {
        let raft = self.cluster.as_ref().and_then(|cluster| cluster.raft(NodeId(node)));
        let Some(raft) = raft.filter(|_| !self.changing && !self.stays_joint) else { return Ok(0) };
        let set = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        let ours = raft.membership();
        let (voters, learners) = (set(&ours.voters), set(&ours.learners));
        if ours.is_joint() || (&voters, &learners) != (&known.voters, &known.learners) {
            return Err(format!("to node {node} the members are {ours:?}, to etcd's {known:?}"));
        }
        Ok(1)
    }

    fn compare_terms(&mut self, node: u64, theirs: u64, ours: u64) -> Result<(), String> {
        let known = *self.terms.entry(theirs).or_insert(ours);
        let rises = self.terms.values().zip(self.terms.values().skip(1)).all(|(one, next)| one < next);
        if known != ours || !rises {
            return Err(format!(
                "node {node} is in term {ours} where etcd's is in {theirs}; before {:?}",
                self.terms
            ));
        }
        Ok(())
    }

    /// Compares what a leader knows of a peer.
    pub(crate) fn compare_progress(
        &self,
        leader: u64,
        peer: u64,
        state: &str,
        matched: u64,
    ) -> Result<usize, String> {
        let raft = self.cluster.as_ref().and_then(|cluster| cluster.raft(NodeId(leader)));
        let ours = raft.and_then(|raft| raft.peer_status(NodeId(peer))).ok_or("no such peer")?;
        let name = match ours.state {
            PeerState::Probe => "Probe",
            PeerState::Replicate => "Replicate",
            PeerState::Snapshot => "Snapshot",
        };
        if (name, ours.matched.0) != (state, matched) {
            return Err(format!("of {peer}: {name} up to {}, etcd's {state} up to {matched}", ours.matched));
        }
        Ok(2)
    }

    /// Compares a log on disk with `1/12 EntryNormal "data"` and so on.
    pub(crate) fn compare_log(&mut self, node: u64, lines: &[&str]) -> Result<usize, String> {
        let theirs: Vec<(u64, u64)> = lines
            .iter()
            .filter_map(|line| {
                let (term, index) = line.split_whitespace().next()?.split_once('/')?;
                Some((term.parse().ok()?, index.parse().ok()?))
            })
            .collect();
        let disk = &self.cluster().node(NodeId(node)).disk;
        let ours: Vec<(u64, u64)> = disk.entries.iter().map(|entry| (entry.term.0, entry.index.0)).collect();
        let indexes = |log: &[(u64, u64)]| log.iter().map(|(_, index)| *index).collect::<Vec<_>>();
        if indexes(&ours) != indexes(&theirs) {
            return Err(format!("the log of {node} is {ours:?}, etcd's {theirs:?}"));
        }
        for ((ours, _), (theirs, _)) in ours.iter().zip(&theirs) {
            self.compare_terms(node, *theirs, *ours)?;
        }
        Ok(theirs.len().max(1))
    }
}

/// Whether it tells of the end of a joint phase: a membership that follows upon one.
fn leaves_joint(message: &Message) -> bool {
    let Body::Append { entries, .. } = &message.body else { return false };
    entries.iter().any(|entry| {
        entry.kind == EntryKind::Membership
            && Membership::decode(&entry.data).is_ok_and(|membership| !membership.is_joint())
    })
}

/// The shortest election timeout, as in etcd's scripts.
const ELECTION_TICKS: u32 = 3;

fn does(it: bool) -> &'static str {
    if it { "does" } else { "does not" }
}
