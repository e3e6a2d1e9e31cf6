//! The two ways to the store's writer: which one is taken, and that it always comes to an end.

use super::super::snapshot_streams::{StreamSettings, Ways};
use super::*;
use crate::peer::{Inbound, Inbox, LocalIdentity, PeerConfig};
use balsa_log::{Folder, SimDisk};
use balsa_raft::{Entry, EntryKind, Term};
use balsa_store::command::{self, Command, Operation, Put};
use balsa_store::{MemoryEngine, Store, StoreConfig};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

#[derive(Clone)]
struct Nobody;

impl Inbox for Nobody {
    async fn message(&self, _: NodeId, _: Vec<Bytes>) {}
    async fn connected(&self, _: NodeId) {}
    async fn disconnected(&self, _: NodeId) {}
    async fn removed(&self, _: NodeId) {}
    async fn bulk(&self, _: NodeId, _: Vec<Bytes>) {}
    async fn control(&self, _: Bytes) -> Bytes {
        Bytes::new()
    }
}

struct Lane {
    lane: ApplyLane,
    jobs: Option<Receiver<ApplyJob>>,
    flushes: Receiver<FlushJob>,
    events: UnboundedReceiver<Event<Live>>,
    metrics: Arc<Metrics>,
    _runtime: tokio::runtime::Runtime,
}

/// A lane to an empty store that flushes after so many bytes.
fn lane(overlay_bytes: usize) -> Lane {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (events, told) = unbounded_channel();
    let (flush_jobs, flushes) = std::sync::mpsc::channel();
    let local = LocalIdentity { cluster: 1, node: NodeId(1), incarnation: 1 };
    let (config, handle) = (PeerConfig::default(), runtime.handle().clone());
    let hub = Arc::new(PeerHub::start(config, local, Nobody, Inbound::default(), handle.clone()));
    let ways = Ways { hub: hub.clone(), events: events.clone(), metrics: metrics.clone(), runtime: handle };
    let settings = StreamSettings { bytes_per_second: 1, patience: Duration::from_secs(1), first_id: 1 };
    let config = StoreConfig { overlay_bytes, ..StoreConfig::default() };
    let store = Store::open(Arc::new(MemoryEngine::new()), config).unwrap();
    let folder = Folder { disk: Arc::new(SimDisk::new()), path: "data".into() };
    let (lane, jobs) = ApplyLane::new(Writer {
        stage: ApplyStage::new(store, folder, 0),
        flushes: flush_jobs,
        events,
        hub,
        streams: Streams::new(settings, ways),
        metrics: metrics.clone(),
        published: Arc::default(),
        incoming: Incoming::default(),
    });
    Lane { lane, jobs: Some(jobs), flushes, events: told, metrics, _runtime: runtime }
}

/// A plain PUT of its own key.
fn put(index: u64) -> VecDeque<Committed<Live>> {
    let put = Put { key: Bytes::from(format!("key-{index}")), value: "v".into(), ..Put::default() };
    let data = command::encode(&Command { request: None, operation: Some(Operation::Put(put)) });
    let entry = Entry { index: Index(index), term: Term(1), kind: EntryKind::Command, data };
    VecDeque::from([Committed { entry, origin: None }])
}

#[test]
fn the_short_way_is_taken_only_when_the_long_one_is_empty() {
    let mut lane = lane(1 << 20);
    let (lane, jobs) = (&lane.lane, lane.jobs.take().unwrap());
    assert_eq!(lane.try_apply(&mut put(1)).unwrap().unwrap().index, Index(1));
    lane.send(ApplyJob::Apply(put(2)));
    let mut third = put(3);
    assert!(lane.try_apply(&mut third).unwrap().is_none(), "the one before is not applied");
    assert_eq!(third.len(), 1);
    lane.send(ApplyJob::Halt);
    lane.run(&jobs).unwrap();
    let applied = lane.writer.lock().unwrap().stage.store().applied_index();
    assert_eq!(applied, 2);
}

#[test]
fn what_is_applied_by_the_short_way_shows_in_the_figures() {
    let lane = lane(1 << 20);
    lane.lane.try_apply(&mut put(1)).unwrap().unwrap();
    assert_eq!(lane.metrics.revision.get(), 1);
    assert!(lane.metrics.overlay_bytes.get() > 0);
}

/// Of a flush that failed, no end is told. The node stops then, and its threads have to.
#[test]
fn a_halt_is_heard_while_a_flush_never_ends() {
    let mut lane = lane(1);
    lane.lane.try_apply(&mut put(1)).unwrap().unwrap();
    assert!(lane.flushes.try_recv().is_ok(), "the overlay is full");
    lane.lane.try_apply(&mut put(2)).unwrap().unwrap();
    let mut third = put(3);
    assert!(lane.lane.try_apply(&mut third).unwrap().is_none(), "both are");
    lane.lane.send(ApplyJob::Apply(third));
    lane.lane.send(ApplyJob::Halt);
    let (applying, jobs) = (lane.lane.clone(), lane.jobs.take().unwrap());
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(applying.run(&jobs)));
    end.recv_timeout(Duration::from_secs(10)).expect("the thread ends").unwrap();
    assert!(lane.events.try_recv().is_err(), "nothing was applied");
}
