//! Backups that are to begin: each waits until the store has written out all that was applied when it was asked for.
//!
//! Nothing waits for them: the flush that they need runs where all flushes run, and applies go on beside it.

use balsa_store::{FlushJob, SnapshotSource, Store};
use tokio::sync::oneshot;

/// The backups that wait, with the index that each is to hold. Bounded by the door that asks.
#[derive(Default)]
pub(super) struct WaitingBackups(Vec<(u64, oneshot::Sender<SnapshotSource>)>);

impl WaitingBackups {
    /// One more, of what is applied now.
    pub(super) fn add(&mut self, store: &Store, answer: oneshot::Sender<SnapshotSource>) {
        self.0.push((store.applied_index(), answer));
    }

    /// Begins those whose state is durable. Gives the flush that the others wait for, unless one is under way.
    pub(super) fn go_on(&mut self, store: &mut Store) -> Option<FlushJob> {
        if self.0.is_empty() {
            return None;
        }
        let durable = store.durable_index();
        for (index, answer) in std::mem::take(&mut self.0) {
            if answer.is_closed() {
                continue; // a client that hung up is normal
            }
            if index <= durable {
                let _ = answer.send(store.begin_snapshot());
            } else {
                self.0.push((index, answer));
            }
        }
        if self.0.is_empty() { None } else { store.force_rotate() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balsa_store::{MemoryEngine, StoreConfig};
    use std::sync::Arc;

    fn store() -> Store {
        Store::open(Arc::new(MemoryEngine::new()), StoreConfig::default()).unwrap()
    }

    #[test]
    fn a_backup_begins_once_what_it_is_to_hold_is_durable() {
        let (mut store, mut waiting) = (store(), WaitingBackups::default());
        store.apply_empty(1);
        let first = store.force_rotate().unwrap();
        store.apply_empty(2);
        let (answer, mut begun) = oneshot::channel();
        waiting.add(&store, answer);
        assert!(waiting.go_on(&mut store).is_none(), "a flush is under way, of less");
        let index = first.run().unwrap();
        store.handle_flushed(index).unwrap();
        store.apply_empty(3);
        let job = waiting.go_on(&mut store).expect("now its own can run");
        assert!(begun.try_recv().is_err());
        let index = job.run().unwrap();
        store.handle_flushed(index).unwrap();
        assert!(waiting.go_on(&mut store).is_none());
        assert!(begun.try_recv().unwrap().index() >= 2);
    }

    #[test]
    fn what_is_durable_already_begins_at_once_and_who_hung_up_causes_nothing() {
        let (mut store, mut waiting) = (store(), WaitingBackups::default());
        let (answer, mut begun) = oneshot::channel();
        waiting.add(&store, answer);
        assert!(waiting.go_on(&mut store).is_none());
        assert_eq!(begun.try_recv().unwrap().index(), 0);
        store.apply_empty(1);
        let (answer, hung_up) = oneshot::channel();
        drop(hung_up);
        waiting.add(&store, answer);
        assert!(waiting.go_on(&mut store).is_none());
    }
}
