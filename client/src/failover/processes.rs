//! A striker on a cluster that it starts itself: three node processes on loopback, killed with -9 and started again.

use super::{Failure, Striker};
use balsa_wire::cluster::Member;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// The processes. Dropped, they are killed and their folder is removed.
#[derive(Debug)]
pub struct Processes {
    binary: PathBuf,
    folder: PathBuf,
    nodes: Vec<Process>,
}

#[derive(Debug)]
struct Process {
    address: String,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// How many nodes are started.
const NODES: usize = 3;

impl Processes {
    /// Starts a cluster of `binary`, a `balsa-node`, with its data in a new folder below `data`.
    pub fn start(binary: &Path, data: &Path) -> Result<Processes, Failure> {
        let folder = data.join(format!("balsa-failover-test-{:08x}", crate::transport::random()));
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure(format!("cannot make the folder {}: {error}", folder.display())))?;
        let mut cluster = Processes { binary: binary.to_owned(), folder, nodes: Vec::new() };
        let mut clients = free_addresses(2 * NODES)?;
        let peers = clients.split_off(NODES);
        let named: Vec<String> =
            peers.iter().enumerate().map(|(slot, peer)| format!("{slot}={peer}")).collect();
        for (slot, (client, peer)) in clients.into_iter().zip(&peers).enumerate() {
            let data = cluster.folder.join(format!("node-{slot}")).display().to_string();
            let (slot, initial) = (slot.to_string(), named.join(","));
            let arguments = [
                ["--slot", &slot],
                ["--data", &data],
                ["--listen", &client],
                ["--peer-listen", peer],
                ["--initial-peers", &initial],
            ];
            let arguments = arguments.concat().into_iter().map(str::to_owned).collect();
            cluster.nodes.push(Process { address: client, arguments, child: None });
            let last = cluster.nodes.len() - 1;
            cluster.launch(last)?;
        }
        Ok(cluster)
    }

    /// Where the nodes serve clients, `host:port` each.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    fn launch(&mut self, at: usize) -> Result<(), Failure> {
        let node = &mut self.nodes[at];
        let log = self.folder.join(format!("node-{at}.log"));
        let log = std::fs::File::options().create(true).append(true).open(&log);
        let log = log.map_err(|error| Failure(format!("cannot write a node's log: {error}")))?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").args(&node.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.kill_on_drop(true).spawn();
        let child =
            child.map_err(|error| Failure(format!("cannot start {}: {error}", self.binary.display())))?;
        node.child = Some(child);
        Ok(())
    }

    fn find(&self, leader: &Member) -> Result<usize, String> {
        let found = self.nodes.iter().position(|node| node.address == leader.client_address);
        found.ok_or_else(|| format!("the leader is at {}, which is no node's", leader.client_address))
    }
}

impl Striker for Processes {
    async fn strike(&mut self, leader: &Member) -> Result<(), String> {
        let at = self.find(leader)?;
        let Some(mut child) = self.nodes[at].child.take() else {
            return Err(format!("node {at} leads, and does not run"));
        };
        child.kill().await.map_err(|error| format!("cannot kill node {at}: {error}"))
    }

    async fn heal(&mut self, leader: &Member) -> Result<(), String> {
        let at = self.find(leader)?;
        self.launch(at).map_err(|Failure(why)| why)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                let _ = child.start_kill(); // it may have ended
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder); // what is left harms nobody
    }
}

/// Ports that are free now, held side by side so that they differ.
fn free_addresses(count: usize) -> Result<Vec<String>, Failure> {
    let failed = |error: std::io::Error| Failure(format!("cannot find a free port: {error}"));
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().map_err(failed)?;
    let addresses = held.iter().map(|listener| listener.local_addr().map(|address| address.to_string()));
    addresses.collect::<Result<_, _>>().map_err(failed)
}
