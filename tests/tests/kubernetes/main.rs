//! Real processes beside an API server of Kubernetes that says what the tests want: membership follows the StatefulSet,
//! nothing follows from what says nothing, and no blank disk founds a second cluster.

mod api_server;

use api_server::ApiServer;
use balsa_tests::cluster::{Cluster, PATIENCE, eventually};
use balsa_tests::failure::Outcome;
use balsa_tests::http::Ask;
use balsa_wire::cluster::{ClusterAnswer, Health, Phase, Role};
use serde_json::json;
use std::time::{Duration, Instant};

async fn start(nodes: usize) -> Outcome<(ApiServer, Cluster)> {
    let api = ApiServer::start(nodes as u32).await;
    let cluster = Cluster::start(nodes, &api.arguments()).await?;
    cluster.wait_for_voters(0, nodes).await?;
    Ok((api, cluster))
}

/// Waits until a leader has looked at the StatefulSet often enough to have acted on it.
async fn looked_at(api: &ApiServer) -> Outcome<()> {
    let before = api.state().looks;
    eventually("the leader to look at its StatefulSet", PATIENCE, async || {
        Ok((api.state().looks >= before + 3).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_follow_the_replicas_down_and_up_again() -> Outcome<()> {
    let (api, cluster) = start(3).await?;
    cluster.ask_well(0, Ask::put("/a", "{\"value\":1}")).await?;
    cluster.hand_to(2, 0).await?; // the leader is among those that go
    let old = [cluster.identity(1).await?, cluster.identity(2).await?];

    api.state().replicas = 1;
    cluster.wait_for_voters(0, 1).await?;
    for node in [1, 2] {
        cluster.wait_for_phase(node, Phase::Removed).await?;
    }
    // Their Pods were never ended: they are wanted again, and begin anew on the disks that they have.
    api.state().replicas = 3;
    cluster.wait_for_voters(0, 3).await?;
    for (node, old) in [1, 2].into_iter().zip(old) {
        assert_ne!(cluster.identity(node).await?, old);
    }
    cluster.wait_until_digests_agree().await?;
    let read = cluster.ask_well(2, Ask::get("/a")).await?.text();
    assert!(read.contains("\"value\":1"), "{read}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_nothing_removes_nobody() -> Outcome<()> {
    let (api, cluster) = start(3).await?;
    let before = ids(&cluster.wait_for_voters(0, 3).await?);
    api.state().replicas = 0;
    looked_at(&api).await?;
    api.state().being_deleted = true;
    api.state().replicas = 1;
    looked_at(&api).await?;
    api.state().missing = true;
    looked_at(&api).await?;
    api.state().silent = true;
    looked_at(&api).await?;
    assert_eq!(ids(&cluster.wait_for_voters(0, 3).await?), before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_cost_the_quorum_waits() -> Outcome<()> {
    let (api, mut cluster) = start(3).await?;
    cluster.hand_to(0, 0).await?;
    cluster.kill(1)?;
    eventually("the leader to miss slot 1", PATIENCE, async || {
        let seen = cluster.look(0).await?;
        Ok(seen.filter(|seen| seen.members[1].health == Health::Unreachable).map(|_| ()))
    })
    .await?;
    api.state().replicas = 2;
    looked_at(&api).await?;
    let seen = cluster.look(0).await?.map(|seen| seen.members.len());
    assert_eq!(seen, Some(3), "without slot 2 only one of two would answer");
    cluster.restart(1)?;
    cluster.wait_for_voters(0, 2).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founded_cluster_leaves_its_mark_and_a_lost_disk_heals() -> Outcome<()> {
    let (api, mut cluster) = start(3).await?;
    let id = cluster.wait_for_voters(0, 3).await?.cluster;
    assert_eq!(
        api.state().mark.clone().map(|mark| mark["cluster"].as_str().map(str::to_owned)),
        Some(id.clone())
    );
    cluster.ask_well(1, Ask::put("/a", "{\"value\":1}")).await?;
    let lost = cluster.identity(0).await?;
    cluster.kill(0)?;
    cluster.wipe(0)?;
    cluster.restart(0)?;
    let seen = cluster.wait_for_voters(0, 3).await?;
    assert_eq!(seen.cluster, id);
    assert!(!ids(&seen).contains(&lost));
    // A mark that somebody wiped is left again by the next leader.
    api.state().mark = None;
    let leader = cluster.wait_for_leader(&[0, 1, 2]).await?;
    cluster.hand_to((leader + 1) % 3, 0).await?;
    eventually("the mark to be there again", PATIENCE, async || Ok(api.state().mark.clone().map(|_| ())))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_given_up_stops_and_does_not_come_back() -> Outcome<()> {
    let (api, mut cluster) = start(3).await?;
    let own = cluster.wait_for_voters(0, 3).await?.cluster.unwrap_or_default();
    let mark = json!({"cluster": "00000000000000bb", "given_up": format!("0000000000000007,{own}")});
    // Two that run on, and one that comes back.
    cluster.kill(2)?;
    api.state().mark = Some(mark.clone());
    for node in [0, 1, 2] {
        if node == 2 {
            cluster.restart(node)?;
        }
        let status = cluster.process(node).wait_for_end(PATIENCE).await?;
        let said = cluster.process(node).last_words(3);
        assert!(!status.success() && said.contains("was given up"), "node {node}: {said}");
    }
    // A majority that comes back: whoever leads does not take the mark for its own.
    for node in 0..3 {
        cluster.restart(node)?;
    }
    for node in 0..3 {
        cluster.process(node).wait_for_end(PATIENCE).await?;
    }
    assert_eq!(api.state().mark, Some(mark));
    // One whose recovery was cut off says who is to end it: another cluster may live by now.
    let record = cluster.process(0).recipe().data.join("recovering.json");
    std::fs::write(&record, "{}").unwrap();
    cluster.restart(0)?;
    cluster.process(0).wait_for_end(PATIENCE).await?;
    let said = cluster.process(0).last_words(3);
    assert!(said.contains("`kubectl balsa recover --yes` ends it"), "{said}");
    std::fs::remove_file(&record).unwrap();
    api.state().mark = None;
    for node in 0..3 {
        cluster.restart(node)?;
    }
    cluster.wait_for_voters(0, 3).await.map(|_| ()) // nothing was lost by it
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_disk_founds_nothing_where_a_cluster_was_founded() -> Outcome<()> {
    let (api, mut cluster) = start(1).await?;
    let mark = api.state().mark.clone();
    cluster.kill(0)?;
    cluster.wipe(0)?;
    cluster.restart(0)?;
    let seen = eventually("the blank disk to say what it waits for", PATIENCE, async || {
        let seen = cluster.look(0).await?;
        Ok(seen.filter(|seen| seen.waiting_for.as_ref().is_some_and(|waits| waits.contains("founded here"))))
    })
    .await?;
    assert_eq!((seen.phase, seen.node), (Phase::Founding, None));
    assert!(seen.waiting_for.unwrap().contains("ConfigMap kv-founding"));
    assert_eq!(api.state().mark, mark);
    let ready = cluster.ask(0, Ask::get("/readyz")).await.unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("recover or restore"), "{}", ready.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_founded_while_the_api_server_does_not_answer() -> Outcome<()> {
    let (api, mut cluster) = start(1).await?;
    cluster.kill(0)?;
    cluster.wipe(0)?;
    api.state().mark = None;
    api.state().silent = true;
    cluster.restart(0)?;
    eventually("the blank disk to say what it waits for", PATIENCE, async || {
        let seen = cluster.look(0).await?;
        let waits = seen.and_then(|seen| seen.waiting_for);
        Ok(waits.filter(|waits| waits.contains("was founded here before (")).map(|_| ()))
    })
    .await?;
    api.state().silent = false;
    cluster.wait_for_voters(0, 1).await?;
    assert!(api.state().mark.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_beyond_the_founders_joins() -> Outcome<()> {
    let (api, mut cluster) = start(1).await?;
    api.state().replicas = 2;
    cluster.add_beyond_founders(1)?;
    let seen = cluster.wait_for_voters(0, 2).await?;
    assert_eq!(seen.members.iter().map(|member| member.slot).collect::<Vec<_>>(), [0, 1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_pod_stops_it_hands_over_and_waits_only_where_it_was_scaled_in() -> Outcome<()> {
    let (api, cluster) = start(3).await?;
    cluster.hand_to(2, 0).await?;
    for change in [|_: &ApiServer| {}, |api: &ApiServer| api.state().replicas = 0] {
        change(&api);
        cluster.hand_to(2, 0).await?;
        let started = Instant::now();
        let said = cluster.pre_stop(2).await?;
        assert!(said.contains("leads no more"), "{said}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert_ne!(cluster.look(2).await?.map(|seen| seen.role), Some(Role::Leader));
        cluster.wait_for_voters(0, 3).await?;
    }
    api.state().replicas = 2;
    let said = cluster.pre_stop(2).await?;
    assert!(said.contains("its member is removed"), "{said}");
    cluster.wait_for_phase(2, Phase::Removed).await?;
    cluster.wait_for_voters(0, 2).await?;
    Ok(())
}

fn ids(seen: &ClusterAnswer) -> Vec<String> {
    seen.members.iter().map(|member| member.id.clone()).collect()
}
