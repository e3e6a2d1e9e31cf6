//! The shell around the engine: threads that carry events in and effects out, each with one job.
//!
//! | thread | owns | does |
//! | --- | --- | --- |
//! | `balsa-engine` | the [`EventLoop`]: [`Engine`](crate::engine::Engine), peers' streams | takes events in batches, carries effects out |
//! | `balsa-log` | the log | *persist*: one fdatasync for all writes at hand |
//! | `balsa-apply` | its turn as the store's single writer | *apply*, *respond*, where that may read the disk |
//! | `balsa-flush` | nothing | writes frozen overlays into the embedded engine, giving way to all others; waits where the disk has no room |
//!
//! Queues: clients' requests are bounded and refused when full; peers' messages are bounded and push back on their
//! connections when full; what the threads tell one another is bounded by what the engine lets out at once (uncommitted
//! bytes, bytes handed out to apply), so those queues need no bound of their own and can never block each other.
//!
//! No thread survives a failure of the disk or a broken invariant: the node stops, it never guesses (contract, promise 4).

mod apply_thread;
mod backups;
mod engine_thread;
mod event_loop;
mod flush_thread;
mod gauges;
mod live;
mod log_thread;
mod snapshot_streams;

pub use engine_thread::{Running, Wiring, start};
pub use event_loop::{EventLoop, Guest, Guests};
pub use gauges::set_transport;
pub use live::{Inputs, Live, Room};
pub use snapshot_streams::StreamSettings;

use std::sync::Arc;
use tokio::sync::watch;

/// Tells the process that the node cannot go on. The first reason wins.
#[derive(Clone)]
pub struct Fatal {
    reason: Arc<watch::Sender<Option<String>>>,
}

impl Default for Fatal {
    fn default() -> Fatal {
        Fatal { reason: Arc::new(watch::Sender::new(None)) }
    }
}

impl Fatal {
    /// The node cannot go on.
    pub fn report(&self, reason: String) {
        tracing::error!(reason, "the node stops");
        self.reason.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(reason);
            first
        });
    }

    /// Waits for a reason to stop; forever, if none comes.
    pub async fn reported(&self) -> String {
        let mut receiver = self.reason.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether there is a reason to stop.
    pub fn is_reported(&self) -> bool {
        self.reason.borrow().is_some()
    }
}

/// Starts a named thread that reports as fatal whatever it ends with.
fn spawn(
    name: &'static str,
    fatal: Fatal,
    run: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(move || {
        if let Err(reason) = run() {
            fatal.report(reason);
        }
    })
}
