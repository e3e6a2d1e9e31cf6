//! The node as one deterministic state machine: [`Event`]s in, [`Effect`]s out.
//!
//! The engine owns the consensus core, the writes and reads on their way, the directory of members and the cluster's
//! clock. It knows no sockets, files, threads or clocks: the shell ([`crate::server`]) and the simulator bring it events
//! and carry its effects out, so that both run the very same node. Beside it stand the two stages that do its slow work,
//! each in order and each equally deterministic: [`log_stage`] (*persist*) and [`apply_stage`] (*apply*, *respond*).
//!
//! The way of a write: [`Event::Write`] → *propose* and *append* (`writes`) → [`Effect::Log`] and [`Effect::Send`] side
//! by side → [`Event::Persisted`] and the peers' answers → *commit* → [`Effect::Apply`] → *respond*. A read asks only "may
//! I?" (`reads`); values are read elsewhere, from the store's published state.
//!
//! Events are handled in batches: any number of [`Engine::handle`], then one [`Engine::finish`], which takes what the core
//! made of them. Everything the core wants to say to one peer leaves in one message that way.
//!
//! Invariants: each ticket is answered exactly once; what a message promises is durable before it leaves
//! ([`Engine::finish`] keeps it behind its [`PersistToken`]); `applied <= commit`.

mod admin;
pub mod apply_stage;
pub mod boot;
pub mod clock;
pub mod directory;
pub mod event;
mod expiry;
pub mod handle;
mod levels;
pub mod log_stage;
mod members;
pub mod message;
mod reads;
pub mod safety;
pub mod snapshot_frame;
pub mod snapshot_receive;
pub mod snapshot_send;
mod snapshots;
pub mod status;
pub mod storage;
#[cfg(test)]
mod tests;
mod writes;

pub use event::{Committed, Effect, Event, LogJob, OfferDecision, Origin, Tickets};

use crate::engine::admin::Admins;
use crate::engine::clock::ClusterClock;
use crate::engine::directory::Directory;
use crate::engine::expiry::Expiry;
use crate::engine::levels::Levels;
use crate::engine::members::Members;
use crate::engine::message::PeerMessage;
use crate::engine::reads::Reads;
use crate::engine::snapshots::SnapshotsOut;
use crate::engine::status::{ClusterId, Phase, Role, Status};
use crate::engine::storage::Storage;
use crate::engine::writes::Writes;
use balsa_log::LogStart;
use balsa_raft::message::Body;
use balsa_raft::ready::{Persist, PersistToken, Ready, SnapshotMeta};
use balsa_raft::{Entry, EntryKind, Index, NodeId, Raft, Term};
use balsa_store::Outlook;
use balsa_store::command::{self, Compact, Operation};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the engine is told once.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// This node.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its slot.
    pub slot: u32,
    /// Rises with every start of the process; names of requests between nodes begin at a multiple of it, so that an
    /// answer to an earlier life is never taken for one to this.
    pub incarnation: u64,
    /// Addresses of peers by slot that override what the membership records (names are resolved at every dial).
    pub fixed_addresses: BTreeMap<u32, String>,
    /// To which feature level this node goes: all that its build knows, or less, so that one can still go back to an older
    /// build.
    pub feature_level: u32,
    /// Writes under way at once; more are refused.
    pub max_writes: usize,
    /// Reads under way at once; more are refused.
    pub max_reads: usize,
    /// How long a read waits for the leader's answer before it is asked again, in ms.
    pub read_retry_ms: u64,
    /// How long the leader remembers for whom it proposed a forwarded write, in ms.
    pub forwarded_ttl_ms: u64,
    /// How many ticks lie between two looks at deadlines.
    pub deadline_ticks: u64,
    /// The log keeps about this much behind the newest durable state of the store, in bytes, for followers that lag.
    pub log_margin_bytes: usize,
    /// While the leader's log is smaller than this, it keeps what followers that live have not got yet, in bytes.
    pub log_hold_bytes: usize,
    /// A disk with less left is low, in bytes.
    pub disk_headroom_bytes: u64,
    /// What the store may take on the disk before writes that need room are refused, in bytes; 0: as much as there is.
    pub quota_bytes: u64,
    /// Snapshots on their way out at once; a peer beyond them waits.
    pub max_snapshots: usize,
    /// A peer that was heard from within this time counts as alive, in ms.
    pub alive_ms: u64,
    /// How long a leader that stops waits for another to take over, in ms.
    pub handover_ms: u64,
}

/// How this node reaches the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    /// It leads.
    Here,
    /// Over a standing connection.
    Peer(NodeId),
    /// Not at all.
    None,
}

/// The node. See the module.
pub struct Engine<T: Tickets> {
    config: EngineConfig,
    raft: Raft,
    directory: Directory,
    clock: ClusterClock,
    now_ms: u64,
    ticks: u64,
    applied: Index,
    /// What a leader had committed when this node first heard from it, and the leader's term: caught up once that is
    /// applied. Never changes after that.
    catch_up_to: Option<(Term, Index)>,
    /// The furthest that any leader has told to be committed; `raft.commit_index() <= told_commit` while this node lags,
    /// but not always (a leader is told nothing).
    told_commit: Index,
    /// The term of the leader that told so last: before a leader's first append nothing is known of what it committed.
    told_in: Term,
    /// When this node last knew that its store held all that was committed, in ms of `now_ms`.
    fresh_ms: u64,
    /// Standing connections.
    connected: BTreeSet<NodeId>,
    /// What this node knows of the others, and whether it is one of them still.
    members: Members,
    levels: Levels,
    storage: Storage,
    expiry: Expiry,
    /// Messages that wait for a write to the log, in order.
    behind_disk: VecDeque<(PersistToken, Vec<balsa_raft::message::Message>)>,
    writes: Writes<T>,
    reads: Reads<T>,
    admins: Admins<T>,
    snapshots_out: SnapshotsOut,
    /// The flush before the newest: the log may be released up to there.
    flushed_before: Index,
    /// Proposed a compaction of the store's history at this entry; one at a time.
    compacting: Option<Index>,
    leader_changes: u64,
    /// The term that the disk had at the start.
    first_term: Term,
    /// The last leader known, and its term.
    last_leader: Option<(Term, NodeId)>,
    stopping: Option<Stopping>,
    effects: Vec<Effect<T>>,
    status_changed: bool,
}

/// On the way out.
struct Stopping {
    deadline_ms: u64,
    handed_over: bool,
}

impl<T: Tickets> Engine<T> {
    /// An engine around a core; `newest_stamp_ms` is the newest cluster time in log and store, `outlook` the store's.
    pub fn new(config: EngineConfig, raft: Raft, newest_stamp_ms: u64, outlook: Outlook) -> Engine<T> {
        let first_id = config.incarnation << 12;
        let mut clock = ClusterClock::default();
        clock.observe(0, newest_stamp_ms);
        let (applied, first_term) = (raft.applied_index(), raft.term());
        let mut engine = Engine {
            config,
            raft,
            directory: Directory::default(),
            clock,
            now_ms: 0,
            ticks: 0,
            applied,
            catch_up_to: None,
            told_commit: Index::ZERO,
            told_in: Term(0),
            fresh_ms: 0,
            connected: BTreeSet::new(),
            members: Members::default(),
            levels: Levels::new(outlook),
            storage: Storage::default(),
            expiry: Expiry::default(),
            behind_disk: VecDeque::new(),
            writes: Writes::new(first_id),
            reads: Reads::new(first_id),
            admins: Admins::new(first_id),
            snapshots_out: SnapshotsOut::default(),
            flushed_before: Index::ZERO,
            compacting: None,
            leader_changes: 0,
            first_term,
            last_leader: None,
            stopping: None,
            effects: Vec::new(),
            status_changed: true,
        };
        engine.membership_changed();
        engine
    }

    /// Takes one event in; its effects come with the next [`Engine::finish`].
    pub fn handle(&mut self, now_ms: u64, event: Event<T>) {
        self.now_ms = self.now_ms.max(now_ms);
        match event {
            Event::Tick => self.tick(),
            Event::Write { ticket, command, repeatable, deadline_ms } => {
                self.handle_write(ticket, command, repeatable, deadline_ms);
            }
            Event::Read { ticket, deadline_ms } => self.handle_read(ticket, deadline_ms),
            Event::Admin { ticket, request, deadline_ms } => self.handle_admin(ticket, request, deadline_ms),
            Event::Message { from, message } => self.handle_message(from, message),
            Event::Connected(peer) => {
                self.connected.insert(peer);
                self.introduce_to(peer);
                self.raft.handle_connection_restored(peer);
                if self.last_leader.is_none() && self.raft.term() == self.first_term {
                    let connected = &self.connected;
                    self.raft.maybe_hasten_first_election(|id| connected.contains(&id));
                }
            }
            Event::Disconnected(peer) => {
                if self.connected.remove(&peer) {
                    self.forwards_broken(peer);
                    self.reads_broken(peer);
                    self.admins_broken(peer);
                    self.raft.handle_connection_lost(peer);
                }
            }
            Event::ToldRemoved { by } => self.handle_told_removed(by),
            Event::NotSent { to, message } => self.handle_not_sent(to, message),
            Event::Persisted(token) => self.handle_persisted(token),
            Event::Applied { index, outlook } => self.handle_applied(index, outlook),
            Event::Flushed(index) => self.handle_flushed(index),
            Event::SnapshotBegun { to, index } => self.handle_snapshot_begun(to, index),
            Event::SnapshotSent { to, index } => self.handle_snapshot_sent(to, index),
            Event::SnapshotOffered { from, term, offer } => self.handle_snapshot_offered(from, term, offer),
            Event::SnapshotInstalled { meta, time_ms, outlook } => {
                self.handle_snapshot_installed(meta, time_ms, outlook);
            }
            Event::Space(space) => self.handle_space(space),
            Event::Stop => self.handle_stop(),
        }
    }

    /// Ends a batch of events: takes what the core made of them and gives all effects, in order.
    pub fn finish(&mut self) -> Vec<Effect<T>> {
        self.place_waiting();
        self.place_waiting_admins();
        self.ask_reads();
        let ready = self.raft.take_ready();
        if !ready.is_empty() {
            self.carry_out(ready);
        }
        self.maybe_settle_membership();
        self.maybe_hand_over();
        std::mem::take(&mut self.effects)
    }

    fn tick(&mut self) {
        self.ticks += 1;
        if !self.is_removed() {
            self.raft.tick(); // who was removed asks for no votes
        }
        self.maybe_expire();
        if self.ticks.is_multiple_of(self.config.deadline_ticks) {
            self.ask_whether_fresh();
            self.expire_writes();
            self.expire_reads();
            self.expire_admins();
            self.expire_leaving();
            self.tell_standing();
            self.maybe_promote();
            self.maybe_raise_level();
            self.maybe_leave_to_roomier();
            self.status_changed = true; // indexes and lag move all the time
        }
    }

    fn handle_message(&mut self, from: NodeId, message: PeerMessage) {
        self.heard_from(from);
        match message {
            PeerMessage::Raft(message) => {
                if message.from != from || message.to != self.config.id {
                    return; // not what its connection proved
                }
                let sender_term = message.term;
                // A heartbeat tells no more than what this node is known to hold; an append tells all.
                let told = match &message.body {
                    Body::Append { commit, .. } => Some(*commit),
                    _ => None,
                };
                if matches!(message.body, Body::PreVote { .. } | Body::Vote { .. }) {
                    self.heard_candidate(from);
                }
                self.raft.step(message);
                if self.raft.leader() == Some(from) && sender_term == self.raft.term() {
                    self.heard_from_leader(told);
                }
            }
            PeerMessage::Introduce { peer_address, build, is_low_on_disk } => {
                self.handle_introduction(from, peer_address, build);
                self.note_low_disk(from, is_low_on_disk);
            }
            PeerMessage::Standing { members } => self.handle_standing(from, members),
            PeerMessage::Forward { id, command } => self.handle_forward(from, id, command),
            PeerMessage::ForwardReply { id, result } => self.handle_forward_reply(from, id, result),
            PeerMessage::ReadIndex { id } => self.handle_read_index(from, id),
            PeerMessage::ReadIndexReply { id, index } => self.handle_read_index_reply(from, id, index),
            PeerMessage::Admin { id, request } => self.handle_peer_admin(from, id, request),
            PeerMessage::AdminReply { id, result } => self.handle_admin_reply(from, id, result),
        }
    }

    /// The leader lives; `told`: what it says to be committed, be it far beyond what this node holds.
    fn heard_from_leader(&mut self, told: Option<Index>) {
        if let Some(told) = told {
            self.told_commit = self.told_commit.max(told);
            self.told_in = self.raft.term();
            self.catch_up_with(told);
        }
        let has_all = self.applied >= self.told_commit.max(self.raft.commit_index());
        if self.is_caught_up() && has_all && self.told_in == self.raft.term() {
            self.fresh_ms = self.now_ms;
        }
    }

    /// Until it has caught up, a node aims at what the first word of the newest leader told it.
    fn catch_up_with(&mut self, index: Index) {
        let term = self.raft.term();
        if !self.is_caught_up() && self.catch_up_to.is_none_or(|(of, _)| of != term) {
            self.catch_up_to = Some((term, index));
            self.status_changed = true;
        }
    }

    fn is_caught_up(&self) -> bool {
        self.catch_up_to.is_some_and(|(_, index)| self.applied >= index)
    }

    fn handle_not_sent(&mut self, to: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::Raft(_) => self.raft.handle_unreachable(to),
            PeerMessage::Forward { id, .. } => self.handle_forward_not_sent(id),
            // Reads are asked again by themselves; replies that were lost meet the asker's deadline.
            _ => {}
        }
    }

    fn handle_persisted(&mut self, token: PersistToken) {
        while self.behind_disk.front().is_some_and(|(behind, _)| *behind <= token) {
            let (_, messages) = self.behind_disk.pop_front().unwrap_or_default();
            self.send_all(messages);
        }
        self.raft.handle_persisted(token);
    }

    fn handle_applied(&mut self, index: Index, outlook: Outlook) {
        self.applied = self.applied.max(index);
        self.note_outlook(outlook);
        self.note_expired();
        self.raft.handle_applied(index.min(self.raft.handed_out_index()));
        self.release_applied_reads();
        if self.compacting.is_some_and(|proposed| proposed <= index) {
            self.compacting = None;
        }
        if let Some(revision) = outlook.wants_compaction
            && self.compacting.is_none()
            && self.raft.is_leader()
        {
            self.compacting = self.propose_own(Operation::Compact(Compact { revision }));
        }
    }

    /// The store is durable up to `index`. The log is released one flush late, only while it is larger than the margin that
    /// followers may need, and only up to what those that live need of it.
    fn handle_flushed(&mut self, index: Index) {
        if self.raft.log_bytes() > self.config.log_margin_bytes {
            let to = self.flushed_before.min(self.raft.applied_index());
            let to = self.needed_of_log().map_or(to, |needed| to.min(needed));
            if let Some(meta) =
                self.raft.snapshot_meta_at(to).filter(|meta| meta.index >= self.raft.first_index())
            {
                self.raft.compact(to);
                self.effects.push(Effect::Log(LogJob::Release(log_start(&meta))));
            }
        }
        self.flushed_before = index;
    }

    fn handle_stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.status_changed = true;
        self.stopping =
            Some(Stopping { deadline_ms: self.now_ms + self.config.handover_ms, handed_over: false });
        if self.raft.is_leader() {
            let _ = self.raft.transfer_leadership(None); // alone, or nobody is fit: the deadline ends the wait
        }
    }

    fn maybe_hand_over(&mut self) {
        let alone = self.raft.membership().voters.len() <= 1 || self.is_removed();
        let leads = self.raft.is_leader();
        let now = self.now_ms;
        if let Some(stopping) = &mut self.stopping
            && !stopping.handed_over
            && (!leads || alone || now >= stopping.deadline_ms)
        {
            stopping.handed_over = true;
            self.effects.push(Effect::HandedOver);
        }
    }

    fn carry_out(&mut self, ready: Ready) {
        if ready.role_changed {
            self.role_changed();
        }
        if ready.membership_changed {
            self.membership_changed();
        }
        self.send_all(ready.send);
        if let Some(persist) = ready.persist {
            self.persist(persist);
        }
        if !ready.apply.is_empty() {
            self.apply(ready.apply);
        }
        for confirmed in ready.reads_confirmed {
            self.read_confirmed(confirmed);
        }
        for id in ready.reads_dropped {
            self.read_dropped(id);
        }
        for to in ready.snapshots_wanted {
            self.begin_snapshot(to);
        }
    }

    fn role_changed(&mut self) {
        self.status_changed = true;
        let leader = self.raft.leader().map(|leader| (self.raft.term(), leader));
        if leader.is_some() && leader != self.last_leader {
            self.last_leader = leader;
            self.leader_changes += 1;
        }
        self.forget_raising();
        self.forget_expiry();
        self.members.leader_changed(self.raft.is_leader().then_some(self.now_ms));
        if self.raft.is_leader() {
            self.clock.start_leading(self.now_ms);
            self.catch_up_with(self.raft.last_index());
        } else {
            self.clock.stop_leading();
        }
        self.give_up_snapshots();
        self.transfers_ended();
        self.leader_may_be_introduced();
        tracing::info!(
            node = %self.config.id,
            term = %self.raft.term(),
            role = ?self.role(),
            leader = self.raft.leader().map(tracing::field::display),
            commit = %self.raft.commit_index(),
            last = %self.raft.last_index(),
            "role or leader changed"
        );
    }

    fn send_all(&mut self, messages: Vec<balsa_raft::message::Message>) {
        let send = |message: balsa_raft::message::Message| Effect::Send {
            to: message.to,
            message: PeerMessage::Raft(message),
        };
        self.effects.extend(messages.into_iter().map(send));
    }

    fn persist(&mut self, persist: Persist) {
        let Persist { token, hard_state, entries, snapshot, then_send } = persist;
        for entry in entries.iter().rev().filter(|entry| entry.kind == EntryKind::Command).take(1) {
            self.clock.observe(self.now_ms, command::stamp_of(&entry.data));
        }
        let reset = snapshot.as_ref().map(log_start);
        self.effects.push(Effect::Log(LogJob::Persist { token, hard_state, reset, entries }));
        self.behind_disk.push_back((token, then_send));
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let origin = self.take_origin(&entry);
            self.membership_committed(&entry);
            committed.push(Committed { entry, origin });
        }
        self.effects.push(Effect::Apply(committed));
    }

    fn link_to_leader(&self) -> Link {
        match self.raft.leader() {
            _ if self.is_removed() => Link::None,
            Some(leader) if leader == self.config.id => Link::Here,
            Some(leader) if self.connected.contains(&leader) => Link::Peer(leader),
            _ => Link::None,
        }
    }

    fn role(&self) -> Role {
        match self.raft.role() {
            _ if self.is_removed() => Role::Follower,
            balsa_raft::Role::Leader => Role::Leader,
            balsa_raft::Role::Candidate | balsa_raft::Role::PreCandidate => Role::Candidate,
            balsa_raft::Role::Follower if self.raft.membership().learners.contains(&self.config.id) => {
                Role::Learner
            }
            balsa_raft::Role::Follower => Role::Follower,
        }
    }

    /// The core, for looking at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// When this node last knew that its store held all that was committed, in ms of the engine's clock.
    pub fn fresh_ms(&self) -> u64 {
        self.fresh_ms
    }

    /// The state to publish, if it changed since it was last taken.
    pub fn take_status(&mut self) -> Option<Status> {
        std::mem::take(&mut self.status_changed).then(|| self.status())
    }

    /// The state now.
    pub fn status(&self) -> Status {
        Status {
            cluster: Some(self.config.cluster),
            node: Some(self.config.id),
            slot: self.config.slot,
            phase: match self.stopping {
                Some(_) => Phase::Stopping,
                None if self.is_removed() => Phase::Removed,
                None => Phase::Running,
            },
            waiting_for: self.removal().map(|removal| removal.advice().to_string()),
            role: self.role(),
            term: self.raft.term(),
            leader: self.raft.leader().filter(|_| !self.is_removed()),
            first_index: self.raft.first_index(),
            last_index: self.raft.last_index(),
            commit_index: self.raft.commit_index(),
            applied_index: self.applied,
            caught_up: self.is_caught_up(),
            feature_level: self.level(),
            cluster_time_ms: self.clock.estimate(self.now_ms),
            storage_full: self.storage_full().map(str::to_owned),
            members: self.directory.members.iter().map(|member| self.member_status(member)).collect(),
            leader_changes: self.leader_changes,
        }
    }
}

/// A snapshot's place, as the log records it.
pub(crate) fn log_start(meta: &SnapshotMeta) -> LogStart {
    LogStart { index: meta.index, term: meta.term, membership: meta.membership.encode() }
}
