//! `overload`: at twice the load that saturates a cluster about as much is done, and who is turned away is told at once.
//!
//! All servers share one processor, the generator has another, in both runs. First a closed loop finds the peak. Then an open
//! loop offers twice that: each of very many connections puts when its time has come; one that still waits for an answer
//! then has missed it. What counts is what was done within the time that clients are willing to wait.

use super::disk;
use super::load::{self, Keys, Raw, Work};
use super::paced::Latencies;
use super::verdict::{Verdict, miss, thousands};
use crate::cluster::Cluster;
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::random::Random;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::task::JoinSet;

const NODES: usize = 3;
/// Connections of the closed loops, of which the faster one counts.
const CLOSED: [usize; 2] = [64, 512];
/// Connections of the open loop.
const OPEN: u64 = 10_000;
const KEYS: u64 = 10_000;
/// By how much the cluster is overloaded.
const FACTOR: f64 = 2.0;
/// How long a client is willing to wait.
const WILLING: Duration = Duration::from_secs(1);
/// The least that may be done, of the peak.
const GOODPUT_MIN: f64 = 0.8;
/// How soon those that are turned away must know, at the 99th percentile.
const REFUSAL_MAX: Duration = Duration::from_millis(50);
/// After the open loop has begun, until it is measured.
const SETTLING: Duration = Duration::from_secs(2);

/// How much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long each run is measured.
    pub span: Duration,
}

/// Runs it; gives its figures.
pub async fn run(options: &Options) -> Outcome<Verdict> {
    disk::require_real()?;
    let mut cluster = Cluster::start(NODES, &[]).await?;
    let outcome = run_on(&mut cluster, options).await;
    cluster.explain(outcome)
}

async fn run_on(cluster: &mut Cluster, options: &Options) -> Outcome<Verdict> {
    for node in 0..NODES {
        let pid = cluster.process(node).pid().ok_or_else(|| Failure(format!("node {node} does not run")))?;
        pin(pid, 0).await?;
    }
    pin(std::process::id(), 1).await?;
    let addresses: Vec<String> = (0..NODES).map(|node| cluster.address(node).to_string()).collect();
    let mut peak = 0.0_f64;
    for connections in CLOSED {
        let keys = Keys::Random { below: KEYS, lasts: options.span };
        let done = load::run(&addresses, connections, Work::Put { round: 0 }, keys).await?;
        println!("{connections} connections in a closed loop: {:.0} puts/s", done.per_second());
        peak = peak.max(done.per_second());
    }
    let changes = leader_changes(cluster).await?;

    let offered = peak * FACTOR;
    let seen = open_loop(&addresses, offered, options.span).await?;
    let span = options.span.as_secs_f64();
    let goodput = seen.done as f64 / span;
    let share = goodput / peak;
    let refusals = Latencies::of(seen.refused_us);
    let refusal = refusals.percentile(99.0);
    println!(
        "{offered:.0} puts/s offered on {} connections: {goodput:.0} done in time, {:.0} refused, {:.0} too late, {:.0} not \
         sent, a second",
        thousands(OPEN),
        refusals.count() as f64 / span,
        seen.late as f64 / span,
        seen.missed as f64 / span,
    );
    println!(
        "refusals took {:?} in the middle and {refusal:?} at the 99th percentile",
        refusals.percentile(50.0)
    );
    let elections = leader_changes(cluster).await? - changes;
    let figures = format!(
        "peak {peak:.0} puts/s; of twice that {goodput:.0} done ({share:.2}), refusals within {} ms, {elections} elections",
        refusal.as_millis()
    );
    ensure(elections == 0, || format!("the load caused elections: {figures}"))?;
    Ok(Verdict::of(
        figures,
        [
            miss(share >= GOODPUT_MIN, || format!("less than {GOODPUT_MIN} of the peak is done")),
            miss(refusal <= REFUSAL_MAX, || format!("refusals come later than {REFUSAL_MAX:?}")),
        ],
    ))
}

/// Keeps a process, with all of its threads, to one processor.
async fn pin(pid: u32, processor: u32) -> Outcome<()> {
    let arguments = ["--all-tasks", "--cpu-list", "--pid", &processor.to_string(), &pid.to_string()];
    let done = Command::new("taskset").args(arguments).output().await.context("run taskset (util-linux)")?;
    ensure(done.status.success(), || {
        format!("taskset: {}: this needs two processors", String::from_utf8_lossy(&done.stderr).trim())
    })
}

async fn leader_changes(cluster: &Cluster) -> Outcome<u64> {
    let mut changes = 0;
    for node in 0..NODES {
        let seen = cluster.look(node).await?;
        changes += seen.ok_or_else(|| Failure(format!("node {node} does not answer")))?.leader_changes;
    }
    Ok(changes)
}

/// What became of the puts of an open loop.
#[derive(Debug, Default)]
struct Seen {
    done: u64,
    late: u64,
    missed: u64,
    refused_us: Vec<u64>,
}

async fn open_loop(addresses: &[String], per_second: f64, span: Duration) -> Outcome<Seen> {
    let interval = Duration::from_secs_f64(OPEN as f64 / per_second);
    let mut connections = Vec::new();
    for number in 0..OPEN {
        connections.push(Raw::open(&addresses[number as usize % addresses.len()]).await?);
    }
    let begin = Instant::now() + SETTLING;
    let end = begin + span;
    let mut tasks = JoinSet::new();
    for (number, mut connection) in (0..OPEN).zip(connections) {
        let first = begin - SETTLING + interval.mul_f64(number as f64 / OPEN as f64);
        tasks.spawn(async move {
            let (mut seen, mut random, mut due) = (Seen::default(), Random::new(number), first);
            while due < end {
                tokio::time::sleep_until(due.into()).await;
                let sent = Instant::now();
                let (status, _) = connection.ask(Work::Put { round: 0 }, random.below(KEYS)).await?;
                let took = sent.elapsed();
                let counts = (begin..end).contains(&(sent + took));
                match status {
                    200 if took <= WILLING => seen.done += u64::from(counts),
                    200 => seen.late += u64::from(counts),
                    503 if counts => {
                        seen.refused_us.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                    }
                    503 => {}
                    other => return Err(Failure(format!("a put was answered {other}"))),
                }
                due += interval;
                while due < Instant::now() {
                    due += interval;
                    seen.missed += u64::from(counts);
                }
            }
            Ok(seen)
        });
    }
    let mut all = Seen::default();
    while let Some(ended) = tasks.join_next().await {
        let seen = ended.context("run a client")??;
        all.done += seen.done;
        all.late += seen.late;
        all.missed += seen.missed;
        all.refused_us.extend(seen.refused_us);
    }
    Ok(all)
}
