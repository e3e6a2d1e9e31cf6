//! Clients in a closed loop: each overwrites keys at its node, the next as soon as the last is answered.
//!
//! What it measures is throughput where nothing goes wrong, so a request that is not answered 2xx ends the load, and
//! with it the bar.

use crate::failure::{Context, Failure, Outcome};
use crate::http::{Ask, Connection};
use crate::random::Random;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many keys are overwritten.
const KEYS: u64 = 10_000;
/// A value's bytes, with its envelope.
const VALUE_BYTES: usize = 256;
/// Longer than any write may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// The clients, at work until told to finish.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Outcome<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    answered: AtomicU64,
    /// In microseconds, since it was last taken.
    slowest_us: AtomicU64,
    stop: AtomicBool,
}

/// What a span of time brought.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Answered writes a second.
    pub per_second: f64,
    /// The slowest of them.
    pub slowest: Duration,
}

impl Load {
    /// Starts `clients` clients, spread over the nodes at `addresses`.
    pub fn start(addresses: &[String], clients: usize, seed: u64) -> Load {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for (client, address) in (0..clients).zip(addresses.iter().cycle()) {
            let random = Random::new(seed ^ client as u64);
            tasks.spawn(work(shared.clone(), Connection::new(address), random));
        }
        Load { shared, clients: tasks }
    }

    /// How many writes are answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Fails with what a client met, if one has ended.
    pub fn check(&mut self) -> Outcome<()> {
        match self.clients.try_join_next() {
            None => Ok(()),
            Some(ended) => Err(ended
                .context("run a client")?
                .err()
                .unwrap_or_else(|| Failure("a client ended before it was told to".to_string()))),
        }
    }

    /// Lets it work for `warm_up`, then measures for `time`.
    pub async fn measure(&mut self, warm_up: Duration, time: Duration) -> Outcome<Span> {
        tokio::time::sleep(warm_up).await;
        self.check()?;
        let (started, before) = (Instant::now(), self.answered());
        self.shared.slowest_us.store(0, Ordering::Relaxed);
        tokio::time::sleep(time).await;
        self.check()?;
        let count = self.answered() - before;
        let per_second = count as f64 / started.elapsed().as_secs_f64();
        let slowest = Duration::from_micros(self.shared.slowest_us.load(Ordering::Relaxed));
        Ok(Span { per_second, slowest })
    }

    /// Begins no more writes, waits for those under way.
    pub async fn finish(mut self) -> Outcome<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.context("run a client")??;
        }
        Ok(())
    }
}

async fn work(shared: Arc<Shared>, mut connection: Connection, mut random: Random) -> Outcome<()> {
    let mut number = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        number += 1;
        let path = format!("/v1/kv/key-{}", random.below(KEYS));
        let mut body = format!("{{\"value\":\"{number} ");
        body.extend(std::iter::repeat_n('x', VALUE_BYTES - body.len()));
        body.push_str("\"}");
        let started = Instant::now();
        let answer = connection.send(Ask::put(&path, &body), ANSWER_PATIENCE).await;
        let answer = answer.context(format!("put {path} at {}", connection.address()))?;
        if !answer.is_success() {
            let (status, text) = (answer.status, answer.text());
            return Err(Failure(format!(
                "put {path} at {} was answered {status} {text}",
                connection.address()
            )));
        }
        shared.answered.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.slowest_us.fetch_max(took, Ordering::Relaxed);
    }
    Ok(())
}
