//! Strikes a cluster as a round of the plan says, holds, heals, and sees it at work again.

mod by_disk;
mod by_members;
mod by_network;
mod by_process;

use super::clients::Clients;
use super::network::Network;
use super::plan::{Kind, Round};
use crate::cluster::{Cluster, compare_digests};
use crate::failure::{Failure, Outcome, ensure};
use crate::random::Random;
use balsa_wire::cluster::Role;
use std::time::{Duration, Instant};

/// Once a fault is healed, all nodes must be ready, and writes be acknowledged again, within this time.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// So many writes show that they are.
const WRITES_AGAIN: u64 = 20;
/// While a majority hears one another, no longer time may pass without an acknowledged write. Far more than it takes: the
/// bar `failover` is about speed.
const GAP_MAX: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What a round came to.
#[derive(Clone, Debug)]
pub struct Struck {
    /// What was done.
    pub kind: Kind,
    /// To whom and how, in a few words.
    pub what: String,
    /// Operations whose outcome became known meanwhile.
    pub operations: u64,
    /// The longest time without an acknowledged write.
    pub gap: Duration,
    /// From the healing to a cluster that is all at work.
    pub recovery: Duration,
}

/// A cluster under faults and load.
#[derive(Debug)]
pub struct Strikes<'a> {
    cluster: &'a mut Cluster,
    clients: &'a Clients,
    /// The nodes that are members between rounds.
    members: Vec<usize>,
}

impl<'a> Strikes<'a> {
    /// For a cluster all of whose nodes run.
    pub fn new(cluster: &'a mut Cluster, clients: &'a Clients) -> Strikes<'a> {
        let members = cluster.running();
        Strikes { cluster, clients, members }
    }

    /// One round.
    pub async fn strike(&mut self, round: &Round) -> Outcome<Struck> {
        let operations = self.clients.operations();
        self.clients.mark();
        let what = self.carry_out(round).await?;
        let healed = Instant::now();
        self.recover(&what).await?;
        let struck = Struck {
            kind: round.kind,
            what,
            operations: self.clients.operations() - operations,
            gap: self.clients.gap(),
            recovery: healed.elapsed(),
        };
        ensure(!round.kind.leaves_a_majority() || struck.gap <= GAP_MAX, || {
            format!("{}: no write was acknowledged for {:?}", struck.what, struck.gap)
        })?;
        Ok(struck)
    }

    /// Strikes, holds and heals; says what was done.
    async fn carry_out(&mut self, round: &Round) -> Outcome<String> {
        let mut random = round.random.clone();
        let one = self.members[round.victim % self.members.len()];
        match round.kind {
            Kind::KillOne => self.kill(vec![one], round.hold).await,
            Kind::KillLeader => {
                let leader = self.leader().await?;
                self.kill(vec![leader], round.hold).await
            }
            Kind::KillAll => self.kill(self.members.clone(), round.hold.min(Duration::from_secs(1))).await,
            Kind::PauseOne => self.pause(one, round.hold).await,
            Kind::PauseLeader => {
                let leader = self.leader().await?;
                self.pause(leader, round.hold).await
            }
            Kind::RollingRestart => self.restart_in_turn().await,
            Kind::ClockShift => self.shift_clock(one, round.hold, &mut random).await,
            Kind::CutOneWay
            | Kind::CutBothWays
            | Kind::Partition
            | Kind::PartialPartition
            | Kind::IsolateLeader
            | Kind::DeafLeader
            | Kind::MuteLeader
            | Kind::BreakConnections
            | Kind::Delays
            | Kind::Throttle => self.disturb(round, one, &mut random).await,
            Kind::DiskFull => self.fill_disks(vec![one], round.hold).await,
            Kind::DisksFull => self.fill_disks(self.members.clone(), round.hold).await,
            Kind::WriteErrors | Kind::SyncErrors => self.fail_disk(round.kind, one, round.hold).await,
            Kind::SyncStalls => self.stall_disk(round.hold, &mut random).await,
            Kind::PowerLossOne => self.lose_power(vec![one], round.hold, &mut random).await,
            Kind::PowerLossAll => self.lose_power(self.members.clone(), round.hold, &mut random).await,
            Kind::Transfers => self.transfer(round.hold).await,
            Kind::WipedDisk => self.wipe(one).await,
            Kind::MembershipWalk => self.walk().await,
        }
    }

    /// Waits until all nodes are ready and writes are acknowledged; compares digests where indexes happen to be equal.
    async fn recover(&mut self, what: &str) -> Outcome<()> {
        let (healed, before) = (Instant::now(), self.clients.acknowledged());
        self.all_run(what)?;
        while self.clients.acknowledged() < before + WRITES_AGAIN {
            self.all_run(what)?;
            ensure(healed.elapsed() < RECOVERY_MAX, || {
                format!(
                    "{what}: {RECOVERY_MAX:?} after it was healed, {WRITES_AGAIN} writes are not acknowledged"
                )
            })?;
            if self.clients.failed() {
                return Ok(()); // what they found is told when they are gathered
            }
            tokio::time::sleep(LOOK).await;
        }
        for node in self.members.clone() {
            let ready = self.cluster.wait_until_ready(node).await;
            ready.map_err(|Failure(why)| Failure(format!("{what}: {why}")))?;
        }
        let mut states = Vec::new();
        for node in &self.members {
            states.extend(self.cluster.look(*node).await?.map(|seen| (*node, seen.store)));
        }
        compare_digests(&states)
    }

    /// No member has ended by itself.
    fn all_run(&mut self, what: &str) -> Outcome<()> {
        for node in self.members.clone() {
            let ended = self.cluster.process(node).ended()?;
            if ended.is_none() && self.cluster.process(node).pid().is_some() {
                continue;
            }
            let said = self.cluster.process(node).last_words(1);
            return Err(Failure(format!("{what}: node {node} ended by itself ({ended:?}): {said}")));
        }
        Ok(())
    }

    /// Who leads; waits until somebody does.
    async fn leader(&self) -> Outcome<usize> {
        crate::cluster::eventually("a leader to strike", RECOVERY_MAX, async || {
            let mut leader = None;
            for node in &self.members {
                let Some(seen) = self.cluster.look(*node).await? else { continue };
                if seen.role == Role::Leader && leader.is_none_or(|(term, _)| seen.term > term) {
                    leader = Some((seen.term, *node));
                }
            }
            Ok(leader.map(|(_, node)| node))
        })
        .await
    }

    /// A member other than this one.
    fn other(&self, than: usize) -> usize {
        self.members.iter().copied().find(|node| *node != than).unwrap_or(than)
    }

    fn network(&self) -> Outcome<&Network> {
        self.cluster.network()
    }

    /// Lets time pass while the fault holds. Clients that find something end it.
    async fn hold(&self, hold: Duration) {
        let began = Instant::now();
        while began.elapsed() < hold && !self.clients.failed() {
            tokio::time::sleep(LOOK.min(hold.saturating_sub(began.elapsed()))).await;
        }
    }
}

/// Names of nodes, for people.
fn names(nodes: &[usize]) -> String {
    let each: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    format!("{} {}", if nodes.len() == 1 { "node" } else { "nodes" }, each.join(", "))
}

/// A number between these.
fn between(random: &mut Random, low: u64, high: u64) -> Duration {
    Duration::from_millis(random.between(low, high))
}
