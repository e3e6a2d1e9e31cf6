//! From the states that engine and store publish to the numbers that are scraped.

use crate::engine::apply_stage::Checkpoint;
use crate::engine::status::{MemberStatus, Role, Status};
use crate::metrics::{Metrics, RoleLabel, raise};
use crate::peer::{InboundStats, LaneStats, PeerStats};
use balsa_store::{Position, Stats};

/// A number as a gauge shows it.
pub(super) fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The engine's state.
pub(super) fn set_engine(metrics: &Metrics, status: &Status) {
    metrics.set_role(match status.role {
        Role::Leader => RoleLabel::Leader,
        Role::Follower => RoleLabel::Follower,
        Role::Candidate => RoleLabel::Candidate,
        Role::Learner => RoleLabel::Learner,
    });
    metrics.term.set(gauge(status.term.0));
    metrics.has_leader.set(i64::from(status.leader.is_some()));
    raise(&metrics.leader_changes, status.leader_changes);
    metrics.storage_full.set(i64::from(status.storage_full.is_some()));
    metrics.feature_level.set(status.feature_level.into());
    metrics.set_member_levels(
        status.members.iter().map(|member| (member.slot, member.feature_level.unwrap_or_default())),
    );
    metrics.first_index.set(gauge(status.first_index.0));
    metrics.last_index.set(gauge(status.last_index.0));
    metrics.commit_index.set(gauge(status.commit_index.0));
    metrics.applied_index.set(gauge(status.applied_index.0));
    let voters = status.members.iter().filter(|member| member.voter).count();
    metrics.voters.set(gauge(voters as u64));
    metrics.learners.set(gauge((status.members.len() - voters) as u64));
    let leads = status.role == Role::Leader;
    let answers = |member: &&MemberStatus| leads && member.active == Some(true);
    let answering = status.members.iter().filter(answers);
    metrics.voters_answering.set(gauge(answering.clone().filter(|member| member.voter).count() as u64));
    let silent = if leads { status.members.len() - answering.count() } else { 0 };
    metrics.members_silent.set(gauge(silent as u64));
    metrics.set_peer_lags(status.members.iter().filter(|_| leads).filter_map(|member| {
        let lag = status.last_index.0.saturating_sub(member.match_index?.0);
        Some((member.slot, lag))
    }));
}

/// A digest of the state at one of the indexes where all nodes publish theirs.
pub(super) fn set_digest(metrics: &Metrics, checkpoint: Checkpoint) {
    metrics.digest_index.set(gauge(checkpoint.index.0));
    // A sample is a float: what fits into its mantissa is enough to tell two states apart.
    metrics.digest.set(gauge(checkpoint.digest as u64 & ((1 << 52) - 1)));
}

/// The store's state.
pub(super) fn set_store(metrics: &Metrics, position: &Position, stats: &Stats) {
    metrics.revision.set(gauge(position.revision));
    metrics.overlay_bytes.set(gauge(stats.overlay_bytes));
    metrics.reply_table_entries.set(gauge(stats.reply_entries));
    metrics.sessions.set(gauge(stats.sessions));
    metrics.leases.set(gauge(stats.leases));
    metrics.leased_keys.set(gauge(stats.leased_keys));
    metrics.lock_places.set(gauge(stats.lock_places));
    metrics.compacted_revision.set(gauge(position.compacted));
}

/// The transport's counters. Those of peers that are none any more are forgotten; counters never fall.
pub fn set_transport(metrics: &Metrics, peers: &[PeerStats], inbound: &InboundStats) {
    let sum = |of: fn(&LaneStats) -> u64| peers.iter().map(|peer| of(&peer.message) + of(&peer.bulk)).sum();
    raise(&metrics.peer_sent_bytes, sum(|lane| lane.sent_bytes));
    raise(&metrics.peer_received_bytes, sum(|lane| lane.received_bytes));
    raise(&metrics.peer_dropped, sum(|lane| lane.dropped_frames));
    raise(&metrics.peer_dial_failures, sum(|lane| lane.failed_dials));
    for (reason, times) in &inbound.refused {
        metrics.set_peer_refused(*reason, *times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::status::Phase;
    use balsa_raft::{Index, NodeId, Term};

    fn member(id: u64, voter: bool, active: bool, match_index: u64) -> MemberStatus {
        MemberStatus {
            id: NodeId(id),
            slot: id as u32,
            peer_address: String::new(),
            client_address: String::new(),
            voter,
            match_index: Some(Index(match_index)),
            active: Some(active),
            version: None,
            feature_level: Some(2),
            is_low_on_disk: false,
        }
    }

    fn status(role: Role, members: Vec<MemberStatus>) -> Status {
        Status {
            cluster: None,
            node: Some(NodeId(1)),
            slot: 1,
            phase: Phase::Running,
            waiting_for: None,
            role,
            term: Term(1),
            leader: Some(NodeId(1)),
            first_index: Index(1),
            last_index: Index(100),
            commit_index: Index(100),
            applied_index: Index(100),
            caught_up: true,
            feature_level: 2,
            cluster_time_ms: 5_000,
            members,
            storage_full: None,
            leader_changes: 1,
        }
    }

    fn seen(metrics: &Metrics) -> (i64, i64, String) {
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let lags =
            text.lines().filter(|line| line.starts_with("balsa_peer_lag_entries") && !line.ends_with(" 0"));
        let lags: Vec<&str> = lags.collect();
        (metrics.voters_answering.get(), metrics.members_silent.get(), lags.join(" "))
    }

    #[test]
    fn a_leader_tells_of_the_others_and_falls_silent_when_it_is_deposed() {
        let metrics = Metrics::new().unwrap();
        let all = || vec![member(1, true, true, 100), member(2, true, false, 60), member(3, false, true, 90)];
        set_engine(&metrics, &status(Role::Leader, all()));
        let lags = r#"balsa_peer_lag_entries{slot="2"} 40 balsa_peer_lag_entries{slot="3"} 10"#;
        assert_eq!(seen(&metrics), (1, 1, lags.to_string()));

        // A member that left takes its lag along.
        set_engine(
            &metrics,
            &status(Role::Leader, vec![member(1, true, true, 100), member(3, true, true, 100)]),
        );
        assert_eq!(seen(&metrics), (2, 0, String::new()));

        set_engine(&metrics, &status(Role::Leader, all()));
        set_engine(&metrics, &status(Role::Follower, all()));
        assert_eq!(seen(&metrics), (0, 0, String::new()));
    }
}
