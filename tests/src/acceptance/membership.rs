//! `membership`: a cluster goes from one node to five and back under load, again and again, and no client notices.
//!
//! Each time around: 1→3→5, a member's disk is wiped, another is replaced by a new node at its slot (and the old one
//! comes back too late), then 5→3→1, where the leader is among those that go. From the second time on, those that come
//! have the disks that they were removed with. No acknowledged write is lost, none is applied twice, and no operation
//! fails within its deadline.

use super::disk;
use super::failover::ensure_unharmed;
use crate::cluster::{Cluster, PATIENCE, eventually, free_address};
use crate::failure::{Context, Failure, Outcome, ensure};
use balsa_client::failover::{self, Plan};
use balsa_wire::cluster::Phase;
use std::time::{Duration, Instant};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often it goes around.
    pub rounds: u32,
    /// The load meanwhile.
    pub load: Load,
}

/// What clients do meanwhile.
#[derive(Debug, Clone)]
pub struct Load {
    /// Writes a second, and reads a second.
    pub per_second: u32,
    /// Clients that share them.
    pub clients: usize,
}

impl Default for Load {
    fn default() -> Load {
        Load { per_second: 200, clients: 8 }
    }
}

/// The most nodes at one time.
const NODES: usize = 5;
/// The slot whose member's disk is wiped, and the one whose member is replaced.
const WIPED: usize = 1;
const REPLACED: usize = 2;
/// How long the load goes on undisturbed at the beginning and at the end.
const CALM: Duration = Duration::from_secs(1);

/// Runs the bar; gives its figures.
pub async fn run(options: &Options) -> Outcome<String> {
    disk::require_real()?;
    let mut walk = Walk::begin().await?;
    let outcome = walk.go_and_judge(options).await;
    walk.cluster.explain(outcome)
}

/// A cluster on its way.
struct Walk {
    cluster: Cluster,
    /// Where the member of each slot serves clients.
    addresses: Vec<String>,
    /// Which node holds each slot, once one has.
    nodes: Vec<Option<usize>>,
    /// What was done when.
    steps: Vec<(String, Instant)>,
}

impl Walk {
    async fn begin() -> Outcome<Walk> {
        let cluster = Cluster::start(1, &[]).await?;
        let mut addresses = vec![cluster.address(0).to_string()];
        while addresses.len() < NODES {
            addresses.push(free_address()?);
        }
        let nodes = (0..NODES).map(|slot| (slot == 0).then_some(0)).collect();
        Ok(Walk { cluster, addresses, nodes, steps: Vec::new() })
    }

    async fn go_and_judge(&mut self, options: &Options) -> Outcome<String> {
        let Load { per_second, clients } = options.load;
        println!(
            "1 to {NODES} nodes and back {} times, {per_second} writes/s and {per_second} reads/s by {clients} clients",
            options.rounds
        );
        let (writes_per_second, reads_per_second) = (per_second, per_second);
        let plan = Plan { clients, writes_per_second, reads_per_second, ..Plan::new(self.addresses.clone()) };
        let report = failover::under_load(&plan, async || {
            let went = self.go(options.rounds).await;
            went.map_err(|Failure(why)| failover::Failure(why))?;
            Ok(self.steps.iter().map(|(_, at)| *at).collect())
        });
        let report = report.await.context("go around under load")?;
        println!("{report}");
        for ((step, _), gap) in self.steps.iter().zip(&report.gaps) {
            println!("{:>6} ms without a write, at the longest, from: {step}", gap.as_millis());
        }
        self.cluster.wait_until_digests_agree().await?;
        ensure_unharmed(&report)?;
        Ok(format!(
            "{} times 1-3-5-3-1 with a wiped disk and a replaced node, {} writes, 0 lost, 0 twice, 0 errors, longest \
             gap {} ms, longest operation {} ms",
            options.rounds,
            report.writes.ok,
            report.gap_longest.as_millis(),
            report.operation_longest.as_millis()
        ))
    }

    async fn go(&mut self, rounds: u32) -> Outcome<()> {
        tokio::time::sleep(CALM).await;
        for round in 1..=rounds {
            self.grow(&format!("round {round}, to 3"), &[1, 2]).await?;
            self.grow(&format!("round {round}, to 5"), &[3, 4]).await?;
            self.wipe(round).await?;
            self.replace(round).await?;
            for slot in [4, 3] {
                self.shrink(round, slot, slot == 4).await?;
            }
            self.cluster.wait_for_voters(0, 3).await?;
            for slot in [2, 1] {
                self.shrink(round, slot, slot == 1).await?;
            }
            self.cluster.wait_for_voters(0, 1).await?;
        }
        self.step("at rest".to_string());
        tokio::time::sleep(CALM).await;
        Ok(())
    }

    fn step(&mut self, what: String) {
        self.steps.push((what, Instant::now()));
    }

    fn node(&self, slot: usize) -> Outcome<usize> {
        self.nodes[slot].ok_or_else(|| Failure(format!("slot {slot} has had no node yet")))
    }

    /// Starts the nodes of these slots at once, on the disks that they were removed with, if they were.
    async fn grow(&mut self, what: &str, slots: &[usize]) -> Outcome<()> {
        self.step(what.to_string());
        let mut returned = Vec::new();
        for slot in slots {
            match self.nodes[*slot] {
                Some(node) => {
                    self.cluster.restart(node)?;
                    returned.push(node);
                }
                None => {
                    let node = self.cluster.join_as(0, *slot as u32, &self.addresses[*slot])?;
                    self.nodes[*slot] = Some(node);
                }
            }
        }
        self.cluster.wait_for_voters(0, slots.iter().max().map_or(1, |slot| slot + 1)).await?;
        for node in returned {
            let aside = self.cluster.set_aside(node)?;
            let id = self.cluster.identity(node).await?;
            ensure(aside.len() == 1 && !aside[0].contains(&id), || {
                format!("node {node} came back as {id}, having set aside {aside:?}")
            })?;
        }
        Ok(())
    }

    /// A member loses its disk, and comes back at its slot.
    async fn wipe(&mut self, round: u32) -> Outcome<()> {
        let node = self.node(WIPED)?;
        let old = self.cluster.identity(node).await?;
        self.step(format!("round {round}, slot {WIPED} loses its disk"));
        self.cluster.kill(node)?;
        self.cluster.wipe(node)?;
        self.cluster.restart(node)?;
        self.wait_until_gone(&old).await
    }

    /// A member is killed, a new node takes its slot, and the old one comes back.
    async fn replace(&mut self, round: u32) -> Outcome<()> {
        let node = self.node(REPLACED)?;
        let old = self.cluster.identity(node).await?;
        self.step(format!("round {round}, slot {REPLACED} is replaced"));
        self.cluster.kill(node)?;
        let address = free_address()?;
        let new = self.cluster.join_as(0, REPLACED as u32, &address)?;
        self.nodes[REPLACED] = Some(new);
        self.wait_until_gone(&old).await?;
        self.step(format!("round {round}, the old member of slot {REPLACED} comes back"));
        self.cluster.restart(node)?;
        // Its slot is taken: it knows that it is out, and asks in vain.
        let seen = self.cluster.wait_for_phase(node, Phase::Joining).await?;
        ensure(seen.node.as_ref() != Some(&old), || format!("{old} was removed, and is used again"))?;
        self.cluster.kill(node)?;
        self.cluster.wait_for_voters(0, NODES).await.map(|_| ())
    }

    async fn wait_until_gone(&self, id: &str) -> Outcome<()> {
        eventually(&format!("{id} to be replaced"), PATIENCE, async || {
            let seen = self.cluster.look(0).await?;
            Ok(seen.filter(|seen| seen.members.iter().all(|member| member.id != id)).map(|_| ()))
        })
        .await?;
        self.cluster.wait_for_voters(0, NODES).await.map(|_| ())
    }

    /// A member is removed, and then stopped; it may be the leader.
    async fn shrink(&mut self, round: u32, slot: usize, leads: bool) -> Outcome<()> {
        let node = self.node(slot)?;
        if leads {
            self.step(format!("round {round}, leadership goes to slot {slot}"));
            self.cluster.hand_to(node, 0).await?;
        }
        let what = if leads { "the leader" } else { "the member" };
        self.step(format!("round {round}, {what} of slot {slot} is removed"));
        self.cluster.retire(node, 0).await
    }
}
