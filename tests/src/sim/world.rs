//! The world: a clock, a queue of what will happen, and everything it happens to.

use super::clients::{ATTEMPTS_MAX, Ask, Client, Style, UnderWay};
use super::faults::{Climate, Fault};
use super::network::{Change, Network, Place, Weather};
use super::node::{ApplyJob, Process, Settings, Sim, SimNode};
use super::oracle::{Oracle, Violation};
use super::random::Random;
use super::report::Report;
use super::trace::Trace;
use super::{MILLI, Micros, SECOND};
use balsa_log::LogConfig;
use balsa_node::engine::handle::{AdminRequest, WriteError};
use balsa_node::engine::log_stage::Progress;
use balsa_node::engine::message::{self, PeerMessage};
use balsa_node::engine::snapshot_frame::{SnapshotFrame, Step};
use balsa_node::engine::{Effect, Event};
use balsa_raft::message::Body;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{NodeId, Term};
use balsa_store::command::{self, Answer, Reply};
use balsa_store::{SnapshotSource, StoreConfig};
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
    NextChunk { from: Place, life: u64, to: NodeId, stream: Box<Stream> },
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

struct Stream {
    source: SnapshotSource,
    meta: SnapshotMeta,
    sequence: u64,
    next: Option<Bytes>,
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
            log_margin_bytes: *random.pick(&[0, 16 << 10, 256 << 10]),
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
            Happening::NextChunk { from, life, to, stream } => self.next_chunk(from, life, to, stream),
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

    // ---------------------------------------------------------------- nodes

    fn start(&mut self, place: Place) -> Result<(), Violation> {
        let seed = self.random.draw();
        let node = &mut self.nodes[place];
        node.paused_until = 0;
        let torn = match node.start(place, &self.settings, seed, self.now) {
            Ok(torn) => torn,
            Err(error) => return Err(Violation(format!("node {place} does not start: {error}"))),
        };
        let life = node.life;
        if torn > 0 {
            self.report.saw("torn tail");
        }
        self.trace.line(self.now, format_args!("node {place} starts, life {life}, torn tail {torn}"));
        let interval = self.nodes[place].tick_interval();
        self.plan(interval, Happening::Tick { place, life });
        self.turn(place)
    }

    /// Ends a process. Its clients lose their connections.
    fn stop_process(&mut self, place: Place) -> Result<(), Violation> {
        self.nodes[place].process = None;
        self.nodes[place].life += 1;
        for change in self.network.process_ended(place) {
            self.connection_changed(change)?;
        }
        for client in 0..self.clients.len() {
            let waits = self.clients[client].under_way.as_ref().filter(|under_way| under_way.place == place);
            let ticket = waits.map(|under_way| under_way.ticket);
            if ticket.is_some_and(|ticket| self.tickets.remove(&ticket).is_some()) {
                self.unknown(client)?;
            }
        }
        Ok(())
    }

    fn is_current(&self, place: Place, life: u64) -> bool {
        self.nodes[place].life == life && self.nodes[place].process.is_some()
    }

    /// Postpones what would happen to a stopped process. True: it was postponed.
    fn postponed(&mut self, place: Place, what: Happening) -> Option<Happening> {
        let until = self.nodes[place].paused_until;
        if until > self.now {
            let jitter = self.random.below(MILLI);
            self.plan(until - self.now + jitter, what);
            return None;
        }
        Some(what)
    }

    fn process(&mut self, place: Place) -> &mut Process {
        match &mut self.nodes[place].process {
            Some(process) => process,
            None => unreachable!("events of an ended process are void"),
        }
    }

    fn give(&mut self, place: Place, event: Event<Sim>) -> Result<(), Violation> {
        let now_ms = self.nodes[place].clock_ms(self.now);
        self.process(place).engine.handle(now_ms, event);
        self.turn(place)
    }

    fn turn(&mut self, place: Place) -> Result<(), Violation> {
        let effects = self.process(place).engine.finish();
        for effect in effects {
            self.carry_out(place, effect)?;
        }
        let node = &self.nodes[place];
        if let Some(process) = &node.process
            && process.engine.raft().is_leader()
            && self.oracle.leads(node.id, &process.engine)?
        {
            let term = process.engine.raft().term();
            self.trace.line(self.now, format_args!("node {place} leads term {term}"));
            self.report.saw("election won");
        }
        self.pump_log(place);
        self.pump_apply(place);
        Ok(())
    }

    fn tick(&mut self, place: Place, life: u64) -> Result<(), Violation> {
        if !self.is_current(place, life) {
            return Ok(());
        }
        let Some(Happening::Tick { .. }) = self.postponed(place, Happening::Tick { place, life }) else {
            return Ok(());
        };
        let interval = self.nodes[place].tick_interval();
        self.plan(interval, Happening::Tick { place, life });
        self.give(place, Event::Tick)
    }

    fn arrives(&mut self, from: Place, to: Place, life: u64, frame: Bytes) -> Result<(), Violation> {
        if !self.is_current(to, life) {
            return Ok(());
        }
        let Some(Happening::Arrives { frame, .. }) =
            self.postponed(to, Happening::Arrives { from, to, life, frame })
        else {
            return Ok(());
        };
        self.trace.mark(self.now, (from as u64) << 32 | (to as u64) << 40 | frame.len() as u64);
        let message = match message::decode(frame) {
            Ok(message) => message,
            Err(error) => return Err(Violation(format!("a message cannot be decoded: {error}"))),
        };
        let from = self.nodes[from].id;
        self.give(to, Event::Message { from, message })
    }

    fn carry_out(&mut self, place: Place, effect: Effect<Sim>) -> Result<(), Violation> {
        match effect {
            Effect::Send { to, message } => self.send(place, to, message),
            Effect::Log(job) => {
                self.process(place).log_queue.push_back(job);
                Ok(())
            }
            Effect::Apply { entries, origins } => {
                let id = self.nodes[place].id;
                self.oracle.committed(id, &entries)?;
                self.process(place).apply_queue.push_back(ApplyJob::Apply(entries, origins));
                Ok(())
            }
            Effect::AnswerWrite(ticket, answer) => self.write_answered(ticket, answer),
            Effect::AnswerRead(ticket, answer) => self.read_answered(place, ticket, answer.is_ok()),
            Effect::AnswerAdmin(_, answer) => {
                self.report.saw(if answer.is_ok() { "transfer done" } else { "transfer refused" });
                Ok(())
            }
            Effect::SetPeers(peers) => {
                self.process(place).peers = peers.into_iter().map(|(id, _)| id).collect();
                Ok(())
            }
            Effect::BeginSnapshot { to } => {
                self.process(place).apply_queue.push_back(ApplyJob::BeginSnapshot(to));
                Ok(())
            }
            Effect::StreamSnapshot { to, term, meta } => self.stream(place, to, term, meta),
            Effect::DropSnapshot { to } => {
                self.process(place).begun.remove(&to);
                Ok(())
            }
            Effect::AcceptSnapshot { from, meta, accept } => {
                self.trace.line(
                    self.now,
                    format_args!(
                        "node {place} is offered a snapshot of {} by {from}: accepted: {accept}",
                        meta.index
                    ),
                );
                if accept && let Some(from) = self.place_of(from) {
                    let process = self.process(place);
                    process.transfers.values_mut().for_each(|transfer| transfer.abandon());
                    process.transfers.entry(from).or_default().accept(meta);
                    process.apply_queue.push_back(ApplyJob::ReceiveSnapshot);
                }
                Ok(())
            }
            Effect::HandedOver => {
                self.report.saw("handed over before stopping");
                Ok(())
            }
        }
    }

    fn place_of(&self, id: NodeId) -> Option<Place> {
        self.nodes.iter().position(|node| node.id == id)
    }

    fn send(&mut self, place: Place, to: NodeId, message: PeerMessage) -> Result<(), Violation> {
        if let PeerMessage::Raft(raft) = &message
            && let Body::VoteReply { granted: true } = raft.body
        {
            self.oracle.votes(raft.from, raft.term, raft.to)?;
        }
        if matches!(message, PeerMessage::Forward { .. }) {
            self.report.saw("write forwarded");
        }
        let Some(target) = self.place_of(to) else { return Ok(()) };
        match self.network.send(place, target, &message, self.now) {
            Some(arrivals) => {
                if arrivals.is_empty() {
                    self.report.saw("message lost");
                }
                let life = self.nodes[target].life;
                let frame = message::encode(&message);
                for at in arrivals {
                    let arrives = Happening::Arrives { from: place, to: target, life, frame: frame.clone() };
                    self.plan(at - self.now, arrives);
                }
            }
            None => {
                let now_ms = self.nodes[place].clock_ms(self.now);
                self.process(place).engine.handle(now_ms, Event::NotSent { to, message });
            }
        }
        Ok(())
    }

    // ---------------------------------------------------------------- disk and store

    fn pump_log(&mut self, place: Place) {
        let node = &mut self.nodes[place];
        let Some(process) = &mut node.process else { return };
        if process.log_running.is_empty() && !process.log_queue.is_empty() {
            process.log_running = std::mem::take(&mut process.log_queue);
            let (low, high) = node.disk_delay;
            let (delay, life) = (self.random.between(low, high), node.life);
            self.plan(delay, Happening::LogDone { place, life });
        }
    }

    fn log_done(&mut self, place: Place, life: u64) -> Result<(), Violation> {
        if !self.is_current(place, life) {
            return Ok(());
        }
        let Some(_) = self.postponed(place, Happening::LogDone { place, life }) else { return Ok(()) };
        if let Some((power, time)) = self.nodes[place].doomed.take() {
            return self.take_down(place, power, time);
        }
        let process = self.process(place);
        let mut jobs = std::mem::take(&mut process.log_running);
        match process.log.run(&mut jobs) {
            Ok(Progress { durable, full }) => {
                self.trace.mark(self.now, 1 << 50 | place as u64);
                if full {
                    self.report.saw("write waits for a full disk");
                    self.process(place).log_running = jobs;
                    self.plan(100 * MILLI, Happening::LogDone { place, life });
                } else if self.random.chance(20) {
                    self.plan(100 * MILLI, Happening::Idle { place, life });
                }
                match durable {
                    Some(token) => self.give(place, Event::Persisted(token)),
                    None => self.turn(place),
                }
            }
            Err(error) => Err(Violation(format!("the log of node {place} fails on a sound disk: {error}"))),
        }
    }

    fn log_idle(&mut self, place: Place, life: u64) -> Result<(), Violation> {
        if self.is_current(place, life) && self.process(place).log_running.is_empty() {
            let idled = self.process(place).log.idle();
            idled.map_err(|error| {
                Violation(format!("the log of node {place} fails on a sound disk: {error}"))
            })?;
        }
        Ok(())
    }

    fn pump_apply(&mut self, place: Place) {
        let node = &mut self.nodes[place];
        let Some(process) = &mut node.process else { return };
        let waits = matches!(process.apply_queue.front(), Some(ApplyJob::Apply(..)))
            && process.apply.store().must_wait();
        if !process.apply_running && !process.apply_queue.is_empty() && !waits {
            process.apply_running = true;
            let (delay, life) = (self.random.between(5, 200), node.life);
            self.plan(delay, Happening::ApplyDone { place, life });
        }
    }

    fn apply_done(&mut self, place: Place, life: u64) -> Result<(), Violation> {
        if !self.is_current(place, life) {
            return Ok(());
        }
        let Some(_) = self.postponed(place, Happening::ApplyDone { place, life }) else { return Ok(()) };
        self.process(place).apply_running = false;
        if let Some(job) = self.process(place).apply_queue.pop_front() {
            self.apply_job(place, job)?;
        }
        self.pump_apply(place);
        Ok(())
    }

    fn apply_job(&mut self, place: Place, job: ApplyJob) -> Result<(), Violation> {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| Violation(format!("node {place}: {what}: {error}"));
        match job {
            ApplyJob::Apply(entries, origins) => {
                let applied = self.process(place).apply.apply::<Sim>(entries, origins);
                let applied = applied.map_err(|error| failed("apply fails", &error))?;
                self.check_applied(place)?;
                for (ticket, answer) in applied.answers {
                    self.write_answered(ticket, answer)?;
                }
                for (to, message) in applied.messages {
                    self.send(place, to, message)?;
                }
                let (index, wants_compaction) = (applied.index, applied.wants_compaction);
                if wants_compaction.is_some() {
                    self.report.saw("history compaction wanted");
                }
                self.start_flush(place);
                self.give(place, Event::Applied { index, wants_compaction })
            }
            ApplyJob::Flushed(index) => {
                let done = self.process(place).apply.store_mut().handle_flushed(index);
                done.map_err(|error| failed("flush fails", &error))?;
                self.start_flush(place);
                self.give(place, Event::Flushed(balsa_raft::Index(index)))
            }
            ApplyJob::BeginSnapshot(to) => {
                let process = self.process(place);
                let source = process.apply.store().begin_snapshot();
                let index = balsa_raft::Index(source.index());
                process.begun.insert(to, source);
                self.report.saw("snapshot begun");
                self.trace.line(self.now, format_args!("node {place} begins a snapshot of {index} for {to}"));
                self.give(place, Event::SnapshotBegun { to, index })
            }
            ApplyJob::ReceiveSnapshot => {
                let process = self.process(place);
                process.sink = None;
                let sink = process.apply.store().begin_install();
                process.sink = Some(sink.map_err(|error| failed("a snapshot cannot be received", &error))?);
                Ok(())
            }
            ApplyJob::Chunk(data) => {
                if let Some(sink) = &mut self.process(place).sink {
                    sink.add_chunk(&data).map_err(|error| failed("a chunk is refused", &error))?;
                }
                Ok(())
            }
            ApplyJob::Install(meta) => self.install(place, meta),
        }
    }

    fn install(&mut self, place: Place, meta: SnapshotMeta) -> Result<(), Violation> {
        let process = self.process(place);
        let Some(sink) = process.sink.take() else { return Ok(()) };
        let failed =
            |error: &dyn std::fmt::Display| Violation(format!("node {place} cannot install: {error}"));
        let staged = sink.stage().map_err(|error| failed(&error))?;
        let installed = process.apply.install(&meta, staged);
        if installed.is_err() && self.nodes[place].disk_is_full {
            return self.take_down(place, false, 5 * SECOND); // it stops, as it should
        }
        if installed.map_err(|error| failed(&error))? {
            self.trace.line(self.now, format_args!("node {place} installed a snapshot of {}", meta.index));
            self.report.saw("snapshot installed");
            self.check_applied(place)?;
            let time_ms = self.process(place).apply.store().time_ms();
            self.give(place, Event::SnapshotInstalled { meta, time_ms })?;
        }
        Ok(())
    }

    fn check_applied(&mut self, place: Place) -> Result<(), Violation> {
        let id = self.nodes[place].id;
        let position = self.process(place).apply.store().position();
        self.oracle.applied(id, position.applied_index, position.digest)
    }

    fn start_flush(&mut self, place: Place) {
        let process = self.process(place);
        if process.flush.is_none()
            && let Some(job) = process.apply.maybe_flush()
        {
            process.flush = Some(job);
            let (delay, life) = (self.random.between(MILLI, 80 * MILLI), self.nodes[place].life);
            self.plan(delay, Happening::FlushDone { place, life });
        }
    }

    fn flush_done(&mut self, place: Place, life: u64) -> Result<(), Violation> {
        if !self.is_current(place, life) {
            return Ok(());
        }
        let Some(_) = self.postponed(place, Happening::FlushDone { place, life }) else { return Ok(()) };
        let Some(job) = self.process(place).flush.take() else { return Ok(()) };
        match job.run() {
            Ok(index) => {
                self.report.saw("flush");
                self.process(place).apply_queue.push_front(ApplyJob::Flushed(index));
                self.pump_apply(place);
                Ok(())
            }
            Err(error) => Err(Violation(format!("node {place}: a flush fails: {error}"))),
        }
    }

    // ---------------------------------------------------------------- snapshots

    fn stream(&mut self, place: Place, to: NodeId, term: Term, meta: SnapshotMeta) -> Result<(), Violation> {
        let Some(source) = self.process(place).begun.remove(&to) else {
            return self.give(place, Event::SnapshotSent { to, index: None });
        };
        let Some(target) = self.place_of(to) else { return Ok(()) };
        let (life, target_life) = (self.nodes[place].life, self.nodes[target].life);
        let begin = SnapshotFrame::Begin { term, meta: meta.clone() };
        let delay = self.network.delay();
        self.plan(delay, Happening::Bulk { from: place, to: target, life: target_life, frame: begin });
        let mut stream = Box::new(Stream { source, meta, sequence: 0, next: None });
        stream.next = read_chunk(&mut stream.source)?;
        self.plan(delay + MILLI, Happening::NextChunk { from: place, life, to, stream });
        Ok(())
    }

    fn next_chunk(
        &mut self,
        from: Place,
        life: u64,
        to: NodeId,
        mut stream: Box<Stream>,
    ) -> Result<(), Violation> {
        if !self.is_current(from, life) {
            return Ok(());
        }
        let Some(target) = self.place_of(to) else { return Ok(()) };
        let index = stream.meta.index;
        // A cut link or a dead receiver breaks the stream.
        let probe = PeerMessage::ReadIndexReply { id: 0, index: None };
        let carried =
            self.network.send(from, target, &probe, self.now).is_some_and(|copies| !copies.is_empty());
        let Some(data) = stream.next.take().filter(|_| carried) else {
            self.report.saw("snapshot cut off");
            return self.give(from, Event::SnapshotSent { to, index: None });
        };
        stream.next = read_chunk(&mut stream.source)?;
        let (sequence, last) = (stream.sequence, stream.next.is_none());
        stream.sequence += 1;
        let frame = SnapshotFrame::Chunk { index, sequence, data, last };
        let target_life = self.nodes[target].life;
        let delay = self.random.between(MILLI, 4 * MILLI);
        self.plan(delay, Happening::Bulk { from, to: target, life: target_life, frame });
        if last {
            return self.give(from, Event::SnapshotSent { to, index: Some(index) });
        }
        self.plan(delay + MILLI, Happening::NextChunk { from, life, to, stream });
        Ok(())
    }

    fn bulk(&mut self, from: Place, to: Place, life: u64, frame: SnapshotFrame) -> Result<(), Violation> {
        if !self.is_current(to, life) {
            return Ok(());
        }
        let Some(Happening::Bulk { frame, .. }) =
            self.postponed(to, Happening::Bulk { from, to, life, frame })
        else {
            return Ok(());
        };
        let frame = match SnapshotFrame::decode(frame.encode()) {
            Ok(frame) => frame,
            Err(error) => return Err(Violation(format!("a snapshot frame cannot be decoded: {error}"))),
        };
        match self.process(to).transfers.entry(from).or_default().step(frame) {
            Step::Offer(term, meta) => {
                let from = self.nodes[from].id;
                self.give(to, Event::SnapshotOffered { from, term, meta })?;
            }
            Step::Feed(data) => self.process(to).apply_queue.push_back(ApplyJob::Chunk(data)),
            Step::FeedLast(data, meta) => {
                let queue = &mut self.process(to).apply_queue;
                queue.push_back(ApplyJob::Chunk(data));
                queue.push_back(ApplyJob::Install(meta));
            }
            Step::Ignore => {}
        }
        self.pump_apply(to);
        Ok(())
    }

    // ---------------------------------------------------------------- connections

    fn review(&mut self) -> Result<(), Violation> {
        self.plan(REVIEW_INTERVAL, Happening::Review);
        let mut wanted = BTreeSet::new();
        for (from, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { continue };
            for peer in &process.peers {
                if let Some(to) = self.place_of(*peer).filter(|to| self.nodes[*to].process.is_some()) {
                    wanted.insert((from, to));
                }
            }
            // Before a node has heard of the membership, it knows its fellow founders.
            if process.peers.is_empty() {
                let others =
                    (0..self.nodes.len()).filter(|to| *to != from && self.nodes[*to].process.is_some());
                wanted.extend(others.map(|to| (from, to)));
            }
        }
        for change in self.network.review(&wanted, self.now) {
            self.connection_changed(change)?;
        }
        Ok(())
    }

    fn connection_changed(&mut self, change: Change) -> Result<(), Violation> {
        let (place, peer, event): (_, _, fn(NodeId) -> Event<Sim>) = match change {
            Change::Up(from, to) => (from, to, Event::Connected),
            Change::Down(from, to) => (from, to, Event::Disconnected),
        };
        let peer = self.nodes[peer].id;
        if self.nodes[place].process.is_some() {
            self.give(place, event(peer))?;
        }
        Ok(())
    }

    // ---------------------------------------------------------------- clients

    fn client_turn(&mut self, client: usize) -> Result<(), Violation> {
        let places = self.nodes.len();
        if self.clients[client].under_way.is_none() {
            let operation = self.next_operation;
            self.next_operation += 1;
            let (ask, opens_session) = self.clients[client].next(operation);
            let key = match &ask {
                Ask::Read(key) => Some(key.clone()),
                Ask::Write(_) => None,
            };
            let repeatable = matches!(&ask, Ask::Write(command) if command.request.is_some());
            self.oracle.begin(operation, key, repeatable);
            let under_way = UnderWay { operation, ask, place: 0, attempts: 0, ticket: 0, opens_session };
            self.clients[client].under_way = Some(under_way);
        }
        let place = self.clients[client].choose(places);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let Some(under_way) = &mut self.clients[client].under_way else { return Ok(()) };
        under_way.place = place;
        under_way.ticket = ticket;
        under_way.attempts += 1;
        let ask = under_way.ask.clone();
        if self.nodes[place].process.is_none() || self.nodes[place].paused_until > self.now {
            return self.refused(client); // no connection: nothing was said
        }
        self.tickets.insert(ticket, client);
        self.plan((DEADLINE_MS + 500) * MILLI, Happening::Timeout { client, ticket });
        let deadline_ms = self.nodes[place].clock_ms(self.now) + DEADLINE_MS;
        match ask {
            Ask::Write(command) => {
                let repeatable = command.request.is_some();
                let command = command::encode(&command);
                self.give(place, Event::Write { ticket, command, repeatable, deadline_ms })
            }
            Ask::Read(_) => self.give(place, Event::Read { ticket, deadline_ms }),
        }
    }

    /// The client hears nothing (its node is paused, say).
    fn client_timeout(&mut self, client: usize, ticket: u64) -> Result<(), Violation> {
        if self.tickets.remove(&ticket).is_some() {
            self.report.saw("client timeout");
            self.unknown(client)?;
        }
        Ok(())
    }

    /// Whoever waits for this ticket, if anybody still does.
    fn take_ticket(&mut self, ticket: u64) -> Option<(usize, UnderWay)> {
        let client = self.tickets.remove(&ticket)?;
        let under_way = self.clients[client].under_way.clone()?;
        Some((client, under_way))
    }

    fn write_answered(&mut self, ticket: u64, answer: Result<Reply, WriteError>) -> Result<(), Violation> {
        let Some((client, under_way)) = self.take_ticket(ticket) else { return Ok(()) };
        match answer {
            Ok(reply) => {
                self.oracle.write_answered(under_way.operation, &reply)?;
                match &reply.answer {
                    Some(Answer::SessionOpened(opened)) if under_way.opens_session => {
                        self.clients[client].session = Some((opened.session, 1));
                    }
                    Some(Answer::SessionExpired(_)) => {
                        self.report.saw("session expired");
                        self.clients[client].session = None;
                    }
                    Some(Answer::PreconditionFailed(_)) => self.report.saw("precondition failed"),
                    _ => {}
                }
                self.trace.line(self.now, format_args!("operation {} written", under_way.operation));
                self.completed(client);
                Ok(())
            }
            Err(error) => {
                let repeatable = matches!(&under_way.ask, Ask::Write(command) if command.request.is_some());
                self.trace.line(self.now, format_args!("operation {} failed: {error}", under_way.operation));
                if matches!(error, WriteError::Overwritten) {
                    self.report.saw("write overwritten");
                }
                let other_attempts = repeatable || under_way.attempts > 1;
                self.oracle.write_failed(under_way.operation, &error, other_attempts)?;
                match error {
                    WriteError::Unknown { .. } => self.unknown(client),
                    _ => self.refused(client),
                }
            }
        }
    }

    fn read_answered(&mut self, place: Place, ticket: u64, confirmed: bool) -> Result<(), Violation> {
        let Some((client, under_way)) = self.take_ticket(ticket) else { return Ok(()) };
        if !confirmed {
            self.report.saw("read not confirmed");
            return self.refused(client);
        }
        let view = self.process(place).reader.view();
        self.oracle.read_served(under_way.operation, &view)?;
        self.trace.line(
            self.now,
            format_args!("operation {} read at {}", under_way.operation, view.applied_index()),
        );
        self.completed(client);
        Ok(())
    }

    fn completed(&mut self, client: usize) {
        self.report.operations += 1;
        self.clients[client].under_way = None;
        let pause = self.clients[client].pause();
        self.plan(pause, Happening::Client { client });
    }

    /// Nothing was applied: try again, but a write without a request id is given up (its denial is checked).
    fn refused(&mut self, client: usize) -> Result<(), Violation> {
        self.retry_unless(client, |under_way| match &under_way.ask {
            Ask::Write(command) => command.request.is_none() || under_way.attempts >= ATTEMPTS_MAX,
            Ask::Read(_) => under_way.attempts >= ATTEMPTS_MAX,
        })
    }

    /// Nobody knows what became of it.
    fn unknown(&mut self, client: usize) -> Result<(), Violation> {
        self.report.saw("outcome unknown");
        self.refused(client)
    }

    fn retry_unless(&mut self, client: usize, give_up: impl Fn(&UnderWay) -> bool) -> Result<(), Violation> {
        let Some(under_way) = &self.clients[client].under_way else { return Ok(()) };
        if give_up(under_way) {
            self.clients[client].under_way = None;
            let pause = self.clients[client].pause();
            self.plan(pause, Happening::Client { client });
        } else {
            let attempts = under_way.attempts;
            self.report.saw("client retry");
            let backoff = self.clients[client].backoff(attempts);
            self.plan(backoff, Happening::Client { client });
        }
        Ok(())
    }

    // ---------------------------------------------------------------- faults

    fn fault(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let pause = self.climate.pause();
        self.plan(pause, Happening::Fault);
        let fault = self.climate.next(self.nodes.len());
        self.report.faults[fault.kind()] += 1;
        self.trace.line(self.now, format_args!("fault {fault:?}"));
        self.strike(fault)
    }

    fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        let all = 0..self.nodes.len();
        match fault {
            Fault::Kill(place, time) | Fault::PowerLoss(place, time) => {
                let power = matches!(fault, Fault::PowerLoss(..));
                if self.random.chance(500) && self.nodes[place].process.is_some() {
                    self.nodes[place].doomed = Some((power, time));
                    return Ok(());
                }
                self.take_down(place, power, time)
            }
            Fault::PowerLossOfAll(time) => {
                for place in all {
                    let time = time + self.random.below(2 * SECOND);
                    self.take_down(place, true, time)?;
                }
                Ok(())
            }
            Fault::Pause(place, time) => {
                self.nodes[place].paused_until = self.now + time;
                self.plan(time, Happening::Resume { place });
                Ok(())
            }
            Fault::Split(mask, time) => {
                for (from, to) in pairs(self.nodes.len()) {
                    if (mask >> from & 1) != (mask >> to & 1) {
                        self.network.cut(from, to);
                    }
                }
                self.heal_links_after(time)
            }
            Fault::Mute(place, time) => {
                all.filter(|to| *to != place).for_each(|to| self.network.cut(place, to));
                self.heal_links_after(time)
            }
            Fault::Deaf(place, time) => {
                all.filter(|from| *from != place).for_each(|from| self.network.cut(from, place));
                self.heal_links_after(time)
            }
            Fault::CutLinks(mask, time) => {
                for (nth, (from, to)) in pairs(self.nodes.len()).enumerate() {
                    if mask >> (nth % 64) & 1 == 1 {
                        self.network.cut(from, to);
                    }
                }
                self.heal_links_after(time)
            }
            Fault::Storm(time) => {
                self.network.weather = self.climate.storm();
                self.ends_after(time, |world| {
                    world.network.weather = Weather::fair();
                    Ok(())
                })
            }
            Fault::SlowDisk(place, time) => {
                self.nodes[place].disk_delay = (10 * MILLI, 150 * MILLI);
                self.mend_disk_after(place, time)
            }
            Fault::StalledDisk(place, time) => {
                self.nodes[place].disk_delay = (time, time + SECOND);
                self.mend_disk_after(place, MILLI.max(time / 2))
            }
            Fault::FullDisk(place, time) => {
                let room = self.random.below(200 << 10);
                let node = &mut self.nodes[place];
                node.disk_is_full = true;
                node.disk.set_capacity(Some(node.disk.used_bytes() + room));
                self.ends_after(time, move |world| {
                    world.nodes[place].free_disk();
                    Ok(())
                })
            }
            Fault::Transfer => {
                let leader = self.nodes.iter().position(|node| {
                    node.process.as_ref().is_some_and(|process| process.engine.raft().is_leader())
                });
                let Some(place) = leader.filter(|place| self.nodes[*place].paused_until <= self.now) else {
                    return Ok(());
                };
                let deadline_ms = self.nodes[place].clock_ms(self.now) + 2_000;
                let request = AdminRequest::TransferLeadership { to: None };
                self.give(place, Event::Admin { ticket: 0, request, deadline_ms })
            }
            Fault::Restart(place, time) => {
                if self.nodes[place].process.is_none() || self.nodes[place].paused_until > self.now {
                    return Ok(());
                }
                self.give(place, Event::Stop)?;
                let life = self.nodes[place].life;
                self.ends_after(SECOND, move |world| {
                    if world.is_current(place, life) {
                        return world.take_down(place, false, time);
                    }
                    Ok(())
                })
            }
            Fault::ClockRate(place, rate) => {
                // The clock of a running process does not jump: the new rate holds from its next start on.
                if self.nodes[place].process.is_none() {
                    self.nodes[place].clock_rate = rate;
                }
                Ok(())
            }
        }
    }

    /// Ends a process: by a kill, or by a loss of power, which may come in the middle of what the log was writing.
    fn take_down(&mut self, place: Place, power: bool, time: Micros) -> Result<(), Violation> {
        let nth = self.random.between(1, 6);
        let node = &mut self.nodes[place];
        if let Some(process) = &mut node.process {
            let running = std::mem::take(&mut process.log_running);
            let mut jobs = if running.is_empty() { std::mem::take(&mut process.log_queue) } else { running };
            if !jobs.is_empty() {
                node.disk.halt_at(nth);
                let _ = process.log.run(&mut jobs); // it does not matter how far it got
                self.report.saw(if power { "power lost in a write" } else { "killed in a write" });
            }
        } else if !power {
            return Ok(());
        }
        self.trace.line(self.now, format_args!("node {place} goes down, power lost: {power}"));
        self.stop_process(place)?;
        let mut random = self.random.fork();
        let node = &mut self.nodes[place];
        if power {
            node.disk.power_loss(&mut || random.draw());
        } else {
            node.disk.crash();
        }
        node.disk.clear_faults();
        node.state.crash();
        let life = node.life;
        self.plan(time, Happening::Start { place, life });
        Ok(())
    }

    fn heal_links_after(&mut self, time: Micros) -> Result<(), Violation> {
        self.ends_after(time, |world| {
            world.network.heal();
            world.trace.line(world.now, format_args!("links healed"));
            Ok(())
        })
    }

    fn mend_disk_after(&mut self, place: Place, time: Micros) -> Result<(), Violation> {
        self.ends_after(time, move |world| {
            world.nodes[place].disk_delay = (100, 1_500);
            Ok(())
        })
    }

    fn ends_after(
        &mut self,
        time: Micros,
        end: impl FnOnce(&mut World) -> Result<(), Violation> + 'static,
    ) -> Result<(), Violation> {
        self.plan(time, Happening::FaultEnds(Box::new(end)));
        Ok(())
    }

    fn resume(&mut self, place: Place) -> Result<(), Violation> {
        if self.nodes[place].paused_until <= self.now {
            self.nodes[place].paused_until = 0;
        }
        Ok(())
    }

    // ---------------------------------------------------------------- the end

    /// No more faults; all that is broken is mended.
    fn heal(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.trace.line(self.now, format_args!("the faults end"));
        self.network.heal();
        self.network.weather = Weather::fair();
        for place in 0..self.nodes.len() {
            self.nodes[place].paused_until = 0;
            self.nodes[place].disk_delay = (100, 1_500);
            self.nodes[place].free_disk();
            self.nodes[place].doomed = None;
            if self.nodes[place].process.is_none() {
                self.start(place)?;
            }
        }
        Ok(())
    }

    /// Liveness: each client completes an operation that it began now.
    fn must_progress(&mut self) -> Result<(), Violation> {
        let (deadline, before) = (self.now + HEALED_WITHIN, self.report.operations);
        let committed = self.oracle.committed_index();
        let enough = before + 4 * self.clients.len() as u64;
        while self.report.operations < enough || self.oracle.committed_index() == committed {
            if self.now > deadline {
                return Err(Violation(format!(
                    "no progress within {} s after the faults had ended",
                    HEALED_WITHIN / SECOND
                )));
            }
            self.step()?;
        }
        Ok(())
    }

    /// When all is quiet, all nodes have the same state: the model's.
    fn must_agree(&mut self) -> Result<(), Violation> {
        let deadline = self.now + HEALED_WITHIN;
        self.clients.iter_mut().for_each(|client| client.think = 3_600 * SECOND);
        loop {
            let committed = self.oracle.committed_index();
            let applied = |node: &SimNode| {
                node.process
                    .as_ref()
                    .is_some_and(|process| process.apply.store().applied_index() == committed)
            };
            let quiet = self.clients.iter().all(|client| client.under_way.is_none());
            if quiet && self.nodes.iter().all(applied) {
                break;
            }
            if self.now > deadline {
                let states: Vec<String> = self
                    .nodes
                    .iter()
                    .map(|node| match &node.process {
                        Some(process) => format!("{:?}", process.engine.raft().status()),
                        None => "down".to_string(),
                    })
                    .collect();
                return Err(Violation(format!("the nodes do not converge at {committed}: {states:#?}")));
            }
            self.step()?;
        }
        for place in 0..self.nodes.len() {
            let view = self.process(place).reader.view();
            self.oracle.all_values_are_right(&view)?;
            self.check_applied(place)?;
        }
        Ok(())
    }
}

fn read_chunk(source: &mut SnapshotSource) -> Result<Option<Bytes>, Violation> {
    source.next_chunk(4 << 10).map_err(|error| Violation(format!("a snapshot cannot be read: {error}")))
}

fn pairs(nodes: usize) -> impl Iterator<Item = (Place, Place)> {
    (0..nodes).flat_map(move |from| (0..nodes).filter(move |to| *to != from).map(move |to| (from, to)))
}
