//! The store: entries in, replies out, states published.
//!
//! One thread owns it. It knows that entries come in order of their index and what time they carry; it does not know
//! who agreed on them, and has no clock. Everything an entry does follows from the entries before it: the order of
//! flushes, the layers, the expiry of replies in slices and the removal of old rows show in no reply and no digest.
//!
//! The way of a change: [`Store::apply`] puts it into the active overlay, [`Store::publish`] lets readers see it,
//! [`Store::maybe_rotate`] freezes the overlay, a [`FlushJob`] writes it to the engine on another thread, and
//! [`Store::handle_flushed`] lets it go. Until then the log has to keep it.
//!
//! `durable <= published <= applied` hold between the indexes, except that a flush may end before what it wrote was
//! published; then the engine's snapshot that readers have is the older one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::ages::Ages;
use crate::command::{self, Answer, Command, Nothing, Operation, Reply, RequestId};
use crate::config::StoreConfig;
use crate::digest;
use crate::engine::StateEngine;
use crate::error::{ApplyError, StoreError};
use crate::flush::{FlushJob, Frozen, LiveTally, Progress, Retired};
use crate::hot_rows::HotRows;
use crate::layers::Layers;
use crate::leases::{LeaseLimits, Leases};
use crate::overlay::{Arena, NewestIndex};
use crate::position::{Durable, Position};
use crate::reader::{Published, Reader, Stats};
use crate::replies::{Admission, Replies, SideLayers};
use crate::rows::META_KEY;
use crate::sessions::{SessionLimits, Sessions};
use crate::side::SideRows;
use crate::snapshot::{SnapshotSink, SnapshotSource, StagedSnapshot};

/// The keyspace and its persistence.
pub struct Store {
    pub(crate) engine: Arc<dyn StateEngine>,
    pub(crate) config: StoreConfig,
    /// Of what is applied.
    pub(crate) position: Position,
    pub(crate) layers: Layers,
    pub(crate) active: Active,
    /// Being flushed.
    pub(crate) frozen: Option<Arc<Frozen>>,
    /// Was flushed. Freeing its many rows takes milliseconds, which the next flush has and this thread has not.
    retired: Option<Retired>,
    /// What the engine holds.
    pub(crate) durable: Durable,
    pub(crate) replies: Replies,
    pub(crate) sessions: Sessions,
    pub(crate) leases: Leases,
    ages: Ages,
    published: Arc<ArcSwap<Published>>,
    flushes: u64,
    scratch: Vec<u8>,
}

/// The writer's side of the active overlay.
#[derive(Default)]
pub(crate) struct Active {
    pub(crate) side: SideRows,
    pub(crate) clears: Vec<ClearChange>,
    pub(crate) tally: LiveTally,
    pub(crate) arena: Arena,
    pub(crate) index: NewestIndex,
    /// Keys that were counted as new without looking.
    pub(crate) guesses: Vec<Bytes>,
    /// Memory of the overlay's rows, about.
    pub(crate) row_bytes: usize,
    /// Changes in the overlay.
    pub(crate) changes: usize,
}

/// A clear.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClearChange {
    pub(crate) revision: u64,
    pub(crate) deleted: u64,
    /// Revision of the clear before; 0: none.
    pub(crate) previous: u64,
}

impl Store {
    /// Opens the state that the engine holds; an empty engine is the state before the first entry.
    pub fn open(engine: Arc<dyn StateEngine>, config: StoreConfig) -> Result<Store, StoreError> {
        let snapshot = engine.snapshot();
        let durable = Durable::read(snapshot.get(META_KEY)?)?;
        let replies = Replies::open(&*snapshot, config.reply_ttl_ms, config.reply_limit)?;
        let limits = SessionLimits {
            ttl_ms: config.session_ttl_ms,
            sessions: config.session_limit,
            replies: config.session_reply_limit,
        };
        let sessions = Sessions::open(&*snapshot, limits)?;
        let limits = LeaseLimits {
            leases: config.lease_limit,
            keys: config.leased_key_limit,
            places: config.lock_limit,
            place_bytes: config.lock_bytes_limit,
        };
        let leases = Leases::open(&*snapshot, limits)?;
        let layers = Layers { active: Arc::default(), frozen: None, engine: HotRows::of(snapshot) };
        let published = Arc::new(ArcSwap::from_pointee(Published {
            layers: layers.clone(),
            position: durable.position,
            table: Arc::clone(&leases.table),
            stats: Stats::default(),
        }));
        let mut store = Store {
            engine,
            config,
            position: durable.position,
            layers,
            active: Active::default(),
            frozen: None,
            retired: None,
            durable,
            replies,
            sessions,
            leases,
            ages: Ages::default(),
            published,
            flushes: 0,
            scratch: Vec::new(),
        };
        store.publish();
        Ok(store)
    }

    /// The last entry applied: entries above it are to be applied again after a restart.
    pub fn applied_index(&self) -> u64 {
        self.position.applied_index
    }

    /// The last entry that is durable in the engine: the log may be truncated up to it.
    pub fn durable_index(&self) -> u64 {
        self.durable.position.applied_index
    }

    /// Cluster time, in milliseconds: the newest stamp applied.
    pub fn time_ms(&self) -> u64 {
        self.position.time_ms
    }

    /// The feature level; 0 before it was ever raised.
    pub fn feature_level(&self) -> u32 {
        self.position.feature_level
    }

    /// Everything about the applied state as a whole.
    pub fn position(&self) -> Position {
        self.position
    }

    /// A handle for readers.
    pub fn reader(&self) -> Reader {
        Reader { published: Arc::clone(&self.published) }
    }

    /// Applies a command; `index` must be the one after [`Store::applied_index`]. After an error the store must not be
    /// used any more: what the entry did may be half done.
    pub fn apply(&mut self, index: u64, entry: &Bytes) -> Result<Reply, ApplyError> {
        let (time_ms, command) = decode(index, entry)?;
        self.apply_decoded(index, time_ms, command)
    }

    /// As [`Store::apply`], where that touches memory alone: a plain PUT, a lease's begin or its sign of life. `None`: it
    /// might read the engine; nothing was done.
    pub fn apply_in_memory(&mut self, index: u64, entry: &Bytes) -> Result<Option<Reply>, ApplyError> {
        let (time_ms, command) = decode(index, entry)?;
        let now_ms = self.position.time_ms.max(time_ms);
        let is_plain = command.request.is_none()
            && match &command.operation {
                Some(Operation::Put(put)) => put.is_plain(),
                Some(Operation::GrantLease(_) | Operation::KeepLease(_)) => true,
                _ => false,
            };
        if !is_plain || self.replies.has_expired(now_ms) || self.sessions.has_expired(now_ms) {
            return Ok(None);
        }
        self.apply_decoded(index, time_ms, command).map(Some)
    }

    fn apply_decoded(&mut self, index: u64, time_ms: u64, command: Command) -> Result<Reply, ApplyError> {
        self.assert_next(index);
        let Command { request, operation } = command;
        let operation = operation.ok_or(ApplyError::Unknown { index, what: "an operation" })?;
        // A clock that runs backwards would be the leader's bug; replies must not come back to life by it.
        self.position.time_ms = self.position.time_ms.max(time_ms);
        self.expire().map_err(|source| ApplyError::Store { index, source })?;
        let reply = self.apply_request(index, request, &operation)?;
        self.ages.note(self.position.time_ms, self.position.revision, self.config.history_age_ms);
        self.position.applied_index = index;
        self.position.digest = digest::advance(
            &mut self.scratch,
            self.position.digest,
            index,
            self.position.time_ms,
            &operation,
            &reply,
        );
        Ok(reply)
    }

    /// Notes an entry that is no command, as the no-op of a new leader or a membership change; `index` must be the one
    /// after [`Store::applied_index`].
    pub fn apply_empty(&mut self, index: u64) {
        self.assert_next(index);
        self.position.applied_index = index;
    }

    fn assert_next(&self, index: u64) {
        let applied = self.position.applied_index;
        assert!(index == applied + 1, "entry {index} is applied after entry {applied}");
    }

    fn expire(&mut self) -> Result<(), StoreError> {
        let now_ms = self.position.time_ms;
        let mut side = SideLayers {
            active: &mut self.active.side,
            frozen: self.frozen.as_ref().map(|frozen| &frozen.side),
            engine: &*self.layers.engine,
        };
        self.replies.expire(&mut side, now_ms)?;
        self.sessions.expire(&mut side, now_ms)
    }

    /// Applies once: a request that is known is not applied again.
    fn apply_request(
        &mut self,
        index: u64,
        request: Option<RequestId>,
        operation: &Operation,
    ) -> Result<Reply, ApplyError> {
        let Some(request) = request else { return self.apply_operation(index, operation) };
        let now_ms = self.position.time_ms;
        let admission = {
            let mut side = SideLayers {
                active: &mut self.active.side,
                frozen: self.frozen.as_ref().map(|frozen| &frozen.side),
                engine: &*self.layers.engine,
            };
            match &request {
                RequestId::Key(id) => self.replies.admit(&mut side, now_ms, &id.key, &id.fingerprint),
                RequestId::Session(id) => self.sessions.admit(&mut side, now_ms, id),
            }
            .map_err(|source| ApplyError::Store { index, source })?
        };
        match admission {
            Admission::New => {}
            Admission::Replay(reply) => return Ok(Reply { replayed: true, ..reply }),
            Admission::Mismatch => return Ok(refusal(Answer::RequestMismatch(Nothing {}))),
            Admission::Full => return Ok(refusal(Answer::ReplyTableFull(Nothing {}))),
            Admission::Expired => return Ok(refusal(Answer::SessionExpired(Nothing {}))),
        }
        let reply = self.apply_operation(index, operation)?;
        if reply.is_recorded() {
            let mut side = SideLayers {
                active: &mut self.active.side,
                frozen: self.frozen.as_ref().map(|frozen| &frozen.side),
                engine: &*self.layers.engine,
            };
            match &request {
                RequestId::Key(id) => {
                    self.replies.record(&mut side, now_ms, &id.key, &id.fingerprint, &reply);
                }
                RequestId::Session(id) => self.sessions.record(&mut side, now_ms, id, &reply),
            }
        }
        Ok(reply)
    }

    /// Makes everything applied so far visible to readers. Once a batch.
    pub fn publish(&mut self) {
        self.publish_position(self.position);
    }

    fn publish_position(&mut self, position: Position) {
        let stats = self.stats();
        self.published.store(Arc::new(Published {
            layers: self.layers.clone(),
            position,
            stats,
            table: Arc::clone(&self.leases.table),
        }));
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let (leases, leased_keys, lock_places) = self.leases.counts();
        let frozen_bytes = self.frozen.as_ref().map_or(0, |frozen| frozen.bytes);
        Stats {
            overlay_bytes: (self.active_bytes() + frozen_bytes) as u64,
            reply_entries: self.replies.len() as u64,
            sessions: self.sessions.len() as u64,
            session_replies: self.sessions.replies() as u64,
            leases: leases as u64,
            leased_keys: leased_keys as u64,
            lock_places: lock_places as u64,
            live_keys: self.guess_live_keys(),
            flushes: self.flushes,
            durable_index: self.durable_index(),
        }
    }

    fn active_bytes(&self) -> usize {
        self.active.row_bytes + self.active.side.bytes()
    }

    /// Where the state lies on the disk, for its size.
    pub fn engine(&self) -> Arc<dyn StateEngine> {
        Arc::clone(&self.engine)
    }

    /// The revision that the leader should propose to compact up to, once there is enough more history than is kept, or
    /// some of it is too old.
    pub fn wants_compaction(&self) -> Option<u64> {
        let Position { revision, compacted, time_ms, .. } = self.position;
        let kept = self.config.history_revisions;
        let many = (revision - compacted > kept + kept / 5).then(|| revision - kept);
        let old = self.ages.old(time_ms, self.config.history_age_ms).filter(|old| *old > compacted);
        many.max(old)
    }

    /// Freezes the overlay if it is full or old, or if there are rows to remove, and no flush is under way. The job is to
    /// be run on another thread, until it does not fail for want of room, and its result given to
    /// [`Store::handle_flushed`]; if it fails otherwise, the node stops.
    pub fn maybe_rotate(&mut self) -> Option<FlushJob> {
        let full = self.active_bytes() >= self.config.overlay_bytes;
        let old = self.applied_index() - self.durable_index() >= self.config.overlay_entries;
        let sweep = self.durable.sweep_is_behind();
        if full || old || sweep { self.force_rotate() } else { None }
    }

    /// As [`Store::maybe_rotate`], where rows have become unreadable that a flush would begin to remove: one that is not due
    /// yet, and may be long in coming where little is written.
    pub fn rotate_to_sweep(&mut self) -> Option<FlushJob> {
        let (applied, durable) = (&self.position, &self.durable.position);
        let more = applied.compacted > durable.compacted || applied.last_clear > durable.last_clear;
        if more { self.force_rotate() } else { None }
    }

    /// Freezes the overlay if there is anything in it, and no flush is under way: for a shutdown, or before a snapshot.
    pub fn force_rotate(&mut self) -> Option<FlushJob> {
        if self.frozen.is_some()
            || (self.durable.position == self.position && !self.durable.sweep_is_behind())
        {
            return None;
        }
        let bytes = self.active_bytes();
        // As large as the last one from the start: growing moves every entry.
        let index = NewestIndex::with_capacity(self.active.index.len());
        let active = std::mem::replace(&mut self.active, Active { index, ..Active::default() });
        let frozen = Arc::new(Frozen {
            overlay: std::mem::take(&mut self.layers.active),
            side: active.side,
            index: active.index,
            guesses: active.guesses,
            clears: active.clears,
            tally: active.tally,
            position: self.position,
            bytes,
            changes: active.changes,
            progress: Progress::default(),
        });
        self.layers.frozen = Some(Arc::clone(&frozen.overlay));
        self.frozen = Some(Arc::clone(&frozen));
        Some(FlushJob {
            engine: Arc::clone(&self.engine),
            beneath: self.layers.engine.snapshot(),
            durable: self.durable.clone(),
            frozen,
            retired: std::cell::Cell::new(self.retired.take()),
            sweep_rows: self.config.sweep_rows,
        })
    }

    /// Both overlays are full: nothing more may be applied until the flush has ended.
    pub fn must_wait(&self) -> bool {
        self.frozen.is_some() && self.active_bytes() >= self.config.overlay_bytes
    }

    /// A flush is under way.
    pub fn is_flushing(&self) -> bool {
        self.frozen.is_some()
    }

    /// Lets go of what was flushed: `index` is what [`FlushJob::run`] returned. One that was abandoned for a snapshot is
    /// passed over.
    pub fn handle_flushed(&mut self, index: u64) -> Result<(), StoreError> {
        let expected = self.frozen.as_ref().map(|frozen| frozen.position.applied_index);
        // A flush that only removes old rows ends where the one before it did; one that was abandoned ends below.
        if expected != Some(index) && index < self.durable_index() {
            return Ok(());
        }
        let frozen = self.frozen.take();
        assert!(expected == Some(index), "a flush up to {index} ended, expected was {expected:?}");
        let outcome = frozen.as_ref().and_then(|frozen| frozen.progress.outcome());
        let Some(durable) = outcome else {
            panic!("the flush up to {index} is said to have ended, and has not")
        };
        self.durable = durable;
        self.flushes += 1;
        self.retired = frozen.map(|frozen| (frozen, self.layers.engine.remembered()));
        self.layers.frozen = None;
        self.layers.engine = HotRows::of(self.engine.snapshot());
        // Readers of a state older than what was flushed need the engine as it was before: it has only the newest
        // change of a key. They get the new one with the next publication.
        let published = self.published.load().position;
        if published.applied_index >= index {
            self.publish_position(published);
        }
        Ok(())
    }

    /// Starts to stream the durable state, at [`Store::durable_index`]. For a newer one flush first
    /// ([`Store::force_rotate`]). The stream goes on from its state whatever is applied beside it.
    pub fn begin_snapshot(&self) -> SnapshotSource {
        SnapshotSource::new(self.layers.engine.snapshot(), &self.durable)
    }

    /// Starts to receive a snapshot. The state stays as it is, and may change, until [`Store::install_snapshot`].
    pub fn begin_install(&self) -> Result<SnapshotSink, StoreError> {
        Ok(SnapshotSink::new(self.engine.begin_replace()?))
    }

    /// Puts a received snapshot in the place of the whole state; durable at return. Everything applied and not in the
    /// snapshot is gone; the snapshot must be newer. A flush that is running is waited for, one that is not yet running
    /// will do nothing.
    pub fn install_snapshot(&mut self, staged: StagedSnapshot) -> Result<(), StoreError> {
        let (snapshot, applied) = (staged.index(), self.applied_index());
        if snapshot <= applied {
            return Err(StoreError::StaleSnapshot { snapshot, applied });
        }
        if let Some(frozen) = &self.frozen {
            frozen.progress.abandon();
        }
        staged.finish()?;
        let installed = Store::open(Arc::clone(&self.engine), self.config.clone())?;
        let at = installed.applied_index();
        assert!(at == snapshot, "a snapshot at {snapshot} was installed, the engine is at {at}");
        let (published, flushes) = (Arc::clone(&self.published), self.flushes);
        *self = Store { published, flushes, ..installed };
        self.publish();
        Ok(())
    }
}

fn decode(index: u64, entry: &Bytes) -> Result<(u64, Command), ApplyError> {
    command::decode(entry).map_err(|source| ApplyError::Undecodable { index, source })
}

fn refusal(answer: Answer) -> Reply {
    Reply { answer: Some(answer), replayed: false }
}
