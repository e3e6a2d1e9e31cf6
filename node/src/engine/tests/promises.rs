//! What leaves the engine must hold: nothing is promised before the disk has it, nothing read before it is applied, nothing
//! of the log let go that the store could still need, and no write sent again that must not be.

use super::membership::Node;
use super::*;
use crate::engine::apply_stage::ApplyStage;
use crate::engine::event::Origin;
use crate::engine::log_stage::LogStage;
use balsa_log::{Folder, Log, LogConfig, LogIdentity, SimDisk};
use balsa_raft::ready::PersistToken;
use balsa_store::{MemoryEngine, Outlook, Store, StoreConfig, command};
use std::collections::VecDeque;
use std::path::PathBuf;

fn folder(disk: &SimDisk) -> Folder {
    Folder { disk: disk.shared(), path: PathBuf::from("/node") }
}

fn entry(index: u64) -> Entry {
    Entry { index: Index(index), term: TERM, kind: EntryKind::Command, data: Bytes::from_static(&[0; 20]) }
}

fn append(entries: Vec<Entry>, commit: Index) -> Body {
    Body::Append { prev_index: Index(1), prev_term: TERM, entries, commit }
}

fn accepted(effects: &[Effect<Numbers>]) -> Option<Index> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { message: PeerMessage::Raft(message), .. } => match message.body {
            Body::AppendAccepted { match_index } => Some(match_index),
            _ => None,
        },
        _ => None,
    })
}

fn token(effects: &[Effect<Numbers>]) -> Option<PersistToken> {
    effects.iter().find_map(|effect| match effect {
        Effect::Log(LogJob::Persist { token, .. }) => Some(*token),
        _ => None,
    })
}

/// Hazard 2.
#[test]
fn what_promises_something_waits_for_its_write() {
    let mut engine = follower();
    let effects = says(&mut engine, 1, append(vec![entry(2)], Index(1)));
    assert_eq!(accepted(&effects), None, "the disk has not said anything: {effects:?}");
    let token = token(&effects).expect("a write");
    engine.handle(2, Event::Tick);
    assert_eq!(accepted(&engine.finish()), None);
    engine.handle(3, Event::Persisted(token));
    assert_eq!(accepted(&engine.finish()), Some(Index(2)));
}

/// Hazard 32.
#[test]
fn a_write_without_a_name_is_unknown_once_its_connection_broke_and_is_not_sent_again() {
    let mut engine = connected();
    assert!(forwarded_id(&write(&mut engine, false)).is_some());
    engine.handle(1, Event::Disconnected(LEADER));
    engine.handle(2, Event::Connected(LEADER));
    let effects = engine.finish();
    assert_eq!(forwarded_id(&effects), None, "it was sent again");
    assert!(matches!(answers(effects)[..], [WriteError::Unknown { .. }]));
}

#[test]
fn a_read_waits_until_its_index_is_applied() {
    let mut engine = follower();
    let written = says(&mut engine, 0, append(vec![entry(2)], Index(2)));
    engine.handle(0, Event::Persisted(token(&written).expect("a write")));
    engine.handle(0, Event::Connected(LEADER));
    engine.handle(0, Event::Read { ticket: 8, deadline_ms: 100 });
    let asked = engine.finish().into_iter().find_map(|effect| match effect {
        Effect::Send { to: LEADER, message: PeerMessage::ReadIndex { id } } => Some(id),
        _ => None,
    });
    let reply = PeerMessage::ReadIndexReply { id: asked.expect("a question"), index: Some(Index(2)) };
    let may_read = |engine: &mut Engine<Numbers>| {
        engine.finish().iter().any(|effect| matches!(effect, Effect::AnswerRead(8, Ok(()))))
    };
    engine.handle(1, Event::Message { from: LEADER, message: reply });
    assert!(!may_read(&mut engine), "what was confirmed is not applied yet");
    engine.handle(2, Event::Applied { index: Index(2), outlook: Outlook::default() });
    assert!(may_read(&mut engine));
}

/// What a store has not flushed it gets from the log, after a restart.
#[test]
fn the_log_keeps_what_the_store_has_not_flushed() {
    let mut leading = Leading::new();
    let flushed = leading.write(3);
    leading.accepts(OTHER, flushed);
    leading.give(Event::Flushed(flushed));
    let applied = leading.write(4);
    leading.accepts(OTHER, applied);
    leading.give(Event::Flushed(applied));
    // One flush late, so that a snapshot that is being taken finds its log.
    assert_eq!(leading.engine.raft().first_index(), flushed.next());
}

/// Followers may need it, and so long as it is short it costs nothing.
#[test]
fn a_log_within_its_margin_is_kept_whole() {
    let mut node = Node::starting(1, EngineConfig { log_margin_bytes: 1_000, ..config() }).takes_over(1);
    let flush = |node: &mut Node| {
        let applied = node.engine.raft().applied_index();
        (0..2).for_each(|_| node.give(Event::Flushed(applied)));
        (node.engine.raft().first_index(), applied.next())
    };
    assert_eq!(flush(&mut node).0, Index(1));
    for _ in 0..20 {
        let command = Bytes::from_static(&[0; 100]);
        node.give(Event::Write { ticket: 1, command, repeatable: false, deadline_ms: u64::MAX });
    }
    let (first, next) = flush(&mut node);
    assert_eq!(first, next);
}

/// What a snapshot brought is not applied once more, and what it answered nobody knows.
#[test]
fn entries_that_a_snapshot_holds_already_are_passed_over_and_their_writes_are_unknown() {
    let put = command::Put { key: "key".into(), ..command::Put::default() };
    let command = command::Command { request: None, operation: Some(Operation::Put(put)) };
    let data = command::encode(&command);
    let entry = |index| Entry { data: data.clone(), ..entry(index) };
    let mut store = Store::open(Arc::new(MemoryEngine::new()), StoreConfig::default()).unwrap();
    (1..=2).for_each(|index| drop(store.apply(index, &data).unwrap()));
    let mut stage = ApplyStage::new(store, folder(&SimDisk::new()), 0);
    let committed: [Committed<Numbers>; 4] = [
        Committed { entry: entry(1), origin: Some(Origin::Local(1)) },
        Committed { entry: entry(2), origin: Some(Origin::Peer { node: OTHER, id: 2 }) },
        Committed { entry: entry(3), origin: Some(Origin::Local(3)) },
        Committed { entry: entry(4), origin: Some(Origin::Peer { node: OTHER, id: 4 }) },
    ];
    let applied = stage.apply(committed.into()).unwrap();
    assert!(
        matches!(&applied.answers[..], [(1, Err(WriteError::Unknown { .. })), (3, Ok(_))]),
        "{applied:?}"
    );
    let results: Vec<_> = (applied.messages.iter())
        .map(|(to, message)| match message {
            PeerMessage::ForwardReply { id, result } => (*to, *id, *result == ForwardResult::Unknown),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(results, [(OTHER, 2, true), (OTHER, 4, false)]);
    assert_eq!((applied.index, stage.store().position().revision), (Index(4), 4));
}

/// Hazards 2 and 38.
#[test]
fn what_the_log_stage_calls_durable_outlives_the_power() {
    let disk = SimDisk::new();
    let identity = LogIdentity { cluster: 1, node: 1 };
    let restored = Restored::blank();
    let start = super::super::log_start(&restored.snapshot);
    let founding = [Raft::bootstrap_entry(&membership())];
    let hard_state = HardState { term: TERM, vote: None };
    let log =
        Log::create(folder(&disk), LogConfig::default(), identity, start, hard_state, &founding).unwrap();
    let mut stage = LogStage::new(log, folder(&disk), 0);
    let voted = HardState { term: Term(2), vote: Some(OTHER) };
    let persist = |token, hard_state, entries| LogJob::Persist {
        token: PersistToken(token),
        hard_state,
        reset: None,
        entries,
    };
    let jobs = [persist(1, Some(voted), vec![]), persist(2, None, vec![entry(2)])];
    let progress = stage.run(&mut VecDeque::from(jobs)).unwrap();
    assert_eq!(progress.durable, Some(PersistToken(2)));
    drop(stage);
    disk.power_loss(&mut || 0);
    let (_, recovered) = Log::open(folder(&disk), LogConfig::default(), identity).unwrap();
    assert_eq!(recovered.hard_state, voted);
    assert_eq!(recovered.entries.last(), Some(&entry(2)));
}

/// Hazard 43: what is applied and has no room in the store lies in memory, and must not grow; but a vote takes no room there.
#[test]
fn entries_wait_while_the_store_has_no_room_and_votes_do_not() {
    let disk = SimDisk::new();
    let identity = LogIdentity { cluster: 1, node: 1 };
    let start = super::super::log_start(&Restored::blank().snapshot);
    let founding = [Raft::bootstrap_entry(&membership())];
    let hard_state = HardState { term: TERM, vote: None };
    let log =
        Log::create(folder(&disk), LogConfig::default(), identity, start, hard_state, &founding).unwrap();
    let mut stage = LogStage::new(log, folder(&disk), 0);
    let job = |token, hard_state, entries| LogJob::Persist {
        token: PersistToken(token),
        hard_state,
        reset: None,
        entries,
    };
    stage.set_takes_entries(false);
    let voted = HardState { term: Term(2), vote: Some(OTHER) };
    let mut jobs = VecDeque::from([job(1, Some(voted), vec![]), job(2, None, vec![entry(2)])]);
    let progress = stage.run(&mut jobs).unwrap();
    assert_eq!((progress.durable, progress.full), (Some(PersistToken(1)), true));
    assert_eq!(jobs.len(), 1);
    stage.set_takes_entries(true);
    let progress = stage.run(&mut jobs).unwrap();
    assert_eq!((progress.durable, progress.full), (Some(PersistToken(2)), false));
}

/// Hazard 23: where its place cannot be recorded, a snapshot's state must not be in place either.
#[test]
fn a_snapshot_takes_effect_only_after_its_place_was_recorded() {
    let store = || Store::open(Arc::new(MemoryEngine::new()), StoreConfig::default()).unwrap();
    let mut sender = store();
    let clear = command::Operation::Clear(command::Clear {});
    let clear = command::encode(&command::Command { request: None, operation: Some(clear) });
    sender.apply(1, &command::stamp(clear, 5)).unwrap();
    let flushed = sender.force_rotate().unwrap().run().unwrap();
    sender.handle_flushed(flushed).unwrap();
    let mut source = sender.begin_snapshot();

    let receiver = store();
    let mut sink = receiver.begin_install().unwrap();
    while let Some(chunk) = source.next_chunk(1_000).unwrap() {
        sink.add_chunk(&chunk).unwrap();
    }
    let disk = SimDisk::new();
    let mut stage = ApplyStage::new(receiver, folder(&disk), 0);
    let meta = SnapshotMeta { index: Index(1), term: TERM, membership: Arc::new(membership()) };
    disk.fail_at(1);
    assert!(stage.install(&meta, sink.stage().unwrap()).is_err());
    assert_eq!(stage.store().applied_index(), 0);
}
