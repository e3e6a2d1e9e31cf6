//! Strikes the leader of a cluster that this process started, and brings it back.

use crate::cluster::{Cluster, PATIENCE};
use crate::failure::{Failure, Outcome, ensure};
use balsa_client::failover::{Plan, Striker};
use balsa_wire::cluster::Member;
use rustix::process::Signal;

/// How a node is struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// kill -9.
    Kill,
    /// SIGTERM: it hands over, answers what is under way, and ends.
    Terminate,
}

/// A striker on a [`Cluster`].
#[derive(Debug)]
pub struct Strikes<'a> {
    cluster: &'a mut Cluster,
    how: How,
}

impl<'a> Strikes<'a> {
    /// One that strikes nodes of this cluster.
    pub fn new(cluster: &'a mut Cluster, how: How) -> Strikes<'a> {
        Strikes { cluster, how }
    }

    fn find(&self, leader: &Member) -> Outcome<usize> {
        let found =
            (0..self.cluster.size()).find(|node| self.cluster.address(*node) == leader.client_address);
        found
            .ok_or_else(|| Failure(format!("the leader is at {}, which is no node's", leader.client_address)))
    }

    async fn hit(&mut self, leader: &Member) -> Outcome<()> {
        let node = self.find(leader)?;
        match self.how {
            How::Kill => self.cluster.kill(node),
            How::Terminate => self.cluster.process(node).signal(Signal::TERM),
        }
    }

    async fn bring_back(&mut self, leader: &Member) -> Outcome<()> {
        let node = self.find(leader)?;
        if self.how == How::Terminate {
            let status = self.cluster.process(node).wait_for_end(PATIENCE).await?;
            ensure(status.success(), || format!("node {node} ended with {status} on SIGTERM"))?;
        }
        self.cluster.restart(node)?;
        self.cluster.wait_until_ready(node).await
    }
}

impl Striker for Strikes<'_> {
    async fn strike(&mut self, leader: &Member) -> Result<(), String> {
        self.hit(leader).await.map_err(|Failure(why)| why)
    }

    async fn heal(&mut self, leader: &Member) -> Result<(), String> {
        self.bring_back(leader).await.map_err(|Failure(why)| why)
    }
}

/// A failover test's plan against all nodes of a cluster.
pub fn plan(cluster: &Cluster) -> Plan {
    Plan::new((0..cluster.size()).map(|node| cluster.address(node).to_string()))
}
