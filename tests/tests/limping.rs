//! Real processes on disks that limp: a slow disk of one node is no reason for an election, and a leader's is one.

use balsa_tests::cluster::{Cluster, Disks, PATIENCE, eventually};
use balsa_tests::failure::Outcome;
use balsa_tests::http::Ask;
use balsa_wire::cluster::Role;
use balsa_wire::kv::Item;
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const NODES: usize = 3;

/// Puts `/{prefix}-{number}` at each node in turn; all must be acknowledged.
async fn write(cluster: &Cluster, at: &[usize], prefix: &str, count: usize) -> Outcome<()> {
    for number in 0..count {
        let (key, body) = (format!("/{prefix}-{number}"), format!("{{\"value\":{number}}}"));
        cluster.ask_well(at[number % at.len()], Ask::put(&key, &body)).await?;
    }
    Ok(())
}

async fn verify(cluster: &Cluster, at: &[usize], prefix: &str, count: usize) -> Outcome<()> {
    for number in 0..count {
        let key = format!("/{prefix}-{number}");
        let item: Item = cluster.ask_well(at[number % at.len()], Ask::get(&key)).await?.json()?;
        assert_eq!((item.json::<usize>().ok(), item.version), (Some(number), 1), "{key}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_syncs_stall_causes_no_election_and_costs_no_write() -> Outcome<()> {
    let cluster = Cluster::start_on(Disks::Limping, NODES, &[]).await?;
    let all = [0, 1, 2];
    let leader = cluster.wait_for_leader(&all).await?;
    let term = cluster.look(leader).await?.map(|seen| seen.term);
    let slow = (leader + 1) % NODES;
    // Longer than the election timeout: a node that waits for its disk must not take that for a silent leader.
    cluster.disk(slow).stall(Duration::from_millis(1_200))?;
    let started = Instant::now();
    write(&cluster, &all, "slow", 60).await?;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "60 writes took {took:?}: they waited for the slow disk");
    // It does stall: what its disk has not confirmed, it does not apply.
    let behind = cluster.look(slow).await?.map_or(0, |seen| seen.store.applied_index);
    let ahead = cluster.look(leader).await?.map_or(0, |seen| seen.store.applied_index);
    assert!(
        behind < ahead,
        "the slow node is at {behind}, the leader at {ahead}: its disk is not slow at all"
    );
    cluster.disk(slow).heal()?;
    cluster.wait_until_digests_agree().await?;
    verify(&cluster, &all, "slow", 60).await?;
    for node in all {
        assert_eq!(cluster.look(node).await?.map(|seen| seen.term), term, "node {node} is in another term");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_syncs_stall_is_replaced_and_nothing_is_lost() -> Outcome<()> {
    let cluster = Cluster::start_on(Disks::Limping, NODES, &[]).await?;
    let all = [0, 1, 2];
    let leader = cluster.wait_for_leader(&all).await?;
    write(&cluster, &all, "before", 20).await?;
    cluster.disk(leader).stall(Duration::from_secs(4))?;
    let rest: Vec<usize> = all.into_iter().filter(|node| *node != leader).collect();
    let started = Instant::now();
    // The followers have this one at once, so that it commits without the leader's disk; but its answer waits for that.
    let late = async { cluster.ask(rest[0], Ask::put("/while", "{\"value\":1}")).await };
    let replaced = eventually("another leader than the one whose disk stalls", PATIENCE, async || {
        for node in &rest {
            if cluster.look(*node).await?.is_some_and(|seen| seen.role == Role::Leader) {
                return Ok(Some(started.elapsed()));
            }
        }
        Ok(None)
    });
    let (late, replaced) = tokio::join!(late, replaced);
    let took = replaced?;
    println!("another leader after {} ms", took.as_millis());
    assert!(took < Duration::from_secs(2), "another leader only after {took:?}");
    assert!(
        late.as_ref().is_ok_and(|answer| answer.is_success()),
        "a committed write was lost track of: {late:?}"
    );
    write(&cluster, &rest, "after", 20).await?;
    cluster.disk(leader).heal()?;
    cluster.wait_until_digests_agree().await?;
    verify(&cluster, &all, "before", 20).await?;
    cluster.ask_well(rest[0], Ask::get("/while")).await?;
    verify(&cluster, &all, "after", 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_sync_fails_stops_and_tries_it_never_again() -> Outcome<()> {
    let mut cluster = Cluster::start_on(Disks::Limping, NODES, &[]).await?;
    let all = [0, 1, 2];
    let leader = cluster.wait_for_leader(&all).await?;
    let sick = (leader + 1) % NODES;
    let rest: Vec<usize> = all.into_iter().filter(|node| *node != sick).collect();
    cluster.disk(sick).fail_syncs()?;
    write(&cluster, &rest, "without", 20).await?;
    let status = cluster.process(sick).wait_for_end(PATIENCE).await?;
    assert!(!status.success(), "it ended as if all were well: {status}");
    cluster.disk(sick).heal()?;
    cluster.restart(sick)?;
    cluster.wait_until_ready(sick).await?;
    cluster.wait_until_digests_agree().await?;
    verify(&cluster, &all, "without", 20).await
}

/// The kernel of a machine that hangs answers no more: nothing breaks a connection. Only silence tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_falls_silent_is_replaced_and_answers_nothing_stale_when_it_wakes() -> Outcome<()> {
    let mut cluster = Cluster::start(NODES, &[]).await?;
    let all = [0, 1, 2];
    let leader = cluster.wait_for_leader(&all).await?;
    cluster.ask_well(leader, Ask::put("/seen", "{\"value\":1}")).await?;
    let rest: Vec<usize> = all.into_iter().filter(|node| *node != leader).collect();
    cluster.process(leader).signal(Signal::STOP)?;
    let started = Instant::now();
    // It was sent to the silent leader; with a name, it may be sent again to the next one, and goes through once there is.
    let headers = [("content-type", "application/json"), ("idempotency-key", "after")];
    let put = Ask { headers: &headers, ..Ask::put("/after", "{\"value\":1}") };
    cluster.ask_well(rest[0], put).await?;
    let took = started.elapsed();
    println!("a write went through {} ms after the leader fell silent", took.as_millis());
    assert!(took < Duration::from_secs(3), "no write went through for {took:?}");
    cluster.ask_well(rest[0], Ask::put("/seen", "{\"value\":2}")).await?;
    cluster.process(leader).signal(Signal::CONT)?;
    let item: Item = cluster.ask_well(leader, Ask::get("/seen")).await?.json()?;
    assert_eq!(item.json::<u64>().ok(), Some(2), "it took itself for the leader still");
    cluster.wait_until_digests_agree().await.map(|_| ())
}

/// Large values and busy processors are no reason for an election either (hazard 45).
#[tokio::test(flavor = "multi_thread")]
async fn large_values_on_a_slow_disk_and_busy_processors_elect_nobody() -> Outcome<()> {
    let cluster = Cluster::start_on(Disks::Limping, NODES, &[]).await?;
    let all = [0, 1, 2];
    let leader = cluster.wait_for_leader(&all).await?;
    let term = cluster.look(leader).await?.map(|seen| seen.term);
    for node in all {
        cluster.disk(node).stall(Duration::from_millis(100))?;
    }
    let busy = Arc::new(AtomicBool::new(true));
    let hogs: Vec<_> = (0..std::thread::available_parallelism().map_or(1, usize::from))
        .map(|_| {
            let busy = busy.clone();
            std::thread::spawn(move || while busy.load(Ordering::Relaxed) {})
        })
        .collect();
    let value = format!("{{\"value\":\"{}\"}}", "x".repeat((1 << 20) - 16));
    let written = async {
        for number in 0..8 {
            let paths = all.map(|node| format!("/large-{number}-{node}"));
            let puts = all.map(|node| cluster.ask_well(node, Ask::put(&paths[node], &value)));
            let [a, b, c] = puts;
            let (a, b, c) = tokio::join!(a, b, c);
            a.and(b).and(c)?;
        }
        Ok(())
    };
    let written = written.await;
    busy.store(false, Ordering::Relaxed);
    hogs.into_iter().for_each(|hog| hog.join().expect("a loop that ends"));
    written?;
    for node in all {
        cluster.disk(node).heal()?;
    }
    cluster.wait_until_digests_agree().await?;
    for node in all {
        assert_eq!(cluster.look(node).await?.map(|seen| seen.term), term, "node {node} is in another term");
    }
    Ok(())
}
