//! Writes on their way: waiting for a leader, proposed here, or forwarded to the leader.
//!
//! Each write is in exactly one place and is answered exactly once. What can be said of a write that did not go through
//! depends on where it was: one that waits was not applied; one whose entry lost its index to another leader's was not
//! applied; of all others nobody knows, nor of one that is tried again after nobody knew.

use super::event::{Effect, Origin, Tickets};
use super::handle::WriteError;
use super::message::{ForwardResult, PeerMessage};
use super::{Engine, Link};
use balsa_raft::{Entry, Index, NodeId, ProposeError, Term};
use balsa_store::command::{self, Command, Operation};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// A client's write that is nowhere yet, or was refused and may be tried again.
pub(super) struct Waiting<T: Tickets> {
    pub(super) ticket: T::Write,
    pub(super) command: Bytes,
    repeatable: bool,
    deadline_ms: u64,
    /// An earlier attempt of it may have been applied: whatever ends this one, nobody knows.
    maybe_applied: bool,
}

impl<T: Tickets> Waiting<T> {
    /// What is true of the write, given what ended its last attempt.
    pub(super) fn failure(&self, error: WriteError) -> WriteError {
        match self.maybe_applied {
            true => WriteError::Unknown { why: "an earlier attempt may have been applied" },
            false => error,
        }
    }
}

/// A write whose entry this node appended as leader.
struct Proposed<T: Tickets> {
    origin: Origin<T>,
    deadline_ms: u64,
    /// An earlier attempt of a local write, which went to another leader, may have been applied.
    maybe_applied: bool,
}

/// A write that was sent to the leader.
struct Forwarded<T: Tickets> {
    write: Waiting<T>,
    to: NodeId,
}

/// All writes on their way.
pub(super) struct Writes<T: Tickets> {
    waiting: VecDeque<Waiting<T>>,
    proposed: BTreeMap<(Index, Term), Proposed<T>>,
    forwarded: BTreeMap<u64, Forwarded<T>>,
    next_forward: u64,
}

impl<T: Tickets> Writes<T> {
    /// No writes; `first_id` must not have been used with any peer that still remembers it.
    pub(super) fn new(first_id: u64) -> Writes<T> {
        Writes {
            waiting: VecDeque::new(),
            proposed: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            next_forward: first_id,
        }
    }

    /// Puts a write with those that wait.
    pub(super) fn wait(&mut self, write: Waiting<T>) {
        self.waiting.push_back(write);
    }

    /// How many are on their way.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.proposed.len() + self.forwarded.len()
    }
}

impl<T: Tickets> Engine<T> {
    /// A client's write arrives.
    pub(super) fn handle_write(
        &mut self,
        ticket: T::Write,
        command: Bytes,
        repeatable: bool,
        deadline_ms: u64,
    ) {
        if self.writes.len() >= self.config.max_writes {
            let error = WriteError::Overloaded { what: "writes under way" };
            return self.effects.push(Effect::AnswerWrite(ticket, Err(error)));
        }
        self.place(Waiting { ticket, command, repeatable, deadline_ms, maybe_applied: false });
    }

    /// Tries what waits once more: the leader may be known now.
    pub(super) fn place_waiting(&mut self) {
        if self.writes.waiting.is_empty() || self.link_to_leader() == Link::None {
            return;
        }
        for write in std::mem::take(&mut self.writes.waiting) {
            self.place(write);
        }
    }

    /// Proposes, forwards, or lets wait.
    fn place(&mut self, write: Waiting<T>) {
        if self.lacks_level(&write.command) {
            return self.hold_for_level(write);
        }
        match self.link_to_leader() {
            Link::Here => self.propose_local(write),
            Link::Peer(leader) => {
                let id = self.writes.next_forward;
                self.writes.next_forward += 1;
                let message = PeerMessage::Forward { id, command: write.command.clone() };
                self.writes.forwarded.insert(id, Forwarded { write, to: leader });
                self.effects.push(Effect::Send { to: leader, message });
            }
            Link::None => self.writes.waiting.push_back(write),
        }
    }

    fn propose_local(&mut self, write: Waiting<T>) {
        if let Some(why) = self.lacks_room(&write.command) {
            let error = write.failure(WriteError::StorageFull { why });
            return self.effects.push(Effect::AnswerWrite(write.ticket, Err(error)));
        }
        match self.propose_stamped(write.command.clone()) {
            Ok((term, index)) => {
                let Waiting { ticket, deadline_ms, maybe_applied, .. } = write;
                let proposed = Proposed { origin: Origin::Local(ticket), deadline_ms, maybe_applied };
                self.writes.proposed.insert((index, term), proposed);
            }
            Err(ProposeError::Overloaded) => {
                let error = write.failure(WriteError::Overloaded { what: "uncommitted bytes" });
                self.effects.push(Effect::AnswerWrite(write.ticket, Err(error)));
            }
            Err(ProposeError::NotLeader { .. } | ProposeError::Transferring) => {
                self.writes.waiting.push_back(write)
            }
        }
    }

    /// Proposes a command with the cluster's time on it.
    pub(super) fn propose_stamped(&mut self, command: Bytes) -> Result<(Term, Index), ProposeError> {
        let stamp = self.clock.stamp(self.now_ms);
        self.raft.propose(command::stamp(command, stamp))
    }

    /// Proposes what no client asked for; gives the entry's index, if there is one.
    pub(super) fn propose_own(&mut self, operation: Operation) -> Option<Index> {
        let command = Command { request: None, operation: Some(operation) };
        self.propose_stamped(command::encode(&command)).ok().map(|(_, index)| index)
    }

    /// A follower forwards a client's write.
    pub(super) fn handle_forward(&mut self, from: NodeId, id: u64, command: Bytes) {
        if self.lacks_level(&command) {
            // The asker has applied that it was raised, this node will.
            let message = PeerMessage::ForwardReply { id, result: ForwardResult::Refused };
            return self.effects.push(Effect::Send { to: from, message });
        }
        if let Some(why) = self.lacks_room(&command) {
            let message = PeerMessage::ForwardReply { id, result: ForwardResult::StorageFull(why) };
            return self.effects.push(Effect::Send { to: from, message });
        }
        let refusal = match self.propose_stamped(command) {
            Ok((term, index)) => {
                let deadline_ms = self.now_ms + self.config.forwarded_ttl_ms;
                let origin = Origin::Peer { node: from, id };
                self.writes
                    .proposed
                    .insert((index, term), Proposed { origin, deadline_ms, maybe_applied: false });
                return;
            }
            Err(ProposeError::Overloaded) => ForwardResult::Overloaded,
            Err(ProposeError::NotLeader { .. } | ProposeError::Transferring) => ForwardResult::Refused,
        };
        self.effects
            .push(Effect::Send { to: from, message: PeerMessage::ForwardReply { id, result: refusal } });
    }

    /// The leader says what became of a forwarded write.
    pub(super) fn handle_forward_reply(&mut self, from: NodeId, id: u64, result: ForwardResult) {
        if self.writes.forwarded.get(&id).is_none_or(|forwarded| forwarded.to != from) {
            return; // answered already: its deadline passed, or the connection broke and it was tried again
        }
        let Some(Forwarded { mut write, .. }) = self.writes.forwarded.remove(&id) else { return };
        let answer = match result {
            ForwardResult::Applied(reply) => Ok(reply),
            ForwardResult::Refused => return self.writes.waiting.push_back(write),
            ForwardResult::Overloaded => {
                Err(write.failure(WriteError::Overloaded { what: "the leader's queues" }))
            }
            ForwardResult::StorageFull(why) => Err(write.failure(WriteError::StorageFull { why })),
            ForwardResult::Unknown if write.repeatable => {
                write.maybe_applied = true;
                return self.writes.waiting.push_back(write);
            }
            ForwardResult::Unknown => Err(WriteError::Unknown { why: "the leader lost track of the write" }),
        };
        self.effects.push(Effect::AnswerWrite(write.ticket, answer));
    }

    /// A forwarded write certainly did not leave this node.
    pub(super) fn handle_forward_not_sent(&mut self, id: u64) {
        if let Some(forwarded) = self.writes.forwarded.remove(&id) {
            self.writes.waiting.push_back(forwarded.write);
        }
    }

    /// The connection to a peer broke: what was forwarded over it may have arrived or not.
    pub(super) fn forwards_broken(&mut self, peer: NodeId) {
        let broken: Vec<u64> = self
            .writes
            .forwarded
            .iter()
            .filter(|(_, forwarded)| forwarded.to == peer)
            .map(|(id, _)| *id)
            .collect();
        for id in broken {
            let Some(Forwarded { mut write, .. }) = self.writes.forwarded.remove(&id) else { continue };
            if write.repeatable {
                write.maybe_applied = true;
                self.writes.waiting.push_back(write);
            } else {
                let error = WriteError::Unknown {
                    why: "the connection to the leader broke after the write was sent",
                };
                self.effects.push(Effect::AnswerWrite(write.ticket, Err(error)));
            }
        }
    }

    /// An entry is committed: takes out who waits for it. Whoever waits for another entry at its index has lost.
    pub(super) fn take_origin(&mut self, entry: &Entry) -> Option<Origin<T>> {
        let mut origin = None;
        while let Some(first) = self.writes.proposed.first_entry() {
            let (index, term) = *first.key();
            if index > entry.index {
                break;
            }
            let proposed = first.remove();
            if (index, term) == (entry.index, entry.term) {
                origin = Some(proposed.origin);
            } else if index == entry.index && !proposed.maybe_applied {
                self.refuse(proposed.origin, Verdict::Overwritten);
            } else {
                // Its index was passed by a snapshot: the entry there was never seen. Or this was not its first attempt.
                self.refuse(proposed.origin, Verdict::Unknown);
            }
        }
        origin
    }

    fn refuse(&mut self, origin: Origin<T>, verdict: Verdict) {
        match origin {
            Origin::Local(ticket) => {
                let error = match verdict {
                    Verdict::Overwritten => WriteError::Overwritten,
                    Verdict::Unknown => {
                        WriteError::Unknown { why: "leadership was lost while the write was pending" }
                    }
                };
                self.effects.push(Effect::AnswerWrite(ticket, Err(error)));
            }
            Origin::Peer { node, id } => {
                let result = match verdict {
                    Verdict::Overwritten => ForwardResult::Refused,
                    Verdict::Unknown => ForwardResult::Unknown,
                };
                self.effects
                    .push(Effect::Send { to: node, message: PeerMessage::ForwardReply { id, result } });
            }
        }
    }

    /// Answers what waits for a leader that this node will never have.
    pub(super) fn refuse_writes_as_removed(&mut self, ask: &str) {
        for write in std::mem::take(&mut self.writes.waiting) {
            let error = write.failure(WriteError::Removed { ask: ask.to_string() });
            self.effects.push(Effect::AnswerWrite(write.ticket, Err(error)));
        }
    }

    /// Answers what has met its deadline.
    pub(super) fn expire_writes(&mut self) {
        let now = self.now_ms;
        if self.writes.waiting.iter().any(|write| write.deadline_ms <= now) {
            for write in std::mem::take(&mut self.writes.waiting) {
                if write.deadline_ms <= now {
                    let error = write.failure(self.waited_for(&write.command));
                    self.effects.push(Effect::AnswerWrite(write.ticket, Err(error)));
                } else {
                    self.writes.waiting.push_back(write);
                }
            }
        }
        let late: Vec<u64> = (self.writes.forwarded.iter())
            .filter(|(_, forwarded)| forwarded.write.deadline_ms <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(forwarded) = self.writes.forwarded.remove(&id) {
                let error = WriteError::Unknown { why: "the leader did not answer in time" };
                self.effects.push(Effect::AnswerWrite(forwarded.write.ticket, Err(error)));
            }
        }
        let late: Vec<(Index, Term)> = (self.writes.proposed.iter())
            .filter(|(_, proposed)| proposed.deadline_ms <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            if let Some(proposed) = self.writes.proposed.remove(&key) {
                match proposed.origin {
                    Origin::Local(ticket) => {
                        let error = WriteError::Unknown { why: "the write was not committed in time" };
                        self.effects.push(Effect::AnswerWrite(ticket, Err(error)));
                    }
                    Origin::Peer { .. } => {} // the peer has a deadline of its own
                }
            }
        }
    }
}

/// What is known of a write whose entry was not seen to commit.
enum Verdict {
    Overwritten,
    Unknown,
}
