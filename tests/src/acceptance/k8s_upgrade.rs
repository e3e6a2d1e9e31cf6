//! `k8s-upgrade`: a rolling restart, a `helm upgrade`, and the deploy tool's `upgrade` to an image whose feature level is one
//! higher, all under load. No operation fails within its deadline, nothing is lost, writes are held up only for as long as
//! the bar says, and a leader hands over before its Pod stops. The cluster's level rises when the last Pod has the new
//! image, and not before.

use crate::cluster::{eventually, eventually_at};
use crate::failure::{Failure, Outcome, ensure};
use crate::k8s::{Attached, Load, NAME, Namespace, Release, Steady, deploy};
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

/// The longest time without a write.
const GAP_MAX_MS: u64 = 300;
/// How long a rollout may take.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(150);
/// How many writes the load makes undisturbed before and after.
const CALM_WRITES: u64 = 200;
/// How soon the level rises once all Pods have the image.
const LEVEL_LIMIT: Duration = Duration::from_secs(15);
/// How long the deploy tool may take.
const UPGRADE_LIMIT: Duration = Duration::from_secs(240);
/// The pause between two looks meanwhile: each takes time from the cluster's nodes where they share a machine with it.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
const MEMBERS: u32 = 3;
/// What a node says when it begins to stop, and when it leads no more.
const STOPPING: &str = "stopping: leadership is handed over";
const FOLLOWS: &str = "\"role\":\"Follower\"";

/// Runs the bar; gives its figures. `quick`: the upgrade to another image alone.
pub async fn run(quick: bool) -> Outcome<String> {
    Namespace::with("balsa-upgrade", async |namespace| roll_and_judge(namespace, quick).await).await
}

async fn roll_and_judge(namespace: &Namespace, quick: bool) -> Outcome<String> {
    let (old, new) = (namespace.lab().old_image()?, namespace.lab().image());
    let release = Release::install_image(namespace, old, &[]).await?;
    release.wait_until_whole(MEMBERS, ROLLOUT_LIMIT).await?;
    let mut figures = Vec::new();
    if !quick {
        let restart = async || {
            namespace.kubectl(&["rollout", "restart", &format!("statefulset/{NAME}")]).await.map(|_| ())
        };
        figures.push(roll(&release, "rolling restart", restart).await?);
        let upgrade = async || release.upgrade(&["config.log_filter=debug"]).await;
        figures.push(roll(&release, "helm upgrade", upgrade).await?);
    }
    let level = release.wait_for_leader(ROLLOUT_LIMIT).await?.feature_level;
    figures.push(roll(&release, "upgrade", async || watch_upgrade(&release, new, level).await).await?);
    eventually(&format!("the cluster to reach level {}", level + 1), LEVEL_LIMIT, async || {
        Ok((release.wait_for_leader(LEVEL_LIMIT).await?.feature_level == level + 1).then_some(()))
    })
    .await?;
    Ok(format!("{}, level {level} to {}; 0 lost, 0 twice, 0 errors", figures.join("; "), level + 1))
}

/// The deploy tool's upgrade, while the cluster's level is looked at: not before all Pods have the image may it rise.
async fn watch_upgrade(release: &Release<'_>, image: &str, level: u32) -> Outcome<()> {
    let arguments = ["upgrade", image];
    let mut upgrading = pin!(deploy(release.namespace(), &arguments));
    let rises_early = async || Ok(rises_early(release, image, level).await?.then_some(()));
    tokio::select! {
        upgraded = &mut upgrading => upgraded.map(|_| ()),
        early = eventually_at(LOOK_PAUSE, "the upgrade's end", UPGRADE_LIMIT, rises_early) => {
            early?;
            Err(Failure(format!("the level rose above {level} while there were Pods of another image than {image}")))
        }
    }
}

/// Whether the level is above `level`, and then there is still a Pod of another image.
async fn rises_early(release: &Release<'_>, image: &str, level: u32) -> Outcome<bool> {
    let Some((_, seen)) = release.leader().await? else { return Ok(false) };
    Ok(seen.feature_level > level && release.pods().await?.iter().any(|pod| pod.image != image))
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
    release.wait_for_writes(CALM_WRITES, ROLLOUT_LIMIT).await?;
    let started = Instant::now();
    deed().await?;
    release.wait_for_rollout(ROLLOUT_LIMIT).await?;
    release.wait_until_whole(MEMBERS, ROLLOUT_LIMIT).await?;
    let took = started.elapsed();
    release.wait_for_writes(CALM_WRITES, ROLLOUT_LIMIT).await?;
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
    ensure(handed_over(&said), || {
        format!("{what}: {leader} led, and stopped before it had handed over; it said:\n{said}")
    })?;
    Ok(format!(
        "{what} {:.0} s, {} writes, longest gap {} ms",
        took.as_secs_f64(),
        report.writes.ok,
        report.gap_longest_ms
    ))
}

/// Whether a node that led did so no more when it stopped, by what it said since it led: it follows before it says that it
/// stops, or soon after.
fn handed_over(said: &str) -> bool {
    let Some((before, after)) = said.split_once(STOPPING) else { return false };
    let last_role = before.lines().rfind(|line| line.contains("\"role\":"));
    last_role.is_some_and(|line| line.contains(FOLLOWS)) || after.contains(FOLLOWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_a_leader_handed_over() {
        let role = |role: &str| format!("{{\"message\":\"role or leader changed\",\"role\":\"{role}\"}}\n");
        let stops = format!("{{\"message\":\"{STOPPING}\"}}\n");
        let (leads, follows) = (role("Leader"), role("Follower"));
        for (said, expected) in [
            (format!("{follows}{stops}"), true),
            (format!("{stops}{follows}"), true),
            (format!("{follows}{leads}{stops}{follows}"), true),
            (format!("{follows}{leads}{stops}"), false),
            (stops.clone(), false),
            (follows.clone(), false),
        ] {
            assert_eq!(handed_over(&said), expected, "{said}");
        }
    }
}
