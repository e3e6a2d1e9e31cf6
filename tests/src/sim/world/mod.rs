//! The world: a clock, a queue of what will happen, and everything it happens to.

mod connections;
mod ending;
mod nodes;
mod requests;
mod stages;
mod strikes;
mod transfers;

use super::clients::{ATTEMPTS_MAX, Ask, Client, Style, UnderWay};
use super::faults::{Climate, Fault};
use super::network::{Change, Network, Place, Weather};
use super::node::{ApplyJob, Doom, Process, Sending, Settings, Sim, SimNode};
use super::oracle::{Oracle, Violation};
use super::report::Report;
use super::trace::Trace;
use super::{MILLI, Micros, SECOND};
use crate::random::Random;
use balsa_log::LogConfig;
use balsa_node::engine::handle::{AdminRequest, WriteError};
use balsa_node::engine::log_stage::Progress;
use balsa_node::engine::message::{self, PeerMessage};
use balsa_node::engine::snapshot_frame::{self, SnapshotFrame};
use balsa_node::engine::snapshot_receive::Taken;
use balsa_node::engine::snapshot_send::{Heard, Outgoing};
use balsa_node::engine::{Effect, Event, OfferDecision};
use balsa_raft::message::Body;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{NodeId, Term};
use balsa_store::command::{self, Answer, Reply};
use balsa_store::{StagedSnapshot, StoreConfig};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Simulated time under faults.
    pub length: Micros,
    /// Keep the trace's lines.
    pub keep_lines: bool,
    /// Nodes; `None`: as the seed has it.
    pub nodes: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options { length: 3_600 * SECOND, keep_lines: false, nodes: None }
    }
}

/// An answer must come within this time, or the client tries elsewhere.
const DEADLINE_MS: u64 = 5_000;
/// After the faults, the cluster must have made progress within this time.
const HEALED_WITHIN: Micros = 60 * SECOND;
/// How often connections are looked at.
const REVIEW_INTERVAL: Micros = 40 * MILLI;

/// How a fault ends.
type End = dyn FnOnce(&mut World) -> Result<(), Violation>;

enum Happening {
    Tick { place: Place, life: u64 },
    Arrives { from: Place, to: Place, life: u64, frame: Bytes },
    Bulk { from: Place, to: Place, life: u64, frame: SnapshotFrame },
    SendOn { from: Place, life: u64, to: NodeId, turn: u64 },
    LogDone { place: Place, life: u64 },
    ApplyDone { place: Place, life: u64 },
    FlushDone { place: Place, life: u64 },
    Idle { place: Place, life: u64 },
    Start { place: Place, life: u64 },
    Resume { place: Place },
    Client { client: usize },
    Timeout { client: usize, ticket: u64 },
    Review,
    Fault,
    FaultEnds(Box<End>),
}

struct Planned {
    at: Micros,
    order: u64,
    what: Happening,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Planned) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// One simulated cluster with its clients.
pub struct World {
    now: Micros,
    planned: BinaryHeap<Reverse<Planned>>,
    order: u64,
    random: Random,
    settings: Settings,
    nodes: Vec<SimNode>,
    network: Network,
    clients: Vec<Client>,
    /// Ticket → client.
    tickets: BTreeMap<u64, usize>,
    next_operation: u64,
    next_ticket: u64,
    climate: Climate,
    /// All nodes lose power just after the next acknowledgement, for so long.
    all_doomed: Option<Micros>,
    /// Nothing strikes any more.
    calm: bool,
    oracle: Oracle,
    trace: Trace,
    report: Report,
}

/// Runs one seed.
pub fn run_hour(seed: u64, options: &Options) -> Report {
    let mut world = World::new(seed, options);
    let outcome = world.run(options.length);
    world.report.violation = outcome.err().map(|Violation(what)| what);
    if let Some(violation) = world.report.violation.clone() {
        world.trace.line(world.now, format_args!("VIOLATION {violation}"));
    }
    world.report.trace = world.trace.digest();
    world.report.timeline = world.trace.kept().to_vec();
    world.report.saw_times("term with a leader", world.oracle.terms_led());
    world.report.saw_times("reply replayed", world.oracle.replays);
    world.report
}

impl World {
    fn new(seed: u64, options: &Options) -> World {
        let mut random = Random::new(seed);
        let count = options.nodes.unwrap_or_else(|| *random.pick(&[3, 3, 3, 3, 5, 5, 1]));
        let settings = Settings {
            log: LogConfig {
                segment_bytes: *random.pick(&[64 << 10, 256 << 10]),
                max_record_bytes: 16 << 10,
                recycle_segments: random.below(3) as usize,
                salt: random.draw(),
            },
            store: StoreConfig {
                overlay_bytes: *random.pick(&[8 << 10, 32 << 10, 256 << 10]),
                history_revisions: *random.pick(&[50, 500, 5_000]),
                sweep_rows: 50,
                reply_ttl_ms: *random.pick(&[60_000, 600_000]),
                session_ttl_ms: *random.pick(&[30_000, 600_000]),
                ..StoreConfig::default()
            },
            disk_headroom_bytes: *random.pick(&[0, 0, 32 << 10]),
            log_margin_bytes: *random.pick(&[0, 16 << 10, 256 << 10]),
            log_hold_bytes: *random.pick(&[0, 64 << 10, 1 << 20]),
            max_inflight_appends: *random.pick(&[1, 4, 64]),
            max_append_bytes: *random.pick(&[1 << 10, 64 << 10]),
        };
        let ids: Vec<NodeId> = (0..count).map(|_| NodeId(random.draw() | 1)).collect();
        let nodes = (0..count).map(|place| SimNode::founded(place, &ids, &settings)).collect();
        let keys = *random.pick(&[3, 8, 30]);
        let styles = [Style::Keys, Style::Session, Style::Plain, Style::Keys, Style::Session, Style::Plain];
        let think = *random.pick(&[400, 900, 900, 900]) * MILLI;
        let clients = styles.map(|style| Client::new(style, keys, think, random.fork())).into();
        let oracle = Oracle::new(settings.store.clone(), random.fork());
        World {
            now: 0,
            planned: BinaryHeap::new(),
            order: 0,
            settings,
            nodes,
            network: Network::new(random.fork()),
            clients,
            tickets: BTreeMap::new(),
            next_operation: 1,
            next_ticket: 1,
            climate: Climate::new(random.fork()),
            all_doomed: None,
            calm: false,
            oracle,
            trace: Trace::new(options.keep_lines),
            report: Report { seed, nodes: count, ..Report::default() },
            random,
        }
    }

    fn run(&mut self, length: Micros) -> Result<(), Violation> {
        for place in 0..self.nodes.len() {
            self.start(place)?;
        }
        for client in 0..self.clients.len() {
            let pause = self.clients[client].pause();
            self.plan(pause, Happening::Client { client });
        }
        self.plan(REVIEW_INTERVAL, Happening::Review);
        let pause = self.climate.pause();
        self.plan(pause, Happening::Fault);
        self.run_until(length)?;
        self.heal()?;
        self.must_progress()?;
        self.must_agree()
    }

    fn run_until(&mut self, end: Micros) -> Result<(), Violation> {
        while self.planned.peek().is_some_and(|Reverse(next)| next.at <= end) {
            self.step()?;
        }
        self.now = end;
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        let Some(Reverse(next)) = self.planned.pop() else { return Ok(()) };
        self.now = next.at;
        self.happen(next.what)
    }

    fn plan(&mut self, after: Micros, what: Happening) {
        self.order += 1;
        self.planned.push(Reverse(Planned { at: self.now + after, order: self.order, what }));
    }

    fn happen(&mut self, what: Happening) -> Result<(), Violation> {
        match what {
            Happening::Tick { place, life } => self.tick(place, life),
            Happening::Arrives { from, to, life, frame } => self.arrives(from, to, life, frame),
            Happening::Bulk { from, to, life, frame } => self.bulk(from, to, life, frame),
            Happening::SendOn { from, life, to, turn } => self.send_on(from, life, to, turn),
            Happening::LogDone { place, life } => self.log_done(place, life),
            Happening::ApplyDone { place, life } => self.apply_done(place, life),
            Happening::FlushDone { place, life } => self.flush_done(place, life),
            Happening::Idle { place, life } => self.log_idle(place, life),
            Happening::Start { place, life } => {
                if self.nodes[place].life == life && self.nodes[place].process.is_none() {
                    self.start(place)?;
                }
                Ok(())
            }
            Happening::Resume { place } => self.resume(place),
            Happening::Client { client } => self.client_turn(client),
            Happening::Timeout { client, ticket } => self.client_timeout(client, ticket),
            Happening::Review => self.review(),
            Happening::Fault => self.fault(),
            Happening::FaultEnds(end) => end(self),
        }
    }
}
