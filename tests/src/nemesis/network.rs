//! A network of namespaces: each node has one of its own, and every directed link between two of them can be told how to
//! fare.
//!
//! ```text
//! namespace of node a                 here                         namespace of node b
//! a ── connects to b's address ──► taken by a proxy ── over the bridge ──► b's address
//! ```
//!
//! In a's namespace the addresses of the other nodes belong to its loopback, where this process listens; so whatever a
//! sends to b goes through a proxy of that one direction, and neither node is told anything. Clients of this process reach
//! each node by the bridge. Needs root and `ip` (iproute2). Dropped, it takes everything away again; what a run left that
//! was killed goes when the next network is made.

use super::link::{Link, Route, forward};
use crate::failure::{Context, Failure, Outcome, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::JoinSet;

/// Where nodes serve clients and peers, each at its own address.
const PORTS: [u16; 2] = [CLIENT_PORT, PEER_PORT];
const CLIENT_PORT: u16 = 3000;
const PEER_PORT: u16 = 3300;
/// The host part of the first node's address.
const FIRST_HOST: usize = 11;
/// What names of namespaces and of interfaces begin with; the process's id comes next.
const NAMESPACE: &str = "balsa-";
const INTERFACE: &str = "bls";
/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// Of the namespace in which it is opened. 1: only the addresses of an interface are told on it.
const ARP_IGNORE: &str = "/proc/sys/net/ipv4/conf/all/arp_ignore";

/// Namespaces, a bridge, and the proxies of all directed links.
#[derive(Debug)]
pub struct Network {
    /// `PIDxNUMBER`: what tells it from other networks on this machine.
    name: String,
    /// The first three numbers of all addresses.
    subnet: String,
    size: usize,
    /// By who sends, then by who receives.
    links: Vec<Vec<Link>>,
    // Dropped, they take no more connections, and end those that they have.
    proxies: JoinSet<()>,
}

impl Network {
    /// Makes one for `size` nodes.
    pub async fn make(size: usize) -> Outcome<Network> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        ensure(rustix::process::geteuid().is_root(), || {
            "network namespaces can only be made by root: run this as root, as in a privileged container"
                .into()
        })?;
        sweep()?;
        let (pid, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let links = (0..size).map(|_| (0..size).map(|_| Link::default()).collect()).collect();
        let mut network = Network {
            name: format!("{pid}x{number}"),
            subnet: format!("10.{}.{}", 64 + pid % 128, (pid / 128 + number) % 256),
            size,
            links,
            proxies: JoinSet::new(),
        };
        network.lay()?;
        for from in 0..size {
            network.open_proxies(from)?;
        }
        Ok(network)
    }

    /// How many nodes have a place.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Where a node serves clients.
    pub fn client_address(&self, node: usize) -> String {
        format!("{}:{CLIENT_PORT}", self.host(node))
    }

    /// Where a node serves its peers.
    pub fn peer_address(&self, node: usize) -> String {
        format!("{}:{PEER_PORT}", self.host(node))
    }

    /// What runs a command in the node's namespace: comes before it.
    pub fn runner(&self, node: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(node)].map(str::to_string).into()
    }

    /// The link from one node to another.
    pub fn link(&self, from: usize, to: usize) -> &Link {
        &self.links[from][to]
    }

    fn host(&self, node: usize) -> String {
        format!("{}.{}", self.subnet, FIRST_HOST + node)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{NAMESPACE}{}-{node}", self.name)
    }

    fn bridge(&self) -> String {
        format!("{INTERFACE}{}", self.name)
    }

    fn lay(&self) -> Outcome<()> {
        let bridge = self.bridge();
        let mut outside = format!(
            "link add {bridge} type bridge\naddr add {}.1/24 dev {bridge}\nlink set {bridge} up\n",
            self.subnet
        );
        for node in 0..self.size {
            let (near, namespace) = (format!("{bridge}v{node}"), self.namespace(node));
            let _ = write!(
                outside,
                "netns add {namespace}\nlink add {near} type veth peer name eth0 netns {namespace}\n\
                 link set {near} master {bridge} up\n"
            );
        }
        ip(&[], &outside)?;
        for node in 0..self.size {
            let mut inside =
                format!("link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n", self.host(node));
            for other in (0..self.size).filter(|other| *other != node) {
                let _ = writeln!(inside, "addr add {}/32 dev lo", self.host(other));
            }
            ip(&["-netns", &self.namespace(node)], &inside)?;
        }
        Ok(())
    }

    /// Listens in the namespace of `from` in place of all others.
    fn open_proxies(&mut self, from: usize) -> Outcome<()> {
        let others = (0..self.size).filter(|other| *other != from);
        let wanted: Vec<(usize, u16)> = others.flat_map(|other| PORTS.map(|port| (other, port))).collect();
        let addresses: Vec<String> =
            wanted.iter().map(|(other, port)| format!("{}:{port}", self.host(*other))).collect();
        let listeners = listen_in(&self.namespace(from), &addresses)?;
        for (((to, _), target), listener) in wanted.into_iter().zip(addresses).zip(listeners) {
            let listener = tokio::net::TcpListener::from_std(listener).context("open a proxy")?;
            let route =
                Route { there: self.links[from][to].clone(), back: self.links[to][from].clone(), target };
            self.proxies.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((near, _)) = listener.accept().await {
                    connections.spawn(forward(near, route.clone()));
                    while connections.try_join_next().is_some() {}
                }
            });
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What stays is swept up by the next network; there is nobody to tell.
        let namespaces = (0..self.size).map(|node| format!("netns del {}\n", self.namespace(node)));
        let _ = ip(&["-force"], &namespaces.collect::<String>());
        let _ = ip(&["-force"], &format!("link del {}\n", self.bridge()));
    }
}

/// Sockets that listen in another namespace. A thread that goes there never comes back, so one is spent on it.
fn listen_in(namespace: &str, addresses: &[String]) -> Outcome<Vec<TcpListener>> {
    let path = Path::new(NAMESPACES).join(namespace);
    let listen = || {
        let namespace = File::open(&path).context(format!("open {}", path.display()))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context(format!("go into {}", path.display()))?;
        // The others' addresses are its loopback's: whoever asks on the bridge who has them must not hear it.
        std::fs::write(ARP_IGNORE, "1").context(format!("write {ARP_IGNORE}"))?;
        addresses.iter().map(|address| listen_at(address)).collect()
    };
    std::thread::scope(|scope| scope.spawn(listen).join())
        .unwrap_or_else(|_| Err(Failure(format!("the thread that listens in {} died", path.display()))))
}

fn listen_at(address: &str) -> Outcome<TcpListener> {
    let listener = TcpListener::bind(address).context(format!("listen on {address}"))?;
    listener.set_nonblocking(true).context("open a proxy")?;
    Ok(listener)
}

/// Takes away what runs left that were killed.
fn sweep() -> Outcome<()> {
    let mut orders = String::new();
    for (folder, prefix, delete) in
        [(NAMESPACES, NAMESPACE, "netns del"), ("/sys/class/net", INTERFACE, "link del")]
    {
        let Ok(entries) = std::fs::read_dir(folder) else { continue }; // no namespace has ever been made
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(prefix).and_then(|rest| rest.split_once('x'));
            let Some(pid) = rest.and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
            if !Path::new(&format!("/proc/{pid}")).exists() {
                let _ = writeln!(orders, "{delete} {name}");
            }
        }
    }
    // An interface goes with the other end of its pair, so that some are gone already.
    if !orders.is_empty() {
        let _ = ip(&["-force"], &orders);
    }
    Ok(())
}

/// Has `ip` carry out orders, one a line.
fn ip(options: &[&str], orders: &str) -> Outcome<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("run `ip`, which makes network namespaces (package iproute2)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(orders.as_bytes()).context("give `ip` its orders")?;
    }
    let output = child.wait_with_output().context("wait for `ip`")?;
    ensure(output.status.success(), || {
        let said = String::from_utf8_lossy(&output.stderr);
        format!(
            "network namespaces cannot be made here (root in a privileged container can): {}",
            said.trim()
        )
    })
}
