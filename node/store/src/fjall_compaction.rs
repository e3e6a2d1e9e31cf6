//! Compaction of the production engine, on a thread of its own in place of fjall's worker.
//!
//! That worker ends at its first error, whatever it was, and the whole database counts as poisoned from then on. A disk that
//! was full for a moment must not come to that. So the keyspaces are made with a strategy that leaves nothing to do for the
//! worker ([`left_to_us`]), and here one that finds no room gives up, leaves the tree as it was, and is tried again after
//! the next flush. Any other failure ends the thread, and is told to whoever flushes next.
//!
//! Rows that were removed lie in the deeper levels until enough new ones come down to them, and where nothing is written
//! any more they would lie there for ever. So when there was no flush for a while, and most of what there is has gone, all is
//! written anew without it.
//!
//! What a compaction (or a flush) had written when the room was gone, nothing points to; it lies there until the next start,
//! when the engine removes it. That is why there is a look at the room first.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::compaction::Leveled;
use fjall::{AbstractTree, Database, Keyspace};

use crate::background::give_way;
use crate::error::EngineError;
use crate::fjall_engine::{engine_error, free_bytes};

/// Bytes of a table that compaction writes. A flush is about two of them, and all of level 0 goes down at once, together with
/// what it meets in level 1, which holds four: with larger ones, more is rewritten each time, and lies on the disk twice.
const TABLE_BYTES: u64 = 16 << 20;
/// Tables that one from level 0 may be as large as.
const TABLES_A_FLUSH: u64 = 2;
/// Tables that level 1 holds.
const LEVEL_1_TABLES: u64 = 4;
/// Without a flush for so long, it is time to tidy up.
const QUIET: Duration = Duration::from_secs(1);
/// The most that is written anew to tidy up, in bytes: a stop waits for it.
const TIDY_BYTES_MAX: u64 = 1 << 30;
/// For what describes the tables.
const ROOM_BYTES_LEAST: u64 = 1 << 20;
/// Requests that wait. More tell nothing new: each flush brings another one.
const REQUESTS: usize = 8;

/// The strategy of the keyspaces as fjall's worker sees it: hardly ever anything to do. It is kept on disk with the keyspace,
/// so that the worker goes on as before in one that an older build has made.
pub(crate) fn left_to_us() -> Arc<Leveled> {
    Arc::new(Leveled::default().with_l0_threshold(u8::MAX).with_table_target_size(1 << 40))
}

/// The thread. Dropped, it ends after the compaction that is under way.
pub(crate) struct Compaction {
    requests: Option<SyncSender<Keyspace>>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<OnceLock<EngineError>>,
}

impl Compaction {
    /// Starts the thread. It keeps the folder of the engine locked only while it compacts.
    pub(crate) fn start(database: &Database, folder: &Path) -> Result<Self, EngineError> {
        let (requests, queue) = sync_channel(REQUESTS);
        let failure = Arc::new(OnceLock::new());
        let supervisor = database.supervisor.clone();
        let worker = Worker {
            folder: folder.to_owned(),
            // What no snapshot looks at any more.
            unseen_below: Box::new(move || supervisor.snapshot_tracker.get_seqno_safe_to_gc()),
            failure: Arc::clone(&failure),
        };
        let thread = std::thread::Builder::new()
            .name("balsa-compact".into())
            .spawn(move || worker.run(&queue))
            .map_err(|error| EngineError { call: "open", message: error.to_string(), no_room: false })?;
        Ok(Self { requests: Some(requests), thread: Some(thread), failure })
    }

    /// There is something new in this keyspace. Does not wait.
    pub(crate) fn request(&self, keyspace: &Keyspace) {
        if let Some(requests) = &self.requests {
            let _ = requests.try_send(keyspace.clone());
        }
    }

    /// Says so if the thread has failed: it would compact no more.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.failure.get() {
            Some(error) => Err(error.clone()),
            None if self.thread.as_ref().is_some_and(JoinHandle::is_finished) => {
                Err(EngineError { call: "compact", message: "the thread has ended".into(), no_room: false })
            }
            None => Ok(()),
        }
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic was reported by the runtime already
        }
    }
}

struct Worker {
    folder: PathBuf,
    unseen_below: Box<dyn Fn() -> u64 + Send>,
    failure: Arc<OnceLock<EngineError>>,
}

impl Worker {
    fn run(&self, requests: &Receiver<Keyspace>) {
        give_way();
        let mut untidy = None;
        let mut left_gone = 0;
        loop {
            let next = match &untidy {
                Some(_) => requests.recv_timeout(QUIET),
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let done = match next {
                Ok(keyspace) => {
                    let done = self.compact(&keyspace);
                    untidy = Some(keyspace);
                    done
                }
                Err(RecvTimeoutError::Timeout) => match untidy.take() {
                    Some(keyspace) => self.tidy(&keyspace, &mut left_gone),
                    None => Ok(()),
                },
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(error) = done.err().filter(|error| !error.no_room) {
                let _ = self.failure.set(error); // it is the first
                return;
            }
        }
    }

    /// Writes all anew, where it is worth it and there is room. `left_gone`: what the last time had to leave, because a
    /// snapshot looked at it.
    fn tidy(&self, keyspace: &Keyspace, left_gone: &mut u64) -> Result<(), EngineError> {
        // Of a row that has gone there are two: itself, and the word that it has.
        let (gone, rows) = (keyspace.tree.tombstone_count(), keyspace.tree.approximate_len() as u64);
        let bytes = keyspace.disk_space();
        let is_worth_it = gone * 5 >= rows * 2 && gone >= *left_gone * 2 && gone > 0;
        if !is_worth_it || bytes > TIDY_BYTES_MAX || free_bytes(&self.folder)? < bytes + ROOM_BYTES_LEAST {
            return Ok(());
        }
        let tidied = keyspace.tree.major_compact(TABLE_BYTES, (self.unseen_below)());
        tidied.map_err(|error| engine_error("compact", &error.into()))?;
        *left_gone = keyspace.tree.tombstone_count();
        Ok(())
    }

    /// Compacts until nothing is left to do.
    fn compact(&self, keyspace: &Keyspace) -> Result<(), EngineError> {
        let strategy = Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES));
        loop {
            let before = keyspace.tree.current_version().id();
            let new = TABLES_A_FLUSH * keyspace.l0_table_count() as u64;
            let rewritten = ((new + LEVEL_1_TABLES) * TABLE_BYTES).min(keyspace.disk_space());
            if free_bytes(&self.folder)? < rewritten + ROOM_BYTES_LEAST {
                return Ok(());
            }
            let compacted = keyspace.tree.compact(strategy.clone(), (self.unseen_below)());
            compacted.map_err(|error| engine_error("compact", &error.into()))?;
            if keyspace.tree.current_version().id() == before {
                return Ok(());
            }
        }
    }
}
