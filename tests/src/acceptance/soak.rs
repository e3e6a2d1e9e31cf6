//! `soak`: overwrites of the same keys for a long time. Log, store and memory must reach a plateau: what is kept is
//! bounded by settings, not by how long a node runs (contract, promise 5).
//!
//! Sampled each second, from outside: the bytes that files take on the disk, and the process's resident memory. A
//! plateau is reached where the last third of the time has no more than the middle third, but for a little: files and
//! memory go up and down with every flush and compaction.

use super::closed_loop::Load;
use super::disk;
use super::verdict::{mib, thousands};
use crate::cluster::Cluster;
use crate::failure::{Outcome, ensure};
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// For how long the keys are overwritten.
    pub duration: Duration,
    /// Clients of the closed loop.
    pub clients: usize,
    /// Settings that make a node keep little, so that a plateau comes within a minute.
    pub small: bool,
}

const NODES: usize = 3;
/// A segment of the log, in bytes.
const SEGMENT_BYTES: u64 = 16 << 20;
/// The same in a run of a minute; about as small as one may be.
const SMALL_SEGMENT_BYTES: u64 = 9 << 20;
/// The same, as an argument.
const SMALL_SEGMENT: &str = "9437184";
/// The bounds of what a node keeps, for a run of a minute. All of the same kinds as the defaults.
const SMALL: [&str; 8] = [
    "--history-revisions",
    "2000",
    "--overlay-bytes",
    "4194304",
    "--log-segment-bytes",
    SMALL_SEGMENT,
    "--log-margin-bytes",
    SMALL_SEGMENT,
];
/// How much more the last third may have, in hundredths.
const GROWTH_MAX_PERCENT: u64 = 5;
/// And so much beside: a flush more or less, whatever the size of the whole. Of the log, which is kept by whole segments,
/// it is one of those.
const GROWTH_MAX_BYTES: u64 = 2 << 20;
/// A line of figures comes this often.
const LINES: u32 = 20;

/// What is watched, of each node.
const WATCHED: [&str; 3] = ["log", "store", "memory"];

/// One second's bytes: of each node, of each of [`WATCHED`].
type Sample = [[u64; 3]; NODES];

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<String> {
    disk::require_real()?;
    let settings: &[&str] = if options.small { &SMALL } else { &[] };
    let mut cluster = Cluster::start(NODES, settings).await?;
    let outcome = soak(&mut cluster, options).await;
    cluster.explain(outcome)
}

async fn soak(cluster: &mut Cluster, options: &Options) -> Outcome<String> {
    let addresses: Vec<String> = (0..NODES).map(|node| cluster.address(node).to_string()).collect();
    println!("{NODES} nodes, {} clients in a closed loop, for {:?}", options.clients, options.duration);
    let mut load = Load::start(&addresses, options.clients, 1);
    let started = Instant::now();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut samples: Vec<Sample> = Vec::new();
    let mut lines = 0;
    while started.elapsed() < options.duration {
        seconds.tick().await;
        load.check()?;
        let sample = sample(cluster)?;
        if started.elapsed() >= options.duration / LINES * lines {
            lines += 1;
            show(started.elapsed(), load.answered(), &sample);
        }
        samples.push(sample);
    }
    let (written, took) = (load.answered(), started.elapsed());
    load.finish().await?;
    let (index, digest) = cluster.wait_until_digests_agree().await?;
    println!("all nodes are at index {index} with digest {digest}");
    let segment_bytes = if options.small { SMALL_SEGMENT_BYTES } else { SEGMENT_BYTES };
    let plateau = judge(&samples, segment_bytes)?;
    let per_second = written as f64 / took.as_secs_f64();
    Ok(format!(
        "{} overwrites in {:.0} s ({per_second:.0}/s), {plateau}",
        thousands(written),
        took.as_secs_f64()
    ))
}

fn show(at: Duration, written: u64, sample: &Sample) {
    let nodes: Vec<String> = sample
        .iter()
        .map(|[log, store, memory]| {
            format!("log {} store {} memory {}", mib(*log), mib(*store), mib(*memory))
        })
        .collect();
    println!("  {:>5.0} s, {:>9} writes: {}", at.as_secs_f64(), thousands(written), nodes.join(" | "));
}

fn sample(cluster: &mut Cluster) -> Outcome<Sample> {
    let mut sample = Sample::default();
    for (node, bytes) in sample.iter_mut().enumerate() {
        let data = cluster.process(node).recipe().data.clone();
        *bytes = [
            disk::taken_bytes(&data.join("log"))?,
            disk::taken_bytes(&data.join("state"))?,
            cluster.process(node).resident_bytes()?,
        ];
    }
    Ok(sample)
}

/// Compares the means of the middle and the last third; gives a line of figures, the worst node's of each kind.
fn judge(samples: &[Sample], segment_bytes: u64) -> Outcome<String> {
    let third = samples.len() / 3;
    ensure(third >= 5, || format!("{} samples say nothing of a plateau", samples.len()))?;
    let (middle, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let mut lines = Vec::new();
    for (kind, what) in WATCHED.iter().enumerate() {
        let slack = if *what == "log" { segment_bytes } else { GROWTH_MAX_BYTES };
        let mut worst = (0, 0);
        for node in 0..NODES {
            let mean =
                |of: &[Sample]| of.iter().map(|sample| sample[node][kind]).sum::<u64>() / of.len() as u64;
            let (before, after) = (mean(middle), mean(last));
            ensure(after <= before + before * GROWTH_MAX_PERCENT / 100 + slack, || {
                format!(
                    "node {node}'s {what} grows: {} in the middle third, {} in the last",
                    mib(before),
                    mib(after)
                )
            })?;
            worst = worst.max((after, before));
        }
        lines.push(format!("{what} {} then {}", mib(worst.1), mib(worst.0)));
    }
    Ok(format!("middle third then last: {}", lines.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    fn samples(bytes: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..60).map(|second| [[bytes(second), 1 << 20, 1 << 20]; NODES]).collect()
    }

    #[test]
    fn what_goes_up_and_down_is_a_plateau() {
        let sawtooth = samples(|second| (40 << 20) + (second % 7) * (2 << 20));
        assert!(judge(&sawtooth, SMALL_SEGMENT_BYTES).is_ok());
    }

    #[test]
    fn what_grows_slowly_is_found() {
        // One part in a hundred a second.
        let grows = samples(|second| (100 << 20) + second * (1 << 20));
        let Failure(why) = judge(&grows, SMALL_SEGMENT_BYTES).expect_err("it grows");
        assert!(why.contains("log grows"), "{why}");
    }
}
