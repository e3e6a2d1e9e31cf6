//! `k8s-scale`: `kubectl scale` up and down under load, also onto volumes that were kept, and to nothing and back.
//!
//! No acknowledged write is lost, no operation fails within its deadline, and the members are those that the StatefulSet
//! wants. Asleep (`replicas: 0`) nobody is removed, and awake all is as it was.

use crate::cluster::eventually;
use crate::failure::{Outcome, ensure};
use crate::k8s::{Load, NAME, Namespace, Release, Steady};
use balsa_wire::cluster::StoreState;
use std::time::{Duration, Instant};

/// How long one change of size may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many writes the load makes undisturbed before and after.
const CALM_WRITES: u64 = 200;
/// The size at founding.
const FOUNDERS: u32 = 3;
/// The most members at one time.
const MOST: u32 = 5;

/// Runs the bar; gives its figures.
pub async fn run(quick: bool) -> Outcome<String> {
    Namespace::with("balsa-scale", async |namespace| scale_and_judge(namespace, quick).await).await
}

async fn scale_and_judge(namespace: &Namespace, quick: bool) -> Outcome<String> {
    let release = Release::install(namespace, &[&format!("replicaCount={FOUNDERS}")]).await?;
    release.wait_until_whole(FOUNDERS, PATIENCE).await?;
    // From 5 to 1 most members go, the leader perhaps among them; then those that come have the volumes they left.
    let sizes: &[u32] = if quick { &[5, 1, 3] } else { &[5, 1, 3, 5, 3, 5] };
    let load = Load::start(namespace, "load", &Steady { members: MOST, ..Steady::default() }).await?;
    release.wait_for_writes(CALM_WRITES, PATIENCE).await?;
    let mut walked = FOUNDERS.to_string();
    for size in sizes {
        let started = Instant::now();
        scale(namespace, *size).await?;
        release.wait_until_whole(*size, PATIENCE).await?;
        println!("to {size} members: {:.1} s", started.elapsed().as_secs_f64());
        walked.push_str(&format!("-{size}"));
    }
    release.wait_for_writes(CALM_WRITES, PATIENCE).await?;
    let report = load.finish().await?;
    println!(
        "longest gap {} ms, longest operation {} ms, pauses {:?}",
        report.gap_longest_ms,
        report.operation_longest_ms,
        report.pauses.iter().map(|pause| pause.ms).collect::<Vec<_>>()
    );
    report.ensure_unharmed()?;
    let slept = sleep_and_wake(&release).await?;
    Ok(format!(
        "{walked}, {} writes, 0 lost, 0 twice, 0 errors, longest gap {} ms; 0 and back in {:.0} s with all data and members",
        report.writes.ok,
        report.gap_longest_ms,
        slept.as_secs_f64()
    ))
}

async fn scale(namespace: &Namespace, size: u32) -> Outcome<()> {
    let replicas = format!("--replicas={size}");
    namespace.kubectl(&["scale", &format!("statefulset/{NAME}"), &replicas]).await.map(|_| ())
}

/// To no Pods, and back to as many as there were.
async fn sleep_and_wake(release: &Release<'_>) -> Outcome<Duration> {
    let namespace = release.namespace();
    let started = Instant::now();
    let before = state(release).await?;
    scale(namespace, 0).await?;
    eventually("all Pods to go", PATIENCE, async || Ok(release.pods().await?.is_empty().then_some(())))
        .await?;
    let size = before.0.len() as u32;
    scale(namespace, size).await?;
    release.wait_until_whole(size, PATIENCE).await?;
    let after = state(release).await?;
    ensure(after == before, || format!("before it slept: {before:?}; afterwards: {after:?}"))?;
    Ok(started.elapsed())
}

/// The members' identities, with revision and digest of what they hold. Nobody writes.
async fn state(release: &Release<'_>) -> Outcome<(Vec<String>, u64, String)> {
    release.wait_until_digests_agree(PATIENCE).await?;
    let seen = release.wait_for_leader(PATIENCE).await?;
    let ids = seen.members.iter().map(|member| member.id.clone()).collect();
    let StoreState { revision, digest, .. } = seen.store;
    Ok((ids, revision, digest))
}
