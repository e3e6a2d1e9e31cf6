//! The engine's turns on the [`EventLoop`]: takes what came in, lets the engine make of it what it will, carries the
//! effects out. Nothing here ever blocks, so that no slow disk can hold up a heartbeat.

use super::apply_thread::{ApplyJob, ApplyLane, Writer};
use super::backups::WaitingBackups;
use super::event_loop::EventLoop;
use super::flush_thread::{self, StoreRoom};
use super::gauges;
use super::live::{Inputs, Live, Room};
use super::log_thread::{self, LogLane};
use super::snapshot_streams::{StreamSettings, Streams, Ways};
use super::{Fatal, spawn};
use crate::engine::boot::Booted;
use crate::engine::handle::Request;
use crate::engine::message::{self, PeerMessage};
use crate::engine::snapshot_frame::{Answer, SnapshotFrame};
use crate::engine::snapshot_receive::Incoming;
use crate::engine::status::Status;
use crate::engine::{Committed, Effect, Engine, EngineConfig, Event, LogJob, OfferDecision};
use crate::metrics::Metrics;
use crate::peer::PeerHub;
use crate::watch::Signal;
use arc_swap::ArcSwap;
use balsa_raft::{Index, NodeId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc as thread_mpsc};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// What one turn of the engine takes from each queue at most.
const BATCH: usize = 1024;

/// How often the store is told to remove what is unreadable, be there little to write. Where much is written it does so by
/// itself.
const SWEEP_INTERVAL_MS: u64 = 5_000;

/// What the engine's thread is connected to.
pub struct Wiring {
    /// Clients' requests.
    pub requests: mpsc::Receiver<Request>,
    /// Peers and the process.
    pub inputs: mpsc::Receiver<Inputs>,
    /// Where the state is published.
    pub status: Arc<ArcSwap<Status>>,
    /// When the engine last turned, and when its store was last known to be fresh: ms since `epoch`.
    pub turned_ms: Arc<AtomicU64>,
    /// See `turned_ms`.
    pub fresh_ms: Arc<AtomicU64>,
    /// The engine's zero of time.
    pub epoch: Instant,
    /// Connections to peers.
    pub hub: Arc<PeerHub>,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// Told of each state that the store publishes.
    pub published: Arc<Signal>,
    /// Told, at most once, that this node was removed, and whether it was so when it returned.
    pub removed: mpsc::UnboundedSender<bool>,
    /// The way out when the node cannot go on.
    pub fatal: Fatal,
    /// One tick of the core.
    pub tick: Duration,
    /// Where streams of snapshots run.
    pub runtime: tokio::runtime::Handle,
    /// How snapshots are sent.
    pub snapshots: StreamSettings,
}

/// A running engine.
pub struct Running {
    /// Resolves once leadership is with somebody else.
    pub handed_over: oneshot::Receiver<()>,
    engine_ended: oneshot::Receiver<()>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Waits until the engine and all of its threads have ended, which they do after [`Inputs::Halt`]. Blocks.
    pub fn join(self) {
        let _ = self.engine_ended.blocking_recv(); // dropped when it has
        for thread in self.threads {
            let _ = thread.join(); // a panic was reported by the runtime already
        }
    }
}

/// Starts the engine of a booted node on its loop, and the threads beside it.
pub fn start(
    booted: Booted,
    config: EngineConfig,
    wiring: Wiring,
    event_loop: &mut EventLoop,
) -> std::io::Result<Running> {
    let (flush_jobs, flush_queue) = thread_mpsc::channel();
    let (events, told) = mpsc::unbounded_channel();
    let (handed_over_sender, handed_over) = oneshot::channel();
    let ways = Ways {
        hub: wiring.hub.clone(),
        events: events.clone(),
        metrics: wiring.metrics.clone(),
        runtime: wiring.runtime.clone(),
    };
    let streams = Streams::new(wiring.snapshots, ways);
    let fatal = wiring.fatal.clone();
    let mut threads = Vec::new();

    let Booted { raft, log, apply, newest_stamp_ms, .. } = booted;
    let engine = Engine::<Live>::new(config, raft, newest_stamp_ms, apply.store().outlook());

    let store_room = StoreRoom::default();
    let writer = log_thread::Writer::new(log, store_room.clone(), wiring.metrics.clone());
    let (log_lane, persisting) = LogLane::new(writer);
    let log_events = events.clone();
    threads.push(spawn("balsa-log", fatal.clone(), move || persisting.run(&log_events))?);
    let (apply_lane, apply_queue) = ApplyLane::new(Writer {
        stage: apply,
        flushes: flush_jobs,
        events: events.clone(),
        hub: wiring.hub.clone(),
        streams: streams.clone(),
        metrics: wiring.metrics.clone(),
        published: wiring.published.clone(),
        incoming: Incoming::default(),
        backups: WaitingBackups::default(),
    });
    // Without the writer, which owns the other end of this thread's queue.
    let (flushed, metrics) = (apply_lane.queue().clone(), wiring.metrics.clone());
    threads.push(spawn("balsa-flush", fatal.clone(), move || {
        balsa_store::give_way();
        flush_thread::run(&flush_queue, &flushed, &store_room, &metrics)
    })?);
    let applying = apply_lane.clone();
    threads.push(spawn("balsa-apply", fatal, move || applying.run(&apply_queue))?);

    let halting = apply_lane.queue().clone();
    let driver = Driver {
        engine,
        wiring,
        log_lane,
        lone: false,
        apply_lane,
        streams,
        handed_over: Some(handed_over_sender),
        outgoing: BTreeMap::new(),
        proposed: VecDeque::new(),
    };
    let driven = async move {
        let outcome = driver.run(told).await;
        halting.send(ApplyJob::Halt); // that thread holds an end of its own queue, and would wait for ever
        outcome
    };
    let engine_ended = event_loop
        .drive(Box::pin(driven))
        .ok_or_else(|| std::io::Error::other("the event loop has an engine, or has ended"))?;
    Ok(Running { handed_over, engine_ended, threads })
}

struct Driver {
    engine: Engine<Live>,
    wiring: Wiring,
    log_lane: LogLane,
    /// The turn has one thing to do.
    lone: bool,
    apply_lane: ApplyLane,
    streams: Streams,
    handed_over: Option<oneshot::Sender<()>>,
    outgoing: BTreeMap<NodeId, Vec<PeerMessage>>,
    /// When this leader appended up to which index; bounded by what may be uncommitted.
    proposed: VecDeque<(Index, Instant)>,
}

impl Driver {
    async fn run(mut self, mut told: mpsc::UnboundedReceiver<Event<Live>>) -> Result<(), String> {
        let mut ticks = tokio::time::interval(self.wiring.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_tick_ms = self.now_ms();
        let mut sweeps_ms = last_tick_ms;
        let (mut requests, mut inputs, mut events) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            tokio::select! {
                biased;
                _ = told.recv_many(&mut events, BATCH) => {}
                _ = self.wiring.inputs.recv_many(&mut inputs, BATCH) => {}
                _ = self.wiring.requests.recv_many(&mut requests, BATCH) => {}
                _ = ticks.tick() => {}
            }
            // One turn takes what is at hand everywhere: one write to the log, one message to each peer.
            take_more(&mut told, &mut events);
            take_more_bounded(&mut self.wiring.inputs, &mut inputs);
            take_more_bounded(&mut self.wiring.requests, &mut requests);
            self.lone = events.len() + inputs.len() + requests.len() == 1;
            let now = self.now_ms();
            for event in events.drain(..) {
                self.engine.handle(now, event);
            }
            for input in inputs.drain(..) {
                if matches!(input, Inputs::Halt) {
                    return Ok(());
                }
                self.take_input(now, input)?;
            }
            for request in requests.drain(..) {
                if let Some(event) = self.to_event(request) {
                    self.engine.handle(now, event);
                }
            }
            // A process that was stopped for a while ticks once, not for all of the time that it missed: it must first
            // hear what the others say.
            if now >= last_tick_ms + self.tick_ms() {
                last_tick_ms = now;
                self.engine.handle(now, Event::Tick);
                self.log_lane.tick();
                if now >= sweeps_ms {
                    sweeps_ms = now + SWEEP_INTERVAL_MS;
                    self.apply_lane.send(ApplyJob::Sweep);
                }
            }
            self.turn()?;
            self.wiring.turned_ms.store(now, Ordering::Relaxed);
            self.wiring.fresh_ms.store(self.engine.fresh_ms(), Ordering::Relaxed);
            if let Some(status) = self.engine.take_status() {
                gauges::set_engine(&self.wiring.metrics, &status);
                self.wiring.status.store(Arc::new(status));
            }
        }
    }

    fn now_ms(&self) -> u64 {
        ms(self.wiring.epoch.elapsed())
    }

    fn tick_ms(&self) -> u64 {
        ms(self.wiring.tick)
    }

    /// What the engine is to be told of a request; what it has no say in goes its way here.
    fn to_event(&self, request: Request) -> Option<Event<Live>> {
        let deadline = |at: Instant| ms(at.saturating_duration_since(self.wiring.epoch));
        Some(match request {
            Request::Write { command, repeatable, deadline: at, answer } => {
                Event::Write { ticket: answer, command, repeatable, deadline_ms: deadline(at) }
            }
            Request::Read { deadline: at, answer } => {
                Event::Read { ticket: answer, deadline_ms: deadline(at) }
            }
            Request::Admin { request, deadline: at, answer } => {
                Event::Admin { ticket: answer, request, deadline_ms: deadline(at) }
            }
            Request::Backup { answer } => {
                self.apply_lane.send(ApplyJob::BeginBackup { answer });
                return None;
            }
        })
    }

    fn take_input(&mut self, now: u64, input: Inputs) -> Result<(), String> {
        match input {
            Inputs::Messages(from, frames) => {
                for frame in frames {
                    match message::decode(frame) {
                        Ok(message) => self.engine.handle(now, Event::Message { from, message }),
                        Err(error) => tracing::warn!(peer = %from, %error, "a peer's message was refused"),
                    }
                }
            }
            Inputs::Bulk(from, frames, room) => {
                for frame in frames {
                    match SnapshotFrame::decode(frame) {
                        Ok(frame) => self.take_snapshot_frame(now, from, frame, &room)?,
                        Err(error) => {
                            tracing::warn!(peer = %from, %error, "a peer's snapshot frame was refused")
                        }
                    }
                }
            }
            Inputs::Connected(peer) => self.engine.handle(now, Event::Connected(peer)),
            Inputs::Disconnected(peer) => self.engine.handle(now, Event::Disconnected(peer)),
            Inputs::ToldRemoved(by) => self.engine.handle(now, Event::ToldRemoved { by }),
            Inputs::Space(space) => self.engine.handle(now, Event::Space(space)),
            Inputs::Stop => self.engine.handle(now, Event::Stop),
            Inputs::Halt => {}
        }
        Ok(())
    }

    fn take_snapshot_frame(
        &mut self,
        now: u64,
        from: NodeId,
        frame: SnapshotFrame,
        room: &Room,
    ) -> Result<(), String> {
        match frame {
            SnapshotFrame::Ask { term, offer } => {
                self.engine.handle(now, Event::SnapshotOffered { from, term, offer });
                self.turn()?; // the store hears of it before the chunks that follow
            }
            SnapshotFrame::Chunk { id, sequence, data } => {
                let _room = room.clone();
                self.apply_lane.send(ApplyJob::SnapshotChunk { from, id, sequence, data, _room });
            }
            SnapshotFrame::Answer(answer) => self.streams.answer(from, answer),
        }
        Ok(())
    }

    /// Ends a batch of events and carries the effects out, with what follows from them at once.
    fn turn(&mut self) -> Result<(), String> {
        loop {
            let effects = self.engine.finish();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.carry_out(effect)?;
            }
        }
        self.send_outgoing();
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect<Live>) -> Result<(), String> {
        match effect {
            Effect::Send { to, message } => self.outgoing.entry(to).or_default().push(message),
            Effect::Log(job) => {
                if let (true, LogJob::Persist { entries, .. }) = (self.engine.raft().is_leader(), &job)
                    && let Some(last) = entries.last()
                {
                    self.proposed.push_back((last.index, Instant::now()));
                }
                if self.lone && !self.engine.raft().is_leader() {
                    if let Some(token) = self.log_lane.try_persist(job)? {
                        self.engine.handle(self.now_ms(), Event::Persisted(token));
                    }
                } else {
                    self.log_lane.send(job);
                }
            }
            Effect::Apply(committed) => self.apply(committed)?,
            Effect::AnswerWrite(ticket, answer) => {
                let _ = ticket.send(answer); // a client that hung up is normal
            }
            Effect::AnswerRead(ticket, answer) => {
                let _ = ticket.send(answer);
            }
            Effect::AnswerAdmin(ticket, answer) => {
                let _ = ticket.send(answer);
            }
            Effect::SetPeers(peers) => self.wiring.hub.set_peers(peers),
            Effect::SetRemoved(nodes) => self.wiring.hub.set_removed(nodes),
            Effect::Removed { returned } => {
                let _ = self.wiring.removed.send(returned); // nobody looks while the process stops
            }
            Effect::BeginSnapshot { to } => self.apply_lane.send(ApplyJob::BeginSnapshot { to }),
            Effect::StreamSnapshot { to, term, meta } => self.streams.start(to, term, meta),
            Effect::DropSnapshot { to } => self.streams.drop_one(to),
            Effect::AnswerOffer { from, offer, decision } => {
                let id = offer.id;
                let answer = match decision {
                    OfferDecision::Accept => {
                        self.apply_lane.send(ApplyJob::ReceiveSnapshot { from, offer });
                        return Ok(());
                    }
                    OfferDecision::Held => Answer::Installed { id },
                    OfferDecision::Refuse => Answer::Refused { id },
                };
                self.wiring.hub.offer_bulk(from, SnapshotFrame::Answer(answer).encode());
            }
            Effect::HandedOver => {
                if let Some(handed_over) = self.handed_over.take() {
                    let _ = handed_over.send(());
                }
            }
        }
        Ok(())
    }

    /// Here and now as far as that needs no disk; the rest on the apply thread.
    fn apply(&mut self, committed: Vec<Committed<Live>>) -> Result<(), String> {
        self.observe_commit(&committed);
        let mut committed = VecDeque::from(committed);
        if let Some(applied) = self.apply_lane.try_apply(&mut committed)? {
            for (ticket, answer) in applied.answers {
                let _ = ticket.send(answer);
            }
            for (to, message) in applied.messages {
                self.outgoing.entry(to).or_default().push(message);
            }
            let event = Event::Applied { index: applied.index, outlook: applied.outlook };
            self.engine.handle(self.now_ms(), event);
        }
        if !committed.is_empty() {
            self.apply_lane.send(ApplyJob::Apply(committed));
        }
        Ok(())
    }

    /// These entries are committed: how long did that take?
    fn observe_commit(&mut self, committed: &[Committed<Live>]) {
        if !self.engine.raft().is_leader() {
            self.proposed.clear();
        }
        let Some(last) = committed.last().map(|committed| committed.entry.index) else { return };
        while let Some((_, since)) = self.proposed.pop_front_if(|(index, _)| *index <= last) {
            self.wiring.metrics.commit_seconds.observe(since.elapsed().as_secs_f64());
        }
    }

    /// Hands each peer its messages in one piece. What could not be queued is told to the engine, which tries again at
    /// its next turn where that makes sense.
    fn send_outgoing(&mut self) {
        let now = self.now_ms();
        for (to, messages) in std::mem::take(&mut self.outgoing) {
            let frames = messages.iter().map(message::encode).collect();
            if !self.wiring.hub.send(to, frames) {
                for message in messages {
                    self.engine.handle(now, Event::NotSent { to, message });
                }
            }
        }
    }
}

fn take_more(queue: &mut mpsc::UnboundedReceiver<Event<Live>>, into: &mut Vec<Event<Live>>) {
    while into.len() < BATCH
        && let Ok(event) = queue.try_recv()
    {
        into.push(event);
    }
}

fn take_more_bounded<M>(queue: &mut mpsc::Receiver<M>, into: &mut Vec<M>) {
    while into.len() < BATCH
        && let Ok(message) = queue.try_recv()
    {
        into.push(message);
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
