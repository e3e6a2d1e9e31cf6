//! The two ways to the log's writer: which one is taken, and that what was persisted is there.

use super::*;
use balsa_log::{Folder, Log, LogConfig, LogIdentity, LogStart, SimDisk};
use balsa_raft::{Entry, EntryKind, HardState, Index, Term};
use bytes::Bytes;
use tokio::sync::mpsc::unbounded_channel;

fn folder(disk: &SimDisk) -> Folder {
    Folder { disk: Arc::new(disk.clone()), path: "data".into() }
}

const IDENTITY: LogIdentity = LogIdentity { cluster: 1, node: 1 };

/// A lane to an empty log.
fn lane(disk: &SimDisk) -> (LogLane, LogThread) {
    let start = LogStart { index: Index(0), term: Term(0), membership: Bytes::new() };
    let log =
        Log::create(folder(disk), LogConfig::default(), IDENTITY, start, HardState::default(), &[]).unwrap();
    let stage = LogStage::new(log, folder(disk), 0);
    LogLane::new(Writer::new(stage, StoreRoom::default(), Arc::new(Metrics::new().unwrap())))
}

fn append(index: u64, bytes: usize) -> LogJob {
    let data = Bytes::from(vec![7; bytes]);
    let entry = Entry { index: Index(index), term: Term(1), kind: EntryKind::Command, data };
    LogJob::Persist { token: PersistToken(index), hard_state: None, reset: None, entries: vec![entry] }
}

/// Runs the thread to its end; what it told.
fn run_out(lane: LogLane, thread: LogThread) -> Vec<PersistToken> {
    drop(lane);
    let (events, mut told) = unbounded_channel();
    thread.run(&events).unwrap();
    drop(events);
    std::iter::from_fn(|| told.blocking_recv())
        .map(|event| match event {
            Event::Persisted(token) => token,
            _ => panic!("the thread tells of writes only"),
        })
        .collect()
}

/// The last index that the log has after a loss of power.
fn last_after_power_loss(disk: &SimDisk) -> Index {
    disk.power_loss(&mut || 0);
    Log::open(folder(disk), LogConfig::default(), IDENTITY).unwrap().0.last_index()
}

#[test]
fn what_went_the_short_way_is_there_after_a_loss_of_power() {
    let disk = SimDisk::new();
    let (mut lane, _thread) = lane(&disk);
    assert_eq!(lane.try_persist(append(1, 100)), Ok(Some(PersistToken(1))));
    assert_eq!(lane.try_persist(append(2, 100)), Ok(Some(PersistToken(2))));
    assert_eq!(last_after_power_loss(&disk), Index(2));
}

#[test]
fn the_short_way_is_taken_only_when_the_long_one_is_empty() {
    let disk = SimDisk::new();
    let (mut lane, thread) = lane(&disk);
    assert_eq!(lane.try_persist(append(1, SMALL_BYTES + 1)), Ok(None), "it is large");
    assert_eq!(lane.try_persist(append(2, 100)), Ok(None), "the one before is not persisted");
    assert_eq!(run_out(lane, thread), [PersistToken(2)], "one sync for both");
    assert_eq!(last_after_power_loss(&disk), Index(2));
}

#[test]
fn one_slow_sync_closes_the_short_way_for_a_while() {
    let (mut lane, thread) = lane(&SimDisk::new());
    let now = Instant::now();
    let mut writer = thread.writer.lock().unwrap();
    writer.note(now, SLOW);
    assert!(writer.is_quick(now));
    writer.note(now, SLOW + Duration::from_millis(1));
    writer.note(now, Duration::ZERO);
    assert!(!writer.is_quick(now) && !writer.is_quick(now + AWAY - Duration::from_millis(1)));
    assert!(writer.is_quick(now + AWAY));
    drop(writer);
    assert_eq!(lane.try_persist(append(1, 100)), Ok(None));
    assert_eq!(run_out(lane, thread), [PersistToken(1)]);
}

#[test]
fn what_finds_no_room_waits_for_the_thread() {
    let disk = SimDisk::new();
    let (mut lane, thread) = lane(&disk);
    thread.writer.lock().unwrap().stage = {
        let (log, _) = Log::open(folder(&disk), LogConfig::default(), IDENTITY).unwrap();
        LogStage::new(log, folder(&disk), u64::MAX) // more headroom than any disk has
    };
    assert_eq!(lane.try_persist(append(1, 100)), Ok(None));
    assert_eq!(lane.try_persist(append(2, 100)), Ok(None), "nothing overtakes it");
    assert_eq!(run_out(lane, thread), [], "and nothing is acknowledged");
}

#[test]
fn the_thread_hears_once_that_nothing_more_came() {
    let (mut lane, thread) = lane(&SimDisk::new());
    lane.tick();
    assert!(thread.work.try_recv().is_err(), "there is nothing to mark");
    lane.try_persist(append(1, 100)).unwrap();
    let written = Instant::now();
    let settle = loop {
        lane.tick();
        if let Ok(work) = thread.work.try_recv() {
            break work;
        }
        assert!(written.elapsed() < Duration::from_secs(10), "never told");
        std::thread::yield_now();
    };
    assert!(matches!(settle, Work::Settle) && written.elapsed() >= IDLE - Duration::from_millis(5));
    lane.tick();
    assert!(thread.work.try_recv().is_err(), "once");
}
