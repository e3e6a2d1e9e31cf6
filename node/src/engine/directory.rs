//! Who the members are to people and sockets: slots and addresses, recorded with the membership and replicated with it.
//!
//! The core carries it as opaque bytes ([`balsa_raft::membership::Membership::context`]), so that a membership and the
//! addresses that belong to it can never disagree.

use balsa_raft::NodeId;
use bytes::Bytes;
use prost::Message;

/// One member.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Member {
    /// Its identity.
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    /// Its slot: the stable name under which it is found and replaced.
    #[prost(uint32, tag = "2")]
    pub slot: u32,
    /// Where peers reach it, `host:port`.
    #[prost(string, tag = "3")]
    pub peer_address: String,
    /// Where clients reach it, `host:port`: a hint.
    #[prost(string, tag = "4")]
    pub client_address: String,
    /// The leader makes it a voter once it has caught up.
    #[prost(bool, tag = "5")]
    pub promote: bool,
}

/// How many removed identities are remembered; beyond, the one that was removed first is forgotten. A disk of one that
/// was forgotten is told nothing when it returns: it stays as it is, not ready, until a person moves it away.
pub const REMOVED_MAX: usize = 1024;

/// All members, sorted by slot, then id. A slot has two members only while one replaces the other.
///
/// Those that were removed are on record, too: so a disk that returns is told for certain, by any member, and an
/// identity is never used again (hazard 19). Not to be on the list of members proves nothing: that list may be old.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Directory {
    /// The members.
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<Member>,
    /// The identities that were removed, in that order. At most [`REMOVED_MAX`]; disjoint from the members.
    #[prost(fixed64, repeated, tag = "2")]
    pub removed: Vec<u64>,
}

impl Directory {
    /// Decodes a membership's context; an empty one is an empty directory.
    pub fn from_context(context: &Bytes) -> Result<Directory, prost::DecodeError> {
        Directory::decode(context.clone())
    }

    /// Encodes it as a membership's context.
    pub fn to_context(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// The member with this identity.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id.0)
    }

    /// Another member at the slot of `id`: the one that `id` is to replace.
    pub fn replaced_by(&self, id: NodeId) -> Option<&Member> {
        let slot = self.get(id)?.slot;
        self.members.iter().find(|m| m.slot == slot && m.id != id.0)
    }

    /// The lowest slot that nobody holds.
    pub fn free_slot(&self) -> u32 {
        (0..).find(|slot| self.members.iter().all(|m| m.slot != *slot)).unwrap_or(u32::MAX)
    }

    /// Adds a member, or replaces the one with the same identity.
    pub fn put(&mut self, member: Member) {
        self.members.retain(|m| m.id != member.id);
        self.members.push(member);
        self.members.sort_by_key(|m| (m.slot, m.id));
    }

    /// Removes a member for good.
    pub fn remove(&mut self, id: NodeId) {
        if self.get(id).is_none() {
            return;
        }
        self.members.retain(|m| m.id != id.0);
        self.removed.push(id.0);
        let forgotten = self.removed.len().saturating_sub(REMOVED_MAX);
        self.removed.drain(..forgotten);
    }

    /// Whether it was a member and is none any more.
    pub fn was_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, slot: u32) -> Member {
        Member { id, slot, ..Member::default() }
    }

    #[test]
    fn who_was_removed_is_remembered_up_to_a_bound_and_strangers_are_not() {
        let mut directory = Directory::default();
        directory.remove(NodeId(7));
        assert!(!directory.was_removed(NodeId(7)), "it never was a member");
        for id in 1..=REMOVED_MAX as u64 + 1 {
            directory.put(member(id, 0));
            assert!(!directory.was_removed(NodeId(id)));
            directory.remove(NodeId(id));
            assert!(directory.was_removed(NodeId(id)));
        }
        assert!(!directory.was_removed(NodeId(1)), "the oldest is forgotten");
        assert!(directory.was_removed(NodeId(2)));
        let read = Directory::from_context(&directory.to_context()).unwrap();
        assert_eq!(read, directory);
    }
}
