//! `dev`: a cluster on this machine, each node a process of its own with a data folder of its own.

use crate::http_call;
use clap::Args;
use hyper::Method;
use std::fs::{self, File};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// How `dev` is started.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    /// Node i serves clients on this port + i - 1, and peers 300 ports above
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub base_port: u16,
    /// The folder that holds the nodes' data folders (node-1, node-2, ...)
    #[arg(long, default_value = "balsa-data", value_name = "DIR")]
    pub data: PathBuf,
}

/// Peers' ports lie so far above the clients'.
const PEER_PORTS_ABOVE: u16 = 300;
/// How often the nodes are asked who leads, until one does.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// How long an orderly stop may take before a node is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// One node of the cluster.
struct Node {
    number: u16,
    client_address: String,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Child,
    ended: bool,
}

/// Runs a cluster until `shutdown` resolves or all its nodes have ended.
pub async fn run(args: DevArgs, shutdown: impl Future<Output = ()>) -> Result<(), String> {
    let mut shutdown = std::pin::pin!(shutdown);
    check_folder(&args)?;
    let program = std::env::current_exe().map_err(|error| format!("cannot find my own binary: {error}"))?;
    let mut nodes = Vec::new();
    for number in 1..=args.nodes {
        nodes.push(start(&program, &args, number)?);
    }
    println!("{} nodes are starting, with their data in {}", args.nodes, args.data.display());
    let outcome = tokio::select! {
        outcome = watch(&program, &mut nodes) => outcome,
        () = &mut shutdown => Ok(()),
    };
    println!("stopping ...");
    stop(&mut nodes).await;
    println!("stopped; the data stays in {}", args.data.display());
    outcome
}

/// A folder made for another number of nodes would found a second cluster, or none.
fn check_folder(args: &DevArgs) -> Result<(), String> {
    let there = (1..=99u16).filter(|number| folder_of(&args.data, *number).exists()).count();
    if there != 0 && there != usize::from(args.nodes) {
        return Err(format!(
            "{} holds a cluster of {there} nodes: give --nodes {there}, or another --data",
            args.data.display()
        ));
    }
    Ok(())
}

fn folder_of(data: &Path, number: u16) -> PathBuf {
    data.join(format!("node-{number}"))
}

fn start(program: &Path, args: &DevArgs, number: u16) -> Result<Node, String> {
    let folder = folder_of(&args.data, number);
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let client = |number: u16| format!("127.0.0.1:{}", args.base_port + number - 1);
    let peer = |number: u16| format!("127.0.0.1:{}", args.base_port + PEER_PORTS_ABOVE + number - 1);
    let founders: Vec<String> =
        (1..=args.nodes).map(|other| format!("{}={}", other - 1, peer(other))).collect();
    let arguments: Vec<String> = [
        "serve",
        "--data",
        &folder.to_string_lossy(),
        "--slot",
        &(number - 1).to_string(),
        "--listen",
        &client(number),
        "--peer-listen",
        &peer(number),
        "--initial-peers",
        &founders.join(","),
    ]
    .map(str::to_string)
    .into();
    let child = spawn(program, &arguments, &folder)?;
    Ok(Node { number, client_address: client(number), folder, arguments, child, ended: false })
}

fn spawn(program: &Path, arguments: &[String], folder: &Path) -> Result<Child, String> {
    let log_path = folder.join("node.log");
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.map_err(|error| format!("cannot write {}: {error}", log_path.display()))?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))
}

/// Tells who leads, then waits for nodes that end. Ends when none is left.
async fn watch(program: &Path, nodes: &mut [Node]) -> Result<(), String> {
    let addresses: Vec<(u16, String)> =
        nodes.iter().map(|node| (node.number, node.client_address.clone())).collect();
    let mut told = false;
    loop {
        tokio::select! {
            leader = find_leader(&addresses), if !told => {
                told = true;
                greet(nodes, &leader);
            }
            (at, status) = next_end(nodes) => {
                nodes[at].ended = true;
                let node = &nodes[at];
                println!("node {} has ended ({status}); its log is {}", node.number, node.folder.join("node.log").display());
                println!("  start it again: {} {}", program.display(), node.arguments.join(" "));
                if nodes.iter().all(|node| node.ended) {
                    return Err("all nodes have ended".to_string());
                }
            }
        }
    }
}

async fn find_leader(addresses: &[(u16, String)]) -> String {
    loop {
        for (_, address) in addresses {
            let answer =
                http_call::call(Method::GET, address, "/v1/cluster", Vec::new(), ASK_INTERVAL * 10).await;
            let leader = answer.ok().and_then(|(_, body)| leader_in(&body));
            if let Some(leader) = leader {
                return leader;
            }
        }
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}

/// The leader's client address in the answer of `GET /v1/cluster`.
fn leader_in(body: &[u8]) -> Option<String> {
    let cluster: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(cluster.get("leader_address")?.as_str()?.to_string())
}

fn greet(nodes: &[Node], leader: &str) {
    println!();
    for node in nodes {
        let leads = if node.client_address == leader { "  (leads)" } else { "" };
        let pid = node.child.id().map_or("ended".to_string(), |pid| format!("pid {pid}"));
        println!(
            "  node {}  http://{}  {pid}  {}{leads}",
            node.number,
            node.client_address,
            node.folder.display()
        );
    }
    let port = nodes[0].client_address.rsplit(':').next().unwrap_or("3000");
    println!();
    println!("Try, against any node:");
    println!(
        "  curl -X PUT -H \"Content-Type: application/json\" -d '{{\"value\":\"exampleValue\"}}' http://localhost:{port}/exampleKey"
    );
    println!("  curl http://localhost:{port}/exampleKey");
    println!("  curl -X DELETE http://localhost:{port}/exampleKey");
    println!("  curl -X POST http://localhost:{port}/clear");
    println!("  curl http://localhost:{port}/v1/cluster");
    println!();
    println!("Ctrl-C stops all nodes; started again, the data is there.");
}

async fn next_end(nodes: &mut [Node]) -> (usize, String) {
    let mut ends = Vec::new();
    for (at, node) in nodes.iter_mut().enumerate().filter(|(_, node)| !node.ended) {
        ends.push(Box::pin(async move {
            let status = node.child.wait().await;
            (at, status.map_or_else(|error| error.to_string(), |status| status.to_string()))
        }));
    }
    if ends.is_empty() {
        return std::future::pending().await;
    }
    std::future::poll_fn(|context| {
        for end in &mut ends {
            if let std::task::Poll::Ready(ended) = end.as_mut().poll(context) {
                return std::task::Poll::Ready(ended);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Asks all nodes to stop, and kills those that do not.
async fn stop(nodes: &mut [Node]) {
    for node in nodes.iter().filter(|node| !node.ended) {
        if let Some(pid) = node.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM); // it may have ended by now
        }
    }
    for node in nodes.iter_mut().filter(|node| !node.ended) {
        if tokio::time::timeout(STOP_PATIENCE, node.child.wait()).await.is_err() {
            println!("node {} does not stop: it is killed", node.number);
            let _ = node.child.kill().await;
        }
    }
}
