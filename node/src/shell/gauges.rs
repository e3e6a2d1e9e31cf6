//! From the states that engine and store publish to the numbers that are scraped.

use crate::engine::status::{Role, Status};
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
    metrics.first_index.set(gauge(status.first_index.0));
    metrics.last_index.set(gauge(status.last_index.0));
    metrics.commit_index.set(gauge(status.commit_index.0));
    metrics.applied_index.set(gauge(status.applied_index.0));
    let voters = status.members.iter().filter(|member| member.voter).count();
    metrics.voters.set(gauge(voters as u64));
    metrics.learners.set(gauge((status.members.len() - voters) as u64));
    for member in &status.members {
        if let Some(match_index) = member.match_index {
            metrics.set_peer_lag(member.slot, status.last_index.0.saturating_sub(match_index.0));
        }
    }
}

/// The store's state.
pub(super) fn set_store(metrics: &Metrics, position: &Position, stats: &Stats) {
    metrics.revision.set(gauge(position.revision));
    metrics.store_bytes.set(gauge(stats.engine_bytes));
    metrics.overlay_bytes.set(gauge(stats.overlay_bytes));
    metrics.reply_table_entries.set(gauge(stats.reply_entries));
    metrics.sessions.set(gauge(stats.sessions));
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
