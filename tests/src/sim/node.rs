//! One simulated node: its disk, and the process that runs on it while it runs.

use super::network::Place;
use super::{Micros, SECOND};
use balsa_log::{Folder, LogConfig, LogIdentity, SimDisk};
use balsa_node::engine::apply_stage::ApplyStage;
use balsa_node::engine::boot::{self, BootConfig, BootError};
use balsa_node::engine::directory::{Directory, Member};
use balsa_node::engine::log_stage::LogStage;
use balsa_node::engine::snapshot_frame::Transfer;
use balsa_node::engine::status::ClusterId;
use balsa_node::engine::{Engine, EngineConfig, LogJob, Origin, Tickets};
use balsa_raft::membership::Membership;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Entry, NodeId, Raft};
use balsa_store::{FlushJob, MemoryEngine, Reader, SnapshotSink, SnapshotSource, StoreConfig};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Milliseconds of a tick.
pub const TICK_MS: u64 = 20;

/// Answers go to numbers: the operation's.
#[derive(Debug)]
pub struct Sim;

impl Tickets for Sim {
    type Write = u64;
    type Read = u64;
    type Admin = u64;
}

/// Work for the apply stage, as the shell queues it.
pub enum ApplyJob {
    /// Apply these, answer those.
    Apply(Vec<Entry>, Vec<Option<Origin<Sim>>>),
    /// A flush has ended.
    Flushed(u64),
    /// Begin a snapshot.
    BeginSnapshot(NodeId),
    /// Begin to receive one.
    ReceiveSnapshot,
    /// A chunk.
    Chunk(Bytes),
    /// Install what was received.
    Install(SnapshotMeta),
}

/// A running process.
pub struct Process {
    /// The engine.
    pub engine: Engine<Sim>,
    /// *Persist*.
    pub log: LogStage,
    /// Jobs that wait for the log, oldest first.
    pub log_queue: VecDeque<LogJob>,
    /// Jobs that the log is at.
    pub log_running: VecDeque<LogJob>,
    /// *Apply*.
    pub apply: ApplyStage,
    /// Jobs that wait for the apply stage.
    pub apply_queue: VecDeque<ApplyJob>,
    /// A job is under way.
    pub apply_running: bool,
    /// The flush that is under way.
    pub flush: Option<FlushJob>,
    /// The snapshot that is being received.
    pub sink: Option<SnapshotSink>,
    /// Transfers by sender.
    pub transfers: BTreeMap<Place, Transfer>,
    /// Snapshots that were begun for peers.
    pub begun: BTreeMap<NodeId, SnapshotSource>,
    /// The store's published state.
    pub reader: Reader,
    /// Peers that the engine wants connections to.
    pub peers: BTreeSet<NodeId>,
    /// When it started.
    pub started: Micros,
}

/// A node.
pub struct SimNode {
    /// Its identity.
    pub id: NodeId,
    /// Its disk.
    pub disk: SimDisk,
    /// Where its store's state is.
    pub state: MemoryEngine,
    /// Its process, while it runs.
    pub process: Option<Process>,
    /// Rises with every start; events for an earlier life are void.
    pub life: u64,
    /// Stopped (as by SIGSTOP) until then.
    pub paused_until: Micros,
    /// How fast its clock runs, in thousandths.
    pub clock_rate: u64,
    /// The usual time of a write to the log lies between these.
    pub disk_delay: (Micros, Micros),
    /// The disk takes little more, or nothing.
    pub disk_is_full: bool,
    /// Goes down at the worst moment.
    pub doomed: Option<Doom>,
}

/// How a node goes down, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doom {
    /// It loses power; else its process is killed.
    pub power: bool,
    /// For how long.
    pub time: Micros,
    /// Just after its vote left; else in the middle of its next write to the log.
    pub at_vote: bool,
}

/// The cluster that all simulated nodes belong to.
pub const CLUSTER: ClusterId = ClusterId(0xba15a);

impl SimNode {
    /// A node with a disk that was just founded; the first one is the proposer.
    pub fn founded(place: Place, founders: &[NodeId], settings: &Settings) -> SimNode {
        let disk = SimDisk::new();
        let folder = folder(&disk);
        let id = founders[place];
        let first = (place == 0).then(|| first_membership(founders));
        let entries = first.iter().map(Raft::bootstrap_entry).collect();
        let names = LogIdentity { cluster: CLUSTER.0, node: id.0 };
        if let Err(error) = boot::create(&folder, settings.log.clone(), names, entries) {
            panic!("a log cannot be made on a sound disk: {error}");
        }
        SimNode {
            id,
            disk,
            state: MemoryEngine::new(),
            process: None,
            life: 0,
            paused_until: 0,
            clock_rate: 1000,
            disk_delay: (100, 1_500),
            disk_is_full: false,
            doomed: None,
        }
    }

    /// Starts its process.
    pub fn start(
        &mut self,
        place: Place,
        settings: &Settings,
        seed: u64,
        now: Micros,
    ) -> Result<u64, BootError> {
        self.life += 1;
        let mut raft = balsa_raft::Config::with_defaults(self.id, seed);
        raft.election_ticks = 15;
        raft.election_ticks_max = 60;
        raft.heartbeat_ticks = 3;
        raft.max_inflight_appends = settings.max_inflight_appends;
        raft.max_append_bytes = settings.max_append_bytes;
        let config = BootConfig {
            engine: EngineConfig {
                id: self.id,
                cluster: CLUSTER,
                slot: place as u32,
                incarnation: self.life * 1_000_000, // as in production, where it is a time in microseconds
                fixed_addresses: BTreeMap::new(),
                max_writes: 256,
                max_reads: 256,
                read_retry_ms: 300,
                forwarded_ttl_ms: 10_000,
                deadline_ticks: 3,
                log_margin_bytes: settings.log_margin_bytes,
                alive_ms: 600,
                handover_ms: 1_000,
            },
            raft,
            log: settings.log.clone(),
            store: settings.store.clone(),
            disk_headroom_bytes: settings.disk_headroom_bytes,
        };
        let booted = boot::open(&folder(&self.disk), Arc::new(self.state.clone()), &config)?;
        let torn = booted.torn_tail_bytes;
        let reader = booted.apply.store().reader();
        self.process = Some(Process {
            engine: Engine::new(config.engine, booted.raft, booted.newest_stamp_ms),
            log: booted.log,
            log_queue: VecDeque::new(),
            log_running: VecDeque::new(),
            apply: booted.apply,
            apply_queue: VecDeque::new(),
            apply_running: false,
            flush: None,
            sink: None,
            transfers: BTreeMap::new(),
            begun: BTreeMap::new(),
            reader,
            peers: BTreeSet::new(),
            started: now,
        });
        Ok(torn)
    }

    /// There is room on the disk again.
    pub fn free_disk(&mut self) {
        self.disk_is_full = false;
        self.disk.set_capacity(None);
    }

    /// The node's own clock, in ms: it runs at a rate of its own.
    pub fn clock_ms(&self, now: Micros) -> u64 {
        let started = self.process.as_ref().map_or(now, |process| process.started);
        (now - started) / 1000 * self.clock_rate / 1000 + 1
    }

    /// The simulated time between two of its ticks.
    pub fn tick_interval(&self) -> Micros {
        TICK_MS * SECOND / 1000 * 1000 / self.clock_rate
    }
}

/// What all nodes of a run share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The log's.
    pub log: LogConfig,
    /// The store's.
    pub store: StoreConfig,
    /// See [`BootConfig::disk_headroom_bytes`].
    pub disk_headroom_bytes: u64,
    /// See [`EngineConfig::log_margin_bytes`].
    pub log_margin_bytes: usize,
    /// The core's.
    pub max_inflight_appends: usize,
    /// The core's.
    pub max_append_bytes: usize,
}

/// The data folder on a simulated disk.
pub fn folder(disk: &SimDisk) -> Folder {
    Folder { disk: disk.shared(), path: "/data".into() }
}

fn first_membership(founders: &[NodeId]) -> Membership {
    let mut directory = Directory::default();
    for (slot, id) in founders.iter().enumerate() {
        let slot = slot as u32;
        let (peer_address, client_address) = (format!("node-{slot}:3300"), format!("node-{slot}:3000"));
        directory.put(Member { id: id.0, slot, peer_address, client_address, promote: false });
    }
    let voters = founders.iter().copied().collect();
    Membership { voters, context: directory.to_context(), ..Membership::default() }
}
