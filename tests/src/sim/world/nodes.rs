//! Nodes: their starts and ends, their turns, what they say to one another.

use super::*;

impl World {
    /// Starts the process at a place, if there is one to start.
    pub(super) fn start_if_down(&mut self, place: Place) -> Result<(), Violation> {
        let node = &self.nodes[place];
        if node.standing != Standing::Running || node.process.is_some() || self.absent.contains(&place) {
            return Ok(());
        }
        if node.knows_removal {
            self.report.saw("removed node set its disk aside");
            self.nodes[place].clear();
            return Ok(());
        }
        let seed = self.random.draw();
        let node = &mut self.nodes[place];
        node.paused_until = 0;
        let torn = match node.start(place, &self.settings, seed, self.now) {
            Ok(torn) => torn,
            Err(error) => return self.start_refused(place, error),
        };
        let (id, life) = (node.id, node.life);
        if self.rotten.remove(&place) {
            self.report.saw("rot that did no harm");
        }
        if torn > 0 {
            self.report.saw("torn tail");
        }
        self.trace.line(self.now, format_args!("node {place} starts as {id}, life {life}, torn tail {torn}"));
        if let Some(raft) = self.nodes[place].raft() {
            self.oracle.disks.starts(raft)?;
        }
        self.check_applied(place)?;
        self.uneasy = true;
        let interval = self.nodes[place].tick_interval();
        self.plan(interval, Happening::Tick { place, life });
        self.turn(place)
    }

    /// Ends a process. Its clients lose their connections.
    pub(super) fn stop_process(&mut self, place: Place) -> Result<(), Violation> {
        self.uneasy = true;
        let node = &mut self.nodes[place];
        if let Some(process) = node.process.take() {
            let raft = process.engine.raft();
            node.last_membership = (raft.membership_index(), Arc::clone(raft.membership()));
        }
        node.life += 1;
        node.doomed = None;
        for change in self.network.process_ended(place) {
            self.connection_changed(change)?;
        }
        self.connections_broke(place)
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
        self.look_at(place)?;
        self.pump_log(place);
        self.pump_apply(place);
        Ok(())
    }

    /// What the oracle looks at after each turn.
    fn look_at(&mut self, place: Place) -> Result<(), Violation> {
        let node = &mut self.nodes[place];
        let Some(process) = &mut node.process else { return Ok(()) };
        let raft = process.engine.raft();
        let commit = raft.commit_index();
        let committed = commit > std::mem::replace(&mut process.commit_seen, commit);
        let before = std::mem::replace(&mut process.membership_seen, Arc::clone(raft.membership()));
        if !raft.is_leader() {
            return Ok(());
        }
        let term = raft.term();
        if self.oracle.leads(node.id, raft)? {
            self.trace.line(self.now, format_args!("node {place} leads term {term}"));
            self.report.saw("election won");
            if raft.membership().is_joint() {
                self.report.saw("election won while joint");
            }
        }
        if committed {
            self.oracle.disks.committed(raft, commit, &before)?;
        }
        if raft.membership().is_joint()
            && let Some(time) = self.joint_doomed.take()
        {
            self.report.saw("leader down while joint");
            let power = self.random.chance(500);
            self.ends_after(0, move |world| world.take_down(place, power, time))?;
        }
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
        let now_ms = self.nodes[place].clock_ms(self.now);
        if let Some(space) = self.nodes[place].space() {
            self.process(place).engine.handle(now_ms, Event::Space(space));
        }
        self.give(place, Event::Tick)
    }

    pub(super) fn arrives(
        &mut self,
        from: NodeId,
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
        self.trace.mark(self.now, from.0 << 16 ^ (to as u64) << 60 ^ frame.len() as u64);
        let message = match message::decode(frame) {
            Ok(message) => message,
            Err(error) => return Err(Violation(format!("a message cannot be decoded: {error}"))),
        };
        self.give(to, Event::Message { from, message })
    }

    pub(super) fn carry_out(&mut self, place: Place, effect: Effect<Sim>) -> Result<(), Violation> {
        match effect {
            Effect::Send { to, message } => self.send(place, to, message),
            Effect::Log(job) => self.log_begins(place, job),
            Effect::Apply(committed) => {
                let id = self.nodes[place].id;
                self.oracle.committed(id, committed.iter().map(|committed| &committed.entry))?;
                // Both ways get their share, and no draw of its own decides.
                let in_memory = committed.first().is_some_and(|first| first.entry.index.0.is_multiple_of(2));
                let job = ApplyJob::Apply { committed: committed.into(), in_memory };
                self.process(place).apply_queue.push_back(job);
                Ok(())
            }
            Effect::AnswerWrite(ticket, answer) => self.write_answered(ticket, answer),
            Effect::AnswerRead(ticket, answer) => self.read_answered(place, ticket, answer),
            Effect::AnswerAdmin(ticket, answer) => self.admin_answered(ticket, answer),
            Effect::SetPeers(peers) => {
                self.uneasy = true;
                self.process(place).peers = Some(peers.into_iter().map(|(id, _)| id).collect());
                Ok(())
            }
            Effect::SetRemoved(nodes) => {
                self.uneasy = true;
                self.process(place).refuses = nodes.into_iter().collect();
                Ok(())
            }
            Effect::Removed { returned } => self.removal_known(place, returned),
            Effect::BeginSnapshot { to } => {
                self.process(place).apply_queue.push_back(ApplyJob::BeginSnapshot(to));
                Ok(())
            }
            Effect::StreamSnapshot { to, term, meta } => self.stream(place, to, term, meta),
            Effect::DropSnapshot { to } => {
                self.process(place).outgoing.remove(&to);
                Ok(())
            }
            Effect::AnswerOffer { from, offer, decision } => {
                self.trace.line(
                    self.now,
                    format_args!(
                        "node {place} is offered a snapshot of {} by {from}: {decision:?}",
                        offer.meta.index
                    ),
                );
                let id = offer.id;
                match decision {
                    OfferDecision::Accept => {
                        if self.nodes[place].doomed.is_none() && !self.calm && self.random.chance(150) {
                            let (power, time) = (self.random.chance(700), self.random.below(3 * SECOND));
                            self.nodes[place].doomed = Some(Doom { power, time, at: Moment::Install });
                        }
                        self.process(place).apply_queue.push_back(ApplyJob::ReceiveSnapshot(from, offer));
                    }
                    OfferDecision::Held => self.say(place, from, snapshot_frame::Answer::Installed { id }),
                    OfferDecision::Refuse => self.say(place, from, snapshot_frame::Answer::Refused { id }),
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
        self.nodes.iter().position(|node| node.id == id && id != NodeId(0))
    }

    pub(super) fn send(&mut self, place: Place, to: NodeId, message: PeerMessage) -> Result<(), Violation> {
        if let PeerMessage::Raft(raft) = &message
            && let Some(sender) = self.nodes[place].raft()
        {
            let votes = self.oracle.disks.sends(sender, raft)?;
            let moment = match raft.body {
                _ if votes => Some(Moment::Vote),
                Body::AppendAccepted { .. } => Some(Moment::Acknowledgement),
                _ => None,
            };
            let doomed = self.nodes[place].doomed.take_if(|doom| Some(doom.at) == moment);
            if let Some(Doom { power, time, .. }) = doomed {
                self.report.saw(if votes {
                    "down just after a vote"
                } else {
                    "down just after an acknowledgement"
                });
                let life = self.nodes[place].life;
                self.ends_after(0, move |world| match world.nodes[place].life == life {
                    true => world.take_down(place, power, time),
                    false => Ok(()),
                })?;
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
                let (from, life) = (self.nodes[place].id, self.nodes[target].life);
                let frame = message::encode(&message);
                for at in arrivals {
                    let arrives = Happening::Arrives { from, to: target, life, frame: frame.clone() };
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
