//! A snapshot on its way in: which chunks are taken, and what the sender is told.
//!
//! It belongs to the store's single writer, so that staging and installing never race an apply (hazard 25). What has
//! arrived stays through any number of broken connections, until the same transfer goes on, another one takes its place, or
//! the process ends: what a process that ended had staged is removed at the next start. One at a time, so that what lies
//! staged on the disk is bounded by one image.
//!
//! Does not know whether a snapshot is wanted: the core decides that before [`Incoming::begin`].

use super::snapshot_frame::{Answer, Offer};
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, NodeId};
use balsa_store::{SnapshotSink, StagedSnapshot, Store, StoreError};
use bytes::Bytes;

/// What is being received, if anything is.
#[derive(Default)]
pub struct Incoming {
    transfer: Option<Transfer>,
}

struct Transfer {
    from: NodeId,
    id: u64,
    ask: u32,
    meta: SnapshotMeta,
    sink: SnapshotSink,
    /// The sender was told which chunk is wanted, and that has not come yet.
    told: bool,
}

/// What became of a chunk.
pub enum Taken {
    /// It was added.
    Added,
    /// It says nothing new.
    Ignored,
    /// It was not added, and this is to be said.
    Not(Answer, String),
    /// It was the last one: install this, and say [`Answer::Installed`].
    Whole(StagedSnapshot, SnapshotMeta),
}

impl Incoming {
    /// The core takes what was offered: goes on where the transfer was, or begins it; gives what to say.
    pub fn begin(&mut self, store: &Store, from: NodeId, offer: Offer) -> Result<Answer, StoreError> {
        let Offer { id, ask, meta } = offer;
        match &mut self.transfer {
            Some(transfer) if (transfer.from, transfer.id) == (from, id) && transfer.meta == meta => {
                transfer.ask = ask;
                transfer.told = true;
                Ok(transfer.wanted())
            }
            _ => {
                self.transfer = None; // before the next one is begun: what it staged goes
                let sink = store.begin_install()?;
                let transfer = Transfer { from, id, ask, meta, sink, told: true };
                let wanted = transfer.wanted();
                self.transfer = Some(transfer);
                Ok(wanted)
            }
        }
    }

    /// Whether something is being received.
    pub fn is_under_way(&self) -> bool {
        self.transfer.is_some()
    }

    /// The store has applied up to here: a snapshot that brings no more is of no use, and what was staged of it is removed.
    pub fn handle_applied(&mut self, index: Index) {
        self.transfer.take_if(|transfer| transfer.meta.index <= index);
    }

    /// Nothing more can be taken: what was staged is removed, and its sender is told this.
    pub fn refuse(&mut self, id: u64) -> Answer {
        self.transfer = None;
        Answer::Refused { id }
    }

    /// A chunk came.
    pub fn take(&mut self, from: NodeId, id: u64, sequence: u32, data: &Bytes) -> Taken {
        let Some(transfer) = self.transfer.as_mut().filter(|t| (t.from, t.id) == (from, id)) else {
            return Taken::Not(Answer::Refused { id }, "nothing like it is being received".to_string());
        };
        let wanted = transfer.sink.wanted_sequence();
        if sequence < wanted || (sequence > wanted && transfer.told) {
            return Taken::Ignored; // sent again, or sent before the sender heard what is wanted
        }
        if sequence > wanted {
            transfer.told = true;
            return Taken::Not(transfer.wanted(), format!("chunk {sequence} came where {wanted} was wanted"));
        }
        match transfer.sink.add_chunk(data) {
            Ok(()) => transfer.told = false,
            Err(error @ StoreError::BadChunk { .. }) => {
                transfer.told = true;
                return Taken::Not(transfer.wanted(), error.to_string());
            }
            Err(error) => return self.give_up(id, &error),
        }
        if !transfer.sink.is_complete() {
            return Taken::Added;
        }
        match self.transfer.take().map(|transfer| (transfer.sink.stage(), transfer.meta)) {
            Some((Ok(staged), meta)) => Taken::Whole(staged, meta),
            Some((Err(error), _)) => self.give_up(id, &error),
            None => Taken::Ignored,
        }
    }

    /// The store could not take it, for want of space say: what it staged is removed, and the node goes on without.
    fn give_up(&mut self, id: u64, error: &StoreError) -> Taken {
        Taken::Not(self.refuse(id), error.to_string())
    }
}

impl Transfer {
    fn wanted(&self) -> Answer {
        Answer::Wanted { id: self.id, ask: self.ask, sequence: self.sink.wanted_sequence() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::snapshot_frame::SnapshotFrame;
    use crate::engine::snapshot_send::{Heard, Outgoing};
    use balsa_raft::Term;
    use balsa_raft::membership::Membership;
    use balsa_store::command::{self, Command, Operation, Put};
    use balsa_store::{MemoryEngine, StoreConfig};
    use std::sync::Arc;

    const SENDER: NodeId = NodeId(1);
    const CHUNK_BYTES: usize = 1 << 10;
    const KEYS: u64 = 100;

    /// A store with so many keys, flushed.
    fn store(keys: u64) -> Store {
        let mut store = Store::open(Arc::new(MemoryEngine::new()), StoreConfig::default()).unwrap();
        for index in 1..=keys {
            let key = Bytes::from(format!("key-{index}"));
            let put = Put { key, value: Bytes::from(vec![b'v'; 200]), ..Put::default() };
            let entry = command::encode(&Command { request: None, operation: Some(Operation::Put(put)) });
            store.apply(index, &entry).unwrap();
        }
        if let Some(job) = store.force_rotate() {
            let index = job.run().unwrap();
            store.handle_flushed(index).unwrap();
        }
        store
    }

    fn outgoing(id: u64, store: &Store, term: u64) -> Outgoing {
        let mut outgoing = Outgoing::new(id, store.begin_snapshot());
        let meta = SnapshotMeta {
            index: outgoing.index(),
            term: Term(1),
            membership: Arc::new(Membership::default()),
        };
        outgoing.start(Term(term), meta);
        outgoing
    }

    /// Asks, and takes the answer to the sender.
    fn ask(outgoing: &mut Outgoing, incoming: &mut Incoming, receiver: &Store) -> Heard {
        let Some(SnapshotFrame::Ask { offer, .. }) = outgoing.ask() else { panic!("no question") };
        let answer = incoming.begin(receiver, SENDER, offer).unwrap();
        outgoing.handle(answer).unwrap()
    }

    fn chunk(outgoing: &mut Outgoing) -> Option<(u64, u32, Bytes)> {
        outgoing.next_chunk(CHUNK_BYTES).unwrap().map(|frame| match frame {
            SnapshotFrame::Chunk { id, sequence, data } => (id, sequence, data),
            other => panic!("{other:?} instead of a chunk"),
        })
    }

    /// Brings all that is left over, and installs it; gives how many chunks that took.
    fn bring(outgoing: &mut Outgoing, incoming: &mut Incoming, receiver: &mut Store) -> usize {
        let mut taken = 0;
        while let Some((id, sequence, data)) = chunk(outgoing) {
            match incoming.take(SENDER, id, sequence, &data) {
                Taken::Added => taken += 1,
                Taken::Whole(staged, _) => {
                    taken += 1;
                    receiver.install_snapshot(staged).unwrap();
                    assert_eq!(outgoing.handle(Answer::Installed { id }).unwrap(), Heard::Installed);
                }
                Taken::Ignored => panic!("chunk {sequence} is ignored"),
                Taken::Not(answer, why) => panic!("chunk {sequence} is not taken: {why}, {answer:?}"),
            }
        }
        taken
    }

    #[test]
    fn a_break_goes_on_where_it_was_and_nothing_that_arrived_is_sent_again() {
        let (sender, mut receiver) = (store(KEYS), store(0));
        let whole = {
            let (mut outgoing, mut incoming) = (outgoing(1, &sender, 1), Incoming::default());
            let mut other = store(0);
            ask(&mut outgoing, &mut incoming, &other);
            bring(&mut outgoing, &mut incoming, &mut other)
        };
        assert!(whole > 20, "{whole} chunks");
        let (mut outgoing, mut incoming) = (outgoing(2, &sender, 1), Incoming::default());
        assert!(chunk(&mut outgoing).is_none(), "nothing leaves before the receiver has said where it is");
        assert_eq!(ask(&mut outgoing, &mut incoming, &receiver), Heard::GoOn { resumed: false });
        for _ in 0..10 {
            let (id, sequence, data) = chunk(&mut outgoing).unwrap();
            assert!(matches!(incoming.take(SENDER, id, sequence, &data), Taken::Added));
        }
        // Two more are lost with the connection.
        chunk(&mut outgoing).unwrap();
        chunk(&mut outgoing).unwrap();
        outgoing.broken();
        assert!(chunk(&mut outgoing).is_none());
        assert_eq!(ask(&mut outgoing, &mut incoming, &receiver), Heard::GoOn { resumed: true });
        assert_eq!(bring(&mut outgoing, &mut incoming, &mut receiver), whole - 10);
        assert_eq!(receiver.position(), sender.position());
        assert!(!incoming.is_under_way());
    }

    #[test]
    fn a_later_term_of_the_same_sender_goes_on_too() {
        let (sender, mut receiver) = (store(KEYS), store(0));
        let (mut outgoing, mut incoming) = (outgoing(1, &sender, 1), Incoming::default());
        ask(&mut outgoing, &mut incoming, &receiver);
        let (id, sequence, data) = chunk(&mut outgoing).unwrap();
        assert!(matches!(incoming.take(SENDER, id, sequence, &data), Taken::Added));
        let membership = Arc::new(Membership::default());
        outgoing.start(Term(5), SnapshotMeta { index: Index(KEYS), term: Term(1), membership });
        assert_eq!(ask(&mut outgoing, &mut incoming, &receiver), Heard::GoOn { resumed: true });
        bring(&mut outgoing, &mut incoming, &mut receiver);
        assert_eq!(receiver.position(), sender.position());
    }

    #[test]
    fn a_damaged_chunk_is_refused_and_sent_again() {
        let (sender, mut receiver) = (store(KEYS), store(0));
        let (mut outgoing, mut incoming) = (outgoing(1, &sender, 1), Incoming::default());
        ask(&mut outgoing, &mut incoming, &receiver);
        let (id, sequence, data) = chunk(&mut outgoing).unwrap();
        let mut damaged = data.to_vec();
        damaged[40] ^= 1;
        let Taken::Not(answer, _) = incoming.take(SENDER, id, sequence, &damaged.into()) else {
            panic!("a damaged chunk is taken")
        };
        // Those that were on their way behind it say nothing new.
        let (_, next, behind) = chunk(&mut outgoing).unwrap();
        assert!(matches!(incoming.take(SENDER, id, next, &behind), Taken::Ignored));
        assert_eq!(outgoing.handle(answer).unwrap(), Heard::GoOn { resumed: false });
        bring(&mut outgoing, &mut incoming, &mut receiver);
        assert_eq!(receiver.position(), sender.position());
    }

    #[test]
    fn a_chunk_that_never_arrives_whole_ends_the_transfer() {
        let (sender, receiver) = (store(KEYS), store(0));
        let (mut outgoing, mut incoming) = (outgoing(1, &sender, 1), Incoming::default());
        let mut heard = ask(&mut outgoing, &mut incoming, &receiver);
        let mut times = 0;
        while let Heard::GoOn { .. } = heard {
            let (id, sequence, data) = chunk(&mut outgoing).unwrap();
            let Taken::Not(answer, _) = incoming.take(SENDER, id, sequence, &data.slice(1..)) else {
                panic!("a chunk that was cut is taken")
            };
            heard = outgoing.handle(answer).unwrap();
            times += 1;
            assert!(times < 100, "without end");
        }
        assert!(matches!(heard, Heard::Over(_)), "{heard:?}");
        assert!(times > 3, "given up after {times} times");
    }

    #[test]
    fn another_transfer_takes_the_place_and_what_is_left_of_the_first_is_refused() {
        let (sender, mut receiver) = (store(KEYS), store(0));
        let mut first = outgoing(1, &sender, 1);
        let mut incoming = Incoming::default();
        ask(&mut first, &mut incoming, &receiver);
        let mut second = outgoing(2, &sender, 1);
        assert_eq!(ask(&mut second, &mut incoming, &receiver), Heard::GoOn { resumed: false });
        let (id, sequence, data) = chunk(&mut first).unwrap();
        let Taken::Not(answer, _) = incoming.take(SENDER, id, sequence, &data) else {
            panic!("a chunk of another transfer is taken")
        };
        assert!(matches!(first.handle(answer).unwrap(), Heard::Over(_)));
        assert_eq!(second.handle(answer).unwrap(), Heard::Nothing, "it is not meant");
        bring(&mut second, &mut incoming, &mut receiver);
        assert_eq!(receiver.position(), sender.position());
    }

    #[test]
    fn a_receiver_that_lost_everything_begins_anew() {
        let (sender, mut receiver) = (store(KEYS), store(0));
        let (mut outgoing, mut incoming) = (outgoing(1, &sender, 1), Incoming::default());
        ask(&mut outgoing, &mut incoming, &receiver);
        let (id, sequence, data) = chunk(&mut outgoing).unwrap();
        assert!(matches!(incoming.take(SENDER, id, sequence, &data), Taken::Added));
        let mut incoming = Incoming::default(); // it was started anew
        outgoing.broken();
        assert_eq!(ask(&mut outgoing, &mut incoming, &receiver), Heard::GoOn { resumed: false });
        bring(&mut outgoing, &mut incoming, &mut receiver);
        assert_eq!(receiver.position(), sender.position());
    }

    #[test]
    fn what_was_staged_goes_when_the_log_has_brought_as_much() {
        let (sender, receiver) = (store(KEYS), store(0));
        let (mut outgoing, mut incoming) = (outgoing(1, &sender, 1), Incoming::default());
        ask(&mut outgoing, &mut incoming, &receiver);
        incoming.handle_applied(Index(KEYS - 1));
        assert!(incoming.is_under_way());
        incoming.handle_applied(Index(KEYS));
        assert!(!incoming.is_under_way());
    }

    #[test]
    fn an_answer_to_an_earlier_question_changes_nothing() {
        let (sender, receiver) = (store(KEYS), store(0));
        let (mut outgoing, mut incoming) = (outgoing(1, &sender, 1), Incoming::default());
        let Some(SnapshotFrame::Ask { offer, .. }) = outgoing.ask() else { panic!("no question") };
        let early = incoming.begin(&receiver, SENDER, offer).unwrap();
        outgoing.ask();
        assert_eq!(outgoing.handle(early).unwrap(), Heard::Nothing);
        assert!(chunk(&mut outgoing).is_none());
        let beyond = Answer::Wanted { id: 1, ask: 2, sequence: 7 };
        assert!(matches!(outgoing.handle(beyond).unwrap(), Heard::Over(_)), "it was never made");
    }
}
