//! `k8s-heal`: Pods, volumes and nodes are lost, and nobody lifts a hand.
//!
//! Under load: a Pod with its volume, Pod 0 with its volume (no second cluster), all Pods at once, a node drained, a node
//! without network (also the one that runs the cluster's DNS). Nothing acknowledged is ever lost. At last the only member
//! loses its volume: no silent empty cluster takes its place.

use crate::cluster::eventually;
use crate::failure::{Failure, Outcome, ensure};
use crate::k8s::{Load, LoadReport, NAME, NODE_PODS, Namespace, Pod, Release, Steady};
use std::time::{Duration, Instant};

/// How long until there are three voters again.
const HEAL_LIMIT: Duration = Duration::from_secs(60);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a node is without its network.
const CUT: Duration = Duration::from_secs(60);
/// For how long a blank disk must not found anything.
const WATCHED: Duration = Duration::from_secs(10);
const MEMBERS: u32 = 3;

/// Runs the bar; gives its figures. `quick`: lost volumes only.
pub async fn run(quick: bool) -> Outcome<String> {
    Namespace::with("balsa-heal", async |namespace| heal_and_judge(namespace, quick).await).await
}

async fn heal_and_judge(namespace: &Namespace, quick: bool) -> Outcome<String> {
    let release = Release::install(namespace, &[]).await?;
    release.wait_until_whole(MEMBERS, PATIENCE).await?;
    let cluster = cluster_id(&release).await?;
    let mut figures = Vec::new();
    for slot in [2, 0] {
        let name = format!("volume-{slot}");
        let report = under_load(&release, &name, None, async || {
            let started = Instant::now();
            lose(&release, slot).await?;
            release.wait_until_whole(MEMBERS, HEAL_LIMIT).await?;
            let took = started.elapsed().as_secs_f64();
            println!("Pod {slot} and its volume lost: {MEMBERS} voters again after {took:.1} s");
            figures.push(format!("volume {slot} healed in {took:.0} s"));
            Ok(())
        });
        report.await?.ensure_unharmed()?;
        ensure(cluster_id(&release).await? == cluster, || {
            "another cluster took the place of the first".into()
        })?;
    }
    if !quick {
        all_pods(&release).await?;
        drain(&release).await?;
        let nodes = nodes_to_cut(&release).await?;
        for node in &nodes {
            cut(&release, node).await?;
        }
        figures.push(format!("all Pods at once, a drain, {} cut nodes: 0 lost", nodes.len()));
    }
    last_volume(&release).await?;
    figures.push("the last volume lost: no empty cluster".into());
    Ok(figures.join("; "))
}

/// What a client saw of a deed. The load is on another node than `but_not`.
async fn under_load(
    release: &Release<'_>,
    name: &str,
    but_not: Option<&str>,
    deed: impl AsyncFnOnce() -> Outcome<()>,
) -> Outcome<LoadReport> {
    let pods = release.pods().await?;
    let node = but_not.and_then(|cut| pods.iter().map(|pod| &pod.node).find(|node| *node != cut)).cloned();
    let steady = Steady { node, ..Steady::default() };
    let load = Load::start(release.namespace(), &format!("load-{name}"), &steady).await?;
    deed().await?;
    let report = load.finish().await?;
    println!(
        "{name}: {} writes, longest gap {} ms, {} lost, {} twice, first errors {:?}",
        report.writes.ok,
        report.gap_longest_ms,
        report.lost.len(),
        report.twice.len(),
        report.first_errors
    );
    Ok(report)
}

/// What holds however long the cluster was away.
fn ensure_nothing_lost(report: &LoadReport) -> Outcome<()> {
    let violations: Vec<&String> = report.lost.iter().chain(&report.twice).chain(&report.untrue).collect();
    ensure(violations.is_empty(), || format!("{} violations; the first: {}", violations.len(), violations[0]))
}

async fn cluster_id(release: &Release<'_>) -> Outcome<String> {
    let seen = release.wait_for_leader(PATIENCE).await?;
    seen.cluster.ok_or_else(|| Failure("a leader does not know its cluster".into()))
}

/// Deletes a Pod and its volume.
async fn lose(release: &Release<'_>, slot: u32) -> Outcome<()> {
    let namespace = release.namespace();
    let (claim, name) = (format!("persistentvolumeclaim/data-{NAME}-{slot}"), format!("{NAME}-{slot}"));
    let before = uid(&release.pods().await?, &name);
    namespace.kubectl(&["delete", &claim, "--wait=false"]).await?;
    namespace.kubectl(&["delete", "pod", &name, "--wait=false"]).await?;
    eventually(&format!("{name} to be another Pod"), PATIENCE, async || {
        let now = uid(&release.pods().await?, &name);
        Ok((now.is_some() && now != before).then_some(()))
    })
    .await
}

fn uid(pods: &[Pod], name: &str) -> Option<String> {
    pods.iter().find(|pod| pod.name == name && !pod.deleted).map(|pod| pod.uid.clone())
}

async fn all_pods(release: &Release<'_>) -> Outcome<()> {
    let namespace = release.namespace();
    let before = cluster_id(release).await?;
    let report = under_load(release, "all-pods", None, async || {
        let delete = ["delete", "pods", "--selector", NODE_PODS, "--grace-period=0", "--force"];
        namespace.kubectl(&delete).await?;
        release.wait_until_whole(MEMBERS, PATIENCE).await.map(|_| ())
    });
    ensure_nothing_lost(&report.await?)?;
    ensure(cluster_id(release).await? == before, || "another cluster took the place of the first".into())
}

/// Drains the leader's node, and gives it back: its volume cannot go elsewhere.
async fn drain(release: &Release<'_>) -> Outcome<()> {
    let lab = release.namespace().lab();
    let leader = release.wait_until_whole(MEMBERS, PATIENCE).await?;
    let report = under_load(release, "drain", Some(&leader.node), async || {
        let drain = [
            "drain",
            &leader.node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--force",
            "--timeout=50s",
        ];
        let selector = ["--pod-selector", NODE_PODS];
        let drained = lab.kubectl(&[&drain[..], &selector[..]].concat()).await;
        lab.kubectl(&["uncordon", &leader.node]).await?;
        drained?;
        release.wait_until_whole(MEMBERS, PATIENCE).await.map(|_| ())
    });
    report.await?.ensure_unharmed()
}

/// A node with a member, and the node that runs the cluster's DNS.
async fn nodes_to_cut(release: &Release<'_>) -> Outcome<Vec<String>> {
    let lab = release.namespace().lab();
    let path = "jsonpath={.items[*].spec.nodeName}";
    let dns = lab
        .kubectl(&["--namespace", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", path])
        .await?;
    let dns = dns.split_whitespace().next().ok_or_else(|| Failure("no Pod runs the cluster's DNS".into()))?;
    let leader = release.wait_until_whole(MEMBERS, PATIENCE).await?;
    let mut nodes = vec![leader.node, dns.to_string()];
    nodes.dedup();
    Ok(nodes)
}

async fn cut(release: &Release<'_>, node: &str) -> Outcome<()> {
    let lab = release.namespace().lab();
    let name = format!("cut-{node}");
    let report = under_load(release, &name, Some(node), async || {
        lab.script(&["cut", node]).await?;
        tokio::time::sleep(CUT).await; // the bar's own measure
        lab.script(&["heal", node]).await?;
        release.wait_until_whole(MEMBERS, PATIENCE).await.map(|_| ())
    });
    ensure_nothing_lost(&report.await?)
}

/// Scaled to one, and that one's volume is lost.
async fn last_volume(release: &Release<'_>) -> Outcome<()> {
    let namespace = release.namespace();
    namespace.kubectl(&["scale", &format!("statefulset/{NAME}"), "--replicas=1"]).await?;
    release.wait_until_whole(1, PATIENCE).await?;
    lose(release, 0).await?;
    let name = format!("{NAME}-0");
    let waits = async || -> Outcome<Option<()>> {
        let seen = release.look(&name).await.ok();
        let founded =
            seen.and_then(|seen| seen.waiting_for).is_some_and(|waits| waits.contains("founded here"));
        Ok(founded.then_some(()))
    };
    eventually("the blank disk to say that it founds nothing", PATIENCE, waits).await?;
    let until = Instant::now() + WATCHED;
    while Instant::now() < until {
        let ready = release.pods().await?.iter().any(|pod| pod.ready);
        ensure(!ready, || "a blank disk took the place of a cluster that was lost".into())?;
        tokio::time::sleep(Duration::from_millis(500)).await; // looked at again and again: nothing must change
    }
    eventually("the blank disk to wait still", PATIENCE, waits).await
}
