//! Installations for tests, from a few characters.

use crate::observed::{Claim, Observed, Pod, Set};
use balsa_wire::cluster::{ClusterAnswer, Health, Member, MembershipKind, Phase, Role, StoreState};

/// An installation that wants `replicas`, with members as in `0 1? 2l`: a voter at slot 0, a silent voter, a learner. The
/// silent have no running Pod. `leader` is a slot; `None`: nobody leads.
pub(crate) fn installation(replicas: u32, members: &str, leader: Option<u32>) -> Observed {
    let members: Vec<Member> = members.split_whitespace().map(|text| member(text, leader)).collect();
    let answers = |slot: u32| {
        members
            .iter()
            .find(|member| member.slot == slot)
            .is_none_or(|member| member.health == Health::Healthy)
    };
    let pods = (0..replicas).map(|ordinal| Pod {
        ordinal,
        revision: "old".into(),
        image: "balsa:1".into(),
        ready: leader.is_some() && answers(ordinal),
        told: answers(ordinal).then(|| told(ordinal, leader, &members)),
        silence: (!answers(ordinal)).then(|| "connection refused".to_owned()),
        node: Some(format!("node-{ordinal}")),
        ..Pod::default()
    });
    let claims = (0..replicas).map(|ordinal| Claim {
        name: format!("data-balsa-{ordinal}"),
        ordinal,
        bound: true,
        capacity: Some("8Gi".into()),
    });
    Observed {
        set: Some(Set {
            replicas,
            image: "balsa:1".into(),
            revision: "old".into(),
            current_revision: "old".into(),
            is_current: true,
            available: replicas,
            ..Set::default()
        }),
        pods: pods.collect(),
        claims: claims.collect(),
        mark: Some("c1".into()),
    }
}

fn member(text: &str, leader: Option<u32>) -> Member {
    let slot: u32 = text[..1].parse().unwrap();
    Member {
        id: format!("{:016x}", slot + 1),
        slot,
        membership: if text.contains('l') { MembershipKind::Learner } else { MembershipKind::Voter },
        leader: leader == Some(slot),
        peer_address: format!("balsa-{slot}:3300"),
        client_address: format!("balsa-{slot}:3000"),
        match_index: Some(100),
        lag: Some(if text.contains('<') { 5_000 } else { 0 }),
        health: if text.contains('?') { Health::Unreachable } else { Health::Healthy },
        version: Some("0.1.0".into()),
        feature_level: Some(2),
        disk_low: text.contains('!'),
    }
}

fn told(slot: u32, leader: Option<u32>, members: &[Member]) -> ClusterAnswer {
    let is_member = members.iter().any(|member| member.slot == slot);
    ClusterAnswer {
        cluster: Some("c1".into()),
        node: Some(format!("{:016x}", slot + 1)),
        slot,
        version: "0.1.0".into(),
        phase: if is_member { Phase::Running } else { Phase::Joining },
        waiting_for: (!is_member).then(|| "http://balsa-0:3000 to take this node in".into()),
        role: if leader == Some(slot) { Role::Leader } else { Role::Follower },
        term: 4,
        leader: leader.map(|leader| format!("{:016x}", leader + 1)),
        leader_address: leader.map(|leader| format!("balsa-{leader}:3000")),
        leader_changes: 1,
        first_index: 1,
        last_index: 100 + u64::from(slot),
        commit_index: 100,
        caught_up: true,
        feature_level: 2,
        storage_full: (members.iter().filter(|member| member.disk_low).count() > members.len() / 2)
            .then(|| "the disks are nearly full".into()),
        store: StoreState { applied_index: 100, revision: 42, digest: "d".into() },
        members: if is_member { members.to_vec() } else { Vec::new() },
    }
}
