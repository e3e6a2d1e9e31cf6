//! Connections between nodes: which stand, which break.

use super::*;

impl World {
    pub(super) fn review(&mut self) -> Result<(), Violation> {
        self.plan(REVIEW_INTERVAL, Happening::Review);
        if !std::mem::take(&mut self.uneasy) && !self.network.is_uneasy() {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for (from, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { continue };
            for peer in &process.peers {
                if let Some(to) = self.place_of(*peer).filter(|to| self.nodes[*to].process.is_some()) {
                    wanted.insert((from, to));
                }
            }
            // Before a node has heard of the membership, it knows its fellow founders.
            if process.peers.is_empty() {
                let others =
                    (0..self.nodes.len()).filter(|to| *to != from && self.nodes[*to].process.is_some());
                wanted.extend(others.map(|to| (from, to)));
            }
        }
        let changes = self.network.review(&wanted, self.now);
        self.uneasy |= !changes.is_empty();
        for change in changes {
            self.connection_changed(change)?;
        }
        Ok(())
    }

    pub(super) fn connection_changed(&mut self, change: Change) -> Result<(), Violation> {
        let (place, peer, event): (_, _, fn(NodeId) -> Event<Sim>) = match change {
            Change::Up(from, to) => (from, to, Event::Connected),
            Change::Down(from, to) => (from, to, Event::Disconnected),
        };
        let peer = self.nodes[peer].id;
        if self.nodes[place].process.is_some() {
            self.give(place, event(peer))?;
        }
        Ok(())
    }
}
