//! A cluster is backed up while it is written to, and lives again from the backup, with real processes.

use balsa_tests::backup;
use balsa_tests::cluster::{Cluster, PATIENCE, eventually};
use balsa_tests::failure::{Context, Outcome, ensure};
use balsa_tests::http::{Ask, Connection};
use balsa_wire::kv::{Item, PutAnswer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const LEAP: u64 = 1_000_000_000_000;
const WRITERS: u64 = 6;
const KEYS_EACH: u64 = 40;

/// What writers did: by key, the revision and value of each write that was answered.
type Written = BTreeMap<String, Vec<(u64, u64)>>;

/// Writes to keys of its own, one after the other, until told to stop.
async fn write(address: String, writer: u64, stop: Arc<AtomicBool>) -> Outcome<Written> {
    let mut connection = Connection::new(address);
    let mut written = Written::new();
    for value in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("w{writer}-{}", value % KEYS_EACH);
        let (path, body) = (format!("/{key}"), format!("{{\"value\":{value}}}"));
        let answer = connection.send(Ask::put(&path, &body), PATIENCE).await.context("put")?;
        ensure(answer.is_success(), || answer.text())?;
        let put: PutAnswer = answer.json()?;
        written.entry(key).or_default().push((put.revision, value));
    }
    Ok(written)
}

/// Waits until the cluster is at the level that all of its members reach: that is an entry of its own.
async fn wait_for_level(cluster: &Cluster, node: usize) -> Outcome<()> {
    eventually("the highest feature level", PATIENCE, async || {
        let level = cluster.look(node).await?.map(|seen| seen.feature_level);
        Ok((level == Some(balsa_store::FEATURE_LEVEL)).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_from_a_follower_under_load_lives_again_with_all_it_held() -> Outcome<()> {
    let cluster = Cluster::start(3, &[]).await?;
    let leader = cluster.wait_for_leader(&[0, 1, 2]).await?;
    let follower = (leader + 1) % 3;
    wait_for_level(&cluster, follower).await?;
    let once = Ask {
        headers: &[("Idempotency-Key", "k"), ("Content-Type", "application/json")],
        ..Ask::put("/v1/kv/once", "{\"value\":1}")
    };
    let first = cluster.ask_well(0, once).await?.text();

    let stop = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let address = cluster.address(writer as usize % 3).to_string();
            tokio::spawn(write(address, writer, Arc::clone(&stop)))
        })
        .collect();
    let folder = tempfile::tempdir().context("make a folder")?;
    let file = folder.path().join("balsa.backup");
    let mut kept = None;
    for _ in 0..4 {
        let asked_at = cluster.ask_well(leader, Ask::get("/v1/kv/once")).await?;
        let at_least: u64 = asked_at.header("balsa-revision").and_then(|text| text.parse().ok()).unwrap();
        let taken = backup::take(cluster.address(follower), &file).await?;
        assert!(taken.backup.revision >= at_least, "{taken:?} is older than the request, {at_least}");
        kept = Some(taken);
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = Written::new();
    for writer in writing {
        written.extend(writer.await.context("write")??);
    }
    let kept = kept.unwrap();
    assert_eq!(backup::verify(&file).await?, kept);
    assert!(!folder.path().join("balsa.backup.partial").exists());

    let mut restored = backup::blank().await?;
    let told = backup::restore(&mut restored, 0, &file, false).await?;
    assert!(told.contains("Nothing was done") && told.contains(&kept.backup.digest), "{told}");
    let done = backup::restore(&mut restored, 0, &file, true).await?;
    assert!(done.contains("a cluster of one"), "{done}");
    restored.restart(0)?;
    restored.wait_until_ready(0).await?;
    let seen = restored.look(0).await?.unwrap();
    assert_eq!(seen.store.digest, kept.backup.digest);
    assert_eq!(seen.store.revision, kept.backup.revision + LEAP, "no old revision is one of the new ones");
    assert!(seen.cluster.is_some() && seen.cluster.as_ref() != Some(&kept.backup.cluster));

    // Each key is as it was at the backup's revision, and those that were not there yet are not.
    let mut keys = 1; // that of `once`
    for (key, writes) in &written {
        let before = writes.iter().rfind(|(revision, _)| *revision <= kept.backup.revision);
        let answer = restored.ask(0, Ask::get(&format!("/{key}"))).await.context("get")?;
        match before {
            Some((revision, value)) => {
                let item: Item = answer.json()?;
                assert_eq!((item.revision, item.json().ok()), (*revision, Some(*value)), "{key}");
                keys += 1;
            }
            None => assert_eq!(answer.status, 404, "{key}"),
        }
    }
    assert_eq!(kept.backup.keys, keys);
    assert_eq!(restored.ask_well(0, once).await?.text(), first, "what was answered is answered again");

    // Others join it.
    let joined = restored.join(0)?;
    restored.wait_for_voters(0, 2).await?;
    let written = restored.ask_well(joined, Ask::put("/new", "{\"value\":1}")).await?;
    assert!(written.json::<PutAnswer>()?.revision > LEAP);
    restored.wait_until_digests_agree().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_at_rest_has_the_digest_of_every_node_and_a_bad_one_is_refused() -> Outcome<()> {
    let cluster = Cluster::start(3, &[]).await?;
    wait_for_level(&cluster, 0).await?;
    for number in 0..10 {
        cluster.ask_well(0, Ask::put(&format!("/key-{number}"), "{\"value\":1}")).await?;
    }
    let (index, digest) = cluster.wait_until_digests_agree().await?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let file = folder.path().join("balsa.backup");
    for node in 0..3 {
        let taken = backup::take(cluster.address(node), &file).await?;
        assert_eq!((taken.backup.index, &taken.backup.digest, taken.backup.keys), (index, &digest, 10));
    }

    let good = std::fs::read(&file).context("read the backup")?;
    let mut restored = backup::blank().await?;
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    let cases =
        [(flipped, "damaged"), (good[..good.len() - 1].to_vec(), "cut off"), (b"{}".to_vec(), "no backup")];
    for (bytes, word) in cases {
        let bad = folder.path().join("bad.backup");
        std::fs::write(&bad, bytes).context("write a bad backup")?;
        let refused = backup::restore(&mut restored, 0, &bad, true).await.unwrap_err();
        assert!(refused.0.contains(word), "{refused}");
        let refused = backup::verify(&bad).await.unwrap_err();
        assert!(refused.0.contains(word), "{refused}");
        let data = restored.process(0).recipe().data.clone();
        assert_eq!(std::fs::read_dir(&data).context("look")?.count(), 0, "the folder is blank still");
    }
    Ok(())
}

/// So slow that it is under way for as long as the test wants.
const SLOW: [&str; 2] = ["--backup-bytes-per-second", "65536"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_leaves_no_file_that_looks_whole() -> Outcome<()> {
    let mut cluster = Cluster::start(1, &SLOW).await?;
    let body = format!("{{\"value\":\"{}\"}}", "x".repeat(500_000));
    for number in 0..6 {
        cluster.ask_well(0, Ask::put(&format!("/key-{number}"), &body)).await?;
    }
    let folder = tempfile::tempdir().context("make a folder")?;
    let file = folder.path().join("balsa.backup");
    let (address, into) = (format!("http://{}", cluster.address(0)), file.clone());
    let taking = tokio::spawn(async move { backup::run(&["--endpoints", &address], &into).await });
    let partial = folder.path().join("balsa.backup.partial");
    eventually("a backup under way", PATIENCE, async || {
        Ok(std::fs::metadata(&partial).is_ok_and(|found| found.len() > 0).then_some(()))
    })
    .await?;
    cluster.kill(0)?;
    let done = taking.await.context("take a backup")??;
    assert_eq!(done.status.code(), Some(1));
    assert!(!file.exists() && !partial.exists());

    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_starts_on_a_restore_that_was_cut_off() -> Outcome<()> {
    let mut cluster = backup::blank().await?;
    let data = cluster.process(0).recipe().data.clone();
    std::fs::write(data.join("restoring.json"), "{}").context("write a record")?;
    cluster.restart(0)?;
    let status = cluster.process(0).wait_for_end(PATIENCE).await?;
    assert!(!status.success());
    let said = cluster.process(0).last_words(3);
    assert!(said.contains("restore --yes"), "{said}");
    Ok(())
}
