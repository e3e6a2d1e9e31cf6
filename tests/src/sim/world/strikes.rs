//! Faults strike, and end.

use super::*;

impl World {
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
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

    pub(super) fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        let all = 0..self.nodes.len();
        match fault {
            Fault::Kill(place, time) | Fault::PowerLoss(place, time) => {
                let power = matches!(fault, Fault::PowerLoss(..));
                if self.random.chance(600) && self.nodes[place].process.is_some() {
                    let at_vote = self.random.chance(300);
                    self.nodes[place].doomed = Some(Doom { power, time, at_vote });
                    return Ok(());
                }
                self.take_down(place, power, time)
            }
            Fault::PowerLossOfAll(time) => {
                if self.random.chance(700) {
                    self.all_doomed = Some(time); // just after the next acknowledgement
                    return Ok(());
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

    pub(super) fn take_all_down(&mut self, time: Micros) -> Result<(), Violation> {
        for place in 0..self.nodes.len() {
            let time = time + self.random.below(2 * SECOND);
            self.take_down(place, true, time)?;
        }
        Ok(())
    }

    /// Ends a process: by a kill, or by a loss of power, which may come in the middle of what the log was writing.
    pub(super) fn take_down(&mut self, place: Place, power: bool, time: Micros) -> Result<(), Violation> {
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

    pub(super) fn heal_links_after(&mut self, time: Micros) -> Result<(), Violation> {
        self.ends_after(time, |world| {
            world.network.heal();
            world.trace.line(world.now, format_args!("links healed"));
            Ok(())
        })
    }

    pub(super) fn mend_disk_after(&mut self, place: Place, time: Micros) -> Result<(), Violation> {
        self.ends_after(time, move |world| {
            world.nodes[place].disk_delay = (100, 1_500);
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
