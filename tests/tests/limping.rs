//! Real processes on disks that limp: a slow disk of one node is no reason for an election, and a leader's is one.

use balsa_tests::cluster::{Cluster, Disks, PATIENCE, eventually};
use balsa_tests::failure::Outcome;
use balsa_tests::http::Ask;
use balsa_wire::kv::Item;
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
    // The followers have it at once, and it commits without the leader's disk; but it must not lead on like that.
    write(&cluster, &rest, "while", 1).await?;
    eventually("another leader than the one whose disk stalls", PATIENCE, async || {
        for node in &rest {
            if let Some(seen) = cluster.look(*node).await?
                && seen.role == balsa_wire::cluster::Role::Leader
            {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
    .await?;
    let took = started.elapsed();
    assert!(
        took < Duration::from_millis(3_500),
        "another leader after {took:?}: the stall itself had ended by then"
    );
    write(&cluster, &rest, "after", 20).await?;
    cluster.disk(leader).heal()?;
    cluster.wait_until_digests_agree().await?;
    verify(&cluster, &all, "before", 20).await?;
    verify(&cluster, &all, "while", 1).await?;
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
