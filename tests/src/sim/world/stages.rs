//! The stages beside the engines: writes to logs, applying, flushes.

use super::*;

impl World {
    pub(super) fn pump_log(&mut self, place: Place) {
        let node = &mut self.nodes[place];
        let Some(process) = &mut node.process else { return };
        if process.log_running.is_empty() && !process.log_queue.is_empty() {
            process.log_running = std::mem::take(&mut process.log_queue);
            let (low, high) = node.disk_delay;
            let (delay, life) = (self.random.between(low, high), node.life);
            self.plan(delay, Happening::LogDone { place, life });
        }
    }

    pub(super) fn log_done(&mut self, place: Place, life: u64) -> Result<(), Violation> {
        if !self.is_current(place, life) {
            return Ok(());
        }
        let Some(_) = self.postponed(place, Happening::LogDone { place, life }) else { return Ok(()) };
        if let Some(Doom { power, time, .. }) = self.nodes[place].doomed.take_if(|doom| !doom.at_vote) {
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

    pub(super) fn log_idle(&mut self, place: Place, life: u64) -> Result<(), Violation> {
        if self.is_current(place, life) && self.process(place).log_running.is_empty() {
            let idled = self.process(place).log.idle();
            idled.map_err(|error| {
                Violation(format!("the log of node {place} fails on a sound disk: {error}"))
            })?;
        }
        Ok(())
    }

    pub(super) fn pump_apply(&mut self, place: Place) {
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

    pub(super) fn apply_done(&mut self, place: Place, life: u64) -> Result<(), Violation> {
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

    pub(super) fn apply_job(&mut self, place: Place, job: ApplyJob) -> Result<(), Violation> {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| Violation(format!("node {place}: {what}: {error}"));
        match job {
            ApplyJob::Apply(entries, origins) => {
                let applied = self.process(place).apply.apply::<Sim>(entries, origins);
                let applied = applied.map_err(|error| failed("apply fails", &error))?;
                self.process(place).incoming.handle_applied(applied.index);
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
                let id = self.random.draw();
                let now = self.now;
                let process = self.process(place);
                let begun = process.outgoing.entry(to).or_insert_with(|| {
                    let outgoing = Outgoing::new(id, process.apply.store().begin_snapshot());
                    Sending { outgoing, turn: 0, heard: now }
                });
                let index = begun.outgoing.index();
                self.report.saw("snapshot begun");
                self.trace.line(self.now, format_args!("node {place} begins a snapshot of {index} for {to}"));
                self.give(place, Event::SnapshotBegun { to, index })
            }
            ApplyJob::ReceiveSnapshot(from, offer) => {
                let process = self.process(place);
                let begun = process.incoming.begin(process.apply.store(), from, offer);
                let answer = begun.map_err(|error| failed("a snapshot cannot be received", &error))?;
                self.say(place, from, answer);
                Ok(())
            }
            ApplyJob::Chunk(from, id, sequence, data) => {
                match self.process(place).incoming.take(from, id, sequence, &data) {
                    Taken::Added | Taken::Ignored => Ok(()),
                    Taken::Not(answer, _) => {
                        self.report.saw("snapshot chunk not taken");
                        self.say(place, from, answer);
                        Ok(())
                    }
                    Taken::Whole(staged, meta) => {
                        let life = self.nodes[place].life;
                        self.install(place, staged, meta)?;
                        if self.is_current(place, life) {
                            self.say(place, from, snapshot_frame::Answer::Installed { id });
                        }
                        Ok(())
                    }
                }
            }
        }
    }

    pub(super) fn install(
        &mut self,
        place: Place,
        staged: StagedSnapshot,
        meta: SnapshotMeta,
    ) -> Result<(), Violation> {
        let failed =
            |error: &dyn std::fmt::Display| Violation(format!("node {place} cannot install: {error}"));
        let installed = self.process(place).apply.install(&meta, staged);
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

    pub(super) fn check_applied(&mut self, place: Place) -> Result<(), Violation> {
        let id = self.nodes[place].id;
        let position = self.process(place).apply.store().position();
        self.oracle.applied(id, position.applied_index, position.digest)
    }

    pub(super) fn start_flush(&mut self, place: Place) {
        let process = self.process(place);
        if process.flush.is_none()
            && let Some(job) = process.apply.maybe_flush()
        {
            process.flush = Some(job);
            let (delay, life) = (self.random.between(MILLI, 80 * MILLI), self.nodes[place].life);
            self.plan(delay, Happening::FlushDone { place, life });
        }
    }

    pub(super) fn flush_done(&mut self, place: Place, life: u64) -> Result<(), Violation> {
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
}
