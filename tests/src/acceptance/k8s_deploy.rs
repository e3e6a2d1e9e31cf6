//! `k8s-deploy`: the commands of the deploy tool on a cluster that it rendered itself: `render`, `status`, `scale`, `backup`,
//! `restore`, and the refusals. Its `upgrade` is for `k8s-upgrade`, its `recover` for `k8s-quorum-loss`, its `failover-test` for `k8s-install`.

use crate::binary;
use crate::cluster::eventually;
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Ask, send};
use crate::k8s::{Forward, NAME, Namespace, Release, deploy};
use balsa_wire::backup::Reader;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(120);
const FOUNDERS: u32 = 3;
const VALUE: &str = "{\"value\":\"kept\"}";

/// Runs the bar; gives its figures.
pub async fn run() -> Outcome<String> {
    Namespace::with("balsa-deploy", async |namespace| use_the_tool(namespace).await).await
}

async fn use_the_tool(namespace: &Namespace) -> Outcome<String> {
    let lab = namespace.lab();
    let size = FOUNDERS.to_string();
    let objects = deploy(namespace, &["render", "--size", &size, "--image", lab.image()]).await?;
    let apply = ["--namespace", namespace.name(), "apply", "--filename", "-"];
    lab.call("kubectl", &apply, &objects, PATIENCE).await?;
    let release = Release::found(namespace);
    release.wait_until_whole(FOUNDERS, PATIENCE).await?;
    says(namespace, &["status"], "All is well.").await?;
    let cluster = status(namespace).await?["cluster"].clone();
    put(namespace).await?;

    let folder = tempfile::tempdir().context("make a folder for a backup")?;
    let backup = folder.path().join("balsa.backup");
    let backup_bytes = back_up(namespace, &cluster, &backup).await?;

    let mut walked = FOUNDERS.to_string();
    let started = Instant::now();
    for size in [5, 1, 3] {
        deploy(namespace, &["scale", &size.to_string()]).await?;
        // The tool waits for the members: nothing is left to wait for.
        release.wait_until_whole(size, Duration::from_secs(5)).await?;
        walked.push_str(&format!("-{size}"));
    }
    let scaled = started.elapsed();
    refuses(namespace, &["recover", "--yes"], "nothing to recover").await?;
    wait_until_available(namespace, &size).await?;
    // An image that does not run stops the update at its first Pod, and the old one is the way back.
    refuses(namespace, &["--timeout", "10", "upgrade", "no-such-image:1"], "no other Pod is touched").await?;
    refuses(namespace, &["status"], "An update is held back").await?;
    deploy(namespace, &["upgrade", lab.image()]).await?;
    release.wait_until_whole(FOUNDERS, PATIENCE).await?;

    let retention = |when: &str| {
        format!("{{\"spec\":{{\"persistentVolumeClaimRetentionPolicy\":{{\"whenScaled\":\"{when}\"}}}}}}")
    };
    let statefulset = format!("statefulset/{NAME}");
    namespace.kubectl(&["patch", &statefulset, "--patch", &retention("Delete")]).await?;
    refuses(namespace, &["scale", "0"], "delete every volume").await?;
    namespace.kubectl(&["patch", &statefulset, "--patch", &retention("Retain")]).await?;
    deploy(namespace, &["scale", "0"]).await?;
    says(namespace, &["status"], "The cluster sleeps").await?;
    // Five volumes are there, and one Pod would neither serve nor remove anybody.
    refuses(namespace, &["scale", "1"], "3 are needed for a quorum").await?;
    says(namespace, &["recover"], "The cluster sleeps").await?;
    deploy(namespace, &["scale", &size]).await?;
    ensure(status(namespace).await?["cluster"] == cluster, || "another cluster woke".into())?;
    ensure_kept(namespace).await?;
    let restored = restore_here(namespace, &release, binary::text(&backup)?, &cluster).await?;
    Ok(format!(
        "rendered and founded, a whole backup of {backup_bytes} bytes, {walked} in {:.0} s, asleep and awake with all data, \
         restored in {:.0} s",
        scaled.as_secs_f64(),
        restored.as_secs_f64()
    ))
}

/// In the place of what is here: only once all sleep, and no volume holds anything.
async fn restore_here(
    namespace: &Namespace,
    release: &Release<'_>,
    backup: &str,
    old: &Value,
) -> Outcome<Duration> {
    refuses(namespace, &["restore", backup, "--yes"], "Pods are wanted").await?;
    deploy(namespace, &["scale", "0"]).await?;
    refuses(namespace, &["restore", backup, "--yes"], "is not blank: it holds a member").await?;
    says(namespace, &["recover"], "The cluster sleeps").await?;
    // All volumes are there: nothing is recovered, and the same cluster wakes.
    deploy(namespace, &["recover", "--yes"]).await?;
    release.wait_until_whole(FOUNDERS, PATIENCE).await?;
    ensure(status(namespace).await?["cluster"] == *old, || "recover made another of a whole cluster".into())?;
    deploy(namespace, &["scale", "0"]).await?;
    namespace.kubectl(&["delete", "persistentvolumeclaims", "--all"]).await?;
    says(namespace, &["restore", backup], "Say --yes").await?;
    let started = Instant::now();
    deploy(namespace, &["restore", backup, "--yes"]).await?;
    let restored = started.elapsed();
    release.wait_until_whole(FOUNDERS, PATIENCE).await?;
    ensure(status(namespace).await?["cluster"] != *old, || {
        "the restored cluster has the old one's id".into()
    })?;
    ensure_kept(namespace).await?;
    Ok(restored)
}

/// Until then an update waits before it touches a Pod.
async fn wait_until_available(namespace: &Namespace, replicas: &str) -> Outcome<()> {
    let path = "jsonpath={.status.availableReplicas}";
    eventually("all Pods to have been ready for a while", PATIENCE, async || {
        let available = namespace.kubectl(&["get", &format!("statefulset/{NAME}"), "--output", path]).await?;
        Ok((available.trim() == replicas).then_some(()))
    })
    .await
}

/// Takes a backup, and reads it from its first byte to its last; gives its length.
async fn back_up(namespace: &Namespace, cluster: &Value, file: &Path) -> Outcome<u64> {
    deploy(namespace, &["backup", binary::text(file)?]).await?;
    let bytes = std::fs::read(file).context("read the backup")?;
    let mut reader = Reader::default();
    let header = reader.check(&bytes).context("check the backup")?;
    reader.finish().context("see the backup's end")?;
    let of_all =
        header.as_ref().is_some_and(|header| header.keys == 1 && *cluster == header.cluster.as_str());
    ensure(of_all, || format!("a cluster {cluster} of one key gives a backup that says {header:?}"))?;
    Ok(reader.taken())
}

async fn says(namespace: &Namespace, arguments: &[&str], words: &str) -> Outcome<()> {
    let said = deploy(namespace, arguments).await?;
    ensure(said.contains(words), || format!("{arguments:?} does not say `{words}`, but: {said}"))
}

async fn refuses(namespace: &Namespace, arguments: &[&str], why: &str) -> Outcome<()> {
    match deploy(namespace, arguments).await {
        Ok(said) => Err(Failure(format!("{arguments:?} is not refused: {said}"))),
        Err(Failure(said)) => {
            ensure(said.contains(why), || format!("{arguments:?} does not say `{why}`, but: {said}"))
        }
    }
}

async fn status(namespace: &Namespace) -> Outcome<Value> {
    let said = deploy(namespace, &["status", "--json"]).await?;
    serde_json::from_str(&said).context(format!("read the status: {said}"))
}

async fn put(namespace: &Namespace) -> Outcome<()> {
    let forward = Forward::open(namespace, &format!("service/{NAME}"), 3000).await?;
    let written = send(&format!("127.0.0.1:{}", forward.port()), Ask::put("/key", VALUE), PATIENCE).await;
    let written = written.context("write a key")?;
    ensure(written.is_success(), || format!("a write is answered with {}", written.text()))
}

async fn ensure_kept(namespace: &Namespace) -> Outcome<()> {
    let forward = Forward::open(namespace, &format!("service/{NAME}"), 3000).await?;
    let read = send(&format!("127.0.0.1:{}", forward.port()), Ask::get("/key"), PATIENCE).await;
    let read = read.context("read a key")?.text();
    ensure(read.contains("\"kept\""), || format!("what was written reads as {read}"))
}
