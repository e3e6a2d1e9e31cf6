//! `k8s-quorum-loss`: two of three members and their volumes are lost. Readiness, status and an alert say so in time, and
//! `recover` restores service with all that the survivor had.

use crate::cluster::eventually;
use crate::failure::{Failure, Outcome, ensure};
use crate::k8s::{Load, NAME, Namespace, Prometheus, Release, Steady, deploy};
use std::path::Path;
use std::time::{Duration, Instant};

/// How soon readiness and status say that there is no quorum.
const SAID_LIMIT: Duration = Duration::from_secs(15);
/// How soon the alert fires.
const ALERT_LIMIT: Duration = Duration::from_secs(60);
const SCRAPE_INTERVAL_S: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(180);
const MEMBERS: u32 = 3;
/// How many writes a load makes before and after.
const WRITES: u64 = 400;
const ALERT: &str = "BalsaNoLeader";

/// Runs the bar; gives its figures. `quick`: without the alert.
pub async fn run(quick: bool) -> Outcome<String> {
    Namespace::with("balsa-quorum", async |namespace| lose_and_recover(namespace, quick).await).await
}

async fn lose_and_recover(namespace: &Namespace, quick: bool) -> Outcome<String> {
    let release = Release::install(namespace, &[]).await?;
    release.wait_until_whole(MEMBERS, PATIENCE).await?;
    let load = Load::start(namespace, "load", &Steady::default()).await?;
    release.wait_for_writes(WRITES, PATIENCE).await?; // there is something to save
    load.finish().await?.ensure_unharmed()?;
    release.wait_until_digests_agree(PATIENCE).await?;
    let survivor = format!("{NAME}-0");
    let before = release.look(&survivor).await?;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/balsa/files/alerts.yaml");
    let prometheus = match quick {
        true => None,
        false => Some(Prometheus::start(&release, &rules, SCRAPE_INTERVAL_S).await?),
    };

    // Three to one by force: Pods and volumes are gone, and nobody removed the members.
    for slot in [1, 2] {
        let claim = format!("persistentvolumeclaim/data-{NAME}-{slot}");
        namespace.kubectl(&["delete", &claim, "--wait=false"]).await?;
    }
    let lost = [format!("{NAME}-1"), format!("{NAME}-2")];
    namespace.kubectl(&["delete", "pod", &lost[0], &lost[1], "--grace-period=0", "--force"]).await?;
    let started = Instant::now();
    let said = eventually("readiness and status to say so", SAID_LIMIT, async || {
        let ready = release.pods().await?.iter().any(|pod| pod.ready);
        let status = deploy(namespace, &["status"]).await;
        let critical = matches!(&status, Err(Failure(why)) if why.contains("There is no leader"));
        Ok((!ready && critical).then(|| started.elapsed()))
    })
    .await?;
    println!("no Pod is ready, and status says so: after {:.1} s", said.as_secs_f64());
    let alerted = match &prometheus {
        None => "no alert waited for".to_string(),
        Some(prometheus) => {
            let limit = ALERT_LIMIT.saturating_sub(started.elapsed());
            eventually(&format!("{ALERT} to fire"), limit, async || {
                let alerts = prometheus.alerts().await?;
                Ok(alerts.iter().any(|(name, state)| name == ALERT && state == "firing").then_some(()))
            })
            .await?;
            format!("{ALERT} after {:.0} s", started.elapsed().as_secs_f64())
        }
    };
    println!("{alerted}");

    let told = deploy(namespace, &["recover"]).await?;
    ensure(told.contains("Say --yes"), || format!("recover says: {told}"))?;
    let recovering = Instant::now();
    deploy(namespace, &["recover", "--yes"]).await?;
    release.wait_until_whole(MEMBERS, PATIENCE).await?;
    let recovered = recovering.elapsed();
    let after = release.look(&survivor).await?;
    ensure(after.cluster != before.cluster, || "the recovered cluster has the old one's id".into())?;
    ensure(after.store.revision >= before.store.revision + 1_000_000_000_000, || {
        format!("revision {} became {}", before.store.revision, after.store.revision)
    })?;
    let load = Load::start(namespace, "load-after", &Steady::default()).await?;
    release.wait_for_writes(WRITES, PATIENCE).await?; // it serves for more than a moment
    load.finish().await?.ensure_unharmed()?;
    release.wait_until_digests_agree(PATIENCE).await?;
    Ok(format!(
        "said by readiness and status after {:.1} s, {alerted}, recovered in {:.0} s",
        said.as_secs_f64(),
        recovered.as_secs_f64()
    ))
}
