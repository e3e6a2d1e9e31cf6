//! Not faults, but what an operator does, or has to: leadership handed on, disks replaced, clusters that grow and shrink.

use super::{Strikes, names};
use crate::cluster::{PATIENCE, eventually};
use crate::failure::Outcome;
use crate::http::Ask;
use std::time::{Duration, Instant};

/// The sizes between which a walk goes.
const SMALL: usize = 3;
const LARGE: usize = 5;
/// A new leader leads for so long at least.
const BETWEEN_TRANSFERS: Duration = Duration::from_millis(100);

impl Strikes<'_> {
    pub(super) async fn transfer(&mut self, hold: Duration) -> Outcome<String> {
        let (began, mut times) = (Instant::now(), 0);
        while began.elapsed() < hold {
            let node = self.leader().await?;
            let ask = Ask { method: "POST", ..Ask::put("/v1/cluster/transfer-leadership", "{}") };
            // One that was aborted is tried again.
            let handed = self.cluster.ask(node, ask).await.is_ok_and(|answer| answer.is_success());
            times += u32::from(handed);
            self.hold(BETWEEN_TRANSFERS).await;
        }
        Ok(format!("leadership handed on {times} times"))
    }

    pub(super) async fn wipe(&mut self, victim: usize) -> Outcome<String> {
        let old = self.cluster.identity(victim).await?;
        let by = self.other(victim);
        self.cluster.kill(victim)?;
        self.cluster.wipe(victim)?;
        self.cluster.restart(victim)?;
        eventually(&format!("node {victim} to be replaced"), PATIENCE, async || {
            let seen = self.cluster.look(by).await?;
            Ok(seen.filter(|seen| seen.members.iter().all(|member| member.id != old)).map(|_| ()))
        })
        .await?;
        self.cluster.wait_for_voters(by, self.members.len()).await?;
        Ok(format!("node {victim} lost its disk"))
    }

    pub(super) async fn walk(&mut self) -> Outcome<String> {
        let more: Vec<usize> = (SMALL..LARGE).collect();
        if self.members.len() == SMALL {
            self.grow(&more).await?;
            self.shrink(&more).await?;
            Ok(format!("{} came and went", names(&more)))
        } else {
            self.shrink(&more).await?;
            self.grow(&more).await?;
            Ok(format!("{} went and came", names(&more)))
        }
    }

    /// Starts these, on the disks that they were removed with if they have been there before.
    async fn grow(&mut self, nodes: &[usize]) -> Outcome<()> {
        for node in nodes {
            if *node < self.cluster.size() {
                self.cluster.restart(*node)?;
            } else {
                self.cluster.join(self.members[0])?;
            }
        }
        self.members.extend(nodes);
        self.cluster.wait_for_voters(self.members[0], self.members.len()).await.map(|_| ())
    }

    async fn shrink(&mut self, nodes: &[usize]) -> Outcome<()> {
        for node in nodes.iter().rev() {
            let by = self.members[0];
            self.cluster.wait_for_voters(by, self.members.len()).await?;
            self.cluster.retire(*node, by).await?;
            self.members.retain(|member| member != node);
        }
        self.cluster.wait_for_voters(self.members[0], self.members.len()).await.map(|_| ())
    }
}
