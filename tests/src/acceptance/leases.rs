//! `leases`: very many leases that are due at once do not stall writes, and how late leases end.
//!
//! All leases are given times that end at one moment. Puts at a steady rate are measured before and while they end; the
//! error of expiry is measured beside, with keys of leases whose end is looked for at the leader every millisecond.

use super::disk;
use super::paced::{Latencies, Paced, Rate};
use super::verdict::{Verdict, miss, thousands};
use crate::cluster::Cluster;
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, Connection};
use balsa_wire::leases::LeasesAnswer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const NODES: usize = 3;
/// Connections on which leases are asked for.
const CONNECTIONS: usize = 96;
/// One of so many leases has a key.
const KEY_EACH: u64 = 10;
/// The steady load.
const PUTS: Rate = Rate { per_second: 200, connections: 20, keys: 20 };
/// How much slower than before puts may be, at the 99th percentile, while leases end.
const SLOWER_MAX: f64 = 2.0;
/// What is below twice that says nothing of a stall.
const SLOW_LEAST: Duration = Duration::from_micros(2_500);
/// Leases whose end is looked for.
const SAMPLES: u64 = 40;
/// The upper bounds of the histogram, in milliseconds.
const BOUNDS_MS: [u128; 8] = [5, 10, 20, 50, 100, 200, 500, 1_000];
/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Leases that are due at once.
    pub leases: u64,
    /// How long puts are measured before, about.
    pub calm: Duration,
    /// How often; the round in the middle counts.
    pub rounds: usize,
}

/// Runs it, and gives its figures.
pub async fn run(options: &Options) -> Outcome<Verdict> {
    disk::require_real()?;
    let cluster = Cluster::start(NODES, &[]).await?;
    let outcome = run_on(&cluster, options).await;
    cluster.explain(outcome)
}

async fn run_on(cluster: &Cluster, options: &Options) -> Outcome<Verdict> {
    let lateness = lateness(cluster).await?;
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        rounds.push(round(cluster, options).await?);
    }
    rounds.sort_by(|one, other| one.slower().total_cmp(&other.slower()));
    let middle = rounds.get(rounds.len() / 2).ok_or_else(|| Failure("no round".into()))?;
    let slower = middle.slower();
    let figures = format!(
        "{} leases gone within {} ms, put p99 {} us before and {} us meanwhile (middle of {}); single leases end {lateness}",
        thousands(options.leases),
        middle.took.as_millis(),
        middle.before.as_micros(),
        middle.during.as_micros(),
        rounds.len()
    );
    let slow = miss(slower <= SLOWER_MAX, || {
        format!(
            "while leases ended, the 99th percentile of puts was more than {SLOWER_MAX} times that before"
        )
    });
    Ok(Verdict::of(figures, [slow]))
}

/// What one round gave.
struct Round {
    /// The 99th percentile of puts before leases ended, and while they did.
    before: Duration,
    during: Duration,
    /// From when they were due until they were gone.
    took: Duration,
}

impl Round {
    /// How much slower puts were.
    fn slower(&self) -> f64 {
        self.during.as_secs_f64() / self.before.max(SLOW_LEAST).as_secs_f64()
    }
}

/// Grants leases that are due at one moment, and measures puts up to then and until they are gone.
async fn round(cluster: &Cluster, options: &Options) -> Outcome<Round> {
    let addresses: Vec<String> = (0..NODES).map(|node| cluster.address(node).to_string()).collect();
    // A tenth of a millisecond each, and the calm before.
    let due = Instant::now() + Duration::from_millis(options.leases / 8) + options.calm;
    grant(cluster, options.leases, due).await?;
    let puts = Paced::start(&addresses, PUTS);
    let granted = Instant::now();
    ensure(granted + options.calm / 2 < due, || "granting the leases took too long".to_string())?;
    tokio::time::sleep_until(due.into()).await;
    let before = puts.take();
    let ended = gone(cluster).await?;
    let during = puts.take();
    puts.finish().await?;
    let took = ended.saturating_duration_since(due);
    println!("puts before: {}", text(&before));
    println!("puts while {} leases end: {}", thousands(options.leases), text(&during));
    println!("all were gone {} ms after their time", took.as_millis());
    Ok(Round { before: before.percentile(99.0), during: during.percentile(99.0), took })
}

fn text(puts: &Latencies) -> String {
    let us = |percent| puts.percentile(percent).as_micros();
    format!("{} puts, p50 {} us, p99 {} us, max {} us", puts.count(), us(50.0), us(99.0), us(100.0))
}

/// Grants so many leases that are due at one moment.
async fn grant(cluster: &Cluster, leases: u64, due: Instant) -> Outcome<()> {
    let (begun, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (address, next) = (cluster.address(number % NODES).to_string(), Arc::clone(&next));
        tasks.spawn(async move {
            let mut connection = Connection::new(address);
            loop {
                let lease = next.fetch_add(1, Ordering::Relaxed);
                if lease >= leases {
                    return Ok::<(), Failure>(());
                }
                let left = due.saturating_duration_since(Instant::now()).as_millis();
                let headers = &[("content-type", "application/json")];
                let (path, body);
                let ask = if lease.is_multiple_of(KEY_EACH) {
                    path = format!("/v1/kv/leased/{lease}?ttl={left}ms");
                    Ask::put(&path, r#"{"value":1}"#)
                } else {
                    body = format!(r#"{{"ttl":"{left}ms"}}"#);
                    Ask { method: "POST", path: "/v1/leases", headers, body: &body }
                };
                connection.send(ask, PATIENCE).await.context("ask for a lease")?.well(ask.path)?;
            }
        });
    }
    while let Some(one) = tasks.join_next().await {
        one.context("run a client")??;
    }
    let per_second = leases as f64 / begun.elapsed().as_secs_f64();
    println!("{} leases granted at {per_second:.0} a second", thousands(leases));
    Ok(())
}

async fn has_leases(address: &str) -> Outcome<bool> {
    let asked = Connection::new(address).send(Ask::get("/v1/leases?consistency=stale"), PATIENCE).await;
    let answer: LeasesAnswer = asked.context("list leases")?.well("/v1/leases")?.json()?;
    Ok(!answer.leases.is_empty())
}

/// When no lease is left anywhere.
async fn gone(cluster: &Cluster) -> Outcome<Instant> {
    for node in 0..NODES {
        while has_leases(cluster.address(node)).await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(Instant::now())
}

/// How late single leases end, as a histogram for people. None may end early.
async fn lateness(cluster: &Cluster) -> Outcome<String> {
    let ttl = Duration::from_millis(700);
    let mut tasks = JoinSet::new();
    for number in 0..SAMPLES {
        let address = cluster.address(number as usize % NODES).to_string();
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 37)).await;
            let mut connection = Connection::new(address);
            let put = format!("/v1/kv/sample/{number}?ttl={}ms", ttl.as_millis());
            let get = format!("/v1/kv/sample/{number}?consistency=stale");
            let sent_at = Instant::now();
            connection.send(Ask::put(&put, r#"{"value":1}"#), PATIENCE).await.context("put")?.well(&put)?;
            let answered_at = Instant::now();
            tokio::time::sleep_until((sent_at + ttl.mul_f64(0.8)).into()).await;
            loop {
                let answer = connection.send(Ask::get(&get), PATIENCE).await.context("get")?;
                let seen_at = Instant::now();
                match answer.status {
                    404 if seen_at < sent_at + ttl => {
                        return Err(Failure(format!("{get} ended {:?} too early", sent_at + ttl - seen_at)));
                    }
                    404 => return Ok(seen_at.saturating_duration_since(answered_at + ttl)),
                    _ => drop(answer.well(&get)?),
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    let mut late = Vec::new();
    while let Some(one) = tasks.join_next().await {
        late.push(one.context("run a client")??);
    }
    late.sort_unstable();
    let mut below = 0;
    for bound in BOUNDS_MS {
        let up_to = late.iter().filter(|late| late.as_millis() < bound).count();
        println!("late by less than {bound:>4} ms: {:>3} of {}", up_to - below, late.len());
        below = up_to;
    }
    let at = |share: usize| late.get(late.len() * share / 100).map_or(0, Duration::as_millis);
    Ok(format!("{} ms late in the middle, {} ms at most", at(50), at(99)))
}
