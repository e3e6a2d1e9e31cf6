//! One place for a simulated node: its disk, and the process that runs on it while it runs.

use super::network::Place;
use super::watchers::Hub;
use super::{MILLI, Micros, SECOND};
use balsa_log::{Folder, LogConfig, LogIdentity, SimDisk};
use balsa_node::engine::apply_stage::ApplyStage;
use balsa_node::engine::boot::{self, BootConfig, BootError};
use balsa_node::engine::directory::{Directory, Member};
use balsa_node::engine::log_stage::LogStage;
use balsa_node::engine::snapshot_frame::Offer;
use balsa_node::engine::snapshot_receive::Incoming;
use balsa_node::engine::snapshot_send::Outgoing;
use balsa_node::engine::status::ClusterId;
use balsa_node::engine::storage::Space;
use balsa_node::engine::{Committed, Engine, EngineConfig, LogJob, Tickets};
use balsa_raft::membership::Membership;
use balsa_raft::{Index, NodeId, Raft};
use balsa_store::engine::StateEngine as _;
use balsa_store::{FlushJob, MemoryEngine, Reader, StoreConfig};
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
    /// Apply these and answer who waits for them.
    Apply {
        /// The entries.
        committed: VecDeque<Committed<Sim>>,
        /// Whether memory is enough so far.
        in_memory: bool,
    },
    /// A flush has ended.
    Flushed(u64),
    /// Begin a snapshot.
    BeginSnapshot(NodeId),
    /// Begin to receive one, or go on with it.
    ReceiveSnapshot(NodeId, Offer),
    /// A chunk, of which transfer, and its number.
    Chunk(NodeId, u64, u32, Bytes),
}

/// A snapshot on its way to a peer.
pub struct Sending {
    /// What is sent.
    pub outgoing: Outgoing,
    /// Rises when what was planned for it is void.
    pub turn: u64,
    /// When the peer last showed life.
    pub heard: Micros,
    /// How often the faults had cut all transfers when its connection came to stand.
    pub cuts: u64,
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
    pub incoming: Incoming,
    /// Snapshots that were begun for peers.
    pub outgoing: BTreeMap<NodeId, Sending>,
    /// The store's published state.
    pub reader: Reader,
    /// Those who watch here.
    pub hub: Hub,
    /// Peers that the engine wants connections to; `None`: it has not said, and keeps to whom it was told of.
    pub peers: Option<BTreeSet<NodeId>>,
    /// Removed nodes whose streams it refuses, telling them why.
    pub refuses: BTreeSet<NodeId>,
    /// The commit index that the oracle has looked at.
    pub commit_seen: Index,
    /// The membership as of then.
    pub membership_seen: Arc<Membership>,
}

/// A place for a node: the disk in it, and whose disk that is. A place is a slot of the cluster.
pub struct SimNode {
    /// The identity on its disk.
    pub id: NodeId,
    /// What has become of that.
    pub standing: Standing,
    /// Its disk.
    pub disk: SimDisk,
    /// Where its store's state is.
    pub state: MemoryEngine,
    /// Its process, while it runs.
    pub process: Option<Process>,
    /// Rises with every start and stop; events for an earlier life are void.
    pub life: u64,
    /// Stopped (as by SIGSTOP) until then.
    pub paused_until: Micros,
    /// Its process's clock.
    pub clock: Clock,
    /// The usual time of a write to the log lies between these.
    pub disk_delay: (Micros, Micros),
    /// The disk takes little more, or nothing.
    pub disk_is_full: bool,
    /// To which feature level its process goes. The older of builds that are mixed, until it is restarted as the newer one.
    pub feature_level: u32,
    /// Goes down at the worst moment.
    pub doomed: Option<Doom>,
    /// It was told that its identity was removed, and has recorded that.
    pub knows_removal: bool,
    /// The membership that its last process went by, and where that stands in the log.
    pub last_membership: (Index, Arc<Membership>),
}

/// What has become of the identity at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// There is none.
    Blank,
    /// It asks to be taken in; its process does not run yet.
    Joining,
    /// Its process runs, unless something has befallen it.
    Running,
}

/// A process's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// How fast it runs, in thousandths.
    pub rate: u64,
    /// It showed `shown` at this moment.
    since: Micros,
    shown: Micros,
}

impl Clock {
    /// A clock that begins now.
    fn starting(rate: u64, now: Micros) -> Clock {
        Clock { rate, since: now, shown: MILLI }
    }

    fn micros(&self, now: Micros) -> Micros {
        self.shown + (now - self.since) * self.rate / 1000
    }

    /// It runs at another rate, or jumps ahead.
    pub fn change(&mut self, now: Micros, rate: u64, ahead: Micros) {
        *self = Clock { rate, since: now, shown: self.micros(now) + ahead };
    }
}

/// How a node goes down, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doom {
    /// It loses power; else its process is killed.
    pub power: bool,
    /// For how long.
    pub time: Micros,
    /// The moment.
    pub at: Moment,
}

/// A bad moment to go down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// In the middle of its next write to the log.
    Write,
    /// Just after its next vote left.
    Vote,
    /// In the middle of its next installation of a snapshot, or just after.
    Install,
    /// Just after its next acknowledgement of entries left.
    Acknowledgement,
}

/// The cluster that all simulated nodes belong to.
pub const CLUSTER: ClusterId = ClusterId(0xba15a);

impl SimNode {
    /// A place where nothing is.
    pub fn blank() -> SimNode {
        SimNode {
            id: NodeId(0),
            standing: Standing::Blank,
            disk: SimDisk::new(),
            state: MemoryEngine::new(),
            process: None,
            life: 0,
            paused_until: 0,
            clock: Clock::starting(1000, 0),
            disk_delay: (100, 1_500),
            disk_is_full: false,
            feature_level: balsa_store::FEATURE_LEVEL,
            doomed: None,
            knows_removal: false,
            last_membership: (Index::ZERO, Arc::default()),
        }
    }

    /// Puts in a blank disk with a new identity: one that founds a cluster with others (the first one proposes it), or one
    /// that wants to join. What was here is gone.
    pub fn put_disk(&mut self, id: NodeId, founders: Option<&[NodeId]>, settings: &Settings) {
        let first = founders.filter(|founders| founders.first() == Some(&id)).map(first_membership);
        let entries = first.iter().map(Raft::bootstrap_entry).collect();
        let names = LogIdentity { cluster: CLUSTER.0, node: id.0 };
        let disk = SimDisk::new();
        if let Err(error) = boot::create(&folder(&disk), settings.log.clone(), names, entries) {
            panic!("a log cannot be made on a sound disk: {error}");
        }
        let standing = if founders.is_some() { Standing::Running } else { Standing::Joining };
        let (life, clock, disk_delay) = (self.life + 1, self.clock, self.disk_delay);
        *self = SimNode { id, standing, disk, life, clock, disk_delay, ..SimNode::blank() };
    }

    /// Takes the disk out.
    pub fn clear(&mut self) {
        let (life, clock, disk_delay) = (self.life + 1, self.clock, self.disk_delay);
        *self = SimNode { life, clock, disk_delay, ..SimNode::blank() };
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
        self.clock = Clock::starting(self.clock.rate, now);
        let mut raft = balsa_raft::Config::with_defaults(self.id, seed);
        raft.election_ticks = 15;
        raft.heartbeat_ticks = 3;
        raft.max_inflight_appends = settings.max_inflight_appends;
        raft.max_append_bytes = settings.max_append_bytes;
        raft.gather_appends = settings.gather_appends;
        let config = BootConfig {
            engine: EngineConfig {
                id: self.id,
                cluster: CLUSTER,
                slot: place as u32,
                incarnation: self.life * 1_000_000, // as in production, where it is a time in microseconds
                fixed_addresses: BTreeMap::new(),
                feature_level: self.feature_level,
                max_writes: 256,
                max_reads: 256,
                read_retry_ms: 300,
                forwarded_ttl_ms: 10_000,
                deadline_ticks: 3,
                log_margin_bytes: settings.log_margin_bytes,
                log_hold_bytes: settings.log_hold_bytes,
                disk_headroom_bytes: settings.disk_headroom_bytes,
                quota_bytes: 0,
                max_snapshots: 1,
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
            engine: Engine::new(
                config.engine,
                booted.raft,
                booted.newest_stamp_ms,
                booted.apply.store().outlook(),
            ),
            log: booted.log,
            log_queue: VecDeque::new(),
            log_running: VecDeque::new(),
            apply: booted.apply,
            apply_queue: VecDeque::new(),
            apply_running: false,
            flush: None,
            incoming: Incoming::default(),
            outgoing: BTreeMap::new(),
            reader,
            hub: Hub::default(),
            peers: None,
            refuses: BTreeSet::new(),
            commit_seen: Index::ZERO,
            membership_seen: Arc::default(),
        });
        Ok(torn)
    }

    /// There is room on the disk again.
    pub fn free_disk(&mut self) {
        self.disk_is_full = false;
        self.disk.set_capacity(None);
        self.state.set_full(false);
    }

    /// The process's own clock, in ms: it runs at a rate of its own.
    pub fn clock_ms(&self, now: Micros) -> u64 {
        self.clock.micros(now) / 1000
    }

    /// How much room there is, unless the disk fails.
    pub fn space(&self) -> Option<Space> {
        let Folder { disk, path } = folder(&self.disk);
        Some(Space { free_bytes: disk.free_bytes(&path).ok()?, store_bytes: self.state.size_bytes() })
    }

    /// The simulated time between two of its ticks.
    pub fn tick_interval(&self) -> Micros {
        TICK_MS * SECOND / 1000 * 1000 / self.clock.rate
    }

    /// Its core, while it runs.
    pub fn raft(&self) -> Option<&Raft> {
        self.process.as_ref().map(|process| process.engine.raft())
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
    /// See [`EngineConfig::log_hold_bytes`].
    pub log_hold_bytes: usize,
    /// The core's.
    pub max_inflight_appends: usize,
    /// Entries wait for the answer to the append before them.
    pub gather_appends: bool,
    /// The core's.
    pub max_append_bytes: usize,
    /// Bytes of a snapshot's chunk.
    pub chunk_bytes: usize,
    /// Time between two chunks, at most.
    pub chunk_interval: Micros,
    /// The time of a write to a sound disk's log lies between these.
    pub disk_delay: (Micros, Micros),
}

/// The data folder on a simulated disk.
pub fn folder(disk: &SimDisk) -> Folder {
    Folder { disk: disk.shared(), path: "/data".into() }
}

/// Where peers and where clients reach the node at a place.
pub fn addresses(place: Place) -> (String, String) {
    (format!("node-{place}:3300"), format!("node-{place}:3000"))
}

/// The membership that a cluster's log begins with.
pub fn first_membership(founders: &[NodeId]) -> Membership {
    let mut directory = Directory::default();
    for (place, id) in founders.iter().enumerate() {
        let (slot, (peer_address, client_address)) = (place as u32, addresses(place));
        directory.put(Member { id: id.0, slot, peer_address, client_address, promote: false });
    }
    let voters = founders.iter().copied().collect();
    Membership { voters, context: directory.to_context(), ..Membership::default() }
}
