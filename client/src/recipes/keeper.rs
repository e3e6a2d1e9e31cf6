//! Keeps a lease alive until it is dropped, and knows until when it can be sure of it.

use crate::client::Client;
use balsa_wire::problem::Code;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Signs of life within the time that a lease lasts without one.
const SIGNS: u32 = 3;
/// The pause after a sign of life that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// A lease that is kept alive. Dropped, it is left to end by itself.
#[derive(Debug)]
pub(super) struct Keeper {
    lease: u64,
    lost: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Keeps a lease alive that was asked for at `asked`.
    pub(super) fn start(client: Client, lease: u64, ttl: Duration, asked: Instant) -> Keeper {
        let (losing, lost) = watch::channel(false);
        let task = tokio::spawn(async move {
            keep(&client, lease, ttl, asked).await;
            losing.send_replace(true);
        });
        Keeper { lease, lost, task }
    }

    pub(super) fn lease(&self) -> u64 {
        self.lease
    }

    pub(super) fn is_lost(&self) -> bool {
        *self.lost.borrow() || self.task.is_finished()
    }

    /// Resolves once nobody can be sure of the lease any more.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut lost = self.lost.clone();
        async move {
            let _ = lost.wait_for(|lost| *lost).await; // its sender is gone: so is the lease
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns when the lease is lost.
async fn keep(client: &Client, lease: u64, ttl: Duration, asked: Instant) {
    let mut sure_until = asked + ttl;
    let mut next = asked + ttl / SIGNS;
    loop {
        tokio::time::sleep_until(next.min(sure_until).into()).await;
        let sent = Instant::now();
        if sent >= sure_until {
            return;
        }
        let asking = client.keep_lease_within(lease, sure_until - sent);
        match tokio::time::timeout_at(sure_until.into(), asking).await {
            Ok(Ok(_)) => {
                sure_until = sent + ttl;
                next = sent + ttl / SIGNS;
            }
            Ok(Err(error)) if error.cause().code() == Some(Code::LeaseNotFound) => return,
            Ok(Err(_)) => next = Instant::now() + PAUSE,
            Err(_) => return,
        }
    }
}

/// Gives a lease or a lock up in the background, as far as there is a runtime to do it.
pub(super) fn in_background(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}

/// Shared by the guards that end with one lease.
pub(super) type Shared = Arc<Keeper>;
