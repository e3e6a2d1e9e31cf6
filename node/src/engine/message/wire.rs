//! The encoding: protobuf structs that nothing else sees. A tag once used keeps its meaning for ever.

use balsa_store::command::Reply;
use bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Frame {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub kind: Option<Kind>,
}
#[derive(Clone, PartialEq, prost::Oneof)]
pub(in crate::engine) enum Kind {
    #[prost(message, tag = "1")]
    Raft(Raft),
    #[prost(message, tag = "2")]
    Forward(Forward),
    #[prost(message, tag = "3")]
    ForwardReply(ForwardReply),
    #[prost(message, tag = "4")]
    ReadIndex(ReadIndex),
    #[prost(message, tag = "5")]
    ReadIndexReply(ReadIndexReply),
    #[prost(message, tag = "6")]
    Admin(Admin),
    #[prost(message, tag = "7")]
    AdminReply(AdminReply),
    /// As the first builds said it.
    #[prost(string, tag = "8")]
    IntroduceByAddress(String),
    #[prost(message, tag = "9")]
    Introduce(Introduce),
    #[prost(message, tag = "10")]
    Standing(Standing),
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Introduce {
    #[prost(string, tag = "1")]
    pub peer_address: String,
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(uint32, tag = "3")]
    pub feature_level: u32,
    #[prost(bool, tag = "4")]
    pub is_low_on_disk: bool,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Standing {
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<MemberStanding>,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct MemberStanding {
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub matched: u64,
    #[prost(bool, tag = "3")]
    pub alive: bool,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Raft {
    #[prost(fixed64, tag = "1")]
    pub from: u64,
    #[prost(fixed64, tag = "2")]
    pub to: u64,
    #[prost(uint64, tag = "3")]
    pub term: u64,
    #[prost(oneof = "RaftBody", tags = "4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14")]
    pub body: Option<RaftBody>,
}
#[derive(Clone, PartialEq, prost::Oneof)]
pub(in crate::engine) enum RaftBody {
    #[prost(message, tag = "4")]
    PreVote(LastEntry),
    #[prost(bool, tag = "5")]
    PreVoteReply(bool),
    #[prost(message, tag = "6")]
    Vote(LastEntry),
    #[prost(bool, tag = "7")]
    VoteReply(bool),
    #[prost(message, tag = "8")]
    Append(Append),
    #[prost(uint64, tag = "9")]
    AppendAccepted(u64),
    #[prost(message, tag = "10")]
    AppendRejected(AppendRejected),
    #[prost(message, tag = "11")]
    Heartbeat(Heartbeat),
    #[prost(uint64, tag = "12")]
    HeartbeatReply(u64),
    #[prost(uint64, tag = "13")]
    TimeoutNow(u64),
    #[prost(uint64, tag = "14")]
    SnapshotInstalled(u64),
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct LastEntry {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    #[prost(bool, tag = "3")]
    pub transfer: bool,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Append {
    #[prost(uint64, tag = "1")]
    pub prev_index: u64,
    #[prost(uint64, tag = "2")]
    pub prev_term: u64,
    #[prost(uint64, tag = "3")]
    pub commit: u64,
    #[prost(message, repeated, tag = "4")]
    pub entries: Vec<Entry>,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Entry {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub data: Bytes,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct AppendRejected {
    #[prost(uint64, tag = "1")]
    pub prev_index: u64,
    #[prost(uint64, tag = "2")]
    pub hint_index: u64,
    #[prost(uint64, tag = "3")]
    pub hint_term: u64,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Heartbeat {
    #[prost(uint64, tag = "1")]
    pub commit: u64,
    #[prost(uint64, tag = "2")]
    pub context: u64,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Forward {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub command: Bytes,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct ForwardReply {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(oneof = "ForwardOutcome", tags = "2, 3, 4, 5, 6")]
    pub result: Option<ForwardOutcome>,
}
#[derive(Clone, PartialEq, prost::Oneof)]
pub(in crate::engine) enum ForwardOutcome {
    #[prost(message, tag = "2")]
    Applied(Reply),
    #[prost(bool, tag = "3")]
    Refused(bool),
    #[prost(bool, tag = "4")]
    Overloaded(bool),
    #[prost(bool, tag = "5")]
    Unknown(bool),
    #[prost(string, tag = "6")]
    StorageFull(String),
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct ReadIndex {
    #[prost(uint64, tag = "1")]
    pub id: u64,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct ReadIndexReply {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, optional, tag = "2")]
    pub index: Option<u64>,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Admin {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(oneof = "AdminAsk", tags = "2, 3, 4, 5")]
    pub request: Option<AdminAsk>,
}
#[derive(Clone, PartialEq, prost::Oneof)]
pub(in crate::engine) enum AdminAsk {
    #[prost(message, tag = "2")]
    AddMember(AddMember),
    #[prost(fixed64, tag = "3")]
    Promote(u64),
    #[prost(fixed64, tag = "4")]
    Remove(u64),
    #[prost(message, tag = "5")]
    TransferLeadership(Transfer),
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct AddMember {
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    #[prost(uint32, optional, tag = "2")]
    pub slot: Option<u32>,
    #[prost(string, tag = "3")]
    pub peer_address: String,
    #[prost(string, tag = "4")]
    pub client_address: String,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct Transfer {
    #[prost(fixed64, optional, tag = "1")]
    pub to: Option<u64>,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct AdminReply {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(oneof = "AdminOutcome", tags = "2, 3, 4, 5, 6, 7")]
    pub result: Option<AdminOutcome>,
}
#[derive(Clone, PartialEq, prost::Oneof)]
pub(in crate::engine) enum AdminOutcome {
    #[prost(message, tag = "2")]
    Done(AdminDone),
    #[prost(bool, tag = "3")]
    NotLeader(bool),
    #[prost(string, tag = "4")]
    Refused(String),
    #[prost(fixed64, tag = "5")]
    NoSuchMember(u64),
    #[prost(bool, tag = "6")]
    Busy(bool),
    #[prost(bool, tag = "7")]
    Unknown(bool),
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct AdminDone {
    #[prost(fixed64, tag = "1")]
    pub cluster: u64,
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<AdminMember>,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::engine) struct AdminMember {
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    #[prost(uint32, tag = "2")]
    pub slot: u32,
    #[prost(string, tag = "3")]
    pub peer_address: String,
    #[prost(string, tag = "4")]
    pub client_address: String,
    #[prost(bool, tag = "5")]
    pub voter: bool,
}
