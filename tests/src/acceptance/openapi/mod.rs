//! `openapi`: the document that a node serves is what it does.
//!
//! First the document's examples, as they stand; then schemathesis, which sends what the document allows and what it forbids, and
//! checks every answer against it. The cluster is as well afterwards as before.

mod examples;

use crate::cluster::Cluster;
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::Ask;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Requests of each kind for each operation, at most.
    pub examples: u32,
    /// How long it may take, beside what is begun.
    pub time: Duration,
    /// What all is drawn from.
    pub seed: u64,
}

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<String> {
    let program = program();
    // What is to come is waited for: a second is enough to see that it does not.
    let mut cluster = Cluster::start(3, &["--request-timeout-ms", "1000"]).await?;
    let outcome = on_cluster(&mut cluster, &program, options).await;
    cluster.explain(outcome)
}

async fn on_cluster(cluster: &mut Cluster, program: &Path, options: &Options) -> Outcome<String> {
    let document: Value = cluster.ask_well(0, Ask::get("/openapi.json")).await?.json()?;
    let operations = document["paths"].as_object().into_iter().flatten();
    let operations: usize =
        operations.filter_map(|(_, methods)| methods.as_object()).map(|all| all.len()).sum();
    let sent = examples::run(cluster.address(0), &document).await?;
    println!("{operations} operations; {sent} requests by the document's examples answered as it says");

    let tried = schemathesis(cluster, program, options).await?;
    cluster.wait_until_all_are_ready().await?;
    let (index, digest) = cluster.wait_until_digests_agree().await?;
    println!("all nodes ready, one digest at {index}: {digest}");
    Ok(format!("{operations} operations, {sent} examples, {tried}; 0 failures"))
}

/// Lets it try; gives what it says it did.
async fn schemathesis(cluster: &Cluster, program: &Path, options: &Options) -> Outcome<String> {
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("acceptance/schemathesis");
    let folder = tempfile::Builder::new().prefix("openapi-").tempdir_in(crate::binary::scratch()?);
    let folder = folder.context("make a folder")?;
    let mut command = Command::new(program);
    command.arg("--config-file").arg(settings.join("schemathesis.toml")).arg("run");
    command.arg(format!("http://{}/openapi.json", cluster.address(0)));
    command.args(["--checks", "all", "--workers", "1", "--no-shrink"]);
    command.args(["--seed", &options.seed.to_string(), "--max-examples", &options.examples.to_string()]);
    command.args(["--max-time", &options.time.as_secs().to_string()]);
    command.env("PYTHONPATH", &settings).env("SCHEMATHESIS_HOOKS", "hooks").env("NO_COLOR", "1");
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("BALSA_MEMBERS", members(cluster).await?);
    command.current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let started = Instant::now();
    let said = command.output().await.context(format!("run {}", program.display()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    println!("{text}");
    ensure(said.status.success(), || {
        format!("schemathesis ended with {}; what it found is above", said.status)
    })?;
    let generated =
        text.lines().find_map(|line| line.trim().split_once(" generated,")).map(|(before, _)| before.trim());
    let generated = generated.ok_or_else(|| Failure("schemathesis does not say what it did".into()))?;
    Ok(format!(
        "{generated} by schemathesis in {:.0} s (seed {})",
        started.elapsed().as_secs_f64(),
        options.seed
    ))
}

/// The identities of its members, with a space between them.
async fn members(cluster: &Cluster) -> Outcome<String> {
    let answer: Value = cluster.ask_well(0, Ask::get("/v1/cluster")).await?.json()?;
    let ids = answer["members"].as_array().into_iter().flatten().filter_map(|member| member["id"].as_str());
    let ids = ids.collect::<Vec<_>>().join(" ");
    ensure(!ids.is_empty(), || format!("no members in {answer}"))?;
    Ok(ids)
}

/// Where it is: `BALSA_SCHEMATHESIS` names it; else it is on the `PATH`.
fn program() -> PathBuf {
    std::env::var_os("BALSA_SCHEMATHESIS").map_or_else(|| PathBuf::from("schemathesis"), PathBuf::from)
}
