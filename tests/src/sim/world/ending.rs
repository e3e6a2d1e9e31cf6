//! The end: everything heals, the cluster must make progress, and all nodes must agree.

use super::*;

impl World {
    /// No more faults; all that is broken is mended.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.all_doomed = None;
        self.trace.line(self.now, format_args!("the faults end"));
        self.network.heal();
        self.network.weather = Weather::fair();
        self.failing.clear();
        for place in 0..self.nodes.len() {
            self.nodes[place].paused_until = 0;
            self.nodes[place].disk_delay = self.settings.disk_delay;
            self.nodes[place].free_disk();
            self.nodes[place].doomed = None;
            self.nodes[place].disk.clear_faults();
            self.nodes[place].state.heal();
            self.start_if_down(place)?;
        }
        Ok(())
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
        Ok(())
    }
}
