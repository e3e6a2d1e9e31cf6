//! An open loop of writes and reads: an operation begins when it is due, however long those before it take.
//!
//! What is in flight is bounded by rate times deadline. Each write has a key of its own; each read takes a key whose
//! write was acknowledged before the read began, so that whatever is not found was lost.

use super::record::{Found, Read, Records, Write, Wrote};
use super::{Failure, Plan};
use crate::Client;
use balsa_wire::kv::Item;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The load, running.
pub(super) struct Load {
    stop: watch::Sender<bool>,
    writes: JoinHandle<Vec<Write>>,
    reads: JoinHandle<Vec<Read>>,
}

/// A write that was acknowledged: its key, value and revision.
type Acknowledged = (String, u64, u64);

/// What readers may look for.
#[derive(Default)]
struct Shelf(Mutex<Vec<Acknowledged>>);

impl Shelf {
    fn put(&self, acknowledged: Acknowledged) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(acknowledged);
    }

    fn any(&self) -> Option<Acknowledged> {
        let shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = crate::transport::random() as usize;
        (!shelf.is_empty()).then(|| shelf[at % shelf.len()].clone())
    }
}

impl Load {
    pub(super) fn start(plan: &Plan) -> Result<Load, Failure> {
        let clients: Vec<Client> = (0..plan.clients).map(|_| plan.client()).collect::<Result<_, _>>()?;
        let clients = Arc::new(clients);
        let shelf = Arc::new(Shelf::default());
        let (stop, stopped) = watch::channel(false);
        let (prefix, on_shelf, writers) = (plan.prefix.clone(), Arc::clone(&shelf), Arc::clone(&clients));
        let writes = open_loop(plan.writes_per_second, stopped.clone(), move |number| {
            let client = writers[number as usize % writers.len()].clone();
            Some(write(client, format!("{prefix}/{number}"), number, Arc::clone(&on_shelf)))
        });
        let reads = open_loop(plan.reads_per_second, stopped, move |number| {
            let client = clients[number as usize % clients.len()].clone();
            shelf.any().map(|acknowledged| read(client, acknowledged))
        });
        Ok(Load { stop, writes: tokio::spawn(writes), reads: tokio::spawn(reads) })
    }

    /// Begins nothing more, and waits for what is under way.
    pub(super) async fn finish(self) -> Records {
        self.stop.send_replace(true);
        // A panic of an operation is a bug of the test: it ends the test.
        let ended = |error: tokio::task::JoinError| -> ! { std::panic::resume_unwind(error.into_panic()) };
        let writes = self.writes.await.unwrap_or_else(|error| ended(error));
        let reads = self.reads.await.unwrap_or_else(|error| ended(error));
        Records { writes, reads }
    }
}

async fn open_loop<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    per_second: u32,
    mut stopped: watch::Receiver<bool>,
    begin: impl Fn(u64) -> Option<F>,
) -> Vec<T> {
    let mut ended = Vec::new();
    if per_second == 0 {
        return ended;
    }
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut number = 0;
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            Some(done) = under_way.join_next() => ended.push(unwrap(done)),
            _ = ticks.tick() => {
                if let Some(operation) = begin(number) {
                    under_way.spawn(operation);
                    number += 1;
                }
            }
        }
    }
    while let Some(done) = under_way.join_next().await {
        ended.push(unwrap(done));
    }
    ended
}

fn unwrap<T>(done: Result<T, tokio::task::JoinError>) -> T {
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn write(client: Client, key: String, value: u64, shelf: Arc<Shelf>) -> Write {
    let started = Instant::now();
    let wrote = match client.put(key.as_str(), &value).await {
        Ok(answer) => {
            shelf.put((key.clone(), value, answer.revision));
            Wrote::Acknowledged { revision: answer.revision }
        }
        Err(error) => Wrote::Failed { outcome: error.outcome(), why: error.to_string() },
    };
    Write { key, value, wrote, ended: Instant::now(), took: started.elapsed() }
}

async fn read(client: Client, (key, value, revision): Acknowledged) -> Read {
    let started = Instant::now();
    let found = match client.get(key.as_str()).await {
        Ok(Some(item)) => match deviation(&item, value, Some(revision)) {
            None => Found::Right,
            Some(deviation) => Found::Wrong(format!("{key}: {deviation}")),
        },
        Ok(None) => Found::Wrong(format!("{key}: acknowledged at revision {revision}, and not found")),
        Err(error) => Found::Failed(error.to_string()),
    };
    Read { found, took: started.elapsed() }
}

/// How an item differs from what was written once, if it does.
pub(super) fn deviation(item: &Item, value: u64, revision: Option<u64>) -> Option<String> {
    let right = item.version == 1
        && item.create_revision == item.revision
        && revision.is_none_or(|revision| item.revision == revision)
        && item.json::<u64>().is_ok_and(|found| found == value);
    let was = revision.map_or_else(String::new, |revision| format!(" at revision {revision}"));
    (!right).then(|| format!("written once as {value}{was}, and reads as {item:?}"))
}
