//! `k8s-upgrade`: a rolling restart and a `helm upgrade` under load. No operation fails within its deadline, nothing is
//! lost, writes are held up only for as long as the bar says, and a leader hands over before its Pod stops.

use crate::failure::{Outcome, ensure};
use crate::k8s::{Attached, Load, NAME, Namespace, Release, Steady};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest time without a write.
const GAP_MAX_MS: u64 = 300;
/// How long a rollout may take.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(150);
/// How long the load runs undisturbed before and after.
const CALM: Duration = Duration::from_secs(1);
const MEMBERS: u32 = 3;
/// What a node says when it begins to stop, and when it leads no more.
const STOPPING: &str = "stopping: leadership is handed over";
const FOLLOWS: &str = "\"role\":\"Follower\"";

/// Runs the bar; gives its figures.
pub async fn run() -> Outcome<String> {
    Namespace::with("balsa-upgrade", async |namespace| roll_and_judge(namespace).await).await
}

async fn roll_and_judge(namespace: &Namespace) -> Outcome<String> {
    let release = Release::install(namespace, &[]).await?;
    release.wait_until_whole(MEMBERS, ROLLOUT_LIMIT).await?;
    let restart = roll(&release, "rolling restart", async || {
        namespace.kubectl(&["rollout", "restart", &format!("statefulset/{NAME}")]).await.map(|_| ())
    });
    let restart = restart.await?;
    let upgrade =
        roll(&release, "helm upgrade", async || release.upgrade(&["config.log_filter=debug"]).await);
    let upgrade = upgrade.await?;
    Ok(format!("{restart}; {upgrade}; 0 lost, 0 twice, 0 errors"))
}

/// Rolls all Pods under load by `deed`.
async fn roll(release: &Release<'_>, what: &str, deed: impl AsyncFnOnce() -> Outcome<()>) -> Outcome<String> {
    let namespace = release.namespace();
    let pod = format!("load-{}", what.replace(' ', "-"));
    let load = Load::start(namespace, &pod, &Steady::default()).await?;
    let before: BTreeMap<String, String> =
        release.pods().await?.into_iter().map(|pod| (pod.name, pod.uid)).collect();
    let leader = release.wait_until_whole(MEMBERS, ROLLOUT_LIMIT).await?.name;
    let mut attached = Attached::to(namespace, &leader)?;
    tokio::time::sleep(CALM).await;
    let started = Instant::now();
    deed().await?;
    release.wait_for_rollout(ROLLOUT_LIMIT).await?;
    release.wait_until_whole(MEMBERS, ROLLOUT_LIMIT).await?;
    let took = started.elapsed();
    tokio::time::sleep(CALM).await;
    let report = load.finish().await?;
    let said = attached.wait().await?;
    println!(
        "{what}: {:.1} s, longest gap {} ms, longest operation {} ms, pauses {:?}",
        took.as_secs_f64(),
        report.gap_longest_ms,
        report.operation_longest_ms,
        report.pauses.iter().map(|pause| pause.ms).collect::<Vec<_>>()
    );
    let kept: Vec<String> = release
        .pods()
        .await?
        .into_iter()
        .filter(|pod| before.get(&pod.name) == Some(&pod.uid))
        .map(|pod| pod.name)
        .collect();
    ensure(kept.is_empty(), || format!("{what} left {kept:?} as they were"))?;
    report.ensure_unharmed()?;
    ensure(report.gap_longest_ms <= GAP_MAX_MS, || {
        format!("{what}: {} ms without a write; the bar is {GAP_MAX_MS} ms", report.gap_longest_ms)
    })?;
    let handed_over = said.split_once(STOPPING).is_some_and(|(_, then)| then.contains(FOLLOWS));
    ensure(handed_over, || {
        format!("{what}: {leader} led, and stopped before it had handed over; it said:\n{said}")
    })?;
    Ok(format!(
        "{what} {:.0} s, {} writes, longest gap {} ms",
        took.as_secs_f64(),
        report.writes.ok,
        report.gap_longest_ms
    ))
}
