//! `million-keys` and `ten-million-keys`: what a node costs, and how soon it is back, when it holds many keys.
//!
//! Memory does not grow with the data, nor does the time of a restart; disk stays near the data's own size; and writing
//! among ten million keys is nearly as fast as among ten thousand. The two loads that are compared take turns, so that
//! what else the machine does meets both.

use super::disk;
use super::load::{self, Done, Keys, VALUE_BYTES, Work};
use super::verdict::{Verdict, mib, miss, thousands};
use crate::cluster::{Cluster, PATIENCE, compare_digests};
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, send};
use crate::process::Process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const NODES: usize = 3;
/// Connections of a load, over all nodes.
const CONNECTIONS: usize = 192;
/// Peak resident memory of a node.
const RESIDENT_BYTES_MAX: u64 = 250 << 20;
/// Data folder of a node with a million keys.
const DISK_BYTES_MAX: u64 = 1_000_000_000;
/// After all were killed: until every node answers a stale get, and a linearizable one.
const STALE_AFTER_MAX: Duration = Duration::from_secs(1);
const LINEARIZABLE_AFTER_MAX: Duration = Duration::from_secs(2);
/// The keys of the load that the large one is compared with.
const FEW_KEYS: u64 = 10_000;
/// How much of its speed the large one must have.
const SPEED_SHARE_MIN: f64 = 0.6;
/// In how many turns the large load goes in; after each, one of the small.
const TURNS: u64 = 10;
/// How much resident memory may grow from the turn that reached [`FILLED_KEYS`] to the last, as a factor.
const GROWTH_MAX: f64 = 1.25;
/// By then overlays, caches and the log's margin are full. With fewer keys, only the bound itself tells.
const FILLED_KEYS: u64 = 500_000;
/// How often the data folders are measured under load.
const DISK_INTERVAL: Duration = Duration::from_secs(1);

/// `million-keys`: so many keys; gives its figures.
pub async fn million(keys: u64) -> Outcome<Verdict> {
    let mut cluster = start().await?;
    let outcome = million_on(&mut cluster, keys).await;
    cluster.explain(outcome)
}

async fn million_on(cluster: &mut Cluster, keys: u64) -> Outcome<Verdict> {
    let addresses = addresses(cluster);
    let disk = DiskWatch::start(cluster);
    let put = load::run(&addresses, CONNECTIONS, Work::Put { round: 0 }, Keys::Each(0..keys)).await?;
    println!("{} keys of {VALUE_BYTES} bytes put: {}", thousands(keys), rate(&put));
    let loaded = peak(cluster, "after the load")?;
    let get = load::run(&addresses, CONNECTIONS, Work::GetStale { round: 0 }, Keys::Each(0..keys)).await?;
    println!("all of them read from the nodes in turn: {}", rate(&get));
    let scanned = peak(cluster, "after the scan")?;
    let disk_peak = disk.stop().await?;
    let kept = disk_bytes(cluster)?;
    println!("disk a node: {} now, {} at most", mib(kept), mib(disk_peak));
    let back = restart(cluster, keys).await?;
    let get = load::run(&addresses, CONNECTIONS, Work::GetStale { round: 0 }, Keys::Each(0..keys)).await?;
    println!("all of them read again: {}", rate(&get));
    let restarted = peak(cluster, "after the restart and another scan")?;
    let resident = loaded.max(scanned).max(restarted);
    ensure_resident(resident)?;
    let disk = disk_peak.max(disk_bytes(cluster)?);
    ensure(disk <= DISK_BYTES_MAX, || {
        format!("a node took {} of disk; the bar is {}", mib(disk), mib(DISK_BYTES_MAX))
    })?;
    let figures = format!(
        "{} keys at {:.0} put/s, resident {} at most, disk {}, after kill -9 of all: stale {} ms, linearizable {} ms",
        thousands(keys),
        put.per_second(),
        mib(resident),
        mib(disk),
        back.stale.as_millis(),
        back.linearizable.as_millis()
    );
    Ok(Verdict::of(figures, late(back)))
}

/// `ten-million-keys`: so many keys, beside few; `burst` is how long a turn of the small load takes. Gives its figures.
pub async fn ten_million(keys: u64, burst: Duration) -> Outcome<Verdict> {
    let few = start().await?;
    let mut many = start().await?;
    let outcome = ten_million_on(&few, &mut many, keys, burst).await;
    many.explain(outcome)
}

async fn ten_million_on(few: &Cluster, many: &mut Cluster, keys: u64, burst: Duration) -> Outcome<Verdict> {
    let (few_addresses, addresses) = (addresses(few), addresses(many));
    load::run(&few_addresses, CONNECTIONS, Work::Put { round: 0 }, Keys::Each(0..FEW_KEYS)).await?;
    let (mut small, mut large) = (Done::default(), Done::default());
    let (mut first, mut last) = (0, 0);
    for turn in 0..TURNS {
        let overwrite = Keys::Random { below: FEW_KEYS, lasts: burst };
        let among_few = load::run(&few_addresses, CONNECTIONS, Work::Put { round: 1 }, overwrite).await?;
        let new = Keys::Each(keys * turn / TURNS..keys * (turn + 1) / TURNS);
        let among_many = load::run(&addresses, CONNECTIONS, Work::Put { round: 0 }, new).await?;
        last = largest(many, Process::resident_bytes)?;
        if first == 0 && keys * (turn + 1) / TURNS >= FILLED_KEYS {
            first = last;
        }
        let done = thousands(keys * (turn + 1) / TURNS);
        println!(
            "{done} keys: {}; among {}: {}; resident {}, disk {}",
            rate(&among_many),
            thousands(FEW_KEYS),
            rate(&among_few),
            mib(last),
            mib(disk_bytes(many)?)
        );
        (small, large) = (small.and(among_few), large.and(among_many));
    }
    let (mut small_over, mut large_over) = (Done::default(), Done::default());
    for _ in 0..3 {
        let overwrite = |below| Keys::Random { below, lasts: burst };
        let put = Work::Put { round: 1 };
        small_over = small_over.and(load::run(&few_addresses, CONNECTIONS, put, overwrite(FEW_KEYS)).await?);
        // Of the same value: what is read later need not know which were met.
        let put = Work::Put { round: 0 };
        large_over = large_over.and(load::run(&addresses, CONNECTIONS, put, overwrite(keys)).await?);
    }
    println!("any of all keys written over: {}; of the few: {}", rate(&large_over), rate(&small_over));
    let loaded = peak(many, "after the load")?;
    let back = restart(many, keys).await?;
    let sample = Keys::Random { below: keys, lasts: burst };
    let get = load::run(&addresses, CONNECTIONS, Work::GetStale { round: 0 }, sample).await?;
    println!("any of all keys read: {}", rate(&get));
    let resident = loaded.max(peak(many, "after the restart")?);
    ensure_resident(resident)?;
    let first = if first == 0 { last } else { first };
    ensure((last as f64) <= first as f64 * GROWTH_MAX, || {
        format!("resident memory grew from {} to {}; the bar is flat", mib(first), mib(last))
    })?;
    let shares = [large.per_second() / small.per_second(), large_over.per_second() / small_over.per_second()];
    let figures = format!(
        "{} keys: new at {:.0} put/s, {:.2} of the speed among {}, overwrites {:.2}; resident {} to {}, {} at most; back after {} ms",
        thousands(keys),
        large.per_second(),
        shares[0],
        thousands(FEW_KEYS),
        shares[1],
        mib(first),
        mib(last),
        mib(resident),
        back.stale.as_millis()
    );
    let slow = ["new keys", "overwrites"].into_iter().zip(shares).map(|(what, share)| {
        miss(share >= SPEED_SHARE_MIN, || {
            format!("{what} go in at less than {SPEED_SHARE_MIN} of the speed among {FEW_KEYS}")
        })
    });
    Ok(Verdict::of(figures, late(Back { linearizable: Duration::ZERO, ..back }).into_iter().chain(slow)))
}

async fn start() -> Outcome<Cluster> {
    disk::require_real()?;
    Cluster::start(NODES, &[]).await
}

fn addresses(cluster: &Cluster) -> Vec<String> {
    (0..cluster.size()).map(|node| cluster.address(node).to_string()).collect()
}

fn rate(done: &Done) -> String {
    format!("{:.0}/s for {:.1} s", done.per_second(), done.took.as_secs_f64())
}

/// The largest of the nodes' figures.
fn largest(cluster: &mut Cluster, of: impl Fn(&Process) -> Outcome<u64>) -> Outcome<u64> {
    let mut most = 0;
    for node in 0..cluster.size() {
        most = most.max(of(cluster.process(node))?);
    }
    Ok(most)
}

fn peak(cluster: &mut Cluster, when: &str) -> Outcome<u64> {
    let (now, most) =
        (largest(cluster, Process::resident_bytes)?, largest(cluster, Process::resident_bytes_peak)?);
    println!("resident {when}: {} now, {} at most", mib(now), mib(most));
    Ok(most)
}

fn ensure_resident(bytes: u64) -> Outcome<()> {
    ensure(bytes <= RESIDENT_BYTES_MAX, || {
        format!("a node took {} of memory; the bar is {}", mib(bytes), mib(RESIDENT_BYTES_MAX))
    })
}

/// How soon the slowest node answered after all were killed, from the start of its process.
#[derive(Clone, Copy, Debug)]
struct Back {
    stale: Duration,
    linearizable: Duration,
}

fn late(back: Back) -> [Option<String>; 2] {
    [("stale", back.stale, STALE_AFTER_MAX), ("linearizable", back.linearizable, LINEARIZABLE_AFTER_MAX)].map(
        |(what, took, most)| {
            miss(took <= most, || {
                format!("a {what} get is answered more than {} ms after a restart", most.as_millis())
            })
        },
    )
}

/// Kills all nodes at once, starts them all, and asks each for the last key until it answers.
async fn restart(cluster: &mut Cluster, keys: u64) -> Outcome<Back> {
    cluster.kill_all()?;
    let mut asking = JoinSet::new();
    for node in 0..cluster.size() {
        cluster.restart(node)?;
        let (address, started) = (cluster.address(node).to_string(), Instant::now());
        asking.spawn(async move {
            let stale = first_answer(&address, keys - 1, "stale", started).await?;
            let linearizable = first_answer(&address, keys - 1, "linearizable", started).await?;
            Ok::<Back, Failure>(Back { stale, linearizable })
        });
    }
    let mut back = Back { stale: Duration::ZERO, linearizable: Duration::ZERO };
    while let Some(one) = asking.join_next().await {
        let one = one.context("ask a node that was started again")??;
        back =
            Back { stale: back.stale.max(one.stale), linearizable: back.linearizable.max(one.linearizable) };
    }
    println!(
        "after kill -9 of all nodes, each answers by itself: stale after {} ms, linearizable after {} ms",
        back.stale.as_millis(),
        back.linearizable.as_millis()
    );
    cluster.wait_until_all_are_ready().await?;
    let mut states = Vec::new();
    for node in 0..cluster.size() {
        states.extend(cluster.look(node).await?.map(|seen| (node, seen.store)));
    }
    compare_digests(&states)?;
    Ok(back)
}

async fn first_answer(address: &str, key: u64, consistency: &str, started: Instant) -> Outcome<Duration> {
    let path = format!("/v1/kv/{}?consistency={consistency}&raw", load::key(key));
    let mut wanted = Vec::new();
    load::value(key, 0, &mut wanted);
    loop {
        let answer = send(address, Ask::get(&path), Duration::from_secs(5)).await;
        let took = started.elapsed();
        match answer {
            Ok(answer) if answer.status == 200 => {
                ensure(answer.body == wanted, || format!("{path} at {address} gave {}", answer.text()))?;
                return Ok(took);
            }
            other => ensure(took < PATIENCE, || {
                let said = other.map_or_else(|error| error.to_string(), |answer| answer.text());
                format!("{address} did not answer a {consistency} get within {PATIENCE:?}; last: {said}")
            })?,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn disk_bytes(cluster: &mut Cluster) -> Outcome<u64> {
    largest(cluster, |process| disk::taken_bytes(&process.recipe().data))
}

/// Measures the data folders again and again, beside a load.
struct DiskWatch {
    peak: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Outcome<()>>,
}

impl DiskWatch {
    fn start(cluster: &mut Cluster) -> DiskWatch {
        let folders: Vec<_> =
            (0..cluster.size()).map(|node| cluster.process(node).recipe().data.clone()).collect();
        let peak = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&peak);
        let task = tokio::spawn(async move {
            loop {
                for folder in &folders {
                    seen.fetch_max(disk::taken_bytes(folder)?, Ordering::Relaxed);
                }
                tokio::time::sleep(DISK_INTERVAL).await;
            }
        });
        DiskWatch { peak, task }
    }

    /// The largest folder that was seen.
    async fn stop(self) -> Outcome<u64> {
        self.task.abort();
        match self.task.await {
            Ok(Err(failure)) => Err(failure),
            _ => Ok(self.peak.load(Ordering::Relaxed)),
        }
    }
}
