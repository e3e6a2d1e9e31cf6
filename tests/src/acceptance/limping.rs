//! `limping`: one follower is dead, then one has a disk that stalls again and again. Neither may cost the others much.
//!
//! Clients in a closed loop at all living nodes, the limping one included. Rounds of three spans, so that whatever else
//! changes on the machine meets all alike: all sound, a follower dead, the same follower limping. The medians over the
//! rounds are compared. Nobody may be elected meanwhile: a slow disk is no reason for that (contract, issue 4).

use super::closed_loop::{Load, Span};
use super::disk;
use super::verdict::{Verdict, mib, miss, thousands};
use crate::cluster::{Cluster, Disks, PATIENCE, eventually};
use crate::failure::{Outcome, ensure};
use std::time::Duration;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rounds.
    pub rounds: u32,
    /// How long each span is measured.
    pub span: Duration,
    /// Clients of the closed loop.
    pub clients: usize,
}

const NODES: usize = 3;
/// How much longer a sync takes on the limping disk.
const STALL: Duration = Duration::from_millis(150);
/// In every second round only one sync in so many stalls: a disk that hiccups is another illness than one that is slow.
const SOMETIMES: u32 = 4;
/// Of the throughput of a sound cluster, with one follower dead, and with one limping.
const SHARE_LEAST: f64 = 0.8;
/// Before a span is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// One round's figures.
#[derive(Debug, Clone, Copy)]
struct Round {
    sound: Span,
    dead: Span,
    limping: Span,
}

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<Verdict> {
    disk::require_real()?;
    let mut cluster = Cluster::start_on(Disks::Limping, NODES, &[]).await?;
    let outcome = measure_and_judge(&mut cluster, options).await;
    cluster.explain(outcome)
}

async fn measure_and_judge(cluster: &mut Cluster, options: &Options) -> Outcome<Verdict> {
    let all: Vec<usize> = (0..NODES).collect();
    let leader = cluster.wait_for_leader(&all).await?;
    let victim = (leader + 1) % NODES;
    let living: Vec<usize> = all.iter().copied().filter(|node| *node != victim).collect();
    let term = term(cluster, leader).await?;
    println!(
        "{NODES} nodes, {} clients in a closed loop, {} rounds of spans of {:?}; node {leader} leads, node {victim} suffers",
        options.clients, options.rounds, options.span
    );
    let mut rounds = Vec::new();
    for number in 0..options.rounds {
        let sound = span(cluster, &all, options, number).await?;
        cluster.kill(victim)?;
        let dead = span(cluster, &living, options, number).await?;
        cluster.restart(victim)?;
        cluster.wait_until_ready(victim).await?;
        catch_up(cluster).await?;
        match number.is_multiple_of(2) {
            true => cluster.disk(victim).stall(STALL)?,
            false => cluster.disk(victim).stall_sometimes(STALL, SOMETIMES)?,
        }
        let limping = span(cluster, &all, options, number).await?;
        let lag = lag(cluster, leader, victim).await?;
        cluster.disk(victim).heal()?;
        catch_up(cluster).await?;
        println!(
            "  {number}: sound {:.0}/s (slowest {} ms), one dead {:.0}/s ({} ms), one limping {:.0}/s ({} ms), {} entries behind; leader {}, victim {}",
            sound.per_second,
            sound.slowest.as_millis(),
            dead.per_second,
            dead.slowest.as_millis(),
            limping.per_second,
            limping.slowest.as_millis(),
            thousands(lag),
            mib(cluster.process(leader).resident_bytes()?),
            mib(cluster.process(victim).resident_bytes()?),
        );
        rounds.push(Round { sound, dead, limping });
        for node in &all {
            let now = self::term(cluster, *node).await?;
            ensure(now == term, || {
                format!("node {node} is in term {now}, no longer in {term}: an election without a cause")
            })?;
        }
    }
    Ok(judge(&rounds))
}

fn judge(rounds: &[Round]) -> Verdict {
    let sound = median(rounds, |round| round.sound.per_second);
    let dead = median(rounds, |round| round.dead.per_second) / sound;
    let limping = median(rounds, |round| round.limping.per_second) / sound;
    let figures = format!(
        "{sound:.0} writes/s sound, {dead:.2} of it with one dead, {limping:.2} with one limping, 0 elections"
    );
    let misses = [(dead, "one follower dead"), (limping, "one follower limping")].map(|(share, what)| {
        miss(share >= SHARE_LEAST, || {
            format!("with {what} the throughput is below {SHARE_LEAST} of the sound")
        })
    });
    Verdict::of(figures, misses)
}

async fn span(cluster: &Cluster, at: &[usize], options: &Options, seed: u32) -> Outcome<Span> {
    let addresses: Vec<String> = at.iter().map(|node| cluster.address(*node).to_string()).collect();
    let mut load = Load::start(&addresses, options.clients, seed.into());
    let measured = load.measure(WARM_UP, options.span).await?;
    load.finish().await?;
    Ok(measured)
}

async fn term(cluster: &Cluster, node: usize) -> Outcome<u64> {
    eventually("a node to tell its term", PATIENCE, async || {
        Ok(cluster.look(node).await?.map(|seen| seen.term))
    })
    .await
}

async fn catch_up(cluster: &Cluster) -> Outcome<()> {
    cluster.wait_until_digests_agree().await.map(|_| ())
}

/// How far the limping node's store is behind.
async fn lag(cluster: &Cluster, leader: usize, victim: usize) -> Outcome<u64> {
    let applied = async |node| Ok(cluster.look(node).await?.map_or(0, |seen| seen.store.applied_index));
    let (behind, ahead) = (applied(victim).await?, applied(leader).await?);
    Ok(ahead.saturating_sub(behind))
}

fn median(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
