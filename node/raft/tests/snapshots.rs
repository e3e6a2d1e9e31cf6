//! Snapshots as a receiver sees them: who may offer one, which are refused, and what its answer promises.

mod harness;

use balsa_raft::{
    Body, Config, Entry, EntryKind, Index, Membership, Message, NodeId, Raft, Role, SnapshotDecision,
    SnapshotMeta, Term,
};
use bytes::Bytes;
use harness::Cluster;
use std::sync::Arc;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn three() -> Membership {
    Membership::of_voters((1..=3).map(NodeId))
}

fn meta(index: u64, term: u64) -> SnapshotMeta {
    SnapshotMeta { index: Index(index), term: Term(term), membership: Arc::new(three()) }
}

fn founded() -> Cluster {
    Cluster::founded(Config::with_defaults(ME, 1), &three())
}

/// An append of entries up to `last`, of their leader's term.
fn append_behind(prev: (u64, u64), term: u64, last: u64, commit: u64) -> Message {
    let entry = |index| Entry {
        index: Index(index),
        term: Term(term),
        kind: EntryKind::Command,
        data: Bytes::from_static(b"x"),
    };
    let (entries, commit) = ((prev.0 + 1..=last).map(entry).collect(), Index(commit));
    let body = Body::Append { prev_index: Index(prev.0), prev_term: Term(prev.1), entries, commit };
    Message { from: OTHER, to: ME, term: Term(term), body }
}

/// The same, behind the first entry and of term 2.
fn append(last: u64, commit: u64) -> Message {
    append_behind((1, 1), 2, last, commit)
}

fn offer(cluster: &mut Cluster, term: u64, meta: &SnapshotMeta) -> Option<SnapshotDecision> {
    cluster.input(ME, |raft| raft.offer_snapshot(OTHER, Term(term), meta))
}

/// What is on its way to the other node.
fn sent(cluster: &Cluster) -> Vec<(Term, Body)> {
    let to_other = cluster.network.iter().filter(|message| (message.from, message.to) == (ME, OTHER));
    to_other.map(|message| (message.term, message.body.clone())).collect()
}

#[test]
fn an_offer_of_a_later_term_ends_a_reign() {
    let mut cluster = founded();
    while cluster.leader() != Some(ME) {
        cluster.input(ME, Raft::tick);
        cluster.settle();
    }
    assert_eq!(offer(&mut cluster, 3, &meta(9, 3)), Some(SnapshotDecision::Wanted));
    let raft = cluster.raft(ME).expect("it runs");
    assert_eq!((raft.role(), raft.term(), raft.leader()), (Role::Follower, Term(3), Some(OTHER)));
    assert_eq!(cluster.input(ME, |raft| raft.install_snapshot(meta(9, 3))), Some(true));
    cluster.persist(ME, usize::MAX);
    assert_eq!(sent(&cluster), [(Term(3), Body::SnapshotInstalled { match_index: Index(9) })]);
}

#[test]
fn an_offer_of_an_earlier_term_is_refused_and_tells_the_term() {
    let mut cluster = founded();
    cluster.input(ME, |raft| raft.step(append(2, 1)));
    cluster.persist(ME, usize::MAX);
    cluster.network.clear();
    let late = cluster.input(ME, |raft| raft.offer_snapshot(NodeId(3), Term(1), &meta(9, 1)));
    assert_eq!(late, Some(SnapshotDecision::Stale));
    let told = Message { from: ME, to: NodeId(3), term: Term(2), body: Body::HeartbeatReply { context: 0 } };
    assert_eq!(cluster.network, [told]);
    assert_eq!(cluster.raft(ME).and_then(Raft::leader), Some(OTHER));
}

/// It was taken after its sender had ceased to lead, and would put the log ahead of the term.
#[test]
fn a_snapshot_of_a_term_to_come_is_refused() {
    let mut cluster = founded();
    cluster.input(ME, |raft| raft.step(append(2, 1)));
    assert_eq!(offer(&mut cluster, 2, &meta(9, 3)), Some(SnapshotDecision::Stale));
    assert_eq!(cluster.input(ME, |raft| raft.install_snapshot(meta(9, 3))), Some(false));
    assert_eq!(cluster.raft(ME).map(Raft::last_index), Some(Index(2)));
}

/// The leader takes the answer for what is durable here and equal to its own log: no more than is committed, and not before
/// the disk has it (hazards 2, 21).
#[test]
fn a_stale_snapshot_is_answered_with_what_is_committed_and_durable() {
    let mut cluster = founded();
    cluster.input(ME, |raft| raft.step(append(1, 1)));
    cluster.persist(ME, usize::MAX);
    // Up to 5 in the log, up to 3 committed, and only entry 1 on disk.
    cluster.input(ME, |raft| raft.step(append(5, 3)));
    cluster.network.clear();
    assert_eq!(offer(&mut cluster, 2, &meta(2, 2)), Some(SnapshotDecision::Stale));
    assert_eq!(sent(&cluster), []);
    cluster.persist(ME, usize::MAX);
    let answered = |index| (Term(2), Body::SnapshotInstalled { match_index: Index(index) });
    assert!(sent(&cluster).contains(&answered(3)), "{:?}", sent(&cluster));
    assert!(!sent(&cluster).contains(&answered(5)));
}

#[test]
fn a_snapshot_of_what_the_log_holds_is_not_needed() {
    let mut cluster = founded();
    cluster.input(ME, |raft| raft.step(append(5, 1)));
    assert_eq!(offer(&mut cluster, 2, &meta(4, 2)), Some(SnapshotDecision::Stale));
    assert_eq!(cluster.raft(ME).map(Raft::commit_index), Some(Index(4)));
    // Of another history, it is.
    assert_eq!(offer(&mut cluster, 3, &meta(5, 3)), Some(SnapshotDecision::Wanted));
}

/// What was on its way to the disk is not what the log holds behind a snapshot (hazard 3).
#[test]
fn a_late_completion_confirms_nothing_behind_a_snapshot() {
    let mut cluster = founded();
    cluster.input(ME, |raft| raft.step(append(8, 1)));
    assert_eq!(offer(&mut cluster, 3, &meta(6, 3)), Some(SnapshotDecision::Wanted));
    assert_eq!(cluster.input(ME, |raft| raft.install_snapshot(meta(6, 3))), Some(true));
    cluster.input(ME, |raft| raft.step(append_behind((6, 3), 3, 9, 6)));
    let stable = |cluster: &Cluster| cluster.raft(ME).map(|raft| raft.status().stable);
    cluster.persist(ME, 1);
    assert_eq!(stable(&cluster), Some(Index(6)));
    cluster.persist(ME, usize::MAX);
    assert_eq!(stable(&cluster), Some(Index(9)));
}
