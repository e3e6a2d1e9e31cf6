//! `nemesis`: real processes under all kinds of faults, three and five of them in turn, while clients put all operations
//! to them and record what they are told.
//!
//! Each era has a cluster of its own in namespaces of its own. At its end the histories are judged, all nodes must hold the
//! same, and every acknowledged write must be there. After each fault the cluster must be at work again within a bound.

use super::disk;
use super::verdict::thousands;
use crate::binary;
use crate::cluster::{Cluster, Disks};
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::nemesis::clients::{Clients, Rate};
use crate::nemesis::judge::judge;
use crate::nemesis::network::Network;
use crate::nemesis::plan::{Era, Kind, Plan};
use crate::nemesis::strikes::{Strikes, Struck};
use crate::process::log_beside;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// No round begins later than this.
    pub duration: Duration,
    /// For how long a fault holds: between so many milliseconds.
    pub hold_ms: (u64, u64),
    /// What all is drawn from.
    pub seed: u64,
    /// Which kinds of faults.
    pub kinds: Vec<Kind>,
    /// The load.
    pub rate: Rate,
    /// Histories are kept, also those in which nothing is wrong.
    pub keep: bool,
    /// So many operations must have been made.
    pub operations_least: u64,
}

/// The bar: for so long, and so many operations.
pub const MINUTES: u64 = 30;
/// See above.
pub const OPERATIONS: u64 = 1_000_000;
/// Places in a network: an era of three nodes grows to five now and then.
const PLACES: usize = 5;
/// Small, so that stores flush, logs are released, and snapshots are needed, and so that a disk is soon full.
const SMALL: [[&str; 2]; 6] = [
    ["--value-bytes-max", "262144"],
    ["--overlay-bytes", "1048576"],
    ["--log-segment-bytes", "9437184"],
    ["--log-margin-bytes", "9437184"],
    ["--history-revisions", "20000"],
    ["--disk-headroom-bytes", "33554432"],
];

/// All rounds of one kind.
#[derive(Debug, Default)]
struct Row {
    times: u32,
    operations: u64,
    gap: Duration,
    recovery: Duration,
}

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<String> {
    disk::require_real()?;
    let folder = binary::scratch()?.join("nemesis");
    std::fs::create_dir_all(&folder).context(format!("make {}", folder.display()))?;
    println!(
        "seed {}: {} kinds of faults, each for {} to {} ms; {} clients, {} operations a second",
        options.seed,
        options.kinds.len(),
        options.hold_ms.0,
        options.hold_ms.1,
        options.rate.clients,
        options.rate.per_second
    );
    let began = Instant::now();
    let mut table: BTreeMap<Kind, Row> = BTreeMap::new();
    let (mut operations, mut eras) = (0, 0);
    for (number, era) in Plan::new(options.seed, &options.kinds, options.hold_ms).enumerate() {
        if began.elapsed() >= options.duration {
            break;
        }
        let name = format!("seed-{}-era-{number}", options.seed);
        println!("era {number}: {} nodes", era.size);
        operations += live_through(era, options, began, &folder, &name, &mut table).await?;
        eras += 1;
    }
    print_table(&table);
    let missing: Vec<&str> =
        options.kinds.iter().filter(|kind| !table.contains_key(kind)).map(|kind| kind.name()).collect();
    if !missing.is_empty() {
        println!("not reached in this time: {}", missing.join(", "));
    }
    ensure(operations >= options.operations_least, || {
        format!("{} operations; the bar is {}", thousands(operations), thousands(options.operations_least))
    })?;
    let faults: u32 = table.values().map(|row| row.times).sum();
    Ok(format!(
        "{} min, {eras} clusters, {faults} faults of {} kinds, {} operations, 0 anomalies, digests equal",
        began.elapsed().as_secs().div_ceil(60),
        table.len(),
        thousands(operations)
    ))
}

/// One era; gives how many operations were judged.
async fn live_through(
    mut era: Era,
    options: &Options,
    began: Instant,
    folder: &Path,
    name: &str,
    table: &mut BTreeMap<Kind, Row>,
) -> Outcome<u64> {
    let network = Network::make(PLACES).await?;
    let addresses = (0..PLACES).map(|node| network.client_address(node)).collect();
    let mut cluster = Cluster::start_in(network, Disks::Small, era.size, &SMALL.concat()).await?;
    let clients = Clients::start(addresses, options.rate, &mut era.clients)?;
    let outcome = async {
        let mut strikes = Strikes::new(&mut cluster, &clients);
        for round in &era.rounds {
            if began.elapsed() >= options.duration || clients.failed() {
                break;
            }
            let struck = strikes.strike(round).await?;
            println!("  {:>5} s  {}", began.elapsed().as_secs(), describe(&struck));
            let row = table.entry(struck.kind).or_default();
            row.times += 1;
            row.operations += struck.operations;
            row.gap = row.gap.max(struck.gap);
            row.recovery = row.recovery.max(struck.recovery);
        }
        let judged = judge(&cluster, clients, folder, name, options.keep).await?;
        println!(
            "  {:>5} s  judged: {} operations, {} of unknown outcome, linearizable; {} holders of the lock; {} changes \
             heard by watchers; all nodes at index {} with digest {}",
            began.elapsed().as_secs(),
            thousands(judged.operations as u64),
            judged.unknown,
            thousands(judged.holders as u64),
            thousands(judged.heard as u64),
            judged.index,
            judged.digest
        );
        Ok::<_, Failure>(judged.operations as u64)
    };
    outcome.await.map_err(|Failure(why)| {
        let kept = keep_logs(&mut cluster, folder, name);
        let kept = kept.map_or_else(|Failure(why)| why, |()| format!("logs are in {}", folder.display()));
        Failure(format!("{why}\n{kept}\n{}", cluster.last_words()))
    })
}

/// What the nodes said, for whoever looks for the reason.
fn keep_logs(cluster: &mut Cluster, folder: &Path, name: &str) -> Outcome<()> {
    for node in 0..cluster.size() {
        let log = log_beside(&cluster.process(node).recipe().data);
        std::fs::copy(&log, folder.join(format!("{name}-node-{node}.log")))
            .context(format!("keep {}", log.display()))?;
    }
    Ok(())
}

fn describe(struck: &Struck) -> String {
    format!(
        "{:<17} {}; {} operations, {} ms without a write, at work again after {} ms",
        struck.kind.name(),
        struck.what,
        thousands(struck.operations),
        struck.gap.as_millis(),
        struck.recovery.as_millis()
    )
}

fn print_table(table: &BTreeMap<Kind, Row>) {
    println!(
        "\n{:<18} {:>5} {:>12} {:>14} {:>20}",
        "fault", "times", "operations", "longest gap", "all at work again"
    );
    for (kind, row) in table {
        println!(
            "{:<18} {:>5} {:>12} {:>11} ms {:>17} ms",
            kind.name(),
            row.times,
            thousands(row.operations),
            row.gap.as_millis(),
            row.recovery.as_millis()
        );
    }
    println!();
}
