//! What is refused, and what is bounded: settings, disks that no run can have left, queues with a stated
//! behaviour when full.

mod harness;

use balsa_raft::{
    Body, Change, Config, ConfigError, Entry, EntryKind, HardState, Index, Membership, MembershipError,
    Message, NodeId, ProposeError, Raft, ReadError, ReadId, RestoreError, Restored, Role, SnapshotMeta, Term,
    TransferError,
};
use bytes::Bytes;
use harness::{Cluster, Event};
use std::sync::Arc;

fn config() -> Config {
    Config::with_defaults(NodeId(1), 1)
}

fn three() -> Membership {
    Membership::of_voters((1..=3).map(NodeId))
}

fn command(index: u64, term: u64) -> Entry {
    Entry { index: Index(index), term: Term(term), kind: EntryKind::Command, data: Bytes::from_static(b"x") }
}

/// A cluster of three that node 1 leads, with all committed.
fn led_by_one(config: Config) -> Cluster {
    let mut cluster = Cluster::founded(config, &three());
    while cluster.leader().is_none() {
        cluster.input(NodeId(1), |raft| raft.tick());
        cluster.settle();
    }
    cluster.events.clear();
    cluster
}

#[test]
fn a_setting_that_cannot_work_is_named() {
    let cases: [(Config, &str); 10] = [
        (Config { id: NodeId(0), ..config() }, "id is 0"),
        (Config { heartbeat_ticks: 0, ..config() }, "heartbeat_ticks is 0"),
        (Config { max_append_bytes: 0, ..config() }, "max_append_bytes is 0"),
        (Config { max_inflight_appends: 0, ..config() }, "max_inflight_appends is 0"),
        (Config { max_inflight_bytes: 0, ..config() }, "max_inflight_bytes is 0"),
        (Config { max_uncommitted_bytes: 0, ..config() }, "max_uncommitted_bytes is 0"),
        (Config { max_apply_bytes: 0, ..config() }, "max_apply_bytes is 0"),
        (Config { max_pending_reads: 0, ..config() }, "max_pending_reads is 0"),
        (
            Config { election_ticks: 4, heartbeat_ticks: 2, ..config() },
            "heartbeat_ticks is 2 with election_ticks 4",
        ),
        (Config { election_stretch_max: 0, ..config() }, "election_stretch_max is 0"),
    ];
    for (config, message) in cases {
        let error: ConfigError = config.validate().expect_err(message);
        assert!(error.to_string().starts_with(message), "{error}");
        assert!(matches!(Raft::new(config, Restored::blank()), Err(RestoreError::Config(_))));
    }
    assert_eq!(config().validate(), Ok(()));
}

#[test]
fn a_disk_that_no_run_can_have_left_is_refused() {
    let term = |term| HardState { term: Term(term), vote: None };
    let snapshot =
        |index, term| SnapshotMeta { index: Index(index), term: Term(term), membership: Arc::new(three()) };
    let new = |restored| Raft::new(config(), restored).map(|_| ());
    let blank = Restored::blank;

    assert_eq!(new(blank()), Ok(()));
    let gap = Restored { hard_state: term(1), entries: vec![command(1, 1), command(3, 1)], ..blank() };
    assert_eq!(new(gap), Err(RestoreError::NotContiguous { expected: Index(2), found: Index(3) }));
    let falling = Restored { hard_state: term(3), entries: vec![command(1, 3), command(2, 2)], ..blank() };
    assert!(matches!(new(falling), Err(RestoreError::TermOutOfOrder { index: Index(2), .. })));
    let unheard = Restored { hard_state: term(1), entries: vec![command(1, 2)], ..blank() };
    assert!(matches!(new(unheard), Err(RestoreError::TermOutOfOrder { index: Index(1), .. })));
    let unheard = Restored { hard_state: term(1), snapshot: snapshot(4, 2), applied: Index(4), ..blank() };
    assert!(matches!(new(unheard), Err(RestoreError::TermOutOfOrder { index: Index(4), .. })));
    for applied in [3, 6] {
        let (snapshot, applied) = (snapshot(4, 2), Index(applied));
        let outside = Restored { hard_state: term(2), snapshot, entries: vec![command(5, 2)], applied };
        assert!(matches!(new(outside), Err(RestoreError::AppliedOutsideLog { .. })));
    }
    let unreadable = Entry { kind: EntryKind::Membership, ..command(1, 1) };
    let unreadable = Restored { hard_state: term(1), entries: vec![unreadable], ..blank() };
    assert!(matches!(new(unreadable), Err(RestoreError::Membership { index: Index(1), .. })));
}

/// A crash between a snapshot's state and the log that begins behind it (hazard 23).
#[test]
fn a_state_ahead_of_its_log_begins_it_anew() {
    let meta =
        |index, term| SnapshotMeta { index: Index(index), term: Term(term), membership: Arc::new(three()) };
    let log = || Restored {
        hard_state: HardState { term: Term(2), vote: Some(NodeId(3)) },
        entries: vec![command(1, 1), command(2, 2), command(3, 2)],
        ..Restored::blank()
    };
    // The log holds the state's last entry: all of it stays.
    let known = log().with_state(meta(2, 2));
    assert_eq!((known.entries.len(), known.applied, known.snapshot.index), (3, Index(2), Index::ZERO));
    // Beyond the log, and against it: the log begins behind the state. A vote of that very term stands.
    for (index, term) in [(7, 2), (2, 1)] {
        let anew = log().with_state(meta(index, term));
        assert_eq!((anew.entries.len(), anew.applied, anew.snapshot.index), (0, Index(index), Index(index)));
        assert_eq!(anew.hard_state, log().hard_state);
        assert!(Raft::new(config(), anew).is_ok());
    }
    // In a term that the log had not heard of, there was no vote.
    let later = log().with_state(meta(7, 5));
    assert_eq!(later.hard_state, HardState { term: Term(5), vote: None });
    assert!(Raft::new(config(), later).is_ok());
    // A state older than the log's beginning explains nothing, and is refused.
    let behind = Restored { snapshot: meta(4, 2), entries: vec![command(5, 2)], ..log() };
    let behind = Raft::new(config(), behind.with_state(meta(3, 2))).map(|_| ());
    assert!(matches!(behind, Err(RestoreError::AppliedOutsideLog { .. })));
}

#[test]
fn only_a_leader_appends_confirms_and_hands_over() {
    let mut cluster = led_by_one(config());
    let leader = Some(NodeId(1));
    let follower = NodeId(2);
    assert_eq!(cluster.propose(follower, "x"), Some(Err(ProposeError::NotLeader { leader })));
    assert_eq!(cluster.read(follower, ReadId(1)), Some(Err(ReadError::NotLeader { leader })));
    let change = [Change::AddLearner(NodeId(4))];
    assert_eq!(cluster.change(follower, &change, ""), Some(Err(MembershipError::NotLeader { leader })));
    let transfer = cluster.input(follower, |raft| raft.transfer_leadership(None));
    assert_eq!(transfer, Some(Err(TransferError::NotLeader { leader })));
}

#[test]
fn uncommitted_bytes_are_bounded() {
    let mut cluster = led_by_one(Config { max_uncommitted_bytes: 1_000, ..config() });
    // One is taken whatever its size.
    assert!(matches!(cluster.propose(NodeId(1), &"x".repeat(5_000)), Some(Ok(_))));
    assert_eq!(cluster.propose(NodeId(1), "y"), Some(Err(ProposeError::Overloaded)));
    cluster.settle();
    let mut taken = 0;
    while matches!(cluster.propose(NodeId(1), &"z".repeat(100)), Some(Ok(_))) {
        taken += 1;
        assert!(taken <= 10, "more than the limit was taken");
    }
    assert!(taken >= 5, "only {taken} were taken");
    cluster.settle();
    assert!(matches!(cluster.propose(NodeId(1), "y"), Some(Ok(_))));
}

#[test]
fn waiting_reads_are_bounded_and_dropped_with_leadership() {
    let mut cluster = led_by_one(Config { max_pending_reads: 3, ..config() });
    for read in 1..=3 {
        assert_eq!(cluster.read(NodeId(1), ReadId(read)), Some(Ok(())));
    }
    assert_eq!(cluster.read(NodeId(1), ReadId(4)), Some(Err(ReadError::Overloaded)));
    cluster.network.clear();
    cluster.events.clear();
    let vote =
        Message { from: NodeId(2), to: NodeId(1), term: Term(9), body: Body::VoteReply { granted: false } };
    cluster.input(NodeId(1), |raft| raft.step(vote));
    let dropped = cluster.events.iter().filter(|event| matches!(event, Event::ReadDropped(..))).count();
    assert_eq!(dropped, 3);
}

/// Also those that wait for the leader's first entry, and those that arrived since the last Ready.
#[test]
fn reads_are_dropped_wherever_they_wait() {
    let me = NodeId(1);
    let deposed =
        Message { from: NodeId(2), to: me, term: Term(9), body: Body::VoteReply { granted: false } };
    let mut cluster = Cluster::founded(config(), &Membership::of_voters([me]));
    cluster.input(me, |raft| raft.tick());
    cluster.persist(me, 1);
    assert_eq!(cluster.read(me, ReadId(1)), Some(Ok(())));
    cluster.input(me, |raft| raft.step(deposed.clone()));
    assert!(cluster.events.contains(&Event::ReadDropped(me, ReadId(1))), "{:?}", cluster.events);

    let mut cluster = led_by_one(config());
    assert_eq!(cluster.input_only(me, |raft| raft.read(ReadId(2))), Some(Ok(())));
    cluster.input(me, |raft| raft.step(deposed));
    assert!(cluster.events.contains(&Event::ReadDropped(me, ReadId(2))), "{:?}", cluster.events);
}

/// A leader goes on for any number of reads, as long as few wait at a time.
#[test]
fn the_places_of_confirmed_reads_come_back() {
    let mut cluster = led_by_one(Config { max_pending_reads: 2, ..config() });
    for read in 1..=10 {
        assert_eq!(cluster.read(NodeId(1), ReadId(read)), Some(Ok(())), "read {read}");
        cluster.settle();
    }
    let confirmed = cluster.events.iter().filter(|event| matches!(event, Event::ReadConfirmed(..))).count();
    assert_eq!(confirmed, 10);
}

#[test]
fn appends_in_flight_are_bounded() {
    let tight =
        Config { max_append_bytes: 100, max_inflight_appends: 4, max_inflight_bytes: 1 << 20, ..config() };
    let few_bytes = Config { max_inflight_appends: 1_000, max_inflight_bytes: 400, ..tight.clone() };
    // Entries of 72 bytes, one a message.
    for (config, most) in [(tight, 4), (few_bytes, 6)] {
        let mut cluster = led_by_one(config);
        for number in 0..100 {
            cluster.propose(NodeId(1), &format!("proposal {number:30}"));
        }
        let appends = |cluster: &Cluster, to| {
            let to_peer = cluster.network.iter().filter(|message| message.to == NodeId(to));
            to_peer.filter(|message| matches!(message.body, Body::Append { .. })).count()
        };
        assert_eq!((appends(&cluster, 2), appends(&cluster, 3)), (most, most));
        cluster.settle();
        assert_eq!(cluster.raft(NodeId(3)).map(Raft::last_index), Some(Index(102)));
    }
}

#[test]
fn entries_gather_behind_an_unanswered_append_for_a_tick_at_most() {
    let appends = |cluster: &Cluster| -> Vec<Vec<u64>> {
        let to_two = cluster.network.iter().filter(|message| message.to == NodeId(2));
        let appends = to_two.filter_map(|message| match &message.body {
            Body::Append { entries, .. } => Some(entries.iter().map(|entry| entry.index.0).collect()),
            _ => None,
        });
        appends.collect()
    };
    let mut cluster = led_by_one(Config { gather_appends: true, max_append_bytes: 70, ..config() });
    let first = cluster.raft(NodeId(1)).map(Raft::last_index).expect("it runs").0 + 1;
    let propose =
        |cluster: &mut Cluster| assert!(cluster.propose(NodeId(1), "x").is_some_and(|taken| taken.is_ok()));
    for _ in 0..4 {
        propose(&mut cluster);
    }
    assert_eq!(appends(&cluster), [[first]], "the others wait for its answer");
    // Its answer lets them go, in as many appends as they need.
    let find = |cluster: &Cluster, from, to| {
        let mut network = cluster.network.iter();
        network
            .position(|message| (message.from, message.to) == (NodeId(from), NodeId(to)))
            .expect("a message")
    };
    cluster.deliver(find(&cluster, 1, 2));
    cluster.persist(NodeId(2), usize::MAX);
    cluster.deliver(find(&cluster, 2, 1));
    assert_eq!(appends(&cluster), [vec![first + 1, first + 2], vec![first + 3]]);
    cluster.settle();
    // Nothing is answered any more: what waits goes with the next tick.
    propose(&mut cluster);
    propose(&mut cluster);
    assert_eq!(appends(&cluster), [[first + 4]]);
    cluster.input(NodeId(1), |raft| raft.tick());
    assert_eq!(appends(&cluster), [[first + 4], [first + 5]]);
}

#[test]
fn entries_being_applied_are_bounded() {
    let mut cluster = led_by_one(Config { max_apply_bytes: 200, ..config() });
    cluster.eager_apply = false;
    for _ in 0..20 {
        cluster.propose(NodeId(1), &"x".repeat(50));
    }
    cluster.settle();
    let handed_out = cluster.node(NodeId(1)).state.applied;
    let before = cluster.raft(NodeId(1)).map(Raft::applied_index).expect("it runs");
    assert_eq!(handed_out.0 - before.0, 2, "entries of 82 bytes, in a budget of 200");
    cluster.input(NodeId(1), |raft| raft.handle_applied(handed_out));
    assert_eq!(cluster.node(NodeId(1)).state.applied.0 - handed_out.0, 2);
    // Reports from the past, as after a snapshot, change nothing.
    cluster.input(NodeId(1), |raft| raft.handle_applied(Index(1)));
    assert_eq!(cluster.raft(NodeId(1)).map(Raft::applied_index), Some(handed_out));
}

#[test]
fn a_transfer_needs_a_target() {
    let mut alone = Cluster::founded(config(), &Membership::of_voters([NodeId(1)]));
    while alone.leader().is_none() {
        alone.input(NodeId(1), |raft| raft.tick());
        alone.settle();
    }
    assert_eq!(
        alone.input(NodeId(1), |raft| raft.transfer_leadership(None)),
        Some(Err(TransferError::NoTarget))
    );
    let mut cluster = led_by_one(config());
    assert_eq!(cluster.input(NodeId(1), |raft| raft.transfer_leadership(None)), Some(Ok(NodeId(2))));
    assert_eq!(cluster.change(NodeId(1), &[], "x"), Some(Err(MembershipError::Transferring)));
    assert!(cluster.raft(NodeId(1)).is_some_and(Raft::is_transferring));
}

/// It steps down with the next Ready: what it took now would be in doubt for nothing.
#[test]
fn a_leader_whose_removal_has_committed_takes_nothing_more() {
    let mut cluster = led_by_one(config());
    let me = NodeId(1);
    assert!(matches!(cluster.change(me, &[Change::Remove(me)], ""), Some(Ok(_))));
    while !cluster.network.iter().all(|message| message.to == me) {
        let at = cluster.network.iter().position(|message| message.to != me).expect("a message");
        cluster.deliver(at);
    }
    cluster.persist(NodeId(2), usize::MAX);
    cluster.persist(NodeId(3), usize::MAX);
    for answer in std::mem::take(&mut cluster.network) {
        cluster.input_only(me, |raft| raft.step(answer));
    }
    let raft = cluster.raft(me).expect("it runs");
    assert!(raft.is_leader() && raft.commit_index() == raft.membership_index());
    let proposed = cluster.input_only(me, |raft| raft.propose(Bytes::from_static(b"x")));
    assert_eq!(proposed, Some(Err(ProposeError::Transferring)));
    let changed = cluster.input_only(me, |raft| raft.propose_membership(&[], Bytes::new()));
    assert_eq!(changed, Some(Err(MembershipError::Transferring)));
}

/// Also right after a quorum check, when those that answer all the time have not answered in the new period yet.
#[test]
fn a_leader_whose_followers_answer_always_has_a_target() {
    let mut cluster = led_by_one(config());
    for ticks in 1..=4 * config().election_ticks {
        cluster.input(NodeId(1), Raft::tick);
        let mut now = cluster.raft(NodeId(1)).cloned().expect("node 1 runs");
        assert_eq!(now.transfer_leadership(None), Ok(NodeId(2)), "after {ticks} ticks");
        cluster.settle();
    }
}

#[test]
fn a_change_is_under_way_until_it_has_committed_and_is_not_joint() {
    let under_way = |cluster: &Cluster| cluster.raft(NodeId(1)).is_some_and(Raft::is_changing_membership);
    let mut cluster = led_by_one(config());
    assert!(!under_way(&cluster));
    assert!(matches!(cluster.change(NodeId(1), &[Change::AddLearner(NodeId(4))], ""), Some(Ok(_))));
    assert!(under_way(&cluster));
    cluster.settle();
    assert!(!under_way(&cluster));
    // One that has applied the entry that enters a joint phase, and has not heard of the one that leaves it.
    let joint = Membership { outgoing: [NodeId(1)].into(), ..three() };
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None },
        entries: vec![Raft::bootstrap_entry(&joint)],
        applied: Index(1),
        ..Restored::blank()
    };
    assert!(Raft::new(config(), restored).is_ok_and(|raft| raft.is_changing_membership()));
}

/// A newer version's entry stops the node; it is not skipped (hazard 49).
#[test]
#[should_panic(expected = "membership of unknown version 9")]
fn an_unknown_membership_stops_the_node() {
    let mut cluster = Cluster::founded(config(), &three());
    let data = Bytes::from_static(&[9, 0, 0]);
    let entry = Entry { index: Index(2), term: Term(2), kind: EntryKind::Membership, data };
    let body =
        Body::Append { prev_index: Index(1), prev_term: Term(1), entries: vec![entry], commit: Index(0) };
    let message = Message { from: NodeId(2), to: NodeId(1), term: Term(2), body };
    cluster.input(NodeId(1), |raft| raft.step(message));
}

/// What was committed while a snapshot was on its way is not taken back by it (hazard 21), and a leader is not
/// overwritten.
#[test]
fn an_installed_snapshot_takes_nothing_back() {
    let mut cluster = led_by_one(config());
    cluster.propose(NodeId(1), "x");
    cluster.settle();
    let meta = |index| SnapshotMeta { index: Index(index), term: Term(2), membership: Arc::new(three()) };
    for (node, index) in [(2, 2), (2, 3), (1, 2), (1, 9)] {
        assert_eq!(cluster.input(NodeId(node), |raft| raft.install_snapshot(meta(index))), Some(false));
        assert_eq!(cluster.raft(NodeId(node)).map(Raft::commit_index), Some(Index(3)));
    }
    assert_eq!(cluster.input(NodeId(2), |raft| raft.install_snapshot(meta(4))), Some(true));
    assert_eq!(cluster.raft(NodeId(2)).map(Raft::commit_index), Some(Index(4)));
}

/// A leader without others, whose entry is not written yet, and what makes it one no more.
fn alone_with_an_entry() -> (Cluster, NodeId, Message) {
    let mut cluster = Cluster::founded(config(), &Membership::of_voters([NodeId(1)]));
    let me = NodeId(1);
    cluster.input(me, |raft| raft.tick());
    cluster.settle();
    cluster.propose(me, "x");
    let deposed =
        Message { from: NodeId(2), to: me, term: Term(9), body: Body::VoteReply { granted: false } };
    (cluster, me, deposed)
}

/// The completion of an earlier write does not make a vote durable (hazard 4).
#[test]
fn an_own_vote_waits_for_its_own_write() {
    let (mut cluster, me, deposed) = alone_with_an_entry();
    cluster.input(me, |raft| raft.step(deposed));
    cluster.input(me, |raft| raft.tick());
    assert_eq!(cluster.node(me).pending.len(), 3, "an entry, a term, a vote");
    for write in 0..3 {
        assert!(!cluster.raft(me).is_some_and(Raft::is_leader), "leads after {write} of 3 writes");
        cluster.persist(me, 1);
    }
    assert!(cluster.raft(me).is_some_and(Raft::is_leader));
}

/// Nor does that of all earlier writes, while the vote is not even handed out.
#[test]
fn an_own_vote_waits_for_the_ready_that_hands_it_out() {
    let (mut cluster, me, deposed) = alone_with_an_entry();
    let entry = cluster.node(me).pending[0].token;
    cluster.input_only(me, |raft| raft.step(deposed));
    cluster.input_only(me, |raft| raft.tick());
    cluster.input_only(me, |raft| raft.handle_persisted(entry));
    assert_eq!(cluster.raft(me).map(Raft::role), Some(Role::Candidate));
    cluster.drain(me);
    cluster.settle();
    assert!(cluster.raft(me).is_some_and(Raft::is_leader));
}

/// What follows the entries of an append was not compared with the leader's log (hazard 6).
#[test]
fn a_follower_commits_no_more_than_was_verified() {
    let mut cluster = Cluster::founded(config(), &three());
    let append = |entries, commit| {
        let body = Body::Append { prev_index: Index(1), prev_term: Term(1), entries, commit: Index(commit) };
        Message { from: NodeId(2), to: NodeId(1), term: Term(2), body }
    };
    let commit = |cluster: &Cluster| cluster.raft(NodeId(1)).map(Raft::commit_index);
    cluster.input(NodeId(1), |raft| raft.step(append(vec![command(2, 1), command(3, 1), command(4, 1)], 1)));
    assert_eq!(commit(&cluster), Some(Index(1)));
    cluster.input(NodeId(1), |raft| raft.step(append(vec![command(2, 1)], 4)));
    assert_eq!(commit(&cluster), Some(Index(2)));
    cluster.input(NodeId(1), |raft| raft.step(append(vec![], 4)));
    assert_eq!(commit(&cluster), Some(Index(2)));
}

/// Messages that make no sense, are for others or come from nowhere change nothing.
#[test]
fn nonsense_is_ignored() {
    let mut cluster = led_by_one(config());
    let (follower, term) = (NodeId(2), Term(2));
    let before = format!("{:?}", cluster.raft(follower).map(Raft::status));
    let append = |prev_index, entries| Body::Append {
        prev_index: Index(prev_index),
        prev_term: term,
        entries,
        commit: Index(0),
    };
    let bodies = [
        append(2, vec![command(4, 2)]),
        append(2, vec![command(3, 1)]),
        append(2, vec![command(3, 7)]),
        Body::AppendAccepted { match_index: Index(99) },
        Body::HeartbeatReply { context: 99 },
        Body::TimeoutNow { last_index: Index(99) },
    ];
    for body in bodies {
        let message = Message { from: NodeId(1), to: follower, term, body };
        cluster.input(follower, |raft| raft.step(message));
    }
    let own = Body::Heartbeat { commit: Index(2), context: 0 };
    for node in [NodeId(1), follower] {
        let own = Message { from: node, to: node, term, body: own.clone() };
        cluster.input(node, |raft| raft.step(own));
    }
    let elsewhere =
        Message { from: NodeId(1), to: NodeId(3), term: Term(9), body: Body::HeartbeatReply { context: 0 } };
    cluster.input(follower, |raft| raft.step(elsewhere));
    let stranger = Message {
        from: NodeId(77),
        to: NodeId(1),
        term,
        body: Body::AppendAccepted { match_index: Index(2) },
    };
    cluster.input(NodeId(1), |raft| raft.step(stranger));
    assert_eq!(format!("{:?}", cluster.raft(follower).map(Raft::status)), before);
}
