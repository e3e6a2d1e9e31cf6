//! What every request may reach, and the bounds it must keep.
//!
//! The doors own nothing of the node: they hold a handle to the engine, a reader of the store, and numbers that
//! others feed. Nothing here waits on a lock.

use super::backup::Backups;
use super::headers::StatusHeaders;
use super::in_flight::InFlight;
use super::reads::Reads;
use crate::engine::handle::Handle;
use crate::metrics::Metrics;
use crate::watch::Hub;
use arc_swap::ArcSwap;
use balsa_store::{Reader, View};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Reads of the past at once: each may keep a thread waiting for the disk.
const PAST_READS_MAX: usize = 8;

/// Bounds of single requests and of all writes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key, in bytes of UTF-8.
    pub key_bytes: usize,
    /// The largest value, in bytes.
    pub value_bytes: usize,
    /// Writes in flight on this node; beyond: 503.
    pub writes_in_flight: usize,
    /// Bytes of bodies of writes in flight on this node; beyond: 503.
    pub write_bytes_in_flight: usize,
    /// From the end of a request's head to its answer.
    pub request_timeout: Duration,
    /// Bytes a second of all backups together.
    pub backup_bytes_per_second: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            key_bytes: 4096,
            value_bytes: 1 << 20,
            writes_in_flight: 16_384,
            write_bytes_in_flight: 64 << 20,
            request_timeout: Duration::from_secs(5),
            backup_bytes_per_second: 80 << 20,
        }
    }
}

/// A question that the doors ask of whoever can tell; called per request, so it must be cheap and must not wait.
pub type Probe<T> = Box<dyn Fn() -> T + Send + Sync>;

/// What [`ApiState`] is made of.
pub struct Parts {
    /// The engine.
    pub handle: Handle,
    /// The store's published state; replaced once, when a node that was blank has become a member.
    pub reader: Arc<ArcSwap<Reader>>,
    /// The watchers of this node.
    pub hub: Hub,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// The bounds.
    pub limits: Limits,
    /// Whether the engine has turned lately: the answer of `/livez`.
    pub alive: Probe<bool>,
    /// How old this node's state may be: the time since it last heard from a leader (0 on the leader itself). Told
    /// with stale reads.
    pub applied_age: Probe<Duration>,
}

/// What every request reaches. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(pub(super) Arc<Shared>);

/// The one copy behind all clones of [`ApiState`].
pub(super) struct Shared {
    pub(super) handle: Handle,
    pub(super) hub: Hub,
    reader: Arc<ArcSwap<Reader>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    pub(super) alive: Probe<bool>,
    pub(super) applied_age: Probe<Duration>,
    pub(super) in_flight: InFlight,
    pub(super) reads: Reads,
    pub(super) backups: Backups,
    /// One a read of the past that is under way.
    pub(super) past_reads: Semaphore,
    /// The node stops: answers close their connection.
    pub(super) is_leaving: AtomicBool,
    /// The headers that say the newest status; replaced by whichever request first sees another one.
    pub(super) status_headers: ArcSwap<StatusHeaders>,
}

impl ApiState {
    /// Joins the parts.
    pub fn new(parts: Parts) -> ApiState {
        let in_flight = InFlight::new(
            parts.limits.writes_in_flight,
            parts.limits.write_bytes_in_flight,
            Arc::clone(&parts.metrics),
        );
        let backups = Backups::new(parts.limits.backup_bytes_per_second);
        ApiState(Arc::new(Shared {
            handle: parts.handle,
            hub: parts.hub,
            reader: parts.reader,
            metrics: parts.metrics,
            limits: parts.limits,
            alive: parts.alive,
            applied_age: parts.applied_age,
            in_flight,
            reads: Reads::default(),
            backups,
            past_reads: Semaphore::new(PAST_READS_MAX),
            is_leaving: AtomicBool::new(false),
            status_headers: ArcSwap::from_pointee(StatusHeaders::default()),
        }))
    }
}

impl Shared {
    /// The newest published state.
    pub(super) fn view(&self) -> View {
        self.reader.load().view()
    }

    /// Hands `write` what every answer tells: the status as headers, and the revision of this node's store.
    pub(super) fn with_status<T>(&self, write: impl FnOnce(&StatusHeaders, u64) -> T) -> T {
        let status = self.handle.status();
        let revision = self.view().revision();
        let headers = self.status_headers.load();
        if headers.fits(&status) {
            return write(&headers, revision);
        }
        let made = Arc::new(StatusHeaders::of(&status));
        let written = write(&made, revision);
        self.status_headers.store(made);
        written
    }
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}
