//! Changes of membership and leader: asked for by operators and by nodes that join, decided by the leader.
//!
//! What would lose the quorum is refused. A node that joins comes in as a learner and is made a voter by the leader once
//! it has caught up; where it takes the slot of another, that one leaves in the same joint change, and only while it is
//! silent (contract, Membership).

use super::directory::Member;
use super::event::{Effect, Tickets};
use super::handle::{AdminError, AdminReply, AdminRequest};
use super::message::{AdminResult, PeerMessage};
use super::{Engine, Link};
use balsa_raft::membership::Change;
use balsa_raft::{Entry, Index, MembershipError, NodeId, Term};
use std::collections::{BTreeMap, VecDeque};

/// Who asked.
enum Asker<T: Tickets> {
    Local { ticket: T::Admin, deadline_ms: u64 },
    Peer { node: NodeId, id: u64 },
}

/// A request that waits for a leader, or was forwarded to one.
struct Ask<T: Tickets> {
    ticket: T::Admin,
    request: AdminRequest,
    deadline_ms: u64,
}

/// All requests on their way.
pub(super) struct Admins<T: Tickets> {
    waiting: VecDeque<Ask<T>>,
    forwarded: BTreeMap<u64, (NodeId, Ask<T>)>,
    /// Appended as membership entries by this leader.
    appended: BTreeMap<(Index, Term), Asker<T>>,
    /// Waits until somebody else leads.
    transferring: Vec<Asker<T>>,
    next_id: u64,
}

/// How many requests of this kind may be under way at once.
const MAX_ADMIN_REQUESTS: usize = 64;

/// A learner this many entries or fewer behind the leader's commit index counts as caught up.
const CAUGHT_UP_ENTRIES: u64 = 256;

/// What handling a request gave at once.
enum Outcome {
    Done,
    Appended(Term, Index),
    Transferring,
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
        self.place_admin(Ask { ticket, request, deadline_ms });
    }

    /// Tries what waits once more.
    pub(super) fn place_waiting_admins(&mut self) {
        if self.link_to_leader() != Link::None {
            for ask in std::mem::take(&mut self.admins.waiting) {
                self.place_admin(ask);
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
        match result {
            AdminResult::NotLeader => self.admins.waiting.push_back(ask),
            other => self.effects.push(Effect::AnswerAdmin(ask.ticket, to_answer(other))),
        }
    }

    /// The connection to a peer broke.
    pub(super) fn admins_broken(&mut self, peer: NodeId) {
        for (_, (_, ask)) in self.admins.forwarded.extract_if(.., |_, (to, _)| *to == peer) {
            let error =
                AdminError::Unknown { why: "the connection to the leader broke after the request was sent" };
            self.effects.push(Effect::AnswerAdmin(ask.ticket, Err(error)));
        }
    }

    /// As leader: does it, or says why not.
    fn decide(&mut self, asker: Asker<T>, request: AdminRequest) {
        if !self.raft.is_leader() {
            return self.answer_admin(asker, AdminResult::NotLeader);
        }
        let outcome = match request {
            AdminRequest::AddMember { id, slot, peer_address, client_address } => {
                self.add_member(id, slot, peer_address, client_address)
            }
            AdminRequest::Promote { id } => self.promote(id),
            AdminRequest::Remove { id } => self.remove_member(id),
            AdminRequest::TransferLeadership { to } => self.transfer(to),
        };
        match outcome {
            Outcome::Done => self.answer_done(asker),
            Outcome::Appended(term, index) => {
                self.admins.appended.insert((index, term), asker);
            }
            Outcome::Transferring => self.admins.transferring.push(asker),
            Outcome::Not(result) => self.answer_admin(asker, result),
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
        let slot = slot.unwrap_or_else(|| directory.free_slot());
        let holders: Vec<NodeId> =
            directory.members.iter().filter(|m| m.slot == slot).map(|m| NodeId(m.id)).collect();
        if let Some(living) = holders.iter().find(|holder| self.is_alive(**holder)) {
            let why = format!(
                "slot {slot} is held by {living}, which is alive: give another slot, or remove it first"
            );
            return Outcome::Not(AdminResult::Refused(why));
        }
        if holders.len() > 1 {
            let why = format!("slot {slot} is being handed over already: wait until that is done");
            return Outcome::Not(AdminResult::Refused(why));
        }
        directory.put(Member { id: id.0, slot, peer_address: peer, client_address: client, promote: true });
        self.change(&[Change::AddLearner(id)], directory)
    }

    fn promote(&mut self, id: NodeId) -> Outcome {
        if self.raft.membership().voters.contains(&id) {
            return Outcome::Done;
        }
        if !self.raft.membership().learners.contains(&id) {
            return Outcome::Not(AdminResult::NoSuchMember(id));
        }
        let mut directory = self.directory.clone();
        let mut changes = vec![Change::AddVoter(id)];
        if let Some(old) = directory.replaced_by(id).map(|m| NodeId(m.id)) {
            if self.is_alive(old) {
                let why = format!("{id} is to replace {old}, which is alive");
                return Outcome::Not(AdminResult::Refused(why));
            }
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
        let voters = &membership.voters;
        if !voters.contains(&id) && !membership.learners.contains(&id) {
            return Outcome::Not(AdminResult::NoSuchMember(id));
        }
        if voters.contains(&id) {
            let rest: Vec<NodeId> = voters.iter().copied().filter(|voter| *voter != id).collect();
            let alive = rest.iter().filter(|voter| self.is_alive(**voter)).count();
            if rest.is_empty() {
                return Outcome::Not(AdminResult::Refused("the last voter cannot be removed".into()));
            }
            if alive < rest.len() / 2 + 1 {
                let why = format!(
                    "of the {} voters that would remain only {alive} answer: the cluster would lose its quorum",
                    rest.len()
                );
                return Outcome::Not(AdminResult::Refused(why));
            }
        }
        let mut directory = self.directory.clone();
        directory.remove(id);
        self.change(&[Change::Remove(id)], directory)
    }

    fn change(&mut self, changes: &[Change], directory: super::directory::Directory) -> Outcome {
        match self.raft.propose_membership(changes, directory.to_context()) {
            Ok((term, index)) => Outcome::Appended(term, index),
            Err(MembershipError::NotLeader { .. }) => Outcome::Not(AdminResult::NotLeader),
            Err(MembershipError::Busy) => Outcome::Not(AdminResult::Busy),
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
        let commit = self.raft.commit_index();
        let ready = self.directory.members.iter().filter(|m| m.promote).map(|m| NodeId(m.id)).find(|id| {
            let caught_up =
                |progress: balsa_raft::PeerStatus| progress.matched.0 + CAUGHT_UP_ENTRIES >= commit.0;
            let replaces_living =
                self.directory.replaced_by(*id).is_some_and(|old| self.is_alive(NodeId(old.id)));
            !replaces_living && self.is_alive(*id) && self.raft.peer_status(*id).is_some_and(caught_up)
        });
        if let Some(id) = ready {
            let _ = self.promote(id);
        }
    }

    /// Whether a member was heard from lately. Oneself is alive.
    pub(super) fn is_alive(&self, id: NodeId) -> bool {
        let lately = |heard_ms: &u64| heard_ms + self.config.alive_ms >= self.now_ms;
        id == self.config.id || self.heard_ms.get(&id).is_some_and(lately)
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
        for asker in std::mem::take(&mut self.admins.transferring) {
            self.answer_done(asker);
        }
    }

    /// Answers what has met its deadline.
    pub(super) fn expire_admins(&mut self) {
        let now = self.now_ms;
        for ask in std::mem::take(&mut self.admins.waiting) {
            if ask.deadline_ms <= now {
                self.effects.push(Effect::AnswerAdmin(ask.ticket, Err(AdminError::NoLeader)));
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
        late.extend(self.admins.transferring.extract_if(.., |asker| is_late(asker)));
        for asker in late {
            self.answer_admin(asker, AdminResult::Unknown);
        }
        if !self.raft.is_transferring() && self.raft.is_leader() {
            for asker in std::mem::take(&mut self.admins.transferring) {
                let why = "the other node did not take over within an election timeout".to_string();
                self.answer_admin(asker, AdminResult::Refused(why));
            }
        }
    }

    fn answer_done(&mut self, asker: Asker<T>) {
        let voters = &self.raft.membership().voters;
        let members = (self.directory.members.iter())
            .map(|m| {
                let voter = voters.contains(&NodeId(m.id));
                (NodeId(m.id), m.slot, m.peer_address.clone(), m.client_address.clone(), voter)
            })
            .collect();
        self.answer_admin(asker, AdminResult::Done(AdminReply { members, cluster: self.config.cluster }));
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
