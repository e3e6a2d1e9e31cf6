//! `/v1/cluster`: what this node knows of the cluster, and changes of members and leader.

use super::answer::Answer;
use super::body;
use super::call::Call;
use super::problem::Failure;
use super::query;
use super::request_id;
use crate::address::is_address;
use crate::engine::handle::{AdminReply, AdminRequest};
use crate::engine::status::{MemberStatus, Phase, Role, Status};
use axum::body::Body;
use balsa_raft::NodeId;
use balsa_wire::cluster as wire;
use balsa_wire::cluster::{
    AddMember, ClusterAnswer, Health, Member, MemberAddress, MembershipAnswer, MembershipKind, StoreState,
    TransferLeadership,
};
use serde::Serialize;

/// `GET /v1/cluster`: answers without a leader, too.
pub(super) fn get(call: &Call<'_>) -> Result<Answer, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    let status = call.state.handle.status();
    let view = call.state.view();
    let store = StoreState {
        applied_index: view.applied_index(),
        revision: view.revision(),
        digest: format!("{:032x}", view.digest()),
    };
    to_json(&describe(&status, store))
}

/// `POST /v1/cluster/members`.
pub(super) async fn add_member(call: &Call<'_>, body: &mut Body) -> Result<Answer, Failure> {
    let expected =
        "{\"id\": HEX, \"peer_address\": \"HOST:PORT\", \"client_address\": \"HOST:PORT\", \"slot\"?: N}";
    let wanted: AddMember = read(call, body, expected).await?;
    for (name, address) in
        [("peer_address", &wanted.peer_address), ("client_address", &wanted.client_address)]
    {
        if !is_address(address) {
            return Err(Failure::Member(format!("`{name}` is `{address}`; it takes HOST:PORT")));
        }
    }
    change(
        call,
        AdminRequest::AddMember {
            id: node_id("id", &wanted.id)?,
            slot: wanted.slot,
            peer_address: wanted.peer_address,
            client_address: wanted.client_address,
        },
    )
    .await
}

/// `POST /v1/cluster/members/{id}/promote`.
pub(super) async fn promote(call: &Call<'_>, id: &str, body: &mut Body) -> Result<Answer, Failure> {
    let body::Empty {} = read(call, body, "empty").await?;
    change(call, AdminRequest::Promote { id: member_id(id)? }).await
}

/// `DELETE /v1/cluster/members/{id}`.
pub(super) async fn remove(call: &Call<'_>, id: &str, body: &mut Body) -> Result<Answer, Failure> {
    let body::Empty {} = read(call, body, "empty").await?;
    change(call, AdminRequest::Remove { id: member_id(id)? }).await
}

/// `POST /v1/cluster/transfer-leadership`.
pub(super) async fn transfer_leadership(call: &Call<'_>, body: &mut Body) -> Result<Answer, Failure> {
    let wanted: TransferLeadership = read(call, body, "{\"to\"?: HEX}").await?;
    let to = wanted.to.map(|to| node_id("to", &to)).transpose()?;
    change(call, AdminRequest::TransferLeadership { to }).await
}

/// What all changes have in common before they are made.
async fn read<T: serde::de::DeserializeOwned>(
    call: &Call<'_>,
    body: &mut Body,
    expected: &'static str,
) -> Result<T, Failure> {
    query::parse(call.parts.uri.query(), &[])?;
    call.refuse_conditions()?;
    request_id::refuse(&call.parts.headers)?;
    let body = call.read_body(body, body::SMALL_BYTES).await?;
    Ok(body::members(&body, expected)?)
}

async fn change(call: &Call<'_>, request: AdminRequest) -> Result<Answer, Failure> {
    let AdminReply { members, cluster } = call.admin(request).await?;
    let members = members.into_iter().map(|(id, slot, peer_address, client_address, voter)| MemberAddress {
        id: id.to_string(),
        slot,
        membership: membership(voter),
        peer_address,
        client_address,
    });
    to_json(&MembershipAnswer { cluster: cluster.to_string(), members: members.collect() })
}

pub(super) fn to_json(answer: &impl Serialize) -> Result<Answer, Failure> {
    serde_json::to_vec(answer).map(Answer::json).map_err(|_| Failure::Misfit)
}

fn describe(status: &Status, store: StoreState) -> ClusterAnswer {
    ClusterAnswer {
        cluster: status.cluster.map(|id| id.to_string()),
        node: status.node.map(|id| id.to_string()),
        slot: status.slot,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        phase: match status.phase {
            Phase::Founding => wire::Phase::Founding,
            Phase::Joining => wire::Phase::Joining,
            Phase::Running => wire::Phase::Running,
            Phase::Removed => wire::Phase::Removed,
            Phase::Stopping => wire::Phase::Stopping,
        },
        waiting_for: status.waiting_for.clone(),
        role: match status.role {
            Role::Follower => wire::Role::Follower,
            Role::Candidate => wire::Role::Candidate,
            Role::Leader => wire::Role::Leader,
            Role::Learner => wire::Role::Learner,
        },
        term: status.term.0,
        leader: status.leader.map(|id| id.to_string()),
        leader_address: status.leader_client_address().map(str::to_owned),
        leader_changes: status.leader_changes,
        first_index: status.first_index.0,
        last_index: status.last_index.0,
        commit_index: status.commit_index.0,
        caught_up: status.caught_up,
        feature_level: status.feature_level,
        storage_full: status.storage_full.clone(),
        store,
        members: status.members.iter().map(|member| describe_member(status, member)).collect(),
    }
}

fn describe_member(status: &Status, member: &MemberStatus) -> Member {
    let own = status.node == Some(member.id);
    // What this node says of itself needs no leader.
    let version = member.version.clone().or_else(|| own.then(|| env!("CARGO_PKG_VERSION").to_owned()));
    Member {
        id: member.id.to_string(),
        slot: member.slot,
        membership: membership(member.voter),
        leader: status.leader == Some(member.id),
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
        match_index: member.match_index.map(|index| index.0),
        lag: member.match_index.map(|index| status.last_index.0.saturating_sub(index.0)),
        health: match member.active {
            _ if own => Health::Healthy,
            Some(true) => Health::Healthy,
            Some(false) => Health::Unreachable,
            None => Health::Unknown,
        },
        version,
        feature_level: member.feature_level,
        disk_low: member.is_low_on_disk,
    }
}

fn membership(voter: bool) -> MembershipKind {
    if voter { MembershipKind::Voter } else { MembershipKind::Learner }
}

/// An identity in a body.
fn node_id(member: &str, text: &str) -> Result<NodeId, Failure> {
    let why = || format!("`{member}` is `{text}`; it takes 1 to 16 hexadecimal digits, not 0");
    identity(text).ok_or_else(|| Failure::Member(why()))
}

/// An identity in a path.
fn member_id(text: &str) -> Result<NodeId, Failure> {
    let why = "a member is named by its identity: 1 to 16 hexadecimal digits, not 0";
    identity(text).ok_or(Failure::Parameters(why))
}

fn identity(text: &str) -> Option<NodeId> {
    let digits = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|id| digits && *id != 0).map(NodeId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for (text, id) in [("1", 1), ("00000000000000ff", 255), ("FFFFFFFFFFFFFFFF", u64::MAX)] {
            assert_eq!(identity(text), Some(NodeId(id)));
        }
        for text in ["", "0", "0000000000000000", "g", "-1", "+1", "0x1", "10000000000000000"] {
            assert_eq!(identity(text), None, "{text}");
        }
    }
}
