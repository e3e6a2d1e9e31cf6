//! The end: the faults stop, a random quorum heals and must make progress; then the rest heals, and all must agree.

use super::*;

impl World {
    /// No more faults; all that is broken is mended. Some nodes stay down that a quorum can do without.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.all_doomed = None;
        self.trace.line(self.now, format_args!("the faults end"));
        self.network.heal();
        self.uneasy = true;
        self.network.weather = Weather::fair();
        self.failing.clear();
        for place in 0..self.nodes.len() {
            self.nodes[place].paused_until = 0;
            self.nodes[place].disk_delay = self.settings.disk_delay;
            self.nodes[place].free_disk();
            self.nodes[place].doomed = None;
            self.nodes[place].disk.clear_faults();
            self.nodes[place].state.heal();
            if self.random.chance(500) && self.may_be_absent(place) {
                self.trace.line(self.now, format_args!("node {place} stays down"));
                let power = self.random.chance(500);
                self.take_down(place, power, 0)?;
                self.absent.insert(place);
            }
        }
        if !self.absent.is_empty() {
            self.report.saw("only a quorum healed");
        }
        (0..self.nodes.len()).try_for_each(|place| self.start_if_down(place))
    }

    /// The rest heals.
    pub(super) fn heal_rest(&mut self) -> Result<(), Violation> {
        self.absent.clear();
        self.trace.line(self.now, format_args!("all nodes may run"));
        (0..self.nodes.len()).try_for_each(|place| self.start_if_down(place))
    }

    /// Whether every set of voters that may have to decide can do without this node, those that are absent already, and
    /// those whose disks are gone, or rotten.
    fn may_be_absent(&self, place: Place) -> bool {
        let absent = self.absent.iter().chain([&place]).map(|place| self.nodes[*place].id);
        let absent: BTreeSet<NodeId> = absent.collect();
        self.nodes[place].standing == Standing::Running && self.survive_without(&absent)
    }

    /// Liveness: each client completes an operation that it began now.
    pub(super) fn must_progress(&mut self) -> Result<(), Violation> {
        let (deadline, before) = (self.now + HEALED_WITHIN, self.report.operations);
        let committed = self.oracle.committed_index();
        let enough = before + self.clients.len() as u64;
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
    pub(super) fn must_agree(&mut self) -> Result<(), Violation> {
        let deadline = self.now + AGREED_WITHIN;
        self.quiet = true;
        loop {
            self.tidy_up()?;
            let committed = self.oracle.committed_index();
            let membership = &self.oracle.membership.1;
            let applied = |node: &SimNode| match &node.process {
                Some(process) => process.apply.store().applied_index() == committed,
                None => !membership.is_member(node.id),
            };
            let idle = self.clients.iter().all(|client| client.under_way.is_none());
            if idle && self.is_settled() && self.nodes.iter().all(applied) {
                break;
            }
            if self.now > deadline {
                let states: Vec<String> = self
                    .nodes
                    .iter()
                    .map(|node| match &node.process {
                        Some(process) => format!("{:?}", process.engine.raft().status()),
                        None => format!("{}: {:?}, down", node.id, node.standing),
                    })
                    .collect();
                return Err(Violation(format!("the nodes do not converge at {committed}: {states:#?}")));
            }
            self.step()?;
        }
        for place in 0..self.nodes.len() {
            let Some(process) = &self.nodes[place].process else { continue };
            let view = process.reader.view();
            self.oracle.all_values_are_right(&view)?;
            self.check_applied(place)?;
        }
        self.watchers_must_agree()
    }
}
