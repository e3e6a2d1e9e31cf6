//! A whole cluster in one thread: cores, disks that forget what was not yet durable, and a network that keeps
//! every message until a test decides its fate. The oracles watch after every input; they know the truth that
//! no single node does.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part of the harness")]

pub mod oracle;

use balsa_raft::{
    Body, Change, Config, Entry, EntryKind, HardState, Index, Membership, Message, NodeId, Persist, Raft,
    ReadConfirmed, ReadId, Ready, Restored, Role, SnapshotDecision, SnapshotMeta, SnapshotOutcome, Term,
};
use bytes::Bytes;
use oracle::Oracle;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What survives a crash.
#[derive(Clone, Debug)]
pub struct Disk {
    pub hard_state: HardState,
    pub snapshot: SnapshotMeta,
    pub entries: Vec<Entry>,
    /// The state as last checkpointed.
    pub state: State,
    /// Where that stands.
    pub state_meta: SnapshotMeta,
}

/// The state machine: the last applied index and a digest of all that led there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    pub applied: Index,
    pub digest: u64,
}

impl State {
    fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.applied.next(), "applied out of order");
        self.applied = entry.index;
        for byte in entry.data.iter().copied().chain(entry.term.0.to_le_bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Disk {
    pub fn blank() -> Disk {
        let Restored { hard_state, snapshot, entries, .. } = Restored::blank();
        Disk { hard_state, state_meta: snapshot.clone(), snapshot, entries, state: State::default() }
    }

    pub fn founder(membership: &Membership) -> Disk {
        let hard_state = HardState { term: Term(1), vote: None };
        Disk { hard_state, entries: vec![Raft::bootstrap_entry(membership)], ..Disk::blank() }
    }

    /// Writes, as the log does: a snapshot begins it anew, entries truncate what they overlap. At most
    /// `max_entries` of them.
    fn write(&mut self, persist: &Persist, max_entries: usize) {
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(snapshot) = &persist.snapshot {
            self.snapshot = snapshot.clone();
            self.entries.clear();
        }
        for entry in persist.entries.iter().take(max_entries) {
            let at =
                entry.index.0.checked_sub(self.snapshot.index.0 + 1).expect("entry at or below the snapshot")
                    as usize;
            assert!(at <= self.entries.len(), "gap before {entry:?}");
            self.entries.truncate(at);
            self.entries.push(entry.clone());
        }
    }
}

/// One node: its core while it runs, and its disk.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: NodeId,
    pub raft: Option<Raft>,
    pub disk: Disk,
    /// Handed out and not yet durable.
    pub pending: VecDeque<Persist>,
    /// The state in memory.
    pub state: State,
    /// Completions are withheld.
    pub stalled: bool,
    seed: u64,
    last_seen: (Role, Term, Option<NodeId>, Index),
}

/// What a test may want to tell of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Role(NodeId, Role, Term, Option<NodeId>),
    Committed(NodeId, Index),
    Membership(NodeId, Arc<Membership>),
    ReadConfirmed(NodeId, ReadConfirmed),
    ReadDropped(NodeId, ReadId),
    SnapshotWanted(NodeId, NodeId),
    Snapshot(NodeId, NodeId, Index, &'static str),
}

#[derive(Clone, Debug)]
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    /// Sent and neither delivered nor lost, in order of sending.
    pub network: VecDeque<Message>,
    pub events: Vec<Event>,
    /// Leader, follower, and the leader's term when it wanted to send.
    pub snapshots_wanted: Vec<(NodeId, NodeId, Term)>,
    pub oracle: Oracle,
    pub config: Config,
    /// Directed links that lose everything.
    pub cut: std::collections::BTreeSet<(NodeId, NodeId)>,
    /// Report reads, completions and applications at once.
    pub eager_apply: bool,
    /// Install snapshots as soon as they were accepted.
    pub eager_install: bool,
    /// Accepted and not installed yet, by receiver.
    pub installing: BTreeMap<NodeId, (SnapshotMeta, State)>,
}

impl Cluster {
    pub fn new(config: Config) -> Cluster {
        Cluster {
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            events: Vec::new(),
            snapshots_wanted: Vec::new(),
            oracle: Oracle::default(),
            config,
            cut: Default::default(),
            eager_apply: true,
            eager_install: true,
            installing: BTreeMap::new(),
        }
    }

    pub fn founded(config: Config, membership: &Membership) -> Cluster {
        let mut cluster = Cluster::new(config);
        for id in membership.members() {
            cluster.add(id, Disk::founder(membership));
        }
        cluster
    }

    pub fn add(&mut self, id: NodeId, disk: Disk) {
        let seed = self.config.seed ^ id.0.wrapping_mul(0x9e37_79b9);
        let state = disk.state;
        let last_seen = (Role::Follower, disk.hard_state.term, None, Index::ZERO);
        self.nodes.insert(
            id,
            Node { id, raft: None, disk, pending: VecDeque::new(), state, stalled: false, seed, last_seen },
        );
        self.restart(id);
    }

    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).unwrap_or_else(|| panic!("no node {id}"))
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("no node {id}"))
    }

    pub fn raft(&self, id: NodeId) -> Option<&Raft> {
        self.node(id).raft.as_ref()
    }

    /// Gives one input to a running node and carries out what it asks for.
    pub fn input<T>(&mut self, id: NodeId, input: impl FnOnce(&mut Raft) -> T) -> Option<T> {
        let result = input(self.node_mut(id).raft.as_mut()?);
        self.drain(id);
        Some(result)
    }

    /// Gives an input and leaves its consequences for later.
    pub fn input_only<T>(&mut self, id: NodeId, input: impl FnOnce(&mut Raft) -> T) -> Option<T> {
        self.node_mut(id).raft.as_mut().map(input)
    }

    /// Takes Readies until there is nothing more to do.
    pub fn drain(&mut self, id: NodeId) {
        loop {
            let Some(raft) = self.node_mut(id).raft.as_mut() else { return };
            let ready = raft.take_ready();
            let done = ready.is_empty();
            self.carry_out(id, ready);
            if done {
                return;
            }
        }
    }

    fn carry_out(&mut self, id: NodeId, ready: Ready) {
        let eager = self.eager_apply;
        let node = self.nodes.get_mut(&id).expect("a node");
        let raft = node.raft.as_mut().expect("a running node");
        let status = raft.status();
        self.oracle.observe(raft, &status);
        ready.send.iter().for_each(|message| check_promise(&node.disk, message));
        self.network.extend(ready.send);
        let seen = (status.role, status.term, status.leader, status.commit);
        let was = std::mem::replace(&mut node.last_seen, seen);
        let changed = (seen.0, seen.1, seen.2) != (was.0, was.1, was.2);
        assert!(!changed || ready.role_changed, "a change of role that no Ready told of");
        if changed {
            self.events.push(Event::Role(id, seen.0, seen.1, seen.2));
        }
        if ready.membership_changed {
            self.events.push(Event::Membership(id, status.membership.clone()));
        }
        if seen.3 != was.3 {
            self.events.push(Event::Committed(id, seen.3));
        }
        for entry in &ready.apply {
            node.state.apply(entry);
            self.oracle.applied(id, entry, node.state);
        }
        if eager && !ready.apply.is_empty() {
            raft.handle_applied(node.state.applied);
        }
        for read in ready.reads_confirmed {
            self.oracle.read_confirmed(id, read);
            self.events.push(Event::ReadConfirmed(id, read));
        }
        self.events.extend(ready.reads_dropped.into_iter().map(|read| Event::ReadDropped(id, read)));
        for peer in ready.snapshots_wanted {
            self.snapshots_wanted.push((id, peer, status.term));
            self.events.push(Event::SnapshotWanted(id, peer));
        }
        node.pending.extend(ready.persist);
    }

    /// Makes the oldest `count` pending writes durable and reports the last of them.
    pub fn persist(&mut self, id: NodeId, count: usize) {
        let node = self.node_mut(id);
        let count = count.min(node.pending.len());
        let mut token = None;
        let mut send = Vec::new();
        for persist in node.pending.drain(..count) {
            node.disk.write(&persist, usize::MAX);
            token = Some(persist.token);
            send.extend(persist.then_send);
        }
        send.iter().for_each(|message| check_promise(&node.disk, message));
        let (hard_state, token) = (node.disk.hard_state, token);
        self.oracle.voted(id, hard_state);
        self.network.extend(send);
        if let Some(token) = token {
            self.input(id, |raft| raft.handle_persisted(token));
        }
    }

    /// The node dies. Of what it was writing, `writes` batches and `entries` entries of the next one had
    /// reached the disk.
    pub fn crash(&mut self, id: NodeId, writes: usize, entries: usize) {
        let node = self.node_mut(id);
        if node.raft.take().is_none() {
            return;
        }
        let pending = std::mem::take(&mut node.pending);
        self.installing.remove(&id);
        let node = self.node_mut(id);
        for (at, persist) in pending.iter().enumerate().take(writes + 1) {
            if at < writes {
                node.disk.write(persist, usize::MAX);
            } else if entries > 0 && persist.snapshot.is_none() {
                node.disk.write(persist, entries);
            }
        }
        let hard_state = node.disk.hard_state;
        self.oracle.voted(id, hard_state);
        self.snapshots_wanted.retain(|&(from, ..)| from != id);
    }

    pub fn restart(&mut self, id: NodeId) {
        let config = self.config.clone();
        let node = self.node_mut(id);
        if node.raft.is_some() {
            return;
        }
        node.seed = node.seed.wrapping_add(1);
        node.state = node.disk.state;
        let restored = Restored {
            hard_state: node.disk.hard_state,
            snapshot: node.disk.snapshot.clone(),
            entries: node.disk.entries.clone(),
            applied: Index::ZERO,
        };
        let restored = restored.with_state(node.disk.state_meta.clone());
        assert_eq!(restored.applied, node.state.applied);
        node.disk.hard_state = restored.hard_state;
        node.disk.snapshot = restored.snapshot.clone();
        node.disk.entries = restored.entries.clone();
        let raft =
            Raft::new(Config { id, seed: node.seed, ..config }, restored).expect("a disk that is in order");
        node.last_seen = (raft.role(), raft.term(), raft.leader(), node.last_seen.3.min(raft.commit_index()));
        node.raft = Some(raft);
        self.drain(id);
    }

    /// Delivers (or loses, on a cut link) the message at this place of the network.
    pub fn deliver(&mut self, at: usize) -> Option<Message> {
        let message = self.network.remove(at)?;
        let (from, to) = (message.from, message.to);
        if !self.cut.contains(&(from, to)) && self.nodes.contains_key(&to) {
            self.input(to, |raft| raft.step(message.clone()));
        }
        Some(message)
    }

    /// Delivers and persists in turn until all is quiet. Stalled disks stay stalled.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut quiet = self.deliver(0).is_none();
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            for id in ids {
                if !self.node(id).stalled && !self.node(id).pending.is_empty() {
                    self.persist(id, usize::MAX);
                    quiet = false;
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the cluster does not settle; in flight: {:?}", self.network);
    }

    /// The state becomes durable, so that the log may be compacted up to there.
    pub fn checkpoint(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        if let Some(raft) = &node.raft
            && raft.applied_index() == node.state.applied
        {
            node.disk.state = node.state;
            node.disk.state_meta = raft.snapshot_meta_at(node.state.applied).expect("a meta");
        }
    }

    /// Compacts log and disk up to `to`, at most to the checkpoint.
    pub fn compact(&mut self, id: NodeId, to: Index) {
        let node = self.node_mut(id);
        let Some(raft) = &node.raft else { return };
        let to = to.min(node.disk.state.applied);
        if to < raft.first_index() {
            return;
        }
        // A persist that is under way may still begin below: the log on disk follows only when there is none.
        if !node.pending.is_empty() {
            return;
        }
        let meta = raft.snapshot_meta_at(to).expect("a snapshot at an applied index");
        let drop = (to.0 - node.disk.snapshot.index.0) as usize;
        node.disk.entries.drain(..drop);
        node.disk.snapshot = meta;
        self.input(id, |raft| raft.compact(to));
    }

    /// Streams a snapshot from `from` to `to`, at one go.
    pub fn snapshot(&mut self, from: NodeId, to: NodeId, term: Term) {
        self.snapshots_wanted.retain(|&wanted| wanted != (from, to, term));
        let Some(raft) = self.raft(from) else { return };
        let state = self.node(from).state;
        let Some(meta) = raft.snapshot_meta_at(state.applied) else { return };
        let index = meta.index;
        let told = self.install(from, to, term, meta, state);
        self.events.push(Event::Snapshot(from, to, index, told));
        let outcome =
            if told == "unreachable" { SnapshotOutcome::Failed } else { SnapshotOutcome::Done { index } };
        self.input(from, |raft| raft.handle_snapshot_sent(to, outcome));
    }

    /// The receiving side: offered, and where wanted, installed.
    pub fn install(
        &mut self,
        from: NodeId,
        to: NodeId,
        term: Term,
        meta: SnapshotMeta,
        state: State,
    ) -> &'static str {
        if self.cut.contains(&(from, to)) || !self.nodes.contains_key(&to) {
            return "unreachable";
        }
        match self.input(to, |raft| raft.offer_snapshot(from, term, &meta)) {
            None => "unreachable",
            Some(SnapshotDecision::Stale) => "stale",
            Some(SnapshotDecision::Wanted) => {
                self.installing.insert(to, (meta, state));
                if self.eager_install { self.finish_install(to) } else { "under way" }
            }
        }
    }

    /// The state of a snapshot that was wanted is complete.
    pub fn finish_install(&mut self, to: NodeId) -> &'static str {
        let Some((meta, state)) = self.installing.remove(&to) else { return "none" };
        let input = |raft: &mut Raft| raft.install_snapshot(meta.clone());
        if !self.input_only(to, input).unwrap_or(false) {
            return "too late";
        }
        // The state is durable now; that the log begins behind it is a write like any other.
        let node = self.node_mut(to);
        node.state = state;
        node.disk.state = state;
        node.disk.state_meta = meta;
        self.drain(to);
        "installed"
    }

    pub fn propose(
        &mut self,
        id: NodeId,
        text: &str,
    ) -> Option<Result<(Term, Index), balsa_raft::ProposeError>> {
        let data = Bytes::copy_from_slice(text.as_bytes());
        self.input(id, |raft| raft.propose(data))
    }

    pub fn read(&mut self, id: NodeId, read: ReadId) -> Option<Result<(), balsa_raft::ReadError>> {
        self.oracle.read_arrived(read);
        self.input(id, |raft| raft.read(read))
    }

    pub fn change(
        &mut self,
        id: NodeId,
        changes: &[Change],
        context: &str,
    ) -> Option<Result<(Term, Index), balsa_raft::MembershipError>> {
        let context = Bytes::copy_from_slice(context.as_bytes());
        self.input(id, |raft| raft.propose_membership(changes, context))
    }

    /// The leader of the highest term among those that run.
    pub fn leader(&self) -> Option<NodeId> {
        let running = self.nodes.values().filter_map(|node| node.raft.as_ref());
        running.filter(|raft| raft.is_leader()).max_by_key(|raft| raft.term()).map(Raft::id)
    }
}

/// What a message promises of its sender's disk must be on that disk when it leaves (hazard 2).
fn check_promise(disk: &Disk, message: &Message) {
    let HardState { term, vote } = disk.hard_state;
    let voted = |candidate: NodeId| term > message.term || (term, vote) == (message.term, Some(candidate));
    let held = |index: Index| {
        let last = disk.entries.last().map_or(disk.snapshot.index, |entry| entry.index);
        term > message.term || (term == message.term && last >= index)
    };
    let kept = match message.body {
        Body::Vote { .. } => voted(message.from),
        Body::VoteReply { granted: true } => voted(message.to),
        Body::AppendAccepted { match_index } | Body::SnapshotInstalled { match_index } => held(match_index),
        _ => true,
    };
    assert!(kept, "{message:?} leaves, and on disk are {:?} and {:?}", disk.hard_state, disk.entries);
}

/// Parses and prints entries' kinds in one letter.
pub fn kind_letter(kind: EntryKind) -> char {
    match kind {
        EntryKind::Noop => 'n',
        EntryKind::Command => 'c',
        EntryKind::Membership => 'm',
    }
}
