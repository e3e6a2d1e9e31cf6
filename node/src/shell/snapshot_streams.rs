//! Snapshots on the wire: one task streams a snapshot to a peer, chunk by chunk, at a pace that leaves room for the rest.
//!
//! What is said to a peer, and what its answers mean, [`Outgoing`] decides; here are time, connections and numbers. A broken
//! connection does not end a transfer: the task asks the peer again where it is, for as long as it may be away
//! ([`StreamSettings::patience`]). All streams of a node together keep to one pace, so that neither heartbeats nor writes
//! starve beside them (hazards 26, 45).

use super::live::Live;
use crate::engine::Event;
use crate::engine::snapshot_frame::{Answer, SnapshotFrame};
use crate::engine::snapshot_send::{Heard, Outgoing};
use crate::metrics::{Metrics, SnapshotEvent};
use crate::pace::Pace;
use crate::peer::PeerHub;
use balsa_raft::ready::SnapshotMeta;
use balsa_raft::{Index, NodeId, Term};
use balsa_store::SnapshotSource;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// How long an answer is waited for before the peer is asked again.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// How soon a peer is asked again while there is no connection to it.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(50);
/// After a failure, the next snapshot for the peer begins no sooner than this.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// Answers of a peer that its stream has not taken yet; more are dropped, and come again when it is asked again.
const ANSWERS: usize = 64;

/// How snapshots are sent.
#[derive(Clone, Copy, Debug)]
pub struct StreamSettings {
    /// Bytes a second of all streams together.
    pub bytes_per_second: u64,
    /// How long a peer that does not answer is waited for before what was sent to it is given up.
    pub patience: Duration,
    /// Names of transfers begin here; no other process ever had them.
    pub first_id: u64,
}

/// What the streams need of the node.
pub(super) struct Ways {
    pub(super) hub: Arc<PeerHub>,
    pub(super) events: UnboundedSender<Event<Live>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) runtime: Handle,
}

/// The snapshots that were begun, by peer; clones are the same.
#[derive(Clone)]
pub(super) struct Streams(Arc<Shared>);

struct Shared {
    settings: StreamSettings,
    ways: Ways,
    pace: Pace,
    state: Mutex<State>,
}

struct State {
    by_peer: BTreeMap<NodeId, Stream>,
    next_id: u64,
}

struct Stream {
    outgoing: Arc<Mutex<Outgoing>>,
    index: Index,
    /// Once it runs.
    task: Option<(AbortHandle, mpsc::Sender<Answer>)>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some((task, _)) = &self.task {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    pub(super) fn new(settings: StreamSettings, ways: Ways) -> Streams {
        let state = State { by_peer: BTreeMap::new(), next_id: settings.first_id };
        let pace = Pace::new(settings.bytes_per_second);
        Streams(Arc::new(Shared { settings, ways, pace, state: Mutex::new(state) }))
    }

    /// Begins a snapshot for a peer, unless one is on its way there already; gives its index.
    pub(super) fn begin(&self, to: NodeId, begin: impl FnOnce() -> SnapshotSource) -> Index {
        if let Some(stream) = lock(&self.0.state).by_peer.get(&to) {
            return stream.index;
        }
        let source = begin();
        let index = Index(source.index());
        let mut state = lock(&self.0.state);
        state.next_id += 1;
        let outgoing = Arc::new(Mutex::new(Outgoing::new(state.next_id, source)));
        state.by_peer.insert(to, Stream { outgoing, index, task: None });
        self.show(&state);
        index
    }

    /// Streams what was begun, and reports how that ended. One that runs already goes on in this term.
    pub(super) fn start(&self, to: NodeId, term: Term, meta: SnapshotMeta) {
        let mut state = lock(&self.0.state);
        let Some(stream) = state.by_peer.get_mut(&to) else {
            let _ = self.0.ways.events.send(Event::SnapshotSent { to, index: None });
            return;
        };
        if let Some((task, _)) = stream.task.take() {
            task.abort();
        }
        tracing::info!(peer = %to, index = %meta.index, "a snapshot is being sent");
        let (answers, heard) = mpsc::channel(ANSWERS);
        let (shared, outgoing) = (Arc::clone(&self.0), Arc::clone(&stream.outgoing));
        let streams = self.clone();
        let task = self.0.ways.runtime.spawn(async move {
            let index = meta.index;
            lock(&outgoing).start(term, meta);
            let outcome = shared.stream(to, &outgoing, heard).await;
            if outcome.is_err() {
                sleep(FAILURE_PAUSE).await; // whatever is wrong there, another one at once would meet it too
            }
            streams.ended(to, index, &outgoing, outcome);
        });
        stream.task = Some((task.abort_handle(), answers));
    }

    /// A peer answered.
    pub(super) fn answer(&self, from: NodeId, answer: Answer) {
        let state = lock(&self.0.state);
        if let Some((_, answers)) = state.by_peer.get(&from).and_then(|stream| stream.task.as_ref()) {
            let _ = answers.try_send(answer); // full: it is asked again
        }
    }

    /// Gives a snapshot up.
    pub(super) fn drop_one(&self, to: NodeId) {
        let mut state = lock(&self.0.state);
        let gone = state.by_peer.remove(&to);
        self.show(&state);
        // The files that it kept may go now, and this may be the engine's thread.
        self.0.ways.runtime.spawn_blocking(move || drop(gone));
    }

    fn ended(&self, to: NodeId, index: Index, outgoing: &Arc<Mutex<Outgoing>>, outcome: Result<(), String>) {
        let mut state = lock(&self.0.state);
        // Another may have taken its place; then nobody asks how this one ended.
        if state.by_peer.get(&to).is_none_or(|stream| !Arc::ptr_eq(&stream.outgoing, outgoing)) {
            return;
        }
        state.by_peer.remove(&to);
        self.show(&state);
        let metrics = &self.0.ways.metrics;
        match &outcome {
            Ok(()) => {
                metrics.snapshot(SnapshotEvent::Sent);
                tracing::info!(peer = %to, %index, "a snapshot was sent");
            }
            Err(reason) => {
                metrics.snapshot(SnapshotEvent::Failed);
                tracing::warn!(peer = %to, %index, reason, "a snapshot was not sent whole");
            }
        }
        let _ = self.0.ways.events.send(Event::SnapshotSent { to, index: outcome.is_ok().then_some(index) });
    }

    fn show(&self, state: &State) {
        let count = i64::try_from(state.by_peer.len()).unwrap_or(i64::MAX);
        self.0.ways.metrics.snapshots_out.set(count);
    }
}

impl Shared {
    async fn stream(
        &self,
        to: NodeId,
        outgoing: &Mutex<Outgoing>,
        mut answers: mpsc::Receiver<Answer>,
    ) -> Result<(), String> {
        let mut heard_at = Instant::now();
        let mut connected = true;
        loop {
            let chunk =
                block(|| lock(outgoing).next_chunk(CHUNK_BYTES)).map_err(|error| error.to_string())?;
            let answer = match chunk {
                Some(SnapshotFrame::Chunk { id, sequence, data }) => {
                    let bytes = data.len();
                    sleep_until(self.pace.reserve(bytes).into()).await;
                    let frame = SnapshotFrame::Chunk { id, sequence, data }.encode();
                    connected = self.ways.hub.send_bulk(to, frame).await.is_ok();
                    if connected {
                        heard_at = Instant::now(); // the connection takes more: the peer reads
                        self.ways.metrics.snapshot_sent_bytes.inc_by(bytes as u64);
                    } else {
                        lock(outgoing).broken();
                    }
                    answers.try_recv().ok()
                }
                _ => {
                    let ask = lock(outgoing).ask().map(|frame| frame.encode());
                    if let Some(ask) = ask {
                        connected = self.ways.hub.send_bulk(to, ask).await.is_ok();
                    }
                    let wait = if connected { ASK_INTERVAL } else { RECONNECT_INTERVAL };
                    timeout(wait, answers.recv()).await.ok().flatten()
                }
            };
            let Some(answer) = answer else {
                if heard_at.elapsed() >= self.settings.patience {
                    return Err(format!("the peer did not answer for {:?}", self.settings.patience));
                }
                continue;
            };
            heard_at = Instant::now();
            let heard = block(|| lock(outgoing).handle(answer)).map_err(|error| error.to_string())?;
            match heard {
                Heard::Installed => return Ok(()),
                Heard::Over(why) => return Err(why.to_string()),
                Heard::GoOn { resumed: true } => {
                    self.ways.metrics.snapshot(SnapshotEvent::Resumed);
                    tracing::info!(peer = %to, "a snapshot goes on where its connection broke");
                }
                Heard::GoOn { resumed: false } | Heard::Nothing => {}
            }
        }
    }
}

/// Reading the store may touch the disk: it must not hold up the runtime's other tasks.
fn block<T>(run: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(run)
}
