//! One engine, told by hand what its peers say: what it answers, and when.

mod membership;

use super::directory::{Directory, Member};
use super::handle::WriteError;
use super::message::{BUILD, ForwardResult, PeerMessage};
use super::status::ClusterId;
use super::{Effect, Engine, EngineConfig, Event, LogJob, Tickets};
use balsa_raft::membership::Membership;
use balsa_raft::message::{Body, Message};
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Config, Entry, EntryKind, HardState, Index, NodeId, Raft, Restored, Term};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug)]
struct Numbers;

impl Tickets for Numbers {
    type Write = u64;
    type Read = u64;
    type Admin = u64;
}

const ME: NodeId = NodeId(1);
const LEADER: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const TERM: Term = Term(1);

fn config() -> EngineConfig {
    EngineConfig {
        id: ME,
        cluster: ClusterId(7),
        slot: 0,
        incarnation: 1,
        fixed_addresses: BTreeMap::new(),
        max_writes: 10,
        max_reads: 10,
        read_retry_ms: 100,
        forwarded_ttl_ms: 1_000,
        deadline_ticks: 1,
        log_margin_bytes: 0,
        alive_ms: 1_000,
        handover_ms: 1_000,
    }
}

fn membership() -> Membership {
    let ids = [ME, LEADER, OTHER];
    let mut directory = Directory::default();
    for (slot, id) in (0..).zip(ids) {
        let (peer_address, client_address) = (format!("node-{slot}:3300"), format!("node-{slot}:3000"));
        directory.put(Member { id: id.0, slot, peer_address, client_address, promote: false });
    }
    Membership { voters: ids.into(), context: directory.to_context(), ..Membership::default() }
}

/// A follower that holds the founding entry.
fn follower() -> Engine<Numbers> {
    let restored = Restored {
        hard_state: HardState { term: TERM, vote: None },
        entries: vec![Raft::bootstrap_entry(&membership())],
        ..Restored::blank()
    };
    let mut core = Config::with_defaults(ME, 1);
    core.election_ticks = 1_000;
    let mut engine = Engine::new(config(), Raft::new(core, restored).unwrap(), 0);
    engine.finish();
    engine
}

fn says(engine: &mut Engine<Numbers>, now_ms: u64, body: Body) -> Vec<Effect<Numbers>> {
    let message = Message { from: LEADER, to: ME, term: TERM, body };
    engine.handle(now_ms, Event::Message { from: LEADER, message: PeerMessage::Raft(message) });
    engine.finish()
}

fn heartbeat(engine: &mut Engine<Numbers>, now_ms: u64) {
    says(engine, now_ms, Body::Heartbeat { commit: Index(0), context: 0 });
}

fn write(engine: &mut Engine<Numbers>, repeatable: bool) -> Vec<Effect<Numbers>> {
    let write =
        Event::Write { ticket: 5, command: Bytes::from_static(&[0; 9]), repeatable, deadline_ms: 100 };
    engine.handle(0, write);
    engine.finish()
}

fn forwarded_id(effects: &[Effect<Numbers>]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { to: LEADER, message: PeerMessage::Forward { id, .. } } => Some(*id),
        _ => None,
    })
}

fn answers(effects: Vec<Effect<Numbers>>) -> Vec<WriteError> {
    let answer = |effect| match effect {
        Effect::AnswerWrite(5, Err(error)) => Some(error),
        _ => None,
    };
    effects.into_iter().filter_map(answer).collect()
}

fn at_deadline(engine: &mut Engine<Numbers>) -> Vec<WriteError> {
    engine.handle(100, Event::Tick);
    answers(engine.finish())
}

#[test]
fn a_write_that_never_left_was_not_applied() {
    let mut engine = follower();
    assert!(answers(write(&mut engine, true)).is_empty());
    assert_eq!(at_deadline(&mut engine), [WriteError::NoLeader]);
}

#[test]
fn a_repeatable_write_that_may_have_arrived_stays_unknown_whatever_becomes_of_its_next_attempt() {
    let connected = || {
        let mut engine = follower();
        heartbeat(&mut engine, 0);
        engine.handle(0, Event::Connected(LEADER));
        let id = forwarded_id(&write(&mut engine, true)).unwrap();
        (engine, id)
    };

    // The connection breaks, and no leader is reached before the deadline.
    let (mut engine, _) = connected();
    engine.handle(1, Event::Disconnected(LEADER));
    assert!(answers(engine.finish()).is_empty());
    assert!(matches!(at_deadline(&mut engine)[..], [WriteError::Unknown { .. }]));

    // The leader lost track of it, takes it again, and refuses that.
    let (mut engine, id) = connected();
    let reply =
        |id, result| Event::Message { from: LEADER, message: PeerMessage::ForwardReply { id, result } };
    engine.handle(1, reply(id, ForwardResult::Unknown));
    let again = forwarded_id(&engine.finish()).unwrap();
    engine.handle(2, reply(again, ForwardResult::Overloaded));
    assert!(matches!(answers(engine.finish())[..], [WriteError::Unknown { .. }]));

    // Refused the first time, it was certainly not applied.
    let (mut engine, id) = connected();
    engine.handle(1, reply(id, ForwardResult::Overloaded));
    assert!(matches!(answers(engine.finish())[..], [WriteError::Overloaded { .. }]));
}

#[test]
fn a_node_that_lags_has_not_caught_up_and_does_not_pass_for_fresh() {
    let mut engine = follower();
    heartbeat(&mut engine, 10);
    assert!(!engine.status().caught_up, "a heartbeat tells only what this node holds");
    let entry = Entry { index: Index(2), term: TERM, kind: EntryKind::Noop, data: Bytes::new() };
    let append = |commit, entries| Body::Append { prev_index: Index(1), prev_term: TERM, entries, commit };
    says(&mut engine, 20, append(Index(9), vec![entry]));
    heartbeat(&mut engine, 30);
    assert!(!engine.status().caught_up);
    assert_eq!(engine.fresh_ms(), 0);

    let meta = SnapshotMeta { index: Index(9), term: TERM, membership: Arc::new(membership()) };
    engine.handle(40, Event::SnapshotInstalled { meta, time_ms: 77_000 });
    engine.finish();
    heartbeat(&mut engine, 50);
    assert!(engine.status().caught_up);
    assert_eq!(engine.fresh_ms(), 50);
    assert_eq!(engine.clock.stamp(60), 77_000, "cluster time goes on from the snapshot's");

    // Another leader, which may have committed anything, is heard from.
    let next = Term(TERM.0 + 1);
    let says = |engine: &mut Engine<Numbers>, now_ms, body| {
        let message = PeerMessage::Raft(Message { from: OTHER, to: ME, term: next, body });
        engine.handle(now_ms, Event::Message { from: OTHER, message });
        engine.finish();
    };
    says(&mut engine, 90, Body::Heartbeat { commit: Index(0), context: 0 });
    assert_eq!(engine.fresh_ms(), 50, "its heartbeat tells nothing");
    let append = Body::Append { prev_index: Index(9), prev_term: TERM, entries: vec![], commit: Index(9) };
    says(&mut engine, 95, append);
    assert_eq!(engine.fresh_ms(), 95);
}

#[test]
fn a_leader_that_this_nodes_old_membership_does_not_list_is_answered_all_the_same() {
    let mut engine = follower();
    let stranger = NodeId(9);
    let message = |message| Event::Message { from: stranger, message };
    let build = BUILD.clone();
    engine.handle(1, message(PeerMessage::Introduce { peer_address: "new:3300".into(), build }));
    assert!(engine.finish().is_empty(), "not before it leads");
    let heartbeat = Body::Heartbeat { commit: Index(0), context: 0 };
    let raft = Message { from: stranger, to: ME, term: TERM, body: heartbeat };
    engine.handle(2, message(PeerMessage::Raft(raft)));
    let peers = engine.finish().into_iter().find_map(|effect| match effect {
        Effect::SetPeers(peers) => Some(peers),
        _ => None,
    });
    let peers = peers.unwrap();
    assert!(peers.contains(&(stranger, "new:3300".to_string())), "{peers:?}");
    assert_eq!(peers.len(), 3);
}

#[test]
fn a_node_introduces_itself_first_on_each_connection() {
    let mut engine = follower();
    engine.handle(1, Event::Connected(OTHER));
    let effects = engine.finish();
    let expected = PeerMessage::Introduce { peer_address: "node-0:3300".into(), build: BUILD.clone() };
    assert!(
        matches!(&effects[..], [Effect::Send { to: OTHER, message }] if *message == expected),
        "{effects:?}"
    );
}

#[test]
fn a_leader_passes_for_fresh_as_of_its_question_and_only_once_a_quorum_has_answered() {
    let mut engine = follower();
    let message = |from, term, body| {
        let message = PeerMessage::Raft(Message { from, to: ME, term, body });
        Event::Message { from, message }
    };
    // The leader hands over; a vote and a copy of the no-op make this node the next one.
    heartbeat(&mut engine, 0);
    let persist = |engine: &mut Engine<Numbers>, now_ms, events: Vec<Event<Numbers>>| {
        for event in events {
            engine.handle(now_ms, event);
        }
        loop {
            let effects = engine.finish();
            let written = effects.iter().filter_map(|effect| match effect {
                Effect::Log(LogJob::Persist { token, .. }) => Some(*token),
                _ => None,
            });
            match written.max() {
                Some(token) => engine.handle(now_ms, Event::Persisted(token)),
                None => return effects,
            }
        }
    };
    let next = Term(TERM.0 + 1);
    persist(&mut engine, 1, vec![message(LEADER, TERM, Body::TimeoutNow { last_index: Index(1) })]);
    persist(&mut engine, 1, vec![message(LEADER, next, Body::VoteReply { granted: true })]);
    persist(&mut engine, 2, vec![message(LEADER, next, Body::AppendAccepted { match_index: Index(2) })]);
    persist(&mut engine, 3, vec![Event::Applied { index: Index(2), wants_compaction: None }]);
    assert!(engine.raft().is_leader());

    persist(&mut engine, 10, vec![Event::Tick]);
    persist(&mut engine, 5_000, vec![Event::Tick]);
    assert_eq!(engine.fresh_ms(), 0, "nobody has said that it still leads");
    persist(&mut engine, 5_001, vec![message(LEADER, next, Body::HeartbeatReply { context: 1 })]);
    assert_eq!(engine.fresh_ms(), 10);
}
