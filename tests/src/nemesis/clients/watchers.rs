//! Watchers: each hears of all changes of the clients' keys, at any node, over as many connections as it takes. What they
//! hear is recorded as it comes; `judge` judges it.

use super::Shared;
use crate::failure::{Context, Failure, Outcome};
use crate::http::{Ask, Endless};
use crate::random::Random;
use balsa_check::history::Text;
use balsa_client::sse::{Event, Parser};
use balsa_wire::history::{CompactedEvent, DeleteEvent, ProgressEvent};
use balsa_wire::kv::Item;
use balsa_wire::problem::Problem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What they watch.
pub const PREFIX: &str = "key-";
/// A node says something more often than that.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// Some connections are given up after a while, so that watches go on elsewhere.
const HOLD_MS: (u64, u64) = (2_000, 30_000);
const PAUSE: Duration = Duration::from_millis(50);
/// When nothing is wrong any more, all has been heard within this time.
const LATE_MAX: Duration = Duration::from_secs(30);

/// What a watcher hears, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It begins anew above this revision: what came before is compacted.
    Compacted(u64),
    /// A key was set, or deleted.
    Change {
        /// The revision.
        revision: u64,
        /// The key.
        key: Text,
        /// What it has had since; `None`: nothing.
        value: Option<Text>,
        /// When it was heard.
        at_ns: u64,
    },
    /// The change before was the last of its revision.
    End(u64),
    /// All up to here was told.
    Progress(u64),
    /// The connection is no more.
    Broke,
}

/// Watchers at work.
#[derive(Debug)]
pub struct Watchers {
    /// They have enough when they have heard of all up to here.
    until: Arc<AtomicU64>,
    working: JoinSet<Outcome<Vec<Heard>>>,
}

impl Watchers {
    /// Sets so many to work.
    pub(super) fn start(count: usize, shared: &Arc<Shared>, random: &mut Random) -> Watchers {
        let until = Arc::new(AtomicU64::new(u64::MAX));
        let mut working = JoinSet::new();
        for _ in 0..count {
            let (shared, until, random) = (shared.clone(), until.clone(), random.fork());
            let watcher = Watcher { shared, until, random, after: 0, heard: Vec::new() };
            working.spawn(watcher.work());
        }
        Watchers { until, working }
    }

    /// Waits until each has heard of all up to this revision; gives what each heard.
    pub async fn finish(mut self, revision: u64) -> Outcome<Vec<Vec<Heard>>> {
        self.until.store(revision, Ordering::Relaxed);
        let mut all = Vec::new();
        let gather = async {
            while let Some(one) = self.working.join_next().await {
                all.push(one.context("gather what watchers heard")??);
            }
            Outcome::Ok(())
        };
        let gathered = tokio::time::timeout(LATE_MAX, gather).await;
        gathered.context(format!("wait until watchers have heard of all up to revision {revision}"))??;
        Ok(all)
    }
}

struct Watcher {
    shared: Arc<Shared>,
    until: Arc<AtomicU64>,
    random: Random,
    /// All up to here was heard.
    after: u64,
    heard: Vec<Heard>,
}

impl Watcher {
    async fn work(mut self) -> Outcome<Vec<Heard>> {
        while !self.has_enough() {
            if let Err(failure) = self.watch().await {
                self.shared.failed.store(true, Ordering::Relaxed);
                return Err(failure);
            }
            self.heard.push(Heard::Broke);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(self.heard)
    }

    fn has_enough(&self) -> bool {
        self.after >= self.until.load(Ordering::Relaxed)
    }

    /// Over one connection.
    async fn watch(&mut self) -> Outcome<()> {
        let address = self.random.pick(&self.shared.addresses).clone();
        let path = format!("/v1/watch?prefix={PREFIX}&from=1");
        let last = self.after.to_string();
        let ask = Ask { method: "GET", path: &path, headers: &[("last-event-id", last.as_str())], body: "" };
        let Ok(mut answer) = Endless::open(&address, ask, SILENCE_MAX).await else { return Ok(()) };
        if answer.status != 200 {
            return self.refused(answer).await;
        }
        let hold = Duration::from_millis(self.random.between(HOLD_MS.0, HOLD_MS.1));
        let (began, mut parser) = (Instant::now(), Parser::default());
        while began.elapsed() < hold
            && !self.has_enough()
            && let Some(piece) = answer.next(SILENCE_MAX).await
        {
            for event in parser.take(&piece) {
                self.hear(event)?;
            }
        }
        Ok(())
    }

    async fn refused(&mut self, mut answer: Endless) -> Outcome<()> {
        let mut body = Vec::new();
        while let Some(piece) = answer.next(SILENCE_MAX).await {
            body.extend_from_slice(&piece);
        }
        match (answer.status, serde_json::from_slice::<Problem>(&body)) {
            (503, _) => Ok(()),
            (410, Ok(Problem { oldest_revision: Some(oldest), .. })) => {
                self.begin_anew(oldest);
                Ok(())
            }
            (status, _) => {
                Err(Failure(format!("a watch was answered {status} {}", String::from_utf8_lossy(&body))))
            }
        }
    }

    fn begin_anew(&mut self, oldest: u64) {
        self.after = oldest;
        self.heard.push(Heard::Compacted(oldest));
    }

    fn hear(&mut self, event: Event) -> Outcome<()> {
        let at_ns = self.shared.now_ns();
        let data = &event.data;
        match event.kind.as_str() {
            "put" => {
                let item: Item = serde_json::from_str(data).context(format!("read {data}"))?;
                let value = item.value.map(|value| value.get().into());
                let (revision, key) = (item.revision, item.key.into());
                self.heard.push(Heard::Change { revision, key, value, at_ns });
            }
            "delete" => {
                let told: DeleteEvent = serde_json::from_str(data).context(format!("read {data}"))?;
                let (revision, key) = (told.revision, told.key.into());
                self.heard.push(Heard::Change { revision, key, value: None, at_ns });
            }
            "progress" => {
                let told: ProgressEvent = serde_json::from_str(data).context(format!("read {data}"))?;
                self.heard.push(Heard::Progress(told.revision));
                self.after = self.after.max(told.revision);
                return Ok(());
            }
            "compacted" => {
                let told: CompactedEvent = serde_json::from_str(data).context(format!("read {data}"))?;
                self.begin_anew(told.oldest_revision);
                return Ok(());
            }
            other => return Err(Failure(format!("a watcher heard of `{other}`: {data}"))),
        }
        if let Some(id) = event.id {
            let id = id.parse().context(format!("read the id `{id}`"))?;
            self.heard.push(Heard::End(id));
            self.after = self.after.max(id);
        }
        Ok(())
    }
}
