//! The production [`StateEngine`]: fjall, an LSM tree, written by sorted ingestion only.
//!
//! Why this one: `docs/decisions/0001-state-engine.md`. What is relied on:
//! - An ingestion writes its tables, syncs them and their folder, and then replaces the tree's version file, which is
//!   synced too: at return it is durable as a whole, or not there at all. So [`StateEngine::persist`] has nothing left
//!   to write, and only asks whether the engine is well.
//! - The journal is used for one tiny keyspace only, the pointer to the keyspace that holds the rows; replacing the
//!   state is one synced write of that pointer. A keyspace that it does not name is what an installation left behind,
//!   or was about to drop, and is deleted at open: the pointer alone says what counts.
//! - Where the disk has no room for an ingestion, nothing points to what it had written: all is as it was, and it may be tried
//!   again. (A failed sync of files that nothing points to harms nobody, and these are never looked at again.)
//! - Compaction runs on a thread of its own (`fjall_compaction.rs`), since fjall's worker does not outlive a full disk.
//! - A snapshot keeps its rows readable while it is held, also when its keyspace is deleted.

use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PinningPolicy,
};
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Readable, Snapshot};

use crate::engine::{Change, EngineSnapshot, Replacement, RowIter, StateEngine};
use crate::error::EngineError;
use crate::fjall_compaction::{self, Compaction};
use crate::fjall_manifest;

/// Memory for blocks of tables.
const CACHE_BYTES: u64 = 24 << 20;
/// The pointer is all that ever lies in a memtable.
const MEMTABLE_BYTES: u64 = 1 << 20;
/// Journals hold pointers only.
const JOURNAL_BYTES: u64 = 64 << 20;
/// So many tables in level 0 (compaction starts at 4) hold up a flush, for so long at most.
const LEVEL_0_TABLES: usize = 20;
const COMPACTION_WAIT_MAX: Duration = Duration::from_secs(1);
const COMPACTION_POLL: Duration = Duration::from_millis(5);
const POINTER_KEYSPACE: &str = "pointer";
const POINTER_KEY: &str = "current";
const ROWS_PREFIX: &str = "rows-";

/// The production [`StateEngine`].
pub struct FjallEngine {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    /// Ended before the database is.
    compaction: Compaction,
    database: Database,
    pointer: Keyspace,
    current: Mutex<Current>,
}

/// The keyspace that the pointer names.
#[derive(Clone)]
struct Current {
    number: u64,
    rows: Keyspace,
}

impl FjallEngine {
    /// Opens the engine in a folder of its own, which is made if it is not there. The folder is locked against another
    /// process for as long as the engine, or a snapshot of it, is held.
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        let open = failed("open");
        fjall_manifest::check(folder)?;
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()
            .map_err(open)?;
        let pointer = database.keyspace(POINTER_KEYSPACE, options).map_err(open)?;
        let number = match pointer.get(POINTER_KEY).map_err(open)? {
            Some(number) => parse_number(&number)?,
            None => {
                pointer.insert(POINTER_KEY, 0u64.to_be_bytes()).map_err(open)?;
                database.persist(PersistMode::SyncAll).map_err(open)?;
                0
            }
        };
        let rows = database.keyspace(&rows_name(number), options).map_err(open)?;
        let compaction = Compaction::start(&database, folder)?;
        compaction.request(&rows);
        let current = Mutex::new(Current { number, rows });
        let shared = Shared { folder: folder.to_owned(), compaction, database, pointer, current };
        match shared.drop_others() {
            // They can wait: a disk without room must not keep a node from starting.
            Err(error) if !is_no_room(&error) => return Err(open(error)),
            _ => {}
        }
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    fn current(&self) -> Current {
        // Replaced whole: a panic under the lock leaves it right.
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says so if a background thread has failed: nothing else tells.
    fn check(&self) -> Result<(), EngineError> {
        self.compaction.check()?;
        self.database.persist(PersistMode::Buffer).map_err(failed("persist"))
    }

    /// Ingestion passes by the engine's own back-pressure. Slow down whoever flushes while there are too many tables
    /// that every read has to look at; but not for ever, since nothing here depends on it.
    fn let_compaction_follow(&self, keyspace: &Keyspace) {
        let deadline = Instant::now() + COMPACTION_WAIT_MAX;
        while keyspace.l0_table_count() >= LEVEL_0_TABLES && Instant::now() < deadline {
            std::thread::sleep(COMPACTION_POLL);
        }
    }

    /// Deletes the keyspaces that the pointer does not name.
    fn drop_others(&self) -> fjall::Result<()> {
        let current = rows_name(self.current().number);
        for name in self.database.list_keyspace_names() {
            if name.starts_with(ROWS_PREFIX) && *name != *current {
                let keyspace = self.database.keyspace(&name, options)?;
                self.database.delete_keyspace(keyspace)?;
            }
        }
        Ok(())
    }
}

fn rows_name(number: u64) -> String {
    format!("{ROWS_PREFIX}{number}")
}

fn parse_number(bytes: &[u8]) -> Result<u64, EngineError> {
    let bytes = bytes.try_into().map_err(|_| EngineError {
        call: "open",
        message: format!("the pointer to the current rows is damaged: {}", bytes.escape_ascii()),
        no_room: false,
    })?;
    Ok(u64::from_be_bytes(bytes))
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .compaction_strategy(fjall_compaction::left_to_us())
        .data_block_size_policy(BlockSizePolicy::all(4 << 10))
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0))))
        // Memory must not grow with the data: what is read often stays in the cache, which is bounded.
        .filter_block_pinning_policy(PinningPolicy::all(false))
        .index_block_pinning_policy(PinningPolicy::all(false))
        .filter_block_partitioning_policy(PinningPolicy::all(true))
        .index_block_partitioning_policy(PinningPolicy::all(true))
}

fn failed(call: &'static str) -> impl Fn(fjall::Error) -> EngineError + Copy {
    move |error| engine_error(call, &error)
}

pub(crate) fn engine_error(call: &'static str, error: &fjall::Error) -> EngineError {
    EngineError { call, message: error.to_string(), no_room: is_no_room(error) }
}

fn is_no_room(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
            matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        }
        _ => false,
    }
}

/// Bytes that the disk of a folder has left.
pub(crate) fn free_bytes(folder: &Path) -> Result<u64, EngineError> {
    let stat = rustix::fs::statvfs(folder).map_err(|error| EngineError {
        call: "look at the disk",
        message: error.to_string(),
        no_room: false,
    })?;
    Ok(stat.f_bavail * stat.f_frsize)
}

impl StateEngine for FjallEngine {
    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        let rows = self.shared.current().rows;
        Arc::new(FjallSnapshot { snapshot: self.shared.database.snapshot(), rows })
    }

    fn ingest(&self, rows: &mut dyn Iterator<Item = Change>) -> Result<(), EngineError> {
        let keyspace = self.shared.current().rows;
        ingest(&keyspace, rows).map_err(failed("ingest"))?;
        self.shared.compaction.request(&keyspace);
        self.shared.let_compaction_follow(&keyspace);
        Ok(())
    }

    fn persist(&self) -> Result<(), EngineError> {
        self.shared.check()
    }

    fn begin_replace(&self) -> Result<Box<dyn Replacement>, EngineError> {
        let begin = failed("begin to replace");
        self.shared.drop_others().map_err(begin)?;
        let mut number = self.shared.current().number + 1;
        while self.shared.database.keyspace_exists(&rows_name(number)) {
            number += 1;
        }
        let rows = self.shared.database.keyspace(&rows_name(number), options).map_err(begin)?;
        let staged = Current { number, rows };
        Ok(Box::new(FjallReplacement { shared: Arc::clone(&self.shared), staged, is_finished: false }))
    }

    fn size_bytes(&self) -> u64 {
        self.shared.current().rows.disk_space()
    }

    fn free_bytes(&self) -> Result<u64, EngineError> {
        free_bytes(&self.shared.folder)
    }
}

fn ingest(keyspace: &Keyspace, rows: &mut dyn Iterator<Item = Change>) -> fjall::Result<()> {
    let mut ingestion = keyspace.start_ingestion()?;
    for (key, value) in rows {
        match value {
            Some(value) => ingestion.write(key, value)?,
            None => ingestion.write_tombstone(key)?,
        }
    }
    ingestion.finish()
}

struct FjallSnapshot {
    snapshot: Snapshot,
    rows: Keyspace,
}

impl FjallSnapshot {
    fn range(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> fjall::Iter {
        self.snapshot.range::<&[u8], _>(&self.rows, (start, end))
    }
}

fn read_row(guard: Guard) -> Result<(Bytes, Bytes), EngineError> {
    let (key, value) = guard.into_inner().map_err(failed("scan"))?;
    Ok((key.into(), value.into()))
}

impl EngineSnapshot for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = self.snapshot.get(&self.rows, key).map_err(failed("get"))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter {
        Box::new(self.range(start, end).map(read_row))
    }

    fn scan_back(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RowIter {
        Box::new(self.range(start, end).rev().map(read_row))
    }
}

struct FjallReplacement {
    shared: Arc<Shared>,
    staged: Current,
    is_finished: bool,
}

impl Replacement for FjallReplacement {
    fn add(&mut self, rows: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<(), EngineError> {
        let mut rows = rows.map(|(key, value)| (key, Some(value)));
        ingest(&self.staged.rows, &mut rows).map_err(failed("stage"))?;
        self.shared.compaction.request(&self.staged.rows);
        self.shared.let_compaction_follow(&self.staged.rows);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        let replace = failed("replace");
        let shared = &self.shared;
        shared.pointer.insert(POINTER_KEY, self.staged.number.to_be_bytes()).map_err(replace)?;
        shared.database.persist(PersistMode::SyncAll).map_err(replace)?;
        self.is_finished = true;
        *shared.current.lock().unwrap_or_else(PoisonError::into_inner) = self.staged.clone();
        match shared.drop_others() {
            Err(error) if !is_no_room(&error) => Err(replace(error)),
            _ => Ok(()), // without room they wait until the next open, or replacement
        }
    }
}

impl Drop for FjallReplacement {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be deleted now is deleted at the next open, or before the next replacement.
            let _ = self.shared.database.delete_keyspace(self.staged.rows.clone());
        }
    }
}
