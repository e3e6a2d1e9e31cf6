//! Three etcd nodes on loopback, with data on a real disk and fsync as etcd has it, to be measured beside.

use crate::binary;
use crate::cluster::{PATIENCE, eventually};
use crate::failure::{Context, Failure, Outcome};
use crate::http::{Answer, Ask, send};
use crate::ports;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const NODES: usize = 3;
/// How long one answer is waited for.
const ASK_PATIENCE: Duration = Duration::from_secs(2);

/// The cluster. Dropped, its processes are killed and its data is removed.
#[derive(Debug)]
pub struct Etcd {
    nodes: Vec<Node>,
    // After the nodes: fields drop in this order.
    folder: TempDir,
}

#[derive(Debug)]
struct Node {
    child: Child,
    address: String,
}

/// etcd's binary: as `BALSA_ETCD` says, or the one on the PATH.
pub fn find() -> Option<PathBuf> {
    let named = std::env::var_os("BALSA_ETCD").map(PathBuf::from);
    named.filter(|path| path.is_file()).or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|path| path.is_file())
    })
}

/// What the binary says of its version.
pub fn version(binary: &Path) -> Outcome<String> {
    let said = Command::new(binary).arg("--version").output();
    let said = said.context(format!("ask {} for its version", binary.display()))?;
    Ok(String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or("an unknown version").to_owned())
}

impl Etcd {
    /// Starts the cluster and waits until every node answers.
    pub async fn start(binary: &Path) -> Outcome<Etcd> {
        let folder = tempfile::Builder::new().prefix("etcd-").tempdir_in(binary::scratch()?);
        let mut etcd = Etcd { nodes: Vec::new(), folder: folder.context("make a folder for etcd")? };
        let mut places = Vec::new();
        for slot in 0..NODES {
            places.push((
                format!("etcd-{slot}"),
                format!("http://127.0.0.1:{}", ports::free()?),
                format!("127.0.0.1:{}", ports::free()?),
            ));
        }
        let initial: Vec<String> = places.iter().map(|(name, peer, _)| format!("{name}={peer}")).collect();
        for (name, peer, address) in places {
            let data = etcd.folder.path().join(&name);
            let client = format!("http://{address}");
            let log = File::create(data.with_extension("log")).context("write etcd's log")?;
            let mut command = Command::new(binary);
            command.args(["--name", &name, "--data-dir", binary::text(&data)?]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &initial.join(","), "--log-level", "warn"]);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
            let child = child.context(format!("start {}", binary.display()))?;
            etcd.nodes.push(Node { child, address });
        }
        eventually("etcd to be healthy", PATIENCE, async || {
            for node in &etcd.nodes {
                let answer = send(&node.address, Ask::get("/health"), ASK_PATIENCE).await;
                if !answer
                    .as_ref()
                    .is_ok_and(|answer| Answer::is_success(answer) && answer.text().contains("true"))
                {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
        .map_err(|Failure(why)| Failure(format!("{why}\n{}", etcd.last_words())))?;
        Ok(etcd)
    }

    /// Where the nodes serve clients, `host:port` each.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// Their processes.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.child.id()).collect()
    }

    fn last_words(&self) -> String {
        let mut text = String::new();
        for slot in 0..self.nodes.len() {
            let log = self.folder.path().join(format!("etcd-{slot}.log"));
            let said = std::fs::read_to_string(log).unwrap_or_else(|error| error.to_string());
            let lines: Vec<&str> = said.lines().collect();
            text += &format!("--- etcd {slot}\n{}\n", lines[lines.len().saturating_sub(5)..].join("\n"));
        }
        text
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.child.kill(); // it may have ended
            let _ = node.child.wait();
        }
    }
}
