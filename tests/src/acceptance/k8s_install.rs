//! `k8s-install`: `helm install` on a cluster whose nodes have the image gives three ready voters in time; the lines that
//! every user knows work through a port-forward to each Pod; `helm test` is green.

use super::seed_curl::Session;
use crate::failure::{Context, Outcome, ensure};
use crate::k8s::{Forward, NAME, Namespace, Release};
use std::time::{Duration, Instant};

/// From `helm install` to three ready voters.
const INSTALL_MAX: Duration = Duration::from_secs(30);
/// How long `helm test` may take.
const TEST_LIMIT: Duration = Duration::from_secs(240);
const MEMBERS: u32 = 3;

/// Runs the bar; gives its figures.
pub async fn run(quick: bool) -> Outcome<String> {
    Namespace::with("balsa-install", async |namespace| install(namespace, quick).await).await
}

async fn install(namespace: &Namespace, quick: bool) -> Outcome<String> {
    let started = Instant::now();
    // Fewer strikes: the count of the failover test is a setting like others.
    let kills = format!("failoverTest.kills={}", if quick { 1 } else { 3 });
    let release = Release::install(namespace, &[&kills]).await?;
    let leader = release.wait_until_whole(MEMBERS, 2 * INSTALL_MAX).await?;
    let took = started.elapsed();
    println!(
        "{MEMBERS} ready voters {:.1} s after helm install began; {} leads",
        took.as_secs_f64(),
        leader.name
    );
    ensure(took <= INSTALL_MAX, || format!("it took {took:?}; the bar is {INSTALL_MAX:?}"))?;

    let mut session = Session::new();
    for pod in release.pods().await? {
        let forward = Forward::open(namespace, &format!("pod/{}", pod.name), 3000).await?;
        session.four_lines(forward.port())?;
    }
    let service = Forward::open(namespace, &format!("service/{NAME}"), 3000).await?;
    session.four_lines(service.port())?;
    drop(service);

    let testing = Instant::now();
    let limit = format!("{}s", TEST_LIMIT.as_secs());
    let test = ["test", NAME, "--namespace", namespace.name(), "--timeout", &limit];
    let said = namespace.lab().call("helm", &test, "", TEST_LIMIT + Duration::from_secs(10)).await;
    let said = said.context("pass helm test")?;
    print!("{said}");
    release.wait_until_whole(MEMBERS, Duration::from_secs(60)).await?;
    Ok(format!(
        "{MEMBERS} ready voters after {:.1} s, {} answers of curl as they must be, helm test green after {:.1} s",
        took.as_secs_f64(),
        session.compared(),
        testing.elapsed().as_secs_f64()
    ))
}
