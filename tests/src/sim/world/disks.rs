//! What befalls disks: failing calls, rot, and the refusal to start that must follow.

use super::*;
use balsa_node::engine::boot::BootError;

impl World {
    /// One of the next calls to a disk fails. A running process stops at that; one that starts does not get up.
    pub(super) fn fail_call(&mut self, place: Place, time: Micros) {
        let nth = self.random.between(1, 30);
        let node = &mut self.nodes[place];
        node.disk.fail_at(nth);
        if self.random.chance(300) {
            node.state.fail_after(nth % 6);
        }
        self.failing.insert(place, time);
    }

    /// Whether an error of a node's disk is what a fault asked for; if so the node goes down, as it should.
    pub(super) fn stops_for_its_disk(&mut self, place: Place) -> Result<bool, Violation> {
        let asked = self.failing.remove(&place);
        if let Some(time) = asked {
            self.report.saw("stopped for a failed call");
            let power = self.random.chance(500);
            self.take_down(place, power, time)?;
        }
        Ok(asked.is_some())
    }

    /// A node stops in order, which marks the end of its log; then something of it rots. Nothing of that may be taken for
    /// a torn write: it refuses to start, or nothing is missing.
    pub(super) fn rot(&mut self, place: Place, time: Micros) -> Result<bool, Violation> {
        let waits = self.nodes[place].process.as_ref().is_none_or(|process| !process.log_running.is_empty());
        if waits || self.nodes[place].disk_is_full || !self.may_destroy(place) {
            return Ok(false);
        }
        self.take_down_in_order(place, time)?;
        let node = &mut self.nodes[place];
        let paths = node.disk.paths();
        if paths.is_empty() {
            return Ok(false);
        }
        let path = self.random.pick(&paths).clone();
        let bytes = node.disk.contents(&path).unwrap_or_default();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        if used == 0 {
            return Ok(false);
        }
        let at = self.random.below(used);
        if self.random.chance(700) {
            node.disk.flip_bit(&path, at, self.random.below(8) as u8);
        } else {
            let (from, mut rotten) = ((at / 512 * 512) as usize, bytes);
            let to = (from + 512).min(rotten.len());
            rotten[from..to].fill(0);
            node.disk.edit(&path, &rotten);
        }
        self.trace.line(self.now, format_args!("node {place}: {} rots at {at}", path.display()));
        self.rotten.insert(place);
        Ok(true)
    }

    /// A node does not start. Where a fault is to blame, that is right.
    pub(super) fn start_refused(&mut self, place: Place, error: BootError) -> Result<(), Violation> {
        if let Some(time) = self.failing.remove(&place) {
            self.report.saw("start failed for a failed call");
            self.trace.line(self.now, format_args!("node {place} does not start: {error}"));
            let node = &mut self.nodes[place];
            node.disk.crash();
            node.disk.clear_faults();
            node.state.crash();
            let life = node.life;
            self.plan(time.min(5 * SECOND), Happening::Start { place, life });
            return Ok(());
        }
        if self.rotten.remove(&place) {
            self.report.saw("refused to start on a rotten disk");
            self.trace.line(self.now, format_args!("node {place} refuses to start: {error}"));
            return self.replace(place);
        }
        Err(Violation(format!("node {place} does not start: {error}")))
    }
}
