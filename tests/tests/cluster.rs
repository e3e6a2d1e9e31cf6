//! Clusters of real processes: basic operations, kill -9, restarts, orderly stops, joining, snapshots, held folders.

use balsa_tests::cluster::{Cluster, PATIENCE, eventually};
use balsa_tests::failure::Outcome;
use balsa_tests::http::Ask;
use balsa_tests::process::describe;
use balsa_wire::cluster::{MembershipKind, Phase, Role};
use balsa_wire::kv::{DeleteAnswer, Item, PutAnswer};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Writes `count` keys, spread over the running nodes; each must be acknowledged.
async fn write(cluster: &Cluster, prefix: &str, count: usize) -> Outcome<()> {
    let running = cluster.running();
    for number in 0..count {
        let (path, body) = (format!("/{prefix}-{number}"), format!("{{\"value\":{number}}}"));
        cluster.ask_well(running[number % running.len()], Ask::put(&path, &body)).await?;
    }
    Ok(())
}

/// Reads what [`write`] wrote, linearizably, each key at one of the running nodes.
async fn verify(cluster: &Cluster, prefix: &str, count: usize) -> Outcome<()> {
    let running = cluster.running();
    for number in 0..count {
        let node = running[number % running.len()];
        let item: Item = cluster.ask_well(node, Ask::get(&format!("/{prefix}-{number}"))).await?.json()?;
        assert_eq!(item.value.map(|value| value.get().to_string()), Some(number.to_string()));
        assert_eq!(item.version, 1, "{prefix}-{number} was applied more than once");
    }
    Ok(())
}

/// Where there are few processors, the default is a single thread for all; elsewhere it is this.
#[tokio::test]
async fn clients_can_have_threads_of_their_own() -> Outcome<()> {
    for threads in ["0", "2"] {
        let mut cluster = Cluster::start(3, &["--door-threads", threads]).await?;
        write(&cluster, "before", 30).await?;
        let leader = cluster.wait_for_leader(&[0, 1, 2]).await?;
        cluster.kill(leader)?;
        cluster.wait_for_leader(&cluster.running()).await?;
        verify(&cluster, "before", 30).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_leader_killed_loses_nothing_that_was_answered() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    for node in 0..3 {
        let path = format!("/basics-{node}");
        let put: PutAnswer =
            cluster.ask_well(node, Ask::put(&path, "{\"value\":\"exampleValue\"}")).await?.json()?;
        for reader in 0..3 {
            let item: Item = cluster.ask_well(reader, Ask::get(&path)).await?.json()?;
            assert_eq!(item.value.map(|value| value.get().to_string()), Some("\"exampleValue\"".to_string()));
            assert_eq!((item.revision, item.create_revision, item.version), (put.revision, put.revision, 1));
        }
        let gone: DeleteAnswer =
            cluster.ask_well(node, Ask { method: "DELETE", ..Ask::get(&path) }).await?.json()?;
        assert_eq!((gone.deleted, gone.revision), (true, put.revision + 1));
        assert_eq!(cluster.ask((node + 1) % 3, Ask::get(&path)).await.map_or(0, |answer| answer.status), 404);
    }
    write(&cluster, "before", 50).await?;

    let old = cluster.wait_for_leader(&[0, 1, 2]).await?;
    cluster.kill(old)?;
    let rest = cluster.running();
    let new = cluster.wait_for_leader(&rest).await?;
    assert_ne!(new, old);
    verify(&cluster, "before", 50).await?;
    write(&cluster, "without", 50).await?;

    cluster.restart(old)?;
    cluster.wait_until_ready(old).await?;
    cluster.wait_until_digests_agree().await?;
    verify(&cluster, "before", 50).await?;
    verify(&cluster, "without", 50).await
}

#[tokio::test]
async fn all_killed_at_once_come_back_with_everything() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    write(&cluster, "kept", 60).await?;
    for node in 0..3 {
        cluster.kill(node)?;
    }
    for node in 0..3 {
        cluster.restart(node)?;
    }
    cluster.wait_until_all_are_ready().await?;
    verify(&cluster, "kept", 60).await?;
    cluster.wait_until_digests_agree().await?;
    let before = cluster.look(0).await?.map(|seen| seen.store.revision);

    for node in 0..3 {
        cluster.process(node).signal(Signal::TERM)?;
    }
    for node in 0..3 {
        let status = cluster.process(node).wait_for_end(PATIENCE).await?;
        assert!(status.success(), "node {node} ended with {}", describe(status));
    }
    for node in 0..3 {
        cluster.restart(node)?;
    }
    cluster.wait_until_all_are_ready().await?;
    verify(&cluster, "kept", 60).await?;
    cluster.wait_until_digests_agree().await?;
    let after = cluster.look(0).await?.map(|seen| seen.store.revision);
    assert_eq!(before, after, "restarts changed the state");
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_first() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    let old = cluster.wait_for_leader(&[0, 1, 2]).await?;
    let term = cluster.look(old).await?.map_or(0, |seen| seen.term);
    let told = Instant::now();
    cluster.process(old).signal(Signal::TERM)?;
    let rest: Vec<usize> = (0..3).filter(|node| *node != old).collect();
    let new = cluster.wait_for_leader(&rest).await?;
    assert_ne!(new, old);
    // A hand-over is one election, asked for; a timeout would need a pre-vote and may split.
    let seen = cluster.look(new).await?;
    assert_eq!(seen.map(|seen| seen.term), Some(term + 1));
    let status = cluster.process(old).wait_for_end(PATIENCE).await?;
    assert!(status.success(), "the leader ended with {}", describe(status));
    assert!(told.elapsed() < Duration::from_secs(5), "it took {:?} to stop", told.elapsed());
    write(&cluster, "after", 10).await
}

#[tokio::test]
async fn a_paused_leader_serves_nothing_old_when_it_wakes() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    cluster.ask_well(0, Ask::put("/a", "{\"value\":\"old\"}")).await?;
    let old = cluster.wait_for_leader(&[0, 1, 2]).await?;
    cluster.process(old).signal(Signal::STOP)?;
    let rest: Vec<usize> = (0..3).filter(|node| *node != old).collect();
    let new = cluster.wait_for_leader(&rest).await?;
    cluster.ask_well(new, Ask::put("/a", "{\"value\":\"new\"}")).await?;
    cluster.process(old).signal(Signal::CONT)?;
    let item: Item = cluster.ask_well(old, Ask::get("/a")).await?.json()?;
    assert_eq!(item.value.map(|value| value.get().to_string()), Some("\"new\"".to_string()));
    cluster.wait_until_digests_agree().await?;
    Ok(())
}

#[tokio::test]
async fn a_fourth_node_joins_by_url_and_votes() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    write(&cluster, "early", 20).await?;
    let fourth = cluster.join(1)?;
    cluster.wait_until_ready(fourth).await?;
    eventually("four voters", PATIENCE, async || {
        let seen = cluster.look(fourth).await?;
        let members = seen.map(|seen| seen.members).unwrap_or_default();
        let voters = members.iter().filter(|member| member.membership == MembershipKind::Voter).count();
        Ok((voters == 4).then_some(()))
    })
    .await?;
    cluster.wait_until_digests_agree().await?;
    // Its vote counts: of four, three are a majority, and one of the first three is gone.
    let leader = cluster.wait_for_leader(&[0, 1, 2, 3]).await?;
    let gone = (0..3).find(|node| *node != leader).unwrap_or_default();
    cluster.kill(gone)?;
    verify(&cluster, "early", 20).await?;
    write(&cluster, "late", 20).await?;
    // It is the same node after a restart.
    cluster.kill(fourth)?;
    cluster.restart(gone)?;
    cluster.restart(fourth)?;
    cluster.wait_until_all_are_ready().await?;
    cluster.wait_until_digests_agree().await?;
    verify(&cluster, "late", 20).await
}

#[tokio::test]
async fn a_second_process_waits_for_the_data_folder() -> Outcome<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    cluster.ask_well(0, Ask::put("/a", "{\"value\":1}")).await?;
    let second = cluster.double(0)?;
    let waits = eventually("the second process to say what it waits for", PATIENCE, async || {
        Ok(cluster.look(second).await?.and_then(|seen| seen.waiting_for))
    })
    .await?;
    assert!(waits.contains("lock of the data folder"), "{waits}");
    let ready = cluster.ask(second, Ask::get("/readyz")).await.map_or(0, |answer| answer.status);
    assert_eq!(ready, 503, "it is not ready");
    let alive = cluster.ask(second, Ask::get("/livez")).await.map_or(0, |answer| answer.status);
    assert_eq!(alive, 200, "it lives");
    assert_eq!(
        cluster.ask(second, Ask::get("/a?consistency=stale")).await.map_or(0, |answer| answer.status),
        503
    );

    cluster.kill(0)?;
    cluster.wait_until_ready(second).await?;
    let item: Item = cluster.ask_well(second, Ask::get("/a")).await?.json()?;
    assert_eq!(item.value.map(|value| value.get().to_string()), Some("1".to_string()));
    Ok(())
}

#[tokio::test]
async fn a_node_that_missed_what_the_log_has_released_gets_a_snapshot() -> Outcome<()> {
    // The smallest that the settings allow, so that little is written.
    let small = [
        ["--value-bytes-max", "1048576"],
        ["--overlay-bytes", "4194304"],
        ["--log-segment-bytes", "9437184"],
        ["--log-margin-bytes", "9437184"],
    ];
    let small = small.concat();
    let mut cluster = Cluster::start(3, &small).await?;
    let leader = cluster.wait_for_leader(&[0, 1, 2]).await?;
    let behind = (leader + 1) % 3;
    let missed_from = cluster.look(behind).await?.map_or(0, |seen| seen.last_index);
    cluster.kill(behind)?;
    let filler = "x".repeat(1_000_000);
    let mut number = 0;
    eventually("the log to be released", PATIENCE, async || {
        let body = format!("{{\"value\":\"{number} {filler}\"}}");
        cluster.ask_well(leader, Ask::put(&format!("/filler-{}", number % 10), &body)).await?;
        number += 1;
        let first = cluster.look(leader).await?.map_or(0, |seen| seen.first_index);
        Ok((first > missed_from + 1).then_some(()))
    })
    .await?;
    cluster.restart(behind)?;
    cluster.wait_until_ready(behind).await?;
    cluster.wait_until_digests_agree().await?;
    let seen =
        cluster.look(behind).await?.map(|seen| (seen.role, seen.phase, seen.first_index > missed_from + 1));
    assert_eq!(seen, Some((Role::Follower, Phase::Running, true)), "its log begins behind the gap");
    // It holds on its own what it got.
    cluster.kill(behind)?;
    cluster.restart(behind)?;
    cluster.wait_until_ready(behind).await?;
    cluster.wait_until_digests_agree().await?;
    Ok(())
}

#[tokio::test]
async fn a_node_without_headroom_on_its_disk_acknowledges_nothing_and_loses_nothing() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    cluster.wait_until_all_are_ready().await?;
    write(&cluster, "before", 20).await?;
    let full = cluster.wait_for_leader(&[0, 1, 2]).await?;
    let had = cluster.look(full).await?.map_or(0, |seen| seen.store.applied_index);
    cluster.kill(full)?;
    let rest = cluster.running();
    cluster.wait_for_leader(&rest).await?;
    // More than any disk has free: to the node its disk is full.
    let arguments = &mut cluster.process(full).recipe_mut().arguments;
    let sound = arguments.len();
    arguments.extend(["--disk-headroom-bytes".into(), (1u64 << 60).to_string()]);
    cluster.restart(full)?;
    eventually("the full node to know its leader, and to have again what it had", PATIENCE, async || {
        let seen = cluster.look(full).await?;
        Ok(seen.filter(|seen| seen.leader.is_some() && seen.store.applied_index >= had).map(|_| ()))
    })
    .await?;
    let stuck_at = cluster.look(full).await?.map_or(0, |seen| seen.store.applied_index);
    for number in 0..20 {
        let body = format!("{{\"value\":{number}}}");
        cluster.ask_well(rest[number % 2], Ask::put(&format!("/without-{number}"), &body)).await?;
    }
    // What it already had is served, nothing new is taken.
    let item: Item = cluster.ask_well(full, Ask::get("/before-0?consistency=stale")).await?.json()?;
    assert_eq!(item.version, 1);
    let seen = cluster.look(full).await?.map_or(0, |seen| seen.store.applied_index);
    assert_eq!(seen, stuck_at, "it took entries without room for them");

    // There is room again.
    cluster.kill(full)?;
    cluster.process(full).recipe_mut().arguments.truncate(sound);
    cluster.restart(full)?;
    cluster.wait_until_ready(full).await?;
    cluster.wait_until_digests_agree().await?;
    verify(&cluster, "before", 20).await?;
    verify(&cluster, "without", 20).await
}
