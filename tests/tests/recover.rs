//! The quorum is lost for good, and one survivor goes on as a new cluster, with real processes.

use balsa_tests::cluster::{Cluster, PATIENCE};
use balsa_tests::failure::Outcome;
use balsa_tests::http::Ask;
use balsa_wire::cluster::Phase;
use balsa_wire::kv::Item;

const LEAP: u64 = 1_000_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_goes_on_with_all_it_has_and_lost_members_join_it() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    for value in 1..=3 {
        cluster.ask_well(0, Ask::put("/a", &format!("{{\"value\":{value}}}"))).await?;
    }
    let once = Ask {
        headers: &[("Idempotency-Key", "k"), ("Content-Type", "application/json")],
        ..Ask::put("/v1/kv/b", "{\"value\":1}")
    };
    let first = cluster.ask_well(0, once).await?.text();
    cluster.wait_until_digests_agree().await?;
    let old = cluster.look(2).await?.and_then(|seen| seen.cluster);

    cluster.kill_all()?;
    cluster.wipe(0)?; // one disk is lost, another belongs to what was
    let told = cluster.repair(2, "recover", &[]).await?;
    assert!(told.contains("Nothing was done"), "{told}");
    let done = cluster.repair(2, "recover", &["--yes"]).await?;
    assert!(done.contains("a cluster of one"), "{done}");
    let aside = cluster.repair(1, "set-aside", &["--yes"]).await?;
    assert!(aside.contains("removed-"), "{aside}");

    cluster.restart(2)?;
    let seen = cluster.wait_for_voters(2, 1).await?;
    assert_ne!(seen.cluster, old);
    assert!(seen.store.revision > LEAP);
    for node in [0, 1] {
        cluster.restart(node)?;
    }
    let joined = cluster.wait_for_voters(2, 3).await?;
    assert_eq!(joined.cluster, seen.cluster);
    for node in 0..3 {
        let item: Item = cluster.ask_well(node, Ask::get("/a")).await?.json()?;
        assert_eq!((item.json::<u64>().ok(), item.version), (Some(3), 3), "node {node}");
        assert!(item.revision < LEAP, "a key keeps its revision");
        let again = cluster.ask_well(node, once).await?;
        assert_eq!(again.text(), first, "what was answered is answered again");
    }
    let written = cluster.ask_well(1, Ask::put("/c", "{\"value\":1}")).await?.text();
    assert!(written.contains("\"revision\":10000000"), "{written}");

    // What was kept aside goes when told, beside nodes that run.
    for (node, kept) in [(1, "removed-"), (2, "recovered-")] {
        let listed = cluster.repair(node, "clear-aside", &[]).await?;
        assert!(listed.contains(kept) && listed.contains("nothing was done"), "{listed}");
        let cleared = cluster.repair(node, "clear-aside", &["--yes"]).await?;
        assert!(cleared.contains("deleted") && cleared.contains(kept), "{cleared}");
        let listed = cluster.repair(node, "clear-aside", &[]).await?;
        assert!(listed.contains("nothing is kept aside"), "{listed}");
    }
    cluster.wait_until_digests_agree().await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_starts_on_a_recovery_that_was_cut_off() -> Outcome<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    cluster.kill(0)?;
    let record = cluster.process(0).recipe().data.join("recovering.json");
    std::fs::write(&record, "{}").unwrap();
    cluster.restart(0)?;
    let status = cluster.process(0).wait_for_end(PATIENCE).await?;
    assert!(!status.success());
    let said = cluster.process(0).last_words(3);
    assert!(said.contains("recover --yes"), "{said}");
    std::fs::remove_file(&record).unwrap();
    cluster.restart(0)?;
    cluster.wait_for_phase(0, Phase::Running).await.map(|_| ())
}
