//! What a [`Cluster`]'s members are, and changes of them, over HTTP.

use crate::cluster::{Cluster, PATIENCE, eventually};
use crate::failure::{Context, Outcome, ensure};
use crate::http::Ask;
use balsa_wire::cluster::{ClusterAnswer, Health, Member, MembershipKind, Phase};
use rustix::process::Signal;

impl Cluster {
    /// The identity of a node, once it has one.
    pub async fn identity(&self, node: usize) -> Outcome<String> {
        eventually(&format!("node {node} to know who it is"), PATIENCE, async || {
            Ok(self.look(node).await?.and_then(|seen| seen.node))
        })
        .await
    }

    /// Waits until a leader that node `by` can name has exactly `count` members, all voters that answer and lag little.
    pub async fn wait_for_voters(&self, by: usize, count: usize) -> Outcome<ClusterAnswer> {
        let what = format!("{count} voters, all healthy, as node {by} sees it");
        eventually(&what, PATIENCE, async || {
            let seen = self.look(by).await?;
            Ok(seen.filter(|seen| seen.members.len() == count && seen.members.iter().all(is_well)))
        })
        .await
    }

    /// Removes a member by its identity, asked of node `by`.
    pub async fn remove(&self, by: usize, id: &str) -> Outcome<()> {
        let path = format!("/v1/cluster/members/{id}");
        self.ask_well(by, Ask { method: "DELETE", ..Ask::get(&path) }).await.map(|_| ())
    }

    /// Hands leadership to a node, and waits until node `by` knows.
    pub async fn hand_to(&self, node: usize, by: usize) -> Outcome<()> {
        let id = self.identity(node).await?;
        let body = format!("{{\"to\":\"{id}\"}}");
        let ask = || Ask { method: "POST", ..Ask::put("/v1/cluster/transfer-leadership", &body) };
        eventually(&format!("node {node} to lead"), PATIENCE, async || {
            let leader = self.look(by).await?.and_then(|seen| seen.leader);
            if leader.as_ref() == Some(&id) {
                return Ok(Some(()));
            }
            let _ = self.ask(by, ask()).await; // a transfer that was aborted is tried again
            Ok(None)
        })
        .await
    }

    /// Scales a node in: removes it, waits until it knows, and stops it.
    pub async fn retire(&mut self, node: usize, by: usize) -> Outcome<()> {
        let id = self.identity(node).await?;
        self.remove(by, &id).await?;
        self.wait_for_phase(node, Phase::Removed).await?;
        self.process(node).signal(Signal::TERM)?;
        let status = self.process(node).wait_for_end(PATIENCE).await?;
        ensure(status.success(), || format!("node {node} ended with {status} on SIGTERM"))
    }

    /// Waits until a node says that it stands there in its life; gives what else it said.
    pub async fn wait_for_phase(&self, node: usize, phase: Phase) -> Outcome<ClusterAnswer> {
        eventually(&format!("node {node} to be {phase:?}"), PATIENCE, async || {
            Ok(self.look(node).await?.filter(|seen| seen.phase == phase))
        })
        .await
    }

    /// The folders in which a node has set data of former identities aside.
    pub fn set_aside(&mut self, node: usize) -> Outcome<Vec<String>> {
        let data = &self.process(node).recipe().data;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(data).context("list a data folder")? {
            let name = entry.context("list a data folder")?.file_name().to_string_lossy().into_owned();
            if name.starts_with("removed-") {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn is_well(member: &Member) -> bool {
    member.membership == MembershipKind::Voter
        && member.health == Health::Healthy
        && member.lag.is_some_and(|lag| lag < 1_000)
}
