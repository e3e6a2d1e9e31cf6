//! The flush: a frozen overlay written to the engine in one sorted ingestion.
//!
//! It runs beside the writer and the readers, on another thread. Here the counters that a plain PUT left open are worked
//! out for good, the count of keys becomes exact, and rows that compaction made unreadable are removed, a slice a flush.
//! Everything, the applied index included, goes in at once: after a crash the engine is at one index or another, and
//! applying the log again from there gives the same.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message;

use crate::engine::{Change, EngineSnapshot, StateEngine};
use crate::error::{EngineError, StoreError};
use crate::hot_rows::Remembered;
use crate::layers;
use crate::overlay::{Lineage, NewestIndex, Overlay, OverlayRow};
use crate::position::{Durable, Position};
use crate::rows::{
    self, ChangeAt, ChangeKind, HistoryRow, INLINE_VALUE_BYTES_MAX, KeyRow, META_KEY, TABLE_HISTORY,
    TABLE_KEYS,
};
use crate::side::SideRows;
use crate::store::ClearChange;
use crate::sweep;

/// What a flush needs on the disk beside its rows.
const ROOM_BYTES_LEAST: u64 = 1 << 20;

/// An overlay that takes no more changes, and what belongs to it.
pub(crate) struct Frozen {
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) side: SideRows,
    /// For the writer.
    pub(crate) index: NewestIndex,
    /// Keys that were counted as new without looking.
    pub(crate) guesses: Vec<Bytes>,
    pub(crate) clears: Vec<ClearChange>,
    pub(crate) tally: LiveTally,
    /// Of the state that it ends with.
    pub(crate) position: Position,
    /// Memory, about.
    pub(crate) bytes: usize,
    /// Changes in it.
    pub(crate) changes: usize,
    /// How far its flush is.
    pub(crate) progress: Progress,
}

/// How far a flush is, known to the job and to the writer.
#[derive(Default)]
pub(crate) struct Progress {
    stage: Mutex<Stage>,
    ended: Condvar,
}

#[derive(Default)]
enum Stage {
    #[default]
    Waiting,
    Running,
    /// What the engine holds since; `None`: it failed. Not read back from the engine: that may have to wait for a file to be
    /// synced, and the writer has no time for it.
    Ended(Option<Durable>),
    /// It is not to run any more: another state takes the place of the one that it belongs to.
    Abandoned,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        // The stage is replaced whole: a panic under the lock leaves it right.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the job may run. The run ends when what is returned is dropped.
    fn begin(&self) -> Option<Run<'_>> {
        let mut stage = self.lock();
        match *stage {
            Stage::Waiting => *stage = Stage::Running,
            Stage::Abandoned => return None,
            Stage::Running | Stage::Ended(_) => panic!("an overlay is flushed twice"),
        }
        Some(Run { progress: self, ended: Stage::Ended(None) })
    }

    /// What the engine holds since the flush, once that has ended well.
    pub(crate) fn outcome(&self) -> Option<Durable> {
        match &*self.lock() {
            Stage::Ended(outcome) => outcome.clone(),
            _ => None,
        }
    }

    /// Sees to it that the job does not touch the engine any more: it will not begin, or has ended. Waits for one that
    /// is running.
    pub(crate) fn abandon(&self) {
        let mut stage = self.lock();
        while matches!(*stage, Stage::Running) {
            stage = self.ended.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
        if matches!(*stage, Stage::Waiting) {
            *stage = Stage::Abandoned;
        }
    }
}

/// A run of a job; failed unless something else was set, also where it panics.
struct Run<'a> {
    progress: &'a Progress,
    ended: Stage,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        *self.progress.lock() = std::mem::take(&mut self.ended);
        self.progress.ended.notify_all();
    }
}

/// How an overlay changes the count of keys.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LiveTally {
    /// Keys created less keys deleted, taking for new what a plain PUT set without looking.
    pub(crate) delta: i64,
    restarted: bool,
}

impl LiveTally {
    /// Nothing is there any more, neither here nor beneath.
    pub(crate) fn restart(&mut self) {
        *self = LiveTally { delta: 0, restarted: true };
    }

    /// Whether what is beneath does not count any more.
    pub(crate) fn is_restarted(self) -> bool {
        self.restarted
    }

    /// The count after the overlay, from that beneath it and the number of guesses that were wrong.
    pub(crate) fn apply_to(self, beneath: u64, wrong_guesses: u64) -> u64 {
        let (beneath, wrong) = if self.restarted { (0, 0) } else { (beneath, wrong_guesses) };
        let count = i128::from(beneath) + i128::from(self.delta) - i128::from(wrong);
        // A guess may let the count look lower than none only if a count went wrong.
        u64::try_from(count)
            .unwrap_or_else(|_| panic!("{beneath} keys, changed by {}, {wrong} wrong", self.delta))
    }
}

impl Frozen {
    /// How many keys there are after it, exactly; `floor` is the last clear, which must not lie in it.
    pub(crate) fn count_live_keys(
        &self,
        engine: &dyn EngineSnapshot,
        beneath: u64,
        floor: u64,
    ) -> Result<u64, StoreError> {
        if self.tally.is_restarted() {
            return Ok(self.tally.apply_to(0, 0));
        }
        let wrong = wrong_guesses(&self.guesses, floor, |key| layers::newest_in_engine(engine, key))?;
        Ok(self.tally.apply_to(beneath, wrong))
    }
}

/// How many of the keys that were counted as new were there.
pub(crate) fn wrong_guesses(
    guesses: &[Bytes],
    floor: u64,
    beneath: impl Fn(&[u8]) -> Result<Option<KeyRow>, StoreError>,
) -> Result<u64, StoreError> {
    // In order of keys, so that one block of the engine after the other is looked at.
    let mut keys: Vec<&Bytes> = guesses.iter().collect();
    keys.sort_unstable();
    let mut wrong = 0;
    for key in keys {
        if beneath(key)?.is_some_and(|row| layers::is_live(&row, floor)) {
            wrong += 1;
        }
    }
    Ok(wrong)
}

fn is_wrong_guess(
    lineage: Lineage,
    beneath: impl FnOnce() -> Result<Option<KeyRow>, StoreError>,
) -> Result<bool, StoreError> {
    match lineage {
        Lineage::Under { guessed_new: true, floor, .. } => {
            Ok(beneath()?.is_some_and(|row| layers::is_live(&row, floor)))
        }
        _ => Ok(false),
    }
}

/// An overlay that was flushed, and what was remembered of the engine beneath it.
pub(crate) type Retired = (Arc<Frozen>, Remembered);

/// A flush to be run on another thread, at most one at a time.
pub struct FlushJob {
    pub(crate) engine: Arc<dyn StateEngine>,
    pub(crate) beneath: Arc<dyn EngineSnapshot>,
    /// What the engine holds before.
    pub(crate) durable: Durable,
    pub(crate) frozen: Arc<Frozen>,
    /// What the flush before has left, to be freed.
    pub(crate) retired: Cell<Option<Retired>>,
    /// Rows to look at for removal, at least.
    pub(crate) sweep_rows: usize,
}

impl FlushJob {
    /// The last entry that is durable once it has run.
    pub fn index(&self) -> u64 {
        self.frozen.position.applied_index
    }

    /// Writes the overlay, durably, and gives the applied index that the engine has then. Does nothing if a snapshot was
    /// installed in the meantime: the state that the overlay belongs to is gone.
    ///
    /// Where the disk has no room ([`StoreError::is_no_room`]), nothing was written: the overlay is kept, and the job is to be
    /// run again later. Any other failure is fatal to the node; there is no second try.
    pub fn run(&self) -> Result<u64, StoreError> {
        drop(self.retired.take());
        if let Some(mut run) = self.frozen.progress.begin() {
            match self.write() {
                Ok(durable) => run.ended = Stage::Ended(Some(durable)),
                Err(error) => {
                    if error.is_no_room() {
                        run.ended = Stage::Waiting;
                    }
                    return Err(error);
                }
            }
        }
        Ok(self.index())
    }

    /// Whether the disk has room for all of it. What is tried and does not fit leaves files behind until the next start.
    fn has_room(&self) -> Result<(), EngineError> {
        let free = self.engine.free_bytes()?;
        // A small value is written twice, with its key and with its history.
        let needed = 2 * self.frozen.bytes as u64 + ROOM_BYTES_LEAST;
        if free >= needed {
            return Ok(());
        }
        let message = format!("{free} bytes are free on the disk, {needed} may be needed");
        Err(EngineError { call: "flush", message, no_room: true })
    }

    fn write(&self) -> Result<Durable, StoreError> {
        self.has_room()?;
        let changes = self.resolve()?;
        // What comes in must go out at least as fast, or history would grow.
        let sweep_rows = self.sweep_rows.max(2 * self.frozen.changes);
        let sweep = sweep::plan(&*self.beneath, &self.durable, self.frozen.position.compacted, sweep_rows)?;

        let durable =
            Durable { position: self.frozen.position, live_keys: changes.live_keys, sweep: sweep.done };
        let mut small: BTreeMap<Bytes, Option<Bytes>> =
            sweep.removed.into_iter().map(|key| (key, None)).collect();
        small.extend(self.frozen.side.iter().map(|(key, value)| (key.clone(), value.clone())));
        small.insert(Bytes::from_static(META_KEY), Some(Bytes::from(durable.to_row().encode_to_vec())));

        let large =
            changes.keys.iter().map(KeyChange::row).chain(changes.history.iter().map(PastChange::row));
        let mut rows = Merge { large: large.peekable(), small: small.into_iter().peekable() };
        self.engine.ingest(&mut rows)?;
        self.engine.persist()?;
        Ok(durable)
    }

    /// Works out the counters of every change.
    fn resolve(&self) -> Result<Changes, StoreError> {
        let mut changes = Changes::default();
        let mut wrong_guesses = 0;
        // Of the key that the walk is at; its changes come newest first.
        let mut key = Bytes::new();
        let mut beneath: Option<Option<KeyRow>> = None;
        let mut is_first = true;
        for (at, row) in self.frozen.overlay.iter() {
            let is_newest = is_first || at.key != key;
            if is_newest {
                key = at.key.clone();
                beneath = None;
            }
            is_first = false;
            let asks = row.previous.is_none() || matches!(row.lineage, Lineage::Under { .. });
            if asks && beneath.is_none() {
                beneath = Some(layers::newest_in_engine(&*self.beneath, &key)?);
            }
            let base = beneath.as_ref().and_then(Option::as_ref);
            let (create_revision, version) = layers::counters(row.lineage, base);
            if is_wrong_guess(row.lineage, || Ok(base.cloned()))? {
                wrong_guesses += 1;
            }
            let previous = row.previous.unwrap_or_else(|| base.map(KeyRow::at).unwrap_or_default());
            let change = KeyChange { key: at.key, revision: at.revision, create_revision, version, row };
            if is_newest {
                changes.keys.push(change.clone());
            }
            changes.history.push(PastChange::Key { change, previous });
        }
        changes.history.extend(self.frozen.clears.iter().copied().map(PastChange::Clear));
        changes.history.sort_unstable_by(|one, other| one.place().cmp(&other.place()));
        changes.live_keys = self.frozen.tally.apply_to(self.durable.live_keys, wrong_guesses);
        Ok(changes)
    }
}

/// What an overlay comes to.
#[derive(Default)]
struct Changes {
    /// The newest change of each key, in order of keys.
    keys: Vec<KeyChange>,
    /// All changes, in order of revision.
    history: Vec<PastChange>,
    live_keys: u64,
}

#[derive(Clone)]
struct KeyChange {
    key: Bytes,
    revision: u64,
    create_revision: u64,
    version: u64,
    row: OverlayRow,
}

impl KeyChange {
    fn row(&self) -> Change {
        let inline = !self.row.deleted && self.row.value.len() <= INLINE_VALUE_BYTES_MAX;
        let row = KeyRow {
            revision: self.revision,
            create_revision: self.create_revision,
            version: self.version,
            deleted: self.row.deleted,
            content_type: self.row.content_type.clone(),
            value: inline.then(|| self.row.value.clone()),
            lease: self.row.lease,
            shared: self.row.shared,
        };
        (rows::row_key(TABLE_KEYS, &self.key), Some(Bytes::from(row.encode_to_vec())))
    }
}

enum PastChange {
    Key { change: KeyChange, previous: ChangeAt },
    Clear(ClearChange),
}

impl PastChange {
    /// In the order of their rows.
    fn place(&self) -> (u64, &[u8]) {
        match self {
            PastChange::Key { change, .. } => (change.revision, &change.key),
            PastChange::Clear(clear) => (clear.revision, &[]),
        }
    }

    fn row(&self) -> Change {
        let row = match self {
            PastChange::Key { change, previous } => HistoryRow {
                kind: if change.row.deleted { ChangeKind::Delete } else { ChangeKind::Put } as i32,
                key: change.key.clone(),
                create_revision: change.create_revision,
                version: change.version,
                previous: previous.revision,
                previous_shared: previous.shared,
                lease: change.row.lease,
                content_type: change.row.content_type.clone(),
                value: change.row.value.clone(),
            },
            PastChange::Clear(clear) => HistoryRow {
                kind: ChangeKind::Clear as i32,
                create_revision: clear.deleted,
                previous: clear.previous,
                ..HistoryRow::default()
            },
        };
        let key = match self {
            PastChange::Key { change, .. } => {
                let at = ChangeAt { revision: change.revision, shared: change.row.shared };
                rows::history_key(at, &change.key)
            }
            PastChange::Clear(clear) => rows::number_key(TABLE_HISTORY, clear.revision),
        };
        (key, Some(Bytes::from(row.encode_to_vec())))
    }
}

/// Two sorted streams as one. The large one wins where both have a key: a row that is written anew is not removed.
struct Merge<L: Iterator<Item = Change>, S: Iterator<Item = Change>> {
    large: Peekable<L>,
    small: Peekable<S>,
}

impl<L: Iterator<Item = Change>, S: Iterator<Item = Change>> Iterator for Merge<L, S> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        match (self.large.peek(), self.small.peek()) {
            (Some((large, _)), Some((small, _))) if small < large => self.small.next(),
            (Some((large, _)), Some((small, _))) if small == large => {
                self.small.next();
                self.large.next()
            }
            (Some(_), _) => self.large.next(),
            (None, _) => self.small.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn a_flush_that_runs_is_waited_for_and_one_that_does_not_is_called_off() {
        let progress = Progress::default();
        let has_ended = AtomicBool::new(false);
        let (started, is_started) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let run = progress.begin().expect("nobody called it off");
                started.send(()).unwrap();
                thread::yield_now();
                has_ended.store(true, Ordering::SeqCst);
                drop(run);
            });
            is_started.recv().unwrap();
            progress.abandon();
            assert!(has_ended.load(Ordering::SeqCst));
        });
        assert!(progress.outcome().is_none(), "it ended without an outcome");

        let progress = Progress::default();
        progress.abandon();
        assert!(progress.begin().is_none());
    }
}
