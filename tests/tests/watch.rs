//! The client's watch against three real processes: nodes go away under it, and it misses nothing.

use balsa_client::{Client, WatchError, WatchEvent};
use balsa_tests::cluster::{Cluster, PATIENCE};
use balsa_tests::failure::{Context, Failure, Outcome, ensure};
use std::time::Duration;

const ROUNDS: u64 = 3;
const CHANGES_A_ROUND: u64 = 50;

fn gone() -> Failure {
    Failure("the key is not there".to_string())
}

fn client(cluster: &Cluster, nodes: &[usize]) -> Outcome<Client> {
    let endpoints = nodes.iter().map(|node| cluster.address(*node).to_string());
    Client::builder().endpoints(endpoints).timeout(PATIENCE).build().context("build a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_its_nodes_and_misses_nothing() -> Outcome<()> {
    let mut cluster = Cluster::start(3, &["--watch-progress-ms", "200"]).await?;
    let writer = client(&cluster, &[0, 1, 2])?;
    // Each watch begins at another node.
    let mut watching = Vec::new();
    for first in 0..3 {
        let watcher = client(&cluster, &[first, (first + 1) % 3, (first + 2) % 3])?;
        watching.push(tokio::spawn(async move {
            let mut watch = watcher.watch_prefix("watched/").from(1).prev();
            let (mut heard, mut newest) = (0, 0);
            while heard < ROUNDS * CHANGES_A_ROUND {
                let event =
                    tokio::time::timeout(PATIENCE, watch.next()).await.context("hear the next change")?;
                let event = event.context("go on with a watch")?;
                ensure(event.revision() >= newest, || format!("{event:?} comes after {newest}"))?;
                let is_change = !matches!(event, WatchEvent::Progress { .. });
                ensure(!is_change || event.revision() > newest, || format!("{event:?} comes twice"))?;
                newest = event.revision();
                if let WatchEvent::Put { item, prev } = event {
                    let number: u64 = item.json().context("read a number")?;
                    ensure(number == heard, || format!("{number} was heard, the next was {heard}"))?;
                    let before = prev.map(|prev| prev.json::<u64>()).transpose().context("read a number")?;
                    let expected = heard.checked_sub(10);
                    ensure(before == expected, || format!("before {number} was {before:?}"))?;
                    heard += 1;
                }
            }
            Outcome::Ok(heard)
        }));
    }
    for round in 0..ROUNDS {
        for number in round * CHANGES_A_ROUND..(round + 1) * CHANGES_A_ROUND {
            writer.put(format!("watched/{}", number % 10), &number).await.context("write")?;
            if number % CHANGES_A_ROUND == CHANGES_A_ROUND / 2 {
                cluster.kill(round as usize)?;
            }
        }
        cluster.restart(round as usize)?;
        cluster.wait_until_ready(round as usize).await?;
    }
    for watch in watching {
        watch.await.context("gather watches")??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compacted_is_told_and_what_is_left_can_be_read() -> Outcome<()> {
    let cluster = Cluster::start(1, &[]).await?;
    let client = client(&cluster, &[0])?;
    for number in 0..5 {
        client.put("a", &number).await.context("write")?;
    }
    let newest = client.get("a").await.context("read")?.ok_or_else(gone)?.revision;
    let done = client.compact(newest - 1).await.context("compact")?;
    assert_eq!(done.oldest_revision, newest - 1);
    let told = client.watch_key("a").from(newest - 2).next().await;
    assert_eq!(told.unwrap_err(), WatchError::Compacted { oldest_revision: newest - 1 });
    let old = client.get("a").at_revision(newest - 1).await.context("read the past")?;
    assert_eq!(old.ok_or_else(gone)?.json::<u64>().context("read a number")?, 3);
    assert!(client.get("a").at_revision(newest - 2).await.is_err());

    let mut watch = client.watch_key("a").from(newest);
    let waiting = tokio::time::timeout(PATIENCE, async {
        loop {
            if let WatchEvent::Put { item, .. } = watch.next().await? {
                return Ok::<_, WatchError>(item.revision);
            }
        }
    });
    assert_eq!(waiting.await.context("hear in time")?.context("watch")?, newest);
    let nothing = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    Ok(())
}
