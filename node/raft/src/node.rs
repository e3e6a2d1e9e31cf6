//! One node: its inputs, the one place where terms are compared, and what it asks of its driver.
//!
//! Every public method is one input. It changes the node, queues messages and returns at once;
//! [`Raft::take_ready`] then hands out all that follows from the inputs since the last one. Appends and
//! heartbeats are built there and not earlier, so that any number of proposals and reads costs one append and
//! one heartbeat a peer.
//!
//! What the roles do is in [`crate::role`]; this module knows of them only which one to ask.

use crate::config::Config;
use crate::error::RestoreError;
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{Body, Message};
use crate::pace::Pace;
use crate::persist::{After, Completed, Pipeline, fold};
use crate::random::SplitMix;
use crate::ready::{Persist, PersistToken, ReadConfirmed, ReadId, Ready, SnapshotMeta};
use crate::role::{Leader, RoleState};
use crate::status::{PeerStatus, Role, Status};
use crate::types::{Entry, EntryKind, HardState, Index, NodeId, Term};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the driver read from disk.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Term and vote; the default for a blank disk.
    pub hard_state: HardState,
    /// Where the log begins: index 0, term 0 and an empty membership for one that was never compacted.
    pub snapshot: SnapshotMeta,
    /// The log, contiguous from `snapshot.index + 1`.
    pub entries: Vec<Entry>,
    /// What the state has applied, at or above `snapshot.index`; entries above are handed out again once
    /// committed.
    pub applied: Index,
}

impl Restored {
    /// What a blank disk holds: nothing.
    pub fn blank() -> Restored {
        Restored {
            hard_state: HardState::default(),
            snapshot: SnapshotMeta { index: Index::ZERO, term: Term(0), membership: Arc::default() },
            entries: Vec::new(),
            applied: Index::ZERO,
        }
    }

    /// Completes what a crash cut off between a state and its log. `state` is where the durable state stands. A
    /// snapshot's state is durable before the log begins anew behind it; where the log does not hold the state's last
    /// entry, that second step is done here, and the driver writes it to its log before it starts. Elsewhere only
    /// `applied` is set.
    #[must_use]
    pub fn with_state(mut self, state: SnapshotMeta) -> Restored {
        self.applied = state.index;
        let offset = state.index.0.checked_sub(self.snapshot.index.0.saturating_add(1));
        let term = match offset {
            None => (state.index == self.snapshot.index).then_some(self.snapshot.term),
            Some(offset) => self.entries.get(offset as usize).map(|entry| entry.term),
        };
        // A state below the log's beginning cannot be completed: `Raft::new` refuses it.
        if term != Some(state.term) && state.index >= self.snapshot.index {
            if state.term > self.hard_state.term {
                // Entering a term without a vote: had there been one, it would have been durable.
                self.hard_state = HardState { term: state.term, vote: None };
            }
            self.entries.clear();
            self.snapshot = state;
        }
        self
    }
}

/// The consensus core of one node. See the crate's page for the algorithm and the contract.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) log: Log,
    pub(crate) hard_state: HardState,
    /// `hard_state` is not part of any persist yet.
    pub(crate) hard_state_unsent: bool,
    /// The log begins behind this snapshot, which is not part of any persist yet.
    pub(crate) snapshot_unsent: Option<SnapshotMeta>,
    pub(crate) pipeline: Pipeline,
    pub(crate) outbox: Vec<(After, Message)>,
    pub(crate) role: RoleState,
    pub(crate) leader: Option<NodeId>,
    /// Ticks since this core was made.
    pub(crate) now: u64,
    /// How long to wait for others.
    pub(crate) pace: Pace,
    /// When this node last heard from the leader of which term, in ticks of `now`.
    pub(crate) heard: Option<(Term, u64)>,
    /// Ticks since the election timer was reset; not used while leading.
    pub(crate) elapsed: u32,
    /// The election timer runs out at this many.
    pub(crate) timeout: u32,
    random: SplitMix,
    /// The term and context of the last heartbeat that was answered.
    pub(crate) answered: (Term, u64),
    /// Peers to which our connection is broken.
    pub(crate) disconnected: BTreeSet<NodeId>,
    pub(crate) reads_confirmed: Vec<ReadConfirmed>,
    pub(crate) reads_dropped: Vec<ReadId>,
    pub(crate) snapshots_wanted: Vec<NodeId>,
    pub(crate) membership_changed: bool,
    /// Role, term and leader as of the last Ready.
    reported: (Role, Term, Option<NodeId>),
}

impl Raft {
    /// A node as its disk has it: a follower. Refuses what no run of this core can have left behind.
    pub fn new(config: Config, restored: Restored) -> Result<Raft, RestoreError> {
        config.validate()?;
        let Restored { hard_state, snapshot, entries, applied } = restored;
        let compacted = snapshot.index;
        let (mut expected, mut before) = (compacted.next(), snapshot.term);
        if before > hard_state.term {
            let (index, term) = (compacted, before);
            return Err(RestoreError::TermOutOfOrder { index, term, before, hard_state: hard_state.term });
        }
        for entry in &entries {
            if entry.index != expected {
                return Err(RestoreError::NotContiguous { expected, found: entry.index });
            }
            if entry.term < before || entry.term > hard_state.term {
                let (index, term) = (entry.index, entry.term);
                return Err(RestoreError::TermOutOfOrder {
                    index,
                    term,
                    before,
                    hard_state: hard_state.term,
                });
            }
            (expected, before) = (expected.next(), entry.term);
        }
        let last = expected.prev();
        if applied < compacted || applied > last {
            return Err(RestoreError::AppliedOutsideLog { applied, compacted, last });
        }
        let log = Log::new(snapshot, entries, applied)
            .map_err(|(index, source)| RestoreError::Membership { index, source })?;
        let seed = config.seed;
        let pace = Pace::new(config.election_ticks, config.election_stretch_max);
        let mut raft = Raft {
            config,
            log,
            hard_state,
            hard_state_unsent: false,
            snapshot_unsent: None,
            pipeline: Pipeline::default(),
            outbox: Vec::new(),
            role: RoleState::Follower,
            leader: None,
            now: 0,
            pace,
            heard: None,
            elapsed: 0,
            timeout: 0,
            random: SplitMix(seed),
            answered: (Term(0), 0),
            disconnected: BTreeSet::new(),
            reads_confirmed: Vec::new(),
            reads_dropped: Vec::new(),
            snapshots_wanted: Vec::new(),
            membership_changed: false,
            reported: (Role::Follower, hard_state.term, None),
        };
        raft.reset_election_timer();
        raft.check();
        Ok(raft)
    }

    /// The first entry of a new cluster. Each founder writes it, with a hard state of term 1 and no vote,
    /// before it starts: equal logs need no leader to agree on.
    pub fn bootstrap_entry(membership: &Membership) -> Entry {
        let data = membership.encode();
        Entry { index: Index(1), term: Term(1), kind: EntryKind::Membership, data }
    }

    /// One tick of the driver's clock passed.
    pub fn tick(&mut self) {
        self.now += 1;
        match self.role {
            RoleState::Leader(_) => self.tick_leader(),
            RoleState::Follower | RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.tick_election()
            }
        }
        self.check();
    }

    /// A peer's message arrived. Any order, any delay, any number of copies will do.
    pub fn step(&mut self, message: Message) {
        let me = self.config.id;
        if message.to == me && message.from != me && self.admit_term(&message) {
            self.step_in_term(message);
        }
        self.check();
    }

    /// The one place where terms are compared (thesis 3.3). Afterwards the message is of our term, or one of
    /// those that mean something across terms (pre-votes); `false`: it has been dealt with.
    fn admit_term(&mut self, message: &Message) -> bool {
        let Message { from, term, ref body, .. } = *message;
        if term > self.hard_state.term {
            match body {
                // A question about a term that nobody has entered, and the yes to our own.
                Body::PreVote { .. } | Body::PreVoteReply { granted: true } => {}
                // A living leader is a reason not to vote, nor even to hear of the term (thesis 4.2.3).
                Body::Vote { transfer: false, .. } if self.is_leader_alive() => return false,
                Body::Append { .. } | Body::Heartbeat { .. } => self.become_follower(term, Some(from)),
                _ => self.become_follower(term, None),
            }
        } else if term < self.hard_state.term {
            match body {
                // Answered, lest a candidate or leader of the past go on for ever (hazard 11).
                Body::PreVote { .. } => {
                    self.send(After::Nothing, from, Body::PreVoteReply { granted: false })
                }
                Body::Vote { .. } => self.send(After::HardState, from, Body::VoteReply { granted: false }),
                Body::Append { .. } | Body::Heartbeat { .. } => {
                    self.send(After::HardState, from, Body::HeartbeatReply { context: 0 });
                }
                // Answers to questions of a former term, or a leader's last wish in it.
                Body::VoteReply { .. } | Body::HeartbeatReply { .. } => self.pace.late_answer(self.now),
                _ => {}
            }
            return false;
        }
        true
    }

    /// Handles a message of our own term (or a pre-vote).
    fn step_in_term(&mut self, message: Message) {
        let Message { from, term, body, .. } = message;
        match body {
            Body::PreVote { last_index, last_term } => {
                self.handle_pre_vote(from, term, last_index, last_term)
            }
            Body::Vote { last_index, last_term, transfer: _ } => {
                self.handle_vote(from, last_index, last_term)
            }
            Body::PreVoteReply { granted } => self.handle_pre_vote_reply(from, term, granted),
            Body::VoteReply { granted } => self.handle_vote_reply(from, granted),
            Body::Append { prev_index, prev_term, entries, commit } => {
                self.follow(from);
                self.handle_append(from, (prev_index, prev_term), entries, commit);
            }
            Body::Heartbeat { commit, context } => {
                self.follow(from);
                self.handle_heartbeat(from, commit, context);
            }
            Body::TimeoutNow { last_index } => self.handle_timeout_now(from, last_index),
            Body::AppendAccepted { match_index } | Body::SnapshotInstalled { match_index } => {
                self.handle_accepted(from, match_index);
            }
            Body::AppendRejected { prev_index, hint_index, hint_term } => {
                self.handle_rejected(from, prev_index, (hint_index, hint_term));
            }
            Body::HeartbeatReply { context } => self.handle_heartbeat_reply(from, context),
        }
    }

    /// The write named `token`, and all before it, is durable.
    pub fn handle_persisted(&mut self, token: PersistToken) {
        let Completed { stable, since, free } = self.pipeline.complete(token);
        if let Some(since) = since {
            self.pace.persisted(self.now, self.now - since);
        }
        if let Some(index) = stable {
            self.log.stable_to(index);
        }
        self.outbox.extend(free.into_iter().map(|message| (After::Nothing, message)));
        match self.role {
            RoleState::Leader(_) => self.maybe_commit(),
            RoleState::Candidate(_) => self.maybe_count_own_vote(),
            RoleState::Follower | RoleState::PreCandidate(_) => {}
        }
        self.check();
    }

    /// The state has applied all up to `index`; reports from before a snapshot was installed are ignored.
    /// Makes room for further entries to be handed out.
    pub fn handle_applied(&mut self, index: Index) {
        self.log.applied_to(index);
        self.check();
    }

    /// Drops the entries up to `to` from memory. They must be applied, and not be needed from the log on disk
    /// either, or still be there: the core does not ask. A follower that lacks them will need a snapshot.
    pub fn compact(&mut self, to: Index) {
        self.log.compact(to);
        self.check();
    }

    /// All that the inputs since the last call ask of the driver.
    pub fn take_ready(&mut self) -> Ready {
        self.prepare_leader_messages();
        let mut ready = Ready {
            apply: self.log.take_apply(self.config.max_apply_bytes),
            reads_confirmed: std::mem::take(&mut self.reads_confirmed),
            reads_dropped: std::mem::take(&mut self.reads_dropped),
            snapshots_wanted: std::mem::take(&mut self.snapshots_wanted),
            membership_changed: std::mem::take(&mut self.membership_changed),
            ..Ready::default()
        };
        let now = (self.role(), self.hard_state.term, self.leader);
        ready.role_changed = std::mem::replace(&mut self.reported, now) != now;

        let hard_state = std::mem::take(&mut self.hard_state_unsent).then_some(self.hard_state);
        let snapshot = self.snapshot_unsent.take();
        let entries = self.log.take_unsent();
        let mut then_send = Vec::new();
        let writes = hard_state.is_some() || snapshot.is_some() || !entries.is_empty();
        for (after, message) in self.outbox.drain(..) {
            let rides = match after {
                After::Nothing => false,
                After::HardState => hard_state.is_some(),
                After::Log => writes,
            };
            if rides {
                then_send.push(message);
            } else if let Some(token) = self.pipeline.waits_for(after) {
                self.pipeline.hold(token, message);
            } else {
                ready.send.push(message);
            }
        }
        if writes {
            let range = entries.first().zip(entries.last()).map(|(first, last)| (first.index, last.index));
            let token = self.pipeline.begin(range, hard_state.is_some(), self.now);
            ready.persist = Some(Persist { token, hard_state, entries, snapshot, then_send });
        }
        self.check();
        ready
    }

    /// What this node shows of itself.
    pub fn status(&self) -> Status {
        let membership = Arc::clone(self.log.membership());
        let leader = self.leading();
        let peers =
            leader.into_iter().flat_map(|leader| &leader.peers).filter(|(_, peer)| peer.departing.is_none());
        let peers = peers.map(|(&id, peer)| PeerStatus {
            id,
            matched: peer.matched,
            next: peer.next,
            state: peer.state(),
            active: peer.active,
        });
        Status {
            id: self.config.id,
            role: self.role(),
            term: self.hard_state.term,
            leader: self.leader,
            vote: self.hard_state.vote,
            commit: self.log.commit(),
            applied: self.log.applied(),
            last: self.log.last(),
            stable: self.log.stable(),
            first: self.log.first(),
            peers: peers.collect(),
            is_joint: membership.is_joint(),
            membership,
            election_timeout_ticks: self.pace.timeout(),
            transferring_to: leader.and_then(|leader| leader.transfer).map(|transfer| transfer.to),
        }
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Its role.
    pub fn role(&self) -> Role {
        match self.role {
            RoleState::Follower => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// The effective membership: that of the newest membership entry in the log, committed or not.
    pub fn membership(&self) -> &Arc<Membership> {
        self.log.membership()
    }

    /// The index of the entry that made the membership effective; it is committed once [`Raft::commit_index`]
    /// is there.
    pub fn membership_index(&self) -> Index {
        self.log.membership_index()
    }

    /// The highest term this node has heard of.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether this node leads; perhaps no longer, if others have moved on and it has not heard.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, RoleState::Leader(_))
    }

    /// The last index known to be committed.
    pub fn commit_index(&self) -> Index {
        self.log.commit()
    }

    /// The last index that the driver reported applied.
    pub fn applied_index(&self) -> Index {
        self.log.applied()
    }

    /// The last index of the log, durable or not.
    pub fn last_index(&self) -> Index {
        self.log.last()
    }

    /// The first index that is still in the log; `last_index + 1` when none is.
    pub fn first_index(&self) -> Index {
        self.log.first()
    }

    /// The term of the entry at `index`; `None` when that is compacted (but for the last such one) or beyond
    /// the end.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// Where a snapshot of the state at `index` stands: its term, and the membership effective there.
    pub fn snapshot_meta_at(&self, index: Index) -> Option<SnapshotMeta> {
        self.log.snapshot_meta_at(index)
    }

    /// The sizes of the entries in memory, in bytes by [`Entry::size_bytes`]: what [`Raft::compact`] bounds.
    pub fn log_bytes(&self) -> usize {
        self.log.bytes()
    }

    /// Queues a message in today's term.
    pub(crate) fn send(&mut self, after: After, to: NodeId, body: Body) {
        let message = Message { from: self.config.id, to, term: self.hard_state.term, body };
        self.send_message(after, message);
    }

    /// Queues a message; one that only goes further than another already queued takes its place.
    pub(crate) fn send_message(&mut self, after: After, message: Message) {
        if let Some((last_after, last)) = self.outbox.last_mut()
            && *last_after == after
            && fold(last, &message)
        {
            return;
        }
        self.outbox.push((after, message));
    }

    /// Starts the election timer anew, with another timeout.
    pub(crate) fn reset_election_timer(&mut self) {
        self.elapsed = 0;
        let least = self.pace.timeout();
        self.timeout = least + self.random.below(least);
    }

    /// Whether a write to the log has been under way for an election timeout (hazard 13): such a node must
    /// not lead.
    pub(crate) fn is_disk_stalled(&self) -> bool {
        let limit = u64::from(self.pace.timeout());
        self.pipeline.oldest_since().is_some_and(|since| self.now - since >= limit)
    }

    pub(crate) fn leading(&self) -> Option<&Leader> {
        match &self.role {
            RoleState::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    /// Asserts what must hold between inputs; on in release.
    fn check(&self) {
        self.log.check();
        assert!(
            self.log.last_term() <= self.hard_state.term,
            "log of term {} in term {}",
            self.log.last_term(),
            self.hard_state.term
        );
        if let RoleState::Leader(leader) = &self.role {
            assert_eq!(self.leader, Some(self.config.id), "a leader that follows another");
            assert!(leader.term_start <= self.log.last(), "a leader without an entry of its term");
        }
    }
}
