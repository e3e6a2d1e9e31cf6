//! Faults strike, and end.

use super::*;

impl World {
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let pause = self.climate.pause();
        self.plan(pause, Happening::Fault);
        // What cannot strike now makes room for another.
        for _ in 0..8 {
            let fault = self.climate.next(self.nodes.len());
            let (kind, words) = (fault.kind(), format!("{fault:?}"));
            let down = matches!(fault, Fault::Kill(..) | Fault::PowerLoss(..) | Fault::PowerLossOfAll(_));
            // A leader that is cut off, or stopped for a while, must be read from while another leads.
            let apart = matches!(
                fault,
                Fault::Split(..) | Fault::Mute(..) | Fault::Deaf(..) | Fault::CutLinks(..) | Fault::Pause(..)
            );
            if self.strike(fault)? {
                self.trace.line(self.now, format_args!("fault {words}"));
                self.report.faults[kind] += 1;
                if self.random.chance(if down || apart { 600 } else { 300 }) {
                    let longest = if apart { 2_500 * MILLI } else { 900 * MILLI };
                    let length = self.random.between(100 * MILLI, longest);
                    self.rush(length);
                }
                break;
            }
        }
        Ok(())
    }

    /// For a while all clients hurry.
    fn rush(&mut self, length: Micros) {
        self.rush_until = self.now + length;
        for client in 0..self.clients.len() {
            if self.clients[client].under_way.is_none() {
                self.next_turn(client);
            }
        }
    }

    /// Gives whether anything was struck.
    pub(super) fn strike(&mut self, fault: Fault) -> Result<bool, Violation> {
        let all = 0..self.nodes.len();
        match fault {
            Fault::ScaleOut => return Ok(self.scale_out()),
            Fault::ScaleIn(place) => return Ok(self.remove(place)),
            Fault::RemoveLeader => match self.leader() {
                Some(place) => return Ok(self.remove(place)),
                None => return Ok(false),
            },
            Fault::Wipe(place) => return self.wipe(place),
            Fault::Rot(place, time) => return self.rot(place, time),
            Fault::Kill(place, _)
            | Fault::PowerLoss(place, _)
            | Fault::Pause(place, _)
            | Fault::SlowDisk(place, _)
            | Fault::StalledDisk(place, _)
            | Fault::FullDisk(place, _)
            | Fault::FailedCall(place, _)
            | Fault::Restart(place, _)
            | Fault::ClockRate(place, _)
            | Fault::ClockJump(place, _)
                if self.nodes[place].standing != Standing::Running =>
            {
                return Ok(false);
            }
            _ => {}
        }
        match fault {
            Fault::Kill(place, time) | Fault::PowerLoss(place, time) => {
                let power = matches!(fault, Fault::PowerLoss(..));
                if self.random.chance(700) && self.nodes[place].process.is_some() {
                    let moments = [
                        Moment::Write,
                        Moment::Write,
                        Moment::Vote,
                        Moment::Install,
                        Moment::Acknowledgement,
                    ];
                    let at = *self.random.pick(&moments);
                    self.nodes[place].doomed = Some(Doom { power, time, at });
                    return Ok(true);
                }
                self.take_down(place, power, time)
            }
            Fault::PowerLossOfAll(time) => {
                if self.random.chance(700) {
                    self.all_doomed = Some(time); // just after the next acknowledgement
                    return Ok(true);
                }
                self.take_all_down(time)
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
            Fault::ClogLinks(mask, time) => {
                for (nth, (from, to)) in pairs(self.nodes.len()).enumerate() {
                    if mask >> (nth % 64) & 1 == 1 {
                        self.network.clog(from, to, self.now + time);
                    }
                }
                Ok(())
            }
            Fault::CutSnapshots => {
                self.cuts += 1;
                Ok(())
            }
            Fault::FailedCall(place, time) => {
                self.fail_call(place, time);
                Ok(())
            }
            Fault::ClockJump(place, ahead) => {
                let (now, rate) = (self.now, self.nodes[place].clock.rate);
                self.nodes[place].clock.change(now, rate, ahead);
                Ok(())
            }
            Fault::Storm(time) => {
                self.network.weather = self.climate.storm();
                self.ends_after(time, |world| {
                    world.network.weather = Weather::fair();
                    Ok(())
                })
            }
            Fault::SlowDisk(place, time) => {
                self.nodes[place].disk_delay = (10 * MILLI, 120 * MILLI);
                self.mend_disk_after(place, time)
            }
            Fault::StalledDisk(place, time) => {
                self.nodes[place].disk_delay = (time, time + SECOND);
                self.mend_disk_after(place, MILLI.max(time / 2))
            }
            Fault::FullDisk(place, time) => {
                let (room, store_too) = (self.random.below(200 << 10), self.random.chance(500));
                let node = &mut self.nodes[place];
                node.disk_is_full = true;
                node.disk.set_capacity(Some(node.disk.used_bytes() + room));
                node.state.set_full(store_too);
                self.ends_after(time, move |world| {
                    world.nodes[place].free_disk();
                    Ok(())
                })
            }
            Fault::Transfer => {
                let Some(place) = self.leader().filter(|place| self.nodes[*place].paused_until <= self.now)
                else {
                    return Ok(false);
                };
                let deadline_ms = self.nodes[place].clock_ms(self.now) + 2_000;
                let request = AdminRequest::TransferLeadership { to: None };
                self.give(place, Event::Admin { ticket: TRANSFER_TICKET, request, deadline_ms })
            }
            Fault::Restart(place, time) => {
                if self.nodes[place].process.is_none() || self.nodes[place].paused_until > self.now {
                    return Ok(false);
                }
                self.give(place, Event::Stop)?;
                let life = self.nodes[place].life;
                self.ends_after(SECOND, move |world| {
                    if world.is_current(place, life) {
                        // Often as the newer build, as in a rolling upgrade.
                        let node = &mut world.nodes[place];
                        if node.feature_level < FEATURE_LEVEL && world.random.chance(500) {
                            node.feature_level = FEATURE_LEVEL;
                            world.report.saw("restarted as a newer build");
                        }
                        return world.take_down_in_order(place, time);
                    }
                    Ok(())
                })
            }
            Fault::ClockRate(place, rate) => {
                let now = self.now;
                self.nodes[place].clock.change(now, rate, 0);
                Ok(())
            }
            Fault::ScaleOut | Fault::ScaleIn(_) | Fault::RemoveLeader | Fault::Wipe(_) | Fault::Rot(..) => {
                Ok(())
            } // struck above
        }?;
        Ok(true)
    }

    fn leader(&self) -> Option<Place> {
        self.nodes.iter().position(|node| node.raft().is_some_and(|raft| raft.is_leader()))
    }

    pub(super) fn take_all_down(&mut self, time: Micros) -> Result<(), Violation> {
        for place in 0..self.nodes.len() {
            let time = time + self.random.below(2 * SECOND);
            if self.nodes[place].standing == Standing::Running {
                self.take_down(place, true, time)?;
            }
        }
        Ok(())
    }

    /// Ends a process: by a kill, or by a loss of power, which may come in the middle of what the log was writing.
    pub(super) fn take_down(&mut self, place: Place, power: bool, time: Micros) -> Result<(), Violation> {
        let node = &mut self.nodes[place];
        if let Some(process) = &mut node.process {
            let mut jobs = std::mem::take(&mut process.log_running);
            // What waits may be taken along: a larger batch.
            if jobs.is_empty() || self.random.chance(500) {
                jobs.append(&mut process.log_queue);
            }
            if !jobs.is_empty() {
                // A call asks for room, one writes, one syncs; a new segment takes some more. Mostly it ends with all written
                // and nothing synced: then the sectors of a batch may be kept or lost, each by itself.
                let call = if self.random.chance(600) { 3 } else { self.random.between(2, 6) };
                node.disk.halt_at(call);
                let _ = process.log.run(&mut jobs); // it does not matter how far it got
                self.report.saw(if power { "power lost in a write" } else { "killed in a write" });
            }
        } else if !power {
            return Ok(());
        }
        self.trace.line(self.now, format_args!("node {place} goes down, power lost: {power}"));
        self.stop_process(place)?;
        self.failing.remove(&place);
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

    /// Ends a process as SIGTERM does: its log is written out, and its end is marked.
    pub(super) fn take_down_in_order(&mut self, place: Place, time: Micros) -> Result<(), Violation> {
        if let Some(process) = &mut self.nodes[place].process {
            let mut jobs = std::mem::take(&mut process.log_running);
            jobs.append(&mut process.log_queue);
            let ended = process.log.run(&mut jobs).map(|progress| progress.full);
            let marked = ended.and_then(|full| if full { Ok(()) } else { process.log.idle() });
            if let Err(error) = marked {
                return self.disk_failed(place, "the log cannot be ended", &error);
            }
        }
        self.take_down(place, false, time)
    }

    pub(super) fn heal_links_after(&mut self, time: Micros) -> Result<(), Violation> {
        self.ends_after(time, |world| {
            world.network.heal();
            world.uneasy = true;
            world.trace.line(world.now, format_args!("links healed"));
            Ok(())
        })
    }

    pub(super) fn mend_disk_after(&mut self, place: Place, time: Micros) -> Result<(), Violation> {
        self.ends_after(time, move |world| {
            world.nodes[place].disk_delay = world.settings.disk_delay;
            Ok(())
        })
    }

    pub(super) fn ends_after(
        &mut self,
        time: Micros,
        end: impl FnOnce(&mut World) -> Result<(), Violation> + 'static,
    ) -> Result<(), Violation> {
        self.plan(time, Happening::FaultEnds(Box::new(end)));
        Ok(())
    }

    pub(super) fn resume(&mut self, place: Place) -> Result<(), Violation> {
        if self.nodes[place].paused_until <= self.now {
            self.nodes[place].paused_until = 0;
        }
        Ok(())
    }
}

fn pairs(nodes: usize) -> impl Iterator<Item = (Place, Place)> {
    (0..nodes).flat_map(move |from| (0..nodes).filter(move |to| *to != from).map(move |to| (from, to)))
}
