//! What a StatefulSet says about members: who is wanted, who leaves next, and when nothing may be concluded.
//!
//! Pure. The rules (contract, Kubernetes; hazards 19, 50, 51):
//! - Only a StatefulSet that was read just now, lives, and wants at least one replica says anything. One that is missing
//!   or being deleted, that wants none, or an API server that does not answer, removes nobody: the Pods may come back,
//!   and their volumes with them.
//! - One member at a time, and only by a leader that stays. A leader that is to go hands over to a voter that stays.
//! - Who costs nothing goes first: learners, then voters that are silent, then the highest slot, as the StatefulSet
//!   itself counts down.
//!
//! Whether a removal would cost the quorum is not judged here: the engine refuses it, and the leader asks again later.

use crate::engine::status::{MemberStatus, Status};
use balsa_raft::NodeId;
use std::cmp::Reverse;
use std::fmt;

/// A StatefulSet, as far as membership needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatefulSet {
    /// Its identity: another one of the same name has another.
    pub uid: String,
    /// How many Pods it wants.
    pub replicas: u32,
    /// The ordinal of its first Pod, mostly 0. An ordinal is the slot of the member in that Pod.
    pub first_ordinal: u32,
    /// Somebody deleted it, and its Pods go.
    pub being_deleted: bool,
}

/// What came of asking for the StatefulSet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// This.
    Found(StatefulSet),
    /// The API server says that there is none.
    Missing,
    /// No answer, or one that says nothing.
    Unanswered(String),
}

/// Why nothing follows from what was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unsaid {
    /// The API server does not answer.
    Unanswered(String),
    /// There is no such StatefulSet.
    Missing,
    /// It is being deleted.
    BeingDeleted,
    /// It wants no Pods at all: the cluster sleeps.
    NoReplicas,
}

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsaid::Unanswered(why) => write!(f, "the API server does not answer ({why})"),
            Unsaid::Missing => write!(f, "there is no such StatefulSet"),
            Unsaid::BeingDeleted => write!(f, "the StatefulSet is being deleted"),
            Unsaid::NoReplicas => write!(f, "the StatefulSet wants no replicas"),
        }
    }
}

impl Seen {
    /// The StatefulSet, where it says who is wanted.
    fn said(&self) -> Result<&StatefulSet, Unsaid> {
        match self {
            Seen::Unanswered(why) => Err(Unsaid::Unanswered(why.clone())),
            Seen::Missing => Err(Unsaid::Missing),
            Seen::Found(set) if set.being_deleted => Err(Unsaid::BeingDeleted),
            Seen::Found(set) if set.replicas == 0 => Err(Unsaid::NoReplicas),
            Seen::Found(set) => Ok(set),
        }
    }

    /// Whether the Pod of this slot is wanted; `Ok(false)`: it was scaled in.
    pub fn wants(&self, slot: u32) -> Result<bool, Unsaid> {
        self.said().map(|set| set.wants(slot))
    }
}

impl StatefulSet {
    fn wants(&self, slot: u32) -> bool {
        slot.checked_sub(self.first_ordinal).is_some_and(|place| place < self.replicas)
    }
}

/// What the leader does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Remove this member.
    Remove {
        /// Which.
        id: NodeId,
        /// Its slot.
        slot: u32,
    },
    /// This leader is to go: hand over to a voter that stays, which goes on.
    HandOver {
        /// To whom.
        to: NodeId,
        /// Its slot.
        slot: u32,
    },
    /// Nothing.
    Nobody(Reason),
}

/// Why nobody is removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Every member is wanted.
    AllWanted,
    /// The StatefulSet says nothing.
    Unsaid(Unsaid),
    /// It is another StatefulSet than the last time: looked at once more before anything follows from it.
    Replaced,
    /// None of those that stay has a vote yet.
    NoVoterStays,
    /// This leader is to go, and no voter that stays answers.
    NobodyTakesOver,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::AllWanted => write!(f, "all members are wanted"),
            Reason::Unsaid(unsaid) => unsaid.fmt(f),
            Reason::Replaced => write!(f, "the StatefulSet is another one than before"),
            Reason::NoVoterStays => write!(f, "none of the members that stay votes yet"),
            Reason::NobodyTakesOver => {
                write!(f, "this leader is to go, and no voter that stays answers")
            }
        }
    }
}

/// As leader: what to do next. `known_uid` is that of the StatefulSet seen before; `None`: this is the first look.
pub fn decide(seen: &Seen, known_uid: Option<&str>, status: &Status) -> Decision {
    let set = match seen.said() {
        Ok(set) => set,
        Err(unsaid) => return Decision::Nobody(Reason::Unsaid(unsaid)),
    };
    if known_uid.is_some_and(|known| known != set.uid) {
        return Decision::Nobody(Reason::Replaced);
    }
    let (staying, leaving): (Vec<&MemberStatus>, Vec<&MemberStatus>) =
        status.members.iter().partition(|member| set.wants(member.slot));
    // As the leader knows; of itself it needs no proof.
    let answers = |member: &MemberStatus| status.node == Some(member.id) || member.active == Some(true);
    let next = leaving.iter().min_by_key(|member| (member.voter, answers(member), Reverse(member.slot)));
    let Some(next) = next else { return Decision::Nobody(Reason::AllWanted) };
    if !staying.iter().any(|member| member.voter) {
        return Decision::Nobody(Reason::NoVoterStays);
    }
    if leaving.iter().any(|member| status.node == Some(member.id)) {
        let heirs = staying.iter().filter(|member| member.voter && answers(member));
        return match heirs.max_by_key(|member| (member.match_index, Reverse(member.slot))) {
            Some(heir) => Decision::HandOver { to: heir.id, slot: heir.slot },
            None => Decision::Nobody(Reason::NobodyTakesOver),
        };
    }
    Decision::Remove { id: next.id, slot: next.slot }
}

#[cfg(test)]
mod tests;
