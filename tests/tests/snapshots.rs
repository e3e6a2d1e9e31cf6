//! Snapshots between real processes: a node joins far behind while writes go on, over connections that break.

use balsa_tests::acceptance::load::{self, Keys, Work};
use balsa_tests::cluster::{Cluster, PATIENCE, eventually};
use balsa_tests::failure::{Context, Failure, Outcome};
use balsa_tests::http::Ask;
use std::time::Duration;

const KEYS: u64 = 40_000;
/// A store with a short history and a short log, so that who joins needs a snapshot; sent slowly.
const SMALL: [&str; 12] = [
    "--value-bytes-max",
    "65536",
    "--overlay-bytes",
    "1048576",
    "--log-segment-bytes",
    "8394240",
    "--log-margin-bytes",
    "8394240",
    "--history-revisions",
    "1000",
    "--snapshot-bytes-per-second",
    "6000000",
];

/// A number among a node's metrics.
async fn metric(cluster: &Cluster, node: usize, name: &str) -> Outcome<u64> {
    let text = cluster.ask_well(node, Ask::get("/metrics")).await?.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    value.map(|value| value as u64).ok_or_else(|| Failure(format!("no {name} among the metrics:\n{text}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_over_a_link_that_breaks_is_resumed_while_writes_go_on() -> Outcome<()> {
    let mut cluster = Cluster::start(1, &SMALL).await?;
    let address = [cluster.address(0).to_string()];
    load::run(&address, 64, Work::Put { round: 0 }, Keys::Each(0..KEYS)).await?;
    let first = metric(&cluster, 0, "balsa_log_first_index ").await?;
    assert!(first > 1, "the log must have been released, or nobody needs a snapshot");

    let (joined, proxy) = cluster.join_behind_proxy(0, &[3_000_000, 6_000_000]).await?;
    let writing = {
        let address = address.clone();
        let overwrite = Keys::Random { below: KEYS, lasts: Duration::from_secs(6) };
        tokio::spawn(async move { load::run(&address, 4, Work::Put { round: 0 }, overwrite).await })
    };
    cluster.wait_until_ready(joined).await?;
    let written = writing.await.context("write beside a snapshot")??;
    assert!(written.requests > 100, "{written:?}");
    assert!(written.longest < Duration::from_secs(2), "a write stood still beside the snapshot: {written:?}");
    assert_eq!(proxy.cuts_left(), 0, "the link never broke");

    let (sent, received) = (
        metric(&cluster, 0, "balsa_snapshot_bytes_total{direction=\"out\"}").await?,
        metric(&cluster, joined, "balsa_snapshot_bytes_total{direction=\"in\"}").await?,
    );
    assert!(received > 8_000_000, "{received} bytes are too few for two breaks in the middle");
    assert!(sent < received + received / 4, "{sent} bytes were sent for a snapshot of {received}");
    assert!(metric(&cluster, 0, "balsa_snapshots_total{event=\"resumed\"}").await? >= 2);
    assert_eq!(metric(&cluster, 0, "balsa_snapshots_total{event=\"sent\"}").await?, 1, "one was enough");
    assert_eq!(metric(&cluster, joined, "balsa_snapshots_total{event=\"received\"}").await?, 1);
    assert_eq!(metric(&cluster, 0, "balsa_leader_changes_total ").await?, 1, "a heartbeat starved");
    eventually("no snapshot on its way", PATIENCE, async || {
        let out = metric(&cluster, 0, "balsa_snapshots_in_progress{direction=\"out\"}").await?;
        Ok((out == 0).then_some(()))
    })
    .await?;
    cluster.wait_until_digests_agree().await?;
    let last = cluster.address(joined).to_string();
    load::run(&[last], 32, Work::GetStale { round: 0 }, Keys::Each(0..KEYS)).await?;
    Ok(())
}
