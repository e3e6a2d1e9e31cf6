//! A cluster of real processes, each with a data folder of its own on a real disk: on loopback, or each in a network
//! namespace of its own.
//!
//! It waits for conditions, never for time, and knows of a node only what the node says over HTTP. Dropped, it kills the
//! processes that it started and removes their folders; where a test panics, it first prints what the nodes said last.

use crate::binary;
use crate::failure::{Context, Failure, Outcome, ensure};
use crate::http::{Answer, Ask, NoAnswer, send};
use crate::limp_disk::{self, LimpDisk};
use crate::nemesis::network::Network;
use crate::nemesis::small_disk::SmallDisk;
use crate::ports;
use crate::process::{Process, Recipe, log_beside};
use crate::proxy::Proxy;
use balsa_wire::cluster::{ClusterAnswer, Role};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a condition is waited for: far longer than it takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long one answer is waited for.
const ASK_PATIENCE: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How often a start is tried with other ports.
const START_ATTEMPTS: usize = 5;
/// How many of a node's lines are printed on failure.
const LINES_SHOWN: usize = 40;

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    /// Its process.
    pub process: Process,
    /// Where it serves clients, `host:port`.
    pub address: String,
    // After the process: a file system is taken away when nobody uses it.
    small_disk: Option<SmallDisk>,
}

/// What the nodes' data lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disks {
    /// This machine's disk, as it is.
    Sound,
    /// The same, but each node's limps when it is told to ([`Cluster::disk`]).
    Limping,
    /// Each node has a small file system of its own, which can be filled ([`Cluster::small_disk`]), and limps, too.
    Small,
}

/// A cluster; nodes are named by their place, from 0.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    arguments: Vec<String>,
    disks: Disks,
    /// Not given: all nodes are on loopback.
    network: Option<Network>,
    // After the nodes: fields drop in this order, and a folder goes after its process.
    folder: TempDir,
}

impl Cluster {
    /// Starts a cluster of `count` nodes with additional `arguments`, and waits until all are ready.
    pub async fn start(count: usize, arguments: &[&str]) -> Outcome<Cluster> {
        Cluster::start_on(Disks::Sound, count, arguments).await
    }

    /// As [`Cluster::start`], on these disks.
    pub async fn start_on(disks: Disks, count: usize, arguments: &[&str]) -> Outcome<Cluster> {
        for _ in 1..START_ATTEMPTS {
            let mut cluster = Cluster::found(disks, None, count, arguments)?;
            match cluster.wait_until_all_are_ready().await {
                Err(_) if cluster.met_a_taken_port() => {}
                outcome => return outcome.map(|()| cluster),
            }
        }
        Err(Failure(format!("ports were taken again and again in {START_ATTEMPTS} starts")))
    }

    /// As [`Cluster::start_on`], with each node in a namespace of this network, which may have places for more nodes.
    pub async fn start_in(
        network: Network,
        disks: Disks,
        count: usize,
        arguments: &[&str],
    ) -> Outcome<Cluster> {
        let mut cluster = Cluster::found(disks, Some(network), count, arguments)?;
        let started = cluster.wait_until_all_are_ready().await;
        cluster.explain(started)?;
        Ok(cluster)
    }

    fn found(disks: Disks, network: Option<Network>, count: usize, arguments: &[&str]) -> Outcome<Cluster> {
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir_in(binary::scratch()?);
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        let folder = folder.context("make a folder for a cluster")?;
        let mut cluster = Cluster { nodes: Vec::new(), arguments, disks, network, folder };
        let mut peers = Vec::new();
        for slot in 0..count {
            peers.push(format!("{slot}={}", cluster.peer_address(slot)?));
        }
        for (slot, peer) in peers.iter().enumerate() {
            let peer = peer.split_once('=').map_or(peer.as_str(), |(_, address)| address);
            let place =
                ["--slot", &slot.to_string(), "--initial-peers", &peers.join(",")].map(str::to_string);
            cluster.add(peer, &place)?;
        }
        Ok(cluster)
    }

    fn add(&mut self, peer_address: &str, place: &[String]) -> Outcome<usize> {
        let address = match &self.network {
            None => free_address()?,
            Some(network) => network.client_address(self.nodes.len()),
        };
        self.add_at(address, peer_address, place)
    }

    /// Where the node that is number `node` is to serve its peers.
    fn peer_address(&self, node: usize) -> Outcome<String> {
        match &self.network {
            None => free_address(),
            Some(network) => {
                ensure(node < network.size(), || {
                    format!("the network has places for {} nodes", network.size())
                })?;
                Ok(network.peer_address(node))
            }
        }
    }

    fn add_at(&mut self, address: String, peer_address: &str, place: &[String]) -> Outcome<usize> {
        let number = self.nodes.len();
        let data = self.folder.path().join(format!("node-{number}"));
        let mut arguments: Vec<String> =
            ["serve", "--data", binary::text(&data)?, "--listen", &address, "--peer-listen", peer_address]
                .map(str::to_string)
                .into();
        arguments.extend_from_slice(place);
        arguments.extend_from_slice(&self.arguments);
        let environment = match self.disks {
            Disks::Sound => Vec::new(),
            Disks::Limping | Disks::Small => limp_disk::environment(&data)?,
        };
        let small_disk = match self.disks {
            Disks::Small => Some(SmallDisk::mount(&data)?),
            Disks::Sound | Disks::Limping => None,
        };
        let runner = self.network.as_ref().map(|network| network.runner(number)).unwrap_or_default();
        let mut process =
            Process::new(Recipe { log: log_beside(&data), data, runner, arguments, environment });
        process.start()?;
        self.nodes.push(Node { process, address, small_disk });
        Ok(number)
    }

    /// Starts one more node, which joins by the URL of node `by`; gives its place.
    pub fn join(&mut self, by: usize) -> Outcome<usize> {
        let url = format!("http://{}", self.address(by));
        let peer_address = self.peer_address(self.nodes.len())?;
        self.add(&peer_address, &["--join".to_string(), url])
    }

    /// As [`Cluster::join`], with a proxy before the new node's door for peers; see [`Proxy::start`].
    pub async fn join_behind_proxy(&mut self, by: usize, cuts: &[u64]) -> Outcome<(usize, Proxy)> {
        let url = format!("http://{}", self.address(by));
        let peer_address = format!("127.0.0.1:{}", ports::free()?);
        let proxy = Proxy::start(peer_address.clone(), cuts).await?;
        let place = ["--join".to_string(), url, "--peer-advertise".to_string(), proxy.address.clone()];
        Ok((self.add(&peer_address, &place)?, proxy))
    }

    /// Starts one more node at this slot, which serves clients at `address` and joins by the URL of node `by`; gives its
    /// place.
    pub fn join_as(&mut self, by: usize, slot: u32, address: &str) -> Outcome<usize> {
        let url = format!("http://{}", self.address(by));
        let peer_address = free_address()?;
        let place = ["--join", &url, "--slot", &slot.to_string()].map(str::to_string);
        self.add_at(address.to_string(), &peer_address, &place)
    }

    /// Starts one more node at this slot with the founders of node 0; gives its place.
    pub fn add_beyond_founders(&mut self, slot: u32) -> Outcome<usize> {
        let founders = self.argument(0, "--initial-peers")?;
        let peer_address = free_address()?;
        let place = ["--slot", &slot.to_string(), "--initial-peers", &founders].map(str::to_string);
        self.add(&peer_address, &place)
    }

    /// What a node was started with.
    pub fn argument(&self, node: usize, name: &str) -> Outcome<String> {
        let arguments = &self.nodes[node].process.recipe().arguments;
        let at = arguments.iter().position(|argument| argument == name);
        let value = at.and_then(|at| arguments.get(at + 1)).cloned();
        value.ok_or_else(|| Failure(format!("the arguments have no {name}")))
    }

    /// Runs `pre-stop` for a node with the settings that it has, and waits until it lets the node go; gives what it said.
    pub async fn pre_stop(&self, node: usize) -> Outcome<String> {
        let recipe = self.nodes[node].process.recipe();
        let arguments = std::iter::once("pre-stop").chain(recipe.arguments[1..].iter().map(String::as_str));
        let done = tokio::process::Command::new(binary::node()?).args(arguments).kill_on_drop(true).output();
        let done = done.await.context("run pre-stop")?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure(done.status.success(), || format!("pre-stop ended with {}: {said}", done.status))?;
        Ok(said)
    }

    /// Runs a command of repair on the data folder of a node that does not run; gives what it said.
    pub async fn repair(&mut self, node: usize, command: &str, arguments: &[&str]) -> Outcome<String> {
        let data = self.process(node).recipe().data.clone();
        let mut run = tokio::process::Command::new(binary::node()?);
        let done = run.args([command, "--data", binary::text(&data)?]).args(arguments).output().await;
        let done = done.context(format!("run {command}"))?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure(done.status.success(), || {
            format!("{command} ended with {}: {said}{}", done.status, String::from_utf8_lossy(&done.stderr))
        })?;
        Ok(said)
    }

    /// Deletes all that is in the data folder of a node that does not run.
    pub fn wipe(&mut self, node: usize) -> Outcome<()> {
        let data = &self.process(node).recipe().data;
        let what = || format!("empty {}", data.display());
        for entry in std::fs::read_dir(data).context(what())? {
            let path = entry.context(what())?.path();
            let removed = match path.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            removed.context(what())?;
        }
        Ok(())
    }

    /// Starts a second process on the data folder of node `of`, at a client address of its own; gives its place.
    pub fn double(&mut self, of: usize) -> Outcome<usize> {
        let recipe = self.nodes[of].process.recipe().clone();
        let address = format!("127.0.0.1:{}", ports::free()?);
        let peer_address = format!("127.0.0.1:{}", ports::free()?);
        let mut arguments = recipe.arguments.clone();
        for (name, value) in [("--listen", &address), ("--peer-listen", &peer_address)] {
            let at = arguments.iter().position(|argument| argument == name);
            let at = at.ok_or_else(|| Failure(format!("the arguments have no {name}")))?;
            arguments[at + 1].clone_from(value);
        }
        let log = self.folder.path().join(format!("node-{}.log", self.nodes.len()));
        let mut process = Process::new(Recipe { log, arguments, ..recipe });
        process.start()?;
        self.nodes.push(Node { process, address, small_disk: None });
        Ok(self.nodes.len() - 1)
    }

    /// How many nodes there are, running or not.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Where a node serves clients, `host:port`.
    pub fn address(&self, node: usize) -> &str {
        &self.nodes[node].address
    }

    /// A node's process.
    pub fn process(&mut self, node: usize) -> &mut Process {
        &mut self.nodes[node].process
    }

    /// A node's disk, in a cluster on [`Disks::Limping`] or [`Disks::Small`].
    pub fn disk(&self, node: usize) -> LimpDisk {
        assert_ne!(self.disks, Disks::Sound, "a sound disk cannot be told anything");
        LimpDisk::of(&self.nodes[node].process.recipe().data)
    }

    /// A node's own file system, in a cluster on [`Disks::Small`].
    pub fn small_disk(&self, node: usize) -> Outcome<&SmallDisk> {
        let disk = self.nodes[node].small_disk.as_ref();
        disk.ok_or_else(|| Failure(format!("node {node} has no file system of its own")))
    }

    /// What lies between the nodes, in a cluster with a network of its own.
    pub fn network(&self) -> Outcome<&Network> {
        self.network.as_ref().ok_or_else(|| Failure("the nodes are all on loopback".into()))
    }

    /// Kills a node with -9.
    pub fn kill(&mut self, node: usize) -> Outcome<()> {
        self.process(node).kill()
    }

    /// Kills all nodes with -9: the last is struck before the first is waited for.
    pub fn kill_all(&mut self) -> Outcome<()> {
        for node in &self.nodes {
            node.process.signal(Signal::KILL)?;
        }
        (0..self.nodes.len()).try_for_each(|node| self.kill(node))
    }

    /// Starts a node that was killed or has ended.
    pub fn restart(&mut self, node: usize) -> Outcome<()> {
        self.process(node).start()
    }

    /// The nodes whose processes were started and not killed.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].process.pid().is_some()).collect()
    }

    /// Asks one node.
    pub async fn ask(&self, node: usize, ask: Ask<'_>) -> Result<Answer, NoAnswer> {
        send(self.address(node), ask, ASK_PATIENCE).await
    }

    /// Asks one node, which must answer 2xx.
    pub async fn ask_well(&self, node: usize, ask: Ask<'_>) -> Outcome<Answer> {
        let what = format!("{} {} at node {node}", ask.method, ask.path);
        self.ask(node, ask).await.context(&what)?.well(&what)
    }

    /// What one node knows of the cluster; `None` where it does not answer.
    pub async fn look(&self, node: usize) -> Outcome<Option<ClusterAnswer>> {
        match send(self.address(node), Ask::get("/v1/cluster"), Duration::from_secs(1)).await {
            Ok(answer) => answer.json().map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Waits until a node is ready: caught up, and it knows a leader.
    pub async fn wait_until_ready(&mut self, node: usize) -> Outcome<()> {
        let started = Instant::now();
        loop {
            let answer = send(self.address(node), Ask::get("/readyz"), Duration::from_secs(1)).await;
            if answer.as_ref().is_ok_and(Answer::is_success) {
                return Ok(());
            }
            if let Some(status) = self.process(node).ended()? {
                let words = self.process(node).last_words(5);
                return Err(Failure(format!(
                    "node {node} ended ({status}) instead of becoming ready:\n{words}"
                )));
            }
            let last = answer.map_or_else(|error| error.to_string(), |answer| answer.text());
            ensure(started.elapsed() < PATIENCE, || {
                format!("node {node} is not ready after {PATIENCE:?}; it said last: {last}")
            })?;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until all running nodes are ready.
    pub async fn wait_until_all_are_ready(&mut self) -> Outcome<()> {
        for node in self.running() {
            self.wait_until_ready(node).await?;
        }
        Ok(())
    }

    /// Waits until one running node leads and the others that `among` names follow it; gives the leader.
    pub async fn wait_for_leader(&self, among: &[usize]) -> Outcome<usize> {
        eventually("one leader that all know", PATIENCE, async || {
            let mut leader = None;
            let mut named = Vec::new();
            for node in among {
                let Some(seen) = self.look(*node).await? else { return Ok(None) };
                if seen.role == Role::Leader {
                    leader = Some(*node);
                }
                named.push((seen.term, seen.leader));
            }
            let agreed = named.windows(2).all(|pair| pair[0] == pair[1]);
            Ok(leader.filter(|_| agreed))
        })
        .await
    }

    /// Waits until all running nodes have applied the same entries; fails where digests differ at an equal index.
    pub async fn wait_until_digests_agree(&self) -> Outcome<(u64, String)> {
        eventually("all nodes at the same applied index", PATIENCE, async || {
            let mut states = Vec::new();
            for node in self.running() {
                let Some(seen) = self.look(node).await? else { return Ok(None) };
                states.push((node, seen.store));
            }
            compare_digests(&states)?;
            let Some((_, first)) = states.first() else { return Ok(None) };
            let equal = states.iter().all(|(_, state)| state.applied_index == first.applied_index);
            Ok(equal.then(|| (first.applied_index, first.digest.clone())))
        })
        .await
    }

    /// A failure with what the nodes said last.
    pub fn explain<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        outcome.map_err(|Failure(why)| Failure(format!("{why}\n{}", self.last_words())))
    }

    /// What the nodes said last, for a failure's report.
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        for (number, node) in self.nodes.iter().enumerate() {
            text +=
                &format!("--- node {number} ({})\n{}\n", node.address, node.process.last_words(LINES_SHOWN));
        }
        text
    }

    fn met_a_taken_port(&self) -> bool {
        self.nodes.iter().any(|node| node.process.said().contains("cannot listen on"))
    }
}

/// A client or peer address that is free, and that this process has not given out before.
pub fn free_address() -> Outcome<String> {
    Ok(format!("127.0.0.1:{}", ports::free()?))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprint!("{}", self.last_words());
        }
    }
}

/// Fails where two nodes have different digests at the same applied index.
pub fn compare_digests(states: &[(usize, balsa_wire::cluster::StoreState)]) -> Outcome<()> {
    for (at, (node, state)) in states.iter().enumerate() {
        for (other_node, other) in &states[at + 1..] {
            ensure(state.applied_index != other.applied_index || state.digest == other.digest, || {
                format!("at the same index node {node} has {state:?}, and node {other_node} has {other:?}")
            })?;
        }
    }
    Ok(())
}

/// Looks until there is something.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    look: impl AsyncFnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    eventually_at(LOOK_INTERVAL, what, patience, look).await
}

/// The same, with this pause between two looks: where a look costs what is looked at.
pub async fn eventually_at<T>(
    pause: Duration,
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure(started.elapsed() < patience, || format!("waited {patience:?} in vain for {what}"))?;
        tokio::time::sleep(pause).await;
    }
}
