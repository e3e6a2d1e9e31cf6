//! The hub: one thread that feeds the ring for all watchers, proves that they miss nothing, and ends what must end.
//!
//! It sleeps while nobody watches. Progress is one question to the leader for all watchers, an interval apart: once a
//! quorum has confirmed it, what the store showed by then is all that there was to see. Where it is not confirmed this node
//! has no leader, or none that leads: all watches end, and their watchers go on elsewhere.

use super::cursor::{Cursor, Next};
use super::feed::{Fed, Feed};
use super::filter::{Filter, Interests};
use super::ring::Ring;
use super::signal::Signal;
use crate::engine::handle::{Handle, ReadError};
use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use balsa_store::{PastError, Reader, View};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

/// How the hub behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Watchers on this node, at most.
    pub watchers_max: usize,
    /// How often progress is proven.
    pub progress_interval: Duration,
    /// How long a quorum may take to confirm it.
    pub progress_timeout: Duration,
}

/// What the hub tells all watchers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Head {
    /// The ring's newest batch, and the revision that it reaches up to.
    pub newest: (u64, u64),
    /// Rises with each proof of progress.
    pub proofs: u64,
    /// What the store had when that was begun to be delivered: whoever has it, has all that there was.
    pub proven: u64,
    /// Watches that began before this many endings have ended.
    pub endings: u64,
    /// Why.
    pub why: &'static str,
}

/// The node's watchers. Clones are the same ones.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    config: HubConfig,
    reader: Arc<ArcSwap<Reader>>,
    metrics: Arc<Metrics>,
    published: Arc<Signal>,
    ring: Ring,
    /// Replaced where somebody looks at it.
    interests: Mutex<Arc<Interests>>,
    head: watch::Sender<Head>,
    watchers: AtomicUsize,
    /// Somebody came, or all shall end.
    attend: Notify,
    is_closed: watch::Sender<bool>,
}

/// There is no place for another watcher.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this node has as many watchers as it takes ({watchers_max}); try another, or close some")]
pub struct TooManyWatchers {
    /// The limit.
    pub watchers_max: usize,
}

impl Hub {
    /// Nobody watches yet; `reader` is that of the doors.
    pub fn new(config: HubConfig, reader: Arc<ArcSwap<Reader>>, metrics: Arc<Metrics>) -> Hub {
        Hub(Arc::new(Shared {
            config,
            reader,
            metrics,
            published: Arc::default(),
            ring: Ring::default(),
            interests: Mutex::default(),
            head: watch::Sender::new(Head::default()),
            watchers: AtomicUsize::new(0),
            attend: Notify::new(),
            is_closed: watch::Sender::new(false),
        }))
    }

    /// Starts the thread; it ends with [`Hub::close`].
    pub fn start(&self, handle: Handle) -> std::io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new()
            .name("balsa-watch".into())
            .spawn(move || runtime.block_on(shared.run(handle)))
    }

    /// Whom the store's writer tells of what it has published.
    pub fn published(&self) -> &Arc<Signal> {
        &self.0.published
    }

    /// Takes a watcher in.
    pub fn register(&self, filter: Filter) -> Result<Registration, TooManyWatchers> {
        let shared = Arc::clone(&self.0);
        let watchers_max = shared.config.watchers_max;
        if shared.watchers.fetch_add(1, Ordering::SeqCst) >= watchers_max {
            shared.watchers.fetch_sub(1, Ordering::SeqCst);
            return Err(TooManyWatchers { watchers_max });
        }
        shared.metrics.watchers.inc();
        let generation = Arc::make_mut(&mut shared.interests()).add(&filter);
        let mut head = shared.head.subscribe();
        let endings = head.borrow_and_update().endings;
        let registration = Registration { shared, filter, generation, head, endings };
        registration.shared.attend.notify_one();
        Ok(registration)
    }

    /// Ends all watches, and the thread.
    pub fn close(&self) {
        self.0.is_closed.send_replace(true);
    }
}

/// A watcher's place. Given back when dropped.
pub struct Registration {
    shared: Arc<Shared>,
    filter: Filter,
    generation: u64,
    head: watch::Receiver<Head>,
    /// How many endings there had been.
    endings: u64,
}

impl Registration {
    /// A walk from behind `after`.
    pub fn cursor(&self, after: u64) -> Cursor {
        Cursor::new(self.filter.clone(), after, self.generation)
    }

    /// What the hub says now.
    pub fn head(&mut self) -> Head {
        *self.head.borrow_and_update()
    }

    /// Why this watch has ended, if `head` says that.
    pub fn ended(&self, head: &Head) -> Option<&'static str> {
        (head.endings > self.endings).then_some(head.why)
    }

    /// Waits until the hub says something else than [`Registration::head`] has seen; `false`: it never will.
    pub async fn changed(&mut self) -> bool {
        self.head.changed().await.is_ok()
    }

    /// What comes next for a cursor of this place.
    pub fn next(&self, cursor: &mut Cursor, head: &Head) -> Next {
        cursor.next(&self.shared.ring, head.newest)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        Arc::make_mut(&mut self.shared.interests()).remove(&self.filter);
        self.shared.metrics.watchers.dec();
        self.shared.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

type Proof = Pin<Box<dyn Future<Output = Result<(), ReadError>> + Send>>;

impl Shared {
    fn view(&self) -> View {
        self.reader.load().view()
    }

    /// Nothing is awaited while it is held, and what is done under it is short.
    fn interests(&self) -> MutexGuard<'_, Arc<Interests>> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Shared>, handle: Handle) {
        let mut closed = self.is_closed.subscribe();
        let mut feed = Feed::default();
        while !*closed.borrow_and_update() {
            if self.watchers.load(Ordering::SeqCst) == 0 {
                tokio::select! {
                    _ = closed.changed() => {}
                    () = self.attend.notified() => {}
                }
            } else if let Err(why) = self.attend_to_watchers(&mut feed, &handle, &mut closed).await {
                self.end_all(why);
            }
        }
        self.end_all("the node is stopping");
    }

    /// Serves watchers until none is left, or the hub is closed, or they must all go.
    async fn attend_to_watchers(
        &self,
        feed: &mut Feed,
        handle: &Handle,
        closed: &mut watch::Receiver<bool>,
    ) -> Result<(), &'static str> {
        let listener = self.published.listen();
        feed.restart(&self.view());
        self.head.send_modify(|head| head.newest = feed.head());
        let interval = self.config.progress_interval;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut proof: Option<Proof> = None;
        while self.watchers.load(Ordering::SeqCst) > 0 {
            let mut published = pin!(listener.next());
            published.as_mut().enable();
            self.follow(feed)?;
            tokio::select! {
                () = published => {}
                () = self.attend.notified() => {}
                _ = closed.changed() => return Ok(()),
                _ = ticks.tick() => {
                    if proof.is_none() {
                        let (handle, deadline) = (handle.clone(), Instant::now() + self.config.progress_timeout);
                        proof = Some(Box::pin(async move { handle.confirm_read(deadline).await }));
                    }
                }
                proven = async { match proof.as_mut() {
                    Some(proof) => proof.await,
                    None => std::future::pending().await,
                } } => {
                    proof = None;
                    self.proven(feed, proven)?;
                }
            }
        }
        Ok(())
    }

    /// Makes ready what was published.
    fn follow(&self, feed: &mut Feed) -> Result<(), &'static str> {
        loop {
            // In this order: whoever comes behind the interests begins behind the view, and sleeps over nothing of its own.
            let view = self.view();
            let interests = Arc::clone(&self.interests());
            match feed.follow(&self.ring, &view, &interests) {
                Ok(Fed::News) => self.head.send_modify(|head| head.newest = feed.head()),
                Ok(Fed::Quiet) => {
                    self.head.send_if_modified(|head| {
                        head.newest = feed.head();
                        false // whoever sleeps goes on to sleep
                    });
                }
                Ok(Fed::Nothing) => return Ok(()),
                Err(
                    error @ (PastError::Store(_) | PastError::Compacted { .. } | PastError::Future { .. }),
                ) => {
                    tracing::error!(%error, "the store cannot be read for watchers");
                    return Err("the store cannot be read");
                }
            }
        }
    }

    /// A quorum has confirmed, or not, that this node's store was up to date.
    fn proven(&self, feed: &mut Feed, proven: Result<(), ReadError>) -> Result<(), &'static str> {
        match proven {
            Ok(()) => {
                self.follow(feed)?;
                let (_, through) = feed.head();
                self.head.send_modify(|head| {
                    head.proofs += 1;
                    head.proven = through;
                });
                Ok(())
            }
            // The node is busy, which says nothing about its leader; it is asked again.
            Err(ReadError::Overloaded { .. }) => Ok(()),
            Err(ReadError::NoLeader) => Err("this node has no leader"),
            Err(ReadError::NotConfirmed) => Err("no quorum confirms what this node has"),
            Err(ReadError::Stopping) => Err("the node is stopping"),
            Err(ReadError::Removed { .. }) => Err("this node was removed from the cluster"),
        }
    }

    fn end_all(&self, why: &'static str) {
        self.head.send_modify(|head| {
            head.endings += 1;
            head.why = why;
        });
    }
}
