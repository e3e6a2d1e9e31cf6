//! Watchers: where they watch, when their connections break, and what they are told.

use super::*;
use balsa_node::engine::handle::ReadError;

/// Why a watcher had a read confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    /// It begins.
    Begin,
    /// It is to be told that it has everything.
    Progress,
}

/// A proof that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proving {
    watcher: usize,
    proof: Proof,
    /// What had ended when it began.
    floor: u64,
}

impl World {
    /// A watcher's next moment.
    pub(super) fn watcher_turn(&mut self, watcher: usize) -> Result<(), Violation> {
        let pause = self.watchers[watcher].random().between(50 * MILLI, 3 * SECOND);
        self.plan(pause, Happening::Watcher { watcher });
        let at = self.watchers[watcher].at.as_ref().map(|at| (at.place, at.life));
        let Some((place, life)) = at else {
            let places = self.nodes.len() as u64;
            let place = self.watchers[watcher].random().below(places) as Place;
            return self.prove(place, watcher, Proof::Begin);
        };
        if !self.is_current(place, life) {
            self.watchers[watcher].end(None);
            return Ok(());
        }
        if self.nodes[place].paused_until > self.now {
            return Ok(());
        }
        match self.watchers[watcher].random().below(100) {
            0..3 => {
                self.watch_ends(watcher);
                Ok(())
            }
            3..20 => self.prove(place, watcher, Proof::Progress),
            dice => {
                let steps = self.watchers[watcher].random().between(1, 40);
                let World { nodes, watchers, oracle, .. } = self;
                let Some(process) = &mut nodes[place].process else { return Ok(()) };
                let view = process.reader.view();
                if dice < 80 {
                    process.hub.follow(&view);
                }
                let walked = watchers[watcher].walk(&process.hub, &view, oracle.changes(), steps);
                self.walked(watcher, walked)
            }
        }
    }

    /// Asks a node's engine, as a read does.
    fn prove(&mut self, place: Place, watcher: usize, proof: Proof) -> Result<(), Violation> {
        if self.nodes[place].process.is_none() || self.nodes[place].paused_until > self.now {
            return Ok(());
        }
        self.next_ticket += 1;
        let (ticket, floor) = (self.next_ticket, self.oracle.floor());
        self.proofs.insert(ticket, Proving { watcher, proof, floor });
        let deadline_ms = self.nodes[place].clock_ms(self.now) + DEADLINE_MS;
        self.give(place, Event::Read { ticket, deadline_ms })
    }

    /// An engine's answer. Gives whether it was to a watcher.
    pub(super) fn proof_answered(
        &mut self,
        place: Place,
        ticket: u64,
        confirmed: &Result<(), ReadError>,
    ) -> Result<bool, Violation> {
        let Some(Proving { watcher, proof, floor }) = self.proofs.remove(&ticket) else { return Ok(false) };
        let life = self.nodes[place].life;
        let stands = self.watchers[watcher].at.as_ref();
        let is_for_it = match proof {
            Proof::Begin => stands.is_none(),
            Proof::Progress => stands.is_some_and(|at| (at.place, at.life) == (place, life)),
        };
        if !is_for_it {
            return Ok(true);
        }
        if confirmed.is_err() {
            self.report.saw("watch ended without a leader");
            self.watch_ends(watcher);
            return Ok(true);
        }
        let World { nodes, watchers, oracle, report, .. } = self;
        let Some(process) = &mut nodes[place].process else { return Ok(true) };
        let view = process.reader.view();
        if view.applied_index() < floor {
            let at = view.applied_index();
            return Err(Violation(format!(
                "a watcher is told of {at} as the newest, and {floor} had been seen"
            )));
        }
        match proof {
            Proof::Begin => {
                let has_begun = watchers[watcher].has_begun;
                let goes_on = watchers[watcher].begin(&mut process.hub, &view, place, life);
                match (has_begun, goes_on) {
                    (true, true) => report.saw("watch resumed"),
                    (true, false) => report.saw("watch compacted"),
                    (false, _) => {}
                }
                Ok(true)
            }
            Proof::Progress => {
                let walked = watchers[watcher].progress(&mut process.hub, &view, oracle.changes());
                report.saw("watch progress proven");
                self.walked(watcher, walked)?;
                Ok(true)
            }
        }
    }

    fn walked(
        &mut self,
        watcher: usize,
        walked: Result<crate::sim::watchers::Walked, balsa_check::watch::Wrong>,
    ) -> Result<(), Violation> {
        let walked = walked.map_err(|wrong| Violation(format!("watcher {watcher}: {wrong}")))?;
        self.report.saw_times("watch event", walked.revisions);
        self.report.saw_times("watch read history", walked.from_history);
        if walked.is_compacted {
            self.report.saw("watch compacted");
            self.watch_ends(watcher);
        }
        Ok(())
    }

    fn watch_ends(&mut self, watcher: usize) {
        let World { nodes, watchers, .. } = self;
        let hub = match &watchers[watcher].at {
            Some(at) if nodes[at.place].life == at.life => {
                nodes[at.place].process.as_mut().map(|process| &mut process.hub)
            }
            _ => None,
        };
        watchers[watcher].end(hub);
    }

    /// When all is quiet, all watchers get to the end.
    pub(super) fn watchers_must_agree(&mut self) -> Result<(), Violation> {
        for watcher in 0..self.watchers.len() {
            self.watch_ends(watcher);
            let running = self.nodes.iter().position(|node| node.process.is_some());
            let Some(place) = running else { return Ok(()) };
            let World { nodes, watchers, oracle, .. } = self;
            let life = nodes[place].life;
            let Some(process) = &mut nodes[place].process else { return Ok(()) };
            let view = process.reader.view();
            watchers[watcher].begin(&mut process.hub, &view, place, life);
            let walked = watchers[watcher].progress(&mut process.hub, &view, oracle.changes());
            self.walked(watcher, walked)?;
        }
        Ok(())
    }
}
