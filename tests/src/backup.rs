//! Backups as users take them: with the command line tool, into a file.

use crate::binary;
use crate::cluster::Cluster;
use crate::failure::{Context, Outcome, ensure};
use balsa_wire::backup::BackupAnswer;
use std::path::Path;
use std::process::Output;
use tokio::process::Command;

/// Takes a backup from the node at `address` (`host:port`).
pub async fn take(address: &str, file: &Path) -> Outcome<BackupAnswer> {
    let done = run(&["--endpoints", &format!("http://{address}")], file).await?;
    whole(&done)
}

/// Checks a backup in a file.
pub async fn verify(file: &Path) -> Outcome<BackupAnswer> {
    whole(&run(&["--verify"], file).await?)
}

/// Runs `balsa backup` with these arguments and the file; gives what became of it.
pub async fn run(arguments: &[&str], file: &Path) -> Outcome<Output> {
    let mut command = Command::new(binary::cli()?);
    command.args(["--output", "json", "backup"]).args(arguments).arg(file).kill_on_drop(true);
    command.output().await.context("run balsa backup")
}

/// A blank node that does not run, for a restore.
pub async fn blank() -> Outcome<Cluster> {
    let mut cluster = Cluster::start(1, &[]).await?;
    cluster.kill(0)?;
    cluster.wipe(0)?;
    Ok(cluster)
}

/// Runs `balsa-node restore` for a node that does not run, with the addresses that it has; gives what it said.
pub async fn restore(cluster: &mut Cluster, node: usize, file: &Path, really: bool) -> Outcome<String> {
    let (clients, peers) = (cluster.argument(node, "--listen")?, cluster.argument(node, "--peer-listen")?);
    let mut arguments =
        vec![binary::text(file)?, "--advertise", clients.as_str(), "--peer-advertise", peers.as_str()];
    if really {
        arguments.push("--yes");
    }
    cluster.repair(node, "restore", &arguments).await
}

fn whole(done: &Output) -> Outcome<BackupAnswer> {
    ensure(done.status.success(), || {
        format!("balsa backup ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr))
    })?;
    serde_json::from_slice(&done.stdout).context("read what balsa backup says")
}
