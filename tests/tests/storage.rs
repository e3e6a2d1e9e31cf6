//! What clients see where there is no room: 507 for what needs some, everything else goes on, and it ends by itself.

use balsa_log::{Disk as _, RealDisk};
use balsa_tests::binary;
use balsa_tests::cluster::{Cluster, PATIENCE, eventually};
use balsa_tests::failure::{Context, Failure, Outcome, ensure};
use balsa_tests::http::{Answer, Ask};
use balsa_wire::problem::{Code, Outcome as Truth};

const NODES: usize = 3;

fn delete(path: &str) -> Ask<'_> {
    Ask { method: "DELETE", path, headers: &[], body: "" }
}

/// Whether a write was refused because there is no room; anything else must be well.
fn is_full(answer: Answer, what: &str) -> Outcome<bool> {
    if answer.status != 507 {
        answer.well(what)?;
        return Ok(false);
    }
    let problem = answer.problem()?;
    ensure(problem.code == Code::StorageFull && problem.outcome == Some(Truth::NotApplied), || {
        format!("{what} was refused with {problem:?}")
    })?;
    Ok(true)
}

/// Puts, by each node, until there is no room.
async fn put_until_full(cluster: &Cluster, body: &str) -> Outcome<()> {
    let mut number = 0;
    eventually("a put that finds no room", PATIENCE, async || {
        number += 1;
        let path = format!("/v1/kv/{}", number % 100);
        let answer = cluster.ask(number % NODES, Ask::put(&path, body)).await.context("put")?;
        Ok(is_full(answer, &path)?.then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_disks_that_are_nearly_full_deletes_and_reads_go_on_and_puts_are_told_why() -> Outcome<()> {
    let free = RealDisk.free_bytes(&binary::scratch()?).context("look at the disk")?;
    // More than is free, and half of it is not.
    let headroom = (free / 2 * 3).to_string();
    let mut cluster = Cluster::start(NODES, &["--disk-headroom-bytes", &headroom]).await?;
    cluster.wait_until_all_are_ready().await?;
    let outcome = async {
        put_until_full(&cluster, r#"{"value":1}"#).await?;
        for node in 0..NODES {
            cluster.ask_well(node, Ask::get("/v1/kv?count_only=true")).await?;
            cluster.ask_well(node, delete(&format!("/v1/kv/{node}"))).await?;
            let answer = cluster.ask(node, Ask::put("/x", r#"{"value":1}"#)).await.context("put")?;
            ensure(is_full(answer, "put of x")?, || format!("node {node} takes puts"))?;
            eventually("word of all disks", PATIENCE, async || {
                let seen = cluster.look(node).await?;
                Ok(seen.filter(|seen| {
                    let why = seen.storage_full.as_deref().unwrap_or_default();
                    why.contains("nearly full") && seen.members.iter().all(|member| member.disk_low)
                }))
            })
            .await?;
        }
        cluster.ask_well(0, Ask { method: "POST", path: "/clear", headers: &[], body: "" }).await?;
        Ok(())
    };
    let outcome = outcome.await;
    cluster.explain(outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_met_is_told_and_clears_itself_once_enough_was_deleted() -> Outcome<()> {
    let arguments = ["--quota-bytes", "8000000", "--overlay-bytes", "4194304"];
    let mut cluster = Cluster::start(NODES, &arguments).await?;
    cluster.wait_until_all_are_ready().await?;
    let outcome = async {
        let body = format!(r#"{{"value":"{}"}}"#, "v".repeat(200_000));
        put_until_full(&cluster, &body).await?;
        cluster.ask_well(1, Ask { method: "POST", path: "/clear", headers: &[], body: "" }).await?;
        let now = cluster.ask_well(1, Ask::get("/v1/kv?count_only=true")).await?;
        let revision = now.header("balsa-revision").ok_or(Failure("no revision".into()))?.to_string();
        let compact = Ask {
            method: "POST",
            path: "/v1/compact",
            headers: &[("content-type", "application/json")],
            body: &format!(r#"{{"revision":{revision}}}"#),
        };
        cluster.ask_well(2, compact).await?;
        eventually("a put that finds room", PATIENCE, async || {
            let answer = cluster.ask(0, Ask::put("/x", r#"{"value":1}"#)).await.context("put")?;
            Ok((!is_full(answer, "put of x")?).then_some(()))
        })
        .await
    };
    let outcome = outcome.await;
    cluster.explain(outcome)
}
