//! Snapshots on their way from store to store.

use super::*;

impl World {
    pub(super) fn stream(
        &mut self,
        place: Place,
        to: NodeId,
        term: Term,
        meta: SnapshotMeta,
    ) -> Result<(), Violation> {
        let Some(source) = self.process(place).begun.remove(&to) else {
            return self.give(place, Event::SnapshotSent { to, index: None });
        };
        let Some(target) = self.place_of(to) else { return Ok(()) };
        let (from, life, target_life) =
            (self.nodes[place].id, self.nodes[place].life, self.nodes[target].life);
        let begin = SnapshotFrame::Begin { term, meta: meta.clone() };
        let delay = self.network.delay();
        self.plan(delay, Happening::Bulk { from, to: target, life: target_life, frame: begin });
        let (chunk_bytes, cuts) = (self.settings.chunk_bytes, self.cuts);
        let mut stream = Box::new(Stream { source, meta, sequence: 0, next: None, cuts });
        stream.next = read_chunk(&mut stream.source, chunk_bytes)?;
        self.plan(delay + MILLI, Happening::NextChunk { from: place, life, to, stream });
        Ok(())
    }

    pub(super) fn next_chunk(
        &mut self,
        from: Place,
        life: u64,
        to: NodeId,
        mut stream: Box<Stream>,
    ) -> Result<(), Violation> {
        if !self.is_current(from, life) {
            return Ok(());
        }
        let Some(target) = self.place_of(to) else { return Ok(()) };
        let index = stream.meta.index;
        // A cut link or a dead receiver breaks the stream.
        let probe = PeerMessage::ReadIndexReply { id: 0, index: None };
        let carried = stream.cuts == self.cuts
            && self.network.send(from, target, &probe, self.now).is_some_and(|copies| !copies.is_empty());
        let Some(data) = stream.next.take().filter(|_| carried) else {
            self.report.saw("snapshot cut off");
            let sent = stream.sequence;
            self.trace.line(
                self.now,
                format_args!(
                    "the transfer of {index} from node {from} to node {target} breaks after {sent} chunks"
                ),
            );
            return self.give(from, Event::SnapshotSent { to, index: None });
        };
        stream.next = read_chunk(&mut stream.source, self.settings.chunk_bytes)?;
        let (sequence, last) = (stream.sequence, stream.next.is_none());
        stream.sequence += 1;
        let frame = SnapshotFrame::Chunk { index, sequence, data, last };
        let target_life = self.nodes[target].life;
        let interval = if self.calm { 4 * MILLI } else { self.settings.chunk_interval };
        // A clogged link holds the stream up; the sender waits for it, as for any slow receiver.
        let held_up = self.network.leaves(from, target, self.now) - self.now;
        let delay = held_up + self.random.between(MILLI, interval);
        let sender = self.nodes[from].id;
        self.plan(delay, Happening::Bulk { from: sender, to: target, life: target_life, frame });
        if last {
            self.trace.line(
                self.now,
                format_args!("node {from} has sent all {} chunks of {index} to node {target}", sequence + 1),
            );
            return self.give(from, Event::SnapshotSent { to, index: Some(index) });
        }
        self.plan(delay + MILLI, Happening::NextChunk { from, life, to, stream });
        Ok(())
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
        match self.process(to).transfers.entry(from).or_default().step(frame) {
            Step::Offer(term, meta) => {
                self.give(to, Event::SnapshotOffered { from, term, meta })?;
            }
            Step::Feed(data) => self.process(to).apply_queue.push_back(ApplyJob::Chunk(data)),
            Step::FeedLast(data, meta) => {
                let queue = &mut self.process(to).apply_queue;
                queue.push_back(ApplyJob::Chunk(data));
                queue.push_back(ApplyJob::Install(meta));
            }
            Step::Ignore => {}
        }
        self.pump_apply(to);
        Ok(())
    }
}

fn read_chunk(source: &mut SnapshotSource, bytes: usize) -> Result<Option<Bytes>, Violation> {
    source.next_chunk(bytes).map_err(|error| Violation(format!("a snapshot cannot be read: {error}")))
}
