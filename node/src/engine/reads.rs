//! Reads on their way: this node asks the leader "may I?" once for a whole batch, and lets each read go when its own
//! store has applied what the answer says.

use super::event::{Effect, Tickets};
use super::handle::ReadError;
use super::message::PeerMessage;
use super::{Engine, Link};
use balsa_raft::ready::{ReadConfirmed, ReadId};
use balsa_raft::{Index, NodeId, ReadError as RaftReadError};
use std::collections::BTreeMap;

/// One client's read.
struct Read<T: Tickets> {
    ticket: T::Read,
    deadline_ms: u64,
}

/// Reads that share one question to the leader.
struct Batch<T: Tickets> {
    reads: Vec<Read<T>>,
    /// Whom it was put to; `None`: this node leads.
    to: Option<NodeId>,
    asked_ms: u64,
}

/// All reads on their way.
pub(super) struct Reads<T: Tickets> {
    /// Not asked for yet.
    arrived: Vec<Read<T>>,
    /// Asked for.
    asked: BTreeMap<u64, Batch<T>>,
    /// Confirmed; the store is not there yet.
    confirmed: BTreeMap<Index, Vec<Read<T>>>,
    /// Reads of peers: who, and the peer's name for it.
    of_peers: BTreeMap<u64, (NodeId, u64)>,
    /// As leader: the question whether it still leads, and when it was asked.
    freshness: Option<(u64, u64)>,
    /// Reads in all three places.
    count: usize,
    next_id: u64,
}

impl<T: Tickets> Reads<T> {
    /// No reads; `first_id` as for writes.
    pub(super) fn new(first_id: u64) -> Reads<T> {
        Reads {
            arrived: Vec::new(),
            asked: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            of_peers: BTreeMap::new(),
            freshness: None,
            count: 0,
            next_id: first_id,
        }
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl<T: Tickets> Engine<T> {
    /// A client's read arrives.
    pub(super) fn handle_read(&mut self, ticket: T::Read, deadline_ms: u64) {
        if self.reads.count >= self.config.max_reads {
            let error = ReadError::Overloaded { what: "reads under way" };
            return self.effects.push(Effect::AnswerRead(ticket, Err(error)));
        }
        self.reads.count += 1;
        self.reads.arrived.push(Read { ticket, deadline_ms });
    }

    /// Asks the leader for all reads that arrived since the last time.
    pub(super) fn ask_reads(&mut self) {
        if self.reads.arrived.is_empty() {
            return;
        }
        let id = self.reads.next_id + 1;
        let to = match self.link_to_leader() {
            Link::None => return,
            Link::Here => match self.raft.read(ReadId(id)) {
                Ok(()) => None,
                Err(RaftReadError::NotLeader { .. }) => return,
                Err(RaftReadError::Overloaded) => return, // asked again at the next turn
            },
            Link::Peer(leader) => {
                self.effects.push(Effect::Send { to: leader, message: PeerMessage::ReadIndex { id } });
                Some(leader)
            }
        };
        self.reads.next_id = id;
        let reads = std::mem::take(&mut self.reads.arrived);
        self.reads.asked.insert(id, Batch { reads, to, asked_ms: self.now_ms });
    }

    /// As leader: asks a quorum, so as to know how old its own state may be. A leader that was stopped for a while, or
    /// is cut off, leads no more and does not know it yet: its word alone is worth nothing.
    pub(super) fn ask_whether_fresh(&mut self) {
        if self.reads.freshness.is_some() || !self.raft.is_leader() {
            return;
        }
        let id = self.reads.take_id();
        if self.raft.read(ReadId(id)).is_ok() {
            self.reads.freshness = Some((id, self.now_ms));
        }
    }

    /// A follower asks for a batch of its reads.
    pub(super) fn handle_read_index(&mut self, from: NodeId, peer_id: u64) {
        let id = self.reads.take_id();
        match self.raft.read(ReadId(id)) {
            Ok(()) => {
                self.reads.of_peers.insert(id, (from, peer_id));
            }
            Err(_) => {
                let message = PeerMessage::ReadIndexReply { id: peer_id, index: None };
                self.effects.push(Effect::Send { to: from, message });
            }
        }
    }

    /// The leader's answer for a batch.
    pub(super) fn handle_read_index_reply(&mut self, from: NodeId, id: u64, index: Option<Index>) {
        if self.reads.asked.get(&id).is_none_or(|batch| batch.to != Some(from)) {
            return;
        }
        let Some(batch) = self.reads.asked.remove(&id) else { return };
        match index {
            Some(index) => self.release_reads(batch.reads, index),
            None => self.reads.arrived.extend(batch.reads),
        }
    }

    /// The core confirmed a read of this node or of a peer.
    pub(super) fn read_confirmed(&mut self, confirmed: ReadConfirmed) {
        if let Some((_, asked_ms)) = self.reads.freshness.take_if(|(id, _)| *id == confirmed.id.0) {
            if confirmed.index <= self.applied {
                self.fresh_ms = self.fresh_ms.max(asked_ms);
            }
        } else if let Some((peer, id)) = self.reads.of_peers.remove(&confirmed.id.0) {
            let message = PeerMessage::ReadIndexReply { id, index: Some(confirmed.index) };
            self.effects.push(Effect::Send { to: peer, message });
        } else if let Some(batch) = self.reads.asked.remove(&confirmed.id.0) {
            self.release_reads(batch.reads, confirmed.index);
        }
    }

    /// The core will not confirm this read.
    pub(super) fn read_dropped(&mut self, id: ReadId) {
        if self.reads.freshness.take_if(|(asked, _)| *asked == id.0).is_some() {
            return;
        }
        if let Some((peer, id)) = self.reads.of_peers.remove(&id.0) {
            self.effects
                .push(Effect::Send { to: peer, message: PeerMessage::ReadIndexReply { id, index: None } });
        } else if let Some(batch) = self.reads.asked.remove(&id.0) {
            self.reads.arrived.extend(batch.reads);
        }
    }

    /// Lets reads go now, or when the store has applied `index`.
    fn release_reads(&mut self, reads: Vec<Read<T>>, index: Index) {
        if index <= self.applied {
            self.reads.count -= reads.len();
            self.effects.extend(reads.into_iter().map(|read| Effect::AnswerRead(read.ticket, Ok(()))));
        } else {
            self.reads.confirmed.entry(index).or_default().extend(reads);
        }
    }

    /// The store has applied more.
    pub(super) fn release_applied_reads(&mut self) {
        while let Some(first) = self.reads.confirmed.first_entry() {
            if *first.key() > self.applied {
                break;
            }
            let reads = first.remove();
            self.reads.count -= reads.len();
            self.effects.extend(reads.into_iter().map(|read| Effect::AnswerRead(read.ticket, Ok(()))));
        }
    }

    /// The connection to a peer broke, in one direction or the other: what it was asked is asked again.
    pub(super) fn reads_broken(&mut self, peer: NodeId) {
        self.ask_again(|batch, _| batch.to == Some(peer));
    }

    /// Refuses what has met its deadline, and asks again where no answer came.
    pub(super) fn expire_reads(&mut self) {
        let (now, retry_ms) = (self.now_ms, self.config.read_retry_ms);
        self.ask_again(|batch, _| batch.to.is_some() && batch.asked_ms + retry_ms <= now);
        let late = |read: &Read<T>| read.deadline_ms <= now;
        let no_leader = self.raft.leader().is_none();
        let mut refused: Vec<Read<T>> = self.reads.arrived.extract_if(.., |read| late(read)).collect();
        for batch in self.reads.asked.values_mut() {
            refused.extend(batch.reads.extract_if(.., |read| late(read)));
        }
        for reads in self.reads.confirmed.values_mut() {
            refused.extend(reads.extract_if(.., |read| late(read)));
        }
        self.reads.count -= refused.len();
        for read in refused {
            let error = if no_leader { ReadError::NoLeader } else { ReadError::NotConfirmed };
            self.effects.push(Effect::AnswerRead(read.ticket, Err(error)));
        }
    }

    /// Answers what waits for a leader that this node will never have.
    pub(super) fn refuse_reads_as_removed(&mut self, ask: &str) {
        let refused = std::mem::take(&mut self.reads.arrived);
        self.reads.count -= refused.len();
        for read in refused {
            let error = ReadError::Removed { ask: ask.to_string() };
            self.effects.push(Effect::AnswerRead(read.ticket, Err(error)));
        }
    }

    fn ask_again(&mut self, which: impl Fn(&Batch<T>, u64) -> bool) {
        let ids: Vec<u64> =
            self.reads.asked.iter().filter(|(id, batch)| which(batch, **id)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(batch) = self.reads.asked.remove(&id) {
                self.reads.arrived.extend(batch.reads);
            }
        }
    }
}
