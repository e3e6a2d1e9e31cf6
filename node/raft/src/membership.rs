//! Who votes, who learns, and how that changes.
//!
//! Pure: a change is a function from one [`Membership`] to the next. A membership entry carries the whole
//! result, never the difference, so that applying one is total: no replica can fail on a removal of a member
//! it does not have (hazard 18). What may be proposed is checked by the leader before anything is appended.
//!
//! Two ways to change (Raft thesis 4.1, 4.3):
//! - *simple*: at most one voter is added or removed. Any majority of the old overlaps any majority of the
//!   new.
//! - *joint*: any number. The entry that *enters* makes both the old and the new voters decide; once it has
//!   committed, a second entry *leaves* and the new voters stand alone. A voter that becomes a learner goes
//!   on voting in the outgoing set until then (`learners_next`).
//!
//! This module does not know when a change is allowed (that is the leader's: one at a time, and none before
//! an entry of its own term has committed), nor what `context` means.
//!
//! Invariants, checked by [`Membership::check`]: learners are disjoint from both sets of voters;
//! `learners_next` is a part of `outgoing` and disjoint from `voters`; both `learners_next` and `auto_leave`
//! are empty unless joint.

use crate::types::NodeId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::BTreeSet;
use thiserror::Error;

/// A membership: one set of voters, or two while joint (thesis 4.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// The (incoming) voters.
    pub voters: BTreeSet<NodeId>,
    /// The outgoing voters; empty unless joint.
    pub outgoing: BTreeSet<NodeId>,
    /// Members that replicate but do not vote. Disjoint from the voters.
    pub learners: BTreeSet<NodeId>,
    /// Outgoing voters that become learners when the joint phase ends.
    pub learners_next: BTreeSet<NodeId>,
    /// The leader ends the joint phase by itself once it has committed.
    pub auto_leave: bool,
    /// Opaque to the core: what the driver records about each member (names, addresses).
    pub context: Bytes,
}

/// One step of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Makes a node a voter (a new one, or a learner).
    AddVoter(NodeId),
    /// Makes a node a learner (a new one, or a voter).
    AddLearner(NodeId),
    /// Removes a member.
    Remove(NodeId),
}

impl Change {
    /// The node it is about.
    pub fn node(self) -> NodeId {
        match self {
            Change::AddVoter(id) | Change::AddLearner(id) | Change::Remove(id) => id,
        }
    }
}

/// Why a change gives no membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ChangeError {
    /// A joint phase must be left before the next change.
    #[error("the membership is joint")]
    AlreadyJoint,
    /// There is no joint phase to leave.
    #[error("the membership is not joint")]
    NotJoint,
    /// There are no voters whose decision a joint phase could respect.
    #[error("a membership without voters cannot become joint")]
    NoVoters,
    /// Nobody would be left to vote.
    #[error("the change removes all voters")]
    RemovesAllVoters,
    /// More than one voter changes, which needs a joint phase.
    #[error("more than one voter changes without a joint phase")]
    NeedsJoint,
    /// It removes a node that is not a member.
    #[error("node {0} is not a member")]
    UnknownMember(NodeId),
    /// It names node 0, which is no identity.
    #[error("node 0 is no identity")]
    ZeroNode,
}

/// Why bytes are not a membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// Written by a version that this one does not know: the node must stop, not skip it (hazard 49).
    #[error("membership of unknown version {0}")]
    UnknownVersion(u8),
    /// The bytes end too early or go on too long.
    #[error("membership of a wrong length")]
    WrongLength,
    /// The sets contradict one another.
    #[error("membership that contradicts itself")]
    Inconsistent,
}

/// The version byte of the encoding that follows it.
const VERSION: u8 = 1;

impl Membership {
    /// A membership of these voters, and no one else.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Membership {
        Membership { voters: voters.into_iter().collect(), ..Membership::default() }
    }

    /// Whether two sets of voters decide.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the node votes, in either set.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether the node replicates without a vote.
    pub fn is_learner(&self, id: NodeId) -> bool {
        self.learners.contains(&id)
    }

    /// Whether the node votes or learns.
    pub fn is_member(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.is_learner(id)
    }

    /// All who vote, in either set, each once, in order.
    pub fn all_voters(&self) -> impl Iterator<Item = NodeId> {
        self.voters.union(&self.outgoing).copied()
    }

    /// All who vote or learn, each once, in order.
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.all_voters().chain(self.learners.iter().copied()).collect()
    }

    /// Applies changes at most one of which, in the end, alters the set of voters. Idempotent; unknown
    /// removals and node 0 change nothing.
    pub fn simple(&self, changes: &[Change]) -> Result<Membership, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::AlreadyJoint);
        }
        let next = self.clone().with_all(changes)?;
        if self.voters.symmetric_difference(&next.voters).count() > 1 {
            return Err(ChangeError::NeedsJoint);
        }
        Ok(next)
    }

    /// Begins a joint phase: today's voters go on deciding beside those that the changes give.
    pub fn enter_joint(&self, auto_leave: bool, changes: &[Change]) -> Result<Membership, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::AlreadyJoint);
        }
        if self.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        let joint = Membership { outgoing: self.voters.clone(), auto_leave, ..self.clone() };
        joint.with_all(changes)
    }

    /// Ends a joint phase: the incoming voters stand alone, demoted ones become learners.
    pub fn leave_joint(&self) -> Result<Membership, ChangeError> {
        if !self.is_joint() {
            return Err(ChangeError::NotJoint);
        }
        Ok(Membership {
            voters: self.voters.clone(),
            outgoing: BTreeSet::new(),
            learners: self.learners.union(&self.learners_next).copied().collect(),
            learners_next: BTreeSet::new(),
            auto_leave: false,
            context: self.context.clone(),
        })
    }

    /// What a leader appends for these changes: a simple change where one will do, else the entry that enters
    /// a joint phase which ends by itself. Stricter than [`Membership::simple`]: removals must name members.
    pub fn change(&self, changes: &[Change], context: Bytes) -> Result<Membership, ChangeError> {
        for change in changes {
            match *change {
                _ if change.node() == NodeId(0) => return Err(ChangeError::ZeroNode),
                Change::Remove(id) if !self.is_member(id) => return Err(ChangeError::UnknownMember(id)),
                _ => {}
            }
        }
        let mut next = match self.simple(changes) {
            Err(ChangeError::NeedsJoint) => self.enter_joint(true, changes)?,
            other => other?,
        };
        next.context = context;
        Ok(next)
    }

    fn with_all(mut self, changes: &[Change]) -> Result<Membership, ChangeError> {
        for &change in changes {
            self.apply(change);
        }
        if self.voters.is_empty() {
            return Err(ChangeError::RemovesAllVoters);
        }
        assert!(self.check(), "changes {changes:?} gave the inconsistent membership {self:?}");
        Ok(self)
    }

    fn apply(&mut self, change: Change) {
        let id = change.node();
        if id == NodeId(0) {
            return;
        }
        self.voters.remove(&id);
        self.learners.remove(&id);
        self.learners_next.remove(&id);
        match change {
            Change::AddVoter(_) => self.voters.insert(id),
            // It votes in the outgoing set until the joint phase ends.
            Change::AddLearner(_) if self.outgoing.contains(&id) => self.learners_next.insert(id),
            Change::AddLearner(_) => self.learners.insert(id),
            Change::Remove(_) => false,
        };
    }

    /// Whether the invariants of the module hold.
    pub fn check(&self) -> bool {
        let joint = self.is_joint();
        self.learners.is_disjoint(&self.voters)
            && self.learners.is_disjoint(&self.outgoing)
            && self.learners_next.is_subset(&self.outgoing)
            && self.learners_next.is_disjoint(&self.voters)
            && (joint || (self.learners_next.is_empty() && !self.auto_leave))
    }

    /// The payload of a membership entry.
    pub fn encode(&self) -> Bytes {
        let sets = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        let ids: usize = sets.iter().map(|set| set.len()).sum();
        let mut out = BytesMut::with_capacity(2 + 4 * sets.len() + 8 * ids + self.context.len());
        out.put_u8(VERSION);
        out.put_u8(u8::from(self.auto_leave));
        for set in sets {
            out.put_u32_le(set.len() as u32);
            for id in set {
                out.put_u64_le(id.0);
            }
        }
        out.put_slice(&self.context);
        out.freeze()
    }

    /// Reads a membership entry's payload. The context shares its memory.
    pub fn decode(data: &Bytes) -> Result<Membership, DecodeError> {
        let mut rest = data.clone();
        match rest.try_get_u8() {
            Ok(VERSION) => {}
            Ok(other) => return Err(DecodeError::UnknownVersion(other)),
            Err(_) => return Err(DecodeError::WrongLength),
        }
        let auto_leave = match rest.try_get_u8() {
            Ok(0) => false,
            Ok(1) => true,
            Ok(_) => return Err(DecodeError::Inconsistent),
            Err(_) => return Err(DecodeError::WrongLength),
        };
        let mut sets: [BTreeSet<NodeId>; 4] = Default::default();
        for set in &mut sets {
            let count = rest.try_get_u32_le().map_err(|_| DecodeError::WrongLength)?;
            for _ in 0..count {
                set.insert(NodeId(rest.try_get_u64_le().map_err(|_| DecodeError::WrongLength)?));
            }
        }
        let [voters, outgoing, learners, learners_next] = sets;
        let membership = Membership { voters, outgoing, learners, learners_next, auto_leave, context: rest };
        if membership.check() { Ok(membership) } else { Err(DecodeError::Inconsistent) }
    }
}
