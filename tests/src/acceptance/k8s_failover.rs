//! `k8s-failover`: under load, the leader's process is killed with -9 from its machine, again and again, and then its Pod is
//! deleted by force, again and again. Nothing acknowledged is lost, the median gap stays within the bar, and never do two
//! processes write one folder.

use crate::cluster::eventually;
use crate::failure::{Failure, Outcome, ensure};
use crate::k8s::{Load, LoadReport, Namespace, Pod, Release, Steady, process};
use balsa_wire::cluster::ClusterAnswer;
use std::time::{Duration, SystemTime};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often the leader's process is killed.
    pub kills: u32,
    /// How often its Pod is deleted by force.
    pub deletions: u32,
}

/// The median of the times without a write after kill -9.
const GAP_MEDIAN_MAX_MS: u64 = 600;
/// How long the cluster may take to be whole again. A container that is killed again and again is started later and later.
const HEAL_LIMIT: Duration = Duration::from_secs(240);
/// How long another leader may take to be seen.
const REPLACED_LIMIT: Duration = Duration::from_secs(30);
/// How many writes the load makes undisturbed before each strike and at the end.
const CALM_WRITES: u64 = 200;
const MEMBERS: u32 = 3;

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<String> {
    Namespace::with("balsa-failover", async |namespace| strike_and_judge(namespace, options).await).await
}

async fn strike_and_judge(namespace: &Namespace, options: &Options) -> Outcome<String> {
    let release = Release::install(namespace, &[]).await?;
    release.wait_until_whole(MEMBERS, HEAL_LIMIT).await?;

    let load = Load::start(namespace, "load-kill", &Steady::default()).await?;
    let mut strikes = Vec::new();
    for _ in 0..options.kills {
        strikes.push(kill(&release).await?);
    }
    release.wait_for_writes(CALM_WRITES, REPLACED_LIMIT).await?;
    let killed = load.finish().await?;
    let gaps = gaps(&killed, &strikes);
    println!(
        "kill -9 of the leader: gaps in ms {gaps:?}, longest operation {} ms",
        killed.operation_longest_ms
    );
    killed.ensure_unharmed()?;
    let median = median(&gaps);
    ensure(gaps.is_empty() || median <= GAP_MEDIAN_MAX_MS, || {
        format!("the median gap after kill -9 is {median} ms; the bar is {GAP_MEDIAN_MAX_MS} ms")
    })?;

    let load = Load::start(namespace, "load-delete", &Steady::default()).await?;
    let mut strikes = Vec::new();
    for _ in 0..options.deletions {
        strikes.push(delete(&release).await?);
    }
    release.wait_for_writes(CALM_WRITES, REPLACED_LIMIT).await?;
    let deleted = load.finish().await?;
    let delete_gaps = self::gaps(&deleted, &strikes);
    println!(
        "its Pod deleted by force: gaps in ms {delete_gaps:?}, longest operation {} ms",
        deleted.operation_longest_ms
    );
    deleted.ensure_unharmed()?;

    let index = release.wait_until_digests_agree(HEAL_LIMIT).await?;
    println!("all members are at index {index} with one digest");
    Ok(format!(
        "{} kills, gap median {median} ms, longest {} ms; {} Pods deleted by force, gap median {} ms, longest {} ms; \
         {} writes, 0 lost, 0 twice, 0 errors, no folder with two writers",
        gaps.len(),
        gaps.iter().max().unwrap_or(&0),
        delete_gaps.len(),
        self::median(&delete_gaps),
        delete_gaps.iter().max().unwrap_or(&0),
        killed.writes.ok + deleted.writes.ok,
    ))
}

/// Kills the leader's process; gives when.
async fn kill(release: &Release<'_>) -> Outcome<SystemTime> {
    let (leader, seen) = calm_leader(release).await?;
    let container = leader.container.clone().unwrap_or_default();
    let pid = process::of_container(&container)?;
    let at = SystemTime::now();
    process::kill(pid)?;
    wait_until_elected(release, &leader, seen.term, at).await?;
    wait_until_back(release, &leader).await?;
    Ok(at)
}

/// Deletes the leader's Pod by force; gives when.
async fn delete(release: &Release<'_>) -> Outcome<SystemTime> {
    let (leader, seen) = calm_leader(release).await?;
    let at = SystemTime::now();
    let arguments = ["delete", "pod", &leader.name, "--force", "--grace-period=0", "--wait=false"];
    release.namespace().kubectl(&arguments).await?;
    wait_until_elected(release, &leader, seen.term, at).await?;
    wait_until_back(release, &leader).await?;
    Ok(at)
}

/// Until the Pod is ready with another container: of the one that was struck Kubernetes may say for a second yet that it is
/// ready. Meanwhile it looks for a folder with two writers.
async fn wait_until_back(release: &Release<'_>, struck: &Pod) -> Outcome<()> {
    let back = eventually("the Pod to be back", HEAL_LIMIT, async || {
        one_writer_each()?;
        let is_back = |pod: &Pod| pod.name == struck.name && pod.container != struck.container && pod.ready;
        Ok(release.pods().await?.into_iter().find(is_back))
    });
    back.await.map(|_| ())
}

fn one_writer_each() -> Outcome<()> {
    let shared = process::shared_folders()?;
    ensure(shared.is_empty(), || format!("two processes have one folder's log open: {shared:?}"))
}

async fn calm_leader(release: &Release<'_>) -> Outcome<(Pod, ClusterAnswer)> {
    let leader = release.wait_until_whole(MEMBERS, HEAL_LIMIT).await?;
    release.wait_for_writes(CALM_WRITES, REPLACED_LIMIT).await?;
    let now = release.leader().await?;
    now.ok_or_else(|| Failure(format!("{} led, and nobody does now, though all is calm", leader.name)))
}

/// Waits for a leader of a later term: perhaps the one that was struck, if it was back that soon.
async fn wait_until_elected(release: &Release<'_>, old: &Pod, term: u64, at: SystemTime) -> Outcome<()> {
    let elected = eventually("another leader", REPLACED_LIMIT, async || {
        one_writer_each()?;
        let leader = release.leader().await?;
        Ok(leader.filter(|(_, seen)| seen.term > term).map(|(pod, _)| pod.name))
    });
    let new = elected.await?;
    let took = at.elapsed().unwrap_or_default();
    println!("  {} struck; {new} is seen to lead {:.1} s later", old.name, took.as_secs_f64());
    Ok(())
}

/// The longest time without a write after each strike, in ms.
fn gaps(report: &LoadReport, strikes: &[SystemTime]) -> Vec<u64> {
    let ends = strikes.iter().skip(1).copied().chain([SystemTime::now()]);
    strikes.iter().zip(ends).map(|(from, to)| report.pause_between(*from, to)).collect()
}

fn median(gaps: &[u64]) -> u64 {
    let mut sorted = gaps.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}
