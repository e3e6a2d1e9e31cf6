//! The stages beside the engines: writes to logs, applying, flushes.

use super::*;

impl World {
    /// The engine gives its log something to do.
    pub(super) fn log_begins(&mut self, place: Place, job: LogJob) -> Result<(), Violation> {
        let id = self.nodes[place].id;
        self.oracle.disks.begins(id, &job);
        if let (LogJob::Persist { entries, .. }, Some(raft)) = (&job, self.nodes[place].raft()) {
            let before = entries.first().and_then(|first| raft.term_at(Index(first.index.0 - 1)));
            self.oracle.logs.appends(id, before, entries)?;
            self.oracle.logs.membership_is_right(raft)?;
        }
        self.process(place).log_queue.push_back(job);
        Ok(())
    }

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
        if let Some(Doom { power, time, .. }) =
            self.nodes[place].doomed.take_if(|doom| doom.at == Moment::Write)
        {
            return self.take_down(place, power, time);
        }
        let process = self.process(place);
        let mut jobs = std::mem::take(&mut process.log_running);
        if jobs.len() > 1 {
            self.report.saw("writes to the log in one");
        }
        let all = jobs.clone();
        match self.process(place).log.run(&mut jobs) {
            Ok(Progress { durable, full }) => {
                let id = self.nodes[place].id;
                let done =
                    |job: &&LogJob| matches!(job, LogJob::Persist { token, .. } if Some(*token) <= durable);
                all.iter().filter(done).for_each(|job| self.oracle.disks.ends(id, job));
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
            Err(error) => self.disk_failed(place, "the log fails", &error),
        }
    }

    /// An error that a fault explains ends the process; any other should not be.
    pub(super) fn disk_failed(
        &mut self,
        place: Place,
        what: &str,
        error: &dyn std::fmt::Display,
    ) -> Result<(), Violation> {
        match self.stops_for_its_disk(place)? {
            true => Ok(()),
            false => Err(Violation(format!("node {place}, on a sound disk: {what}: {error}"))),
        }
    }

    pub(super) fn log_idle(&mut self, place: Place, life: u64) -> Result<(), Violation> {
        if self.is_current(place, life)
            && self.process(place).log_running.is_empty()
            && let Err(error) = self.process(place).log.idle()
        {
            return self.disk_failed(place, "the log's end cannot be marked", &error);
        }
        Ok(())
    }

    pub(super) fn pump_apply(&mut self, place: Place) {
        let node = &mut self.nodes[place];
        let Some(process) = &mut node.process else { return };
        let waits = matches!(process.apply_queue.front(), Some(ApplyJob::Apply { .. }))
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
            ApplyJob::Apply { mut committed, in_memory } => {
                let process = self.process(place);
                let applied = if in_memory {
                    let applied = process.apply.apply_in_memory(&mut committed);
                    if !committed.is_empty() {
                        process.apply_queue.push_front(ApplyJob::Apply { committed, in_memory: false });
                    }
                    applied
                } else {
                    process.apply.apply(committed)
                };
                let applied = applied.map_err(|error| failed("apply fails", &error))?;
                self.process(place).incoming.handle_applied(applied.index);
                self.check_applied(place)?;
                for (ticket, answer) in applied.answers {
                    self.write_answered(ticket, answer)?;
                }
                for (to, message) in applied.messages {
                    self.send(place, to, message)?;
                }
                let (index, outlook) = (applied.index, applied.outlook);
                if outlook.wants_compaction.is_some() {
                    self.report.saw("history compaction wanted");
                }
                self.start_flush(place);
                self.give(place, Event::Applied { index, outlook })
            }
            ApplyJob::Flushed(index) => {
                if let Err(error) = self.process(place).apply.store_mut().handle_flushed(index) {
                    return self.disk_failed(place, "a flush fails", &error);
                }
                self.start_flush(place);
                self.give(place, Event::Flushed(balsa_raft::Index(index)))
            }
            ApplyJob::BeginSnapshot(to) => {
                let id = self.random.draw();
                let (now, cuts) = (self.now, self.cuts);
                let process = self.process(place);
                let begun = process.outgoing.entry(to).or_insert_with(|| {
                    let outgoing = Outgoing::new(id, process.apply.store().begin_snapshot());
                    Sending { outgoing, turn: 0, heard: now, cuts }
                });
                let index = begun.outgoing.index();
                self.report.saw("snapshot begun");
                self.trace.line(self.now, format_args!("node {place} begins a snapshot of {index} for {to}"));
                self.give(place, Event::SnapshotBegun { to, index })
            }
            ApplyJob::ReceiveSnapshot(from, offer) => {
                let process = self.process(place);
                let id = offer.id;
                let answer = match process.incoming.begin(process.apply.store(), from, offer) {
                    Ok(answer) => answer,
                    Err(error) if error.is_no_room() => process.incoming.refuse(id),
                    Err(error) => return Err(failed("a snapshot cannot be received", &error)),
                };
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
        let stale = meta.index.0 <= self.process(place).apply.store().applied_index();
        let id = self.nodes[place].id;
        if !stale {
            self.oracle.disks.keeps(id, meta.index.0);
        }
        let doomed = self.nodes[place].doomed.take_if(|doom| doom.at == Moment::Install && !stale);
        if doomed.is_some() {
            let nth = self.random.between(1, 9);
            self.nodes[place].disk.halt_at(nth);
        }
        let installed = self.process(place).apply.install(&meta, staged).map_err(|error| error.to_string());
        if let Some(Doom { power, time, .. }) = doomed {
            self.report.saw("down in an installation");
            return self.take_down(place, power, time);
        }
        let installed = match installed {
            Ok(installed) => installed,
            Err(_) if self.nodes[place].disk_is_full => {
                return self.take_down(place, false, 5 * SECOND); // it stops, as it should
            }
            Err(error) => return self.disk_failed(place, "a snapshot cannot be installed", &error),
        };
        if installed {
            self.trace.line(self.now, format_args!("node {place} installed a snapshot of {}", meta.index));
            self.report.saw("snapshot installed");
            self.check_applied(place)?;
            let store = self.process(place).apply.store();
            let (time_ms, outlook) = (store.time_ms(), store.outlook());
            self.give(place, Event::SnapshotInstalled { meta, time_ms, outlook })?;
        }
        Ok(())
    }

    pub(super) fn check_applied(&mut self, place: Place) -> Result<(), Violation> {
        let id = self.nodes[place].id;
        let Some(process) = &self.nodes[place].process else { return Ok(()) };
        let position = process.apply.store().position();
        self.oracle.relations_hold(process.engine.raft(), process.apply.store())?;
        self.oracle.applied(id, position.applied_index, position.digest)?;
        self.check_level(position.level())
    }

    /// The feature level is raised only once every member goes as far.
    fn check_level(&mut self, level: u32) -> Result<(), Violation> {
        if level <= self.level {
            return Ok(());
        }
        self.level = level;
        self.report.saw("feature level raised");
        let membership = &self.oracle.membership.1;
        let behind = |node: &&SimNode| node.feature_level < level && membership.is_member(node.id);
        match self.nodes.iter().find(behind) {
            Some(node) => Err(Violation(format!(
                "the feature level was raised to {level}, and {} reaches {}",
                node.id, node.feature_level
            ))),
            None => Ok(()),
        }
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
                self.process(place).log.set_takes_entries(true);
                self.process(place).apply_queue.push_front(ApplyJob::Flushed(index));
                self.pump_apply(place);
                Ok(())
            }
            Err(error) if error.is_no_room() => {
                self.report.saw("flush waits for a full disk");
                let process = self.process(place);
                process.log.set_takes_entries(false);
                process.flush = Some(job);
                self.plan(100 * MILLI, Happening::FlushDone { place, life });
                Ok(())
            }
            Err(error) => self.disk_failed(place, "a flush fails", &error),
        }
    }
}
