//! The world: a clock, a queue of what will happen, and everything it happens to.

mod connections;
mod disks;
mod drawing;
mod ending;
mod members;
mod nodes;
mod requests;
mod stages;
mod strikes;
mod transfers;
mod watches;

use self::members::Operator;
use self::requests::Asked;
use self::watches::Proving;
use super::clients::{Ask, Client, Style, address_of};
use super::faults::{Climate, Fault};
use super::network::{Change, Network, Place, Weather};
use super::node::{self, ApplyJob, Doom, Moment, Process, Sending, Settings, Sim, SimNode, Standing};
use super::oracle::{Oracle, Violation};
use super::report::Report;
use super::trace::Trace;
use super::watchers::Watcher;
use super::{MILLI, Micros, SECOND};
use crate::random::Random;
use balsa_client::session::Session;
use balsa_log::LogConfig;
use balsa_node::engine::handle::{AdminRequest, WriteError};
use balsa_node::engine::log_stage::Progress;
use balsa_node::engine::message::{self, PeerMessage};
use balsa_node::engine::snapshot_frame::{self, SnapshotFrame};
use balsa_node::engine::snapshot_receive::Taken;
use balsa_node::engine::snapshot_send::{Heard, Outgoing};
use balsa_node::engine::{Effect, Event, LogJob, OfferDecision};
use balsa_raft::message::Body;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, NodeId, Term};
use balsa_store::command::{self, Answer, Reply};
use balsa_store::{FEATURE_LEVEL, FIRST_LEVEL, StagedSnapshot, StoreConfig};
use bytes::Bytes;
use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Instant;

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

/// A node must have answered within this time.
const DEADLINE_MS: u64 = 3_000;
/// A client gives an operation up after this time: long before anybody forgets what was replied to it.
const OPERATION_DEADLINE: Micros = 20 * SECOND;
/// Where the nodes of a cluster may be; the seed draws how many of them found it.
const PLACES: usize = 5;
/// How many clients there are.
const CLIENTS: usize = 16;
/// How many watchers there are.
const WATCHERS: usize = 6;
/// The operator's ticket for transfers of leadership.
const TRANSFER_TICKET: u64 = 0;
/// After the faults, the cluster must have made progress within this time.
const HEALED_WITHIN: Micros = 60 * SECOND;
/// And so long after that, all nodes must agree, and lost ones must have been replaced.
const AGREED_WITHIN: Micros = 180 * SECOND;
/// How often connections are looked at.
const REVIEW_INTERVAL: Micros = 40 * MILLI;

/// How a fault ends.
type End = dyn FnOnce(&mut World) -> Result<(), Violation>;

enum Happening {
    Tick { place: Place, life: u64 },
    Arrives { from: NodeId, to: Place, life: u64, frame: Bytes },
    Bulk { from: NodeId, to: Place, life: u64, frame: SnapshotFrame },
    SendOn { from: Place, life: u64, to: NodeId, turn: u64 },
    LogDone { place: Place, life: u64 },
    ApplyDone { place: Place, life: u64 },
    FlushDone { place: Place, life: u64 },
    Idle { place: Place, life: u64 },
    Start { place: Place, life: u64 },
    Resume { place: Place },
    Client { client: usize, turn: u64 },
    Request { place: Place, life: u64, ticket: u64, asked: Asked },
    Errand { round: u64 },
    Retire { place: Place, id: NodeId },
    Timeout { client: usize, ticket: u64 },
    Watcher { watcher: usize },
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
    /// Connections may have to change.
    uneasy: bool,
    clients: Vec<Client>,
    /// The sessions that groups of clients share.
    sessions: Vec<Option<Arc<Session>>>,
    /// Simulated time 0, for logic that counts in instants.
    epoch: Instant,
    /// Clients hurry until then.
    rush_until: Micros,
    /// A client waits this long for the answer to an attempt, at most.
    patience: Micros,
    /// Clients begin nothing new.
    quiet: bool,
    /// Ticket → client.
    tickets: BTreeMap<u64, usize>,
    watchers: Vec<Watcher>,
    /// Ticket → what a watcher waits for.
    proofs: BTreeMap<u64, Proving>,
    next_operation: u64,
    next_ticket: u64,
    climate: Climate,
    operator: Operator,
    /// Places whose disks fail soon, and for how long the node is down then.
    failing: BTreeMap<Place, Micros>,
    /// Places whose disks rot.
    rotten: BTreeSet<Place>,
    /// Rises when the faults break transfers of snapshots.
    cuts: u64,
    /// All nodes lose power just after the next acknowledgement, for so long.
    all_doomed: Option<Micros>,
    /// The next leader whose membership is joint goes down at that, for so long.
    joint_doomed: Option<Micros>,
    /// The cluster's feature level, as the first node that applied it has shown.
    level: u32,
    /// Places where nothing starts for now.
    absent: BTreeSet<Place>,
    /// Nothing strikes any more.
    calm: bool,
    oracle: Oracle,
    trace: Trace,
    report: Report,
}

/// Runs one seed.
pub fn run_hour(seed: u64, options: &Options) -> Report {
    let mut world = World::new(seed, options);
    // An assertion of the node that fails is a finding like any other. Nothing of the world is used after it but its report.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| world.run(options.length)));
    world.report.violation = match outcome {
        Ok(outcome) => outcome.err().map(|Violation(what)| what),
        Err(panic) => Some(format!("a node panics: {}", words_of(&*panic))),
    };
    if let Some(violation) = world.report.violation.clone() {
        world.trace.line(world.now, format_args!("VIOLATION {violation}"));
    }
    world.report.trace = world.trace.digest();
    world.report.timeline = world.trace.kept().to_vec();
    world.report.saw_times("term with a leader", world.oracle.terms_led());
    world.report.saw_times("joint phase", world.oracle.joint_phases);
    world.report.saw_times("retry met its first effect", world.oracle.repeats);
    world.report.saw_times("reply replayed", world.oracle.replays);
    world.report
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("in words that cannot be shown")
}

impl World {
    fn run(&mut self, length: Micros) -> Result<(), Violation> {
        for place in 0..self.nodes.len() {
            self.start_if_down(place)?;
        }
        for client in 0..self.clients.len() {
            self.next_turn(client);
        }
        for watcher in 0..self.watchers.len() {
            self.plan(SECOND, Happening::Watcher { watcher });
        }
        self.plan(REVIEW_INTERVAL, Happening::Review);
        let pause = self.climate.pause();
        self.plan(pause, Happening::Fault);
        self.run_until(length)?;
        self.heal()?;
        self.must_progress()?;
        self.heal_rest()?;
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
            Happening::Start { place, life } if self.nodes[place].life == life => self.start_if_down(place),
            Happening::Start { .. } => Ok(()),
            Happening::Resume { place } => self.resume(place),
            Happening::Client { client, turn } => self.client_turn(client, turn),
            Happening::Request { place, life, ticket, asked } => self.request(place, life, ticket, asked),
            Happening::Errand { round } => self.errand(round),
            Happening::Retire { place, id } => self.retire(place, id),
            Happening::Timeout { client, ticket } => self.client_timeout(client, ticket),
            Happening::Watcher { watcher } => self.watcher_turn(watcher),
            Happening::Review => self.review(),
            Happening::Fault => self.fault(),
            Happening::FaultEnds(end) => end(self),
        }
    }
}
