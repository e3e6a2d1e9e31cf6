//! Snapshots on their way from store to store. Links that are cut, receivers that are gone for a while and damaged chunks
//! interrupt them; they go on where they were.

use super::*;
use balsa_node::engine::snapshot_frame::Answer;

/// How long a receiver may be silent.
const PATIENCE: Micros = 10 * SECOND;
/// How soon it is asked again where it is.
const ASK_INTERVAL: Micros = 500 * MILLI;
/// How soon a link that carries nothing is tried again.
const RETRY_INTERVAL: Micros = 50 * MILLI;
/// Of a thousand chunks, so many arrive damaged.
const DAMAGED: u64 = 3;

impl World {
    pub(super) fn stream(
        &mut self,
        place: Place,
        to: NodeId,
        term: Term,
        meta: SnapshotMeta,
    ) -> Result<(), Violation> {
        let Some(sending) = self.process(place).outgoing.get_mut(&to) else {
            return self.give(place, Event::SnapshotSent { to, index: None });
        };
        sending.outgoing.start(term, meta);
        self.plan_sending(place, to, 0);
        Ok(())
    }

    /// The sender's next step, in place of any that was planned.
    fn plan_sending(&mut self, from: Place, to: NodeId, after: Micros) {
        let now = self.now;
        let life = self.nodes[from].life;
        if let Some(sending) = self.process(from).outgoing.get_mut(&to) {
            sending.turn += 1;
            sending.heard = now;
            let turn = sending.turn;
            self.plan(after, Happening::SendOn { from, life, to, turn });
        }
    }

    pub(super) fn send_on(&mut self, from: Place, life: u64, to: NodeId, turn: u64) -> Result<(), Violation> {
        if !self.is_current(from, life) {
            return Ok(());
        }
        let (now, cuts, chunk_bytes) = (self.now, self.cuts, self.settings.chunk_bytes);
        let interval = if self.calm { 4 * MILLI } else { self.settings.chunk_interval };
        let failed = |error| Violation(format!("a snapshot cannot be read: {error}"));
        let Some(sending) = self.process(from).outgoing.get_mut(&to).filter(|s| s.turn == turn) else {
            return Ok(());
        };
        if now - sending.heard > PATIENCE {
            self.report.saw("snapshot given up");
            return self.sending_ended(from, to, false);
        }
        let chunk = sending.outgoing.next_chunk(chunk_bytes).map_err(failed)?;
        let is_chunk = chunk.is_some();
        let Some(frame) = chunk.or_else(|| sending.outgoing.ask()) else { return Ok(()) };
        let cut = std::mem::replace(&mut sending.cuts, cuts) != cuts;
        // A clogged link holds the stream up; the sender waits for it, as for any slow receiver.
        let held_up = self.place_of(to).map_or(0, |to| self.network.leaves(from, to, now) - now);
        let delay = held_up + self.random.between(MILLI, interval);
        let carried = !cut && self.carry_bulk(from, to, frame, delay);
        let Some(sending) = self.process(from).outgoing.get_mut(&to) else { return Ok(()) };
        let wait = match (carried, is_chunk) {
            (true, true) => {
                sending.heard = now;
                delay + MILLI
            }
            (true, false) => ASK_INTERVAL,
            (false, is_chunk) => {
                sending.outgoing.broken();
                if is_chunk {
                    self.report.saw("snapshot cut off");
                }
                RETRY_INTERVAL
            }
        };
        self.plan(wait, Happening::SendOn { from, life, to, turn });
        Ok(())
    }

    /// Whether the link took a frame. A cut link or a dead receiver breaks it.
    fn carry_bulk(&mut self, from: Place, to: NodeId, mut frame: SnapshotFrame, delay: Micros) -> bool {
        let Some(to) = self.place_of(to) else { return false };
        let probe = PeerMessage::ReadIndexReply { id: 0, index: None };
        if self.network.send(from, to, &probe, self.now).is_none_or(|copies| copies.is_empty()) {
            return false;
        }
        if let SnapshotFrame::Chunk { data, .. } = &mut frame
            && self.random.chance(DAMAGED)
        {
            let mut bytes = data.to_vec();
            let at = self.random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1;
            *data = bytes.into();
        }
        let (from, life) = (self.nodes[from].id, self.nodes[to].life);
        self.plan(delay, Happening::Bulk { from, to, life, frame });
        true
    }

    /// A receiver tells the sender; may be lost.
    pub(super) fn say(&mut self, from: Place, to: NodeId, answer: Answer) {
        let delay = self.network.delay();
        self.carry_bulk(from, to, SnapshotFrame::Answer(answer), delay);
    }

    fn sending_ended(&mut self, from: Place, to: NodeId, arrived: bool) -> Result<(), Violation> {
        let ended = self.process(from).outgoing.remove(&to);
        let index = ended.filter(|_| arrived).map(|sending| sending.outgoing.index());
        self.give(from, Event::SnapshotSent { to, index })
    }

    pub(super) fn bulk(
        &mut self,
        from: NodeId,
        to: Place,
        life: u64,
        frame: SnapshotFrame,
    ) -> Result<(), Violation> {
        if !self.is_current(to, life) {
            return Ok(());
        }
        let Some(Happening::Bulk { frame, .. }) =
            self.postponed(to, Happening::Bulk { from, to, life, frame })
        else {
            return Ok(());
        };
        let frame = match SnapshotFrame::decode(frame.encode()) {
            Ok(frame) => frame,
            Err(error) => return Err(Violation(format!("a snapshot frame cannot be decoded: {error}"))),
        };
        match frame {
            SnapshotFrame::Ask { term, offer } => {
                self.give(to, Event::SnapshotOffered { from, term, offer })?;
            }
            SnapshotFrame::Chunk { id, sequence, data } => {
                self.process(to).apply_queue.push_back(ApplyJob::Chunk(from, id, sequence, data));
            }
            SnapshotFrame::Answer(answer) => return self.answered(to, from, answer),
        }
        self.pump_apply(to);
        Ok(())
    }

    fn answered(&mut self, sender: Place, receiver: NodeId, answer: Answer) -> Result<(), Violation> {
        let Some(sending) = self.process(sender).outgoing.get_mut(&receiver) else { return Ok(()) };
        let heard = sending.outgoing.handle(answer);
        match heard.map_err(|error| Violation(format!("a snapshot cannot go on: {error}")))? {
            Heard::Nothing => {}
            Heard::GoOn { resumed } => {
                if resumed {
                    self.report.saw("snapshot resumed");
                }
                self.plan_sending(sender, receiver, MILLI);
            }
            Heard::Installed => return self.sending_ended(sender, receiver, true),
            Heard::Over(_) => {
                self.report.saw("snapshot refused");
                return self.sending_ended(sender, receiver, false);
            }
        }
        Ok(())
    }
}
