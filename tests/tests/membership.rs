//! Real processes that come and go: scaling under load, nodes that were removed, disks that come back or are lost.

use balsa_tests::acceptance::membership::{Load, Options, run};
use balsa_tests::cluster::{Cluster, PATIENCE, eventually};
use balsa_tests::failure::Outcome;
use balsa_tests::http::Ask;
use balsa_wire::cluster::Phase;
use balsa_wire::problem::{Code, Outcome as Truth, Problem};
use rustix::process::Signal;

#[tokio::test(flavor = "multi_thread")]
async fn from_one_to_five_and_back_and_no_client_notices() -> Outcome<()> {
    let said = run(&Options { rounds: 1, load: Load { per_second: 40, clients: 4 } }).await?;
    println!("{said}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_was_removed_while_it_was_away_joins_again_under_another_identity() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    cluster.ask_well(0, Ask::put("/a", "{\"value\":1}")).await?;
    let old = cluster.identity(2).await?;
    cluster.kill(2)?;
    cluster.remove(0, &old).await?;
    cluster.wait_for_voters(0, 2).await?;
    cluster.ask_well(0, Ask::put("/a", "{\"value\":2}")).await?;

    cluster.restart(2)?;
    cluster.wait_for_voters(0, 3).await?;
    let new = cluster.identity(2).await?;
    assert_ne!(new, old);
    assert_eq!(cluster.set_aside(2)?, [format!("removed-{old}")]);
    cluster.wait_until_digests_agree().await?;

    // It is that for good.
    cluster.kill(2)?;
    cluster.restart(2)?;
    cluster.wait_until_ready(2).await?;
    assert_eq!(cluster.identity(2).await?, new);
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_removed_while_it_runs_serves_nothing_and_says_who_does() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    cluster.ask_well(0, Ask::put("/a", "{\"value\":1}")).await?;
    let old = cluster.identity(2).await?;
    // Asked of the node that is to go.
    cluster.remove(2, &old).await?;
    let seen = cluster.wait_for_phase(2, Phase::Removed).await?;
    assert!(seen.waiting_for.is_some_and(|waits| waits.contains("removed from the cluster")));
    assert_eq!(seen.leader, None);
    let put = Ask::put("/a", "{\"value\":2}");
    for ask in [put, Ask::get("/a"), Ask::get("/a?consistency=stale")] {
        let is_write = ask.method == "PUT";
        let answer = cluster.ask(2, ask).await.unwrap();
        let problem: Problem = answer.json()?;
        assert_eq!((answer.status, problem.code), (503, Code::Removed));
        assert_eq!(problem.outcome, is_write.then_some(Truth::NotApplied));
        assert!(problem.detail.contains(cluster.address(0)), "{}", problem.detail);
    }
    let ready = cluster.ask(2, Ask::get("/readyz")).await.unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("was removed from the cluster"), "{}", ready.text());
    assert_eq!(cluster.ask(2, Ask::get("/livez")).await.map_or(0, |answer| answer.status), 200);
    cluster.wait_for_voters(1, 2).await?;

    // Started again, it joins; the others have not been disturbed.
    let term = cluster.look(0).await?.map(|seen| seen.term);
    cluster.process(2).signal(Signal::TERM)?;
    assert!(cluster.process(2).wait_for_end(PATIENCE).await?.success());
    cluster.restart(2)?;
    cluster.wait_for_voters(0, 3).await?;
    assert_ne!(cluster.identity(2).await?, old);
    assert_eq!(cluster.look(0).await?.map(|seen| seen.term), term);
    cluster.wait_until_digests_agree().await.map(|_| ())
}

#[tokio::test]
async fn any_node_tells_of_all_members() -> Outcome<()> {
    let cluster = Cluster::start(3, &[]).await?;
    for node in 0..3 {
        let seen = cluster.wait_for_voters(node, 3).await?;
        let slots: Vec<u32> = seen.members.iter().map(|member| member.slot).collect();
        assert_eq!(slots, [0, 1, 2]);
        assert_eq!(seen.members.iter().filter(|member| member.leader).count(), 1);
        eventually("all versions", PATIENCE, async || {
            let seen = cluster.look(node).await?;
            let own = seen.as_ref().map(|seen| seen.version.clone());
            Ok(seen.filter(|seen| seen.members.iter().all(|member| member.version == own)).map(|_| ()))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_disk_of_another_cluster_stops_the_node() -> Outcome<()> {
    let cluster = Cluster::start(2, &[]).await?;
    let mut other = Cluster::start(2, &[]).await?;
    other.kill(0)?;
    other.kill(1)?;
    // Node 1 of the other cluster, at the peers of the first.
    let initial = cluster_peers(&cluster).await?;
    let arguments = &mut other.process(1).recipe_mut().arguments;
    let at = arguments.iter().position(|argument| argument == "--initial-peers").unwrap_or_default();
    arguments[at + 1] = initial;
    other.restart(1)?;
    let status = other.process(1).wait_for_end(PATIENCE).await?;
    assert!(!status.success());
    let said = other.process(1).last_words(3);
    assert!(said.contains("belongs to cluster") && said.contains("another data folder"), "{said}");
    Ok(())
}

async fn cluster_peers(cluster: &Cluster) -> Outcome<String> {
    let seen = cluster.wait_for_voters(0, 2).await?;
    let peers = seen.members.iter().map(|member| format!("{}={}", member.slot, member.peer_address));
    Ok(peers.collect::<Vec<_>>().join(","))
}
