//! Clients that write in an open loop: so many writes a second, whatever becomes of the earlier ones.
//!
//! Every write has a key of its own and an `Idempotency-Key`, which its retries repeat until its deadline. What a client
//! knows of a write in the end is one of three things, as the contract has them: acknowledged, not applied, unknown.
//! Some requests are sent twice on purpose, one after the other or at once, to two nodes: that must change nothing.

use crate::failure::{Context, Failure, Outcome};
use crate::http::{Answer, Ask, Connection, NoAnswer};
use crate::random::Random;
use balsa_wire::header::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED};
use balsa_wire::kv::PutAnswer;
use balsa_wire::problem::{self, Problem};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// A client gives up on a write after this time.
const DEADLINE: Duration = Duration::from_secs(5);
/// A client tries elsewhere after this time.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Clients; each has connections of its own.
const CLIENTS: usize = 8;
/// One write in so many has so many bytes more: enough in all that the store flushes, and little enough to be quick.
const LARGE_EVERY: u64 = 40;
const LARGE_BYTES: usize = 20_000;
/// Pauses between attempts, doubled from the least to the most.
const BACKOFF_MS: (u64, u64) = (5, 200);

/// What a client knows of a write in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Answered 2xx: it is there, at this revision.
    Acknowledged {
        /// As the answer had it.
        revision: u64,
    },
    /// Every attempt was refused or never left: it is not there, and never will be.
    NotApplied,
    /// At least one attempt was left without a sure answer.
    Unknown,
}

/// A write and what became of it.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Its number; [`key`] and [`value`] follow from it.
    pub number: u64,
    /// What the client knows.
    pub known: Known,
    /// How often it was sent.
    pub attempts: u32,
    /// From its time to what is known.
    pub took: Duration,
}

/// The key of a write.
pub fn key(number: u64) -> String {
    format!("write-{number}")
}

/// The value of a write, as JSON.
pub fn value(number: u64) -> String {
    let filler = if number.is_multiple_of(LARGE_EVERY) { LARGE_BYTES } else { 0 };
    format!("\"value {number}{}\"", "x".repeat(filler))
}

/// The clients, at work until they are told to finish.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    working: JoinHandle<Outcome<Vec<Record>>>,
}

#[derive(Debug)]
struct Shared {
    addresses: Vec<String>,
    /// Idle connections by client and node. Nothing awaits while one of these is held.
    idle: Vec<Mutex<Vec<Connection>>>,
    acknowledged: AtomicU64,
    repeated: AtomicU64,
    stop: AtomicBool,
}

impl Writers {
    /// Starts them: `per_second` writes a second in all, to nodes at `addresses`.
    pub fn start(addresses: Vec<String>, per_second: u64, seed: u64) -> Writers {
        let idle = (0..CLIENTS * addresses.len()).map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared {
            addresses,
            idle,
            acknowledged: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let interval = Duration::from_nanos(1_000_000_000 / per_second);
        let working = tokio::spawn(work(shared.clone(), interval, Random::new(seed)));
        Writers { shared, working }
    }

    /// How many writes are acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// How many were sent once more on purpose.
    pub fn repeated(&self) -> u64 {
        self.shared.repeated.load(Ordering::Relaxed)
    }

    /// Whether they have ended before they were told to: they found something wrong.
    pub fn ended(&self) -> bool {
        self.working.is_finished()
    }

    /// Begins no more writes, waits for those under way; gives all.
    pub async fn finish(self) -> Outcome<Vec<Record>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.working.await.context("gather what the clients know")?
    }
}

async fn work(shared: Arc<Shared>, interval: Duration, mut random: Random) -> Outcome<Vec<Record>> {
    let mut times = tokio::time::interval(interval);
    times.set_missed_tick_behavior(MissedTickBehavior::Burst); // the load does not wait for the cluster
    let mut under_way = JoinSet::new();
    let mut records = Vec::new();
    for number in 0.. {
        times.tick().await;
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        under_way.spawn(write(shared.clone(), number, Random::new(random.draw())));
        while let Some(done) = under_way.try_join_next() {
            records.push(done.context("finish a write")??);
        }
    }
    while let Some(done) = under_way.join_next().await {
        records.push(done.context("finish a write")??);
    }
    Ok(records)
}

/// What one attempt says.
enum Attempt {
    Acknowledged(Answer),
    NotApplied,
    Unknown,
}

async fn write(shared: Arc<Shared>, number: u64, mut random: Random) -> Outcome<Record> {
    let started = Instant::now();
    let nodes = shared.addresses.len() as u64;
    let mut node = random.below(nodes);
    let mut known = Known::NotApplied;
    let mut attempts = 0;
    while started.elapsed() < DEADLINE {
        attempts += 1;
        let patience = ATTEMPT.min(DEADLINE.saturating_sub(started.elapsed()));
        let other = (node + 1 + random.below(nodes - 1)) % nodes;
        let attempt = if number % 10 == 5 && attempts == 1 {
            shared.repeated.fetch_add(1, Ordering::Relaxed);
            let (one, two) =
                tokio::join!(shared.attempt(number, node, patience), shared.attempt(number, other, patience));
            both(number, one?, two?)?
        } else {
            shared.attempt(number, node, patience).await?
        };
        match attempt {
            Attempt::Acknowledged(answer) => {
                let put: PutAnswer = answer.json()?;
                known = Known::Acknowledged { revision: put.revision };
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                if number.is_multiple_of(10) {
                    shared.repeat(number, other, &answer).await?;
                }
                break;
            }
            Attempt::Unknown => known = Known::Unknown,
            Attempt::NotApplied => {}
        }
        node = other;
        let pause_ms = (BACKOFF_MS.0 << attempts.min(8)).min(BACKOFF_MS.1);
        tokio::time::sleep(Duration::from_millis(pause_ms / 2 + random.below(pause_ms))).await;
    }
    Ok(Record { number, known, attempts, took: started.elapsed() })
}

/// What two requests sent at once say together.
fn both(number: u64, one: Attempt, two: Attempt) -> Outcome<Attempt> {
    Ok(match (one, two) {
        (Attempt::Acknowledged(one), Attempt::Acknowledged(two)) => {
            same(number, &one, &two)?;
            Attempt::Acknowledged(one)
        }
        (Attempt::Acknowledged(one), _) | (_, Attempt::Acknowledged(one)) => Attempt::Acknowledged(one),
        (Attempt::NotApplied, Attempt::NotApplied) => Attempt::NotApplied,
        _ => Attempt::Unknown,
    })
}

fn same(number: u64, one: &Answer, two: &Answer) -> Outcome<()> {
    if one.body == two.body && one.status == two.status {
        return Ok(());
    }
    Err(Failure(format!("write {number} was applied twice: first {}, then {}", one.text(), two.text())))
}

impl Shared {
    async fn attempt(&self, number: u64, node: u64, patience: Duration) -> Outcome<Attempt> {
        let answer = match self.send(number, node, patience).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(_)) => return Ok(Attempt::NotApplied),
            Err(NoAnswer::Broke(_) | NoAnswer::Late) => return Ok(Attempt::Unknown),
        };
        if answer.is_success() {
            return Ok(Attempt::Acknowledged(answer));
        }
        let problem: Problem = answer.problem()?;
        match (answer.status, problem.outcome) {
            (503, Some(problem::Outcome::NotApplied)) => Ok(Attempt::NotApplied),
            (504, Some(problem::Outcome::Unknown)) => Ok(Attempt::Unknown),
            _ => Err(Failure(format!("write {number} was answered {} {}", answer.status, answer.text()))),
        }
    }

    /// Sends an acknowledged write again: the same answer must come, marked as a replay.
    async fn repeat(&self, number: u64, node: u64, first: &Answer) -> Outcome<()> {
        // Without an answer there is nothing to compare.
        let Attempt::Acknowledged(again) = self.attempt(number, node, ATTEMPT).await? else { return Ok(()) };
        self.repeated.fetch_add(1, Ordering::Relaxed);
        same(number, first, &again)?;
        match again.header(IDEMPOTENCY_REPLAYED) {
            Some("true") => Ok(()),
            other => {
                Err(Failure(format!("a repeat of write {number} is not marked as replayed but {other:?}")))
            }
        }
    }

    async fn send(&self, number: u64, node: u64, patience: Duration) -> Result<Answer, NoAnswer> {
        let (path, body) = (format!("/{}", key(number)), format!("{{\"value\":{}}}", value(number)));
        let id = format!("request-{number}");
        let headers = [("content-type", "application/json"), (IDEMPOTENCY_KEY, id.as_str())];
        let ask = Ask { method: "PUT", path: &path, headers: &headers, body: &body };
        let client = usize::try_from(number).unwrap_or_default() % CLIENTS;
        let node = usize::try_from(node).unwrap_or_default();
        let idle = &self.idle[client * self.addresses.len() + node];
        let reused = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = reused.unwrap_or_else(|| Connection::new(&self.addresses[node]));
        let answer = connection.send(ask, patience).await;
        if answer.is_ok() {
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        answer
    }
}
