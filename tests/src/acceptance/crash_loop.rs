//! `crash-loop`: kill -9 of random nodes, sometimes of all at once, under writes in an open loop.
//!
//! In the end every write that was acknowledged is there, linearizably and on every node; none is there twice; one that
//! was said not to be applied is absent; the store's revision is the number of writes that are there; and digests are
//! equal at equal index.

use super::verdict::thousands;
use super::writers::{self, Known, Record, Writers};
use crate::cluster::{Cluster, compare_digests};
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, Connection};
use crate::random::Random;
use balsa_wire::kv::Item;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often nodes are killed.
    pub kills: u64,
    /// Writes a second.
    pub per_second: u64,
    /// Chooses whom and when.
    pub seed: u64,
}

const NODES: usize = 3;
/// As small as the settings allow, so that flushes of the store and releases of the log happen between kills, too.
const SMALL: [[&str; 2]; 4] = [
    ["--value-bytes-max", "262144"],
    ["--overlay-bytes", "1048576"],
    ["--log-segment-bytes", "9437184"],
    ["--log-margin-bytes", "9437184"],
];
/// A cluster whose majority runs must acknowledge writes again within this time.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(20);
/// So many writes are acknowledged between two kills, so that each kill strikes a cluster at work.
const BETWEEN_KILLS: u64 = 20;
/// A node stays down for up to so long, and runs for up to so long before the next is killed.
const DOWN_MS_MAX: u64 = 1_500;
const UP_MS_MAX: u64 = 800;
/// How many readers verify side by side.
const READERS: usize = 8;

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<String> {
    let mut cluster = Cluster::start(NODES, &SMALL.concat()).await?;
    println!(
        "seed {}: {NODES} nodes, {} writes a second, {} kills",
        options.seed, options.per_second, options.kills
    );
    let outcome = strike_and_verify(&mut cluster, options).await;
    cluster.explain(outcome)
}

async fn strike_and_verify(cluster: &mut Cluster, options: &Options) -> Outcome<String> {
    let addresses: Vec<String> = (0..NODES).map(|node| cluster.address(node).to_string()).collect();
    let writers = Writers::start(addresses, options.per_second, options.seed);
    let mut strikes = Strikes { random: Random::new(options.seed), ..Strikes::default() };
    let started = Instant::now();
    for kill in 1..=options.kills {
        strikes.strike(cluster, &writers).await?;
        if kill.is_multiple_of(10) || kill == options.kills {
            println!(
                "  {kill} kills ({} of all nodes at once), {} writes acknowledged, {:.0} s",
                strikes.of_all,
                thousands(writers.acknowledged()),
                started.elapsed().as_secs_f64()
            );
        }
    }
    let repeated = writers.repeated();
    let records = writers.finish().await?;
    cluster.wait_until_all_are_ready().await?;
    let (index, digest) = cluster.wait_until_digests_agree().await?;
    println!("  all nodes are at index {index} with digest {digest}");
    println!(
        "  once all ran again, {BETWEEN_KILLS} more writes took {} ms at most; {} comparisons of digests under way",
        strikes.slowest.as_millis(),
        strikes.compared
    );
    let figures = verify(cluster, records).await?;
    println!("  {} requests were sent twice on purpose", thousands(repeated));
    Ok(format!("{} kills, {figures}, digests equal", options.kills))
}

#[derive(Debug)]
struct Strikes {
    random: Random,
    strikes: u64,
    of_all: u64,
    slowest: Duration,
    compared: u64,
}

impl Default for Strikes {
    fn default() -> Strikes {
        Strikes { random: Random::new(0), strikes: 0, of_all: 0, slowest: Duration::ZERO, compared: 0 }
    }
}

impl Strikes {
    /// Kills one node, or all; starts them again; sees the cluster at work again.
    async fn strike(&mut self, cluster: &mut Cluster, writers: &Writers) -> Outcome<()> {
        self.strikes += 1;
        let victims = match self.random.below(10) {
            // Chance alone might leave it out of a short run.
            _ if self.strikes == 5 => (0..NODES).collect(),
            0 => (0..NODES).collect(),
            1..=3 => self.leader(cluster).await?,
            _ => vec![usize::try_from(self.random.below(NODES as u64)).unwrap_or_default()],
        };
        self.of_all += u64::from(victims.len() == NODES);
        for victim in &victims {
            cluster.kill(*victim)?;
        }
        self.pause(DOWN_MS_MAX).await;
        for victim in &victims {
            cluster.restart(*victim)?;
        }
        let whole = Instant::now();
        let before = writers.acknowledged();
        while writers.acknowledged() < before + BETWEEN_KILLS {
            self.all_still_run(cluster)?;
            if writers.ended() {
                return Ok(()); // their finding is reported when they are gathered
            }
            ensure(whole.elapsed() < RECOVERY_PATIENCE, || {
                format!(
                    "after {victims:?} were killed and started again, {RECOVERY_PATIENCE:?} brought no {BETWEEN_KILLS} writes"
                )
            })?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.slowest = self.slowest.max(whole.elapsed());
        self.pause(UP_MS_MAX).await;
        self.compare(cluster).await
    }

    async fn pause(&mut self, ms_max: u64) {
        let ms = self.random.below(ms_max);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Who says that it leads, if anybody does.
    async fn leader(&mut self, cluster: &Cluster) -> Outcome<Vec<usize>> {
        for node in 0..NODES {
            let seen = cluster.look(node).await?;
            if seen.is_some_and(|seen| seen.role == balsa_wire::cluster::Role::Leader) {
                return Ok(vec![node]);
            }
        }
        Ok(vec![0])
    }

    fn all_still_run(&self, cluster: &mut Cluster) -> Outcome<()> {
        for node in 0..NODES {
            if let Some(status) = cluster.process(node).ended()? {
                return Err(Failure(format!("node {node} ended by itself ({status})")));
            }
        }
        Ok(())
    }

    /// Digests may be compared at any time, where indexes happen to be equal.
    async fn compare(&mut self, cluster: &Cluster) -> Outcome<()> {
        let mut states = Vec::new();
        for node in 0..NODES {
            states.extend(cluster.look(node).await?.map(|seen| (node, seen.store)));
        }
        let mut indexes: Vec<u64> = states.iter().map(|(_, state)| state.applied_index).collect();
        indexes.sort_unstable();
        self.compared += indexes.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        compare_digests(&states)
    }
}

/// What the readers found.
#[derive(Debug, Default)]
struct Findings {
    lost: Vec<String>,
    twice: Vec<String>,
    wrong: Vec<String>,
    there: u64,
}

async fn verify(cluster: &Cluster, records: Vec<Record>) -> Outcome<String> {
    let count =
        |wanted: fn(&Known) -> bool| records.iter().filter(|record| wanted(&record.known)).count() as u64;
    let acknowledged = count(|known| matches!(known, Known::Acknowledged { .. }));
    let unknown = count(|known| *known == Known::Unknown);
    let retried = records.iter().filter(|record| record.attempts > 1).count() as u64;
    let mut took: Vec<Duration> = records.iter().map(|record| record.took).collect();
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 1_000).copied().unwrap_or_default().as_millis();
    println!(
        "  {} writes: {} acknowledged, {} unknown, {} not applied; {} were retried; ms to an outcome: median {}, 99 % {}, 99.9 % {}, most {}",
        thousands(records.len() as u64),
        thousands(acknowledged),
        unknown,
        records.len() as u64 - acknowledged - unknown,
        thousands(retried),
        at(500),
        at(990),
        at(999),
        took.last().copied().unwrap_or_default().as_millis(),
    );
    ensure(acknowledged > 0, || "nothing was acknowledged".to_string())?;

    let records = Arc::new(records);
    let linearizable = read_all(cluster, &records, None).await?;
    let mut findings = vec![("linearizable".to_string(), linearizable)];
    for node in 0..NODES {
        findings.push((format!("at node {node}"), read_all(cluster, &records, Some(node)).await?));
    }
    let there = findings[0].1.there;
    for (how, found) in &findings {
        println!(
            "  read {how}: {} there, {} lost, {} twice",
            thousands(found.there),
            found.lost.len(),
            found.twice.len()
        );
    }
    for (how, found) in &findings {
        let first = found.lost.iter().chain(&found.twice).chain(&found.wrong).next();
        ensure(first.is_none(), || {
            format!(
                "{} lost, {} twice, {} otherwise wrong, read {how}; the first: {}",
                found.lost.len(),
                found.twice.len(),
                found.wrong.len(),
                first.map_or("", String::as_str)
            )
        })?;
        ensure(found.there == there, || {
            format!("{} writes are there {how}, but {there} in all", found.there)
        })?;
    }
    // Nobody else writes, and every write that is applied adds one: one applied twice would show here, too.
    let revision = cluster.look(0).await?.map_or(0, |seen| seen.store.revision);
    ensure(revision == there, || format!("the revision is {revision}, but {there} writes are there"))?;
    Ok(format!("{} acknowledged, 0 lost, 0 twice", thousands(acknowledged)))
}

/// Reads every write back: linearizably at any node, or what one node has.
async fn read_all(cluster: &Cluster, records: &Arc<Vec<Record>>, node: Option<usize>) -> Outcome<Findings> {
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let address = cluster.address(node.unwrap_or(reader % NODES)).to_string();
        let records = records.clone();
        readers.spawn(async move {
            let mut connection = Connection::new(address);
            let mut findings = Findings::default();
            for record in records.iter().skip(reader).step_by(READERS) {
                findings.read(&mut connection, record, node.is_some()).await?;
            }
            Ok::<_, Failure>(findings)
        });
    }
    let mut all = Findings::default();
    while let Some(found) = readers.join_next().await {
        let found = found.context("gather what was read")??;
        all.lost.extend(found.lost);
        all.twice.extend(found.twice);
        all.wrong.extend(found.wrong);
        all.there += found.there;
    }
    Ok(all)
}

impl Findings {
    async fn read(&mut self, connection: &mut Connection, record: &Record, stale: bool) -> Outcome<()> {
        let key = writers::key(record.number);
        let path = format!("/v1/kv/{key}{}", if stale { "?consistency=stale" } else { "" });
        let answer = connection.send(Ask::get(&path), Duration::from_secs(10)).await;
        let answer = answer.context(format!("read {key} at {}", connection.address()))?;
        match answer.status {
            200 => self.found(record, &answer.json()?),
            404 if matches!(record.known, Known::Acknowledged { .. }) => {
                self.lost.push(format!("{record:?}"))
            }
            404 => {}
            status => return Err(Failure(format!("{key} was answered {status} {}", answer.text()))),
        }
        Ok(())
    }

    fn found(&mut self, record: &Record, item: &Item) {
        self.there += 1;
        let describe = || format!("{record:?} reads as {item:?}");
        if item.version != 1 || item.create_revision != item.revision {
            self.twice.push(describe());
        }
        let value = item.value.as_ref().map(|value| value.get());
        let right = match record.known {
            Known::Acknowledged { revision } => item.revision == revision,
            Known::Unknown => true,
            Known::NotApplied => false,
        };
        if !right || value != Some(writers::value(record.number).as_str()) {
            self.wrong.push(describe());
        }
    }
}
