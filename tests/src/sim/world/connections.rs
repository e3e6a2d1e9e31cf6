//! Connections between nodes: which stand, which break.

use super::*;

impl World {
    pub(super) fn review(&mut self) -> Result<(), Violation> {
        self.plan(REVIEW_INTERVAL, Happening::Review);
        if !std::mem::take(&mut self.uneasy) && !self.network.is_uneasy() {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        let mut refused = Vec::new();
        for (from, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { continue };
            let runs = |to: &Place| *to != from && self.nodes[*to].process.is_some();
            let peers: Vec<Place> = match &process.peers {
                Some(peers) => peers.iter().filter_map(|peer| self.place_of(*peer)).filter(runs).collect(),
                // Before a node has heard of the membership, it keeps to whom it was told of.
                None => (0..self.nodes.len()).filter(runs).collect(),
            };
            for to in peers {
                let refuses = self.nodes[to].process.as_ref().is_some_and(|p| p.refuses.contains(&node.id));
                if refuses {
                    refused.push((from, to));
                } else {
                    wanted.insert((from, to));
                }
            }
        }
        for (from, to) in refused {
            self.uneasy = true;
            let heard = self.network.is_open(from, to) && self.random.chance(200);
            if heard && self.nodes[from].process.is_some() && self.nodes[from].paused_until <= self.now {
                self.report.saw("told of its removal");
                let by = self.nodes[to].id;
                self.give(from, Event::ToldRemoved { by })?;
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
