//! Changes of membership and leader: asked for by operators and by nodes that join, decided by the leader.
//!
//! What would lose the quorum is refused ([`safety`](super::safety)). A node that joins comes in as a learner and is made
//! a voter by the leader once it has caught up; where it takes the slot of another, that one leaves in the same joint
//! change, and only while it is silent (contract, Membership). A leader that is to be removed hands over first, and the
//! next one removes it.
//!
//! One change at a time: a request that comes while another is under way waits for its turn until its deadline. All but
//! a transfer may be asked twice with the effect of once, so what went lost with a connection is asked again.

use super::directory::Member;
use super::event::{Effect, Tickets};
use super::handle::{AdminError, AdminReply, AdminRequest};
use super::message::{AdminResult, PeerMessage};
use super::safety::{may_promote, may_remove};
use super::{Engine, Link};
use balsa_raft::membership::Change;
use balsa_raft::{Entry, Index, MembershipError, NodeId, Term};
use std::collections::{BTreeMap, VecDeque};

/// Who asked.
enum Asker<T: Tickets> {
    Local { ticket: T::Admin, deadline_ms: u64 },
    Peer { node: NodeId, id: u64 },
}

/// A request of this node's own doors that waits for a leader or for its turn, or was forwarded.
struct Ask<T: Tickets> {
    ticket: T::Admin,
    request: AdminRequest,
    deadline_ms: u64,
    /// Not tried before.
    after_ms: u64,
    /// What is true of it, should it never be tried again.
    failure: AdminError,
}

impl<T: Tickets> Ask<T> {
    fn put_off(mut self, until_ms: u64, failure: AdminError) -> Ask<T> {
        self.after_ms = until_ms;
        if !matches!(self.failure, AdminError::Unknown { .. }) {
            self.failure = failure;
        }
        self
    }
}

/// All requests on their way.
pub(super) struct Admins<T: Tickets> {
    waiting: VecDeque<Ask<T>>,
    forwarded: BTreeMap<u64, (NodeId, Ask<T>)>,
    /// Appended as membership entries by this leader.
    appended: BTreeMap<(Index, Term), Asker<T>>,
    /// Waits until somebody else leads: for that alone, or to be asked of them.
    transferring: Vec<(Asker<T>, Option<AdminRequest>)>,
    next_id: u64,
}

/// How many requests of this kind may be under way at once.
const MAX_ADMIN_REQUESTS: usize = 64;

/// A learner this many entries or fewer behind the leader's commit index counts as caught up.
const CAUGHT_UP_ENTRIES: u64 = 256;

/// A request that met another change is tried again after this time, in ms.
const BUSY_RETRY_MS: u64 = 50;

/// What handling a request gave at once.
enum Outcome {
    Done,
    Appended(Term, Index),
    Transferring,
    /// To be asked of the next leader.
    HandingOver,
    Not(AdminResult),
}

impl<T: Tickets> Admins<T> {
    /// No requests; `first_id` as for writes.
    pub(super) fn new(first_id: u64) -> Admins<T> {
        Admins {
            waiting: VecDeque::new(),
            forwarded: BTreeMap::new(),
            appended: BTreeMap::new(),
            transferring: Vec::new(),
            next_id: first_id,
        }
    }
}

impl<T: Tickets> Engine<T> {
    /// An operator's request arrives at this node.
    pub(super) fn handle_admin(&mut self, ticket: T::Admin, request: AdminRequest, deadline_ms: u64) {
        let under_way = self.admins.waiting.len() + self.admins.forwarded.len() + self.admins.appended.len();
        if under_way >= MAX_ADMIN_REQUESTS {
            let error = AdminError::Overloaded { what: "membership requests under way" };
            return self.effects.push(Effect::AnswerAdmin(ticket, Err(error)));
        }
        self.place_admin(Ask { ticket, request, deadline_ms, after_ms: 0, failure: AdminError::NoLeader });
    }

    /// Tries what waits once more.
    pub(super) fn place_waiting_admins(&mut self) {
        if self.link_to_leader() == Link::None {
            return;
        }
        for ask in std::mem::take(&mut self.admins.waiting) {
            if ask.after_ms <= self.now_ms {
                self.place_admin(ask);
            } else {
                self.admins.waiting.push_back(ask);
            }
        }
    }

    fn place_admin(&mut self, ask: Ask<T>) {
        match self.link_to_leader() {
            Link::None => self.admins.waiting.push_back(ask),
            Link::Here => {
                let asker = Asker::Local { ticket: ask.ticket, deadline_ms: ask.deadline_ms };
                self.decide(asker, ask.request);
            }
            Link::Peer(leader) => {
                let id = self.admins.next_id;
                self.admins.next_id += 1;
                let message = PeerMessage::Admin { id, request: ask.request.clone() };
                self.admins.forwarded.insert(id, (leader, ask));
                self.effects.push(Effect::Send { to: leader, message });
            }
        }
    }

    /// A peer passes a request on.
    pub(super) fn handle_peer_admin(&mut self, from: NodeId, id: u64, request: AdminRequest) {
        self.decide(Asker::Peer { node: from, id }, request);
    }

    /// The leader says what became of a request.
    pub(super) fn handle_admin_reply(&mut self, from: NodeId, id: u64, result: AdminResult) {
        if self.admins.forwarded.get(&id).is_none_or(|(to, _)| *to != from) {
            return;
        }
        let Some((_, ask)) = self.admins.forwarded.remove(&id) else { return };
        let later_ms = self.now_ms + BUSY_RETRY_MS;
        match result {
            AdminResult::NotLeader => {
                self.admins.waiting.push_back(ask.put_off(later_ms, AdminError::NoLeader));
            }
            AdminResult::Busy => self.admins.waiting.push_back(ask.put_off(later_ms, AdminError::Busy)),
            other => self.effects.push(Effect::AnswerAdmin(ask.ticket, to_answer(other))),
        }
    }

    /// The connection to a peer broke.
    pub(super) fn admins_broken(&mut self, peer: NodeId) {
        let why = "the connection to the leader broke after the request was sent";
        for (_, (_, ask)) in self.admins.forwarded.extract_if(.., |_, (to, _)| *to == peer) {
            match ask.request {
                AdminRequest::TransferLeadership { .. } => {
                    self.effects.push(Effect::AnswerAdmin(ask.ticket, Err(AdminError::Unknown { why })));
                }
                _ => self.admins.waiting.push_back(ask.put_off(0, AdminError::Unknown { why })),
            }
        }
    }

    /// Answers what waits for a leader that this node will never have. That it is gone is what some asked for.
    pub(super) fn refuse_admins_as_removed(&mut self, ask: &str) {
        for waiting in std::mem::take(&mut self.admins.waiting) {
            let removed = waiting.request == AdminRequest::Remove { id: self.config.id };
            let answer = if removed {
                Ok(self.admin_reply())
            } else {
                Err(match waiting.failure {
                    unknown @ AdminError::Unknown { .. } => unknown,
                    _ => AdminError::Removed { ask: ask.to_string() },
                })
            };
            self.effects.push(Effect::AnswerAdmin(waiting.ticket, answer));
        }
    }

    /// As leader: does it, or says why not.
    fn decide(&mut self, asker: Asker<T>, request: AdminRequest) {
        if !self.raft.is_leader() {
            return self.answer_admin(asker, AdminResult::NotLeader);
        }
        // What is not committed may be taken back: nothing is judged by it, nor said to be done.
        let changes = !matches!(request, AdminRequest::TransferLeadership { .. });
        let outcome = match request.clone() {
            _ if changes && self.raft.is_changing_membership() => Outcome::Not(AdminResult::Busy),
            AdminRequest::AddMember { id, slot, peer_address, client_address } => {
                self.add_member(id, slot, peer_address, client_address)
            }
            AdminRequest::Promote { id } => self.promote(id),
            AdminRequest::Remove { id } => self.remove_member(id),
            AdminRequest::TransferLeadership { to } => self.transfer(to),
        };
        match (outcome, asker) {
            (Outcome::Done, asker) => self.answer_done(asker),
            (Outcome::Appended(term, index), asker) => {
                self.admins.appended.insert((index, term), asker);
            }
            (Outcome::Transferring, asker) => self.admins.transferring.push((asker, None)),
            (Outcome::HandingOver, asker) => self.admins.transferring.push((asker, Some(request))),
            (Outcome::Not(AdminResult::Busy), asker) => self.answer_busy(asker, request),
            (Outcome::Not(result), asker) => self.answer_admin(asker, result),
        }
    }

    fn add_member(&mut self, id: NodeId, slot: Option<u32>, peer: String, client: String) -> Outcome {
        let mut directory = self.directory.clone();
        if let Some(member) = directory.get(id) {
            if member.peer_address == peer && member.client_address == client {
                return Outcome::Done;
            }
            let moved = Member { peer_address: peer, client_address: client, ..member.clone() };
            directory.put(moved);
            return self.change(&[], directory);
        }
        if directory.was_removed(id) {
            let why = format!(
                "{id} was removed from this cluster, and identities are never used again: start the node again, and it \
                 joins under a new one"
            );
            return Outcome::Not(AdminResult::Refused(why));
        }
        let slot = slot.unwrap_or_else(|| directory.free_slot());
        let holders: Vec<NodeId> =
            directory.members.iter().filter(|m| m.slot == slot).map(|m| NodeId(m.id)).collect();
        if let Some(living) = holders.iter().find(|holder| !self.is_silent(**holder)) {
            let why = format!(
                "slot {slot} is held by {living}, which answers or did so lately: give another slot, or remove it first"
            );
            return Outcome::Not(AdminResult::Refused(why));
        }
        // Learners that fell silent before they took the slot make way at once; a voter goes when its place is taken.
        let mut changes = vec![Change::AddLearner(id)];
        for silent in holders.iter().filter(|holder| !self.raft.membership().is_voter(**holder)) {
            changes.push(Change::Remove(*silent));
            directory.remove(*silent);
        }
        directory.put(Member { id: id.0, slot, peer_address: peer, client_address: client, promote: true });
        self.change(&changes, directory)
    }

    /// As leader: whether a member could take its part in a quorum now.
    fn is_fit(&self, id: NodeId) -> bool {
        let holds_nearly_all =
            |peer: balsa_raft::PeerStatus| peer.matched.0 + CAUGHT_UP_ENTRIES >= self.raft.commit_index().0;
        id == self.config.id || (self.is_alive(id) && self.raft.peer_status(id).is_some_and(holds_nearly_all))
    }

    fn promote(&mut self, id: NodeId) -> Outcome {
        let membership = self.raft.membership();
        if membership.voters.contains(&id) {
            return Outcome::Done;
        }
        if !membership.learners.contains(&id) {
            return Outcome::Not(AdminResult::NoSuchMember(id));
        }
        let old = self.directory.replaced_by(id).map(|m| NodeId(m.id));
        let judged = may_promote(&membership.voters, id, old, |id| self.is_fit(id), |id| self.is_silent(id));
        if let Err(reason) = judged {
            return Outcome::Not(AdminResult::Refused(reason.to_string()));
        }
        let mut directory = self.directory.clone();
        let mut changes = vec![Change::AddVoter(id)];
        if let Some(old) = old {
            changes.push(Change::Remove(old));
            directory.remove(old);
        }
        if let Some(member) = directory.get(id) {
            directory.put(Member { promote: false, ..member.clone() });
        }
        self.change(&changes, directory)
    }

    fn remove_member(&mut self, id: NodeId) -> Outcome {
        let membership = self.raft.membership();
        if !membership.is_member(id) {
            return match self.directory.was_removed(id) {
                true => Outcome::Done,
                false => Outcome::Not(AdminResult::NoSuchMember(id)),
            };
        }
        if let Err(reason) = may_remove(&membership.voters, id, |id| self.is_fit(id)) {
            return Outcome::Not(AdminResult::Refused(reason.to_string()));
        }
        if id == self.config.id {
            return match self.raft.transfer_leadership(None) {
                Ok(_) => Outcome::HandingOver,
                Err(error) => Outcome::Not(AdminResult::Refused(error.to_string())),
            };
        }
        let mut directory = self.directory.clone();
        directory.remove(id);
        self.change(&[Change::Remove(id)], directory)
    }

    fn change(&mut self, changes: &[Change], directory: super::directory::Directory) -> Outcome {
        match self.raft.propose_membership(changes, directory.to_context()) {
            Ok((term, index)) => Outcome::Appended(term, index),
            Err(MembershipError::NotLeader { .. }) => Outcome::Not(AdminResult::NotLeader),
            Err(MembershipError::Busy | MembershipError::Transferring) => Outcome::Not(AdminResult::Busy),
            Err(other) => Outcome::Not(AdminResult::Refused(other.to_string())),
        }
    }

    fn transfer(&mut self, to: Option<NodeId>) -> Outcome {
        if to == Some(self.config.id) {
            return Outcome::Done;
        }
        match self.raft.transfer_leadership(to) {
            Ok(_) => Outcome::Transferring,
            Err(error) => Outcome::Not(AdminResult::Refused(error.to_string())),
        }
    }

    /// As leader: makes learners that have caught up voters, one at a time.
    pub(super) fn maybe_promote(&mut self) {
        if !self.raft.is_leader() || self.raft.is_changing_membership() {
            return;
        }
        // Who takes the place of one that is gone comes first: that makes the quorum no larger.
        let mut candidates: Vec<(bool, NodeId)> = (self.directory.members.iter())
            .filter(|member| member.promote)
            .map(|member| NodeId(member.id))
            .map(|id| (self.directory.replaced_by(id).is_none(), id))
            .collect();
        candidates.sort_unstable();
        for (_, id) in candidates {
            if matches!(self.promote(id), Outcome::Appended(..)) {
                break;
            }
        }
    }

    /// An entry is committed: answers whoever waits for it as a membership.
    pub(super) fn membership_committed(&mut self, entry: &Entry) {
        while let Some(first) = self.admins.appended.first_entry() {
            let (index, term) = *first.key();
            if index > entry.index {
                break;
            }
            let asker = first.remove();
            if (index, term) == (entry.index, entry.term) {
                self.answer_done(asker);
            } else {
                self.answer_admin(asker, AdminResult::Unknown);
            }
        }
    }

    /// Somebody else may lead now.
    pub(super) fn transfers_ended(&mut self) {
        if self.raft.is_leader() || self.admins.transferring.is_empty() {
            return;
        }
        for (asker, request) in std::mem::take(&mut self.admins.transferring) {
            match (request, asker) {
                (None, asker) => self.answer_done(asker),
                (Some(request), Asker::Local { ticket, deadline_ms }) => {
                    let failure = AdminError::NoLeader;
                    self.admins.waiting.push_back(Ask { ticket, request, deadline_ms, after_ms: 0, failure });
                }
                (Some(_), asker) => self.answer_admin(asker, AdminResult::NotLeader),
            }
        }
    }

    /// Answers what has met its deadline.
    pub(super) fn expire_admins(&mut self) {
        let now = self.now_ms;
        for ask in std::mem::take(&mut self.admins.waiting) {
            if ask.deadline_ms <= now {
                self.effects.push(Effect::AnswerAdmin(ask.ticket, Err(ask.failure)));
            } else {
                self.admins.waiting.push_back(ask);
            }
        }
        for (_, (_, ask)) in self.admins.forwarded.extract_if(.., |_, (_, ask)| ask.deadline_ms <= now) {
            let error = AdminError::Unknown { why: "the leader did not answer in time" };
            self.effects.push(Effect::AnswerAdmin(ask.ticket, Err(error)));
        }
        let is_late =
            |asker: &Asker<T>| matches!(asker, Asker::Local { deadline_ms, .. } if *deadline_ms <= now);
        let mut late: Vec<Asker<T>> =
            self.admins.appended.extract_if(.., |_, asker| is_late(asker)).map(|(_, asker)| asker).collect();
        let handing_over = self.admins.transferring.extract_if(.., |(asker, _)| is_late(asker));
        late.extend(handing_over.map(|(asker, _)| asker));
        for asker in late {
            self.answer_admin(asker, AdminResult::Unknown);
        }
        if !self.raft.is_transferring() && self.raft.is_leader() {
            for (asker, request) in std::mem::take(&mut self.admins.transferring) {
                match request {
                    Some(request) => self.answer_busy(asker, request),
                    None => {
                        let why = "the other node did not take over within an election timeout".to_string();
                        self.answer_admin(asker, AdminResult::Refused(why));
                    }
                }
            }
        }
    }

    /// Not now: a request of this node's own doors waits, others are asked again by their nodes.
    fn answer_busy(&mut self, asker: Asker<T>, request: AdminRequest) {
        match asker {
            Asker::Local { ticket, deadline_ms } => {
                let (after_ms, failure) = (self.now_ms + BUSY_RETRY_MS, AdminError::Busy);
                self.admins.waiting.push_back(Ask { ticket, request, deadline_ms, after_ms, failure });
            }
            asker @ Asker::Peer { .. } => self.answer_admin(asker, AdminResult::Busy),
        }
    }

    fn answer_done(&mut self, asker: Asker<T>) {
        let reply = self.admin_reply();
        self.answer_admin(asker, AdminResult::Done(reply));
    }

    fn admin_reply(&self) -> AdminReply {
        let voters = &self.raft.membership().voters;
        let members = (self.directory.members.iter())
            .map(|m| {
                let voter = voters.contains(&NodeId(m.id));
                (NodeId(m.id), m.slot, m.peer_address.clone(), m.client_address.clone(), voter)
            })
            .collect();
        AdminReply { members, cluster: self.config.cluster }
    }

    fn answer_admin(&mut self, asker: Asker<T>, result: AdminResult) {
        match asker {
            Asker::Local { ticket, .. } => self.effects.push(Effect::AnswerAdmin(ticket, to_answer(result))),
            Asker::Peer { node, id } => {
                self.effects.push(Effect::Send { to: node, message: PeerMessage::AdminReply { id, result } });
            }
        }
    }
}

fn to_answer(result: AdminResult) -> Result<AdminReply, AdminError> {
    match result {
        AdminResult::Done(reply) => Ok(reply),
        AdminResult::NotLeader => Err(AdminError::NoLeader),
        AdminResult::Refused(why) => Err(AdminError::Refused(why)),
        AdminResult::NoSuchMember(id) => Err(AdminError::NoSuchMember(id)),
        AdminResult::Busy => Err(AdminError::Busy),
        AdminResult::Unknown => {
            Err(AdminError::Unknown { why: "leadership was lost while the change was pending" })
        }
    }
}
