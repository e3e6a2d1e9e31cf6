//! Nodes: their starts and ends, their turns, what they say to one another.

use super::*;

impl World {
    pub(super) fn start(&mut self, place: Place) -> Result<(), Violation> {
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
    pub(super) fn stop_process(&mut self, place: Place) -> Result<(), Violation> {
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

    pub(super) fn is_current(&self, place: Place, life: u64) -> bool {
        self.nodes[place].life == life && self.nodes[place].process.is_some()
    }

    /// Postpones what would happen to a stopped process. True: it was postponed.
    pub(super) fn postponed(&mut self, place: Place, what: Happening) -> Option<Happening> {
        let until = self.nodes[place].paused_until;
        if until > self.now {
            let jitter = self.random.below(MILLI);
            self.plan(until - self.now + jitter, what);
            return None;
        }
        Some(what)
    }

    pub(super) fn process(&mut self, place: Place) -> &mut Process {
        match &mut self.nodes[place].process {
            Some(process) => process,
            None => unreachable!("events of an ended process are void"),
        }
    }

    pub(super) fn give(&mut self, place: Place, event: Event<Sim>) -> Result<(), Violation> {
        let now_ms = self.nodes[place].clock_ms(self.now);
        self.process(place).engine.handle(now_ms, event);
        self.turn(place)
    }

    pub(super) fn turn(&mut self, place: Place) -> Result<(), Violation> {
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

    pub(super) fn tick(&mut self, place: Place, life: u64) -> Result<(), Violation> {
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

    pub(super) fn arrives(
        &mut self,
        from: Place,
        to: Place,
        life: u64,
        frame: Bytes,
    ) -> Result<(), Violation> {
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

    pub(super) fn carry_out(&mut self, place: Place, effect: Effect<Sim>) -> Result<(), Violation> {
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
            Effect::SetRemoved(_) => Ok(()),
            Effect::Removed { .. } => Err(Violation("a member was told that it was removed".to_string())),
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

    pub(super) fn place_of(&self, id: NodeId) -> Option<Place> {
        self.nodes.iter().position(|node| node.id == id)
    }

    pub(super) fn send(&mut self, place: Place, to: NodeId, message: PeerMessage) -> Result<(), Violation> {
        if let PeerMessage::Raft(raft) = &message
            && let Body::VoteReply { granted: true } = raft.body
        {
            self.oracle.votes(raft.from, raft.term, raft.to)?;
            if let Some(Doom { power, time, .. }) = self.nodes[place].doomed.take_if(|doom| doom.at_vote) {
                self.report.saw("down just after a vote");
                self.ends_after(0, move |world| world.take_down(place, power, time))?;
            }
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
}
