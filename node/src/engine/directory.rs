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

/// All members, sorted by slot, then id. A slot has two members only while one replaces the other.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Directory {
    /// The members.
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<Member>,
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

    /// Without this member.
    pub fn remove(&mut self, id: NodeId) {
        self.members.retain(|m| m.id != id.0);
    }
}
