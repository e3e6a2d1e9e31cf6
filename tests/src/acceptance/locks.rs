//! `locks`: how soon a lock is handed on, after its holder releases it and after its holder dies.
//!
//! Who waits asks each node in turn, also ones that follow; tokens must rise from holder to holder, and nobody may get a
//! lock before the time of its holder is over.

use super::disk;
use super::verdict::{Verdict, miss};
use crate::cluster::Cluster;
use crate::failure::{Context, Outcome, ensure};
use crate::http::{Answer, Ask, Connection};
use balsa_wire::leases::LockAnswer;
use std::time::{Duration, Instant};

const NODES: usize = 3;
/// Median time from a release to the next holder's answer.
const HANDOVER_MAX: Duration = Duration::from_millis(5);
/// The time to live of holders that die.
const TTL: Duration = Duration::from_secs(2);
/// How much later than that the next holder may have its answer.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Longer than anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Releases.
    pub handovers: usize,
    /// Holders that die.
    pub deaths: usize,
}

/// Runs it, and gives its figures.
pub async fn run(options: &Options) -> Outcome<Verdict> {
    disk::require_real()?;
    let cluster = Cluster::start(NODES, &[]).await?;
    let outcome = run_on(&cluster, options).await;
    cluster.explain(outcome)
}

async fn run_on(cluster: &Cluster, options: &Options) -> Outcome<Verdict> {
    let mut handovers = Vec::new();
    for round in 0..options.handovers {
        handovers.push(handover(cluster, round).await?);
    }
    handovers.sort_unstable();
    let at = |share: usize| handovers[(handovers.len() * share / 100).min(handovers.len() - 1)];
    let (half, most) = (at(50), at(99));
    println!("handover after a release: p50 {} us, p99 {} us", half.as_micros(), most.as_micros());
    let mut latest = Duration::ZERO;
    for round in 0..options.deaths {
        let took = death(cluster, round).await?;
        println!("the holder dead: the next one after {} ms", took.as_millis());
        latest = latest.max(took);
    }
    let figures = format!(
        "handover p50 {} us, p99 {} us over {}; after a death at most {} ms with a time to live of {} ms",
        half.as_micros(),
        most.as_micros(),
        handovers.len(),
        latest.as_millis(),
        TTL.as_millis()
    );
    Ok(Verdict::of(
        figures,
        [
            miss(half <= HANDOVER_MAX, || format!("half of the handovers took more than {HANDOVER_MAX:?}")),
            miss(latest <= TTL + LATE_MAX, || {
                format!("a dead holder kept a lock for more than {:?}", TTL + LATE_MAX)
            }),
        ],
    ))
}

/// One holder releases, another has waited: from the release being sent to the other's answer.
async fn handover(cluster: &Cluster, round: usize) -> Outcome<Duration> {
    let name = format!("/v1/locks/handover/{round}");
    let mut holder = Connection::new(cluster.address(round % NODES));
    let held: LockAnswer = acquire(&mut holder, &name, r#"{"ttl":"20s"}"#).await?.json()?;
    let next = wait(cluster, round / NODES % NODES, &name);
    waits(cluster, &name).await?;
    let path = format!("{name}?token={}", held.token);
    let released_at = Instant::now();
    let release = Ask { method: "DELETE", path: &path, headers: &[], body: "" };
    holder.send(release, PATIENCE).await.context("release a lock")?.well(&path)?;
    let (next, got_at) = next.await.context("wait for a lock")??;
    ensure(next.token > held.token, || format!("token {} came after {}", next.token, held.token))?;
    Ok(got_at.duration_since(released_at))
}

/// A holder gives no sign of life: from when it asked to the next one's answer.
async fn death(cluster: &Cluster, round: usize) -> Outcome<Duration> {
    let name = format!("/v1/locks/death/{round}");
    let mut holder = Connection::new(cluster.address(round % NODES));
    let asked_at = Instant::now();
    let body = format!(r#"{{"ttl":"{}ms"}}"#, TTL.as_millis());
    let held: LockAnswer = acquire(&mut holder, &name, &body).await?.json()?;
    let answered_at = Instant::now();
    let next = wait(cluster, (round + 1) % NODES, &name);
    let (next, got_at) = next.await.context("wait for a lock")??;
    ensure(next.token > held.token, || format!("token {} came after {}", next.token, held.token))?;
    let early = got_at.duration_since(asked_at);
    ensure(early >= TTL, || {
        format!("the lock was handed on after {} ms, before its time", early.as_millis())
    })?;
    Ok(got_at.duration_since(answered_at))
}

/// Somebody waits for the lock at a node.
fn wait(
    cluster: &Cluster,
    node: usize,
    name: &str,
) -> tokio::task::JoinHandle<Outcome<(LockAnswer, Instant)>> {
    let (address, name) = (cluster.address(node).to_string(), name.to_string());
    tokio::spawn(async move {
        let mut connection = Connection::new(address);
        let answer = acquire(&mut connection, &name, r#"{"ttl":"20s","wait":"20s"}"#).await?;
        let got_at = Instant::now();
        Ok((answer.json()?, got_at))
    })
}

/// Until somebody waits for the lock.
async fn waits(cluster: &Cluster, name: &str) -> Outcome<()> {
    let begun = Instant::now();
    loop {
        let state: balsa_wire::leases::LockState = cluster.ask_well(0, Ask::get(name)).await?.json()?;
        if state.waiting == 1 {
            return Ok(());
        }
        ensure(begun.elapsed() < PATIENCE, || format!("nobody came to wait at {name}: {state:?}"))?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn acquire(connection: &mut Connection, name: &str, body: &str) -> Outcome<Answer> {
    let headers = &[("content-type", "application/json")];
    let ask = Ask { method: "POST", path: name, headers, body };
    connection.send(ask, PATIENCE).await.context("ask for a lock")?.well(name)
}
