//! `backup`: a cluster is backed up while it serves, from each of its nodes in turn, and lives again from the last one.
//!
//! Two things are compared, with medians over rounds: how long puts of a steady load take while a backup is under way, and
//! right before, without one. Then the load stops, all nodes are at one digest, and a last backup is restored: the new
//! cluster has that very digest, at the backup's index, and each key has its value.

use super::disk;
use super::load::{self, Keys, Work};
use super::paced::{Latencies, Paced, Rate};
use super::verdict::{Verdict, mib, miss, thousands};
use crate::backup;
use crate::cluster::{Cluster, PATIENCE, eventually};
use crate::failure::{Context, Outcome, ensure};
use balsa_wire::backup::BackupAnswer;
use std::path::Path;
use std::time::{Duration, Instant};

const NODES: usize = 3;
/// Connections of the loads that fill and check.
const CONNECTIONS: usize = 192;
/// How long a backup may take, from its command to its file.
const TOOK_MAX: Duration = Duration::from_secs(10);
/// How much the p99 of puts may grow meanwhile, as a factor.
const GROWTH_MAX: f64 = 2.0;
/// The steady load.
const PER_SECOND: u64 = 500;
const WRITERS: u64 = 16;
/// After the keys are in, until the store has swept and the disk is quiet.
const CALM: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many keys there are.
    pub keys: u64,
    /// How often both are measured.
    pub rounds: usize,
    /// How long each is measured at least; with few keys, one backup follows the other.
    pub span: Duration,
}

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<Verdict> {
    disk::require_real()?;
    let cluster = Cluster::start(NODES, &[]).await?;
    let folder = tempfile::Builder::new().prefix("backup-").tempdir_in(crate::binary::scratch()?);
    let folder = folder.context("make a folder for backups")?;
    let outcome = run_on(&cluster, options, &folder.path().join("balsa.backup")).await;
    cluster.explain(outcome)
}

async fn run_on(cluster: &Cluster, options: &Options, file: &Path) -> Outcome<Verdict> {
    let keys = options.keys;
    let addresses: Vec<String> = (0..NODES).map(|node| cluster.address(node).to_string()).collect();
    let put = load::run(&addresses, CONNECTIONS, Work::Put { round: 0 }, Keys::Each(0..keys)).await?;
    println!("{} keys put: {:.0} put/s", thousands(keys), put.per_second());

    let rate = Rate { per_second: PER_SECOND, connections: WRITERS, keys };
    let load = Paced::start(&addresses, rate);
    tokio::time::sleep(CALM).await;
    let (mut quiet, mut beside, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let node = round % NODES;
        let (slowest, bytes, span, latencies) = back_up(&load, &addresses[node], file, options.span).await?;
        drop(load.take());
        tokio::time::sleep(span).await;
        let before = load.take();
        println!(
            "round {round}: backup of {} from node {node} in {:.2} s; put p50 and p99 {} beside it, {} without",
            mib(bytes),
            slowest.as_secs_f64(),
            both(&latencies),
            both(&before)
        );
        took.push(slowest);
        quiet.push(before.percentile(99.0));
        beside.push(latencies.percentile(99.0));
    }
    load.finish().await?;
    let (quiet, beside) = (median(&mut quiet), median(&mut beside));
    let growth = beside.as_secs_f64() / quiet.as_secs_f64().max(1e-9);
    let slowest = took.iter().max().copied().unwrap_or_default();

    let kept = at_rest(cluster, &addresses[0], file).await?;
    live_again(file, &kept, keys).await?;
    let figures = format!(
        "{} keys, {} in {:.2} s at most, put p99 {:.1} ms beside it and {:.1} ms without ({growth:.2}x), restored with \
         the same digest and every value",
        thousands(keys),
        mib(kept.bytes),
        slowest.as_secs_f64(),
        ms(beside),
        ms(quiet),
    );
    Ok(Verdict::of(
        figures,
        [
            miss(slowest <= TOOK_MAX, || format!("a backup took more than {TOOK_MAX:?}")),
            miss(growth <= GROWTH_MAX, || {
                format!("puts took more than {GROWTH_MAX} times as long beside it")
            }),
        ],
    ))
}

/// Backs up again and again for as long as `span`; gives the slowest, its bytes, how long all took and what puts took.
async fn back_up(
    load: &Paced,
    address: &str,
    file: &Path,
    span: Duration,
) -> Outcome<(Duration, u64, Duration, Latencies)> {
    let begun = Instant::now();
    let (mut slowest, mut bytes) = (Duration::ZERO, 0);
    drop(load.take());
    while begun.elapsed() < span {
        let started = Instant::now();
        bytes = backup::take(address, file).await?.bytes;
        slowest = slowest.max(started.elapsed());
    }
    Ok((slowest, bytes, begun.elapsed(), load.take()))
}

/// A backup that every node's digest can be compared with.
async fn at_rest(cluster: &Cluster, address: &str, file: &Path) -> Outcome<BackupAnswer> {
    let (index, digest) = cluster.wait_until_digests_agree().await?;
    let kept = backup::take(address, file).await?;
    ensure((kept.backup.index, &kept.backup.digest) == (index, &digest), || {
        format!("the nodes are at index {index} with digest {digest}, the backup is {kept:?}")
    })?;
    ensure(backup::verify(file).await? == kept, || "the file says something else than its backup".into())?;
    Ok(kept)
}

/// Restores the backup and compares.
async fn live_again(file: &Path, kept: &BackupAnswer, keys: u64) -> Outcome<()> {
    let mut restored = backup::blank().await?;
    let started = Instant::now();
    backup::restore(&mut restored, 0, file, true).await?;
    println!("restored in {:.2} s", started.elapsed().as_secs_f64());
    restored.restart(0)?;
    restored.wait_until_ready(0).await?;
    let state = eventually("the restored node's state", PATIENCE, async || {
        Ok(restored.look(0).await?.map(|seen| seen.store))
    })
    .await?;
    ensure(state.digest == kept.backup.digest, || {
        format!("the backup is {kept:?}, the restored state {state:?}")
    })?;
    let address = [restored.address(0).to_string()];
    let get = load::run(&address, CONNECTIONS, Work::GetStale { round: 0 }, Keys::Each(0..keys)).await?;
    println!("all values read from the restored node: {:.0} get/s", get.per_second());
    Ok(())
}

fn both(latencies: &Latencies) -> String {
    let [p50, p99] = [50.0, 99.0].map(|percent| ms(latencies.percentile(percent)));
    format!("{p50:.1} and {p99:.1} ms ({} puts)", latencies.count())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}
