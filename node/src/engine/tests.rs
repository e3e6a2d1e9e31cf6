//! One engine, told by hand what its peers say: what it answers, and when.

mod levels;
mod membership;
mod own;
mod promises;
mod reads;
mod storage;
mod writes;

use super::directory::{Directory, Member};
use super::handle::WriteError;
use super::message::{BUILD, ForwardResult, PeerMessage};
use super::status::ClusterId;
use super::{Committed, Effect, Engine, EngineConfig, Event, LogJob, Tickets};
use balsa_raft::membership::Membership;
use balsa_raft::message::{Body, Message};
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Config, Entry, EntryKind, HardState, Index, NodeId, Raft, Restored, Term};
use balsa_store::command::{self, Operation};
use balsa_store::{FEATURE_LEVEL, Outlook};
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
        feature_level: FEATURE_LEVEL,
        max_writes: 10,
        max_reads: 10,
        read_retry_ms: 100,
        forwarded_ttl_ms: 1_000,
        deadline_ticks: 1,
        log_margin_bytes: 0,
        log_hold_bytes: 4_096,
        disk_headroom_bytes: 0,
        quota_bytes: 0,
        max_snapshots: 1,
        alive_ms: 1_000,
        handover_ms: 1_000,
    }
}

/// The store's outlook once these are applied, too.
fn after(before: Outlook, committed: &[Committed<Numbers>]) -> Outlook {
    let commands = committed.iter().filter_map(|committed| command::decode(&committed.entry.data).ok());
    let raised = commands.filter_map(|(_, command)| match command.operation {
        Some(Operation::SetFeatureLevel(set)) => Some(set.level),
        _ => None,
    });
    Outlook { feature_level: raised.fold(before.feature_level, u32::max), ..before }
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
    let mut engine = Engine::new(config(), Raft::new(core, restored).unwrap(), 0, Outlook::default());
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

/// A follower with a connection to its leader; its store has applied nothing.
fn connected() -> Engine<Numbers> {
    let mut engine = follower();
    heartbeat(&mut engine, 0);
    engine.handle(0, Event::Connected(LEADER));
    engine.finish();
    engine
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
    let forwarding = || {
        let mut engine = connected();
        let id = forwarded_id(&write(&mut engine, true)).unwrap();
        (engine, id)
    };

    // The connection breaks, and no leader is reached before the deadline.
    let (mut engine, _) = forwarding();
    engine.handle(1, Event::Disconnected(LEADER));
    assert!(answers(engine.finish()).is_empty());
    assert!(matches!(at_deadline(&mut engine)[..], [WriteError::Unknown { .. }]));

    // The leader lost track of it, takes it again, and refuses that.
    let (mut engine, id) = forwarding();
    let reply =
        |id, result| Event::Message { from: LEADER, message: PeerMessage::ForwardReply { id, result } };
    engine.handle(1, reply(id, ForwardResult::Unknown));
    let again = forwarded_id(&engine.finish()).unwrap();
    engine.handle(2, reply(again, ForwardResult::Overloaded));
    assert!(matches!(answers(engine.finish())[..], [WriteError::Unknown { .. }]));

    // Refused the first time, it was certainly not applied.
    let (mut engine, id) = forwarding();
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
    engine.handle(40, Event::SnapshotInstalled { meta, time_ms: 77_000, outlook: Outlook::default() });
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
    engine.handle(
        1,
        message(PeerMessage::Introduce { peer_address: "new:3300".into(), build, is_low_on_disk: false }),
    );
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

/// As where a snapshot brought the membership of its own time, and the leader's address has changed since.
#[test]
fn a_leader_that_this_nodes_old_membership_lists_elsewhere_is_answered_where_it_is() {
    let mut engine = follower();
    let peer_of = |effects: Vec<Effect<Numbers>>, id: NodeId| {
        let peers = effects.into_iter().rev().find_map(|effect| match effect {
            Effect::SetPeers(peers) => Some(peers),
            _ => None,
        });
        peers.and_then(|peers| peers.into_iter().find(|(peer, _)| *peer == id)).map(|(_, address)| address)
    };
    let introduce = |engine: &mut Engine<Numbers>, peer_address: &str| {
        let (peer_address, build) = (peer_address.to_string(), BUILD.clone());
        let message = PeerMessage::Introduce { peer_address, build, is_low_on_disk: false };
        engine.handle(1, Event::Message { from: LEADER, message });
        engine.finish()
    };
    assert!(introduce(&mut engine, "moved:3300").is_empty(), "not before it leads");
    let effects = says(&mut engine, 2, Body::Heartbeat { commit: Index(0), context: 0 });
    assert_eq!(peer_of(effects, LEADER).as_deref(), Some("moved:3300"));

    // A snapshot brings a membership that still has the old address, then the log one that has another.
    let install = |engine: &mut Engine<Numbers>, index: u64, membership: Membership| {
        let meta = SnapshotMeta { index: Index(index), term: TERM, membership: Arc::new(membership) };
        engine.handle(3, Event::SnapshotInstalled { meta, time_ms: 1, outlook: Outlook::default() });
        peer_of(engine.finish(), LEADER)
    };
    let old = Membership { learners: [NodeId(9)].into(), ..membership() };
    assert_eq!(install(&mut engine, 9, old).as_deref(), Some("moved:3300"));
    let mut directory = Directory::from_context(&membership().context).unwrap();
    let moved = Member { peer_address: "elsewhere:3300".into(), ..directory.get(LEADER).unwrap().clone() };
    directory.put(moved);
    let moved = Membership { context: directory.to_context(), ..membership() };
    assert_eq!(install(&mut engine, 12, moved).as_deref(), Some("elsewhere:3300"));
    assert_eq!(peer_of(introduce(&mut engine, "elsewhere:3300"), LEADER), None, "that is known");
}

/// Members of a cluster that lost its leader: this node's membership is old, and without its vote there is no new leader.
#[test]
fn a_candidate_that_this_nodes_old_membership_does_not_list_is_answered_all_the_same() {
    let mut engine = follower();
    let stranger = NodeId(9);
    let message = |message| Event::Message { from: stranger, message };
    let introduction = PeerMessage::Introduce {
        peer_address: "new:3300".into(),
        build: BUILD.clone(),
        is_low_on_disk: false,
    };
    engine.handle(1, message(introduction));
    assert!(engine.finish().is_empty(), "not before it asks");
    let is_peer = |effects: Vec<Effect<Numbers>>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::SetPeers(peers) => Some(peers.contains(&(stranger, "new:3300".to_string()))),
            _ => None,
        })
    };
    let asks = |now_ms, engine: &mut Engine<Numbers>| {
        let body = Body::PreVote { last_index: Index(5), last_term: TERM };
        let raft = Message { from: stranger, to: ME, term: TERM.next(), body };
        engine.handle(now_ms, message(PeerMessage::Raft(raft)));
        engine.finish()
    };
    assert_eq!(is_peer(asks(2, &mut engine)), Some(true));
    assert_eq!(is_peer(asks(3, &mut engine)), None, "it is one");
    // It is forgotten as a candidate that does not ask any more.
    let mut ends = (4..30_000).step_by(100).filter_map(|now_ms| {
        engine.handle(now_ms, Event::Tick);
        is_peer(engine.finish())
    });
    assert_eq!(ends.next(), Some(false));
}

#[test]
fn a_node_introduces_itself_first_on_each_connection() {
    let mut engine = follower();
    engine.handle(1, Event::Connected(OTHER));
    let effects = engine.finish();
    let expected = PeerMessage::Introduce {
        peer_address: "node-0:3300".into(),
        build: BUILD.clone(),
        is_low_on_disk: false,
    };
    assert!(
        matches!(&effects[..], [Effect::Send { to: OTHER, message }, ..] if *message == expected),
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
    persist(&mut engine, 3, vec![Event::Applied { index: Index(2), outlook: Outlook::default() }]);
    assert!(engine.raft().is_leader());

    persist(&mut engine, 10, vec![Event::Tick]);
    persist(&mut engine, 5_000, vec![Event::Tick]);
    assert_eq!(engine.fresh_ms(), 0, "nobody has said that it still leads");
    persist(&mut engine, 5_001, vec![message(LEADER, next, Body::HeartbeatReply { context: 1 })]);
    assert_eq!(engine.fresh_ms(), 10);
}

/// A node that leads alone, with a learner; all that it hands out is done at once.
struct Leading {
    engine: Engine<Numbers>,
    now_ms: u64,
    /// What the store says whenever something was applied.
    outlook: Outlook,
    /// The newest in the log.
    stamp_ms: u64,
}

impl Leading {
    fn new() -> Leading {
        let membership = Membership { voters: [ME].into(), learners: [OTHER, LEADER].into(), ..membership() };
        let restored = Restored {
            hard_state: HardState { term: TERM, vote: None },
            entries: vec![Raft::bootstrap_entry(&membership)],
            ..Restored::blank()
        };
        let raft = Raft::new(Config::with_defaults(ME, 1), restored).unwrap();
        let outlook = Outlook::default();
        let mut leading =
            Leading { engine: Engine::new(config(), raft, 0, outlook), now_ms: 0, outlook, stamp_ms: 0 };
        while !leading.engine.raft().is_leader() {
            leading.tick();
        }
        leading
    }

    fn tick(&mut self) -> Vec<Effect<Numbers>> {
        self.now_ms += 10;
        self.give(Event::Tick)
    }

    /// Gives an event, and does what follows from it; what is left is for the test.
    fn give(&mut self, event: Event<Numbers>) -> Vec<Effect<Numbers>> {
        self.engine.handle(self.now_ms, event);
        let mut left = Vec::new();
        loop {
            let effects = self.engine.finish();
            if effects.is_empty() {
                return left;
            }
            for effect in effects {
                match effect {
                    Effect::Log(LogJob::Persist { token, entries, .. }) => {
                        let commands = entries.iter().filter(|entry| entry.kind == EntryKind::Command);
                        let stamps = commands.map(|entry| command::stamp_of(&entry.data));
                        self.stamp_ms = stamps.fold(self.stamp_ms, u64::max);
                        self.engine.handle(self.now_ms, Event::Persisted(token));
                    }
                    Effect::Apply(committed) => {
                        let index = committed.last().unwrap().entry.index;
                        let outlook = self.outlook;
                        self.engine.handle(self.now_ms, Event::Applied { index, outlook });
                    }
                    other => left.push(other),
                }
            }
        }
    }

    /// Writes so many times 100 bytes; gives the last index.
    fn write(&mut self, times: u64) -> Index {
        for _ in 0..times {
            let command = Bytes::from_static(&[0; 100]);
            self.give(Event::Write { ticket: 1, command, repeatable: false, deadline_ms: u64::MAX });
        }
        self.engine.raft().last_index()
    }

    /// A peer shows life.
    fn hears(&mut self, from: NodeId, body: Body) -> Vec<Effect<Numbers>> {
        let message = Message { from, to: ME, term: self.engine.raft().term(), body };
        self.give(Event::Message { from, message: PeerMessage::Raft(message) })
    }

    fn accepts(&mut self, from: NodeId, match_index: Index) -> Vec<Effect<Numbers>> {
        self.hears(from, Body::AppendAccepted { match_index })
    }

    /// All is flushed, twice, as the log is released one flush late; gives where the log begins then.
    fn flush(&mut self) -> Index {
        for _ in 0..2 {
            self.give(Event::Flushed(self.engine.raft().applied_index()));
        }
        self.engine.raft().first_index()
    }

    /// The log is gone beyond what `peer` has, and it shows life: it needs a snapshot.
    fn needs_snapshot(&mut self, peer: NodeId) -> Vec<Effect<Numbers>> {
        let mut all = Vec::new();
        for _ in 0..20 {
            all.extend(self.tick());
            all.extend(self.hears(peer, Body::HeartbeatReply { context: 0 }));
        }
        all
    }
}

fn begins(effects: &[Effect<Numbers>]) -> Vec<NodeId> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::BeginSnapshot { to } => Some(*to),
            _ => None,
        })
        .collect()
}

#[test]
fn the_log_keeps_what_a_follower_that_lives_has_not_got() {
    let mut leading = Leading::new();
    let got = leading.write(5);
    leading.accepts(OTHER, got);
    leading.write(5);
    assert_eq!(leading.flush(), got.next());
    // Not for one that was silent for long.
    while leading.engine.is_alive(OTHER) {
        leading.tick();
    }
    let last = leading.write(1);
    assert_eq!(leading.flush(), last.next());
}

#[test]
fn the_log_is_kept_for_followers_up_to_a_bound() {
    let mut leading = Leading::new();
    let got = leading.write(1);
    leading.accepts(OTHER, got);
    let last = leading.write(100); // more than may be held
    assert!(leading.engine.raft().log_bytes() > config().log_hold_bytes);
    assert_eq!(leading.flush(), last.next());
}

#[test]
fn a_snapshots_receiver_finds_the_log_behind_it_and_needs_no_second_one() {
    let mut leading = Leading::new();
    leading.write(5);
    let at = leading.engine.raft().last_index();
    leading.flush();
    assert_eq!(begins(&leading.needs_snapshot(OTHER)), [OTHER]);
    let effects = leading.give(Event::SnapshotBegun { to: OTHER, index: at });
    assert!(matches!(effects[..], [Effect::StreamSnapshot { to: OTHER, .. }]), "{effects:?}");

    // While it is on its way, and while it is installed, the log stays.
    leading.write(5);
    assert_eq!(leading.flush(), at.next());
    leading.give(Event::SnapshotSent { to: OTHER, index: Some(at) });
    leading.write(5);
    assert_eq!(leading.flush(), at.next());
    let effects = leading.hears(OTHER, Body::SnapshotInstalled { match_index: at });
    let appended = effects.iter().any(|effect| match effect {
        Effect::Send { to: OTHER, message: PeerMessage::Raft(message) } => {
            matches!(&message.body, Body::Append { prev_index, entries, .. } if *prev_index == at && !entries.is_empty())
        }
        _ => false,
    });
    assert!(appended, "it goes on from the log: {effects:?}");
    let last = leading.write(1);
    assert_eq!(leading.flush(), at.next(), "it has not got the rest yet");
    let effects = leading.accepts(OTHER, last);
    assert!(begins(&effects).is_empty());
    assert_eq!(leading.flush(), last.next());
}

#[test]
fn snapshots_beyond_the_bound_wait_and_one_that_is_given_up_makes_room() {
    let mut leading = Leading::new();
    leading.write(5);
    let at = leading.engine.raft().last_index();
    leading.flush();
    assert_eq!(begins(&leading.needs_snapshot(OTHER)), [OTHER]);
    leading.give(Event::SnapshotBegun { to: OTHER, index: at });
    assert!(begins(&leading.needs_snapshot(LEADER)).is_empty(), "one at a time");
    leading.give(Event::SnapshotSent { to: OTHER, index: None });
    let last = leading.write(5);
    assert_eq!(leading.flush(), last.next(), "the log is held for nobody");
    assert_eq!(begins(&leading.needs_snapshot(LEADER)), [LEADER]);
}

#[test]
fn a_snapshot_that_cannot_be_begun_makes_room_for_another() {
    let mut leading = Leading::new();
    let gone = leading.write(5);
    leading.flush();
    assert_eq!(begins(&leading.needs_snapshot(OTHER)), [OTHER]);
    let last = leading.write(5);
    assert_eq!(leading.flush(), last.next(), "it is not known yet what is to be kept");
    let effects = leading.give(Event::SnapshotBegun { to: OTHER, index: gone });
    let dropped = effects.iter().any(|effect| matches!(effect, Effect::DropSnapshot { to: OTHER }));
    assert!(dropped, "the log behind it is gone: {effects:?}");
    assert_eq!(begins(&leading.needs_snapshot(LEADER)), [LEADER]);
}

/// A leader to come goes on from the newest stamp in the log: what was not there would be added to every lease.
#[test]
fn the_log_knows_the_time_while_something_is_to_end_and_is_left_alone_else() {
    let mut leading = Leading::new();
    let idle_from = leading.write(1);
    for _ in 0..1_000 {
        leading.tick();
    }
    assert_eq!(leading.engine.raft().last_index(), idle_from, "nothing is to end");
    leading.outlook.due_ms = Some(u64::MAX);
    let from = leading.write(1);
    for _ in 0..3_000 {
        leading.tick();
        let unknown_ms = leading.engine.clock.stamp(leading.now_ms) - leading.stamp_ms;
        assert!(unknown_ms <= 1_000, "{unknown_ms} ms would be lost");
    }
    let entries = leading.engine.raft().last_index().0 - from.0;
    assert!((25..=31).contains(&entries), "{entries} entries in 30 s");
}
